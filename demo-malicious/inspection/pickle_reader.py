"""Every name that a pickle would import, found by following its stack without running anything.

Helper module, not a command. A pickle is a program for a small stack machine. This one keeps only what
decides which names are imported: texts, imported names, marks and the memo. The instructions come from
Python's own table (pickletools). Where the real machine would stop with an error, this one stops as well;
where it cannot be sure, it goes on, so that it never sees less than a loader does.
"""

from __future__ import annotations

import codecs
import gc
import pickletools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from inspection.names import LONGEST_NAME, VALID_NAME, full_name

MOST_INSTRUCTIONS = 6_000_000  # of all pickles in a file; 40,000 tensors need 1.4 million
# on the stack and in the memo; each takes at least two instructions in what Python writes, and 150 bytes here
MOST_VALUES = 2_500_000
TOO_LONG = (
    f"it has more than {MOST_INSTRUCTIONS} instructions, or keeps more than {MOST_VALUES} values at once, "
    "more than this tool follows"
)


class Buffer(Protocol):
    """Bytes, or a file that is mapped into memory."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> bytes: ...
    def find(self, what: bytes, start: int = ..., end: int = ..., /) -> int: ...


class TooLong(Exception):
    """The pickle has more instructions, or keeps more values, than this reader follows."""


@dataclass
class Walk:
    """What one pickle would do, as far as imports are concerned."""

    start: int
    end: int = 0  # behind the last instruction that was read
    instructions: int = 0
    names: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)  # those of them that it calls
    complete: bool = False  # it ends with STOP and gives back a value
    hides: bool = False  # it imports a name that it puts together in a way we do not follow
    odd: bool = False  # it imports something that is not a valid name
    odd_module: bool = False  # ... from a module that a loader may find nevertheless: my-model, or very long
    changes: bool = False  # it changes what it imports, not only what it makes of it
    codes: bool = False  # it imports by a number of the extension registry
    calls: bool = False  # it calls or fills something that it imported or made
    value: object = None  # what it gives back, if values were kept

    @property
    def accepted(self) -> bool:
        """Whether a loader would read this as a pickle, or at least import something before it gives up."""
        return self.complete or bool(self.names) or self.hides or self.codes or self.odd_module


# --- the table of instructions -----------------------------------------------------------------------------

MARK = object()
LINE, PAIR = -1, -10  # an argument that ends with its line; two of them
_SIZES = {  # instruction -> size of its argument, or LINE, PAIR, or minus the size of a length before it
    pickletools.TAKEN_FROM_ARGUMENT1: -21,
    pickletools.TAKEN_FROM_ARGUMENT4: -24,
    pickletools.TAKEN_FROM_ARGUMENT4U: -24,
    pickletools.TAKEN_FROM_ARGUMENT8U: -28,
    pickletools.UP_TO_NEWLINE: LINE,
}
ARGUMENT: list[int | None] = [None] * 256
NAME = [""] * 256
POPS: list[tuple[int, bool]] = [(0, False)] * 256  # how many values, and all down to a mark before them
PUSHES = [0] * 256
PUSHES_BY_NAME: dict[str, int] = {}
for _opcode in pickletools.opcodes:
    _code = ord(_opcode.code)
    NAME[_code] = _opcode.name
    _size = _opcode.arg.n if _opcode.arg else 0
    ARGUMENT[_code] = PAIR if _opcode.name in ("GLOBAL", "INST") else _SIZES.get(_size, _size)
    _before = [kind.name for kind in _opcode.stack_before]
    POPS[_code] = (_before.index("mark") if "mark" in _before else len(_before), "mark" in _before)
    PUSHES[_code] = PUSHES_BY_NAME[_opcode.name] = len(_opcode.stack_after)

TEXTS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING", "BINSTRING", "STRING"}
IS_TEXT = [name in TEXTS for name in NAME]
CALLS = [name in {"REDUCE", "OBJ", "NEWOBJ", "NEWOBJ_EX"} for name in NAME]
PUTS, GETS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"GET", "BINGET", "LONG_BINGET"}
IMPORTS = {"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}
SPECIAL = [name in {"MARK", "STOP", "DUP", "POP", "BUILD", *IMPORTS, *PUTS, *GETS} for name in NAME]


@dataclass(eq=False, slots=True)
class Imported:
    """A value that is an imported name itself."""

    name: str


@dataclass(eq=False, slots=True)
class Text:
    """A value that is a text, and where it stands."""

    kind: str
    first: int
    last: int
    value: str | None = None  # kept, because one text can be used a million times in three bytes each

    def read(self, data: Buffer) -> str:
        """The text as a loader would see it, its first 2,000 bytes."""
        if self.value is None:
            self.value = self.decoded(data)
        return self.value

    def decoded(self, data: Buffer) -> str:
        raw = bytes(data[self.first : min(self.last, self.first + 2000)])
        try:
            if self.kind == "UNICODE":  # protocol 0 has escapes
                raw = raw.decode("raw-unicode-escape").encode("utf-8", "replace")
            elif self.kind == "STRING":
                raw = codecs.escape_decode(raw.strip()[1:-1])[0]
        except ValueError:
            raw = b"?"
        return raw.decode("utf-8", "replace")


class Keeper(Protocol):
    """Keeps the values that a pickle makes (pickle_values.py)."""

    def result(self, name: str, taken: list[object], argument: bytes) -> list[object]: ...
    def built(self, stack: list[object], state: object, place: int) -> int: ...


@contextmanager
def no_collection() -> Iterator[None]:
    """Let Python not look for cycles meanwhile: it would search millions of values again and again."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@no_collection()
