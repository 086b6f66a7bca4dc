"""A pickle as readable Python, with the dangerous lines marked. Nothing is run.

Helper module, not a command: fickling decompiles, scanners.py takes its severity from here.
"""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inspection.names import full_name, is_allowed, is_data

if TYPE_CHECKING:
    from fickling.analysis import Severity

MOST_FOLLOWED = 30_000  # instructions of a file; fickling takes a second for 10,000
MOST_PARTS = 200_000  # of the decompiled program: 25 instructions can describe 2 to the power of 25 parts

ONE_AT_A_TIME = threading.Lock()


@dataclass
class PickleReport:
    """What one pickle would do, as text."""

    where: str
    code: list[str] = field(default_factory=list)  # the decompiled lines
    marked: dict[int, str] = field(default_factory=dict)  # line index -> why it is dangerous
    fickling: Severity | None = None  # None: fickling gives up
    imports: set[str] = field(default_factory=set)  # what fickling sees


def decompile(where: str, data: bytes) -> PickleReport:
    """Turn one pickle into readable Python, and ask fickling how dangerous it looks."""
    from fickling.analysis import check_safety  # noqa: PLC0415 (takes a second to import)
    from fickling.fickle import Pickled  # noqa: PLC0415

    report = PickleReport(where)
    try:
        # fickling's own warnings go nowhere, we say it in our words; one at a time, because the server
        # inspects files in threads, and there is only one sys.stdout
        with (
            ONE_AT_A_TIME,
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            pickled = Pickled.load(data, fail_on_decode_error=False)
            if sum(1 for _ in itertools.islice(parts(pickled.ast), MOST_PARTS)) == MOST_PARTS:
                return report
            report.code, report.marked = mark(pickled.ast, report.imports)
            report.fickling = check_safety(pickled).severity
    except Exception:  # fickling follows most pickles, but not all
        return report
    return report


def parts(tree: ast.AST) -> Iterator[object]:
    """All parts of a program. ast.walk would leave out tuples, which fickling puts in for lists."""
    todo: list[object] = [tree]
    while todo:
        part = todo.pop()
        yield part
        if isinstance(part, ast.AST):
            todo.extend(value for _, value in ast.iter_fields(part))
        elif isinstance(part, (tuple, list, set, frozenset)):
            todo.extend(part)


def mark(tree: ast.Module, imports: set[str]) -> tuple[list[str], dict[int, str]]:
    """Decompiled lines, and which of them are dangerous: disallowed imports and calls of what they bring.

    Adds the names of all import lines to `imports`.
    """
    lines: list[str] = []
    marked: dict[int, str] = {}
    dangerous: set[str] = set()  # as they are called below the import line
    for statement in tree.body:
        reason = ""
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                name = full_name(statement.module or "", alias.name)
                imports.add(name)
                if not is_allowed(name) and not is_data(name):
                    dangerous.add(alias.asname or alias.name)
                    reason = f"imports {name}, which PyTorch's safe loader does not allow"
        else:
            for node in parts(statement):
                if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[0] in dangerous:
                    reason = f"calls {ast.unparse(node.func)}"
        text = ast.unparse(statement)
        if reason:
            marked[len(lines)] = reason
        lines.extend(text.splitlines())
    return lines, marked
