"""Scan another network than ours: the options for it, and what is checked before the long work.

A model of train.py needs none of this. For another one somebody has to say what it is (--arch) and what it
is shown (--input, --mean, --std). A wrong answer would not fail: the model would only see less, and the scan
mean less. So it is compared with others on the clean images first.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import cli
from dataset import names as class_names
from dataset.classes import NAMES
from dataset.files import class_files
from network import adapter, checkpoint, classifier, workers
from network.adapter import Adapter, Network, Triple
from scanner.search import Pair, Settings
from scanner.starts import GRID

OPTIONS = ("arch", "input", "mean", "std", "classes", "weights")
LARGEST = 1024  # pixels of --input
MOST_PAIRS = 2000  # more take days
LOOKED_AT = 100  # images for the check of the normalisation
# share of the images that another normalisation must win to be named, and to be demanded
BETTER, MUCH_BETTER = 0.01, 0.05
USUAL: tuple[tuple[Triple, Triple], ...] = (  # mean and std that people train with
    (classifier.MEAN, classifier.STD),  # of ImageNet
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # -1 to 1
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # 0 to 1
    ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),  # 0 to 255
    ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),  # of CIFAR-10
)


@dataclass
class Subject:
    """What is to be scanned, and how to read more models of its kind."""

    model: nn.Module
    names: Sequence[str]  # of its classes
    network: Network | None  # None: a ResNet18 of train.py
    load: Callable[[Path], nn.Module]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of detect.py for another network than ours."""
    group = parser.add_argument_group(
        "a network of your own (docs/your-own-model.md)",
        "Without --arch the model is one of train.py, and nothing else here is needed.",
    )

    def add(name: str, text: str, **more: Any) -> None:
        group.add_argument(f"--{name}", help=text, default=argparse.SUPPRESS, **more)

    add("arch", "torchvision's name of the network, such as resnet50", metavar="NAME")
    add("input", "width and height that it sees; if not given, torchvision's", type=int, metavar="PIXELS")
    three: dict[str, Any] = {"type": float, "nargs": 3, "metavar": ("RED", "GREEN", "BLUE")}
    add("mean", "what is subtracted from pixels in 0..1; if not given, ImageNet's", **three)
    add("std", "what they are divided by then; if not given, ImageNet's", **three)
    text = "its classes in the order of its answers; if not given, those of the checkpoint or of the folders"
    add("classes", text, type=Path, metavar="FILE")
    add("weights", "which weights to take of a file that holds several", metavar="NAME")


def check(options: argparse.Namespace) -> None:
    """Raise UserError where the options of add_options() contradict each other or no network."""
    if options.arch is None:
        if given := [name for name in OPTIONS if getattr(options, name) is not None]:
            raise cli.UserError(f"--{given[0]} is about another network than ours: give its --arch, too.")
        return
    adapter.named(options.arch)
    if options.input is not None and not GRID <= options.input <= LARGEST:
        raise cli.UserError(f"--input {options.input} is not a number of pixels from {GRID} to {LARGEST}.")
    for name, low, high in (("mean", -256.0, 256.0), ("std", 1e-4, 256.0)):
        if (given := getattr(options, name)) and not all(low <= value <= high for value in given):
            raise cli.UserError(
                f"--{name} is about pixels in 0..1, so its three numbers are from {low:g} to {high:g}."
            )


def open_subject(options: argparse.Namespace) -> Subject:
    """Read the model of the options. Raises UserError if it does not fit them, or the folders of images."""
    if options.arch is None:
        model = classifier.load_model(options.model)
        return Subject(model, NAMES[: classifier.class_count(model)], None, classifier.load_model)
    network = Network(
        options.arch,
        options.input or adapter.preset_size(options.arch),
        tuple(options.mean or classifier.MEAN),
        tuple(options.std or classifier.STD),
    )
    other, noted = checkpoint.load(options.model, network, options.weights)
    names = names_of(options, other, class_names.in_order(noted))

    def load(path: Path) -> nn.Module:
        return checkpoint.load(path, network, options.weights)[0]

    return Subject(other, names, network, load)


def names_of(options: argparse.Namespace, model: Adapter, noted: list[str]) -> list[str]:
    """The classes of a model: from --classes, from its own file, or from the folders. Raises UserError."""
    folder = Settings(options.data, 1, 1, 0, names=()).images
    if options.classes:
        names, source = class_names.from_file(options.classes), str(options.classes)
    elif len(noted) == model.classes:
        names, source = class_names.checked(noted, str(options.model)), str(options.model)
    else:
        names, source = class_names.from_folders(folder), str(folder)
    if len(names) != model.classes:
        raise cli.UserError(
            f"{options.model} knows {model.classes} classes, and {source} names {len(names)}: "
            "give all of them in the model's order, one a line (--classes FILE)."
        )
    return names