def walk(data: Buffer, start: int = 0, most: int = MOST_INSTRUCTIONS, values: Keeper | None = None) -> Walk:
    """Follow the pickle that begins at `start`. Raises TooLong beyond `most` or MOST_VALUES.

    With `values`, the plain values are kept as well, which takes longer and may raise CannotJudge.
    """
    found = Walk(start, start)
    stack: list[object] = []
    memo: dict[int, object] = {}
    size, position, count = len(data), start, 0
    window, base = b"", start  # instructions are read from a copy: single bytes of a mapped file are slow
    while position < size:
        offset = position - base
        if offset >= len(window) or offset < 0:
            base, offset = position, 0
            window = data[position : position + 65536]
        code = window[offset]
        argument = ARGUMENT[code]
        if argument is None:
            break
        count += 1
        if count > most or (count & 4095 == 0 and len(stack) + len(memo) > MOST_VALUES):
            raise TooLong
        # where the argument stands
        first = position + 1
        if argument >= 0:
            last = after = first + argument
        elif argument <= -21:
            width = -20 - argument
            first += width
            length = int.from_bytes(data[first - width : first], "little")
            last = after = first + length
        else:
            last = data.find(b"\n", first)
            after = last + 1
            if argument == PAIR and last >= 0:
                middle = last
                last = data.find(b"\n", after)
                after = last + 1
                if last < 0:  # Python's own reader takes what there is, without its last byte, and imports it
                    _import(found, stack, _line(data, first, middle), _line(data, middle + 1, size - 1))
            elif argument == PAIR:
                _import(found, stack, _line(data, first, size - 1), "")
            if last < 0:
                break
        if after > size:
            break
        position = after
        if CALLS[code]:
            _note_call(NAME[code], stack, found)
        if SPECIAL[code]:
            state = stack[-1] if values and stack else None
            if not _special(NAME[code], data, (first, last), stack, memo, found):
                found.end = position
                break
            if argument == PAIR:
                _import(found, stack, _line(data, first, middle), _line(data, middle + 1, last))
                if NAME[code] == "INST":
                    _note_function(stack[-1], found)
            if values and NAME[code] == "BUILD":
                position = values.built(stack, state, position)
        elif values and not IS_TEXT[code]:
            taken = _take(stack, *POPS[code])
            if taken is None:
                break
            found.calls |= CALLS[code]
            stack.extend(values.result(NAME[code], taken, data[first:last] if last > first else b""))
        else:
            pops, marked = POPS[code]
            if marked:
                while stack and stack[-1] is not MARK:
                    stack.pop()
                if not stack:
                    break
                stack.pop()
            if pops:
                if len(stack) < pops or MARK in stack[-pops:]:
                    break
                del stack[-pops:]
            if CALLS[code]:
                found.calls = True
            if IS_TEXT[code]:
                stack.append(Text(NAME[code], first, last))
            else:
                stack.extend([None] * PUSHES[code])
        found.end = position
    found.instructions = count
    return found


def instructions_for_scanners(data: Buffer, most: int) -> int:
    """How many instructions stand in a row from the start, at most `most`.

    A loader stops at the first one that makes no sense, or at STOP; scanners read on.
    """
    position, count, size = 0, 0, len(data)
    window, base = b"", 0
    while position < size and count < most:
        offset = position - base
        if offset >= len(window):
            base, offset = position, 0
            window = data[position : position + 65536]
        argument = ARGUMENT[window[offset]]
        if argument is None:
            break
        count += 1
        position += 1
        if argument >= 0:
            position += argument
        elif argument <= -21:
            width = -20 - argument
            position += width + int.from_bytes(data[position : position + width], "little")
        else:
            for _ in range(2 if argument == PAIR else 1):
                position = data.find(b"\n", position) + 1
                if not position:
                    return count
    return count


