"""Where the network computes: on a GPU that gives the processor's results, else on the processor.

Only the network goes there. Images and triggers stay on the processor, and so do all random numbers: a
training or a scan draws the same ones everywhere.
"""

from __future__ import annotations

import copy
import functools
import os
import sys

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cli
from network import resnet

PROCESSOR = torch.device("cpu")
TOLERANCE = 0.02  # relative error that rounding explains


@functools.cache
def best() -> torch.device:
    """The GPU that PyTorch finds here (CUDA, Apple's MPS) if it computes our network correctly, else the CPU.

    The environment variable WORKSHOP_DEVICE names one instead ("cpu", "cuda:1"). Raises UserError if that is
    not here or gives other results than the processor.
    """
    wanted = os.environ.get("WORKSHOP_DEVICE")
    if wanted:
        try:
            device = torch.device(wanted)
        except RuntimeError as error:
            raise cli.UserError(f"WORKSHOP_DEVICE={wanted} is not a device: use cpu, cuda or mps.") from error
    else:
        device = torch.accelerator.current_accelerator(check_available=True) or PROCESSOR
    if device.type == "cpu":
        return PROCESSOR
    correct = agrees(device)
    if wanted and not correct:
        raise cli.UserError(f"WORKSHOP_DEVICE={wanted} cannot compute our network here: use cpu.")
    note = f"{device} does not compute our network correctly, so the processor does"
    if correct:
        note = f"the network computes on {device}; WORKSHOP_DEVICE=cpu keeps it on the processor"
    print(f"note: {note}.", file=sys.stderr)  # stdout is the same everywhere
    return device if correct else PROCESSOR


def agrees(device: torch.device) -> bool:
    """Whether a device gives the processor's results for a training step of our network, within TOLERANCE."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, pixels = resnet.build(10), torch.rand(10, 3, 48, 48)
        for parameter in model.parameters():
            if parameter.ndim == 1:  # else the last factor of each block is 0, and hides what is before it
                nn.init.uniform_(parameter, 0.5, 1)
    here = _step(copy.deepcopy(model), pixels)
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # else 10 bits of each factor
            there = _step(model.to(device), pixels)
    except (RuntimeError, AssertionError):  # AssertionError: torch's word for a build without CUDA
        return False
    return all((a - b).norm() <= TOLERANCE * a.norm() for a, b in zip(here, there))


@torch.enable_grad()  # whoever asks first may compute without
def _step(model: nn.Module, pixels: Tensor) -> list[Tensor]:
    """Logits of a batch, and the gradients of all weights."""
    device = next(model.parameters()).device
    answer = model(pixels.to(device)).cpu()
    cross_entropy(answer, torch.arange(10)).backward()
    return [answer.detach(), *(weight.grad.cpu() for weight in model.parameters() if weight.grad is not None)]


def fast_type() -> torch.dtype:
    """bfloat16 where the device computes faster in it, else float32."""
    if best().type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = best() == PROCESSOR and processor_is_fast_in_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def processor_is_fast_in_bfloat16() -> bool:
    """Whether this processor has AMX, or instructions of another maker than Intel for it.

    Intel's AVX-512 has some, too, and they take longer than float32 (benchmarks/README.md). Without any, the
    library computes as if it had them, which takes longer still.
    """
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    able = torch.cpu.get_capabilities()
    if able.get("architecture") != "x86_64":
        return True
    return bool(able.get("amx_bf16") or (able.get("avx512_bf16") and "Intel" not in able["cpu_name"]))
