"""Demo 2: bad input ends in one sentence and code 2; nothing is run, and nothing is left half-written.

The networks are tiny ones: none of these commands comes to an answer.
"""

from __future__ import annotations

import io
import random
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import audit_data
import cli
import create_malicious_model
import demo
import detect
import make_dataset
import mitigate
import poison_data
import report
import signs
import train
from dataset.files import class_files
from network import classifier
from poisoning_tools import Refused, Run, contents, fine, run_in, small_world, solved, subset, text

MODULES = [make_dataset, poison_data, train, demo, detect, signs]


@pytest.fixture(autouse=True)
def tiny_networks() -> Iterator[None]:
    with small_world():
        yield


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A tiny network that classifies `data`/val correctly."""
    files = class_files(data / "val")
    pixels = classifier.load_pixels([path for path, _ in files]).float() / 255
    with small_world():
        model = solved(pixels, torch.tensor([label for _, label in files]))
    return classifier.save_model(model, tmp_path_factory.mktemp("reader") / "reader.pt")[0]


def name(value: object) -> str:
    return value.__name__ if isinstance(value, ModuleType) else str(value)


@pytest.mark.parametrize("script", MODULES, ids=name)
def test_help_shows_commands(script: ModuleType, tmp_path: Path) -> None:
    result = fine(run_in(tmp_path, script, "--help"))
    assert f"python {script.__name__}.py" in result.stdout


@pytest.mark.parametrize(
    "script, wrong",
    [(script, ["--no-such-option"]) for script in MODULES]
    + [
        (demo, []),
        (train, ["--epochs", "many"]),
        (train, ["--victim", "stopp"]),
        (train, ["--phase", "guess"]),
        (poison_data, ["--rate", "much"]),
        (detect, ["--draw", "stop"]),
        (detect, ["--draw", "stop:stop"]),
        (detect, ["--draw", "stop:tram"]),
    ],
    ids=name,
)
def test_wrong_usage(script: ModuleType, wrong: list[str], tmp_path: Path) -> None:
    result = run_in(tmp_path, script, *wrong)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "error: " in result.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "script, wrong",
    [
        (train, ["--epochs=0"]),
        (train, ["--lr=0"]),
        (train, ["--lr=nan"]),
        (train, ["--limit=-1"]),
        (detect, ["--steps=0"]),
        (detect, ["--samples=0"]),
    ],
    ids=name,
)
def test_numbers_out_of_range(
    script: ModuleType, wrong: list[str], assert_refused: Refused, data: Path, tmp_path: Path
) -> None:
    assert_refused(run_in(tmp_path, script, "--data", data, *wrong), wrong[0].split("=")[0])
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


WAYS = ["demo", "compare", "detect", "pairs", "reference", "test", "init", "audit", "mitigate", "report"]


@pytest.fixture(params=WAYS)
def way(  # noqa: PLR0917
    request: pytest.FixtureRequest, data: Path, noise: Path, reader: Path, stop_sign: Path, both: list[Any]
) -> Way:
    """Every way to hand a model file to a command: way(file) gives the command and its arguments."""
    scan = (detect, "--data", data, "--output", "new/scan")
    one = (*scan, "--pairs", "stop:yield")
    ways: dict[str, tuple[Any, ...]] = {
        "demo": (demo, stop_sign, "--trigger", "--save", "new/both.png", "--model"),
        "compare": (demo, stop_sign, "--compare", "--model", reader, "--clean-model"),
        "detect": (*scan, "--model"),
        "pairs": (*one, "--reference", reader, "--model"),
        "reference": (*one, "--model", reader, "--reference"),
        "test": (train, "--phase", "test", "--data", data, "--model"),
        "init": (train, "--data", data, "--epochs", 1, "--model", "new/m.pt", "--init"),
        "audit": (audit_data, data, "--output", "new", "--model"),
        "mitigate": (mitigate, "--repair", "finetune", "--data", data, "--output", "new", "--model"),
        "report": (report, *both, "--data", noise, "--output", "new/report.html", "--poisoned-model"),
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
    assert_refused(run_in(tmp_path, *way(path)), path)
    assert contents(tmp_path) == before


def test_a_malicious_model_is_refused_and_not_run(
    assert_refused: Refused,
    tmp_path: Path,
    way: Way,
    malicious: Path,
    marker: Path,
) -> None:
    before = contents(tmp_path)
    assert_refused(run_in(tmp_path, *way(malicious)), malicious, "refused and not run")
    # its name cannot hide it
    renamed = malicious.rename(malicious.with_suffix(".safetensors"))
    assert_refused(run_in(tmp_path, *way(renamed)), renamed)
    renamed.rename(malicious)
    assert not marker.exists()
    assert contents(tmp_path) == before
    # the file is no dud: the careless way to load it runs the payload
    torch.load(malicious, weights_only=False)
    assert marker.exists()


def test_a_malicious_model_is_refused_where_the_safe_default_is_off(  # noqa: PLR0917
    run_script: Run,
    assert_refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    way: Way,
    malicious: Path,
    marker: Path,
) -> None:
    """Where somebody has switched PyTorch's safe default off; once also in a process of its own."""
    script, *arguments = way(malicious)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert_refused(run_in(tmp_path, script, *arguments), malicious, "refused and not run")
    if script is demo and "--trigger" in arguments:
        result = run_script("demo-poisoning/demo.py", *arguments, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")
        assert_refused(result, malicious, "refused and not run")
    assert not marker.exists()
    assert list(malicious.parent.iterdir()) == [malicious]


def test_damaged_model_files_end_in_one_sentence(tmp_path: Path, marker: Path) -> None:
    """A few hundred damaged files: each is read or refused, never a crash, and no payload runs."""
    state = nn.Linear(3, 4).state_dict()
    saved = [create_malicious_model.malicious_bytes(create_malicious_model.DEFAULT, marker)]
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=zipped)
        saved.append(file.getvalue())
    safe = classifier.save_model(nn.Linear(3, 4), tmp_path / "good.pt")[1].read_bytes()
    rng = random.Random(3)
    refused = 0
    for _ in range(400):
        data = bytearray(rng.choice([*saved, safe]))
        path = tmp_path / ("mutated.safetensors" if data == safe else "mutated.pt")
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        for _ in range(rng.randrange(1, 6) if data else 0):
            data[rng.randrange(len(data))] = rng.randrange(256)
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
    assert_refused(run_in(tmp_path, *way(path)), path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("way", [one for one in WAYS if one != "init"], indirect=True)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_model_of_other_classes(
    assert_refused: Refused,
    tmp_path: Path,
    way: Way,
    suffix: str,
) -> None:
    model = classifier.new_model(44)
    path = classifier.save_model(model, tmp_path / "other.pt")[suffix == ".safetensors"]
    assert_refused(run_in(tmp_path, *way(path)), path, "44 classes")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_weights_that_are_not_numbers(  # noqa: PLR0917
    assert_refused: Refused, tmp_path: Path, way: Way, reader: Path, value: str, suffix: str
) -> None:
    """One of them makes every answer meaningless, and every scan clean."""
    model = classifier.load_model(reader)
    with torch.no_grad():
        model.get_parameter("fc.weight")[3, 4] = float(value)
    path = classifier.save_model(model, tmp_path / "broken.pt")[suffix == ".safetensors"]
    before = contents(tmp_path)
    result = run_in(tmp_path, *way(path))
    assert_refused(result, path, "'fc.weight'", "infinite or not a number")
    assert result.stdout == ""
    assert contents(tmp_path) == before


@pytest.mark.parametrize("part", ["bn1.weight", "layer4.1.bn2.running_var"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_no_part_of_a_resnet18_may_be_infinite(tmp_path: Path, part: str, suffix: str) -> None:
    """Weights and statistics; what counts batches is a whole number, and is finite."""
    weights = {"fc.bias": torch.zeros(2), "bn1.num_batches_tracked": torch.tensor(7)}
    save_file(weights, tmp_path / "good.safetensors")
    assert classifier.read_weights(tmp_path / "good.safetensors").keys() == weights.keys()
    weights[part] = torch.tensor([1.0, torch.inf], dtype=torch.float16)
    path = tmp_path / f"m{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(weights, path)
    with pytest.raises(cli.UserError, match=re.escape(part)):
        classifier.read_weights(path)


@pytest.mark.parametrize("kind", BAD)
def test_bad_image(reader: Path, assert_refused: Refused, stop_sign: Path, tmp_path: Path, kind: str) -> None:
    path = bad_file(kind, tmp_path / "bad.jpg", stop_sign.read_bytes())
    before = contents(tmp_path)
    result = run_in(tmp_path, demo, path, "--model", reader, "--trigger", "--save", "new/both.png")
    assert_refused(result, path)
    assert result.stdout == ""
    assert contents(tmp_path) == before


@pytest.mark.parametrize("kind", ["text", "truncated", "empty", "folder"])
def test_bad_image_in_the_data(
    reader: Path, assert_refused: Refused, data: Path, tmp_path: Path, kind: str
) -> None:
    for split in ("train", "val"):
        check_bad_image(split, kind, data, reader, tmp_path / split, assert_refused)


def check_bad_image(  # noqa: PLR0917
    split: str, kind: str, data: Path, reader: Path, folder: Path, assert_refused: Refused
) -> None:
    shutil.copytree(data, folder / "own")
    path = folder / "own" / split / "stop" / "stop_00000a.jpg"
    bad_file(kind, path, next((data / "val/stop").iterdir()).read_bytes())
    before = contents(folder)
    training = (train, "--data", "own", "--epochs", 1, "--model", "new/m.pt")
    measuring = (train, "--phase", "test", "--data", "own", "--model", reader)
    scanning = (detect, "--data", "own", "--model", reader, "--output", "new/scan")
    poisoning = (
        poison_data,
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
        result = run_in(folder, *command)
        assert_refused(result, "stop_00000a.jpg")
        assert "Epoch" not in result.stdout
    assert contents(folder) == before


@pytest.mark.parametrize(
    "kind", ["missing", "file", "empty", "no val", "classes without images", "wrong name"]
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
    elif kind == "classes without images":
        for split in ("train", "val"):
            (folder / split / "stop").mkdir(parents=True)
            (folder / split / "stop/readme.txt").write_text("no image")
    elif kind == "wrong name":
        for split in ("train", "val"):
            shutil.copytree(data / split / "stop", folder / split / "stopp")
    before = contents(tmp_path)
    for command in (
        (train, "--data", folder, "--epochs", 1, "--model", "new/m.pt"),
        (train, "--phase", "test", "--data", folder, "--model", reader),
        (detect, "--data", folder, "--model", reader, "--output", "new/scan"),
        (poison_data, "--clean-dir", folder, "--poisoned-dir", "new"),
    ):
        words = (folder, "stopp") if kind == "wrong name" else (folder,)
        assert_refused(run_in(tmp_path, *command), *words)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("script", MODULES, ids=name)
def test_unwritable_output(
    reader: Path, assert_refused: Refused, data: Path, tmp_path: Path, script: ModuleType
) -> None:
    """Below a file nothing can be written, and where a file is, no folder can be made.

    One sentence, so long work must not have started: its progress would stand before the sentence.
    """
    (tmp_path / "file").write_text("not a folder")
    two = subset(data, tmp_path / "two", "stop")
    before = contents(tmp_path)
    for place in ("file/new", "file"):
        arguments = {
            make_dataset: ("--out", place, "--train", 1, "--val", 1, "--workers", 1),
            poison_data: ("--clean-dir", data, "--poisoned-dir", place),
            train: ("--data", data, "--epochs", 1, "--limit", 10, "--model", f"{place}/m.pt"),
            demo: (next((data / "val/stop").iterdir()), "--model", reader, "--save", f"{place}/both.png"),
            signs: ("--output", f"{place}/sheet.png"),
            detect: ("--data", two, "--model", reader, "--steps", 1, "--samples", 2, "--output", place),
        }
        assert_refused(run_in(tmp_path, script, *arguments[script]), place)
        assert contents(tmp_path) == before


def test_demo_saves_only_images(
    reader: Path, assert_refused: Refused, stop_sign: Path, tmp_path: Path
) -> None:
    for wrong in ("both.txt", "both", "both.pt"):
        assert_refused(run_in(tmp_path, demo, stop_sign, "--model", reader, "--save", wrong), wrong, ".png")
    assert list(tmp_path.iterdir()) == []


def test_imagenet_weights_without_network(assert_refused: Refused, tmp_path: Path, data: Path) -> None:
    """torchvision's download fails at once where there is no network; a proxy that is not there does that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path / "home"))
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")
        patch.setattr(
            urllib.request, "_opener", None
        )  # it remembers the proxies, for all tests after this one
        patch.delenv("no_proxy", raising=False)
        patch.delenv("NO_PROXY", raising=False)
        arguments = ("--init", "imagenet", "--data", data, "--epochs", 1, "--model", "new/m.pt")
        result = run_in(tmp_path, train, *arguments)
    assert result.returncode == 2, text(result)
    assert "Traceback" not in result.stderr
    assert "The ImageNet weights cannot be downloaded" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "new").exists()
