"""Formats with a header that names everything: SafeTensors, GGUF, ONNX, NumPy. Small, careful readers.

Helper module, not a command. Packages of these formats bring hundreds of megabytes or run what they read,
and a header is enough to say whether anything in the file can run.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from inspection.names import few
from inspection.pickle_reader import Buffer
from inspection.report import SAFE, UNKNOWN, UNSAFE, CannotJudge, Finding
from inspection.texts import chat_template

MB = 1024 * 1024
LARGEST_HEADER = 32 * MB  # of SafeTensors; models with 36,000 tensors have 11 MB
BITS = {4: "F4", 6: "F6_E2M3 F6_E3M2", 8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
        16: "I16 U16 F16 BF16", 32: "I32 U32 F32", 64: "F64 I64 U64 C64"}  # fmt: skip
SIZES = {name: bits for bits, names in BITS.items() for name in names.split()}
CODE_LIKE = re.compile(
    r"__import__|__reduce__|__globals__|__builtins__|\bos\.system\b|\bsubprocess\b|\b(eval|exec|compile)\s*\("
    r"|\bimport\s+(os|sys|subprocess|socket|base64|builtins|importlib|ctypes|pty|shutil|requests|urllib)\b"
    r"|\blambda\b[^:\n]{0,80}:|<script\b|^#!|\bcurl\s+http|\bwget\s+http|/bin/(ba)?sh\b|\bpowershell\b"
    r"|gASV|gAJ[jc]|Y3Bvc2l4|Y29z",  # the beginnings of a pickle in base64
    re.I | re.M,
)


# --- SafeTensors ---------------------------------------------------------------------------------------


def is_safetensors(data: Buffer) -> bool:
    """Whether the file begins as SafeTensors does: a length that fits, and a brace."""
    head = data[0:9]
    return len(head) == 9 and head[8:] == b"{" and 2 <= struct.unpack("<Q", head[:8])[0] <= len(data) - 8


def no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """For json: a name that stands there twice has two meanings."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def safetensors(data: Buffer) -> tuple[list[tuple[str, str, str]], Finding]:
    """The tensors that the header lists (name, type, shape), and what is to be said about the file."""
    length = struct.unpack("<Q", data[0:8])[0]
    if length > LARGEST_HEADER:
        raise CannotJudge(f"it has a header of {length} bytes, more than this tool reads")
    bad = CannotJudge("it is not a valid SafeTensors file (damaged, or another format)")
    try:
        header = json.loads(bytes(data[8 : 8 + length]).decode("utf-8"), object_pairs_hook=no_duplicates)
        metadata = header.pop("__metadata__", {}) or {}
        if not all(isinstance(part, str) for item in metadata.items() for part in item):
            raise bad
        rows, places = [], []
        for name, entry in header.items():
            if set(entry) != {"dtype", "shape", "data_offsets"} or entry["dtype"] not in SIZES:
                raise bad
            shape, (start, end) = entry["shape"], entry["data_offsets"]
            count = 1
            for number in shape:
                if type(number) is not int or number < 0 or (count := count * number) > 2**62:
                    raise bad
            if (
                type(start) is not int
                or type(end) is not int
                or (end - start) * 8 != count * SIZES[entry["dtype"]]
            ):
                raise bad
            places.append((start, end))
            rows.append((name, entry["dtype"], "x".join(map(str, shape))))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise bad from error
    position = 0
    for start, end in sorted(places):
        if start != position:
            raise bad
        position = end
    if 8 + length + position != len(data):
        raise bad
    codes = [key for key, text in metadata.items() if CODE_LIKE.search(text) or CODE_LIKE.search(key)]
    if codes:
        return rows, Finding(
            UNKNOWN,
            f"its metadata has text that looks like code ({few(sorted(codes))}); no loader of SafeTensors "
            "runs it, but a program that uses this text might",
            help="Read the metadata, or write the file anew without it.",
        )
    return rows, Finding(
        SAFE, "there is no pickle in this format, only this header and numbers; the header is valid"
    )


# --- GGUF ----------------------------------------------------------------------------------------------

GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
GGUF_UINT32, GGUF_TEXT, GGUF_LIST = 4, 8, 9
# of each type of tensor: numbers in a block, bytes of a block (from ggml's documentation)
GGUF_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
MOST_ENTRIES = 2_000_000  # texts in a vocabulary, all lists together


