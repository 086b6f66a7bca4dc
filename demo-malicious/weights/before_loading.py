"""What is looked at before PyTorch reads a file: its format, code in it, and the sizes that it declares.

Helper module, not a command. PyTorch's safe mode stops code and not waste: a file of some megabytes can ask
it for gigabytes.
"""

from __future__ import annotations

import mmap
import zipfile
import zlib
from pathlib import Path

import cli
from inspection import numpy_states
from inspection.formats import look
from inspection.numpy_types import makes_arrays
from inspection.pickle_reader import Buffer, TooLong, walk
from inspection.pickle_values import Values
from inspection.pickles import CALLS_ARRAYS, OLD_STREAM, STREAM
from inspection.plain_texts import printable
from inspection.report import UNSAFE, CannotJudge
from inspection.zips import ZIP

MB = 1_000_000
# of names and shapes; the numbers stand elsewhere. A ResNet18 has 0.015 MB and 5,000 instructions, a model
# with 36,096 tensors 5 MB and a million
LARGEST_PICKLE = 32 * MB
MOST_INSTRUCTIONS = 1_500_000  # PyTorch's safe reader takes a second for a million
BLOCK = 16 * MB  # of a checksum at a time


class RefusedError(cli.UserError):
    """The file wants to import something that no model needs: it holds code, and that was not run."""


def check_format(path: Path) -> None:
    """Look at the format and at the sizes that it declares, before anything is read by them.

    Raises UserError that names a format which is none of torch.save's, RefusedError if there is code in it.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        is_zip = data[:4] == b"PK\x03\x04"  # PyTorch decides by these four bytes, so we do
        if is_zip:
            check_list(path)
        content = look(data)
        if content.formats and not set(content.formats) <= {ZIP, STREAM, OLD_STREAM}:
            unsafe = next((one for one in content.findings if one.answer == UNSAFE), None)
            if unsafe:
                why = printable(str(unsafe))  # names in a hostile file must not steer the terminal
                raise RefusedError(f"{path} was refused and not run: {why}. Do not use this file.")
            hints = [one.help for one in content.findings if one.help]
            raise cli.UserError(
                f"{path} is {' and '.join(content.formats)}, a format that is not read as weights here. "
                f"{hints[0] if hints else 'Ask the sender for SafeTensors.'}"
            )
        if is_zip:
            check_zip(path, data)
        else:
            check_stream(path, data)


def not_valid(path: Path, why: str) -> cli.UserError:
    return cli.UserError(f"{path} is not a valid zip file of torch.save ({why}): do not use this file.")


def check_list(path: Path) -> None:
    """The list of contents is short enough to be read (UserError)."""
    with path.open("rb") as file:  # a private function, because the public ones read the whole list
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    size = end[zipfile._ECD_SIZE] if end else 0  # type: ignore[attr-defined]
    if size > LARGEST_PICKLE:
        raise not_valid(path, f"its list of contents has {size} bytes")


def check_zip(path: Path, data: mmap.mmap) -> None:
    """The zip file of torch.save holds each thing once, not packed, with a right checksum (UserError)."""

    def expect(true: bool, otherwise: str) -> None:
        if not true:
            raise not_valid(path, otherwise)

    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = {member.filename for member in members}
        expect(len(names) == len(members), "it holds two things of one name")
        # PyTorch counts from the first byte, Python from the end: both must mean the same things
        expect(min(member.header_offset for member in members) == 0, "its beginning is something else")
        expect(
            all(member.compress_type == zipfile.ZIP_STORED for member in members), "it is packed, a zip bomb?"
        )
        total = sum(member.file_size for member in members)
        expect(total <= path.stat().st_size, f"it claims to hold {total} bytes, a zip bomb?")
        expect(
            not any(name.startswith("/") or ".." in Path(name).parts for name in names),
            "it holds names outside of its own folder",
        )
        pickles = [member for member in members if member.filename.endswith(".pkl")]
        expect(bool(pickles), "there is no pickle in it")
        largest = max(member.file_size for member in pickles)
        expect(largest <= LARGEST_PICKLE, f"its pickle has {largest} bytes")
        # PyTorch does not look at the checksums, so it would take damaged numbers for good ones
        intact = all(right_checksum(member, data) for member in members)
        expect(intact, "a checksum is wrong, so it is damaged")
        left = MOST_INSTRUCTIONS  # of all pickles together
        for member in pickles:
            left = check_instructions(path, archive.read(member), 1, left)


def right_checksum(member: zipfile.ZipInfo, data: mmap.mmap) -> bool:
    """Whether the bytes of a member that is not packed have the checksum that the table promises."""
    start = member.header_offset
    name, extra = (int.from_bytes(data[start + place : start + place + 2], "little") for place in (26, 28))
    first = start + 30 + name + extra
    checksum = 0
    with memoryview(data) as view:
        for position in range(first, first + member.file_size, BLOCK):
            checksum = zlib.crc32(view[position : min(position + BLOCK, first + member.file_size)], checksum)
    return checksum == member.CRC


def check_stream(path: Path, data: Buffer) -> None:
    """In the format before PyTorch 1.6, five pickles in a row, these are of a reasonable size (UserError)."""
    check_instructions(path, data, 5)


def check_instructions(path: Path, data: Buffer, pickles: int, left: int = MOST_INSTRUCTIONS) -> int:
    """So many pickles in a row have no more instructions than a large model needs (UserError).

    Gives how many are left. The values are followed as well, because one instruction can copy a large one.
    """
    position, values = 0, Values(data)
    try:
        for _ in range(pickles):
            found = walk(data, position, left, values)
            position, left = found.end, left - found.instructions
            if not found.complete:  # damaged: PyTorch says so
                break
            if makes_arrays(found.called, found.names):
                raise CannotJudge(CALLS_ARRAYS)
            if numpy_states.named(found.names):
                numpy_states.check_states(data, found.start, found.instructions)
    except CannotJudge as error:
        raise cli.UserError(f"{path} is not a file of torch.save ({error}): do not use this file.") from error
    except TooLong:
        position = len(data)
        left = -1
    if left < 0 or position > LARGEST_PICKLE:
        raise cli.UserError(
            f"{path} is not a valid file of torch.save (or a far too large one: its pickles have more than "
            f"{MOST_INSTRUCTIONS} instructions or {LARGEST_PICKLE} bytes): do not use this file."
        )
    return left
