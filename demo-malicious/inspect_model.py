"""Look inside model files without loading them: what would they do?

    python inspect_model.py malicious_model.pt                 decompiled, four scanners, our verdict
    python inspect_model.py malicious_model.pt other.pt        one table for many files, or for a folder
    python inspect_model.py safe_model.safetensors --json      the same for programs

Exit code 0: no code found. 1: loading it could run code. 2: it cannot be judged. Of many files, the highest.
"""

from __future__ import annotations

import json
from pathlib import Path

import cli
from inspection import scanners
from inspection.decompiler import PickleReport
from inspection.scanners import SAFE, SAFETENSORS, UNKNOWN, Report
from weights.safe_loading import existing_file

LINES = 12  # of the decompiled pickle, or of the header; marked lines are always shown
WIDTH = 500  # characters of one line
MANY = 10  # files: more take a while, so say how far we are
ENDINGS = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".safetensors")  # read in a folder
WEIGHTS = "This verdict is about code. It does not tell whether the weights were poisoned (demo 2)."
LONG_NAMES = {"torch": "PyTorch get_unsafe_globals_in_checkpoint"}


def visible(text: str) -> str:
    """The text with control characters written out: names in a hostile file must not steer the terminal."""
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}... ({len(text)} characters)"


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
    if report.format == SAFETENSORS:
        out.heading("Header")
        most = None if every_line else LINES
        rows = [tuple(map(visible, row)) for row in report.tensors]
        out.table("Tensors", ["name", "type", "shape"], rows[:most])
        if most and len(rows) > most:
            out.say(f"{len(rows) - most} more tensors (--all shows them)")
    for part in report.pickles:
        show_pickle(part, every_line, out)


def show_one(report: Report, every_line: bool, out: cli.Out) -> int:
    """Print all about one file. Returns 0 or 1; raises UserError if it cannot be judged."""
    path = report.path
    if report.pickles or report.tensors:
        parts = (
            f"{len(report.tensors)} tensors" if report.tensors else f"pickles inside: {len(report.pickles)}"
        )
        out.say(f"{path}: {report.size} bytes, {report.format}, {parts}")
        show_content(report, every_line, out)
        out.heading("What the scanners say")
        rows = [(LONG_NAMES.get(name, name), visible(str(said))) for name, said in report.verdicts.items()]
        out.table("Scanners", ["scanner", "answer"], rows)
        out.heading("Verdict")
        out.say(report.overall, "bold green" if report.overall == SAFE else "bold red")
    if report.overall == UNKNOWN:
        raise cli.UserError(f"{path} cannot be judged ({visible(report.reason)}): do not load it.")
    out.say(f"Reason: {visible(report.reason)}.")
    if report.overall == SAFE:
        if report.verdicts["fickling"].answer == "suspicious":
            out.say("fickling warns of every model with tensors: for it, each import from torch is a risk.")
        out.say(WEIGHTS)
    return report.exit_code


def show_many(reports: list[Report], out: cli.Out) -> int:
    """Print one table with a row for each file, then the reasons. Returns the highest exit code."""
    rows = [
        (
            visible(str(report.path)),
            report.format,
            *(said.answer for said in report.verdicts.values()),
            report.overall,
        )
        for report in reports
    ]
    out.table("Model files", ["file", "format", *scanners.SCANNERS, "our verdict"], rows)
    out.heading("Why")
    for report in reports:
        why = f"it would import {scanners.few(report.disallowed)}" if report.disallowed else report.reason
        out.say(f"{visible(str(report.path))}: {report.overall}, {visible(why)}.")
    found = [sum(report.exit_code == code for report in reports) for code in (0, 1, 2)]
    out.say(f"No code found: {found[0]}. Not safe to load: {found[1]}. Cannot be judged: {found[2]}.")
    if found[0]:
        out.say(WEIGHTS)
    return max(report.exit_code for report in reports)


def as_json(report: Report) -> dict[str, object]:
    """The report as plain data."""
    return {
        "file": str(report.path),
        "bytes": report.size,
        "sha256": report.sha256,
        "format": report.format,
        "imports": report.imports,
        "not_allowed": report.disallowed,
        "scanners": {name: {"answer": v.answer, "words": v.words} for name, v in report.verdicts.items()},
        "verdict": report.overall,
        "reason": report.reason,
        "exit_code": report.exit_code,
    }


def model_files(paths: list[Path]) -> list[Path]:
    """The files themselves, and the model files in each folder. Raises UserError if there are none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix in ENDINGS and p.is_file())
            if not inside:
                raise cli.UserError(f"{path} holds no model file ({', '.join(ENDINGS)}): name one yourself.")
            found += inside
        else:
            found.append(existing_file(path) if len(paths) == 1 else path)
    return found


def main() -> int:
    """Read the command line, ask the scanners, print."""
    arguments = cli.parser(__doc__)
    arguments.add_argument("file", type=Path, nargs="+", help="model files, or a folder")
    arguments.add_argument("--decompile", action="store_true", help="show the content also of many files")
    arguments.add_argument("--all", action="store_true", help=f"show all lines, not only the first {LINES}")
    arguments.add_argument("--json", action="store_true", help="print the reports as JSON")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    files = model_files(args.file)
    waiting = out.progress(files, len(files), "Looking") if len(files) > MANY else files
    reports = [scanners.inspect_file(path) for path in waiting]
    if args.json:
        print(json.dumps([as_json(report) for report in reports], indent=2))
        return max(report.exit_code for report in reports)
    if len(reports) == 1:
        return show_one(reports[0], args.all, out)
    if args.decompile:
        for report in reports:
            out.heading(visible(str(report.path)))
            show_content(report, args.all, out)
    return show_many(reports, out)


if __name__ == "__main__":
    cli.run(main)
