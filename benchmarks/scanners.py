"""How often do scanners miss hostile model files, and how often do they warn of honest ones? Takes a minute.

    python benchmarks/scanners.py                       measures, prints the rates
    python benchmarks/scanners.py --write               writes scanners.jsonl, and the rates into SCANNERS.md
    python benchmarks/scanners.py --check               exit code 1 if scanners.jsonl shows another answer

Every scanner in its default mode, and in the mode that its makers recommend. The files are those of
model_files.py. Nothing is loaded. ModelAudit is asked if it is installed somewhere: MODELAUDIT names its
command. It is only started without a network (unshare), because it reports its use otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from math import comb
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "demo-malicious")]

import model_files  # noqa: E402

import cli  # noqa: E402 (after the path above)
from inspection import scanners  # noqa: E402
from inspection.names import few  # noqa: E402
from inspection.report import SAFE, UNKNOWN, Report, Verdict  # noqa: E402
from inspection.verdict import inspect_file  # noqa: E402

ROWS = HERE / "scanners.jsonl"
PAGE = HERE.parent / "demo-malicious" / "SCANNERS.md"
START, END = "<!-- made by benchmarks/scanners.py -->", "<!-- end of what benchmarks/scanners.py made -->"
ALARM, CLEAN, SILENT = "alarm", "clean", "no answer"  # what a person would do: stop, load, wonder
MODES = {
    "torch": "PyTorch's get_unsafe_globals_in_checkpoint",
    "fickling": "fickling, from LIKELY_UNSAFE on",
    "fickling, allow-list": "fickling's allow-list for ML (the names of its hook, checked without loading)",
    "picklescan": "picklescan",
    "picklescan --strict": "picklescan --strict",
    "modelscan": "modelscan",
    "ModelAudit": "ModelAudit, warnings and worse",
    "ModelAudit --strict": "ModelAudit --strict",
    "inspect_model.py": "our verdict",
}
ABSENT = "not installed"
Row = dict[str, str]


def answer_of(verdict: Verdict) -> str:
    """A scanner's verdict as what a person would do."""
    if verdict.answer == ABSENT:
        return ABSENT
    return {"found": ALARM, "suspicious": ALARM, "clean": CLEAN}.get(verdict.answer, SILENT)


def picklescan(path: Path, strict: bool) -> str:
    """By the exit code's rule: dangerous names raise the alarm, in strict mode also unknown ones."""
    try:
        from picklescan.scanner import scan_file_path  # noqa: PLC0415 (may not be installed)
    except ImportError:
        return ABSENT
    try:
        result = scan_file_path(str(path), strict=strict)
    except Exception:
        return SILENT
    if result.infected_files or result.issues_count:
        return ALARM
    return SILENT if result.scan_err or not result.scanned_files else CLEAN


def allow_list(report: Report) -> str:
    """The names that fickling's hook for machine learning would let in."""
    from fickling.ml import ML_ALLOWLIST  # noqa: PLC0415

    if not report.pickles:
        return SILENT
    names = [name.rpartition(".") for name in report.imports]
    fine = all(attribute in ML_ALLOWLIST.get(module, ()) for module, _, attribute in names)
    return CLEAN if fine else ALARM


def ask_all(path: Path) -> Row:
    """What each scanner says of one file."""
    report = inspect_file(path)
    verdicts = {name: scanner(report) for name, scanner in scanners.SCANNERS.items()}
    ours = {SAFE: CLEAN, UNKNOWN: SILENT}.get(report.overall, ALARM)
    return {
        "torch": answer_of(verdicts["torch"]),
        "fickling": answer_of(verdicts["fickling"]),
        "fickling, allow-list": allow_list(report),
        "picklescan": picklescan(path, strict=False),
        "picklescan --strict": picklescan(path, strict=True),
        "modelscan": answer_of(verdicts["modelscan"]),
        "inspect_model.py": ours,
        "why": report.reason,
    }


def modelaudit(folder: Path, names: list[str], strict: bool) -> dict[str, str]:
    """What ModelAudit says of each file of a folder; one run for all of them."""
    command = os.environ.get("MODELAUDIT") or shutil.which("modelaudit")
    if not command:
        return dict.fromkeys(names, ABSENT)
    alone = ["unshare", "--net", "--map-root-user"]  # no network to tell anybody
    if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        raise cli.UserError("ModelAudit is only run without a network, and unshare cannot do that here.")
    out = folder / "modelaudit.json"
    words = [
        command,
        "scan",
        str(folder),
        "--format",
        "json",
        "--output",
        str(out),
        *(["--strict"] if strict else []),
    ]
    environment = os.environ | {
        "PROMPTFOO_DISABLE_TELEMETRY": "1",
        "NO_ANALYTICS": "1",
        "HOME": str(folder.parent),
    }
    subprocess.run([*alone, *words], check=False, capture_output=True, env=environment)
    said = json.loads(out.read_text(encoding="utf-8"))
    out.unlink()
    alarmed = {name for issue in said["issues"] if issue["severity"] in ("warning", "critical")
               for name in names if f"/{name}" in str(issue.get("location"))}  # fmt: skip
    scanned = {Path(str(asset.get("path"))).name for asset in said.get("assets", [])}
    return {name: ALARM if name in alarmed else CLEAN if name in scanned else SILENT for name in names}


