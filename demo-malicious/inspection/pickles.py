"""Pickles: at the start of a file, one after the other, and what their imports mean.

Helper module, not a command.
"""

from __future__ import annotations

import re

from inspection import archives, numpy_states, numpy_types, raw_numbers
from inspection.content import MB, Content
from inspection.names import JOBLIB_ARRAY, disallowed, few, full_name, only_data, refused, way_forward
from inspection.pickle_reader import TOO_LONG, Buffer, TooLong, Walk, walk
from inspection.pickle_values import Values
from inspection.plain_texts import is_text
from inspection.report import SAFE, UNKNOWN, UNSAFE, CannotJudge

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save's first pickle before PyTorch 1.6
MOST_PICKLES = 2000  # in a row
STREAM = "plain pickle"
BEGINNING = "bytes that begin as a pickle could"  # numbers of any kind may: the reader stops after some steps
MSGPACK = "msgpack, as Flax and spaCy save it"
JOBLIB = "joblib file with arrays"
BREAKS_OFF = "it is a pickle that breaks off: it is damaged or cut off"
JOBLIB_SAFE = (
    "it is a joblib file whose names only hold data; its arrays are numbers, measured to the last byte"
)
JOBLIB_HELP = (
    "joblib.load is a reader of pickles and has no safe mode: inspect a file before each load, or ask the "
    "sender for SafeTensors, skops or ONNX."
)
CALLS_ARRAYS = (
    "it makes an array of NumPy by its class, as no saved model does: so it can take any bytes for Python "
    "objects, and write over memory"
)
OLD_STREAM = "stream of pickles (torch.save before PyTorch 1.6)"


def bare_pickles(data: Buffer, where: str, content: Content, others: list[str]) -> str:
    """The pickles at the start: any file, also one of another format, can be read as such. Gives the name."""
    if data[0:4] == archives.LOCAL:
        return ""  # a pickle that begins with P stops there in every loader
    try:
        first = walk(data, 0, content.instructions)
    except TooLong:
        return too_long(where, content)
    if not first.accepted and not first.odd:
        if others or data[0:1] != b"\x80" or data[1:2] not in (b"\2", b"\3", b"\4", b"\5"):
            return ""
        content.add(UNKNOWN, BREAKS_OFF, where)
        return STREAM
    text = is_text(data)
    if (others or text) and not first.accepted:
        return ""  # what stands there is no name, so that no loader goes on
    whole = first.complete and first.end >= len(data) - 1  # a line end may follow
    if text and not whole and not (first.calls and (first.names or first.hides or first.codes)):
        return ""  # a text that begins like a pickle and calls nothing
    if (
        others == [MSGPACK]
        and first.codes
        and not (first.names or first.hides or first.odd or first.complete)
    ):
        return ""  # how msgpack begins; no loader knows such a number, so it stops there
    if others and first.complete and first.end <= 4 and not first.names:
        return ""  # one or two instructions without effect, as many files begin
    try:
        stream(data, 0, where, content, first)
    except TooLong:  # not in its first pickle
        return too_long(where, content)
    if data[0 : len(LEGACY_MAGIC)] == LEGACY_MAGIC:
        return OLD_STREAM
    if not (first.complete or first.names or first.hides) and data[0:1] != b"\x80":
        return BEGINNING
    return JOBLIB if JOBLIB_ARRAY in first.names else STREAM


def too_long(where: str, content: Content) -> str:
    """Note that there are more instructions than we follow."""
    content.limit = True
    content.add(UNKNOWN, TOO_LONG, where)
    return STREAM


def stream(data: Buffer, start: int, where: str, content: Content, first: Walk | None = None) -> None:
    """Check the pickles in a row from `start` on, and what lies behind them. `first` was followed already."""
    if bytes(data[start : start + len(LEGACY_MAGIC)]) == LEGACY_MAGIC:
        old_stream(data, start, where, content)
        return
    position, number, size = start, 0, len(data)
    while position < size and number < MOST_PICKLES:
        found = first if first and number == 0 else walk(data, position, content.instructions)
        number += 1
        if JOBLIB_ARRAY in found.names:
            position = joblib(data, found, where, content, number)
            if position < 0:
                return
            continue
        note(data, found, where, content, number)
        if not found.complete:
            if number > 1 and not found.accepted and not found.odd:
                break
            content.add(UNKNOWN, BREAKS_OFF, where)
            return
        position = found.end
    if position < size:
        behind = f"it has {size - position} bytes behind its pickle that no format explains"
        content.add(UNKNOWN, behind, where)


