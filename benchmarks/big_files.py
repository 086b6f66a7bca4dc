"""Large files in demo 1: our commands beside the plainest way to do the same, as ratios of one run.

    python benchmarks/big_files.py               2 GB, some minutes; needs 6 GB of disk
    python benchmarks/big_files.py --megabytes 200

inspect: inspect_model.py beside picklescan, without the seconds that each takes to start on a small file.
convert: safe_demo.py convert beside torch.load(mmap=True) and save_file, in a process of its own.
The file is read once before the clock runs. Each is measured --repeat times, in turn; the best counts.
Exit code 0: within the limits (inspect 2 times, convert 1.5 times the time and 1.2 times the memory). 1: not.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent / "demo-malicious"
sys.path.insert(0, str(DEMO))

import torch  # noqa: E402 (after the path above)

import cli  # noqa: E402

TENSORS = 200
INSPECT, CONVERT, MEMORY = 2.0, 1.5, 1.2  # the limits
PLAIN_CONVERT = (
    "import sys, torch; from safetensors.torch import save_file; "
    "save_file(torch.load(sys.argv[1], mmap=True, weights_only=True), sys.argv[2], {'format': 'pt'})"
)
PLAIN_SCAN = "import sys; from picklescan.scanner import scan_file_path; scan_file_path(sys.argv[1])"


def write_model(path: Path, megabytes: int) -> None:
    """A state dict of random numbers, float32, of this size."""
    numbers = megabytes * 1_000_000 // TENSORS // 4
    torch.save({f"layer{index}.weight": torch.randn(numbers) for index in range(TENSORS)}, path)


def run(words: Sequence[object]) -> tuple[float, int]:
    """Seconds, and the largest memory in MB, of a command in a process of its own."""
    watch = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:], stdout=-3).returncode; "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    start = time.perf_counter()
    command = [sys.executable, "-c", watch, sys.executable, *map(str, words)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if result.returncode:
        raise cli.UserError(f"{Path(str(words[0])).name} failed: {result.stderr.strip()[-300:]}")
    unit = 1_000_000 if sys.platform == "darwin" else 1000  # bytes there, kilobytes elsewhere
    return seconds, int(result.stdout) // unit


def measure(folder: Path, megabytes: int, repeat: int) -> dict[str, tuple[float, int]]:
    """The best of some runs of each command, on the large file and on a small one."""
    large, small, out = folder / "large.pt", folder / "small.pt", folder / "out.safetensors"
    write_model(large, megabytes)
    write_model(small, 1)
    with large.open("rb") as file:  # so that the disk does not decide
        while file.read(1 << 24):
            pass
    commands: dict[str, list[object]] = {
        "inspect, start": [DEMO / "inspect_model.py", small],
        "inspect": [DEMO / "inspect_model.py", large],
        "picklescan, start": ["-c", PLAIN_SCAN, small],
        "picklescan": ["-c", PLAIN_SCAN, large],
        "convert": [DEMO / "safe_demo.py", "convert", large, "--out", out],
        "plain convert": ["-c", PLAIN_CONVERT, large, out],
    }
    best: dict[str, tuple[float, int]] = {}
    for _ in range(repeat):
        for name, words in commands.items():
            out.unlink(missing_ok=True)
            seconds, memory = run(words)
            before = best.get(name, (seconds, memory))
            best[name] = min(seconds, before[0]), min(memory, before[1])
    return best


def main() -> int:
    """Read the command line, measure, print figures and ratios."""
    arguments = cli.parser(__doc__)
    arguments.add_argument("--megabytes", type=int, default=2000, help="size of the large file")
    arguments.add_argument("--repeat", type=int, default=2, help="measure so many times")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    with tempfile.TemporaryDirectory(prefix="big-files-") as folder:
        best = measure(Path(folder), args.megabytes, args.repeat)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    out.say(f"{date.today()}, {machine}, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    rows = [(name, f"{seconds:.1f}", memory) for name, (seconds, memory) in best.items()]
    out.table(f"A file of {args.megabytes} MB", ["command", "seconds", "MB of memory"], rows)
    own = max(0.0, best["inspect"][0] - best["inspect, start"][0])
    # what a scan costs at the least is uncertain by the noise of starting a process, so a second is granted
    allowed = INSPECT * max(0.0, best["picklescan"][0] - best["picklescan, start"][0]) + 1
    ratios = [
        ("convert, time", best["convert"][0] / best["plain convert"][0], CONVERT),
        ("convert, memory", best["convert"][1] / best["plain convert"][1], MEMORY),
        ("inspect without start-up, of what is allowed", own / allowed, 1.0),
    ]
    out.table("Ratios", ["what", "ratio", "limit"], [(what, f"{r:.2f}", limit) for what, r, limit in ratios])
    return cli.OK if all(ratio <= limit for _, ratio, limit in ratios) else cli.FINDING


if __name__ == "__main__":
    cli.run(main)
