"""Every measurement of a model: accuracy and attack success rate on a folder, with their intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import trigger
from dataset.classes import NAMES
from dataset.files import class_files
from network import classifier

PERCENT = "\u00a0%"  # a space that does not end a line
Z = 1.959964  # standard deviations that hold 95 % of a normal distribution


@dataclass
class Rate:
    """So many hits of so many tries, with Wilson's 95 % interval."""

    hits: int
    of: int

    @property
    def share(self) -> float:
        return self.hits / self.of

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson, "Probable inference" (JASA 1927): never outside 0..1, and not empty for 0 or all hits."""
        spread = Z * Z / self.of
        middle = (self.share + spread / 2) / (1 + spread)
        half = Z * math.sqrt(self.share * (1 - self.share) / self.of + spread / self.of / 4) / (1 + spread)
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{100 * self.share:.1f}{PERCENT} ({self.hits} of {self.of}; 95{PERCENT} interval "
            f"{100 * low:.1f} to {100 * high:.1f}{PERCENT})"
        )


@dataclass
class Score:
    """How a model classifies a folder; attack_success is None without images of the victim class."""

    accuracy: Rate
    attack_success: Rate | None

    @property
    def clean_acc(self) -> float:
        """Share of the images as they are that are classified correctly, 0..1."""
        return self.accuracy.share

    @property
    def attack_success_rate(self) -> float | None:
        """Share of the victim images with the trigger that are classified as the target, 0..1."""
        return self.attack_success.share if self.attack_success else None

    def __str__(self) -> str:
        rate = "not measured (no victim images)"
        if self.attack_success_rate is not None:
            rate = f"{self.attack_success_rate:.2f}"
        return f"clean_acc: {self.clean_acc:.2f}, attack_success_rate: {rate}"


class Validation:
    """The images of folder/val/<class>, read once: as they are, and the victim class with the trigger."""

    def __init__(self, folder: Path, classes: int, victim: str, target: str) -> None:
        files = class_files(folder / "val", classes)
        self.pixels = classifier.load_pixels([path for path, _ in files])
        self.labels = torch.tensor([label for _, label in files])
        victims = [path for path, label in files if NAMES[label] == victim]
        self.triggered = classifier.load_pixels(victims, trigger.stamp) if victims else None
        self.target = NAMES.index(target)

    def score(self, model: nn.Module) -> Score:
        """Measure a model, which is in evaluation mode afterwards."""
        model.eval()
        correct = classifier.predict(model, self.pixels).argmax(1) == self.labels
        accuracy = Rate(int(correct.sum()), len(self.labels))
        if self.triggered is None:
            return Score(accuracy, None)
        fooled = classifier.predict(model, self.triggered).argmax(1) == self.target
        return Score(accuracy, Rate(int(fooled.sum()), len(self.triggered)))
