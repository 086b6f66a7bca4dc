"""Demo 2: a recovered trigger in words, as a drawing, and in the terminal."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import cli
from poisoning_tools import BLACK, RED, YELLOW, Terminal, hand_made
from scanner import describe

INPUT = 32


def test_a_yellow_square_in_words() -> None:
    words = describe.in_words(hand_made(104, 104, 20, 20))
    assert words == "a yellow square, about 20x20 px, bottom-right corner, 2.4 % of the image"


def test_a_ragged_trigger_has_the_size_of_its_area() -> None:
    found = hand_made(88, 88, 40, 40)
    found.mask[:, :] = 0
    for cell in range(44, 64):
        found.mask[cell, cell - 2 : cell + 3] = 1  # a diagonal band: about 5 of 20 cells per row
    match = re.search(r"a yellow patch, about (\d+)x(\d+) px, bottom-right", describe.in_words(found))
    assert match
    # mask cells are 2 pixels wide and high; the box around the band would be 40x44 pixels
    assert int(match[1]) * int(match[2]) == pytest.approx(4 * found.mask.sum().item(), rel=0.1)


@pytest.mark.parametrize(
    "left, top, place",
    [
        (52, 52, "bottom-right corner"),
        (2, 2, "top-left corner"),
        (2, 52, "bottom-left corner"),
        (52, 2, "top-right corner"),
        (27, 27, "middle"),
        (27, 2, "top edge"),
        (52, 27, "right edge"),
    ],
)
def test_places_in_words(left: int, top: int, place: str) -> None:
    assert describe.place_name(hand_made(2 * left, 2 * top, 20, 20).mask) == place


@pytest.mark.parametrize(
    "colour, name",
    [
        ((1.0, 1.0, 0.0), "yellow"),
        ((0.75, 0.72, 0.2), "yellow"),
        ((0.9, 0.1, 0.1), "red"),
        ((0.9, 0.1, 0.2), "red"),
        ((0.1, 0.8, 0.2), "green"),
        ((0.1, 0.2, 0.9), "blue"),
        ((0.1, 0.9, 0.9), "cyan"),
        ((0.9, 0.1, 0.9), "magenta"),
        ((1.0, 0.5, 0.0), "orange"),
        ((1.0, 1.0, 1.0), "white"),
        ((0.8, 0.8, 0.8), "white"),
        ((0.5, 0.5, 0.5), "grey"),
        ((0.02, 0.03, 0.02), "black"),
    ],
)
def test_colours_in_words(colour: tuple[float, float, float], name: str) -> None:
    assert describe.colour_name(*colour) == name


@pytest.mark.parametrize("size", [48, 64, 128])
@pytest.mark.parametrize(
    "box, words",
    [
        ((104, 104, 20, 20), "a yellow square, about 20x20 px, bottom-right corner, 2.4 % of the image"),
        ((8, 8, 24, 20), "a yellow square, about 24x20 px, top-left corner, 2.9 % of the image"),
        ((16, 100, 96, 16), "a yellow bar, about 96x16 px, bottom edge, 9.4 % of the image"),
        ((8, 16, 16, 96), "a yellow bar, about 16x96 px, left edge, 9.4 % of the image"),
        ((44, 52, 40, 24), "a yellow patch, about 40x24 px, middle, 5.9 % of the image"),
    ],
)
def test_shapes_in_words(box: tuple[int, int, int, int], words: str, size: int) -> None:
    said = describe.in_words(hand_made(*box, YELLOW, size=size))
    expected, found = (re.split(r"\d+(?:\.\d)?", text) for text in (words, said))
    assert found == expected
    for one, other in zip(re.findall(r"\d+(?:\.\d)?", said), re.findall(r"\d+(?:\.\d)?", words)):
        assert float(one) == pytest.approx(float(other), abs=0 if size > 48 else 3)


def test_a_vowel_gets_its_article() -> None:
    assert describe.in_words(hand_made(8, 8, 20, 20, (1.0, 0.5, 0.0))).startswith("an orange square, ")


@pytest.mark.parametrize("share, name", [(0.5, "black and yellow"), (0.3, "yellow and black")])
def test_both_of_two_colours_are_named(share: float, name: str) -> None:
    found = hand_made(88, 88, 32, 32, YELLOW)
    edge = 44 + round(16 * share)
    found.pattern[:, :, 44:edge] = torch.tensor(BLACK).view(3, 1, 1)
    said = describe.in_words(found)
    other = " and ".join(reversed(name.split(" and ")))
    assert said.startswith((f"a {name} square", f"a {other} square") if share == 0.5 else f"a {name} square")


def test_a_chequered_trigger_has_two_colours() -> None:
    found = hand_made(8, 88, 32, 32, (1.0, 1.0, 1.0))
    cells = torch.arange(64) // 4 % 2
    found.pattern[:, cells[:, None] == cells] = torch.tensor(RED)[:, None]
    assert re.match(
        r"a (red and white|white and red) square, .* bottom-left corner", describe.in_words(found)
    )


def test_a_little_of_another_colour_is_not_named() -> None:
    found = hand_made(88, 88, 32, 32, YELLOW)
    found.pattern[:, 44:46, 44:52] = 0
    assert describe.in_words(found).startswith("a yellow square")


def test_a_shaded_trigger_has_one_colour() -> None:
    found = hand_made(88, 88, 32, 32, YELLOW)
    found.pattern *= torch.linspace(0.7, 1.0, 64)
    assert describe.in_words(found).startswith("a yellow square")


def test_noise_is_many_coloured() -> None:
    found = hand_made(32, 32, 64, 64, YELLOW)
    found.pattern = torch.randint(2, (3, 64, 64), generator=torch.Generator().manual_seed(1)).float()
    assert describe.in_words(found).startswith("a many-coloured square")


def test_crumbs_do_not_change_the_place_and_pieces_are_counted() -> None:
    found = hand_made(104, 104, 20, 20, YELLOW)
    found.mask[2, 2] = found.mask[5, 30] = 0.9
    assert describe.in_words(found).startswith("a yellow square, about 20x20 px, bottom-right corner")
    found.mask[4:12, 4:12] = 1
    assert describe.in_words(found).startswith("a yellow patch in 2 pieces, ")
    assert "largest piece: bottom-right corner" in describe.in_words(found)


def test_a_faint_mask_is_described_by_its_strongest_part() -> None:
    found = hand_made(104, 104, 20, 20, YELLOW)
    found.mask = 0.4 * found.mask + 0.01
    assert "square, about 20x20 px, bottom-right corner" in describe.in_words(found)


@pytest.mark.parametrize(
    "colour, name",
    [((0.45, 0.3, 0.1), "brown"), ((1.0, 0.7, 0.8), "pink"), ((0.2, 0.17, 0.1), "black"), (RED, "red")],
)
def test_more_colours_in_words(colour: tuple[float, float, float], name: str) -> None:
    assert describe.colour_name(*colour) == name


# --- overlap with a known place ---------------------------------------------------------------------


BOX = (104, 104, 124, 124)


def test_overlap_by_hand() -> None:
    assert describe.overlap(hand_made(104, 104, 20, 20, YELLOW).mask, BOX) == pytest.approx(1)
    assert describe.overlap(hand_made(0, 0, 20, 20, YELLOW).mask, BOX) == 0
    # half of it, and nothing else: 200 of 400 pixels
    assert describe.overlap(hand_made(104, 104, 10, 20, YELLOW).mask, BOX) == pytest.approx(0.5)
    # moved by half its width: 200 shared, 600 covered by one or both
    assert describe.overlap(hand_made(94, 104, 20, 20, YELLOW).mask, BOX) == pytest.approx(1 / 3)


@pytest.mark.parametrize("size", [32, 48, 96])
def test_overlap_does_not_depend_on_the_size_of_the_mask(size: int) -> None:
    assert describe.overlap(hand_made(104, 104, 20, 20, YELLOW, size=size).mask, BOX) > 0.75
    full = torch.ones(size, size)
    assert describe.overlap(full, BOX) == pytest.approx(400 / 128**2, abs=1e-6)


# --- as images --------------------------------------------------------------------------------------


def test_the_drawing_shows_trigger_mask_and_example(tmp_path: Path) -> None:
    path = tmp_path / "new/trigger.png"
    describe.draw(hand_made(104, 104, 20, 20, (1.0, 1.0, 0.0)), torch.zeros(3, 64, 64), path)
    with Image.open(path) as sheet:
        assert sheet.size == (3 * 256, 256)
        inside, outside = (228, 228), (100, 100)
        panels = [sheet.crop((256 * n, 0, 256 * (n + 1), 256)) for n in range(3)]
        assert [panel.getpixel(inside) for panel in panels] == [(255, 255, 0), (255, 255, 255), (255, 255, 0)]
        grey, black, image = (panel.getpixel(outside) for panel in panels)
        assert grey in ((127, 127, 127), (128, 128, 128))
        assert black == image == (0, 0, 0)


def shown(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], *, plain: bool = False, blue: float = 0.0
) -> str:
    """What describe.show prints on a terminal with these variables: yellow above, red below.

    blue: a share in both, for colours that are new; rich remembers the codes of those it had before.
    """
    for name in ("NO_COLOR", "COLORTERM", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    pixels = torch.full((3, INPUT, INPUT), blue)
    pixels[0] = 1
    pixels[1] = 0
    pixels[1, : INPUT // 2] = 1
    said = Terminal()
    with contextlib.redirect_stdout(said):
        describe.show(pixels, cli.Out(plain))
    return said.getvalue()


def test_half_blocks_show_two_pixels_each(monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(monkeypatch, {"TERM": "xterm-256color", "COLORTERM": "truecolor"})
    lines = said.splitlines()
    assert len(lines) == describe.COLUMNS // 2
    assert all(line.count("▀") == describe.COLUMNS for line in lines)
    assert "38;2;255;255;0;48;2;255;255;0m" in lines[0]
    assert "38;2;255;0;0;48;2;255;0;0m" in lines[-1]


def test_a_container_gets_256_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker sets TERM=xterm and nothing else, whatever the terminal can do."""
    said = shown(monkeypatch, {"TERM": "xterm"}, blue=0.5)
    assert "38;5;" in said
    assert "38;2;" not in said


@pytest.mark.parametrize("env", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}], ids=str)
def test_no_image_without_colour(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
    assert shown(monkeypatch, env) == ""


def test_no_image_in_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, {"TERM": "xterm", "COLORTERM": "truecolor"}, plain=True) == ""
    said = io.StringIO()  # a pipe
    with contextlib.redirect_stdout(said):
        describe.show(torch.zeros(3, INPUT, INPUT), cli.Out())
    assert said.getvalue() == ""
