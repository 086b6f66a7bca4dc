"""The picture files of a dataset: <folder>/train/<class>/<name>.jpg and <folder>/val/<class>/<name>.jpg."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import cli
from classes import NAMES

PICTURES = {".jpg", ".jpeg", ".png", ".ppm"}


def open_picture(path: Path) -> Image.Image:
    """Read a picture file as RGB. Raises UserError if it is missing, cut short or no picture."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise cli.UserError(f"{path} does not exist: check the path.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise cli.UserError(
            f"{path} cannot be read as a picture: replace it with a whole JPEG or PNG file."
        ) from error


def class_files(folder: Path, known: int = len(NAMES)) -> list[tuple[Path, int]]:
    """List (picture file, class number) in folder/<class>/; a subset of the classes is fine.

    Raises UserError if the folder is missing or empty, or if a sub-folder is not named after one of the
    first `known` classes.
    """
    if not folder.is_dir():
        raise cli.UserError(
            f"{folder} is not a folder: make the data with make_dataset.py or check the path."
        )
    files: list[tuple[Path, int]] = []
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        if place.name not in NAMES[:known]:
            raise cli.UserError(f"{place} is not named after a class: use {', '.join(NAMES[:known])}.")
        number = NAMES.index(place.name)
        files += [(p, number) for p in sorted(place.iterdir()) if p.suffix.lower() in PICTURES]
    if not files:
        raise cli.UserError(f"{folder} holds no pictures: expected <class>/<name>.jpg in it.")
    return files
