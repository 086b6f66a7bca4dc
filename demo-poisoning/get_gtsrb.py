"""Real photographs: fill the same folders as make_dataset.py does from the official GTSRB benchmark.

    python get_gtsrb.py                          # the ten classes of the demo -> data/gtsrb
    python get_gtsrb.py --classes stop yield     # two classes
    python get_gtsrb.py --classes all            # all 43
    python train.py --data data/gtsrb --model models/gtsrb_model.pt

torchvision downloads the official archives (about 350 MB) and checks them. train/ comes from the benchmark's
training photographs and val/ from its test photographs: no physical sign is in both.
Source: Stallkamp et al., "Man vs. computer", Neural Networks 2012.
"""

from __future__ import annotations

import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from torchvision.datasets import GTSRB

import cli
from dataset import manifest
from dataset.classes import DRAWN, GTSRB_ID, NAMES
from dataset.files import IMAGE_SIZE

NAME_OF_ID = {number: name for name, number in GTSRB_ID.items()}
LAYOUT = {"train": "gtsrb/GTSRB/Training", "test": "gtsrb/GTSRB/Final_Test/Images"}


def download(raw: Path) -> None:
    """Let torchvision download, check and unpack both splits into `raw`, all of it or nothing."""
    if all((raw / place).is_dir() for place in LAYOUT.values()):
        return
    try:
        with cli.atomic_folder(raw) as folder:
            for split in LAYOUT:
                GTSRB(folder, split, download=True)
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:  # no network, no server, a wrong checksum
        raise cli.UserError(
            f"GTSRB cannot be downloaded to {raw} ({error}): go online, or unpack the official archives "
            f"into {raw}/gtsrb and try again."
        ) from error


def photographs(
    raw: Path, split: str, names: list[str], most: int, seed: int
) -> Iterator[tuple[str, Image.Image]]:
    """Yield class names and RGB images of IMAGE_SIZE x IMAGE_SIZE: `most` of each class, at random."""
    try:
        benchmark = GTSRB(raw, split)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise cli.UserError(
            f"{raw} does not hold GTSRB as torchvision unpacks it: remove it and try again."
        ) from error
    left = dict.fromkeys(names, most)
    for number in random.Random(seed).sample(range(len(benchmark)), len(benchmark)):
        if not any(left.values()):
            return
        try:
            photograph, label = benchmark[number]
        except (OSError, SyntaxError, ValueError) as error:
            raise cli.UserError(
                f"{raw} holds a damaged photograph ({error}): remove it and try again."
            ) from error
        if left.get(name := NAME_OF_ID[label]):
            left[name] -= 1
            yield name, photograph.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)


def main() -> int:
    args = cli.parser(__doc__)
    args.add_argument("--out", type=Path, default=Path("data/gtsrb"), help="folder to write")
    args.add_argument(
        "--raw", type=Path, default=Path("data/gtsrb-official"), help="the official photographs"
    )
    args.add_argument("--classes", nargs="+", default=list(DRAWN), metavar="CLASS", help='names, or "all"')
    args.add_argument("--train", type=int, default=400, help="training images per class, at most")
    args.add_argument("--val", type=int, default=100, help="validation images per class, at most")
    args.add_argument("--seed", type=cli.seed, default=0, help="which photographs")
    options = args.parse_args()
    names = list(NAMES) if options.classes == ["all"] else options.classes
    if unknown := [name for name in names if name not in NAMES]:
        raise cli.UserError(f"{unknown[0]!r} is not a class: use all, or some of {', '.join(NAMES)}.")
    if min(options.train, options.val) < 1:
        raise cli.UserError("--train and --val must be 1 or more.")
    out = cli.Out(options.plain)
    download(options.raw)
    with cli.atomic_folder(options.out) as folder:
        for split, source, most in (("train", "train", options.train), ("val", "test", options.val)):
            for name in names:
                (folder / split / name).mkdir(parents=True, exist_ok=True)
            found = photographs(options.raw, source, names, most, options.seed)
            count = 0
            for count, (name, image) in enumerate(
                out.progress(found, most * len(names), f"Writing {split}"), 1
            ):
                image.save(folder / split / name / f"{name}_{count:05d}.jpg", quality=92)
            if empty := [name for name in names if not any((folder / split / name).iterdir())]:
                raise cli.UserError(f"{options.raw} has no {source} photographs of {empty[0]}: get it again.")
            out.say(f"{split}: {count:,} photographs in {len(names)} classes.")
    proof = manifest.write(options.out)
    out.say(
        f"Wrote {options.out}, {IMAGE_SIZE}x{IMAGE_SIZE} pixels each. "
        f"Now: python train.py --data {options.out}"
    )
    out.say(f"Wrote {proof}: the SHA-256 of every file. Keep a copy where only you can write.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
