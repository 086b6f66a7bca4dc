"""The types of NumPy in a pickle: does each say what is true of it?

Helper module, not a command. A type is made by its letter and then filled with its size, its fields and
flags, which say whether its numbers are places of Python objects. NumPy takes any: a field outside of the
type, or a type of objects whose flags deny it, lets a file read and write any memory. So every type is made
anew here from what it claims, by NumPy's own constructor, and compared.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from inspection.pickle_reader import Imported
from inspection.pickle_values import Made, Values
from inspection.report import CannotJudge

if TYPE_CHECKING:
    import numpy

DTYPE = "numpy.dtype"
RECORDS = {"numpy.record", "numpy.rec.record", "numpy._core.records.record"}
# NumPy writes none of these as what is called: it calls a function, and these are its argument
ARRAYS = {
    "numpy.ndarray", "numpy.matrix", "numpy.matrixlib.defmatrix.matrix", "numpy.recarray",
    "numpy.rec.recarray", "numpy._core.records.recarray", "numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray",
}  # fmt: skip
NOT_AS_WRITTEN = "it has a type of NumPy that is not as NumPy writes it"
OBJECTS = 0b10111  # the flags that say where there are Python objects


def makes_arrays(called: set[str], names: set[str]) -> bool:
    """Whether a class of arrays is called itself: then a file chooses what is taken for Python objects."""
    return bool(called & ARRAYS) or ("copyreg.__newobj__" in called and bool(names & ARRAYS))


def check_filled(made: Made, values: Values) -> None:
    """Check a type that was filled just now. Raises CannotJudge for one that NumPy does not write."""
    if made.used or made.checked is not None:  # what was made of it before would change with it
        raise CannotJudge(NOT_AS_WRITTEN)
    check_type(made, values)


def check_type(made: object, values: Values) -> numpy.dtype[numpy.generic]:
    """The type of NumPy that this gives. Raises CannotJudge for one that NumPy does not write."""
    import numpy  # noqa: PLC0415 (only here)

    bad = CannotJudge(NOT_AS_WRITTEN)
    if (
        not isinstance(made, Made)
        or made.name != DTYPE
        or not isinstance(made.arguments, tuple)
        or made.state
    ):
        raise bad
    if made.checked is not None:
        known: numpy.dtype[numpy.generic] = made.checked
        return known
    code = values.plain(made.arguments[0]) if made.arguments else None
    if isinstance(code, Imported) and code.name in RECORDS:
        code = "V"
    if not isinstance(code, str) or len(code) > 20:
        raise bad
    try:
        plain: numpy.dtype[numpy.generic] = numpy.dtype(code)
        if not made.tuple_state:
            made.checked = plain
            return plain
        if len(made.tuple_state) not in (8, 9):
            raise bad
        _, order, inner, names, fields, size, alignment, flags = made.tuple_state[:8]
        if inner is not None:
            real = with_shape(inner, values)
        elif names is not None:
            real = with_fields(names, fields, size, values)
        elif fields is None or fields == {}:
            expected = plain.__reduce__()[2]
            if plain.kind in "SUV" and type(size) is int and 0 <= size < 2**31:
                real = numpy.dtype((plain.type, size // (4 if plain.kind == "U" else 1)))
            elif (size, alignment) in (expected[5:7], (-1, -1)):
                real = plain
            else:
                raise bad
        else:
            raise bad
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise bad from error
    if values.plain(order) not in ("<", ">", "|", "="):
        raise bad
    if (inner is not None or names is not None) and plain.kind != "V":
        raise bad
    if size not in (real.itemsize, -1) or (size == -1 and plain.kind in "SUV"):
        raise bad
    if type(flags) is not int or (flags ^ int(real.flags)) & OBJECTS or type(alignment) is not int:
        raise bad
    made.checked = real
    return real


def with_shape(inner: object, values: Values) -> numpy.dtype[numpy.generic]:
    """An array within a type: the type of its elements, and its shape. Raises ValueError."""
    import numpy  # noqa: PLC0415 (only here)

    if not isinstance(inner, tuple) or len(inner) != 2:
        raise ValueError
    element, shape = check_type(inner[0], values), inner[1]
    shape = shape if isinstance(shape, tuple) else (shape,)
    if not all(type(number) is int and number >= 0 for number in shape) or math.prod(shape) > 2**31:
        raise ValueError
    return numpy.dtype((element, shape))


def with_fields(names: object, fields: object, size: object, values: Values) -> numpy.dtype[numpy.generic]:
    """A type with fields, each at its place. Raises ValueError."""
    import numpy  # noqa: PLC0415 (only here)

    if not isinstance(names, tuple) or not isinstance(fields, dict) or type(size) is not int:
        raise ValueError
    texts = [text for text in map(values.plain, names) if isinstance(text, str)]
    if len(texts) != len(names) or not set(texts) <= set(fields):
        raise ValueError
    places: dict[str, tuple[numpy.dtype[numpy.generic], int]] = {}
    for name, entry in fields.items():
        if not isinstance(name, str) or not isinstance(entry, tuple) or len(entry) not in (2, 3):
            raise ValueError
        if name not in texts and (len(entry) == 2 or values.plain(entry[2]) != name):  # else a title
            raise ValueError
        kind, place = check_type(entry[0], values), entry[1]
        if type(place) is not int or place < 0 or place + kind.itemsize > size:
            raise ValueError
        places[name] = kind, place
    if not set(places.values()) <= {places[text] for text in texts}:
        raise ValueError
    return numpy.dtype(
        {
            "names": texts,
            "formats": [places[text][0] for text in texts],
            "offsets": [places[text][1] for text in texts],
            "itemsize": size,
        }
    )
