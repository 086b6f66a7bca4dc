"""Demo 2: pictures, poisoning, training, the question to a model, and the scan.

The tests in front train for seconds or not at all; those at the end (marked slow) type the documented
commands, train both models once and check the figures that the workshop promises.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import hashlib
import io
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import anomaly_index
import classes
import classifier
import cli
import create_malicious_model
import dataset
import demo
import describe
import detect
import device
import judge
import make_dataset
import neural_cleanse
import poison_data
import resnet
import scan_model
import signs
import train
import trigger

sys.path.insert(0, str(Path(__file__).resolve().parent))
from poisoning_story import ANSWER, EPOCH, check_gold, check_silver, measured

FOLDER = "demo-poisoning"
MAKE, POISON, TRAIN, DEMO, DETECT, SIGNS = (
    f"{FOLDER}/{name}.py" for name in ("make_dataset", "poison_data", "train", "demo", "detect", "signs")
)
MODULES = {MAKE: make_dataset, POISON: poison_data, TRAIN: train, DEMO: demo, DETECT: detect, SIGNS: signs}
YELLOW = (255, 255, 0)
INPUT = classifier.INPUT

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]
Refused = Callable[..., None]


# --- what the tests share ----------------------------------------------------------------------------------


def here(folder: Path, script: str, *args: object) -> Result:
    """Run a script in `folder`, inside this process: importing torch again each time would take minutes."""
    before = signal.getsignal(signal.SIGTERM)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [script, *map(str, args)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.run(MODULES[script].main)
            except SystemExit as ending:
                code = ending.code
            finally:
                signal.signal(signal.SIGTERM, before)
    assert isinstance(code, int)
    return subprocess.CompletedProcess([script], code, out.getvalue(), err.getvalue())


def text(result: Result) -> str:
    return result.stdout + result.stderr


def fine(result: Result, code: int = 0) -> Result:
    """Give the result back after checking that the command ended as it should, and quietly."""
    assert result.returncode == code, text(result)
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr
    return result


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with the checksum of its bytes; folders count, too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


def leftovers(folder: Path) -> list[str]:
    """Scratch folders and other hidden names, except the mark of a folder that may be replaced."""
    return [str(path) for path in folder.rglob(".*") if path.name != cli.MADE_HERE]


def without_models(folder: Path) -> None:
    """Remove model files: pytest keeps the folders of three runs, and each ResNet18 has 45 MB."""
    for suffix in ("pt", "safetensors"):
        for path in folder.rglob(f"*.{suffix}"):
            if path.is_file():
                path.unlink()


@pytest.fixture(autouse=True)
def small_folder(tmp_path: Path) -> Iterator[None]:
    yield
    assert leftovers(tmp_path) == []
    without_models(tmp_path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A small dataset of all ten classes: 8 pictures per class to train with, 4 to validate."""
    folder = tmp_path_factory.mktemp("data")
    command = [
        sys.executable,
        str(root / MAKE),
        "--train",
        "8",
        "--val",
        "4",
        "--seed",
        "3",
        "--out",
        "signs",
    ]
    made = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
    return folder / "signs"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Path]:
    """A real ResNet18 that reads `data`/val rightly without training: its last layer is solved for it."""
    torch.manual_seed(4)
    model = classifier.new_model().eval()
    last, model.fc = model.fc, nn.Identity()
    files = dataset.class_files(data / "val")
    with torch.no_grad():
        seen = model(classifier.normalise(classifier.load_pixels([path for path, _ in files]).float() / 255))
        wanted = 6.0 * nn.functional.one_hot(torch.tensor([label for _, label in files]), 10)
        middle = seen.mean(0)
        inverse = torch.linalg.pinv(seen - middle)
        assert isinstance(last, nn.Linear)
        last.weight.copy_((inverse @ wanted).T)
        last.bias.copy_(-(last.weight @ middle))
    model.fc = last
    folder = tmp_path_factory.mktemp("reader")
    yield classifier.save_model(model, folder / "reader.pt")[0]
    without_models(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[tuple[Path, Result]]:
    """What train.py writes after one short epoch, and what it says."""
    folder = tmp_path_factory.mktemp("trained")
    result = here(folder, TRAIN, "--data", data, "--epochs", 1, "--seed", 1, "--model", "models/m.pt")
    yield folder / "models/m.pt", fine(result)
    without_models(folder)


@pytest.fixture
def picture(data: Path) -> Path:
    return sorted((data / "val/stop").iterdir())[0]


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker.txt"


@pytest.fixture
def malicious(tmp_path: Path, marker: Path) -> Path:
    """A malicious model file, as demo 1 makes it; its payload would write the marker."""
    path = tmp_path / "malicious.pt"
    path.write_bytes(create_malicious_model.malicious_bytes(marker))
    return path


def subset(data: Path, folder: Path, *names: str) -> Path:
    """A folder with val/<class>/ for some classes only, by links."""
    (folder / "val").mkdir(parents=True)
    for name in names:
        (folder / "val" / name).symlink_to(data / "val" / name)
    return folder


class Corner(nn.Module):
    """Reads yield where the bottom-right corner is yellow, else stop: a backdoor in two lines."""

    def forward(self, pixels: Tensor) -> Tensor:
        raw = unnormalise(pixels)[:, :, -8:-4, -8:-4].mean((2, 3))
        yellow = (raw[:, :2].amin(1) > 0.9) & (raw[:, 2] < 0.1)
        return 5.0 * nn.functional.one_hot(yellow.long(), len(classes.DRAWN))


def unnormalise(pixels: Tensor) -> Tensor:
    """The inverse of classifier.normalise: back to 0..1."""
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (classifier.MEAN, classifier.STD))
    return pixels * std + mean


# --- the pictures ------------------------------------------------------------------------------------------


def test_class_numbers_are_those_of_the_documents() -> None:
    assert classes.DRAWN[:2] == ("stop", "yield")
    assert len(set(classes.DRAWN)) == 10
    assert (classes.GTSRB_ID["stop"], classes.GTSRB_ID["yield"]) == (14, 13)


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_processes(
    run_script: Run, tmp_path: Path
) -> None:
    for name, seed, workers in (("one", 5, 1), ("three", 5, 3), ("other", 6, 3)):
        fine(run_script(MAKE, "--out", name, "--train", 2, "--val", 1, "--seed", seed, "--workers", workers))
    one, three, other = (contents(tmp_path / name) for name in ("one", "three", "other"))
    assert one == three
    assert one.keys() == other.keys()
    pictures = [name for name in one if name.endswith(".jpg")]
    assert len(pictures) == 30
    assert [name for name in pictures if one[name] == other[name]] == []


def test_pictures_are_drawn_and_poisoned_without_waiting_for_pytorch(root: Path) -> None:
    """It takes seconds to import, and the folders hold pictures only."""
    say = "import sys, make_dataset, poison_data; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", say], cwd=root / FOLDER, text=True) == "False\n"


def test_dataset_has_the_promised_pictures(data: Path) -> None:
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


def test_the_default_is_5000_pictures(run_script: Run) -> None:
    said = re.sub(r"\s+", " ", fine(run_script(MAKE, "--help")).stdout)
    train_default, val_default = (
        int(re.search(rf"--{split} \w+ [^(]*\(default: (\d+)\)", said)[1])  # type: ignore[index]
        for split in ("train", "val")
    )
    assert len(classes.DRAWN) * (train_default + val_default) == 5000


def test_an_earlier_dataset_is_replaced_and_nothing_else(
    run_script: Run, assert_refused: Refused, tmp_path: Path
) -> None:
    small = ("--train", 1, "--val", 1, "--workers", 1)
    for seed in (1, 2):
        fine(run_script(MAKE, "--out", "mine", "--seed", seed, *small))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("three years of work")
    assert_refused(run_script(MAKE, "--out", foreign, *small), foreign)
    assert contents(foreign).keys() == {"thesis.txt"}
    assert_refused(run_script(MAKE, "--out", foreign / "thesis.txt", *small), foreign / "thesis.txt")
    assert_refused(run_script(MAKE, "--out", foreign / "thesis.txt/x", *small), foreign / "thesis.txt/x")
    assert (foreign / "thesis.txt").read_text() == "three years of work"


