"""Zip files, read as strictly as the loaders differ: what two readers would see differently is named.

Helper module, not a command.
"""

from __future__ import annotations

import bz2
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from inspection.pickle_reader import Buffer
from inspection.report import CannotJudge

MB = 1024 * 1024
MOST_MEMBERS = 500_000
MOST_UNPACKED = 128 * MB  # of one compressed member; torch.save compresses nothing
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
END64, LOCATOR = b"PK\x06\x06", b"PK\x06\x07"


class BufferFile(io.RawIOBase):
    """A buffer as a file that can be read and sought, without a copy of all of it."""

    def __init__(self, data: Buffer) -> None:
        self.data, self.position = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: len(self.data)}[whence]
        self.position = max(0, start + offset)
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, size: int | None = -1) -> bytes:
        end = len(self.data) if size is None or size < 0 else self.position + size
        found = bytes(self.data[self.position : end])
        self.position += len(found)
        return found

    def readinto(self, target: object) -> int:
        found = self.read(len(target))  # type: ignore[arg-type]
        target[: len(found)] = found  # type: ignore[index]
        return len(found)


@dataclass
class Zip:
    """The table of contents of a zip file, and what is wrong with it."""

    members: list[zipfile.ZipInfo]
    trouble: list[str]  # clauses that start with "it": two readers could see different things
    data: Buffer

    def read(self, member: zipfile.ZipInfo, most: int = MOST_UNPACKED) -> bytes:
        """The bytes of one member, at most `most`. Raises CannotJudge for what is too much or cannot be read.

        Flags and checksums are not looked at, because PyTorch does not look at them either.
        """
        first, last = self.place(member)
        if member.compress_type == zipfile.ZIP_STORED:
            if last - first > most:
                raise CannotJudge(f"it has {last - first} bytes, more than this tool reads")
            return bytes(self.data[first:last])
        if member.file_size > most:
            raise CannotJudge(f"it would unpack to {member.file_size} bytes, more than this tool unpacks")
        unpackers: dict[int, Callable[[], Any]] = {
            zipfile.ZIP_DEFLATED: lambda: zlib.decompressobj(-15),
            zipfile.ZIP_BZIP2: bz2.BZ2Decompressor,
        }
        if member.compress_type not in unpackers:
            raise CannotJudge("it is compressed in a way that this tool does not unpack")
        try:
            found = unpackers[member.compress_type]().decompress(bytes(self.data[first:last]), most + 1)
        except (zlib.error, OSError, EOFError, ValueError) as error:
            raise CannotJudge("it cannot be unpacked, so the archive is damaged") from error
        if len(found) > most:
            raise CannotJudge(f"it unpacks to more than {most} bytes, more than this tool unpacks")
        return bytes(found)

    def place(self, member: zipfile.ZipInfo) -> tuple[int, int]:
        """Where the bytes of a member stand in the file."""
        start = member.header_offset
        head = self.data[start : start + 30]
        if len(head) < 30:
            raise CannotJudge("it lies behind the end of the file, so the archive is damaged")
        name, extra = struct.unpack_from("<HH", head, 26)
        first = start + 30 + name + extra
        return first, min(first + member.compress_size, len(self.data))

    def head(self, member: zipfile.ZipInfo, size: int = 64) -> bytes:
        """The first bytes of a member, or nothing if it cannot be read."""
        try:
            first, last = self.place(member)
            packed = bytes(self.data[first : min(last, first + max(4 * size, 65_536))])
            if member.compress_type == zipfile.ZIP_STORED:
                return packed[:size]
            return zlib.decompressobj(-15).decompress(packed, size)
        except (CannotJudge, zlib.error, struct.error):  # `read` says what is wrong
            return b""


def end_of_zip(data: Buffer) -> int:
    """Where the end record of a zip file begins, as lenient readers look for it; -1 if there is none."""
    size = len(data)
    tail = bytes(data[max(0, size - 22 - 65_535 - 1024) : size])
    place = tail.rfind(END)
    return size - len(tail) + place if place >= 0 and len(tail) - place >= 22 else -1


