"""Pickles: at the start of a file, one after the other, and what their imports mean.

Helper module, not a command.
"""

from __future__ import annotations

import re

from inspection import archives
from inspection.content import MB, Content
from inspection.names import JOBLIB_ARRAY, disallowed, few, full_name, only_data, refused, way_forward
from inspection.pickle_reader import MOST_INSTRUCTIONS, Buffer, TooLong, Walk, walk
from inspection.plain_texts import is_text
from inspection.report import SAFE, UNKNOWN, UNSAFE

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save's first pickle before PyTorch 1.6
MOST_PICKLES = 2000  # in a row
STREAM = "plain pickle"
BREAKS_OFF = "it is a pickle that breaks off: it is damaged or cut off"
OLD_STREAM = "stream of pickles (torch.save before PyTorch 1.6)"


def bare_pickles(data: Buffer, where: str, content: Content, others: list[str]) -> str:
    """The pickles at the start: any file, also one of another format, can be read as such. Gives the name."""
    if data[0:4] == archives.LOCAL:
        return ""  # a pickle that begins with P stops there in every loader
    try:
        first = walk(data, 0, content.instructions)
    except TooLong:
        content.limit = True
        content.add(
            UNKNOWN, f"it has more than {MOST_INSTRUCTIONS} instructions, more than this tool follows", where
        )
        return STREAM
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
    if others and first.complete and first.end <= 4 and not first.names:
        return ""  # one or two instructions without effect, as many files begin
    stream(data, 0, where, content)
    if data[0 : len(LEGACY_MAGIC)] == LEGACY_MAGIC:
        return OLD_STREAM
    return STREAM


def stream(data: Buffer, start: int, where: str, content: Content) -> None:
    """Check the pickles in a row from `start` on, and what lies behind them."""
    old = bytes(data[start : start + len(LEGACY_MAGIC)]) == LEGACY_MAGIC
    position, number, size = start, 0, len(data)
    while position < size and number < (5 if old else MOST_PICKLES):
        found = one_pickle(data, position, where, content, number + 1)
        number += 1
        if not found.complete:
            if number > 1 and not found.accepted and not found.odd:
                break
            if JOBLIB_ARRAY in found.names:
                later_names(data, found.end, where, content)
            else:
                content.add(UNKNOWN, BREAKS_OFF, where)
            return
        position = found.end
    if position < size and not old:
        content.add(
            UNKNOWN, f"it has {size - position} bytes behind its pickle that no format explains", where
        )


def one_pickle(data: Buffer, start: int, where: str, content: Content, number: int = 0) -> Walk:
    """Follow one pickle and note what it would do."""
    found = walk(data, start, content.instructions)
    content.instructions -= found.instructions
    content.names |= found.names
    place = where or f"pickle {number}, byte {start}"
    size = found.end - start
    if size <= content.kept:
        content.kept -= size
        content.pickles.append(
            (
                place,
                bytes(data[start : max(found.end, min(len(data), found.end + 4096))])
                if not found.complete
                else bytes(data[start : found.end]),
            )
        )
    check_names(found, where, content)
    return found


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
    if JOBLIB_ARRAY in found.names:
        content.add(
            UNKNOWN,
            "it is a joblib file with arrays, whose numbers between its instructions are not judged here",
            where,
            "Load it with joblib only if you trust its maker, or ask the sender for skops or ONNX.",
        )
    if found.changes:
        content.add(UNKNOWN, "it changes a class or function that it imports, as no saved model does", where)
    if found.codes:
        content.add(
            UNKNOWN, "it imports by numbers of Python's extension registry, which it does not bring", where
        )
    if found.odd:
        content.add(UNKNOWN, "it imports something that is not a valid name", where)
    if (
        not (found.hides or bad or JOBLIB_ARRAY in found.names or found.changes or found.codes or found.odd)
        and found.complete
    ):
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