class _Cursor:
    """Reads little-endian fields one after the other."""

    def __init__(self, data: Buffer, position: int = 0, big: bool = False) -> None:
        self.data, self.position, self.order = data, position, ">" if big else "<"

    def number(self, kind: str) -> int:
        size = struct.calcsize(self.order + kind)
        return int(struct.unpack(self.order + kind, self.take(size))[0])

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.position or size < 0:
            raise CannotJudge("it is a GGUF file that is cut off or damaged")
        found = bytes(self.data[self.position : self.position + size])
        self.position += size
        return found

    def skip(self, size: int) -> None:
        if size > len(self.data) - self.position or size < 0:
            raise CannotJudge("it is a GGUF file that is cut off or damaged")
        self.position += size


def gguf(data: Buffer) -> Finding:
    """What a GGUF file can do: its chat template is a program for a template engine."""
    cursor = _Cursor(data, 4)
    version = cursor.number("I")
    if version & 0xFFFF == 0:  # the other byte order
        cursor = _Cursor(data, 4, big=True)
        version = cursor.number("I")
    if version not in (2, 3):
        raise CannotJudge(f"it is a GGUF file of version {version}, which this tool does not read")
    tensors, alignment = cursor.number("Q"), 32
    budget = MOST_ENTRIES
    templates: dict[str, str] = {}
    for _ in range(cursor.number("Q")):
        key = cursor.take(cursor.number("Q")).decode("utf-8", "replace")
        kind = cursor.number("I")
        if kind == GGUF_TEXT:
            value = cursor.take(cursor.number("Q"))
            if "template" in key or b"{%" in value or b"{{" in value:
                templates[key] = value.decode("utf-8", "replace")
        elif kind == GGUF_LIST:
            inner, count = cursor.number("I"), cursor.number("Q")
            budget -= count
            if budget < 0:
                raise CannotJudge("it is a GGUF file with more entries than this tool reads")
            if inner in GGUF_SIZES:
                cursor.skip(count * GGUF_SIZES[inner])
            elif inner == GGUF_TEXT:
                for number in range(count):
                    value = cursor.take(cursor.number("Q"))
                    if "template" in key:
                        templates[f"{key}, {number}"] = value.decode("utf-8", "replace")
            else:
                raise CannotJudge("it is a GGUF file with lists of lists, which this tool does not read")
        elif kind in GGUF_SIZES:
            value = cursor.take(GGUF_SIZES[kind])
            if key == "general.alignment" and kind == GGUF_UINT32:
                alignment = max(1, struct.unpack(cursor.order + "I", value)[0])
        else:
            raise CannotJudge("it is a GGUF file that is damaged, or of a newer kind")
    if trouble := gguf_tensors(cursor, tensors, alignment):
        return Finding(UNKNOWN, trouble)
    return worst([chat_template(text, f"its {key}") for key, text in templates.items()]) or Finding(
        SAFE, "it is GGUF: numbers and settings, and no template"
    )


