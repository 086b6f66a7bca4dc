"""Tar archives and compressed files: what is inside counts.

Helper module, not a command.
"""

from __future__ import annotations

import bz2
import io
import itertools
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable
from typing import Any

from inspection import archives, numpy_states, raw_numbers, recognised
from inspection.content import MB, Content, Look
from inspection.members import check_part, inside
from inspection.pickle_reader import TOO_LONG, Buffer, TooLong, walk
from inspection.pickles import MOST_PICKLES, check_names, one_pickle
from inspection.plain_texts import is_text, printable
from inspection.report import SAFE, UNKNOWN, UNSAFE, CannotJudge, Finding
from inspection.text_models import text_model
from inspection.zips import fits_zip

MOST_UNPACKED = 256 * MB  # of a compressed file
MOST_RATIO = 1100  # what zlib reaches at most
MOST_MEMBERS = 20_000
MOST_EXTRA = 5000  # bytes of a header of tar that extends the next one: a long name, a few times
MOST_STREAMS = 10_000  # compressed ones in a row; blocked gzip has 4,096 in 256 MB
MOST_LATER = 5000  # places in the numbers of an old tar file that look like the beginning of a pickle
LONGEST_LATER = 65_536  # bytes of a pickle that begins there
# members that have no data behind their header, whatever size it says
NO_DATA = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
OLD_TAR = {"storages", "tensors", "pickle", "sys_info"}
OLD_TAR_SAFE = (
    "it is a file of PyTorch before 0.4 (old tar format): its names only hold data, and its numbers are "
    "measured to the last byte; but only torch.load(weights_only=False) reads it"
)
NEMO = (
    "it is an archive of NeMo: its model_config.yaml names classes (target) that NeMo imports and calls, "
    "which is not judged here"
)
SANDBOX = "If you need it, load it in the sandbox (run_sandboxed.sh) and save the weights as SafeTensors."


def fits_tar(data: Buffer) -> bool:
    """Whether the first block is a tar header: the name may be anything, the checksum has to be right."""
    block = bytes(data[0:512])
    if len(block) < 512 or not any(block):
        return False
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        return True
    except (tarfile.TarError, ValueError):
        return False


def check_tar(data: Buffer, where: str, content: Content, look: Look) -> str:
    """A tar archive: of PyTorch before 0.4, of NeMo, or of anything. Members are judged one by one."""
    parts: list[tuple[str, bytes]] = []
    old = False
    check_headers(data)
    try:
        with tarfile.open(fileobj=archives.BufferFile(data), mode="r:") as tar:
            members = few_members(tar)
            names = [member.name.removeprefix("./") for member in members]
            old = {"storages", "tensors", "pickle"} <= set(names)
            unpacked = 0
            for member, name in zip(members, names, strict=True):
                content.in_time()
                place = inside(where, printable(member.name))
                if member.name.startswith("/") or ".." in member.name.split("/") or "\\" in member.name:
                    content.add(UNSAFE, "it would be unpacked outside of the archive's folder", place)
                if member.issym() or member.islnk():
                    content.add(UNKNOWN, f"it is a link to {printable(member.linkname)}", place)
                elif member.isfile():
                    unpacked += member.size
                    if member.size > MOST_UNPACKED or unpacked > 8 * MOST_UNPACKED:
                        content.add(UNKNOWN, f"it has {member.size} bytes, more than this tool reads", place)
                        continue
                    file = tar.extractfile(member)
                    part = file.read() if file else b""
                    if old and name in OLD_TAR:
                        parts.append((name, part))
                    else:
                        check_part(part, place, content, look)
    except (tarfile.TarError, OSError, ValueError, EOFError, OverflowError) as error:
        raise CannotJudge("it is a tar archive that is damaged") from error
    if not old and "model_config.yaml" in names:
        content.findings.insert(0, Finding(UNKNOWN, NEMO, where, recognised.MODELAUDIT))  # it says more
        return "NeMo archive"
    if not old:
        many = f"it is a tar archive of {len(names)} files: unpack it and inspect the folder"
        content.add(UNKNOWN, many, where)
        return "tar archive"
    try:
        if len(parts) != len(members) or not only_members(data, members):
            raise CannotJudge("it holds more than these parts")
        old_tar(dict(parts), where, content)
        content.add(SAFE, OLD_TAR_SAFE, where, SANDBOX)
    except (CannotJudge, TooLong) as error:
        more = str(error) or TOO_LONG
        content.add(UNKNOWN, f"it is a file of PyTorch before 0.4 (old tar format): {more}", where, SANDBOX)
        for name, part in parts:
            old_tar_part(part, inside(where, name), content)
    return "old tar format of PyTorch"


