"""The formats that are zip files: which of them is it, and what would its loader do?

Helper module, not a command.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

from inspection import archives, numpy_header, raw_numbers
from inspection.archives import Zip
from inspection.content import Content, Look
from inspection.hdf5 import HDF5, hdf5_end
from inspection.keras import keras_config
from inspection.names import disallowed, few
from inspection.pickle_reader import Buffer, walk
from inspection.pickle_values import Values
from inspection.pickles import BREAKS_OFF, one_pickle
from inspection.plain_texts import check_text, is_text
from inspection.report import SAFE, UNKNOWN, UNSAFE, CannotJudge

NPY = b"\x93NUMPY"
ZIP = "zip of torch.save"
SENDER = "Ask the sender for SafeTensors."
WRONG_SIZE = "its header promises another number of bytes than there are"
SCRIPT = "Ask the sender for the state dict as SafeTensors, or run it in the sandbox (run_sandboxed.sh)."


def fits_zip(data: Buffer) -> bool:
    """PyTorch and NumPy decide by the first bytes, other zip tools look at the end."""
    return bytes(data[0:4]) == archives.LOCAL or (archives.end_of_zip(data) >= 0 and is_zip_at_end(data))


def is_zip_at_end(data: Buffer) -> bool:
    """Whether a zip tool would open this by its end."""
    try:
        return zipfile.is_zipfile(archives.BufferFile(data))
    except Exception:  # a damaged one
        return True


def check_zip(data: Buffer, where: str, content: Content, look: Look) -> str:
    """Find out what kind of zip file it is, and check every member that this kind does not explain."""
    archive = archives.open_zip(data)
    content.members += len(archive.members)
    names = [member.filename for member in archive.members]
    lower = {name.lower() for name in names}
    inner = {name.split("/", 1)[1] if "/" in name else name for name in lower}
    kinds = [kind for kind in ZIP_KINDS if kind.fits(lower, inner)]
    for trouble in archive.trouble:
        content.add(UNKNOWN, trouble, where)
    packed = [member for member in archive.members if member.compress_type != zipfile.ZIP_STORED]
    if (promised := sum(member.file_size for member in packed)) > archives.MOST_UNPACKED:
        content.limit = True  # the scanners would unpack it
        if not any(kind.check is check_npz for kind in kinds):  # of arrays only the beginning is unpacked
            content.add(UNKNOWN, f"it would unpack to {promised} bytes, more than this tool unpacks", where)
    if bytes(data[0:4]) != archives.LOCAL:
        content.add(UNKNOWN, "it is a zip file behind something else", where)
    if not kinds:
        check_members(archive, where, content, look, set())
        content.add(
            UNKNOWN,
            f"it is a zip archive of {len(names)} files and not a model format: unpack it and "
            "inspect the folder",
            where,
        )
        return "zip archive"
    for kind in kinds:
        kind.check(archive, where, content, look)
    if len(kinds) > 1:
        both = " and ".join(kind.name for kind in kinds)
        content.add(UNKNOWN, f"it is {both} at once, and which one counts is up to the reader", where)
    return " and ".join(kind.name for kind in kinds)


def inside(where: str, name: str) -> str:
    return f"{where}, {name}" if where else name


def read_member(archive: Zip, member: zipfile.ZipInfo, place: str, content: Content) -> bytes | None:
    """The bytes of a member, or None, with a finding, if it cannot or should not be read."""
    try:
        return archive.read(member)
    except CannotJudge as error:
        content.limit = True
        content.add(UNKNOWN, str(error), place)
        return None


def check_members(archive: Zip, where: str, content: Content, look: Look, explained: set[str]) -> None:
    """Check every member that the format does not explain, as a file of its own."""
    for member in archive.members:
        if member.filename in explained or member.filename.endswith("/"):
            continue
        place = inside(where, member.filename)
        part = read_member(archive, member, place, content)
        if part is None:
            continue
        check_part(part, place, content, look)


def check_part(part: bytes, place: str, content: Content, look: Look) -> None:
    """Check one part of an archive: as any format that fits, or as text."""
    before = len(content.findings)
    look(part, place, content)
    if len(content.findings) > before or not part:
        return
    if is_text(part):
        for finding in check_text(place, part):
            content.findings.append(finding.inside(place))
        return
    content.add(UNKNOWN, f"it has {len(part)} bytes that no format explains", place)


SETTINGS = {  # what torch.save writes beside the pickle and the numbers
    "version": rb"\d{1,3}\n?",
    "byteorder": rb"little|big",
    ".format_version": rb"\d{1,3}",
    ".storage_alignment": rb"\d{1,9}",
    ".data/serialization_id": rb"\d{1,64}",
}


def torch_root(archive: Zip) -> str:
    """The folder of a zip file of torch.save that everything lies in, with its slash."""
    names = (member.filename for member in archive.members)
    return next((n[:-8] for n in names if n.lower().endswith("/data.pkl") and n.count("/") == 1), "")


def check_torch(archive: Zip, where: str, content: Content, look: Look) -> None:
    """The zip file of torch.save: one pickle, its numbers, a few settings. Anything else is not explained."""
    root = torch_root(archive)
    numbers = re.compile(re.escape(root) + r"data/(\d+)", re.I)
    stored: dict[str, int] | None = None
    sizes: dict[str, int] = {}
    for member in archive.members:
        name, place = member.filename, inside(where, member.filename)
        if name.endswith("/"):
            continue
        if match := numbers.fullmatch(name):
            sizes[match[1]] = member.file_size
            continue
        part = read_member(archive, member, place, content)
        if part is None:
            continue
        setting = SETTINGS.get(name.removeprefix(root))
        if setting and re.fullmatch(setting, part):
            continue
        if name.lower().endswith((".pkl", ".pickle")):
            values = Values(part) if name.lower() == root.lower() + "data.pkl" else None
            found = one_pickle(part, 0, place, content, values=values)
            if not found.complete:
                content.add(UNKNOWN, BREAKS_OFF, place)
            elif found.end < len(part):
                behind = f"it has {len(part) - found.end} bytes behind its pickle that no format explains"
                content.add(UNKNOWN, behind, place)
            if values and found.complete:
                try:
                    stored = raw_numbers.sizes_named(values)
                except CannotJudge as error:
                    content.add(UNKNOWN, str(error), place)
            continue
        check_part(part, place, content, look)
        if not name.lower().endswith((".json", ".txt", ".md", ".yaml", ".yml")):
            content.add(UNKNOWN, "it is a part that torch.save does not write", place)
    if stored is not None and sizes != stored:
        wrong = sorted(key for key in sizes.keys() | stored.keys() if sizes.get(key) != stored.get(key))
        content.add(UNKNOWN, f"its numbers are not those that its pickle names: data/{few(wrong)}", where)


def check_torchscript(archive: Zip, where: str, content: Content, look: Look) -> None:
    """TorchScript: a program of its own for torch.jit.load. Python does not run its pickles."""
    for member in archive.members:
        if not member.filename.lower().endswith((".pkl", ".pickle")):
            continue
        place = inside(where, member.filename)
        part = read_member(archive, member, place, content)
        if part is None:
            continue
        found = walk(part, 0, content.instructions)
        content.instructions -= found.instructions
        found.names = {
            name for name in found.names if not name.startswith(("__torch__.", "torch.jit._pickle."))
        }
        content.names |= found.names
        bad = disallowed(found.names)
        if bad or found.hides:
            content.add(
                UNSAFE,
                f"it imports {few(bad) or 'a name that it puts together'}, which TorchScript does not need",
                place,
            )
    content.add(
        UNKNOWN,
        "it is TorchScript, a program that torch.jit.load compiles; its code is not judged here",
        where,
        SCRIPT,
    )


def check_pt2(archive: Zip, where: str, content: Content, look: Look) -> None:
    """torch.export's archive: a member can be an archive itself, and the loader unpickles some."""
    for member in archive.members:
        name = member.filename.lower()
        raw = re.search(r"(^|/)(weights|constants)/[^/]*(weight|tensor|constant)\w*_?\d+$", name)
        if member.filename.endswith("/") or (raw and not looks_packed(archive.head(member))):
            continue  # numbers
        place = inside(where, member.filename)
        part = read_member(archive, member, place, content)
        if part is None:
            continue
        if re.search(r"\.(so|cpp|cu|ptx|cubin|hsaco|dll|dylib)$", name):
            content.add(
                UNSAFE, "it is compiled or source code, which loading a package of AOTInductor runs", place
            )
            continue
        before = len(content.findings)
        look(part, place, content)
        if (
            len(content.findings) == before
            and not is_text(part)
            and not re.search(r"(weights|constants)/", name)
        ):
            content.add(UNKNOWN, f"it has {len(part)} bytes that no format explains", place)
    content.add(
        UNKNOWN,
        "it is a program of torch.export (.pt2), which is not judged here: its graph names functions and "
        "formulas, and torch.export.load evaluates them; it also unpickles its sample inputs and falls back "
        "to weights_only=False by itself",
        where,
        SCRIPT,
    )


