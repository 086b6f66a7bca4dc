"""What changed between two scans: gone, fixed, suppressed, no longer reported, still there, new; and why.

Helper module, not a command: compare.py and scan.py use it. A name that is no longer on the list proves
nothing by itself: the package may be gone or newer, somebody may have suppressed it, or nobody looked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import console
from reports.grype_report import NOT_RECORDED, SEVERITIES, Finding, Scan, aliases_of, read_scan
from reports.table import FIGURES, row_of

SHOWN = 10  # names per group, unless everything is asked for

GROUPS = {
    "gone": "Gone, the package is no longer there",
    "fixed": "Fixed, the package is newer",
    "suppressed": "Suppressed, not fixed",
    "unreported": "No longer reported, although the package is the same",
    "unknown": "No longer reported, and nobody can tell why without the package lists",
    "still": "Still there",
    "new": "New",
}


@dataclass(frozen=True)
class Change:
    """One vulnerability in one of GROUPS."""

    group: str
    finding: Finding
    why: str  # packages and versions, or the reason of a suppression


def unlike(before: Scan, after: Scan) -> list[str]:
    """Reasons why the two scans are not like for like, each a sentence; none if they are."""
    said = []
    for word, one, two in (
        ("different databases", before.database, after.database),
        ("different versions of the scanner", before.tool, after.tool),
        ("different days", before.scanned[:10], after.scanned[:10]),
        ("different platforms", before.platform, after.platform),
        ("different distributions, and each judges for itself", name_of(before), name_of(after)),
        ("different kinds of source", before.source, after.source),
    ):
        if one != two:
            said.append(f"{word}: {one} and {two}")
        elif one == NOT_RECORDED and word in ("different databases", "different days"):
            said.append(f"{word} are possible: not recorded in either report")
    if before.only_fixed != after.only_fixed:
        said.append("one counts only what has a fix")
    for name, scan in (("before", before), ("after", after)):
        said += [f"{name} may be incomplete: {warning}" for warning in scan.warnings]
    return said


def name_of(scan: Scan) -> str:
    """The distribution without its version."""
    return scan.distro.partition(" ")[0] if scan.distro != NOT_RECORDED else NOT_RECORDED


def named(packages: dict[tuple[str, str], str]) -> str:
    """Packages in words: "zlib1g 1.2.13 (deb)"."""
    return ", ".join(f"{name} {version} ({kind})" for (kind, name), version in sorted(packages.items()))


def disappeared(old: Finding, after: Scan, suppressed: dict[str, Finding]) -> Change:
    """Why a vulnerability is no longer on the list."""
    was = dict(old.packages)
    if old.name in suppressed:
        return Change("suppressed", old, f"{named(was)}: {suppressed[old.name].reason}")
    if after.packages is None:
        return Change("unknown", old, named(was))
    now = {package: after.packages.versions(*package) for package in was}
    if not any(now.values()):
        return Change("gone", old, named(was))
    same = {package: version for package, version in was.items() if version in now[package]}
    if same:
        return Change("unreported", old, named(same))
    moves = [
        f"{package[1]} {was[package]} to {' and '.join(sorted(found))}"
        for package, found in now.items()
        if found
    ]
    return Change("fixed", old, ", ".join(sorted(moves)))


def changes(before: Scan, after: Scan) -> list[Change]:
    """All changes, by group and then worst severity first."""
    known = aliases_of(before, after)  # one of the two may know a CVE by its advisory's name only
    before, after = replace(before, aliases=known), replace(after, aliases=known)
    old, new, suppressed = before.findings, after.findings, after.suppressed
    found = [disappeared(one, after, suppressed) for name, one in old.items() if name not in new]
    found += [
        Change("still" if name in old else "new", one, named(dict(one.packages))) for name, one in new.items()
    ]
    order = list(GROUPS)
    return sorted(
        found, key=lambda c: (order.index(c.group), SEVERITIES.index(c.finding.severity), c.finding.name)
    )


def as_text(found: list[Change], limit: int | None) -> str:
    """The changes as text, one line each; at most `limit` of a group are named, None names all."""
    lines = []
    for group, title in GROUPS.items():
        own = [one for one in found if one.group == group]
        if not own and group in ("suppressed", "unreported", "unknown"):
            continue
        lines.append(f"{title}: {len(own)}")
        for one in own[:limit]:
            exploited = ", known to be exploited" if one.finding.known_exploited else ""
            lines.append(f"  {one.finding.name} ({one.finding.severity}{exploited}): {one.why}")
        if limit is not None and len(own) > limit:
            lines.append(f"  and {len(own) - limit} more: --all names them")
    return "\n".join(lines)


def show(before: Path, after: Path, everything: bool, plain: bool) -> str:
    """The comparison of two reports as text: what is not like for like, the figures, the changes."""
    scans = read_scan(before), read_scan(after)
    lines = [f"Not like for like: {reason}." for reason in unlike(*scans)]
    rows = [[scan.image, *row_of(scan), scan.index, scan.scanned] for scan in scans]
    columns = ["image", *FIGURES, "published as", "time of the scan"]
    if plain:
        lines.append(console.table("Before and after", columns, rows, plain=True))
    else:
        turned = list(zip(columns, *rows))
        lines.append(console.table("Before and after", ["", "before", "after"], turned, plain=False))
    return "\n".join([*lines, as_text(changes(*scans), None if everything else SHOWN)])
