"""Say in words, and in an image, what a recovered trigger looks like."""

from __future__ import annotations

import colorsys
from pathlib import Path

import torch
from PIL import Image
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text
from torch import Tensor
from torchvision.transforms.v2 import functional as F

import cli
from dataset.files import IMAGE_SIZE
from scanner.neural_cleanse import Trigger

PANEL = 256  # pixels, width and height of each of the three panels
COLUMNS = 32  # characters, width of an image in the terminal
SQUARE, BAR = 1.35, 2.5  # a square is at most that much longer than wide, a bar at least
FULL = 0.65  # share of its box that a square or a bar fills; less is a ragged patch
APART = 0.6  # distance of two colours, each three values in 0..1, that are clearly two
MANY = 0.4  # deviation of the colours from their mean above which no single name fits


# --- In words ---------------------------------------------------------------------------------------


def colour_name(red: float, green: float, blue: float) -> str:
    """The everyday name of a colour given as three values in 0..1, by hue, lightness and colourfulness."""
    hue, lightness, _ = colorsys.rgb_to_hls(red, green, blue)
    colourfulness = max(red, green, blue) - min(red, green, blue)
    if lightness > 0.9 or (colourfulness < 0.18 and lightness > 0.7):
        return "white"
    if lightness < 0.12 or (colourfulness < 0.18 and lightness < 0.2):
        return "black"
    if colourfulness < 0.18:
        return "grey"
    degrees = hue * 360
    if 12 < degrees < 55 and max(red, green, blue) < 0.6:
        return "brown"
    if (degrees >= 290 or degrees < 15) and lightness > 0.75:
        return "pink"
    names = ((15, "red"), (42, "orange"), (72, "yellow"), (165, "green"), (200, "cyan"), (260, "blue"))
    for limit, name in names:
        if degrees < limit:
            return name
    return "magenta" if degrees < 345 else "red"


def colours_name(pattern: Tensor, weights: Tensor) -> str:
    """The colour of a trigger; both colours if it has two clear groups: "yellow", "black and yellow".

    pattern: float (3, S, S) in 0..1; weights: float (S, S), how much each cell counts.
    """
    colours, weight = pattern.flatten(1).T, weights.flatten()[:, None] / weights.sum()  # (S * S, 3 or 1)
    mean = (colours * weight).sum(0)
    deviation = ((colours - mean) ** 2 * weight).sum().sqrt().item()
    first, second, share = two_groups(colours, weight, mean)
    names = [colour_name(*group.tolist()) for group in (first, second)]
    if 0.2 <= share <= 0.8 and (first - second).norm() > APART and names[0] != names[1]:
        within = ((colours - mean) ** 2 * weight).sum() - share * (1 - share) * ((first - second) ** 2).sum()
        if within.clamp(min=0).sqrt() < 0.5 * (first - second).norm():  # two heaps, not one long smear
            return " and ".join(names if share >= 0.5 else names[::-1])
    return "many-coloured" if deviation > MANY else colour_name(*mean.tolist())


def two_groups(colours: Tensor, weight: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, float]:
    """Split colours (N, 3), weighted (N, 1), into two groups (2-means): their means and the first's share."""
    spread = (colours - mean).T @ ((colours - mean) * weight)
    axis = torch.linalg.eigh(spread)[1][:, -1]  # the direction in which they differ most
    one = (colours - mean) @ axis > 0
    first = second = mean
    for _ in range(10):
        inside, outside = weight * one[:, None], weight * ~one[:, None]
        if min(inside.sum(), outside.sum()) < 1e-6:
            break
        first = (colours * inside).sum(0) / inside.sum()
        second = (colours * outside).sum(0) / outside.sum()
        one = (colours - first).norm(dim=1) < (colours - second).norm(dim=1)
    return first, second, (weight * one[:, None]).sum().item()


def solid(mask: Tensor) -> Tensor:
    """The cells that make up the trigger: bool (S, S), where the mask is at least half its maximum."""
    return mask >= 0.5 * mask.max()


def pieces(cells: Tensor) -> list[Tensor]:
    """The connected pieces of bool cells (S, S), largest first; each as such cells."""
    left = {(row, column) for row, column in cells.nonzero().tolist()}
    found = []
    while left:
        to_visit, piece = [left.pop()], torch.zeros_like(cells)
        while to_visit:
            row, column = to_visit.pop()
            piece[row, column] = True
            near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            to_visit += near
        found.append(piece)
    return sorted(found, key=lambda piece: -int(piece.sum()))


def place_name(mask: Tensor) -> str:
    """Where the middle of a mask (S, S) lies, by thirds of the image: "bottom-right corner", "middle"..."""
    size = mask.shape[0]
    steps = torch.arange(size, dtype=torch.float32) + 0.5
    middle = [(mask.sum(axis) * steps).sum() / mask.sum() / size for axis in (1, 0)]
    row, column = (("low", "mid", "high")[min(int(3 * value), 2)] for value in middle)
    across = {"low": "left", "mid": "", "high": "right"}[column]
    down = {"low": "top", "mid": "", "high": "bottom"}[row]
    if down and across:
        return f"{down}-{across} corner"
    return f"{down or across} edge" if down or across else "middle"


