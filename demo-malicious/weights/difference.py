"""Are two sets of weights the same, bit for bit?

Helper module, not a command.
"""

from __future__ import annotations

import torch

from weights.state_dicts import Weights


def differing(first: Weights, second: Weights) -> list[str]:
    """Names of the tensors that are not the same bit for bit (type, shape, numbers) in both."""
    names = sorted(first.keys() | second.keys())
    return [name for name in names if not same(first.get(name), second.get(name))]


def same(first: torch.Tensor | None, second: torch.Tensor | None) -> bool:
    """True if both tensors are there and have the same type, the same shape and the same bytes."""
    if first is None or second is None or first.dtype != second.dtype or first.shape != second.shape:
        return False
    as_bytes = [part.detach().contiguous().flatten().view(torch.uint8) for part in (first, second)]
    return torch.equal(*as_bytes)
