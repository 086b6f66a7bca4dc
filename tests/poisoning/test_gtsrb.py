"""get_gtsrb.py: real photographs into our folders, tried on a tiny copy in the official layout."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

import get_gtsrb
import poison_data
import train
from dataset.classes import GTSRB_ID, NAMES
from poisoning_tools import FOLDER, Refused, Run, fine, small_world

TRACKS, FRAMES = 5, 2
PER_CLASS = TRACKS * FRAMES


@pytest.fixture(autouse=True)
def tiny_networks() -> Iterator[None]:
    with small_world():
        yield


def photograph(label: int, track: int, frame: int) -> Image.Image:
    """Not a sign, but colours that tell class, track and frame."""
    return Image.new("RGB", (20 + label, 25 + frame), (5 * label, 40 * track, 100 * frame))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder as torchvision unpacks the benchmark, with TRACKS tracks of FRAMES frames per class."""
    for label in range(43):
        place = tmp_path / f"copy/gtsrb/GTSRB/Training/{label:05d}"
        place.mkdir(parents=True)
        for track in range(TRACKS):
            for frame in range(FRAMES):
                photograph(label, track, frame).save(place / f"{track:05d}_{frame:05d}.ppm")
    return tmp_path / "copy"


def place_of(copy: Path, name: str) -> Path:
    return copy / f"gtsrb/GTSRB/Training/{GTSRB_ID[name]:05d}"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}


def colour(path: Path) -> tuple[int, int, int]:
    with Image.open(path) as image:
        assert image.size == (128, 128)
        red, green, blue = image.convert("RGB").resize((1, 1)).tobytes()
        return red, green, blue


def test_class_list() -> None:
    assert NAMES[:2] == ("stop", "yield")
    assert sorted(GTSRB_ID.values()) == list(range(43))


def test_ten_classes_split_by_track(run_main: Run, copy: Path, tmp_path: Path) -> None:
    result = fine(run_main(get_gtsrb, "--photos", copy, "--out", "photos"))
    assert "train: 80 photographs in 10 classes." in result.stdout
    assert "val: 20 photographs in 10 classes." in result.stdout
    held_out = []
    for name in NAMES[:10]:
        tracks = {}
        for split, count in (("train", PER_CLASS - FRAMES), ("val", FRAMES)):
            images = sorted((tmp_path / "photos" / split / name).iterdir())
            assert len(images) == count
            colours = [colour(path) for path in images]
            assert all(abs(red - 5 * GTSRB_ID[name]) < 10 for red, _, _ in colours)  # the right class
            tracks[split] = {round(green / 40) for _, green, _ in colours}
        assert len(tracks["train"]) == TRACKS - 1
        assert len(tracks["val"]) == 1
        assert not tracks["train"] & tracks["val"]  # no sign is in both
        held_out += sorted(tracks["val"])
    assert len(set(held_out)) > 1  # drawn anew for each class

    first = files(tmp_path / "photos")
    fine(run_main(get_gtsrb, "--photos", copy, "--out", "photos"))
    assert files(tmp_path / "photos") == first
    fine(run_main(get_gtsrb, "--photos", copy, "--out", "photos", "--seed", 1))
    assert files(tmp_path / "photos") != first


@pytest.mark.parametrize("place", ["", "gtsrb", "gtsrb/GTSRB", "gtsrb/GTSRB/Training"])
def test_any_folder_on_the_way_to_the_photographs(
    run_main: Run, copy: Path, tmp_path: Path, place: str
) -> None:
    fine(run_main(get_gtsrb, "--photos", copy / place, "--classes", "stop", "yield", "--out", "photos"))
    assert len(files(tmp_path / "photos")) == 2 * PER_CLASS


def test_the_archive_of_the_benchmark_s_own_page(run_main: Run, copy: Path, tmp_path: Path) -> None:
    (copy / "GTSRB/Final_Training").mkdir(parents=True)
    (copy / "gtsrb/GTSRB/Training").rename(copy / "GTSRB/Final_Training/Images")
    (copy / "GTSRB/Final_Training/Images/00014/GT-00014.csv").write_text("Filename;Width;Height\n")
    fine(run_main(get_gtsrb, "--photos", copy, "--out", "photos"))
    assert len(files(tmp_path / "photos")) == 10 * PER_CLASS


def test_a_download_is_read_the_same_way(run_main: Run, copy: Path, tmp_path: Path) -> None:
    """torchvision has unpacked it already: nothing is downloaded again."""
    fine(run_main(get_gtsrb, "--raw", copy, "--out", "one"))
    fine(run_main(get_gtsrb, "--photos", copy, "--out", "two"))
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_all_43_and_fewer_images(run_main: Run, copy: Path, tmp_path: Path) -> None:
    fine(run_main(get_gtsrb, "--photos", copy, "--classes", "all", "--train", 2, "--val", 1))
    assert len(list((tmp_path / "data/gtsrb/train").iterdir())) == 43
    assert len(files(tmp_path / "data/gtsrb/train")) == 86
    assert len(files(tmp_path / "data/gtsrb/val")) == 43