def few_members(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """The table of contents. Raises CannotJudge beyond a limit."""
    members = []
    for member in tar:
        members.append(member)
        if len(members) > MOST_MEMBERS:
            raise CannotJudge(f"it is a tar archive of more than {MOST_MEMBERS} files")
    return members


def check_headers(data: Buffer) -> None:
    """Raise CannotJudge for what makes Python's reader of tar slow: it has no limits of its own.

    A header for all members is copied for each of them, a long one is searched in quadratic time, many in a
    row end in a RecursionError, and a sparse member of one block unpacks to any size.
    """
    position, extra = 0, 0
    while len(block := bytes(data[position : position + 512])) == 512 and any(block):
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError):
            break  # Python's reader stops there, too, or says what is wrong
        kind = header.type
        more = kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
                        tarfile.GNUTYPE_LONGLINK)  # fmt: skip
        text = bytes(data[position + 512 : position + 512 * (1 + -(-header.size // 512))]) if more else b""
        extra = extra + 1 if more else 0
        if header.size < 0 or kind == tarfile.GNUTYPE_SPARSE or b"GNU.sparse" in text or b" size=" in text:
            raise CannotJudge("it is a tar archive with sparse members, or sizes that readers differ in")
        if extra > 5 or len(text) > MOST_EXTRA or (kind == tarfile.XGLTYPE and position > 0):
            raise CannotJudge("it is a tar archive with more extra headers than this tool reads")
        data_blocks = 0 if kind in NO_DATA else -(-header.size // 512)
        position += 512 + 512 * data_blocks


def only_members(data: Buffer, members: list[tarfile.TarInfo]) -> bool:
    """Whether a tar archive holds these members once each, one behind the other, and else only zeros."""
    position = 0
    for member in members:
        end = member.offset_data + member.size
        block = -(-end // 512) * 512
        if member.offset != position or member.offset_data != position + 512:
            return False
        if bytes(data[end:block]).strip(b"\0"):
            return False
        position = block
    names = {member.name.removeprefix("./") for member in members}
    rest = data[position : position + 64 * MB]
    return len(names) == len(members) and not bytes(rest).strip(b"\0") and len(rest) == len(data) - position


def old_tar(parts: dict[str, bytes], where: str, content: Content) -> None:
    """The parts of PyTorch's old tar format, followed to their last byte. Raises CannotJudge."""
    walks = raw_numbers.old_tar_numbers(parts["storages"], parts["tensors"], content.instructions)
    for name in OLD_TAR - {"storages", "tensors"} & parts.keys():
        walks.append(walk(parts[name], 0, content.instructions))
        if not walks[-1].complete or walks[-1].end != len(parts[name]):
            raise CannotJudge(f"its part {name!r} is more than one whole pickle")
        if numpy_states.named(walks[-1].names):
            numpy_states.check_states(parts[name], 0, walks[-1].instructions)
    for found in walks:
        content.instructions -= found.instructions
        content.names |= found.names
        check_names(found, where, content)


def old_tar_part(part: bytes, place: str, content: Content) -> None:
    """The pickles at the start of a member of the old tar format, and any that begins later in it."""
    position = 0
    for number in range(MOST_PICKLES):
        if position >= len(part):
            break
        found = one_pickle(part, position, place, content, number + 1)
        if not found.complete:
            break
        position = found.end
    # numbers come between them, and may look like a pickle: a later one begins with its protocol. Each is
    # followed for a while only: it could have one instruction that reaches to the end
    for match in itertools.islice(re.finditer(rb"\x80[\x02-\x05]", part), MOST_LATER):
        found = walk(part[match.start() : match.start() + LONGEST_LATER], 0, content.instructions)
        content.instructions -= found.instructions
        if found.names or found.hides:
            content.names |= found.names
            check_names(found, place, content)


COMPRESSED: dict[bytes, tuple[str, Callable[[], Any]]] = {
    b"\x1f\x8b": ("gzip", lambda: zlib.decompressobj(31)),
    b"BZh": ("bzip2", bz2.BZ2Decompressor),
    b"\xfd7zXZ": ("xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)),
    b"\x5d\x00": ("lzma", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE)),
    b"\x78": ("zlib", zlib.decompressobj),
}


def compression(data: Buffer) -> str:
    """How the file is compressed, if its beginning can be unpacked; else nothing."""
    head = bytes(data[0:4096])
    for magic, (name, make) in COMPRESSED.items():
        if head.startswith(magic):
            try:
                first = make().decompress(head, 64)
                return name if first or len(data) > 4096 else ""
            except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError):
                return ""
    return ""


def check_compressed(data: Buffer, where: str, content: Content, look: Look) -> str:
    """Unpack, within limits, and check what comes out: compressed joblib, pickle or tar."""
    name = compression(data)
    inner, trouble = unpack(data, name)
    if trouble:
        content.add(UNKNOWN, trouble, where)
    before = content.part()
    model = text_model(inner) if is_text(inner) else None
    look(inner, inside(where, f"unpacked ({name})") if where else f"unpacked ({name})", before)
    content.instructions, content.kept = before.instructions, before.kept
    content.for_scanners = before.for_scanners
    content.findings += before.findings
    content.names |= before.names
    content.pickles += before.pickles
    content.notes += before.notes
    content.limit |= before.limit
    if model:
        content.findings.append(model[1].inside(inside(where, f"unpacked ({name})")))
    elif not before.findings:
        content.add(
            UNKNOWN, f"it is compressed with {name}, and what is inside is not a format known here", where
        )
    is_pickle = bool(before.pickles) and not fits_tar(inner) and not fits_zip(inner)
    return f"compressed pickle (joblib, {name})" if is_pickle else f"compressed with {name}"


def unpack(data: Buffer, name: str) -> tuple[bytes, str]:
    """All that a compressed file holds, or what could be unpacked of it and why not more.

    Raises CannotJudge beyond a limit.
    """
    make = next(make for known, make in COMPRESSED.values() if known == name)
    found, position, unpacker, streams = io.BytesIO(), 0, make(), 1
    most = min(MOST_UNPACKED, MOST_RATIO * len(data) + MB)
    try:
        while position < len(data):
            block = bytes(data[position : position + MB])
            position += len(block)
            while block or not getattr(unpacker, "needs_input", True):
                found.write(unpacker.decompress(block, 8 * MB))
                if found.tell() > most:
                    raise CannotJudge(
                        f"it is compressed with {name} and unpacks to more than {most // MB} MB, more than "
                        "this tool reads"
                    )
                if unpacker.eof:
                    rest = unpacker.unused_data + bytes(data[position : position + 64])
                    if not rest.strip(b"\0"):
                        return found.getvalue(), ""
                    if compression(rest) != name:
                        return (
                            found.getvalue(),
                            f"it has bytes behind its {name} data that no format explains",
                        )
                    streams += 1
                    if streams > MOST_STREAMS:  # for each, the rest of the block is copied
                        raise CannotJudge(f"it is more than {MOST_STREAMS} {name} files in a row")
                    unpacker, block = make(), unpacker.unused_data  # several in a row, as gzip allows
                    continue
                block = getattr(unpacker, "unconsumed_tail", b"")
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError):
        return found.getvalue(), f"it is compressed with {name} and damaged"
    return found.getvalue(), "" if unpacker.eof else f"it is compressed with {name} and cut off"
