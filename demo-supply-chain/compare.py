"""Compare two reports, before and after hardening, and say what became of each vulnerability.

    python compare.py results/python_3.11.json results/cgr.dev_chainguard_python_latest.json

Reports come from ./scan.sh; `./scan.sh --diff BEFORE AFTER` is the same. A name that is no longer on the list
can be gone with its package, fixed in a newer one, suppressed by a rule or a VEX statement, or just not
reported any more. Two scans that are not like for like (another day, database, platform) are said to be so.
"""

from __future__ import annotations

from pathlib import Path

import console
from reports import difference


def main() -> int:
    parser = console.parser(__doc__)
    parser.add_argument("before", type=Path, help="report of the image that you have")
    parser.add_argument("after", type=Path, help="report of the hardened image")
    parser.add_argument("--all", action="store_true", help="name every vulnerability")
    args = parser.parse_args()
    print(difference.show(args.before, args.after, args.all, console.is_plain(args.plain)))
    return console.OK


if __name__ == "__main__":
    console.run(main)
