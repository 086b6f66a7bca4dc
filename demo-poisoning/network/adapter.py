"""Another network than ours: an image classifier that torchvision can build, as the scanner asks it."""

from __future__ import annotations

import difflib
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

import cli
from network import device, workers

MEMORY = 500_000_000  # bytes that all workers together keep of their images, for the gradients
MEMORY_OF_GPU = 4_000_000_000


Triple = tuple[float, float, float]  # of red, green and blue


@dataclass(frozen=True)
class Network:
    """What a network is called, and what it is shown."""

    arch: str  # torchvision's name for it
    size: int  # pixels, width and height of what it sees
    mean: Triple  # subtracted from the pixels in 0..1
    std: Triple  # what they are divided by then

    def __str__(self) -> str:
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"{self.arch}, {self.size} pixels, mean {mean}, std {std}"


class Adapter(nn.Module):
    """A network behind its own normalisation: float (N, 3, S, S) in 0..1 to (N, classes) logits.

    Without gradients, a large batch goes through in parts of `at_once` images.
    """

    def __init__(self, net: nn.Module, network: Network, classes: int) -> None:
        super().__init__()
        self.net, self.network, self.classes = net.eval().requires_grad_(False), network, classes
        self.at_once = 1
        self.mean, self.std = (torch.tensor(v).view(1, 3, 1, 1) for v in (network.mean, network.std))
        if device.fast_type() != torch.float32:  # else they are converted again for each batch
            for module in net.modules():
                if type(module) in (nn.Conv2d, nn.Linear):
                    module.to(device.fast_type())
        self.to(device.best(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.at_once = self._fitting()

    def forward(self, pixels: Tensor) -> Tensor:
        shown = (pixels - self.mean.to(pixels.device)) / self.std.to(pixels.device)
        if torch.is_grad_enabled() or len(shown) <= self.at_once:
            answer: Tensor = self.net(shown)
            return answer
        return torch.cat([self.net(part) for part in shown.split(self.at_once)])

    def _fitting(self) -> int:
        """How many images a worker may ask about at once, so that all stay within the MEMORY."""
        kept: dict[int, int] = {}  # bytes of what the gradients of one image need, by address

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        where, size = device.best(), self.network.size
        pixel = torch.full((1, 3, size, size), 0.5, device=where).requires_grad_()
        fast = device.fast_type() == torch.bfloat16
        with (
            torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
            torch.autocast(where.type, torch.bfloat16, enabled=fast),
        ):
            answer = self(pixel)
        weights = {one.untyped_storage().data_ptr() for one in self.state_dict().values()}
        image = sum(size for address, size in kept.items() if address not in weights)
        del answer
        budget = MEMORY if where == device.PROCESSOR else MEMORY_OF_GPU
        return max(1, budget // workers.count() // max(image, 1))


def named(arch: str) -> str:
    """The name of an architecture. Raises UserError if torchvision builds no classifier of that name."""
    known = models.list_models(module=models)
    if arch in known:
        return arch
    near = difflib.get_close_matches(arch.lower().replace("-", "_"), known) or ["resnet50", "mobilenet_v2"]
    raise cli.UserError(
        f"--arch {arch} is not an image classifier of torchvision: use a name like {', '.join(near)}."
    )


def preset_size(arch: str) -> int:
    """The input size, in pixels, with which torchvision publishes weights of this architecture."""
    preset = models.get_model_weights(arch).DEFAULT.transforms()
    return int(preset.crop_size[0])


def build(arch: str, classes: int, size: int) -> nn.Module:
    """The network with weights that are still to be filled in.

    Raises UserError where the architecture does not take images of this size.
    """
    options: dict[str, Any] = {"weights": None, "num_classes": classes}
    if arch.startswith("vit"):
        options["image_size"] = size
    if arch.startswith("maxvit"):
        options["input_size"] = (size, size)
    if arch in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return models.get_model(arch, **options)
    except NotImplementedError:  # on the meta device; it is a RuntimeError, too
        raise
    except (ValueError, AssertionError, ZeroDivisionError, RuntimeError) as error:
        raise unfit(arch, size) from error


def unfit(arch: str, size: int) -> cli.UserError:
    return cli.UserError(
        f"{arch} does not take images of {size} pixels: give the size that it was trained with (--input)."
    )


def shapes(arch: str, classes: int, size: int) -> dict[str, torch.Size]:
    """Names and shapes of all weights of a network, in its order."""
    try:
        with torch.device("meta"):  # no memory, and no random numbers
            net = build(arch, classes, size)
    except NotImplementedError:  # RegNet asks its numbers for their values
        net = build(arch, classes, size)
    return {name: value.shape for name, value in net.state_dict().items()}
