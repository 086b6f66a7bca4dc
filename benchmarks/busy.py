"""How much longer do commands of demo 2 take when two other programs want the processor, too?

    python benchmarks/busy.py --model demo-poisoning/models/poisoned_model.pt \\
        --data demo-poisoning/data/traffic-signs
    python benchmarks/busy.py ... --quick        a small part of each, to see that it works

Each command runs alone, then beside two processes that never rest, in turns. One row per run goes to
busy.jsonl. Where two threads and two other processes want two cores, a fair share is half of the machine: a
ratio of 2 is what the arithmetic allows, and more is what the command loses by waiting.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo-poisoning"))

import cli

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "demo-poisoning"
BUSY = 2  # processes beside the measured one


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that never rest, while it lasts."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def commands(options: argparse.Namespace, scratch: str) -> dict[str, list[str]]:
    """The commands to measure; each writes into the scratch folder."""
    model, data = str(options.model.resolve()), str(options.data.resolve())
    scan = ["detect.py", "--model", model, "--data", data, "--output", f"{scratch}/scan"]
    audit = ["audit_data.py", data, "--model", model, "--output", f"{scratch}/audit"]
    train = ["train.py", "--data", data, "--model", f"{scratch}/model.pt", "--epochs", "1"]
    monitor = ["monitor.py", "--measure", "--model", model, "--data", data]
    if options.quick:
        scan += ["--steps", "2", "--samples", "4", "--victims", "stop"]
        train += ["--limit", "64"]
    return {"scan": scan, "audit": audit, "training, one epoch": train, "monitor": monitor}


def seconds(command: list[str]) -> float:
    """How long a command of the demo takes. Raises UserError if it fails; a finding or no verdict is fine."""
    started = time.monotonic()
    ended = subprocess.run([sys.executable, *command], cwd=DEMO, capture_output=True, text=True, check=False)
    took = time.monotonic() - started
    if ended.returncode not in (0, 1) and "no verdict" not in ended.stderr:
        raise cli.UserError(f"{command[0]} failed: {ended.stderr.strip().splitlines()[-1]}")
    return took


def main() -> int:
    args = cli.parser(__doc__)
    args.add_argument("--model", type=Path, default=DEMO / "models/poisoned_model.pt", help="model to scan")
    args.add_argument(
        "--data", type=Path, default=DEMO / "data/traffic-signs", help="folder with train/ and val/"
    )
    args.add_argument("--rows", type=Path, default=HERE / "busy.jsonl", help="file of raw rows")
    args.add_argument("--repeat", type=int, default=1, help="how often each is measured")
    args.add_argument("--only", choices=("scan", "audit", "training", "monitor"), help="measure only this")
    args.add_argument("--quick", action="store_true", help="a small part of each")
    options = args.parse_args()
    out = cli.Out(options.plain)
    out.say("Measuring: close other programs.")
    table = []
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    with tempfile.TemporaryDirectory() as scratch:
        for what, command in commands(options, scratch).items():
            if options.only and not what.startswith(options.only):
                continue
            took: dict[int, list[float]] = {0: [], BUSY: []}
            for _ in range(options.repeat):
                for others, times in took.items():
                    with busy(others):
                        times.append(seconds(command))
                    row = {"what": what, "others": others, "seconds": round(times[-1], 1)}
                    row |= {"machine": machine, "load": round(os.getloadavg()[0], 1), "quick": options.quick}
                    with options.rows.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
            alone, beside = (statistics.median(times) for times in took.values())
            table.append((what, f"{alone:.0f} s", f"{beside:.0f} s", f"{beside / alone:.1f}"))
    out.say(f"Machine: {machine}, Python {platform.python_version()}")
    columns = ["what", "alone", f"beside {BUSY} busy processes", "ratio"]
    out.table("Seconds on a quiet and on a busy machine", columns, table)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
