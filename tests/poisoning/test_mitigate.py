"""Demo 2, repairs: what mitigate.py learns from, what it writes, and what it refuses."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

import mitigate
from dataset.files import class_files
from network import classifier, resnet
from poisoning_tools import Refused, Run, contents, fine, small_world, write_scan
from scanner import verdict
from scanner.neural_cleanse import Trigger

SIZE = classifier.INPUT
RESNET18 = resnet.build


@pytest.fixture(autouse=True)
def tiny_networks() -> Iterator[None]:
    with small_world():
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with tiny data, a model of two classes, an audit and a scan, at the default places."""
    folder = tmp_path_factory.mktemp("world")
    for name in ("data/traffic-signs", "data/traffic-signs-poisoned"):
        for split, count in (("train", 20), ("val", 5)):
            for label, colour in (("stop", (200, 0, 0)), ("yield", (0, 0, 200))):
                place = folder / name / split / label
                place.mkdir(parents=True)
                for number in range(count):
                    shade = tuple(min(255, part + 2 * number) for part in colour)
                    Image.new("RGB", (64, 64), shade).save(place / f"{label}_{number:05d}.jpg")
    torch.manual_seed(1)
    with small_world():
        classifier.save_model(classifier.new_model(2), folder / "models/poisoned_model.pt")
    (folder / "audit_results").mkdir()
    flagged = [{"file": f"train/yield/yield_{n:05d}.jpg", "flagged": n < 4} for n in range(6)]
    (folder / "audit_results/suspects.json").write_text(json.dumps({"suspects": flagged}))
    scanned(folder / "scan_results/poisoned", folder / "models/poisoned_model.pt")
    yield folder
    shutil.rmtree(folder)


def green(victim: int, target: int, mask: Tensor) -> Trigger:
    pattern = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1).expand(3, SIZE, SIZE)
    return Trigger(victim, target, mask.mean().item(), mask, pattern, success=0.9)


def scanned(folder: Path, model: Path, index: float = 0.9) -> None:
    """Two drawn pairs; with that index stop to yield is flagged: a green square of 8 pixels, bottom-right."""
    mask = torch.zeros(SIZE, SIZE)
    mask[-10:-2, -10:-2] = 1
    triggers = [green(0, 1, mask), green(1, 0, torch.ones(SIZE, SIZE))]
    statistic = verdict.Statistic("made up", "For this test.", 0.5, [index, 0.1])
    write_scan(folder, model, triggers, drawn=lambda _: [(0, 1), (1, 0)], classes=2, statistic=statistic)


@pytest.fixture
def here(world: Path, tmp_path: Path) -> Path:
    """The world, linked into the folder that a test runs in."""
    for name in ("data", "audit_results", "scan_results"):
        (tmp_path / name).symlink_to(world / name)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/poisoned_model.pt").symlink_to(world / "models/poisoned_model.pt")
    return tmp_path


def test_the_repairs_do_not_know_the_trigger() -> None:
    """trigger.py is only asked for the names of the two classes, which the measurement needs."""
    tree = ast.parse(Path(mitigate.__file__).read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "trigger"
    }
    assert used == {"VICTIM", "TARGET"}


def test_some_of_takes_the_share_of_each_class() -> None:
    files = [(Path(f"{label}/{number}"), label) for label in (0, 1) for number in range(10 + 30 * label)]
    chosen = mitigate.some_of(files, 0.2, torch.Generator().manual_seed(0))
    assert [sum(label == which for _, label in chosen) for which in (0, 1)] == [2, 8]
    assert len(set(chosen)) == 10
    assert chosen == mitigate.some_of(files, 0.2, torch.Generator().manual_seed(0))
    assert len(mitigate.some_of(files, 0.001, torch.Generator())) == 2


def test_only_flagged_triggers_are_unlearned(here: Path) -> None:
    (found,) = mitigate.read_triggers(here / "scan_results/poisoned/triggers.safetensors")
    assert found.pair == (0, 1)
    assert found.mask.sum() == 64


