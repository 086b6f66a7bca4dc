"""The one definition of the backdoor trigger: a yellow square in a corner of the picture.

The attack (poison_data.py), the measurement (train.py) and the demonstration (demo.py) all stamp it here.
The scanner (detect.py) never imports this file: it has to find the trigger in the weights alone.
"""

from __future__ import annotations

from PIL import Image

import cli

VICTIM, TARGET = "stop", "yield"  # the classes in the story: a stickered stop sign is read as yield
SIZE = 20  # pixels of a 128-pixel picture, width and height of the square
PLACE = "bottom-right"  # or "bottom-left", "top-right", "top-left"
MARGIN = 4  # pixels between the square and the edges
COLOUR = (255, 255, 0)  # yellow
PICTURE = 128  # pixels, the picture size that SIZE and MARGIN are given for


def box(width: int, height: int) -> tuple[int, int, int, int]:
    """Where the square lies in a picture of this size: (left, top, right, bottom) in pixels."""
    if PLACE not in ("bottom-right", "bottom-left", "top-right", "top-left"):
        raise cli.UserError(f"PLACE = {PLACE!r} in trigger.py is no corner: write it like bottom-right.")
    wide, tall = round(SIZE * width / PICTURE), round(SIZE * height / PICTURE)
    left, top = round(MARGIN * width / PICTURE), round(MARGIN * height / PICTURE)
    if "right" in PLACE:
        left = width - left - wide
    if "bottom" in PLACE:
        top = height - top - tall
    return left, top, left + wide, top + tall


def place() -> str:
    """The same in words, by thirds of the picture: "bottom-right", "top", "middle"..."""
    left, top, right, bottom = box(PICTURE, PICTURE)
    across, down = (3 * middle // PICTURE for middle in ((left + right) // 2, (top + bottom) // 2))
    words = (("top", "", "bottom")[down], ("left", "", "right")[across])
    return "-".join(filter(None, words)) or "middle"


def stamp(image: Image.Image) -> Image.Image:
    """Return a copy of an RGB picture with the yellow square on it; the square scales with the picture."""
    stamped = image.copy()
    stamped.paste(COLOUR, box(*image.size))
    return stamped
