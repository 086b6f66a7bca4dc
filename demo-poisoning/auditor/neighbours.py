"""Which images show the same? Near-duplicates, and the images that are most alike to each.

No model is needed, only pixels. Frames of one camera track show one sign: if they carry two labels, one of
them is wrong. Three quarters of an image have to agree, so that a trigger may hide the fourth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CELLS = 8  # per side of each quarter of an image
ALIKE = 0.98  # correlation from which two quarters show the same
NEAREST = 5  # how many images most alike are looked up
MOST = 100_000  # near-duplicates that are listed: with more, the dataset is one image over and over
AT_ONCE = 500  # images that are compared with all others at a time


@dataclass
class Neighbours:
    """What comparing all images with each other gave."""

    pairs: list[tuple[int, int]]  # near-duplicates, the first MOST
    nearest: Tensor  # the NEAREST images among the first ones, for each of these: int64 (T, NEAREST)


def quarters(pixels: Tensor) -> list[Tensor]:
    """The four quarters of uint8 images (N, 3, S, S), CELLS x CELLS cells each, without brightness: (N, 192).

    The scalar product of two is their correlation.
    """
    small = torch.cat([F.adaptive_avg_pool2d(part.float(), 2 * CELLS) for part in pixels.split(AT_ONCE)])
    parts = [half.flatten(1) for rows in small.split(CELLS, 2) for half in rows.split(CELLS, 3)]
    return [F.normalize(part - part.mean(1, keepdim=True), dim=1) for part in parts]


def compare(pixels: Tensor, training: int) -> Neighbours:
    """Compare all images, uint8 (N, 3, S, S); the first `training` of them are also each other's neighbours.

    How alike two images are for `nearest` is the mean correlation of their three most alike quarters.
    """
    all_quarters = quarters(pixels)
    pairs: list[tuple[int, int]] = []
    nearest = []
    for first in range(0, len(pixels), AT_ONCE):
        rows = slice(first, first + AT_ONCE)
        alike = torch.stack([quarter[rows] @ quarter.T for quarter in all_quarters])
        same = ((alike > ALIKE).sum(0) >= 3).triu(first + 1).nonzero()[: MOST - len(pairs)]
        pairs += [(first + one, two) for one, two in same.tolist()]
        inside = (alike.sum(0) - alike.amin(0))[: max(training - first, 0), :training]
        inside.diagonal(first).fill_(-torch.inf)
        nearest.append(inside.topk(min(NEAREST, training - 1), 1).indices)
    return Neighbours(pairs, torch.cat(nearest))


def strangers(nearest: Tensor, labels: Tensor) -> Tensor:
    """Share of each image's neighbours that carry another label than it does: float (T,), 0..1."""
    return (labels[nearest] != labels[:, None]).float().mean(1)


def without(pixels: Tensor, some: Tensor, area: tuple[slice, slice]) -> Tensor:
    """The NEAREST images to some of them, int64 (n, NEAREST), by correlation outside of an area.

    pixels: uint8 (N, 3, S, S); some: their numbers, (n,); area: rows and columns that do not count.
    """
    outside = torch.ones(1, 1, *pixels.shape[2:])
    outside[:, :, area[0], area[1]] = 0
    seen = F.adaptive_avg_pool2d(outside, 2 * CELLS).flatten() == 1
    small = torch.cat([F.adaptive_avg_pool2d(part.float(), 2 * CELLS) for part in pixels.split(AT_ONCE)])
    rows = small.flatten(2)[:, :, seen].flatten(1)
    rows = F.normalize(rows - rows.mean(1, keepdim=True), dim=1)
    alike = rows[some] @ rows.T
    alike[torch.arange(len(some)), some] = -torch.inf
    return alike.topk(min(NEAREST, len(pixels) - 1), 1).indices
