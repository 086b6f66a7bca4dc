"""Four scanners on one model file. Nothing is loaded, so nothing in the file can run.

Helper module, not a command: verdict.py runs them and takes what they find into account.

    torch        PyTorch's get_unsafe_globals_in_checkpoint: names that its safe loader does not allow
    fickling     follows the pickle and rates what it does
    picklescan   looks for names on a list of dangerous ones
    modelscan    looks for names on another such list
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

from inspection.decompiler import MOST_FOLLOWED
from inspection.names import disallowed, few, full_name
from inspection.report import Report, Verdict

for scanner in ("picklescan", "modelscan"):
    logging.getLogger(scanner).setLevel(logging.CRITICAL + 1)  # their remarks; we print what they conclude
    warnings.filterwarnings("ignore", module=scanner)


def run_torch(report: Report) -> Verdict:
    """PyTorch's own check. It reads the zip format only."""
    with report.path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return Verdict("cannot read", "reads only the zip format")
    import torch  # noqa: PLC0415 (takes seconds to import)

    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(report.path))
    except Exception:  # it gives up on TorchScript, for example, and on damaged files
        return Verdict("gives up")
    seen = {full_name(*name.rsplit(".", 1)) for name in names if "." in name}
    seen -= {name for name in seen if name.startswith("__torch__.")}  # TorchScript's own
    report.disallowed = sorted({*report.disallowed, *disallowed(seen)})
    return Verdict("found", few(names)) if names else Verdict("clean", "all names are on its list")


def run_fickling(report: Report) -> Verdict:
    """fickling's severity: the worst of all pickles in the file. decompiler.py asked for it."""
    if not report.pickles:
        return Verdict("cannot read", "no pickle in it")
    from fickling.analysis import Severity  # noqa: PLC0415 (takes a second to import)

    severities = [part.fickling for part in report.pickles]
    if None in severities:
        return Verdict("gives up", f"damaged, tangled, or more than {MOST_FOLLOWED} instructions")
    worst = max(severity for severity in severities if severity)
    if worst == Severity.LIKELY_SAFE:
        return Verdict("clean", worst.name)
    names = frozenset(name for part in report.pickles for name in part.imports)
    return Verdict("found" if worst > Severity.LIKELY_UNSAFE else "suspicious", worst.name, names)


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
        names = frozenset(full_name(*name.rsplit(".", 1)) for name in bad)
        return Verdict("found", f"dangerous {few(bad)}", names)
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
