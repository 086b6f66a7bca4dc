"""Does the plain loop over all pairs tell backdoored models from clean ones? What scanning.py times, rated.

    python benchmarks/seeds.py         first: it makes a clean and a poisoned model for each of five seeds
    python benchmarks/per_pair.py      7 to 8 minutes per model on one core; goes on where it stopped

One trigger per pair of classes (textbook.py), 300 steps of the same 10 images, as in scanning.py; the nine
searches of one victim class run side by side to save time, each with its own mask, pattern and cost. Then the
usual rule for all 90 norms.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import textbook
from detection_report import auroc
from scanning import BATCH, STEPS

# isort: split  (scanning puts demo-poisoning on the path)
import cli
from dataset.classes import NAMES
from dataset.files import class_files
from network import classifier

HERE = Path(__file__).resolve().parent
ATTACKED = "stop → yield"


def norms(folder: Path, kind: str, steps: int, out: cli.Out) -> dict[str, float]:
    """The norm of each pair, "victim → target", in a model that seeds.py left in a folder."""
    model = classifier.load_model(folder / f"models/{kind}_model.pt").requires_grad_(False)
    read = partial(classifier.logits, model)
    classes = classifier.class_count(model)
    files = class_files(folder / "data/traffic-signs/val")
    found: dict[str, float] = {}
    for victim in out.progress(range(classes), classes, f"{folder.name}, {kind}"):
        own = classifier.load_pixels([path for path, label in files if label == victim][:BATCH]).float() / 255
        targets = [target for target in range(classes) if target != victim]
        sizes = textbook.invert(read, own, targets, steps=steps, batch=BATCH)
        found |= {
            f"{NAMES[victim]} → {NAMES[target]}": round(size, 5) for target, size in zip(targets, sizes)
        }
    return found


def read_rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def table(rows: list[dict[str, Any]], out: cli.Out) -> None:
    """Print what the usual rule says of each model, and how well the largest index tells them apart."""
    lines = []
    largest: dict[str, list[float]] = {"clean": [], "poisoned": []}
    for row in sorted(rows, key=lambda row: (row["kind"], row["seed"])):
        index = dict(zip(row["norms"], textbook.anomaly_index(list(row["norms"].values()))))
        order = sorted(index, key=index.__getitem__, reverse=True)
        largest[row["kind"]].append(index[order[0]])
        lines.append(
            (
                f"{row['kind']}, {row['seed']}",
                f"{index[order[0]]:.1f} ({order[0]})",
                sum(value > 2 for value in index.values()),
                f"{index[ATTACKED]:.1f} (place {order.index(ATTACKED) + 1} of {len(index)})",
            )
        )
    out.table("Plain loop, usual rule", ["model", "largest index", "pairs above 2", ATTACKED], lines)
    area = auroc(largest["clean"], largest["poisoned"])
    out.say(f"Area under the ROC curve of the largest index: {area:.2f}")


def main() -> int:
    args = cli.parser(__doc__)
    args.add_argument("--work", type=Path, default=Path("seeds-work"), help="folder that seeds.py filled")
    args.add_argument("--rows", type=Path, default=HERE / "per_pair.jsonl", help="file with a row per model")
    args.add_argument("--steps", type=int, default=STEPS, help="steps of each search")
    options = args.parse_args()
    out = cli.Out(options.plain)
    rows = read_rows(options.rows)
    done = [(row["seed"], row["kind"]) for row in rows]
    folders = sorted(options.work.glob("seed-*"))
    if not folders and not rows:
        raise cli.UserError(f"{options.work} holds no seed-N folders: run benchmarks/seeds.py first.")
    for folder in folders:
        for kind in ("clean", "poisoned"):
            if (folder.name, kind) in done:
                continue
            sizes = norms(folder, kind, options.steps, out)
            rows.append({"seed": folder.name, "kind": kind, "norms": sizes})
            with options.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1], ensure_ascii=False) + "\n")
    table(rows, out)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