def check_package(archive: Zip, where: str, content: Content, look: Look) -> None:
    """torch.package: Python source and pickles that import it."""
    check_members(archive, where, content, look, set())
    content.add(
        UNSAFE,
        "it is an archive of torch.package, which brings Python code and runs it when it is imported",
        where,
    )


def check_npz(archive: Zip, where: str, content: Content, look: Look) -> None:
    """NumPy's archive of arrays: each member is an array file, and arrays of objects are pickles."""
    for member in archive.members:
        place = inside(where, member.filename)
        head = archive.head(member, 4096)
        try:
            if head[:6] == NPY:
                # the numbers need not be unpacked: only arrays of objects hold more than numbers
                header, start = numpy_header.npy_header(
                    head if member.file_size > 4096 else archive.read(member)
                )
                if not numpy_header.has_objects(header.get("descr")):
                    if start + numpy_header.array_bytes(header) == member.file_size:
                        content.add(SAFE, "it is an array of numbers", place)
                    else:
                        content.add(UNKNOWN, WRONG_SIZE, place)
                    continue
            check_part(archive.read(member), place, content, look)
        except CannotJudge as error:
            content.add(UNKNOWN, str(error), place)


def check_keras(archive: Zip, where: str, content: Content, look: Look) -> None:
    """Keras 3: the configuration says which layers are made, the weights are HDF5."""
    for member in archive.members:
        place, name = inside(where, member.filename), member.filename.lower()
        try:
            if name.endswith("config.json"):
                content.findings.append(
                    keras_config(archive.read(member).decode("utf-8", "replace")).inside(place)
                )
            elif name.endswith(".weights.h5") and archive.head(member)[:8] == HDF5:
                weights = archive.read(member)
                if re.search(rb"(?i)class_name|lambda|\.\./|external", weights):
                    content.add(
                        UNKNOWN, "it is HDF5 with more than weights in it, which is not judged here", place
                    )
                if hdf5_end(weights) != len(weights):
                    content.add(UNKNOWN, "it is HDF5 that does not end where its header says", place)
            elif name.endswith("metadata.json"):
                archive.read(member)
            else:
                check_part(archive.read(member), place, content, look)
        except CannotJudge as error:
            content.add(UNKNOWN, str(error), place)


