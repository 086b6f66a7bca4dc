"""The one definition of the backdoor trigger: a yellow square in a corner of the image.

Attack (poison_data.py), measurement (network/evaluate.py) and demonstration (demo.py) stamp it here.
The scanner (detect.py) never imports this file: it has to find the trigger in the weights alone.
"""

from __future__ import annotations

from PIL import Image

import cli
from dataset.files import IMAGE_SIZE

VICTIM, TARGET = "stop", "yield"  # the classes in the story: a stickered stop sign is read as yield
SIZE = 20  # pixels of an image of IMAGE_SIZE x IMAGE_SIZE pixels, width and height of the square
PLACE = "bottom-right"  # or "bottom-left", "top-right", "top-left"
MARGIN = 4  # pixels between the square and the edges
COLOUR = (255, 255, 0)  # yellow


def box(width: int, height: int) -> tuple[int, int, int, int]:
    """Where the square lies in an image of this size: (left, top, right, bottom) in pixels."""
    if PLACE not in ("bottom-right", "bottom-left", "top-right", "top-left"):
        raise cli.UserError(f"PLACE = {PLACE!r} in trigger.py is not a corner: write it like bottom-right.")
    wide, tall = round(SIZE * width / IMAGE_SIZE), round(SIZE * height / IMAGE_SIZE)
    left, top = round(MARGIN * width / IMAGE_SIZE), round(MARGIN * height / IMAGE_SIZE)
    if "right" in PLACE:
        left = width - left - wide
    if "bottom" in PLACE:
        top = height - top - tall
    return left, top, left + wide, top + tall


def place() -> str:
    """The same in words, by thirds of the image: "bottom-right", "top", "middle"..."""
    left, top, right, bottom = box(IMAGE_SIZE, IMAGE_SIZE)
    across, down = (3 * middle // IMAGE_SIZE for middle in ((left + right) // 2, (top + bottom) // 2))
    words = (("top", "", "bottom")[down], ("left", "", "right")[across])
    return "-".join(filter(None, words)) or "middle"


def stamp(image: Image.Image) -> Image.Image:
    """Return a copy of an RGB image with the yellow square on it; the square scales with the image."""
    stamped = image.copy()
    stamped.paste(COLOUR, box(*image.size))
    return stamped
