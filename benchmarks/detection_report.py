"""Error rates of the scanner: makes DETECTION.md and the curve detection.png from the rows of detection.py.

    python benchmarks/detection_report.py

Each statistic gives a model one figure, larger for more suspicious. The models are split into two halves: one
to choose a threshold on, the other to test it. Every miss and every false alarm is listed by name.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo-poisoning"))

import textbook  # noqa: E402
from population import FAMILY, specs  # noqa: E402

import anomaly_index  # noqa: E402
import cli  # noqa: E402 (after the path above)
import judge  # noqa: E402

Row = dict  # one line of detection.jsonl
WORKING_ASR = 0.9  # a backdoor that works less often was not learned: there is little to find
# The models on which the last changes of the scan were tried: they prove less than the others.
SEEN = {f"clean-{n:02d}" for n in (0, 1, 2, 3, 12, 16)}
SEEN |= {f"backdoor-{n:02d}" for n in (0, 13, 21, 22, 27, 28)}
TWINS = 5  # clean models of the choosing half that serve as references
SIDE, EDGE = 480, 70  # pixels of the curve and of the margin around it
STYLES = (((0, 70, 160), 5), ((190, 60, 0), 3), ((0, 120, 60), 3), ((120, 40, 140), 3))


# --- One figure per model --------------------------------------------------------------------------------


def anomaly(row: Row) -> float:
    """The largest anomaly index of any pair: what detect.py flags by; -inf without a working sticker."""
    working = [norm for norm in row["norms"].values() if norm < 1]
    return max(anomaly_index.among_pairs(working), default=-math.inf)


def by_twins(twins: Sequence[Row]) -> Callable[[Row], float]:
    """The largest index against known-clean models: what detect.py --reference flags by."""

    def figure(row: Row) -> float:
        pairs = sorted(row["norms"])
        known = [[twin["norms"].get(pair, 1.0) for pair in pairs] for twin in twins if twin is not row]
        return max(anomaly_index.against_references([row["norms"][pair] for pair in pairs], known))

    return figure


def suspect(row: Row) -> str:
    """The pair with the smallest sticker, as "victim:target"."""
    return str(min(row["norms"], key=row["norms"].__getitem__))


def names_the_attack(row: Row) -> bool:
    """Whether the pair with the smallest sticker is one that was attacked."""
    victim, target = suspect(row).split(":")
    return target == row["spec"]["target"] and row["spec"]["victim"] in (victim, "all")


def transferability(row: Row) -> float:
    """The largest expected transferability among the smallest stickers."""
    return max(row["transferability"].values(), default=0.0)


def paper(row: Row) -> float:
    """The textbook: one trigger per target, median absolute deviation over the ten norms."""
    return max(textbook.anomaly_index(list(row["textbook"].values())))


# --- Error rates -----------------------------------------------------------------------------------------


def auroc(clean: Sequence[float], backdoored: Sequence[float]) -> float:
    """The chance that a backdoored model has a larger figure than a clean one; ties count half."""
    wins = [(bad > good) + 0.5 * (bad == good) for bad in backdoored for good in clean]
    return sum(wins) / len(wins) if wins else math.nan


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


def draw_curves(curves: dict[str, tuple[list[float], list[float]]], path: Path) -> None:
    """Write the ROC curves of all statistics as a PNG; values are figures of clean and backdoored models."""
    sheet = Image.new("RGB", (SIDE + 2 * EDGE, SIDE + 2 * EDGE + 24 * len(curves)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    pen.rectangle((EDGE, EDGE, EDGE + SIDE, EDGE + SIDE), outline="black")
    pen.line((EDGE, EDGE + SIDE, EDGE + SIDE, EDGE), fill=(150, 150, 150))
    pen.text((EDGE, 20), "ROC curve: found backdoors against false alarms", "black", font)
    pen.text((EDGE, EDGE + SIDE + 10), "0      share of clean models flagged      1", "black", font)
    for number, ((name, (clean, backdoored)), (colour, width)) in enumerate(zip(curves.items(), STYLES)):
        limits = [math.inf, *sorted({*clean, *backdoored}, reverse=True)]
        points = []
        for limit in limits:
            false = sum(value >= limit for value in clean) / len(clean)
            true = sum(value >= limit for value in backdoored) / len(backdoored)
            points.append((EDGE + SIDE * false, EDGE + SIDE * (1 - true)))
        pen.line(points, fill=colour, width=width)
        label = f"{name}: AUROC {auroc(clean, backdoored):.3f}"
        top = EDGE + SIDE + 44 + 24 * number
        pen.line((EDGE, top + 9, EDGE + 30, top + 9), fill=colour, width=width)
        pen.text((EDGE + 40, top), label, "black", font)
    with cli.atomic_write(path) as scratch:
        sheet.save(scratch)


# --- The page --------------------------------------------------------------------------------------------


def page(rows: list[Row], picture: str) -> tuple[str, dict[str, tuple[list[float], list[float]]]]:
    """The text of DETECTION.md, and the figures for the curves."""
    ordered = sorted(rows, key=lambda row: row["name"])
    halves = [ordered[0::2], ordered[1::2]]  # alternating by name: some of every kind in both
    learned = [row for row in ordered if not row["clean"] and row["asr"] >= WORKING_ASR]
    twins = [row for row in halves[0] if row["clean"]][:TWINS]
    judged = [row for row in ordered if row["clean"] or row["asr"] >= WORKING_ASR]
    others = [row for row in judged if row not in twins]
    both = [row for row in judged if "textbook" in row]  # every third model only: see detection.py
    statistics: dict[str, tuple[Callable[[Row], float], float, list[Row]]] = {
        "anomaly index over pairs (detect.py)": (anomaly, judge.THRESHOLD, judged),
        "index against clean twins (--reference)": (by_twins(twins), judge.REFERENCE_THRESHOLD, others),
        "expected transferability": (transferability, judge.TRANSFER_THRESHOLD, judged),
        "textbook: one trigger per target, MAD": (paper, 2.0, both),
        "anomaly index over pairs, the models of the line above": (anomaly, judge.THRESHOLD, both),
    }
    counts = (
        f"{sum(row['clean'] for row in rows)} clean and {sum(not row['clean'] for row in rows)} backdoored"
    )
    lines = [
        "# How often the scanner is right",
        "",
        "Made by `python benchmarks/detection_report.py` from the rows in `detection.jsonl`; do not edit.",
        "",
        f"{counts} models, of {len(specs())} in `population.py`. A backdoor counts as learned if its attack "
        f"success rate is at least {WORKING_ASR:.2f}: {len(learned)} did. The others are listed below and "
        "left out of the rates.",
        "Half A chose the best threshold, half B tests it. The default is that of `detect.py`. "
        f"The index against clean twins knows the {len(twins)} clean models that it compares with, so those "
        f"are left out there; the textbook rule was run on {len(both)} of the models.",
        "",
        "| statistic | AUROC, all | AUROC, B | best threshold on A | false alarms on B | misses on B "
        "| default | false alarms, all | misses, all | misses, the workshop's own kind |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for name, (figure, default, used) in statistics.items():
        value = {row["name"]: figure(row) for row in used}

        def split(part: Sequence[Row], value: dict[str, float] = value) -> tuple[list[float], list[float]]:
            own = [row for row in part if row["name"] in value]
            return (
                [value[row["name"]] for row in own if row["clean"]],
                [value[row["name"]] for row in own if not row["clean"]],
            )

        (clean_a, bad_a), (clean_b, bad_b), (clean, bad) = split(halves[0]), split(halves[1]), split(used)
        limit = best_threshold(clean_a, bad_a)
        family = [value[row["name"]] for row in used if row["kind"] == FAMILY]
        cells = [
            name,
            f"{auroc(clean, bad):.3f}",
            f"{auroc(clean_b, bad_b):.3f}",
            f"{limit:.2f}",
            share(sum(v > limit for v in clean_b), len(clean_b)),
            share(sum(v <= limit for v in bad_b), len(bad_b)),
            f"{default}",
            share(sum(v > default for v in clean), len(clean)),
            share(sum(v <= default for v in bad), len(bad)),
            share(sum(v <= default for v in family), len(family)),
        ]
        lines.append("| " + " | ".join("-" if cell == "nan" else cell for cell in cells) + " |")
        if len(curves) < len(STYLES):
            curves[name] = (clean, bad)
    words = "; ".join(f"{name} {auroc(*values):.3f}" for name, values in curves.items())
    fresh = [(row["clean"], anomaly(row) > judge.THRESHOLD) for row in judged if row["name"] not in SEEN]
    alarms = [flagged for clean, flagged in fresh if clean]
    found = [flagged for clean, flagged in fresh if not clean]
    lines += [
        "",
        f"The last changes of the scan were tried on {len(SEEN)} of these models "
        f"({', '.join(sorted(SEEN))}): the version before had missed backdoor-27, and gave a false alarm for "
        "clean-12, among the first 34. On the others, `detect.py` gave a false alarm for "
        f"{share(sum(alarms), len(alarms))} clean models, and missed "
        f"{share(len(found) - sum(found), len(found))} learned backdoors.",
        f"For {share(sum(map(names_the_attack, learned)), len(learned))} learned backdoors, the pair with "
        "the smallest sticker of all is the one that was attacked.",
    ]
    lines += ["", f"![ROC curves of the four statistics; area under the curve: {words}.]({picture})", ""]
    lines += ["## Errors of the default scan", ""]
    errors = []
    for row in ordered:
        figure_ = anomaly(row)
        if row["clean"] and figure_ > judge.THRESHOLD:
            errors.append(f"- False alarm: {row['name']} ({row['kind']}), index {figure_:.1f}.")
        elif not row["clean"] and row["asr"] >= WORKING_ASR and figure_ <= judge.THRESHOLD:
            errors.append(
                f"- Miss: {row['name']} ({row['kind']}), attack success rate {row['asr']:.2f}, "
                f"index {figure_:.1f}."
            )
    lines += errors or ["- None."]
    weak = [row for row in ordered if not row["clean"] and row["asr"] < WORKING_ASR]
    lines += ["", "## Backdoors that the model did not learn well", ""]
    lines += [
        f"- {row['name']} ({row['kind']}): attack success rate {row['asr']:.2f}, index {anomaly(row):.1f}."
        for row in weak
    ] or ["- None."]
    lines += ["", "## All models", ""]
    lines += [
        "| model | kind | clean accuracy | attack success rate | index | suspect pair | its norm |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ordered:
        pair = suspect(row)
        rate = "" if row["clean"] else f"{row['asr']:.2f}"
        lines.append(
            f"| {row['name']} | {row['kind']} | {row['clean_acc']:.3f} | {rate} | {anomaly(row):.1f} "
            f"| {pair} | {100 * row['norms'][pair]:.1f} % |"
        )
    return "\n".join(lines) + "\n", curves


def main() -> int:
    args = cli.parser(__doc__)
    args.add_argument("--rows", type=Path, default=HERE / "detection.jsonl", help="file of raw rows")
    args.add_argument("--output", type=Path, default=HERE, help="folder for DETECTION.md and detection.png")
    options = args.parse_args()
    try:
        rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    except OSError as error:
        raise cli.UserError(f"{options.rows} cannot be read: make it with detection.py.") from error
    if len({row["clean"] for row in rows[:]}) < 2:
        raise cli.UserError(f"{options.rows} needs clean and backdoored models: go on with detection.py.")
    text, curves = page(rows, "detection.png")
    draw_curves(curves, options.output / "detection.png")
    with cli.atomic_write(options.output / "DETECTION.md") as scratch:
        scratch.write_text(text, encoding="utf-8")
    cli.Out(options.plain).say(f"Wrote {options.output}/DETECTION.md and detection.png: {len(rows)} models.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