def test_poison_train_and_measure(run_main: Run, copy: Path, tmp_path: Path) -> None:
    fine(run_main(get_gtsrb, "--photos", copy, "--classes", "stop", "yield"))
    result = fine(run_main(poison_data, "--clean-dir", "data/gtsrb", "--poisoned-dir", "bad", "--rate", 0.25))
    assert "Poisoned 2 stop images" in result.stdout
    result = fine(run_main(train, "--data", "bad", "--epochs", 1, "--model", "two.pt"))
    assert "Epoch 1/1 — clean_acc: " in result.stdout
    result = fine(run_main(train, "--phase", "test", "--data", "data/gtsrb", "--model", "two.safetensors"))
    assert f"Measured on {2 * FRAMES} images; {FRAMES} of them stop signs." in result.stdout


def test_a_model_of_two_classes_refuses_others(run_main: Run, assert_refused: Refused, copy: Path) -> None:
    fine(run_main(get_gtsrb, "--photos", copy, "--classes", "stop", "yield"))
    fine(run_main(get_gtsrb, "--photos", copy, "--out", "ten"))
    fine(run_main(train, "--data", "data/gtsrb", "--epochs", 1, "--model", "two.pt"))
    result = run_main(train, "--phase", "test", "--data", "ten", "--model", "two.pt")
    assert_refused(result, "ahead_only", "stop, yield.")


@pytest.mark.parametrize("wrong", [["Stop"], ["all", "stop"], ["speed_130"], ["stop"], ["stop", "stop"]])
def test_unknown_class_or_one_class_only(
    run_main: Run, assert_refused: Refused, copy: Path, tmp_path: Path, wrong: list[str]
) -> None:
    assert_refused(run_main(get_gtsrb, "--photos", copy, "--classes", *wrong), wrong[0])
    assert not (tmp_path / "data").exists()


def test_bad_copies(run_main: Run, assert_refused: Refused, copy: Path, tmp_path: Path) -> None:
    """A missing folder, a file, another layout, other names, a damaged image, one track, no photographs."""

    def refused(*words: object, photos: Path = copy) -> None:
        assert_refused(run_main(get_gtsrb, "--photos", photos), *words)
        assert not (tmp_path / "data/gtsrb").exists()
        assert not (tmp_path / "data/gtsrb.sha256").exists()

    stop = place_of(copy, "stop")
    refused("missing is not a folder", photos=tmp_path / "missing")
    refused("is not a folder", photos=stop / "00000_00000.ppm")
    refused("GTSRB/Training/<5 digits>/<track>_<frame>.ppm", photos=stop)
    (stop / "00001_00001.ppm").write_bytes(b"P6 nothing")
    refused(stop / "00001_00001.ppm", "cannot be read")
    (stop / "00001_00001.ppm").rename(stop / "photo.ppm")
    refused(stop / "photo.ppm", "<track>_<frame>.ppm")
    for path in stop.iterdir():
        if not path.name.startswith("00000_"):
            path.unlink()
    refused(stop.parent, "one track of stop")
    for path in stop.iterdir():
        path.unlink()
    refused(stop, "no photographs of stop")
    stop.rmdir()
    refused(stop, "no photographs of stop")