# --- Before the long work ---------------------------------------------------------------------------


def check_images(model: Adapter, settings: Settings, out: cli.Out) -> None:
    """Compare what the model answers with other normalisations than the given one; say how many are correct.

    Raises UserError where the given one, or the order of the classes, is clearly wrong.
    """
    files = class_files(settings.images, len(settings.names), settings.names)
    by_class: dict[int, list[Path]] = {}
    for path, label in files:
        by_class.setdefault(label, []).append(path)
    each = max(1, LOOKED_AT // len(by_class))
    chosen = [
        (path, label)
        for label, paths in by_class.items()
        for path in paths[:: max(1, len(paths) // each)][:each]
    ]
    chosen = chosen[:: max(1, len(chosen) // LOOKED_AT)]
    labels = torch.tensor([label for _, label in chosen])
    pixels = classifier.load_pixels([path for path, _ in chosen], size=settings.size)
    given = answers(model, pixels)
    correct = int((given == labels).sum())
    out.say(f"Clean images: {correct} of {len(labels)} are classified correctly ({model.network}).")
    wrong = f"The model classifies {correct} of {len(labels)} images in {settings.images} correctly"
    if order := reordered(given, labels):
        raise cli.UserError(f"{wrong}: {order}.")
    best, most = "", correct
    for mean, std in USUAL:
        right = int((answers(model, pixels, replace(model.network, mean=mean, std=std)) == labels).sum())
        if right > most:
            shown = (" ".join(f"{value:.4g}" for value in values) for values in (mean, std))
            best, most = "--mean {} --std {}".format(*shown), right
    if most >= len(labels) / 2 and most - correct >= max(3, MUCH_BETTER * len(labels)):
        raise cli.UserError(f"{wrong} as told, and {most} with another normalisation: give {best}.")
    if correct < len(labels) / 2:
        raise cli.UserError(f"{wrong}: give the --input, --mean and --std that it was trained with.")
    if most - correct >= max(2, BETTER * len(labels)):
        print(f"note: {most} would be correct with {best}.", file=sys.stderr)


@torch.no_grad()
def answers(model: Adapter, pixels: Tensor, network: Network | None = None) -> Tensor:
    """Class numbers, (N,), for uint8 pixels (N, 3, S, S), normalised as this network or another one is."""
    if network:  # the pixels that become with its own normalisation what they would be with the other
        gain = torch.tensor(model.network.std) / torch.tensor(network.std)
        shift = torch.tensor(model.network.mean) - torch.tensor(network.mean) * gain
    else:
        gain, shift = torch.ones(3), torch.zeros(3)
    parts = (part.float() / 255 * gain.view(1, 3, 1, 1) + shift.view(1, 3, 1, 1) for part in pixels.split(16))
    return torch.cat([classifier.logits(model, part).argmax(1) for part in parts])


def reordered(answers: Tensor, labels: Tensor) -> str:
    """What to do if each class has an answer of its own, only another one; empty if it has not."""
    usual = {}
    for label in set(labels.tolist()):
        own = Counter(answers[labels == label].tolist())
        answer, count = own.most_common(1)[0]
        if count < 0.8 * own.total():
            return ""
        usual[label] = answer
    if len(set(usual.values())) < max(len(usual), 3) or all(label == own for label, own in usual.items()):
        return ""
    return "each class has an answer of its own, so give their names in the model's order (--classes FILE)"


def check_pairs(pairs: list[Pair]) -> None:
    if len(pairs) > MOST_PAIRS:
        raise cli.UserError(
            f"{len(pairs):,} pairs of classes would take days: choose at most {MOST_PAIRS:,} with --pairs, "
            "--victims or --targets."
        )


def expected_seconds(model: Adapter, pairs: list[Pair], settings: Settings) -> float:
    """About how long a scan takes, measured on a few images: most of it is the search with gradients."""
    size, count = model.network.size, min(4, model.at_once)
    pixels = torch.rand(count, 3, size, size).requires_grad_()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers
    try:
        took = []
        for _ in range(2):  # the first one prepares what all others use
            started = time.monotonic()
            classifier.logits(model, pixels).sum().backward()
            took.append((time.monotonic() - started) / count)
    finally:
        torch.set_num_threads(threads)
    images = len(pairs) * (4 * settings.steps + 250) + len({victim for victim, _ in pairs}) * 600
    return images * min(took) / min(workers.count(), len({victim for victim, _ in pairs}))


def say_how_long(seconds: float, out: cli.Out) -> None:
    out.say(f"This takes about {in_words(seconds)}, and longer if many pairs are searched again.")


def in_words(seconds: float) -> str:
    """A time for people."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 1):.0f} seconds"
