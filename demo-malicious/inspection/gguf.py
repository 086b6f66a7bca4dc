"""The header of a GGUF file: settings, a chat template, a list of tensors that must explain the rest.

Helper module, not a command. A small reader: the packages of the format bring or run much more.
"""

from __future__ import annotations

import struct

from inspection.pickle_reader import Buffer
from inspection.report import SAFE, UNKNOWN, UNSAFE, CannotJudge, Finding
from inspection.texts import LONGEST_TEMPLATE, MOST_TEMPLATES, chat_template

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
        budget -= 1
        if budget < 0:
            raise CannotJudge("it is a GGUF file with more entries than this tool reads")
        key = cursor.take(cursor.number("Q")).decode("utf-8", "replace")
        kind = cursor.number("I")
        if kind == GGUF_TEXT:
            value = cursor.take(cursor.number("Q"))
            if "template" in key or b"{%" in value or b"{{" in value:
                add_template(templates, key, value)
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
                        add_template(templates, f"{key}, {number}", value)
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


def add_template(templates: dict[str, str], key: str, value: bytes) -> None:
    """Note a template. Raises CannotJudge for more than anybody could read: to parse them takes seconds."""
    while key in templates:  # which one counts is up to the reader, so all are judged
        key += " again"
    templates[key] = value.decode("utf-8", "replace")
    if len(templates) > MOST_TEMPLATES or sum(map(len, templates.values())) > 2 * LONGEST_TEMPLATE:
        raise CannotJudge("it is a GGUF file with more templates than this tool reads")


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
