"""Raw numbers between and behind pickles: how many bytes belong to them, so that no byte is left unexplained.

Helper module, not a command. torch.save before PyTorch 1.6 wrote them behind its pickles, before 0.4 in a
tar archive, and joblib writes them between the instructions of one pickle. Each function raises CannotJudge
where the file is not as these programs write it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import TypeGuard

from inspection import numpy_states, numpy_types
from inspection.names import JOBLIB_ARRAY
from inspection.pickle_reader import Buffer, Imported, Walk, walk
from inspection.pickle_values import Made, Values
from inspection.report import CannotJudge

# bytes of one number, by the class of PyTorch's storage
STORAGES = {
    "UntypedStorage": 1, "BoolStorage": 1, "ByteStorage": 1, "CharStorage": 1, "QInt8Storage": 1,
    "QUInt8Storage": 1, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1, "ShortStorage": 2, "HalfStorage": 2,
    "BFloat16Storage": 2, "IntStorage": 4, "FloatStorage": 4, "QInt32Storage": 4, "LongStorage": 8,
    "DoubleStorage": 8, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
}  # fmt: skip
NOT_AS_WRITTEN = "it does not name its numbers as torch.save does"


def element_size(storage_type: object) -> int:
    """Bytes of one number of a storage."""
    name = storage_type.name if isinstance(storage_type, Imported) else ""
    module, _, kind = name.rpartition(".")
    if module not in ("torch", "torch.storage", "torch.cuda") or kind not in STORAGES:
        raise CannotJudge(NOT_AS_WRITTEN)
    return STORAGES[kind]


def integer(data: Buffer, place: int, kind: str = "<q") -> int:
    """A whole number in the raw bytes."""
    raw = bytes(data[place : place + struct.calcsize(kind)])
    if len(raw) < struct.calcsize(kind):
        raise CannotJudge("it is cut off within its numbers")
    return int(struct.unpack(kind, raw)[0])


def skipped(data: Buffer, place: int, size: int) -> int:
    """The place behind `size` bytes that are there."""
    if size < 0 or place + size > len(data):
        raise CannotJudge("it is cut off within its numbers")
    return place + size


# --- torch.save before PyTorch 1.6: five pickles, then the storages in the order of the fifth ---------------


def end_of_storages(data: Buffer, place: int, stored: list[object], keys: object, values: Values) -> int:
    """Where the numbers end. `stored` is what the fourth pickle names, `keys` the fifth pickle."""
    sizes: dict[object, int] = {}
    for row in stored:
        if not isinstance(row, tuple) or len(row) < 4:
            raise CannotJudge(NOT_AS_WRITTEN)
        kind, storage_type, key = (values.plain(part) for part in row[:3])
        if kind == "module":
            continue  # the source text of a layer
        if kind != "storage" or not isinstance(key, str) or len(row) != 6:
            raise CannotJudge(NOT_AS_WRITTEN)
        sizes.setdefault(key, element_size(storage_type))
    if not isinstance(keys, list):
        raise CannotJudge(NOT_AS_WRITTEN)
    named = [values.plain(key) for key in keys]
    if (
        not all(isinstance(key, str) for key in named)
        or len(set(named)) < len(named)
        or set(named) != set(sizes)
    ):
        raise CannotJudge(NOT_AS_WRITTEN)
    for key in named:
        place = skipped(data, place + 8, integer(data, place) * sizes[key])
    return place


# --- torch.save today: each storage is a member of a zip file -----------------------------------------------


def sizes_named(values: Values) -> dict[str, int]:
    """Bytes of each storage that a pickle names, by its key. Raises CannotJudge."""
    sizes: dict[str, int] = {}
    for row in values.stored:
        if not isinstance(row, tuple) or len(row) != 5 or values.plain(row[0]) != "storage":
            raise CannotJudge(NOT_AS_WRITTEN)
        key, count = values.plain(row[2]), row[4]
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise CannotJudge(NOT_AS_WRITTEN)
        size = count * element_size(row[1])
        if sizes.setdefault(key, size) != size:
            raise CannotJudge(NOT_AS_WRITTEN)
    return sizes


# --- PyTorch before 0.4: a tar archive of pickles, with numbers between them ------------------------------


@dataclass
class Parts:
    """The pickles that were followed, and how many instructions may still come."""

    left: int
    walks: list[Walk] = field(default_factory=list)

    def follow(self, data: Buffer, place: int, values: Values | None = None) -> Walk:
        found = walk(data, place, self.left, values)
        self.left -= found.instructions
        self.walks.append(found)
        return found


def pickled(data: Buffer, place: int, parts: Parts) -> tuple[object, int]:
    """The value of the pickle at this place, and the place behind it. Texts become str."""
    values = Values(data)
    found = parts.follow(data, place, values)
    if not found.complete:
        raise CannotJudge("it is a pickle that breaks off: it is damaged or cut off")
    value = found.value
    if isinstance(value, tuple):
        value = tuple(values.plain(part) for part in value)
    return value, found.end


def old_tar_numbers(storages: bytes, tensors: bytes, most: int) -> list[Walk]:
    """Follow the parts `storages` and `tensors` of the old tar format to their last byte.

    Raises TooLong if their pickles have more than `most` instructions, all together.
    """
    parts = Parts(most)
    count, place = pickled(storages, 0, parts)
    for _ in range(whole(count)):
        row, place = pickled(storages, place, parts)
        if not isinstance(row, tuple) or len(row) != 3:
            raise CannotJudge(NOT_AS_WRITTEN)
        place = skipped(storages, place + 8, integer(storages, place) * element_size(row[2]))
    _, place = pickled(storages, place, parts)
    if place != len(storages):
        raise CannotJudge(f"it has {len(storages) - place} bytes behind its numbers that no format explains")
    count, place = pickled(tensors, 0, parts)
    for _ in range(whole(count)):
        _, place = pickled(tensors, place, parts)
        dimensions = integer(tensors, place, "<i")
        place = skipped(tensors, place, 8 + 16 * dimensions + 8)
    if place != len(tensors):
        raise CannotJudge(f"it has {len(tensors) - place} bytes behind its shapes that no format explains")
    return parts.walks


def whole(value: object) -> int:
    """A number of things."""
    if type(value) is not int or not 0 <= value <= 200_000:
        raise CannotJudge(NOT_AS_WRITTEN)
    return value


# --- joblib: an array stands behind the instruction that fills its stand-in --------------------------------

FIELDS = {"subclass", "shape", "order", "dtype", "allow_mmap", "numpy_array_alignment_bytes"}


def joblib_arrays(data: Buffer, start: int, most: int) -> list[Walk]:
    """Follow a joblib file to the end of its pickle, past the numbers of its arrays. The first is the file.

    The others are the arrays of objects, each of which is a pickle of its own.
    """
    inner = Parts(most)

    def fill(made: Made, place: int) -> int:
        if made.name != JOBLIB_ARRAY:
            numpy_states.check_filled(made, values)
            return place
        if made.arguments != () or made.tuple_state or not {"shape", "dtype"} <= set(made.state) <= FIELDS:
            raise CannotJudge("it describes an array in a way that joblib does not")
        shape, dtype = made.state["shape"], made.state["dtype"]
        if not isinstance(dtype, Made) or dtype.name != "numpy.dtype" or not is_shape(shape):
            raise CannotJudge("it describes an array in a way that joblib does not")
        size = bytes_of_type(dtype, values)
        if size < 0:  # Python objects: a pickle of its own, read by Python's own reader
            found = inner.follow(data, place)
            if not found.complete or JOBLIB_ARRAY in found.names:
                raise CannotJudge("it has an array of objects that breaks off")
            return found.end
        if made.state.get("numpy_array_alignment_bytes") is not None:
            padding = skipped(data, place, 1 + bytes(data[place : place + 1] or b"\0")[0])
            if bytes(data[place + 1 : padding]).strip(b"\xff"):
                raise CannotJudge("it has bytes before an array that no format explains")
            place = padding
        return skipped(data, place, size * math.prod(shape))

    values = Values(data, fill)
    found = walk(data, start, most, values)
    if values.filled_unknown and numpy_states.named(found.names):
        raise CannotJudge(numpy_states.UNKNOWN_STATE)
    return [found, *inner.walks]


def is_shape(shape: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(shape, tuple) and len(shape) <= 64 and all(
        type(number) is int and 0 <= number < 2**40 for number in shape
    )  # fmt: skip


def bytes_of_type(dtype: Made, values: Values) -> int:
    """Bytes of one number of this NumPy type; -1 if there are Python objects in it. Raises CannotJudge."""
    real = numpy_types.check_type(dtype, values)
    if not real.itemsize:
        raise CannotJudge("it describes an array in a way that joblib does not")
    return -1 if real.hasobject else real.itemsize
