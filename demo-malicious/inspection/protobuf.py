"""Protobuf messages, field by field.

Helper module, not a command. A small reader: the packages of the format bring or run much more.
"""

from __future__ import annotations

from collections.abc import Iterator

from inspection.pickle_reader import Buffer
from inspection.report import CannotJudge

MOST_FIELDS = 3_000_000


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
