"""What an audit finds, as data: suspects, groups, strays and triggers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dataset import manifest

ERRORS = 0.01  # share of all images from which scattered label errors are a finding
FEWEST = 4  # images that a group needs

TRIGGER, STRAY, GROUP = "trigger", "stands among another class", "looks like another class"  # for a flag
ERROR = "label error"


@dataclass
class Suspect:
    """An image of train/, with what speaks against it."""

    file: str  # relative to the dataset, with "/"
    label: str
    looks_like: str = ""  # the class that the inner features suggest
    score: float = 0.0  # margin of features.reclassify(): above 0, it looks more like that class
    strength: float = 0.0  # among the images flagged for the same reason: high ones come first
    changed: str = ""  # "added" or "modified" since the manifest
    reason: str = ""  # TRIGGER, STRAY, GROUP or ERROR
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
class Stray:
    """Images of one class whose neighbours are of another, as if frames of one track had two labels."""

    label: str
    among: str  # the class of the neighbours
    images: int


@dataclass
class Trigger:
    """A small spot that decides about some images of a class: a backdoor."""

    label: str
    looks_like: str  # the class that these images look like when the spot is hidden
    place: str  # in words
    box: tuple[float, float, float, float]  # left, top, right, bottom as shares of the image, 0..1
    images: int
    works: float  # share of images of the other class that take the label with such a spot pasted, 0..1
    elsewhere: float  # the same with that spot of other images of the class, 0..1
    stray: bool = False  # its images stand among those of the other class; nobody tried to hide the spot


@dataclass
class Audit:
    """All that was found. `ranking` holds every image of train/, most suspicious first."""

    ranking: list[Suspect]
    changes: manifest.Changes | None = None
    manifest_sha256: str | None = None  # of the manifest file, so that a statement can name it
    expected: dict[str, int] = field(default_factory=dict)  # images per class, from the manifest
    triggers: list[Trigger] = field(default_factory=list)  # the one with the most images first
    groups: list[Group] = field(default_factory=list)  # flagged ones first, then the clearest
    tracks: bool = False  # whether images come in tracks, so that neighbours can be asked
    strays: list[Stray] = field(default_factory=list)  # the one with the most images first
    errors: int = 0  # images that look mislabelled one by one
    duplicates: list[tuple[str, str]] = field(default_factory=list)  # files that show the same
    measured: list[dict[str, Any]] = field(default_factory=list)  # hits() of each method, ours last

    def kinds(self) -> list[str]:
        """What was found, in the order of weight: changes, backdoor, wrong labels, duplicates."""
        changes = self.changes
        found = {
            "changed files": changes and (changes.added or changes.removed or changes.modified),
            "backdoor": self.triggers,
            "wrong labels in one direction": self.one_way() or self.unexplained(),
            "scattered label errors": self.scattered(),
            "one image under two labels": conflicts(self.duplicates),
        }
        return [kind for kind, what in found.items() if what]

    def one_way(self) -> list[Group]:
        """The flagged groups that no trigger explains."""
        return [one for one in self.groups if one.flagged and (one.label, one.looks_like) not in self.pairs()]

    def unexplained(self) -> list[Stray]:
        """The strays that no trigger explains."""
        return [one for one in self.strays if (one.label, one.among) not in self.pairs()]

    def pairs(self) -> set[tuple[str, str]]:
        """Label and true class of each trigger."""
        return {(trigger.label, trigger.looks_like) for trigger in self.triggers}

    def scattered(self) -> bool:
        """Whether there are enough label errors to be a finding; every real dataset has a few."""
        return self.errors >= max(FEWEST, ERRORS * len(self.ranking))

    def findings(self) -> int:
        """How many kinds of things were found."""
        return len(self.kinds())


def label_of(file: str) -> str:
    """The class in train/<class>/<name> or val/<class>/<name>."""
    return file.split("/")[1]


def conflicts(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those near-duplicates that carry two different labels."""
    return [(one, two) for one, two in pairs if label_of(one) != label_of(two)]
