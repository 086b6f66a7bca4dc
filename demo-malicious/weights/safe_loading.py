"""The safe ways to read model weights: code in a model file is refused, never run.

Helper module, not a command: safe_demo.py and the other scripts use these functions. Two things are kept
out: code (weights_only=True, always) and files that claim to be much larger than they are (zip bombs and
their relatives). What is left to a hostile file is to waste some seconds; run_sandboxed.sh limits that.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import cli
from inspection.files import everything, existing_file
from inspection.names import MAKES, full_name, is_allowed, is_data
from weights.before_loading import RefusedError, check_format
from weights.limits import within_limits
from weights.state_dicts import Weights, state_dict

MB = 1_000_000
LARGEST_HEADER = 32 * MB  # of SafeTensors
GROWTH = 4  # how many times its own size a file may take in memory (tensors that share memory count twice)
SPARE = 300 * MB  # on top of that, for the loader itself


def load_pickle(path: Path, mmap: bool = False, part: str = "", allow: Sequence[str] = ()) -> Weights:
    """Read a state dict that torch.save wrote, with weights_only=True: code in it is never run.

    `part` names the state dict inside a checkpoint that holds more, at any depth, for example "state_dict"
    or "model.encoder". `allow` names what the file may import although PyTorch's list does not have it: only
    names that hold data are taken (inspection/names.py). Raises RefusedError if the file holds code,
    UserError if it is damaged or not a state dict (names to tensors).
    """
    existing_file(path)
    size = path.stat().st_size
    allowed: list[Any] = [*allowed_objects(allow)]

    def load() -> Any:
        check_format(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)

    try:
        found = within_limits(load, SPARE + GROWTH * size)
    except cli.UserError:
        raise
    except Exception as error:  # a hostile or damaged file can make the reader fail in any way
        if why := why_refused(error):
            ending = "" if "--allow" in why else ". Do not use this file."
            raise RefusedError(f"{path} was refused and not run: {why}{ending}") from error
        details = why_unreadable(error)
        raise cli.UserError(
            f"{path} cannot be read as model weights ({details}): get the file again."
        ) from error
    weights = state_dict(found, path, part)
    if (
        claimed := sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    ) > GROWTH * size + MB:
        raise cli.UserError(
            f"{path} has {size} bytes, but its tensors claim {claimed}: do not use this file."
        )
    return weights


def allowed_objects(names: Sequence[str]) -> Iterator[tuple[Any, str]]:
    """What safe_globals takes, for names that only hold data. Raises UserError for any other name."""
    for name in names:
        module, _, attribute = name.rpartition(".")
        if not module or not is_data(full_name(module, attribute)):
            raise cli.UserError(
                f"--allow {name[:100]} is not possible: only names that hold nothing but data can be "
                "allowed, and inspect_model.py lists those of a file."
            )
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise cli.UserError(f"--allow {name} is not possible: this Python does not have it.") from error
        yield found, name
        if module.startswith("numpy."):  # PyTorch compares the name that stands in the file
            yield found, name.replace("numpy._core", "numpy.core")
        if name == "numpy.dtype":  # its kinds have classes of their own
            numpy = importlib.import_module("numpy")
            kinds = {type(numpy.dtype(code)) for code in "?bhilqBHILQefdgFDGSUV"}
            yield from ((kind, f"{kind.__module__}.{kind.__qualname__}") for kind in kinds)
        elif made := MAKES.get(name):  # the class of what the call makes
            kind = getattr(importlib.import_module("numpy.random"), made.rpartition(".")[2])
            yield kind, f"{kind.__module__}.{kind.__qualname__}"


def why_refused(error: Exception) -> str:
    """PyTorch's reason in a short sentence or two: the name that the file wants to import, if known."""
    wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
    if not wanted:
        return ""
    module, _, attribute = wanted[1].rpartition(".")
    name = full_name(module, attribute)
    if is_data(name) and not is_allowed(name):
        return (
            f"it wants to import {name}, which only holds data but is not on PyTorch's list. If you expect "
            f"that of this file, name it: --allow {name}"
        )
    return f"it wants to import {wanted[1]}, which is not on the list of names a model may use"


def why_unreadable(error: Exception) -> str:
    """What is wrong with a file that the loader cannot read, as far as that can be told."""
    if unknown := re.search(r"Unsupported operand (\d+)", str(error)):
        return (
            f"damaged, or not from torch.save: it has pickle instruction {unknown[1]}, which no model needs"
        )
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "it needs far more memory than its size explains"
    return "damaged, or not a model"


def load_model(path: Path) -> Weights:
    """Read weights with the loaders that run nothing: a file, or a folder with one model, also in shards."""
    if not path.is_dir():
        return load_safetensors(path) if path.suffix == ".safetensors" else load_pickle(path)
    inside = sorted(file for file in everything(path) if file.is_file())
    files = [file for file in inside if file.name.endswith(".safetensors")]
    if not files:
        files = [file for file in inside if file.suffix in (".pt", ".pth", ".bin")]
    if not files:
        raise cli.UserError(f"{path} holds no weights: put a SafeTensors file there.")
    weights: Weights = {}
    for file in files:
        part = load_model(file)
        if twice := sorted(part.keys() & weights.keys()):
            raise cli.UserError(f"{path} holds the tensor {twice[0][:60]!r} in two files: name one of them.")
        weights |= part
    return weights


def load_safetensors(path: Path) -> Weights:
    """Read a SafeTensors file. There is no pickle in it, so there is nothing that could run."""
    existing_file(path)
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")  # the length of the list of names and shapes
    if LARGEST_HEADER < header <= path.stat().st_size:
        raise cli.UserError(
            f"{path} has a header of {header} bytes: no model needs that, do not use this file."
        )
    try:
        return load_file(path)
    except Exception as error:  # a hostile or damaged file can make the reader fail in any way
        raise cli.UserError(
            f"{path} is not a valid SafeTensors file (damaged, or another format): convert the model again."
        ) from error
