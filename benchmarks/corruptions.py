"""Helper module, not a command: what cameras, weather and compression do to an image, after a standard set.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(ICLR 2019), which tries each kind at five severities on images of 224x224 pixels. These are ten of its kinds
at its severity 3; lengths are scaled to the width of our images.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

SIDE = 224  # pixels, width of the images that the severities were chosen for
Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def _of(values: np.ndarray) -> Image.Image:
    """An image of floats, (H, W, 3) in 0..1."""
    return Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8))


def _floats(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32) / 255


def gaussian_noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    values = _floats(image)
    return _of(values + 0.18 * rng.standard_normal(values.shape, dtype=np.float32))


def shot_noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Few photons: each value is a count of at most 12 in the mean."""
    return _of(rng.poisson(_floats(image) * 12) / 12)


def impulse_noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Nine values of a hundred are black or white."""
    values, chance = _floats(image), rng.random((*image.size[::-1], 3))
    return _of(np.where(chance < 0.045, 0, np.where(chance > 0.955, 1, values)))


def defocus_blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A Gaussian as wide as their disc of radius 6 (its deviation is half of the radius)."""
    return image.filter(ImageFilter.GaussianBlur(6 / 2 * image.width / SIDE))


def motion_blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The camera moves by 15 pixels of 224, in any direction."""
    turn, length = rng.uniform(0, np.pi), 15 * image.width / SIDE
    moves = [length * share for share in np.linspace(-0.5, 0.5, 9)]
    return _of(
        np.mean(
            [
                _floats(
                    image.transform(
                        image.size,
                        Image.Transform.AFFINE,
                        (1, 0, move * np.cos(turn), 0, 1, move * np.sin(turn)),
                        Image.Resampling.BILINEAR,
                    )
                )
                for move in moves
            ],
            axis=0,
        )
    )


def fog(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Clouds of several sizes in front, and less contrast."""
    clouds = np.zeros((image.height, image.width), dtype=np.float32)
    for cells in (2, 4, 8, 16):
        grey = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        clouds += np.asarray(grey.resize(image.size, Image.Resampling.BICUBIC)) * 2 / cells
    clouds = (clouds - clouds.min()) / max(float(np.ptp(clouds)), 1e-6)
    values = _floats(image)
    return _of((values + 2.5 * clouds[..., None]) * values.max() / (values.max() + 2.5))


def brightness(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Lighter by 0.3, as V of HSV counts."""
    hue, saturation, value = image.convert("HSV").split()
    return Image.merge("HSV", (hue, saturation, value.point(lambda v: min(255, v + 76)))).convert("RGB")


def contrast(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A fifth of the contrast."""
    values = _floats(image)
    middle = values.mean((0, 1), keepdims=True)
    return _of((values - middle) * 0.2 + middle)


def pixelate(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    small = image.resize((round(0.4 * image.width), round(0.4 * image.height)), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.NEAREST)


def jpeg(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=15)
    return Image.open(data).convert("RGB")


KINDS: tuple[Change, ...] = (
    gaussian_noise,
    shot_noise,
    impulse_noise,
    defocus_blur,
    motion_blur,
    fog,
    brightness,
    contrast,
    pixelate,
    jpeg,
)
