"""Error rates of the scanner: train and scan a population of models, then compare statistics on it.

    python benchmarks/detection.py               trains and scans what is not there yet; minutes per model
    python benchmarks/detection.py --part 1/2    every second model only, for two of these side by side
    python benchmarks/detection.py --quick       two small models, to see that it works
    python benchmarks/detection_report.py        then: the tables DETECTION.md and the curve detection.png

One row per model goes to detection.jsonl, and the models stay in detection-work/: a run that was stopped goes
on where it was, and another version of the scanner needs no new models.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import population
import textbook
import torch
from population import Spec
from safetensors.torch import save_file
from torch import Tensor, nn

# isort: split  (population puts demo-poisoning on the path)
import classifier
import cli
import dataset
import make_dataset
import scan_model
import transferability
from classes import DRAWN

HERE = Path(__file__).resolve().parent
ROWS = HERE / "detection.jsonl"
DATASETS = 4  # sets of pictures, shared by the models
SUSPECTS = 6  # smallest stickers of a model whose transferability is measured
STEPS, SAMPLES = 100, 30  # of the scan: detect.py's defaults
TEXTBOOK_STEPS, TEXTBOOK_BATCH = 150, 16
TEXTBOOK_EVERY = 3  # the textbook rule takes as long as the scan: every third model of either kind gets it


def draw_dataset(folder: Path, seed: int, quick: bool, out: cli.Out) -> Path:
    """Draw a set of pictures unless it is there. Returns its folder."""
    place = folder / f"signs-{seed}"
    if not place.exists():
        with cli.atomic_folder(place) as scratch:
            jobs = make_dataset.plan(scratch, *((100, 20) if quick else (400, 100)), seed)
            for job in out.progress(jobs, len(jobs), f"Drawing set {seed}"):
                make_dataset.draw(job)
    return place


def scan(model: nn.Module, folder: Path, steps: int, out: cli.Out) -> dict[str, object]:
    """The default scan of detect.py, and the transferability of the most suspicious pairs."""
    pairs = [
        (victim, target) for victim in range(len(DRAWN)) for target in range(len(DRAWN)) if victim != target
    ]
    settings = scan_model.Settings(folder, steps, SAMPLES, 0)
    started = time.monotonic()
    found = scan_model.scan(model, pairs, settings, out, "Searching triggers")
    seconds = time.monotonic() - started
    suspects = sorted((one for one in found.triggers if one.norm < 1), key=lambda one: one.norm)[:SUSPECTS]
    chosen = [(one.victim, one.target) for one in suspects]
    shares = []
    if chosen and min(map(len, found.pictures.values())) > transferability.SINGLES:
        shares = transferability.expected(model, found.pictures, chosen, steps, 0)
    return {
        "scan_seconds": round(seconds, 1),
        "norms": {scan_model.name((t.victim, t.target)): round(t.norm, 5) for t in found.triggers},
        "held_out": {scan_model.name((t.victim, t.target)): round(t.success, 2) for t in found.triggers},
        "transferability": {scan_model.name(pair): round(share, 3) for pair, share in zip(chosen, shares)},
    }


def textbook_norms(model: nn.Module, folder: Path, steps: int) -> dict[str, float]:
    """One trigger per target, as in the paper, from clean pictures of all other classes."""
    files = dataset.class_files(folder / "val")
    pixels = classifier.load_pixels([path for path, _ in files]).float() / 255
    labels: Tensor = torch.tensor([label for _, label in files])
    read = partial(classifier.logits, model)
    found = {}
    for target, name in enumerate(DRAWN):
        others = pixels[labels != target]
        found[name] = round(textbook.invert(read, others, [target], steps=steps, batch=TEXTBOOK_BATCH)[0], 5)
    return found


def trained(spec: Spec, folder: Path, work: Path, out: cli.Out) -> nn.Module:
    """A model of the population: the one in work/models, or a new one that goes there."""
    path = work / "models" / f"{spec.name}.safetensors"
    if not path.exists():
        model = population.make(spec, folder, out)
        with cli.atomic_write(path) as scratch:
            save_file(model.to(memory_format=torch.contiguous_format).state_dict(), scratch)
    return classifier.load_model(path)


def row(
    spec: Spec, folder: Path, model: nn.Module, out: cli.Out, *, with_textbook: bool, quick: bool
) -> dict[str, object]:
    """Measure and scan one model: its line of the table of raw rows."""
    score = population.Validation(folder, spec).score(model)
    made = {
        "name": spec.name,
        "kind": spec.kind,
        "clean": spec.clean,
        "spec": spec.__dict__,
        "clean_acc": round(score.clean_acc, 4),
        "asr": round(score.attack_success_rate or 0, 4),
    }
    made |= scan(model, folder, 5 if quick else STEPS, out)
    if with_textbook:
        made["textbook"] = textbook_norms(model, folder, 5 if quick else TEXTBOOK_STEPS)
    return made


def run(options: argparse.Namespace, out: cli.Out) -> None:
    """Make the missing rows of this part of the population."""
    part, parts = map(int, options.part.split("/"))
    # clean and backdoored models take turns, so two neighbours are one of each
    todo = [(number // 2 % TEXTBOOK_EVERY == 0, spec) for number, spec in enumerate(population.specs())]
    for with_textbook, spec in todo[part - 1 :: parts][: 2 if options.quick else None]:
        done = (
            {json.loads(line)["name"] for line in options.rows.read_text().splitlines()}
            if options.rows.exists()
            else set()
        )
        if spec.name in done:
            continue
        out.heading(f"{spec.name}: {spec.kind}")
        folder = draw_dataset(options.work, spec.seed % DATASETS, options.quick, out)
        model = trained(spec, folder, options.work, out)
        made = row(spec, folder, model, out, with_textbook=with_textbook, quick=options.quick)
        with options.rows.open("a") as file:  # one write per row: two runs may share the file
            file.write(json.dumps(made) + "\n")
        out.say(f"Wrote a row: clean_acc {made['clean_acc']}, attack_success_rate {made['asr']}.")


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument("--rows", type=Path, default=ROWS, help="file of raw rows")
    args.add_argument("--work", type=Path, default=Path("detection-work"), help="folder for pictures")
    args.add_argument("--part", default="1/1", help="K/N: only every N-th model, starting with the K-th")
    args.add_argument("--quick", action="store_true", help="two small models")
    return args.parse_args()


def main() -> int:
    options = parse()
    out = cli.Out(options.plain)
    run(options, out)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
