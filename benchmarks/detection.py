"""Error rates of the scanner: train and scan a population of models, then compare statistics on it.

    python benchmarks/detection.py            what is not there yet, a model on each core; minutes per model
    python benchmarks/detection.py --photos FOLDER    the first 20 again, on your copy of GTSRB (get_gtsrb.py)
    python benchmarks/detection.py --quick    two small models, to see that it works
    python benchmarks/detection.py --scheduler tcp://10.0.0.1:8786    on a cluster (see README.md)
    python benchmarks/detection_report.py     then: the tables DETECTION.md and the curve detection.png

One row per model goes to detection.jsonl (with --photos: detection_gtsrb.jsonl), and the models stay in
detection-work/: a run that was stopped goes on where it was, and another version of the scanner needs no new
models.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import cluster
import population
import textbook
import torch
import transferability
from population import Spec
from torch import Tensor, nn

# isort: split  (population puts demo-poisoning on the path)
import cli
import get_gtsrb
from dataset.classes import DRAWN
from dataset.files import class_files
from network import classifier
from scanner import result, search, verdict
from scanner.neural_cleanse import smallest_first

HERE = Path(__file__).resolve().parent
DATASETS = 4  # sets of images, shared by the models
SMALLEST = 6  # smallest triggers of a model whose transferability is measured
STEPS, SAMPLES = 100, 30  # of the scan: detect.py's defaults
TEXTBOOK_STEPS, TEXTBOOK_BATCH = 150, 16
TEXTBOOK_EVERY = 3  # the textbook rule takes as long as the scan: every third model of either kind gets it


def draw_dataset(folder: Path, seed: int, quick: bool, photos: Path | None = None) -> Path:
    """Draw a set of images unless it is there, or share photographs out. Returns its folder."""
    drawn = folder / f"{'photographs' if photos else 'signs'}-{seed}"
    if not drawn.exists():
        train, val = ("100", "20") if quick else ("400", "100")
        source = ["get_gtsrb.py", "--photos", str(photos)] if photos else ["make_dataset.py"]
        command = [sys.executable, str(population.DEMO / source[0]), *source[1:], "--out", str(drawn)]
        subprocess.run([*command, "--train", train, "--val", val, "--seed", str(seed)], check=True)
    return drawn


def scan(path: Path, model: nn.Module, folder: Path, out: cli.Out, *, quick: bool) -> dict[str, object]:
    """The default scan of detect.py, and the transferability of the most suspicious pairs."""
    steps, victims = (5, 2) if quick else (STEPS, len(DRAWN))
    pairs = [
        (victim, target) for victim in range(victims) for target in range(len(DRAWN)) if victim != target
    ]
    settings = search.Settings(folder, steps, SAMPLES, 0)
    started = time.monotonic()
    found = search.scan(model, pairs, settings, out, "Searching triggers")
    scanned = result.summarize(
        path,
        found.triggers,
        verdict.by_norms(found.triggers),
        settings,
        sha256=result.sha256(path),
        classes=len(DRAWN),
        references=[],
        seconds=time.monotonic() - started,
    )
    chosen = [one.pair for one in smallest_first(found.triggers) if one.norm is not None][:SMALLEST]
    shares = []
    if chosen and min(map(len, found.images.values())) > transferability.SINGLES:
        shares = transferability.expected(model, found.images, chosen, steps, 0)
    name = {pair.numbers: search.name(pair.numbers) for pair in scanned.pairs}
    return {
        "sha256": scanned.sha256,
        "scan_seconds": scanned.seconds,
        "index": {
            name[pair.numbers]: round(pair.anomaly_index, 4)
            for pair in scanned.pairs
            if pair.anomaly_index is not None
        },
        "norms": {name[pair]: norm and round(norm, 5) for pair, norm in scanned.norms.items()},
        "held_out": {name[pair.numbers]: round(pair.held_out, 2) for pair in scanned.pairs},
        "transferability": {name[pair]: round(share, 3) for pair, share in zip(chosen, shares)},
    }


def textbook_norms(model: nn.Module, folder: Path, steps: int) -> dict[str, float]:
    """One trigger per target, as in the paper, from clean images of all other classes."""
    files = class_files(folder / "val")
    pixels = classifier.load_pixels([path for path, _ in files]).float() / 255
    labels: Tensor = torch.tensor([label for _, label in files])
    read = partial(classifier.logits, model)
    found = {}
    for target, name in enumerate(DRAWN):
        others = pixels[labels != target]
        found[name] = round(textbook.invert(read, others, [target], steps=steps, batch=TEXTBOOK_BATCH)[0], 5)
    return found


def trained(spec: Spec, folder: Path, work: Path) -> Path:
    """The file of a model of the population: the one in work/models, or a new one that goes there."""
    path = work / "models" / f"{spec.name}.safetensors"
    if not path.exists():
        population.make(spec, folder, path)
        path.with_suffix(".pt").unlink()
    return path


def row(
    spec: Spec, folder: Path, path: Path, out: cli.Out, *, with_textbook: bool, quick: bool
) -> dict[str, object]:
    """Measure and scan one model: its line of the table of raw rows."""
    model = classifier.load_model(path)
    score = population.Validation(folder, spec).score(model)
    made = {
        "name": spec.name,
        "kind": spec.kind,
        "clean": spec.clean,
        "spec": spec.__dict__,
        "clean_acc": round(score.clean_acc, 4),
        "asr": round(score.attack_success_rate or 0, 4),
    }
    made |= scan(path, model, folder, out, quick=quick)
    if with_textbook:
        made["textbook"] = textbook_norms(model, folder, 5 if quick else TEXTBOOK_STEPS)
    return made


def make_row(
    todo: tuple[bool, Spec], work: Path, quick: bool, photos: Path | None = None
) -> dict[str, object]:
    """Train one model, unless it is there, then measure and scan it: what a worker does."""
    with_textbook, spec = todo
    torch.set_num_threads(1)
    folder = draw_dataset(work, spec.seed % DATASETS, quick, photos)
    path = trained(spec, folder, work)
    return row(spec, folder, path, cluster.Silent(plain=True), with_textbook=with_textbook, quick=quick)


def run(options: argparse.Namespace, out: cli.Out) -> None:
    """Make the missing rows."""
    # clean and backdoored models take turns, so two neighbours are one of each
    specs = population.of_photographs() if options.photos else population.specs()
    every = [(number // 2 % TEXTBOOK_EVERY == 0, spec) for number, spec in enumerate(specs)]
    rows = options.rows.read_text().splitlines() if options.rows.exists() else []
    done = {json.loads(line)["name"] for line in rows}
    todo = [job for job in every[: 2 if options.quick else None] if job[1].name not in done]
    for seed in sorted({spec.seed % DATASETS for _, spec in todo}):  # before the workers want the same one
        draw_dataset(options.work, seed, options.quick, options.photos)
    work = partial(make_row, work=options.work.absolute(), quick=options.quick, photos=options.photos)
    made = cluster.results(work, todo, options) if todo else iter(())
    for (_, spec), found in out.progress(made, len(todo), "Training and scanning models"):
        if isinstance(found, cli.UserError):
            raise found
        with options.rows.open("a") as file:
            file.write(json.dumps(found) + "\n")
        out.say(
            f"{spec.name}, {spec.kind}: clean_acc {found['clean_acc']}, attack_success_rate {found['asr']}."
        )


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument("--rows", type=Path, help="file of raw rows (default: detection.jsonl here)")
    args.add_argument("--work", type=Path, help="folder for images and models (default: detection-work)")
    args.add_argument("--photos", type=Path, help="copy of GTSRB: photographs instead of drawings")
    args.add_argument("--quick", action="store_true", help="two small models")
    cluster.add_options(args)
    options = args.parse_args()
    kind = "_gtsrb" if options.photos else ""
    options.rows = options.rows or HERE / f"detection{kind}.jsonl"
    options.work = options.work or Path(f"detection{kind}-work")
    if options.photos:
        options.photos = options.photos.absolute()
        get_gtsrb.class_folders(options.photos)  # says what is wrong before minutes of work
    return options


def main() -> int:
    options = parse()
    out = cli.Out(options.plain)
    run(options, out)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
