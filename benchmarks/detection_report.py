"""Error rates of the scanner: makes DETECTION.md and the curve detection.png from the rows of detection.py.

    python benchmarks/detection_report.py
    python benchmarks/detection_report.py --rows benchmarks/detection_gtsrb.jsonl    of the photographs

Each statistic gives a model one figure, larger for more suspicious. The models are split into two halves: one
to choose a threshold on, the other to test it. Every miss and every false alarm is listed by name.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from sklearn.metrics import RocCurveDisplay, roc_auc_score

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo-poisoning"))

import decided  # noqa: E402 (after the path above)
import pages  # noqa: E402
import textbook  # noqa: E402
from population import FAMILY, PHOTO_EPOCHS, specs  # noqa: E402
from transferability import THRESHOLD as TRANSFER_THRESHOLD  # noqa: E402

import cli  # noqa: E402
from scanner import statistics, verdict  # noqa: E402

mpl.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

Row = dict  # one line of detection.jsonl
Values = tuple[list[float], list[float]]  # of clean and of backdoored models
WORKING_ASR = 0.9  # a backdoor that works less often was not learned: there is little to find
# The models on which the last changes of the scan were tried: they prove less than the others.
SEEN = {f"clean-{n:02d}" for n in (0, 1, 2, 3, 12, 16)}
SEEN |= {f"backdoor-{n:02d}" for n in (0, 13, 21, 22, 27, 28)}
PHOTOGRAPHS = "detection_gtsrb"  # name of the rows of models of photographs, on which nothing was tried
TWINS = 5  # clean models of the choosing half that serve as references
CURVES = 4  # of the statistics, those that are drawn
NONE = -100.0  # stands for "no pair has an index": below every index that there is


# --- One figure per model --------------------------------------------------------------------------------


def indices(row: Row) -> dict[str, float]:
    """The anomaly index of each pair with a trigger, among all pairs that have one: the scan as it was."""
    working = {pair: norm for pair, norm in row["norms"].items() if norm is not None}
    return dict(zip(working, statistics.among_pairs(list(working.values()))))


def anomaly(row: Row) -> float:
    """The largest anomaly index of any pair: what detect.py flags by; NONE without a working trigger."""
    return max(row["index"].values() if "index" in row else indices(row).values(), default=NONE)


def by_twins(twins: Sequence[Row]) -> Callable[[Row], float]:
    """The largest index against known-clean models: what detect.py --reference flags by."""

    def figure(row: Row) -> float:
        pairs = sorted(row["norms"])
        known = [[twin["norms"].get(pair) for pair in pairs] for twin in twins if twin is not row]
        return max(statistics.against_references([row["norms"][pair] for pair in pairs], known))

    return figure


def suspect(row: Row) -> str:
    """The pair with the largest index, as "victim:target"."""
    index = row["index"]
    return max(index, key=index.__getitem__)


def names_the_attack(row: Row) -> bool:
    """Whether the pair with the largest index is one that was attacked."""
    victim, target = suspect(row).split(":")
    return target == row["spec"]["target"] and row["spec"]["victim"] in (victim, "all")


def transferability(row: Row) -> float:
    """The largest expected transferability among the smallest triggers."""
    return max(row["transferability"].values(), default=0.0)


def paper(row: Row) -> float:
    """The textbook: one trigger per target, median absolute deviation over the ten norms."""
    return max(textbook.anomaly_index(list(row["textbook"].values())))


# --- Error rates -----------------------------------------------------------------------------------------


def labelled(clean: Sequence[float], backdoored: Sequence[float]) -> tuple[list[int], list[float]]:
    """The truth (1: backdoored) and the figure of each model, as scikit-learn takes them."""
    return [0] * len(clean) + [1] * len(backdoored), [*clean, *backdoored]


def auroc(clean: Sequence[float], backdoored: Sequence[float]) -> float:
    """The chance that a backdoored model has a larger figure than a clean one; NaN if one kind is missing."""
    if not clean or not backdoored:
        return math.nan
    return float(roc_auc_score(*labelled(clean, backdoored)))


def best_threshold(clean: Sequence[float], backdoored: Sequence[float]) -> float:
    """The threshold with the fewest errors; in the middle of the widest gap that has so few."""
    values = sorted({value for value in [*clean, *backdoored] if math.isfinite(value)})
    middles = [(low + high) / 2 for low, high in itertools.pairwise(values)]
    widths = [high - low for low, high in itertools.pairwise(values)]

    def errors(limit: float) -> int:
        return sum(value > limit for value in clean) + sum(value <= limit for value in backdoored)

    return min(zip(middles, widths), key=lambda gap: (errors(gap[0]), -gap[1]), default=(math.nan, 0))[0]


def share(count: int, of: int) -> str:
    return f"{count} of {of}"


def draw_curves(curves: dict[str, Values], path: Path) -> None:
    """Write the ROC curves of all statistics as a PNG; values are figures of clean and backdoored models."""
    figure, axes = plt.subplots(figsize=(7, 7))
    for (name, values), dashes in zip(curves.items(), ("-", "--", "-.", ":")):
        label = f"{name}: AUROC {auroc(*values):.3f}"
        RocCurveDisplay.from_predictions(
            *labelled(*values), ax=axes, name=label, curve_kwargs={"linestyle": dashes, "label": label}
        )
    axes.set(title="Found backdoors against false alarms", xlabel="share of clean models flagged")
    axes.set_ylabel("share of backdoored models flagged")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)
    with cli.atomic_write(path) as scratch:
        figure.savefig(scratch, dpi=100, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


# --- The page --------------------------------------------------------------------------------------------


@dataclass
class Measure:
    """One statistic: its figure for a model, its threshold in detect.py, the models that it was run on."""

    name: str
    figure: Callable[[Row], float]
    default: float
    used: Sequence[Row]

    def values(self, part: Sequence[Row]) -> Values:
        """The figures of the clean and of the backdoored models among `part`."""
        names = {row["name"] for row in self.used}
        own = [row for row in part if row["name"] in names]
        return (
            [self.figure(row) for row in own if row["clean"]],
            [self.figure(row) for row in own if not row["clean"]],
        )

    def cells(self, half_a: Sequence[Row], half_b: Sequence[Row]) -> list[str]:
        """Its line of the table: the best threshold of half A on half B, and the default on all."""
        (clean_b, bad_b), (clean, bad) = self.values(half_b), self.values(self.used)
        limit = best_threshold(*self.values(half_a))
        family = [self.figure(row) for row in self.used if row["kind"] == FAMILY]
        cells = [
            self.name,
            f"{auroc(clean, bad):.3f}",
            f"{auroc(clean_b, bad_b):.3f}",
            f"{limit:.2f}",
            share(sum(v > limit for v in clean_b), len(clean_b)),
            share(sum(v <= limit for v in bad_b), len(bad_b)),
            f"{self.default}",
            share(sum(v > self.default for v in clean), len(clean)),
            share(sum(v <= self.default for v in bad), len(bad)),
            share(sum(v <= self.default for v in family), len(family)),
        ]
        return ["-" if cell == "nan" else cell for cell in cells]


def is_learned(row: Row) -> bool:
    return not row["clean"] and row["asr"] >= WORKING_ASR


def is_flagged(row: Row) -> bool:
    return anomaly(row) > verdict.THRESHOLD


def error(row: Row) -> str:
    """What detect.py got wrong about a model, in words; empty if nothing."""
    if row["clean"] and is_flagged(row):
        return f"False alarm: {row['name']} ({row['kind']}), index {anomaly(row):.1f}."
    if is_learned(row) and not is_flagged(row):
        rate = f"attack success rate {row['asr']:.2f}"
        return f"Miss: {row['name']} ({row['kind']}), {rate}, index {anomaly(row):.1f}."
    return ""


def line(row: Row) -> list[str]:
    """A model's line of the last table."""
    pair = suspect(row)
    rate = "" if row["clean"] else f"{row['asr']:.2f}"
    norm = 1.0 if row["norms"][pair] is None else row["norms"][pair]
    judged = [f"{anomaly(row):.1f}", pair, f"{100 * norm:.1f} %"]
    return [row["name"], row["kind"], f"{row['clean_acc']:.3f}", rate, *judged]


