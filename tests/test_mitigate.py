"""Demo 2, repairs: what mitigate.py learns from, what it writes, and what it refuses."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import classifier
import cli
import mitigate
import train
from classes import NAMES

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]
Refused = Callable[..., None]
SIZE = classifier.INPUT


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
    classifier.save_model(classifier.new_model(2), folder / "models/poisoned_model.pt")
    (folder / "audit_results").mkdir()
    flagged = [{"file": f"train/yield/yield_{n:05d}.jpg", "flagged": n < 4} for n in range(6)]
    (folder / "audit_results/suspects.json").write_text(json.dumps({"suspects": flagged}))
    write_scan(folder / "scan_results/poisoned")
    yield folder
    shutil.rmtree(folder)


def write_scan(folder: Path, **changed: Tensor) -> None:
    """Two drawn pairs, of which scan.json flags stop to yield: a green square of 8 pixels, bottom-right."""
    folder.mkdir(parents=True, exist_ok=True)
    mask = torch.zeros(SIZE, SIZE)
    mask[-10:-2, -10:-2] = 1
    green = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1).expand(3, SIZE, SIZE).contiguous()
    tensors = {
        "mask_0_to_1": mask,
        "pattern_0_to_1": green,
        "mask_1_to_0": torch.ones(SIZE, SIZE),
        "pattern_1_to_0": green.clone(),
    }
    save_file(tensors | changed, folder / "triggers.safetensors")
    pairs = [
        {"victim": "stop", "target": "yield", "flagged": True},
        {"victim": "yield", "target": "stop", "flagged": False},
    ]
    (folder / "scan.json").write_text(json.dumps({"pairs": pairs}))


@pytest.fixture
def here(world: Path, tmp_path: Path) -> Path:
    """The world, linked into the folder that a test runs in."""
    for name in ("data", "audit_results", "scan_results"):
        (tmp_path / name).symlink_to(world / name)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/poisoned_model.pt").symlink_to(world / "models/poisoned_model.pt")
    return tmp_path


def test_the_repairs_do_not_know_the_sticker() -> None:
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
    stickers = mitigate.read_triggers(here / "scan_results/poisoned/triggers.safetensors")
    assert list(stickers) == [0]
    assert stickers[0][0].sum() == 64


def test_stamp_changes_a_share_and_only_under_the_mask(here: Path) -> None:
    stickers = mitigate.read_triggers(here / "scan_results/poisoned/triggers.safetensors")
    pixels = torch.full((40, 3, SIZE, SIZE), 77, dtype=torch.uint8)
    labels = torch.arange(2).repeat(20)
    stamped = mitigate.stamp(pixels, labels, stickers, torch.Generator().manual_seed(0))
    assert bool((pixels == 77).all())
    changed = (stamped != pixels).flatten(1).any(1)
    assert changed.sum() == 10
    assert bool((labels[changed] == 0).all())  # the victim of the flagged pair
    under = stickers[0][0].bool()
    for picture in stamped[changed]:
        assert bool((picture[:, ~under] == 77).all())
        assert picture[:, under].float().mean(1).tolist() == [0, 255, 0]


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor, int]]:
    """Replaces the training: notes pixels, labels and epochs that it would have got."""
    seen: list[tuple[Tensor, Tensor, int]] = []

    def note(
        model: nn.Module,
        pixels: Tensor,
        labels: Tensor,
        validation: train.Validation,
        _: cli.Out,
        *,
        epochs: int,
        peak: float,
    ) -> train.Score:
        assert 0 < peak < 1
        seen.append((pixels, labels, epochs))
        return validation.score(model)

    monkeypatch.setattr(train, "train", note)
    return seen


def test_what_each_repair_learns_from(
    run_main: Run, here: Path, learned: list[tuple[Tensor, Tensor, int]]
) -> None:
    result = run_main(mitigate, "--share", 0.5, "--epochs", 7, "--retrain-epochs", 9)
    assert result.returncode == 0, result.stderr
    drop, finetune, unlearn = learned
    assert "Learning from 36 of 40 pictures in data/traffic-signs-poisoned/train." in result.stdout
    assert torch.bincount(drop[1]).tolist() == [20, 16]  # the four flagged yield pictures are out
    dropped = classifier.load_pixels(
        [here / f"data/traffic-signs-poisoned/train/yield/yield_{n:05d}.jpg" for n in range(4)]
    )
    assert not any(torch.equal(one, other) for one in dropped for other in drop[0])
    assert (drop[2], finetune[2], unlearn[2]) == (9, 7, 7)
    for _, labels, _ in (finetune, unlearn):
        assert torch.bincount(labels).tolist() == [10, 10]
    different = (finetune[0] != unlearn[0]).flatten(1).any(1)
    assert different.sum() == 5
    assert "5 of them carry the recovered trigger and their right label." in result.stdout
    assert torch.equal(finetune[1], unlearn[1])  # the labels stay right


def test_real_repairs_write_whole_models(run_main: Run, here: Path, world: Path) -> None:
    before = (world / "models/poisoned_model.pt").read_bytes()
    result = run_main(mitigate, "--epochs", 1, "--retrain-epochs", 1, "--share", 1)
    assert result.returncode == 0, result.stderr
    assert "models/poisoned_model.pt, before and after (4 rows)" in result.stdout
    start = classifier.read_weights(here / "models/poisoned_model.pt")
    for name in mitigate.REPAIRS:
        weights = classifier.read_weights(here / f"models/repaired/{name}.safetensors")
        assert not torch.equal(weights["fc.weight"], start["fc.weight"])
        assert classifier.class_count(classifier.load_model(here / f"models/repaired/{name}.pt")) == 2
        assert f"- repair: {name}; clean accuracy (95 % interval): " in result.stdout
    assert (world / "models/poisoned_model.pt").read_bytes() == before
    assert sorted(path.name for path in here.rglob(".*")) == []
    shutil.rmtree(here / "models/repaired")


def test_an_interrupted_repair_leaves_no_model(
    run_main: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train", stop)
    assert run_main(mitigate, "--repair", "finetune").returncode == 130
    monkeypatch.undo()
    monkeypatch.chdir(here)

    def half(_: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    assert run_main(mitigate, "--repair", "finetune", "--epochs", 1).returncode == 130
    assert [path.name for path in (here / "models").rglob("*") if path.is_file()] == ["poisoned_model.pt"]


def test_measured_pair_can_be_another(run_main: Run, here: Path) -> None:
    result = run_main(
        mitigate, "--repair", "finetune", "--epochs", 1, "--victim", "speed_50", "--target", "yield"
    )
    assert result.returncode == 0, result.stderr
    assert "attack success rate (95 % interval): not measured" in result.stdout
    shutil.rmtree(here / "models/repaired")


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
    write_scan(here / "small", mask_0_to_1=torch.zeros(8, 8))
    write_scan(here / "clean")
    pairs = [{"victim": NAMES[0], "target": NAMES[1], "flagged": False}]
    (here / "clean/scan.json").write_text(json.dumps({"pairs": pairs}))
    assert_refused(run_main(mitigate, *arguments), word)
    assert not (here / "models/repaired").exists()
