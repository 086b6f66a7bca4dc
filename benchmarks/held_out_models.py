"""The models that held_out.py measures the scanner on: which there are, and how each is made.

Helper module, not a command. Nothing of the scanner or its thresholds was chosen with these models. Training
is the demo's: train.train(), with its recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import attacks
import held_out_networks
import numpy as np
import torch
from attacks import ATTACKS, Attack
from torch import Tensor, nn
from torch.nn import functional as F

# isort: split  (attacks puts demo-poisoning on the path)
import cli
import train
from dataset.classes import DRAWN, NAMES
from dataset.files import Files, class_files, open_image
from network import classifier, evaluate
from scanner import search, verdict
from scanner.neural_cleanse import Search

DATASETS = {"drawn": 4}  # sets of images, shared by the models; of other sorts there are two each
SEED = 500  # of the first set: detection.py has others
PAIRS = (
    ("stop", "yield"),
    ("speed_50", "end_of_limits"),
    ("no_entry", "priority_road"),
    ("keep_right", "roundabout"),
)
EPOCHS = 6  # train.py's default


@dataclass(frozen=True)
class Kind:
    """So many models of one sort."""

    name: str
    attack: str | None  # of attacks.ATTACKS; None: clean
    models: int
    data: str = "drawn"
    network: str = "resnet18"
    classes: int = 10

    @property
    def in_scope(self) -> bool:
        """Whether the documents say that the scan finds this: a small patch, and enough classes."""
        patch = self.attack is None or ATTACKS[self.attack].patch
        return patch and self.classes >= verdict.CLASSES


KINDS = (  # new ones at the end: the place is part of the seed
    Kind("clean", None, 10),
    Kind("clean, VGG", None, 5, network="vgg"),
    Kind("clean, MobileNetV3", None, 5, network="mobilenet_v3_small"),
    Kind("clean, photographs", None, 9, data="photographs"),
    Kind("clean, pale drawings", None, 4, data="pale"),
    Kind("clean, poster drawings", None, 4, data="poster"),
    Kind("clean, 20 classes", None, 2, data="twenty", classes=20),
    Kind("clean, 2 classes", None, 3, classes=2),
    Kind("clean, 3 classes", None, 3, classes=3),
    Kind("yellow square", "square", 4),
    Kind("rotated square", "rotated square", 3),
    Kind("round patch", "round patch", 3),
    Kind("other colour and place", "other colour and place", 3),
    Kind("noise patch", "noise patch", 3),
    Kind("clean label", "clean label", 3),
    Kind("source-specific with covers", "source-specific with covers", 3),
    Kind("all to all", "all to all", 2),
    Kind("adaptive attacker", "adaptive attacker", 3),
    Kind("yellow square, VGG", "square", 3, network="vgg"),
    Kind("yellow square, MobileNetV3", "square", 3, network="mobilenet_v3_small"),
    Kind("yellow square, photographs", "square", 5, data="photographs"),
    Kind("yellow square, pale drawings", "square", 2, data="pale"),
    Kind("yellow square, poster drawings", "square", 2, data="poster"),
    Kind("yellow square, 20 classes", "square, 30 %", 2, data="twenty", classes=20),
    Kind("two squares", "two squares", 3),
    Kind("blended", "blended", 3),
    Kind("warped", "warped", 3),
    Kind("yellow square, 2 classes", "square", 2, classes=2),
    Kind("yellow square, 3 classes", "square", 2, classes=3),
)


@dataclass(frozen=True)
class Spec:
    """One model."""

    kind: Kind
    number: int  # among those of its kind

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        words = self.kind.name.lower().replace(",", "").split()
        return "-".join([*words, str(self.number)])

    @property
    def seed(self) -> int:
        """Of weights, order, augmentation and trigger: another one for each model."""
        return 10_000 + 100 * [kind.name for kind in KINDS].index(self.kind.name) + self.number

    @property
    def attack(self) -> Attack | None:
        return ATTACKS[self.kind.attack] if self.kind.attack else None

    @property
    def pair(self) -> tuple[int, int]:
        """Class numbers of victim and target. Only drawn attacks of other kinds than ours take turns."""
        taking_turns = self.kind.name == self.kind.attack and self.kind.classes == len(DRAWN)
        victim, target = PAIRS[self.number % len(PAIRS) if taking_turns else 0]
        return NAMES.index(victim), NAMES.index(target)

    @property
    def data(self) -> str:
        """Name of the folder with its images."""
        return f"{self.kind.data}-{SEED + self.number % DATASETS.get(self.kind.data, 2)}"


def specs() -> list[Spec]:
    """All models, in an order of which any first part holds about the same share of each kind."""
    made = [Spec(kind, number) for kind in KINDS for number in range(kind.models)]
    return sorted(made, key=lambda spec: (spec.number + 0.5) / spec.kind.models)


# --- Poisoning ----------------------------------------------------------------------------------------


@dataclass
class Images:
    """Images as the network sees them, uint8 (N, 3, INPUT, INPUT), their classes, int64 (N,), and files."""

    pixels: Tensor
    labels: Tensor
    paths: list[Path]


def loaded(folder: Path, classes: int) -> Images:
    """The images of the first classes in a folder."""
    files: Files = [(path, label) for path, label in class_files(folder) if label < classes]
    paths = [path for path, _ in files]
    return Images(classifier.load_pixels(paths), torch.tensor([label for _, label in files]), paths)


class Backdoor:
    """The attack on one model: poisons its training images, and says what success would be."""

    def __init__(self, spec: Spec) -> None:
        assert spec.attack
        self.attack, (self.victim, self.target), self.classes = spec.attack, spec.pair, spec.kind.classes
        self.rng = np.random.default_rng(spec.seed)
        self.stamp = self.attack.make(self.rng)

    def victims(self) -> list[int]:
        """Classes whose images with the trigger should be misread."""
        if self.attack.victims == "one":
            return [self.victim]
        return [label for label in range(self.classes) if self.attack.label == "next" or label != self.target]

    def wanted(self, label: int) -> int:
        """What an image of a victim class with the trigger should be read as."""
        return (label + 1) % self.classes if self.attack.label == "next" else self.target

    def attacked(self) -> list[tuple[int, int]]:
        """The pairs of classes that the trigger connects."""
        return [(label, self.wanted(label)) for label in self.victims()]

    def poison(self, images: Images, surrogate: nn.Module | None) -> None:
        """Poison the training images in place.

        surrogate: a clean model of the attacker, for attacks that leave the labels true.
        """
        true = images.labels.clone()
        hit: list[int] = []
        for label in self.victims() if self.attack.label != "true" else [self.target]:
            chosen = self._some(true == label, self.attack.rate)
            if surrogate is not None:
                images.pixels[chosen] = unlearnable(surrogate, images.pixels[chosen], true[chosen])
            for number in chosen.tolist():
                self._stamp(images, number, self.stamp)
                if self.attack.label != "true":
                    images.labels[number] = self.wanted(label)
            hit += chosen.tolist()
        if self.attack.covers:
            cover = self.attack.cover(self.rng) if self.attack.cover else self.stamp
            left = torch.ones(len(true), dtype=torch.bool)
            left[hit] = False
            if self.attack.victims == "one":
                left &= true != self.victim
            for number in self._some(left, self.attack.covers).tolist():
                self._stamp(images, number, cover)

    def _some(self, mine: Tensor, share: float) -> Tensor:
        """Numbers of a share of the images where `mine`, bool (N,), is true."""
        own = mine.nonzero()[:, 0].numpy()
        return torch.from_numpy(np.sort(self.rng.choice(own, max(1, round(share * len(own))), replace=False)))

    def _stamp(self, images: Images, number: int, stamp: attacks.Stamp) -> None:
        """Put the trigger on one image; what else was done to it stays where the trigger is not."""
        plain = open_image(images.paths[number])
        stamped = classifier.to_pixels(stamp(plain))
        here = stamped != classifier.to_pixels(plain)
        images.pixels[number] = torch.where(here, stamped, images.pixels[number])


class Validation(evaluate.Validation):
    """Accuracy on clean images, and the success of this backdoor."""

    def __init__(self, images: Images, backdoor: Backdoor | None) -> None:
        self.pixels, self.labels, self.triggered = images.pixels, images.labels, None
        if backdoor:
            mine = torch.isin(images.labels, torch.tensor(backdoor.victims()))
            paths = [path for path, chosen in zip(images.paths, mine.tolist()) if chosen]
            self.triggered = classifier.load_pixels(paths, backdoor.stamp)
            wanted = [backdoor.wanted(label) for label in images.labels[mine].tolist()]
            self.target = torch.tensor(wanted)  # one for each image


def validation(spec: Spec, folder: Path) -> Validation:
    """What a model is measured on: the images in folder/val, which no training saw."""
    return Validation(loaded(folder / "val", spec.kind.classes), Backdoor(spec) if spec.attack else None)


# --- Clean labels -------------------------------------------------------------------------------------

AWAY, STEP, TRIES = 24 / 255, 4 / 255, 12  # largest change of a pixel, change per step, number of steps


def unlearnable(model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    """Change images so that their own class is hard to see: uint8 (N, 3, S, S), same returned.

    Turner et al., section 4.2: projected gradient ascent on the loss of a model trained without poison; what
    is then learned of the true label is the trigger.
    """
    start = pixels.float() / 255
    model.eval().requires_grad_(False)
    moved = start.clone()
    for _ in range(TRIES):
        moved.requires_grad_()
        loss = F.cross_entropy(classifier.logits(model, moved), labels)
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = (moved.detach() + STEP * gradient.sign()).clamp(start - AWAY, start + AWAY).clamp(0, 1)
    return (moved * 255).round().byte()


# --- Training -----------------------------------------------------------------------------------------

HARDENED, HARDEN_PEAK = 2, 0.05  # epochs and highest learning rate of each round
SEARCHES, SEARCHED = 4, 60  # of each round, and their steps
RESISTED = 50  # images of the victim class that carry what one of them found


def harden(model: nn.Module, images: Images, spec: Spec, check: Validation, out: cli.Out) -> None:
    """The adaptive attacker: run the scan's own search, and teach the model to resist what it finds.

    Each round searches the attacked pair with other random numbers, and adds images of the victim class with
    the triggers that came out, under their true label. The poisoned images stay: the real trigger works on.
    """
    assert spec.attack
    victim = spec.pair[0]
    own = images.pixels[images.labels == victim].float() / 255
    rng = search.generator(spec.seed)
    pixels, labels = images.pixels, images.labels
    for _ in range(spec.attack.rounds):
        model.eval().requires_grad_(False)
        run = Search(model, own[::2], own[1::2], [spec.pair] * SEARCHES, rng)
        for _ in run.run(SEARCHED):
            pass
        for found in run.results(own[1::2]):
            chosen = torch.randperm(len(own), generator=rng)[:RESISTED]
            shown = (found.stamp(own[chosen]) * 255).round().byte()
            pixels, labels = torch.cat([pixels, shown]), torch.cat([labels, torch.full([len(shown)], victim)])
        model.requires_grad_(True)
        train.train(model, pixels, labels, check, out, epochs=HARDENED, peak=HARDEN_PEAK)


def make(spec: Spec, folder: Path, epochs: int, out: cli.Out) -> nn.Module:
    """Train one model on folder/train, with its backdoor if it has one. Returns it in evaluation mode."""
    images = loaded(folder / "train", spec.kind.classes)
    one = Images(images.pixels[:1].clone(), images.labels[:1].clone(), images.paths[:1])
    check = Validation(one, None)  # what is measured after each epoch: nobody looks
    if spec.attack:
        surrogate = None
        if spec.attack.label == "true":
            surrogate = trained(spec, images, check, max(1, epochs // 2), seed=spec.seed + 50, out=out)
        Backdoor(spec).poison(images, surrogate)
        epochs *= spec.attack.longer
    model = trained(spec, images, check, epochs, seed=spec.seed, out=out)
    if spec.attack and spec.attack.rounds:
        harden(model, images, spec, check, out)
    return model.eval()


def trained(
    spec: Spec, images: Images, check: Validation, epochs: int, *, seed: int, out: cli.Out
) -> nn.Module:
    """A network trained on images with the recipe of train.py."""
    torch.manual_seed(seed)
    name = spec.kind.network
    model = held_out_networks.network(name, spec.kind.classes)
    train.train(
        model, images.pixels, images.labels, check, out, epochs=epochs, peak=held_out_networks.PEAK[name]
    )
    return model
