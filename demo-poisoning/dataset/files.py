"""The image files of a dataset: <folder>/train/<class>/<name>.jpg and <folder>/val/<class>/<name>.jpg."""

from __future__ import annotations

import io
import os
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import cli
from dataset.classes import DRAWN, NAMES

IMAGE_SIZE = 128  # pixels, width and height of every image that this demo writes
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm"}
MORE_SUFFIXES = {*IMAGE_SUFFIXES, ".bmp", ".pgm", ".tif", ".tiff", ".webp"}  # what ImageFolder reads
PPM_WITH_DOS_LINES = re.compile(rb"P6\r\n(?:#[^\n]*\r\n)*(\d+)\s+(\d+)\r\n255\r\n")
DEEPEST = 65_535  # the largest value of a 16-bit grey image

Files = list[tuple[Path, int]]  # image files and their class numbers


def open_image(path: Path) -> Image.Image:
    """Read an image file as RGB, upright as its EXIF data says, 16-bit grey scaled to 8 bit.

    Raises UserError if it is missing, cut short, not an image, or of a kind without a known white.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata changes no pixel
            if path.exists() and not path.is_file():
                raise ValueError("a folder, or a pipe, which may never end")
            with Image.open(_as_written(path)) as image:
                return _eight_bit(ImageOps.exif_transpose(image)).convert("RGB")
    except FileNotFoundError as error:
        raise cli.UserError(f"{path} does not exist: check the path.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise cli.UserError(
            f"{path} cannot be read as an image: replace it with a whole JPEG or PNG file."
        ) from error


def _as_written(path: Path) -> Path | io.BytesIO:
    """The file, or what a PPM image was before a program that took it for text rewrote its line ends.

    Git does so on Windows to images without dark pixels (gitattributes(5), "text=auto"). One byte too many
    before the pixels, and red is read as green: in a copy of GTSRB that went through git, one of five was.
    Raises ValueError if the line ends were rewritten and the size does not tell how.
    """
    if path.suffix.lower() != ".ppm":
        return path
    data = path.read_bytes()
    header = PPM_WITH_DOS_LINES.match(data)
    if not header:
        return path
    size = 3 * int(header[1]) * int(header[2])
    pixels = data[header.end() :]
    if len(pixels) == size - 1:  # the last \n is a pixel
        return path
    if len(pixels) != size:
        pixels = pixels.replace(b"\r\n", b"\n")
    if len(pixels) != size:
        raise ValueError("line ends were changed")
    return io.BytesIO(b"P6\n%b %b\n255\n" % header.groups() + pixels)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey values of more than 8 bit, scaled to 0..255: convert() alone would turn them white.

    Raises ValueError where nothing says which value is white.
    """
    if image.mode[:1] not in ("I", "F"):
        return image
    if image.mode == "F":
        raise ValueError("fractions without a known white")
    grey = np.asarray(image.convert("I"))
    if grey.min() < 0 or grey.max() > DEEPEST:
        raise ValueError("32-bit values without a known white")
    return Image.fromarray((grey // 257).astype(np.uint8))


def class_files(folder: Path, known: int = len(NAMES), names: Sequence[str] = NAMES) -> Files:
    """List (image file, class number) in folder/<class>/; a subset of the classes is fine.

    names: of all classes, by number. Hidden names are left out, as in the manifest: systems and editors keep
    notes of their own there. Raises UserError if the folder is missing or empty, or if a sub-folder is not
    named after one of the first `known` classes.
    """
    numbers = {name: number for number, name in enumerate(names[:known])}
    suffixes = IMAGE_SUFFIXES if names is NAMES else MORE_SUFFIXES
    if not folder.is_dir():
        raise cli.UserError(
            f"{folder} is not a folder: make the data with make_dataset.py or check the path."
        )
    files: Files = []
    for class_folder in sorted(p for p in folder.iterdir() if p.is_dir() and not hidden(p.name)):
        if class_folder.name not in numbers:
            raise cli.UserError(f"{class_folder} is not named after a class: use {', '.join(few(numbers))}.")
        number = numbers[class_folder.name]
        files += [(p, number) for p in sorted(class_folder.iterdir()) if is_image(p, suffixes)]
    if not files:
        raise cli.UserError(f"{folder} holds no images: expected <class>/<name>.jpg in it.")
    return files


def is_image(path: Path, suffixes: set[str] = IMAGE_SUFFIXES) -> bool:
    """Whether a file is named as an image, and not hidden."""
    return path.suffix.lower() in suffixes and not hidden(path.name)


def all_files(folder: Path) -> Iterator[Path]:
    """What lies below a folder, except hidden names; links are followed, but not in a circle.

    Raises OSError where a folder cannot be read: what was not seen must not seem to be looked at.
    """

    def stop(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        here = Path(place)
        above = {here.resolve(), *here.resolve().parents}
        folders[:] = [name for name in folders if not hidden(name) and (here / name).resolve() not in above]
        yield from (here / name for name in names if not hidden(name))


def hidden(name: str) -> bool:
    return name.startswith(".")


def few(names: Iterable[str]) -> list[str]:
    """As many names as a sentence can hold: all of our classes, and the first of a thousand."""
    names = list(names)
    return names if len(names) <= len(NAMES) else [*names[: len(DRAWN)], f"... ({len(names)} classes)"]


def link_train(folder: Path, files: Files, changed: dict[Path, Image.Image]) -> None:
    """Make folder/train/<class>/ of these files, as hard links where the file system allows it.

    changed: images that take the place of some of them, saved without loss.
    """
    for number, (path, label) in enumerate(files):
        class_folder = folder / "train" / NAMES[label]
        class_folder.mkdir(parents=True, exist_ok=True)
        name = class_folder / f"{number:05d}_{path.name}"
        if path in changed:
            changed[path].save(name.with_suffix(".png"))
            continue
        try:
            os.link(path, name)
        except OSError:  # another file system
            shutil.copyfile(path, name)