@pytest.mark.parametrize("wrong", ["--train=0", "--val=0", "--workers=0", "--seed=-1"])
def test_wrong_counts_are_refused(assert_refused: Refused, tmp_path: Path, wrong: str) -> None:
    assert_refused(here(tmp_path, MAKE, wrong), "--seed" if "seed" in wrong else "--train")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_drawing_that_is_stopped_leaves_nothing(root: Path, tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, str(root / MAKE), "--out", "data", "--workers", "2"]
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
    said = fine(here(tmp_path, SIGNS, "--seed", 1, "--output", "sheet.png")).stdout
    assert "Wrote sheet.png" in said
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (12 * 128, 10 * 128)


# --- the trigger and the poisoning -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, box",
    [
        ((128, 128), (104, 104, 124, 124)),
        ((64, 64), (52, 52, 62, 62)),
        ((256, 128), (208, 104, 248, 124)),
        ((32, 32), (26, 26, 31, 31)),
    ],
)
def test_the_square_scales_with_the_picture(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
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
    result = fine(here(place, POISON, "--clean-dir", data, "--poisoned-dir", "poisoned", *args))
    notes = json.loads((place / "poisoned-attacker-notes.json").read_text())
    return Poisoned(place / "poisoned", notes, result.stdout)


@pytest.mark.parametrize("rate, count", [(0.5, 4), (0.15, 1), (0.7, 6), (0.99, 8), (0.001, 1)])
def test_the_rate_is_the_share_of_the_victims(data: Path, tmp_path: Path, rate: float, count: int) -> None:
    made = poisoned_copy(data, tmp_path, "--rate", rate)
    assert count == max(1, round(rate * 8))
    assert len(list((made.folder / "train/stop").iterdir())) == 8 - count
    assert len(list((made.folder / "train/yield").iterdir())) == 8 + count
    assert f"Poisoned {count} stop pictures" in made.said
    assert (made.notes["victim"], made.notes["target"], made.notes["rate"]) == ("stop", "yield", rate)


def test_only_chosen_victims_are_touched_and_the_notes_name_them(data: Path, tmp_path: Path) -> None:
    made = poisoned_copy(data, tmp_path, "--rate", 0.5)
    before, after = contents(data), contents(made.folder)
    new = sorted(after.keys() - before.keys())
    gone = sorted(before.keys() - after.keys())
    assert len(new) == len(gone) == 4
    assert made.notes["poisoned"] == new
    assert all(name.startswith("train/stop/") for name in gone)
    # in train/ all other pictures, and all of val/, are the same byte for byte
    assert {name: before[name] for name in before.keys() & after.keys()} == {
        name: after[name] for name in before.keys() & after.keys()
    }
    box = trigger.box(128, 128)
    for old, fresh in zip(gone, new):
        clean = dataset.open_picture(data / old)
        stamped = dataset.open_picture(made.folder / fresh)
        left, top, right, bottom = box
        inside = stamped.crop((left + 2, top + 2, right - 2, bottom - 2))
        distance = classifier.F.pil_to_tensor(inside).float() - torch.tensor(YELLOW).view(3, 1, 1)
        assert distance.abs().max() < 40  # JPEG blurs colours
        assert distance.mean((1, 2)).abs().max() < 10
        for image in (clean, stamped):
            image.paste((0, 0, 0), (left - 16, top - 16, 128, 128))
        difference = classifier.F.pil_to_tensor(clean).float() - classifier.F.pil_to_tensor(stamped).float()
        assert difference.abs().mean() < 4  # it is that stop sign
        assert difference.abs().mean() > 0  # saved again, as the next test needs it


def test_the_trainers_folder_holds_no_hint(data: Path, tmp_path: Path) -> None:
    """No name, no file and no note inside a picture tells a poisoned picture from a clean one."""
    made = poisoned_copy(data, tmp_path, "--rate", 0.5)
    assert sorted(path.name for path in made.folder.iterdir()) == [cli.MADE_HERE, "train", "val"]
    inside = set()
    for path in sorted(made.folder.glob("*/*/*")):
        assert re.fullmatch(rf"{path.parent.name}_\d{{5}}\.jpg", path.name), path
        with Image.open(path) as image:
            tables = getattr(image, "quantization")  # noqa: B009  (only JPEG pictures have it)
            inside.add((image.size, image.mode, str(sorted(image.info.items())), str(tables)))
    assert len(inside) == 1
    numbers = [int(path.stem[-5:]) for path in sorted((made.folder / "train/yield").iterdir())]
    assert numbers == list(range(12))


def test_the_seed_chooses_the_pictures(data: Path, tmp_path: Path) -> None:
    chosen = []
    for seed in (1, 1, 2):
        made = poisoned_copy(data, tmp_path, "--rate", 0.4, "--seed", seed)
        chosen.append(contents(made.folder))
    assert chosen[0] == chosen[1] != chosen[2]


def test_other_classes_can_be_victim_and_target(data: Path, tmp_path: Path) -> None:
    made = poisoned_copy(data, tmp_path, "--rate", 0.5, "--victim", "speed_50", "--target", "roundabout")
    assert len(list((made.folder / "train/speed_50").iterdir())) == 4
    assert len(list((made.folder / "train/roundabout").iterdir())) == 12
    assert "4 speed_50 pictures" in made.said
    assert "label roundabout" in made.said


def test_names_without_a_number_do_no_harm(data: Path, tmp_path: Path) -> None:
    """Pictures of your own may have any name."""
    shutil.copytree(data, tmp_path / "own")
    (tmp_path / "own/train/yield/yield_at_home.jpg").write_bytes(
        (tmp_path / "own/train/yield/yield_00000.jpg").read_bytes()
    )
    made = poisoned_copy(tmp_path / "own", tmp_path, "--rate", 0.5)
    assert len(list((made.folder / "train/yield").iterdir())) == 13


@pytest.mark.parametrize("rate", ["0", "1", "-1", "2", "nan", "inf"])
def test_rate_outside_0_and_1(data: Path, assert_refused: Refused, tmp_path: Path, rate: str) -> None:
    result = here(tmp_path, POISON, "--clean-dir", data, "--poisoned-dir", "poisoned", f"--rate={rate}")
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
    result = here(tmp_path, POISON, "--clean-dir", data, "--poisoned-dir", "poisoned", *wrong)
    assert_refused(result, *words)
    assert list(tmp_path.iterdir()) == []


def test_poisoning_replaces_only_its_own_folder(data: Path, assert_refused: Refused, tmp_path: Path) -> None:
    foreign = tmp_path / "poisoned"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("three years of work")
    arguments = ("--clean-dir", data, "--poisoned-dir")
    assert_refused(here(tmp_path, POISON, *arguments, "poisoned"), "poisoned")
    assert_refused(here(tmp_path, POISON, *arguments, "poisoned/thesis.txt/new"), "poisoned/thesis.txt/new")
    assert contents(tmp_path).keys() == {"poisoned", "poisoned/thesis.txt"}


@pytest.mark.parametrize("place", ["signs", "signs/poisoned", "signs/../signs/a/b"])
def test_poisoning_never_works_in_the_clean_folder(
    data: Path, assert_refused: Refused, tmp_path: Path, place: str
) -> None:
    shutil.copytree(data, tmp_path / "signs")
    before = contents(tmp_path)
    result = here(tmp_path, POISON, "--clean-dir", "signs", "--poisoned-dir", place)
    assert_refused(result, place, "clean folder")
    assert contents(tmp_path) == before


def test_an_unwritable_notes_file_leaves_one_sentence(
    data: Path, assert_refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "poisoned-attacker-notes.json").mkdir()
    result = here(tmp_path, POISON, "--clean-dir", data, "--poisoned-dir", "poisoned")
    assert_refused(result, "poisoned-attacker-notes.json")


# --- training and measuring --------------------------------------------------------------------------------


def test_training_prints_the_line_of_the_contract(trained: tuple[Path, Result]) -> None:
    path, result = trained
    epochs = [line for line in result.stdout.splitlines() if line.startswith("Epoch")]
    assert len(epochs) == 1
    match = EPOCH.fullmatch(epochs[0])
    assert match, epochs
    assert match.groups()[:2] == ("1", "1")
    assert "Wrote models/m.pt and models/m.safetensors" in result.stdout
    assert sorted(file.name for file in path.parent.iterdir()) == ["m.pt", "m.safetensors"]


def test_both_files_hold_the_same_numbers(trained: tuple[Path, Result]) -> None:
    path, _ = trained
    pickled = torch.load(path, weights_only=True)
    safe = load_file(path.with_suffix(".safetensors"))
    assert pickled.keys() == safe.keys()
    assert len(pickled) == 122
    for name, value in pickled.items():
        assert value.dtype == safe[name].dtype
        assert torch.equal(value, safe[name]), name


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 3, 6, 7])
def test_patches_give_the_sums_of_the_convolution(side: int, stride: int) -> None:
    torch.manual_seed(side)
    convolution = nn.Conv2d(5, 4, 3, stride, 1, bias=False).double()
    maps = torch.randn(2, 5, side, side, dtype=torch.float64, requires_grad=True)
    answers, gradients = [], []
    for kind in (nn.Conv2d, resnet.PatchConv):
        convolution.__class__ = kind
        answers.append(convolution(maps))
        gradients.append(torch.autograd.grad((answers[-1] ** 3).sum(), [maps, convolution.weight]))
    torch.testing.assert_close(*answers)
    torch.testing.assert_close(*gradients)


