"""A statistic for one pair alone, with no others to compare it with: expected transferability."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scanner.neural_cleanse import SCREEN, Search

SINGLES = 4  # images per pair that get a trigger each


def expected(
    model: nn.Module, images: dict[int, Tensor], pairs: list[tuple[int, int]], steps: int, seed: int
) -> list[float]:
    """How well a trigger made for one image of the victim class works on the others: one value per pair.

    Xiang et al., "Post-Training Detection of Backdoor Attacks for Two-Class and Multi-Attack Scenarios"
    (ICLR 2022), section 3: where there is a backdoor, the trigger made for one image is the attacker's, and
    works on more than half of the others; so 1/2 is a threshold that needs no other pairs to compare with.
    We make a trigger for each of SINGLES images, with the search of neural_cleanse.py but without moving
    them, and average.

    images: for each victim class number float (N, 3, S, S) in 0..1 with N > SINGLES. Returns fractions 0..1
    in the order of `pairs`.
    """
    wanted = [(victim, target, one) for victim, target in pairs for one in range(SINGLES)]
    single = {number: images[victim][one : one + 1] for number, (victim, _, one) in enumerate(wanted)}
    numbered = [(number, target) for number, (_, target, _) in enumerate(wanted)]
    search = Search(model, single, single, 0, seed, pairs=numbered, still=True)
    for _ in search.run(min(steps, SCREEN)):
        pass
    rates = [
        search.success_of_smallest(number, images[victim][SINGLES:])
        for number, (victim, _, _) in enumerate(wanted)
    ]
    values: list[float] = torch.tensor(rates).view(len(pairs), SINGLES).mean(1).tolist()
    return values
