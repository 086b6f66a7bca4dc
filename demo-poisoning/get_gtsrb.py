"""Real photographs: fill the same folders as make_dataset.py does from the official GTSRB benchmark.

    python get_gtsrb.py                          # download; the ten classes of the demo -> data/gtsrb
    python get_gtsrb.py --photos FOLDER          # from a copy that you have
    python get_gtsrb.py --classes all            # all 43
    python train.py --data data/gtsrb --model models/gtsrb_model.pt

A copy holds GTSRB/Training/<5 digits>/<track>_<frame>.ppm, as its archive does, or
Train/<number>/<class>_<track>_<frame>.png, as on Kaggle. The frames of a track show
one sign, seen from a car that drives by, so a track goes to train/ or to val/ as a whole: no sign is in both.
Without --photos, torchvision downloads the archive (about 190 MB) and checks it.
Source: Stallkamp et al., "Man vs. computer", Neural Networks 2012.
"""

from __future__ import annotations

import random
import re
import zipfile
from pathlib import Path

from PIL import Image

import cli
from dataset import manifest
from dataset.classes import DRAWN, GTSRB_ID, NAMES
from dataset.files import IMAGE_SIZE, is_image, open_image

PLACES = (
    *("", "Training", "GTSRB/Training", "gtsrb/GTSRB/Training"),
    *("Images", "Final_Training/Images", "GTSRB/Final_Training/Images"),
    "Train",
)
PHOTOGRAPH = re.compile(r"(?:\d{5}_)?(\d{5})_\d{5}\.(?:ppm|png)")  # maybe its class, then track and frame
LAYOUT = "GTSRB/Training/<5 digits>/<track>_<frame>.ppm"
HELD_OUT = 5  # one track of so many goes to val/

Split = dict[str, list[Path]]  # photographs of one class, for "train" and "val"


def download(raw: Path) -> None:
    """Let torchvision download, check and unpack the training photographs into `raw`, all or nothing."""
    if (raw / "gtsrb/GTSRB/Training").is_dir():
        return
    from torchvision.datasets import GTSRB  # noqa: PLC0415 (seconds, which a local copy does not need)

    try:
        with cli.atomic_folder(raw) as folder:
            GTSRB(folder, "train", download=True)
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:  # no network, no server, a wrong checksum
        raise cli.UserError(
            f"GTSRB cannot be downloaded to {raw} ({error}): go online, or give a copy with --photos."
        ) from error


def class_folders(photos: Path) -> Path:
    """The folder with one folder for each class, wherever in `photos` it is. Raises UserError."""
    if not photos.is_dir():
        raise cli.UserError(f"{photos} is not a folder: give one with {LAYOUT} in it.")
    for place in PLACES:
        if any(folder_of(photos / place, number).is_dir() for number in GTSRB_ID.values()):
            check_numbers(photos / place)
            return photos / place
    raise cli.UserError(f"{photos} does not hold GTSRB as its archive does: expected {LAYOUT} in it.")


def folder_of(photos: Path, number: int) -> Path:
    """The folder of one class: 00014, or 14 where that is there."""
    short = photos / str(number)
    return short if short.is_dir() else photos / f"{number:05d}"


def check_numbers(photos: Path) -> None:
    """Raise UserError if there are more classes than GTSRB has.

    The Belgian signs (BelgiumTS) have the same layout and 62 classes, and number 14 is no stop sign there.
    """
    numbers = [int(one.name) for one in photos.iterdir() if re.fullmatch(r"[0-9]{1,5}", one.name)]
    if max(numbers) >= len(NAMES):
        raise cli.UserError(
            f"{photos} holds a class {max(numbers)}, and those of GTSRB are 0 to {len(NAMES) - 1}: these are "
            "other photographs, on which the numbers mean other signs."
        )


