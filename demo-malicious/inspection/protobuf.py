"""Protobuf messages, field by field, and which of TensorFlow's and SentencePiece's files are one.

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
