"""How unusual is the norm of a recovered trigger: compared with other pairs, or with clean models?"""

from __future__ import annotations

import torch

SPREAD = 0.25  # smallest deviation of the log norms: with few triggers MAD may be tiny by chance
OWN = 6  # other pairs of the same victim class that it takes to compare with those alone
LARGE = 0.08  # norms above this count as this: ordinary pairs need as much, or have no trigger at all


def among_pairs(norms: list[float]) -> list[float]:
    """Anomaly index: how far each norm (0..1) lies below the others, in deviations.

    Wang et al., section IV: median and MAD (median absolute deviation, times 1.4826 to match a normal
    deviation; at least SPREAD). Logarithms, because norms differ by factors; only small norms are suspicious.
    """
    if not norms:
        return []
    logs = torch.tensor(norms).log()
    middle = logs.median()
    deviation = 1.4826 * (logs - middle).abs().median()
    index: list[float] = ((middle - logs) / deviation.clamp(min=SPREAD)).tolist()
    return index


def among_own(victims: list[int], norms: list[float]) -> list[float | None]:
    """The same index among the other pairs of the same victim class; None where there are fewer than OWN.

    A class that a model knows badly is turned into almost any other by something small. Its pairs stand out
    among all pairs, and not one of them is a backdoor: that is one pair, or a few.

    victims: class number of each pair; norms: 0..1, in the same order.
    """
    logs = torch.tensor(norms).log()
    index: list[float | None] = []
    for number, victim in enumerate(victims):
        others = logs[[n for n, other in enumerate(victims) if other == victim and n != number]]
        if len(others) < OWN:
            index.append(None)
            continue
        middle = others.median()
        deviation = 1.4826 * (others - middle).abs().median()
        index.append(((middle - logs[number]) / deviation.clamp(min=SPREAD)).item())
    return index


def against_references(norms: list[float | None], references: list[list[float | None]]) -> list[float]:
    """Anomaly index: how far each norm (0..1) lies below those of the same pair in clean models.

    norms: one per pair, None where no trigger works; references: such a list for each clean model, pairs in
    the same order; in deviations. What is natural for a pair is then no news, however small it
    is. Norms above LARGE, and None, count as LARGE: whether a search finds a large trigger or none is chance.
    The deviation is pooled over all pairs, because a few models say little about that of a single pair, and
    at least SPREAD.
    """
    logs = torch.stack([_logs(known) for known in references])  # (models, pairs)
    deviation = logs.var(0).mean().sqrt().item() if len(references) > 1 else 0.0
    index: list[float] = ((logs.mean(0) - _logs(norms)) / max(deviation, SPREAD)).tolist()
    return index


def _logs(norms: list[float | None]) -> torch.Tensor:
    return torch.tensor([LARGE if norm is None else min(norm, LARGE) for norm in norms]).log()
