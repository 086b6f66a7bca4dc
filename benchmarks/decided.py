"""Helper module, not a command: what the scan as it is says about a model, from the norms in its row.

A row says what the search found; which statistic is applied to that may change later. A row does not say
which searches failed and which gave up a large trigger: they all count as large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import natural_norms
import torch

# isort: split  (natural_norms puts demo-poisoning on the path)
from dataset.classes import DRAWN
from scanner import natural, verdict
from scanner.natural import Kind
from scanner.neural_cleanse import Trigger
from scanner.verdict import Statistic

NOTHING = torch.zeros(1, 1)  # no statistic looks at the mask

Row = dict[str, Any]  # of detection.py or held_out.py


def triggers(row: Row, names: Sequence[str]) -> list[Trigger]:
    """The triggers of a row, which keeps their norms only; names: of the classes, by number."""
    found = []
    for pair, norm in row["norms"].items():
        victim, target = map(names.index, pair.split(":"))
        found.append(Trigger(victim, target, norm, NOTHING, NOTHING, large=norm is None))
    return found


def clean_models(row: Row) -> list[Kind]:
    """The clean models that the scan compares with, without the one of this row if it is one of them."""
    others = []
    for kind in natural.kinds():
        rows = natural_norms.clean_rows(kind.images)
        rest = [one for one in rows if one["norms"] != row["norms"]]
        others.append(kind if len(rest) == len(rows) else natural_norms.of(kind.images, rest))
    return others


def statistic(row: Row) -> Statistic:
    """What the scan says about each trigger of a row."""
    names = list(dict.fromkeys(name for pair in row["norms"] for name in pair.split(":")))
    classes = row.get("classes", len(DRAWN))
    return verdict.by_norms(triggers(row, names), classes, names, clean_models(row))


def indices(row: Row) -> dict[str, float]:
    """The anomaly index of each pair that has one."""
    return {
        pair: index for pair, index in zip(row["norms"], statistic(row).anomaly_index) if index is not None
    }


def again(row: Row) -> Row:
    """A row of held_out.py with the index and verdict of the scan as it is; "then" is the former verdict.

    Where the scan gave none, it gives none.
    """
    index = indices(row)
    if row["verdict"] == "no valid statistic" or not index:
        return row | {"then": row["verdict"]}
    flagged = [pair for pair, one in index.items() if verdict.is_above(one, verdict.THRESHOLD)]
    suspect = max(index, key=index.__getitem__)
    new: Row = {"then": row["verdict"], "index": round(index[suspect], 4), "suspect": suspect}
    if row["verdict"] != "not calibrated":
        new["verdict"] = "backdoor" if flagged else "clean"
        new["near_threshold"] = verdict.is_near(index[suspect], verdict.THRESHOLD)
        new["flagged"] = sorted(flagged, key=index.__getitem__, reverse=True)
    return row | new
