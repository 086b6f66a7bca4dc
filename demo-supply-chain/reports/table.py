"""The comparison of several scans: as text, as Markdown, as CSV, and as a chart that has its words in it.

Helper module, not a command: scan.py uses it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import datetime, timedelta
from html import escape
from pathlib import Path

import console
from reports.grype_report import NOT_RECORDED, SEVERITIES, Scan

OLD = timedelta(days=5)  # what Grype itself takes for too old
SYSTEM = {"apk", "deb", "rpm", "alpm"}  # kinds of packages that only their distribution can tell about
SIDE_BY_SIDE = 4  # images in one table on a terminal
COLORS = ("#7f0000", "#d7301f", "#fc8d59", "#fdcc8a", "#cccccc", "#969696")  # for SEVERITIES, dark to light


def packages_of(scan: Scan) -> str:
    """The number of packages and of which kinds, for example "430 (deb 400, pypi 30)"."""
    if scan.packages is None:
        return "unknown"
    kinds = ", ".join(f"{kind} {count}" for kind, count in scan.packages.by_kind().items())
    return f"{len(scan.packages.all)} ({kinds})" if kinds else "0"


def python_of(scan: Scan) -> str:
    """The version of Python in the image."""
    return "unknown" if scan.packages is None else scan.packages.python()


def highest_epss(scan: Scan) -> str:
    """The highest EPSS and whose it is: the chance that it is used within 30 days."""
    scored = [(one.epss, name) for name, one in scan.findings.items() if one.epss is not None]
    return "none" if not scored else "{:.3f} {}".format(*max(scored))


def size_of(scan: Scan) -> str:
    """The size of the unpacked image."""
    if scan.size is None:
        return NOT_RECORDED
    return f"{scan.size / 1e6:.0f} MB" if scan.size >= 1e7 else f"{scan.size / 1e3:.0f} kB"


FIGURES = (
    "scanned",
    "platform",
    "image made",
    "built on",
    "Python",
    "size",
    "packages",
    "packages with findings",
    *SEVERITIES,
    "all",
    "fixable",
    "known exploited",
    "highest EPSS",
    "ignored",
    "database",
)


def row_of(scan: Scan) -> list[object]:
    """The figures of one scan, in the order of FIGURES."""
    found = scan.findings
    return [
        scan.digest if scan.source == "image" else f"{scan.source} {scan.digest}",
        scan.platform,
        scan.created,
        scan.distro,
        python_of(scan),
        size_of(scan),
        packages_of(scan),
        len({(one.package, one.version) for one in scan.matches}),
        *scan.counts(),
        len(found),
        sum(one.fixable for one in found.values()),
        sum(one.known_exploited for one in found.values()),
        highest_epss(scan),
        len(scan.suppressed),
        scan.database,
    ]


Rows = tuple[list[str], list[list[object]]]


def rows_of(images: list[str], scans: dict[str, Scan]) -> Rows:
    """Columns and rows: one row an image, in the order asked for; what was not scanned says so."""
    missing = ["not scanned"] * len(FIGURES)
    return ["image", *FIGURES], [
        [name, *(row_of(scans[name]) if name in scans else missing)] for name in images
    ]


def notes_of(scans: dict[str, Scan]) -> list[str]:
    """What a reader must know beside the figures: one sentence each."""
    notes = []
    for name, scan in scans.items():
        if scan.index != NOT_RECORDED and not scan.index.endswith(scan.digest):
            notes.append(
                f"{name}: scanned {scan.digest} for {scan.platform}, one of the images of {scan.index}"
            )
        notes += [f"{name}: warning: {warning}" for warning in scan.warnings]
        notes += [f"{name}: ignored {words}" for words in ignored_of(scan)]
        if scan.distro == NOT_RECORDED and scan.packages and SYSTEM & set(scan.packages.by_kind()):
            notes.append(f"{name}: warning: no known distribution, so its packages were not looked at")
        if scan.packages is not None and not scan.packages.all:
            notes.append(f"{name}: warning: not one package was found, so nothing was looked at")
        if scan.vex and not any("VEX: " in one.reason for one in scan.ignored):
            given = ", ".join(Path(one).name for one in scan.vex)
            notes.append(f"{name}: no statement in {given} took anything off the list")
        if scan.only_fixed:
            notes.append(f"{name}: only what has a fix was counted")
        if age := age_of(scan):
            notes.append(f"{name}: warning: the database was {age.days} days old when it was used")
    databases = {scan.database for scan in scans.values()}
    if len(databases) > 1:
        notes.append(f"Not like for like: several databases were used ({', '.join(sorted(databases))})")
    return notes


def ignored_of(scan: Scan) -> list[str]:
    """What was ignored, by reason: how many, why, and the first names."""
    reasons: dict[str, list[str]] = {}
    for one in scan.suppressed.values():
        reasons.setdefault(one.reason, []).append(f"{one.name} ({one.severity})")
    return [
        f"{len(names)}, {reason}: {', '.join(names[:3])}"
        + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        for reason, names in reasons.items()
    ]


def age_of(scan: Scan) -> timedelta | None:
    """The database's age at the time of the scan, if older than Grype allows; else, or if unknown, None."""
    try:
        built, used = (datetime.fromisoformat(text[:19]) for text in (scan.database, scan.scanned))
    except ValueError:
        return None
    return used - built if used - built > OLD else None


