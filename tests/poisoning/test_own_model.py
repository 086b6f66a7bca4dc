"""Demo 2: networks and checkpoints that nobody here made, scanned with detect.py --arch.

The layouts are those of public training scripts, rebuilt with small networks: nothing of them is downloaded.
"""

from __future__ import annotations

import argparse
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

import cli
import detect
from dataset import names as class_names
from dataset.files import class_files
from network import adapter, checkpoint, classifier
from network.adapter import Network
from poisoning_tools import Refused, Run, contents, made_up, ordinary, summarized
from scanner import foreign, result, verdict
from scanner.result import ScanResult
from scanner.search import Settings

SIZE = 32
HALF = ("--mean", 0.5, 0.5, 0.5, "--std", 0.5, 0.5, 0.5)
MINE = ("--arch", "resnet18", "--input", SIZE, *HALF)
SMALL = Network("squeezenet1_1", SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

Weights = dict[str, Tensor]


@pytest.fixture(scope="session")
def fire() -> Weights:
    """The weights of a small network of five classes."""
    torch.manual_seed(0)
    return dict(models.squeezenet1_1(num_classes=5).state_dict())


@pytest.fixture(scope="session")
def mine(tmp_path_factory: pytest.TempPathFactory, paint: Path) -> Path:
    """A ResNet18 that classifies `paint` in the order of ImageFolder: its last layer is solved."""
    torch.manual_seed(0)
    known = sorted(path.name for path in (paint / "val").iterdir())
    files = class_files(paint / "val", len(known), known)
    pixels = classifier.load_pixels([path for path, _ in files], size=SIZE).float() / 255
    labels = torch.tensor([label for _, label in files])
    net = models.resnet18(num_classes=len(known)).eval()
    last, net.fc = net.fc, nn.Identity()
    with torch.no_grad():
        seen = net((pixels - 0.5) / 0.5).double()
        middle = seen.mean(0)
        wanted = 12.0 * nn.functional.one_hot(labels).double()
        last.weight.copy_((torch.linalg.pinv(seen - middle) @ (wanted - wanted.mean(0))).T)
        last.bias.copy_(wanted.mean(0) - last.weight.double() @ middle)
    net.fc = last
    path = tmp_path_factory.mktemp("mine") / "mine.pth.tar"
    torch.save({"state_dict": with_prefix("module.", net.state_dict()), "arch": "resnet18"}, path)
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[object], Path]:
    def save(content: object, name: str = "mine.pth") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def with_prefix(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: value for name, value in weights.items()}


def doubled(weights: Weights) -> Weights:
    return {name: 2 * value for name, value in weights.items()}


def renamed(weights: Weights, **other: str) -> Weights:
    """The last layer under another name."""
    return {name.replace("classifier.1", other["last"]): value for name, value in weights.items()}


def optimizer(weights: Weights) -> dict[str, Any]:
    return torch.optim.SGD([nn.Parameter(next(iter(weights.values())))], 0.1, momentum=0.9).state_dict()


# --- checkpoints as people save them ----------------------------------------------------------------

