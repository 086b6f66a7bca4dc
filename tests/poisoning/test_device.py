"""Demo 2 on a GPU: nothing is mixed up between two devices, and one that computes incorrectly is not used."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.models.resnet import BasicBlock, ResNet

import audit_data
import demo
import detect
import mitigate
import train
from network import classifier, device, resnet
from poisoning_tools import Run
from pretend_device import NAME, Far, Pretend


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """device.best() looks once per process; here it must look again."""
    device.best.cache_clear()
    yield
    device.best.cache_clear()


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    """A tiny dataset of two classes that a few steps tell apart."""
    for split, count in (("train", 30), ("val", 15)):
        for label, colour in (("stop", (200, 0, 0)), ("yield", (0, 0, 200))):
            place = tmp_path / "signs" / split / label
            place.mkdir(parents=True)
            for number in range(count):
                shade = tuple(min(255, part + number) for part in colour)
                Image.new("RGB", (64, 64), shade).save(place / f"{label}_{number:05d}.png")
    return tmp_path / "signs"


def commands(run_main: Run, signs: Path) -> list[str | bytes]:
    """What the commands of the demo that use the network print, and the weights and triggers they write."""
    steps: list[tuple[object, ...]] = [
        (train, "--data", signs, "--model", "m.pt", "--epochs", 4, "--lr", 0.05),
        (train, "--phase", "test", "--data", signs, "--model", "m.pt"),
        (demo, signs / "val/stop/stop_00000.png", "--model", "m.pt", "--trigger"),
        (detect, "--model", "m.pt", "--data", signs, "--steps", 2, "--samples", 5, "--output", "scan"),
        (audit_data, signs, "--model", "m.pt", "--output", "audit"),
        (mitigate, "--model", "m.pt", "--data", signs, "--repair", "finetune", "--epochs", 1),
    ]
    said: list[str | bytes] = []
    for module, *options in steps:
        result = run_main(module, *options)
        no_verdict = module is detect and "No statistic is valid" in result.stderr  # two classes
        assert result.returncode < 2 or no_verdict, result.stderr
        said.append(re.sub(r"\d+ seconds|seconds: \d+|/\S+/tmp\w{8}\b", "", result.stdout))
    files = ("m.safetensors", "scan/triggers.safetensors", "models/repaired/finetune.safetensors")
    return said + [Path(file).read_bytes() for file in files]


def test_all_commands_give_the_same_results_on_another_device(
    run_main: Run, signs: Path, monkeypatch: pytest.MonkeyPatch, train_here: list[list[str]]
) -> None:
    """Exactly: the pretended device computes as the processor does, and draws no random numbers.

    With half of the layers and of the pixels: what is passed around is the same.
    """
    monkeypatch.setattr(resnet, "resnet18", partial(ResNet, BasicBlock, [1, 1, 1, 1]))
    monkeypatch.setattr(classifier, "INPUT", 32)
    monkeypatch.setattr(device, "fast_type", lambda: torch.float32)  # as on the pretended device
    monkeypatch.setenv("WORKSHOP_DEVICE", "cpu")
    here = commands(run_main, signs)
    monkeypatch.setenv("WORKSHOP_DEVICE", NAME)
    device.best.cache_clear()
    with Pretend() as pretend:
        there = commands(run_main, signs)
        assert isinstance(classifier.new_model().get_parameter("fc.bias"), Far)
    assert there == here
    assert pretend.moved > 1000


@pytest.mark.parametrize(
    ("able", "fast"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False, "amx_bf16": False}, False),
        ({"cpu_name": "Neoverse V1", "architecture": "aarch64"}, True),
    ],
    ids=lambda value: value["cpu_name"] if isinstance(value, dict) else str(value),
)
def test_bfloat16_is_taken_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, Any], fast: bool
) -> None:
    """Not wherever the library can compute in it: without instructions for that it takes longer."""
    monkeypatch.setenv("WORKSHOP_DEVICE", "cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64"} | able)
    possible = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert device.processor_is_fast_in_bfloat16() == (fast and possible)
    assert (device.fast_type() == torch.bfloat16) == (fast and possible)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert device.processor_is_fast_in_bfloat16() is False


def test_the_pretended_device_refuses_tensors_of_two_devices() -> None:
    """Else the test above could not fail."""
    with Pretend():
        far = torch.ones(2).to(NAME)
        assert (far + far).cpu().tolist() == [2, 2]
        with pytest.raises(RuntimeError, match="on one device"):
            far + torch.ones(2)


def wrong_sums(func: Any, found: Any) -> Any:
    """A device on which the gradient of one layer is 10 % too large."""
    if func is torch.ops.aten.max_pool2d_with_indices_backward.default:
        return Far(found.near * 1.1)
    return found


def no_kernel(func: Any, found: Any) -> Any:
    """A device that misses an operation, as old GPUs do."""
    if func is torch.ops.aten.mm.default:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
    return found


@pytest.mark.parametrize("change", [wrong_sums, no_kernel])
def test_a_device_that_computes_incorrectly_is_not_used(
    change: Callable[[Any, Any], Any],
    run_main: Run,
    signs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    image = signs / "val/stop/stop_00000.png"
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device(NAME))
    monkeypatch.delenv("WORKSHOP_DEVICE", raising=False)
    with Pretend(change):
        assert device.best() == torch.device("cpu")
        assert capfd.readouterr().err == (
            f"note: {NAME} does not compute our network correctly, so the processor does.\n"
        )
        monkeypatch.setenv("WORKSHOP_DEVICE", NAME)
        device.best.cache_clear()
        classifier.save_model(resnet.build(2), Path("m.pt"))
        refused = run_main(demo, image, "--model", "m.pt")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == f"error: WORKSHOP_DEVICE={NAME} cannot compute our network here: use cpu.\n"


def test_a_device_that_computes_correctly_is_found(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device(NAME))
    monkeypatch.delenv("WORKSHOP_DEVICE", raising=False)
    torch.manual_seed(3)
    with Pretend():
        assert device.best() == torch.device(NAME)
    assert torch.initial_seed() == 3
    after = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(4))
    assert capfd.readouterr().err == (
        f"note: the network computes on {NAME}; WORKSHOP_DEVICE=cpu keeps it on the processor.\n"
    )


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cuda:x", "meta"])
def test_a_device_that_is_not_there_is_refused(
    name: str, run_main: Run, signs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKSHOP_DEVICE", name)
    result = run_main(train, "--data", signs, "--model", "m.pt")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: WORKSHOP_DEVICE={name} ")
    assert result.stderr.count("\n") == 1
    assert not list(Path().glob("m.*"))


def test_a_device_is_tried_with_gradients_whoever_asks_first() -> None:
    with torch.no_grad():
        assert device.agrees(torch.device("cpu"))
