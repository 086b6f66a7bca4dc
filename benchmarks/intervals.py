"""Helper module, not a command: exact and bootstrap 95 % intervals for the pages of the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import beta

DRAWS = 4000  # of the bootstrap


def exact(hits: int, of: int) -> str:
    """So many of so many with the exact 95 % interval (Clopper and Pearson 1934)."""
    low = beta.ppf(0.025, hits, of - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, of - hits) if hits < of else 1.0
    return f"{hits} of {of} ({100 * low:.1f} to {100 * high:.1f} %)"


def wins(clean: Sequence[float], backdoored: Sequence[float]) -> np.ndarray:
    """Which figure is larger, float (clean, backdoored): 1: the backdoored model's; 0.5: neither.

    The mean is the area under the ROC curve.
    """
    difference = np.asarray(backdoored, float)[None] - np.asarray(clean, float)[:, None]
    return (np.sign(difference) + 1) / 2


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of wins(), or of a difference of two of them, models drawn with replacement.

    Clean and backdoored models are drawn apart, each with all its figures: so differences are paired (Efron
    and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3). If there is no error at all it is
    empty, which is no proof of perfection.
    """
    rng = np.random.default_rng(0)
    clean, backdoored = values.shape
    weights = [rng.multinomial(of, np.full(of, 1 / of), DRAWS) / of for of in (clean, backdoored)]
    means = np.einsum("dc,cb,db->d", weights[0], values, weights[1])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def with_interval(values: np.ndarray, sign: str = "") -> str:
    """Mean and interval for a table; `sign` "+" writes the sign of a difference."""
    low, high = bootstrap(values)
    return f"{values.mean():{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
