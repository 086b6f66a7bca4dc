"""Four scanners on one model file, and our verdict. Nothing is loaded, so nothing in the file can run.

Helper module, not a command: inspect_model.py prints the report, serve.py and controls.py ask for it.

    torch        PyTorch's get_unsafe_globals_in_checkpoint: names that its safe loader does not allow
    fickling     follows the pickle and rates what it does
    picklescan   looks for names on a list of dangerous ones
    modelscan    looks for names on another such list
"""

from __future__ import annotations

import hashlib
import logging
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from fickling.analysis import Severity
from safetensors import SafetensorError, safe_open

import cli
from inspection.decompiler import (
    DAMAGED,
    MB,
    MOST_FOLLOWED,
    MOST_INSTRUCTIONS,
    CannotJudge,
    PickleReport,
    decompile,
    end_of_pickle,
    pickles_in_stream,
    pickles_in_zip,
)
from weights.safe_loading import existing_file

SAFE, UNSAFE, UNKNOWN = "NO CODE FOUND", "NOT SAFE TO LOAD", "CANNOT BE JUDGED"
EXIT_CODES = {SAFE: cli.OK, UNSAFE: cli.FINDING, UNKNOWN: cli.ERROR}
BIGGEST_HEADER = 10 * MB  # of a SafeTensors file; the header of ResNet18 has 12 kB
for scanner in ("picklescan", "modelscan"):
    logging.getLogger(scanner).setLevel(logging.CRITICAL + 1)  # their remarks; we print what they conclude

ZIP, OLD, SAFETENSORS, NONE = "zip of torch.save", "plain pickle", "SafeTensors", "unknown"


@dataclass(frozen=True)
class Verdict:
    """What one scanner says."""

    answer: str  # clean, suspicious, found, gives up, cannot read, not installed, not asked
    words: str = ""  # in the scanner's own terms

    def __str__(self) -> str:
        return f"{self.answer}: {self.words}" if self.words else self.answer


@dataclass
class Report:
    """All that is known about one file."""

    path: Path
    size: int = 0  # bytes
    sha256: str = ""
    format: str = NONE
    imports: list[str] = field(default_factory=list)  # every name that loading would import
    disallowed: list[str] = field(default_factory=list)  # those that PyTorch's safe loader does not allow
    verdicts: dict[str, Verdict] = field(default_factory=dict)  # scanner -> what it says
    overall: str = UNKNOWN
    reason: str = ""  # one clause; it starts with "it" or "there"
    pickles: list[PickleReport] = field(default_factory=list)
    tensors: list[tuple[str, str, str]] = field(default_factory=list)  # SafeTensors: name, type, shape

    @property
    def exit_code(self) -> int:
        """0 no code found, 1 not safe to load, 2 cannot be judged."""
        return EXIT_CODES[self.overall]


def inspect_file(path: Path) -> Report:
    """Ask every scanner about one file, without loading it. Raises nothing: bad input cannot be judged."""
    report = Report(path, verdicts=dict.fromkeys(SCANNERS, Verdict("not asked")))
    try:
        existing_file(path)
        report.size = path.stat().st_size
        report.sha256 = sha256(path)
        report.format = format_of(path)
        if report.format == SAFETENSORS:
            report.tensors = header(path)
            trouble: list[str] = []
        else:
            trouble = read_pickles(report)
        for name, scanner in SCANNERS.items():
            report.verdicts[name] = scanner(report)
        report.overall, report.reason = conclude(report, trouble)
    except (cli.UserError, CannotJudge) as error:
        report.overall, report.reason = UNKNOWN, str(error).rstrip(".")
    except OSError as error:  # it went away, or the disk fails
        report.overall, report.reason = UNKNOWN, f"it cannot be read ({error.strerror})"
    return report


def sha256(path: Path) -> str:
    """The file's digest."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(MB):
            digest.update(block)
    return digest.hexdigest()


def format_of(path: Path) -> str:
    """The format by what stands in the file; its name may lie."""
    with path.open("rb") as file:
        head = file.read(9)
    if head[:4] == b"PK\x03\x04":  # PyTorch decides by these bytes; other zip tools look at the file's end
        return ZIP
    if len(head) == 9 and head[8:] == b"{" and struct.unpack("<Q", head[:8])[0] < path.stat().st_size:
        return SAFETENSORS
    return OLD


def header(path: Path) -> list[tuple[str, str, str]]:
    """The tensors that the header of a SafeTensors file lists: name, type, shape. Raises CannotJudge."""
    with path.open("rb") as file:
        if (length := struct.unpack("<Q", file.read(8))[0]) > BIGGEST_HEADER:
            raise CannotJudge(f"it has a header of {length} bytes, more than any model needs")
        end_of_pickle(file, MOST_INSTRUCTIONS)  # for the scanners: they read any file as a pickle
    rows = []
    try:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a dict)
                part = opened.get_slice(name)
                rows.append((name, part.get_dtype(), "x".join(map(str, part.get_shape()))))
    except (SafetensorError, OSError, ValueError) as error:
        raise CannotJudge("it is not a valid SafeTensors file (damaged, or another format)") from error
    return rows


def ends_like_zip(path: Path) -> bool:
    """Whether zip tools take the file for theirs: some look at the end of a file first."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # a damaged one
        return True


