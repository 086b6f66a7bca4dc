"""What the report page shows about both models, as data: measurements, answers, and images."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from pydantic import ConfigDict, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass as checked
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

import cli
import trigger
from dataset.classes import NAMES
from dataset.files import IMAGE_SIZE, Files, open_image
from network import classifier
from network.evaluate import Rate, Score
from scanner import describe, result
from scanner.neural_cleanse import Trigger
from scanner.result import PairResult, ScanResult

KNOWN = ConfigDict(extra="forbid", allow_inf_nan=False)
MOST = 10**9  # images that a monitor may have been measured on
VICTIMS, OTHERS = 2, 2  # example images: of the victim class, and one each of so many other classes


# --- What the page holds -----------------------------------------------------------------------------


@dataclass
class Model:
    """One of the two models, with everything that the page says about it."""

    label: str  # "Clean model" or "Poisoned model": what the person who made this report calls it
    file: Path
    network: nn.Module
    folder: Path  # of the scan
    scan: ScanResult
    score: Score | None = None  # None: not measured yet


@dataclass
class InlineImage:
    """An image inside the page: a data: URI, and the same in words."""

    source: str
    alt: str


@dataclass
class Answer:
    """What one model answers for one image."""

    label: str  # of the model
    name: str  # class name
    confidence: float  # 0..1
    correct: bool


@dataclass
class Side:
    """An image without or with the true trigger, and what the models answer."""

    how: str
    image: InlineImage
    answers: list[Answer]


@dataclass
class Example:
    """The same image twice: without and with the true trigger."""

    name: str  # its class
    file: str
    sides: list[Side]


@dataclass
class Recovered:
    """A trigger that a scan has drawn, and what can be measured about it."""

    model: Model  # the one that was scanned
    pair: PairResult
    images: list[InlineImage]
    overlap: float  # with the place of the true trigger, 0..1
    fooled: list[tuple[str, Rate]]  # label of each model, and the images that it takes for the target


@dataclass
class Watched:
    """What monitor.py --measure found for one of the models."""

    model: Model
    allowed: float  # share of clean images that it may flag, 0..1
    threshold: float
    false_alarms: Rate
    detected: Rate | None  # None: the model takes no image with the trigger for the target


@checked(config=KNOWN)
class Counted:
    """A Rate as monitor.py writes it."""

    hits: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(gt=0, le=MOST)]

    @model_validator(mode="after")
    def _holds_together(self) -> Counted:
        if self.hits > self.of:
            raise ValueError("more hits than tries")
        return self

    @property
    def rate(self) -> Rate:
        return Rate(self.hits, self.of)


@checked(config=KNOWN)
class Measured:
    """What monitor.py --measure --output writes."""

    format: Literal[1]
    model: Any  # paths, which may hold bytes that are not UTF-8
    sha256: str
    data: Any
    allowed: result.Share
    threshold: result.Share
    calibration: int
    false_alarms: Counted
    detected: Counted | None


MEASURED = TypeAdapter(Measured)


# --- Measuring ----------------------------------------------------------------------------------------


def open_model(label: str, file: Path | None, folder: Path, scan: ScanResult) -> Model:
    """Load the model that was scanned, and no other: the checksum has to be that of the scan."""
    file = file or Path(scan.model)
    network = classifier.load_model(file)
    if result.sha256(file) != scan.sha256:
        raise cli.UserError(
            f"{file} is not the file that {folder}/scan.json is about: scan it again with detect.py."
        )
    if classifier.class_count(network) != len(scan.classes):
        raise cli.UserError(f"{folder}/scan.json names other classes than {file} knows: scan it again.")
    return Model(label, file, network, folder, scan)


def open_monitor(file: Path, models: list[Model]) -> Watched:
    """Read what monitor.py has measured. Raises UserError if it is about neither of the models."""
    again = f"run monitor.py --measure --output {file}"
    try:
        record = MEASURED.validate_python(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise cli.UserError(f"{file} does not exist: {again}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise cli.UserError(f"{file} was not written by monitor.py: {again}.") from error
    model = next((one for one in models if one.scan.sha256 == record.sha256), None)
    if model is None:
        raise cli.UserError(f"{file} is about neither of the two models: measure one of them again.")
    detected = record.detected.rate if record.detected else None
    return Watched(model, record.allowed, record.threshold, record.false_alarms.rate, detected)


def fooled(model: Model, found: Trigger, pixels: Tensor) -> Rate:
    """How many images of the victim class, uint8 (N, 3, S, S), a recovered trigger sends to its target."""
    stamped = (255 * found.stamp(pixels.float() / 255)).round().to(torch.uint8)
    answers = classifier.predict(model.network, stamped).argmax(1)
    return Rate(int((answers == found.target).sum()), len(pixels))


def inline(image: Image.Image, alt: str) -> InlineImage:
    """An RGB image as a PNG inside the page."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return InlineImage("data:image/png;base64," + base64.b64encode(stream.getvalue()).decode(), alt)


