"""Known-clean models of the same task, to compare a scan with: scanned now, or read from their scan.json."""

from __future__ import annotations

import sys
from pathlib import Path

from torch import nn

import anomaly_index
import classifier
import cli
import neural_cleanse
import scan_file
import scan_model
from classes import NAMES
from judge import FEW, THRESHOLD
from scan_model import Pair, Settings

Norms = dict[Pair, float]  # of each pair, 0..1; 1 where no sticker works


def read(path: Path, scanned: Path, classes: int, pairs: list[Pair], settings: Settings) -> nn.Module | Norms:
    """A reference: the norms of an earlier scan, or a model that is still to be scanned.

    scanned: the model file that it will be compared with; classes: how many that one knows. Everything that
    can be refused is refused here, before the long work. Raises UserError.
    """
    reference: nn.Module | Norms
    if path.suffix == ".json" or path.is_dir():
        record = scan_file.read(path)
        checksum, reference = record["sha256"], _norms(path, record, classes, pairs, settings)
    else:
        reference = classifier.load_model(path)
        checksum, known = scan_file.sha256(path), classifier.class_count(reference)
        if known != classes:
            raise cli.UserError(
                f"{path} knows {known} classes, but {scanned} knows {classes}: "
                "use a reference of the same task."
            )
    if checksum == scan_file.sha256(scanned):
        raise cli.UserError(f"{path} is the scanned model itself: use another model, known to be clean.")
    return reference


def _norms(
    path: Path, record: dict[str, object], classes: int, pairs: list[Pair], settings: Settings
) -> Norms:
    """The norms in a record of scan.json; refuses one that was made in another way."""
    for key, value in scan_file.comparable(classes, settings).items():
        if key == "steps" and min(record[key], value) >= neural_cleanse.MOMENTS[-1]:
            continue  # further steps change no norm
        if record[key] != value:
            what = "other classes" if key == "classes" else f"{key} {record[key]}, not {value}"
            raise cli.UserError(f"{path} was made with {what}: scan its model again with the same settings.")
    norms = scan_file.norms(record)
    if missing := [pair for pair in pairs if pair not in norms]:
        raise cli.UserError(
            f"{path} does not hold the pair {scan_model.name(missing[0])}: "
            "scan its model again with that pair."
        )
    return norms


def search(path: Path, model: nn.Module, pairs: list[Pair], settings: Settings, out: cli.Out) -> Norms:
    """Scan a reference model for the same pairs. Raises UserError if it cannot read their pictures."""
    found = scan_model.scan(model, pairs, settings, out, f"Searching triggers in {path}")
    if found.missing:
        victim = NAMES[found.missing[0][0]]
        raise cli.UserError(f"{path} reads too few pictures of {victim} rightly: use another reference.")
    return {(trigger.victim, trigger.target): trigger.norm for trigger in found.triggers}


def doubtful(norms: Norms) -> bool:
    """Whether a reference would be flagged itself: with the same backdoor in it, it would hide that one."""
    working = [norm for norm in norms.values() if norm < 1]
    return len(working) >= FEW and max(anomaly_index.among_pairs(working)) > THRESHOLD


def all_norms(
    references: dict[Path, nn.Module | Norms], pairs: list[Pair], settings: Settings, out: cli.Out
) -> list[Norms]:
    """The norms of each reference, as read() gave it; models are scanned now."""
    found = []
    for path, known in references.items():
        norms = search(path, known, pairs, settings, out) if isinstance(known, nn.Module) else known
        if doubtful(norms):
            print(f"note: {path} would be flagged itself, make sure that it is clean.", file=sys.stderr)
        found.append(norms)
    return found
