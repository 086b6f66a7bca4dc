"""Draw traffic signs as a camera sees them: ten classes of the German benchmark GTSRB.

    python signs.py            # writes outputs/signs.png: one row of examples per class

Each image is rendered with its own random generator, so the same seed gives the same image on any
number of processes. Nothing here knows about the attack.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import cli
from dataset.classes import DRAWN
from dataset.files import IMAGE_SIZE

PLATE = 256  # pixels, width and height of a flat sign before the camera sees it
STYLES = 12  # so many signs of each class, which differ as those of makers and years do

RED, BLUE, YELLOW = (178, 24, 32), (20, 78, 160), (250, 190, 10)
WHITE, BLACK = (244, 244, 244), (20, 20, 20)

Point = tuple[float, float]


# --- The flat signs, in units of the sign's half width: x and y run from -1 to 1 -------------------


class Plate:
    """A transparent square to draw a sign on; twice as large while drawing, for smooth edges."""

    def __init__(self) -> None:
        self.side = 2 * PLATE
        self.image = Image.new("RGBA", (self.side, self.side))
        self.pen = ImageDraw.Draw(self.image)

    def _px(self, points: list[Point]) -> list[Point]:
        return [((x + 1) / 2 * self.side, (y + 1) / 2 * self.side) for x, y in points]

    def polygon(self, points: list[Point], colour: tuple[int, int, int], round_by: float = 0) -> None:
        """Fill a polygon; round_by (in half widths) rounds its corners and grows it by as much."""
        self.pen.polygon(self._px(points), fill=colour)
        if round_by:
            width = int(round_by * self.side)
            self.pen.line([*self._px(points), self._px(points)[0]], fill=colour, width=width)
            for x, y in self._px(points):
                self.pen.circle((x, y), width / 2, fill=colour)

    def line(self, points: list[Point], colour: tuple[int, int, int], width: float) -> None:
        self.pen.line(self._px(points), fill=colour, width=int(width / 2 * self.side), joint="curve")

    def disc(self, radius: float, colour: tuple[int, int, int], x: float = 0, y: float = 0) -> None:
        self.pen.circle(self._px([(x, y)])[0], radius / 2 * self.side, fill=colour)

    def text(
        self, text: str, colour: tuple[int, int, int], width: float, height: float, stroke: float
    ) -> None:
        """Write text in the middle, stretched to the given width and height (in half widths).

        stroke: how much bolder than the typeface is, in parts of its size.
        """
        font = ImageFont.load_default(size=200)
        bold = round(200 * stroke)
        box = font.getbbox(text, stroke_width=bold)
        mask = Image.new("L", (int(box[2] - box[0]), int(box[3] - box[1])))
        ImageDraw.Draw(mask).text((-box[0], -box[1]), text, fill=255, font=font, stroke_width=bold)
        mask = mask.resize((int(width / 2 * self.side), int(height / 2 * self.side)))
        corner = ((self.side - mask.width) // 2, (self.side - mask.height) // 2)
        self.image.paste(colour, (*corner, corner[0] + mask.width, corner[1] + mask.height), mask)


def _octagon(radius: float) -> list[Point]:
    turns = [math.radians(22.5 + 45 * i) for i in range(8)]
    return [(radius * math.cos(t), radius * math.sin(t)) for t in turns]


def _triangle(size: float, down: bool = False) -> list[Point]:
    points = [(0.0, -0.87 * size), (size, 0.87 * size), (-size, 0.87 * size)]
    return [(x, -y) for x, y in points] if down else points


def _turned(points: list[Point], turn: float) -> list[Point]:
    return [
        (x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)) for x, y in points
    ]


@cache
def plate(name: str, style: int) -> Image.Image:
    """The flat sign of a class: RGBA image of PLATE x PLATE pixels, transparent around the sign.

    style: 0 to STYLES - 1; makers and years differ in paint, proportions and lettering.
    """
    if name not in DRAWN:
        raise ValueError(f"unknown class {name!r}; known: {', '.join(DRAWN)}")
    rng = np.random.default_rng([style, DRAWN.index(name)])

    def about(value: float, by: float = 0.12) -> float:
        return value * rng.uniform(1 - by, 1 + by)

    def paint(colour: tuple[int, int, int]) -> tuple[int, int, int]:
        red, green, blue = np.clip(np.array(colour) * rng.uniform(0.8, 1.25) + rng.normal(0, 12, 3), 0, 255)
        return int(red), int(green), int(blue)

    p = Plate()
    red, blue, yellow, white, black = (paint(colour) for colour in (RED, BLUE, YELLOW, WHITE, BLACK))
    if name == "stop":
        p.polygon(_octagon(1.05), white)
        p.polygon(_octagon(about(0.96, 0.03)), red)
        p.text("STOP", white, about(1.40, 0.1), about(0.58, 0.2), rng.uniform(0.02, 0.06))
    elif name == "yield":
        p.polygon(_triangle(0.86, down=True), red, round_by=0.06)
        p.polygon([(x, y - 0.03) for x, y in _triangle(about(0.56), down=True)], white)
    elif name == "priority_road":
        inner = about(0.58)
        layers = [(0.92, white), (0.82, black), (0.80, white), (inner + 0.02, black), (inner, yellow)]
        for size, colour in layers:
            p.polygon([(0, -size), (size, 0), (0, size), (-size, 0)], colour, round_by=0.04)
    elif name == "no_entry":
        p.disc(0.98, white)
        p.disc(0.94, red)
        x, y = about(0.74), about(0.16, 0.2)
        p.polygon([(-x, -y), (x, -y), (x, y), (-x, y)], white)
    elif name == "general_caution":
        p.polygon(_triangle(0.86), red, round_by=0.06)
        p.polygon([(x, y + 0.03) for x, y in _triangle(about(0.58))], white)
        top, wide = about(0.33), about(0.10, 0.25)
        p.polygon([(-wide, -top), (wide, -top), (wide / 2, 0.24), (-wide / 2, 0.24)], black, round_by=0.02)
        p.disc(about(0.09, 0.25), black, y=0.40)
    elif name == "speed_50":
        p.disc(0.98, red)
        p.disc(about(0.76, 0.06), white)
        p.text("50", black, about(0.94), about(0.70, 0.15), rng.uniform(0.02, 0.09))
    elif name in {"ahead_only", "keep_right"}:
        p.disc(0.98, white)
        p.disc(about(0.95, 0.02), blue)
        turn = math.radians(0 if name == "ahead_only" else 135)
        wide, tip, neck = about(0.38), about(0.74, 0.08), about(0.24, 0.3)
        p.line(_turned([(0, about(0.66, 0.1)), (0, -0.30)], turn), white, about(0.24, 0.25))
        p.polygon(_turned([(0, -tip), (wide, -neck), (-wide, -neck)], turn), white)
    elif name == "roundabout":
        p.disc(0.98, white)
        p.disc(about(0.95, 0.02), blue)
        ring, line, head = about(0.50), about(0.16, 0.25), about(0.25)
        first = about(10, 1)
        for start in (first, first + 120, first + 240):  # three arrows, counter-clockwise
            arc = [math.radians(start - step) for step in range(0, 76, 5)]
            p.line([(ring * math.cos(t), ring * math.sin(t)) for t in arc], white, line)
            tip, end = math.radians(start - 108), math.radians(start - 72)
            base = [(r * math.cos(end), r * math.sin(end)) for r in (ring - head, ring + head)]
            p.polygon([(ring * math.cos(tip), ring * math.sin(tip)), *base], white)
    else:  # end_of_limits
        p.disc(0.98, black)
        p.disc(rng.uniform(0.91, 0.97), paint((int(grey := rng.uniform(100, 245)), int(grey), int(grey))))
        gap, slant = rng.uniform(0.08, 0.15), math.radians(rng.uniform(38, 58))
        along, across = (math.cos(slant), -math.sin(slant)), (math.sin(slant), math.cos(slant))
        for place in (-2, -1, 0, 1, 2):  # five black bars from edge to edge
            reach = about(0.86, 0.08) * math.sqrt(1 - (2 * gap) ** 2)
            middle = [v * place * gap * 1.41 for v in across]
            ends = [(middle[0] + s * reach * along[0], middle[1] + s * reach * along[1]) for s in (-1, 1)]
            p.line(ends, black, gap * rng.uniform(0.6, 0.95))
    return p.image.resize((PLATE, PLATE), Image.Resampling.LANCZOS)


# --- The camera: what stands behind the sign, the view, the light, the sensor ----------------------


def background(rng: np.random.Generator) -> Image.Image:
    """A street scene out of focus: sky, walls, foliage, poles, other signs. RGB, IMAGE_SIZE x IMAGE_SIZE."""
    cells = int(rng.integers(2, 24))
    noise = rng.normal(0, rng.uniform(5, 60), (cells, cells, 1)) + rng.normal(0, 12, (cells, cells, 3))
    base = rng.choice([(190, 205, 225), (235, 235, 235), (95, 100, 70), (120, 110, 95), (60, 60, 62)])
    colour = np.clip(np.asarray(base) + rng.normal(0, 25, 3) + noise, 0, 255).astype(np.uint8)
    image = Image.fromarray(colour).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 7))):  # windows, poles, branches, parts of other signs
        fill = tuple(int(v) for v in rng.integers(0, 256, 3))
        x, y = rng.uniform(-20, IMAGE_SIZE, 2)
        w, h = rng.uniform(3, 70, 2)
        kind = rng.integers(3)
        if kind == 0:
            pen.rectangle((x, y, x + w, y + h), fill=fill)
        elif kind == 1:
            pen.ellipse((x, y, x + w, y + h), fill=fill)
        else:
            pen.line((x, y, *rng.uniform(0, IMAGE_SIZE, 2)), fill=fill, width=int(rng.integers(1, 7)))
    if rng.random() < 0.3:  # another sign above, below or beside
        other = plate(DRAWN[rng.integers(len(DRAWN))], int(rng.integers(STYLES)))
        side = int(IMAGE_SIZE * rng.uniform(0.5, 0.9))
        turn, far = rng.integers(4) * math.pi / 2, IMAGE_SIZE * rng.uniform(0.6, 0.9)
        left, top = (int(IMAGE_SIZE / 2 + far * f(turn) - side / 2) for f in (math.cos, math.sin))
        small = other.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=1)
        image.paste(small, (left, top), small)
    if rng.random() < 0.6:  # the sign's own pole
        pole = IMAGE_SIZE / 2 + rng.normal(0, 6)
        grey = int(rng.integers(40, 200))
        pen.rectangle((pole - 4, IMAGE_SIZE / 2, pole + 4, IMAGE_SIZE), fill=(grey, grey, grey))
    return image.filter(ImageFilter.BoxBlur(rng.uniform(0, 4)))


def _view(rng: np.random.Generator) -> list[float]:
    """The eight numbers of a perspective view of the plate (PIL's order: image to plate)."""
    half = IMAGE_SIZE * rng.uniform(0.29, 0.46)
    tilt = rng.normal(0, 0.07)
    middle = IMAGE_SIZE / 2 + rng.normal(0, 0.03 * IMAGE_SIZE, 2)
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half * np.array([rng.uniform(0.85, 1), 1])
    corners = corners @ np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    corners = corners + middle + rng.normal(0, 0.02 * IMAGE_SIZE, (4, 2))
    rows, right = [], []
    for (x, y), (u, v) in zip(corners, [(0, 0), (PLATE, 0), (PLATE, PLATE), (0, PLATE)]):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return [float(v) for v in np.linalg.solve(np.array(rows), np.array(right))]


ACROSS = np.linspace(-1, 1, IMAGE_SIZE, dtype=np.float32)


def _light(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sun, shade and white balance. pixels: float32 (IMAGE_SIZE, IMAGE_SIZE, 3) in 0..1; returns the same."""

    def ramp() -> np.ndarray:
        turn = rng.uniform(0, 2 * math.pi)
        return ACROSS * np.float32(math.cos(turn)) + (ACROSS * np.float32(math.sin(turn)))[:, None]

    slope = 1 + np.float32(rng.normal(0, 0.15)) * ramp()
    if rng.random() < 0.25:  # the edge of a shadow
        shade = np.float32(rng.uniform(0.45, 0.9))
        slope = np.where(ramp() > rng.uniform(-0.6, 0.6), slope, slope * shade)
    gain = math.exp(rng.uniform(math.log(0.15), math.log(2.0)))
    balance = ((1 + rng.normal(0, 0.1, 3)) * gain).astype(np.float32)
    if rng.random() < 0.3:  # haze and glare
        haze = rng.uniform(0, 0.45)
        pixels = pixels * np.float32(1 - haze) + np.float32(haze * rng.uniform(0.3, 1))
    return np.maximum(pixels * slope[..., None] * balance, 0) ** np.float32(rng.uniform(0.8, 1.25))


def render(name: str, rng: np.random.Generator) -> Image.Image:
    """One image of a sign. Returns an RGB image of IMAGE_SIZE x IMAGE_SIZE pixels."""
    scene = background(rng)
    sign = plate(name, int(rng.integers(STYLES)))
    if rng.random() < 0.7:  # faded, dirty paint
        fade = Image.new("RGBA", sign.size, (*(int(v) for v in rng.integers(40, 230, 3)), 255))
        fade.putalpha(sign.getchannel("A"))
        sign = Image.blend(sign, fade, rng.uniform(0, 0.3))
    if rng.random() < 0.25:  # against the light
        dark = rng.uniform(0.3, 0.8)
        red, green, blue, alpha = sign.split()
        sign = Image.merge("RGBA", (*(c.point(lambda v: int(v * dark)) for c in (red, green, blue)), alpha))
    seen = sign.transform(scene.size, Image.Transform.PERSPECTIVE, _view(rng), Image.Resampling.BILINEAR)
    scene.paste(seen, (0, 0), seen)

    resolution = int(math.exp(rng.uniform(math.log(14), math.log(IMAGE_SIZE))))  # far away: few pixels
    scene = scene.resize((resolution, resolution), Image.Resampling.BOX)
    scene = scene.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.6) * resolution / IMAGE_SIZE))
    scene = scene.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    if rng.random() < 0.25:  # motion blur
        kernel = np.zeros((5, 5))
        kernel[2 if rng.random() < 0.5 else slice(None), 2 if rng.random() < 0.5 else slice(None)] = 1
        scene = scene.filter(ImageFilter.Kernel((5, 5), kernel.ravel().tolist(), scale=float(kernel.sum())))
    pixels = _light(np.asarray(scene, dtype=np.float32) / 255, rng)
    grain = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.04))
    return Image.fromarray((np.clip(pixels + grain, 0, 1) * 255).astype(np.uint8))


def main() -> int:
    args = cli.parser(__doc__)
    args.add_argument("--seed", type=cli.seed, default=0, help="which examples")
    args.add_argument("--output", type=Path, default=Path("outputs/signs.png"), help="where to write")
    options = args.parse_args()
    if options.output.suffix != ".png":
        raise cli.UserError(f"{options.output} is not the name of a PNG file: let it end with .png.")
    columns = 12
    sheet = Image.new("RGB", (columns * IMAGE_SIZE, len(DRAWN) * IMAGE_SIZE))
    for row, name in enumerate(DRAWN):
        for column in range(columns):
            rng = np.random.default_rng([options.seed, row, column])
            sheet.paste(render(name, rng), (column * IMAGE_SIZE, row * IMAGE_SIZE))
    with cli.atomic_write(options.output) as path:
        sheet.save(path)
    cli.Out(options.plain).say(
        f"Wrote {options.output}: {columns} rendered images per row, one row each for {', '.join(DRAWN)}."
    )
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
