"""Compare the reports of two images, before and after hardening, and name what disappeared.

    python compare.py results/python_3.11.json results/cgr.dev_chainguard_python_latest.json

Reports come from ./scan.sh. A vulnerability disappears when its package is gone or newer; the one that
stays or is new is the one to look at.
"""

from __future__ import annotations

from pathlib import Path

import console
from reports.grype_report import SEVERITIES, Scan, read_scan

SHOWN = 10  # names per line group; --all shows every one


def by_severity(scan: Scan, names: set[str]) -> list[str]:
    """The names, worst severity first, with the severity in words."""
    ordered = sorted(names, key=lambda name: (SEVERITIES.index(scan.severity[name]), name))
    return [f"{name} ({scan.severity[name]})" for name in ordered]


def group(title: str, names: list[str], limit: int) -> str:
    """One group of vulnerabilities as text: how many, and the first ones by name."""
    more = [f"  and {len(names) - limit} more: --all names them"] if len(names) > limit else []
    return "\n".join([f"{title}: {len(names)}", *(f"  {name}" for name in names[:limit]), *more])


def main() -> int:
    parser = console.parser(__doc__)
    parser.add_argument("before", type=Path, help="report of the image that you have")
    parser.add_argument("after", type=Path, help="report of the hardened image")
    parser.add_argument("--all", action="store_true", help="name every vulnerability")
    args = parser.parse_args()
    before, after = read_scan(args.before), read_scan(args.after)
    columns = ["image", *SEVERITIES, "all", "fixable", "digest", "scanned"]
    rows = [
        [scan.image, *scan.counts(), len(scan.severity), len(scan.fixable), scan.digest, scan.scanned]
        for scan in (before, after)
    ]
    if console.is_plain(args.plain):
        print(console.table("Before and after", columns, rows, plain=True))
    else:
        print(
            console.table("Before and after", ["", "before", "after"], list(zip(columns, *rows)), plain=False)
        )
    old, new = set(before.severity), set(after.severity)
    limit = len(old | new) if args.all else SHOWN
    for title, scan, names in (
        ("Disappeared", before, old - new),
        ("Still there", after, old & new),
        ("New", after, new - old),
    ):
        print(group(title, by_severity(scan, names), limit))
    return console.OK


if __name__ == "__main__":
    console.run(main)
