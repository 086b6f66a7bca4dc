"""Known-clean models of the same task, to compare a scan with: scanned now, or read from their scan.json."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from torch import nn

import cli
from network import classifier
from scanner import neural_cleanse, result, search, statistics
from scanner.result import ScanResult
from scanner.search import Pair, Settings
from scanner.verdict import FEW, THRESHOLD

Norms = dict[Pair, float | None]  # of each pair, 0..1; None where no trigger works
Reference = nn.Module | Norms  # a model that is still to be scanned, or what a scan has found


def read(
    path: Path,
    scanned: Path,
    *,
    sha256: str,
    classes: int,
    pairs: list[Pair],
    settings: Settings,
    load: Callable[[Path], nn.Module] = classifier.load_model,
    network: str = "",
) -> Reference:
    """A reference: the norms of an earlier scan, or a model that is still to be scanned.

    scanned, sha256: the model that it will be compared with; classes: how many that one knows; load, network:
    how to read a model of its kind, and ScanResult.network. Everything that can be refused is refused here,
    before the long work. Raises UserError.
    """
    reference: Reference
    if path.suffix == ".json" or path.is_dir():
        earlier = result.read(path)
        other = network and earlier.classes != list(settings.names)
        if earlier.network != network or other:
            raise cli.UserError(
                f"{path} is about another network or other classes ({earlier.network or 'one of train.py'}): "
                "scan its model again with the same --arch, --input, --mean, --std and --classes."
            )
        checksum, reference = earlier.sha256, _norms(path, earlier, classes, pairs, settings)
    else:
        reference = load(path)
        checksum, known = result.sha256(path), classifier.class_count(reference)
        if known != classes:
            raise cli.UserError(
                f"{path} knows {known} classes, but {scanned} knows {classes}: "
                "use a reference of the same task."
            )
    if checksum == sha256:
        raise cli.UserError(f"{path} is the scanned model itself: use another model, known to be clean.")
    return reference


def check_distinct(paths: list[Path]) -> None:
    """Raise UserError if two references are the same model: the second would say nothing new."""
    seen: dict[str, Path] = {}
    for path in paths:
        scanned = path.suffix == ".json" or path.is_dir()
        first = seen.setdefault(result.read(path).sha256 if scanned else result.sha256(path), path)
        if first != path or paths.count(path) > 1:
            raise cli.UserError(f"{path} is the same model as {first}: give each clean twin once.")


def _norms(path: Path, earlier: ScanResult, classes: int, pairs: list[Pair], settings: Settings) -> Norms:
    """The norms of an earlier scan; refuses one that was made in another way."""
    steps = earlier.steps, settings.steps
    if min(steps) >= neural_cleanse.MOMENTS[-1]:  # further steps change no norm
        steps = settings.steps, settings.steps
    for what, (theirs, ours) in {
        "classes": (len(earlier.classes), classes),
        "steps": steps,
        "samples": (earlier.samples, settings.samples),
        "pixels per side": (earlier.input_size, settings.size or classifier.INPUT),
    }.items():
        if theirs != ours:
            raise cli.UserError(
                f"{path} was made with {theirs} {what}, not {ours}: "
                "scan its model again with the same settings."
            )
    if missing := [pair for pair in pairs if pair not in earlier.norms]:
        raise cli.UserError(
            f"{path} does not hold the pair {search.name(missing[0], settings.names)}: "
            "scan its model again with that pair."
        )
    return earlier.norms


def scan(path: Path, model: nn.Module, pairs: list[Pair], settings: Settings, out: cli.Out) -> Norms:
    """Scan a reference model for the same pairs. Raises UserError if it does not know their images."""
    found = search.scan(model, pairs, settings, out, f"Searching triggers in {path}")
    if found.missing:
        victim = settings.names[found.missing[0][0]]
        raise cli.UserError(f"{path} classifies too few images of {victim} correctly: use another reference.")
    return {(trigger.victim, trigger.target): trigger.norm for trigger in found.triggers}


def doubtful(norms: Norms) -> bool:
    """Whether a reference would be flagged itself: with the same backdoor in it, it would hide that one."""
    known = [statistics.LARGE if norm is None else norm for norm in norms.values()]
    return len(known) >= FEW and max(statistics.among_pairs(known)) > THRESHOLD


def all_norms(
    references: dict[Path, Reference], pairs: list[Pair], settings: Settings, out: cli.Out
) -> list[Norms]:
    """The norms of each reference, as read() gave it; models are scanned now."""
    found = []
    for path, known in references.items():
        norms = scan(path, known, pairs, settings, out) if isinstance(known, nn.Module) else known
        if doubtful(norms):
            print(f"note: {path} would be flagged itself, make sure that it is clean.", file=sys.stderr)
        found.append(norms)
    return found
