"""Defence: convert a model to SafeTensors without running it, check that it is the same, and measure.

    python safe_demo.py                  trains a small model, saves it as a pickle, converts it, measures
    python safe_demo.py load             loads the SafeTensors file: the same outputs, nothing that could run
    python safe_demo.py convert FILE     converts a model of yours; a malicious file is refused, not run
    python safe_demo.py compare          measures both formats at three model sizes (--repeat N)

With --model FILE.pt the first command takes your own state dict instead of training one.
Exit code 0: done. 1: the file is malicious, or something differs. 2: bad input.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import cli
import shapes
from safe_loading import (
    RefusedError,
    Weights,
    check_plain,
    existing_file,
    load_pickle,
    load_safetensors,
    save_pickle,
    save_safetensors,
    sharing,
)
from zoo import VARIANTS

MODEL = Path("safe_model.pt")
REPEAT = 7
TENSORS = 60  # in each of the random models
SIZES = {"1 MB": 1_000_000, "45 MB (as a ResNet18)": 45_000_000, "100 MB (as a ResNet50)": 100_000_000}
MALICIOUS = VARIANTS["system"].write  # our own harmless payload


# --- convert -------------------------------------------------------------------------------------------


def differing(first: Weights, second: Weights) -> list[str]:
    """Names of the tensors that are not the same bit for bit (type, shape, numbers) in both."""
    names = sorted(first.keys() | second.keys())
    return [name for name in names if not same(first.get(name), second.get(name))]


def same(first: torch.Tensor | None, second: torch.Tensor | None) -> bool:
    """True if both tensors are there and have the same type, the same shape and the same bytes."""
    if first is None or second is None or first.dtype != second.dtype or first.shape != second.shape:
        return False
    as_bytes = [part.detach().contiguous().flatten().view(torch.uint8) for part in (first, second)]
    return torch.equal(*as_bytes)


def is_ours(weights: Weights) -> bool:
    """True if the names and shapes are those of the model that this demo trains."""
    expected = shapes.network().state_dict()
    return {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in expected.items()}


def convert(pickle: Path, safe: Path, part: str, out: cli.Out) -> int:
    """Load safely, write SafeTensors, read it again and compare tensor by tensor. Returns 0 or 1.

    Raises RefusedError if there is code in the file: a converter must not run what it converts.
    """
    weights = load_pickle(pickle, part=part)
    numbers = sum(tensor.numel() for tensor in weights.values())
    kinds = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()}))
    out.say(
        f"Loaded {pickle} with weights_only=True: {len(weights)} tensors, {numbers} numbers ({kinds}), "
        "no code ran."
    )
    check_plain(weights, safe)
    for names in sharing(weights):
        out.say(f"These share their memory: {listed(names)}. SafeTensors stores each one by itself.")
    if turned := [name for name, tensor in weights.items() if not tensor.is_contiguous()]:
        out.say(f"Stored in another order (a transposed matrix, for example): {listed(turned)}.")

    save_safetensors(weights, safe)
    converted = load_safetensors(safe)
    if different := differing(weights, converted):
        out.say(f"Different after the conversion: {listed(different)}.", "red")
        return cli.FINDING
    out.say(f"Wrote {safe}. All {len(weights)} tensors are the same, bit for bit.", "green")
    if is_ours(weights):
        before, after = shapes.outputs(weights, pickle)[0], shapes.outputs(converted, safe)[0]
        if not torch.equal(before, after):
            out.say(f"But the outputs differ by up to {(before - after).abs().max().item()}.", "red")
            return cli.FINDING
        out.say(f"Its outputs for {len(after)} new pictures are the same, too: largest difference 0.0.")
    return cli.OK


def listed(names: list[str]) -> str:
    """The first few names, for people. The quotes of repr keep odd names from steering the terminal."""
    first = ", ".join(repr(name[:60]) for name in names[:4])
    return first + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# --- measure -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """One measured row: what, and for pickle, pickle with mmap and SafeTensors the values of all runs."""

    what: str
    pickle: list[float]
    mmap: list[float]
    safe: list[float]
    unit: str = "ms"

    def cells(self) -> list[str]:
        """The row of the table: median, and in brackets lowest and highest."""
        return [self.what, *(self.cell(values) for values in (self.pickle, self.mmap, self.safe))]

    def cell(self, values: list[float]) -> str:
        if self.unit == "bytes":
            return f"{values[0]:.0f} bytes"
        return f"{statistics.median(values):.1f} ms ({min(values):.1f} to {max(values):.1f})"


def read_every_number(weights: Weights) -> None:
    """Touch all of the model, as using it would: a mapped file is read only now."""
    for tensor in weights.values():
        tensor.sum()


def measure(name: str, pickle: Path, safe: Path, repeat: int) -> list[Figures]:
    """Size, time to load, and time to load and read every number, of one model in both formats.

    The libraries' own loaders, in turn, `repeat` times, after one run of each that does not count.
    """
    loaders: list[Callable[[], Weights]] = [
        lambda: torch.load(pickle, weights_only=True),
        lambda: torch.load(pickle, weights_only=True, mmap=True),
        lambda: load_file(safe),
    ]
    only: list[list[float]] = [[] for _ in loaders]
    read: list[list[float]] = [[] for _ in loaders]
    for run in range(repeat + 1):
        for index, load in enumerate(loaders):
            start = time.perf_counter()
            weights = load()
            loaded = time.perf_counter()
            read_every_number(weights)
            if run:
                only[index].append(1000 * (loaded - start))
                read[index].append(1000 * (time.perf_counter() - start))
            del weights  # before the next one is loaded
    old, new = [float(pickle.stat().st_size)], [float(safe.stat().st_size)]
    return [
        Figures(f"{name}: size on disk", old, old, new, "bytes"),
        Figures(f"{name}: load", only[0], only[1], only[2]),
        Figures(f"{name}: load and read every number", read[0], read[1], read[2]),
    ]


def measure_sizes(repeat: int, progress: Callable[[Iterable[str]], Iterable[str]] = iter) -> list[Figures]:
    """The same for models of random numbers at each of SIZES."""
    rows = []
    for name in progress(SIZES):
        with tempfile.TemporaryDirectory() as folder:
            pickle, safe = Path(folder, "model.pt"), Path(folder, "model.safetensors")
            numbers = SIZES[name] // TENSORS // 4  # float32
            weights = {f"layer{index}.weight": torch.randn(numbers) for index in range(TENSORS)}
            save_pickle(weights, pickle)
            save_safetensors(weights, safe)
            del weights
            rows += measure(name, pickle, safe, repeat)
    return rows


def try_payload() -> list[tuple[str, str]]:
    """Our own payload in both formats: what each loader did with it, and whether the marker appeared."""
    with tempfile.TemporaryDirectory() as folder:
        marker = Path(folder, "marker.txt")
        malicious, renamed = Path(folder, "malicious.pt"), Path(folder, "renamed.safetensors")
        inside = Path(folder, "payload_inside.safetensors")
        payload = MALICIOUS(marker)
        malicious.write_bytes(payload)
        renamed.write_bytes(payload)
        save_file(  # as numbers and as text: a SafeTensors file has no other place
            {"payload": torch.frombuffer(bytearray(payload), dtype=torch.uint8)},
            inside,
            {"payload": payload.hex()},
        )

        def result(load: Callable[[Path], object], path: Path) -> str:
            marker.unlink(missing_ok=True)
            try:
                load(path)
                ending = "loaded"
            except cli.UserError:
                ending = "refused"
            return f"{ending}, code RAN" if marker.exists() else f"{ending}, no code ran"

        return [
            ("pickle, safe loader (weights_only=True)", result(load_pickle, malicious)),
            ("pickle, safe loader switched off", result(load_in_child, malicious)),
            ("the same file renamed to .safetensors", result(load_safetensors, renamed)),
            ("a SafeTensors file with the payload's bytes in it", result(load_safetensors, inside)),
        ]


def load_in_child(path: Path) -> None:
    """Load our own malicious file with weights_only=False, in a process of its own."""
    code = "import sys, torch; torch.load(sys.argv[1], weights_only=False)"
    child = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=False, timeout=300)
    if child.returncode != 0:
        raise cli.UserError("The child process failed.")


def claims(rows: list[Figures], tried: list[tuple[str, str]]) -> list[str]:
    """What these figures show, in sentences; nothing is said that they do not show."""
    load = [row for row in rows if row.what.endswith(": load")]
    read = [row for row in rows if row.what.endswith("every number")]
    sizes = [row for row in rows if row.unit == "bytes"]
    apart = max(abs(row.pickle[0] / row.safe[0] - 1) for row in sizes)
    said = [
        faster("Load: SafeTensors", "the pickle", [(row.safe, row.pickle) for row in load]),
        faster("Load: SafeTensors", "the pickle with mmap=True", [(row.safe, row.mmap) for row in load]),
        faster("Load and read: SafeTensors", "the pickle", [(row.safe, row.pickle) for row in read]),
        f"Size: the two formats differ by at most {math.ceil(round(10000 * apart, 6)) / 100:.2f} percent.",
    ]
    ran = [what for what, result in tried if "RAN" in result]
    said.append(f"Code ran in: {', '.join(ran) or 'none of the cases'}.")
    return said


def faster(name: str, other: str, pairs: list[tuple[list[float], list[float]]]) -> str:
    """One sentence on whether the first of each pair of times was the shorter one."""
    times = [statistics.median(slow) / statistics.median(fast) for fast, slow in pairs]
    middle = f"{min(times):.1f} to {max(times):.1f} times" if len(times) > 1 else f"{times[0]:.1f} times"
    if all(max(fast) < min(slow) for fast, slow in pairs):
        return f"{name} was faster than {other} in every run ({middle}, by the medians)."
    if min(times) > 1:
        return f"{name} was mostly faster than {other} ({middle}, by the medians), but not in every run."
    return f"{name} was not faster than {other} everywhere ({middle}, by the medians)."


def show(rows: list[Figures], repeat: int, out: cli.Out) -> None:
    """Print the measured rows, try the payload, and say what all of this shows."""
    tried = try_payload()
    title = f"Two formats: median of {repeat} runs (lowest to highest)"
    out.table(
        title, ["what", "pickle", "pickle with mmap=True", "SafeTensors"], [row.cells() for row in rows]
    )
    out.table("Our payload in both formats", ["case", "what happened"], tried)
    out.say("What these figures show:")
    for sentence in claims(rows, tried):
        out.say(f"- {sentence}")
    out.say("Both formats can carry a poisoned model: converting does not clean the weights.")


# --- the four commands -----------------------------------------------------------------------------------


def create(given: Path | None, repeat: int, out: cli.Out) -> int:
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
        steps = shapes.EPOCHS * shapes.TRAIN_PICTURES // shapes.BATCH
        with cli.whole_file(pickle) as scratch:  # first, so that an unwritable place is named before training
            model = shapes.train(lambda items: out.progress(items, steps, "training"))
            torch.save(model.state_dict(), scratch)
        out.say(f"Trained a ResNet18 in {time.perf_counter() - start:.1f} seconds. Wrote {pickle}.")
        accuracy = shapes.outputs(load_pickle(pickle), pickle)[1]
        out.say(f"It names the shape right on {accuracy:.1%} of {shapes.NEW_PICTURES} new pictures.")

    out.heading("2. Convert it to SafeTensors")
    if code := convert(pickle, safe, "", out):
        return code

    out.heading("3. Compare, measured on this machine just now")
    out.say("Measuring: this takes some seconds.")
    show(measure("this model", pickle, safe, repeat), repeat, out)
    if not given:
        out.say("Now type: python safe_demo.py load")
    return cli.OK


def convert_only(pickle: Path | None, safe: Path | None, part: str, out: cli.Out) -> int:
    """Convert one file. A file with code in it is a finding (1), a damaged one is bad input (2)."""
    if pickle is None:
        raise cli.UserError("Which file? Type `python safe_demo.py convert FILE`.")
    safe = safe or pickle.with_suffix(".safetensors")
    if safe.suffix != ".safetensors" or safe == pickle:
        raise cli.UserError(
            f"{safe} cannot be the new file: give a name that ends in .safetensors with --out."
        )
    try:
        return convert(pickle, safe, part, out)
    except RefusedError as error:
        out.say(f"NOT CONVERTED: {pickle}", "bold red")
        out.say(f"Reason: {error}")
        return cli.FINDING


def compare(repeat: int, out: cli.Out) -> int:
    """Measure both formats at all sizes, in one run."""
    out.say(f"Measuring {len(SIZES)} model sizes, {repeat} runs each: this takes some seconds.")
    rows = measure_sizes(repeat, lambda names: out.progress(names, len(SIZES), "measuring"))
    show(rows, repeat, out)
    return cli.OK


def load(given: Path | None, out: cli.Out) -> int:
    """Load the SafeTensors file, name new pictures, compare with the pickle where it is still there."""
    path = given or MODEL.with_suffix(".safetensors")
    if not given and not path.exists():
        raise cli.UserError(f"{path} does not exist: type `python safe_demo.py` first.")
    weights = load_safetensors(path)
    scores, accuracy = shapes.outputs(weights, path)
    numbers = sum(tensor.numel() for tensor in weights.values())
    out.say(f"Loaded {path}: {len(weights)} tensors, {numbers} numbers, no pickle, no code ran.")
    out.say(f"It names the shape right on {accuracy:.1%} of {len(scores)} new pictures.")
    pickle = path.with_suffix(".pt")
    if not pickle.exists():
        out.say(f"There is no {pickle} to compare with.")
        return cli.OK
    expected, _ = shapes.outputs(load_pickle(pickle), pickle)
    difference = (scores - expected).abs().max().item()
    if not torch.equal(scores, expected):
        out.say(f"Outputs differ from those of {pickle}: largest difference {difference}.", "red")
        return cli.FINDING
    out.say(f"Outputs are identical to those of {pickle}: largest difference {difference}.", "green")
    return cli.OK


def at_least_one(text: str) -> int:
    """A number for --repeat."""
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError("give a number from 1 to 1000")
    return int(text)


def main() -> int:
    """Read the command line and do one of the four things."""
    arguments = cli.parser(__doc__)
    actions = ["create", "convert", "load", "compare"]
    arguments.add_argument("action", nargs="?", default="create", choices=actions, help="what to do")
    arguments.add_argument("file", nargs="?", type=Path, help="your own model file, for convert and load")
    arguments.add_argument("--model", type=Path, metavar="FILE", help="another way to name FILE")
    arguments.add_argument("--out", type=Path, help="convert: the new file (default: FILE with .safetensors)")
    arguments.add_argument("--part", default="", help="convert: the part of a checkpoint, such as state_dict")
    arguments.add_argument("--repeat", type=at_least_one, default=REPEAT, help="measure so many times")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    torch.set_num_threads(1)  # pictures this small are slower on many cores, above all when they are busy
    given = args.file or args.model
    if args.action == "convert":
        return convert_only(given, args.out, args.part, out)
    if args.action == "load":
        return load(given, out)
    if args.action == "compare":
        return compare(args.repeat, out)
    return create(given, args.repeat, out)


if __name__ == "__main__":
    cli.run(main)
