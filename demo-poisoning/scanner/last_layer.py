"""A second opinion, from the weights alone: does one class stand out in the last layer?

Fields, Samragh, Javaheripi, Koushanfar and Javidi, "Trojan Signatures in DNN Weights" (ICCV workshops 2021),
sections 3 and 4: training against a trigger enlarges the weights of its target. The search looks for patches;
this asks for no kind of trigger, and benchmarks/RIVALS.md says what it found and what it missed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

SIGNIFICANT = 0.01  # p-value below which a class stands out
CLASSES = 10  # how many the models had that it was measured on: with fewer, it is not asked
SIMULATED = 20_000  # samples of Dixon's ratio without an outlier


def standing_out(model: nn.Module, names: Sequence[str]) -> str:
    """Name of the class that stands out in the last layer of a network of train.py; "" if none does."""
    means = class_means(model)
    if len(means) < CLASSES or dixon_p_value(means) >= SIGNIFICANT:
        return ""
    return names[means.index(max(means))]


def class_means(model: nn.Module) -> list[float]:
    """Mean weight of each class in the last layer, `fc`: of the target the largest (section 3)."""
    means: list[float] = model.get_parameter("fc.weight").detach().float().mean(1).cpu().tolist()
    return means


def dixon(values: Sequence[float]) -> float:
    """Dixon's ratio of the largest value: its gap to the next one, as a share of the range, 0..1."""
    ordered = sorted(values)
    return (ordered[-1] - ordered[-2]) / max(ordered[-1] - ordered[0], 1e-12)


def dixon_p_value(values: Sequence[float]) -> float:
    """How likely so large a ratio is for normal values without an outlier, 0..1; simulated.

    Fields et al., section 4, take Dixon's test to tell whether a class stands out.
    """
    normal = np.sort(np.random.default_rng(0).normal(size=(SIMULATED, len(values))))
    ratios = (normal[:, -1] - normal[:, -2]) / np.ptp(normal, axis=1)
    return float((1 + (ratios >= dixon(values)).sum()) / (1 + SIMULATED))
