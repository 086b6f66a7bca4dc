"""How much do clean twins help? The index against known-clean models (detect.py --reference), on drawings.

    python benchmarks/twins.py            TWINS.md from the rows of detection_today.jsonl and held_out.jsonl

Nothing is trained or scanned: the rows hold the norm of each pair. There are two populations of networks of
train.py, made of different images with different seeds: clean models, and backdoors in scope that were
learned. Twins are drawn at random from the clean models of one, and compared with the models of the other.
Each choice of twins is one draw, and in each the models are drawn with replacement, too, so the intervals
hold the luck of both. The twins that come with the demo are compared with all models, of other kinds, too.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import decided
import detection_report
import held_out_page
import intervals
import numpy as np
import pages
import population
import seeds

# isort: split  (population puts demo-poisoning on the path)
import cli
from dataset.classes import DRAWN
from scanner import result, search, statistics, verdict

HERE = Path(__file__).resolve().parent
SHIPPED = population.DEMO / "clean-twins"  # scans of clean models that come with the demo
NUMBERS = (1, 2, 3, 5, 10)  # of twins drawn at random
DRAWS = 200  # choices of twins, half of them from either population
OURS = "ResNet18, drawings"

Row = dict[str, Any]
Figure = Callable[[Row], float]  # of a model; the larger, the more suspicious
Rates = tuple[float, float, float]  # area under the ROC curve, false alarms, misses: shares, 0..1


def read(path: Path) -> list[Row]:
    """The newest row of each model of ten classes, clean or in scope and learned. Raises UserError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        newest = {row["name"]: row for row in map(json.loads, lines)}
        return [
            row
            for row in newest.values()
            if len(row["norms"]) == len(DRAWN) * (len(DRAWN) - 1)
            and (row["clean"] or (held_out_page.is_learned(row) and row.get("in_scope", True)))
        ]
    except OSError as error:
        raise cli.UserError(
            f"{path} cannot be read: make it with detection.py or held_out.py run."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise cli.UserError(f"{path} holds no rows of detection.py or held_out.py.") from error


def origin(row: Row) -> str:
    """Which networks a model is one of, and what it was trained on."""
    network, data = row.get("network", "resnet18"), row.get("data", "drawn").split("-")[0]
    words = {"resnet18": "ResNet18", "vgg": "VGG", "mobilenet_v3_small": "MobileNetV3"}
    images = {"drawn": "drawings", "pale": "pale drawings", "poster": "poster drawings"}
    return f"{words.get(network, network)}, {images.get(data, data)}"


def ours(rows: Sequence[Row]) -> list[Row]:
    """Networks of train.py of the workshop's drawings."""
    return [row for row in rows if origin(row) == OURS]


def clean(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["clean"]]


def shipped() -> list[Row]:
    """The twins that come with the demo, as rows."""
    scans = [result.read(path) for path in sorted(SHIPPED.glob("*.json"))]
    return [{"norms": {search.name(pair): norm for pair, norm in scan.norms.items()}} for scan in scans]


# --- Figures and rates --------------------------------------------------------------------------------


def threshold(twins: int) -> float:
    """Above which figure detect.py flags a pair."""
    return verdict.REFERENCE_THRESHOLD if twins else verdict.THRESHOLD


def by_pair(row: Row, twins: Sequence[Row]) -> dict[str, float]:
    """The index of each pair against these twins; the anomaly index if there are none. From the norms."""
    if not twins:
        return decided.indices(row)
    known = [[twin["norms"].get(pair) for pair in row["norms"]] for twin in twins]
    return dict(zip(row["norms"], statistics.against_references([*row["norms"].values()], known)))


def figure(twins: Sequence[Row]) -> Figure:
    """The largest index of a model, which is computed once for each name."""
    known: dict[str, float] = {}

    def largest(row: Row) -> float:
        name = row["name"]
        if name not in known:
            known[name] = max(by_pair(row, twins).values(), default=detection_report.NONE)
        return known[name]

    return largest


def attacked(row: Row) -> set[str]:
    """The pairs that the backdoor of a model was made for."""
    if "attacked" in row:
        return set(row["attacked"])
    spec = row["spec"]
    victims = [name for name in DRAWN if spec["victim"] in (name, "all") and name != spec["target"]]
    return {f"{victim}:{spec['target']}" for victim in victims}


def is_named(row: Row, twins: Sequence[Row]) -> bool:
    """Whether an attacked pair is among those that are flagged."""
    index = by_pair(row, twins)
    return any(index.get(pair, detection_report.NONE) > threshold(len(twins)) for pair in attacked(row))


def redrawn(rows: Sequence[Row], rng: random.Random) -> list[Row]:
    """As many clean and as many backdoored models, drawn with replacement."""
    halves = [[row for row in rows if row["clean"] is one] for one in (True, False)]
    return [rng.choice(half) for half in halves for _ in half]


def rates(rows: Sequence[Row], of: Figure, limit: float) -> Rates:
    """How well a figure tells the clean models of the rows from the others."""
    known = {row["name"]: of(row) for row in rows}
    natural, found = ([known[row["name"]] for row in rows if row["clean"] is one] for one in (True, False))
    alarms, misses = (one > limit for one in natural), (one <= limit for one in found)
    return float(intervals.wins(natural, found).mean()), float(np.mean([*alarms])), float(np.mean([*misses]))


def drawn(populations: Sequence[list[Row]], twins: int) -> np.ndarray:
    """The rates of each draw with so many twins, float (draws, 3)."""
    rng, found, alone = random.Random(0), [], figure([])
    for draw in range(DRAWS):
        chosen = rng.sample(clean(populations[draw % 2]), twins)
        rows = redrawn(populations[1 - draw % 2], rng)
        found.append(rates(rows, figure(chosen) if twins else alone, threshold(twins)))
    return np.array(found)


# --- The page -----------------------------------------------------------------------------------------


def cells(found: np.ndarray) -> list[str]:
    """Mean and 95 % interval of each rate over the draws, for a table."""
    low, high = np.quantile(found, [0.025, 0.975], axis=0)
    area, *shares = zip(found.mean(0), low, high)
    return [
        "{:.3f} ({:.3f} to {:.3f})".format(*area),
        *("{:.1f} % ({:.1f} to {:.1f} %)".format(*(100 * one for one in share)) for share in shares),
    ]


def compared(rows: Sequence[Row], twins: Sequence[Row]) -> list[str]:
    """AUROC, false alarms, misses and how many of those found name the attack, for a table."""
    of, limit = figure(twins), threshold(len(twins))
    natural, found = ([of(row) for row in rows if row["clean"] is one] for one in (True, False))
    area = intervals.with_interval(intervals.wins(natural, found)) if found else "none"
    alarms = intervals.exact(sum(one > limit for one in natural), len(natural))
    missed = sum(one <= limit for one in found)
    misses = intervals.exact(missed, len(found)) if found else "none"
    named = sum(is_named(row, twins) for row in rows if not row["clean"])
    return [area, alarms, misses, f"{named} of {len(found) - missed}"]


def errors(rows: Sequence[Row], twins: Sequence[Row]) -> list[str]:
    """False alarms and misses by name."""
    of, limit = figure(twins), threshold(len(twins))
    return [
        f"{'False alarm' if row['clean'] else 'Miss'}: {row['name']} ({row['kind']}), index {of(row):.1f}."
        for row in rows
        if (of(row) > limit) is row["clean"]
    ]


def page(populations: Sequence[list[Row]], out: cli.Out) -> str:
    """TWINS.md. Raises UserError if a population has too few models."""
    models = [ours(rows) for rows in populations]
    counts = [(len(clean(rows)), len(rows) - len(clean(rows))) for rows in models]
    if any(natural < max(NUMBERS) or not learned for natural, learned in counts):
        raise cli.UserError(
            f"Either population needs {max(NUMBERS)} clean models and a learned backdoor: measure more."
        )
    numbers = (0, *NUMBERS)
    steps = out.progress(numbers, len(numbers), "Choosing twins")
    every, twins = [row for rows in models for row in rows], shipped()
    others = [row for rows in populations for row in rows if origin(row) != OURS]
    head = ["AUROC", "false alarms", "misses"]
    named = "an attacked pair is flagged"
    return pages.render(
        "twins.md.jinja",
        counts=counts,
        draws=DRAWS,
        threshold=threshold(0),
        reference_threshold=threshold(1),
        twins=len(twins),
        rates=seeds.table(
            ["clean twins", *head],
            [[str(number or "none"), *cells(drawn(models, number))] for number in steps],
        ),
        shipped=seeds.table(
            ["compared with", *head, named],
            [["nothing", *compared(every, [])], ["the twins of the demo", *compared(every, twins)]],
        ),
        errors=errors(every, twins),
        others=seeds.table(
            ["other models", *head, named],
            [
                [name, *compared([row for row in others if origin(row) == name], twins)]
                for name in sorted(set(map(origin, others)))
            ],
        ),
    )


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument(
        "--rows",
        type=Path,
        nargs=2,
        metavar="FILE",
        default=[HERE / "detection_today.jsonl", HERE / "held_out.jsonl"],
        help="rows of the two populations",
    )
    args.add_argument("--output", type=Path, default=HERE / "TWINS.md", help="page to write")
    return args.parse_args()


def main() -> int:
    options = parse()
    out = cli.Out(options.plain)
    text = page([read(path) for path in options.rows], out)
    with cli.atomic_write(options.output) as scratch:
        scratch.write_text(text, encoding="utf-8")
    out.say(f"Wrote {options.output}.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
