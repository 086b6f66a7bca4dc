"""Read the pickles inside a model file as text. They are never run.

Helper module, not a command: scanners.py uses these functions. A hostile file can be made to choke its
readers, so sizes are checked first, and nothing here follows a file without end.
"""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import pickle
import pickletools
import re
import threading
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fickling.analysis import Severity, check_safety
from fickling.fickle import Pickled
from fickling.loader import RelaxedZipFile
from torch._weights_only_unpickler import _get_allowed_globals, get_globals_in_pkl

MB = 1024 * 1024
# A pickle names and arranges; the numbers of a model stand elsewhere in the file. ResNet18 needs 9 kB and
# 3,000 instructions, so these limits leave room for large models.
BIGGEST_PICKLE = 32 * MB
BIGGEST_OLD_FILE = 256 * MB  # files of before PyTorch 1.6
MOST_INSTRUCTIONS = 250_000  # of all pickles in a file
MOST_FOLLOWED = 30_000  # of them by fickling, which takes a second for 10,000
MOST_PARTS = 200_000  # of the decompiled program: 25 instructions can describe 2 to the power of 25 parts
MOST_MEMBERS = 20_000  # of a zip file
MOST_UNPACKED = 128 * MB  # out of the compressed members of a zip file; torch.save compresses nothing
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch.save's first pickle before PyTorch 1.6; five pickles in all
PICKLE_NAMES = (".pkl", ".pickle", ".joblib", ".dill", ".dat", ".data")  # what the scanners take for one

# The names that weights_only=True allows: PyTorch's own list. The function is private to PyTorch, which is
# one reason why requirements-torch.txt pins the version.
ALLOWED = frozenset(_get_allowed_globals())

ONE_AT_A_TIME = threading.Lock()
DAMAGED = "it is damaged, or it is not a valid pickle"


class CannotJudge(Exception):
    """Why no verdict is possible: one clause that starts with "it"."""


@dataclass
class PickleReport:
    """What one pickle would do, found without running it."""

    where: str
    code: list[str] = field(default_factory=list)  # the decompiled lines
    marked: dict[int, str] = field(default_factory=dict)  # line index -> why it is dangerous
    imports: set[str] = field(default_factory=set)
    trouble: list[str] = field(default_factory=list)  # what kept us from following all of it
    instructions: int = 0
    fickling: Severity | None = None  # None: fickling gives up

    @property
    def disallowed(self) -> list[str]:
        """The imported names that PyTorch's safe loader does not allow."""
        return sorted(self.imports - ALLOWED)