LAYOUTS: dict[str, Callable[[Weights], object]] = {
    "state dict": lambda w: w,
    "examples/imagenet": lambda w: {
        "epoch": 90,
        "arch": "squeezenet1_1",
        "state_dict": with_prefix("module.", w),
        "best_acc1": torch.tensor(71.0),
        "optimizer": optimizer(w),
        "scheduler": {"last_epoch": 90, "_last_lr": [0.1]},
    },
    "PyTorch's recipe": lambda w: {
        "epoch": 5,
        "model_state_dict": w,
        "optimizer_state_dict": {},
        "loss": 0.4,
    },
    "pytorch-cifar": lambda w: {"net": with_prefix("module.", w), "acc": 93.1, "epoch": 199},
    "fastai": lambda w: {"model": w, "opt": {"state": [], "hypers": [{"lr": 0.001}]}},
    "Lightning": lambda w: {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": with_prefix("model.", w) | {"criterion.weight": torch.ones(5)},
        "hyper_parameters": {"lr": 0.001},
        "optimizer_states": [optimizer(w)],
    },
    "torch.compile": lambda w: {"model": with_prefix("_orig_mod.", w)},
    "torch.compile and DataParallel": lambda w: with_prefix("module._orig_mod.", w),
    "BackdoorBench": lambda w: {
        "model_name": "squeezenet1_1",
        "num_classes": 5,
        "model": w,
        "data_path": "data/cifar10",
        "img_size": (32, 32, 3),
        "bd_train": {"bd_data_container": {"save_path": "record"}},
    },
    "two levels down": lambda w: {"checkpoint": {"model": {"state_dict": with_prefix("net.", w)}}},
    "average of weights": lambda w: {"n_averaged": torch.tensor(3)} | with_prefix("module.", w),
    "half precision": lambda w: {name: value.half() for name, value in w.items()},
    "bfloat16": lambda w: {"state_dict": {name: value.bfloat16() for name, value in w.items()}},
    "counted by thop": lambda w: w | {"total_ops": torch.zeros(1), "features.0.total_params": torch.zeros(1)},
    "last layer in a Sequential": lambda w: renamed(w, last="classifier.2"),
    "mmpretrain": lambda w: {
        "meta": {"epoch": 100},
        "state_dict": {
            ("head." if name.startswith("classifier") else "backbone.") + name: value
            for name, value in w.items()
        },
    },
    "the same weights twice": lambda w: {"state_dict": with_prefix("model.", w) | with_prefix("net.", w)},
    "tensors that are parameters": lambda w: {name: nn.Parameter(value) for name, value in w.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_public_training_scripts(
    layout: str, fire: Weights, saved: Callable[[object], Path]
) -> None:
    model, _ = checkpoint.load(saved(LAYOUTS[layout](fire)), SMALL)
    assert model.classes == 5
    exact = {"half precision": 1e-2, "bfloat16": 1e-1}.get(layout, 0)
    for name, value in model.net.state_dict().items():
        theirs = fire[name].to(value.dtype).float()  # the network itself may compute in bfloat16
        assert (value.float() - theirs).abs().max() <= exact


def test_safetensors_as_hubs_have_them(fire: Weights, tmp_path: Path) -> None:
    save_file({name: value.half() for name, value in fire.items()}, tmp_path / "model.safetensors")
    assert checkpoint.load(tmp_path / "model.safetensors", SMALL)[0].classes == 5


def test_two_sets_of_weights_are_two_models(fire: Weights, saved: Callable[[object], Path]) -> None:
    """torchvision's own script saves an average beside the weights: only the user knows which one is used."""
    average = {"n_averaged": torch.tensor(3)} | with_prefix("module.", doubled(fire))
    path = saved({"model": fire, "model_ema": average})
    with pytest.raises(cli.UserError, match=r"2 sets .*--weights model or --weights model_ema.module"):
        checkpoint.load(path, SMALL)
    plain, other = (checkpoint.load(path, SMALL, place)[0].net for place in ("model", "model_ema.module"))
    some, others = (net.get_parameter("classifier.1.bias") for net in (plain, other))
    assert torch.allclose(2 * some.float(), others.float(), rtol=0.02)
    with pytest.raises(cli.UserError, match="'nowhere'"):
        checkpoint.load(path, SMALL, "nowhere")


def test_a_place_is_shown_as_it_is_typed(fire: Weights, saved: Callable[[object], Path]) -> None:
    path = saved({"a\nb\x1b[2J": fire, "my model": doubled(fire)})
    with pytest.raises(cli.UserError) as refused:
        checkpoint.load(path, SMALL)
    assert str(refused.value).endswith(r"add --weights 'a\nb\x1b[2J' or --weights 'my model'.")
    checkpoint.load(path, SMALL, "my model")


def test_sparse_tensors_elsewhere_are_no_matter(fire: Weights, saved: Callable[[object], Path]) -> None:
    odd = {"graph": {"edges": torch.eye(3).to_sparse()}}
    assert checkpoint.load(saved({"model": fire} | odd), SMALL)[0].classes == 5


@pytest.mark.parametrize("arch", ["mnasnet0_5", "regnet_y_400mf", "swin_t"])
def test_families_with_needs_of_their_own(arch: str, tmp_path: Path) -> None:
    """Layers with a version, numbers asked for while it is built, whole numbers among the weights."""
    network = Network(arch, SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    torch.manual_seed(0)
    net = adapter.build(arch, 5, SIZE)
    for save in (torch.save, save_file):
        path = tmp_path / f"mine.{'pth' if save is torch.save else 'safetensors'}"
        save(net.state_dict(), path)
        model, _ = checkpoint.load(path, network)
        for name, value in net.state_dict().items():
            assert torch.equal(model.net.state_dict()[name], value.to(model.net.state_dict()[name].dtype))


def test_every_classifier_of_torchvision_has_names_and_shapes() -> None:
    """One of each family and size; the same families build the others."""
    for arch in models.list_models(module=models):
        if arch not in {"regnet_y_128gf", "regnet_y_32gf", "regnet_x_32gf"}:  # built in full, for seconds
            size = adapter.preset_size(arch)
            assert any(shape[:1] == (7,) for shape in adapter.shapes(arch, 7, size).values()), arch


def test_positions_that_were_changed_are_another_network(tmp_path: Path) -> None:
    """What Swin looks for its positions with is no weight, and in the file only by the way."""
    weights = adapter.build("swin_t", 5, SIZE).state_dict()
    weights["features.1.0.attn.relative_position_index"] += 1
    torch.save(weights, tmp_path / "mine.pth")
    with pytest.raises(cli.UserError, match=r"mine\.pth is no swin_t .*relative_position_index' differs"):
        checkpoint.load(tmp_path / "mine.pth", Network("swin_t", SIZE, (0, 0, 0), (1, 1, 1)))


def test_the_number_of_classes_hides_no_names(fire: Weights, saved: Callable[[object], Path]) -> None:
    known = {"a": 1, "b": 0, "c": 2, "d": 3, "e": 4}
    path = saved({"model": fire, "classes": 5, "class_to_idx": known})
    assert checkpoint.load(path, SMALL)[1] == known


def test_denselayers_are_found_by_the_names_of_older_files(saved: Callable[[object], Path]) -> None:
    """Those of the weights that torchvision itself publishes."""
    net = models.DenseNet(8, (1, 1), 8, num_classes=3)
    old = {
        name.replace("norm1.", "norm.1.").replace("conv1.", "conv.1.")
        if "denselayer" in name
        else name: value
        for name, value in net.state_dict().items()
    }
    assert any("denselayer1.norm.1.weight" in name for name in old)
    new = {checkpoint.OLD_DENSENET.sub(r"\1\2", name) for name in old}
    assert new == set(net.state_dict())


FIRST, LAST = "features.0.weight", "classifier.1.weight"
MISFITS: dict[str, Callable[[Weights], object]] = {
    "no tensors with names": lambda w: [1, 2],
    "holds no tensors with names": lambda w: {"epoch": 3},
    "'features.3.squeeze.bias' is missing": lambda w: without(w, "features.3.squeeze.bias"),
    "'classifier.1.weight' is missing, the last layer": lambda w: without(w, "classifier"),
    "'features.0.weight' is 64 x 1 x 3 x 3 in the file and 64 x 3 x 3 x 3": lambda w: (
        w | {FIRST: torch.zeros(64, 1, 3, 3)}
    ),
    "a layer more, 'attention.weight'": lambda w: w | {"attention.weight": torch.zeros(3, 3)},
    "'classifier.1.weight' is 9 x 512 in the file": lambda w: w | {LAST: torch.zeros(9, 512)},
    "ends in several layers": lambda w: renamed(w, last="head.0") | {"head.2.weight": torch.zeros(5, 5)},
    "int8, and is quantized": lambda w: w | {FIRST: torch.zeros(64, 3, 3, 3, dtype=torch.int8)},
    "two or more classes": lambda w: (
        w | {LAST: torch.zeros(1, 512, 1, 1), "classifier.1.bias": torch.zeros(1)}
    ),
    "'classifier.1.weight' as a sparse or nested tensor, or without values": lambda w: (
        w | {LAST: w[LAST].to_sparse()}
    ),
    "'features.0.weight' as a sparse or nested tensor": lambda w: w | {FIRST: w[FIRST].to("meta")},
    "infinite or not a number": lambda w: w | {"classifier.1.bias": torch.full((5,), torch.nan)},
}


def without(weights: Weights, start: str) -> Weights:
    return {name: value for name, value in weights.items() if not name.startswith(start)}


@pytest.mark.parametrize("words", MISFITS)
def test_weights_that_do_not_fit(words: str, fire: Weights, saved: Callable[[object], Path]) -> None:
    with pytest.raises(cli.UserError) as refused:
        checkpoint.load(saved(MISFITS[words](fire)), SMALL)
    assert words in str(refused.value)
    assert "mine.pth" in str(refused.value)


def test_another_architecture_is_named(fire: Weights, saved: Callable[[object], Path]) -> None:
    older = models.squeezenet1_0(num_classes=5).state_dict()
    with pytest.raises(cli.UserError, match=r"weights of squeezenet1_1.*\(it looks like squeezenet1_0\)"):
        checkpoint.load(saved(older), SMALL)


class Whole(nn.Module):
    """A network of somebody's own, saved with all of its code's names."""


def torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)


def keras(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")


def saved_model(path: Path) -> None:
    path.mkdir()
    (path / "saved_model.pb").touch()


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "script.pt": (torchscript, "is TorchScript, which is not loaded here: load it where you trust it"),
    "m.onnx": (lambda p: p.write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x10"), "is ONNX"),
    "renamed.pt": (lambda p: p.write_bytes(b"\x08\x0a\x12\x07pytorch\x1a\x052.1.0:\x10"), "is ONNX"),
    "m.keras": (keras, "is Keras"),
    "m.h5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(90)), "is HDF5 (Keras)"),
    "m.tflite": (lambda p: p.write_bytes(b"\x1c\0\0\0TFL3" + bytes(90)), "is TensorFlow Lite"),
    "m.gguf": (lambda p: p.write_bytes(b"GGUF" + bytes(90)), "is GGUF"),
    "m.npz": (lambda p: np.savez(p, a=np.zeros(3)), "is NumPy"),
    "lfs.pt": (lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "saved": (saved_model, "is TensorFlow"),
    "whole.pt": (lambda p: torch.save(nn.Sequential(nn.Linear(2, 2)), p), "whole layers (torch.nn"),
    "own.pt": (lambda p: torch.save({"model": Whole()}, p), "asks for more than tensors"),
    "layers.pt": (lambda p: torch.save({"state_dict": {}, "classifier": nn.Linear(2, 2)}, p), "whole layers"),
    "args.pt": (lambda p: torch.save({"m": {}, "args": argparse.Namespace(lr=1)}, p), "--allow argparse."),
    "tensors.bin": (
        lambda p: save_file({"a": torch.zeros(3)}, p),
        "is misnamed: by what is in it, its name should end in .safetensors",
    ),
    "zip.safetensors": (lambda p: torch.save({"a": torch.zeros(3)}, p), "its name should end in .pt"),
    "old.safetensors": (
        lambda p: torch.save({"a": torch.zeros(3)}, p, _use_new_zipfile_serialization=False),
        "its name should end in .pt",
    ),
    "plain.pt": (lambda p: p.write_bytes(pickle.dumps({"a": [1.0]})), "is a plain pickle, and not of torch"),
    "numbers.pt": (lambda p: p.write_bytes(pickle.dumps({"a": np.zeros(3)})), "is a plain pickle"),
    "best.pt": (lambda p: torch.save({"model": {}, "best": np.float64(0.9)}, p), "--allow numpy."),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused_by_name(
    name: str, run_main: Run, assert_refused: Refused, tmp_path: Path, paint: Path
) -> None:
    make, words = OTHERS[name]
    make(tmp_path / name)
    before = contents(tmp_path)
    for options in (MINE, ()):  # as another network, and as one of ours
        ended = run_main(detect, "--model", name, "--data", paint, "--output", "new/scan", *options)
        assert_refused(ended, name, words)
    assert contents(tmp_path) == before


# --- bad input of the new options -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--input", 64], ["--input", "--arch"]),
        (["--classes", "x"], ["--classes", "--arch"]),
        (["--weights", "x"], ["--weights", "--arch"]),
        (["--mean", 0, 0, 0], ["--mean", "--arch"]),
        (["--std", 1, 1, 1], ["--std", "--arch"]),
        (["--arch", "resnet51"], ["resnet51", "resnet50"]),
        (["--arch", "ResNet-18x"], ["ResNet-18x", "resnet18"]),
        (["--arch", "fasterrcnn_resnet50_fpn"], ["not an image classifier of torchvision"]),
        (["--arch", ""], ["not an image classifier of torchvision"]),
        ([*MINE, "--input", 8], ["--input 8", "16"]),
        ([*MINE, "--input", 100000], ["--input 100000"]),
        ([*MINE, "--mean", "nan", 0, 0], ["--mean"]),
        ([*MINE, "--mean", 485, 456, 406], ["--mean", "0..1"]),
        ([*MINE, "--std", 0, 1, 1], ["--std"]),
        ([*MINE, "--std", "inf", 1, 1], ["--std"]),
        ([*MINE, "--classes", "missing.txt"], ["missing.txt"]),
        ([*MINE, "--classes", "."], ["cannot be read"]),
        ([*MINE, "--weights", "nowhere"], ["nowhere"]),
        ([*MINE, "--pairs", "stop:tram"], ["stop:tram"]),
        ([*MINE, "--victims", "tram"], ["tram"]),
        ([*MINE, "--draw", "stop:tram"], ["stop:tram"]),
        ([*MINE, "--data", "nowhere"], ["nowhere"]),
        ([*MINE, "--reference", "missing.pt"], ["missing.pt"]),
        (["--arch", "vit_b_16", "--input", 40], ["vit_b_16", "40 pixels"]),
        (["--arch", "resnet34", "--input", SIZE], ["weights of resnet34", "it looks like resnet18"]),
    ],
    ids=str,
)  # fmt: skip
def test_bad_options_are_refused_in_a_sentence(  # noqa: PLR0917
    options: list[object],
    words: list[str],
    run_main: Run,
    assert_refused: Refused,
    tmp_path: Path,
    mine: Path,
    paint: Path,
) -> None:
    ended = run_main(detect, "--model", mine, "--data", paint, "--output", "new/scan", *options)
    assert_refused(ended, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [["--mean", 0, 0], ["--input", "many"], ["--std", "x", "y", "z"]], ids=str
)
def test_wrong_usage(options: list[object], run_main: Run, tmp_path: Path) -> None:
    ended = run_main(detect, *options)
    assert ended.returncode == 2
    assert "error: " in ended.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a list of classes"),
        ("[]", "is not a list of classes"),
        ("{", "is not a list of classes"),
        ('{"a": 1, "b": 2}', "is not a list of classes"),
        ('["a", 2]', "is not a list of classes"),
        ("cat\ndog\ncat\n", "'cat' twice"),
        ("cat\ndo\x1bg\nbird", "cannot be printed"),
        ("cat\ndog\n", "knows 3 classes, and names.txt names 2"),
        ("cat\ndog\nbird\n", "is not named after a class: use cat, dog, bird"),
    ],
    ids=repr,
)
def test_bad_lists_of_classes(  # noqa: PLR0917
    text: str, words: str, run_main: Run, assert_refused: Refused, tmp_path: Path, mine: Path, paint: Path
) -> None:
    (tmp_path / "names.txt").write_text(text)
    arguments = ("--model", mine, "--data", paint, "--output", "new/scan", *MINE, "--classes", "names.txt")
    assert_refused(run_main(detect, *arguments), words)
    assert [path.name for path in tmp_path.iterdir()] == ["names.txt"]


@pytest.mark.parametrize(
    "text",
    [
        "b\na\nc\n",
        "\ufeffb\r\na\r\nc\r\n",
        '["b", "a", "c"]',
        '{"a": 1, "b": 0, "c": 2}',
        '{"0": "b", "2": "c", "1": "a"}',
        '{"0": ["b", "bee"], "1": ["a", "ant"], "2": ["c", "cat"]}',
    ],
)
def test_lists_of_classes_as_people_write_them(text: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_text(text, encoding="utf-8", newline="")
    assert class_names.from_file(tmp_path / "names") == ["b", "a", "c"]


def test_names_come_from_the_checkpoint_before_the_folders(tmp_path: Path) -> None:
    for name in ("dog", "Cat", "10", "9"):
        (tmp_path / "images" / name).mkdir(parents=True)
    assert class_names.from_folders(tmp_path / "images") == ["10", "9", "Cat", "dog"]  # as ImageFolder sorts
    options = argparse.Namespace(data=tmp_path / "images", classes=None, model=Path("m.pt"))
    model = argparse.Namespace(classes=4)
    assert foreign.names_of(options, model, []) == ["10", "9", "Cat", "dog"]
    noted = class_names.in_order({"dog": 0, "Cat": 1, "10": 2, "9": 3})
    assert foreign.names_of(options, model, noted) == ["dog", "Cat", "10", "9"]
    assert class_names.in_order(("a", "b")) == ["a", "b"]
    assert class_names.in_order(17) == class_names.in_order({"a": "b"}) == []


# --- the scan ---------------------------------------------------------------------------------------


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "scan/scan.json").read_text())
    return found


