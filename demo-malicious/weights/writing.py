"""Write weights: as torch.save does, or as SafeTensors, and compare what was written bit for bit.

Helper module, not a command.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import cli
from weights.state_dicts import Weights

BLOCK = 16_000_000  # bytes that are compared at a time


def save_pickle(weights: Weights, path: Path) -> None:
    """Write the weights as torch.save does: a pickle in a zip file."""
    with cli.atomic_write(path) as scratch:
        torch.save(weights, scratch)


def check_plain(weights: Weights, path: Path) -> None:
    """Raise UserError, with the tensor's name, for what SafeTensors cannot hold: `path` is not written."""
    if "__metadata__" in weights:
        raise cli.UserError(f"{path} is not written: SafeTensors keeps the name __metadata__ for itself.")
    for name, tensor in weights.items():
        special = {
            "quantized": tensor.is_quantized,
            "nested": tensor.is_nested,
            "without numbers": tensor.is_meta,
            str(tensor.layout).removeprefix("torch."): tensor.layout != torch.strided,
            "conjugated": tensor.is_conj() or tensor.is_neg(),
        }
        if kind := next((kind for kind, true in special.items() if true), ""):
            raise cli.UserError(
                f"{path} is not written: tensor {name[:60]!r} is {kind}; SafeTensors holds plain ones only."
            )


def save_safetensors(weights: Weights, path: Path) -> None:
    """Write the weights as SafeTensors: a list of names, types and shapes, then the numbers.

    Raises UserError, with the name of the tensor, for what the format cannot hold.
    """
    check_plain(weights, path)
    twice = {name for names in sharing(weights) for name in names[1:]}
    # the format stores tensors that share memory separately, and in plain order; the others need no copy
    plain = {
        name: tensor.detach().clone().contiguous() if name in twice else tensor.detach().contiguous()
        for name, tensor in weights.items()
    }
    with cli.atomic_write(path) as scratch:
        try:
            save_file(plain, scratch, {"format": "pt"})  # what other programs look for: made for PyTorch
        except OSError:
            raise
        except Exception as error:  # a type, or a name, that the format does not know
            kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in plain.values()})
            raise cli.UserError(
                f"{path} is not written: SafeTensors does not take one of these types or names "
                f"({', '.join(kinds)})."
            ) from error


def differing_in_file(weights: Weights, path: Path) -> list[str]:
    """Names of the tensors that are not the same bit for bit in a SafeTensors file; read in blocks."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        different = sorted(header.keys() ^ weights.keys())
        for name in sorted(header.keys() & weights.keys()):
            start, end = header[name]["data_offsets"]
            tensor = weights[name].detach().contiguous()
            raw = tensor.flatten().view(torch.uint8).numpy()
            file.seek(8 + length + start)
            same = end - start == raw.nbytes and header[name]["shape"] == list(tensor.shape)
            for position in range(0, raw.nbytes, BLOCK):
                if not same:
                    break
                block = raw[position : position + BLOCK].tobytes()
                same = file.read(len(block)) == block
            if not same:
                different.append(name)
    return sorted(different)


def sharing(weights: Weights) -> list[list[str]]:
    """Groups of names whose tensors lie in the same memory, for example tied input and output layers."""
    groups: dict[int, list[str]] = {}
    for name, tensor in weights.items():
        groups.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)
    return [names for place, names in groups.items() if place and len(names) > 1]
