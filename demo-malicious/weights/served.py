"""The models that the server can serve: this demo's circles, triangles and squares, demo 2's traffic signs.

Helper module, not a command. Both are ResNet18; how many classes a file has says which of the two it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from weights import shapes
from weights.state_dicts import Weights


@dataclass(frozen=True)
class Task:
    """What a model tells apart, and what it sees."""

    classes: tuple[str, ...]
    size: int  # pixels, width and height
    filter: Image.Resampling  # how images are scaled
    mean: tuple[float, float, float] = (0, 0, 0)  # taken from each colour, in 0..1
    deviation: tuple[float, float, float] = (1, 1, 1)  # and what is left is divided by this

    def to_tensor(self, image: Image.Image) -> torch.Tensor:
        """An image of any size as the model takes it: (3, size, size) float32."""
        from torchvision.transforms.functional import normalize, pil_to_tensor  # noqa: PLC0415

        scaled = image.convert("RGB").resize((self.size, self.size), self.filter)
        return normalize(pil_to_tensor(scaled).float() / 255, list(self.mean), list(self.deviation))


SHAPES = Task(shapes.CLASSES, shapes.SIZE, Image.Resampling.BICUBIC)
SIGNS = Task(
    ("stop", "yield", "priority_road", "no_entry", "general_caution")
    + ("speed_50", "ahead_only", "keep_right", "roundabout", "end_of_limits"),
    48,
    Image.Resampling.BOX,
    (0.485, 0.456, 0.406),  # of ImageNet, as torchvision's weights expect
    (0.229, 0.224, 0.225),
)
TASKS = {len(task.classes): task for task in (SHAPES, SIGNS)}


def network(weights: Weights, path: Path) -> tuple[nn.Module, Task]:
    """The network with these weights, and its task. Raises UserError for a model of another kind."""
    last = weights.get("fc.bias")
    task = TASKS.get(len(last) if last is not None and last.ndim == 1 else 0, SHAPES)
    return shapes.network(weights, path, len(task.classes)).eval(), task
