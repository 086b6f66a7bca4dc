"""A second device, "pretend:0", for machines without a GPU: tensors there are ordinary ones in a wrapper.

It computes with the processor, so its results are exactly the processor's, but like a GPU it refuses
operations on tensors of two devices. Works within `with Pretend():` only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend:0"
MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)

_setup_privateuseone_for_python_backend("pretend")
torch.pretend.get_amp_supported_dtype = lambda: []  # type: ignore[attr-defined]


class Far(Tensor):
    """A tensor that says it is on the pretended device; its numbers are in `near`."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        far: Far = Tensor._make_wrapper_subclass(
            cls, near.size(), strides=near.stride(), dtype=near.dtype, device=torch.device(NAME)
        )
        far.near = near
        return far

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return far_away(func, args, kwargs or {})


def far_away(func: Any, args: Any, kwargs: Any) -> Any:
    """Compute on the pretended device, or move to it or from it."""

    def near(value: object) -> object:
        if isinstance(value, Far):
            return value.near
        if isinstance(value, Tensor) and value.dim() and func not in MOVES:
            raise RuntimeError(f"{func}: expected all tensors on one device, {NAME}")
        return torch.device("cpu") if isinstance(value, torch.device) else value

    found = func(*tree_map(near, args), **tree_map(near, kwargs))
    if func is torch.ops.aten.copy_.default:
        return args[0]
    if func in MOVES and kwargs.get("device") == torch.device("cpu"):
        return found
    return return_and_correct_aliasing(func, args, kwargs, tree_map_only(Tensor, Far, found))


class Pretend(TorchDispatchMode):
    """While it lasts, the pretended device can be named.

    change(func, result) may spoil what the device computes; `moved` counts the tensors that came to it.
    """

    def __init__(self, change: Callable[[Any, Any], Any] | None = None) -> None:
        super().__init__()
        self.change, self.moved = change, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        here = kwargs.get("device") == torch.device(NAME)
        if not here and not any(isinstance(value, Far) for value in tree_leaves((args, kwargs))):
            return func(*args, **kwargs)
        self.moved += here
        found = far_away(func, args, kwargs)
        return self.change(func, found) if self.change else found
