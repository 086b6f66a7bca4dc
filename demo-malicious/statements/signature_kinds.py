"""What kind of signature a file holds, and, in a few words of ours, why one does not hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature

KEY, CERTIFICATE, SIGSTORE = "key", "certificate", "Sigstore identity"
WAYS = {
    KEY: "verify it with --public KEY.pub",
    CERTIFICATE: "verify it with --certificate ROOT.pem",
    SIGSTORE: "verify it with the library's own command, which needs the internet: python -m model_signing "
    "verify sigstore --help",
}
# signatures of other programs: how a text begins, or what a JSON file holds; what that is, what verifies it
BEGINNINGS = {
    "-----BEGIN PGP ": ("a signature of OpenPGP", "gpg --verify"),
    "-----BEGIN SSH SIGNATURE": ("a signature of SSH", "ssh-keygen -Y verify"),
    "untrusted comment:": ("a signature of minisign or signify", "minisign -V"),
}
PARTS = {
    "base64Signature": ("a bundle of cosign's old kind", "cosign verify-blob --bundle"),
    "messageSignature": ("a signature of one file's bytes, as cosign makes", "cosign verify-blob --bundle"),
    "payloadType": ("a bare DSSE envelope", "the program that made it"),
}
# a pair of numbers in DER, or in base64
BARE = re.compile(r"M[EGI][A-Z0-9]CM?|0[D-Ff]\x02|0\x81[\x80-\x8b]\x02")


def objection(raw: bytes, signature: Path, wanted: str) -> str:
    """Why a file of these bytes is not a signature of the kind `wanted`, and what to do; nothing if it is."""
    if other := other_program(raw):
        return f"{signature} is {other[0]}, which this command does not read: use {other[1]}"
    found = kind_of(raw)
    if not found:
        return f"{signature} is damaged or not a valid signature"
    if found != wanted:
        return f"{signature} was made with a {found}, not with a {wanted}: {WAYS[found]}"
    return ""


def other_program(raw: bytes) -> tuple[str, str] | None:
    """What another program's signature is, and what verifies it; None if it is none that we know."""
    text = raw.decode("latin1")
    try:
        parts = json.loads(raw)
        return next((PARTS[name] for name in PARTS if isinstance(parts, dict) and name in parts), None)
    except (ValueError, RecursionError):
        if BARE.match(text):
            return "a bare signature, as cosign and openssl write", "cosign verify-blob"
        return next((BEGINNINGS[start] for start in BEGINNINGS if text.lstrip().startswith(start)), None)


def kind_of(raw: bytes) -> str:
    """How a signature was made: with a key, with a certificate, or by Sigstore; nothing if it is none."""
    try:
        material = json.loads(raw)["verificationMaterial"]
        key = material.get("publicKey", {})  # up to model-signing 1.0.1 the key itself, then its digest
        if isinstance(key.get("hint"), str) or isinstance(key.get("rawBytes"), str):
            return KEY
        if material.get("tlogEntries") or "certificate" in material:
            return SIGSTORE
        return CERTIFICATE if isinstance(material["x509CertificateChain"]["certificates"], list) else ""
    except Exception:  # anything may stand there
        return ""


def reason(error: Exception, signature: Path) -> str:
    """The library's reason in a few words of ours."""
    text = str(error)
    if isinstance(error, InvalidSignature):
        return f"{signature} was changed, or made with another key"
    if text.startswith("Key mismatch"):
        return "it was signed with another key"
    if text.startswith("Signature mismatch"):
        changed = set(re.findall(r"Hash mismatch for \\?'(.*?)\\?'", text)) - {"."}
        extra = re.findall(r"Extra files found in model .*?: (.*?)[\"']", text)
        missing = re.findall(r"Missing files in model .*?: (.*?)[\"']", text)
        named = {"changed": sorted(changed), "added": extra, "removed": missing}
        details = "; ".join(f"{what}: {', '.join(names)}" for what, names in named.items() if names)
        return "it is not what was signed" + (f" ({details})" if details else "")
    if "symlink" in text:
        return "it holds a symbolic link, which the signature does not cover"
    return f"{signature} is damaged, or a signature of another kind"
