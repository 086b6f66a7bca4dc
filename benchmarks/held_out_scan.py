"""Helper module, not a command: make, measure and scan one model of held_out.py, which a worker can do.

It is no part of the command, because what stands in a command is sent to workers piece by piece, and PyTorch
does not bear that.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cluster
import held_out_images
import held_out_models
import held_out_networks
import torch
from held_out_models import Spec

# isort: split  (held_out_models puts demo-poisoning on the path)
import cli
from network import classifier
from scanner import result, search, verdict

STEPS, SAMPLES = 100, 30  # of the scan: detect.py's defaults

Row = dict[str, Any]


def make_row(spec: Spec, work: Path, models: Path, photos: Path | None, quick: bool) -> Row:
    """Train one model, unless it is there, then measure and scan it: what a worker does."""
    torch.set_num_threads(1)
    out, kind = cluster.Silent(plain=True), spec.kind
    folder = held_out_images.data_folder(spec.data, work, photos, quick)
    path = models / f"{spec.name}.safetensors"
    started = time.process_time()
    if not path.exists():
        epochs = 1 if quick else held_out_models.EPOCHS
        held_out_networks.save(held_out_models.make(spec, folder, epochs, out), path)
    trained = time.process_time()
    model = held_out_networks.load(path, kind.network, kind.classes)
    score = held_out_models.validation(spec, folder).score(model)
    scan = scanned(path, model, folder, 5 if quick else STEPS, out)
    return {
        "name": spec.name,
        "kind": kind.name,
        "clean": spec.attack is None,
        "in_scope": kind.in_scope,
        "seed": spec.seed,
        "data": spec.data,
        "network": kind.network,
        "classes": kind.classes,
        "attacked": [search.name(pair) for pair in held_out_models.Backdoor(spec).attacked()]
        if spec.attack
        else [],
        "clean_acc": round(score.clean_acc, 4),
        "asr": None if score.attack_success_rate is None else round(score.attack_success_rate, 4),
        "sha256": scan.sha256,
        "verdict": scan.verdict,
        "near_threshold": scan.near_threshold,
        "index": None if scan.largest is None else round(scan.largest, 4),
        "flagged": [search.name(pair.numbers) for pair in scan.flagged],
        "suspect": search.name(scan.pairs[0].numbers),
        "description": scan.pairs[0].description,
        "norms": {search.name(pair): norm and round(norm, 5) for pair, norm in scan.norms.items()},
        "train_cpu_seconds": round(trained - started, 1),
        "scan_cpu_seconds": scan.seconds,
    }


def scanned(path: Path, model: torch.nn.Module, folder: Path, steps: int, out: cli.Out) -> result.ScanResult:
    """The default scan of detect.py: all pairs, and its verdict. Seconds are those of the processor.

    Other networks than ours get a verdict as if they were ours, which detect.py does not give.
    """
    classes = classifier.class_count(model)
    pairs = [(v, t) for v in range(classes) for t in range(classes) if v != t]
    settings = search.Settings(folder, steps, SAMPLES, 0)
    started = time.process_time()
    found = search.scan(model, pairs, settings, out, "Searching triggers")
    statistic = verdict.by_norms(found.triggers, classes)
    if unlike := verdict.unlike(found.accuracy, ours=True):  # the index is tried on other networks, too
        statistic = verdict.calibrated(statistic, found.triggers, [], unlike)
    return result.summarize(
        path,
        found.triggers,
        statistic,
        settings,
        sha256=result.sha256(path),
        classes=classes,
        references=[],
        seconds=time.process_time() - started,
    )
