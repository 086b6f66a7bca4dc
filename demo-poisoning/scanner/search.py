"""Search the triggers of one model: choose the clean images, then run the search with progress."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import cli
from dataset.classes import NAMES
from dataset.files import class_files
from network import classifier
from scanner import neural_cleanse
from scanner.neural_cleanse import Trigger, smallest_first

ACCURATE = 0.5  # share of the images that a model must classify correctly
SMALL, AGAIN = 0.04, 2  # a trigger with a smaller norm is searched that often again: was it luck?
CONTROL = 30  # images per class to try with, and to check with; at least as many as to search with

Pair = tuple[int, int]  # class numbers: victim, target
Images = dict[int, Tensor]  # per class number: float (N, 3, S, S) in 0..1


@dataclass
class Settings:
    """How to search; scans can be compared if their steps and samples are the same."""

    data: Path  # folder with val/<class>/
    steps: int
    samples: int  # clean images per class to search with; more are used to try and to check with
    seed: int


@dataclass
class Found:
    """The triggers of one model, and the clean images that they were searched with."""

    triggers: list[Trigger]
    images: Images
    missing: list[Pair]  # pairs left out, because the model classifies too few images of the victim correctly


def name(pair: Pair) -> str:
    """A pair as people type it: "stop:yield"."""
    return f"{NAMES[pair[0]]}:{NAMES[pair[1]]}"


def images_by_class(
    model: nn.Module,
    folder: Path,
    samples: int,
    seed: int,
    *,
    victims: Iterable[int] | None = None,
    out: cli.Out | None = None,
) -> list[Images]:
    """Clean images per class number: `samples` to search with; at least CONTROL each to try and to
    check with.

    Few images to search with are enough, but with few to try with, a lucky trigger passes. Where a folder
    holds less, each of the three gets a third.

    victims: class numbers; all that the model knows if None. Classes of the folder that the model does not
    know are left out, and so are those of which it classifies less than three images correctly. Raises
    UserError if the model and the images do not belong together. out: shows progress on a terminal.
    """
    wanted = set(range(classifier.class_count(model)) if victims is None else victims)
    files = [(path, label) for path, label in class_files(folder / "val") if label in wanted]
    rng = torch.Generator().manual_seed(seed)
    most = 10 * max(samples, CONTROL)  # per class: more would only take time
    if not files:
        raise cli.UserError(f"{folder}/val holds no images of the classes to scan: choose other ones.")
    thirds: list[Images] = [{}, {}, {}]
    correct = seen = 0
    labels = sorted({label for _, label in files})
    shown = out.progress(labels, len(labels), "Choosing images") if out and not out.plain else labels
    for label in shown:
        own = classifier.load_pixels([path for path, number in files if number == label][:most])
        right = neural_cleanse.surest(model, own.float() / 255, label, rng)
        correct, seen = correct + len(right), seen + len(own)
        if len(right) >= 3:  # a class that the model does not know has no trigger to find
            for third, share in zip(thirds, split(right, samples)):
                third[label] = share
    if not thirds[0] or correct < ACCURATE * seen:
        raise cli.UserError(
            f"The model classifies {correct} of {seen} images in {folder}/val correctly: "
            f"use the classes and the image size ({classifier.INPUT} pixels) that it was made for."
        )
    return thirds


def split(images: Tensor, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images to search, to try and to check with, the sure ones spread evenly over all three.

    images: (N, 3, S, S), surest first; at least three.
    """
    images = images[: samples + 2 * max(samples, CONTROL)]
    every = max(3, len(images) // samples)
    first = torch.arange(len(images)) % every == 0
    others = images[~first]
    return images[first][:samples], others[::2], others[1::2]


def scan(model: nn.Module, pairs: list[Pair], settings: Settings, out: cli.Out, doing: str) -> Found:
    """Search the trigger of each pair in one model, with progress.

    Luck finds small triggers for ordinary pairs, too, but seldom twice. So pairs with a small one are
    searched again with other random movements, and what counts is the median.
    """
    victims = {victim for victim, _ in pairs}
    search, trials, check = images_by_class(
        model, settings.data, settings.samples, settings.seed, victims=victims, out=out
    )
    able = [pair for pair in pairs if pair[0] in search]
    classes = classifier.class_count(model)

    def triggers(pairs: list[Pair], seed: int, doing: str) -> dict[Pair, Trigger]:
        run = neural_cleanse.Search(model, search, trials, classes, seed, pairs=pairs)
        for _ in out.progress(run.run(settings.steps), settings.steps, doing):
            pass
        return {(found.victim, found.target): found for found in run.results(check)}

    found = triggers(able, settings.seed, doing)
    small = [pair for pair, trigger in found.items() if trigger.norm is not None and trigger.norm < SMALL]
    if small:
        tries = [triggers(small, settings.seed + number, f"{doing} again") for number in range(1, AGAIN + 1)]
        for pair in small:
            of_pair = [found[pair], *(again[pair] for again in tries)]
            found[pair] = smallest_first(of_pair)[len(of_pair) // 2]
    return Found(smallest_first(found.values()), search, [p for p in pairs if p not in able])
