"""Look inside model files without loading them: what would they do?

    python inspect_model.py malicious_model.pt                 decompiled, four scanners, our verdict
    python inspect_model.py malicious_model.pt other.pt        one table for many files, or for a folder
    python inspect_model.py safe_model.safetensors --json      the same for programs

In a folder every file is looked at, by its content; what is not known is listed and counts as not judged.
Exit code 0: no code found. 1: loading it could run code. 2: it cannot be judged. Of many files, the highest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import cli
from inspection.decompiler import PickleReport
from inspection.files import existing_file
from inspection.folder import HARMLESS, SKIPPED, every_file, inspect_entry
from inspection.names import few
from inspection.report import SAFE, UNKNOWN, Report
from inspection.scanners import SCANNERS
from inspection.verdict import inspect_file

LINES = 12  # of the decompiled pickle, or of the header; marked lines are always shown
WIDTH = 500  # characters of one line
PARTS = 10  # pickles of one file that are shown
MANY = 10  # files: more take a while, so say how far we are
NAMES = 12  # of files in one line
WEIGHTS = "This verdict is about code. It does not tell whether the weights were poisoned (demo 2)."
LONG_NAMES = {"torch": "PyTorch get_unsafe_globals_in_checkpoint"}


def visible(text: str) -> str:
    """The text with control characters written out: names in a hostile file must not steer the terminal."""
    size = len(text)
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: WIDTH + 1])
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}... ({size} characters)"


def show_pickle(part: PickleReport, every_line: bool, out: cli.Out) -> None:
    """Print the decompiled lines of one pickle, with the dangerous ones marked in words."""
    out.heading(f"Decompiled, not run: {visible(part.where)}")
    hidden = 0
    for index, line in enumerate(part.code):
        if index in part.marked:
            out.say(f"{index + 1:4}  DANGER, {visible(part.marked[index])}: {visible(line)}", "bold red")
        elif every_line or index < LINES:
            out.say(f"{index + 1:4}  {visible(line)}")
        else:
            hidden += 1
    if hidden:
        out.say(f"      {hidden} more lines without a mark (--all shows them)")
    if not part.code:
        out.say("      nothing could be decompiled")


def show_content(report: Report, every_line: bool, out: cli.Out) -> None:
    """Print what stands in one file: the header, or the decompiled pickles."""
    if report.tensors:
        out.heading("Header")
        most = None if every_line else LINES
        rows = [tuple(map(visible, row)) for row in report.tensors]
        out.table("Tensors", ["name", "type", "shape"], rows[:most])
        if most and len(rows) > most:
            out.say(f"{len(rows) - most} more tensors (--all shows them)")
    for part in report.pickles[: None if every_line else PARTS]:
        show_pickle(part, every_line, out)
    if len(report.pickles) > PARTS and not every_line:
        out.say(f"{len(report.pickles) - PARTS} more pickles (--all shows them)")


def show_one(report: Report, every_line: bool, out: cli.Out) -> int:
    """Print all about one file. Returns 0 or 1; raises UserError if it cannot be judged."""
    path = report.path
    if report.formats:
        parts = [f"{len(report.tensors)} tensors"] if report.tensors else []
        parts += [f"pickles inside: {len(report.pickles)}"] if report.pickles else []
        out.say(", ".join([f"{path}: {report.size} bytes", report.format, *parts]))
        show_content(report, every_line, out)
        out.heading("What the scanners say")
        rows = [(LONG_NAMES.get(name, name), visible(str(said))) for name, said in report.verdicts.items()]
        out.table("Scanners", ["scanner", "answer"], rows)
        out.heading("Verdict")
        out.say(report.overall, "bold green" if report.overall == SAFE else "bold red")
    if report.overall == UNKNOWN:
        more = f" {visible(report.help)}" if report.help else ""
        raise cli.UserError(f"{path} cannot be judged ({visible(report.reason)}): do not load it.{more}")
    out.say(f"Reason: {visible(report.reason)}.")
    if report.help:
        out.say(f"A way forward: {visible(report.help)}")
    for note in report.notes:
        out.say(f"Note: {visible(note)}.")
    if report.overall == SAFE:
        if report.verdicts["fickling"].answer == "suspicious":
            out.say("fickling warns of every model with tensors: for it, each import from torch is a risk.")
        out.say(WEIGHTS)
    return report.exit_code


def show_many(reports: list[Report], skip_unknown: bool, out: cli.Out) -> int:
    """Print one table with a row for each file, then the reasons. Returns the highest exit code."""
    models = [report for report in reports if report.verdicts]
    rows = [
        (
            visible(str(report.path)),
            report.format,
            *(said.answer for said in report.verdicts.values()),
            report.overall,
        )
        for report in models
    ]
    out.table("Model files", ["file", "format", *SCANNERS, "our verdict"], rows)
    out.heading("Why")
    for report in reports:
        if report.verdicts or (report.overall != SAFE and report.format != SKIPPED):
            why = f"it would import {few(report.disallowed)}" if report.disallowed else report.reason
            out.say(f"{visible(str(report.path))}: {report.overall}, {visible(why)}.")
    listed("Skipped", [report for report in reports if report.format == SKIPPED], out)
    listed("No models, and nothing in them that a loader runs", harmless(reports), out)
    judged = [report for report in reports if report.format != SKIPPED and report not in harmless(reports)]
    found = [sum(report.exit_code == code for report in judged) for code in (0, 1, 2)]
    out.say(f"No code found: {found[0]}. Not safe to load: {found[1]}. Cannot be judged: {found[2]}.")
    if found[0]:
        out.say(WEIGHTS)
    return exit_code(reports, skip_unknown)


def harmless(reports: list[Report]) -> list[Report]:
    """Texts and images."""
    return [report for report in reports if report.format in HARMLESS and report.overall == SAFE]


def listed(title: str, reports: list[Report], out: cli.Out) -> None:
    """One line with the names of some files, or nothing if there are none."""
    if reports:
        names = [visible(str(report.path)) for report in reports]
        more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
        out.say(f"{title}: {len(names)} ({', '.join(names[:NAMES])}{more}).")


def exit_code(reports: Iterable[Report], skip_unknown: bool) -> int:
    """The highest of all files; what was skipped counts as not judged."""
    return max((r.exit_code for r in reports if not (skip_unknown and r.format == SKIPPED)), default=cli.OK)


def as_json(report: Report) -> dict[str, object]:
    """The report as plain data."""
    return {
        "file": str(report.path),
        "bytes": report.size,
        "sha256": sha256(report.path),
        "format": report.format,
        "imports": report.imports,
        "not_allowed": report.disallowed,
        "only_data": report.only_data,
        "scanners": {name: {"answer": v.answer, "words": v.words} for name, v in report.verdicts.items()},
        "verdict": report.overall,
        "reason": report.reason,
        "way_forward": report.help,
        "exit_code": report.exit_code,
    }


def sha256(path: Path) -> str:
    """The digest of an ordinary file, or nothing. Only for --json: it takes as long as reading the file."""
    digest = hashlib.sha256()
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


def inspect_all(paths: list[Path], out: cli.Out) -> list[Report]:
    """One report for each file, and for each file of a folder. Raises UserError for an empty folder."""
    work: list[tuple[Path, Path | None]] = []
    for path in paths:
        if path.is_dir():
            inside = every_file(path)
            if not inside:
                raise cli.UserError(f"{path} holds no file: name a model file, or a folder that has some.")
            work += [(one, path) for one in inside]
        else:
            work.append((existing_file(path) if len(paths) == 1 else path, None))
    waiting = out.progress(work, len(work), "Looking") if len(work) > MANY else work
    return [inspect_entry(path, folder) if folder else inspect_file(path) for path, folder in waiting]


def main() -> int:
    """Read the command line, ask the scanners, print."""
    arguments = cli.parser(__doc__)
    arguments.add_argument("file", type=Path, nargs="+", help="model files, or a folder")
    arguments.add_argument("--decompile", action="store_true", help="show the content also of many files")
    arguments.add_argument("--all", action="store_true", help=f"show all lines, not only the first {LINES}")
    arguments.add_argument("--json", action="store_true", help="print the reports as JSON")
    arguments.add_argument(
        "--skip-unknown",
        action="store_true",
        help="of a folder, files of no known format and scripts do not count",
    )
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    reports = inspect_all(args.file, out)
    if args.json:
        print(json.dumps([as_json(report) for report in reports], indent=2))
        return exit_code(reports, args.skip_unknown)
    if len(args.file) == 1 and not args.file[0].is_dir():
        return show_one(reports[0], args.all, out)
    if args.decompile:
        for report in reports:
            out.heading(visible(str(report.path)))
            show_content(report, args.all, out)
    return show_many(reports, args.skip_unknown, out)


if __name__ == "__main__":
    cli.run(main)
