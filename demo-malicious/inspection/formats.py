"""Which formats fit these bytes, and what each one's loader would do with them.

Helper module, not a command. One file can have several readers: a valid SafeTensors file can be a pickle as
well. So every format is tried at every place where its loader looks, the parts of archives too, and
all that fit are judged. What is recognised and not judged is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from inspection import gguf, hdf5, messages, numpy_header, onnx_graph, recognised, safetensors_header
from inspection.content import Content, Look
from inspection.members import inside
from inspection.pickle_reader import TOO_LONG, Buffer, TooLong
from inspection.pickles import MSGPACK, bare_pickles, stream
from inspection.plain_texts import is_text
from inspection.recognised import magic
from inspection.report import SAFE, UNKNOWN, CannotJudge, Finding
from inspection.text_models import text_model
from inspection.wrappers import check_compressed, check_tar, compression, fits_tar
from inspection.zips import NPY, WRONG_SIZE, check_zip, fits_zip

SAFETENSORS = "SafeTensors"
Check = Callable[[Buffer, str, Content, Look], str]
MOST_DEPTH = 5  # archives in archives


def look(data: Buffer, where: str = "", content: Content | None = None, depth: int = 0) -> Content:
    """Try every format on these bytes. The findings stand in the content; an empty list means: none fits."""
    content = content or Content()
    if depth:
        content.in_time()
    content.count_for_scanners(data)
    if depth > MOST_DEPTH:
        content.add(UNKNOWN, f"it has more than {MOST_DEPTH} archives in each other", where)
        return content

    def deeper(part: Buffer, place: str, findings: Content) -> None:
        look(part, place, findings, depth + 1)

    found: list[str] = []
    for usual_name, fits, check in READERS:
        if not fits(data):
            continue
        name = usual_name
        try:
            name = check(data, where, content, deeper) or usual_name
        except CannotJudge as error:
            content.limit = True
            content.add(UNKNOWN, str(error), where)
        except TooLong:
            content.limit = True
            content.add(UNKNOWN, TOO_LONG, where)
        found.append(name)
    if name := bare_pickles(data, where, content, found):
        found.append(name)
    if not found and not where and is_text(data) and (model := text_model(bytes(data[0 : len(data)]))):
        found.append(model[0])
        content.findings.append(model[1])
    if len(found) > 1:
        both = f"it is {' and '.join(found)} at once, and which one counts is up to the reader"
        content.findings.insert(0, Finding(UNKNOWN, both, where))
    if not where:
        content.formats = found
    return content


def check_safetensors(data: Buffer, where: str, content: Content, deeper: Look) -> str:
    rows, finding = safetensors_header.safetensors(data)
    content.tensors += rows
    content.findings.append(finding.inside(where) if where else finding)
    return SAFETENSORS


def check_npy(data: Buffer, where: str, content: Content, deeper: Look) -> str:
    """An array file. An array of objects is a pickle behind the header."""
    header, start = numpy_header.npy_header(data)
    if numpy_header.has_objects(header.get("descr")):
        content.notes.append(
            "it is an array of objects, which is a pickle: numpy.load runs it with allow_pickle=True"
        )
        stream(data, start, inside(where, "array of objects") if where else "array of objects", content)
        return "NumPy array of objects"
    size = numpy_header.array_bytes(header)
    if start + size != len(data):
        content.add(UNKNOWN, WRONG_SIZE, where)
    else:
        content.add(SAFE, "it is an array of numbers", where)
    return "NumPy array"


def check_with(reader: Callable[[Buffer], Finding]) -> Check:
    def check(data: Buffer, where: str, content: Content, deeper: Look) -> str:
        finding = reader(data)
        content.findings.append(finding.inside(where) if where else finding)
        return ""

    return check


def refuse(answer: str, reason: str, help: str = "") -> Check:
    def check(data: Buffer, where: str, content: Content, deeper: Look) -> str:
        content.add(answer, reason, where, help)
        return ""

    return check


LFS = b"version https://git-lfs.github.com/spec/"


def is_msgpack(data: Buffer) -> bool:
    """Whether it begins as a map of msgpack whose first key is a text, as Flax and others save models."""
    head = bytes(data[0:70])
    if head[:1] in (b"\xde", b"\xdf"):  # a map with many entries: 2 or 4 bytes say how many
        head = head[3 if head[:1] == b"\xde" else 5 :]
    elif head[:1] and 0x81 <= head[0] <= 0x8F:
        head = head[1:]
    else:
        return False
    size = head[0] - 0xA0 if head and 0xA1 <= head[0] <= 0xBF else head[1] if head[:1] == b"\xd9" else 0
    start = 2 if head[:1] == b"\xd9" else 1
    return size > 0 and re.fullmatch(rb"[\w./:@ -]+", head[start : start + min(size, 60)]) is not None


# name, does it fit, check: adds findings and may give a better name
READERS: list[tuple[str, Callable[[Buffer], bool], Check]] = [
    ("zip archive", fits_zip, check_zip),
    (SAFETENSORS, safetensors_header.is_safetensors, check_safetensors),
    ("tar archive", fits_tar, check_tar),
    ("compressed", lambda data: bool(compression(data)), check_compressed),
    ("NumPy array", magic(NPY), check_npy),
    ("HDF5", lambda data: hdf5.hdf5_places(data) >= 0, hdf5.check_hdf5),
    ("GGUF", magic(b"GGUF"), check_with(gguf.gguf)),
    ("ONNX", onnx_graph.is_onnx, check_with(onnx_graph.onnx)),
    ("SentencePiece vocabulary", messages.is_vocabulary, refuse(
        SAFE, "it is a vocabulary of SentencePiece: texts and scores")),
    ("TensorFlow graph or SavedModel", messages.is_saved_model, messages.check_saved_model),
    ("pointer of Git LFS", lambda data: bytes(data[0:42]).startswith(LFS), refuse(
        UNKNOWN, "it is a pointer of Git LFS: the file itself is not here",
        "Get it with `git lfs pull`, or download it, and inspect it then.")),
    (MSGPACK, is_msgpack, refuse(
        UNKNOWN, f"it is {MSGPACK}, which is not judged here", recognised.MODELAUDIT)),
    *((kind.name, kind.fits, refuse(kind.answer, kind.sentence, kind.help)) for kind in recognised.KINDS),
]  # fmt: skip
