"""How fast is the scanner? Our default scan of a ten-class model against a plain loop over the pairs.

    python benchmarks/scanning.py --model demo-poisoning/models/poisoned_model.pt \\
        --data demo-poisoning/data/traffic-signs
    python benchmarks/scanning.py ... --pairs 90     times the whole plain loop: tens of minutes

The plain loop (textbook.py) searches one pair at a time, with 300 steps of 10 images each, in float32 on
torchvision's ResNet18 as it is. By default it is timed for a few pairs and multiplied; the output says so.
Both run in this process, one after the other.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from pathlib import Path

import textbook
import torch
from torch import Tensor
from torchvision.models import resnet18

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo-poisoning"))

import cli
from dataset.classes import NAMES
from network import classifier, device
from scanner import search

STEPS, BATCH = 300, 10  # of the plain loop


def main() -> int:
    args = cli.parser(__doc__)
    args.add_argument("--model", type=Path, default=Path("models/poisoned_model.pt"), help="model to scan")
    args.add_argument(
        "--data", type=Path, default=Path("data/traffic-signs"), help="folder with val/<class>/"
    )
    args.add_argument("--pairs", type=int, default=3, help="pairs that the plain loop is timed for")
    args.add_argument("--steps", type=int, default=100, help="steps of our scan")
    options = args.parse_args()
    out = cli.Out(options.plain)
    model = classifier.load_model(options.model)
    classes = classifier.class_count(model)
    pairs = [(victim, target) for victim in range(classes) for target in range(classes) if victim != target]

    started = time.monotonic()
    settings = search.Settings(options.data, options.steps, 30, 0)
    scan = search.scan(model, pairs, settings, out, "Our scan")
    ours = time.monotonic() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    network = resnet18(num_classes=classes).to(device.best())
    network.load_state_dict(model.state_dict())
    network.eval().requires_grad_(False)

    def read(pixels: Tensor) -> Tensor:
        return network(classifier.normalise(pixels).to(device.best())).cpu()

    chosen = pairs[:: max(1, len(pairs) // options.pairs)][: options.pairs]
    started = time.monotonic()
    for victim, target in out.progress(chosen, len(chosen), "Plain loop"):
        textbook.invert(read, scan.images[victim][:BATCH], [target], steps=STEPS, batch=BATCH)
    plain = (time.monotonic() - started) / len(chosen) * len(pairs)

    machine = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {platform.machine()}"
    out.say(f"Machine: {machine}, Python {platform.python_version()}, torch {torch.__version__}")
    kind = "measured" if len(chosen) == len(pairs) else f"measured for {len(chosen)} pairs and multiplied"
    rows = [
        (
            "our scan",
            f"{ours:.0f} s",
            f"all {len(pairs)} pairs, {options.steps} steps, peak memory {memory / 1e9:.1f} GB",
        ),
        ("plain loop", f"{plain:.0f} s", f"{len(pairs)} pairs, {STEPS} steps, {BATCH} images, {kind}"),
    ]
    out.table("Seconds to scan one model", ["what", "time", "how"], rows)
    out.say(
        f"The scan is {plain / ours:.1f} times faster. First pair of the plain loop: {NAMES[chosen[0][0]]}."
    )
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
