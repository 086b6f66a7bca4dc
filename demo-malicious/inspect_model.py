"""Look inside a model file without loading it: what would it do?

    python inspect_model.py malicious_model.pt
    python inspect_model.py safe_model.safetensors

Exit code 0: no code found. 1: loading it could run code. 2: the file cannot be judged.
"""

from __future__ import annotations

import ast
import contextlib
import io
import pickle
import pickletools
import re
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from dataclasses import dataclass, field
from pathlib import Path

import torch
from fickling.analysis import Severity, check_safety
from fickling.fickle import Pickled
from fickling.loader import RelaxedZipFile
from safetensors import SafetensorError, safe_open
from torch._weights_only_unpickler import _get_allowed_globals, get_globals_in_pkl

import cli
from safe_loading import existing_file

LINES = 30  # of the decompiled pickle; marked lines are always shown
BIGGEST = 64 * 1024 * 1024  # bytes of one pickle; the numbers of a model stand elsewhere in the file
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch.save's first pickle before PyTorch 1.6; five pickles in all

# The names that weights_only=True allows: PyTorch's own list. The function is private to PyTorch, which is
# one reason why requirements-torch.txt pins the version.
ALLOWED = frozenset(_get_allowed_globals())


@dataclass
class PickleReport:
    """What one pickle would do, found without running it."""

    where: str
    code: list[str] = field(default_factory=list)  # the decompiled lines
    marked: dict[int, str] = field(default_factory=dict)  # line index -> why it is dangerous
    imports: set[str] = field(default_factory=set)
    trouble: list[str] = field(default_factory=list)  # what kept us from following all of it
    fickling: Severity | None = None

    @property
    def outside(self) -> list[str]:
        """The imported names that PyTorch's safe loader does not allow."""
        return sorted(self.imports - ALLOWED)


def full_name(module: str, name: str) -> str:
    """A name as Python 3 spells it: old pickles say __builtin__ where Python 3 says builtins."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def decompile(where: str, data: bytes) -> PickleReport:
    """Turn one pickle into readable Python (fickling), and collect every name that it would import."""
    report = PickleReport(where)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("GLOBAL", "INST"):
                report.imports.add(full_name(*str(argument).split(" ", 1)))
    except Exception:
        report.trouble.append("it is damaged, or it is no pickle")
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # fickling's own warnings; we say it in our words
            pickled = Pickled.load(data, fail_on_decode_error=False)
            report.code, report.marked = mark(pickled.ast, report.imports)
            report.fickling = check_safety(pickled).severity
        if pickled.has_interpretation_error:
            report.trouble.append("it hides what it does")
    except Exception as error:  # fickling follows most pickles, but not all
        report.trouble.append(f"fickling cannot follow it: {type(error).__name__}")
    try:
        # the names once more, read by PyTorch: two readers are harder to fool than one
        report.imports |= get_globals_in_pkl(io.BytesIO(data))
    except Exception:
        report.trouble.append("it has instructions that PyTorch's safe loader does not accept")
    if strange := {name for name in report.imports if not re.fullmatch(r"[\w.<>]+", name)}:
        # no Python name: a text file, for example, that happens to start like a pickle
        report.imports -= strange
        report.trouble.append("it imports something that is no name")
    return report


def mark(tree: ast.Module, imports: set[str]) -> tuple[list[str], dict[int, str]]:
    """Decompiled lines, and which of them are dangerous: outside imports and calls of what they bring.

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
            for node in ast.walk(statement):
                if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[0] in dangerous:
                    reason = f"calls {ast.unparse(node.func)}"
        text = ast.unparse(statement)
        if reason:
            marked[len(lines)] = reason
        lines.extend(text.splitlines())
    return lines, marked


def pickles_in_zip(path: Path) -> list[tuple[str, bytes]]:
    """The pickles inside the zip file that torch.save writes: (name in the archive, bytes)."""
    found = []
    try:
        with RelaxedZipFile(path) as archive:
            for member in archive.infolist():
                if not member.filename.endswith((".pkl", ".pickle")):
                    continue
                if member.file_size > BIGGEST:
                    raise cli.UserError(f"{path} holds a pickle of {member.file_size} bytes: do not load it.")
                found.append((member.filename, archive.read(member)))
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
        raise cli.UserError(f"{path} is a damaged zip file: do not load it, get the file again.") from error
    if not found:
        raise cli.UserError(f"{path} is a zip file without a pickle: it is no model that torch.save wrote.")
    return found


def pickles_in_stream(path: Path) -> list[tuple[str, bytes]]:
    """The pickles at the start of a file of before PyTorch 1.6 (or of pickle.dump): (place, bytes).

    The old format is five pickles in a row, then raw numbers, which nobody unpickles.
    """
    if path.stat().st_size > BIGGEST * 16:
        raise cli.UserError(f"{path} is larger than 1 GB and not a zip file: this tool does not read that.")
    data = path.read_bytes()
    limit = 5 if data.startswith(pickle.dumps(LEGACY_MAGIC, protocol=2)) else 1000
    found: list[tuple[str, bytes]] = []
    start = 0
    while start < len(data) and len(found) < limit:
        end = end_of_pickle(data, start)
        found.append((f"pickle {len(found) + 1}, byte {start}", data[start:end]))
        start = end
    return found


