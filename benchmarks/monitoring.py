"""Watching models at work: our monitor and STRIP on the same images of the same models.

    python benchmarks/monitoring.py              the first 12 models of detection.py; minutes per model
    python benchmarks/monitoring.py --page       only write MONITORING.md from the rows that are there

Both methods get the same clean images to calibrate on, and may flag the same share of them. Both are then
measured on other images: clean ones, and images with the model's own trigger that it falls for.
One row per model goes to monitoring.jsonl. Models and images are those of detection.py (--work), and are made
where they are missing. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import detection
import pages
import population
import torch
from torch import Tensor, nn

# isort: split  (population puts demo-poisoning on the path)
import cli
import monitor
from dataset.classes import DRAWN
from network import classifier
from network.evaluate import Rate

HERE = Path(__file__).resolve().parent
ROWS, PAGE = HERE / "monitoring.jsonl", HERE / "MONITORING.md"
ALLOWED = 0.02  # share of clean images that may be flagged
OVERLAYS = 20  # clean images that STRIP mixes each image with; the paper takes 100 and finds 10 enough
TRIED = 100  # images with the trigger, at most

Score = Callable[[Tensor], float]  # of an image, uint8 (3, S, S): the larger, the more suspicious


def strip(model: nn.Module, image: Tensor, overlays: Tensor) -> float:
    """Minus the mean entropy of the answers to mixtures of an image with clean ones.

    Gao et al., STRIP (ACSAC 2019), section IV: an answer that no mixing changes has little entropy.
    image: uint8 (3, S, S); overlays: uint8 (N, 3, S, S).
    """
    mixed = (image.float() + overlays.float()) / 2
    shares = classifier.predict(model, mixed.round().to(torch.uint8))
    return (shares * (shares + 1e-9).log()).sum(1).mean().item()


def judged(score: Score, calibration: Tensor, clean: Tensor, triggered: Tensor) -> dict[str, Any]:
    """Calibrate one method, then count what it flags. Hits and tries, and seconds for each image."""
    started = time.monotonic()
    reference = sorted(score(image) for image in calibration)
    threshold = reference[monitor.rank(len(reference), ALLOWED) - 1]
    flagged = [[score(image) > threshold for image in images] for images in (clean, triggered)]
    seconds = (time.monotonic() - started) / (len(calibration) + len(clean) + len(triggered))
    counts = {name: [sum(hits), len(hits)] for name, hits in zip(("false_alarms", "detected"), flagged)}
    return counts | {"seconds_per_image": round(seconds, 4)}


def row(spec: population.Spec, folder: Path, path: Path) -> dict[str, Any]:
    """Measure both methods on one model."""
    model = classifier.load_model(path)
    split = monitor.clean_images(model, folder, spec.seed)
    clean = classifier.load_pixels([file for file, _ in split.unused[: monitor.CALIBRATION]])
    victims = [
        file
        for file, label in split.unused
        if (DRAWN[label] != spec.target if spec.victim == "all" else DRAWN[label] == spec.victim)
    ]
    stamped = classifier.load_pixels(victims[:TRIED], population.stamper(spec))
    fooled = classifier.predict(model, stamped).argmax(1) == DRAWN.index(spec.target)
    triggered = stamped[fooled] if not spec.clean else stamped[:0]
    overlays = torch.cat(list(split.donors.values()))
    chosen = torch.randperm(len(overlays), generator=torch.Generator().manual_seed(spec.seed))[:OVERLAYS]
    methods: dict[str, Score] = {
        "monitor": lambda image: monitor.look(model, image, split.donors).score,
        "strip": lambda image: strip(model, image, overlays[chosen]),
    }
    made: dict[str, Any] = {
        "name": spec.name,
        "kind": spec.kind,
        "clean": spec.clean,
        "asr": round(fooled.float().mean().item(), 4) if not spec.clean else None,
    }
    for name, score in methods.items():
        made[name] = judged(score, split.calibration, clean, triggered)
    return made


def run(options: argparse.Namespace, out: cli.Out) -> None:
    """Make the missing rows."""
    for spec in population.specs()[: options.models]:
        if spec.name in {made["name"] for made in read(options.rows)}:
            continue
        out.heading(f"{spec.name}: {spec.kind}")
        folder = detection.draw_dataset(options.work, spec.seed % detection.DATASETS, options.quick)
        made = row(spec, folder, detection.trained(spec, folder, options.work))
        with options.rows.open("a") as file:
            file.write(json.dumps(made) + "\n")
        out.say(f"Wrote a row: monitor {made['monitor']}, STRIP {made['strip']}.")


def read(rows: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []


def total(rows: list[dict[str, Any]], method: str, what: str) -> str:
    """All models together: a rate with its interval, in words."""
    hits, of = (sum(made[method][what][part] for made in rows) for part in (0, 1))
    return str(Rate(hits, of)) if of else "none"


def page(rows: list[dict[str, Any]]) -> str:
    """MONITORING.md. Raises UserError without rows of both kinds."""
    learned = [made for made in rows if not made["clean"] and made["asr"] >= 0.9]
    if not learned or not any(made["clean"] for made in rows):
        raise cli.UserError("The page needs rows of clean and of backdoored models: run monitoring.py first.")
    return pages.render("monitoring.md.jinja", rows=rows, learned=learned, allowed=ALLOWED, total=total)


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument("--rows", type=Path, default=ROWS, help="file of raw rows")
    args.add_argument(
        "--work", type=Path, default=Path("detection-work"), help="folder for models and images"
    )
    args.add_argument("--models", type=int, default=12, help="how many models of detection.py")
    args.add_argument("--output", type=Path, default=PAGE, help="page to write")
    args.add_argument("--page", action="store_true", help="measure nothing")
    args.add_argument("--quick", action="store_true", help="few images, to see that it works")
    return args.parse_args()


def main() -> int:
    options = parse()
    out = cli.Out(options.plain)
    if not options.page:
        run(options, out)
    text = page(read(options.rows))
    with cli.atomic_write(options.output) as scratch:
        scratch.write_text(text, encoding="utf-8")
    out.say(f"Wrote {options.output}.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