def test_a_real_search_in_another_network(run_main: Run, tmp_path: Path, mine: Path, paint: Path) -> None:
    """A short one: it says what it did and saved, and that this is no verdict. No val/ is needed."""
    short = ("--steps", 2, "--samples", 6, "--output", "scan", "--pairs", "stop:yield")
    ended = run_main(detect, "--model", mine, "--data", paint / "val", *MINE, *short)
    assert ended.returncode == 2, ended.stderr
    assert "54 of 54 are classified correctly" in ended.stdout
    assert "This takes about" in ended.stdout
    assert "FLAGGED" not in ended.stdout
    found = record(tmp_path)
    assert found["classes"] == sorted(found["classes"]) != found["classes"][:1]
    assert found["input_size"] == SIZE
    assert found["network"] == "resnet18, 32 pixels, mean 0.5 0.5 0.5, std 0.5 0.5 0.5"
    read = result.read(tmp_path / "scan")
    victim, target = read.pairs[0].numbers
    assert (read.classes[victim], read.classes[target]) == ("stop", "yield")
    assert (tmp_path / f"scan/trigger_{victim}_to_{target}.png").is_file()
    with pytest.raises(cli.UserError, match=r"about another network \(resnet18, 32 pixels"):
        result.read_triggers(tmp_path / "scan", read)


