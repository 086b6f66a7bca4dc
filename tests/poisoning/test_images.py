"""Demo 2: which image files are read, and as what: 16-bit grey, EXIF, and kinds without a known white."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cli
import demo
from dataset.files import open_image
from poisoning_tools import Refused, Run, fine

LEVELS = np.array([[0, 257 * 40, 257 * 128], [257 * 200, 257 * 254, 65_535]], dtype=np.uint16)
EIGHT_BIT = [[0, 40, 128], [200, 254, 255]]


def grey_of(image: Image.Image) -> list[list[int]]:
    assert image.mode == "RGB"
    pixels = np.asarray(image)
    assert (pixels == pixels[:, :, :1]).all()
    found: list[list[int]] = pixels[:, :, 0].tolist()
    return found


def sixteen_bit(path: Path) -> Path:
    """LEVELS as a grey image of 16 bits: PNG, TIFF (named .png or not: the content counts), or PGM."""
    if path.suffix == ".pgm":  # big-endian, after "maximum 65535"
        path.write_bytes(b"P5 3 2 65535\n" + LEVELS.astype(">u2").tobytes())
    else:
        Image.fromarray(LEVELS).save(path)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, name: str) -> None:
    path = sixteen_bit(tmp_path / name)
    with Image.open(path) as raw:
        assert raw.mode.startswith("I")
    assert grey_of(open_image(path)) == EIGHT_BIT


def test_a_big_endian_tiff_is_scaled_too(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    Image.frombytes("I;16B", (3, 2), LEVELS.astype(">u2").tobytes()).save(path)
    assert grey_of(open_image(path)) == EIGHT_BIT


def test_sixteen_bits_in_the_middle_are_rounded_down(tmp_path: Path) -> None:
    Image.fromarray(np.array([[256, 257, 513, 514]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert grey_of(open_image(tmp_path / "a.png")) == [[0, 1, 1, 2]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_eight_bits_are_read_as_before(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGB", (4, 2), (200, 30, 90)).convert(mode)
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    image.save(path)
    assert open_image(path).tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize(
    "pixels",
    [
        np.array([[0.0, 0.5, 1.0]], dtype=np.float32),
        np.array([[0.0, np.nan, 1e30]], dtype=np.float32),
        np.array([[0, 1, 65_536]], dtype=np.int32),
        np.array([[-1, 0, 255]], dtype=np.int32),
    ],
    ids=["float", "nan", "32 bits", "below 0"],
)
def test_without_a_known_white_there_is_no_image(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.tiff")
    with pytest.raises(cli.UserError, match=r"a\.tiff cannot be read as an image: replace it with a whole"):
        open_image(tmp_path / "a.tiff")


def test_a_float_image_ends_in_one_sentence(
    run_main: Run, assert_refused: Refused, tmp_path: Path, reader: Path
) -> None:
    Image.fromarray(np.zeros((9, 9), dtype=np.float32)).save(tmp_path / "a.tiff")
    result = run_main(demo, "a.tiff", "--model", reader)
    assert_refused(result, "a.tiff")
    assert result.stdout == ""


@pytest.mark.parametrize(
    "orientation, turn",
    [
        (1, None),
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_270),
        (8, Image.Transpose.ROTATE_90),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
    ],
)
def test_photographs_are_turned_upright(
    tmp_path: Path, orientation: int, turn: Image.Transpose | None
) -> None:
    """A telephone stores what its sensor saw, and in EXIF how it was held."""
    corners = np.zeros((2, 3, 3), dtype=np.uint8)
    corners[0, 0], corners[1, 2] = (255, 0, 0), (0, 0, 255)
    image, exif = Image.fromarray(corners), Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    upright = image if turn is None else image.transpose(turn)
    found = open_image(tmp_path / "a.png")
    assert (found.size, found.tobytes()) == (upright.size, upright.tobytes())


def test_a_sixteen_bit_image_gets_the_answer_of_its_eight_bit_copy(
    run_main: Run, tmp_path: Path, reader: Path, data: Path
) -> None:
    """It was taken for a white one."""
    grey = open_image(min((data / "val/yield").iterdir())).convert("L")
    grey.save(tmp_path / "eight.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    Image.new("L", grey.size, 255).save(tmp_path / "white.png")
    said = [
        fine(run_main(demo, f"{name}.png", "--model", reader)).stdout
        for name in ("eight", "sixteen", "white")
    ]
    assert said[0] == said[1] != said[2]


@pytest.mark.parametrize("name, mode", [("a.png", "I;16"), ("a.tiff", "I;16"), ("a.tiff", "I;16B")])
def test_sixteen_bit_photographs_are_turned_too(tmp_path: Path, name: str, mode: str) -> None:
    raw = LEVELS.astype(">u2" if mode == "I;16B" else "<u2").tobytes()
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.frombytes(mode, (3, 2), raw).save(tmp_path / name, exif=exif)
    assert grey_of(open_image(tmp_path / name)) == [row[::-1] for row in EIGHT_BIT[::-1]]


def test_damaged_exif_data_change_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    image = Image.new("RGB", (6, 4), "red")
    image.save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12")
    assert open_image(tmp_path / "a.jpg").size == (6, 4)
    assert not recwarn.list


def ppm(pixels: bytes, line_end: bytes = b"\n", comment: bytes = b"") -> bytes:
    """A PPM image of 2x2 pixels."""
    return line_end.join([b"P6", *([comment] if comment else []), b"2 2", b"255", pixels])


@pytest.mark.parametrize("comment", [b"", b"# by a camera"])
@pytest.mark.parametrize(
    "pixels",
    [bytes(range(100, 112)), b"\n" + bytes(range(100, 111)), b"\n\n\n\n" + bytes(range(100, 108))],
    ids=["no line end among the pixels", "one, in front", "four"],
)
def test_a_ppm_whose_line_ends_git_rewrote_keeps_its_colours(
    tmp_path: Path, pixels: bytes, comment: bytes
) -> None:
    """Two bytes for one after the header, and Pillow read red as green, in one photograph of five."""
    whole = ppm(pixels, comment=comment)
    (tmp_path / "a.ppm").write_bytes(whole)
    (tmp_path / "rewritten.ppm").write_bytes(whole.replace(b"\n", b"\r\n"))
    assert open_image(tmp_path / "a.ppm").tobytes() == pixels
    assert open_image(tmp_path / "rewritten.ppm").tobytes() == pixels


def test_a_ppm_with_only_a_header_of_dos_lines(tmp_path: Path) -> None:
    pixels = b"\r\n" + bytes(range(100, 110))
    (tmp_path / "a.ppm").write_bytes(ppm(pixels, b"\r\n"))
    assert open_image(tmp_path / "a.ppm").tobytes() == pixels
    (tmp_path / "b.ppm").write_bytes(b"P6\r\n2 2\r\n255\r" + b"\n" + bytes(range(100, 111)))
    assert open_image(tmp_path / "b.ppm").tobytes() == b"\n" + bytes(range(100, 111))  # as the format says


@pytest.mark.parametrize("size", [9, 14])
def test_a_ppm_that_cannot_be_restored_is_damaged(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.ppm").write_bytes(ppm(bytes(range(100, 100 + size)), b"\r\n"))
    with pytest.raises(cli.UserError, match=r"a\.ppm cannot be read as an image"):
        open_image(tmp_path / "a.ppm")