def full_name(module: str, name: str) -> str:
    """A name as Python 3 spells it: old pickles say __builtin__ where Python 3 says builtins."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def decompile(where: str, data: bytes, followed: int = 0) -> PickleReport:
    """Turn one pickle into readable Python (fickling), and collect every name that it would import.

    `followed` is the number of instructions in the pickles before it in the same file.
    """
    report = PickleReport(where)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            report.instructions += 1
            if opcode.name in ("GLOBAL", "INST"):
                report.imports.add(full_name(*str(argument).split(" ", 1)))
    except Exception:
        report.trouble.append(DAMAGED)
    if followed + report.instructions <= MOST_FOLLOWED:
        follow(data, report)
    try:
        # the names once more, read by PyTorch: two readers are harder to fool than one
        report.imports |= get_globals_in_pkl(io.BytesIO(data))
    except Exception:
        report.trouble.append("it has instructions that PyTorch's safe loader does not accept")
    if strange := {name for name in report.imports if not re.fullmatch(r"[\w.<>]{1,200}", name)}:
        # no Python name: a text file, for example, that happens to start like a pickle
        report.imports -= strange
        report.trouble.append("it imports something that is not a valid name")
    return report


def follow(data: bytes, report: PickleReport) -> None:
    """Let fickling decompile the pickle, into the report."""
    try:
        # fickling's own warnings go nowhere, we say it in our words; one at a time, because the server
        # inspects files in threads, and there is only one sys.stderr
        with ONE_AT_A_TIME, contextlib.redirect_stderr(io.StringIO()):
            pickled = Pickled.load(data, fail_on_decode_error=False)
            if sum(1 for _ in itertools.islice(parts(pickled.ast), MOST_PARTS)) == MOST_PARTS:
                report.trouble.append("it is too tangled to follow")
                return
            report.code, report.marked = mark(pickled.ast, report.imports)
            report.fickling = check_safety(pickled).severity
        if pickled.has_interpretation_error:
            report.trouble.append("it hides what it does")
    except Exception as error:  # fickling follows most pickles, but not all
        report.trouble.append(f"fickling cannot follow it: {type(error).__name__}")


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
                if name not in ALLOWED:
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


def pickles_in_zip(path: Path) -> tuple[list[tuple[str, bytes]], list[str]]:
    """The pickles inside the zip file that torch.save writes: (name in the archive, bytes), and trouble.

    Raises CannotJudge before it unpacks anything that is too large.
    """
    found = []
    instructions = 0
    try:
        with RelaxedZipFile(path) as archive:
            members = archive.infolist()
            check_sizes(members, path.stat().st_size)
            for member in members:
                if not looks_like_pickle(archive, member):
                    continue
                if member.file_size > BIGGEST_PICKLE:
                    raise CannotJudge(
                        f"it holds a pickle of {member.file_size} bytes, more than any model needs"
                    )
                data = archive.read(member)
                instructions += end_of_pickle(io.BytesIO(data), MOST_INSTRUCTIONS - instructions)
                if member.filename.lower().endswith(
                    (".pkl", ".pickle")
                ):  # PyTorch does not care about capital letters
                    found.append((member.filename, data))
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError, ValueError) as error:
        raise CannotJudge("it is a damaged zip file: get it again") from error
    names = [member.filename.lower() for member in members]
    trouble = []
    if len(set(names)) < len(names):
        trouble.append("it holds two members of the same name, and readers differ in which one they take")
    return found, trouble


def check_sizes(members: list[zipfile.ZipInfo], size: int) -> None:
    """Raise CannotJudge if the table of contents cannot be true or promises too much (a zip bomb)."""
    if len(members) > MOST_MEMBERS:
        raise CannotJudge(f"it is a zip file with {len(members)} members, more than any model needs")
    if sum(member.compress_size for member in members) > size:
        raise CannotJudge("it is a zip file whose members are larger than the file: it is made to mislead")
    packed = [member for member in members if member.compress_type != zipfile.ZIP_STORED]
    if any(member.file_size != member.compress_size for member in members if member not in packed):
        raise CannotJudge("it is a zip file that gives wrong sizes: it is damaged or made to mislead")
    if (unpacked := sum(member.file_size for member in packed)) > MOST_UNPACKED:
        raise CannotJudge(f"it would unpack to {unpacked} bytes, as a zip bomb does")


def looks_like_pickle(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether one of the scanners would read this member as a pickle."""
    if member.filename.lower().endswith(PICKLE_NAMES):
        return True
    with archive.open(member) as file:
        head = file.read(2)
    return head[:1] == b"\x80" and head[1:] <= b"\x05"


def pickles_in_stream(path: Path) -> list[tuple[str, bytes]]:
    """The pickles at the start of a file of before PyTorch 1.6 (or of pickle.dump): (place, bytes).

    The old format is five pickles in a row, then raw numbers, which nobody unpickles.
    """
    size = path.stat().st_size
    magic = pickle.dumps(LEGACY_MAGIC, protocol=2)
    found: list[tuple[str, bytes]] = []
    instructions = 0
    with path.open("rb") as file:
        old = file.read(len(magic)) == magic
        if size > (BIGGEST_OLD_FILE if old else BIGGEST_PICKLE):
            raise CannotJudge(f"it is a pickle of {size} bytes, more than this tool reads")
        start = 0
        while start < size and len(found) < (5 if old else 1000):
            file.seek(start)
            instructions += end_of_pickle(file, MOST_INSTRUCTIONS - instructions)
            end = file.tell()
            file.seek(start)
            found.append((f"pickle {len(found) + 1}, byte {start}", file.read(end - start)))
            start = end
    return found


def end_of_pickle(file: IO[bytes], most: int) -> int:
    """Move to where the pickle that begins here stops, or to the end of the file if it is broken.

    Gives the number of instructions; raises CannotJudge if there are more than `most`.
    """
    count = 0
    try:
        for _ in pickletools.genops(file):
            count += 1
            if count > most:
                break
    except Exception:  # not only ValueError: the bytes may be anything
        file.seek(0, io.SEEK_END)
    if count > most:
        raise CannotJudge(f"it has more than {MOST_INSTRUCTIONS} instructions, more than any model needs")
    return count
