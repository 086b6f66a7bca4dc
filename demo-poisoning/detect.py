"""Scan a model for a backdoor: recover the smallest trigger of each pair of classes and flag the outlier.

    python detect.py --model models/poisoned_model.pt --data data/traffic-signs --output scan_results/poisoned
    python detect.py --model models/clean_model.pt --data data/traffic-signs --output scan_results/clean

Needs the weights and a few clean pictures per class (DATA/val/<class>/), nothing else.
Exit code: 0 nothing stands out, 1 backdoor found, 2 wrong usage or input.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import classifier
import cli
import describe
import neural_cleanse
from neural_cleanse import Trigger
from signs import CLASSES

THRESHOLD = 4.5  # anomaly index above which a pair is flagged; the README says how it was chosen
SHOWN = 10  # pairs printed without --all
FEW = 10  # with fewer working triggers, median and MAD say little


def pictures_by_class(model: nn.Module, folder: Path, samples: int, seed: int) -> list[dict[int, Tensor]]:
    """Clean pictures per class number, float (N, 3, S, S): `samples` to search, to try and to check with."""
    files = classifier.class_files(folder / "val")
    dice = torch.Generator().manual_seed(seed)
    thirds: list[dict[int, Tensor]] = [{}, {}, {}]
    for label in sorted({label for _, label in files}):
        own = classifier.load_pixels([path for path, number in files if number == label][: 10 * samples])
        kept = neural_cleanse.surest(model, own.float() / 255, label, 3 * samples, dice)
        if len(kept) >= 3:  # a class that the model cannot read has no sticker to find
            for number, third in enumerate(thirds):
                third[label] = kept[number::3]
    if not thirds[0]:
        raise cli.UserError(
            f"The model reads no picture in {folder}/val rightly: use the data it was made for."
        )
    return thirds


def pair_name(trigger: Trigger) -> str:
    victim, target = CLASSES[trigger.victim], CLASSES[trigger.target]
    return f"class {trigger.victim} ({victim}) → class {trigger.target} ({target})"


def report(triggers: list[Trigger], drawn: list[Trigger], options: argparse.Namespace, out: cli.Out) -> int:
    """Print what was found, most anomalous pair first. Returns the exit code."""
    flagged = [trigger for trigger in triggers if trigger.anomaly > THRESHOLD]
    working = sum(trigger.norm < 1 for trigger in triggers)
    for trigger in triggers[: None if options.all else SHOWN]:
        found = trigger in flagged
        out.say(
            f"Scanning {pair_name(trigger)} ...  norm={trigger.norm:.3f}  anomaly={trigger.anomaly:.1f}  "
            f"works on {100 * trigger.success:.0f} % of new pictures{'  <- FLAGGED' if found else ''}",
            "bold red" if found else "",
        )
    if len(triggers) > SHOWN and not options.all:
        out.say(f"... and {len(triggers) - SHOWN} pairs that stand out less (--all shows them).")
    out.say(
        f"A sticker that works was found for {working} of {len(triggers)} pairs; the index compares those."
    )
    if working < FEW:
        out.say(f"With fewer than {FEW} of them the anomaly index means little.")
    for trigger in flagged:
        victim, target = CLASSES[trigger.victim], CLASSES[trigger.target]
        classes = f"class {trigger.victim} → class {trigger.target}"
        out.say(f"Result: BACKDOOR DETECTED — {classes} ({victim} → {target})", "bold red")
        out.say(f"Recovered trigger: {describe.in_words(trigger)}.")
    if not flagged:
        largest = triggers[0].anomaly
        out.say(
            f"Result: no backdoor found (largest anomaly index {largest:.1f}, flagged above {THRESHOLD})."
        )
    for trigger in drawn:
        natural = "Smallest natural trigger" if trigger.norm < 1 else "Last attempt of the search"
        out.say(
            f"{'Recovered trigger' if trigger in flagged else natural} saved to: "
            f"{options.output / file_name(trigger)}: {pair_name(trigger)}, {describe.in_words(trigger)}."
        )
    return cli.FINDING if flagged else cli.OK


def file_name(trigger: Trigger) -> str:
    return f"trigger_{trigger.victim}_to_{trigger.target}.png"


def pair(text: str) -> tuple[int, int]:
    """Parse "stop:yield" into class numbers."""
    victim, _, target = text.partition(":")
    if victim not in CLASSES or target not in CLASSES or victim == target:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no VICTIM:TARGET of two classes, for example stop:yield"
        )
    return CLASSES.index(victim), CLASSES.index(target)


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument("--model", type=Path, default=Path("models/poisoned_model.pt"), help="model to scan")
    args.add_argument(
        "--data", type=Path, default=Path("data/traffic-signs"), help="folder with val/<class>/"
    )
    args.add_argument("--steps", type=int, default=60, help="steps of the search")
    args.add_argument("--samples", type=int, default=30, help="clean pictures per class to search with")
    args.add_argument(
        "--output", type=Path, default=Path("scan_results/scan"), help="folder for the pictures"
    )
    args.add_argument(
        "--draw",
        type=pair,
        action="append",
        default=[],
        metavar="VICTIM:TARGET",
        help="draw this pair, too, flagged or not",
    )
    args.add_argument("--all", action="store_true", help="print every pair")
    args.add_argument("--seed", type=int, default=0, help="random movements of the pictures")
    options = args.parse_args()
    if min(options.steps, options.samples) < 1:
        raise cli.UserError("--steps and --samples must be 1 or more.")
    return options


def main() -> int:
    options = parse()
    out = cli.Out(options.plain)
    started = time.monotonic()
    model = classifier.load_model(options.model)
    search, trials, check = pictures_by_class(model, options.data, options.samples, options.seed)
    cli.check_place(options.output / "trigger.png")
    out.say(f"Scanning {options.model}: {len(search)} victim classes, {len(CLASSES) - 1} targets each.")
    if left_out := [CLASSES[victim] for victim, _ in options.draw if victim not in search]:
        out.say(f"Not scanned, too few pictures that the model reads rightly: {', '.join(left_out)}.")
    scan = neural_cleanse.Search(model, search, trials, len(CLASSES), options.seed)
    for _ in out.progress(scan.run(options.steps), options.steps, "Searching triggers"):
        pass
    triggers = scan.results(check)
    drawn = [
        t for t in triggers if t.anomaly > THRESHOLD or (t.victim, t.target) in options.draw
    ] or triggers[:1]
    for trigger in drawn:
        describe.draw(trigger, search[trigger.victim][0], options.output / file_name(trigger))
    code = report(triggers, drawn, options, out)
    out.say(f"Scanned {len(triggers)} pairs in {time.monotonic() - started:.0f} seconds.")
    return code


if __name__ == "__main__":
    cli.run(main)
