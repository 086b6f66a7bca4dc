"""Which formats fit these bytes, and what each one's loader would do with them.

Helper module, not a command. One file can have several readers: a valid SafeTensors file can be a pickle as
well. So every format is tried at every place where its loader looks, the parts of archives too, and
all that fit are judged. What is recognised and not judged is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from inspection import gguf, numpy_header, onnx_graph, protobuf, safetensors_header
from inspection.content import MB, Content, Look
from inspection.keras import KERAS_RUNS
from inspection.pickle_reader import MOST_INSTRUCTIONS, Buffer, TooLong
from inspection.pickles import MSGPACK, bare_pickles, stream
from inspection.report import SAFE, UNKNOWN, UNSAFE, CannotJudge, Finding
from inspection.wrappers import check_compressed, check_tar, compression, fits_tar
from inspection.zips import HDF5, NPY, SENDER, WRONG_SIZE, check_zip, fits_zip, inside

SAFETENSORS = "SafeTensors"
Check = Callable[[Buffer, str, Content, Look], str]
MOST_DEPTH = 5  # archives in archives


def look(data: Buffer, where: str = "", content: Content | None = None, depth: int = 0) -> Content:
    """Try every format on these bytes. The findings stand in the content; an empty list means: none fits."""
    content = content or Content()
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
            content.add(
                UNKNOWN,
                f"it has more than {MOST_INSTRUCTIONS} instructions, more than this tool follows",
                where,
            )
        found.append(name)
    if name := bare_pickles(data, where, content, found):
        found.append(name)
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


def hdf5_places(data: Buffer) -> int:
    """HDF5 may begin at 0, 512, 1024, 2048 and so on. Gives the place, or -1."""
    place = 0
    while place < len(data):
        if bytes(data[place : place + 8]) == HDF5:
            return place
        place = max(512, 2 * place)
    return -1


def check_hdf5(data: Buffer, where: str, content: Content, deeper: Look) -> str:
    """HDF5: recognised, searched for a Lambda layer, and not judged beyond that."""
    if hdf5_places(data) > 0:
        content.add(UNKNOWN, "it is HDF5 behind something else", where)
    keras, runs = keras_layers(data)
    if runs:
        content.add(UNSAFE, f"it is a Keras model (HDF5) with {KERAS_RUNS[runs]}", where)
    else:
        kind = "a Keras model or weights (HDF5)" if keras else "HDF5"
        content.add(
            UNKNOWN,
            f"it is {kind}, which is not judged here; modelscan looks for Lambda layers in it",
            where,
            "Load weights only, into a model that you build yourself, with Keras's safe mode on.",
        )
    return "HDF5"


def keras_layers(data: Buffer) -> tuple[bool, str]:
    """Whether there are settings of a Keras model in these bytes, and a layer in them that runs code."""
    position, keras = 0, False
    while position < len(data):  # in pieces that overlap
        piece = bytes(data[position : position + 8 * MB])
        keras |= b"model_config" in piece or b"keras_version" in piece or b"_tf_keras" in piece
        if match := KERAS_LAYER.search(piece):
            return True, match[1].decode()
        position += 8 * MB - 4096 if len(piece) == 8 * MB else len(piece)
    return keras, ""


def check_saved_model(data: Buffer, where: str, content: Content, deeper: Look) -> str:
    """TensorFlow: recognised, searched for a Lambda layer of Keras, and not judged beyond that."""
    keras, runs = keras_layers(data)
    if runs:
        content.add(UNSAFE, f"it is a Keras model (SavedModel) with {KERAS_RUNS[runs]}", where)
        return ""
    kind = "the Keras part of a SavedModel" if keras else "a TensorFlow graph or SavedModel"
    content.add(
        UNKNOWN,
        f"it is {kind}, which is not judged here; modelscan looks for operators that read and write files",
        where,
        "Ask the sender for SafeTensors or ONNX, or run it in a sandbox.",
    )
    return ""


def magic(*starts: bytes, at: int = 0) -> Callable[[Buffer], bool]:
    return lambda data: bytes(data[at : at + 16]).startswith(starts)


def refuse(answer: str, reason: str, help: str = "") -> Check:
    def check(data: Buffer, where: str, content: Content, deeper: Look) -> str:
        content.add(answer, reason, where, help)
        return ""

    return check


KERAS_LAYER = re.compile(rb'"class_name"\s*:\s*"(Lambda|TFSMLayer|TorchModuleWrapper|__lambda__)"')
LFS = b"version https://git-lfs.github.com/spec/"
UNPACK = "Unpack it and inspect the folder."
# formats that are only recognised: name, how they begin, and where
NOT_JUDGED = [
    ("TensorFlow Lite", b"TFL3", 4), ("ExecuTorch", b"ET12", 4), ("ExecuTorch", b"ET13", 4),
    ("PyTorch Mobile", b"PTMF", 4), ("ONNX Runtime's own format", b"ORTM", 4), ("TensorRT", b"ptrt", 0),
    ("TensorRT", b"ftrt", 0), ("CatBoost", b"CBM1", 0), ("MATLAB", b"MATLAB 5.0 MAT-f", 0),
    ("Parquet", b"PAR1", 0), ("Arrow", b"ARROW1", 0), ("SQLite", b"SQLite format 3\0", 0),
    ("XGBoost (UBJSON)", b"{L\0\0\0\0\0\0\0\x07learn", 0), ("MXNet", b"\x12\x01" + bytes(14), 0),
    ("a file of Java objects", b"\xac\xed\0\x05", 0), ("data of R", b"RDX", 0),
    ("data of R", b"X\n\0\0\0", 0),
]  # fmt: skip


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
    ("HDF5", lambda data: hdf5_places(data) >= 0, check_hdf5),
    ("GGUF", magic(b"GGUF"), check_with(gguf.gguf)),
    ("ONNX", onnx_graph.is_onnx, check_with(onnx_graph.onnx)),
    ("SentencePiece vocabulary", protobuf.is_vocabulary, refuse(
        SAFE, "it is a vocabulary of SentencePiece: texts and scores")),
    ("TensorFlow graph or SavedModel", protobuf.is_saved_model, check_saved_model),
    ("pointer of Git LFS", lambda data: bytes(data[0:42]).startswith(LFS), refuse(
        UNKNOWN, "it is a pointer of Git LFS: the file itself is not here",
        "Get it with `git lfs pull`, or download it, and inspect it then.")),
    ("ggml", magic(b"lmgg", b"fmgg", b"tjgg", b"algg", b"ggml", b"ggmf", b"ggjt"), refuse(
        UNKNOWN, "it is a file of ggml before GGUF, which is not judged here", "Ask the sender for GGUF.")),
    *((name, magic(start, at=at), refuse(UNKNOWN, f"it is {name}, which is not judged here"))
      for name, start, at in NOT_JUDGED),
    (MSGPACK, is_msgpack, refuse(UNKNOWN, f"it is {MSGPACK}, which is not judged here")),
    ("7z archive", magic(b"7z\xbc\xaf\x27\x1c"), refuse(
        UNKNOWN, "it is a 7z archive, which is not judged here", UNPACK)),
    ("RAR archive", magic(b"Rar!\x1a\x07"), refuse(
        UNKNOWN, "it is a RAR archive, which is not judged here", UNPACK)),
    ("lz4", magic(b"\x04\x22\x4d\x18"), refuse(
        UNKNOWN, "it is compressed with lz4, as joblib can do; it is not unpacked here", UNPACK)),
    ("zstd", magic(b"\x28\xb5\x2f\xfd"), refuse(
        UNKNOWN, "it is compressed with zstd; it is not unpacked here", UNPACK)),
    ("old joblib", magic(b"ZF"), refuse(
        UNKNOWN, "it is compressed as by joblib before 0.10, which is not judged here", SENDER)),
    ("program", magic(b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa", b"\xca\xfe\xba\xbe", b"MZ"), refuse(
        UNSAFE, "it is a program or a library of machine code, not a model")),
    ("script", magic(b"#!"), refuse(UNSAFE, "it is a script, not a model")),
]  # fmt: skip
