"""benchmarks/photos.py: how photographs are split, corrupted and counted, tried on made-up ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import corruptions  # noqa: E402 (after the path above)
import photos  # noqa: E402

import signs  # noqa: E402
from dataset.classes import DRAWN, GTSRB_ID  # noqa: E402
from network import classifier  # noqa: E402

Run = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., None]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of GTSRB with one frame in each of two tracks for each class, drawn ones."""
    for name in DRAWN:
        folder = tmp_path / f"copy/GTSRB/Training/{GTSRB_ID[name]:05d}"
        folder.mkdir(parents=True)
        for track in (4, 7):
            image = signs.render(name, np.random.default_rng(track)).resize((40, 40))
            image.save(folder / f"{track:05d}_00011.ppm")
    return tmp_path / "copy"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder in which the images and models of seed 3 stand already."""
    folder = tmp_path / "work/seed-3"
    (folder / "data").mkdir(parents=True)
    for name in DRAWN:
        place = folder / "data/traffic-signs/val" / name
        place.mkdir(parents=True)
        signs.render(name, np.random.default_rng(0)).save(place / f"{name}_00400.jpg")
    (folder / "data/traffic-signs-poisoned").mkdir()
    torch.manual_seed(0)
    model = classifier.new_model()
    with torch.no_grad():
        model.get_parameter("fc.bias")[1] = 1e6  # answers yield, always
    for kind in photos.KINDS:
        classifier.save_model(model, folder / f"models/{kind}_model.pt")
    return tmp_path / "work"


@pytest.mark.parametrize(
    "track, half", [(0, "for tuning"), (1, "only counted"), (2, "only counted"), (28, "for tuning")]
)
def test_halves_by_track(track: int, half: str) -> None:
    assert photos.half_of(Path(f"{track:05d}_00029.ppm")) == half


def test_every_class_in_both_halves(copy: Path) -> None:
    found = photos.listed(copy)
    for half, track in (("for tuning", "00004"), ("only counted", "00007")):
        assert [label for _, label in found[half]] == list(range(10))
        assert {path.name for path, _ in found[half]} == {f"{track}_00011.ppm"}


@pytest.mark.parametrize("kind", corruptions.KINDS, ids=lambda kind: kind.__name__)
def test_a_corruption_changes_an_image_and_only_that(kind: corruptions.Change) -> None:
    image = signs.render("speed_50", np.random.default_rng(2))
    before = image.tobytes()
    once, again = (kind(image, np.random.default_rng(5)) for _ in range(2))
    assert (once.mode, once.size) == (image.mode, image.size)
    assert image.tobytes() == before != once.tobytes()
    assert once.tobytes() == again.tobytes()
    assert 1 < np.abs(np.asarray(once, int) - np.asarray(image, int)).mean() < 100


def test_noise_has_the_strength_of_the_set() -> None:
    grey = Image.new("RGB", (128, 128), (128, 128, 128))
    rng = np.random.default_rng(0)
    assert np.asarray(corruptions.gaussian_noise(grey, rng)).std() / 255 == pytest.approx(0.18, abs=0.01)
    assert np.asarray(corruptions.shot_noise(grey, rng)).std() / 255 == pytest.approx(0.2, abs=0.02)
    noisy = np.asarray(corruptions.impulse_noise(grey, rng))
    assert ((noisy == 0) | (noisy == 255)).mean() == pytest.approx(0.09, abs=0.01)
    light = np.asarray(corruptions.brightness(grey, rng))
    assert light.mean() - 128 == pytest.approx(0.3 * 255, abs=3)
    half = Image.new("RGB", (128, 128))
    half.paste((200, 200, 200), (0, 0, 64, 128))
    assert np.ptp(np.asarray(corruptions.contrast(half, rng))) == pytest.approx(40, abs=2)


def test_the_whole_benchmark_and_its_page(run_main: Run, copy: Path, work: Path, tmp_path: Path) -> None:
    command = (photos, "--plain", "--work", work, "--rows", "rows.jsonl", "--output", "P.md")
    result = run_main(*command, "--photos", copy, "--seeds", 3)
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["seed"], row["kind"]) for row in rows] == [(3, "clean"), (3, "poisoned")]
    for row in rows:  # yield, always
        for half in photos.HALVES:
            assert row["correct"][half] == [[int(name == "yield"), 1] for name in DRAWN]
            assert row["triggered"][half] == [[1, 1]] * 10
        assert set(row["corrupted"]) == {kind.__name__ for kind in corruptions.KINDS}
        assert all(hits == [1, 10] for hits in row["corrupted"].values())
    text = (tmp_path / "P.md").read_text(encoding="utf-8")
    assert "| 3 | clean | 0.100 | 0.100 | 0.100 | 1.000 | 1.000 | 1.000 |" in text
    assert "| stop | 0.000 (least 0.000) |" in text
    assert "| mean of the kinds | 0.100 | 0.100 |" in text
    again = run_main(*command)  # no photographs needed for the page, and nothing is measured again
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "P.md").read_text(encoding="utf-8") == text


def made_up(seed: int, kind: str, hits: int) -> dict[str, Any]:
    places = ("drawn", *photos.HALVES)
    return {
        "seed": seed,
        "kind": kind,
        "correct": {place: [[hits, 10]] * 10 for place in places},
        "triggered": {place: [[10 - hits, 10]] * 10 for place in places},
        "corrupted": {"fog": [hits * 10, 100]},
    }


def test_the_page_tells_the_mean_and_the_least() -> None:
    rows = [made_up(1, "poisoned", 6), made_up(0, "clean", 9), made_up(0, "poisoned", 8)]
    rows.append(made_up(1, "clean", 10))
    text = photos.page(rows)
    assert "Seeds: 0, 1;" in text
    assert text.index("| 0 | clean | 0.900") < text.index("| 1 | poisoned | 0.600")
    one = "0.950 (least 0.900) | 0.700 (least 0.600)"
    assert f"| keep_right | {one} | {one} |" in text
    assert "| fog | 0.950 | 0.700 |" in text
    assert "| no_entry | 5.0\u00a0% (1 of 20;" in text  # 1 of 20 read as yield by the two clean models


def test_bad_input(run_main: Run, assert_refused: Refused, copy: Path, tmp_path: Path) -> None:
    command = (photos, "--rows", "rows.jsonl", "--output", "P.md", "--work", "w")
    assert_refused(run_main(*command), "rows.jsonl holds no rows", "--photos")
    assert_refused(run_main(*command, "--photos", tmp_path / "no"), "no is not a folder")
    for path in (copy / f"GTSRB/Training/{GTSRB_ID['stop']:05d}").iterdir():
        path.unlink()
    assert_refused(run_main(*command, "--photos", copy), "no photographs of stop")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
