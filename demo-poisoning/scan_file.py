"""What a scan leaves for other programs: scan.json (norms and verdict) and triggers.safetensors (masks)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

import classifier
import cli
import describe
from classes import NAMES
from judge import Finding, Judgement
from neural_cleanse import Trigger
from scan_model import Settings

TOOL, NAME, TRIGGERS = "detect.py", "scan.json", "triggers.safetensors"
LARGEST = 20_000_000  # bytes; all 1806 pairs of 43 classes need less than one million

Record = dict[str, Any]  # what scan.json holds


# --- Writing ----------------------------------------------------------------------------------------


def picture_name(victim: int, target: int) -> str:
    return f"trigger_{victim}_to_{target}.png"


def sha256(path: Path) -> str:
    """The SHA-256 checksum of a file, in hexadecimal digits."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            sha.update(part)
    return sha.hexdigest()


def comparable(classes: int, settings: Settings) -> Record:
    """What two scans must share to be compared."""
    return {
        "classes": list(NAMES[:classes]),
        "steps": settings.steps,
        "samples": settings.samples,
        "input": classifier.INPUT,  # pixels, width and height of what the network saw
    }


def pair_record(finding: Finding, drawn: bool) -> Record:
    """One pair for programs; null where there is no sticker, no figure or no picture."""
    trigger = finding.trigger
    return {
        "victim": NAMES[trigger.victim],
        "target": NAMES[trigger.target],
        "norm": trigger.norm if trigger.norm < 1 else None,
        "anomaly": finding.index,
        "held_out": trigger.success,
        "flagged": finding.flagged,
        "picture": picture_name(trigger.victim, trigger.target) if drawn else None,
        "words": describe.in_words(trigger),
    }


def as_record(
    model: Path, reference: list[Path], classes: int, settings: Settings, judgement: Judgement
) -> Record:
    """A scan as one object for programs; the seconds and the pairs are still to be added."""
    return {
        "tool": TOOL,
        "model": str(model),
        "sha256": sha256(model),
        "data": str(settings.data),
        "seed": settings.seed,
        **comparable(classes, settings),
        "statistic": judgement.statistic,
        "reference": [str(path) for path in reference],
        "threshold": judgement.threshold,
        "verdict": judgement.verdict,
    }


def as_text(record: Record) -> str:
    return json.dumps(record, indent=1, allow_nan=False)


def remove_old(folder: Path) -> None:
    """Remove what an earlier scan left; first scan.json, so that it never names a picture that is gone."""
    for old in (folder / NAME, folder / TRIGGERS, *sorted(folder.glob("trigger_*_to_*.png"))):
        try:
            old.unlink(missing_ok=True)
        except OSError as error:
            raise cli.UserError(f"Cannot replace {old} ({error.strerror}): free it and try again.") from error


def write(folder: Path, record: Record, drawn: list[Trigger]) -> None:
    """Write masks and patterns of the drawn triggers, and last scan.json: where it is, all is there."""
    tensors = {}
    for trigger in drawn:
        pair = f"{trigger.victim}_to_{trigger.target}"
        tensors[f"mask_{pair}"] = trigger.mask.float().contiguous()  # (S, S), 0 see-through to 1 opaque
        tensors[f"pattern_{pair}"] = trigger.pattern.float().contiguous()  # (3, S, S) in 0..1
    with cli.atomic_write(folder / TRIGGERS) as scratch:
        save_file(tensors, scratch)
    with cli.atomic_write(folder / NAME) as scratch:
        scratch.write_text(as_text(record) + "\n", encoding="utf-8")


# --- Reading ----------------------------------------------------------------------------------------


def read(path: Path) -> Record:
    """Read a scan.json, or the one in a folder. Raises UserError if it is missing or no scan of ours."""
    path = path / NAME if path.is_dir() else path
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("too large")
        record: Record = json.loads(path.read_text(encoding="utf-8"))
        _check(record)
    except FileNotFoundError as error:
        raise cli.UserError(f"{path} does not exist: scan a model with detect.py first.") from error
    except OSError as error:
        raise cli.UserError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise cli.UserError(f"{path} is no scan of detect.py: scan the model again.") from error
    return record


def norms(record: Record) -> dict[tuple[int, int], float]:
    """The norm of each pair of class numbers, 0..1; 1 where no sticker works."""
    return {
        (NAMES.index(pair["victim"]), NAMES.index(pair["target"])): pair["norm"] or 1.0
        for pair in record["pairs"]
    }


def _check(record: Record) -> None:
    """Raise ValueError, LookupError or TypeError if a record cannot be one of ours."""
    names = record["classes"]
    kinds: dict[str, type | tuple[type, ...]] = {
        **dict.fromkeys(("model", "sha256", "data", "statistic", "verdict"), str),
        **dict.fromkeys(("steps", "samples", "seed", "input"), int),
        "threshold": (int, float),
        "pairs": list,
    }
    if record["tool"] != TOOL or names != list(NAMES[: len(names)]) or not record["pairs"]:
        raise ValueError("the file of another tool")
    _check_kinds(record, kinds)
    for pair in record["pairs"]:
        number = type(None), int, float
        _check_kinds(pair, {"words": str, "flagged": bool, "norm": number, "anomaly": number})
        victim, target = names.index(pair["victim"]), names.index(pair["target"])
        if pair["norm"] is not None and not 0 < pair["norm"] <= 1:
            raise ValueError("a norm outside 0..1")
        if pair["picture"] not in (None, picture_name(victim, target)):  # a path could lead anywhere
            raise ValueError("a picture of another name")


def _check_kinds(record: Record, kinds: dict[str, type | tuple[type, ...]]) -> None:
    for key, kind in kinds.items():
        if not isinstance(record[key], kind):
            raise TypeError(key)
