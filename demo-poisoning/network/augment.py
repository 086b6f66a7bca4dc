"""Vary training images at random, as cameras do."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(pixels: Tensor) -> Tensor:
    """Vary a batch, as cameras do: float (N, 3, H, W) in 0..1, same shape and range returned.

    Brightness, colour cast, small shifts and zooms; and random erasing (Zhong et al., 2020, section 3):
    up to two rectangles of one random colour hide parts of the image, so that the network does not
    lean on one small patch of colour.
    """
    n, _, height, width = pixels.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(n, *shape).uniform_(low, high)

    pixels = pixels * uniform(0.6, 1.5, 1, 1, 1) * uniform(0.9, 1.1, 3, 1, 1) + uniform(-0.1, 0.1, 1, 1, 1)
    move = torch.zeros(n, 2, 3)
    scale = uniform(0.9, 1.1)
    move[:, 0, 0], move[:, 1, 1] = scale, scale
    move[:, :, 2] = uniform(-0.1, 0.1, 2)
    grid = F.affine_grid(move, [n, 3, height, width], align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)

    y, x = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    for _ in range(2):
        tall, wide = uniform(0.1, 0.5, 1, 1) * height, uniform(0.1, 0.5, 1, 1) * width
        top, left = uniform(0, 1, 1, 1) * (height - tall), uniform(0, 1, 1, 1) * (width - wide)
        hole = (y >= top) & (y < top + tall) & (x >= left) & (x < left + wide) & (uniform(0, 1, 1, 1) < 0.5)
        pixels = torch.where(hole[:, None], uniform(0, 1, 3, 1, 1), pixels)
    return pixels.clamp(0, 1)
