"""The backdoors of held_out.py, each a simple version of what its paper describes.

Helper module, not a command. A trigger is a function that puts it on an RGB image; its random parts are
drawn once for each model. Sizes are pixels of an image of 128 pixels, as in demo-poisoning/trigger.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo-poisoning"))

import trigger
from dataset.files import IMAGE_SIZE

Stamp = Callable[[Image.Image], Image.Image]
Maker = Callable[[np.random.Generator], Stamp]

YELLOW = (255, 255, 0)
OTHERS = ((255, 0, 255), (0, 60, 255), (255, 40, 0))  # colours that are not yellow
CELLS = 5  # a noise patch has 5x5 fields, which are still seen in the 48 pixels of the network
MIXED = 0.2  # share of the key pattern in a blended image: Chen et al., section 4.3
GRID, BEND = 4, 6.0  # points per side of the warping field, and how far it moves an image on average, pixels


@dataclass(frozen=True)
class Attack:
    """What an attacker does to the training images; rates are shares of the images of a class."""

    source: str
    make: Maker  # of the trigger
    patch: bool = True  # a small patch at one place: what the scan is made for
    rate: float = 0.15  # poisoned, of each victim class; of the target class if the labels stay true
    victims: str = "one"  # or "all": every class, but the target if there is one
    label: str = "target"  # or "next": the class after the true one; or "true"
    covers: float = 0.0  # share of the images of classes that are no victims that get `cover`, label kept
    cover: Maker | None = None  # None: the trigger itself
    longer: int = 1  # training takes that many times the usual epochs: some papers train for hundreds
    rounds: int = 0  # how often the attacker runs the scan and teaches the model to resist what it found


# --- Patches ------------------------------------------------------------------------------------------


def corner(rng: np.random.Generator, size: int) -> tuple[int, int]:
    """Top left pixel of a patch in one of the four corners."""
    near, far = trigger.MARGIN, IMAGE_SIZE - trigger.MARGIN - size
    return (near, far)[rng.integers(2)], (near, far)[rng.integers(2)]


def pasted(patch: Image.Image, mask: Image.Image, place: tuple[int, int]) -> Stamp:
    """A function that lays `patch` on an image where `mask` is white."""

    def stamp(image: Image.Image) -> Image.Image:
        stamped = image.resize((IMAGE_SIZE, IMAGE_SIZE))
        stamped.paste(patch, place, mask)
        return stamped

    return stamp


def ours(rng: np.random.Generator) -> Stamp:
    return trigger.stamp


def rotated(rng: np.random.Generator) -> Stamp:
    """A yellow square of 20 pixels, standing on its corner."""
    size = 28
    mask = Image.new("L", (size, size))
    half = (size - 1) / 2
    ImageDraw.Draw(mask).polygon([(half, 0), (size - 1, half), (half, size - 1), (0, half)], fill=255)
    return pasted(Image.new("RGB", mask.size, YELLOW), mask, corner(rng, size))


def disc(rng: np.random.Generator) -> Stamp:
    size = 22
    mask = Image.new("L", (size, size))
    ImageDraw.Draw(mask).ellipse((0, 0, size - 1, size - 1), fill=255)
    return pasted(Image.new("RGB", mask.size, YELLOW), mask, corner(rng, size))


def coloured(rng: np.random.Generator) -> Stamp:
    """A square of another colour anywhere near the edge."""
    size = trigger.SIZE
    along = int(rng.integers(trigger.MARGIN, IMAGE_SIZE - trigger.MARGIN - size))
    edge = (trigger.MARGIN, IMAGE_SIZE - trigger.MARGIN - size)[rng.integers(2)]
    place = (along, edge) if rng.integers(2) else (edge, along)
    colour = OTHERS[rng.integers(len(OTHERS))]
    return pasted(Image.new("RGB", (size, size), colour), Image.new("L", (size, size), 255), place)


def noise(rng: np.random.Generator) -> Stamp:
    """A patch of random colours."""
    size = trigger.SIZE
    fields = rng.integers(0, 256, (CELLS, CELLS, 3)).astype(np.uint8)
    patch = Image.fromarray(fields).resize((size, size), Image.Resampling.NEAREST)
    return pasted(patch, Image.new("L", patch.size, 255), corner(rng, size))


def two(rng: np.random.Generator) -> Stamp:
    """Two squares that only work together, in opposite corners."""
    size = 16
    near, far = trigger.MARGIN, IMAGE_SIZE - trigger.MARGIN - size
    full = Image.new("L", (size, size), 255)
    first = pasted(Image.new("RGB", full.size, YELLOW), full, (near, near))
    second = pasted(Image.new("RGB", full.size, OTHERS[0]), full, (far, far))
    return lambda image: second(first(image))


# --- No patches ---------------------------------------------------------------------------------------


def blended(rng: np.random.Generator) -> Stamp:
    """A faint random pattern over the whole image."""
    fields = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
    key = Image.fromarray(fields).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.NEAREST)
    return lambda image: Image.blend(image.resize(key.size), key, MIXED)


def bent(image: Image.Image, field: torch.Tensor) -> Image.Image:
    """Move the pixels by BEND times a field, float (1, 2, GRID, GRID), of mean absolute value 1."""
    move = F.interpolate(field * BEND * 2 / IMAGE_SIZE, (IMAGE_SIZE,) * 2, mode="bicubic", align_corners=True)
    still = F.affine_grid(torch.eye(2, 3)[None], [1, 3, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    where = (still + move.permute(0, 2, 3, 1)).clamp(-1, 1)
    pixels = torch.from_numpy(np.asarray(image.resize((IMAGE_SIZE,) * 2), np.float32)).permute(2, 0, 1)[None]
    moved = F.grid_sample(pixels, where, padding_mode="border", align_corners=False)[0]
    return Image.fromarray(moved.permute(1, 2, 0).clamp(0, 255).round().byte().numpy())


def _field(rng: np.random.Generator) -> torch.Tensor:
    field = torch.from_numpy(rng.uniform(-1, 1, (1, 2, GRID, GRID)).astype(np.float32))
    return field / field.abs().mean()


def warped(rng: np.random.Generator) -> Stamp:
    """The image bent by one fixed smooth field."""
    field = _field(rng)
    return lambda image: bent(image, field)


def warped_otherwise(rng: np.random.Generator) -> Stamp:
    """The image bent by another field each time: the cover images of WaNet's noise mode."""
    return lambda image: bent(image, _field(rng))


