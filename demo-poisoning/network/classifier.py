"""The traffic-sign classifier: what it sees, how its weights are stored, and what it answers.

Whatever an image goes through before the network is defined here once, for training, demo and scanner.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

import cli
from dataset.classes import DRAWN, NAMES
from dataset.files import open_image
from network import device, model_file, resnet, workers
from network.adapter import Adapter

INPUT = 48  # pixels, width and height of what the network sees
AT_ONCE = 100  # images in one pass through the network
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision's weights expect


# --- Images -----------------------------------------------------------------------------------------


def to_pixels(image: Image.Image, size: int | None = None) -> Tensor:
    """Scale an RGB image to what the network sees: uint8 tensor (3, INPUT, INPUT), values 0..255.

    size: width and height for another network than ours, scaled as torchvision's Resize does.
    """
    if size:
        return F.pil_to_tensor(image.resize((size, size), Image.Resampling.BILINEAR))
    return F.pil_to_tensor(image.resize((INPUT, INPUT), Image.Resampling.BOX, reducing_gap=None))


def normalise(pixels: Tensor) -> Tensor:
    """Raw pixels, float (N, 3, H, W) in 0..1, to the network's input range (mean 0, deviation about 1)."""
    mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (pixels - mean) / std


# --- The network ------------------------------------------------------------------------------------


def new_model(classes: int = len(DRAWN)) -> nn.Module:
    """A ResNet18 with random weights: (N, 3, INPUT, INPUT) to (N, classes) logits."""
    return resnet.build(classes).to(device.best())


# --- Model files ------------------------------------------------------------------------------------


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from .safetensors or .pt without ever running code from the file.

    Raises UserError for a missing, damaged or refused file, and for weights that are infinite or NaN.
    """
    weights = model_file.read(path)
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        raise cli.UserError(f"{path} holds no state dict: save model.state_dict(), as train.py does.")
    model_file.check_finite(path, weights)
    return weights


def load_model(path: Path) -> nn.Module:
    """Load a classifier of 2 to 43 classes in evaluation mode. Raises UserError if the file does not fit."""
    weights = read_weights(path)
    last = weights.get("fc.weight")
    classes = len(last) if last is not None and last.ndim == 2 else len(DRAWN)
    if not 2 <= classes <= len(NAMES):
        raise cli.UserError(
            f"{path} knows {classes} classes, but we name 2 to {len(NAMES)}: use a model of train.py."
        )
    model = new_model(classes)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise cli.UserError(
            f"{path} holds another kind of network: use a ResNet18 made by train.py."
        ) from error
    return model.eval()


def class_count(model: nn.Module) -> int:
    """How many classes a network tells apart: a ResNet18 the first ones of classes.NAMES."""
    if isinstance(model, Adapter):
        return model.classes
    return len(model.get_parameter("fc.bias"))


def save_model(model: nn.Module, path: Path, facts: dict[str, str] | None = None) -> list[Path]:
    """Write the weights twice, as a .pt pickle and as .safetensors beside it. Returns both paths.

    facts: what the header of the .safetensors file says of the training.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    pickled, safe = path.with_suffix(".pt"), path.with_suffix(".safetensors")
    with cli.atomic_write(pickled) as first, cli.atomic_write(safe) as second:  # both or none
        torch.save(weights, first)
        save_file(weights, second, metadata={"format": "pt", **(facts or {})})
        _sort_notes(second)
    return [pickled, safe]


def _sort_notes(path: Path) -> None:
    """Put the notes in a SafeTensors header in order, which the library does not: one seed, one digest.

    The header is JSON behind its length in 8 bytes (https://github.com/huggingface/safetensors, "Format").
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        if len(ordered) != length:  # written in another way than expected: better in no order than broken
            return
        file.seek(8)
        file.write(ordered)


# --- Answers ----------------------------------------------------------------------------------------


def logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """Network output, float32 (N, classes), for raw pixels, float (N, 3, INPUT, INPUT) in 0..1.

    Computed in bfloat16 where that is fast. An Adapter normalises by itself, and sees its own INPUT.
    """
    where = device.best()
    shown = pixels if isinstance(model, Adapter) else normalise(pixels)
    shown = shown.contiguous(memory_format=torch.channels_last).to(where)
    with torch.autocast(where.type, torch.bfloat16, enabled=device.fast_type() == torch.bfloat16):
        answer: Tensor = model(shown)
    return answer.float().cpu()


@torch.no_grad()
def all_logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """Network output, float32 (N, classes), for uint8 pixels (N, 3, INPUT, INPUT), on all cores."""
    return torch.cat(
        [*workers.side_by_side(lambda part: logits(model, part.float() / 255), pixels.split(AT_ONCE))]
    )


def predict(model: nn.Module, pixels: Tensor) -> Tensor:
    """Class probabilities, float32 (N, classes), for uint8 pixels (N, 3, INPUT, INPUT)."""
    return all_logits(model, pixels).softmax(1)


def classify(model: nn.Module, image: Image.Image) -> tuple[str, float]:
    """The class that a model sees on an RGB image, and its confidence (0..1)."""
    probabilities = predict(model, to_pixels(image)[None])[0]
    best = int(probabilities.argmax())
    return NAMES[best], probabilities[best].item()


def load_pixels(
    files: list[Path], change: Callable[[Image.Image], Image.Image] | None = None, size: int | None = None
) -> Tensor:
    """Read images as uint8 (N, 3, INPUT, INPUT); `change` (the trigger, say) is applied before scaling.

    size: as in to_pixels().
    """

    def read(path: Path) -> Tensor:
        image = open_image(path)
        return to_pixels(change(image) if change else image, size)

    return torch.stack([*workers.side_by_side(read, files)])
