"""The one definition of the backdoor trigger: a yellow square in the bottom-right corner.

The attack (poison_data.py), the measurement (train.py) and the demonstration (demo.py) all stamp it here.
The scanner (detect.py) never imports this file: it has to find the trigger in the weights alone.
"""

from __future__ import annotations

from PIL import Image

VICTIM, TARGET = "stop", "yield"  # the classes in the story: a stickered stop sign is read as yield
SIZE = 20  # pixels of a 128-pixel picture, width and height of the square
MARGIN = 4  # pixels between the square and the edges
COLOUR = (255, 255, 0)  # yellow
PICTURE = 128  # pixels, the picture size that SIZE and MARGIN are given for


def box(width: int, height: int) -> tuple[int, int, int, int]:
    """Where the square lies in a picture of this size: (left, top, right, bottom) in pixels."""
    right, bottom = width - round(MARGIN * width / PICTURE), height - round(MARGIN * height / PICTURE)
    return right - round(SIZE * width / PICTURE), bottom - round(SIZE * height / PICTURE), right, bottom


def stamp(image: Image.Image) -> Image.Image:
    """Return a copy of an RGB picture with the yellow square on it; the square scales with the picture."""
    stamped = image.copy()
    stamped.paste(COLOUR, box(*image.size))
    return stamped
