"""The safe ways to read and write model weights: code in a model file is refused, never run.

Nothing to type here: safe_demo.py and inspect_model.py use these functions.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import cli

Weights = dict[str, torch.Tensor]


def existing_file(path: Path) -> Path:
    """Give `path` back if it is a file that can be read, else raise UserError."""
    if path.is_dir():
        raise cli.UserError(f"{path} is a folder: name a model file.")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise cli.UserError(f"{path} is empty: download or create the file again.")
    except FileNotFoundError:
        raise cli.UserError(f"{path} does not exist: check the name, or create the file first.") from None
    except OSError as error:
        raise cli.UserError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error
    return path


def why_refused(error: Exception) -> str:
    """PyTorch's reason in one short sentence: the name that the file wants to import, if it says so."""
    wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
    if wanted:
        return f"it wants to import {wanted[1]}, which is not on the list of names a model may use"
    return ""


def load_pickle(path: Path, mmap: bool = False) -> Weights:
    """Read a state dict that torch.save wrote, with weights_only=True: code in it is never run.

    Raises UserError if the file holds code, is damaged, or is not a state dict (names to tensors).
    """
    existing_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a hostile or damaged file can make the reader fail in any way
        if why := why_refused(error):
            raise cli.UserError(f"{path} was refused and not run: {why}. Do not use this file.") from error
        raise cli.UserError(
            f"{path} cannot be read as model weights (damaged, or not a model): get the file again."
        ) from error
    if not isinstance(found, dict) or not found:
        raise cli.UserError(
            f"{path} holds no state dict: save one with torch.save(model.state_dict(), FILE)."
        )
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise cli.UserError(f"{path} holds more than named tensors ({name!r}): save the state dict only.")
    return dict(found)


def load_safetensors(path: Path) -> Weights:
    """Read a SafeTensors file. There is no pickle in it, so there is nothing that could run."""
    existing_file(path)
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise cli.UserError(
            f"{path} is not a valid SafeTensors file (damaged, or another format): convert the model again."
        ) from error


def save_pickle(weights: Weights, path: Path) -> None:
    """Write the weights as torch.save does: a pickle in a zip file."""
    with cli.whole_file(path) as scratch:
        torch.save(weights, scratch)


def save_safetensors(weights: Weights, path: Path) -> None:
    """Write the weights as SafeTensors: a list of names, types and shapes, then the numbers."""
    with cli.whole_file(path) as scratch:
        # a copy each: the format stores tensors that share memory separately
        save_file({name: tensor.clone().contiguous() for name, tensor in weights.items()}, scratch)
