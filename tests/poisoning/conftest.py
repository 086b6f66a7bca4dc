"""What the tests of demo 2 start from: images, models and scans, made once for all tests of a process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

import create_malicious_model
import make_dataset
import mitigate
import report
import train
import trigger
from dataset.classes import DRAWN
from dataset.files import class_files
from network import classifier
from poisoning_tools import (
    FROM_IMAGE,
    IMAGE,
    Norms,
    Result,
    fine,
    leftovers,
    made_up,
    prepare,
    run_in,
    small_world,
    solved,
    without_models,
    write_scan,
)
from scanner import search
from scanner.neural_cleanse import Trigger
from scanner.result import ScanResult
from scanner.search import Pair, Settings


@pytest.fixture(autouse=True)
def tidy(tmp_path: Path) -> Iterator[None]:
    """No command leaves scratch files, whatever the test was about."""
    yield
    assert leftovers(tmp_path) == []
    without_models(tmp_path)


# --- rendered signs, and networks that know them ----------------------------------------------------


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset of all ten classes: 8 images per class to train with, 4 to validate."""
    folder = tmp_path_factory.mktemp("data")
    fine(run_in(folder, make_dataset, "--train", 8, "--val", 4, "--seed", 3, "--out", "signs"))
    return folder / "signs"


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Path]:
    """A real ResNet18 that classifies `data`/val correctly: its last layer is solved for it, not trained."""
    files = class_files(data / "val")
    pixels = classifier.load_pixels([path for path, _ in files]).float() / 255
    model = solved(pixels, torch.tensor([label for _, label in files]))
    folder = tmp_path_factory.mktemp("reader")
    yield classifier.save_model(model, folder / "reader.pt")[0]
    without_models(folder)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[tuple[Path, Result]]:
    """What train.py writes after one short epoch, and what it says."""
    folder = tmp_path_factory.mktemp("trained")
    result = run_in(folder, train, "--data", data, "--epochs", 1, "--seed", 1, "--model", "models/m.pt")
    yield folder / "models/m.pt", fine(result)
    without_models(folder)


@pytest.fixture
def stop_sign(data: Path) -> Path:
    return sorted((data / "val/stop").iterdir())[0]


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker.txt"


@pytest.fixture
def malicious(tmp_path: Path, marker: Path) -> Path:
    """A malicious model file, as demo 1 makes it; its payload would write the marker."""
    path = tmp_path / "malicious.pt"
    path.write_bytes(create_malicious_model.malicious_bytes(create_malicious_model.DEFAULT, marker))
    return path


@pytest.fixture(scope="session")
def image(docker: Any) -> str:
    """The image, built as build.sh does, but under a name of its own, so that yours stays as it is."""
    tag: str = docker.build("demo-poisoning", IMAGE, timeout=3000)
    return tag


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A copy of demo 2 with images and both models, made once for all: by ./prepare.sh, or in the image.

    What prepare.sh said (it takes minutes) is in prepared.txt.
    """
    folder = tmp_path_factory.mktemp("whole") / "demo-poisoning"
    if not FROM_IMAGE:
        said = prepare(folder)
        (folder / "prepared.txt").write_text(said, encoding="utf-8")
    else:
        docker, image = (request.getfixturevalue(name) for name in ("docker", "image"))
        made = docker("create", image)
        assert made.returncode == 0, made.stderr
        copied = docker("cp", f"{made.stdout.strip()}:/app", str(folder))
        assert copied.returncode == 0, copied.stderr
        docker("rm", "--volumes", made.stdout.strip())
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def train_here(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """mitigate.py trains in this process, not in one of its own; gives the arguments of each training."""
    seen: list[list[str]] = []

    def run(command: list[str], **_: object) -> Result:
        seen.append(list(map(str, command[2:])))
        result = run_in(Path(), train, *command[2:])
        print(result.stdout, end="")
        return result

    monkeypatch.setattr(mitigate, "subprocess", SimpleNamespace(run=run))
    return seen


# --- a small world for the scanner ------------------------------------------------------------------

PAINT = {"stop": (200, 40, 40), "yield": (220, 220, 220), "priority_road": (40, 60, 200)}
SMALL = 32  # pixels that a network sees there


@pytest.fixture
def small() -> Iterator[None]:
    """All networks are tiny ones, for tests of what is done with their answers."""
    with small_world(SMALL):
        yield


@pytest.fixture(scope="session")
def paint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of plain images with grain, 18 of each in val/."""
    folder = tmp_path_factory.mktemp("paint")
    rng = torch.Generator().manual_seed(2)
    for name, colour in PAINT.items():
        (folder / "val" / name).mkdir(parents=True)
        for number in range(18):
            grain = torch.randint(-30, 31, (24, 24, 3), generator=rng)
            pixels = (torch.tensor(colour) + grain).clamp(0, 255).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / "val" / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory, paint: Path) -> Callable[..., Path]:
    """small_models(classes, seed) gives the file of a tiny network that classifies `paint` correctly."""
    folder = tmp_path_factory.mktemp("models")

    def make(known: int = 3, seed: int = 1) -> Path:
        path = folder / f"{known}_{seed}.safetensors"
        if not path.exists():
            files = [(file, label) for file, label in class_files(paint / "val") if label < known]
            files = files[seed - 1 :]  # another seed knows other images
            pixels = classifier.load_pixels([file for file, _ in files]).float() / 255
            model = solved(pixels, torch.tensor([label for _, label in files]), known, seed)
            classifier.save_model(model, path)
        return path

    return make