def test_a_wrong_normalisation_is_found_out(
    run_main: Run, assert_refused: Refused, tmp_path: Path, mine: Path, paint: Path
) -> None:
    wrong = ("--arch", "resnet18", "--input", SIZE, "--mean", 0, 0, 0, "--std", 0.02, 0.02, 0.02)
    ended = run_main(detect, "--model", mine, "--data", paint, "--output", "new/scan", *wrong)
    assert_refused(ended, "and 54 with another normalisation: give --mean 0.4")
    assert list(tmp_path.iterdir()) == []


def test_another_order_of_the_classes_is_found_out(
    run_main: Run, assert_refused: Refused, tmp_path: Path, mine: Path, paint: Path
) -> None:
    names = sorted(path.name for path in (paint / "val").iterdir())
    (tmp_path / "names.txt").write_text("\n".join(names[1:] + names[:1]))
    ended = run_main(detect, "--model", mine, "--data", paint, *MINE, "--classes", "names.txt")
    assert_refused(ended, "each class has an answer of its own", "--classes")


def test_two_classes_that_changed_places_are_found_out() -> None:
    """Most images are correct then, and two classes would be scanned under each other's name."""
    labels = torch.arange(10).repeat(5)
    swapped = torch.tensor([1, 0, *range(2, 10)])
    assert "--classes" in foreign.reordered(swapped[labels], labels)
    assert foreign.reordered(labels, labels) == ""
    unsure = labels.clone()
    unsure[labels == 4] = torch.tensor([4, 4, 3, 3, 3])
    assert foreign.reordered(unsure, labels) == ""


