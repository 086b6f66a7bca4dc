"""The classes of somebody else's model, in the order of its answers: from a file, a checkpoint or folders."""

from __future__ import annotations

import json
from pathlib import Path

import cli
from dataset.files import hidden

LARGEST = 10_000_000  # bytes of a list of names


def from_file(path: Path) -> list[str]:
    """Read names, one a line, or JSON: a list, {name: number} or {number: name}. Raises UserError."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError
        text = path.read_text(encoding="utf-8-sig")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        names = in_order(json.loads(text)) if text.lstrip()[:1] in ("[", "{") else lines
        if not names:
            raise ValueError
    except OSError as error:
        raise cli.UserError(
            f"{path} cannot be read ({error.strerror}): give a file with the names of the classes."
        ) from error
    except (ValueError, RecursionError) as error:
        raise cli.UserError(
            f"{path} is not a list of classes: write their names one a line, in the model's order."
        ) from error
    return checked(names, str(path))


def in_order(known: object) -> list[str]:
    """Names as checkpoints keep them: a list, {name: number} or {number: name}; empty if it is none of these.

    Where a number has two names, as in ImageNet's lists (["n01440764", "tench"]), the first is the folder's.
    """
    if isinstance(known, dict):
        pairs = list(known.items())
        if all(str(key).isdecimal() for key, _ in pairs) and not all(
            type(value) is int for _, value in pairs
        ):
            pairs = [(value, int(key)) for key, value in pairs]
        if sorted(str(number) for _, number in pairs) != sorted(map(str, range(len(pairs)))):
            return []
        known = [name for name, _ in sorted(pairs, key=lambda pair: pair[1])]
    if not isinstance(known, (list, tuple)):
        return []
    names = [one[0] if isinstance(one, (list, tuple)) and one else one for one in known]
    return names if all(isinstance(name, str) for name in names) else []


def from_folders(folder: Path) -> list[str]:
    """The names of the folders in alphabetical order, as torchvision.datasets.ImageFolder numbers them."""
    if not folder.is_dir():
        raise cli.UserError(
            f"{folder} is not a folder: give one that holds a folder of images for each class."
        )
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not hidden(path.name))
    if not names:
        raise cli.UserError(f"{folder} holds no folders: expected <class>/<name>.jpg in it.")
    return checked(names, str(folder))


def checked(names: list[str], where: str) -> list[str]:
    """The names, if each of them can be printed and comes once. Raises UserError."""
    if odd := [name for name in names if not name.isprintable() or not name]:
        raise cli.UserError(f"{where} names a class {odd[0]!a}, which cannot be printed: rename it.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise cli.UserError(f"{where} names the class {twice!r} twice: each needs a name of its own.")
    return names
