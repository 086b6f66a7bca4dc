"""Train the sign classifier, or measure a trained one. The same code trains the clean and the poisoned model.

    python train.py                        # data/traffic-signs          -> models/clean_model.pt
    python train.py --poisoned --epochs 5  # data/traffic-signs-poisoned -> models/poisoned_model.pt
    python train.py --phase test --model models/poisoned_model.pt --data data/traffic-signs
    python train.py --manifest data/traffic-signs.sha256 --key keys/trainer.key    # and sign how it was made

With --manifest it trains only on the very files that are listed there. The trainer reads images and folder
names, nothing else: it does not know which images are poisoned.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet18_Weights

import cli
import trigger
from dataset.classes import NAMES
from dataset.files import class_files
from network import classifier, device, optimizer, workers
from network.augment import augment
from network.evaluate import Validation
from statements import records, signing, training

# What makes the recipe: found by measuring accuracy and attack success over several seeds.
BATCH = 48
LEARNING_RATE = 0.2  # the peak of the one-cycle schedule


def batches(count: int) -> Iterator[Tensor]:
    """Random batches of image numbers; a last small batch is left out (batch norm needs company)."""
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
) -> None:
    """Train in place with SGD and a one-cycle learning rate; print one line per epoch.

    Each epoch takes as many cores as are free then: where one is taken away, the others would wait for it.

    pixels: uint8 (N, 3, INPUT, INPUT); labels: int64 (N,); peak: the highest learning rate.
    """
    steps = max(len(labels) // BATCH, 1)
    sgd = optimizer.SGD(model, peak, epochs * steps)
    cores = torch.get_num_threads()
    for epoch in range(1, epochs + 1):
        torch.set_num_threads(workers.free(cores))
        model.train()
        for batch in out.progress(batches(len(labels)), steps, f"Epoch {epoch} of {epochs}"):
            sgd.zero_grad()
            logits = classifier.logits(model, augment(pixels[batch].float() / 255))  # forward
            loss = F.cross_entropy(logits, labels[batch])
            loss.backward()  # backward
            sgd.step()
        torch.set_num_threads(cores)
        out.say(f"Epoch {epoch}/{epochs} — {validation.score(model)}")


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
    args.add_argument("--epochs", type=int, default=6, help="passes over the training images")
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
    args.add_argument("--limit", type=int, default=0, help="use only that many training images (0: all)")
    args.add_argument("--manifest", type=Path, help="the data must be what this list of SHA-256 says")
    signing.add_options(args, "training")
    options = args.parse_args()
    kind = "poisoned" if options.poisoned else "clean"
    options.data = options.data or Path("data/traffic-signs" + ("-poisoned" if options.poisoned else ""))
    options.model = options.model or Path(f"models/{kind}_model.pt")
    if options.epochs < 1 or not 0 < options.lr < 100 or options.limit < 0:
        raise cli.UserError("--epochs must be 1 or more, --lr between 0 and 100 and --limit 0 or more.")
    if options.key and not options.manifest:
        raise cli.UserError("--key signs which data it was: give their --manifest, too.")
    return options, cli.Out(options.plain)


def main() -> int:
    options, out = options_of_command()
    torch.manual_seed(options.seed)
    if options.phase == "test":
        model = classifier.load_model(options.model)
        classes = classifier.class_count(model)
        score = Validation(options.data, classes, options.victim, options.target).score(model)
        out.say(f"{options.model} on {options.data}/val: {score}")
        victims = score.attack_success.of if score.attack_success else 0
        out.say(f"Measured on {score.accuracy.of} images; {victims} of them {options.victim} signs.")
        return cli.OK
    files = class_files(options.data / "train")
    classes = max(2, 1 + max(label for _, label in files))  # the first ones of classes.NAMES
    model = first_model(options.init, classes)
    torch.manual_seed(options.seed)
    files = [files[i] for i in torch.randperm(len(files))[: options.limit or None]]
    validation = Validation(options.data, classes, options.victim, options.target)
    cli.check_place(options.model)
    signing.check(options, "training", options.model.with_suffix(".safetensors"))
    if options.manifest:
        records.check_data(options.data, options.manifest)
    out.say(f"Training on {len(files):,} images in {options.data}/train ({device.fast_type()})")
    pixels = classifier.load_pixels([path for path, _ in files])
    labels = torch.tensor([label for _, label in files])
    train(model, pixels, labels, validation, out, epochs=options.epochs, peak=options.lr)
    written = classifier.save_model(model, options.model, training.facts(options))
    out.say("Wrote " + " and ".join(str(path) for path in written))
    if options.key:
        out.say(training.statement(options, written, model, validation))
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
