"""Helper module, not a command: where a figure of a sentence stands in a record or in a file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

Values = list[str]

MODELS, SCANS, REPAIRS = (
    "## The models: clean accuracy / attack success rate",
    "## The scans: anomaly index, flagged above 4.8",
    "## The repairs: clean accuracy / attack success rate afterwards",
)
POISONED = r"^Poisoned (\d+) stop images"
TRAINED = r"^Training on ([\d,]+) images in data/traffic-signs-poisoned/"


def groups(*patterns: str) -> Callable[[str], Values]:
    """The groups of each pattern, which stands once, or every time with the same figures."""

    def found(text: str) -> Values:
        values: Values = []
        for pattern in patterns:
            seen = {match.groups() for match in re.finditer(pattern, text, flags=re.MULTILINE)}
            (once,) = seen  # ValueError if there is none, or if there are several
            values += once
        return values

    return found


def cells(text: str, heading: str, first: str) -> list[list[str]]:
    """The cells of the rows of the table below a heading, those whose first cell matches."""
    part = text.split(f"{heading}\n", 1)[1]
    part = re.split(r"^#", part, maxsplit=1, flags=re.MULTILINE)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:1] == "|"
    ]
    return [row for row in rows if re.fullmatch(first, row[0])]


def least_and_most(values: Iterator[str] | Values) -> Values:
    """Of numbers with the same number of digits."""
    ordered = sorted(values, key=float)
    return [ordered[0], ordered[-1]]


def seeds(heading: str, *columns: int) -> Callable[[str], Values]:
    """Least and most of the columns of SEEDS.md; of "0.997 / 0.03" the second."""

    def found(text: str) -> Values:
        rows = cells(text, heading, r"\d")
        return [v for n in columns for v in least_and_most([row[n].split(" / ")[-1] for row in rows])]

    return found


def indices(kind: str) -> Callable[[str], Values]:
    """How many models of a kind DETECTION.md has, and the least and largest index."""

    def found(text: str) -> Values:
        rows = [
            row for row in cells(text, "## All models", r"(clean|backdoor)-\d+") if re.search(kind, row[1])
        ]
        return [str(len(rows)), *least_and_most([row[4] for row in rows])]

    return found


def success(*models: int) -> Callable[[str], Values]:
    """The attack success rates of models of DETECTION.md that did not learn well."""
    return groups(*(rf"^- backdoor-{number} .*: attack success rate ([\d.]+)," for number in models))


def on_other_signs(*columns: tuple[str, int]) -> Callable[[str], Values]:
    """Of PHOTOS.md, how many signs were read as yield: from "12.0 % (12 of 100; ...)" 12 and 100."""

    def found(text: str) -> Values:
        rows = {
            row[0]: row
            for row in cells(
                text, "## The yellow square on other signs: read as yield, all seeds together", r"\w+"
            )
        }
        return [
            n for name, column in columns for n in re.findall(r"\((\d+) of (\d+);", rows[name][column])[0]
        ]

    return found


def first_of(found: Callable[[str], Values], *wanted: int) -> Callable[[str], Values]:
    """Some of the values that are found, by their place."""
    return lambda text: [found(text)[number] for number in wanted]


def slowest_of_a_class(text: str) -> Values:
    """The longest that anybody waited, of all commands, and the seconds for the page."""
    rows = [row for row in cells(text, "## A class of 100 at once", r"[a-z ]+") if row[1].isdigit()]
    (page,) = (row[3] for row in rows if row[0] == "the page of all")
    return [least_and_most([row[5] for row in rows if row[5]])[1], page]


def textbook(text: str) -> Values:
    """Of the textbook rule, backdoors that it flagged, and false alarms, of how many."""
    row = r"^\| textbook: one trigger per target, MAD \|.*\| (\d+) of (\d+) \| (\d+) of (\d+) \| [^|]* \|$"
    alarms, clean, missed, learned = groups(row)(text)
    return [str(int(learned) - int(missed)), learned, alarms, clean]


def plain_loop(text: str) -> Values:
    """Of per_pair.jsonl, by the usual rule: poisoned models whose attacked pair has the largest index, clean
    models with an index above 2, each of how many, and the area under the ROC curve of the largest index.
    """
    largest: dict[str, list[float]] = {"clean": [], "poisoned": []}
    first = 0
    for line in text.splitlines():
        row = json.loads(line)
        index = usual_index(row["norms"])
        largest[row["kind"]].append(max(index.values()))
        first += row["kind"] == "poisoned" and max(index, key=index.__getitem__) == "stop → yield"
    clean, poisoned = largest["clean"], largest["poisoned"]
    wins = sum((bad > good) + (bad == good) / 2 for bad in poisoned for good in clean)
    flagged = sum(value > 2 for value in clean)
    counts = (first, len(poisoned), flagged, len(clean))
    return [*map(str, counts), f"{wins / (len(clean) * len(poisoned)):.2f}"]


def usual_index(norms: dict[str, float]) -> dict[str, float]:
    """(median - norm) / (1.4826 MAD), as benchmarks/textbook.py has it, with the lower of two medians."""

    def median(values: list[float]) -> float:
        return sorted(values)[(len(values) - 1) // 2]

    middle = median([*norms.values()])
    spread = 1.4826 * median([abs(norm - middle) for norm in norms.values()])
    return {pair: (middle - norm) / spread for pair, norm in norms.items()}


def lines_and_vulnerabilities(text: str) -> Values:
    """Of the first recorded scan: Grype's lines, and the sum of all severities."""
    line = text.split("Scan 1: ", 1)[1].splitlines()[1]
    figures = dict(re.findall(r"(\w+): (\d+)", line))
    severities = ("Critical", "High", "Medium", "Low", "Negligible", "Unknown")
    return [figures["matches"], str(sum(int(figures[name]) for name in severities))]


def kilobytes(text: str) -> Values:
    (size,) = groups(r"^Wrote malicious_model.pt \((\d+) bytes\)")(text)
    return [f"{int(size) / 1000:.1f}"]


def shares(text: str) -> Values:
    """How many images are poisoned, and how many percent of their class and of all that is."""
    poisoned, each, images = (
        int(one.replace(",", ""))
        for one in groups(POISONED, r"^Wrote [\d,]+ images .*\((\d+) train", TRAINED)(text)
    )
    return [str(poisoned), f"{100 * poisoned / each:g}", f"{100 * poisoned / images:g}"]


def seconds_of(step: str) -> Callable[[str], Values]:
    """Seconds of the steps of ./workshop.sh run whose name fits this pattern, for each way that has any."""

    def found(text: str) -> Values:
        ways = [re.findall(r"^- (\d+) s: (.*)$", way, re.MULTILINE) for way in text.split("\n## ")[1:]]
        took = [[int(seconds) for seconds, name in way if re.match(step, name)] for way in ways]
        return [str(sum(seconds)) for seconds in took if seconds]

    return found


def image_sizes(text: str) -> Values:
    """Seconds and gigabytes of each image that ./workshop.sh run has built."""
    built = re.findall(r"^- image \S+: (\d+) MB, built in (\d+) s$", text, re.MULTILINE)
    return [value for megabytes, seconds in built for value in (seconds, str(int(megabytes) / 1000))]
