"""The audit as data: three checks of a dataset, all its images ranked, and the ranking measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auditor import features
from dataset import manifest
from dataset.classes import NAMES

# A group stands out if it is this share of its class; the README says how the figures were chosen.
STANDS_OUT = 0.025  # of images that clearly look like one other class
MANY = 0.15  # of images that look like it at all: so many bad ones teach the classifier, and none is clear
CLEARLY = 0.3  # of the margin by which images usually look like their own class: look-alikes have less
MORE = 1.5  # flag this many times the images of a group: Tran et al. 2018 remove as many


@dataclass
class Suspect:
    """An image of train/, with what speaks against it."""

    file: str  # relative to the dataset, with "/"
    label: str
    looks_like: str = ""  # the class that the inner features suggest
    score: float = 0.0  # margin of features.reclassify(): above 0, it looks more like that class
    unusual: float = 0.0  # features.unusual() in deviations; high at the end where a flagged group lies
    changed: str = ""  # "added" or "modified" since the manifest
    flagged: bool = False


@dataclass
class Group:
    """The images of one class that look like one other class."""

    label: str
    looks_like: str
    images: int
    share: float  # of the class, 0..1
    clear: float  # share of the class that looks so clearly, 0..1
    flagged: bool


@dataclass
class Audit:
    """All that was found. `ranking` holds every image of train/, most suspicious first."""

    ranking: list[Suspect]
    changes: manifest.Changes | None = None
    manifest_sha256: str | None = None  # of the manifest file, so that a statement can name it
    expected: dict[str, int] = field(default_factory=dict)  # images per class, from the manifest
    groups: list[Group] = field(default_factory=list)  # flagged ones first, then the clearest
    duplicates: list[tuple[str, str]] = field(default_factory=list)  # files that show the same
    measured: list[dict[str, Any]] = field(default_factory=list)  # hits() of each method, ours last

    def findings(self) -> int:
        """How many things were found: changes, groups that stand out, the same image under two labels."""
        changed = self.changes.added + self.changes.removed + self.changes.modified if self.changes else []
        return len(changed) + sum(g.flagged for g in self.groups) + len(conflicts(self.duplicates))


def label_of(file: str) -> str:
    """The class in train/<class>/<name> or val/<class>/<name>."""
    return file.split("/")[1]


def conflicts(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those near-duplicates that carry two different labels."""
    return [(one, two) for one, two in pairs if label_of(one) != label_of(two)]


# --- The three checks -------------------------------------------------------------------------------


def check_manifest(audit: Audit, folder: Path, trusted: dict[str, str]) -> None:
    """Compare the files with the manifest, and the number of training images per class."""
    audit.changes = manifest.compare(trusted, manifest.checksums(folder))
    audit.expected = dict(Counter(label_of(name) for name in trusted if name.startswith("train/")))
    for what, names in (("added", audit.changes.added), ("modified", audit.changes.modified)):
        for suspect in audit.ranking:
            if suspect.file in names:
                suspect.changed, suspect.flagged = what, True


def check_duplicates(audit: Audit, files: list[str], pixels: Tensor) -> None:
    """Find images that show the same. pixels: uint8 (N, 3, S, S) of `files`, which may lie in val/, too."""
    audit.duplicates = [(files[one], files[two]) for one, two in features.duplicates(pixels)]


def check_features(audit: Audit, middle: Tensor, labels: Tensor) -> None:
    """Find images that look like another class than their own. middle: features of layer3, (N, D)."""
    found = features.components(middle)
    spread = features.unusual(found, labels)
    answer = features.reclassify(found, labels, spread)
    sizes = Counter(labels.tolist())
    usual = -answer.margin.median().item()

    def misread(margin: float) -> Counter[tuple[int, int]]:
        bad = (answer.margin > margin).nonzero().flatten()
        return Counter(zip(labels[bad].tolist(), answer.other[bad].tolist()))

    clearly = misread(CLEARLY * max(usual, 0))
    for (own, other), count in misread(0).items():
        clear = clearly[own, other] / sizes[own]
        share = count / sizes[own]
        flagged = clear >= STANDS_OUT or share >= MANY
        audit.groups.append(Group(NAMES[own], NAMES[other], count, share, clear, flagged))
    audit.groups.sort(key=lambda one: (not one.flagged, -one.clear, -one.share, one.label, one.looks_like))
    for number, suspect in enumerate(audit.ranking):
        suspect.looks_like = NAMES[int(answer.other[number])]
        suspect.score = answer.margin[number].item()
    for group in audit.groups:
        if group.flagged:
            flag(audit, group, spread)


def flag(audit: Audit, group: Group, spread: Tensor) -> None:
    """Flag the outermost images of a class, at the end where the group lies. spread: features.unusual().

    The classifier says that there is a group, and at which end; the direction says better who belongs to it.
    """
    own = [number for number, suspect in enumerate(audit.ranking) if suspect.label == group.label]
    inside = [audit.ranking[n].score > 0 and audit.ranking[n].looks_like == group.looks_like for n in own]
    values = spread[own] / spread[own].std()
    values = values * (values[torch.tensor(inside)].mean() - values.median()).sign()
    for place, number in enumerate(values.argsort(descending=True, stable=True).tolist()):
        suspect = audit.ranking[own[number]]
        suspect.unusual = values[number].item()
        suspect.flagged = suspect.flagged or place < MORE * group.images


def rank(audit: Audit) -> None:
    """Most suspicious first: changed files, then the flagged ones of the largest group, then the margins."""
    order = {group.label: number for number, group in reversed(list(enumerate(audit.groups)))}

    def key(one: Suspect) -> tuple[bool, bool, int, float, str]:
        if one.flagged:
            return not one.changed, False, order.get(one.label, 0), -one.unusual, one.file
        return True, True, 0, -one.score, one.file

    audit.ranking.sort(key=key)


# --- Measured against the truth ---------------------------------------------------------------------


def hits(names: list[str], truth: set[str]) -> dict[str, Any]:
    """Precision among the first n and the first 1.5 n, and recall there; n = number of poisoned images."""
    n = len(truth)
    first, more = sum(name in truth for name in names[:n]), sum(name in truth for name in names[: n * 3 // 2])
    return {"k": n, "precision_at_n": first / n, "recall_at_1.5n": more / n}


def measure(audit: Audit, truth: set[str], files: list[str], seen: tuple[Tensor, Tensor, Tensor]) -> None:
    """Compare the ranking, and those of the single methods, with the truth.

    seen: features of layer3, of the last layer, and labels, in the order of `files`. The textbook methods
    rank one class at a time, so they are told the right class; ours has to find it among all.
    """
    middle, last, labels = seen
    label = Counter(label_of(name) for name in truth).most_common(1)[0][0]
    own = labels == NAMES.index(label)
    names = [name for name, inside in zip(files, own.tolist()) if inside]
    found = features.components(middle)
    methods = {
        "spectral signatures, last layer": features.spectral(last[own]),
        "activation clustering, last layer": features.clustering(last[own]),
        "spectral signatures, layer3": features.spectral(middle[own]),
        "activation clustering, layer3": features.clustering(middle[own]),
        "whitened spectral signatures, layer3": features.unusual(found, labels)[own],
    }
    for method, score in methods.items():
        order = score.argsort(descending=True, stable=True).tolist()
        told = {"method": f"{method}, told the class ({label})"}
        audit.measured.append(told | hits([names[i] for i in order], truth))
    order_of_all = [suspect.file for suspect in audit.ranking]
    audit.measured.append({"method": "our ranking, all classes"} | hits(order_of_all, truth))
