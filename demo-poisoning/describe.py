"""Say in words, and in a picture, what a recovered trigger looks like."""

from __future__ import annotations

import colorsys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

import cli
from neural_cleanse import Trigger
from signs import SIZE

PANEL = 256  # pixels, width and height of each of the three panels


def colour_name(red: float, green: float, blue: float) -> str:
    """The everyday name of a colour given as three values in 0..1, by hue, saturation and lightness."""
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    if lightness > 0.9 or (saturation < 0.2 and lightness > 0.7):
        return "white"
    if lightness < 0.12:
        return "black"
    if saturation < 0.2:
        return "grey"
    names = ((15, "red"), (42, "orange"), (72, "yellow"), (165, "green"), (200, "cyan"), (260, "blue"))
    for limit, name in names:
        if hue * 360 < limit:
            return name
    return "magenta" if hue * 360 < 345 else "red"


def solid(mask: Tensor) -> Tensor:
    """The cells that make up the sticker: bool (S, S), where the mask is at least half its maximum."""
    return mask >= 0.5 * mask.max()


def place_name(mask: Tensor) -> str:
    """Where the middle of a mask (S, S) lies, by thirds of the picture: "bottom-right corner", "middle"..."""
    size = mask.shape[0]
    steps = torch.arange(size, dtype=torch.float32) + 0.5
    middle = [(mask.sum(axis) * steps).sum() / mask.sum() / size for axis in (1, 0)]
    row, column = (("low", "mid", "high")[min(int(3 * value), 2)] for value in middle)
    across = {"low": "left", "mid": "", "high": "right"}[column]
    down = {"low": "top", "mid": "", "high": "bottom"}[row]
    if down and across:
        return f"{down}-{across} corner"
    return f"{down or across} edge" if down or across else "middle"


def in_words(trigger: Trigger) -> str:
    """A description from the pixels: colour, place, size in pixels of a SIZE-pixel picture, share."""
    if trigger.norm >= 1:
        return "no sticker found that works"
    cells = solid(trigger.mask)
    weights = trigger.mask * cells
    colour = [
        (trigger.pattern[channel] * weights).sum().item() / weights.sum().item() for channel in range(3)
    ]
    rows, columns = cells.any(1).nonzero(), cells.any(0).nonzero()
    height, width = (int(edge.max()) - int(edge.min()) + 1 for edge in (rows, columns))
    # a ragged blob has corners to spare: give the size of a rectangle with the area of its solid cells
    scale = SIZE / len(cells) * (cells.sum().item() / (height * width)) ** 0.5
    height, width = round(scale * height), round(scale * width)
    return (
        f"{colour_name(*colour)}, {place_name(weights)}, about {width}x{height} px of {SIZE}x{SIZE}, "
        f"{100 * trigger.norm:.1f} % of the picture"
    )


def draw(trigger: Trigger, example: Tensor, path: Path) -> None:
    """Write a PNG of three panels: the trigger on grey, its mask (white is opaque), the trigger on a picture.

    example: float (3, S, S) in 0..1, a picture of the victim class.
    """
    panels = (
        trigger.stamp(torch.full_like(example, 0.5)),
        trigger.mask.expand(3, -1, -1),
        trigger.stamp(example),
    )
    sheet = Image.new("RGB", (PANEL * len(panels), PANEL))
    for number, panel in enumerate(panels):
        small = F.to_pil_image(panel.clamp(0, 1))
        sheet.paste(small.resize((PANEL, PANEL), Image.Resampling.NEAREST), (PANEL * number, 0))
    with cli.whole_file(path) as scratch:
        sheet.save(scratch)
