"""Our verdict on one file: every format that fits is judged, and four scanners are heard.

Helper module, not a command: inspect_model.py prints the report, policy.py and controls.py ask for it.
"No code found" is said only if every loader that would accept the file was asked, and if no scanner sees
more than we do.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

import cli
from inspection import scanners
from inspection.content import Content
from inspection.decompiler import MOST_FOLLOWED, PickleReport, decompile
from inspection.files import existing_file
from inspection.formats import look
from inspection.names import disallowed, few, for_safe_globals, only_data, refused
from inspection.report import SAFE, UNKNOWN, UNSAFE, Finding, Report, Verdict
from inspection.zips import ZIP

ANOTHER_FORMAT = "Ask the sender for SafeTensors, ONNX or GGUF, or load it in the sandbox (run_sandboxed.sh)."
NO_SCANNERS: dict[str, Callable[[Report], Verdict]] = {}


def inspect_file(path: Path, ask: dict[str, Callable[[Report], Verdict]] | None = None) -> Report:
    """Check one file, without loading it. Raises nothing: bad input cannot be judged.

    `ask` names the scanners to run, by default all four.
    """
    ask = scanners.SCANNERS if ask is None else ask
    report = Report(path, verdicts=dict.fromkeys(ask, Verdict("not asked")))
    try:
        existing_file(path)
        report.size = path.stat().st_size
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            content = look(data)
        fill(report, content)
        if content.formats and content.heavy:
            report.verdicts = dict.fromkeys(ask, Verdict("not asked", "too large, or damaged"))
        elif content.formats:
            for name, scanner in ask.items():
                report.verdicts[name] = scanner(report)
        conclude(report)
    except cli.UserError as error:
        report.overall, report.reason = UNKNOWN, str(error).rstrip(".")
    except (OSError, ValueError) as error:  # it went away, shrank, or the disk fails
        report.overall, report.reason = (
            UNKNOWN,
            f"it cannot be read ({getattr(error, 'strerror', '') or error})",
        )
    return report


def fill(report: Report, content: Content) -> None:
    """Put what was found into the report, and decompile the pickles as far as that is quick."""
    report.formats, report.findings, report.notes = content.formats, content.findings, content.notes
    report.format = " and ".join(content.formats) or "unknown"
    report.imports = sorted(content.names)
    report.disallowed, report.only_data = disallowed(content.names), only_data(content.names)
    report.tensors = content.tensors
    left = MOST_FOLLOWED
    for where, data in content.pickles[:200]:
        size = instructions(data, left)
        left -= size
        report.pickles.append(decompile(where, data) if left > 0 else PickleReport(where))


def instructions(data: bytes, most: int) -> int:
    """How many instructions a pickle has, or more than `most`."""
    from inspection.pickle_reader import TooLong, walk  # noqa: PLC0415

    try:
        return walk(data, 0, most).instructions
    except TooLong:
        return most + 1


def conclude(report: Report) -> None:
    """The verdict and its reason: the worst that any reader of the file would meet."""
    findings = report.findings
    if report.disallowed and not any(one.answer == UNSAFE for one in findings):
        findings.append(Finding(UNSAFE, refused(report.disallowed)))
    if not report.formats and not findings:
        unknown = "it is not a model file of any format that is known here"
        findings.append(Finding(UNKNOWN, unknown, help=ANOTHER_FORMAT))
    for name, said in report.verdicts.items():
        # a scanner that sees more than we do: we have overlooked something. If it only rates the same imports
        # as worse, that is its opinion; what torch finds is in our list already
        more = not said.names or not said.names <= set(report.imports)
        if said.answer == "found" and name != "torch" and more:
            findings.append(Finding(UNKNOWN, f"{name} finds something ({said.words})"))
    for answer in (UNSAFE, UNKNOWN):
        chosen = [one for one in findings if one.answer == answer]
        if chosen:
            alone = len(report.pickles) == 1 and report.formats == [ZIP]  # then the part need not be named
            report.overall, report.reason = answer, chosen[0].reason if alone else str(chosen[0])
            report.help = next((one.help for one in chosen if one.help), "")
            return
    report.overall, report.reason = SAFE, safe_reason(report)
    if special := special_reader(report):
        report.reason, report.help = special.reason, special.help
    elif report.only_data:
        report.help = (
            "torch.load takes it with torch.serialization.safe_globals("
            f"[{for_safe_globals(report.only_data)}]); "
            "safe_demo.py convert takes it with --allow and each name."
        )


def special_reader(report: Report) -> Finding | None:
    """What is said of a file that torch.load's safe mode does not read: joblib, the old tar format."""
    return next(
        (one for one in report.findings if one.answer == SAFE and one.help and not report.tensors), None
    )


def safe_reason(report: Report) -> str:
    """Why no code was found, in one clause."""
    others = [
        str(one)
        for one in report.findings
        if one.reason and not one.where and one.reason != "it imports nothing"
    ]
    count = len(report.imports)
    if report.only_data and count == 1:
        return (
            "the one name that it imports only holds data. It is not on the list that PyTorch's safe loader "
            f"allows, so torch.load refuses it by default: {few(report.only_data)}"
        )
    if report.only_data:
        return (
            f"the {count} names that it imports only hold data. Not all are on the list that PyTorch's safe "
            f"loader allows, so torch.load refuses it by default: {few(report.only_data)}"
        )
    if count == 1:
        return "the one name that it imports is on the list that PyTorch's safe loader allows"
    if count:
        return f"all {count} names that it imports are on the list that PyTorch's safe loader allows"
    if others:
        return others[0]
    if report.pickles or any("imports nothing" in one.reason for one in report.findings):
        return "it imports nothing"
    return next((one.reason for one in report.findings if one.reason), "it holds nothing that could run")
