"""The images of the held-out models: drawings as they are and in other styles, and photographs.

Helper module, not a command.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import detection
import population
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

# isort: split  (population puts demo-poisoning on the path)
import cli
from dataset.classes import DRAWN, NAMES
from dataset.files import class_files, open_image


def pale(image: Image.Image) -> Image.Image:
    """Washed out and out of focus."""
    image = ImageEnhance.Color(image).enhance(0.45).filter(ImageFilter.GaussianBlur(1.5))
    return Image.blend(image, Image.new("RGB", image.size, (235, 235, 240)), 0.25)


def poster(image: Image.Image) -> Image.Image:
    """Few strong colours with dark outlines, as printed."""
    flat = ImageOps.posterize(ImageEnhance.Color(image).enhance(1.6).filter(ImageFilter.MedianFilter(5)), 2)
    lines = ImageOps.invert(flat.convert("L").filter(ImageFilter.FIND_EDGES))
    return Image.composite(flat, Image.new("RGB", image.size), lines)


def turned_round(image: Image.Image) -> Image.Image:
    """Another sign: red and blue exchanged, left and right exchanged."""
    red, green, blue = image.split()
    return ImageOps.mirror(Image.merge("RGB", (blue, green, red)))


STYLES = {"pale": pale, "poster": poster}


def data_folder(name: str, work: Path, photos: Path | None, quick: bool) -> Path:
    """Make a set of images unless it is there. Returns its folder, with train/ and val/."""
    kind, _, number = name.partition("-")
    seed, folder = int(number), work / name
    if kind == "drawn":
        return detection.draw_dataset(work, seed, quick)
    if folder.exists():
        return folder
    if kind == "photographs":
        command = [sys.executable, str(population.DEMO / "get_gtsrb.py"), "--photos", str(photos)]
        command += ["--out", str(folder), "--seed", str(seed)]
        if quick:
            command += ["--train", "100", "--val", "20"]
        subprocess.run(command, check=True)
        return folder
    drawn = detection.draw_dataset(work, seed, quick)
    with cli.atomic_folder(folder) as new:
        for part in ("train", "val"):
            changed(drawn / part, new / part, kind)
    return folder


def changed(source: Path, folder: Path, kind: str) -> None:
    """Copy images in another style; or, for twenty classes, each class as it is and as another sign."""
    files = class_files(source)
    for path, label in files:
        image = open_image(path)
        if kind in STYLES:
            made = [(label, STYLES[kind](image))]
        else:
            made = [(label, image), (label + len(DRAWN), turned_round(image))]
            if source.name == "train":  # as many images as for ten classes, none of them twice
                made = made[int(path.stem[-1]) % 2 :][:1]
        for number, one in made:
            place = folder / NAMES[number]
            place.mkdir(parents=True, exist_ok=True)
            one.save(place / path.name, quality=92)
