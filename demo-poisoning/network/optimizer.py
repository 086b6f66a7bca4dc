"""Stochastic gradient descent with a one-cycle learning rate, fast for weights that lie channels last."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WEIGHT_DECAY = 5e-4


class SGD:
    """torch.optim.SGD (Nesterov momentum, weight decay) for one run of `steps` steps up to the rate `peak`.

    The same steps as plain SGD takes, in half the time: its fused kernel copies weights and gradients that do
    not lie in memory in the order of their dimensions.
    """

    def __init__(self, model: nn.Module, peak: float, steps: int) -> None:
        self.weights = list(model.parameters())
        self.stored = [nn.Parameter(_as_stored(weight.data)) for weight in self.weights]  # the same memory
        self.sgd = torch.optim.SGD(
            self.stored, peak, momentum=0.9, weight_decay=WEIGHT_DECAY, nesterov=True, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.sgd, peak, total_steps=steps)

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        for weight in self.weights:
            weight.grad = None

    def step(self) -> None:
        """Change the weights by their gradients, then the learning rate."""
        for stored, weight in zip(self.stored, self.weights):
            stored.grad = None if weight.grad is None else _as_stored(weight.grad)
        self.sgd.step()
        self.schedule.step()


def _as_stored(weights: Tensor) -> Tensor:
    """The same numbers in the order of memory, where those of a convolution lie with the channels last."""
    return weights.permute(0, 2, 3, 1) if weights.ndim == 4 else weights
