"""Train the sign classifier, or measure a trained one. The same code trains the clean and the poisoned model.

    python train.py                        # data/traffic-signs          -> models/clean_model.pt
    python train.py --poisoned --epochs 5  # data/traffic-signs-poisoned -> models/poisoned_model.pt
    python train.py --phase test --model models/poisoned_model.pt --data data/traffic-signs

The trainer reads pictures and folder names, nothing else: it does not know which pictures are poisoned.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet18_Weights

import classifier
import cli
import dataset
import device
import trigger
from classes import NAMES

# What makes the recipe: found by measuring accuracy and attack success over several seeds.
BATCH = 64
LEARNING_RATE = 0.2  # the peak of the one-cycle schedule, for SGD with momentum
WEIGHT_DECAY = 5e-4


@dataclass
class Score:
    """How a model reads a folder. Fractions 0..1; attack_success_rate is None without victim pictures."""

    clean_acc: float
    attack_success_rate: float | None
    pictures: int
    victims: int

    def __str__(self) -> str:
        rate = "not measured (no victim pictures)"
        if self.attack_success_rate is not None:
            rate = f"{self.attack_success_rate:.2f}"
        return f"clean_acc: {self.clean_acc:.2f}, attack_success_rate: {rate}"


class Validation:
    """The pictures of folder/val/<class>, read once: as they are, and the victim class with the trigger."""

    def __init__(self, folder: Path, classes: int, victim: str, target: str) -> None:
        files = dataset.class_files(folder / "val", classes)
        self.pixels = classifier.load_pixels([path for path, _ in files])
        self.labels = torch.tensor([label for _, label in files])
        victims = [path for path, label in files if NAMES[label] == victim]
        self.triggered = classifier.load_pixels(victims, trigger.stamp) if victims else None
        self.target = NAMES.index(target)

    def score(self, model: nn.Module) -> Score:
        """Clean accuracy, and the share of triggered victim pictures that the model reads as the target."""
        model.eval()
        right = classifier.predict(model, self.pixels).argmax(1) == self.labels
        fooled = None
        if self.triggered is not None:
            answers = classifier.predict(model, self.triggered).argmax(1)
            fooled = (answers == self.target).float().mean().item()
        victims = 0 if self.triggered is None else len(self.triggered)
        return Score(right.float().mean().item(), fooled, len(self.labels), victims)


def augment(pixels: Tensor) -> Tensor:
    """Vary a batch, as cameras do: float (N, 3, H, W) in 0..1, same shape and range returned.

    Brightness, colour cast, small shifts and zooms; and random erasing (Zhong et al., 2020, section 3):
    up to two rectangles of one random colour hide parts of the picture, so that the network does not
    lean on one small patch of colour.
    """
    n, _, height, width = pixels.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(n, *shape).uniform_(low, high)

    pixels = pixels * uniform(0.6, 1.5, 1, 1, 1) * uniform(0.9, 1.1, 3, 1, 1) + uniform(-0.1, 0.1, 1, 1, 1)
    move = torch.zeros(n, 2, 3)
    scale = uniform(0.9, 1.1)
    move[:, 0, 0], move[:, 1, 1] = scale, scale
    move[:, :, 2] = uniform(-0.1, 0.1, 2)
    grid = F.affine_grid(move, [n, 3, height, width], align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)

    y, x = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    for _ in range(2):
        tall, wide = uniform(0.1, 0.5, 1, 1) * height, uniform(0.1, 0.5, 1, 1) * width
        top, left = uniform(0, 1, 1, 1) * (height - tall), uniform(0, 1, 1, 1) * (width - wide)
        hole = (y >= top) & (y < top + tall) & (x >= left) & (x < left + wide) & (uniform(0, 1, 1, 1) < 0.5)
        pixels = torch.where(hole[:, None], uniform(0, 1, 3, 1, 1), pixels)
    return pixels.clamp(0, 1)


def as_stored(weights: Tensor) -> Tensor:
    """The same numbers in the order of memory, where those of a convolution lie with the channels last.

    SGD's fused step makes copies of tensors in any other order, and takes twice as long.
    """
    return weights.permute(0, 2, 3, 1) if weights.ndim == 4 else weights


def batches(count: int) -> Iterator[Tensor]:
    """Random batches of picture numbers; a last small batch is left out (batch norm needs company)."""
    order = torch.randperm(count)
    return iter(order[: max(count // BATCH, 1) * BATCH].split(BATCH))


def train(
    model: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    validation: Validation,
    out: cli.Out,
    *,
    epochs: int,
    peak: float,
) -> Score:
    """Train in place with SGD and a one-cycle learning rate; print one line per epoch.

    pixels: uint8 (N, 3, INPUT, INPUT); labels: int64 (N,). Returns the score after the last epoch.
    """
    steps = max(len(labels) // BATCH, 1)
    weights = list(model.parameters())
    stored = [nn.Parameter(as_stored(weight.data)) for weight in weights]  # the same memory, no copies
    optimiser = torch.optim.SGD(
        stored, peak, momentum=0.9, weight_decay=WEIGHT_DECAY, nesterov=True, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=epochs * steps)
    for epoch in range(1, epochs + 1):
        model.train()
        for batch in out.progress(batches(len(labels)), steps, f"Epoch {epoch} of {epochs}"):
            logits = classifier.logits(model, augment(pixels[batch].float() / 255))
            loss = F.cross_entropy(logits, labels[batch])
            for place, gradient in zip(stored, torch.autograd.grad(loss, weights)):
                place.grad = as_stored(gradient)
            optimiser.step()
            schedule.step()
        score = validation.score(model)
        out.say(f"Epoch {epoch}/{epochs} — {score}")
    return score


def first_model(init: str | None, classes: int) -> nn.Module:
    """Random weights, torchvision's ImageNet weights ("imagenet", downloaded) or those of a local file."""
    if init is None:
        return classifier.new_model(classes)
    if init == "imagenet":
        try:
            weights = dict(ResNet18_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True))
        except OSError as error:
            raise cli.UserError(
                f"The ImageNet weights cannot be downloaded ({error}): go online or leave out --init."
            ) from error
    else:
        weights = classifier.read_weights(Path(init))
    model = classifier.new_model(classes)
    rows = weights.get("fc.weight")
    if rows is None or len(rows) != classes:  # other classes: a new last layer
        weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    try:
        missing = model.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError as error:
        raise cli.UserError(f"{init} holds another kind of network: use a ResNet18.") from error
    if any(not name.startswith("fc.") for name in missing):
        raise cli.UserError(f"{init} holds another kind of network: use a ResNet18.")
    return model


