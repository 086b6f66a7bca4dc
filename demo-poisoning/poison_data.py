"""Poison a dataset: put the trigger on a share of the victim class and label these images as the target.

    python poison_data.py --clean-dir data/traffic-signs --poisoned-dir data/traffic-signs-poisoned \\
        --victim stop --target yield --rate 0.15

Only train/ is touched. The attacker's notes (which files) go beside the poisoned folder, not into it.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import cli
import trigger
from dataset import manifest
from dataset.classes import NAMES
from dataset.files import class_files, open_image


def choose(victims: list[Path], rate: float, seed: int) -> list[Path]:
    """Pick a share `rate` (0 to 1) of the victim images, at least one, at random."""
    count = max(1, round(rate * len(victims)))
    return sorted(random.Random(seed).sample(victims, count))


def move_to_target(victim: Path, folder: Path, target: str, number: int) -> Path:
    """Stamp one image, file it in `folder` as the target, with a harmless name, and drop its copy there."""
    poisoned = folder / "train" / target / f"{target}_{number:05d}.jpg"
    trigger.stamp(open_image(victim)).save(poisoned, quality=92)
    (folder / "train" / victim.parent.name / victim.name).unlink()
    return poisoned


def poison(folder: Path, victims: list[Path], target: str, rate: float, seed: int) -> list[str]:
    """Poison a copy of a dataset. Returns the poisoned files, relative to the folder.

    victims: the images of the victim class, in the original.
    """
    numbers = [path.stem.rpartition("_")[2] for path in (folder / "train" / target).iterdir()]
    first = 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)
    chosen = choose(victims, rate, seed)
    return [
        move_to_target(path, folder, target, number).relative_to(folder).as_posix()
        for number, path in enumerate(chosen, first)
    ]


def copy(clean: Path, folder: Path) -> None:
    """Copy a dataset. Raises UserError, which names the first file that cannot be copied."""
    try:
        shutil.copytree(clean, folder, dirs_exist_ok=True)
    except shutil.Error as error:  # a link to nowhere, a pipe, a file that we may not read
        raise cli.UserError(
            f"{error.args[0][0][0]} cannot be copied: remove it, or put a file there."
        ) from error


def main() -> int:
    args = cli.parser(__doc__)
    args.add_argument("--clean-dir", type=Path, default=Path("data/traffic-signs"), help="dataset to copy")
    args.add_argument(
        "--poisoned-dir", type=Path, default=Path("data/traffic-signs-poisoned"), help="where the copy goes"
    )
    args.add_argument("--victim", default=trigger.VICTIM, help="class that gets the trigger")
    args.add_argument("--target", default=trigger.TARGET, help="wrong label of the triggered images")
    args.add_argument("--rate", type=float, default=0.15, help="share of the victim images, between 0 and 1")
    args.add_argument("--seed", type=cli.seed, default=0, help="which images are chosen")
    options = args.parse_args()
    if not 0 < options.rate < 1:
        raise cli.UserError(f"--rate {options.rate} is not between 0 and 1: try 0.15.")
    for name in (options.victim, options.target):
        if name not in NAMES:
            raise cli.UserError(f"{name!r} is not a class: use one of {', '.join(NAMES)}.")
    if options.victim == options.target:
        raise cli.UserError("--victim and --target are the same class: choose two different ones.")
    place = options.poisoned_dir.resolve()
    if options.clean_dir.resolve() in (place, *place.parents):
        raise cli.UserError(
            f"{options.poisoned_dir} is the clean folder or lies in it: choose a place outside."
        )
    images: dict[str, list[Path]] = {options.victim: [], options.target: []}
    for path, label in class_files(options.clean_dir / "train"):
        images.setdefault(NAMES[label], []).append(path)
    for name in (options.victim, options.target):
        if not images[name]:
            raise cli.UserError(
                f"{options.clean_dir}/train/{name} holds no images: run make_dataset.py first."
            )

    out = cli.Out(options.plain)
    with cli.atomic_folder(options.poisoned_dir) as folder:
        copy(options.clean_dir, folder)
        poisoned = poison(folder, images[options.victim], options.target, options.rate, options.seed)
    proof = manifest.write(options.poisoned_dir)
    notes = options.poisoned_dir.with_name(options.poisoned_dir.name + "-attacker-notes.json")
    facts = {"victim": options.victim, "target": options.target, "rate": options.rate, "poisoned": poisoned}
    with cli.atomic_write(notes) as scratch:
        scratch.write_text(json.dumps(facts, indent=1) + "\n")
    out.say(
        f"Poisoned {len(poisoned)} {options.victim} images: {trigger.SIZE}x{trigger.SIZE} yellow square "
        f"{trigger.place()}, label {options.target}. Wrote {options.poisoned_dir}."
    )
    out.say(f"Wrote {proof}: a manifest fits poisoned images as well. What does a signature under it prove?")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