def test_many_pairs_are_refused_before_the_work() -> None:
    foreign.check_pairs([(0, 1)] * foreign.MOST_PAIRS)
    with pytest.raises(cli.UserError, match=r"9,900 pairs .*--pairs"):
        foreign.check_pairs([(0, 1)] * 9900)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.1, "1 seconds"), (119, "119 seconds"), (7100, "118 minutes"), (1e6, "12 days")]
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert foreign.in_words(seconds) == words


def test_large_images_are_asked_about_in_parts(monkeypatch: pytest.MonkeyPatch, fire: Weights) -> None:
    """The same answers, and never more images at once than fit into the memory."""
    net = models.squeezenet1_1(num_classes=5)
    net.load_state_dict(fire)
    model = adapter.Adapter(net, SMALL, 5)
    assert model.at_once > 1
    pixels = torch.rand(7, 3, SIZE, SIZE)
    seen = []
    net.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    with torch.no_grad():
        together = classifier.logits(model, pixels)
        model.at_once = 3
        parts = classifier.logits(model, pixels)
    assert seen == [7, 3, 3, 1]
    assert torch.allclose(together, parts, atol=0.05)
    monkeypatch.setattr(adapter, "MEMORY", 1)
    assert adapter.Adapter(net, SMALL, 5).at_once == 1


