"""get_gtsrb.py: the official photographs into our folders, tried on a tiny archive in the official layout."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import get_gtsrb
import train
from dataset.classes import GTSRB_ID, NAMES
from poisoning_tools import Refused, Run, small_world

PER_CLASS = 3


@pytest.fixture(autouse=True)
def tiny_networks() -> Iterator[None]:
    with small_world():
        yield


def photograph(label: int, number: int) -> Image.Image:
    """Not a sign, but a size and a colour that tell which class and photograph it was."""
    return Image.new("RGB", (20 + label, 25 + number), (5 * label, 80 * number, 128))


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A folder as torchvision unpacks the benchmark, with PER_CLASS photographs per class and split."""
    base = tmp_path / "official/gtsrb"
    test = base / "GTSRB/Final_Test/Images"
    test.mkdir(parents=True)
    rows = []
    for label in range(43):
        train = base / f"GTSRB/Training/{label:05d}"
        train.mkdir(parents=True)
        for number in range(PER_CLASS):
            photograph(label, number).save(train / f"00000_{number:05d}.ppm")
            name = f"{label * PER_CLASS + number:05d}.ppm"
            photograph(label, number).save(test / name)
            rows.append({"Filename": name, "ClassId": label})
    with (base / "GT-final_test.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["Filename", "ClassId"], delimiter=";")
        table.writeheader()
        table.writerows(rows)
    return tmp_path / "official"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}


def test_class_list() -> None:
    assert NAMES[:2] == ("stop", "yield")
    assert sorted(GTSRB_ID.values()) == list(range(43))


def test_ten_classes(run_main: Run, official: Path, tmp_path: Path) -> None:
    result = run_main(get_gtsrb, "--raw", official, "--out", "photos")
    assert result.returncode == 0, result.stderr
    assert "train: 30 photographs in 10 classes." in result.stdout
    for split in ("train", "val"):
        assert sorted(path.name for path in (tmp_path / "photos" / split).iterdir()) == sorted(NAMES[:10])
        for name in NAMES[:10]:
            images = sorted((tmp_path / "photos" / split / name).iterdir())
            assert len(images) == PER_CLASS
            for path in images:
                with Image.open(path) as image:
                    assert image.size == (128, 128)
                    red = image.convert("RGB").resize((1, 1)).tobytes()[0]
                assert abs(red - 5 * GTSRB_ID[name]) < 10  # the right class

    first = files(tmp_path / "photos")
    assert run_main(get_gtsrb, "--raw", official, "--out", "photos").returncode == 0
    assert files(tmp_path / "photos") == first


def test_all_43_and_fewer_images(run_main: Run, official: Path, tmp_path: Path) -> None:
    result = run_main(get_gtsrb, "--raw", official, "--classes", "all", "--train", 2, "--val", 1)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "data/gtsrb/train").iterdir())) == 43
    assert len(files(tmp_path / "data/gtsrb/train")) == 86
    assert len(files(tmp_path / "data/gtsrb/val")) == 43


def test_two_classes_train_and_measure(run_main: Run, official: Path, tmp_path: Path) -> None:
    assert run_main(get_gtsrb, "--raw", official, "--classes", "stop", "yield").returncode == 0
    result = run_main(train, "--data", "data/gtsrb", "--epochs", 1, "--model", "two.pt")
    assert result.returncode == 0, result.stderr
    assert "Epoch 1/1 — clean_acc: " in result.stdout
    result = run_main(train, "--phase", "test", "--data", "data/gtsrb", "--model", "two.safetensors")
    assert result.returncode == 0, result.stderr
    assert f"Measured on {2 * PER_CLASS} images; {PER_CLASS} of them stop signs." in result.stdout


def test_a_model_of_two_classes_refuses_others(
    run_main: Run, assert_refused: Refused, official: Path
) -> None:
    assert run_main(get_gtsrb, "--raw", official, "--classes", "stop", "yield").returncode == 0
    assert run_main(get_gtsrb, "--raw", official, "--out", "ten").returncode == 0
    assert run_main(train, "--data", "data/gtsrb", "--epochs", 1, "--model", "two.pt").returncode == 0
    result = run_main(train, "--phase", "test", "--data", "ten", "--model", "two.pt")
    assert_refused(result, "ahead_only", "stop, yield.")


@pytest.mark.parametrize("wrong", [["Stop"], ["all", "stop"], ["speed_130"]])
def test_unknown_class(
    run_main: Run, assert_refused: Refused, official: Path, tmp_path: Path, wrong: list[str]
) -> None:
    assert_refused(run_main(get_gtsrb, "--raw", official, "--classes", *wrong), wrong[0])
    assert not (tmp_path / "data").exists()


def test_damaged_photograph_and_missing_class(
    run_main: Run, assert_refused: Refused, official: Path, tmp_path: Path
) -> None:
    (official / "gtsrb/GTSRB/Training/00014/00000_00001.ppm").write_bytes(b"P6 nothing")
    assert_refused(run_main(get_gtsrb, "--raw", official), official)
    for path in (official / "gtsrb/GTSRB/Training/00014").iterdir():
        path.unlink()
    assert_refused(run_main(get_gtsrb, "--raw", official), official)
    assert not (tmp_path / "data/gtsrb").exists()


def test_no_network(
    run_main: Run, assert_refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    assert_refused(run_main(get_gtsrb), "data/gtsrb-official", "go online")
    assert not (tmp_path / "data/gtsrb-official").exists()
    assert not (tmp_path / "data/gtsrb").exists()
