"""What audit and scan say of themselves in signed statements, where --key asks for it.

Helper module, not a command: audit_data.py and detect.py use it, and train.py to check its data. Nothing
here knows the trigger.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cli
from dataset import manifest
from statements import predicates
from statements.attestation import TEST_RESULT, sha256
from statements.signing import code, digest_of, write


def check_data(folder: Path, proof: Path) -> None:
    """Raise UserError unless the folder holds the files of the manifest, and no others."""
    changes = manifest.compare(manifest.read(proof), manifest.checksums(folder))
    counts = {name: len(files) for name, files in vars(changes).items() if files}
    if counts:
        found = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise cli.UserError(f"{folder} does not hold what {proof} lists ({found}): these are other data.")


def audit(options: argparse.Namespace) -> str:
    """The auditor: what audit_data.py has just written of the data of this manifest."""
    result = options.output / "suspects.json"
    found = json.loads(result.read_bytes())
    said = predicates.audit(found, sha256(result))
    return write(options, "audit", {options.manifest: found["manifest_sha256"]}, TEST_RESULT, said)


def scan(options: argparse.Namespace, result: Path) -> str:
    """The scanner: what detect.py has just written of this model file."""
    found = json.loads(result.read_bytes())
    said = predicates.scan(found, sha256(result), clean_images(options.data))
    said["configuration"] += code()
    return write(options, "scan", {options.model: found["sha256"]}, TEST_RESULT, said)


# --- What they name ---------------------------------------------------------------------------------


def clean_images(folder: Path) -> str:
    """The SHA-256 of the manifest of folder/val: (cd FOLDER/val && sha256sum */* | sha256sum).

    Of the folder itself where it holds no val/, as for another network than ours.
    """
    return digest_of(manifest.checksums(folder / "val" if (folder / "val").is_dir() else folder))