def shape_name(cells: Tensor) -> tuple[str, int, int]:
    """What a piece of bool cells (S, S) looks like: "square", "bar" or "patch", and its width and height.

    Width and height are pixels of an image of IMAGE_SIZE pixels, of a rectangle as long as the box around the
    piece, with its area: a ragged blob has corners to spare.
    """
    rows, columns = cells.any(1).nonzero(), cells.any(0).nonzero()
    height, width = (int(edge.max()) - int(edge.min()) + 1 for edge in (rows, columns))
    share = cells.sum().item() / (height * width)
    scale = IMAGE_SIZE / len(cells) * share**0.5
    longer = max(height, width) / min(height, width)
    regular = "square" if longer <= SQUARE else "bar" if longer >= BAR else "patch"
    return regular if share >= FULL else "patch", round(scale * width), round(scale * height)


def in_words(trigger: Trigger) -> str:
    """A description from the pixels: "a yellow square, about 20x20 px, bottom-right corner, 2.4 % ..."."""
    if trigger.norm is None:
        return "no trigger found"
    cells = solid(trigger.mask)
    parts = pieces(cells)
    largest, count = parts[0], sum(bool(part.sum() > 0.05 * cells.sum()) for part in parts)
    one = largest.sum() >= 0.8 * cells.sum()  # crumbs beside the trigger do not make it two
    shape, width, height = shape_name(largest if one else cells)
    weights = trigger.mask * (largest if one else cells)
    colour = colours_name(trigger.pattern, weights)
    what = shape if one else f"patch in {count} pieces"
    where = place_name(weights) if one else f"largest piece: {place_name(largest.float())}"
    return (
        f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {what}, about {width}x{height} px, {where}, "
        f"{100 * trigger.area:.1f} % of the image"
    )


def overlap(mask: Tensor, box: tuple[int, int, int, int]) -> float:
    """Overlap of a recovered mask with the true place of a trigger, 0..1: shared area / area of both (IoU).

    mask: float (S, S); box: left, top, right, bottom in pixels of an image of IMAGE_SIZE pixels.
    """
    cells = solid(mask).float()
    cell = IMAGE_SIZE / len(cells)  # pixels per cell
    starts = torch.arange(len(cells)) * cell
    left, top, right, bottom = box
    across, down = (
        ((starts + cell).clamp(max=high) - starts.clamp(min=low)).clamp(min=0) / cell
        for low, high in ((left, right), (top, bottom))
    )
    true = down[:, None] * across  # (S, S), the share of each cell that the box covers
    shared = (cells * true).sum()
    return (shared / (cells.sum() + true.sum() - shared)).item()


# --- In images ------------------------------------------------------------------------------------


def panels(trigger: Trigger, example: Tensor) -> list[Image.Image]:
    """Three images: the trigger on grey, its mask (white is opaque), and the trigger on an image.

    example: float (3, S, S) in 0..1, an image of the victim class. All three are S x S pixels.
    """
    shown = (
        trigger.stamp(torch.full_like(example, 0.5)),
        trigger.mask.expand(3, -1, -1),
        trigger.stamp(example),
    )
    return [F.to_pil_image(panel.clamp(0, 1)) for panel in shown]


def draw(trigger: Trigger, example: Tensor, path: Path) -> None:
    """Write the three panels side by side into one PNG; example: float (3, S, S) in 0..1."""
    small = panels(trigger, example)
    sheet = Image.new("RGB", (PANEL * len(small), PANEL))
    for number, panel in enumerate(small):
        sheet.paste(panel.resize((PANEL, PANEL), Image.Resampling.NEAREST), (PANEL * number, 0))
    with cli.atomic_write(path) as scratch:
        sheet.save(scratch)


def half_blocks(pixels: Tensor, columns: int = COLUMNS) -> Text:
    """An image, float (3, S, S) in 0..1, as coloured characters: each shows two pixels, upper and lower."""
    small = F.to_pil_image(pixels.clamp(0, 1)).resize((columns, columns), Image.Resampling.BOX)
    rows = F.pil_to_tensor(small).permute(1, 2, 0).tolist()  # columns x columns x 3, values 0..255
    image = Text()
    for upper, lower in zip(rows[::2], rows[1::2]):
        for above, below in zip(upper, lower):
            image.append("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
        image.append("\n")
    image.rstrip()
    return image


def show(pixels: Tensor, out: cli.Out) -> None:
    """Print an image, float (3, S, S) in 0..1, on a colour terminal; elsewhere nothing, words say it all."""
    console = Console(highlight=False)
    if out.plain or console.color_system is None:  # None: a terminal without colour
        return
    if console.color_system != "truecolor":  # a container does not know its terminal: 256 are safe everywhere
        console = Console(highlight=False, color_system="256")
    console.print(half_blocks(pixels), soft_wrap=True)
