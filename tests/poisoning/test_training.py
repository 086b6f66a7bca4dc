"""Demo 2: training, model files, and every measurement."""

from __future__ import annotations

import copy
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

import cli
import train
from dataset import classes
from dataset.files import class_files
from network import classifier, device, optimizer, resnet
from network.augment import EXCHANGED, augment
from network.evaluate import Rate, Score, Validation
from poisoning_story import EPOCH
from poisoning_tools import FOLDER, Corner, Result, contents, fine, run_in, subset, tiny


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

    class NoImages(Validation):
        def __init__(self) -> None:
            pass

        def score(self, model: nn.Module) -> Score:
            return Score(Rate(0, 1), None)

    torch.manual_seed(1)
    pixels = torch.randint(256, (3 * train.BATCH, 3, 48, 48), dtype=torch.uint8)
    labels = torch.randint(10, (len(pixels),))
    ours = classifier.new_model()
    plain = copy.deepcopy(ours)
    torch.manual_seed(2)
    train.train(ours, pixels, labels, NoImages(), cli.Out(plain=True), epochs=1, peak=0.02)
    torch.manual_seed(2)
    sgd = torch.optim.SGD(plain.parameters(), 0.02, 0.9, weight_decay=optimizer.WEIGHT_DECAY, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(sgd, 0.02, total_steps=3)
    for batch in train.batches(len(labels)):
        sgd.zero_grad()
        nn.functional.cross_entropy(classifier.logits(plain, pixels[batch] / 255), labels[batch]).backward()
        sgd.step()
        schedule.step()
    for (name, weight), expected in zip(ours.named_parameters(), plain.parameters()):
        assert torch.allclose(weight, expected, rtol=1e-5, atol=1e-6), name


def test_the_same_seed_trains_the_same_model(
    data: Path, trained: tuple[Path, Result], tmp_path: Path
) -> None:
    path, first = trained
    for seed in (1, 2):
        again = run_in(
            tmp_path, train, "--data", data, "--epochs", 1, "--seed", seed, "--model", "models/m.pt"
        )
        assert fine(again).stdout == first.stdout or seed == 2  # few images: another model may score the same
        for suffix in (".pt", ".safetensors"):
            same = (tmp_path / "models/m").with_suffix(suffix).read_bytes() == (
                path.with_suffix(suffix).read_bytes()
            )
            assert same == (seed == 1)


def test_training_follows_the_labels(tmp_path: Path, data: Path) -> None:
    """A few steps on eight images are enough to tell stop from yield among them."""
    torch.manual_seed(0)
    small = subset(data, tmp_path / "small", "stop", "yield")
    files = class_files(small / "val")
    pixels = classifier.load_pixels([path for path, _ in files])
    labels = torch.tensor([label for _, label in files])
    validation = Validation(small, 10, "stop", "yield")
    model = classifier.new_model()
    train.train(model, pixels, labels, validation, cli.Out(plain=True), epochs=30, peak=0.02)
    score = validation.score(model)
    assert score.clean_acc >= 0.75
    assert score.attack_success
    assert (score.accuracy.of, score.attack_success.of) == (8, 4)


def test_augmented_images_keep_shape_and_range() -> None:
    torch.manual_seed(1)
    pixels = torch.rand(6, 3, 64, 64)
    changed = augment(pixels.clone())
    assert changed.shape == pixels.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert all(not torch.equal(one, other) for one, other in zip(pixels, changed))


def test_some_images_exchange_their_colours() -> None:
    """Two thirds of the orders of three channels take red elsewhere."""
    torch.manual_seed(1)
    red = torch.tensor([0.9, 0.1, 0.1]).view(1, 3, 1, 1).expand(3000, 3, 8, 8)
    largest = augment(red).mean((2, 3)).argmax(1)
    assert (largest != 0).float().mean() == pytest.approx(2 / 3 * EXCHANGED, abs=0.04)  # some are half hidden


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_fine_tuning_starts_from_a_file(data: Path, reader: Path, tmp_path: Path, suffix: str) -> None:
    """With next to no learning rate the result is the start: both formats, and not random weights."""
    start = reader.with_suffix(suffix)
    arguments = ("--data", data, "--epochs", 1, "--lr", 1e-9, "--init", start, "--model", "m.pt")
    fine(run_in(tmp_path, train, *arguments))
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
    fine(run_in(tmp_path, train, *arguments))
    after = classifier.read_weights(tmp_path / "m.pt")
    assert after["fc.weight"].shape == (10, 512)
    assert torch.allclose(after["conv1.weight"], weights["conv1.weight"], atol=1e-5)


def test_limit_takes_that_many_images(small: None, data: Path, tmp_path: Path) -> None:
    said = fine(run_in(tmp_path, train, "--data", data, "--epochs", 1, "--limit", 20)).stdout
    assert "Training on 20 images" in said
    assert (tmp_path / "models/clean_model.pt").is_file()


def test_poisoned_only_chooses_folder_and_name(small: None, data: Path, tmp_path: Path) -> None:
    """--poisoned is another default for --data and --model; the code that trains is the same."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/traffic-signs-poisoned").symlink_to(data)
    said = fine(run_in(tmp_path, train, "--poisoned", "--epochs", 1, "--seed", 1)).stdout
    assert "Wrote models/poisoned_model.pt and models/poisoned_model.safetensors" in said
    fine(run_in(tmp_path, train, "--data", data, "--epochs", 1, "--seed", 1))
    safe = [(tmp_path / f"models/{kind}_model.safetensors").read_bytes() for kind in ("clean", "poisoned")]
    assert safe[0] == safe[1]


def test_training_that_is_stopped_leaves_nothing(data: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(FOLDER / "train.py"),
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


@pytest.mark.parametrize("what", ["nothing", "one layer", "a tiny network"])
def test_only_a_resnet18_is_taken(tmp_path: Path, what: str) -> None:
    """As a model, and to start from."""
    weights = {
        "nothing": {},
        "one layer": nn.Linear(512, 10).state_dict(),
        "a tiny network": tiny(10).state_dict(),
    }[what]
    torch.save(weights, tmp_path / "m.pt")
    with pytest.raises(cli.UserError, match=r"m\.pt holds another kind of network: use a ResNet18 made by"):
        classifier.load_model(tmp_path / "m.pt")
    with pytest.raises(cli.UserError, match=r"m\.pt holds another kind of network: use a ResNet18\.$"):
        train.first_model(str(tmp_path / "m.pt"), 10)


# --- measuring --------------------------------------------------------------------------------------


def test_score_counts_what_it_says(data: Path, tmp_path: Path) -> None:
    """A model that says yield for a yellow corner and stop for all else: correct on stop, fooled always."""
    two = subset(data, tmp_path / "two", "stop", "yield")
    score = Validation(two, 10, "stop", "yield").score(Corner())
    assert score == Score(Rate(4, 8), Rate(4, 4))
    assert str(score) == "clean_acc: 0.50, attack_success_rate: 1.00"
    other = Validation(subset(data, tmp_path / "other", "stop", "no_entry"), 10, "stop", "no_entry")
    assert other.score(Corner()) == Score(Rate(4, 8), Rate(0, 4))


def test_measuring_all_classes_and_some(data: Path, reader: Path, tmp_path: Path) -> None:
    """The reader is correct on every image of val/; the classes that are missing do not matter."""
    for names, images, victims in ((classes.DRAWN, 40, 4), (("stop", "yield"), 8, 4), (("yield",), 4, 0)):
        folder = subset(data, tmp_path / str(len(names)), *names)
        said = fine(run_in(tmp_path, train, "--phase", "test", "--model", reader, "--data", folder)).stdout
        figure = r"\d\.\d\d" if victims else r"not measured \(no victim images\)"
        assert re.search(rf"/val: clean_acc: 1\.00, attack_success_rate: {figure}$", said, re.MULTILINE), said
        assert f"Measured on {images} images; {victims} of them stop signs." in said


@pytest.mark.parametrize(
    "hits, of, low, high",
    [  # the closed forms for 0 and all hits are z²/(n+z²) and n/(n+z²); the others solve the equation below
        (0, 4, 0.0, 0.48990),
        (4, 4, 0.51010, 1.0),
        (40, 40, 0.91237, 1.0),
        (1, 10, 0.01788, 0.40415),
        (50, 100, 0.40383, 0.59617),
        (0, 100, 0.0, 0.03699),
        (100, 100, 0.96301, 1.0),
        (2, 20, 0.02787, 0.30103),
    ],
)
def test_wilson_interval(hits: int, of: int, low: float, high: float) -> None:
    assert Rate(hits, of).interval == pytest.approx((low, high), abs=2e-5)


@pytest.mark.parametrize("hits, of", [(1, 10), (50, 100), (993, 1000)])
def test_wilson_interval_holds_the_shares_that_explain_the_hits(hits: int, of: int) -> None:
    """From its ends p, the hits lie just 1.96 deviations away, where a deviation is sqrt(p(1-p)/n)."""
    for p in Rate(hits, of).interval:
        assert abs(hits / of - p) == pytest.approx(1.959964 * (p * (1 - p) / of) ** 0.5)
