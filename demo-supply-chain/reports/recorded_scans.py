"""Show scans of these images that others published, with date and source, for a room without internet.

Helper module, not a command: `./scan.sh --recorded` shows them.
The figures are in recorded/scans.json. This project did not measure them, and a hole stays a hole.
"""

from __future__ import annotations

from pathlib import Path

import console
from reports.grype_report import NOT_RECORDED, SEVERITIES, read_json
from reports.table import SIDE_BY_SIDE

SCANS = Path(__file__).resolve().parent.parent / "recorded" / "scans.json"
FIRST = (*SEVERITIES, "fixable", "matches")  # what one compares; what stands below it comes after all scans
MORE = ("packages with findings", "packages", "distro", "database")
DETAILS = "== What was counted where =="


def show(plain: bool, details: bool = True) -> str:
    """All recorded scans as text: on a terminal first a table, then what each row is and who published it.

    Without details it ends there, so that it can be heard in a few minutes: distribution, database, digest
    and a remark on each scan follow with them.
    """
    recorded = read_json(SCANS)
    scans = recorded["scans"]
    lines = ["RECORDED, not measured now.", recorded["note"], ""]
    if not plain:  # one column a scan; digests are too wide for it and follow below
        figures = ["date", "scanner", *FIRST, *MORE]
        for first in range(0, len(scans), SIDE_BY_SIDE):
            some = scans[first : first + SIDE_BY_SIDE]
            rows = [[name, *(scan.get(name, NOT_RECORDED) for scan in some)] for name in figures]
            columns = ["", *(f"scan {first + number}" for number in range(1, len(some) + 1))]
            lines += [console.table("Recorded scans", columns, rows, plain), ""]
    for number, scan in enumerate(scans, 1):
        lines.append(f"Scan {number}: {scan['image']}, by {scan['scanner']} on {scan['date']}")
        if plain:
            lines.append(f"  {figures_of(scan, FIRST)}")
        lines += [f"  counted: {scan['counted']}", f"  source: {scan['source']}"]
    if not details:
        return "\n".join([*lines, "", "Distribution, database and digest of each: ./scan.sh --recorded"])
    lines += ["", DETAILS]
    for number, scan in enumerate(scans, 1):
        lines.append(f"Scan {number}: {scan['remark']}")
        if plain:
            lines.append(f"  {figures_of(scan, MORE)}")
        lines.append(f"  digest: {scan.get('digest', NOT_RECORDED)}")
    return "\n".join(lines)


def figures_of(scan: dict[str, object], names: tuple[str, ...]) -> str:
    """The figures with their names, and at the end the names of those that nobody recorded."""
    there = [f"{name}: {scan[name]}" for name in names if name in scan]
    holes = [name for name in names if name not in scan]
    return "; ".join([*there, f"{NOT_RECORDED}: {', '.join(holes)}"] if holes else there)