def read_pickles(report: Report) -> list[str]:
    """Decompile every pickle of the file, into the report. Gives what kept us from following all of it."""
    trouble: list[str] = []
    if report.format == ZIP:
        found, trouble = pickles_in_zip(report.path)
        if not found:
            raise CannotJudge("it is a zip file without a pickle: it is not a model that torch.save wrote")
    else:
        if ends_like_zip(report.path):
            pickles_in_zip(report.path)
            trouble.append("it is a pickle and a zip file at once")
        found = pickles_in_stream(report.path)
    followed = 0
    for where, data in found:
        report.pickles.append(decompile(where, data, followed))
        followed += report.pickles[-1].instructions
    report.imports = sorted({name for part in report.pickles for name in part.imports})
    report.disallowed = sorted({name for part in report.pickles for name in part.disallowed})
    nothing = not report.disallowed and not any(part.code for part in report.pickles)
    if nothing and any(DAMAGED in part.trouble for part in report.pickles):
        report.format = NONE
        raise CannotJudge("it is not a model file, or it is damaged")
    return trouble + [f"{part.where}: {text}" for part in report.pickles for text in part.trouble]


def few(names: list[str]) -> str:
    """The names in one line, which stays short whatever a hostile file holds."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(name[:200] for name in names[:5]) + more


def run_torch(report: Report) -> Verdict:
    """PyTorch's own check. It reads the zip format only."""
    if report.format != ZIP:
        return Verdict("cannot read", "reads only the zip format")
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(report.path))
    except Exception:  # it gives up on TorchScript, for example, and on damaged files
        return Verdict("gives up")
    report.disallowed = sorted({*report.disallowed, *names})
    return Verdict("found", few(names)) if names else Verdict("clean", "all names are on its list")


def run_fickling(report: Report) -> Verdict:
    """fickling's severity: the worst of all pickles in the file. It followed them in pickles.py."""
    if report.format == SAFETENSORS:
        return Verdict("cannot read", "no pickle in it")
    severities = [part.fickling for part in report.pickles]
    if None in severities:
        return Verdict("gives up", f"damaged, tangled, or more than {MOST_FOLLOWED} instructions")
    worst = max(severity for severity in severities if severity)
    if worst == Severity.LIKELY_SAFE:
        return Verdict("clean", worst.name)
    return Verdict("found" if worst > Severity.LIKELY_UNSAFE else "suspicious", worst.name)


def run_picklescan(report: Report) -> Verdict:
    """picklescan's answer: dangerous names raise the alarm, unknown ones are only noted."""
    try:
        from picklescan.scanner import SafetyLevel, scan_file_path  # noqa: PLC0415 (may not be installed)
    except ImportError:
        return Verdict("not installed")
    try:
        result = scan_file_path(str(report.path))
    except Exception:
        return Verdict("gives up")
    bad = sorted({f"{g.module}.{g.name}" for g in result.globals if g.safety == SafetyLevel.Dangerous})
    odd = sorted({f"{g.module}.{g.name}" for g in result.globals if g.safety == SafetyLevel.Suspicious})
    if bad:
        return Verdict("found", f"dangerous {few(bad)}")
    if result.scan_err:
        return Verdict("gives up")
    if not result.scanned_files:
        return Verdict("cannot read", "scanned nothing, no alarm")
    return Verdict("suspicious", f"no alarm, but notes {few(odd)}") if odd else Verdict("clean")


def run_modelscan(report: Report) -> Verdict:
    """modelscan's answer: its issues with their severity."""
    try:
        from modelscan.modelscan import ModelScan  # noqa: PLC0415 (may not be installed)
    except ImportError:
        return Verdict("not installed")
    try:
        scan = ModelScan()
        scan.scan(report.path.absolute())
    except Exception:
        return Verdict("gives up")
    issues = sorted({(i.severity.name, i.details.module, i.details.operator) for i in scan.issues.all_issues})
    if issues:
        return Verdict("found", few([f"{level} {module}.{name}" for level, module, name in issues]))
    if scan.errors:
        return Verdict("gives up")
    return Verdict("clean", "No issues found") if scan.scanned else Verdict("cannot read", "skipped the file")


SCANNERS: dict[str, Callable[[Report], Verdict]] = {
    "torch": run_torch,
    "fickling": run_fickling,
    "picklescan": run_picklescan,
    "modelscan": run_modelscan,
}


def conclude(report: Report, trouble: list[str]) -> tuple[str, str]:
    """Our verdict. It comes from PyTorch's list of allowed names, not from a list of bad ones."""
    if report.disallowed:
        return UNSAFE, (
            f"it imports {few(report.disallowed)}. PyTorch's safe loader (weights_only=True) "
            "does not allow that in a model; weights_only=False would run it"
        )
    if report.format == ZIP and report.verdicts["torch"].answer == "gives up":
        trouble.append("PyTorch's check gives up on it")
    # a scanner that sees more than we do: we have overlooked something
    trouble += [f"{name} finds something" for name, said in report.verdicts.items() if said.answer == "found"]
    if trouble:
        return UNKNOWN, trouble[0]
    if report.format == SAFETENSORS:
        return SAFE, "there is no pickle in this format, only this header and numbers; the header is valid"
    if not report.imports:
        return SAFE, "it imports nothing"
    names = len(report.imports)
    return SAFE, f"all {names} names that it imports are on the list that PyTorch's safe loader allows"
