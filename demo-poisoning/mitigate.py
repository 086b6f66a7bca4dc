"""Repair a poisoned model in three ways, and measure each before and after.

    python mitigate.py            # after audit_data.py and detect.py: uses what they found
    python mitigate.py --repair finetune --share 0.25 --epochs 5 --lr 0.01

drop      leave out the pictures that audit_data.py flagged, and train again from random weights
finetune  train the poisoned model on with a share of clean pictures
unlearn   the same, and half of the victim class carries the trigger that detect.py recovered, labels right
          (Wang et al., "Neural Cleanse", IEEE S&P 2019, section VI)

No repair knows the attacker's sticker. Only the measurement stamps it (train.Validation), as train.py does.
Exit code: 0 all repairs measured, 2 wrong usage or input.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

import classifier
import cli
import dataset
import evidence
import train
import trigger
from classes import NAMES

REPAIRS = ("drop", "finetune", "unlearn")
STAMPED = 0.5  # share of the victim's pictures that carry the recovered trigger

Stickers = dict[int, tuple[Tensor, Tensor]]  # victim class: mask (S, S) and pattern (3, S, S), both in 0..1


@dataclass
class Outcome:
    """What one repair achieved."""

    name: str
    score: train.Score
    seconds: float


# --- What the repairs learn from --------------------------------------------------------------------


def read_pictures(files: list[tuple[Path, int]]) -> tuple[Tensor, Tensor]:
    """Pixels, uint8 (N, 3, S, S), and labels (N,)."""
    pixels = classifier.load_pixels([path for path, _ in files])
    return pixels, torch.tensor([label for _, label in files])


def some_of(files: list[tuple[Path, int]], share: float, dice: torch.Generator) -> list[tuple[Path, int]]:
    """A random share of the files of each class, at least one."""
    chosen = []
    for label in sorted({label for _, label in files}):
        own = [entry for entry in files if entry[1] == label]
        count = max(1, round(share * len(own)))
        chosen += [own[i] for i in torch.randperm(len(own), generator=dice)[:count].tolist()]
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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise cli.UserError(
            f"{path} is no list of suspects: give the suspects.json of audit_data.py."
        ) from error
    if not flagged:
        raise cli.UserError(f"{path} flags no picture: there is nothing to drop.")
    return flagged


def read_triggers(path: Path) -> Stickers:
    """The recovered triggers in a file of detect.py: those that scan.json beside it flags, else all."""
    if not path.is_file():
        raise cli.UserError(f"{path} does not exist: run detect.py, or leave unlearn out of --repair.")
    wrong = cli.UserError(f"{path} holds no triggers that fit: give triggers.safetensors of detect.py.")
    size = classifier.INPUT
    try:
        tensors = load_file(path)
        scan = path.with_name("scan.json")
        pairs = json.loads(scan.read_text(encoding="utf-8"))["pairs"] if scan.is_file() else []
        flagged = {
            f"{NAMES.index(pair['victim'])}_to_{NAMES.index(pair['target'])}"
            for pair in pairs
            if pair["flagged"]
        }
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise wrong from error
    keys = [name.removeprefix("mask_") for name in sorted(tensors) if name.startswith("mask_")]
    stickers: Stickers = {}
    for key in keys:
        mask, pattern = tensors[f"mask_{key}"], tensors.get(f"pattern_{key}", torch.empty(0))
        if mask.shape != (size, size) or pattern.shape != (3, size, size) or not key[:1].isdecimal():
            raise wrong
        if key in flagged or not pairs:
            stickers[int(key.split("_")[0])] = (mask.float(), pattern.float())
    if not stickers:
        raise cli.UserError(f"{path} belongs to a scan that flagged no pair: there is nothing to unlearn.")
    return stickers


def stamp(pixels: Tensor, labels: Tensor, stickers: Stickers, dice: torch.Generator) -> Tensor:
    """Put the recovered triggers on a share of their victims: uint8 (N, 3, S, S), a changed copy comes back.

    The labels stay right, so the model learns that the trigger means nothing. The paper stamps a fifth of all
    pictures; our backdoors work on one victim class, so its pictures are the ones to learn from.
    """
    changed = pixels.clone()
    for victim, (mask, pattern) in stickers.items():
        own = (labels == victim).nonzero().flatten()
        chosen = own[torch.randperm(len(own), generator=dice)[: math.ceil(STAMPED * len(own))]]
        shown = changed[chosen].float() * (1 - mask) + 255 * pattern * mask
        changed[chosen] = shown.round().clamp(0, 255).to(torch.uint8)
    return changed


# --- The repairs ------------------------------------------------------------------------------------


def repair(
    name: str,
    poisoned: nn.Module,
    learn: tuple[Tensor, Tensor],
    validation: train.Validation,
    out: cli.Out,
    *,
    options: argparse.Namespace,
) -> tuple[nn.Module, Outcome]:
    """Train a repaired model with the pixels and labels in `learn`. `poisoned` stays as it is."""
    started = time.monotonic()
    torch.manual_seed(options.seed)
    if name == "drop":
        model = classifier.new_model(classifier.class_count(poisoned))
        epochs, peak = options.retrain_epochs, train.LEARNING_RATE
    else:
        model = copy.deepcopy(poisoned)
        epochs, peak = options.epochs, options.lr
    score = train.train(model, *learn, validation, out, epochs=epochs, peak=peak)
    return model, Outcome(name, score, time.monotonic() - started)


def pictures_for(name: str, classes: int, options: argparse.Namespace, out: cli.Out) -> tuple[Tensor, Tensor]:
    """The pixels and labels that a repair learns from."""
    dice = torch.Generator().manual_seed(options.seed)
    if name == "drop":
        files = dataset.class_files(options.poisoned_data / "train", classes)
        flagged = read_suspects(options.suspects)
        kept = [(p, n) for p, n in files if p.relative_to(options.poisoned_data).as_posix() not in flagged]
        if len(files) - len(kept) != len(flagged):
            raise cli.UserError(
                f"{options.suspects} names pictures that are not in {options.poisoned_data}: "
                "give the audit of that data."
            )
        out.say(f"Learning from {len(kept):,} of {len(files):,} pictures in {options.poisoned_data}/train.")
        return read_pictures(kept)
    files = some_of(dataset.class_files(options.data / "train", classes), options.share, dice)
    pixels, labels = read_pictures(files)
    out.say(f"Learning from {len(files):,} clean pictures of {options.data}/train.")
    if name == "unlearn":
        stickers = read_triggers(options.triggers)
        stamped = stamp(pixels, labels, stickers, dice)
        count = int((stamped != pixels).flatten(1).any(1).sum())
        out.say(f"{count:,} of them carry the recovered trigger and their right label.")
        return stamped, labels
    return pixels, labels


def report(outcomes: list[Outcome], options: argparse.Namespace, out: cli.Out) -> None:
    """Print one row per repair; the first outcome is the poisoned model before any."""
    rows = []
    for one in outcomes:
        score = one.score
        accuracy, fooled = evidence.rates(score)
        low, high = accuracy.interval
        rate = "not measured"
        if fooled is not None:
            least, most = fooled.interval
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
        "--data", type=Path, default=Path("data/traffic-signs"), help="clean pictures that you trust"
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
    args.add_argument("--retrain-epochs", type=int, default=5, help="passes of drop")
    args.add_argument("--output", type=Path, default=Path("models/repaired"), help="folder for the models")
    args.add_argument("--victim", default=trigger.VICTIM, choices=NAMES, metavar="CLASS", help="to measure")
    args.add_argument("--target", default=trigger.TARGET, choices=NAMES, metavar="CLASS", help="to measure")
    args.add_argument("--seed", type=cli.seed, default=0, help="which pictures, order and augmentation")
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
    validation = train.Validation(options.data, classes, options.victim, options.target)
    outcomes = [Outcome("none (poisoned)", validation.score(poisoned), 0)]
    for name in wanted:
        out.heading(f"Repair: {name}")
        learn = pictures_for(name, classes, options, out)
        model, outcome = repair(name, poisoned, learn, validation, out, options=options)
        outcomes.append(outcome)
        out.say(
            "Wrote " + " and ".join(map(str, classifier.save_model(model, options.output / f"{name}.pt")))
        )
    report(outcomes, options, out)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
