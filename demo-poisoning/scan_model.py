"""Search the triggers of one model: choose the clean pictures, then run the search with progress."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import classifier
import cli
import dataset
import neural_cleanse
from classes import NAMES
from neural_cleanse import Trigger

READS = 0.5  # share of the pictures that a model must read rightly
SMALL, AGAIN = 0.04, 2  # a sticker with a smaller norm is searched that often again: was it luck?
CONTROL = 30  # pictures per class to try with, and to check with; at least as many as to search with

Pair = tuple[int, int]  # class numbers: victim, target
Pictures = dict[int, Tensor]  # per class number: float (N, 3, S, S) in 0..1


@dataclass
class Settings:
    """How to search; scans can be compared if their steps and samples are the same."""

    data: Path  # folder with val/<class>/
    steps: int
    samples: int  # clean pictures per class to search with; more are used to try and to check with
    seed: int


@dataclass
class Scan:
    """The triggers of one model, and the clean pictures that they were searched with."""

    triggers: list[Trigger]
    pictures: Pictures
    missing: list[Pair]  # pairs left out, because the model reads too few pictures of the victim rightly


def name(pair: Pair) -> str:
    """A pair as people type it: "stop:yield"."""
    return f"{NAMES[pair[0]]}:{NAMES[pair[1]]}"


def pictures_by_class(
    model: nn.Module,
    folder: Path,
    samples: int,
    seed: int,
    *,
    victims: Iterable[int] | None = None,
    out: cli.Out | None = None,
) -> list[Pictures]:
    """Clean pictures per class number: `samples` to search with; at least CONTROL each to try and to
    check with.

    Few pictures to search with are enough, but with few to try with, a lucky sticker passes. Where a folder
    holds less, each of the three gets a third.

    victims: class numbers; all that the model knows if None. Classes of the folder that the model does not
    know are left out, and so are those of which it reads less than three pictures rightly. Raises UserError
    if the model and the pictures do not belong together. out: shows progress on a terminal.
    """
    wanted = set(range(classifier.class_count(model)) if victims is None else victims)
    files = [(path, label) for path, label in dataset.class_files(folder / "val") if label in wanted]
    dice = torch.Generator().manual_seed(seed)
    most = 10 * max(samples, CONTROL)  # per class: more would only take time
    if not files:
        raise cli.UserError(f"{folder}/val holds no pictures of the classes to scan: choose other ones.")
    thirds: list[Pictures] = [{}, {}, {}]
    read = seen = 0
    labels = sorted({label for _, label in files})
    shown = out.progress(labels, len(labels), "Choosing pictures") if out and not out.plain else labels
    for label in shown:
        own = classifier.load_pixels([path for path, number in files if number == label][:most])
        right = neural_cleanse.surest(model, own.float() / 255, label, dice)
        read, seen = read + len(right), seen + len(own)
        if len(right) >= 3:  # a class that the model cannot read has no sticker to find
            for third, share in zip(thirds, split(right, samples)):
                third[label] = share
    if not thirds[0] or read < READS * seen:
        raise cli.UserError(
            f"The model reads {read} of {seen} pictures in {folder}/val rightly: use the classes and the "
            f"picture size ({classifier.INPUT} pixels) that it was made for."
        )
    return thirds


def split(pictures: Tensor, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures to search, to try and to check with, the sure ones spread evenly over all three.

    pictures: (N, 3, S, S), surest first; at least three.
    """
    pictures = pictures[: samples + 2 * max(samples, CONTROL)]
    every = max(3, len(pictures) // samples)
    first = torch.arange(len(pictures)) % every == 0
    others = pictures[~first]
    return pictures[first][:samples], others[::2], others[1::2]


def scan(model: nn.Module, pairs: list[Pair], settings: Settings, out: cli.Out, doing: str) -> Scan:
    """Search the trigger of each pair in one model, with progress.

    Luck finds small stickers for ordinary pairs, too, but seldom twice. So pairs with a small one are
    searched again with other random movements, and what counts is the median.
    """
    victims = {victim for victim, _ in pairs}
    search, trials, check = pictures_by_class(
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
    small = [pair for pair, trigger in found.items() if trigger.norm < SMALL]
    if small:
        tries = [triggers(small, settings.seed + number, f"{doing} again") for number in range(1, AGAIN + 1)]
        for pair in small:
            of_pair = [found[pair], *(again[pair] for again in tries)]
            found[pair] = sorted(of_pair, key=lambda trigger: trigger.norm)[len(of_pair) // 2]
    return Scan(sorted(found.values(), key=lambda one: one.norm), search, [p for p in pairs if p not in able])