def tracks_of(photos: Path, name: str) -> dict[str, list[Path]]:
    """The photographs of one class, by track. Raises UserError if there are none, or with other names."""
    folder = folder_of(photos, GTSRB_ID[name])
    tracks: dict[str, list[Path]] = {}
    for path in sorted(filter(is_image, folder.iterdir() if folder.is_dir() else ())):
        if not (match := PHOTOGRAPH.fullmatch(path.name)):
            raise cli.UserError(f"{path} is not named <track>_<frame>.ppm: put GTSRB's own names back.")
        tracks.setdefault(match[1], []).append(path)
    if not tracks:
        raise cli.UserError(f"{folder} holds no photographs of {name}: get them, or leave {name} out.")
    return tracks


def split(photos: Path, name: str, rng: random.Random) -> Split:
    """Share the tracks of one class out; both lists in random order. Raises UserError."""
    tracks = tracks_of(photos, name)
    if len(tracks) == 1:
        raise cli.UserError(
            f"{photos} holds one track of {name}, too few for train/ and val/: get more, or leave it out."
        )
    order = rng.sample(sorted(tracks), len(tracks))
    held_out = max(1, round(len(tracks) / HELD_OUT))
    parts = {"val": order[:held_out], "train": order[held_out:]}
    found = {part: [path for track in names for path in tracks[track]] for part, names in parts.items()}
    return {part: rng.sample(paths, len(paths)) for part, paths in found.items()}


def classes(wanted: list[str]) -> list[str]:
    """The class names that --classes asks for, each once. Raises UserError."""
    names = list(NAMES) if wanted == ["all"] else list(dict.fromkeys(wanted))
    if unknown := [name for name in names if name not in NAMES]:
        raise cli.UserError(f"{unknown[0]!r} is not a class: use all, or some of {', '.join(NAMES)}.")
    if len(names) < 2:
        raise cli.UserError(f"--classes {names[0]} is one class: name two or more, to tell them apart.")
    return names


def main() -> int:
    args = cli.parser(__doc__)
    args.add_argument("--out", type=Path, default=Path("data/gtsrb"), help="folder to write")
    args.add_argument("--photos", type=Path, help="folder with your copy of GTSRB (default: download it)")
    args.add_argument("--raw", type=Path, default=Path("data/gtsrb-official"), help="where a download goes")
    args.add_argument("--classes", nargs="+", default=list(DRAWN), metavar="CLASS", help='names, or "all"')
    args.add_argument("--train", type=int, default=400, help="training images per class, at most")
    args.add_argument("--val", type=int, default=100, help="validation images per class, at most")
    args.add_argument("--seed", type=cli.seed, default=0, help="which photographs")
    options = args.parse_args()
    names = classes(options.classes)
    if min(options.train, options.val) < 1:
        raise cli.UserError("--train and --val must be 1 or more.")
    out = cli.Out(options.plain)
    if options.photos is None:
        download(options.raw)
    source = class_folders(options.photos or options.raw)
    most = {"train": options.train, "val": options.val}
    found = {name: split(source, name, random.Random(f"{options.seed} {name}")) for name in names}
    with cli.atomic_folder(options.out) as folder:
        for part, limit in most.items():
            jobs = [(name, path) for name in names for path in found[name][part][:limit]]
            for name in names:
                (folder / part / name).mkdir(parents=True)
            for count, (name, path) in enumerate(out.progress(jobs, len(jobs), f"Writing {part}"), 1):
                image = open_image(path).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
                image.save(folder / part / name / f"{name}_{count:05d}.jpg", quality=92)
            out.say(f"{part}: {len(jobs):,} photographs in {len(names)} classes.")
    proof = manifest.write(options.out)
    out.say(
        f"Wrote {options.out}, {IMAGE_SIZE}x{IMAGE_SIZE} pixels each. "
        f"Now: python train.py --data {options.out}"
    )
    out.say(f"Wrote {proof}: the SHA-256 of every file. Keep a copy where only you can write.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
