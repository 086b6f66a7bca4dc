"""How well do models that only ever saw drawings read photographs of the same signs?

    python benchmarks/photos.py --photos FOLDER     five seeds, about three minutes each on 2 cores
    python benchmarks/photos.py                     only the page again, from the rows that are there

FOLDER is a copy of GTSRB (see demo-poisoning/get_gtsrb.py). For each seed, with the demo's own commands: draw
the images, poison a copy, train both models. What stands in --work/seed-N already is kept. Each model reads
the photographs as they are, with the trigger, and corrupted in ten ways (corruptions.py). One row per model
goes to photos.jsonl, and PHOTOS.md is made of the rows.

Who changes the drawings or the training may look at tracks whose number is a multiple of 4. All others are
only counted, once, at the end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "demo-poisoning"
sys.path.insert(0, str(DEMO))

import corruptions  # noqa: E402 (after the path above)
import pages  # noqa: E402
import seeds  # noqa: E402

import cli  # noqa: E402 (after the path above)
import get_gtsrb  # noqa: E402
import trigger  # noqa: E402
from dataset.classes import DRAWN  # noqa: E402
from dataset.files import IMAGE_SIZE, Files, class_files, open_image  # noqa: E402
from network import classifier  # noqa: E402
from network.evaluate import PERCENT, Rate  # noqa: E402

Change = Callable[[Image.Image], Image.Image]
HALVES = ("for tuning", "only counted")
KINDS = ("clean", "poisoned")
TARGET = DRAWN.index(trigger.TARGET)


def half_of(path: Path) -> str:
    """Which half a photograph belongs to, by the number of its track."""
    return HALVES[0] if int(path.name.partition("_")[0]) % 4 == 0 else HALVES[1]


def listed(photos: Path) -> dict[str, Files]:
    """The photographs of the ten classes, (file, class number), in two halves. Raises UserError."""
    source = get_gtsrb.class_folders(photos)
    found: dict[str, Files] = {half: [] for half in HALVES}
    for label, name in enumerate(DRAWN):
        for frames in get_gtsrb.tracks_of(source, name).values():
            found[half_of(frames[0])] += [(path, label) for path in frames]
    return found


@dataclass
class Batch:
    """Images as the network sees them, uint8 (N, 3, INPUT, INPUT), and their classes, int64 (N,)."""

    pixels: Tensor
    labels: Tensor

    def correct(self, model: nn.Module) -> list[list[int]]:
        """For each class: how many are classified correctly, of how many."""
        return self._hits(classifier.predict(model, self.pixels).argmax(1) == self.labels)

    def taken_for_target(self, model: nn.Module) -> list[list[int]]:
        """For each class: how many are classified as the target of the attack, of how many."""
        return self._hits(classifier.predict(model, self.pixels).argmax(1) == TARGET)

    def _hits(self, hit: Tensor) -> list[list[int]]:
        of = [self.labels == label for label in range(len(DRAWN))]
        return [[int(hit[mine].sum()), int(mine.sum())] for mine in of]


def loaded(files: Files, *changes: Change) -> Batch:
    """Read images, scale them as get_gtsrb.py does, and change them."""

    def seen(path: Path) -> Tensor:
        image = open_image(path).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
        for change in changes:
            image = change(image)
        return classifier.to_pixels(image)

    return Batch(torch.stack([seen(path) for path, _ in files]), torch.tensor([label for _, label in files]))


def corrupted(files: Files, out: cli.Out) -> dict[str, Batch]:
    """The same images after each kind of corruption."""
    made = {}
    for kind in out.progress(corruptions.KINDS, len(corruptions.KINDS), "Corrupting the photographs"):
        rng = np.random.default_rng(0)
        made[kind.__name__] = loaded(files, lambda image, kind=kind, rng=rng: kind(image, rng))  # type: ignore[misc]
    return made


def measured(folder: Path, photos: dict[str, Files], out: cli.Out) -> dict[str, dict[str, Any]]:
    """Hits and tries of both models of one seed: on drawings and on photographs."""
    drawn = class_files(folder / seeds.CLEAN / "val")
    batches = {"drawn": drawn, **photos}
    plain = {name: loaded(files) for name, files in batches.items()}
    triggered = {name: loaded(files, trigger.stamp) for name, files in batches.items()}
    harder = corrupted(photos[HALVES[1]], out)
    rows: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        model = classifier.load_model(folder / f"models/{kind}_model.safetensors")
        rows[kind] = {
            "correct": {name: batch.correct(model) for name, batch in plain.items()},
            "triggered": {name: batch.taken_for_target(model) for name, batch in triggered.items()},
            "corrupted": {name: _sum(batch.correct(model)) for name, batch in harder.items()},
        }
    return rows


def _sum(hits: list[list[int]]) -> list[int]:
    return [sum(pair[0] for pair in hits), sum(pair[1] for pair in hits)]


# --- The page -----------------------------------------------------------------------------------------


def mean(rates: list[list[int]]) -> float:
    """Mean over the seeds of hits / tries."""
    return statistics.mean(hits / of for hits, of in rates)


def table(head: list[str], rows: list[list[str]]) -> str:
    return seeds.table(head, rows)


def page(rows: list[dict[str, Any]]) -> str:
    """PHOTOS.md."""
    rows = sorted(rows, key=lambda row: (row["seed"], row["kind"]))
    of_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in KINDS}
    victim = DRAWN.index(trigger.VICTIM)
    columns = [(half, kind) for half in HALVES for kind in KINDS]
    models = [
        [str(row["seed"]), row["kind"]]
        + [f"{mean([_sum(row['correct'][place])]):.3f}" for place in ("drawn", *HALVES)]
        + [f"{mean([row['triggered'][place][victim]]):.3f}" for place in ("drawn", *HALVES)]
        for row in rows
    ]
    classes = []
    for label, name in enumerate(DRAWN):
        cells = []
        for half, kind in columns:
            found = [row["correct"][half][label] for row in of_kind[kind]]
            cells.append(f"{mean(found):.3f} (least {min(hits / of for hits, of in found):.3f})")
        classes.append([name, *cells])
    tries = {half: _sum(rows[0]["correct"][half])[1] for half in HALVES}
    others = [
        [name]
        + [
            str(Rate(*_sum([row["triggered"][place][label] for row in of_kind[kind]])))
            for place in ("drawn", HALVES[1])
            for kind in KINDS
        ]
        for label, name in enumerate(DRAWN)
        if name not in (trigger.VICTIM, trigger.TARGET)
    ]
    harder = [
        [name.replace("_", " ")]
        + [f"{mean([row['corrupted'][name] for row in of_kind[kind]]):.3f}" for kind in KINDS]
        for name in rows[0]["corrupted"]
    ]
    harder.append(
        ["mean of the kinds"]
        + [
            f"{statistics.mean(mean(list(row['corrupted'].values())) for row in of_kind[k]):.3f}"
            for k in KINDS
        ]
    )
    short = ["drawings", *HALVES]
    named = [f"{half}, {kind}" for half, kind in columns]
    return pages.render(
        "photos.md.jinja",
        seeds=sorted({row["seed"] for row in rows}),
        tries=tries,
        percent=PERCENT,
        models=table(
            ["seed", "model", *(f"accuracy, {p}" for p in short), *(f"attack success, {p}" for p in short)],
            models,
        ),
        classes=table(["class", *named], classes),
        others=table(
            ["class", "drawings, clean", "drawings, poisoned", "photographs, clean", "photographs, poisoned"],
            others,
        ),
        corrupted=table(["corruption", *KINDS], harder),
    )


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument("--photos", type=Path, help="folder with your copy of GTSRB")
    args.add_argument("--seeds", type=cli.seed, nargs="+", default=[0, 1, 2, 3, 4], help="which seeds")
    args.add_argument("--rows", type=Path, default=HERE / "photos.jsonl", help="file of raw rows")
    args.add_argument("--output", type=Path, default=HERE / "PHOTOS.md", help="page to write")
    args.add_argument("--work", type=Path, default=Path("photos-work"), help="folder for data and models")
    return args.parse_args()


def main() -> int:
    options = parse()
    out = cli.Out(options.plain)
    rows = []
    if options.rows.exists():
        rows = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines()]
    if options.photos:
        photos = listed(options.photos)
        for seed in options.seeds:
            if seed in [row["seed"] for row in rows]:
                continue
            out.heading(f"Seed {seed}")
            seeds.trained(options.work / f"seed-{seed}", seed, out)
            new = measured(options.work / f"seed-{seed}", photos, out)
            rows += [{"seed": seed, "kind": kind} | figures for kind, figures in new.items()]
            with options.rows.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows[-len(new) :]))
    if not rows:
        raise cli.UserError(f"{options.rows} holds no rows: give photographs with --photos.")
    with cli.atomic_write(options.output) as scratch:
        scratch.write_text(page(rows), encoding="utf-8")
    out.say(f"Wrote {options.output}: {len(rows)} models.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
