"""Where the search for a trigger starts: which images, how they move, which solid square helps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from network import classifier

GRID = 16  # cells per side of mask and pattern
SQUARE, STRIDE = 4, 3  # cells: size of the solid squares that probe() tries, and the step between places
PROBED = 4  # images that it tries them on
SCALE, SHIFT = (0.75, 1.3), 0.4  # how far the content moves: size factor, and share of half the image


def move(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Shift and scale each image at random, float (N, 3, S, S); edges are repeated."""
    count = len(pixels)
    low, high = SCALE
    where = torch.zeros(count, 2, 3)
    where[:, 0, 0] = where[:, 1, 1] = low * (high / low) ** torch.rand(count, generator=rng)
    where[:, :, 2] = SHIFT * (2 * torch.rand(count, 2, generator=rng) - 1)
    grid = F.affine_grid(where, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def surest(model: nn.Module, pixels: Tensor, label: int, rng: torch.Generator) -> Tensor:
    """Order images by how surely the model sees `label` on them while they move; drop those it gets wrong.

    pixels: float (N, 3, S, S). Unsure images would make every trigger look good.
    """
    pixels = pixels[classifier.logits(model, pixels).argmax(1) == label]
    if not len(pixels):
        return pixels
    sure = sum(classifier.logits(model, move(pixels, rng)).log_softmax(1)[:, label] for _ in range(4))
    return pixels[torch.as_tensor(sure).argsort(descending=True)]


@torch.no_grad()
def probe(model: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Try solid squares of eight colours all over the images of one class: forward passes only.

    pixels: float (N, 3, S, S) of one class. Returns for each target class the square that helps it most:
    its top left cell (classes, 2), row and column, and its colour (classes, 3) in 0..1.
    """
    pixels = pixels[:PROBED]
    cell = pixels.shape[-1] // GRID  # pixels
    colours = torch.tensor([[r, g, b] for r in (0.0, 1.0) for g in (0.0, 1.0) for b in (0.0, 1.0)])
    corners = range(0, GRID - SQUARE + 1, STRIDE)
    places = [(top, left) for top in corners for left in corners]
    scores = []
    for top, left in places:
        tried = pixels.repeat(len(colours), 1, 1, 1, 1)
        rows, columns = (slice(edge * cell, (edge + SQUARE) * cell) for edge in (top, left))
        tried[..., rows, columns] = colours[:, None, :, None, None]
        answer = classifier.logits(model, tried.flatten(0, 1)).log_softmax(1)
        scores.append(answer.view(len(colours), len(pixels), -1).mean(1))
    best = torch.stack(scores).flatten(0, 1).argmax(0)  # per target: number of place and colour
    return torch.tensor(places)[best // len(colours)], colours[best % len(colours)]


def squares(corners: Tensor, size: int) -> Tensor:
    """Masks of squares of size x size cells, given their top left cells (P, 2): (P, 1, GRID, GRID).

    Before the sigmoid, that is: it gives 0.88 on the square and 0.0025 elsewhere.
    """
    steps = torch.arange(GRID) - corners[:, :, None]  # (P, 2, GRID): rows and columns below and right of it
    rows, columns = ((steps >= 0) & (steps < size)).unbind(1)
    return 8.0 * (rows[:, None, :, None] & columns[:, None, None, :]) - 6
