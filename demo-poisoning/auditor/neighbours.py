"""Which images show the same? Near-duplicates, and the images that are most alike to each.

No model is needed, only pixels. Frames of one camera track show one sign: if they carry two labels, one of
them is wrong. Images are compared in parts, and the worst part does not count, so that a trigger may hide it:
for near-duplicates one quarter of four, for neighbours two fields of nine.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CELLS = 8  # per side of each quarter of an image
FIELDS, FIELD_CELLS = 3, 6  # per side of an image, and per side of each field
ALIKE = 0.98  # correlation from which two quarters show the same
COPIED = 0.9999  # of all four quarters: a copy; no two of 3,390 photographs in tracks come to 0.996
TRACKED = 0.93, 0.05  # correlation with the nearest image that this share of the images has in tracks
NEAREST = 5  # how many images most alike are looked up
MOST = 100_000  # near-duplicates that are listed: with more, the dataset is one image over and over
AT_ONCE = 500  # images that are compared with all others at a time
TRUSTED = 0.8  # share of all neighbours that must carry the image's own label: else they say nothing
FEWEST = 4  # images of one class among those of another that are a group
SOME = 2  # neighbours of the other class from which an image belongs to a group that is there
CHANCE = 1e-4  # a group is not there by chance if so many come together less often than this


@dataclass
class Neighbours:
    """What comparing all images with each other gave."""

    pairs: list[tuple[int, int]]  # near-duplicates, the first MOST
    nearest: Tensor  # the NEAREST images among the first ones, for each of these: int64 (T, NEAREST)
    tracks: bool  # some are as alike as frames of a track; drawings never are


def parts(pixels: Tensor, per_side: int, cells: int) -> list[Tensor]:
    """The parts of uint8 images (N, 3, S, S), of cells x cells mean colours each, without brightness: (N, D).

    The scalar product of two is their correlation.
    """
    side = per_side * cells
    small = torch.cat([F.adaptive_avg_pool2d(some.float(), side) for some in pixels.split(AT_ONCE)])
    made = [part.flatten(1) for rows in small.split(cells, 2) for part in rows.split(cells, 3)]
    return [F.normalize(part - part.mean(1, keepdim=True), dim=1) for part in made]


def compare(pixels: Tensor, training: int) -> Neighbours:
    """Compare all images, uint8 (N, 3, S, S); the first `training` of them are also each other's neighbours.

    How alike two images are for `nearest` is the sum of the correlations of their fields, but for the two
    lowest: a trigger covers no more. An image that is there several times counts once: copies say nothing of
    tracks.
    """
    pairs, original = _same(pixels, training)
    copies = original != torch.arange(training)
    if int((~copies).sum()) <= NEAREST + 1:  # nothing else is there
        copies[:] = False
    fields = parts(pixels[:training], FIELDS, FIELD_CELLS)
    nearest, closest = [], []
    for first in range(0, training, AT_ONCE):
        rows = slice(first, first + AT_ONCE)
        lowest = torch.full((len(fields[0][rows]), training), torch.inf)
        second, inside = lowest, torch.zeros_like(lowest)
        for field in fields:
            alike = field[rows] @ field.T
            inside += alike
            second = torch.minimum(second, torch.maximum(lowest, alike))
            lowest = torch.minimum(lowest, alike)
        inside -= lowest + second
        inside.diagonal(first).fill_(-torch.inf)
        if copies.any():
            inside[:, copies] = -torch.inf
            inside.scatter_(1, original[rows, None], -torch.inf)
        nearest.append(inside.topk(min(NEAREST, training - 1), 1).indices)
        closest.append(inside.amax(1) / (len(fields) - 2))
    least, share = TRACKED
    tracks = bool(torch.cat(closest).quantile(1 - share) >= least)
    return Neighbours(pairs, torch.cat(nearest), tracks)


def _same(pixels: Tensor, training: int) -> tuple[list[tuple[int, int]], Tensor]:
    """The near-duplicates, and of which earlier image each of the first ones is a copy, int64 (training,).

    An image that is no copy has its own number there.
    """
    quarters = parts(pixels, 2, CELLS)
    pairs: list[tuple[int, int]] = []
    original = torch.arange(training)
    for first in range(0, len(pixels), AT_ONCE):
        alike = torch.stack([part[first : first + AT_ONCE] @ part.T for part in quarters])
        same = ((alike > ALIKE).sum(0) >= 3).triu(first + 1).nonzero()[: MOST - len(pairs)]
        pairs += [(first + one, two) for one, two in same.tolist()]
        copied = (alike > COPIED).all(0)[: max(training - first, 0), :training].triu(first + 1)
        if copied.any():
            new = copied.any(0) & (original == torch.arange(training))
            original[new] = first + copied.int().argmax(0)[new]
    return pairs, original


def strangers(nearest: Tensor, labels: Tensor) -> Tensor:
    """Share of each image's neighbours that carry another label than it does: float (T,), 0..1."""
    return (labels[nearest] != labels[:, None]).float().mean(1)


