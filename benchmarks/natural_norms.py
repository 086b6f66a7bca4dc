"""What is natural for a pair: norms of clean models, as detect.py compares a model with them.

    python benchmarks/natural_norms.py     demo-poisoning/scanner/natural_norms.json

Nothing is trained or scanned: the rows of detection.py hold the norm of each pair. Drawings are the first
clean models of detection_today.jsonl, photographs those of detection_gtsrb.jsonl. Rows that were made later
are left out, to try the scan on.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import population

# isort: split  (population puts demo-poisoning on the path)
import cli
from scanner import natural
from scanner.natural import Kind
from scanner.statistics import LARGE

HERE = Path(__file__).resolve().parent
ROWS = {"drawings": ("detection_today.jsonl", 24), "photographs": ("detection_gtsrb.jsonl", 10)}

Row = dict[str, Any]
assert population


def of(images: str, rows: Sequence[Row]) -> Kind:
    """Mean and deviation of each pair in these clean models; what has no norm counts as large.

    A model that knows a class badly was not scanned for its pairs, and does not count for them.
    """
    logs: dict[str, list[float]] = {}
    for row in rows:
        for pair, norm in row["norms"].items():
            logs.setdefault(pair, []).append(math.log(min(norm or LARGE, LARGE)))
    pairs = {
        pair: [round(statistics.mean(one), 4), round(statistics.stdev(one), 4)] for pair, one in logs.items()
    }
    return Kind(images, len(rows), pairs)


@functools.cache
def clean_rows(images: str) -> list[Row]:
    """The rows that the clean models of one kind of images are. Raises UserError."""
    name, count = ROWS[images]
    try:
        rows = [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise cli.UserError(f"{HERE / name} cannot be read: take it from the repository.") from error
    return [row for row in rows if row["clean"]][:count]


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument("--output", type=Path, default=natural.FILE, help="file to write")
    return args.parse_args()


def main() -> int:
    options = parse()
    kinds = [of(images, clean_rows(images)) for images in ROWS]
    lines = [
        f'{{"images": "{kind.images}", "models": {kind.models}, "pairs": {{\n'
        + ",\n".join(f'  "{pair}": {json.dumps(both)}' for pair, both in kind.pairs.items())
        + "\n}}"
        for kind in kinds
    ]
    with cli.atomic_write(options.output) as scratch:
        scratch.write_text("[" + ",\n".join(lines) + "]\n", encoding="utf-8")
    cli.Out(options.plain).say(f"Wrote {options.output}.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