def as_text(rows: Rows, notes: list[str], plain: bool) -> str:
    """In plain text one line an image, on a terminal one column an image."""
    columns, lines = rows
    title = "Vulnerabilities, each counted once per image"
    if plain:
        text = [console.table(title, columns, lines, plain=True)]
    else:
        blocks = [lines[at : at + SIDE_BY_SIDE] for at in range(0, len(lines), SIDE_BY_SIDE)]
        text = []
        for block in blocks:
            turned = [
                list(line) for line in zip(columns, *([narrow(cell) for cell in line] for line in block))
            ]
            text.append(console.table(title, [str(cell) for cell in turned[0]], turned[1:], plain=False))
    return "\n\n".join(text) + ("\n\nNotes\n" + "\n".join(f"- {note}" for note in notes) if notes else "")


def narrow(cell: object) -> str:
    """A digest is too wide for a column: its first characters tell images apart, the notes have all of it."""
    text = str(cell)
    return text[:19] + "..." if text.startswith("sha256:") else text


def as_markdown(rows: Rows, notes: list[str]) -> str:
    """A table for a wiki or a pull request, one column an image as on a terminal."""
    columns, lines = rows
    turned = [[str(cell).replace("|", "\\|") for cell in line] for line in zip(columns, *lines)]
    head, *body = turned
    table = ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *body)]
    return "\n".join([*table, "", *(f"- {note}" for note in notes)]) + "\n"


def as_csv(rows: Rows) -> str:
    """For a spreadsheet. A cell that a spreadsheet would take for a formula gets a quote in front."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([harmless(cell) for cell in line] for line in rows[1])
    return text.getvalue()


def harmless(cell: object) -> object:
    """The cell, made safe for spreadsheets."""
    return "'" + cell if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@") else cell


def chart_text(scans: Sequence[Scan]) -> str:
    """What the chart shows, in words: its alternative text."""
    said = []
    for scan in scans:
        counts = [f"{count} {name}" for name, count in zip(SEVERITIES, scan.counts()) if count]
        said.append(f"{scan.image}: {', '.join(counts) or 'nothing found'}, {len(scan.findings)} in all.")
    return "Bar chart, one bar an image, its parts from Critical to Unknown. " + " ".join(said)


def as_chart(scans: Sequence[Scan]) -> str:
    """One bar an image as SVG; the figures stand in it as text, so nothing is said by colour alone."""
    longest = max((len(scan.findings) for scan in scans), default=0) or 1
    width, height, step = 900, 60 + 70 * len(scans) + 30, 70
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-labelledby="t d" '
        'font-family="sans-serif" font-size="16">',
        '<title id="t">Vulnerabilities by severity</title>',
        f'<desc id="d">{escape(chart_text(scans))}</desc>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="20" y="32" font-size="20">Vulnerabilities, each counted once per image</text>',
    ]
    for number, scan in enumerate(scans):
        top, left = 60 + step * number, 20.0
        counts = scan.counts()
        words = (
            ", ".join(f"{name} {count}" for name, count in zip(SEVERITIES, counts) if count)
            or "nothing found"
        )
        parts.append(f'<text x="20" y="{top + 12}">{escape(scan.image)}: {words}</text>')
        for name, count, color in zip(SEVERITIES, counts, COLORS):
            part = count * (width - 40) / longest
            parts.append(
                f'<rect x="{left:.1f}" y="{top + 20}" width="{part:.1f}" height="24" fill="{color}">'
                f"<title>{name} {count}</title></rect>"
            )
            left += part
    return "\n".join([*parts, "</svg>"]) + "\n"
