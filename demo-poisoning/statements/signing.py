"""How the commands of this demo sign what they did, where --key asks for it: options, checks, one file.

Helper module, not a command. Each statement goes into FILE.STEP.dsse.json, beside the file that it is about.
policy.py of demo 1 and verify_chain.py of demo 3 read them. A signature proves who says it, not that it is
true.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cli
from statements import attestation, predicates
from statements.attestation import ENDING, PROVENANCE, SIGNER, TEST_RESULT, resource, sha256

DEMO = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.txt", "requirements-torch.txt")


def add_options(parser: argparse.ArgumentParser, step: str) -> None:
    """The options of a command that can sign what it did."""
    role = SIGNER[step]
    parser.add_argument("--key", type=Path, help=f"private key of the role {role}: sign what was done")
    parser.add_argument("--evidence", type=Path, help="folder for the signed statement (default: beside)")


def check(options: argparse.Namespace, step: str, subject: Path) -> None:
    """Raise UserError now, rather than after minutes of work, if --key cannot sign."""
    if not options.key:
        if options.evidence:
            raise cli.UserError("--evidence is where a signed statement goes: give --key, too.")
        return
    try:
        attestation.private_key(options.key)
    except OSError as error:
        raise cli.UserError(
            f"{options.key} cannot be read ({error.strerror}): give the private key of {SIGNER[step]}."
        ) from error
    except ValueError as error:
        raise cli.UserError(f"{options.key} cannot sign: {error}.") from error
    cli.check_place(place(options, step, subject))


def place(options: argparse.Namespace, step: str, subject: Path) -> Path:
    """Where the statement goes."""
    return (options.evidence or subject.parent) / f"{subject.name}.{step}{ENDING}"


def write(
    options: argparse.Namespace,
    step: str,
    subjects: Mapping[Path, str],
    kind: str,
    predicate: Mapping[str, Any],
) -> str:
    """Sign a statement about files, path -> SHA-256; it lies beside the last one. What was done, in words."""
    named = {text(path.name): digest for path, digest in subjects.items()}
    path = place(options, step, list(subjects)[-1])
    signed = attestation.sign(attestation.statement(named, kind, predicate), options.key)
    with cli.atomic_write(path) as scratch:
        scratch.write_text(signed, encoding="utf-8")
    said = f": {predicate['result']}" if kind == TEST_RESULT else ""
    return f"Wrote {path}, signed with {options.key}{said}."


def text(given: str) -> str:
    """A name as text that any program can read; bytes that are not UTF-8 become escapes."""
    return given.encode(errors="backslashreplace").decode()


def command() -> str:
    """What was typed."""
    return text(shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]))


def digest_of(checksums: Mapping[str, str]) -> str:
    """The SHA-256 of a manifest of these files."""
    lines = "".join(f"{checksum}  {name}\n" for name, checksum in sorted(checksums.items()))
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def code() -> list[dict[str, Any]]:
    """The Python files of this demo, as one digest of their manifest, and its lock files."""
    files = [*DEMO.glob("*.py"), *DEMO.glob("[a-z]*/*.py")]
    listed = {path.relative_to(DEMO).as_posix(): sha256(path) for path in files}
    locks = [DEMO / name for name in LOCKS if (DEMO / name).is_file()]
    return [resource("code", digest_of(listed)), *(resource(path.name, sha256(path)) for path in locks)]


def data(options: argparse.Namespace, proof: Path) -> str:
    """The data team: the files of this manifest are ours."""
    made = predicates.provenance("data", {"command": command()}, used=code())
    return write(options, "data", {proof: sha256(proof)}, PROVENANCE, made)