def open_zip(data: Buffer) -> Zip:
    """Read the table of contents. Raises CannotJudge if there is none that could be true."""
    try:
        end = end_of_zip(data)
        if end < 0:
            raise CannotJudge("it begins like a zip file and has no table of contents: it is cut off")
        trouble = [*trouble_with_end(data, end)]
        if most_members(data, end) > MOST_MEMBERS:
            raise CannotJudge(f"it is a zip file with more than {MOST_MEMBERS} members")
        archive = zipfile.ZipFile(BufferFile(data))
        members = archive.infolist()
        claimed = sum(member.compress_size for member in members)
        if claimed > len(data):  # each would be read again: a small file could keep us busy for hours
            raise CannotJudge(f"it has {len(data)} bytes, and its members claim {claimed}, so they overlap")
        trouble += trouble_with_members(data, members, archive.start_dir)
        return Zip(members, trouble, data)
    except (
        zipfile.BadZipFile,
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        struct.error,
        IndexError,
    ) as error:
        raise CannotJudge("it is a damaged zip file: get it again") from error
    except NotImplementedError as error:
        raise CannotJudge("it is a zip file of a newer kind than this tool reads") from error


def most_members(data: Buffer, end: int) -> int:
    """How many members the table of contents has room for; what it says of their number need not be true."""
    size = struct.unpack_from("<I", data[end : end + 22], 12)[0]
    place = data.find(END64, max(0, end - 20 - 56 - 1024), end)
    if place >= 0:
        size = max(size % 0xFFFFFFFF, struct.unpack_from("<Q", data[place : place + 56], 40)[0])
    return min(size, len(data)) // 47  # the fixed part of an entry has 46 bytes, and a name has one


def trouble_with_end(data: Buffer, end: int) -> Iterable[str]:
    """Where readers that begin at the end would not agree with each other."""
    record = data[end : end + 22]
    disk, first_disk, _, count, size, offset, comment = struct.unpack_from("<HHHHIIH", record, 4)
    if disk or first_disk:
        yield "it says that it is one of several disks"
    if end + 22 + comment != len(data):
        yield "it has bytes behind the end of its zip file that no format explains"
    elif comment:
        yield f"it has {comment} bytes of comment behind its zip file that no model needs"
    locator = data[end - 20 : end] if end >= 20 else b""
    if locator[:4] == LOCATOR:
        place = struct.unpack_from("<Q", locator, 8)[0]
        record = data[place : place + 56]
        if record[:4] != END64 or place + 56 > end - 20 + 0 or len(record) < 56:
            yield "it has two end records that do not agree"
            return
        count64, size64, offset64 = struct.unpack_from("<QQQ", record, 32)
        for short, long, most in (
            (count, count64, 0xFFFF),
            (size, size64, 2**32 - 1),
            (offset, offset64, 2**32 - 1),
        ):
            if short not in (long, most):
                yield "it has two end records that do not agree"
                return
        size, offset, end = size64, offset64, place
    if offset + size != end:
        yield "it has two beginnings: some readers count from the start, some from the end"


def trouble_with_members(data: Buffer, members: list[zipfile.ZipInfo], start_dir: int) -> list[str]:
    """Where the table of contents and the members themselves do not agree, and what lies between them."""
    trouble = []
    names = [member.filename.lower() for member in members]  # PyTorch does not care about capital letters
    if len(set(names)) < len(names):
        trouble.append("it holds two members of the same name, and readers differ in which one they take")
    if any(member.flag_bits & 0x61 for member in members):
        trouble.append(
            "it says that it is encrypted or patched, which some readers heed and PyTorch does not"
        )
    position, hidden, wrong = 0, 0, False
    for member in sorted(members, key=lambda one: one.header_offset):
        head = data[member.header_offset : member.header_offset + 30]
        if len(head) < 30 or head[:4] != LOCAL or member.header_offset < position:
            wrong = True  # not read further: each could point to the same long name
            continue
        flags, method, _, _, _, packed, size, name, extra = struct.unpack_from("<HHHHIIIHH", head, 6)
        own = data[member.header_offset + 30 : member.header_offset + 30 + name]
        encoding = "utf-8" if flags & 0x800 else "cp437"
        wrong |= own.decode(encoding, "replace").split("\0")[0] != member.orig_filename.split("\0")[0]
        wrong |= method != member.compress_type
        if not flags & 8:
            wrong |= size not in (member.file_size, 2**32 - 1) or packed not in (
                member.compress_size,
                2**32 - 1,
            )
        if member.header_offset > position:
            gap = data[position : min(member.header_offset, position + 4096)]
            descriptor = gap[:4] == b"PK\x07\x08" and len(gap) <= 24
            if not (descriptor or len(gap) in (12, 16, 20, 24)):
                hidden += member.header_offset - position
        position = member.header_offset + 30 + name + extra + member.compress_size
        if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            wrong = True
    if position > start_dir:
        wrong = True
    elif start_dir - position > 24:
        hidden += start_dir - position
    if wrong:
        trouble.append("it is a zip file whose table of contents does not agree with its members")
    if hidden:
        trouble.append(f"it holds {hidden} bytes between its members that no format explains")
    return trouble
