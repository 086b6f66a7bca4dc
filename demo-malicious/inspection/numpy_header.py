"""The header of a NumPy array file: whether Python objects follow, and how many bytes of numbers.

Helper module, not a command. Nothing is evaluated: the header is a literal.
"""

from __future__ import annotations

import struct
import warnings
from typing import Any

from inspection.pickle_reader import Buffer
from inspection.report import CannotJudge

LARGEST = 1_000_000  # bytes; a header has a hundred, and some thousand where a record has many fields


def header_end(head: bytes) -> int:
    """Where the header of an array file ends, as its first 12 bytes say; at most a little behind LARGEST."""
    if len(head) < 12:
        return 12
    size = struct.unpack_from("<I" if head[6] > 1 else "<H", head, 8)[0]
    return int(12 + min(size, LARGEST))


def npy_header(data: Buffer) -> tuple[dict[str, object], int]:
    """The header of an array file, and where its data begins. Raises CannotJudge."""
    import ast  # noqa: PLC0415 (only here)

    bad = CannotJudge("it is a NumPy array file that is damaged")
    head = data[0:12]
    try:
        wide = head[6] > 1
        size, start = struct.unpack_from("<I" if wide else "<H", head, 8)[0], 12 if wide else 10
        if size > LARGEST or start + size > len(data):
            raise bad
        text = bytes(data[start : start + size]).decode("utf-8" if head[6] > 2 else "latin1").strip()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd texts in it, which Python's parser prints
            found = ast.literal_eval(text)
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


def has_objects(description: Any) -> bool:
    """Whether the type of an array, at any depth, is or has Python objects: then a pickle follows.

    NumPy itself says so, as it does when it loads. Raises CannotJudge for a type that it does not know.
    """
    from numpy.lib.format import descr_to_dtype  # noqa: PLC0415 (only here)

    try:
        return bool(descr_to_dtype(description).hasobject)
    except Exception as error:  # NumPy raises many kinds
        raise CannotJudge("it is a NumPy array file that is damaged") from error
