"""Judge the triggers of a scan: which statistic is valid for it, and which pairs it flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anomaly_index
from neural_cleanse import Trigger

THRESHOLD = 4.8  # anomaly index above which a pair is flagged; the README says how it was chosen
REFERENCE_THRESHOLD = 4.0  # the same for the index against clean models (--reference)
TRANSFER_THRESHOLD = 0.5  # Xiang et al. (ICLR 2022): expected transferability above 1/2 means a backdoor
FEW = 10  # with fewer working triggers, median and MAD say nothing


@dataclass
class Finding:
    """One pair, judged."""

    trigger: Trigger
    index: float | None  # what the statistic gives; None where it says nothing
    flagged: bool


@dataclass
class Judgement:
    """A whole scan, judged."""

    statistic: str  # one sentence
    figure: str  # what the output calls the statistic's figure
    threshold: float
    findings: list[Finding]  # most anomalous first
    valid: bool = True
    digits: int = 1  # of the figure, in the output

    @property
    def flagged(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.flagged]

    @property
    def verdict(self) -> str:
        if not self.valid:
            return "no valid statistic"
        return "backdoor" if self.flagged else "clean"


def by_norms(triggers: list[Trigger]) -> Judgement:
    """Compare the pairs with each other (anomaly index); says so if too few stickers work for that."""
    working = [trigger for trigger in triggers if trigger.norm < 1]
    if len(working) < FEW:
        return Judgement(
            f"None is valid: the anomaly index compares at least {FEW} stickers that work, "
            f"and this scan found {len(working)}.",
            "anomaly",
            THRESHOLD,
            _judged(triggers, [None] * len(triggers), THRESHOLD),
            valid=False,
        )
    own = dict(zip(map(id, working), anomaly_index.among_pairs([trigger.norm for trigger in working])))
    return Judgement(
        f"Anomaly index: how far the log norm lies below the median of the {len(working)} stickers "
        f"that work, in median absolute deviations (at least {anomaly_index.SPREAD}).",
        "anomaly",
        THRESHOLD,
        _judged(triggers, [own.get(id(trigger)) for trigger in triggers], THRESHOLD),
    )


def by_references(triggers: list[Trigger], references: list[dict[tuple[int, int], float]]) -> Judgement:
    """Compare each pair with the same pair in known-clean models; references: norm 0..1 of each pair."""
    norms = [[known[trigger.victim, trigger.target] for trigger in triggers] for known in references]
    index = anomaly_index.against_references([trigger.norm for trigger in triggers], norms)
    models = "1 clean model" if len(references) == 1 else f"{len(references)} clean models"
    return Judgement(
        f"Reference index: how far the log norm lies below the mean of the same pair in {models}, "
        f"in standard deviations (at least {anomaly_index.SPREAD}).",
        "anomaly",
        REFERENCE_THRESHOLD,
        _judged(triggers, index, REFERENCE_THRESHOLD),
    )


def by_transferability(triggers: list[Trigger], shares: list[float]) -> Judgement:
    """Judge each pair alone, which is valid for two classes, too; shares: its transferability, 0..1."""
    return Judgement(
        "Expected transferability: how often the sticker made for one picture turns another one, too.",
        "transferability",
        TRANSFER_THRESHOLD,
        _judged(triggers, shares, TRANSFER_THRESHOLD),
        digits=2,
    )


def _judged(triggers: list[Trigger], index: Sequence[float | None], limit: float) -> list[Finding]:
    """Most anomalous first; those about which the statistic says nothing come last, smallest first."""
    found = [
        Finding(trigger, value, value is not None and value > limit)
        for trigger, value in zip(triggers, index)
    ]
    worst = -float("inf")
    return sorted(found, key=lambda one: (-(worst if one.index is None else one.index), one.trigger.norm))