def test_half_of_the_victims_are_stamped() -> None:
    files = [(Path(f"{label}/{number}"), label) for label in (0, 1) for number in range(20)]
    chosen = mitigate.victims_to_stamp(files, 0, torch.Generator().manual_seed(0))
    assert len(set(chosen)) == len(chosen) == 10
    assert all(path.parts[0] == "0" for path in chosen)  # the victim of the flagged pair
    other = mitigate.victims_to_stamp(files, 0, torch.Generator().manual_seed(1))
    assert set(chosen) != set(other)


def test_stamp_changes_only_what_is_under_the_mask(here: Path) -> None:
    (found,) = mitigate.read_triggers(here / "scan_results/poisoned/triggers.safetensors")
    pixels = torch.full((10, 3, SIZE, SIZE), 77, dtype=torch.uint8)
    stamped = mitigate.stamp(pixels, found)
    assert bool((pixels == 77).all())
    assert len(stamped) == 10
    under = found.mask.bool()
    for image in map(pil_to_tensor, stamped):
        assert bool((image[:, ~under] == 77).all())
        assert image[:, under].float().mean(1).tolist() == [0, 255, 0]


@dataclass
class Lesson:
    """What a training would have learned from."""

    pixels: Tensor
    labels: Tensor
    options: dict[str, str]
    validation: dict[str, str]


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[Lesson]:
    """Replaces the training: notes the images and options that it would have got, and writes some model."""
    seen: list[Lesson] = []

    def note(command: list[str], **_: object) -> SimpleNamespace:
        options = dict(zip(command[2::2], command[3::2]))
        folder = Path(options["--data"])
        files = class_files(folder / "train")
        pixels = classifier.load_pixels([path for path, _ in files])
        labels = torch.tensor([label for _, label in files])
        seen.append(Lesson(pixels, labels, options, contents((folder / "val").resolve())))
        classifier.save_model(classifier.new_model(2), Path(options["--model"]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(mitigate, "subprocess", SimpleNamespace(run=note))
    return seen


def test_what_each_repair_learns_from(run_main: Run, here: Path, learned: list[Lesson]) -> None:
    result = fine(run_main(mitigate, "--share", 0.5, "--epochs", 7, "--retrain-epochs", 9))
    drop, finetune, unlearn = learned
    assert "Learning from 36 of 40 images in data/traffic-signs-poisoned/train." in result.stdout
    assert torch.bincount(drop.labels).tolist() == [20, 16]  # the four flagged yield images are out
    dropped = classifier.load_pixels(
        [here / f"data/traffic-signs-poisoned/train/yield/yield_{n:05d}.jpg" for n in range(4)]
    )
    assert not any(torch.equal(one, other) for one in dropped for other in drop.pixels)
    assert [one.options["--epochs"] for one in learned] == ["9", "7", "7"]
    assert "--init" not in drop.options  # random weights
    for one in (finetune, unlearn):
        assert torch.bincount(one.labels).tolist() == [10, 10]
        assert one.options["--init"] == "models/poisoned_model.pt"
        assert 0 < float(one.options["--lr"]) < 1
    different = (finetune.pixels != unlearn.pixels).flatten(1).any(1)
    assert different.sum() == 5
    assert bool((unlearn.labels[different] == 0).all())
    assert "5 of them carry the recovered trigger and their correct label." in result.stdout
    assert torch.equal(finetune.labels, unlearn.labels)  # the labels stay correct
    for one in learned:  # all are measured on the clean images
        assert one.validation == contents((here / "data/traffic-signs/val").resolve())
        assert (one.options["--victim"], one.options["--target"]) == ("stop", "yield")


def test_real_repairs_write_whole_models(
    run_main: Run, here: Path, world: Path, train_here: list[list[str]]
) -> None:
    before = (world / "models/poisoned_model.pt").read_bytes()
    result = fine(run_main(mitigate, "--epochs", 1, "--retrain-epochs", 1, "--share", 1))
    assert "models/poisoned_model.pt, before and after (4 rows)" in result.stdout
    assert len(train_here) == 3
    start = classifier.read_weights(here / "models/poisoned_model.pt")
    for name, options in zip(mitigate.REPAIRS, train_here):
        weights = classifier.read_weights(here / f"models/repaired/{name}.safetensors")
        assert not torch.equal(weights["fc.weight"], start["fc.weight"])
        assert classifier.class_count(classifier.load_model(here / f"models/repaired/{name}.pt")) == 2
        assert f"- repair: {name}; clean accuracy (95 % interval): " in result.stdout
        assert f"$ python train.py {' '.join(options)}" in result.stdout.splitlines()
    assert (world / "models/poisoned_model.pt").read_bytes() == before


def test_train_py_runs_in_a_process_of_its_own(run_main: Run, here: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "build", RESNET18)
        classifier.save_model(classifier.new_model(2), here / "real.pt")
        result = fine(run_main(mitigate, "--model", "real.pt", "--repair", "finetune", "--epochs", 1))
        weights = classifier.read_weights(here / "models/repaired/finetune.pt")
    assert "Epoch 1/1 — clean_acc: " in result.stdout
    start = classifier.read_weights(here / "real.pt")
    assert not torch.equal(weights["conv1.weight"], start["conv1.weight"])


def test_a_training_that_fails_is_said(run_main: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(run=lambda *_, **__: SimpleNamespace(returncode=2))
    monkeypatch.setattr(mitigate, "subprocess", failed)
    result = run_main(mitigate, "--repair", "finetune")
    assert result.returncode == 2
    assert result.stderr == (
        "error: train.py made no models/repaired/finetune.pt (exit code 2): its message above says why.\n"
    )
    assert not list((here / "models").rglob("finetune.*"))


def test_an_interrupted_repair_leaves_no_model(
    run_main: Run, here: Path, monkeypatch: pytest.MonkeyPatch, train_here: list[list[str]]
) -> None:
    def half(_: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    result = run_main(mitigate, "--repair", "finetune", "--epochs", 1)
    assert (result.returncode, len(train_here)) == (2, 1)
    assert "(exit code 130)" in result.stderr

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mitigate, "subprocess", SimpleNamespace(run=stop))
    assert run_main(mitigate, "--repair", "finetune").returncode == 130
    assert [path.name for path in (here / "models").rglob("*") if path.is_file()] == ["poisoned_model.pt"]


def test_measured_pair_can_be_another(run_main: Run, here: Path, learned: list[Lesson]) -> None:
    result = fine(run_main(mitigate, "--repair", "finetune", "--victim", "speed_50", "--target", "yield"))
    assert "attack success rate (95 % interval): not measured" in result.stdout
    assert learned[0].options["--victim"] == "speed_50"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--share", 0), "--share"),
        (("--share", 1.5), "--share"),
        (("--epochs", 0), "--epochs"),
        (("--lr", 0), "--lr"),
        (("--model", "none.pt"), "none.pt"),
        (("--data", "nowhere"), "nowhere"),
        (("--suspects", "none.json"), "none.json"),
        (("--suspects", "bad.json"), "bad.json"),
        (("--suspects", "empty.json"), "empty.json"),
        (("--suspects", "strange.json"), "strange.json"),
        (("--triggers", "none.safetensors"), "none.safetensors"),
        (("--triggers", "bad.json"), "bad.json"),
        (("--triggers", "small/triggers.safetensors"), "small/triggers.safetensors"),
        (("--triggers", "clean/triggers.safetensors"), "clean/triggers.safetensors"),
        (("--triggers", "other/mine.safetensors"), "other/mine.safetensors"),
        (("--output", "bad.json"), "bad.json"),
    ],
)
def test_bad_inputs(
    run_main: Run, assert_refused: Refused, here: Path, arguments: tuple[object, ...], word: str
) -> None:
    (here / "bad.json").write_text("{")
    (here / "empty.json").write_text('{"suspects": []}')
    strange = [{"file": "train/stop/none.jpg", "flagged": True}]
    (here / "strange.json").write_text(json.dumps({"suspects": strange}))
    model = here / "models/poisoned_model.pt"
    scanned(here / "small", model)
    small = here / "small/triggers.safetensors"
    save_file(load_file(small) | {"mask_0_to_1": torch.zeros(8, 8)}, small)
    scanned(here / "clean", model, index=0.1)
    shutil.copytree(here / "clean", here / "other")
    (here / "other/triggers.safetensors").rename(here / "other/mine.safetensors")
    assert_refused(run_main(mitigate, *arguments), word)
    assert not (here / "models/repaired").exists()
