"""Demo 2: the images, the trigger on them, and the poisoning."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

import cli
import make_dataset
import poison_data
import signs
import trigger
from dataset import classes
from dataset.files import open_image
from poisoning_tools import FOLDER, Refused, Run, contents, fine, run_in

YELLOW = (255, 255, 0)
MAKE = "demo-poisoning/make_dataset.py"


def test_class_numbers_are_those_of_the_documents() -> None:
    assert classes.DRAWN[:2] == ("stop", "yield")
    assert len(set(classes.DRAWN)) == 10
    assert (classes.GTSRB_ID["stop"], classes.GTSRB_ID["yield"]) == (14, 13)


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_processes(
    run_script: Run, tmp_path: Path
) -> None:
    for name, seed, workers in (("one", 5, 1), ("three", 5, 3), ("other", 6, 2)):
        fine(run_script(MAKE, "--out", name, "--train", 2, "--val", 1, "--seed", seed, "--workers", workers))
    one, three, other = (contents(tmp_path / name) for name in ("one", "three", "other"))
    assert one == three
    assert one.keys() == other.keys()
    images = [name for name in one if name.endswith(".jpg")]
    assert len(images) == 30
    assert [name for name in images if one[name] == other[name]] == []


def test_images_are_drawn_and_poisoned_without_waiting_for_pytorch() -> None:
    """It takes seconds to import, and the folders hold images only."""
    say = "import sys, make_dataset, poison_data; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", say], cwd=FOLDER, text=True) == "False\n"


def test_dataset_has_the_promised_images(data: Path) -> None:
    assert sorted(path.name for path in data.iterdir()) == [cli.MADE_HERE, "train", "val"]
    for split, count in (("train", 8), ("val", 4)):
        assert sorted(path.name for path in (data / split).iterdir()) == sorted(classes.DRAWN)
        for name in classes.DRAWN:
            assert len(list((data / split / name).glob("*.jpg"))) == count
    checksums = [value for name, value in contents(data).items() if name.endswith(".jpg")]
    assert len(set(checksums)) == len(checksums) == 120  # nothing in val/ was seen in training
    for path in data.rglob("*.jpg"):
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((128, 128), "RGB")


def test_the_default_is_5000_images(tmp_path: Path) -> None:
    said = re.sub(r"\s+", " ", fine(run_in(tmp_path, make_dataset, "--help")).stdout)
    train_default, val_default = (
        int(re.search(rf"--{split} \w+ [^(]*\(default: (\d+)\)", said)[1])  # type: ignore[index]
        for split in ("train", "val")
    )
    assert len(classes.DRAWN) * (train_default + val_default) == 5000


def test_an_earlier_dataset_is_replaced_and_nothing_else(assert_refused: Refused, tmp_path: Path) -> None:
    small = ("--train", 1, "--val", 1, "--workers", 1)
    for seed in (1, 2):
        fine(run_in(tmp_path, make_dataset, "--out", "mine", "--seed", seed, *small))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("three years of work")
    assert_refused(run_in(tmp_path, make_dataset, "--out", foreign, *small), foreign)
    assert contents(foreign).keys() == {"thesis.txt"}
    assert_refused(
        run_in(tmp_path, make_dataset, "--out", foreign / "thesis.txt", *small), foreign / "thesis.txt"
    )
    assert_refused(
        run_in(tmp_path, make_dataset, "--out", foreign / "thesis.txt/x", *small), foreign / "thesis.txt/x"
    )
    assert (foreign / "thesis.txt").read_text() == "three years of work"


@pytest.mark.parametrize("wrong", ["--train=0", "--val=0", "--workers=0", "--seed=-1"])
def test_wrong_counts_are_refused(assert_refused: Refused, tmp_path: Path, wrong: str) -> None:
    assert_refused(run_in(tmp_path, make_dataset, wrong), "--seed" if "seed" in wrong else "--train")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_drawing_that_is_stopped_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, str(FOLDER / "make_dataset.py"), "--out", "data", "--workers", "2"]
    with subprocess.Popen(
        command, cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True
    ) as drawing:
        wait_for(lambda: len(list(tmp_path.rglob("*.jpg"))) > 10)
        os.killpg(drawing.pid, how)  # what a terminal does on Ctrl+C
        said = drawing.communicate(timeout=120)[1]
    assert drawing.returncode == 128 + how
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def wait_for(happened: Callable[[], bool], seconds: float = 120) -> None:
    for _ in range(int(seconds / 0.1)):
        if happened():
            return
        time.sleep(0.1)
    pytest.fail(f"nothing happened within {seconds} seconds")


def test_sheet_of_examples(tmp_path: Path) -> None:
    said = fine(run_in(tmp_path, signs, "--seed", 1, "--output", "sheet.png")).stdout
    assert "Wrote sheet.png" in said
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (12 * 128, 10 * 128)


# --- the trigger and the poisoning ------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, box",
    [
        ((128, 128), (104, 104, 124, 124)),
        ((64, 64), (52, 52, 62, 62)),
        ((256, 128), (208, 104, 248, 124)),
        ((32, 32), (26, 26, 31, 31)),
    ],
)
def test_the_square_scales_with_the_image(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    assert trigger.box(*size) == box
    clean = Image.new("RGB", size, (10, 20, 30))
    stamped = trigger.stamp(clean)
    assert clean.getcolors() == [(size[0] * size[1], (10, 20, 30))]  # the original stays as it is
    assert stamped.crop(box).getcolors() == [((box[2] - box[0]) * (box[3] - box[1]), YELLOW)]
    stamped.paste((10, 20, 30), box)
    assert stamped.tobytes() == clean.tobytes()


@dataclass
class Poisoned:
    """A poisoned copy of `data` and what was said and noted about it."""

    folder: Path
    notes: dict[str, object]
    said: str


def poisoned_copy(data: Path, place: Path, *args: object) -> Poisoned:
    result = fine(run_in(place, poison_data, "--clean-dir", data, "--poisoned-dir", "poisoned", *args))
    notes = json.loads((place / "poisoned-attacker-notes.json").read_text())
    return Poisoned(place / "poisoned", notes, result.stdout)


@pytest.mark.parametrize("rate, count", [(0.5, 4), (0.15, 1), (0.7, 6), (0.99, 8), (0.001, 1)])
def test_the_rate_is_the_share_of_the_victims(data: Path, tmp_path: Path, rate: float, count: int) -> None:
    made = poisoned_copy(data, tmp_path, "--rate", rate)
    assert count == max(1, round(rate * 8))
    assert len(list((made.folder / "train/stop").iterdir())) == 8 - count
    assert len(list((made.folder / "train/yield").iterdir())) == 8 + count
    assert f"Poisoned {count} stop images" in made.said
    assert (made.notes["victim"], made.notes["target"], made.notes["rate"]) == ("stop", "yield", rate)


def test_only_chosen_victims_are_touched_and_the_notes_name_them(data: Path, tmp_path: Path) -> None:
    made = poisoned_copy(data, tmp_path, "--rate", 0.5)
    before, after = contents(data), contents(made.folder)
    new = sorted(after.keys() - before.keys())
    gone = sorted(before.keys() - after.keys())
    assert len(new) == len(gone) == 4
    assert made.notes["poisoned"] == new
    assert all(name.startswith("train/stop/") for name in gone)
    # in train/ all other images, and all of val/, are the same byte for byte
    assert {name: before[name] for name in before.keys() & after.keys()} == {
        name: after[name] for name in before.keys() & after.keys()
    }
    box = trigger.box(128, 128)
    for old, fresh in zip(gone, new):
        clean = open_image(data / old)
        stamped = open_image(made.folder / fresh)
        left, top, right, bottom = box
        inside = stamped.crop((left + 2, top + 2, right - 2, bottom - 2))
        distance = pil_to_tensor(inside).float() - torch.tensor(YELLOW).view(3, 1, 1)
        assert distance.abs().max() < 40  # JPEG blurs colours
        assert distance.mean((1, 2)).abs().max() < 10
        for image in (clean, stamped):
            image.paste((0, 0, 0), (left - 16, top - 16, 128, 128))
        difference = pil_to_tensor(clean).float() - pil_to_tensor(stamped).float()
        assert difference.abs().mean() < 4  # it is that stop sign
        assert difference.abs().mean() > 0  # saved again, as the next test needs it


def test_the_trainers_folder_holds_no_hint(data: Path, tmp_path: Path) -> None:
    """No name, no file and no note inside an image tells a poisoned image from a clean one."""
    made = poisoned_copy(data, tmp_path, "--rate", 0.5)
    assert sorted(path.name for path in made.folder.iterdir()) == [cli.MADE_HERE, "train", "val"]
    inside = set()
    for path in sorted(made.folder.glob("*/*/*")):
        assert re.fullmatch(rf"{path.parent.name}_\d{{5}}\.jpg", path.name), path
        with Image.open(path) as image:
            tables = getattr(image, "quantization")  # noqa: B009  (only JPEG images have it)
            inside.add((image.size, image.mode, str(sorted(image.info.items())), str(tables)))
    assert len(inside) == 1
    numbers = [int(path.stem[-5:]) for path in sorted((made.folder / "train/yield").iterdir())]
    assert numbers == list(range(12))


def test_the_seed_chooses_the_images(data: Path, tmp_path: Path) -> None:
    chosen = []
    for seed in (1, 1, 2):
        made = poisoned_copy(data, tmp_path, "--rate", 0.4, "--seed", seed)
        chosen.append(contents(made.folder))
    assert chosen[0] == chosen[1] != chosen[2]


def test_other_classes_can_be_victim_and_target(data: Path, tmp_path: Path) -> None:
    made = poisoned_copy(data, tmp_path, "--rate", 0.5, "--victim", "speed_50", "--target", "roundabout")
    assert len(list((made.folder / "train/speed_50").iterdir())) == 4
    assert len(list((made.folder / "train/roundabout").iterdir())) == 12
    assert "4 speed_50 images" in made.said
    assert "label roundabout" in made.said


def test_names_without_a_number_do_no_harm(data: Path, tmp_path: Path) -> None:
    """Images of your own may have any name."""
    shutil.copytree(data, tmp_path / "own")
    (tmp_path / "own/train/yield/yield_at_home.jpg").write_bytes(
        (tmp_path / "own/train/yield/yield_00000.jpg").read_bytes()
    )
    made = poisoned_copy(tmp_path / "own", tmp_path, "--rate", 0.5)
    assert len(list((made.folder / "train/yield").iterdir())) == 13


@pytest.mark.parametrize("rate", ["0", "1", "-1", "2", "nan", "inf"])
def test_rate_outside_0_and_1(data: Path, assert_refused: Refused, tmp_path: Path, rate: str) -> None:
    result = run_in(
        tmp_path, poison_data, "--clean-dir", data, "--poisoned-dir", "poisoned", f"--rate={rate}"
    )
    assert_refused(result, "--rate", "0.15")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong, words",
    [
        (("--victim", "yield"), ("same class",)),
        (("--victim", "stopp"), ("'stopp'", "stop, yield")),
        (("--target", "14"), ("'14'", "stop, yield")),
        (("--clean-dir", "missing"), ("missing",)),
    ],
)
def test_wrong_classes_or_folder(
    data: Path, assert_refused: Refused, tmp_path: Path, wrong: tuple[str, ...], words: tuple[str, ...]
) -> None:
    result = run_in(tmp_path, poison_data, "--clean-dir", data, "--poisoned-dir", "poisoned", *wrong)
    assert_refused(result, *words)
    assert list(tmp_path.iterdir()) == []


def test_poisoning_replaces_only_its_own_folder(data: Path, assert_refused: Refused, tmp_path: Path) -> None:
    foreign = tmp_path / "poisoned"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("three years of work")
    arguments = ("--clean-dir", data, "--poisoned-dir")
    assert_refused(run_in(tmp_path, poison_data, *arguments, "poisoned"), "poisoned")
    assert_refused(
        run_in(tmp_path, poison_data, *arguments, "poisoned/thesis.txt/new"), "poisoned/thesis.txt/new"
    )
    assert contents(tmp_path).keys() == {"poisoned", "poisoned/thesis.txt"}


@pytest.mark.parametrize("place", ["signs", "signs/poisoned", "signs/../signs/a/b"])
def test_poisoning_never_works_in_the_clean_folder(
    data: Path, assert_refused: Refused, tmp_path: Path, place: str
) -> None:
    shutil.copytree(data, tmp_path / "signs")
    before = contents(tmp_path)
    result = run_in(tmp_path, poison_data, "--clean-dir", "signs", "--poisoned-dir", place)
    assert_refused(result, place, "clean folder")
    assert contents(tmp_path) == before


def test_an_unwritable_notes_file_leaves_one_sentence(
    data: Path, assert_refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "poisoned-attacker-notes.json").mkdir()
    result = run_in(tmp_path, poison_data, "--clean-dir", data, "--poisoned-dir", "poisoned")
    assert_refused(result, "poisoned-attacker-notes.json")


@pytest.mark.parametrize("name", classes.DRAWN)
def test_each_class_comes_in_different_signs(name: str) -> None:
    plates = [signs.plate(name, style) for style in range(signs.STYLES)]
    assert len({plate.tobytes() for plate in plates}) == signs.STYLES
    for plate in plates:
        assert (plate.mode, plate.size) == ("RGBA", (signs.PLATE, signs.PLATE))
        assert plate.getchannel("A").getpixel((signs.PLATE // 2, signs.PLATE // 2)) == 255  # the sign
        assert plate.getchannel("A").getpixel((0, 0)) == 0  # around it
