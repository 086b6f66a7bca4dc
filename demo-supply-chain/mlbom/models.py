"""What can be said of a model file without loading it: its SHA-256, its format, and what its header says.

Helper module, not a command: make_mlbom.py and check_mlbom.py use it. A SafeTensors header is read as JSON,
a pickle is not opened at all.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from console import UserError

# what train.py writes into the header of a SafeTensors file; nobody has signed it
TOLD = {"manifest_sha256": r"[0-9a-f]{64}", "seed": r"\d{1,10}", "epochs": r"\d{1,10}"}
HEADER_LIMIT = 100_000_000  # bytes; the SafeTensors format allows no longer header
SAYS = "header says "


@dataclass(frozen=True)
class Model:
    """What can be said of a model file without loading it."""

    name: str
    sha256: str  # 64 hexadecimal digits
    facts: dict[str, str]  # format, bytes; for SafeTensors also tensors and parameters


def sha256(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read in blocks."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}): give a model file that exists.") from error
    return digest.hexdigest()


def safetensors_facts(path: Path) -> dict[str, str]:
    """Tensors and parameters from a SafeTensors header. Raises ValueError if the file is damaged."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(HEADER_LIMIT, path.stat().st_size - 8):
            raise ValueError("it has no whole header")
        header = json.loads(file.read(length))
    told = header.get("__metadata__") if isinstance(header, dict) else None
    try:
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        end = max((int(entry["data_offsets"][1]) for entry in tensors), default=0)
        parameters = sum(math.prod(entry["shape"]) for entry in tensors)
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise ValueError("its header does not describe tensors") from error
    if 8 + length + end != path.stat().st_size:
        raise ValueError("its length is not what the header says")
    facts = {"format": "SafeTensors", "tensors": str(len(tensors)), "parameters": str(parameters)}
    return facts | {f"{SAYS}{name}": value for name, value in told_by(told).items()}


def told_by(metadata: object) -> dict[str, str]:
    """What a header says of the training, as far as it has the form that train.py gives it."""
    known = metadata if isinstance(metadata, dict) else {}
    return {name: str(known[name]) for name, form in TOLD.items() if re.fullmatch(form, str(known.get(name)))}


def read_model(path: Path) -> Model:
    """Hash a model file and find its format. Raises UserError if it is not a model file."""
    digest = sha256(path)
    with path.open("rb") as file:
        first = file.read(1)
    if path.suffix == ".safetensors":
        try:
            facts = safetensors_facts(path)
        except (ValueError, RecursionError) as error:
            why = error if type(error) is ValueError else "its header is not JSON"
            raise UserError(f"{path} is not a valid SafeTensors file ({why}): download it again.") from error
    elif zipfile.is_zipfile(path):
        facts = {"format": "PyTorch zip archive with a pickle in it, which can run code"}
    elif first == b"\x80":
        facts = {"format": "pickle, which can run code"}
    else:
        raise UserError(f"{path} is neither SafeTensors nor a whole PyTorch file: give a model file.")
    return Model(path.name, digest, {**facts, "bytes": str(path.stat().st_size)})
