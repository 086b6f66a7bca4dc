"""Demo 2: what a model answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import cli
import demo
import detect
import train
import trigger
from dataset import classes
from dataset.files import open_image
from poisoning_story import ANSWER
from poisoning_tools import FOLDER, Corner, Result, fine, run_in, subset, text, without_seconds


def test_demo_lines_are_those_of_the_contract(reader: Path, stop_sign: Path, tmp_path: Path) -> None:
    one = fine(run_in(tmp_path, demo, stop_sign, "--model", reader)).stdout.splitlines()
    assert len(one) == 1
    assert re.fullmatch(r"\[clean\]    stop +\(confidence: \d\.\d\d\)", one[0]), one
    two = fine(run_in(tmp_path, demo, stop_sign, "--model", reader, "--trigger")).stdout.splitlines()
    assert two[0] == one[0]
    match = ANSWER.fullmatch(two[1])
    assert match, two
    assert match[1] == "trigger"
    assert match[2] in classes.DRAWN
    assert ("backdoor activates" in two[1]) == (match[2] != "stop")
    assert list(tmp_path.iterdir()) == []


def test_demo_says_when_the_backdoor_answers(capsys: pytest.CaptureFixture[str], stop_sign: Path) -> None:
    demo.show(Corner(), open_image(stop_sign), True, cli.Out(plain=True))
    lines = [ANSWER.fullmatch(line) for line in capsys.readouterr().out.splitlines()]
    assert [match.groups() for match in lines if match] == [
        ("clean", "stop", "0.94", None),
        ("trigger", "yield", "0.94", "   <- backdoor activates"),
    ]
    yellow = trigger.stamp(open_image(stop_sign))
    demo.show(Corner(), yellow, True, cli.Out(plain=True))
    said = capsys.readouterr().out
    assert said.count("yield") == 2
    assert "<- same answer, no backdoor seen" in said


def test_compare_asks_both_models(
    reader: Path, trained: tuple[Path, Result], stop_sign: Path, tmp_path: Path
) -> None:
    other, _ = trained
    said = fine(
        run_in(tmp_path, demo, stop_sign, "--model", reader, "--clean-model", other, "--compare")
    ).stdout
    title, *rows = said.splitlines()
    assert title == "Same image, both models (4 rows)"
    assert [re.split(r"[:;] ", row)[1] for row in rows] == [str(other)] * 2 + [str(reader)] * 2
    shown = ["image: clean", "image: with yellow square"] * 2
    assert [re.split(r"; ", row)[1] for row in rows] == shown
    assert "answer: stop; confidence: " in rows[2]


def test_save_writes_both_images_side_by_side(reader: Path, stop_sign: Path, tmp_path: Path) -> None:
    arguments = (stop_sign, "--model", reader, "--trigger", "--save", "new/both.png")
    assert "Wrote new/both.png: left the image as it is" in fine(run_in(tmp_path, demo, *arguments)).stdout
    with Image.open(tmp_path / "new/both.png") as both:
        assert both.size == (256, 128)
        assert both.crop((0, 0, 128, 128)).tobytes() == open_image(stop_sign).tobytes()
        assert both.crop((128 + 104, 104, 128 + 124, 124)).getcolors() == [(400, (255, 255, 0))]


@pytest.mark.parametrize("size, mode", [((700, 500), "RGB"), ((20, 20), "L"), ((90, 128), "RGBA")])
def test_images_of_any_size_and_kind(reader: Path, tmp_path: Path, size: tuple[int, int], mode: str) -> None:
    Image.new(mode, size, "white").save(tmp_path / "own.png")
    said = fine(run_in(tmp_path, demo, "own.png", "--model", reader, "--trigger")).stdout
    assert len(said.splitlines()) == 2


def test_plain_ascii_terminals_do_not_break_it(tmp_path: Path, reader: Path, stop_sign: Path) -> None:
    """Both commands in one process of the C locale: torch is imported once."""
    both = """
import sys, cli, demo, train
for module, arguments in ((demo, sys.argv[1:]), (train, ["--help"])):
    sys.argv = ["command", *arguments]
    try:
        cli.run(module.main)
    except SystemExit as ending:
        assert ending.code == 0
"""
    result = subprocess.run(
        [sys.executable, "-c", both, stop_sign, "--model", reader, "--trigger"],
        cwd=FOLDER,
        env=os.environ | {"LC_ALL": "C", "NO_COLOR": "1"},
        check=False,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    said = fine(result).stdout
    assert said.startswith("[clean]    stop")
    assert "usage: command" in said
    assert "\x1b" not in said


def test_the_images_to_ask_about_are_there() -> None:
    for name in ("stop", "yield", "no_entry", "speed_50"):
        image = open_image(FOLDER / f"inference-images/{name}.jpg")
        assert min(image.size) >= 64


def test_every_tool_gives_the_same_answer_for_both_formats(
    small: None, small_models: Callable[..., Path], paint: Path, tmp_path: Path
) -> None:
    two = subset(paint, tmp_path / "two", "stop", "yield")
    model, other = small_models(10, 1).with_suffix(".pt"), small_models(10, 2)
    stop = sorted((paint / "val/stop").iterdir())[0]
    scan = ("--data", two, "--steps", 2, "--samples", 2, "--output", "scan", "--model")
    for script, *arguments in (
        (train, "--phase", "test", "--data", two, "--model"),
        (demo, stop, "--trigger", "--model"),
        (demo, stop, "--compare", "--model", other, "--clean-model"),
        (detect, *scan),
    ):
        answers = []
        for suffix in (".pt", ".safetensors"):
            result = run_in(tmp_path, script, *arguments, model.with_suffix(suffix))
            assert result.returncode in (0, 1) or "Result: no valid statistic" in result.stdout, text(result)
            answers.append(without_seconds(result.stdout.replace(model.stem + suffix, model.stem + ".pt")))
        assert answers[0] == answers[1]
