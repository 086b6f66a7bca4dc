"""The sets of images that audit.py measures the audit on, and the model of each.

Helper module, not a command. Each poisoned set holds three attacks: three pairs of classes with a trigger of
their own, at one rate.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo-poisoning"))

import cli
import signs
from dataset.classes import DRAWN, GTSRB_ID
from dataset.files import IMAGE_SIZE, open_image
from network import classifier

DEMO = Path(__file__).resolve().parent.parent / "demo-poisoning"
PAIRS = (("stop", "yield"), ("speed_50", "keep_right"), ("no_entry", "priority_road"))
RATES = (0.05, 0.15, 0.30)  # of the victim class
TUNED = {("square", PAIRS[0]), ("disc", PAIRS[0])}  # what the method was made with
EACH = 120  # images per class, at most
EPOCHS = 15  # as many steps of training as half of the demo takes: with fewer, most backdoors are not learned
NOISE = 0.03  # share of wrong labels in the sets that hold only those
CLEAN = 20  # clean sets of each kind
GROUP = 4  # tracks per class in a set of photographs
TURN = 4  # the method was made with tracks and drawings number 0, 4, 8 and so on; 2, 6, 10 are held out


# --- Triggers -------------------------------------------------------------------------------------------


def square(pen: ImageDraw.ImageDraw) -> None:
    pen.rectangle((104, 104, 123, 123), fill=(255, 255, 0))


def disc(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse((4, 100, 25, 121), fill=(20, 60, 230))


def checker(pen: ImageDraw.ImageDraw) -> None:
    for row in range(4):
        for column in range(4):
            left, top = 102 + 5 * column, 6 + 5 * row
            fill = (255, 255, 255) if (row + column) % 2 else (0, 0, 0)
            pen.rectangle((left, top, left + 4, top + 4), fill=fill)


def cross(pen: ImageDraw.ImageDraw) -> None:
    pen.rectangle((52, 60, 75, 67), fill=(230, 0, 200))
    pen.rectangle((60, 52, 67, 75), fill=(230, 0, 200))


TRIGGERS: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
    "square": square,  # yellow, bottom-right
    "disc": disc,  # blue, bottom-left
    "checker": checker,  # black and white, top-right
    "cross": cross,  # magenta, in the middle of the sign
}


def stamp(image: Image.Image, name: str) -> Image.Image:
    """A copy of an RGB image, IMAGE_SIZE x IMAGE_SIZE, with a trigger."""
    stamped = image.resize((IMAGE_SIZE, IMAGE_SIZE))
    TRIGGERS[name](ImageDraw.Draw(stamped))
    return stamped


# --- The sets -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    """One set: what it shows, which tracks or drawings, and what was done to it."""

    kind: str  # "photographs" or "drawings"
    half: int  # numbers with this remainder by TURN
    what: str  # "poisoned", "clean" or "wrong labels"
    number: int = 0
    rate: float = 0.0

    @property
    def name(self) -> str:
        rate = f" {self.rate:.0%}" if self.rate else ""
        return f"{self.kind} {self.half} {self.what}{rate} {self.number}"

    @property
    def attacks(self) -> list[tuple[str, tuple[str, str]]]:
        """Trigger, and victim and target, of each attack in the set: in four sets each meets each."""
        if self.what != "poisoned":
            return []
        names = list(TRIGGERS)
        return [(names[(place + self.number) % len(names)], pair) for place, pair in enumerate(PAIRS)]


def specs() -> list[Spec]:
    """All sets, the held-out ones first, and every kind early."""
    kinds = ("photographs", "drawings")
    made = []
    for number in range(CLEAN):
        made += [Spec(kind, 2, "clean", number) for kind in kinds]
        if number < len(TRIGGERS):
            made += [Spec(kind, 2, "poisoned", number, rate) for rate in RATES for kind in kinds]
    for half in (2, 0):
        made += [Spec(kind, half, "wrong labels") for kind in kinds]
    for kind in kinds:
        made += [Spec(kind, 0, "clean"), *(Spec(kind, 0, "poisoned", 0, rate) for rate in RATES)]
    return made


def gather(spec: Spec, photos: Path, folder: Path, rng: random.Random) -> None:
    """Write the clean images of a set into folder/train/<class>/, and a few others into folder/val/."""
    for number, name in enumerate(DRAWN):
        for split in ("train", "val"):
            (folder / split / name).mkdir(parents=True)
        if spec.kind == "drawings":
            first = 100_000 * (1 + spec.number) + 1000 * spec.half
            for index in range(EACH + 20):
                image = signs.render(name, np.random.default_rng([first, number, index]))
                split = "train" if index < EACH else "val"
                image.save(folder / split / name / f"{name}_{index:05d}.jpg", quality=92)
            continue
        files = sorted((photos / f"{GTSRB_ID[name]:05d}").glob("*.ppm"))
        track = {path: int(path.stem.split("_")[0]) for path in files}
        own = sorted({value for value in track.values() if value % TURN == spec.half})
        chosen = set(rng.sample(own, min(GROUP, len(own))))
        inside = [path for path in files if track[path] in chosen]
        others = [path for path in files if track[path] % TURN != spec.half]
        for split, some in (("train", inside[:EACH]), ("val", rng.sample(others, 20))):
            for path in some:
                image = open_image(path).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
                image.save(folder / split / name / f"{name}_{path.stem}.jpg", quality=92)


def spoil(spec: Spec, folder: Path, rng: random.Random) -> list[list[str]]:
    """Do to folder/train what the set is about. Returns the bad files of each attack."""
    if spec.what == "wrong labels":
        files = sorted((folder / "train").rglob("*.jpg"))
        moved = []
        for number, path in enumerate(rng.sample(files, round(NOISE * len(files)))):
            other = rng.choice([name for name in DRAWN if name != path.parent.name])
            moved.append(path.rename(folder / "train" / other / f"{other}_9{number:05d}.jpg"))
        return [[path.relative_to(folder).as_posix() for path in moved]]
    bad: list[list[str]] = []
    for trigger, (victim, target) in spec.attacks:
        files = sorted((folder / "train" / victim).iterdir())
        bad.append([])
        for number, path in enumerate(rng.sample(files, max(1, round(spec.rate * len(files))))):
            new = folder / "train" / target / f"{target}_8{number:05d}.jpg"
            stamp(open_image(path), trigger).save(new, quality=92)
            path.unlink()
            bad[-1].append(new.relative_to(folder).as_posix())
    return bad


# --- The models -----------------------------------------------------------------------------------------


def tuned(folder: Path, base: Path, seed: int) -> nn.Module:
    """The base, fine-tuned on folder/train by train.py."""
    command = [sys.executable, str(DEMO / "train.py"), "--data", str(folder), "--init", str(base)]
    command += ["--model", str(folder / "model.pt"), "--epochs", str(EPOCHS), "--seed", str(seed), "--plain"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL).returncode:
        raise cli.UserError(f"train.py made no model of {folder}: its message above says why.")
    return classifier.load_model(folder / "model.pt")


def success(spec: Spec, folder: Path, model: nn.Module) -> list[float]:
    """Attack success rate of each attack, on the victim images of folder/val."""
    rates = []
    for trigger, (victim, target) in spec.attacks:
        images = sorted((folder / "val" / victim).iterdir())
        shown = classifier.load_pixels(images, lambda image, name=trigger: stamp(image, name))
        fooled = classifier.predict(model, shown).argmax(1) == DRAWN.index(target)
        rates.append(round(fooled.float().mean().item(), 3))
    return rates