def true_trigger() -> Trigger:
    """The trigger of trigger.py as a Trigger: opaque where it hides what is below, black or white."""
    black, white = (
        F.to_image(trigger.stamp(Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), colour))).float() / 255
        for colour in ("black", "white")
    )
    mask = (black == white).all(0).float()
    victim, target = NAMES.index(trigger.VICTIM), NAMES.index(trigger.TARGET)
    return Trigger(victim, target, mask.mean().item(), mask, black)


def trigger_image(alt: str) -> InlineImage:
    """The true trigger on grey, as large as a network sees it."""
    return inline(trigger.stamp(Image.new("RGB", (classifier.INPUT, classifier.INPUT), (128, 128, 128))), alt)


def answers(models: list[Model], image: Image.Image, name: str) -> list[Answer]:
    """What each model answers for an image of the class `name`."""
    rows = []
    for model in models:
        answer, confidence = classifier.classify(model.network, image)
        rows.append(Answer(model.label, answer, confidence, answer == name))
    return rows


def examples(models: list[Model], files: Files, victim: str, target: str) -> list[Example]:
    """The first images by file name, chosen by nothing else: of the victim class, and of a few others."""
    named = [(path, NAMES[number]) for path, number in sorted(files, key=lambda file: file[1])]
    first = {name: path for path, name in reversed(named)}
    others = [(path, name) for path, name in named if first[name] == path and name not in (victim, target)]
    chosen = [file for file in named if file[1] == victim][:VICTIMS] + others[:OTHERS]
    return [example(models, open_image(path), name, path.name) for path, name in chosen]


def example(models: list[Model], image: Image.Image, name: str, file: str) -> Example:
    sides = []
    for how, side in (("without trigger", image), ("with trigger", trigger.stamp(image))):
        given = answers(models, side, name)
        heard = ", the ".join(f"{one.label.lower()} answers {one.name}" for one in given)
        small = side.resize((IMAGE_SIZE, IMAGE_SIZE))
        sides.append(Side(how, inline(small, f"An image of {name} {how}. The {heard}."), given))
    return Example(name, file, sides)


def recovered(models: list[Model], files: Files) -> list[Recovered]:
    """What the scans have drawn, flagged ones first; without images of the victim class left out."""
    box = trigger.box(IMAGE_SIZE, IMAGE_SIZE)
    shown = []
    for model in models:
        for pair, found in result.read_triggers(model.folder, model.scan):
            own = [path for path, number in files if number == found.victim]
            if not own:
                continue
            pixels = classifier.load_pixels(own)
            images = panels(pair, found, pixels[0].float() / 255)
            tried = [(other.label, fooled(other, found, pixels)) for other in models]
            shown.append(Recovered(model, pair, images, describe.overlap(found.mask, box), tried))
    return sorted(shown, key=lambda one: not one.pair.flagged)


def panels(pair: PairResult, found: Trigger, example: Tensor) -> list[InlineImage]:
    """The three panels of describe.py inside the page; example: float (3, S, S), of the victim class."""
    words = (
        f"The trigger on grey: {pair.description}.",
        "Its mask: white where the trigger hides the image, black where it lets it through.",
        f"The trigger on an image of {pair.victim}.",
    )
    return [inline(image, alt) for image, alt in zip(describe.panels(found, example), words)]
