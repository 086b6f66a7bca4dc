"""Do some images of a class lie apart from the others in the last layer, and hang on one place of the image?

Many poisoned images no longer stand out as rare ones, and a trigger in the middle of the sign cannot be told
from the sign by pasting: the middle of any image of the class does what the trigger does. But the model knows
them by the trigger, the others by the sign, so in the last layer they are two clusters (activation
clustering, Chen et al. 2018). Two questions, class by class:

1. divided(): is the smaller cluster small enough, and far enough from the larger one (the paper's relative
   size and silhouette score)?
2. hanging(): is there a place that, hidden, makes clearly more of the smaller cluster than of the larger one
   look like one other class?

Nothing here knows the trigger.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from auditor import features
from auditor.occlusion import LARGE, STEP, hide
from network import classifier

SMALLER = 0.4  # share of the class, at most: natural clusters are about as large as each other
FEWEST = 4  # images of a cluster
SILHOUETTE = 0.4  # at least
LEAD = 0.35  # at least: share of the smaller cluster that takes the other class, minus that of the larger one
EACH = 40  # images of either cluster that are tried
AT_MOST = 1000  # images of a class whose distances are measured


@dataclass
class Cluster:
    """Images of one class that lie apart from the others of it."""

    label: int
    images: Tensor  # their numbers, (n,)
    strength: Tensor  # how much nearer to the middle of their cluster, (n,)
    others: Tensor  # numbers of the other images of the class
    silhouette: float  # mean of the class, -1..1
    looks_like: int = -1  # the class that they look like where the place is hidden
    top: int = 0  # pixels of the network's input
    left: int = 0
    lead: float = 0.0  # share of them that do, minus that of the others, 0..1


def silhouette(points: Tensor, small: Tensor) -> float:
    """Mean silhouette score (Rousseeuw 1987) of two clusters: points (N, D), small bool (N,).

    By hand: for these lines scikit-learn would be one more package of the demo.
    """
    points, small = points[:: -(-len(points) // AT_MOST)], small[:: -(-len(small) // AT_MOST)]
    distances = torch.cdist(points, points)
    sums = torch.stack([distances[:, ~small].sum(1), distances[:, small].sum(1)])
    sizes = torch.stack([(~small).sum(), small.sum()]).to(points.dtype)[:, None].repeat(1, len(points))
    own = small.long()[None]
    inside = sums.gather(0, own) / (sizes.gather(0, own) - 1).clamp(min=1)
    outside = sums.gather(0, 1 - own) / sizes.gather(0, 1 - own).clamp(min=1)
    return ((outside - inside) / torch.maximum(outside, inside).clamp(min=1e-12)).mean().item()


def divided(last: Tensor, labels: Tensor, label: int) -> Cluster | None:
    """Step 1: the smaller cluster of a class, if it is small and apart. last: float (N, D), labels (N,)."""
    own = (labels == label).nonzero().flatten()
    nearer = features.clustering(last[own])
    small = nearer > 0
    if not FEWEST <= int(small.sum()) <= SMALLER * len(own):
        return None
    score = silhouette(features.main_components(last[own]), small)
    return Cluster(label, own[small], nearer[small], own[~small], score) if score >= SILHOUETTE else None


def hanging(model: nn.Module, pixels: Tensor, answers: Tensor, cluster: Cluster) -> Cluster | None:
    """Step 2: the same cluster with the place that it hangs on, if there is one.

    pixels: uint8 (N, 3, S, S); answers: int64 (N,), the model's. Images with another answer than their label
    are left out: nothing can be said of them.
    """
    parts = [part[answers[part] == cluster.label][:EACH] for part in (cluster.images, cluster.others)]
    if min(map(len, parts)) < FEWEST:
        return None
    edges = range(0, pixels.shape[-1] - LARGE + 1, STEP)
    best = cluster
    for top, left in itertools.product(edges, edges):
        shares = []
        for part in parts:
            seen = classifier.all_logits(model, hide(pixels[part], top, left, LARGE))
            shares.append(seen.argmax(1).bincount(minlength=seen.shape[1]) / len(part))
        lead = shares[0] - shares[1]
        lead[cluster.label] = 0
        if lead.max() > best.lead:
            best = replace(best, looks_like=int(lead.argmax()), top=top, left=left, lead=float(lead.max()))
    return best if best.lead >= LEAD else None


def apart(model: nn.Module, pixels: Tensor, labels: Tensor, answers: Tensor, last: Tensor) -> list[Cluster]:
    """The clusters of all classes that lie apart and hang on one place, the largest first.

    pixels: uint8 (N, 3, S, S); labels, answers: int64 (N,), answers being the model's; last: float (N, D),
    what the last layer before the answer says.
    """
    found = [divided(last, labels, label) for label in labels.unique().tolist()]
    shown = [hanging(model, pixels, answers, one) for one in found if one]
    return sorted(filter(None, shown), key=lambda one: (-len(one.images), one.label))
