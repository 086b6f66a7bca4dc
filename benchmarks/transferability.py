"""A statistic for one pair alone, with no others to compare it with: expected transferability.

Helper module, not a command: detection.py compares it with the statistics of detect.py, which does not use
it: it called most clean models of three classes backdoored.
"""

from __future__ import annotations

import population  # puts demo-poisoning on the path
from torch import Tensor, nn

# isort: split
from network import frozen
from scanner import search
from scanner.neural_cleanse import ENOUGH, Search
from scanner.starts import probe

assert population
THRESHOLD = 0.5  # Xiang et al. (ICLR 2022): expected transferability above 1/2 means a backdoor
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
    fast = frozen.freeze(model)
    values = []
    for victim, target in pairs:
        rates = []
        for number in range(SINGLES):
            single = images[victim][number : number + 1]
            rng = search.generator(seed, victim, target, number)
            run = Search(fast, single, single, [(victim, target)], rng, start=probe(fast, single), still=True)
            for _ in run.run(min(steps, ENOUGH)):
                pass
            rates.append(run.success_of_smallest(0, images[victim][SINGLES:]))
        values.append(sum(rates) / SINGLES)
    return values