def end_of_pickle(data: bytes, start: int) -> int:
    """Where the pickle that begins at `start` stops; the end of the data if it is broken."""
    stream = io.BytesIO(data)
    stream.seek(start)
    try:
        for _ in pickletools.genops(stream):
            pass
    except Exception:  # not only ValueError: the bytes may be anything
        return len(data)
    return stream.tell()


def torch_says(path: Path) -> list[str] | None:
    """The names that PyTorch's public check of a zip file does not allow; None if it gives up."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # it gives up on TorchScript, for example, and on damaged files
        return None


def visible(text: str) -> str:
    """The text with control characters written out: names in a hostile file must not steer the terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def show(report: PickleReport, every_line: bool, out: cli.Out) -> None:
    """Print the decompiled lines of one pickle, with the dangerous ones marked in words."""
    out.heading(f"Decompiled, not run: {visible(report.where)}")
    hidden = 0
    for index, line in enumerate(report.code):
        if index in report.marked:
            out.say(f"{index + 1:4}  DANGER, {visible(report.marked[index])}: {visible(line)}", "bold red")
        elif every_line or index < LINES:
            out.say(f"{index + 1:4}  {visible(line)}")
        else:
            hidden += 1
    if hidden:
        out.say(f"      {hidden} more lines without a mark (--all shows them)")
    if not report.code:
        out.say("      nothing could be decompiled")


def inspect_pickles(path: Path, every_line: bool, out: cli.Out) -> int:
    """Judge a pickle-based file. Returns 0 or 1; raises UserError if it cannot be judged."""
    with path.open("rb") as file:
        # PyTorch decides by the first four bytes, so we do: other zip tools look at the end of a file
        is_zip = file.read(4) == b"PK\x03\x04"
    found = pickles_in_zip(path) if is_zip else pickles_in_stream(path)
    reports = [decompile(where, data) for where, data in found]
    names = torch_says(path) if is_zip else []
    outside = sorted({name for report in reports for name in report.outside} | set(names or []))
    trouble = [f"{report.where}: {text}" for report in reports for text in report.trouble]
    if names is None:
        trouble.append("PyTorch's check gives up on it")
    if not outside and not any(report.code for report in reports):
        raise cli.UserError(f"{path} is not a model file, or it is damaged: do not load it.")

    kind = "the zip format of torch.save" if is_zip else "pickles in a row (torch.save before 1.6)"
    out.say(f"{path}: {path.stat().st_size} bytes, {kind}, pickles inside: {len(reports)}")
    for report in reports:
        show(report, every_line, out)
    words = "gives up" if names is None else ", ".join(names) or "no name outside its list"
    if not is_zip:
        words = "reads only the zip format"
    severities = [report.fickling for report in reports if report.fickling]
    fickling = max(severities).name if len(severities) == len(reports) else "gives up"
    out.heading("What the tools say")
    out.table(
        "Judges",
        ["judge", "answer"],
        [("PyTorch get_unsafe_globals_in_checkpoint", visible(words)), ("fickling", fickling)],
    )

    out.heading("Verdict")
    if outside:
        out.say("NOT SAFE TO LOAD", "bold red")
        out.say(
            f"Reason: it imports {visible(', '.join(outside))}. PyTorch's safe loader (weights_only=True) "
            "does not allow that in a model; weights_only=False would run it."
        )
        return cli.FINDING
    if trouble:
        out.say("CANNOT BE JUDGED")
        raise cli.UserError(f"{path} cannot be judged ({visible(trouble[0])}): do not load it.")
    count = len({name for report in reports for name in report.imports})
    out.say("NO CODE FOUND", "bold green")
    out.say(f"Reason: all {count} names that it imports are on the list that PyTorch's safe loader allows.")
    if fickling != Severity.LIKELY_SAFE.name:
        out.say("fickling warns of every model with tensors: for it, each import from torch is a risk.")
    out.say("This verdict is about code. It does not tell whether the weights were poisoned (demo 2).")
    return cli.OK


def inspect_safetensors(path: Path, out: cli.Out) -> int:
    """Read the header of a SafeTensors file: names, types and shapes. Raises UserError if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            rows = []
            for name in file.keys():  # noqa: SIM118 (not a dict)
                part = file.get_slice(name)
                rows.append((visible(name), part.get_dtype(), "x".join(map(str, part.get_shape()))))
    except (SafetensorError, OSError, ValueError) as error:
        raise cli.UserError(
            f"{path} is not a valid SafeTensors file (damaged, or another format): do not load it."
        ) from error
    out.say(f"{path}: {path.stat().st_size} bytes, SafeTensors, {len(rows)} tensors")
    out.heading("Header")
    out.table("Tensors", ["name", "type", "shape"], rows[:LINES])
    if len(rows) > LINES:
        out.say(f"{len(rows) - LINES} more tensors")
    out.heading("Verdict")
    out.say("NO CODE FOUND", "bold green")
    out.say("Reason: there is no pickle in this format, only this header and numbers; the header is valid.")
    out.say("This verdict is about code. It does not tell whether the weights were poisoned (demo 2).")
    return cli.OK


def main() -> int:
    """Read the command line, choose by the kind of file."""
    arguments = cli.parser(__doc__)
    arguments.add_argument("file", type=Path, help="a .pt, .pth, .pkl or .safetensors file")
    arguments.add_argument("--all", action="store_true", help=f"show all lines, not only the first {LINES}")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    path = existing_file(args.file)
    if path.suffix == ".safetensors":
        return inspect_safetensors(path, out)
    return inspect_pickles(path, args.all, out)


if __name__ == "__main__":
    cli.run(main)