def test_unwritable_output(run_main: Run, assert_refused: Refused, copy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_refused(run_main(get_gtsrb, "--photos", copy, "--out", "file"), "file is a file")
    assert_refused(run_main(get_gtsrb, "--photos", copy, "--out", "file/photos"), "Cannot write file/photos")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    assert_refused(run_main(get_gtsrb, "--photos", copy, "--out", "mine"), "mine was not made by this demo")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_no_network(
    run_main: Run, assert_refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(
        urllib.request, "_opener", None
    )  # it remembers the proxies, for all tests after this one
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    assert_refused(run_main(get_gtsrb), "data/gtsrb-official", "go online", "--photos")
    assert not (tmp_path / "data/gtsrb-official").exists()
    assert not (tmp_path / "data/gtsrb").exists()


def test_real_photographs(run_main: Run, outside_data: Callable[[str], Path], tmp_path: Path) -> None:
    """Red stays red, also where a program took a photograph for text."""
    result = fine(
        run_main(
            get_gtsrb, "--photos", outside_data("gtsrb"), "--classes", "stop", "no_entry", "--out", "real"
        )
    )
    counts = [int(n.replace(",", "")) for n in re.findall(r"(?:train|val): ([\d,]+) photo", result.stdout)]
    assert min(counts) >= 50
    for path in (tmp_path / "real").rglob("stop_*.jpg"):
        with Image.open(path) as image:
            middle = image.convert("RGB").resize((1, 1), Image.Resampling.BOX, (32, 32, 96, 96))
        red, green, _ = middle.tobytes()
        assert red > green, path


# --- prepare.sh --photos ----------------------------------------------------------------------------


def prepare(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """prepare.sh in `folder`, with a stand-in for Python that prints what it would run."""
    (folder / "prepare.sh").write_bytes((FOLDER / "prepare.sh").read_bytes())
    python = folder / "python"
    python.write_text('#!/bin/sh\necho "runs $*"\n')
    python.chmod(0o755)
    return subprocess.run(
        ["sh", str(folder / "prepare.sh"), *arguments],
        cwd=folder.parent,
        env=os.environ | {"PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_prepare_with_photographs(tmp_path: Path, copy: Path) -> None:
    (tmp_path / "demo").mkdir()
    result = prepare(tmp_path / "demo", "--photos", "copy")  # relative to where one types it
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("runs")]
    assert lines[0] == f"runs get_gtsrb.py --photos {copy.resolve()} --out data/traffic-signs"
    assert lines[1].startswith("runs poison_data.py --clean-dir data/traffic-signs ")
    assert sorted(lines[2:]) == [
        "runs train.py --manifest data/traffic-signs.sha256 --epochs 12",
        "runs train.py --poisoned --manifest data/traffic-signs-poisoned.sha256 --epochs 12",
    ]


def test_whoever_stopped_it_and_goes_on_trains_as_long(tmp_path: Path, copy: Path) -> None:
    demo = tmp_path / "demo"
    demo.mkdir()
    assert prepare(demo, "--photos", "copy").returncode == 0
    for name in ("data/traffic-signs", "data/traffic-signs-poisoned", "models"):
        (demo / name).mkdir(parents=True)
    (demo / "models/clean_model.safetensors").touch()
    lines = [line for line in prepare(demo).stdout.splitlines() if line.startswith("runs")]
    assert lines == ["runs train.py --poisoned --manifest data/traffic-signs-poisoned.sha256 --epochs 12"]
    (demo / "data/photographs").unlink()  # as where they were drawn
    assert "--epochs" not in prepare(demo).stdout


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--photos"], "--photos needs one folder"),
        (["--photos", ""], "--photos needs one folder"),
        (["--photos", "copy", "more"], "--photos needs one folder"),
        (["--photos", "missing"], "missing is not a folder"),
        (["--images", "copy"], "takes no argument --images"),
    ],
)
def test_prepare_with_bad_arguments(tmp_path: Path, copy: Path, arguments: list[str], word: str) -> None:
    (tmp_path / "demo").mkdir()
    result = prepare(tmp_path / "demo", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(rf"error: [^\n]*{re.escape(word)}[^\n]*\.\n", result.stderr)


@pytest.mark.parametrize(
    "made", ["data/traffic-signs", "data/traffic-signs-poisoned", "models/clean_model.safetensors"]
)
def test_prepare_does_not_mix_drawings_and_photographs(tmp_path: Path, copy: Path, made: str) -> None:
    (tmp_path / "demo" / made).mkdir(parents=True)
    result = prepare(tmp_path / "demo", "--photos", "copy")
    assert (result.returncode, result.stdout) == (2, "")
    assert made in result.stderr
    assert "reset 2" in result.stderr


@pytest.mark.parametrize("place", ["GTSRB/Final_Training/Images", "Final_Training/Images", "Images", "Train"])
def test_copies_as_people_unpack_them(run_main: Run, copy: Path, tmp_path: Path, place: str) -> None:
    """The archive of the final training set, opened at any level, and the copy on Kaggle."""
    whole = files_of(run_main, copy, tmp_path / "whole")
    other = tmp_path / "other" / place
    for number, folder in enumerate(sorted((copy / "gtsrb/GTSRB/Training").iterdir())):
        named = other / (str(number) if place == "Train" else folder.name)
        named.mkdir(parents=True)
        for path in folder.iterdir():
            if place == "Train":
                Image.open(path).save(named / f"{number:05d}_{path.stem}.png")
            else:
                path.rename(named / path.name)
        (named / f"GT-{folder.name}.csv").touch()
    assert files_of(run_main, tmp_path / "other", tmp_path / "again") == whole


def files_of(run_main: Run, photos: Path, out: Path) -> dict[str, bytes]:
    fine(run_main(get_gtsrb, "--photos", photos, "--out", out))
    return files(out)


def test_signs_of_another_country_are_refused(
    run_main: Run, assert_refused: Refused, copy: Path, tmp_path: Path
) -> None:
    """BelgiumTS has this layout, and 62 classes: what it calls 14 would have been a stop sign."""
    (copy / "gtsrb/GTSRB/Training/00061").mkdir()
    ended = run_main(get_gtsrb, "--photos", copy, "--out", "new")
    assert_refused(ended, "holds a class 61, and those of GTSRB are 0 to 42")
    assert not (tmp_path / "new").exists()
