"""What the report page shows about both models, as data: figures with intervals, readings, and pictures."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

import classifier
import cli
import dataset
import describe
import scan_file
import trigger
from classes import NAMES
from finished_scan import Pair, Scan
from neural_cleanse import Trigger
from train import Score, Validation

VICTIMS, OTHERS = 2, 2  # example pictures: of the victim class, and one each of so many other classes
PERCENT = "\u00a0%"  # a space that does not end a line
Z = 1.959964  # standard deviations that hold 95 % of a normal distribution

Files = list[tuple[Path, int]]  # picture files with their class numbers


# --- Figures with their uncertainty -------------------------------------------------------------------


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


def rates(score: Score) -> tuple[Rate, Rate | None]:
    """Clean accuracy and attack success rate as counts; the second is None without victim pictures."""
    accuracy = Rate(round(score.clean_acc * score.pictures), score.pictures)
    if score.attack_success_rate is None:
        return accuracy, None
    return accuracy, Rate(round(score.attack_success_rate * score.victims), score.victims)


# --- What the page holds -----------------------------------------------------------------------------


@dataclass
class Model:
    """One of the two models, with everything that the page says about it."""

    label: str  # "Clean model" or "Poisoned model": what the person who made this report calls it
    file: Path
    network: nn.Module
    scan: Scan
    accuracy: Rate
    success: Rate | None  # of the attack; None without pictures of the victim class


@dataclass
class Picture:
    """A picture inside the page: a data: URI, and the same in words."""

    source: str
    alt: str


@dataclass
class Reading:
    """What one model reads on one picture."""

    label: str  # of the model
    answer: str  # class name
    confidence: float  # 0..1
    right: bool


@dataclass
class Side:
    """A picture without or with the true sticker, and what the models read on it."""

    how: str
    picture: Picture
    readings: list[Reading]


@dataclass
class Example:
    """The same picture twice: without and with the true sticker."""

    name: str  # its class
    file: str
    sides: list[Side]


@dataclass
class Recovered:
    """A trigger that a scan has drawn, and what can be measured about it."""

    model: Model  # the one that was scanned
    pair: Pair
    pictures: list[Picture]
    overlap: float  # with the place of the true sticker, 0..1
    fooled: list[tuple[str, Rate]]  # label of each model, and the pictures that it reads as the target


# --- Measuring ----------------------------------------------------------------------------------------


def open_model(label: str, file: Path | None, scan: Scan) -> Model:
    """Load the model that was scanned, and no other: the checksum has to be that of the scan."""
    file = file or scan.model
    network = classifier.load_model(file)
    if scan_file.sha256(file) != scan.sha256:
        raise cli.UserError(
            f"{file} is not the file that {scan.folder}/scan.json is about: scan it again with detect.py."
        )
    if classifier.class_count(network) != len(scan.classes):
        raise cli.UserError(f"{scan.folder}/scan.json names other classes than {file} knows: scan it again.")
    return Model(label, file, network, scan, Rate(0, 1), None)


def measure(model: Model, validation: Validation) -> None:
    """Fill in accuracy and attack success rate."""
    model.accuracy, model.success = rates(validation.score(model.network))


def fooled(model: Model, found: Trigger, pixels: Tensor) -> Rate:
    """How many pictures of the victim class, uint8 (N, 3, S, S), a recovered trigger sends to its target."""
    stamped = (255 * found.stamp(pixels.float() / 255)).round().to(torch.uint8)
    answers = classifier.predict(model.network, stamped).argmax(1)
    return Rate(int((answers == found.target).sum()), len(pixels))


def inline(image: Image.Image, alt: str) -> Picture:
    """An RGB picture as a PNG inside the page."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return Picture("data:image/png;base64," + base64.b64encode(stream.getvalue()).decode(), alt)


def true_trigger() -> Trigger:
    """The sticker of trigger.py as a Trigger: opaque where it hides what is below, black or white."""
    black, white = (
        F.to_image(trigger.stamp(Image.new("RGB", (trigger.PICTURE, trigger.PICTURE), colour))).float() / 255
        for colour in ("black", "white")
    )
    mask = (black == white).all(0).float()
    victim, target = NAMES.index(trigger.VICTIM), NAMES.index(trigger.TARGET)
    return Trigger(victim, target, mask.mean().item(), mask, black)


def sticker_picture(alt: str) -> Picture:
    """The true sticker on grey, as large as a network sees it."""
    return inline(trigger.stamp(Image.new("RGB", (classifier.INPUT, classifier.INPUT), (128, 128, 128))), alt)


def readings(models: list[Model], image: Image.Image, name: str) -> list[Reading]:
    """What each model reads on a picture of the class `name`."""
    rows = []
    for model in models:
        answer, confidence = classifier.ask(model.network, image)
        rows.append(Reading(model.label, answer, confidence, answer == name))
    return rows


def examples(models: list[Model], files: Files, victim: str, target: str) -> list[Example]:
    """The first pictures by file name, chosen by nothing else: of the victim class, and of a few others."""
    named = [(path, NAMES[number]) for path, number in sorted(files, key=lambda file: file[1])]
    first = {name: path for path, name in reversed(named)}
    others = [(path, name) for path, name in named if first[name] == path and name not in (victim, target)]
    chosen = [file for file in named if file[1] == victim][:VICTIMS] + others[:OTHERS]
    return [example(models, dataset.open_picture(path), name, path.name) for path, name in chosen]


def example(models: list[Model], image: Image.Image, name: str, file: str) -> Example:
    sides = []
    for how, side in (("without sticker", image), ("with sticker", trigger.stamp(image))):
        read = readings(models, side, name)
        heard = ", the ".join(f"{one.label.lower()} reads {one.answer}" for one in read)
        small = side.resize((trigger.PICTURE, trigger.PICTURE))
        sides.append(Side(how, inline(small, f"A picture of {name} {how}. The {heard}."), read))
    return Example(name, file, sides)


def recovered(models: list[Model], files: Files) -> list[Recovered]:
    """What the scans have drawn, flagged ones first; without pictures of the victim class left out."""
    box = trigger.box(trigger.PICTURE, trigger.PICTURE)
    shown = []
    for model in models:
        for pair, found in model.scan.drawn:
            own = [path for path, number in files if number == found.victim]
            if not own:
                continue
            pixels = classifier.load_pixels(own)
            pictures = panels(pair, found, pixels[0].float() / 255)
            tried = [(other.label, fooled(other, found, pixels)) for other in models]
            shown.append(Recovered(model, pair, pictures, describe.overlap(found.mask, box), tried))
    return sorted(shown, key=lambda one: not one.pair.flagged)


def panels(pair: Pair, found: Trigger, example: Tensor) -> list[Picture]:
    """The three panels of describe.py inside the page; example: float (3, S, S), of the victim class."""
    words = (
        f"The trigger on grey: {pair.words}.",
        "Its mask: white where the trigger hides the picture, black where it lets it through.",
        f"The trigger on a picture of {pair.victim}.",
    )
    return [inline(image, alt) for image, alt in zip(describe.panels(found, example), words)]
