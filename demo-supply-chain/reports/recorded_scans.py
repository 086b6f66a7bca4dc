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
FIGURES = (
    *SEVERITIES,
    "fixable",
    "matches",
    "packages with findings",
    "packages",
    "distro",
    "digest",
    "database",
)


def show(plain: bool) -> str:
    """All recorded scans as text: on a terminal first a table, then what each row is and who published it."""
    recorded = read_json(SCANS)
    scans = recorded["scans"]
    lines = ["RECORDED, not measured now.", recorded["note"], ""]
    if not plain:  # one column a scan; digests are too wide for it and follow below
        figures = [name for name in ("date", "scanner", *FIGURES) if name != "digest"]
        for first in range(0, len(scans), SIDE_BY_SIDE):
            some = scans[first : first + SIDE_BY_SIDE]
            rows = [[name, *(scan.get(name, NOT_RECORDED) for scan in some)] for name in figures]
            columns = ["", *(f"scan {first + number}" for number in range(1, len(some) + 1))]
            lines += [console.table("Recorded scans", columns, rows, plain), ""]
    for number, scan in enumerate(scans, 1):
        lines.append(f"Scan {number}: {scan['image']}, by {scan['scanner']} on {scan['date']}")
        if plain:
            figures = [f"{name}: {scan.get(name, NOT_RECORDED)}" for name in FIGURES if name != "digest"]
            lines.append("  " + "; ".join(figures))
        lines += [
            f"  counted: {scan['counted']}",
            f"  digest: {scan.get('digest', NOT_RECORDED)}",
            f"  {scan['remark']}",
            f"  source: {scan['source']}",
        ]
    return "\n".join(lines)
