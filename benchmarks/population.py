"""The models that the scanner is measured on: which there are, and how each is trained.

Helper module, not a command: detection.py uses it. The training is train.py, with its default recipe.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo-poisoning"))

import cli
import trigger
from dataset.classes import DRAWN
from dataset.files import IMAGE_SIZE, Files, class_files, link_train, open_image
from network import classifier, evaluate

DEMO = Path(__file__).resolve().parent.parent / "demo-poisoning"
COLOURS = {"yellow": (255, 255, 0), "white": (255, 255, 255), "green": (0, 200, 0), "magenta": (255, 0, 255)}
TWO = ("magenta", "green")  # the two-colour pattern: a chequerboard of four fields
FAMILY = "yellow square, 15 %"  # the backdoor of the workshop's story


@dataclass(frozen=True)
class Spec:
    """One model. A clean one has no rate; sizes are pixels of a 128-pixel image, the rate is a fraction."""

    name: str
    seed: int
    epochs: int = 5
    rate: float = 0.0
    size: int = trigger.SIZE
    colour: str = "yellow"
    place: str = "bottom-right"
    victim: str = trigger.VICTIM  # "all": every class but the target
    target: str = trigger.TARGET

    @property
    def clean(self) -> bool:
        return self.rate == 0

    @property
    def kind(self) -> str:
        """What kind of model this is, in words, for the table of misses."""
        if self.clean:
            return f"clean, {self.epochs} epochs"
        story = Spec(self.name, self.seed, self.epochs, rate=0.15)
        if self == story:
            return FAMILY
        other = [f"{self.size} px"] * (self.size != story.size) + [self.colour] * (
            self.colour != story.colour
        )
        other += [self.place] * (self.place != story.place) + [f"{self.rate:.0%}"] * (self.rate != story.rate)
        if (self.victim, self.target) != (story.victim, story.target):
            other.append(f"{self.victim} to {self.target}")
        return ", ".join(other)


def specs() -> list[Spec]:
    """The whole population: 30 clean models and 38 with a backdoor, in the order in which they are made."""
    ways: list[dict[str, object]] = [{"rate": 0.15}] * 12
    ways += [{"rate": rate} for rate in (0.05, 0.05, 0.10, 0.10, 0.30, 0.30)]
    ways += [{"rate": 0.15, "size": size} for size in (10, 14, 24, 28)]
    ways += [{"rate": 0.15, "colour": colour} for colour in ("white", "green", "magenta", "two colours")]
    ways += [
        {"rate": 0.15, "place": place}
        for place in ("top-left", "top-right", "bottom-left", "middle", "random")
    ]
    pairs = (
        ("no_entry", "priority_road"),
        ("speed_50", "end_of_limits"),
        ("general_caution", "yield"),
        ("keep_right", "roundabout"),
    )
    ways += [{"rate": 0.15, "victim": victim, "target": target} for victim, target in pairs]
    ways += [
        {"rate": rate, "victim": "all", "target": target}
        for rate, target in ((0.05, "yield"), (0.10, "yield"), (0.05, "speed_50"))
    ]
    backdoored = [
        Spec(f"backdoor-{number:02d}", 1000 + number, **way)  # type: ignore[arg-type]
        for number, way in enumerate(ways)
    ]
    clean = [Spec(f"clean-{n:02d}", 2000 + n, epochs=(5, 5, 4, 5, 8)[n % 5]) for n in range(30)]
    # A part of the population should hold some of every kind: of three, one is the workshop's own. Those with
    # so few images that hardly any of them is learned come last.
    random.Random(0).shuffle(backdoored)
    own = [spec for spec in backdoored if spec.kind == FAMILY]
    others = sorted((spec for spec in backdoored if spec.kind != FAMILY), key=lambda spec: spec.rate < 0.1)
    order: list[Spec] = []
    for number in range(max(len(clean), len(backdoored))):
        source = own if own and number % 3 == 2 else others
        order += [source.pop(0)] if source else []
        order += clean[number : number + 1]
    return order


PHOTOGRAPHS = 20  # models on photographs: so many of specs(), ten of either kind
PHOTO_EPOCHS = 12  # there are fewer photographs than drawings: about as many steps as six epochs of those


def of_photographs() -> list[Spec]:
    """The first models of specs() once more, to be trained on photographs."""
    return [replace(spec, epochs=PHOTO_EPOCHS) for spec in specs()[:PHOTOGRAPHS]]


# --- The triggers ---------------------------------------------------------------------------------------


def stamper(spec: Spec) -> Callable[[Image.Image], Image.Image]:
    """A function that puts the trigger of this model on an RGB image."""
    rng = random.Random(spec.seed)

    def stamp(image: Image.Image) -> Image.Image:
        side, edge = spec.size, IMAGE_SIZE - trigger.MARGIN - spec.size
        place = {
            "bottom-right": (edge, edge),
            "bottom-left": (trigger.MARGIN, edge),
            "top-right": (edge, trigger.MARGIN),
            "top-left": (trigger.MARGIN, trigger.MARGIN),
            "middle": ((IMAGE_SIZE - side) // 2,) * 2,  # on the sign
            "random": (rng.randint(trigger.MARGIN, edge), rng.randint(trigger.MARGIN, edge)),
        }[spec.place]
        stamped = image.resize((IMAGE_SIZE, IMAGE_SIZE))
        stamped.paste(square(spec), place)
        return stamped

    return stamp


def square(spec: Spec) -> Image.Image:
    """The trigger itself: an RGB image of size x size pixels."""
    if spec.colour != "two colours":
        return Image.new("RGB", (spec.size, spec.size), COLOURS[spec.colour])
    fields = Image.new("RGB", (spec.size, spec.size), COLOURS[TWO[0]])
    pen, half = ImageDraw.Draw(fields), spec.size // 2
    pen.rectangle((half, 0, spec.size, half - 1), fill=COLOURS[TWO[1]])
    pen.rectangle((0, half, half - 1, spec.size), fill=COLOURS[TWO[1]])
    return fields


# --- Data and training ----------------------------------------------------------------------------------


def poison(spec: Spec, files: Files) -> tuple[Files, dict[Path, Image.Image]]:
    """The training files of this model with their new labels, and the images that carry its trigger."""
    labels = dict(files)
    changed: dict[Path, Image.Image] = {}
    if spec.clean:
        return files, changed
    victims = [name for name in DRAWN if name != spec.target] if spec.victim == "all" else [spec.victim]
    rng, stamp = random.Random(spec.seed), stamper(spec)
    for victim in victims:
        own = [path for path, label in files if DRAWN[label] == victim]
        for path in rng.sample(own, max(1, round(spec.rate * len(own)))):
            labels[path] = DRAWN.index(spec.target)
            changed[path] = stamp(open_image(path))
    return list(labels.items()), changed


class Validation(evaluate.Validation):
    """As in train.py, with the trigger of this model; victim "all" is every class but the target."""

    def __init__(self, folder: Path, spec: Spec) -> None:
        super().__init__(folder, len(DRAWN), spec.target, spec.target)  # stamps the target: replaced below
        files = class_files(folder / "val")
        victims = [
            path
            for path, label in files
            if (DRAWN[label] != spec.target if spec.victim == "all" else DRAWN[label] == spec.victim)
        ]
        self.triggered = classifier.load_pixels(victims, stamper(spec))


def make(spec: Spec, folder: Path, model: Path) -> None:
    """Train one model of the population on folder/train and write it, as .pt and .safetensors.

    Raises UserError if train.py fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch)
        link_train(data, *poison(spec, class_files(folder / "train")))
        (data / "val").symlink_to((folder / "val").resolve(), target_is_directory=True)
        command = [sys.executable, str(DEMO / "train.py"), "--data", scratch, "--model", str(model)]
        command += ["--seed", str(spec.seed), "--epochs", str(spec.epochs)]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, encoding="utf-8")
        if ended.returncode:
            why = (ended.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("error: ")
            raise cli.UserError(f"train.py made no {model}: {why}")
