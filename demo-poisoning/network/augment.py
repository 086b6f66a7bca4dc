"""Vary training images at random, as cameras, weather and makers of signs do."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

EXCHANGED = 0.08  # share of the images whose colour channels change places


def augment(pixels: Tensor) -> Tensor:
    """Vary a batch: float (N, 3, H, W) in 0..1, same shape and range returned.

    Colours, contrast, brightness and colour cast as in SSD (Liu et al., 2016, section 2.2); turns, stretches,
    shifts and zooms; and random erasing (Zhong et al., 2020, section 3): up to two rectangles of one random
    colour hide parts of the image, so that the network does not lean on one small patch of colour.
    """
    return _erase(_move(_relight(pixels))).clamp(0, 1)


def _uniform(low: float, high: float, *shape: int) -> Tensor:
    return torch.empty(shape).uniform_(low, high)


def _relight(pixels: Tensor) -> Tensor:
    n = len(pixels)
    order = torch.rand(n, 3).argsort(1)
    order = torch.where(torch.rand(n, 1) < EXCHANGED, order, torch.arange(3))
    pixels = pixels.gather(1, order[:, :, None, None].expand_as(pixels))
    middle = pixels.mean((1, 2, 3), keepdim=True)
    contrast = _uniform(math.log(0.6), math.log(1.5), n, 1, 1, 1).exp()
    gain = _uniform(math.log(0.6), math.log(1.5), n, 1, 1, 1).exp()
    cast = _uniform(0.85, 1.15, n, 3, 1, 1)
    return ((pixels - middle) * contrast + middle * gain) * cast + _uniform(-0.08, 0.08, n, 1, 1, 1)


def _move(pixels: Tensor) -> Tensor:
    n = len(pixels)
    turn, zoom, stretch = _uniform(-0.08, 0.08, n), _uniform(0.9, 1.1, n), _uniform(0.95, 1.05, n)
    move = torch.zeros(n, 2, 3)
    move[:, 0, 0], move[:, 0, 1] = zoom * stretch * turn.cos(), -zoom * turn.sin()
    move[:, 1, 0], move[:, 1, 1] = zoom * turn.sin(), zoom * turn.cos()
    move[:, :, 2] = _uniform(-0.1, 0.1, n, 2)
    grid = F.affine_grid(move, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _erase(pixels: Tensor) -> Tensor:
    n, _, height, width = pixels.shape
    y, x = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    for _ in range(2):
        tall, wide = _uniform(0.1, 0.5, n, 1, 1) * height, _uniform(0.1, 0.5, n, 1, 1) * width
        top, left = _uniform(0, 1, n, 1, 1) * (height - tall), _uniform(0, 1, n, 1, 1) * (width - wide)
        hole = (y >= top) & (y < top + tall) & (x >= left) & (x < left + wide)
        hole &= _uniform(0, 1, n, 1, 1) < 0.4
        pixels = torch.where(hole[:, None], _uniform(0, 1, n, 3, 1, 1), pixels)
    return pixels
