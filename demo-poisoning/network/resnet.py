"""The network: torchvision's ResNet18, computed faster where its maps are small."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18


class PatchConv(nn.Conv2d):
    """A 3x3 convolution as one matrix product over patches, as im2col does it: the same sums, other order.

    Libraries tune convolutions for large maps. On the last maps of our network, of 2x2 values, this was
    seven times faster (benchmarks/README.md).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Float (N, C, H, W) to (N, D, H / stride, W / stride), rounded up; zeros around the map."""
        x = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        rows, columns = x.shape[1:3]
        numbers = torch.arange(rows * columns, device=x.device).view(rows, columns)
        patches = numbers.unfold(0, 3, self.stride[0]).unfold(1, 3, self.stride[0])
        # not a slice for each of the 9 places: the backward pass of index_select takes half the time
        values = x.flatten(1, 2).index_select(1, patches.flatten()).view(len(x), *patches.shape[:2], -1)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # (D, 9 * C), in the order of the patches
        return functional.linear(values, weight, self.bias).permute(0, 3, 1, 2)


def build(classes: int) -> nn.Module:
    """A ResNet18 with random weights: float (N, 3, H, W) to (N, classes) logits.

    Each residual block starts as the identity (Goyal et al., 2017, section 5.1), so few epochs are enough.
    """
    model = resnet18(num_classes=classes, zero_init_residual=True)
    for module in [*model.layer3.modules(), *model.layer4.modules()]:
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.__class__ = PatchConv  # same weights, same names in the model file
    return model.to(memory_format=torch.channels_last)  # PatchConv need not copy its weights then