def not_judged(what: str, tool: str) -> Callable[[Zip, str, Content, Look], None]:
    """A kind of zip file that is recognised and not judged; its parts are looked at all the same."""

    def check(archive: Zip, where: str, content: Content, look: Look) -> None:
        check_members(archive, where, content, look, set())
        content.add(UNKNOWN, f"it is {what}, which is not judged here", where, tool)

    return check


@dataclass(frozen=True)
class ZipKind:
    """A format that is a zip file: how to know it (by all names, by those in its folder), how to check it."""

    name: str
    fits: Callable[[set[str], set[str]], bool]
    check: Callable[[Zip, str, Content, Look], None]


def has_code(inner: set[str]) -> bool:
    return "constants.pkl" in inner or any(name.startswith("code/") for name in inner)


def is_pt2(inner: set[str]) -> bool:
    return (
        "archive_format" in inner
        or any(re.fullmatch(r"(.*/)?models/[^/]+\.json", name) for name in inner)
        or {"serialized_exported_program.json"} <= inner
    )


def is_package(inner: set[str]) -> bool:
    return ".data/extern_modules" in inner or ".data/python_version" in inner


ZIP_KINDS = [
    ZipKind("TorchScript", lambda names, inner: has_code(inner) and not is_pt2(inner), check_torchscript),
    ZipKind("torch.export archive (.pt2)", lambda names, inner: is_pt2(inner), check_pt2),
    ZipKind("torch.package archive", lambda names, inner: is_package(inner), check_package),
    ZipKind(ZIP, lambda names, inner: any(name.endswith((".pkl", ".pickle")) for name in names)
            and not (has_code(inner) and not is_pt2(inner)) and not is_package(inner)
            and ("data.pkl" in inner or not is_pt2(inner)), check_torch),
    ZipKind("NumPy archive (.npz)", lambda names, inner: any(
        one.endswith(".npy") for one in names), check_npz),
    ZipKind("Keras model", lambda names, inner: "config.json" in names and (
        "metadata.json" in names or any(name.endswith(".weights.h5") for name in names)), check_keras),
    ZipKind("skops file", lambda names, inner: "schema.json" in names,
            not_judged("a skops file", "skops.io.get_untrusted_types names the types that it asks for.")),
    ZipKind("TorchServe archive (.mar)", lambda names, inner: "mar-inf/manifest.json" in names,
            not_judged("an archive for TorchServe, which brings Python code (its handler)", SENDER)),
]  # fmt: skip


def looks_packed(head: bytes) -> bool:
    """Whether a part begins as an archive or a pickle does."""
    return head[:4] in (archives.LOCAL,) or (head[:1] == b"\x80" and head[1:2] <= b"\x05")
