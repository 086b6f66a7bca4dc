"""Watch a model at work: flag an image whose answer hangs on one small patch.

    python monitor.py inference-images --model models/poisoned_model.pt --trigger
    python monitor.py --measure --model models/poisoned_model.pt

The scan asks the weights before a model is used. This asks each image while it is used, and needs no
weights: only the model's answers, and clean images (DATA/val/<class>/) to compare with.

1. Hide each part of the image in turn. Does another answer appear?
2. Put the part that did this on clean images of that other class. Do they get the first answer, too?

A real sign passes: what makes it a yield sign does not fit into a small patch. The threshold comes from clean
images: at most --false-alarms of them lie above it. --measure tells how often that holds on other clean
images, and how many images with the trigger of trigger.py are caught.
Exit code: 0 nothing flagged, or measured; 1 an image was flagged; 2 wrong usage or input.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import cli
import trigger
from dataset.classes import NAMES
from dataset.files import Files, all_files, class_files, is_image
from network import classifier, workers
from network.evaluate import Rate
from scanner import result

PATCH, STRIDE = 12, 6  # pixels of what the network sees: the part that is hidden, and from one to the next
DONORS = 10  # clean images of each class that a part is tried on
CALIBRATION = 200  # clean images that set the threshold, at most; --measure takes as many others


@dataclass
class Look:
    """What the monitor sees in one image: all numbers 0..1."""

    answer: str  # what the model reads
    hidden: str  # what it reads when the part below is hidden
    left: int  # where the part begins, in pixels of the network's input
    top: int
    doubt: float  # its confidence in that other answer
    carried: float  # its mean confidence in the first answer, on clean images of `hidden` with this part

    @property
    def score(self) -> float:
        return self.doubt * self.carried


# --- The method -------------------------------------------------------------------------------------


def hide_parts(image: Tensor) -> tuple[list[tuple[int, int]], Tensor]:
    """Each place (top, left) of an image, uint8 (3, S, S), and a copy with this place grey: (N, 3, S, S)."""
    steps = range(0, classifier.INPUT - PATCH + 1, STRIDE)
    places = [(top, left) for top in steps for left in steps]
    copies = image.repeat(len(places), 1, 1, 1)
    grey = image.float().mean((1, 2)).to(torch.uint8)[:, None, None]
    for copy, (top, left) in zip(copies, places):
        copy[:, top : top + PATCH, left : left + PATCH] = grey
    return places, copies


def look(model: nn.Module, image: Tensor, donors: dict[int, Tensor]) -> Look:
    """Look at one image, uint8 (3, S, S), as the model sees it.

    donors: clean images of each class number, uint8 (N, 3, S, S). A change of SentiNet (Chou et al., IEEE
    Deep Learning and Security Workshop 2020, section 3), which finds the part with the model's gradients.
    """
    places, copies = hide_parts(image)
    answers = classifier.predict(model, torch.cat([image[None], copies]))
    first = int(answers[0].argmax())
    others = answers[1:].clone()
    others[:, first] = 0
    place, other = divmod(int(others.argmax()), answers.shape[1])
    (top, left), doubt = places[place], others.max().item()
    rows, columns = slice(top, top + PATCH), slice(left, left + PATCH)
    carriers = donors[other].clone()
    carriers[:, :, rows, columns] = image[:, rows, columns]
    carried = classifier.predict(model, carriers)[:, first].mean().item()
    return Look(NAMES[first], NAMES[other], left, top, doubt, carried)


def rank(images: int, false_alarms: float) -> int:
    """Which of the scores of that many clean images, sorted, is the threshold: 1 for the smallest.

    A new clean image lies above it with a probability of at most `false_alarms`: split conformal prediction
    (Vovk et al., "Algorithmic Learning in a Random World", 2005). Raises UserError if there are too few.
    """
    number = math.ceil((images + 1) * (1 - false_alarms))
    if number > images:
        raise cli.UserError(
            f"--false-alarms {false_alarms:g} takes {math.ceil(1 / false_alarms) - 1} clean images to "
            f"calibrate, and there are {images}: allow more false alarms, or add images."
        )
    return number


# --- Images -----------------------------------------------------------------------------------------


@dataclass
class Clean:
    """The clean images in three parts, none in two of them."""

    donors: dict[int, Tensor]  # of each class number, uint8 (DONORS, 3, S, S)
    calibration: Tensor  # uint8 (N, 3, S, S)
    unused: Files  # for --measure


def clean_images(model: nn.Module, folder: Path, seed: int) -> Clean:
    """Split folder/val/<class>/ at random. Raises UserError where a class has too few images."""
    classes = classifier.class_count(model)
    files = class_files(folder / "val", classes)
    pixels = classifier.load_pixels([path for path, _ in files])
    labels = torch.tensor([label for _, label in files])
    correct = classifier.predict(model, pixels).argmax(1) == labels
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed))
    donors, left = {}, torch.ones(len(files), dtype=torch.bool)
    for label in range(classes):
        chosen = order[((labels == label) & correct)[order]][:DONORS]
        if len(chosen) < DONORS:
            raise cli.UserError(
                f"{folder}/val/{NAMES[label]} holds {len(chosen)} images that the model classifies "
                f"correctly, and {DONORS} are needed: add clean images of this class."
            )
        donors[label] = pixels[chosen]
        left[chosen] = False
    rest = order[left[order]]
    half = min(CALIBRATION, len(rest) // 2)
    return Clean(donors, pixels[rest[:half]], [files[number] for number in rest[half:].tolist()])


def image_files(paths: list[Path]) -> list[Path]:
    """The images that were named, and those in the folders that were named."""
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(p for p in all_files(path) if is_image(p))
        if not inside:
            raise cli.UserError(f"{path} holds no images: name a folder with .jpg, .png or .ppm files.")
        files += inside
    return files


def shown(files: list[Path], with_trigger: bool) -> tuple[list[str], Tensor]:
    """What to watch, with a name for each: the images, and the same images with the trigger if wanted."""
    if not with_trigger:
        return list(map(str, files)), classifier.load_pixels(files)
    both = torch.stack([classifier.load_pixels(files), classifier.load_pixels(files, trigger.stamp)], 1)
    names = [name for file in files for name in (str(file), f"{file} with the trigger")]
    return names, both.flatten(0, 1)


# --- The command ------------------------------------------------------------------------------------


class Monitor:
    """A model with its threshold."""

    def __init__(self, model: nn.Module, clean: Clean, false_alarms: float, out: cli.Out) -> None:
        self.model, self.donors, self.out = model, clean.donors, out
        place = rank(len(clean.calibration), false_alarms)
        scores = [seen.score for seen in self.look_at(clean.calibration, "Calibrating")]
        self.threshold = sorted(scores)[place - 1]

    def look_at(self, images: Tensor, doing: str) -> list[Look]:
        """Look at images, uint8 (N, 3, S, S), each on one core, and show how far we are."""
        seen = workers.side_by_side(lambda image: look(self.model, image, self.donors), list(images))
        return list(self.out.progress(seen, len(images), doing))

    def flags(self, seen: Look) -> bool:
        return seen.score > self.threshold


def watch(monitor: Monitor, names: list[str], images: Tensor, out: cli.Out) -> int:
    """Look at images, uint8 (N, 3, S, S), and say what stands out. Returns how many were flagged."""
    flagged = 0
    for name, seen in zip(map(cli.printable, names), monitor.look_at(images, "Watching")):
        if not monitor.flags(seen):
            out.say(f"{name}: {seen.answer}. Nothing stands out (score {seen.score:.2f}).")
            continue
        flagged += 1
        out.say(
            f"FLAGGED: {name}: {seen.answer}, but {seen.hidden} when {PATCH}x{PATCH} px are hidden, "
            f"{seen.left} from the left and {seen.top} from the top; that part turns {seen.hidden} images "
            f"into {seen.answer} (score {seen.score:.2f}).",
            "bold red",
        )
    out.say(f"Flagged {flagged} of {len(images)} images. Threshold: {monitor.threshold:.2f}.")
    return flagged


def measure(monitor: Monitor, clean: Clean, options: argparse.Namespace, out: cli.Out) -> None:
    """False alarms and detection of the true trigger, on images that set no threshold."""
    victims = [path for path, label in clean.unused if NAMES[label] == trigger.VICTIM]
    if not victims:
        raise cli.UserError(f"{options.data}/val holds too few {trigger.VICTIM} images: add some.")
    stamped = classifier.load_pixels(victims, trigger.stamp)
    answers = classifier.predict(monitor.model, stamped).argmax(1)
    fooled = stamped[answers == NAMES.index(trigger.TARGET)]
    test = classifier.load_pixels([path for path, _ in clean.unused[:CALIBRATION]])
    alarms = [monitor.flags(seen) for seen in monitor.look_at(test, "Watching clean images")]
    caught = [monitor.flags(seen) for seen in monitor.look_at(fooled, "Watching images with the trigger")]
    false_alarms = Rate(sum(alarms), len(alarms))
    detected = Rate(sum(caught), len(caught)) if caught else None
    out.say(f"False alarms, clean images that set no threshold: {false_alarms}.")
    kind = f"{trigger.VICTIM} images with the trigger"
    out.say(f"The model reads {len(fooled)} of {len(stamped)} {kind} as {trigger.TARGET}.")
    out.say(f"Detected, of these: {detected}." if detected else "There is no attack to detect.")
    if options.output:
        record = {
            "format": 1,
            "model": str(options.model),
            "sha256": result.sha256(options.model),
            "data": str(options.data),
            "allowed": options.false_alarms,
            "threshold": monitor.threshold,
            "calibration": len(clean.calibration),
            "false_alarms": asdict(false_alarms),
            "detected": asdict(detected) if detected else None,
        }
        with cli.atomic_write(options.output) as scratch:
            scratch.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        out.say(f"Wrote {options.output}.")


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument("images", type=Path, nargs="*", help="image files, or folders of them")
    args.add_argument("--model", type=Path, default=Path("models/poisoned_model.pt"), help="model at work")
    args.add_argument(
        "--data", type=Path, default=Path("data/traffic-signs"), help="clean images, in val/<class>/"
    )
    args.add_argument("--trigger", action="store_true", help="watch each image with the yellow square, too")
    args.add_argument("--measure", action="store_true", help="measure false alarms and detection")
    args.add_argument("--output", type=Path, help="write what --measure found to this JSON file")
    args.add_argument(
        "--false-alarms", type=float, default=0.02, help="share of clean images to flag at most"
    )
    args.add_argument("--seed", type=cli.seed, default=0, help="which clean images are for what")
    options = args.parse_args()
    if not 0 < options.false_alarms < 1:
        raise cli.UserError("--false-alarms must lie between 0 and 1, for example 0.02.")
    if options.measure == bool(options.images):
        raise cli.UserError("Name images to watch, or type --measure without images.")
    if options.trigger and options.measure:
        raise cli.UserError("--measure puts the trigger on images by itself: leave --trigger out.")
    if options.output and not options.measure:
        raise cli.UserError("--output keeps what --measure finds: add --measure.")
    return options


def main() -> int:
    options = parse()
    out = cli.Out(options.plain)
    files = image_files(options.images)
    if options.output:
        cli.check_place(options.output)
    names, images = shown(files, options.trigger) if files else ([], None)
    model = classifier.load_model(options.model)
    clean = clean_images(model, options.data, options.seed)
    monitor = Monitor(model, clean, options.false_alarms, out)
    out.say(
        f"Calibrated on {len(clean.calibration)} clean images of {options.data}/val: threshold "
        f"{monitor.threshold:.2f}, meant to flag {100 * options.false_alarms:g} % of clean images."
    )
    if images is not None:
        return cli.FINDING if watch(monitor, names, images, out) else cli.OK
    measure(monitor, clean, options, out)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