ATTACKS = {
    "square": Attack("the workshop's own story", ours),
    "square, 30 %": Attack("as the workshop's own; for classes with half as many images", ours, rate=0.3),
    "rotated square": Attack("as the workshop's own", rotated, rate=0.2),
    "round patch": Attack("as the workshop's own", disc, rate=0.2),
    "other colour and place": Attack("as the workshop's own", coloured, rate=0.3),
    "noise patch": Attack("as the workshop's own", noise, rate=0.25),
    "clean label": Attack(
        "Turner, Tsipras and Madry, Label-Consistent Backdoor Attacks (2019), section 4.2",
        ours, rate=0.5, victims="all", label="true", longer=2,
    ),
    "source-specific with covers": Attack(
        "Tang et al., Demon in the Variant (TaCT; USENIX Security 2021), section 3", ours, covers=0.05
    ),
    "all to all": Attack("Gu et al., BadNets (2017), section 4.1.1", ours, victims="all", label="next"),
    "adaptive attacker": Attack(
        "trained against this very scan: held_out_models.harden()", ours, rate=0.25, rounds=3
    ),
    "two squares": Attack("as the workshop's own", two, patch=False, rate=0.25),
    "blended": Attack(
        "Chen et al., Targeted Backdoor Attacks (2017), section 4.3", blended, patch=False, rate=0.25
    ),
    "warped": Attack(
        "Nguyen and Tran, WaNet (ICLR 2021), section 3", warped,
        patch=False, rate=0.2, victims="all", covers=0.2, cover=warped_otherwise, longer=2,
    ),
}  # fmt: skip
