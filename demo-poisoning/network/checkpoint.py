"""Weights of other networks, in the files in which people save them.

A checkpoint is a dict in which the weights stand somewhere: at the top, or one or two levels down, beside the
state of an optimizer and notes, under the names of the network or with something before them ("module." of
DataParallel, "_orig_mod." of torch.compile, "model." of a Lightning module). All that is found by comparing
with the names and shapes of the network itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision import models

import cli
from network import adapter, model_file
from network.adapter import Adapter, Network

DEPTH = 4  # levels of dicts in which weights are looked for, the top included
PROBE = 1009  # classes of a network that is only built to see which layer is the last
TRAINING_ONLY = ("aux1.", "aux2.", "AuxLogits.")  # layers that answer during training alone
COUNTERS = re.compile(r"(^|\.)(num_batches_tracked|n_averaged|total_ops|total_params)$")
INDICES = re.compile(r"relative_position_index$")  # of Swin and MaxViT: whole numbers
OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)")  # as before torchvision 0.2
FAMILIES = {  # the first layer, and how the names of architectures begin that call it so
    "conv1.weight": "resn wide",
    "features.0.weight": "alex squeeze vgg",
    "features.0.0.weight": "convnext efficientnet mobilenet swin",
    "features.conv0.weight": "densenet",
    "conv1.0.weight": "shuffle",
    "conv1.conv.weight": "googlenet",
    "Conv2d_1a_3x3.conv.weight": "inception",
    "layers.0.weight": "mnasnet",
    "class_token": "vit",
}
NAMES_OF_CLASSES = ("classes", "class_names", "class_to_idx", "idx_to_class", "labels")

Weights = dict[str, Tensor]


@dataclass
class Fit:
    """Weights of a checkpoint that fit a network."""

    place: str  # where they stand: "state_dict", "model.encoder", "" at the top, which is typed as "."
    weights: Weights  # by the names of the network
    classes: int


class NoFit(Exception):
    """Why weights do not fit: one clause."""


def load(path: Path, network: Network, place: str | None = None) -> tuple[Adapter, object]:
    """The network with the weights of a file, and what the file says of its classes (None: nothing).

    place: which weights to take where a file holds several, as Fit.place. Raises UserError.
    """
    content = model_file.read(path, mapped=True)
    found, why = _fits(content, network)
    if place is not None:
        found = [fit for fit in found if (fit.place or ".") == place]
    elif len(found) > 1 and all(_same(found[0].weights, fit.weights) for fit in found[1:]):
        found = found[:1]
    if len(found) > 1:
        places = " or ".join(f"--weights {_typed(fit.place or '.')}" for fit in found)
        raise cli.UserError(
            f"{path} holds {len(found)} sets of weights, each a model of its own: add {places}."
        )
    if not found:
        where = f" at {place!r}" if place is not None else ""
        raise cli.UserError(f"{path} does not hold the weights of {network.arch}{where}: {why}.")
    fit = found[0]
    model_file.check_finite(path, fit.weights)
    net = adapter.build(network.arch, fit.classes, network.size)
    state = net.state_dict()  # with the versions of its layers, which MNASNet asks for
    if odd := [name for name, value in fit.weights.items() if not _same_index(value, state[name])]:
        raise cli.UserError(f"{path} is no {network.arch} as torchvision builds it: {odd[0]!r} differs.")
    state.update(fit.weights)
    net.load_state_dict(state)
    try:
        model = Adapter(net, network, fit.classes)
    except RuntimeError as error:  # maps that shrink to nothing
        raise adapter.unfit(network.arch, network.size) from error
    notes = content if isinstance(content, dict) else {}
    known = (notes[name] for name in NAMES_OF_CLASSES if isinstance(notes.get(name), (dict, list, tuple)))
    return model, next(known, None)  # "classes" may also be their number


def _typed(place: str) -> str:
    return shlex.quote(place) if place.isprintable() else ascii(place)


def _same(some: Weights, others: Weights) -> bool:
    return all(torch.equal(value, others[name]) for name, value in some.items())


def _same_index(value: Tensor, own: Tensor) -> bool:
    """Whole numbers are no weights but follow from the network, as where Swin looks for its positions."""
    return own.is_floating_point() or not own.ndim or torch.equal(value.to(own.dtype), own)


def _fits(content: object, network: Network) -> tuple[list[Fit], str]:
    """All weights in a checkpoint that fit, and why others do not."""
    wanted = adapter.shapes(network.arch, PROBE, network.size)
    found: list[Fit] = []
    why, closest, tensors, prefix = "it holds no tensors with names, so save model.state_dict()", 0, {}, ""
    odd: list[str] = []
    for place, given in _places(content):
        odd += [name for name, value in given.items() if not model_file.is_plain(value)]
        plain = {name: value for name, value in given.items() if model_file.is_plain(value)}
        renamed = {OLD_DENSENET.sub(r"\1\2", name): value for name, value in plain.items()}
        for before in _prefixes(renamed, wanted):
            here = ".".join(filter(None, (place, before.rstrip("."))))
            try:
                found.append(Fit(here, *_fit(renamed, before, wanted)))
            except NoFit as reason:
                known = sum(before + name in renamed for name in wanted)
                if known >= closest:
                    why, closest, tensors, prefix = str(reason), known, renamed, before
    if odd and not found:
        return found, f"it holds {odd[0]!r} {model_file.NOT_PLAIN}"
    return found, why if found else why + _looks_like(tensors, prefix, network)


def _places(content: object, place: str = "", depth: int = DEPTH) -> Iterator[tuple[str, Weights]]:
    """Every dict of a checkpoint that holds tensors by name, and where it stands."""
    if not isinstance(content, dict) or not depth:
        return
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    if tensors := {name: value for name, value in named.items() if isinstance(value, Tensor)}:
        yield place, tensors
    for name, value in named.items():
        yield from _places(value, f"{place}.{name}" if place else name, depth - 1)


def _prefixes(tensors: Weights, wanted: dict[str, torch.Size]) -> list[str]:
    """What may stand before the names of the network, by its first layers: "module.", "", ..."""
    for first in [name for name in wanted if not COUNTERS.search(name)][:6]:
        pattern = re.compile(rf"((?:.*\.)?){re.escape(first)}")
        if matches := [match[1] for name in tensors if (match := pattern.fullmatch(name))]:
            return matches
    return [""]


def _fit(tensors: Weights, prefix: str, wanted: dict[str, torch.Size]) -> tuple[Weights, int]:
    """The weights by the names of the network, float32, and the number of classes. Raises NoFit."""
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    wanted = {name: shape for name, shape in wanted.items() if not name.startswith(TRAINING_ONLY)}
    last = [name for name, shape in wanted.items() if shape[:1] == (PROBE,)]
    extra = [name for name in own if name not in wanted and not _means_nothing(name)]
    for name, other in _last_layer(
        tensors, prefix, own, extra, {name: wanted[name] for name in last}
    ).items():
        own[name] = tensors[other]
        extra = [one for one in extra if prefix + one != other]
    if missing := [name for name in wanted if name not in own and not COUNTERS.search(name)]:
        raise NoFit(f"{missing[0]!r} is missing{', the last layer' * (missing[0] in last)}")
    if extra:
        raise NoFit(f"it has a layer more, {extra[0]!r}")
    weights = {}
    for name, shape in wanted.items():
        if name not in own:
            continue
        value, start = own[name], int(name in last)  # as many classes as there are
        index = bool(INDICES.search(name))
        if value.is_quantized or (shape and not index and not value.is_floating_point()):
            raise NoFit(f"{name!r} holds {str(value.dtype).removeprefix('torch.')}, and is quantized")
        if value.shape[start:] != shape[start:] or value.ndim != len(shape):
            theirs, ours = (" x ".join(map(str, one)) or "one number" for one in (value.shape, shape))
            ours = ours.replace(str(PROBE), "classes")
            raise NoFit(f"{name!r} is {theirs} in the file and {ours} in the network")
        weights[name] = value.float() if shape and not index else value
    classes = {len(weights[name]) for name in last}
    if len(classes) != 1 or min(classes) < 2:
        raise NoFit(f"{last[0]!r} does not tell two or more classes apart")
    return weights, classes.pop()


def _means_nothing(name: str) -> bool:
    return bool(COUNTERS.search(name)) or name.startswith(TRAINING_ONLY)


def _last_layer(
    tensors: Weights, prefix: str, own: Weights, extra: list[str], last: dict[str, torch.Size]
) -> dict[str, str]:
    """Where the last layer stands under another name, as after model.fc = Sequential(Dropout(), Linear(...)).

    Name in the network -> name in the file; empty if the network's names are there. extra: those of `own`
    that the network does not know. Raises NoFit if there are several layers.
    """
    if all(name in own for name in last):
        return {}
    outside = [name for name in tensors if not name.startswith(prefix)]
    pool = [prefix + name for name in extra] or outside
    layers = [name for name in pool if tensors[name].ndim > 1]
    if len(layers) > 1 and extra:
        raise NoFit(
            f"it ends in several layers ({layers[0]!r} and others), and what stands between them is code"
        )
    weight = next(name for name, shape in last.items() if len(shape) > 1)
    if len(layers) != 1 or tensors[layers[0]].shape[1:] != last[weight][1:]:
        return {}
    stem = layers[0].removesuffix("weight")
    ends = {name: stem + name.rpartition(".")[2] for name in last}
    return {name: other for name, other in ends.items() if other in tensors}


def _looks_like(tensors: Weights, prefix: str, network: Network) -> str:
    """Which architectures have these very weights, but for the number of classes; empty if none has."""
    own = {
        name.removeprefix(prefix): value.shape for name, value in tensors.items() if name.startswith(prefix)
    }
    family = next((archs for first, archs in FAMILIES.items() if first in own), "")
    found = []
    for arch in models.list_models(module=models):
        if arch == network.arch or not family or not arch.startswith(tuple(family.split())):
            continue
        try:
            wanted = adapter.shapes(arch, PROBE, network.size)
        except cli.UserError:
            continue
        if all(
            own.get(name) == shape or PROBE in shape or COUNTERS.search(name)
            for name, shape in wanted.items()
        ):
            found.append(arch)
    return f" (it looks like {' or '.join(found)})" if found else ""
