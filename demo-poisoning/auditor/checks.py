"""The checks of a dataset, all its images ranked, and the ranking measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auditor import features
from auditor.findings import (
    ERROR,
    FEWEST,
    GROUP,
    STRAY,
    TRIGGER,
    Audit,
    Group,
    Stray,
    Suspect,
    Trigger,
    label_of,
)
from auditor.neighbours import Astray, Neighbours, astray
from auditor.occlusion import Members, Spot
from dataset import manifest
from dataset.classes import NAMES
from network.classifier import INPUT

# A group stands out if it is this share of its class; docs/poisoning/data.md says how it works.
STANDS_OUT = 0.025  # of images that clearly look like one other class
MANY = 0.15  # of images that look like it at all: so many bad ones teach the classifier, and none is clear
STRANGE = 0.3  # and if so many of their neighbours have another label: else they show one odd sign
DECIDED = 0.75  # and if the model learned their label, or gives at least so many of them the other class
CLEARLY = 0.3  # of the margin by which images usually look like their own class: look-alikes have less
MORE = 1.5  # flag this many times the images of a group: Tran et al. 2018 remove as many


# --- The checks -------------------------------------------------------------------------------------


def check_manifest(audit: Audit, folder: Path, trusted: dict[str, str]) -> None:
    """Compare the files with the manifest, and the number of training images per class."""
    audit.changes = manifest.compare(trusted, manifest.checksums(folder))
    audit.expected = dict(Counter(label_of(name) for name in trusted if name.startswith("train/")))
    for what, names in (("added", audit.changes.added), ("modified", audit.changes.modified)):
        for suspect in audit.ranking:
            if suspect.file in names:
                suspect.changed, suspect.flagged = what, True


def check_duplicates(audit: Audit, files: list[str], pairs: list[tuple[int, int]]) -> None:
    """Note the images that show the same; `files` may lie in val/, too."""
    audit.duplicates = [(files[one], files[two]) for one, two in pairs]


def check_neighbours(audit: Audit, alike: Neighbours, labels: Tensor) -> list[Astray]:
    """Flag the images that stand among those of another class, and return them. Before all that asks a model.

    alike: of neighbours.compare(); labels: int64 (N,). Where images come in no tracks, there are none.
    """
    audit.tracks = alike.tracks
    found = astray(alike.nearest, labels) if alike.tracks else []
    for group in found:
        audit.strays.append(Stray(NAMES[group.label], NAMES[group.among], len(group.images)))
        shares = (labels[alike.nearest[group.images]] == group.among).float().mean(1)
        for number, share in zip(group.images.tolist(), shares.tolist()):
            suspect = audit.ranking[number]
            suspect.flagged, suspect.reason, suspect.strength = True, STRAY, share
            suspect.looks_like = NAMES[group.among]
    return found


def check_triggers(audit: Audit, found: Iterable[tuple[Spot, Members]]) -> None:
    """Flag the images that carry a trigger, after check_features(). found: what occlusion.search yields.

    It says which images they are better than the group does that they make, so that one's flags go.
    """
    taken: set[int] = set()
    everything = sorted(found, key=lambda one: -int(one[1].carry.sum()))
    for spot, members in everything:
        chosen = members.carry
        numbers = members.images[chosen].tolist()
        if len(taken.intersection(numbers)) * 2 > len(numbers):
            continue  # another spot of the same images
        taken.update(numbers)
        audit.triggers.append(describe(spot, len(numbers)))
        for number, strength in zip(numbers, members.strength[chosen].tolist()):
            suspect = audit.ranking[number]
            suspect.flagged, suspect.reason, suspect.strength = True, TRIGGER, strength
            suspect.looks_like = NAMES[spot.looks_like]
    left = {group.label for group in audit.one_way()}
    for suspect in audit.ranking:
        if suspect.reason == GROUP and suspect.label not in left:
            suspect.flagged, suspect.reason = bool(suspect.changed), ""


def check_errors(audit: Audit, margin: Tensor, labels: Tensor, answers: Tensor) -> None:
    """Flag scattered label errors, if they are a finding; last of all checks.

    margin: of check_features(), (N,); answers: the model's own, (N,). An image looks mislabelled if it
    clearly looks like another class halfway, or a little and the model itself gives this answer.
    """
    looks = torch.tensor([NAMES.index(suspect.looks_like) for suspect in audit.ranking])
    wrong = (margin > CLEARLY) | ((margin > 0) & (answers != labels) & (answers == looks))
    rest = [n for n in wrong.nonzero().flatten().tolist() if not audit.ranking[n].reason]
    audit.errors = len(rest)
    if audit.scattered():
        for number in rest:
            suspect = audit.ranking[number]
            suspect.flagged, suspect.reason, suspect.strength = True, ERROR, suspect.score


def describe(spot: Spot, images: int) -> Trigger:
    """A spot as people and programs read it."""
    across, down = (min(2, 3 * (start + spot.side // 2) // INPUT) for start in (spot.left, spot.top))
    words = (("top", "", "bottom")[down], ("left", "", "right")[across])
    edges = (spot.left, spot.top, spot.left + spot.side, spot.top + spot.side)
    left, top, right, bottom = (round(edge / INPUT, 3) for edge in edges)
    return Trigger(
        NAMES[spot.label],
        NAMES[spot.looks_like],
        "-".join(filter(None, words)) or "middle",
        (left, top, right, bottom),
        images,
        round(spot.works, 3),
        round(spot.elsewhere, 3),
        spot.stray,
    )


def check_features(
    audit: Audit,
    middle: Tensor,
    labels: Tensor,
    strange: Tensor | None = None,
    answers: Tensor | None = None,
) -> Tensor:
    """Find images that look like another class than their own. Returns how suspicious each is, (N,).

    middle: features of layer3, (N, D). strange: neighbours.strangers(), (N,). answers: the model's own, (N,).
    A model gives images with a trigger the label that they carry, and those with a wrong label the other
    class. Of signs too far away to tell, it gives some to each, the clearest to the other: no finding.
    """
    found = features.components(middle)
    spread = features.unusual(found, labels)
    answer = features.reclassify(found, labels, spread)
    sizes = Counter(labels.tolist())
    usual = max(-answer.margin.median().item(), 1e-6)
    clearly = answer.margin > CLEARLY * usual

    for own in sizes:
        for other, count in Counter(answer.other[(labels == own) & (answer.margin > 0)].tolist()).items():
            inside = (labels == own) & (answer.margin > 0) & (answer.other == other)
            clear, share = int((inside & clearly).sum()) / sizes[own], count / sizes[own]
            astray = strange is None or bool(strange[inside].mean() >= STRANGE)
            flagged = count >= FEWEST and astray and (clear >= STANDS_OUT or share >= MANY)
            if answers is not None:
                learned = inside & (answers == labels)
                enough = int((learned & clearly).sum()) >= max(FEWEST, STANDS_OUT * sizes[own])
                enough |= int(learned.sum()) >= MANY * sizes[own]
                disbelieved = bool((answers[inside] == other).float().mean() >= DECIDED)
                flagged = flagged and (enough or disbelieved)
            audit.groups.append(Group(NAMES[own], NAMES[other], count, share, clear, flagged))
    audit.groups.sort(key=lambda one: (not one.flagged, -one.clear, -one.share, one.label, one.looks_like))
    for number, suspect in enumerate(audit.ranking):
        if suspect.reason != STRAY:
            suspect.looks_like = NAMES[int(answer.other[number])]
        suspect.score = answer.margin[number].item()
    for group in audit.groups:
        if group.flagged:
            flag(audit, group, spread)
    return answer.margin / usual


def flag(audit: Audit, group: Group, spread: Tensor) -> None:
    """Flag the outermost images of a class, at the end where the group lies. spread: features.unusual().

    The classifier says that there is a group, and at which end; the direction says better who belongs to it,
    unless the neighbours have said that.
    """
    if (group.label, group.looks_like) in {(one.label, one.among) for one in audit.strays}:
        return
    own = [number for number, suspect in enumerate(audit.ranking) if suspect.label == group.label]
    inside = [audit.ranking[n].score > 0 and audit.ranking[n].looks_like == group.looks_like for n in own]
    values = spread[own] / spread[own].std()
    values = values * (values[torch.tensor(inside)].mean() - values.median()).sign()
    for place, number in enumerate(values.argsort(descending=True, stable=True).tolist()):
        suspect = audit.ranking[own[number]]
        suspect.strength = values[number].item()
        if place < MORE * group.images:
            suspect.flagged, suspect.reason = True, GROUP


def rank(audit: Audit) -> None:
    """Most suspicious first: changed files, then flagged ones by their reason, then the margins."""
    order = {group.label: number for number, group in reversed(list(enumerate(audit.groups)))}
    order |= {trigger.label: number for number, trigger in reversed(list(enumerate(audit.triggers)))}
    order |= {stray.label: number for number, stray in reversed(list(enumerate(audit.strays)))}
    reasons = [TRIGGER, STRAY, GROUP, ERROR, ""]

    def key(one: Suspect) -> tuple[bool, bool, int, int, float, str]:
        if not one.flagged:
            return True, True, 0, 0, -one.score, one.file
        inside = 0 if one.reason == ERROR else order.get(one.label, 0)
        return False, not one.changed, reasons.index(one.reason), inside, -one.strength, one.file

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
