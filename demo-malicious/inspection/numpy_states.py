"""What NumPy's objects in a pickle are filled with: is each state as NumPy writes it?

Helper module, not a command. numpy_types.py checks types. A state of random numbers has a table of numbers
and the place of the next one. NumPy takes any place: one outside of the table reads foreign memory, or
crashes Python, when the next number is drawn. So every state is followed here, and one that is not as NumPy
writes it is not judged.
"""

from __future__ import annotations

from inspection import numpy_types
from inspection.pickle_reader import Buffer, Imported, walk
from inspection.pickle_values import Made, Values
from inspection.report import CannotJudge

RANDOM = "numpy.random."
FILLED = (RANDOM, numpy_types.DTYPE)  # and numpy.dtypes
UNKNOWN_STATE = "it fills something that is not followed here, beside types or random numbers of NumPy"
NOT_AS_WRITTEN = "it has a state of NumPy's random numbers that is not as NumPy writes it"
PLACES = {  # of each kind with a table: where the place stands, and the last one behind the table
    "MT19937": (("state", "pos"), 624),
    "Philox": (("buffer_pos",), 4),
}
NO_TABLE = ("PCG64", "PCG64DXSM", "SFC64")


def named(names: set[str]) -> bool:
    """Whether a pickle with these names can hold such a state."""
    return any(name.startswith(FILLED) for name in names)


def check_states(data: Buffer, start: int, most: int) -> None:
    """Follow the states in the pickle at this place. Raises CannotJudge for one that NumPy does not write."""

    def fill(made: Made, place: int) -> int:
        check_filled(made, values)
        return place

    values = Values(data, fill)
    walk(data, start, most, values)
    if values.filled_unknown:
        raise CannotJudge(UNKNOWN_STATE)


def check_filled(made: Made, values: Values) -> None:
    """Check what an object has been filled with, if it is or may be a state."""
    name = made.name
    if name.startswith("copyreg."):  # its class is the first argument, and what makes it the second
        arguments = made.arguments if isinstance(made.arguments, tuple) else ()
        named = [part.name for part in arguments if isinstance(part, Imported)]
        if not named or any(one.startswith(FILLED) for one in named):
            raise CannotJudge(UNKNOWN_STATE)
        return
    if name.startswith(numpy_types.DTYPE):
        numpy_types.check_filled(made, values)
        return
    if not name.startswith(RANDOM) or name.endswith("SeedSequence"):
        return  # a SeedSequence holds no place
    if (
        made.arguments == () and name == RANDOM + "__RandomState_ctor" and made.tuple_state
    ):  # NumPy before 1.17
        kind, _, place = [values.plain(part) for part in made.tuple_state[:3]]
        if kind != "MT19937" or not is_place(place, 624):
            raise CannotJudge(NOT_AS_WRITTEN)
        return
    if made.state and made.tuple_state:  # filled twice, in two ways
        raise CannotJudge(NOT_AS_WRITTEN)
    if made.tuple_state:  # NumPy 2: the state, and the seeds that it came from
        check_state(made.tuple_state[0], values)
    elif made.state:
        check_state(made.state, values)


def check_state(state: object, values: Values) -> None:
    """Check a state in the form of a dictionary."""
    kind = values.plain(state.get("bit_generator")) if isinstance(state, dict) else None
    if kind in NO_TABLE:
        return
    keys, last = PLACES.get(str(kind), ((), 0))
    place: object = state
    for key in keys:
        place = place.get(key) if isinstance(place, dict) else None
    if not is_place(place, last):
        raise CannotJudge(NOT_AS_WRITTEN)


def is_place(place: object, last: int) -> bool:
    return type(place) is int and 0 <= place <= last
