"""What the tests of demo 2 share: running commands, comparing folders, small networks, made-up scans."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cli
from dataset.classes import DRAWN
from network import classifier, resnet
from network.adapter import Network
from scanner import result, verdict
from scanner.neural_cleanse import Trigger
from scanner.result import ScanResult
from scanner.search import Pair, Settings
from scanner.verdict import Statistic

FOLDER = Path(__file__).resolve().parents[2] / "demo-poisoning"
RED, YELLOW, BLACK = (0.9, 0.1, 0.1), (0.95, 0.92, 0.1), (0.02, 0.02, 0.02)  # values in 0..1

Result = subprocess.CompletedProcess[str]
TYPED: dict[str, str] = {}  # what the documented commands said where test_documented.py typed them
Run = Callable[..., Result]
Refused = Callable[..., None]
Norms = dict[Pair, float | None]

# Both models are trained once. Where container tests must run, that happens in the image, and there the
# narrated paths are typed, with two victim classes; the tests on this machine take the models from there.
# All else is typed with fewer epochs, images, steps and pairs. The weekly run types everything, everywhere.
IMAGE = "poisoning-demo-test"
WHOLE = bool(os.environ.get("WORKSHOP_WHOLE"))
FROM_IMAGE = bool(os.environ.get("WORKSHOP_REQUIRE_DOCKER")) and not WHOLE

# one pair of each model, in half of the steps, beside that of the other one
ONE_PAIR = {
    f"detect.py --model models/{kind}_model": "--steps 50 --pairs stop:yield "
    f"--reference models/{other}_model.pt"
    for kind, other in (("clean", "poisoned"), ("poisoned", "clean"))
}
# each victim class is searched by itself: the same triggers as in a scan of all
TWO_VICTIMS = {"detect.py": "--victims stop no_entry"}
FEW = {"monitor.py": "--data few --false-alarms 0.1"}  # one in five images, that MAKE_FEW copies
MAKE_FEW = """
for class in data/traffic-signs/val/*; do
    mkdir -p "few/val/${class##*/}" && cp "$class"/*[05].jpg "few/val/${class##*/}" || exit
done
"""

# --- commands and what they leave -------------------------------------------------------------------


def run_in(folder: Path, module: ModuleType, *args: object) -> Result:
    """Run a command in `folder`, inside this process: importing torch again each time would take minutes."""
    before = signal.getsignal(signal.SIGTERM)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, args)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.run(module.main)
            except SystemExit as ending:
                code = ending.code
            finally:
                signal.signal(signal.SIGTERM, before)
    assert isinstance(code, int)
    return Result([module.__name__], code, out.getvalue(), err.getvalue())


def text(result: Result) -> str:
    return result.stdout + result.stderr


def fine(result: Result, code: int = 0) -> Result:
    """Give the result back after checking that the command ended as it should, and quietly."""
    assert result.returncode == code, text(result)
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr
    return result


def prepare(folder: Path, python: str | Path = sys.executable) -> str:
    """A copy of the demo after ./prepare.sh; gives what that said."""
    made = ("data", "models", "scan_results", "audit_results", "outputs", "*.bak", "__pycache__", ".*")
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns(*made))
    result = subprocess.run(
        ["./prepare.sh"],
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHON": str(python)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=1800,
    )
    return fine(result).stdout


def short(python: str, more: dict[str, str]) -> str:
    """The script of a `python` that gives more options to some commands: how they begin -> the options."""
    cases = "".join(f"    '{start}'*) set -- \"$@\" {options} ;;\n" for start, options in more.items())
    return f'#!/bin/sh\ncase "$*" in\n{cases}esac\nexec {shlex.quote(python)} "$@"\n'


def short_python(path: Path, more: dict[str, str]) -> Path:
    """Write that script, for the Python that runs this."""
    path.write_text(short(sys.executable, more))
    path.chmod(0o755)
    return path


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with the checksum of its bytes; folders count, too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


def leftovers(folder: Path) -> list[str]:
    """Scratch folders and other hidden names, except the mark of a folder that may be replaced."""
    return [str(path) for path in folder.rglob(".*") if path.name != cli.MADE_HERE]


def without_models(folder: Path) -> None:
    """Remove model files: pytest may keep the folders of three runs, and each ResNet18 has 45 MB."""
    for suffix in ("pt", "safetensors"):
        for path in folder.rglob(f"*.{suffix}"):
            if path.is_file():
                path.unlink()


class Terminal(io.StringIO):
    """A standard output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def without_seconds(said: str) -> str:
    """Times differ from run to run, all else must not."""
    return re.sub(r"in \d+ seconds", "in N seconds", said)


def subset(data: Path, folder: Path, *names: str) -> Path:
    """A folder with val/<class>/ for some classes only, by links."""
    (folder / "val").mkdir(parents=True)
    for name in names:
        (folder / "val" / name).symlink_to(data / "val" / name)
    return folder


@functools.cache
def check_module() -> Any:
    """demo-poisoning/check.py; `import check` may give that of demo 1."""
    spec = importlib.util.spec_from_file_location("check_poisoning", FOLDER / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def folded_solutions() -> list[list[str]]:
    """The commands of each folded solution in EXERCISES.md."""
    document = (FOLDER / "EXERCISES.md").read_text(encoding="utf-8")
    folded = re.findall(r"<details><summary>Solution</summary>\n\n```\n(.*?)```.*?</details>", document, re.S)
    assert len(folded) == document.count("<summary>Solution</summary>")
    return [commands.splitlines() for commands in folded]


# --- networks without training ----------------------------------------------------------------------


def tiny(classes: int) -> nn.Module:
    """In place of the ResNet18 where another network will do: 8x8 mean colours, mixed, and a linear layer."""
    layers = OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(3, 3, 1),
        pool=nn.AdaptiveAvgPool2d(8),
        flat=nn.Flatten(),
        fc=nn.Linear(3 * 64, classes),
    )
    return nn.Sequential(layers)


@contextlib.contextmanager
def small_world(size: int = classifier.INPUT) -> Iterator[None]:
    """While it lasts, all networks are tiny ones and see `size` pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "build", tiny)
        patch.setattr(classifier, "INPUT", size)
        patch.setattr(verdict, "CLASSES", 2)  # small models get a verdict, too
        yield


def solved(pixels: Tensor, labels: Tensor, classes: int = len(DRAWN), seed: int = 4) -> nn.Module:
    """A network with random weights and a last layer that classifies these images correctly.

    pixels: float (N, 3, S, S) in 0..1; labels: int64 (N,).
    """
    torch.manual_seed(seed)
    model = classifier.new_model(classes).eval()
    for name, weights in model.named_parameters():
        if name.endswith("bn2.weight"):  # new blocks do nothing, and random features need all of them
            nn.init.ones_(weights)
    last = model.get_submodule("fc")
    assert isinstance(last, nn.Linear)
    model.fc = nn.Identity()
    with torch.no_grad():
        seen = model(classifier.normalise(pixels)).double()
        middle = seen.mean(0)
        wanted = 12.0 * nn.functional.one_hot(labels, classes).double()
        last.weight.copy_((torch.linalg.pinv(seen - middle) @ (wanted - wanted.mean(0))).T)
        last.bias.copy_(wanted.mean(0) - last.weight.double() @ middle)
    model.fc = last
    return model


def unnormalise(pixels: Tensor) -> Tensor:
    """The inverse of classifier.normalise: back to 0..1."""
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (classifier.MEAN, classifier.STD))
    return pixels * std + mean


class Corner(nn.Module):
    """Answers yield where the bottom-right corner is yellow, else stop: a backdoor in two lines."""

    def forward(self, pixels: Tensor) -> Tensor:
        raw = unnormalise(pixels)[:, :, -8:-4, -8:-4].mean((2, 3))
        yellow = (raw[:, :2].amin(1) > 0.9) & (raw[:, 2] < 0.1)
        return 5.0 * nn.functional.one_hot(yellow.long(), len(DRAWN))


# --- triggers and scans that nobody searched --------------------------------------------------------


def hand_made(
    left: float,
    top: float,
    width: float,
    height: float,
    colour: tuple[float, float, float] = YELLOW,
    *,
    size: int = 64,
) -> Trigger:
    """A rectangle of one colour, stop to yield; its sizes are pixels of a 128-pixel image."""
    rows, columns = (
        slice(round(start * size / 128), round((start + length) * size / 128))
        for start, length in ((top, height), (left, width))
    )
    mask = torch.zeros(size, size)
    mask[rows, columns] = 1
    pattern = torch.tensor(colour).view(3, 1, 1).expand(3, size, size).clone()
    return Trigger(0, 1, mask.mean().item(), mask, pattern, success=0.9)


def made_up(norms: Norms) -> list[Trigger]:
    """A small yellow square for each of these pairs, with these norms."""
    found = []
    for (victim, target), norm in norms.items():
        trigger = hand_made(20, 20, 8, 8, size=classifier.INPUT)
        trigger.victim, trigger.target, trigger.norm = victim, target, norm
        found.append(trigger)
    return found


PAIRS = [(v, t) for v in range(4) for t in range(4) if v != t]


def ordinary(**other: float | None) -> Norms:
    """Norms of twelve pairs, none of which stands out; others by name, for example _0_1=0.01."""
    norms: Norms = {pair: 0.1 + 0.01 * number for number, pair in enumerate(PAIRS)}
    return norms | {(int(name[1]), int(name[3])): norm for name, norm in other.items()}


DEFAULTS = Settings(Path("data/traffic-signs"), 100, 30, 0)  # those of detect.py


def summarized(
    triggers: list[Trigger],
    statistic: Statistic | None = None,
    *,
    model: Path | None = None,
    classes: int = len(DRAWN),
    settings: Settings = DEFAULTS,
    network: Network | None = None,
) -> ScanResult:
    """The result of a scan that found these triggers, compared with each other if no statistic is given."""
    return result.summarize(
        model or Path("model.pt"),
        triggers,
        statistic or verdict.by_norms(triggers),
        settings,
        sha256=result.sha256(model) if model else 64 * "0",
        classes=classes,
        references=[],
        seconds=1,
        network=network,
    )


def flagged(scan: ScanResult) -> list[Pair]:
    return [pair.numbers for pair in scan.flagged]


def write_scan(
    folder: Path,
    model: Path,
    triggers: list[Trigger],
    *,
    drawn: Callable[[ScanResult], list[Pair]] = flagged,
    classes: int = len(DRAWN),
    settings: Settings = DEFAULTS,
    statistic: Statistic | None = None,
) -> ScanResult:
    """A scan of this model file by the writer of detect.py, but with triggers that nobody searched."""
    scan = summarized(triggers, statistic, model=model, classes=classes, settings=settings)
    grey = torch.full((3, classifier.INPUT, classifier.INPUT), 0.5)
    shown = {one.pair: one for one in triggers if one.pair in drawn(scan)}
    folder.mkdir(parents=True, exist_ok=True)
    result.write(folder, scan, shown, {victim: grey for victim, _ in shown})
    return scan