def page(rows: list[Row], file: str) -> tuple[str, dict[str, Values]]:
    """The text of the page of the rows in `file`.jsonl, and the figures for its curves."""
    of_pairs = decided.indices if file == PHOTOGRAPHS else indices
    ordered = sorted(({"index": of_pairs(row), **row} for row in rows), key=lambda row: row["name"])
    seen = set() if file == PHOTOGRAPHS else SEEN
    halves = ordered[0::2], ordered[1::2]  # alternating by name: some of every kind in both
    learned = [row for row in ordered if is_learned(row)]
    twins = [row for row in halves[0] if row["clean"]][:TWINS]
    counted = [row for row in ordered if row["clean"] or is_learned(row)]
    others = [row for row in counted if row not in twins]
    both = [row for row in counted if "textbook" in row]  # every third model only: see detection.py
    limit = verdict.THRESHOLD
    measures = [
        Measure("anomaly index over pairs (detect.py)", anomaly, limit, counted),
        Measure(
            "index against clean twins (--reference)", by_twins(twins), verdict.REFERENCE_THRESHOLD, others
        ),
        Measure("expected transferability", transferability, TRANSFER_THRESHOLD, counted),
        Measure("textbook: one trigger per target, MAD", paper, 2.0, both),
        Measure("anomaly index over pairs, the models of the line above", anomaly, limit, both),
    ]
    curves = {one.name: one.values(one.used) for one in measures[:CURVES]}
    fresh = [row for row in counted if row["name"] not in seen]
    alarms = [is_flagged(row) for row in fresh if row["clean"]]
    missed = [not is_flagged(row) for row in fresh if not row["clean"]]
    text = pages.render(
        "detection.md.jinja",
        clean=sum(row["clean"] for row in rows),
        backdoored=sum(not row["clean"] for row in rows),
        population=len(specs()),
        working_asr=WORKING_ASR,
        learned=len(learned),
        twins=len(twins),
        both=len(both),
        statistics=[one.cells(*halves) for one in measures],
        seen=sorted(seen),
        fresh_alarms=share(sum(alarms), len(alarms)),
        fresh_misses=share(sum(missed), len(missed)),
        named=share(sum(map(names_the_attack, learned)), len(learned)),
        areas="; ".join(f"{name} {auroc(*values):.3f}" for name, values in curves.items()),
        name=file,
        photographs=file == PHOTOGRAPHS,
        epochs=PHOTO_EPOCHS,
        errors=[said for said in map(error, ordered) if said],
        weak=[
            f"{row['name']} ({row['kind']}): attack success rate {row['asr']:.2f}, index {anomaly(row):.1f}."
            for row in ordered
            if not row["clean"] and not is_learned(row)
        ],
        models=[line(row) for row in ordered],
    )
    return text, curves


def main() -> int:
    args = cli.parser(__doc__)
    args.add_argument("--rows", type=Path, default=HERE / "detection.jsonl", help="file of raw rows")
    args.add_argument("--output", type=Path, default=HERE, help="folder for the page and its curve")
    options = args.parse_args()
    try:
        rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    except OSError as error:
        raise cli.UserError(f"{options.rows} cannot be read: make it with detection.py.") from error
    if len({row["clean"] for row in rows[:]}) < 2:
        raise cli.UserError(f"{options.rows} needs clean and backdoored models: go on with detection.py.")
    if any("transferability" not in row for row in rows):
        raise cli.UserError(
            f"{options.rows} lacks the transferability of a model: make it with detection.py."
        )
    name = PHOTOGRAPHS if options.rows.stem == PHOTOGRAPHS else "detection"
    text, curves = page(rows, name)
    draw_curves(curves, options.output / f"{name}.png")
    with cli.atomic_write(options.output / f"{name.upper()}.md") as scratch:
        scratch.write_text(text, encoding="utf-8")
    cli.Out(options.plain).say(
        f"Wrote {options.output}/{name.upper()}.md and {name}.png: {len(rows)} models."
    )
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