@pytest.fixture
def four(tmp_path_factory: pytest.TempPathFactory, small: None) -> Path:
    """A model of four classes, for scans that are made up."""
    return classifier.save_model(classifier.new_model(4), tmp_path_factory.mktemp("four") / "four.pt")[1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """fake(norms) replaces the search: every model has these norms, 0.5 for pairs that are not named.

    fake(norms, accuracy) also says which share of the images it classifies correctly.
    """

    def replace(norms: Norms, accuracy: float = 1.0) -> None:
        def scan(model: object, pairs: list[Pair], *_: object) -> search.Found:
            grey = torch.full((6, 3, classifier.INPUT, classifier.INPUT), 0.3)
            triggers = made_up({pair: norms.get(pair, 0.5) for pair in pairs})
            return search.Found(triggers, {victim: grey for victim, _ in pairs}, [], accuracy)

        monkeypatch.setattr(search, "scan", scan)

    return replace


# --- two models and their scans, for the report -----------------------------------------------------


def perfect() -> Trigger:
    """What a perfect scan would recover: the true trigger, in the size that the network sees."""
    size = classifier.INPUT
    left, top, right, bottom = trigger.box(size, size)
    mask = torch.zeros(size, size)
    mask[top:bottom, left:right] = 1
    pattern = (torch.tensor(trigger.COLOUR) / 255).view(3, 1, 1).expand(3, size, size).contiguous()
    return Trigger(0, 1, mask.mean().item(), mask, pattern, 0.9)


def strip(victim: int, target: int, rows: int) -> Trigger:
    """A trigger that does nothing: a grey strip at the top."""
    size = classifier.INPUT
    mask = torch.zeros(size, size)
    mask[:rows] = 1
    return Trigger(victim, target, mask.mean().item(), mask, torch.full((3, size, size), 0.5), 0.85)


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in the folders of ten classes, 4 images each: enough for a model that has learned it by heart."""
    folder = tmp_path_factory.mktemp("noise")
    rng = torch.Generator().manual_seed(5)
    for name in DRAWN:
        (folder / "val" / name).mkdir(parents=True)
        for number in range(4):
            pixels = torch.randint(256, (32, 32, 3), generator=rng, dtype=torch.uint8)
            image = Image.fromarray(pixels.numpy()).resize((128, 128))
            image.save(folder / "val" / name / f"{name}_{number}.png")
    return folder


@pytest.fixture(scope="session")
def two_models(tmp_path_factory: pytest.TempPathFactory, noise: Path) -> dict[str, Path]:
    """Two tiny networks whose last layer is solved: both know `noise`, one has the backdoor stop to yield."""
    files = class_files(noise / "val")
    plain = classifier.load_pixels([path for path, _ in files]).float() / 255
    stops = [path for path, label in files if label == 0]
    triggered = classifier.load_pixels(stops, trigger.stamp).float() / 255
    images = torch.cat([plain, triggered, perfect().stamp(plain[: len(stops)])])
    folder = tmp_path_factory.mktemp("models")
    made = {}
    for kind, answer in (("clean", 0), ("poisoned", 1)):
        labels = torch.tensor([label for _, label in files] + [answer] * 2 * len(stops))
        with small_world():
            made[kind] = classifier.save_model(solved(images, labels), folder / f"{kind}.pt")[0]
    return made


@pytest.fixture(scope="session")
def scan_of(noise: Path) -> Callable[..., Path]:
    """scan_of(model, folder, flag=True) writes a made-up scan of all 90 pairs that flags stop to yield."""

    def make(model: Path, folder: Path, *, flag: bool) -> Path:
        pairs = [(v, t) for v in range(len(DRAWN)) for t in range(len(DRAWN)) if v != t]
        triggers = [strip(v, t, 5 + (v + t) % 7) for v, t in pairs]
        triggers[5] = Trigger(0, 6, None, triggers[5].mask, triggers[5].pattern)  # no trigger found
        if flag:
            triggers[0] = perfect()
            triggers[0].norm = 0.002

        def drawn(scan: ScanResult) -> list[Pair]:
            return [pair.numbers for pair in scan.pairs if pair.flagged or pair.target == "yield"][:3]

        scan = write_scan(folder, model, triggers, drawn=drawn, settings=Settings(noise, 60, 30, 0))
        assert scan.verdict == ("backdoor" if flag else "clean")
        return folder

    return make


@pytest.fixture(scope="session")
def scans(
    tmp_path_factory: pytest.TempPathFactory, two_models: dict[str, Path], scan_of: Callable[..., Path]
) -> dict[str, Path]:
    """The scans of both models: nothing in the clean one, stop to yield in the poisoned one."""
    folder = tmp_path_factory.mktemp("scans")
    with small_world():
        return {
            kind: scan_of(model, folder / kind, flag=kind == "poisoned") for kind, model in two_models.items()
        }


@pytest.fixture(scope="session")
def both(scans: dict[str, Path]) -> list[Any]:
    """The arguments of report.py for both scans."""
    return ["--clean", scans["clean"], "--poisoned", scans["poisoned"]]


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory, both: list[Any]) -> Path:
    """The report of the story: nothing in the clean model, stop to yield in the poisoned one."""
    folder = tmp_path_factory.mktemp("page")
    with small_world():
        fine(run_in(folder, report, *both))
    return folder / "report.html"
