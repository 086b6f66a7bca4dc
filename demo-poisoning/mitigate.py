"""Repair a poisoned model in three ways, and measure each before and after.

    python mitigate.py            # after audit_data.py and detect.py: uses what they found
    python mitigate.py --repair finetune --share 0.25 --epochs 5 --lr 0.01

drop      leave out the images that audit_data.py flagged, and train again from random weights
finetune  train the poisoned model on with a share of clean images
unlearn   the same, and half of the victim class carries the recovered trigger under its correct label
          (Wang et al., "Neural Cleanse", IEEE S&P 2019, section VI)

A repair is a dataset and the ordinary training: each makes its images and runs train.py on them. No repair
knows the attacker's trigger. Only the measurement stamps it, as train.py does.
Exit code: 0 all repairs measured, 2 wrong usage or input.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

import cli
import trigger
from dataset.classes import NAMES
from dataset.files import Files, class_files, link_train
from network import classifier
from network.evaluate import Score, Validation
from scanner import result
from scanner.neural_cleanse import Trigger

TRAIN = Path(__file__).with_name("train.py")
REPAIRS = ("drop", "finetune", "unlearn")
STAMPED = 0.5  # share of the victim's images that carry the recovered trigger


@dataclass
class Outcome:
    """What one repair achieved."""

    name: str
    score: Score
    seconds: float


# --- What the repairs learn from --------------------------------------------------------------------


def some_of(files: Files, share: float, rng: torch.Generator) -> Files:
    """A random share of the files of each class, at least one."""
    chosen = []
    for label in sorted({label for _, label in files}):
        own = [entry for entry in files if entry[1] == label]
        count = max(1, round(share * len(own)))
        chosen += [own[i] for i in torch.randperm(len(own), generator=rng)[:count].tolist()]
    return chosen


def read_suspects(path: Path) -> set[str]:
    """The flagged files in suspects.json of audit_data.py, relative to the dataset."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["suspects"]
        flagged = {str(one["file"]) for one in found if one["flagged"]}
    except FileNotFoundError as error:
        raise cli.UserError(
            f"{path} does not exist: run audit_data.py, or leave drop out of --repair."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise cli.UserError(
            f"{path} is not a list of suspects: give the suspects.json of audit_data.py."
        ) from error
    if not flagged:
        raise cli.UserError(f"{path} flags no image: there is nothing to drop.")
    return flagged


def read_triggers(path: Path) -> list[Trigger]:
    """The flagged triggers of a scan: path is its triggers.safetensors, and scan.json lies beside it."""
    if not path.is_file():
        raise cli.UserError(f"{path} does not exist: run detect.py, or leave unlearn out of --repair.")
    if path.name != result.TRIGGERS:
        raise cli.UserError(f"{path} is not a {result.TRIGGERS}: give that of detect.py.")
    scan = result.read(path.parent / result.NAME)
    triggers = [found for pair, found in result.read_triggers(path.parent, scan) if pair.flagged]
    if not triggers:
        raise cli.UserError(f"{path} belongs to a scan that flagged no pair: there is nothing to unlearn.")
    return triggers


def stamp(pixels: Tensor, found: Trigger) -> list[Image.Image]:
    """Put a recovered trigger on images: uint8 (N, 3, S, S) to RGB images of S x S pixels."""
    stamped = (255 * found.stamp(pixels / 255)).round().clamp(0, 255).to(torch.uint8)
    return [F.to_pil_image(one) for one in stamped]


def victims_to_stamp(files: Files, victim: int, rng: torch.Generator) -> list[Path]:
    """Half of a victim class, at random.

    The paper stamps a fifth of all images; our backdoors work on one victim class, so its images are the ones
    to learn from.
    """
    own = [path for path, label in files if label == victim]
    return [own[i] for i in torch.randperm(len(own), generator=rng)[: math.ceil(STAMPED * len(own))].tolist()]


def make_data(name: str, folder: Path, classes: int, options: argparse.Namespace, out: cli.Out) -> None:
    """Make the dataset that a repair learns from, with the validation images of the clean one."""
    rng = torch.Generator().manual_seed(options.seed)
    (folder / "val").symlink_to((options.data / "val").resolve(), target_is_directory=True)
    if name == "drop":
        files = class_files(options.poisoned_data / "train", classes)
        flagged = read_suspects(options.suspects)
        kept = [(p, n) for p, n in files if p.relative_to(options.poisoned_data).as_posix() not in flagged]
        if len(files) - len(kept) != len(flagged):
            raise cli.UserError(
                f"{options.suspects} names images that are not in {options.poisoned_data}: "
                "give the audit of that data."
            )
        out.say(f"Learning from {len(kept):,} of {len(files):,} images in {options.poisoned_data}/train.")
        return link_train(folder, kept, {})
    files = some_of(class_files(options.data / "train", classes), options.share, rng)
    if max(label for _, label in files) != classes - 1:
        raise cli.UserError(
            f"{options.data}/train has no images of {NAMES[classes - 1]}, which {options.model} knows: "
            "use clean images of all its classes."
        )
    out.say(f"Learning from {len(files):,} clean images of {options.data}/train.")
    stamped: dict[Path, Image.Image] = {}
    if name == "unlearn":
        for found in read_triggers(options.triggers):
            paths = victims_to_stamp(files, found.victim, rng)
            stamped |= dict(zip(paths, stamp(classifier.load_pixels(paths), found)))
        out.say(f"{len(stamped):,} of them carry the recovered trigger and their correct label.")
    return link_train(folder, files, stamped)


# --- The repairs ------------------------------------------------------------------------------------


def repair(
    name: str, classes: int, validation: Validation, options: argparse.Namespace, out: cli.Out
) -> Outcome:
    """Make the images of a repair, run train.py on them, and measure the model that it writes."""
    started = time.monotonic()
    made = options.output / f"{name}.pt"
    with tempfile.TemporaryDirectory() as scratch:
        make_data(name, Path(scratch), classes, options, out)
        arguments = ["--data", scratch, "--model", str(made), "--seed", str(options.seed)]
        arguments += ["--victim", options.victim, "--target", options.target]
        if name == "drop":
            arguments += ["--epochs", str(options.retrain_epochs)]
        else:
            arguments += [
                "--init",
                str(options.model),
                "--epochs",
                str(options.epochs),
                "--lr",
                str(options.lr),
            ]
        out.say(f"$ python train.py {' '.join(arguments)}")
        plain = {"NO_COLOR": "1"} if out.plain else {}
        code = subprocess.run(
            [sys.executable, TRAIN, *arguments], env=os.environ | plain, check=False
        ).returncode
    if code:
        raise cli.UserError(f"train.py made no {made} (exit code {code}): its message above says why.")
    return Outcome(name, validation.score(classifier.load_model(made)), time.monotonic() - started)


def report(outcomes: list[Outcome], options: argparse.Namespace, out: cli.Out) -> None:
    """Print one row per repair; the first outcome is the poisoned model before any."""
    rows = []
    for one in outcomes:
        score = one.score
        low, high = score.accuracy.interval
        rate = "not measured"
        if score.attack_success:
            least, most = score.attack_success.interval
            rate = f"{score.attack_success_rate:.2f} ({least:.2f} to {most:.2f})"
        took = f"{one.seconds:.0f}" if one.seconds else "-"
        rows.append((one.name, f"{score.clean_acc:.3f} ({low:.3f} to {high:.3f})", rate, took))
    out.table(
        f"{options.model}, before and after",
        ("repair", "clean accuracy (95 % interval)", "attack success rate (95 % interval)", "seconds"),
        rows,
    )


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument("--model", type=Path, default=Path("models/poisoned_model.pt"), help="model to repair")
    args.add_argument(
        "--data", type=Path, default=Path("data/traffic-signs"), help="clean images that you trust"
    )
    args.add_argument(
        "--poisoned-data", type=Path, default=Path("data/traffic-signs-poisoned"), help="what was trained on"
    )
    args.add_argument("--repair", nargs="+", choices=REPAIRS, default=list(REPAIRS), help="which repairs")
    args.add_argument(
        "--suspects",
        type=Path,
        default=Path("audit_results/suspects.json"),
        help="for drop: of audit_data.py",
    )
    args.add_argument(
        "--triggers",
        type=Path,
        default=Path("scan_results/poisoned/triggers.safetensors"),
        help="for unlearn: of detect.py",
    )
    args.add_argument("--share", type=float, default=0.25, help="share of --data to learn from, above 0 to 1")
    args.add_argument("--epochs", type=int, default=5, help="passes of finetune and unlearn")
    args.add_argument("--lr", type=float, default=0.02, help="peak learning rate of finetune and unlearn")
    args.add_argument("--retrain-epochs", type=int, default=6, help="passes of drop")
    args.add_argument("--output", type=Path, default=Path("models/repaired"), help="folder for the models")
    args.add_argument("--victim", default=trigger.VICTIM, choices=NAMES, metavar="CLASS", help="to measure")
    args.add_argument("--target", default=trigger.TARGET, choices=NAMES, metavar="CLASS", help="to measure")
    args.add_argument("--seed", type=cli.seed, default=0, help="which images, order and augmentation")
    options = args.parse_args()
    if min(options.epochs, options.retrain_epochs) < 1 or not 0 < options.lr < 100:
        raise cli.UserError("--epochs and --retrain-epochs must be 1 or more and --lr between 0 and 100.")
    if not 0 < options.share <= 1:
        raise cli.UserError(f"--share {options.share} is not above 0 and at most 1: try 0.25.")
    return options


def main() -> int:
    options = parse()
    out = cli.Out(options.plain)
    poisoned = classifier.load_model(options.model)
    classes = classifier.class_count(poisoned)
    wanted = [name for name in REPAIRS if name in options.repair]
    if "drop" in wanted:  # say what is missing before minutes of work
        read_suspects(options.suspects)
    if "unlearn" in wanted:
        read_triggers(options.triggers)
    cli.check_place(options.output / "drop.pt")
    validation = Validation(options.data, classes, options.victim, options.target)
    outcomes = [Outcome("none (poisoned)", validation.score(poisoned), 0)]
    for name in wanted:
        out.heading(f"Repair: {name}")
        outcomes.append(repair(name, classes, validation, options, out))
    report(outcomes, options, out)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
