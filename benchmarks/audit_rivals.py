"""Other methods that rank training images by suspicion, asked about the same sets as our audit.

Helper module of audit.py, not a command. cleanlab is asked if it is installed.
"""

from __future__ import annotations

import numpy as np
import torch
from audit_sets import Spec
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch import Tensor

# isort: split  (audit_sets puts demo-poisoning on the path)
from auditor import checks, features
from dataset.classes import DRAWN

try:
    from cleanlab.rank import get_label_quality_scores
except ImportError:  # not among what the workshop needs
    get_label_quality_scores = None


def spectre(rows: Tensor, share: float) -> Tensor:
    """SPECTRE (Hayase et al. 2021) of one class, float (N,): high is suspicious. rows: features (N, D).

    Algorithms 1 to 3 with a trimmed estimate in place of their robust one: 10 components, whitening by the
    covariance of the middle images, and quantum entropy scores (alpha 4). share: of bad images, which it is
    told.
    """
    centred = (rows - rows.mean(0)).double()
    count = min(10, len(rows) // 4)
    points = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:count].T
    kept = torch.ones(len(points), dtype=torch.bool)
    for _ in range(10):
        middle = points[kept].mean(0)
        covariance = torch.cov(points[kept].T) + 1e-6 * torch.eye(count, dtype=points.dtype)
        white = torch.linalg.solve_triangular(
            torch.linalg.cholesky(covariance), (points - middle).T, upper=False
        ).T
        distance = white.square().sum(1)
        kept = distance <= distance.quantile(max(0.5, 1 - 1.5 * share))
    excess = white.T @ white / len(white)
    excess = excess - torch.eye(count, dtype=points.dtype)
    weight = torch.linalg.matrix_exp(4 * excess / torch.linalg.matrix_norm(excess, 2).clamp(min=1e-9))
    return (white @ weight * white).sum(1)


def cleanlab_scores(middle: Tensor, labels: Tensor, seed: int) -> Tensor | None:
    """Label quality by cleanlab from out-of-fold logistic regression on our features; high is suspicious."""
    if get_label_quality_scores is None:
        return None
    rows = features.components(middle).numpy()
    rows = rows / rows.std()
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    known = np.unique(labels.numpy(), return_inverse=True)[1]
    guessed = cross_val_predict(
        LogisticRegression(max_iter=200), rows, known, cv=folds, method="predict_proba"
    )
    return torch.tensor(1 - get_label_quality_scores(known, guessed))


def rivals(
    spec: Spec, images: tuple[list[str], Tensor], bad: list[list[str]], seen: tuple[Tensor, Tensor]
) -> dict[str, list[float]]:
    """Recall among the first 1.5 n of each rival, attack by attack; all but cleanlab are told the class."""
    (files, labels), (middle, last) = images, seen
    found: dict[str, list[float]] = {}
    quality = cleanlab_scores(middle, labels, spec.number)
    if quality is not None:
        order = [files[i] for i in quality.argsort(descending=True, stable=True).tolist()]
        everything = {name for names in bad for name in names}
        found["cleanlab, not told the class"] = [checks.hits(order, everything)["recall_at_1.5n"]]
    for (_, (_, target)), names in zip(spec.attacks, bad):
        own = (labels == DRAWN.index(target)).nonzero().flatten()
        share = len(names) / len(own)
        methods = {
            "spectral signatures, last layer": features.spectral(last[own]),
            "spectral signatures, layer3": features.spectral(middle[own]),
            "activation clustering, last layer": features.clustering(last[own]),
            "activation clustering, layer3": features.clustering(middle[own]),
            "SPECTRE, last layer": spectre(last[own], share),
            "SPECTRE, layer3": spectre(middle[own], share),
        }
        for method, score in methods.items():
            order = [files[own[i]] for i in score.argsort(descending=True, stable=True).tolist()]
            found.setdefault(method, []).append(checks.hits(order, set(names))["recall_at_1.5n"])
    return found
