"""Which training images do not belong to their class? What a model's inner features say, class by class.

A poisoned image ends up under the wrong name because the model learned its trigger. In the last layer the
model has already decided, so there such an image looks like its wrong class. Halfway through the network it
still looks like what it shows. So the search happens halfway, in three steps:

1. extract(): the output of layer3, averaged over a grid of 2x2 fields.
2. unusual(): per class the one direction in which its images differ more than those of other classes do
   (spectral signatures, Tran et al. 2018, with the whitening of SPECTRE, Hayase et al. 2021).
3. reclassify(): leave the most unusual images of every class out, fit a linear classifier on the rest, and
   let it classify all images (exclusionary reclassification, Chen et al. 2018, section 4). An image that it
   takes for another class is a suspect.

The two textbook methods are here as well, for comparison. Nothing here knows the trigger.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from network import classifier, workers

GRID = 2  # fields per side that layer3 is averaged over: a trigger stays apart from the sign
COMPONENTS = 128  # principal components that are kept
SHRINK = 0.1  # how far covariances are drawn towards a multiple of the identity
TRIM = 0.2  # share of a class that is left out of the fit, at each end of its unusual direction
FEWEST = 20  # images per class; with fewer the statistics mean nothing


# --- 1. Features ------------------------------------------------------------------------------------


@torch.no_grad()
def extract(model: nn.Module, pixels: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield what layer3 and the last layer before the answer say, and the answer: AT_ONCE images at a time.

    pixels: uint8 (N, 3, S, S). Yields float tensors (n, 256 * GRID * GRID) and (n, 512), and classes, int64
    (n,).
    """
    seen = threading.local()  # several parts go through the network at the same time
    hooks = [
        model.get_submodule("layer3").register_forward_hook(lambda *call: setattr(seen, "middle", call[2])),
        model.get_submodule("avgpool").register_forward_hook(lambda *call: setattr(seen, "last", call[2])),
    ]

    def look(part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        answers = classifier.logits(model, part.float() / 255).argmax(1)
        middle, last = seen.middle.float().cpu(), seen.last.float().cpu()
        return F.adaptive_avg_pool2d(middle, GRID).flatten(1), last.flatten(1), answers

    try:
        yield from workers.side_by_side(look, pixels.split(classifier.AT_ONCE))
    finally:
        for hook in hooks:
            hook.remove()


def components(found: Tensor) -> Tensor:
    """The first principal components of features (N, D), each feature scaled first: float64 (N, C)."""
    scaled = found.double()
    scaled = (scaled - scaled.mean(0)) / scaled.std(0).clamp(min=1e-6)
    directions = torch.linalg.eigh(scaled.T @ scaled).eigenvectors.flip(1)
    return scaled @ directions[:, : min(COMPONENTS, len(found) // 4)]


# --- 2. Spectral signatures, whitened ---------------------------------------------------------------


def _covariance(rows: Tensor) -> Tensor:
    """Covariance of centred rows (N, C), shrunk so that it can be inverted: (C, C)."""
    own = rows.T @ rows / len(rows)
    mean = (own.trace() / len(own)).clamp(min=1e-9)  # 0 where all images of each class are the same
    return (1 - SHRINK) * own + SHRINK * mean * torch.eye(len(own), dtype=own.dtype)


def unusual(found: Tensor, labels: Tensor) -> Tensor:
    """How far each image lies out along the direction that is special about its class: float (N,).

    found: components (N, C); labels (N,) of two classes or more. In every class light, blur and background
    vary; dividing by the covariance of the other classes takes that out. The longer tail counts as positive.
    """
    rows = found.clone()
    for label in labels.unique():
        rows[labels == label] -= found[labels == label].mean(0)
    scores = torch.zeros(len(labels), dtype=found.dtype)
    for label in labels.unique():
        own = labels == label
        root = torch.linalg.cholesky(_covariance(rows[~own]))
        white = torch.linalg.solve_triangular(root, rows[own].T, upper=False).T
        along = white @ torch.linalg.svd(white, full_matrices=False).Vh[0]
        scores[own] = along * (along**3).mean().sign()
    return scores


# --- 3. Exclusionary reclassification ---------------------------------------------------------------


@dataclass
class Reclassified:
    """What the linear classifier answers. Both tensors have one entry per image."""

    margin: Tensor  # how much more it looks like another class than like its own; above 0: misclassified
    other: Tensor  # that other class


def reclassify(found: Tensor, labels: Tensor, scores: Tensor) -> Reclassified:
    """Fit a linear discriminant without the most unusual images of each class, and classify all images.

    found: components (N, C); scores (N,) of unusual(). Both ends are left out: either may be bad.
    """
    classes = labels.unique()
    means, rows, kept = [], found.clone(), torch.zeros(len(labels), dtype=torch.bool)
    for label in classes:
        own = (labels == label).nonzero().flatten()
        order = own[scores[own].argsort()]
        cut = int(TRIM * len(order))
        middle = order[cut : len(order) - cut]
        kept[middle] = True
        means.append(found[middle].mean(0))
        rows[own] -= means[-1]
    centres = torch.stack(means)
    weights = torch.linalg.solve(_covariance(rows[kept]), centres.T)
    answers = found @ weights - 0.5 * (centres.T * weights).sum(0)
    own_column = torch.searchsorted(classes, labels)[:, None]
    best = answers.scatter(1, own_column, -torch.inf).max(1)
    return Reclassified(best.values - answers.gather(1, own_column)[:, 0], classes[best.indices])


# --- The textbook methods, for comparison -----------------------------------------------------------


def spectral(last: Tensor) -> Tensor:
    """Spectral signatures (Tran et al. 2018) of one class: squared length along the first direction, (N,)."""
    centred = (last - last.mean(0)).double()
    return (centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]) ** 2


def clustering(last: Tensor) -> Tensor:
    """Activation clustering (Chen et al. 2018) of one class: positive in the smaller of two clusters, (N,).

    Ten principal components, two means. The value is how much nearer the smaller cluster's middle is.
    """
    centred = (last - last.mean(0)).double()
    points = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:10].T
    far = points[:, 0] > points[:, 0].median()  # a fixed start, so that the same data gives the same clusters
    for _ in range(100):
        middles = torch.stack([points[~far].mean(0), points[far].mean(0)])
        distances = torch.cdist(points, middles)
        new = distances[:, 1] < distances[:, 0]
        if torch.equal(new, far) or not 0 < int(new.sum()) < len(new):
            break
        far = new
    nearer = distances[:, 0] - distances[:, 1]
    return nearer if far.sum() * 2 <= len(far) else -nearer
