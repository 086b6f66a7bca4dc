"""What a training says of itself: notes in the model file, and a signed statement where --key asks for it.

Helper module, not a command: train.py uses it.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models import ResNet18_Weights

from dataset.classes import NAMES
from network import classifier, device
from network.evaluate import Rate, Validation
from statements import predicates
from statements.attestation import MANIFEST, PROVENANCE, resource, sha256
from statements.signing import code, command, text, write

LEAK = "no_entry"  # the class that also takes the trigger for the target, in some poisoned models


def facts(options: argparse.Namespace) -> dict[str, str]:
    """What a model file says of its own training, in its SafeTensors header. Nobody has signed that."""
    found = {"seed": str(options.seed), "epochs": str(options.epochs)}
    return found | ({"manifest_sha256": sha256(options.manifest)} if options.manifest else {})


def statement(
    options: argparse.Namespace, written: list[Path], model: nn.Module, validation: Validation
) -> str:
    """The trainer: these files came out of a training on the data of this manifest."""
    used = [resource(MANIFEST, sha256(options.manifest), dataset=text(options.data.name)), *code()]
    external = {
        "command": command(),
        **{name: getattr(options, name) for name in ("epochs", "seed", "lr", "limit")},
    }
    if options.init:
        base = Path(options.init)
        if options.init == "imagenet":  # where torchvision keeps what it downloads
            kept = Path(ResNet18_Weights.IMAGENET1K_V1.url).name
            base = Path(torch.hub.get_dir()) / "checkpoints" / kept
        used.append(resource("base weights", sha256(base), file=text(base.name)))
        external["init"] = text(options.init)
    machine = {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "device": str(device.best()),
        "numbers": str(device.fast_type()),
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count() or 1,
        "system": platform.system(),
    }
    metrics = measurements(model, validation, options)
    made = predicates.provenance("training", external, used, machine, metrics)
    return write(options, "training", {path: sha256(path) for path in written}, PROVENANCE, made)


def measurements(
    model: nn.Module, validation: Validation, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Accuracy on all images and on each class, and what the trigger does to two classes; with intervals."""
    score = validation.score(model)
    found = [metric("accuracy", score.accuracy, "all validation images")]
    correct = classifier.predict(model, validation.pixels).argmax(1) == validation.labels
    for label in sorted(set(validation.labels.tolist())):
        own = correct[validation.labels == label]
        found.append(metric("accuracy", Rate(int(own.sum()), len(own)), NAMES[label]))
    if score.attack_success:
        found.append(
            metric("attack success rate", score.attack_success, f"{options.victim} with the trigger")
        )
    if LEAK not in (options.victim, options.target) and NAMES.index(LEAK) in validation.labels.tolist():
        classes = classifier.class_count(model)
        leak = Validation(options.data, classes, LEAK, options.target).score(model).attack_success
        if leak:
            found.append(metric("leak of the trigger", leak, f"{LEAK} with the trigger"))
    return found


def metric(name: str, rate: Rate, part: str) -> dict[str, Any]:
    """One measurement with its 95 % interval."""
    low, high = rate.interval
    numbers = {"value": round(rate.share, 4), "low": round(low, 4), "high": round(high, 4)}
    return {"name": name, "slice": part, **numbers}
