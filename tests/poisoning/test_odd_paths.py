"""Demo 2: file and folder names that are not valid UTF-8. Old disks and archives are full of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import audit_data
import demo
import detect
import get_gtsrb
import make_dataset
import mitigate
import poison_data
import report
import sheet
import signs
import train
from dataset import manifest
from network import classifier
from poisoning_tools import (
    FOLDER,
    Refused,
    Result,
    Run,
    fine,
    made_up,
    small_world,
    text,
    write_scan,
)
from scanner import result

ODD = "caf\udce9-\udcff"  # the name caf\xe9-\xff in Latin-1, as Python holds it
SHOWN = "caf\\udce9-\\udcff"  # as it is printed


@pytest.fixture(autouse=True)
def tiny_networks() -> Iterator[None]:
    with small_world():
        yield


@pytest.fixture(scope="module", autouse=True)
def allowed(tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        (tmp_path_factory.mktemp("odd") / ODD).touch()
    except OSError:
        pytest.skip("this file system takes only names that are valid UTF-8")


@pytest.fixture
def odd(tmp_path: Path, data: Path) -> Path:
    """The small dataset in a folder with such a name, and one of its training images with another one."""
    shutil.copytree(data, tmp_path / ODD / "signs")
    stop = tmp_path / ODD / "signs/train/stop"
    (stop / "stop_00000.jpg").rename(stop / f"stop_{ODD}.jpg")
    return tmp_path / ODD / "signs"


@pytest.fixture
def model(odd: Path) -> Path:
    return classifier.save_model(classifier.new_model(), odd.parent / f"m-{ODD}.pt")[0]


def never_a_traceback(ended: Result) -> Result:
    """The command came to its end, or refused in one sentence; the name is shown by escapes."""
    assert ended.returncode in (0, 1, 2), text(ended)
    assert "Traceback" not in ended.stderr
    if ended.returncode == 2 and "Result:" not in ended.stdout:
        assert ended.stderr.startswith("error: "), text(ended)
        assert len(ended.stderr.splitlines()) == 1, text(ended)
    return ended


def test_audit(run_main: Run, tmp_path: Path, odd: Path) -> None:
    proof = manifest.write(odd)
    (odd / f"train/stop/stop_{ODD}.jpg").rename(odd / f"train/yield/yield_{ODD}.jpg")
    ended = never_a_traceback(run_main(audit_data, odd, "--manifest", proof, "--output", f"audit-{ODD}"))
    assert ended.returncode == 1, text(ended)
    assert f"Files added since {SHOWN}" in ended.stdout.replace(f"{tmp_path}/", "")
    assert f"train/yield/yield_{SHOWN}.jpg" in ended.stdout
    facts = json.loads((tmp_path / f"audit-{ODD}/suspects.json").read_text(encoding="utf-8"))
    assert facts["changes"]["added"] == [f"train/yield/yield_{ODD}.jpg"]
    table = (tmp_path / f"audit-{ODD}/suspects.csv").read_text(encoding="utf-8")
    assert f"train/yield/yield_{SHOWN}.jpg" in table


def test_audit_with_a_model(run_main: Run, assert_refused: Refused, odd: Path, model: Path) -> None:
    """This dataset is too small for it, which is said with the name of the folder."""
    assert_refused(run_main(audit_data, odd, "--model", model), f"{SHOWN}/signs/train has too few images")


def test_train_and_measure(run_main: Run, tmp_path: Path, odd: Path) -> None:
    ended = fine(run_main(train, "--data", odd, "--epochs", 1, "--model", f"new-{ODD}/m.pt"))
    assert f"Wrote new-{SHOWN}/m.pt and new-{SHOWN}/m.safetensors" in ended.stdout
    for suffix in (".pt", ".safetensors"):
        path = (tmp_path / f"new-{ODD}/m").with_suffix(suffix)
        said = fine(run_main(train, "--phase", "test", "--data", odd, "--model", path)).stdout
        assert "Measured on 40 images" in said
        fine(run_main(train, "--data", odd, "--epochs", 1, "--model", "m.pt", "--init", path))


def test_demo(run_main: Run, tmp_path: Path, odd: Path, model: Path) -> None:
    image = odd / f"train/stop/stop_{ODD}.jpg"
    for suffix in (".pt", ".safetensors"):
        arguments = (image, "--model", model.with_suffix(suffix), "--trigger", "--save", f"{ODD}.png")
        ended = fine(run_main(demo, *arguments))
        assert f"Wrote {SHOWN}.png" in ended.stdout
        assert (tmp_path / f"{ODD}.png").is_file()
    other = model.with_suffix(".safetensors")
    said = fine(run_main(demo, image, "--model", model, "--clean-model", other, "--compare")).stdout
    assert (said.count(f"m-{SHOWN}.pt"), said.count(f"m-{SHOWN}.safetensors")) == (2, 2)


def test_scan_and_what_is_done_with_it(
    run_main: Run, tmp_path: Path, odd: Path, model: Path, fake: Callable[..., None]
) -> None:
    fake({(0, 1): 0.005})
    scan = ("--model", model, "--data", odd)
    ended = run_main(detect, *scan, "--output", f"scan-{ODD}", "--json")
    assert ended.returncode == 1, text(ended)
    found = result.read(tmp_path / f"scan-{ODD}")
    assert json.loads(ended.stdout) == json.loads(found.to_json())
    assert found.model.endswith(f"/m-{SHOWN}.pt")
    assert (found.data, found.sha256) == (str(odd).replace(ODD, SHOWN), result.sha256(model))
    ended = run_main(detect, *scan, "--output", f"scan-{ODD}", "--draw", "yield:stop")
    assert f"saved to: scan-{SHOWN}/trigger_0_to_1.png" in ended.stdout

    other = classifier.save_model(classifier.new_model(), tmp_path / "other.pt")[1]
    triggers = made_up({(v, t): 0.1 + 0.001 * v for v in range(10) for t in range(10) if v != t})
    write_scan(tmp_path / f"clean-{ODD}", other, triggers, drawn=lambda _: [(0, 1)])
    ended = never_a_traceback(run_main(detect, *scan, "--output", "b", "--reference", f"clean-{ODD}"))
    assert ended.returncode == 1, text(ended)
    assert result.read(tmp_path / "b").references == [f"clean-{SHOWN}"]

    both = ("--clean", f"clean-{ODD}", "--poisoned", f"scan-{ODD}", "--data", odd)
    ended = fine(run_main(report, *both, "--poisoned-model", model, "--output", f"{ODD}.html"))
    assert f"Wrote {SHOWN}.html" in ended.stdout
    (tmp_path / f"{ODD}.html").read_text(encoding="utf-8")
    ended = fine(run_main(sheet, f"clean-{ODD}", f"scan-{ODD}", "--output", f"{ODD}-sheet.png"))
    assert f"saved to: {SHOWN}-sheet.png" in ended.stdout
    # the scan holds the name of the model only as it is printed, so the file has to be given
    ended = never_a_traceback(run_main(report, *both))
    assert (ended.returncode, "does not exist" in ended.stderr) == (2, True)


def test_repairs(run_main: Run, tmp_path: Path, odd: Path, model: Path, train_here: list[list[str]]) -> None:
    options = ("--model", model, "--data", odd, "--output", f"repaired-{ODD}", "--repair", "finetune")
    ended = fine(run_main(mitigate, *options, "--epochs", 1, "--share", 1))
    assert (tmp_path / f"repaired-{ODD}/finetune.safetensors").is_file()
    assert f"$ python train.py --data {train_here[0][1]} --model repaired-{SHOWN}/finetune.pt" in ended.stdout


def test_datasets(run_main: Run, tmp_path: Path, odd: Path) -> None:
    assert (
        f"to new-{SHOWN} "
        in fine(
            run_main(make_dataset, "--train", 1, "--val", 1, "--workers", 1, "--out", f"new-{ODD}")
        ).stdout
    )
    assert (tmp_path / f"new-{ODD}.sha256").is_file()
    (odd / f"train/stop/stop_{ODD}.jpg").rename(odd / f"train/stop/stop_x{ODD}.jpg")
    poisoning = ("--clean-dir", odd, "--poisoned-dir", f"bad-{ODD}", "--rate", 0.99)
    ended = fine(run_main(poison_data, *poisoning))
    assert f"Wrote bad-{SHOWN}." in ended.stdout
    json.loads((tmp_path / f"bad-{ODD}-attacker-notes.json").read_text(encoding="utf-8"))
    fine(run_main(signs, "--output", f"{ODD}.png"))


@pytest.mark.parametrize(
    "command",
    [
        (audit_data, "{}"),
        (audit_data, "signs", "--model", "{}.pt"),
        (audit_data, "signs", "--manifest", "{}"),
        (demo, "{}.png"),
        (demo, "{}.png", "--save", "{}.txt"),
        (detect, "--model", "{}.pt"),
        (detect, "--model", "{}.safetensors"),
        (detect, "--pairs", "{}"),
        (get_gtsrb, "--classes", "{}"),
        (mitigate, "--model", "{}.pt"),
        (poison_data, "--clean-dir", "{}"),
        (poison_data, "--victim", "{}"),
        (report, "--clean", "{}"),
        (sheet, "{}", "{}"),
        (train, "--data", "{}"),
        (train, "--data", "signs", "--init", "{}"),
        (train, "--phase", "test", "--model", "{}.pt"),
    ],
    ids=lambda command: " ".join([command[0].__name__, *command[1:]]),
)
def test_what_does_not_exist_is_named(
    run_main: Run, assert_refused: Refused, tmp_path: Path, data: Path, command: tuple[Any, ...]
) -> None:
    (tmp_path / "signs").symlink_to(data)
    module, *arguments = command
    assert_refused(run_main(module, *(one.format(ODD) for one in arguments)), SHOWN)


def test_in_a_process_of_its_own(tmp_path: Path, odd: Path) -> None:
    """As a person types it: bytes on the command line, UTF-8 in the terminal."""
    command: list[str | bytes] = [sys.executable, str(FOLDER / "poison_data.py"), "--clean-dir"]
    ended = subprocess.run(
        [*command, os.fsencode(odd), "--poisoned-dir", os.fsencode(odd)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        check=False,
        capture_output=True,
    )
    assert ended.returncode == 2
    assert ended.stderr.decode("utf-8").startswith("error: ")
    assert f"{SHOWN}/signs is the clean folder" in ended.stderr.decode("utf-8")
    assert len(ended.stderr.splitlines()) == 1
