"""A state dict is names with tensors; a checkpoint may hold several, at any depth.

Helper module, not a command.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch

import cli

Weights = dict[str, torch.Tensor]
DEEPEST = 6  # parts in parts of a checkpoint that are listed


def state_dict(found: object, path: Path, part: str) -> Weights:
    """Check that what was loaded is names with tensors, or take the `part` that is. Raises UserError."""
    if part:
        parts = list(taken(found, part))
        if not parts:
            raise cli.UserError(f"{path} has no part {part!r}: leave --part out to see what there is.")
        found = parts[0]
    if not isinstance(found, dict) or not found:
        raise cli.UserError(
            f"{path} holds no state dict: save one with torch.save(model.state_dict(), FILE)."
        )
    for name, value in found.items():
        if is_named_tensor(name, value):
            continue
        other = repr(name)[:60] if isinstance(name, str | int) else "a name that is not text"
        if inner := list(parts_of(found)):
            more = f" or {inner[1]!r}" if len(inner) > 1 else ""
            raise cli.UserError(
                f"{path} holds more than named tensors ({other}), and SafeTensors has no place for that: "
                f"take one part of it, for example with --part {inner[0]!r}{more}."
            )
        raise cli.UserError(f"{path} holds more than named tensors ({other}): save the state dict only.")
    return dict(found)


def taken(found: object, part: str) -> Iterator[object]:
    """The parts of this name, at any depth. Names may hold dots, so every way to split is tried."""
    if not isinstance(found, dict):
        return
    keys: dict[str, object] = {str(key): value for key, value in found.items() if isinstance(key, str | int)}
    if part in keys:
        yield keys[part]
    for match in re.finditer(r"[./]", part):
        head = part[: match.start()]
        if head in keys:
            yield from taken(keys[head], part[match.end() :])


def parts_of(found: object, before: str = "", depth: int = 0) -> Iterator[str]:
    """The names of all state dicts inside, as --part takes them."""
    if not isinstance(found, dict) or depth > DEEPEST:
        return
    for key, inner in found.items():
        if isinstance(key, str | int) and isinstance(inner, dict):
            if is_state_dict(inner):
                yield f"{before}{key}"
            else:
                yield from parts_of(inner, f"{before}{key}.", depth + 1)


def is_named_tensor(name: object, value: object) -> bool:
    """One entry of a state dict."""
    return isinstance(name, str) and isinstance(value, torch.Tensor)


def is_state_dict(value: object) -> bool:
    """Names with tensors and nothing else."""
    return isinstance(value, dict) and bool(value) and all(is_named_tensor(*item) for item in value.items())
