"""What is natural for each pair of classes: the norms of clean models that come with the scanner.

natural_norms.json holds them for models of two kinds of images; benchmarks/natural_norms.py wrote it.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scanner import statistics

FILE = Path(__file__).with_name("natural_norms.json")
SHARED = 10  # pairs that a scan has in common with the clean models, at least: fewer tell no kind of image


@dataclass(frozen=True)
class Kind:
    """Clean models of one kind of images."""

    images: str  # "drawings" or "photographs"
    models: int  # how many there were
    pairs: Mapping[str, Sequence[float]]  # "victim:target" → mean and standard deviation of the log norms

    def below(self, norms: Mapping[str, float]) -> dict[str, float]:
        """Anomaly index: how far each norm (0..1) lies below the mean of the clean models, in deviations.

        Norms above statistics.LARGE count as that large, and deviations are at least statistics.SPREAD. Pairs
        that the clean models do not know are left out.
        """
        index = {}
        for pair in norms.keys() & self.pairs.keys():
            mean, deviation = self.pairs[pair]
            log = math.log(min(norms[pair], statistics.LARGE))
            index[pair] = (mean - log) / max(deviation, statistics.SPREAD)
        return index


@functools.cache
def kinds() -> tuple[Kind, ...]:
    """The clean models that come with the scanner."""
    return tuple(Kind(**one) for one in json.loads(FILE.read_text(encoding="utf-8")))


def nearest(norms: Mapping[str, float], known: Sequence[Kind]) -> Kind | None:
    """The clean models that a scanned model is like: those that its norms lie fewest deviations away from.

    norms: 0..1, of each pair that has one, as "victim:target". None if it has too few pairs of theirs.
    """

    def away(kind: Kind) -> float:
        index = kind.below(norms)
        return sum(map(abs, index.values())) / len(index)

    return min((kind for kind in known if len(kind.below(norms)) >= SHARED), key=away, default=None)
