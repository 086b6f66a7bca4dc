"""The header of a SafeTensors file: it names every tensor, and there is nothing else that could run.

Helper module, not a command. A header is enough to say whether anything in the file can run.
"""

from __future__ import annotations

import json
import re
import struct

from inspection.names import few
from inspection.pickle_reader import Buffer
from inspection.report import SAFE, UNKNOWN, CannotJudge, Finding

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
