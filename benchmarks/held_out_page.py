"""HELD_OUT.md, made of the rows of held_out.py. Helper module, not a command."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import held_out_models
import intervals
import pages
import seeds
from attacks import ATTACKS
from held_out_models import KINDS, Kind

# isort: split  (attacks puts demo-poisoning on the path)
import cli
from scanner import verdict

WORKING_ASR = 0.9  # a backdoor that works less often was not learned: there is little to find
NONE = -100.0  # stands for "no trigger works for any pair": below every index that there is
NO_VERDICT = "no valid statistic"
WITHOUT = (NO_VERDICT, "not calibrated")
OURS = "resnet18"  # the network of train.py

Row = dict[str, Any]


def is_learned(row: Row) -> bool:
    return not row["clean"] and row["asr"] >= WORKING_ASR


def figure(row: Row) -> float:
    """The largest anomaly index of a model that got a verdict."""
    return NONE if row["index"] is None else float(row["index"])


def index(row: Row) -> str:
    """The largest anomaly index, in words for a reader."""
    return "none" if row["index"] is None else f"{row['index']:.1f}"


def with_verdict(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["verdict"] not in WITHOUT]


def answered(rows: Sequence[Row]) -> list[Row]:
    """Those that detect.py gives a verdict on by itself: networks of train.py that know their images."""
    return [
        row for row in with_verdict(rows) if row["network"] == OURS and row["clean_acc"] >= verdict.ACCURACY
    ]


def area(clean: Sequence[Row], backdoored: Sequence[Row]) -> str:
    """AUROC of the index with its interval."""
    if not with_verdict(clean) or not with_verdict(backdoored):
        return "none"
    values = intervals.wins(
        [figure(row) for row in with_verdict(clean)], [figure(row) for row in with_verdict(backdoored)]
    )
    return intervals.with_interval(values)


def spread(values: Sequence[float]) -> str:
    """Least and largest."""
    if not values:
        return "none"
    return f"{min(values):.2f} to {max(values):.2f}"


def counts(rows: Sequence[Row], error: str) -> list[str]:
    """Errors with exact interval, close calls, models without verdict."""
    of = with_verdict(rows)
    wrong = sum(row["verdict"] == error for row in of)
    return [
        intervals.exact(wrong, len(of)) if of else "none",
        str(sum(row["near_threshold"] for row in of)),
        str(len(rows) - len(of)),
    ]


def made_twice(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """The former row and the newest of each model that was made again, in the order of the newest."""
    newest = {row["name"]: row for row in rows}
    former = {row["name"]: row for row in rows if row is not newest[row["name"]]}
    return [(former[name], row) for name, row in newest.items() if name in former]


def tally(rows: Sequence[Row]) -> dict[str, str]:
    """Errors among rows that got a verdict: what was missed in scope, and false alarms."""
    judged = with_verdict(rows)
    scope = [row for row in judged if is_learned(row) and row["in_scope"]]
    clean = [row for row in judged if row["clean"]]
    return {
        "missed": f"{sum(row['verdict'] == 'clean' for row in scope)} of {len(scope)}",
        "false alarms": f"{sum(row['verdict'] == 'backdoor' for row in clean)} of {len(clean)}",
    }


def attacked_kinds(rows: Sequence[Row]) -> str:
    """The table of backdoored models by kind; of each kind those that learned their backdoor count."""
    clean = [row for row in rows if row["clean"]]
    cells = []
    for kind, own in by_kind(rows, clean=False):
        good = [row for row in own if is_learned(row)]
        cells.append(
            [
                kind.name,
                "yes" if kind.in_scope else "no",
                f"{len(good)} of {len(own)}",
                spread([row["asr"] for row in own]),
                spread([row["clean_acc"] for row in own]),
                area(clean, good),
                *counts(good, "clean"),
            ]
        )
    heads = ["kind", "in scope", "learned", "attack success rates", "accuracy"]
    heads += ["AUROC against all clean models", "missed", "close calls", "no verdict"]
    return seeds.table(heads, cells)


def clean_kinds(rows: Sequence[Row]) -> str:
    """The table of clean models by kind."""
    cells = []
    for kind, own in by_kind(rows, clean=True):
        largest = max((figure(row) for row in with_verdict(own)), default=math.nan)
        highest = "none" if math.isnan(largest) else f"{largest:.1f}"
        accuracy = spread([row["clean_acc"] for row in own])
        cells.append([kind.name, str(len(own)), accuracy, highest, *counts(own, "backdoor")])
    heads = ["kind", "models", "accuracy", "largest index", "false alarms", "close calls", "no verdict"]
    return seeds.table(heads, cells)


def by_kind(rows: Sequence[Row], *, clean: bool) -> Iterator[tuple[Kind, list[Row]]]:
    """The rows of each kind that has some, in the order of the list."""
    for kind in KINDS:
        own = [row for row in rows if row["kind"] == kind.name]
        if own and (kind.attack is None) == clean:
            yield kind, own


def all_models(rows: Sequence[Row]) -> str:
    """The table with a line for each model."""
    cells = []
    for row in rows:
        rate = "" if row["asr"] is None else f"{row['asr']:.2f}"
        close = ", close call" if row["near_threshold"] else ""
        seconds = [f"{row['train_cpu_seconds']:.0f}", f"{row['scan_cpu_seconds']:.0f}"]
        judged = [f"{row['clean_acc']:.3f}", rate, row["verdict"] + close, index(row), row["suspect"]]
        cells.append([row["name"], *judged, *seconds, row["scanner"][:7]])
    heads = ["model", "accuracy", "attack success rate", "verdict", "index", "smallest trigger for"]
    return seeds.table([*heads, "training, CPU seconds", "scan, CPU seconds", "scanner"], cells)


def named(row: Row) -> str:
    """A model in words, with what was found."""
    rate = "" if row["asr"] is None else f", attack success rate {row['asr']:.2f}"
    return f"{row['name']}{rate}, index {index(row)}, smallest trigger for {row['suspect']}"


def errors(rows: Sequence[Row]) -> list[str]:
    """False alarms, and then what was missed."""
    judged = with_verdict(rows)
    alarms = [
        f"False alarm: {named(row)}." for row in judged if row["clean"] and row["verdict"] == "backdoor"
    ]
    return alarms + [
        f"Miss{'' if row['in_scope'] else ' (out of scope)'}: {named(row)}."
        for row in judged
        if is_learned(row) and row["verdict"] == "clean"
    ]


def page(rows: list[Row], known: dict[str, Any]) -> str:
    """HELD_OUT.md; of a model that was made twice the newest row counts.

    Raises UserError without rows of both kinds, or with rows of a scanner never frozen.
    """
    every_row, twice = rows, made_twice(rows)
    rows = list({row["name"]: row for row in rows}.values())
    rows.sort(key=lambda row: (not row["clean"], row["seed"]))
    scanners = Counter(row["scanner"] for row in rows)
    if {row["scanner"] for row in every_row} - {known["commit"], *known["earlier"]}:
        raise cli.UserError("The rows are not all of a frozen scanner: make them again in another --rows.")
    clean = [row for row in rows if row["clean"]]
    scope = [row for row in rows if is_learned(row) and row["in_scope"]]
    if not with_verdict(clean) or not with_verdict(scope):
        raise cli.UserError("The page needs clean and learned backdoored models in scope: go on with run.")
    right = [row for row in scope if row["verdict"] == "backdoor"]
    met = sum(bool(set(row["attacked"]) & set(row["flagged"])) for row in right)
    return pages.render(
        "held_out.md.jinja",
        commit_now=known["commit"],
        earlier={commit: scanners[commit] for commit in known["earlier"] if scanners[commit]},
        threshold=known["threshold"],
        near=known["near"],
        classes=known["classes"],
        files=known["files"],
        working_asr=WORKING_ASR,
        models=len(rows),
        planned=len(held_out_models.specs()),
        clean=len(clean),
        scope=len(scope),
        area=area(clean, scope),
        alarms=counts(clean, "backdoor"),
        misses=counts(scope, "clean"),
        answered=counts(answered(clean), "backdoor"),
        answered_scope=counts(answered(scope), "clean"),
        accuracy=verdict.ACCURACY,
        named=intervals.exact(met, len(right)),
        attacked=attacked_kinds(rows),
        honest=clean_kinds(rows),
        errors=errors(rows),
        twice=len(twice),
        former=tally([former for former, _ in twice]),
        again=tally([newest for _, newest in twice]),
        together=tally(every_row),
        decided=[
            f"{row['name']}: {row['then']} when it was scanned, {row['verdict']} ({index(row)}) now."
            for row in rows
            if row["then"] != row["verdict"]
        ],
        changed=[
            f"{newest['name']}: {former['verdict']} ({index(former)}), "
            f"then {newest['verdict']} ({index(newest)})."
            for former, newest in twice
            if former["verdict"] != newest["verdict"]
        ],
        weak=[named(row) + "." for row in rows if not row["clean"] and not is_learned(row)],
        sources=[(name, attack.source) for name, attack in ATTACKS.items()],
        every=all_models(rows),
    )
