"""Defence: train a small model, convert its pickle to SafeTensors, and measure what that changes.

    python safe_demo.py            writes safe_model.pt and safe_model.safetensors, prints the comparison
    python safe_demo.py load       loads the SafeTensors file: the same outputs, and nothing that could run

With --model FILE.pt the first command converts your own state dict instead of training one.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

import cli
from create_malicious_model import malicious_bytes
from safe_loading import (
    Weights,
    existing_file,
    load_pickle,
    load_safetensors,
    save_pickle,
    save_safetensors,
)

MODEL = Path("safe_model.pt")
SEED = 0
CLASSES = 3
POINTS = 1000  # a class
STEPS = 300  # of training
BIG_TENSORS, BIG_NUMBERS = 60, 195_000  # random float32 tensors: 47 MB, about the size of a ResNet18
REPEATS, BIG_REPEATS = 30, 7


def spiral(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points on three arms of a spiral: coordinates (N, 2) in about [-1, 1], labels (N,) in 0..2."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat_interleave(POINTS)
    radius = torch.rand(len(labels), generator=random)
    angle = 4 * radius + labels * (2 * torch.pi / CLASSES)
    angle += 0.2 * torch.randn(len(labels), generator=random)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), labels


def network() -> nn.Sequential:
    """A small classifier: two numbers in, a score for each of the three arms out."""
    return nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))


def train(steps: Iterable[int] = range(STEPS)) -> nn.Sequential:
    """Train the classifier on the spiral. Seeded: the same machine makes the same model again."""
    torch.manual_seed(SEED)
    model = network()
    points, labels = spiral(SEED)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in steps:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(points), labels).backward()
        optimizer.step()
    return model


def outputs(weights: Weights, path: Path) -> tuple[torch.Tensor, float]:
    """Scores (N, 3) of a model with these weights on fresh points, and its accuracy in [0, 1]."""
    model = network()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise cli.UserError(
            f"{path} is a model of another kind than this demo trains: use `inspect_model.py {path}`."
        ) from error
    points, labels = spiral(SEED + 1)  # other points than those of the training
    with torch.inference_mode():
        scores = model(points)
    return scores, (scores.argmax(1) == labels).float().mean().item()


def differing(first: Weights, second: Weights) -> list[str]:
    """Names of the tensors that are not the same bit for bit (type, shape, numbers) in both."""
    names = sorted(first.keys() | second.keys())
    return [name for name in names if not same(first.get(name), second.get(name))]


def same(first: torch.Tensor | None, second: torch.Tensor | None) -> bool:
    """True if both tensors are there and have the same type, the same shape and the same bytes."""
    if first is None or second is None or first.dtype != second.dtype or first.shape != second.shape:
        return False
    as_bytes = [part.contiguous().flatten().view(torch.uint8) for part in (first, second)]
    return torch.equal(*as_bytes)


def milliseconds(load: Callable[[], Weights], repeats: int, read_all: bool = False) -> float:
    """The median time of `load`, after one run to warm up; read_all adds reading every number once."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        weights = load()
        if read_all:
            sum(tensor.sum() for tensor in weights.values())
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])


def row(what: str, old: float, new: float, unit: str, digits: int) -> list[str]:
    """One row of the comparison: what, pickle, SafeTensors, and how many times larger the first is."""
    return [what, f"{old:.{digits}f} {unit}", f"{new:.{digits}f} {unit}", f"{old / new:.2f}"]


def measure_size_and_time(pickle: Path, safe: Path) -> list[list[str]]:
    """Rows of the comparison: the sizes and times of the model, then of 47 MB of random tensors."""
    rows = [
        row("size of this model", pickle.stat().st_size, safe.stat().st_size, "bytes", 0),
        row(
            f"load this model (median of {REPEATS})",
            milliseconds(lambda: load_pickle(pickle), REPEATS),
            milliseconds(lambda: load_safetensors(safe), REPEATS),
            "ms",
            2,
        ),
    ]
    with tempfile.TemporaryDirectory() as name:
        big = {f"layer{index}": torch.randn(BIG_NUMBERS) for index in range(BIG_TENSORS)}
        big_pickle, big_safe = Path(name, "big.pt"), Path(name, "big.safetensors")
        save_pickle(big, big_pickle)
        save_safetensors(big, big_safe)
        rows.append(
            row("size of random tensors", big_pickle.stat().st_size, big_safe.stat().st_size, "bytes", 0)
        )
        for how, mmap, read_all in [
            ("load them", False, False),
            ("load them, pickle with mmap=True", True, False),
            ("load them and read every number", False, True),
        ]:
            old = milliseconds(lambda: load_pickle(big_pickle, mmap), BIG_REPEATS, read_all)  # noqa: B023
            new = milliseconds(lambda: load_safetensors(big_safe), BIG_REPEATS, read_all)
            rows.append(row(f"{how} (median of {BIG_REPEATS})", old, new, "ms", 2))
    return rows


