"""Render the training data: 5,000 images of ten traffic signs, in train/ and val/ folders per class.

    python make_dataset.py                                   # writes data/traffic-signs (10 seconds, 2 cores)
    python make_dataset.py --train 40 --val 10 --out small   # a small one for trying things out
    python make_dataset.py --key keys/data.key               # and sign: these files are ours

The same --seed gives the same files, however many processes draw them. Beside the folder goes its manifest,
data/traffic-signs.sha256: keep a copy of it where nobody who can write the folder can reach it.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import cli
import signs
from dataset import manifest
from dataset.classes import DRAWN
from dataset.files import IMAGE_SIZE
from statements import signing

MOST = 100_000  # images per class: as many as have names of the same length
AT_ONCE = 50  # images that a process draws before it asks for more

Job = tuple[str, int, int, str]  # file to write, seed, number of the image, class name


def draw(job: Job) -> None:
    """Render one image and write it. Its random numbers depend on seed, class and number only."""
    path, seed, number, name = job
    rng = np.random.default_rng([seed, DRAWN.index(name), number])
    signs.render(name, rng).save(path, quality=92)


def plan(folder: Path, train: int, val: int, seed: int) -> list[Job]:
    """Make the folders and list one job per image: `train` and `val` images for each class."""
    jobs = []
    for split, numbers in (("train", range(train)), ("val", range(train, train + val))):
        for name in DRAWN:
            place = folder / split / name
            place.mkdir(parents=True)
            jobs += [(str(place / f"{name}_{n:05d}.jpg"), seed, n, name) for n in numbers]
    return jobs


def main() -> int:
    args = cli.parser(__doc__)
    args.add_argument("--out", type=Path, default=Path("data/traffic-signs"), help="folder to write")
    args.add_argument("--train", type=int, default=400, help="training images per class")
    args.add_argument("--val", type=int, default=100, help="validation images per class")
    args.add_argument("--seed", type=cli.seed, default=0, help="which random images")
    args.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw")
    signing.add_options(args, "data")
    options = args.parse_args()
    signing.check(options, "data", manifest.path_of(options.out))
    if min(options.train, options.val, options.workers) < 1 or options.seed < 0:
        raise cli.UserError("--train, --val and --workers must be 1 or more and --seed 0 or more.")
    if options.train + options.val > MOST:
        raise cli.UserError(f"--train and --val are more than {MOST:,} images per class: choose fewer.")
    out = cli.Out(options.plain)
    with cli.atomic_folder(options.out) as folder:
        jobs = plan(folder, options.train, options.val, options.seed)
        busy = min(options.workers, -(-len(jobs) // AT_ONCE))  # more have nothing to do
        with ProcessPoolExecutor(busy) as pool:
            for _ in out.progress(pool.map(draw, jobs, chunksize=AT_ONCE), len(jobs), "Rendering"):
                pass
    proof = manifest.write(options.out)
    out.say(
        f"Wrote {len(jobs):,} images of {IMAGE_SIZE}x{IMAGE_SIZE} pixels in {len(DRAWN)} classes "
        f"to {options.out} ({options.train} train and {options.val} val per class)."
    )
    out.say(f"Wrote {proof}: the SHA-256 of every file. Keep a copy where only you can write.")
    if options.key:
        out.say(signing.data(options, proof))
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
