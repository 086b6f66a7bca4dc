"""From triggers to a verdict: which statistic is valid for a scan, and above which value it flags a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dataset.classes import NAMES
from scanner import natural, statistics
from scanner.natural import Kind
from scanner.neural_cleanse import Trigger
from scanner.statistics import LARGE

MEASURED = "ResNet18 networks of train.py that see 48 pixels"  # what the error rates of both hold for
ACCURACY = 0.9  # share of the clean images that they classified correctly, at least
THRESHOLD = 4.8  # anomaly index above which a pair is flagged; docs/poisoning/scan.md says how it was chosen
REFERENCE_THRESHOLD = 4.0  # the same for the index against clean models (--reference)
NEAR = 1.0  # an index that near the threshold may come out on the other side with another --seed
TWINS = 2  # known-clean models of the same kind that a verdict about another network than ours needs
FEW = 10  # with fewer pairs, median and MAD say nothing
CLASSES = 10  # how many the models had that the thresholds were measured on: with fewer, no verdict

NO_STATISTIC, AMONG_PAIRS, AGAINST_REFERENCES = "none", "anomaly index", "reference index"


@dataclass
class Statistic:
    """What a statistic says about each trigger of a scan."""

    name: str
    explanation: str  # one sentence
    threshold: float
    anomaly_index: Sequence[float | None]  # one per trigger; None where it says nothing
    easily_turned: Sequence[int] = ()  # victim classes of which almost every pair has a small trigger
    not_calibrated: str = ""  # why the error rates of the threshold do not hold for this scan; empty: they do


def is_above(anomaly_index: float | None, threshold: float) -> bool:
    """Whether a pair is flagged."""
    return anomaly_index is not None and anomaly_index > threshold


def is_near(anomaly_index: float | None, threshold: float) -> bool:
    """Whether another search might decide otherwise."""
    return anomaly_index is not None and abs(anomaly_index - threshold) <= NEAR


def by_norms(
    triggers: list[Trigger],
    classes: int = CLASSES,
    names: Sequence[str] = NAMES,
    clean: Sequence[Kind] | None = None,
) -> Statistic:
    """Compare the pairs with each other; says so if that means nothing for this scan.

    Pairs that need more than statistics.LARGE count as that large; those whose search failed do not count.
    An index is no larger than that of the same pair against the clean models which this one is like.
    classes: how many the model knows; names: theirs, by number; clean: clean models, by default those that
    come with the scanner.
    """
    known = {one.pair: LARGE if one.large else one.norm for one in triggers if not one.failed}
    reason = ""
    if len(known) < FEW:
        reason = (
            f"the anomaly index compares at least {FEW} pairs, and this scan knows the size of {len(known)}"
        )
    elif classes < CLASSES:
        reason = f"the error rates of the anomaly index were measured on models of {CLASSES} classes or more"
    if reason:
        return Statistic(NO_STATISTIC, f"None is valid: {reason}.", THRESHOLD, [None] * len(triggers))
    norms = [norm or LARGE for norm in known.values()]
    among_all = dict(zip(known, statistics.among_pairs(norms)))
    among_own = dict(zip(known, statistics.among_own([victim for victim, _ in known], norms)))
    written = {pair: f"{names[pair[0]]}:{names[pair[1]]}" for pair in known}
    by_name = dict(zip(written.values(), norms))
    like = natural.nearest(by_name, natural.kinds() if clean is None else clean)
    below = like.below(by_name) if like else {}
    index = {
        pair: min(
            one for one in (among_all[pair], among_own[pair], below.get(written[pair])) if one is not None
        )
        for pair in known
    }
    against = (
        f" But no more than it lies below the mean of the same pair in {like.models} clean models of "
        f"{like.images}, in standard deviations (at least {statistics.SPREAD})."
        if like
        else ""
    )
    return Statistic(
        AMONG_PAIRS,
        f"Anomaly index: how far the log norm lies below the median of {len(known)} pairs, or of the other "
        f"pairs of the same victim if that is less, in median absolute deviations (at least "
        f"{statistics.SPREAD}).{against} All norms above {LARGE} count as {LARGE}.",
        THRESHOLD,
        [None if trigger.norm is None else index[trigger.pair] for trigger in triggers],
        easily_turned(among_all, among_own),
    )


def easily_turned(
    among_all: dict[tuple[int, int], float], among_own: dict[tuple[int, int], float | None]
) -> list[int]:
    """Victim classes of which a pair would be flagged among all pairs and is not among those of its class."""
    hidden = [
        pair
        for pair, own in among_own.items()
        if among_all[pair] > THRESHOLD and own is not None and own <= THRESHOLD
    ]
    return sorted({victim for victim, _ in hidden})


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


def unlike(accuracy: float, *, ours: bool) -> str:
    """On which models the thresholds were measured, if this is none of them; "" if it is one.

    accuracy: share of the clean images that it classifies correctly, 0..1; ours: it is a network of train.py.
    """
    if not ours:
        return MEASURED
    if accuracy < ACCURACY:
        return (
            f"models that classify at least {100 * ACCURACY:.0f} % of the clean images correctly, "
            f"and this one classifies {int(100 * accuracy)} %"
        )
    return ""


def calibrated(
    statistic: Statistic,
    triggers: list[Trigger],
    references: list[dict[tuple[int, int], float | None]],
    measured: str = MEASURED,
) -> Statistic:
    """The statistic for a model of another kind: its threshold holds only if clean twins say so.

    references: the norms of each clean twin. Two or more show how far clean models of this kind lie apart:
    each is compared with the others, as the scanned model is with all of them. measured: on which models
    the threshold was.
    """
    if statistic.name == NO_STATISTIC:
        return statistic
    reason = ""
    if statistic.name == AMONG_PAIRS or len(references) < TWINS:
        known = f"{len(references)} clean twin is" if len(references) == 1 else "No clean twin is"
        reason = (
            f"{known} there to compare with, and the threshold of {statistic.threshold} was measured on "
            f"{measured}"
        )
    else:
        norms = [[known[trigger.pair] for trigger in triggers] for known in references]
        largest = max(
            index
            for number, one in enumerate(norms)
            for index in statistics.against_references(one, norms[:number] + norms[number + 1 :])
        )
        statistic.explanation += f" Largest index of a twin against the others: {largest:.1f}."
        if largest > statistic.threshold - NEAR:
            reason = (
                f"the clean twins differ among themselves by up to {largest:.1f}, and {statistic.threshold} "
                "would be flagged"
            )
    statistic.not_calibrated = reason
    return statistic
