"""The networks of the held-out models: the demo's ResNet18 and two others. Helper module, not a command."""

from __future__ import annotations

from pathlib import Path

import population
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small
from torchvision.models.vgg import make_layers

# isort: split  (population puts demo-poisoning on the path)
import cli
import train
from network import classifier, device

assert population
PEAK = {"resnet18": train.LEARNING_RATE, "vgg": 0.05, "mobilenet_v3_small": 0.1}  # highest learning rate


class Headed(nn.Module):
    """A network of torchvision whose last layer has the name that the scanner asks for the class count."""

    def __init__(self, body: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.body, self.fc = body, nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Float (N, 3, H, W) to (N, classes) logits."""
        logits: Tensor = self.fc(self.body(x))
        return logits


def network(name: str, classes: int) -> nn.Module:
    """A network with random weights, where the device computes: one of PEAK."""
    return _build(name, classes).to(device.best())


def _build(name: str, classes: int) -> nn.Module:
    if name == "resnet18":
        return classifier.new_model(classes)
    if name == "vgg":  # no residual connections; VGG11 (Simonyan and Zisserman, 2015) of half the width
        layers = [32, "M", 64, "M", 128, 128, "M", 256, 256, "M", 256, 256]
        body = nn.Sequential(make_layers(layers, batch_norm=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return Headed(body, 256, classes).to(memory_format=torch.channels_last)
    model = mobilenet_v3_small()
    features = model.classifier[0].in_features
    model.classifier = nn.Identity()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # torchvision's 0.01 is for more steps than we take
    return Headed(model, features, classes).to(memory_format=torch.channels_last)


def load(path: Path, name: str, classes: int) -> nn.Module:
    """A trained model, in evaluation mode. Raises UserError if the file does not fit."""
    model = network(name, classes)
    try:
        model.load_state_dict(classifier.read_weights(path))
    except RuntimeError as error:
        raise cli.UserError(f"{path} is no {name} of {classes} classes: choose another --models.") from error
    return model.eval()


def save(model: nn.Module, path: Path) -> None:
    """Write the weights as .safetensors."""
    for written in classifier.save_model(model, path):
        if written.suffix != ".safetensors":
            written.unlink()
