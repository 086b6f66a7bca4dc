"""How fast are the last convolutions of the classifier, as matrix products and as torch's convolutions?

    python benchmarks/small_maps.py     half a minute; nothing else should run

For each kind of 3x3 convolution in layer3 and layer4: one step of training, forward and backward, with a
batch of maps, as resnet.PatchConv computes it and as torch.nn.Conv2d does, with the same weights.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo-poisoning"))

import cli
from network import device, resnet

KINDS = ((128, 256, 2, 6), (256, 256, 1, 3), (256, 512, 2, 3), (512, 512, 1, 2))  # in, out, stride, map side
BATCH, WARM_UP, REPEATS = 64, 3, 10


def milliseconds(convolution: nn.Conv2d, maps: torch.Tensor) -> float:
    """Median time of a forward and a backward pass."""
    times = []
    for _ in range(WARM_UP + REPEATS):
        convolution.weight.grad = None
        maps = maps.detach().requires_grad_()
        started = time.perf_counter()
        with torch.autocast("cpu", device.fast_type()):
            answer = convolution(maps)
        answer.sum().backward()
        times.append(1000 * (time.perf_counter() - started))
    return sorted(times[WARM_UP:])[REPEATS // 2]


def main() -> int:
    options = cli.parser(__doc__).parse_args()
    out = cli.Out(options.plain)
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {platform.machine()}"
    out.say(f"Machine: {threads}, torch {torch.__version__}, {device.fast_type()}")
    rows = []
    for inside, outside, stride, side in KINDS:
        maps = torch.randn(BATCH, inside, side, side).to(memory_format=torch.channels_last)
        convolution = nn.Conv2d(inside, outside, 3, stride, 1, bias=False).to(
            memory_format=torch.channels_last
        )
        plain = milliseconds(convolution, maps)
        convolution.__class__ = resnet.PatchConv
        ours = milliseconds(convolution, maps)
        kind = f"{inside} to {outside} channels, stride {stride}, maps of {side}x{side}"
        rows.append((kind, f"{plain:.1f} ms", f"{ours:.1f} ms", f"{plain / ours:.1f}"))
    out.table("One step of training", ["convolution", "Conv2d", "PatchConv", "times faster"], rows)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
