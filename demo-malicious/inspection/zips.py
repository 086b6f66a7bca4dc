"""The formats that are zip files: which of them is it, and what would its loader do?

Helper module, not a command.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

from inspection import archives, numpy_header, torch_zips
from inspection.archives import Zip
from inspection.content import Content, Look
from inspection.hdf5 import HDF5, hdf5_end, reads_elsewhere
from inspection.keras import keras_config
from inspection.members import check_members, check_part, inside
from inspection.pickle_reader import Buffer
from inspection.report import SAFE, UNKNOWN, CannotJudge

NPY = b"\x93NUMPY"
ZIP = "zip of torch.save"
SENDER = "Ask the sender for SafeTensors."
WRONG_SIZE = "its header promises another number of bytes than there are"


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


def check_npz(archive: Zip, where: str, content: Content, look: Look) -> None:
    """NumPy's archive of arrays: each member is an array file, and arrays of objects are pickles."""
    for member in archive.members:
        content.in_time()
        place = inside(where, member.filename)
        head = archive.head(member, 12)
        try:
            if head[:6] == NPY:
                # the numbers need not be unpacked: only arrays of objects hold more than numbers
                head = archive.head(member, numpy_header.header_end(head))
                header, start = numpy_header.npy_header(head)
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
        content.in_time()
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
                if reads_elsewhere(weights):
                    content.add(UNKNOWN, "it is HDF5 that takes numbers from another file", place, SENDER)
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


ZIP_KINDS = [
    ZipKind("TorchScript", lambda _, inner: torch_zips.is_torchscript(inner), torch_zips.check_torchscript),
    ZipKind("torch.export archive (.pt2)", lambda _, inner: torch_zips.is_pt2(inner), torch_zips.check_pt2),
    ZipKind("torch.package archive", lambda _, inner: torch_zips.is_package(inner), torch_zips.check_package),
    ZipKind(ZIP, torch_zips.is_saved, torch_zips.check_torch),
    ZipKind("NumPy archive (.npz)", lambda names, inner: any(
        one.endswith(".npy") for one in names), check_npz),
    ZipKind("Keras model", lambda names, inner: "config.json" in names and (
        "metadata.json" in names or any(name.endswith(".weights.h5") for name in names)), check_keras),
    ZipKind("skops file", lambda names, inner: "schema.json" in names,
            not_judged("a skops file", "skops.io.get_untrusted_types names the types that it asks for.")),
    ZipKind("TorchServe archive (.mar)", lambda names, inner: "mar-inf/manifest.json" in names,
            not_judged("an archive for TorchServe, which brings Python code (its handler)", SENDER)),
]  # fmt: skip