# --- no verdict without clean twins -----------------------------------------------------------------

OTHER = Settings(Path("images"), 100, 30, 0, names=("a", "b", "c", "d"), size=SIZE)


def judged(
    here: dict[tuple[int, int], float | None], *twins: dict[tuple[int, int], float | None]
) -> ScanResult:
    """The result of a made-up scan of another network, compared with these clean twins."""
    triggers = made_up(here)
    known = list(twins)
    statistic = verdict.by_references(triggers, known) if known else verdict.by_norms(triggers)
    return summarized(
        triggers, verdict.calibrated(statistic, triggers, known), classes=4, settings=OTHER, network=SMALL
    )


@pytest.mark.usefixtures("small")
def test_other_networks_get_a_verdict_only_from_clean_twins() -> None:
    small = ordinary(_2_3=0.005)
    alone = judged(small)
    assert (alone.verdict, alone.flagged, alone.near_threshold) == ("not calibrated", [], False)
    assert alone.largest is not None and alone.largest > alone.threshold
    assert "measured on ResNet18 networks of train.py" in alone.not_calibrated
    assert judged(small, ordinary()).verdict == "not calibrated"
    found = judged(small, ordinary(), ordinary(_0_1=0.12))
    assert (found.verdict, found.not_calibrated) == ("backdoor", "")
    assert [pair.numbers for pair in found.flagged] == [(2, 3)]
    assert [pair.name for pair in found.flagged] == ["c → d"]
    assert judged(ordinary(), ordinary(), ordinary()).verdict == "clean"