def old_stream(data: Buffer, start: int, where: str, content: Content) -> None:
    """torch.save before PyTorch 1.6: five pickles, then the numbers, which the last two pickles measure."""
    position, values = start, Values(data)
    for number in range(1, 6):
        try:
            found = one_pickle(data, position, where, content, number, values if number > 3 else None)
        except CannotJudge as error:
            content.add(UNKNOWN, str(error), where)
            return
        if not found.complete:
            content.add(UNKNOWN, BREAKS_OFF, where)
            return
        position = found.end
    try:
        end = raw_numbers.end_of_storages(data, position, values.stored, found.value, values)
    except CannotJudge as error:
        content.add(UNKNOWN, str(error), where)
        return
    if end < len(data):
        behind = f"it has {len(data) - end} bytes behind its last tensor that no format explains"
        content.add(UNKNOWN, behind, where)


def joblib(data: Buffer, first: Walk, where: str, content: Content, number: int) -> int:
    """A pickle of joblib with arrays, whose numbers stand between its instructions. Gives its end, or -1.

    `first` is what a plain reader of pickles makes of it, which takes the numbers for instructions.
    """
    try:
        parts = raw_numbers.joblib_arrays(data, first.start, content.instructions)
        if not parts[0].complete:
            raise CannotJudge(BREAKS_OFF)
    except CannotJudge as error:
        content.add(UNKNOWN, f"it is a joblib file with arrays: {error}", where, JOBLIB_HELP)
        note(data, first, where, content, number)
        later_names(data, first.end, where, content)
        return -1
    content.instructions -= first.instructions  # a plain reader can read far behind the end of this one
    seen: set[str] = set()
    for found in parts:
        note(data, found, where, content, number)
        seen |= found.names
    content.add(SAFE, JOBLIB_SAFE, where, JOBLIB_HELP)
    if (more := disallowed(first.names - seen)) or (first.hides and not any(found.hides for found in parts)):
        what = few(more) if more else "a name that it puts together"
        content.add(
            UNKNOWN,
            f"joblib.load finds only data in it, but pickle.load would import {what}",
            where,
            JOBLIB_HELP,
        )
    return parts[0].end


def one_pickle(  # noqa: PLR0917 (the place in the file and the place for the findings)
    data: Buffer, start: int, where: str, content: Content, number: int = 0, values: Values | None = None
) -> Walk:
    """Follow one pickle and note what it would do."""
    found = walk(data, start, content.instructions, values)
    note(data, found, where, content, number)
    return found


def note(data: Buffer, found: Walk, where: str, content: Content, number: int) -> None:
    """Note what one pickle would do, and keep it for the decompiler."""
    content.instructions -= found.instructions
    content.names |= found.names
    start, size = found.start, found.end - found.start
    if size <= content.kept:
        content.kept -= size
        after = found.end if found.complete else min(len(data), found.end + 4096)
        content.pickles.append((where or f"pickle {number}, byte {start}", bytes(data[start:after])))
    check_names(found, where, content)
    if JOBLIB_ARRAY not in found.names and numpy_states.named(found.names):
        try:
            numpy_states.check_states(data, start, found.instructions)
        except CannotJudge as error:
            content.add(UNKNOWN, str(error), where)


IMPORTS = re.compile(  # an import as it stands in the bytes: two lines, or two short texts before it
    rb"c([A-Za-z_][\w.]{0,100})\n([A-Za-z_][\w.]{0,100})\n"
    rb"|\x8c[\x01-\x64]([A-Za-z_][\w.]{0,99})(?:\x94|q.)?\x8c[\x01-\x64]([A-Za-z_][\w.]{0,99})(?:\x94|q.)?\x93"
)


def later_names(data: Buffer, start: int, where: str, content: Content) -> None:
    """Imports behind numbers between instructions: found by their look, so at best some of them."""
    seen = Walk(start)
    for match in IMPORTS.finditer(data[start : start + 64 * MB]):
        module, name = (part.decode() for part in match.groups() if part)
        seen.names.add(full_name(module, name))
    if disallowed(seen.names):
        content.names |= seen.names
        check_names(seen, where, content)


def check_names(found: Walk, where: str, content: Content) -> None:
    """The findings that follow from the names of one pickle."""
    if found.hides:
        content.add(UNSAFE, "it puts together the name of what it imports, as no saved model does", where)
    if bad := disallowed(found.names):
        content.add(UNSAFE, refused(bad), where, way_forward(bad))
    if arrays := numpy_types.makes_arrays(found.called, found.names):
        content.add(UNSAFE, CALLS_ARRAYS, where)
    if found.changes:
        content.add(UNKNOWN, "it changes a class or function that it imports, as no saved model does", where)
    if found.codes:
        content.add(
            UNKNOWN, "it imports by numbers of Python's extension registry, which it does not bring", where
        )
    if found.odd:
        content.add(UNKNOWN, "it imports something that is not a valid name", where)
    if not (found.hides or bad or arrays or found.changes or found.codes or found.odd) and found.complete:
        data = only_data(found.names)
        if data:
            content.add(
                SAFE,
                f"the names that it imports only hold data; torch.load refuses {few(data)} unless told",
                where,
            )
        elif found.names:
            content.add(SAFE, "", where)  # the report counts the names
        else:
            content.add(SAFE, "it imports nothing", where)
