"""Neural Cleanse as most people write it down, to compare our scanner with (scanning.py, detection.py).

One full-resolution mask and pattern per target, optimized with Adam on images that stand still. It blends
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
    read: Callable[[Tensor], Tensor], images: Tensor, targets: list[int], *, steps: int, batch: int
) -> list[float]:
    """Search a trigger for each target that sends all images there: its L1 norm, a fraction of the image.

    read: gives logits (n, classes) for raw pixels (n, 3, S, S) in 0..1. images: such pixels, float
    (N, 3, S, S), of other classes. Returns 1 where no mask worked. The searches know nothing of each other.
    """
    rng = torch.Generator().manual_seed(0)
    size, many = images.shape[-1], len(targets)
    mask = torch.randn(1, size, size, generator=rng).repeat(many, 1, 1, 1, 1).requires_grad_()
    pattern = torch.randn(3, size, size, generator=rng).repeat(many, 1, 1, 1, 1).requires_grad_()
    optimizer = torch.optim.Adam([mask, pattern], RATE, betas=(0.5, 0.9))
    wanted = torch.tensor(targets).repeat_interleave(batch)
    cost, streak, best = [COST] * many, [0] * many, [1.0] * many
    for _ in range(steps):
        chosen = images[torch.randint(len(images), (batch,), generator=rng)]
        opaque, colours = (mask.tanh() + 1) / 2, (pattern.tanh() + 1) / 2
        answer = read((chosen * (1 - opaque) + colours * opaque).flatten(0, 1))
        price = (torch.tensor(cost) * opaque.sum((1, 2, 3, 4))).sum()
        loss = F.cross_entropy(answer, wanted, reduction="sum") / batch + price
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        success = (answer.argmax(1) == wanted).float().view(many, batch).mean(1).tolist()
        for i, (rate, norm) in enumerate(zip(success, opaque.mean((1, 2, 3, 4)).tolist())):
            works = rate >= WORKS
            best[i] = min(best[i], norm) if works else best[i]
            streak[i] = max(streak[i], 0) + 1 if works else min(streak[i], 0) - 1
            if abs(streak[i]) >= PATIENCE:
                cost[i], streak[i] = (cost[i] * FACTOR, 0) if works else (cost[i] / FACTOR, 0)
    return best


def anomaly_index(norms: list[float]) -> list[float]:
    """The rule of Wang et al., section IV: (median - norm) / (1.4826 MAD); above 2 means a backdoor."""
    values = torch.tensor(norms)
    middle = values.median()
    deviation = 1.4826 * (values - middle).abs().median()
    index: list[float] = ((middle - values) / deviation.clamp(min=1e-9)).tolist()
    return index