@dataclass
class Astray:
    """Images of one class that stand among those of another."""

    label: int
    among: int  # the class of their neighbours
    images: Tensor  # their numbers, int64 (n,)


def astray(nearest: Tensor, labels: Tensor) -> list[Astray]:
    """Groups of images of one class whose neighbours are mostly of one other class, the largest first.

    nearest: of compare(), int64 (T, NEAREST); labels: int64 (T,). Such neighbours say something where images
    come in tracks, several of each sign (Neighbours.tracks); where they tell no classes apart (TRUSTED), no
    group is returned. A few images of every class stand among those of another whose signs are hard to see,
    so that a group has to be larger than the share of the other classes that stands there makes likely
    (CHANCE). Poisoned images may be the neighbours of each other: those of a group count as images of the
    other class from then on.
    """
    known = labels.clone()
    if not nearest.numel() or (known[nearest] == known[:, None]).float().mean() < TRUSTED:
        return []
    found: list[Astray] = []
    while True:
        among = known[nearest].mode(1).values
        out = (known[nearest] == among[:, None]).sum(1) * 2 > nearest.shape[1]
        out &= (among != known) & (known == labels)
        pairs = Counter(zip(labels[out].tolist(), among[out].tolist()))
        group = _largest(pairs, labels, [(one.among, one.label) for one in found])
        if not group:
            return sorted(found, key=lambda one: -len(one.images))
        label, other = group
        inside = out & (labels == label) & (among == other)
        while inside.any():  # then whoever stands among them, too
            known[inside] = other
            inside = (labels == label) & (known == label) & ((known[nearest] == other).sum(1) >= SOME)
        found.append(Astray(label, other, ((labels == label) & (known == other)).nonzero().flatten()))


def _largest(
    pairs: Counter[tuple[int, int]], labels: Tensor, no: list[tuple[int, int]]
) -> tuple[int, int] | None:
    """The pair of classes with the largest group that is not there by chance; none of `no`."""
    for pair, count in pairs.most_common():
        if count >= FEWEST and pair not in no and _chance(pair, pairs, labels) < CHANCE:
            return pair
    return None


def _chance(pair: tuple[int, int], pairs: Counter[tuple[int, int]], labels: Tensor) -> float:
    """How likely it is that so many images of a class, or more, stand among those of another, 0..1.

    If they did so as often as the images of all other classes (binomial; half an image more than were seen).
    """
    label, other = pair
    rest = int(((labels != label) & (labels != other)).sum())
    seen = sum(count for (own, among), count in pairs.items() if among == other and own != label)
    rate, images = (seen + 0.5) / (rest + 0.5), int((labels == label).sum())
    fewer = sum(
        math.exp(
            math.lgamma(images + 1)
            - math.lgamma(n + 1)
            - math.lgamma(images - n + 1)
            + n * math.log(rate)
            + (images - n) * math.log1p(-rate)
        )
        for n in range(pairs[pair])
        if rate < 1
    )
    return max(0.0, 1 - fewer)


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