def measure(progress: Callable[[list[str]], object] = list) -> list[Row]:
    """One row for each file: its name, whether it is hostile, and what each scanner says."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="scanners-") as name:
        marker = Path(name) / "marker"
        for kind, files in (("honest", model_files.honest()), ("hostile", model_files.hostile(marker))):
            folder = Path(name) / kind
            folder.mkdir()
            for file, data in files.items():
                (folder / file).write_bytes(data)
            audits = {"ModelAudit": modelaudit(folder, list(files), strict=False)}
            audits["ModelAudit --strict"] = modelaudit(folder, list(files), strict=True)
            for file in files:
                said = ask_all(folder / file) | {mode: audit[file] for mode, audit in audits.items()}
                rows.append(
                    {"file": file, "kind": kind, **{mode: said[mode] for mode in MODES}, "why": said["why"]}
                )
        assert not marker.exists(), "a payload ran"
    return rows


def interval(count: int, total: int) -> tuple[float, float]:
    """The exact 95 percent interval of a rate (Clopper and Pearson, 1934)."""

    def at_least(p: float, least: int) -> float:
        return sum(comb(total, k) * p**k * (1 - p) ** (total - k) for k in range(least, total + 1))

    def solve(holds: Callable[[float], bool]) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        return low

    lower = 0.0 if count == 0 else solve(lambda p: at_least(p, count) < 0.025)
    upper = 1.0 if count == total else solve(lambda p: 1 - at_least(p, count + 1) > 0.025)
    return lower, upper


def rates(rows: list[Row]) -> list[dict[str, str]]:
    """For each scanner: hostile files called clean, honest ones with an alarm, files without an answer."""
    table = []
    for mode, words in MODES.items():
        asked = [row for row in rows if row[mode] != ABSENT]
        if not asked:
            continue
        hostile = [row[mode] for row in asked if row["kind"] == "hostile"]
        honest = [row[mode] for row in asked if row["kind"] == "honest"]
        table.append(
            {
                "scanner": words,
                "hostile, called clean": share(hostile.count(CLEAN), len(hostile)),
                "hostile, no answer": share(hostile.count(SILENT), len(hostile)),
                "honest, alarm": share(honest.count(ALARM), len(honest)),
                "honest, no answer": share(honest.count(SILENT), len(honest)),
            }
        )
    return table


def share(count: int, total: int) -> str:
    """A rate in words: 3 of 58 (1 to 14 %)."""
    lower, upper = interval(count, total)
    return f"{count} of {total} ({100 * lower:.0f} to {100 * upper:.0f} %)"


def markdown(rows: list[Row]) -> str:
    """The rates, and the files on which our own verdict is wrong or silent."""
    table = rates(rows)
    lines = [list(table[0]), ["---"] * len(table[0]), *(list(row.values()) for row in table)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    missed = [row for row in rows if row["kind"] == "hostile" and row["inspect_model.py"] != ALARM]
    warned = [row for row in rows if row["kind"] == "honest" and row["inspect_model.py"] != CLEAN]
    ours = [
        f"- `{row['file']}` ({row['kind']}): {row['inspect_model.py']}; {row['why']}"
        for row in (*missed, *warned)
    ]
    title = "Where our own verdict raises no alarm at a hostile file, or does not pass an honest one:"
    return "\n".join([text, "", title, "", *(ours or ["- none"])])


def differences(before: list[Row], now: list[Row]) -> list[str]:
    """What changed, in words. A scanner that is not installed now, or was not then, does not count."""
    old = {row["file"] + row["kind"]: row for row in before}
    found = [f"{row['file']} is new" for row in now if row["file"] + row["kind"] not in old]
    found += [
        f"{row['file']} is gone" for row in before if not any(one["file"] == row["file"] for one in now)
    ]
    for row in now:
        was = old.get(row["file"] + row["kind"], row)
        found += [
            f"{row['file']}, {mode}: {was[mode]!r} is now {row[mode]!r}"
            for mode in MODES
            if was[mode] != row[mode] and ABSENT not in (was[mode], row[mode])
        ]
    return found


def main() -> int:
    """Read the command line, measure, then print, check or write."""
    arguments = cli.parser(__doc__)
    arguments.add_argument("--write", action="store_true", help=f"write {ROWS.name} and {PAGE.name}")
    arguments.add_argument("--check", action="store_true", help=f"compare with {ROWS.name}")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    rows = measure()
    table = rates(rows)
    out.table("Rates, with exact 95 percent intervals", list(table[0]), [list(row.values()) for row in table])
    if args.check:
        before = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
        changed = differences(before, rows)
        for change in changed:
            out.say(change)
        out.say(f"{len(changed)} changes in {len(rows)} files.")
        return cli.FINDING if changed else cli.OK
    if args.write:
        with cli.atomic_write(ROWS) as scratch:
            scratch.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        text = PAGE.read_text(encoding="utf-8")
        before_it, after_it = text.split(START)[0], text.split(END)[1]
        with cli.atomic_write(PAGE) as scratch:
            scratch.write_text(f"{before_it}{START}\n{markdown(rows)}\n{END}{after_it}", encoding="utf-8")
        out.say(f"Wrote {len(rows)} rows to {ROWS.name}, and the rates to {PAGE.name}.")
    missed = [row["file"] for row in rows if row["kind"] == "hostile" and row["inspect_model.py"] == CLEAN]
    out.say(f"Hostile files that our own verdict calls clean: {few(missed) or 'none'}.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