def try_malicious_file() -> list[list[str]]:
    """Rows of the comparison: hand the file of the attack to each loader and look for its marker."""
    with tempfile.TemporaryDirectory() as name:
        marker = Path(name, "marker.txt")
        path = Path(name, "malicious")
        path.write_bytes(malicious_bytes(marker))

        def result(load: Callable[[Path], object]) -> str:
            marker.unlink(missing_ok=True)
            try:
                load(path)
                ending = "loaded"
            except cli.UserError:
                ending = "refused"
            return f"{ending}, code RAN" if marker.exists() else f"{ending}, no code ran"

        return [
            ["malicious file, safe loader", result(load_pickle), result(load_safetensors), "none"],
            ["malicious file, safe loader off", result(load_in_child), "no such switch", "none"],
        ]


def load_in_child(path: Path) -> None:
    """Load our own malicious file with weights_only=False, in a process of its own."""
    code = "import sys, torch; torch.load(sys.argv[1], weights_only=False)"
    child = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=False, timeout=300)
    if child.returncode != 0:
        raise cli.UserError("The child process failed.")


def create(given: Path | None, out: cli.Out) -> int:
    """Train (or take the given state dict), convert it, compare tensor by tensor, measure both formats."""
    pickle = given or MODEL
    safe = pickle.with_suffix(".safetensors")
    if given:
        existing_file(given)
        if given == safe:
            raise cli.UserError(f"{given} is SafeTensors already: type `python safe_demo.py load` with it.")
        out.heading("1. Your model")
    else:
        out.heading("1. Train a small model and save it as a pickle")
        start = time.perf_counter()
        with cli.whole_file(pickle) as scratch:  # first, so that an unwritable place is named before training
            torch.save(train(out.progress(range(STEPS), STEPS, "training")).state_dict(), scratch)
        out.say(f"Trained {STEPS} steps in {time.perf_counter() - start:.1f} seconds. Wrote {pickle}.")
        accuracy = outputs(load_pickle(pickle), pickle)[1]
        out.say(f"It puts {accuracy:.1%} of {CLASSES * POINTS} new points on the right arm of the spiral.")

    weights = load_pickle(pickle)  # refuses a file with code in it: a converter must not run what it converts
    out.say(f"Loaded {pickle} with weights_only=True: {len(weights)} tensors, no code ran.")

    out.heading("2. Convert it to SafeTensors")
    save_safetensors(weights, safe)
    if different := differing(weights, load_safetensors(safe)):
        out.say(f"Different after the conversion: {', '.join(different)}.", "red")
        return cli.FINDING
    out.say(f"Wrote {safe}. All {len(weights)} tensors are the same, bit for bit.", "green")

    out.heading("3. Compare, measured on this machine just now")
    out.say("Measuring: this takes some seconds.")
    out.table(
        "Two formats",
        ["what", "pickle (.pt)", "SafeTensors", "ratio"],
        measure_size_and_time(pickle, safe) + try_malicious_file(),
    )
    out.say("ratio: pickle divided by SafeTensors; above 1, SafeTensors is smaller or faster.")
    out.say(
        "A pickle can carry code, and it runs when somebody switches the safe loader off. SafeTensors has"
    )
    out.say("no place for code. Both can carry a poisoned model: converting does not clean the weights.")
    if not given:
        out.say("Now type: python safe_demo.py load")
    return cli.OK


def load(given: Path | None, out: cli.Out) -> int:
    """Load the SafeTensors file, classify new points, compare with the pickle where it is still there."""
    path = given or MODEL.with_suffix(".safetensors")
    if not given and not path.exists():
        raise cli.UserError(f"{path} does not exist: type `python safe_demo.py` first.")
    weights = load_safetensors(path)
    scores, accuracy = outputs(weights, path)
    numbers = sum(tensor.numel() for tensor in weights.values())
    out.say(f"Loaded {path}: {len(weights)} tensors, {numbers} numbers, no pickle, no code ran.")
    out.say(f"It puts {accuracy:.1%} of {len(scores)} new points on the right arm of the spiral.")
    pickle = path.with_suffix(".pt")
    if not pickle.exists():
        out.say(f"There is no {pickle} to compare with.")
        return cli.OK
    expected, _ = outputs(load_pickle(pickle), pickle)
    difference = (scores - expected).abs().max().item()
    if not torch.equal(scores, expected):
        out.say(f"Outputs differ from those of {pickle}: largest difference {difference}.", "red")
        return cli.FINDING
    out.say(f"Outputs are identical to those of {pickle}: largest difference {difference}.", "green")
    return cli.OK


def main() -> int:
    """Read the command line, create or load."""
    arguments = cli.parser(__doc__)
    arguments.add_argument(
        "action", nargs="?", default="create", choices=["create", "load"], help="what to do"
    )
    arguments.add_argument(
        "--model", type=Path, metavar="FILE", help="your own model file (default: the trained one)"
    )
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    torch.set_num_threads(1)  # so small a model is slower on many cores, above all when they are busy
    return load(args.model, out) if args.action == "load" else create(args.model, out)


if __name__ == "__main__":
    cli.run(main)
