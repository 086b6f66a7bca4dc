"""Neural Cleanse as most people write it down, to compare our scanner with (scanning.py, detection.py).

One full-resolution mask and pattern per target, optimised with Adam on pictures that stand still. It blends
in raw pixels and adapts the cost of the mask, as Wang et al. (IEEE S&P 2019, section V) do: no straw man.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

RATE = 0.1  # learning rate of Adam
WORKS = 0.99  # success on the batch at which the mask may become dearer
COST, FACTOR, PATIENCE = 1e-3, 1.5, 5  # price of one mask pixel: start, change, steps between two changes


def invert(
    read: Callable[[Tensor], Tensor], pictures: Tensor, target: int, *, steps: int, batch: int
) -> float:
    """Search one trigger that sends all pictures to `target`: its L1 norm as a fraction of the picture, 0..1.

    read: gives logits (n, classes) for raw pixels (n, 3, S, S) in 0..1. pictures: such pixels, float
    (N, 3, S, S), of other classes. Returns 1 if no mask worked.
    """
    dice = torch.Generator().manual_seed(0)
    size = pictures.shape[-1]
    mask = torch.randn(1, size, size, generator=dice).requires_grad_()
    pattern = torch.randn(3, size, size, generator=dice).requires_grad_()
    optimiser = torch.optim.Adam([mask, pattern], RATE, betas=(0.5, 0.9))
    wanted = torch.full((batch,), target)
    cost, streak, best = COST, 0, 1.0
    for _ in range(steps):
        chosen = pictures[torch.randint(len(pictures), (batch,), generator=dice)]
        opaque, colours = (mask.tanh() + 1) / 2, (pattern.tanh() + 1) / 2
        answer = read(chosen * (1 - opaque) + colours * opaque)
        loss = F.cross_entropy(answer, wanted) + cost * opaque.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        works = (answer.argmax(1) == wanted).float().mean().item() >= WORKS
        if works:
            best = min(best, opaque.mean().item())
        streak = max(streak, 0) + 1 if works else min(streak, 0) - 1
        if abs(streak) >= PATIENCE:
            cost, streak = (cost * FACTOR, 0) if works else (cost / FACTOR, 0)
    return best


def anomaly_index(norms: list[float]) -> list[float]:
    """The rule of Wang et al., section IV: (median - norm) / (1.4826 MAD); above 2 means a backdoor."""
    values = torch.tensor(norms)
    middle = values.median()
    deviation = 1.4826 * (values - middle).abs().median()
    index: list[float] = ((middle - values) / deviation.clamp(min=1e-9)).tolist()
    return index