@pytest.mark.usefixtures("small")
def test_twins_that_differ_as_much_calibrate_nothing() -> None:
    found = judged(ordinary(), ordinary(), ordinary(_0_1=0.005))
    assert found.verdict == "not calibrated"
    assert "differ among themselves" in found.not_calibrated


@pytest.mark.usefixtures("small")
def test_a_scan_of_another_network_cannot_claim_more(tmp_path: Path) -> None:
    """Read back, it is the same; without its reasons it contradicts itself."""
    written = json.loads(judged(ordinary(_2_3=0.005)).to_json())
    assert ScanResult.from_json(json.dumps(written)).verdict == "not calibrated"
    assert "classes" not in written["pairs"][0]
    for change in (
        {"verdict": "clean"},
        {"verdict": "backdoor"},
        {"verdict": "clean", "not_calibrated": ""},
        {"verdict": "not calibrated", "network": "", "classes": ["a", "b", "c", "d"]},
        {"classes": ["a", "b", "c", "c"]},
    ):
        with pytest.raises(ValueError, match=r"scan|verdict|class|calibrated"):
            ScanResult.from_json(json.dumps(written | change))


@pytest.mark.usefixtures("small")
def test_the_same_twin_twice_is_refused(
    run_main: Run, assert_refused: Refused, tmp_path: Path, mine: Path, paint: Path
) -> None:
    twin = tmp_path / "twin.pt"
    content = torch.load(mine, weights_only=True)
    content["state_dict"]["module.fc.bias"] += 0.01
    torch.save(content, twin)
    arguments = ("--model", mine, "--data", paint, "--output", "new/scan", *MINE, "--reference", twin, twin)
    assert_refused(run_main(detect, *arguments), "is the same model as")
    twin.unlink()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_model(run_main: Run, assert_refused: Refused, tmp_path: Path, paint: Path) -> None:
    (tmp_path / "hub").mkdir()
    assert_refused(run_main(detect, "--model", "hub", "--data", paint, *MINE), "hub is a folder")


def test_weights_without_values_are_refused_as_ours_too(saved: Callable[[object], Path]) -> None:
    for odd in (torch.eye(3).to_sparse(), torch.zeros(3, device="meta")):
        with pytest.raises(cli.UserError, match=r"'fc\.weight' as a sparse or nested"):
            classifier.load_model(saved({"fc.weight": odd}))
