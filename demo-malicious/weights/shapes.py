"""The small task of this demo: a ResNet18 that tells circles, triangles and squares apart.

Helper module, not a command: safe_demo.py trains the model, serve.py serves it, and create_malicious_model.py
hides a payload in it. The model is small in its task and ordinary in its size: 45 MB, as in real life.
torchvision is imported where it is used: that takes as long as all of PyTorch, and not every command does.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import nn

import cli
from weights.state_dicts import Weights

CLASSES = ("circle", "triangle", "square")
SIZE = 32  # pixels, width and height
CORNERS = {"circle": 40, "triangle": 3, "square": 4}
SEED = 0
TRAIN_IMAGES, NEW_IMAGES = 600, 300
EPOCHS, BATCH, LEARNING_RATE = 3, 30, 0.02


def draw(shape: str, rng: random.Random) -> Image.Image:
    """One image (SIZE x SIZE, RGB): the shape at a random place, light on dark, a little turned."""
    ground = tuple(rng.randrange(0, 90) for _ in range(3))
    ink = tuple(rng.randrange(150, 256) for _ in range(3))
    image = Image.new("RGB", (4 * SIZE, 4 * SIZE), ground)  # drawn large, then reduced: smooth edges
    radius = rng.uniform(1.4, 1.9) * SIZE
    x, y = (rng.uniform(radius, 4 * SIZE - radius) for _ in range(2))
    turn = -math.pi / 2 + rng.uniform(-0.15, 0.15)
    corners = CORNERS[shape]
    angles = [turn + math.pi / corners * (2 * index + (shape == "square")) for index in range(corners)]
    points = [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]
    ImageDraw.Draw(image).polygon(points, fill=ink)
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


@lru_cache(maxsize=2)  # drawing takes a second or two, and some commands need the same images twice
def draw_images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (count, 3, SIZE, SIZE) float32 in [0, 1] and labels (count,) int64 in 0..2; seeded."""
    rng = random.Random(seed)
    labels = torch.arange(count) % len(CLASSES)
    return torch.stack([to_tensor(draw(CLASSES[label], rng)) for label in labels.tolist()]), labels


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An image of any size as the model takes it: (3, SIZE, SIZE) float32 in [0, 1]."""
    from torchvision.transforms.functional import pil_to_tensor  # noqa: PLC0415

    return pil_to_tensor(image.convert("RGB").resize((SIZE, SIZE))).float() / 255


def network(
    weights: Weights | None = None, path: Path | None = None, classes: int = len(CLASSES)
) -> nn.Module:
    """A ResNet18 with a score for each class, with these weights if given.

    Raises UserError if the weights (read from `path`) belong to a model of another kind.
    """
    from torchvision.models import resnet18  # noqa: PLC0415

    model = resnet18(num_classes=classes)
    if weights is not None:
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise cli.UserError(
                f"{path} is a model of another kind than this demo trains: use `inspect_model.py {path}`."
            ) from error
    return model


def train(progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> nn.Module:
    """Train the classifier. Seeded: the same machine makes the same model again. Some seconds."""
    torch.set_num_threads(1)  # images this small are slower on many cores, above all when they are busy
    torch.manual_seed(SEED)
    model = network().train()
    images, labels = draw_images(TRAIN_IMAGES, SEED)
    order = torch.cat([torch.randperm(TRAIN_IMAGES) for _ in range(EPOCHS)]).split(BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=len(order))
    for step in progress(range(len(order))):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[order[step]]), labels[order[step]]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def outputs(weights: Weights, path: Path) -> tuple[torch.Tensor, float]:
    """Scores (NEW_IMAGES, 3) on new images of a model with these weights, and its accuracy in [0, 1]."""
    model = network(weights, path).eval()
    images, labels = draw_images(NEW_IMAGES, SEED + 1)
    with torch.inference_mode():
        scores = torch.cat([model(part) for part in images.split(100)])
    return scores, (scores.argmax(1) == labels).float().mean().item()


def png(shape: str, seed: int) -> bytes:
    """One image as the bytes of a PNG file, for example to send to the server."""
    file = io.BytesIO()
    draw(shape, random.Random(seed)).save(file, "PNG")
    return file.getvalue()
