"""The network for answers only: the same function as the trained one, computed with less work.

Scanning asks one network a hundred thousand times and never changes its weights.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from network import device
from network.adapter import Adapter

LIMITLESS = 1 << 30  # images


def at_once(model: nn.Module) -> int:
    """How many images to ask a network about at once, with gradients: our small one about any number."""
    return model.at_once if isinstance(model, Adapter) else LIMITLESS


class StemConv(nn.Module):
    """The first convolution (7x7, stride 2, 3 channels) as one of 4x4, stride 1, over blocks of 2x2 pixels.

    The same sums. Libraries are slow at the gradient of three channels: this takes two thirds of the time.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        kernel = F.pad(conv.weight, (1, 0, 1, 0))  # (D, C, 8, 8)
        blocks = F.pixel_unshuffle(kernel, 2).contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(blocks)  # (D, 4 * C, 4, 4)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """Float (N, C, H, W) to (N, D, H / 2, W / 2), with zeros around the image; H and W even."""
        blocks = F.pixel_unshuffle(F.pad(x, (4, 2, 4, 2)), 2)
        return F.conv2d(blocks.contiguous(memory_format=torch.channels_last), self.weight, self.bias)


def freeze(model: nn.Module) -> nn.Module:
    """A copy of a ResNet18 that gives the same logits, but for rounding, and has no gradients of its weights.

    Batch norms are folded into the convolutions before them, and the weights have the type in which the
    device is fast. Another kind of network stays what it is.
    """
    model = model.eval().requires_grad_(False)
    if not isinstance(model, ResNet):  # an Adapter, say
        return model.to(memory_format=torch.channels_last)
    model = copy.deepcopy(model)
    model.conv1 = StemConv(_folded(model, "conv1", "bn1"))
    for block in model.modules():
        if isinstance(block, BasicBlock):
            block.conv1 = _folded(block, "conv1", "bn1")
            block.conv2 = _folded(block, "conv2", "bn2")
            if block.downsample is not None:
                block.downsample = nn.Sequential(_folded(block.downsample, "0", "1"))
    model = model.to(device.fast_type()).to(memory_format=torch.channels_last)
    return model.requires_grad_(False)


def _folded(parent: nn.Module, conv: str, norm: str) -> nn.Conv2d:
    """The convolution that does the work of both, and a norm that does nothing in place of the other."""
    before, after = parent.get_submodule(conv), parent.get_submodule(norm)
    assert isinstance(before, nn.Conv2d)
    assert isinstance(after, nn.BatchNorm2d)
    setattr(parent, norm, nn.Identity())
    return fuse_conv_bn_eval(before, after)