def options_of_command() -> tuple[argparse.Namespace, cli.Out]:
    args = cli.parser(__doc__)
    args.add_argument("--phase", choices=("train", "test"), default="train", help="train, or only measure")
    args.add_argument("--poisoned", action="store_true", help="use the poisoned folder and model name")
    args.add_argument("--data", type=Path, help="folder with train/ and val/ (default: as --poisoned says)")
    args.add_argument(
        "--model", type=Path, help="model file to write or measure (default: as --poisoned says)"
    )
    args.add_argument("--epochs", type=int, default=5, help="passes over the training pictures")
    args.add_argument("--init", help='"imagenet" or a model file to fine-tune from (default: random weights)')
    args.add_argument("--lr", type=float, default=LEARNING_RATE, help="peak learning rate")
    args.add_argument(
        "--victim",
        default=trigger.VICTIM,
        choices=NAMES,
        metavar="CLASS",
        help="class that gets the trigger",
    )
    args.add_argument(
        "--target",
        default=trigger.TARGET,
        choices=NAMES,
        metavar="CLASS",
        help="class that it aims at",
    )
    args.add_argument("--seed", type=cli.seed, default=0, help="random weights, order and augmentation")
    args.add_argument("--limit", type=int, default=0, help="use only that many training pictures (0: all)")
    options = args.parse_args()
    kind = "poisoned" if options.poisoned else "clean"
    options.data = options.data or Path("data/traffic-signs" + ("-poisoned" if options.poisoned else ""))
    options.model = options.model or Path(f"models/{kind}_model.pt")
    if options.epochs < 1 or not 0 < options.lr < 100 or options.limit < 0:
        raise cli.UserError("--epochs must be 1 or more, --lr between 0 and 100 and --limit 0 or more.")
    return options, cli.Out(options.plain)


def main() -> int:
    options, out = options_of_command()
    torch.manual_seed(options.seed)
    if options.phase == "test":
        model = classifier.load_model(options.model)
        classes = classifier.class_count(model)
        score = Validation(options.data, classes, options.victim, options.target).score(model)
        out.say(f"{options.model} on {options.data}/val: {score}")
        out.say(f"Measured on {score.pictures} pictures; {score.victims} of them {options.victim} signs.")
        return cli.OK
    files = dataset.class_files(options.data / "train")
    classes = max(2, 1 + max(label for _, label in files))  # the first ones of classes.NAMES
    model = first_model(options.init, classes)
    torch.manual_seed(options.seed)
    files = [files[i] for i in torch.randperm(len(files))[: options.limit or None]]
    validation = Validation(options.data, classes, options.victim, options.target)
    cli.check_place(options.model)
    out.say(f"Training on {len(files):,} pictures in {options.data}/train ({device.fast_type()})")
    pixels = classifier.load_pixels([path for path, _ in files])
    labels = torch.tensor([label for _, label in files])
    train(model, pixels, labels, validation, out, epochs=options.epochs, peak=options.lr)
    written = classifier.save_model(model, options.model)
    out.say("Wrote " + " and ".join(str(path) for path in written))
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
