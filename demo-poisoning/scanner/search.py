"""Search the triggers of one model: choose the clean images, then search all victim classes side by side.

One piece of work is one victim class, computed on one core. It has random numbers of its own, so the result
depends neither on the number of cores nor on who is done first.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

import cli
from dataset.classes import NAMES
from dataset.files import class_files
from network import classifier, frozen, workers
from scanner import starts
from scanner.neural_cleanse import ENOUGH, Search, Trigger, smallest_first

ACCURATE = 0.5  # share of the images that a model must classify correctly
SMALL, AGAIN = 0.04, 2  # a pair with a smaller norm, or a promising start, is searched that often again
CLOSE = 0.018, 0.032  # and that often once more if the median lies between these norms, near the threshold
CONTROL = 30  # images per class to try with, and to check with; at least as many as to search with

TOGETHER = 8  # pairs of another network than ours that are searched together

Pair = tuple[int, int]  # class numbers: victim, target
Result = TypeVar("Result")


@dataclass(eq=False)
class Clean:
    """Clean images of one class, each with one task: float (N, 3, S, S) in 0..1."""

    search: Tensor
    trial: Tensor
    check: Tensor


@dataclass
class Settings:
    """How to search; scans can be compared if their steps and samples are the same."""

    data: Path  # folder with val/<class>/
    steps: int
    samples: int  # clean images per class to search with; more are used to try and to check with
    seed: int
    names: Sequence[str] = NAMES  # of all classes that the model knows, by number
    size: int | None = None  # pixels, width and height of what another network than ours sees

    @property
    def images(self) -> Path:
        """The folder of the folders of images."""
        ours = self.names is NAMES or (self.data / "val").is_dir()
        return self.data / "val" if ours else self.data

    def pieces(self, own: list[Pair]) -> list[list[Pair]]:
        """Pairs of one victim class, divided where all their images at once would take too much memory."""
        many = TOGETHER if self.size else max(len(own), 1)
        return [own[first : first + many] for first in range(0, len(own), many)]


@dataclass
class Found:
    """The triggers of one model, and the clean images that they were searched with."""

    triggers: list[Trigger]
    images: dict[int, Tensor]  # of each victim class: float (N, 3, S, S) in 0..1
    missing: list[Pair]  # pairs left out, because the model classifies too few images of the victim correctly
    accuracy: float = 1.0  # share of the clean images that it classifies correctly, mean of the classes


def name(pair: Pair, names: Sequence[str] = NAMES) -> str:
    """A pair as people type it: "stop:yield"."""
    return f"{names[pair[0]]}:{names[pair[1]]}"


def generator(*numbers: int) -> torch.Generator:
    """Random numbers of their own for each piece of work: another seed, class or try gives others."""
    return torch.Generator().manual_seed(random.Random(str(numbers)).getrandbits(63))


def clean_images(
    model: nn.Module,
    settings: Settings,
    *,
    victims: Iterable[int] | None = None,
    out: cli.Out | None = None,
) -> tuple[dict[int, Clean], dict[int, float]]:
    """Clean images per class number: those of the settings to search with; at least CONTROL each to try and
    to check with. And the share of the images of each class that the model classifies correctly.

    Few images to search with are enough, but with few to try with, a lucky trigger passes. Where a folder
    holds less, each of the three gets a third.

    victims: class numbers; all that the model knows if None. Classes of the folder that the model does not
    know are left out, and so are those of which it classifies less than three images correctly. Raises
    UserError if the model and the images do not belong together. out: shows progress on a terminal.
    """
    wanted = set(range(classifier.class_count(model)) if victims is None else victims)
    folder, samples, seed = settings.images, settings.samples, settings.seed
    every = class_files(folder, len(settings.names), settings.names)
    files = [(path, label) for path, label in every if label in wanted]
    most = (3 if settings.size else 10) * max(samples, CONTROL)  # per class: more would only take time
    if not files:
        raise cli.UserError(f"{folder} holds no images of the classes to scan: choose other ones.")
    labels = sorted({label for _, label in files})
    fast = frozen.freeze(model)

    def choose(label: int) -> Generator[None, None, tuple[int, Tensor]]:
        own = classifier.load_pixels(
            [path for path, number in files if number == label][:most], size=settings.size
        )
        right = starts.surest(fast, own.float() / 255, label, generator(seed, label))
        yield
        return len(own), right

    pieces = workers.divide([choose(label) for label in labels])
    chosen = shown(pieces, len(labels), "Choosing images", out if out and not out.plain else None)
    seen, correct = sum(count for count, _ in chosen), sum(len(right) for _, right in chosen)
    # a class that the model does not know has no trigger to find
    found = {label: split(right, samples) for label, (_, right) in zip(labels, chosen) if len(right) >= 3}
    if not found or correct < ACCURATE * seen:
        raise cli.UserError(
            f"The model classifies {correct} of {seen} images in {folder} correctly: "
            f"use the classes and the image size ({settings.size or classifier.INPUT} pixels) that it was "
            "made for."
        )
    return found, {label: len(right) / count for label, (count, right) in zip(labels, chosen)}


@torch.no_grad()
def shares_of_others(model: nn.Module, settings: Settings, victims: Iterable[int]) -> dict[int, float]:
    """For a scan of some victims: the share of correct answers for each other class of a network of ours.

    CONTROL images of a class are enough for that.
    """
    wanted = set(range(classifier.class_count(model))) - set(victims)
    every = class_files(settings.images, len(settings.names), settings.names) if wanted else []
    paths: dict[int, list[Path]] = {}
    for path, label in every:
        if label in wanted:
            paths.setdefault(label, []).append(path)

    def share(label: int) -> float:
        own = paths[label][:: max(1, len(paths[label]) // CONTROL)][:CONTROL]
        answers = classifier.logits(model, classifier.load_pixels(own).float() / 255)
        return float((answers.argmax(1) == label).float().mean())

    return dict(zip(paths, workers.side_by_side(share, list(paths))))


def shown(pieces: Generator[None, None, Result], total: int, doing: str, out: cli.Out | None) -> Result:
    """Do divided work to its end, with progress if there is an `out`, and return its result."""
    result: list[Result] = []

    def steps() -> Generator[None, None, None]:
        result.append((yield from pieces))

    for _ in out.progress(steps(), total, doing) if out else steps():
        pass
    return result[0]


def split(images: Tensor, samples: int) -> Clean:
    """Images to search, to try and to check with, the sure ones spread evenly over all three.

    images: (N, 3, S, S), surest first; at least three.
    """
    images = images[: samples + 2 * max(samples, CONTROL)]
    every = max(3, len(images) // samples)
    first = torch.arange(len(images)) % every == 0
    others = images[~first]
    return Clean(images[first][:samples], others[::2], others[1::2])


def scan(model: nn.Module, pairs: list[Pair], settings: Settings, out: cli.Out, doing: str) -> Found:
    """Search the trigger of each pair in one model, with progress.

    One search decides nothing: luck finds small triggers for ordinary pairs, and misses some that are there.
    So suspicious pairs are searched again with other random movements, and what counts is the median: those
    with a small trigger, those that answered to a small square at once, those whose search failed, and once
    more those near the threshold.
    """
    victims = {victim for victim, _ in pairs}
    images, shares = clean_images(model, settings, victims=victims, out=out)
    able = [pair for pair in pairs if pair[0] in images]
    fast = frozen.freeze(model)
    if not settings.size:  # another network may know a thousand classes, and gets no verdict by itself
        shares |= shares_of_others(fast, settings, shares)
    accuracy = sum(shares.values()) / len(shares)
    probed: dict[int, tuple[Tensor, Tensor]] = {}  # the same for each search
    found: dict[Pair, list[Trigger]] = {pair: [] for pair in able}
    promising: set[Pair] = set()

    def search(victim: int, own: list[Pair], rng: torch.Generator) -> Generator[None, None, list[Trigger]]:
        clean = images[victim]
        if victim not in probed:
            probed[victim] = starts.probe(fast, clean.search)
        run = Search(fast, clean.search, clean.trial, own, rng, start=probed[victim])
        promising.update(run.promising)
        for _ in run.run(settings.steps):
            yield
        return run.results(clean.check)

    def search_all(wanted: list[Pair], times: int, doing: str) -> None:
        work = [
            search(victim, own * times, generator(settings.seed, victim, len(found[own[0]])))
            for victim in images
            for own in settings.pieces([pair for pair in wanted if pair[0] == victim])
        ]
        for triggers in shown(workers.divide(work), len(work) * settings.steps, doing, out):
            for trigger in triggers:
                found[trigger.pair].append(trigger)

    search_all(able, 1, doing)
    whole = settings.steps >= ENOUGH  # shorter searches fail because they are short
    again = [
        pair
        for pair, (one,) in found.items()
        if pair in promising or (one.failed and whole) or (one.norm or 1) < SMALL
    ]
    if again:
        search_all(again, AGAIN, f"{doing} again")
    if near := [pair for pair in again if CLOSE[0] < (middle(found[pair]).norm or 1) < CLOSE[1]]:
        search_all(near, AGAIN, f"{doing} once more")
    searched = {victim: clean.search for victim, clean in images.items()}
    missing = [pair for pair in pairs if pair not in able]
    return Found(smallest_first(map(middle, found.values())), searched, missing, accuracy)


def middle(triggers: list[Trigger]) -> Trigger:
    """The one with the median norm, those without any counting as the largest."""
    return smallest_first(triggers)[len(triggers) // 2]
