"""Signed statements about files: who says what about which bytes.

Helper module, not a command. A statement is an in-toto Statement v1: subjects with their SHA-256, and a
predicate, which is what is said of them. It travels in a DSSE envelope, signed with the key of a role.
All three demos carry the same copy of this file, so that each folder works alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from google.protobuf.json_format import ParseDict, ParseError
    from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
    from in_toto_attestation.predicates.test_result.v0.test_result_pb2 import TestResult
    from in_toto_attestation.v1.statement import Statement as Validator
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import FormatError, UnverifiedSignatureError, VerificationError
    from securesystemslib.signer import CryptoSigner, SSlibKey
except ImportError as missing:
    print(
        f"error: the Python module {missing.name} is not installed: pip install -r requirements.txt does it.",
        file=sys.stderr,
    )
    sys.exit(2)

STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD = "application/vnd.in-toto+json"
PROVENANCE = "https://slsa.dev/provenance/v1"  # how data or a model was made
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"  # what an audit or a scan found
BOM = "https://cyclonedx.org/bom"  # a bill of materials
SCHEMAS = {PROVENANCE: Provenance, TEST_RESULT: TestResult}
ROLES = ("data", "trainer", "auditor", "scanner", "release")
SIGNER = {"list": "release", "training": "trainer", "data": "data", "audit": "auditor", "scan": "scanner"}
ENDING = ".dsse.json"  # of a file with a statement
TESTS = {"audit": ("manifest", "near-duplicates", "features"), "scan": ("backdoor scan",)}  # what must pass
NOTHING, CLEAN = "nothing stands out", "clean"  # the verdicts of audit_data.py and detect.py that pass
NEAR = "near_threshold"  # what detect.py calls a close call
MANIFEST = "manifest"  # what a training statement calls the manifest of its data
BUNDLE = "it is a bundle of Sigstore, whose signer is named by a certificate: verify it with cosign"
LARGEST = 50_000_000  # bytes of a statement or a key


class NotVerified(Exception):
    """The statement is whole, but not signed by the key that it must be signed with."""


@dataclass(frozen=True)
class Statement:
    """What somebody says, once the signature was checked."""

    file: Path
    kind: str  # the type of the predicate
    subjects: Mapping[str, str]  # name -> SHA-256
    predicate: Mapping[str, Any]


def now() -> str:
    """The time, as statements write it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def sha256(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read in blocks. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def resource(name: str, digest: str = "", **notes: Any) -> dict[str, Any]:
    """A thing that a statement names: its SHA-256, and notes of our own (numbers, text, lists of them)."""
    found: dict[str, Any] = {"name": name}
    if digest:
        found["digest"] = {"sha256": digest}
    if notes:
        found["annotations"] = notes
    return found


def statement(subjects: Mapping[str, str], kind: str, predicate: Mapping[str, Any]) -> dict[str, Any]:
    """A statement about files, name -> SHA-256. Raises ValueError if it does not follow its specification."""
    made = {
        "_type": STATEMENT,
        "subject": [resource(name, digest) for name, digest in subjects.items()],
        "predicateType": kind,
        "predicate": predicate,
    }
    check(made, strict=True)
    return made


def check(document: Any, strict: bool = False) -> None:
    """Raise ValueError unless this is an in-toto Statement v1 whose predicate is what its type promises.

    Other people's statements may have fields that we do not know; ours (strict) may not.
    """
    if not isinstance(document, dict) or not isinstance(document.get("predicate"), dict):
        raise ValueError("it is not an in-toto statement")
    if document.get("_type") != STATEMENT:
        raise ValueError("it is an in-toto statement of another version than v1")
    try:
        schema = SCHEMAS.get(str(document.get("predicateType")))
        outline = {**document, "predicate": {"checked": "apart"}} if schema else document
        found = Validator([], "", {})
        found.pb.Clear()
        ParseDict(outline, found.pb, ignore_unknown_fields=not strict)
        found.validate()
        if schema:
            ParseDict(document["predicate"], schema(), ignore_unknown_fields=not strict)
    except (ParseError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"it does not follow its specification ({str(error).splitlines()[0][:200]})"
        ) from error
    for subject in document["subject"]:
        digest = (subject.get("digest") or {}).get("sha256")
        if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ValueError("a subject has no SHA-256")


# --- Keys -------------------------------------------------------------------------------------------


def write_keys(folder: Path, roles: Iterable[str] = ROLES) -> None:
    """Write a pair of ECDSA P-256 keys for each role, PEM: ROLE.key (private), ROLE.pub. Raises OSError.

    Nothing is replaced: FileExistsError, and no key is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [folder / f"{role}{ending}" for role in roles for ending in (".key", ".pub")]
    if there := [name for name in names if name.exists()]:
        raise FileExistsError(17, "exists, and a lost key is lost", str(there[0]))
    for role in roles:
        pair = ec.generate_private_key(ec.SECP256R1())
        private = pair.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = pair.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for name, text, mode in ((f"{role}.key", private, 0o600), (f"{role}.pub", public, 0o644)):
            with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(text)


def read_small(path: Path) -> bytes:
    """The bytes of a file that cannot be huge. Raises OSError or ValueError."""
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError("it is too large")
    return data


def public_key(path: Path) -> SSlibKey:
    """A role's public key. Raises OSError or ValueError."""
    try:
        return SSlibKey.from_crypto(serialization.load_pem_public_key(read_small(path)))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("it is not a valid public key (PEM)") from error


# --- Signing and verifying --------------------------------------------------------------------------


def private_key(path: Path) -> CryptoSigner:
    """A role's private key. Raises OSError or ValueError."""
    try:
        return CryptoSigner(serialization.load_pem_private_key(read_small(path), None))
    except (ValueError, TypeError, AttributeError, UnsupportedAlgorithm) as error:
        raise ValueError("it is not a valid private key (PEM, without a password)") from error


def sign(document: dict[str, Any], key: Path) -> str:
    """The statement in a signed envelope, as JSON text. Raises OSError or ValueError."""
    check(document)
    envelope = Envelope(json.dumps(document, sort_keys=True).encode(), PAYLOAD, {})
    envelope.sign(private_key(key))
    return json.dumps(envelope.to_dict(), indent=1) + "\n"


def open_envelope(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The envelope and what is in it, not verified yet. Raises OSError or ValueError."""
    try:
        envelope = json.loads(read_small(path))
        if "dsseEnvelope" in envelope or "messageSignature" in envelope:
            raise ValueError(BUNDLE)
        content = json.loads(Envelope.from_dict({**envelope, "signatures": []}).payload)
        signatures = [one["sig"] for one in envelope["signatures"]]
        if envelope["payloadType"] != PAYLOAD or not signatures or {type(one) for one in signatures} != {str}:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FormatError) as error:
        if str(error) == BUNDLE:
            raise
        raise ValueError("it is not a signed statement (a DSSE envelope with in-toto content)") from error
    check(content)
    return envelope, content


def is_signed(envelope: dict[str, Any], key: SSlibKey) -> bool:
    """Whether one of the signatures is made with this key; which key it says that it is, is not believed."""
    for signature in envelope["signatures"]:
        try:
            one = {"keyid": key.keyid, "sig": signature["sig"]}
            Envelope.from_dict({**envelope, "signatures": [one]}).verify([key], 1)
            return True
        except (VerificationError, UnverifiedSignatureError, FormatError, ValueError, KeyError, TypeError):
            continue
    return False


def as_statement(path: Path, content: dict[str, Any]) -> Statement:
    """What stands in an envelope, once its signature was checked."""
    subjects = {str(one.get("name") or ""): str(one["digest"]["sha256"]) for one in content["subject"]}
    return Statement(path, str(content["predicateType"]), subjects, content["predicate"])


def verify(path: Path, key: SSlibKey) -> Statement:
    """The statement in a file. Raises NotVerified if this key did not sign it, OSError or ValueError."""
    envelope, content = open_envelope(path)
    if not is_signed(envelope, key):
        raise NotVerified(f"{path} is not signed with that key")
    return as_statement(path, content)
