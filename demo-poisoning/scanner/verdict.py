"""From triggers to a verdict: which statistic is valid for a scan, and above which value it flags a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scanner import statistics
from scanner.neural_cleanse import Trigger

THRESHOLD = 4.8  # anomaly index above which a pair is flagged; the README says how it was chosen
REFERENCE_THRESHOLD = 4.0  # the same for the index against clean models (--reference)
TRANSFER_THRESHOLD = 0.5  # Xiang et al. (ICLR 2022): expected transferability above 1/2 means a backdoor
FEW = 10  # with fewer working triggers, median and MAD say nothing

NO_STATISTIC, AMONG_PAIRS, AGAINST_REFERENCES = "none", "anomaly index", "reference index"
TRANSFERABILITY = "expected transferability"


@dataclass
class Statistic:
    """What a statistic says about each trigger of a scan."""

    name: str
    explanation: str  # one sentence
    threshold: float
    anomaly_index: Sequence[float | None]  # one per trigger; None where it says nothing


def is_above(anomaly_index: float | None, threshold: float) -> bool:
    """Whether a pair is flagged."""
    return anomaly_index is not None and anomaly_index > threshold


def by_norms(triggers: list[Trigger]) -> Statistic:
    """Compare the pairs with each other; says so if too few triggers work for that."""
    working = [trigger.norm for trigger in triggers if trigger.norm is not None]
    if len(working) < FEW:
        return Statistic(
            NO_STATISTIC,
            f"None is valid: the anomaly index compares at least {FEW} triggers that work, "
            f"and this scan found {len(working)}.",
            THRESHOLD,
            [None] * len(triggers),
        )
    index = iter(statistics.among_pairs(working))
    return Statistic(
        AMONG_PAIRS,
        f"Anomaly index: how far the log norm lies below the median of the {len(working)} triggers "
        f"that work, in median absolute deviations (at least {statistics.SPREAD}).",
        THRESHOLD,
        [None if trigger.norm is None else next(index) for trigger in triggers],
    )


def by_references(
    triggers: list[Trigger], references: list[dict[tuple[int, int], float | None]]
) -> Statistic:
    """Compare each pair with the same pair in known-clean models; references: norm of each pair."""
    norms = [[known[trigger.victim, trigger.target] for trigger in triggers] for known in references]
    models = "1 clean model" if len(references) == 1 else f"{len(references)} clean models"
    return Statistic(
        AGAINST_REFERENCES,
        f"Reference index: how far the log norm lies below the mean of the same pair in {models}, "
        f"in standard deviations (at least {statistics.SPREAD}).",
        REFERENCE_THRESHOLD,
        statistics.against_references([trigger.norm for trigger in triggers], norms),
    )


def by_transferability(shares: list[float]) -> Statistic:
    """Take each pair alone, which is valid for two classes, too; shares: its transferability, 0..1."""
    return Statistic(
        TRANSFERABILITY,
        "Expected transferability: how often the trigger made for one image turns another one, too.",
        TRANSFER_THRESHOLD,
        shares,
    )