def _take(stack: list[object], pops: int, marked: bool) -> list[object] | None:
    """Take the values of one instruction off the stack, the lowest first; None if they are not there."""
    above: list[object] = []
    if not (marked or pops):
        return above
    if marked:
        while stack and stack[-1] is not MARK:
            above.append(stack.pop())
        if not stack:
            return None
        stack.pop()
        above.reverse()
    if not pops:
        return above
    below = stack[-pops:]
    if len(stack) < pops or MARK in below:
        return None
    del stack[-pops:]
    return below + above if above else below


def _special(  # noqa: PLR0917 (called a million times: by place is faster)
    name: str, data: Buffer, span: tuple[int, int], stack: list[object], memo: dict[int, object], found: Walk
) -> bool:
    """One instruction that matters for imports. Gives False where the pickle ends."""
    if name in PUTS:
        if not stack:
            return False
        memo[len(memo) if name == "MEMOIZE" else _number(name, data[span[0] : span[1]])] = stack[-1]
    elif name in GETS:
        # a reader that goes on from an earlier pickle may know more than we do: unknown, but not an error
        stack.append(memo.get(_number(name, data[span[0] : span[1]])))
    elif name == "MARK":
        stack.append(MARK)
    elif name == "STOP":
        found.complete = bool(stack) and stack[-1] is not MARK
        found.value = stack[-1] if stack else None
        return False
    elif name == "INST":  # the arguments of the call; the name itself comes afterwards
        while stack and stack[-1] is not MARK:
            stack.pop()
        if stack:  # Python's own reader imports first and looks for the mark afterwards
            stack.pop()
            found.calls = True
    elif name == "STACK_GLOBAL":
        if len(stack) < 2:
            return False
        module, attribute = stack[-2], stack[-1]
        del stack[-2:]
        if isinstance(module, Text) and isinstance(attribute, Text):
            odd = found.odd
            _import(found, stack, module.read(data), attribute.read(data))
            found.hides |= found.odd and not odd  # not a name that anybody saves
        else:
            found.hides = True
            stack.append(None)
    elif name.startswith("EXT"):
        found.codes = True
        stack.append(None)
    elif name == "DUP":
        if not stack:
            return False
        stack.append(stack[-1])
    elif name == "POP":
        if not stack:
            return False
        stack.pop()
    elif name == "BUILD":
        if len(stack) < 2:
            return False
        stack.pop()
        found.calls = True
        found.changes |= isinstance(stack[-1], Imported)
    return True


def _note_call(name: str, stack: list[object], found: Walk) -> None:
    """Note the name of what an instruction calls, which lies below its arguments."""
    if name == "OBJ":  # with any number of arguments, down to a mark
        place = 1
        while place <= len(stack) and stack[-place] is not MARK:
            place += 1
        place -= 1
    else:
        place = 3 if name == "NEWOBJ_EX" else 2
    if 0 < place <= len(stack):
        _note_function(stack[-place], found)


def _note_function(function: object, found: Walk) -> None:
    if isinstance(function, Imported):
        found.called.add(function.name)


def _number(name: str, argument: bytes) -> int:
    if name in ("GET", "PUT"):
        try:
            return int(argument)
        except ValueError:
            return -1
    return int.from_bytes(argument, "little")


def _line(data: Buffer, first: int, last: int) -> str:
    """A text in the bytes, as far as a name can reach: no more is read, however long it is."""
    return bytes(data[first : min(last, first + 2000)]).decode("utf-8", "replace")


@lru_cache(maxsize=2048)  # a pickle of some megabytes can import the same two names a million times
def _named(module: str, attribute: str) -> tuple[Imported, bool]:
    """What is imported, and whether its name is a valid one."""
    if len(module) + len(attribute) > LONGEST_NAME:
        return Imported(""), False
    name = full_name(module, attribute)
    return Imported(name), VALID_NAME.fullmatch(name) is not None


def _import(found: Walk, stack: list[object], module: str, attribute: str) -> None:
    """Note an import."""
    imported, valid = _named(module, attribute)
    if valid:
        found.names.add(imported.name)
    else:
        found.odd = True
        found.odd_module |= "\0" not in module  # no file has such a name
    stack.append(imported)