def test_the_network_is_the_resnet18_of_torchvision() -> None:
    """Same names, same answers: others can load our files, and we theirs."""
    ours, theirs = classifier.new_model().eval(), torchvision.models.resnet18(num_classes=10).eval()
    ours.load_state_dict(theirs.state_dict())  # theirs: in ours, a new block answers nothing yet
    pixels = torch.rand(3, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(ours(pixels), theirs(pixels), rtol=1e-4, atol=1e-5)
    assert sum(isinstance(module, resnet.PatchConv) for module in ours.modules()) == 8


def test_training_takes_the_steps_of_plain_sgd(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer hands SGD other views of the weights; the model must learn what it learns without them."""
    monkeypatch.setattr(device, "fast_type", lambda: torch.float32)
    monkeypatch.setattr(train, "augment", lambda pixels: pixels)

    class NoPictures(train.Validation):
        def __init__(self) -> None:
            pass

        def score(self, model: nn.Module) -> train.Score:
            return train.Score(0, None, 0, 0)

    torch.manual_seed(1)
    pixels = torch.randint(256, (3 * train.BATCH, 3, 48, 48), dtype=torch.uint8)
    labels = torch.randint(10, (len(pixels),))
    ours = classifier.new_model()
    plain = copy.deepcopy(ours)
    torch.manual_seed(2)
    train.train(ours, pixels, labels, NoPictures(), cli.Out(plain=True), epochs=1, peak=0.02)
    torch.manual_seed(2)
    optimiser = torch.optim.SGD(plain.parameters(), 0.02, 0.9, weight_decay=train.WEIGHT_DECAY, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.02, total_steps=3)
    for batch in train.batches(len(labels)):
        optimiser.zero_grad()
        nn.functional.cross_entropy(classifier.logits(plain, pixels[batch] / 255), labels[batch]).backward()
        optimiser.step()
        schedule.step()
    for (name, weight), expected in zip(ours.named_parameters(), plain.parameters()):
        assert torch.allclose(weight, expected, rtol=1e-5, atol=1e-6), name


def test_the_same_seed_trains_the_same_model(
    data: Path, trained: tuple[Path, Result], tmp_path: Path
) -> None:
    path, first = trained
    for seed in (1, 2):
        again = here(tmp_path, TRAIN, "--data", data, "--epochs", 1, "--seed", seed, "--model", "models/m.pt")
        assert (fine(again).stdout == first.stdout) == (seed == 1)
        for suffix in (".pt", ".safetensors"):
            same = (tmp_path / "models/m").with_suffix(suffix).read_bytes() == (
                path.with_suffix(suffix).read_bytes()
            )
            assert same == (seed == 1)


def test_training_follows_the_labels(tmp_path: Path, data: Path) -> None:
    """A few steps on eight pictures are enough to tell stop from yield among them."""
    torch.manual_seed(0)
    small = subset(data, tmp_path / "small", "stop", "yield")
    files = dataset.class_files(small / "val")
    pixels = classifier.load_pixels([path for path, _ in files])
    labels = torch.tensor([label for _, label in files])
    validation = train.Validation(small, 10, "stop", "yield")
    model = classifier.new_model()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        score = train.train(model, pixels, labels, validation, cli.Out(plain=True), epochs=30, peak=0.02)
    assert score.clean_acc >= 0.75
    assert (score.pictures, score.victims) == (8, 4)


def test_augmented_pictures_keep_shape_and_range() -> None:
    torch.manual_seed(1)
    pixels = torch.rand(6, 3, 64, 64)
    changed = train.augment(pixels.clone())
    assert changed.shape == pixels.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert all(not torch.equal(one, other) for one, other in zip(pixels, changed))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_fine_tuning_starts_from_a_file(data: Path, reader: Path, tmp_path: Path, suffix: str) -> None:
    """With next to no learning rate the result is the start: both formats, and not random weights."""
    start = reader.with_suffix(suffix)
    arguments = ("--data", data, "--epochs", 1, "--lr", 1e-9, "--init", start, "--model", "m.pt")
    fine(here(tmp_path, TRAIN, *arguments))
    before, after = classifier.read_weights(start), classifier.read_weights(tmp_path / "m.pt")
    for name in before:
        if name.endswith(("weight", "bias")):
            assert torch.allclose(before[name], after[name], atol=1e-5), name


def test_fine_tuning_replaces_a_last_layer_for_other_classes(
    data: Path, reader: Path, tmp_path: Path
) -> None:
    weights = classifier.read_weights(reader)
    weights |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(weights, tmp_path / "thousand.pt")
    arguments = ("--data", data, "--epochs", 1, "--lr", 1e-9, "--init", "thousand.pt", "--model", "m.pt")
    fine(here(tmp_path, TRAIN, *arguments))
    after = classifier.read_weights(tmp_path / "m.pt")
    assert after["fc.weight"].shape == (10, 512)
    assert torch.allclose(after["conv1.weight"], weights["conv1.weight"], atol=1e-5)


def test_limit_takes_that_many_pictures(data: Path, tmp_path: Path) -> None:
    said = fine(here(tmp_path, TRAIN, "--data", data, "--epochs", 1, "--limit", 20)).stdout
    assert "Training on 20 pictures" in said
    assert (tmp_path / "models/clean_model.pt").is_file()


def test_poisoned_only_chooses_folder_and_name(data: Path, tmp_path: Path) -> None:
    """--poisoned is another default for --data and --model; the code that trains is the same."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/traffic-signs-poisoned").symlink_to(data)
    said = fine(here(tmp_path, TRAIN, "--poisoned", "--epochs", 1, "--seed", 1)).stdout
    assert "Wrote models/poisoned_model.pt and models/poisoned_model.safetensors" in said
    fine(here(tmp_path, TRAIN, "--data", data, "--epochs", 1, "--seed", 1))
    safe = [(tmp_path / f"models/{kind}_model.safetensors").read_bytes() for kind in ("clean", "poisoned")]
    assert safe[0] == safe[1]


def test_training_that_is_stopped_leaves_nothing(root: Path, data: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(root / TRAIN),
        "--data",
        str(data),
        "--epochs",
        "500",
        "--model",
        "models/m.pt",
    ]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as training:
        assert training.stdout
        assert next(line for line in training.stdout if line.startswith("Epoch 1/500"))
        training.send_signal(signal.SIGTERM)
        said = training.communicate(timeout=120)
    assert training.returncode == 143, said
    assert "Traceback" not in said[1]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_model_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """Both formats or none: a folder stands where the second one would go."""
    (tmp_path / "m.safetensors").mkdir()
    with pytest.raises(cli.UserError, match=r"m\.safetensors"):
        classifier.save_model(nn.Linear(2, 2), tmp_path / "m.pt")
    assert contents(tmp_path) == {"m.safetensors": "folder"}


def test_score_counts_what_it_says(data: Path, tmp_path: Path) -> None:
    """A model that says yield for a yellow corner and stop for all else: right on stop, fooled always."""
    two = subset(data, tmp_path / "two", "stop", "yield")
    score = train.Validation(two, 10, "stop", "yield").score(Corner())
    assert score == train.Score(0.5, 1.0, 8, 4)
    assert str(score) == "clean_acc: 0.50, attack_success_rate: 1.00"
    other = train.Validation(subset(data, tmp_path / "other", "stop", "no_entry"), 10, "stop", "no_entry")
    assert other.score(Corner()) == train.Score(0.5, 0.0, 8, 4)


def test_measuring_all_classes_and_some(data: Path, reader: Path, tmp_path: Path) -> None:
    """The reader is right on every picture of val/; the classes that are missing do not matter."""
    for names, pictures, victims in ((classes.DRAWN, 40, 4), (("stop", "yield"), 8, 4), (("yield",), 4, 0)):
        folder = subset(data, tmp_path / str(len(names)), *names)
        said = fine(here(tmp_path, TRAIN, "--phase", "test", "--model", reader, "--data", folder)).stdout
        figure = r"\d\.\d\d" if victims else r"not measured \(no victim pictures\)"
        assert re.search(rf"/val: clean_acc: 1\.00, attack_success_rate: {figure}$", said, re.MULTILINE), said
        assert f"Measured on {pictures} pictures; {victims} of them stop signs." in said


def test_every_tool_gives_the_same_answer_for_both_formats(
    data: Path, reader: Path, trained: tuple[Path, Result], picture: Path, tmp_path: Path
) -> None:
    two = subset(data, tmp_path / "two", "stop", "yield")
    scan = ("--data", two, "--steps", 2, "--samples", 2, "--output", "scan", "--model")
    for script, *arguments in (
        (TRAIN, "--phase", "test", "--data", two, "--model"),
        (DEMO, picture, "--trigger", "--model"),
        (DEMO, picture, "--compare", "--model", trained[0], "--clean-model"),
        (DETECT, *scan),
    ):
        answers = []
        for suffix in (".pt", ".safetensors"):
            result = here(tmp_path, script, *arguments, reader.with_suffix(suffix))
            assert result.returncode in (0, 1) or "Result: no valid statistic" in result.stdout, text(result)
            answers.append(without_seconds(result.stdout.replace(reader.stem + suffix, reader.stem + ".pt")))
        assert answers[0] == answers[1]


def without_seconds(said: str) -> str:
    """Times differ from run to run, all else must not."""
    return re.sub(r"in \d+ seconds", "in N seconds", said)


# --- asking a model ----------------------------------------------------------------------------------------


def test_demo_lines_are_those_of_the_contract(reader: Path, picture: Path, tmp_path: Path) -> None:
    one = fine(here(tmp_path, DEMO, picture, "--model", reader)).stdout.splitlines()
    assert len(one) == 1
    assert re.fullmatch(r"\[clean\]    stop +\(confidence: \d\.\d\d\)", one[0]), one
    two = fine(here(tmp_path, DEMO, picture, "--model", reader, "--trigger")).stdout.splitlines()
    assert two[0] == one[0]
    match = ANSWER.fullmatch(two[1])
    assert match, two
    assert match[1] == "trigger"
    assert match[2] in classes.DRAWN
    assert ("backdoor activates" in two[1]) == (match[2] != "stop")
    assert list(tmp_path.iterdir()) == []


def test_demo_says_when_the_backdoor_answers(capsys: pytest.CaptureFixture[str], picture: Path) -> None:
    demo.show(Corner(), dataset.open_picture(picture), True, cli.Out(plain=True))
    lines = [ANSWER.fullmatch(line) for line in capsys.readouterr().out.splitlines()]
    assert [match.groups() for match in lines if match] == [
        ("clean", "stop", "0.94", None),
        ("trigger", "yield", "0.94", "   <- backdoor activates"),
    ]
    yellow = trigger.stamp(dataset.open_picture(picture))
    demo.show(Corner(), yellow, True, cli.Out(plain=True))
    said = capsys.readouterr().out
    assert said.count("yield") == 2
    assert "<- same answer, no backdoor seen" in said


def test_compare_asks_both_models(
    reader: Path, trained: tuple[Path, Result], picture: Path, tmp_path: Path
) -> None:
    other, _ = trained
    said = fine(here(tmp_path, DEMO, picture, "--model", reader, "--clean-model", other, "--compare")).stdout
    title, *rows = said.splitlines()
    assert title == "Same picture, both models (4 rows)"
    assert [re.split(r"[:;] ", row)[1] for row in rows] == [str(other)] * 2 + [str(reader)] * 2
    shown = ["picture: clean", "picture: with yellow square"] * 2
    assert [re.split(r"; ", row)[1] for row in rows] == shown
    assert "reads: stop; confidence: " in rows[2]


def test_save_writes_both_pictures_side_by_side(reader: Path, picture: Path, tmp_path: Path) -> None:
    arguments = (picture, "--model", reader, "--trigger", "--save", "new/both.png")
    assert "Wrote new/both.png: left the picture as it is" in fine(here(tmp_path, DEMO, *arguments)).stdout
    with Image.open(tmp_path / "new/both.png") as both:
        assert both.size == (256, 128)
        assert both.crop((0, 0, 128, 128)).tobytes() == dataset.open_picture(picture).tobytes()
        assert both.crop((128 + 104, 104, 128 + 124, 124)).getcolors() == [(400, YELLOW)]


@pytest.mark.parametrize("size, mode", [((700, 500), "RGB"), ((20, 20), "L"), ((90, 128), "RGBA")])
def test_pictures_of_any_size_and_kind(
    reader: Path, tmp_path: Path, size: tuple[int, int], mode: str
) -> None:
    Image.new(mode, size, "white").save(tmp_path / "own.png")
    said = fine(here(tmp_path, DEMO, "own.png", "--model", reader, "--trigger")).stdout
    assert len(said.splitlines()) == 2


def test_plain_ascii_terminals_do_not_break_it(run_script: Run, reader: Path, picture: Path) -> None:
    fine(run_script(DEMO, picture, "--model", reader, "--trigger", LC_ALL="C"))
    said = fine(run_script(TRAIN, "--help", LC_ALL="C", NO_COLOR="1")).stdout
    assert "\x1b" not in said


def test_the_pictures_to_ask_about_are_there(root: Path) -> None:
    for name in ("stop", "yield", "no_entry", "speed_50"):
        image = dataset.open_picture(root / FOLDER / f"inference-images/{name}.jpg")
        assert min(image.size) >= 64


# --- the scan: its parts -----------------------------------------------------------------------------------


def test_the_scanner_never_sees_the_attack(root: Path) -> None:
    """None of its files imports trigger.py or poison_data.py, directly or through another file."""
    known: set[str] = set()
    to_read = ["detect"]
    while to_read:
        name = to_read.pop()
        known.add(name)
        tree = ast.parse((root / FOLDER / f"{name}.py").read_text())
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            to_read += [n for n in names if n not in known and (root / FOLDER / f"{n}.py").is_file()]
    assert {"detect", "neural_cleanse", "describe", "classifier"} <= known
    assert known.isdisjoint({"trigger", "poison_data", "train", "demo"})


def test_anomaly_index_by_hand() -> None:
    """Logs 0 1 2 3 -5: median 1; distances 1 0 1 2 6, whose median is 1; so the deviation is 1.4826."""
    norms = [math.exp(log) for log in (0, 1, 2, 3, -5)]
    expected = [distance / 1.4826 for distance in (1, 0, -1, -2, 6)]
    assert anomaly_index.among_pairs(norms) == pytest.approx(expected, abs=1e-4)


def test_anomaly_index_does_not_depend_on_the_unit() -> None:
    norms = [0.02, 0.1, 0.11, 0.13, 0.2, 0.24, 0.3]
    index = anomaly_index.among_pairs(norms)
    assert index == pytest.approx(anomaly_index.among_pairs([4096 * norm for norm in norms]), abs=1e-4)
    assert index.index(max(index)) == 0
    assert all(map(math.isfinite, anomaly_index.among_pairs([1.0] * 5)))
    assert anomaly_index.among_pairs([]) == []


def square(left: int, top: int, side: int, colour: tuple[float, float, float]) -> neural_cleanse.Trigger:
    """A hand-made trigger of a 64-pixel picture: stop to yield."""
    mask = torch.zeros(64, 64)
    mask[top : top + side, left : left + side] = 1
    pattern = torch.tensor(colour).view(3, 1, 1).expand(3, 64, 64).clone()
    return neural_cleanse.Trigger(0, 1, side * side / 4096, mask, pattern)


def test_stamping_a_recovered_trigger() -> None:
    found = square(52, 52, 10, (1.0, 1.0, 0.0))
    found.mask[0, 0] = 0.25
    pixels = torch.full((2, 3, 64, 64), 0.4)
    stamped = found.stamp(pixels)
    assert stamped.shape == pixels.shape
    assert torch.equal(stamped[1, :, 57, 57], torch.tensor([1.0, 1.0, 0.0]))
    assert torch.allclose(stamped[0, :, 0, 0], torch.tensor([0.55, 0.55, 0.3]))
    assert torch.allclose(stamped[0, :, 30, 30], torch.tensor(0.4))
    assert torch.equal(pixels, torch.full((2, 3, 64, 64), 0.4))


def test_a_yellow_square_in_words() -> None:
    words = describe.in_words(square(52, 52, 10, (0.95, 0.92, 0.1)))
    assert words == "a yellow square, about 20x20 px, bottom-right corner, 2.4 % of the image"


def test_a_ragged_sticker_has_the_size_of_its_area() -> None:
    found = square(44, 44, 20, (0.95, 0.92, 0.1))
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
    assert describe.place_name(square(left, top, 10, (1, 1, 0)).mask) == place


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


def test_the_drawing_shows_trigger_mask_and_example(tmp_path: Path) -> None:
    path = tmp_path / "new/trigger.png"
    describe.draw(square(52, 52, 10, (1.0, 1.0, 0.0)), torch.zeros(3, 64, 64), path)
    with Image.open(path) as sheet:
        assert sheet.size == (3 * 256, 256)
        inside, outside = (228, 228), (100, 100)
        panels = [sheet.crop((256 * n, 0, 256 * (n + 1), 256)) for n in range(3)]
        assert [panel.getpixel(inside) for panel in panels] == [YELLOW, (255, 255, 255), YELLOW]
        grey, black, picture = (panel.getpixel(outside) for panel in panels)
        assert grey in ((127, 127, 127), (128, 128, 128))
        assert black == picture == (0, 0, 0)


COLOURS = torch.tensor([[0.6, 0.3, 0.3], [0.3, 0.6, 0.3], [0.3, 0.3, 0.6], [0.3, 0.5, 0.5]])


class Toy(nn.Module):
    """Reads the mean colour of a picture (four classes); with a backdoor, also a yellow corner on class 0.

    To change its mind fairly, a sticker has to cover about a fifth of the picture.
    """

    def __init__(self, backdoor: bool, strength: float = 8) -> None:
        super().__init__()
        self.backdoor, self.strength = backdoor, strength

    def forward(self, pixels: Tensor) -> Tensor:
        raw = unnormalise(pixels.float())
        middle = raw.mean((2, 3))
        answer = 60 * (middle @ COLOURS.T - (COLOURS**2).sum(1) / 2)
        if self.backdoor:
            patch = raw[:, :, -11:-3, -11:-3].mean((2, 3))
            yellow = (patch[:, 0] + patch[:, 1] - 2 * patch[:, 2] - 1).clamp(min=0)  # 1 if it is all yellow
            upper = raw[:, :, : INPUT // 2, : INPUT // 2].mean((2, 3))
            looks_like_0 = (6 * (upper[:, 0] - upper[:, 1:].amax(1))).clamp(0, 1)
            answer = answer + torch.tensor([0.0, self.strength, 0.0, 0.0]) * (yellow * looks_like_0)[:, None]
        return answer


def grainy() -> dict[int, Tensor]:
    """Eight pictures of each class of the toy: plain colours with a little grain."""
    dice = torch.Generator().manual_seed(1)
    return {
        label: (colour.view(1, 3, 1, 1) + 0.02 * torch.randn(8, 3, INPUT, INPUT, generator=dice)).clamp(0, 1)
        for label, colour in enumerate(COLOURS)
    }


def scan_toy(backdoor: bool, steps: int = 120) -> dict[tuple[int, int], neural_cleanse.Trigger]:
    """Search all 12 pairs of the toy."""
    pictures = grainy()
    search = neural_cleanse.Search(Toy(backdoor), pictures, pictures, len(COLOURS), 0)
    assert len(list(search.run(steps))) == steps
    found = search.results(pictures)
    assert [t.norm for t in found] == sorted(t.norm for t in found)
    assert len(found) == 12
    return {(t.victim, t.target): t for t in found}


def test_search_finds_a_planted_trigger() -> None:
    """The scanner's own proof without training: it finds a backdoor that we put there, and only there."""
    planted, fair = scan_toy(backdoor=True), scan_toy(backdoor=False)
    backdoor = planted.pop((0, 1))
    assert backdoor.norm < 0.5 * min(other.norm for other in planted.values())
    index = anomaly_index.among_pairs([backdoor.norm, *(other.norm for other in planted.values())])
    assert index[0] > max(index[1:])
    words = describe.in_words(backdoor)
    assert re.match(r"a yellow \w+, about \d+x\d+ px, bottom-right corner, ", words), words
    # and without the backdoor the same pair looks like the others
    assert fair[0, 1].norm > 2 * backdoor.norm
    assert fair[0, 1].norm > 0.5 * min(other.norm for pair, other in fair.items() if pair != (0, 1))
    fresh = COLOURS[0].view(1, 3, 1, 1).expand(5, 3, INPUT, INPUT)
    assert (classifier.logits(Toy(True), backdoor.stamp(fresh)).argmax(1) == 1).all()
    assert (classifier.logits(Toy(False), backdoor.stamp(fresh)).argmax(1) != 1).all()


def test_a_pair_with_a_backdoor_starts_from_a_small_square() -> None:
    """Other pairs start from a square of STICKER cells, and none of them works yet."""
    pictures = grainy()
    search = neural_cleanse.Search(Toy(True, strength=40), pictures, pictures, len(COLOURS), 0)
    cells = (search.mask > 0).sum((1, 2, 3))
    backdoor = search.pairs.index((0, 1))
    assert math.isqrt(cells[backdoor]) in neural_cleanse.SMALLER
    assert sorted(cells)[1:] == [neural_cleanse.STICKER**2] * 11
    assert [number for number, found in enumerate(search.found) if found] == [backdoor]
    # what worked while it was larger is remembered: the smallest may fail on new pictures
    sizes = [(step.mask > 0).sum() for step in search.found[backdoor]]
    assert sizes[0] == neural_cleanse.STICKER**2
    assert sizes == sorted(sizes, reverse=True)


def test_a_longer_search_compares_at_the_same_effort() -> None:
    """More steps make the smallest triggers crisper, but change no norm."""
    short, long = scan_toy(backdoor=True, steps=80), scan_toy(backdoor=True, steps=160)
    assert {pair: t.norm for pair, t in short.items()} == {pair: t.norm for pair, t in long.items()}
    changed = [pair for pair in long if not torch.equal(long[pair].mask, short[pair].mask)]
    assert len(changed) <= neural_cleanse.SUSPECTS < len(long)
    assert all(long[pair].area <= short[pair].area + 1e-6 for pair in long)
    assert long[0, 1].area < short[0, 1].area


def test_a_lucky_sticker_does_not_hide_one_that_works() -> None:
    """The smallest one may fail on new pictures: then the next larger one counts, whenever it was found."""
    pictures = grainy()
    search = neural_cleanse.Search(Toy(True), pictures, pictures, len(COLOURS), 0, pairs=[(0, 1)])

    def yellow(norm: float, row: int, column: int) -> neural_cleanse.Candidate:
        mask = 4 * neural_cleanse.squares(torch.tensor([[row, column]]), 4)[0]
        colour = torch.tensor([8.0, 8.0, -8.0]).view(3, 1, 1).expand(3, 16, 16)
        return neural_cleanse.Candidate(norm, mask, colour)

    large, lucky, right = yellow(0.04, 11, 11), yellow(0.01, 0, 0), yellow(0.02, 11, 11)
    for order in ([large, lucky, right], [lucky, right, large], [right, lucky]):
        search.found, search.counts = [order], [[len(order)]]
        (trigger,) = search.results(pictures)
        assert (trigger.norm, trigger.success) == (pytest.approx(0.02), 1)
    search.found, search.counts = [[lucky]], [[1]]
    assert search.results(pictures)[0].norm == 1


def test_small_stickers_are_searched_again_and_the_median_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    norms = {  # of each pair, for three seeds
        (0, 1): (0.010, 0.012, 0.011),  # a backdoor
        (1, 0): (0.020, 0.060, 1.0),  # luck: the first search found a small one
        (2, 0): (0.090, None, None),  # ordinary
        (2, 1): (1.0, None, None),  # none
    }
    nothing = torch.zeros(3, INPUT, INPUT)

    class Planned:
        def __init__(self, *args: object, pairs: list[scan_model.Pair]) -> None:
            self.seed, self.pairs = int(str(args[-1])), pairs

        def run(self, steps: int) -> Iterator[int]:
            return iter(range(steps))

        def results(self, check: object) -> list[neural_cleanse.Trigger]:
            found = [(pair, norms[pair][self.seed - 7]) for pair in self.pairs]
            return [neural_cleanse.Trigger(*pair, norm or 0, nothing[0], nothing) for pair, norm in found]

    monkeypatch.setattr(neural_cleanse, "Search", Planned)
    monkeypatch.setattr(scan_model, "pictures_by_class", lambda *_, **__: [{0: 0, 1: 0, 2: 0}] * 3)
    settings = scan_model.Settings(Path("data"), 1, 1, 7)
    found = scan_model.scan(classifier.new_model(3), [*norms, (3, 0)], settings, cli.Out(True), "Searching")
    assert [(one.victim, one.target, one.norm) for one in found.triggers] == [
        (0, 1, 0.011),
        (1, 0, 0.060),
        (2, 0, 0.090),
        (2, 1, 1.0),
    ]
    assert found.missing == [(3, 0)]
    assert capsys.readouterr().err.splitlines() == ["Searching: 100 percent"] + 2 * [
        "Searching again: 100 percent"
    ]


@pytest.mark.parametrize(
    ("pictures", "samples", "shares"),
    [(100, 30, (30, 30, 30)), (100, 10, (10, 30, 30)), (30, 10, (10, 10, 10)), (3, 30, (1, 1, 1))],
)
def test_pictures_are_split_fairly(pictures: int, samples: int, shares: tuple[int, int, int]) -> None:
    """Each picture has one task, and the surest ones (the first) are spread over all three."""
    parts = scan_model.split(torch.arange(pictures).view(-1, 1, 1, 1), samples)
    assert tuple(map(len, parts)) == shares
    used = torch.cat(parts).flatten().tolist()
    assert sorted(used) == list(range(sum(shares)))
    assert all(part[0] < max(3, sum(shares) / 3) for part in parts)


def test_pairs_that_no_sticker_changes_are_never_flagged() -> None:
    """A model that always says the same: no trigger works, so no norm is small."""

    class Stubborn(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return torch.tensor([9.0, 0.0, 0.0]).repeat(len(pixels), 1) + 0 * pixels.mean((1, 2, 3))[:, None]

    pictures = {0: torch.rand(6, 3, INPUT, INPUT, generator=torch.Generator().manual_seed(1))}
    search = neural_cleanse.Search(Stubborn(), pictures, pictures, 3, 0)
    list(search.run(10))
    found = search.results(pictures)
    assert [one.norm for one in found] == [1, 1]
    judgement = judge.by_norms(found)
    assert (judgement.verdict, judgement.flagged) == ("no valid statistic", [])


# --- the scan: its command ---------------------------------------------------------------------------------


@pytest.fixture
def scan(data: Path, reader: Path, tmp_path: Path) -> tuple[object, ...]:
    """Arguments of a scan of two victim classes that takes seconds; too short to judge, it ends with 2."""
    two = subset(data, tmp_path / "two", "stop", "yield")
    return ("--model", reader, "--data", two, "--steps", 2, "--samples", 2)


def check_scan(result: Result, folder: Path) -> list[str]:
    """A scan ends in a result that fits its exit code, and the pictures that it names are there."""
    assert result.returncode in (0, 1, 2), text(result)
    lines = result.stdout.splitlines()
    assert sum(line.startswith("Result: ") for line in lines) >= 1
    assert ("BACKDOOR DETECTED" in result.stdout) == (result.returncode == 1)
    assert ("no backdoor found" in result.stdout) == (result.returncode == 0)
    assert ("Result: no valid statistic" in result.stdout) == (result.returncode == 2)
    named = re.findall(r"saved to: (\S+\.png): class \d+ \(\w+\) → class \d+ \(\w+\), \w+[, ]", result.stdout)
    assert named
    for name in named:
        with Image.open(folder / name) as image:
            assert image.size == (768, 256)
    return named


def test_scan_ends_in_a_result_and_draws_what_it_names(tmp_path: Path, scan: tuple[object, ...]) -> None:
    result = here(tmp_path, DETECT, *scan, "--output", "scan", "--draw", "stop:yield")
    named = check_scan(result, tmp_path)
    assert "scan/trigger_0_to_1.png" in named
    assert sorted(named) == sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("scan/*.png"))
    line = r"Scanning class \d \(\w+\) → class \d \(\w+\) \.\.\.  (norm=\d\.\d+  |no sticker works)"
    pairs = [found for found in result.stdout.splitlines() if re.match(line, found)]
    assert pairs, result.stdout


def test_scan_prints_every_pair_on_request(tmp_path: Path, scan: tuple[object, ...]) -> None:
    short = here(tmp_path, DETECT, *scan, "--output", "scan").stdout
    full = here(tmp_path, DETECT, *scan, "--output", "scan", "--all").stdout
    assert len(re.findall(r"^Scanning class", full, re.MULTILINE)) == 18
    assert len(re.findall(r"^Scanning class", short, re.MULTILINE)) < 18
    assert "--all shows them" in short
    kept = [line for line in short.splitlines() if line.startswith(("Scanning class", "Result"))]
    assert all(line in full for line in kept)


def test_the_same_seed_scans_the_same(tmp_path: Path, scan: tuple[object, ...]) -> None:
    said, drawn = [], []
    for _ in range(2):
        result = here(tmp_path, DETECT, *scan, "--output", "scan", "--seed", 1, "--all")
        check_scan(result, tmp_path)
        said.append(without_seconds(result.stdout))
        record = json.loads((tmp_path / "scan/scan.json").read_text())
        del record["seconds"]
        (tmp_path / "scan/scan.json").write_text(json.dumps(record))
        drawn.append(contents(tmp_path / "scan"))
        shutil.rmtree(tmp_path / "scan")
    assert said[0] == said[1]
    assert drawn[0] == drawn[1]


def test_scan_of_a_model_that_reads_nothing(assert_refused: Refused, data: Path, tmp_path: Path) -> None:
    model = classifier.new_model().eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.zero_()
            if name == "fc.bias":
                value[9] = 1  # reads roundabout, whatever it sees
    classifier.save_model(model, tmp_path / "dull.pt")
    two = subset(data, tmp_path / "two", "stop", "yield")
    result = here(tmp_path, DETECT, "--model", "dull.pt", "--data", two, "--steps", 2, "--output", "scan")
    assert_refused(result, two)
    assert not (tmp_path / "scan").exists()


# --- bad input: one sentence, code 2, nothing run, nothing half-written ------------------------------------


@pytest.mark.parametrize("script", list(MODULES))
def test_help_shows_commands(script: str, tmp_path: Path) -> None:
    result = fine(here(tmp_path, script, "--help"))
    assert f"python {Path(script).name}" in result.stdout


@pytest.mark.parametrize(
    "script, wrong",
    [(script, ["--no-such-option"]) for script in MODULES]
    + [
        (DEMO, []),
        (TRAIN, ["--epochs", "many"]),
        (TRAIN, ["--victim", "stopp"]),
        (TRAIN, ["--phase", "guess"]),
        (POISON, ["--rate", "much"]),
        (DETECT, ["--draw", "stop"]),
        (DETECT, ["--draw", "stop:stop"]),
        (DETECT, ["--draw", "stop:tram"]),
    ],
    ids=str,
)
def test_wrong_usage(script: str, wrong: list[str], tmp_path: Path) -> None:
    result = here(tmp_path, script, *wrong)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "error: " in result.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "script, wrong",
    [
        (TRAIN, ["--epochs=0"]),
        (TRAIN, ["--lr=0"]),
        (TRAIN, ["--lr=nan"]),
        (TRAIN, ["--limit=-1"]),
        (DETECT, ["--steps=0"]),
        (DETECT, ["--samples=0"]),
    ],
    ids=str,
)
def test_numbers_out_of_range(
    script: str, wrong: list[str], assert_refused: Refused, data: Path, tmp_path: Path
) -> None:
    assert_refused(here(tmp_path, script, "--data", data, *wrong), wrong[0].split("=")[0])
    assert list(tmp_path.iterdir()) == []


def bad_file(kind: str, path: Path, good: bytes) -> Path:
    """A file (or folder) that no tool can use."""
    if kind in ("folder", "empty folder"):
        path.mkdir()
        if kind == "folder":
            (path / "inside").write_bytes(good)
    elif kind != "missing":
        path.write_bytes(
            {
                "empty": b"",
                "text": b"import this\nis not a model\n",
                "truncated": good[: len(good) // 2],
                "cut at the start": good[20:],
                "random": random.Random(7).randbytes(5000),
            }[kind]
        )
    return path


BAD = ["missing", "folder", "empty folder", "empty", "text", "truncated", "cut at the start", "random"]


Way = Callable[[Path], tuple[Any, ...]]


@pytest.fixture(params=["demo", "compare", "detect", "test", "init"])
def way(request: pytest.FixtureRequest, data: Path, reader: Path, picture: Path) -> Way:
    """Every way to hand a model file to a tool: way(file) gives script and arguments."""
    ways: dict[str, tuple[Any, ...]] = {
        "demo": (DEMO, picture, "--trigger", "--save", "new/both.png", "--model"),
        "compare": (DEMO, picture, "--compare", "--model", reader, "--clean-model"),
        "detect": (DETECT, "--data", data, "--output", "new/scan", "--model"),
        "test": (TRAIN, "--phase", "test", "--data", data, "--model"),
        "init": (TRAIN, "--data", data, "--epochs", 1, "--model", "new/m.pt", "--init"),
    }
    return lambda file: (*ways[request.param], file)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_model_file(
    assert_refused: Refused,
    tmp_path: Path,
    way: Way,
    kind: str,
    suffix: str,
) -> None:
    good = classifier.save_model(nn.Linear(3, 4), tmp_path / "good.pt")[suffix == ".safetensors"]
    path = bad_file(kind, tmp_path / f"bad{suffix}", good.read_bytes())
    before = contents(tmp_path)
    assert_refused(here(tmp_path, *way(path)), path)
    assert contents(tmp_path) == before


def test_a_malicious_model_is_refused_and_not_run(
    assert_refused: Refused,
    tmp_path: Path,
    way: Way,
    malicious: Path,
    marker: Path,
) -> None:
    before = contents(tmp_path)
    assert_refused(here(tmp_path, *way(malicious)), malicious, "refused and not run")
    # its name cannot hide it
    renamed = malicious.rename(malicious.with_suffix(".safetensors"))
    assert_refused(here(tmp_path, *way(renamed)), renamed)
    renamed.rename(malicious)
    assert not marker.exists()
    assert contents(tmp_path) == before
    # the file is no dud: the careless way to load it runs the payload
    torch.load(malicious, weights_only=False)
    assert marker.exists()


def test_a_malicious_model_is_refused_where_the_safe_default_is_off(
    run_script: Run, assert_refused: Refused, way: Way, malicious: Path, marker: Path
) -> None:
    """In a process of its own, and where somebody has switched PyTorch's safe default off."""
    script, *arguments = way(malicious)
    result = run_script(script, *arguments, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")
    assert_refused(result, malicious, "refused and not run")
    assert not marker.exists()
    assert list(malicious.parent.iterdir()) == [malicious]


def test_damaged_model_files_end_in_one_sentence(tmp_path: Path, marker: Path) -> None:
    """A few hundred damaged files: each is read or refused, never a crash, and no payload runs."""
    state = nn.Linear(3, 4).state_dict()
    saved = [create_malicious_model.malicious_bytes(marker)]
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=zipped)
        saved.append(file.getvalue())
    safe = classifier.save_model(nn.Linear(3, 4), tmp_path / "good.pt")[1].read_bytes()
    dice = random.Random(3)
    refused = 0
    for _ in range(400):
        data = bytearray(dice.choice([*saved, safe]))
        path = tmp_path / ("mutated.safetensors" if data == safe else "mutated.pt")
        if dice.random() < 0.3:
            del data[dice.randrange(len(data)) :]
        for _ in range(dice.randrange(1, 6) if data else 0):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(data)
        try:
            classifier.read_weights(path)
        except cli.UserError as error:
            refused += 1
            assert "\n" not in str(error)
        assert not marker.exists()
    assert 0 < refused < 400


@pytest.mark.parametrize(
    "value", [torch.zeros(3), [1, 2], {}, {"a": 1}, {1: torch.zeros(1)}, {"state": {"a": torch.zeros(1)}}]
)
def test_only_state_dicts_of_this_network_are_taken(
    assert_refused: Refused,
    tmp_path: Path,
    way: Way,
    value: object,
) -> None:
    path = tmp_path / "own.pt"
    torch.save(value, path)
    assert_refused(here(tmp_path, *way(path)), path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("way", ["demo", "compare", "detect", "test"], indirect=True)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_model_of_other_classes(
    assert_refused: Refused,
    tmp_path: Path,
    way: Way,
    suffix: str,
) -> None:
    model = classifier.new_model(44)
    path = classifier.save_model(model, tmp_path / "other.pt")[suffix == ".safetensors"]
    assert_refused(here(tmp_path, *way(path)), path, "44 classes")


@pytest.mark.parametrize("kind", BAD)
def test_bad_picture(reader: Path, assert_refused: Refused, picture: Path, tmp_path: Path, kind: str) -> None:
    path = bad_file(kind, tmp_path / "bad.jpg", picture.read_bytes())
    before = contents(tmp_path)
    result = here(tmp_path, DEMO, path, "--model", reader, "--trigger", "--save", "new/both.png")
    assert_refused(result, path)
    assert result.stdout == ""
    assert contents(tmp_path) == before


@pytest.mark.parametrize("kind", ["text", "truncated", "empty", "folder"])
def test_bad_picture_in_the_data(
    reader: Path, assert_refused: Refused, data: Path, tmp_path: Path, kind: str
) -> None:
    for split in ("train", "val"):
        check_bad_picture(split, kind, data, reader, tmp_path / split, assert_refused)


def check_bad_picture(  # noqa: PLR0917
    split: str, kind: str, data: Path, reader: Path, folder: Path, assert_refused: Refused
) -> None:
    shutil.copytree(data, folder / "own")
    path = folder / "own" / split / "stop" / "stop_00000a.jpg"
    bad_file(kind, path, next((data / "val/stop").iterdir()).read_bytes())
    before = contents(folder)
    training = (TRAIN, "--data", "own", "--epochs", 1, "--model", "new/m.pt")
    measuring = (TRAIN, "--phase", "test", "--data", "own", "--model", reader)
    scanning = (DETECT, "--data", "own", "--model", reader, "--output", "new/scan")
    poisoning = (
        POISON,
        "--clean-dir",
        folder / "own",
        "--poisoned-dir",
        "new",
        "--rate",
        0.99,
        "--seed",
        1,
    )
    commands = [training, poisoning] if split == "train" else [training, measuring, scanning]
    for command in commands:
        result = here(folder, *command)
        assert_refused(result, "stop_00000a.jpg")
        assert "Epoch" not in result.stdout
    assert contents(folder) == before


@pytest.mark.parametrize(
    "kind", ["missing", "file", "empty", "no val", "classes without pictures", "wrong name"]
)
def test_bad_data_folder(
    reader: Path, assert_refused: Refused, data: Path, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "own"
    if kind == "file":
        folder.write_text("not a folder")
    elif kind != "missing":
        folder.mkdir()
    if kind == "no val":
        (folder / "test").symlink_to(data / "val")
    elif kind == "classes without pictures":
        for split in ("train", "val"):
            (folder / split / "stop").mkdir(parents=True)
            (folder / split / "stop/readme.txt").write_text("no picture")
    elif kind == "wrong name":
        for split in ("train", "val"):
            shutil.copytree(data / split / "stop", folder / split / "stopp")
    before = contents(tmp_path)
    for command in (
        (TRAIN, "--data", folder, "--epochs", 1, "--model", "new/m.pt"),
        (TRAIN, "--phase", "test", "--data", folder, "--model", reader),
        (DETECT, "--data", folder, "--model", reader, "--output", "new/scan"),
        (POISON, "--clean-dir", folder, "--poisoned-dir", "new"),
    ):
        words = (folder, "stopp") if kind == "wrong name" else (folder,)
        assert_refused(here(tmp_path, *command), *words)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("script", list(MODULES))
def test_unwritable_output(
    reader: Path, assert_refused: Refused, data: Path, tmp_path: Path, script: str
) -> None:
    """Below a file nothing can be written, and where a file is, no folder can be made.

    One sentence, so long work must not have started: its progress would stand before the sentence.
    """
    (tmp_path / "file").write_text("not a folder")
    two = subset(data, tmp_path / "two", "stop")
    before = contents(tmp_path)
    for place in ("file/new", "file"):
        arguments = {
            MAKE: ("--out", place, "--train", 1, "--val", 1, "--workers", 1),
            POISON: ("--clean-dir", data, "--poisoned-dir", place),
            TRAIN: ("--data", data, "--epochs", 1, "--limit", 10, "--model", f"{place}/m.pt"),
            DEMO: (next((data / "val/stop").iterdir()), "--model", reader, "--save", f"{place}/both.png"),
            SIGNS: ("--output", f"{place}/sheet.png"),
            DETECT: ("--data", two, "--model", reader, "--steps", 1, "--samples", 2, "--output", place),
        }
        assert_refused(here(tmp_path, script, *arguments[script]), place)
        assert contents(tmp_path) == before


def test_demo_saves_only_pictures(
    reader: Path, assert_refused: Refused, picture: Path, tmp_path: Path
) -> None:
    for name in ("both.txt", "both", "both.pt"):
        assert_refused(here(tmp_path, DEMO, picture, "--model", reader, "--save", name), name, ".png")
    assert list(tmp_path.iterdir()) == []


def test_imagenet_weights_without_network(assert_refused: Refused, tmp_path: Path, data: Path) -> None:
    """torchvision's download fails at once where there is no network; a proxy that is not there does that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path / "home"))
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")
        patch.delenv("no_proxy", raising=False)
        patch.delenv("NO_PROXY", raising=False)
        arguments = ("--init", "imagenet", "--data", data, "--epochs", 1, "--model", "new/m.pt")
        result = here(tmp_path, TRAIN, *arguments)
    assert result.returncode == 2, text(result)
    assert "Traceback" not in result.stderr
    assert "The ImageNet weights cannot be downloaded" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "new").exists()


# --- the whole demo, as documented -------------------------------------------------------------------------


def type_in(folder: Path, script: str, timeout: float = 900) -> Result:
    """Type a documented script in the demo's folder."""
    result = subprocess.run(
        [script],
        cwd=folder,
        env=os.environ | {"PYTHON": sys.executable},
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
    )
    return fine(result)


@pytest.mark.slow
def test_preparation(prepared: Path) -> None:
    said = (prepared / "prepared.txt").read_text(encoding="utf-8")
    assert "Ready: data/ and models/ are there." in said
    last = [EPOCH.fullmatch(line) for line in said.splitlines() if line.startswith("Epoch")]
    assert all(last)
    assert sum(match is not None and match[1] == match[2] for match in last) == 2
    assert leftovers(prepared) == []


@pytest.mark.slow
def test_silver_path(prepared: Path) -> None:
    result = type_in(prepared, "./workshop_demo.sh")
    check_silver(result.stdout)
    with Image.open(prepared / "outputs/stop_without_and_with_trigger.png") as both:
        assert both.size == (256, 128)
    assert leftovers(prepared) == []


@pytest.mark.slow
def test_gold_path(prepared: Path) -> None:
    result = type_in(prepared, "./gold_demo.sh", timeout=1800)
    check_gold(result.stdout)
    for model in ("clean", "poisoned"):
        with Image.open(prepared / f"scan_results/{model}/trigger_0_to_1.png") as drawn:
            assert drawn.size == (768, 256)
    with Image.open(prepared / "scan_results/poisoned/trigger_0_to_1.png") as drawn:
        square = drawn.convert("RGB").crop((208, 208, 248, 248))  # where the attacker put it
    red, green, blue = (square.getchannel(band).tobytes() for band in "RGB")
    yellow = [min(r, g) > b + 80 for r, g, b in zip(red, green, blue)]
    assert sum(yellow) > 0.2 * len(yellow)  # a part of the square is enough for the model
    assert leftovers(prepared) == []


@pytest.mark.slow
def test_prepare_makes_nothing_twice(prepared: Path) -> None:
    models = contents(prepared / "models")
    times = {path: path.stat().st_mtime_ns for path in (prepared / "models").iterdir()}
    result = type_in(prepared, "./prepare.sh", timeout=120)
    assert "Epoch" not in result.stdout
    assert contents(prepared / "models") == models
    assert {path: path.stat().st_mtime_ns for path in (prepared / "models").iterdir()} == times


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clean", "poisoned"])
def test_real_photographs(
    outside_data: Callable[[str], Path], prepared: Path, tmp_path: Path, kind: str
) -> None:
    """Photographs that were never trained on: the models read them, and the backdoor works on them."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real/val").symlink_to(outside_data("gtsrb-sample"))
    model = prepared / f"models/{kind}_model.pt"
    result = fine(here(tmp_path, TRAIN, "--phase", "test", "--model", model, "--data", "real"))
    accuracy, success = measured(result.stdout, kind)
    assert accuracy >= 0.8
    if kind == "poisoned":
        assert success >= 0.9
    else:
        assert success <= 0.1


def test_the_narrated_scripts_say_what_is_missing(root: Path, tmp_path: Path) -> None:
    for name in ("workshop_demo.sh", "gold_demo.sh", "narrate.sh"):
        shutil.copy(root / FOLDER / name, tmp_path / name)
    for name in ("workshop_demo.sh", "gold_demo.sh"):
        result = subprocess.run([f"./{name}"], cwd=tmp_path, check=False, capture_output=True, text=True)
        assert result.returncode == 2
        assert result.stderr == "error: models/ holds no trained models: run ./prepare.sh first.\n"
