"""Pickle against SafeTensors, measured: size, time to load, and whether our payload runs.

Helper module, not a command: safe_demo.py uses these functions. What the figures do not show is not said.
"""

from __future__ import annotations

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
from weights.safe_loading import load_pickle, load_safetensors
from weights.state_dicts import Weights
from weights.writing import save_pickle, save_safetensors

TENSORS = 60  # in each of the random models
SIZES = {"1 MB": 1_000_000, "45 MB (as a ResNet18)": 45_000_000, "100 MB (as a ResNet50)": 100_000_000}


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


def try_payload(write: Callable[[Path], bytes]) -> list[tuple[str, str]]:
    """A harmless payload (marker -> model file) in both formats: what each loader did, and the marker."""
    with tempfile.TemporaryDirectory() as folder:
        marker = Path(folder, "marker.txt")
        malicious, renamed = Path(folder, "malicious.pt"), Path(folder, "renamed.safetensors")
        inside = Path(folder, "payload_inside.safetensors")
        payload = write(marker)
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


def show(rows: list[Figures], repeat: int, write: Callable[[Path], bytes], out: cli.Out) -> None:
    """Print the measured rows, try the payload, and say what all of this shows."""
    tried = try_payload(write)
    title = f"Two formats: median of {repeat} runs (lowest to highest)"
    out.table(
        title, ["what", "pickle", "pickle with mmap=True", "SafeTensors"], [row.cells() for row in rows]
    )
    out.table("Our payload in both formats", ["case", "what happened"], tried)
    out.say("What these figures show:")
    for sentence in claims(rows, tried):
        out.say(f"- {sentence}")
    out.say("Both formats can carry a poisoned model: converting does not clean the weights.")
