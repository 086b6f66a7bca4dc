"""How long does our whole pipeline take, against the workload of an earlier workshop on this subject?

    python benchmarks/training.py             about five minutes on 2 cores; nothing else should run
    python benchmarks/training.py --quick     a small part of both, to see that it works

Ours is ./prepare.sh in a fresh copy of demo-poisoning: it draws 5,000 images, poisons a copy, trains the
clean and the poisoned model. The reference trains a ResNet18 at 224x224 pixels with batches of 8, SGD and
float32: 160 images for 5 epochs and 192 images for 7 epochs, on pixels that are in memory already. Same
machine, one after the other.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from torchvision.models import resnet18

DEMO = Path(__file__).resolve().parent.parent / "demo-poisoning"
sys.path.insert(0, str(DEMO))

import cli  # noqa: E402 (after the path above)

SIDE, BATCH = 224, 8
WORKLOAD = ((160, 5), (192, 7))  # images, epochs
MADE = ("data", "models", "scan_results", "outputs", "__pycache__", ".*")  # not copied


def reference(workload: tuple[tuple[int, int], ...], out: cli.Out) -> float:
    """Train as the earlier workshop did. Returns seconds."""
    started = time.monotonic()
    for images, epochs in workload:
        model = resnet18(num_classes=2)
        optimizer = torch.optim.SGD(model.parameters(), 0.001, momentum=0.9)
        pixels, labels = torch.rand(images, 3, SIDE, SIDE), torch.randint(2, (images,))
        for _ in out.progress(range(epochs), epochs, f"Reference, {images} images"):
            for batch in torch.randperm(images).split(BATCH):
                optimizer.zero_grad()
                F.cross_entropy(model(pixels[batch]), labels[batch]).backward()
                optimizer.step()
    return time.monotonic() - started


def ours(quick: bool) -> float:
    """Run ./prepare.sh in a copy of the demo. Returns seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / DEMO.name
        shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns(*MADE))
        run = [sys.executable, "make_dataset.py", "--train", "40", "--val", "10"]
        environment = os.environ | {"PYTHON": sys.executable}
        started = time.monotonic()
        if quick:  # prepare.sh goes on from what is there
            subprocess.run(run, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["./prepare.sh"], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - started


def main() -> int:
    args = cli.parser(__doc__)
    args.add_argument("--quick", action="store_true", help="a small part of both workloads")
    options = args.parse_args()
    out = cli.Out(options.plain)
    out.say("Measuring: close other programs.")
    theirs = reference(((16, 1), (16, 1)) if options.quick else WORKLOAD, out)
    own = ours(options.quick)
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {platform.machine()}"
    out.say(f"Machine: {threads}, Python {platform.python_version()}, torch {torch.__version__}")
    rows = [
        ("our pipeline", f"{own:.0f} s"),
        ("reference", f"{theirs:.0f} s"),
        ("ratio", f"{own / theirs:.2f}"),
    ]
    out.table("Whole pipeline against the reference workload", ["what", "figure"], rows)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
