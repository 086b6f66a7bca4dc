"""A finished scan as data: what detect.py wrote into its output folder, with the triggers it recovered.

The folder may come from somebody else, so nothing in it is believed before it is checked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

import classifier
import cli
import scan_file
from classes import NAMES
from neural_cleanse import Trigger

VERDICTS = ("backdoor", "clean", "no valid statistic")


@dataclass
class Pair:
    """One scanned pair; norm and index are None if there is none, trigger is None if it was not drawn."""

    victim: str
    target: str
    norm: float | None  # share of the picture that the smallest working sticker hides, 0..1
    index: float | None  # what the statistic gives
    held_out: float  # share of new pictures that the sticker turns into the target, 0..1
    flagged: bool
    words: str
    trigger: Trigger | None = None

    @property
    def name(self) -> str:
        return f"{self.victim} → {self.target}"


@dataclass
class Scan:
    """The scan of one model, most suspicious pair first."""

    folder: Path
    model: Path
    sha256: str
    data: Path
    classes: list[str]
    statistic: str
    threshold: float
    verdict: str
    settings: str
    pairs: list[Pair]

    @property
    def flagged(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair.flagged]

    @property
    def drawn(self) -> list[tuple[Pair, Trigger]]:
        return [(pair, pair.trigger) for pair in self.pairs if pair.trigger]

    def figure(self, value: float | None) -> str:
        """An index, or the threshold, in words: a threshold of 0.5 needs more digits than one of 4.5."""
        if value is None:
            return "none"
        digits = 1 if self.threshold >= 2 else 2
        return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0 makes 0.0 of -0.0


def read(folder: Path) -> Scan:
    """Read scan.json and triggers.safetensors. Raises UserError if one is missing or broken."""
    record = scan_file.read(folder / scan_file.NAME)
    try:
        scan = _scan(record, folder)
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise cli.UserError(
            f"{folder / scan_file.NAME} contradicts itself: scan the model again with detect.py."
        ) from error
    if record["input"] != classifier.INPUT:
        raise cli.UserError(
            f"{folder / scan_file.NAME} is about pictures of {record['input']} pixels, our models see "
            f"{classifier.INPUT}: scan the model again with detect.py."
        )
    drawn = [pair for pair, raw in zip(scan.pairs, record["pairs"]) if raw["picture"] is not None]
    if drawn:
        _read_triggers(folder / scan_file.TRIGGERS, drawn)
    return scan


def _scan(record: scan_file.Record, folder: Path) -> Scan:
    """Check what must hold of every scan. Raises ValueError, TypeError or LookupError if it does not."""
    settings = f"{record['steps']} steps, {record['samples']} pictures per class, seed {record['seed']}"
    if record["reference"]:
        settings += f", compared with {', '.join(map(str, record['reference']))}"
    pairs = [
        Pair(
            raw["victim"],
            raw["target"],
            raw["norm"],
            raw["anomaly"],
            raw["held_out"],
            raw["flagged"],
            raw["words"],
        )
        for raw in record["pairs"]
    ]
    numbers = [record["threshold"]]
    for pair in pairs:
        shares = [share for share in (pair.norm, pair.held_out) if share is not None]
        numbers += [*shares, *([] if pair.index is None else [pair.index])]
        if pair.victim == pair.target or not all(0 <= share <= 1 for share in shares):
            raise ValueError("a pair that cannot be")
    if not all(map(math.isfinite, numbers)) or record["threshold"] <= 0:
        raise ValueError("no number")
    if len({pair.name for pair in pairs}) < len(pairs) or record["verdict"] not in VERDICTS:
        raise ValueError("a pair comes twice, or an unknown verdict")
    if any(pair.flagged for pair in pairs) != (record["verdict"] == "backdoor"):
        raise ValueError("the verdict is not that of the pairs")
    return Scan(
        folder,
        _path(record["model"]),
        record["sha256"],
        _path(record["data"]),
        record["classes"],
        record["statistic"],
        record["threshold"],
        record["verdict"],
        settings,
        pairs,
    )


def _path(text: str) -> Path:
    """Raises ValueError if it cannot be the name of a file, or not be printed on one line."""
    try:
        if not text.isprintable():
            raise ValueError("no path")
        Path(text).exists()
    except OSError as error:
        raise ValueError("no path") from error
    return Path(text)


def _read_triggers(path: Path, drawn: list[Pair]) -> None:
    """Give each drawn pair its trigger: mask (S, S) and pattern (3, S, S), float 0..1, S = INPUT."""
    if not path.is_file():
        raise cli.UserError(f"{path} does not exist: scan the model again with detect.py.")
    size = (classifier.INPUT, classifier.INPUT)
    try:
        tensors = load_file(path)
        for pair in drawn:
            victim, target = NAMES.index(pair.victim), NAMES.index(pair.target)
            mask = tensors[f"mask_{victim}_to_{target}"].float()
            pattern = tensors[f"pattern_{victim}_to_{target}"].float()
            if mask.shape != size or pattern.shape != (3, *size):
                raise ValueError("another size of pictures")
            if not all(((part >= 0) & (part <= 1)).all() for part in (mask, pattern)):
                raise ValueError("no pixels")
            pair.trigger = Trigger(victim, target, 1.0 if pair.norm is None else pair.norm, mask, pattern)
    except Exception as error:  # a damaged file can make the reader fail in any way
        raise cli.UserError(
            f"{path} is damaged or not that of the scan.json beside it: scan the model again with detect.py."
        ) from error