def gguf_tensors(cursor: _Cursor, count: int, alignment: int) -> str:
    """Whether the list of tensors explains the rest of the file; nothing if it does, else why not."""
    if count > MOST_ENTRIES:
        raise CannotJudge("it is a GGUF file with more tensors than this tool reads")
    end, known = 0, True
    for _ in range(count):
        cursor.skip(cursor.number("Q"))
        numbers = 1
        for _ in range(min(cursor.number("I"), 8)):
            numbers = min(numbers * cursor.number("Q"), 2**62)
        block = GGUF_BLOCKS.get(cursor.number("I"))
        offset = cursor.number("Q")
        known &= block is not None
        if block:
            end = max(end, offset + -(-numbers // block[0]) * block[1])
    start = -(-cursor.position // alignment) * alignment
    size = len(cursor.data)
    if start + end > size and count:
        return "it is a GGUF file that is cut off"
    if known and size > max(-(-(start + end) // alignment) * alignment, cursor.position):
        return "it has bytes behind its last tensor that no format explains"
    return ""


def worst(findings: list[Finding]) -> Finding | None:
    """The one that counts; None of none."""
    order = (UNSAFE, UNKNOWN, SAFE)
    return min(findings, key=lambda one: order.index(one.answer)) if findings else None


# --- ONNX: a protobuf message, read field by field -----------------------------------------------------

MOST_FIELDS = 3_000_000
UNCLEAR, ALL_OF_IT = -1, 2**63  # in place of how far the weights reach
ONNX_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training")


def fields(data: Buffer, start: int, end: int, budget: list[int]) -> Iterator[tuple[int, int, int, int]]:
    """The fields of one message: (number, kind, start, end of the value). Raises ValueError if it is none."""
    position = start
    while position < end:
        budget[0] -= 1
        if budget[0] < 0:
            raise CannotJudge("it has more parts than this tool reads")
        tag, position = varint(data, position, end)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ValueError
        first = position
        if kind == 0:
            _, position = varint(data, position, end)
        elif kind == 1:
            position += 8
        elif kind == 5:
            position += 4
        elif kind == 2:
            length, first = varint(data, position, end)
            position = first + length
        else:
            raise ValueError
        if position > end:
            raise ValueError
        yield number, kind, first, position


def varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """A number of variable length and the place behind it."""
    value = 0
    piece = data[position : min(end, position + 10)]
    for shift, byte in enumerate(piece):
        value |= (byte & 127) << (7 * shift)
        if byte < 128:
            return value, position + shift + 1
    raise ValueError


def protobuf_shape(data: Buffer) -> dict[int, int]:
    """Field number -> kind, of a file that is one protobuf message; empty if it is none."""
    try:
        return {number: kind for number, kind, _, _ in fields(data, 0, len(data), [10_000])}
    except (ValueError, CannotJudge):
        return {}


def is_onnx(data: Buffer) -> bool:
    """Whether the whole file is a message like ONNX's ModelProto: a version, a graph, operator sets."""
    shape = protobuf_shape(data)
    return (
        shape.get(7) == 2
        and (shape.get(1) == 0 or shape.get(8) == 2)
        and all(shape.get(number, 2) == 2 for number in (2, 3, 4, 6, 7, 8, 14, 20, 25))
    )


def is_saved_model(data: Buffer) -> bool:
    """Whether the whole file is a message like TensorFlow's SavedModel or a graph of it."""
    return like_graph(data) and not is_vocabulary(data)


def like_graph(data: Buffer) -> bool:
    """Whether the fields are those of TensorFlow's messages; a vocabulary has the same."""
    shape = protobuf_shape(data)
    return shape == {1: 0, 2: 2} or (bool(shape) and set(shape) <= {1, 2, 3, 4} and shape.get(1) == 2)


def is_vocabulary(data: Buffer) -> bool:
    """Whether a message like TensorFlow's graph is SentencePiece's vocabulary: texts with a score each."""
    try:
        if not like_graph(data):
            return False
        for number, kind, start, end in fields(data, 0, len(data), [10]):
            if number == 1 and kind == 2:
                inner = {n: k for n, k, _, _ in fields(data, start, end, [10])}
                return inner.get(1) == 2 and inner.get(2) == 5
    except (ValueError, CannotJudge):
        return False
    return False


def onnx(data: Buffer) -> Finding:
    """What an ONNX model can do: read other files, or ask for operators of somebody's own library."""
    found = onnx_parts(data)
    if away := sorted(path for path in found.ends if leaves_folder(path)):
        return Finding(UNSAFE, f"it is ONNX, and reads a file outside of its folder as weights: {few(away)}")
    if strange := sorted(found.domains - set(ONNX_DOMAINS)):
        return Finding(
            UNKNOWN,
            f"it is ONNX with operators of {few(strange)}, which a library outside of the file brings",
            help="Ask the sender which library that is, and trust it or do not.",
        )
    more = f"; its weights lie in {few(sorted(found.ends))} beside it" if found.ends else ""
    return Finding(SAFE, f"it is ONNX: a graph of the standard's own operators{more}")


@dataclass
class OnnxParts:
    """What an ONNX model names: operators by their domain, other files and where their last weight ends."""

    domains: set[str] = field(default_factory=set)
    ends: dict[str, int] = field(default_factory=dict)  # path -> bytes


def onnx_parts(data: Buffer) -> OnnxParts:
    """Read an ONNX model field by field. Raises CannotJudge."""
    budget = [MOST_FIELDS]
    found = OnnxParts()

    def text(first: int, last: int) -> str:
        return bytes(data[first : min(last, first + 4000)]).decode("utf-8", "replace")

    def tensor(first: int, last: int) -> None:
        external: dict[str, str] = {}
        for number, kind, start, end in fields(data, first, last, budget):
            if number == 13 and kind == 2:  # external_data: key and value
                entry = {n: text(s, e) for n, k, s, e in fields(data, start, end, budget) if k == 2}
                external[entry.get(1, "")] = entry.get(2, "")
                if entry.get(1) == "location":  # each one counts, also if there are two
                    found.ends.setdefault(entry.get(2, ""), 0)
        if "location" in external:
            path, numbers = external["location"], (external.get("offset", "0"), external.get("length", "0"))
            if not all(number.isdecimal() and len(number) < 19 for number in numbers):
                found.ends[path] = UNCLEAR
            elif found.ends[path] != UNCLEAR:
                end = sum(map(int, numbers)) if "length" in external else ALL_OF_IT
                found.ends[path] = max(found.ends[path], end)

    def graph(first: int, last: int, depth: int) -> None:
        if depth > 50:
            raise CannotJudge("it is an ONNX graph that is nested too deeply")
        for number, kind, start, end in fields(data, first, last, budget):
            if kind != 2:
                continue
            if number == 5:  # initializer
                tensor(start, end)
            elif number == 15:  # sparse_initializer: values and indices
                for inner, inner_kind, s, e in fields(data, start, end, budget):
                    if inner in (1, 2) and inner_kind == 2:
                        tensor(s, e)
            elif number == 1:
                node(start, end, depth)

    def node(first: int, last: int, depth: int) -> None:
        for number, kind, start, end in fields(data, first, last, budget):
            if number == 7 and kind == 2:
                found.domains.add(text(start, end))
            elif number == 5 and kind == 2:  # attributes: tensors and graphs
                for inner, inner_kind, s, e in fields(data, start, end, budget):
                    if inner_kind == 2 and inner in (5, 10):
                        tensor(s, e)
                    elif inner_kind == 2 and inner in (6, 11):
                        graph(s, e, depth + 1)

    try:
        for number, kind, start, end in fields(data, 0, len(data), budget):
            if number == 7 and kind == 2:
                graph(start, end, 0)
            elif number == 8 and kind == 2:
                found.domains |= {
                    text(s, e) for n, k, s, e in fields(data, start, end, budget) if n == 1 and k == 2
                }
            elif number == 25 and kind == 2:  # functions: their nodes
                for inner, inner_kind, s, e in fields(data, start, end, budget):
                    if inner == 7 and inner_kind == 2:
                        node(s, e, 0)
    except ValueError as error:
        raise CannotJudge("it is an ONNX file that is damaged") from error
    return found


def leaves_folder(path: str) -> bool:
    """Whether a path that stands in a model leads out of the model's folder, on any system."""
    parts = PurePosixPath(path.replace("\\", "/"))
    return parts.is_absolute() or ".." in parts.parts or bool(re.match(r"[A-Za-z]:", path)) or "\0" in path


# --- NumPy ---------------------------------------------------------------------------------------------


def npy_header(data: Buffer) -> tuple[dict[str, object], int]:
    """The header of an array file, and where its data begins. Raises CannotJudge."""
    import ast  # noqa: PLC0415 (only here)

    bad = CannotJudge("it is a NumPy array file that is damaged")
    head = data[0:12]
    try:
        wide = head[6] > 1
        size, start = struct.unpack_from("<I" if wide else "<H", head, 8)[0], 12 if wide else 10
        if size > 1_000_000 or start + size > len(data):
            raise bad
        found = ast.literal_eval(
            bytes(data[start : start + size]).decode("utf-8" if head[6] > 2 else "latin1").strip()
        )
        if not isinstance(found, dict) or set(found) != {"descr", "fortran_order", "shape"}:
            raise bad  # NumPy refuses it, too
        return found, start + size
    except (
        ValueError,
        SyntaxError,
        IndexError,
        struct.error,
        RecursionError,
        MemoryError,
        TypeError,
    ) as error:
        raise bad from error


def array_bytes(header: dict[str, object]) -> int:
    """How many bytes the numbers of an array take. Raises CannotJudge for a header that makes no sense."""
    from numpy.lib.format import descr_to_dtype  # noqa: PLC0415 (only here)

    try:
        description: Any = header["descr"]
        size, shape = descr_to_dtype(description).itemsize, header["shape"]
        if not isinstance(shape, tuple) or not all(type(number) is int and number >= 0 for number in shape):
            raise ValueError
        for number in shape:
            size = min(size * number, 2**62)
    except Exception as error:  # NumPy raises many kinds for a type that it does not know
        raise CannotJudge("it is a NumPy array file that is damaged") from error
    return size


def has_objects(description: object) -> bool:
    """Whether the type of an array, at any depth, is or has Python objects: then a pickle follows."""
    if isinstance(description, str):
        return "O" in description.upper().replace("BOOL", "")
    if isinstance(description, (list, tuple)):
        return any(has_objects(part) for part in description)
    return not isinstance(description, (int, type(None)))
