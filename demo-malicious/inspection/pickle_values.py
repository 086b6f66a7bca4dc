"""The plain values that a pickle makes, as far as they say where raw numbers stand and how many.

Helper module, not a command. pickle_reader.walk follows a pickle; with Values it also keeps numbers, texts,
tuples, lists, dictionaries, and what would be made of an imported name. Nothing is imported or called.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from inspection.names import JOBLIB_ARRAY
from inspection.pickle_reader import PUSHES_BY_NAME, Buffer, Imported, Text
from inspection.report import CannotJudge

# entries of all dictionaries with which objects are filled: one of 100,000 can be used again in three bytes
MOST_FILLED = 3_000_000
MOST_MADE = 1_200_000  # tuples, lists, dictionaries, calls; half a million numbers of NumPy have a million
OTHER = object()  # a value that is not followed
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
NUMBERS = {"BININT": "<i", "BININT1": "<B", "BININT2": "<H"}
TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
ADDS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"}  # to what is below them, which stays


@dataclass(eq=False, slots=True)
class Made:
    """What a call of an imported name would give, and what it would be filled with."""

    name: str
    arguments: object
    state: dict[object, object] = field(default_factory=dict)
    tuple_state: tuple[object, ...] = ()
    used: bool = False  # it is part of something else
    checked: Any = None  # what a reader knows of it, once it is filled


class Values:
    """Keeps the values while a pickle is followed. `fill` is called for each object that BUILD has filled.

    `fill` gets the object and the place behind the instruction, and gives the place where the pickle goes on.
    """

    def __init__(self, data: Buffer, fill: Callable[[Made, int], int] | None = None) -> None:
        self.data, self.fill = data, fill
        self.stored: list[object] = []  # what persistent ids name: the storages of tensors
        self.entries = 0  # of dictionaries, with which objects were filled so far
        self.made = 0  # tuples, lists and dictionaries
        self.filled_unknown = False  # BUILD has filled something that is not followed

    def result(self, name: str, taken: list[object], argument: bytes) -> list[object]:
        """What an instruction pushes, given the values that it takes. Raises CannotJudge."""
        for value in taken:
            if type(value) is Made:
                value.used = True
            elif type(value) is Imported and value.name == JOBLIB_ARRAY and self.fill and name != "NEWOBJ":
                raise CannotJudge("it uses joblib's stand-in for an array as joblib does not")
        if name in TUPLES:
            self.count()
            return [tuple(taken)]
        if name in CONSTANTS:
            return [CONSTANTS[name]]
        if name in NUMBERS:
            return [struct.unpack(NUMBERS[name], argument)[0]]
        if name in ("EMPTY_LIST", "LIST"):
            self.count()
            return [list(taken)]
        if name in ("EMPTY_DICT", "DICT"):
            self.count()
            return [self.filled({}, taken)]
        if name in ("LONG1", "INT", "LONG"):
            return [whole_number(name, argument)]
        if name in ("APPEND", "APPENDS") and isinstance(taken[0], list):
            taken[0].extend(taken[1:])
            return [taken[0]]
        if name in ("SETITEM", "SETITEMS") and isinstance(taken[0], dict):
            return [self.filled(taken[0], taken[1:])]
        if name in ADDS:
            return [taken[0]]
        if name in ("REDUCE", "NEWOBJ", "OBJ", "NEWOBJ_EX"):
            for given in taken[1:]:
                self.spend(given)
                for part in given if isinstance(given, tuple) else ():
                    self.spend(part)
        if name in ("REDUCE", "NEWOBJ") and isinstance(taken[0], Imported):
            self.count()
            return [Made(taken[0].name, taken[1])]
        if name in ("BINPERSID", "PERSID"):
            self.stored.append(taken[0] if taken else OTHER)
        return [OTHER] * PUSHES_BY_NAME[name]

    def filled(self, target: dict[object, object], items: list[object]) -> dict[object, object]:
        """The dictionary with these keys and values, one after the other."""
        for key, value in zip(items[::2], items[1::2], strict=False):
            target[self.plain(key) if isinstance(key, Text | int) else OTHER] = value
        return target

    def plain(self, value: object) -> object:
        """A text as str, anything else as it is."""
        return value.read(self.data) if isinstance(value, Text) else value

    def built(self, stack: list[object], state: object, place: int) -> int:
        """BUILD has filled the last value with a state. Gives the place where the pickle goes on."""
        made = stack[-1]
        self.spend(state)
        if not isinstance(made, Made):
            self.filled_unknown = True
            return place
        if isinstance(state, Made):
            state.used = True
        if isinstance(state, dict):
            made.state |= state
        elif isinstance(state, tuple):
            made.tuple_state = state
        else:
            made.state[OTHER] = state
        if self.fill and (after := self.fill(made, place)) != place:
            stack[-1] = OTHER  # the array took its place
            return after
        return place

    def count(self) -> None:
        """Count what is made. Raises CannotJudge beyond a limit: Python searches all of it often."""
        self.made += 1
        if self.made > MOST_MADE:
            raise CannotJudge(
                f"it makes more than {MOST_MADE} tuples, lists and so on, more than this tool follows"
            )

    def spend(self, value: object) -> None:
        """Count what a loader copies for one instruction. Raises CannotJudge beyond a limit."""
        if isinstance(value, (dict, list, tuple)):
            self.entries += len(value)
        elif isinstance(value, Text):
            self.entries += (value.last - value.first) // 4096
        if self.entries > MOST_FILLED:
            raise CannotJudge("it makes the same large things again and again, as no saved model does")


def whole_number(name: str, argument: bytes) -> object:
    """A whole number of up to 8 bytes; longer ones are not followed."""
    if name == "LONG1":
        return int.from_bytes(argument, "little", signed=True) if len(argument) <= 8 else OTHER
    try:
        return int(argument.strip().rstrip(b"L")) if len(argument) < 20 else OTHER
    except ValueError:
        return OTHER
