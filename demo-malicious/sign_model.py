"""Sign a model file or folder, verify it, and see what a signature does not say.

    python sign_model.py keygen                         writes signer.key (private) and signer.pub (public)
    python sign_model.py sign safe_model.safetensors    writes safe_model.safetensors.sig
    python sign_model.py verify safe_model.safetensors
    python sign_model.py tamper safe_model.safetensors  writes a copy with one bit changed, to verify it

Exit code 0: verified (or written). 1: not verified: changed, another key, or no signature. 2: bad input.

The keys are ECDSA P-256, and all of this works offline, with the model-signing library of the OpenSSF.
A signature by the library's own command may leave out files of a folder: verify names them. One that was made
with a certificate is verified with --certificate ROOT.pem, also offline.
With internet and an account there is a way without keys, sigstore: the library's own command
`python -m model_signing sign sigstore FILE --signature FILE.sig` signs with who you are at your e-mail
provider, and `python -m model_signing verify sigstore --help` names what a check of it needs.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import shutil
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing, signing, verifying

import cli
from inspection.files import everything
from statements import signature_kinds as kinds

PRIVATE_KEY, PUBLIC_KEY = Path("signer.key"), Path("signer.pub")
TOO_DEEP = "{} cannot be read: it holds too many folders in folders, which no model needs."
LARGEST = 10_000_000  # bytes of a signature or key file; real ones have a few thousand


class NotVerified(Exception):
    """The signature does not hold for this file; the text says why, in words for people."""


def signature_beside(path: Path) -> Path:
    """Where the signature of a file or folder lies: beside it, with .sig added to the name."""
    if path.name in ("", ".."):  # "." and "..": only the full path has a name
        path = path.resolve()
    return path.with_name(f"{path.name}.sig")


def keygen(private_key: Path, public_key: Path) -> None:
    """Write a new pair of keys (PEM). Raises UserError rather than replace a key that is there."""
    for path in (private_key, public_key):
        if path.exists():
            raise cli.UserError(
                f"{path} exists, and a lost key is lost: go on with it, or choose another name with --key."
            )
    pair = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public = pair.public_key().public_bytes(serialization.Encoding.PEM, form)
    private = pair.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_new(private_key, private, 0o600)  # whoever can read this file can sign in your name
    write_new(public_key, public, 0o644)


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that was not there before, from its first byte on with this mode."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
    except OSError as error:
        raise cli.UserError(f"Cannot write {path} ({error.strerror}): choose a name with --key.") from error


def fingerprint(public_key: Path) -> str:
    """The SHA-256 of a public key, in hex: a short name to tell keys apart. Raises UserError."""
    try:
        key = serialization.load_pem_public_key(small_file(public_key))
    except ValueError as error:
        raise cli.UserError(
            f"{public_key} is not a valid public key (PEM): give the signer's .pub file."
        ) from error
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.PEM, form)).hexdigest()


def every_file() -> hashing.Config:
    """SHA-256 of every file. By default the library leaves out .git, and something could hide there."""
    return hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)


def sign(path: Path, private_key: Path, signature: Path | None = None) -> Path:
    """Sign a file or folder. Returns the path of the signature, by default beside it.

    Raises UserError if there is nothing to sign, no usable key, or no place for the signature.
    """
    signature = signature or signature_beside(path)
    model = existing_model(path)
    if signature.resolve() == model or model in signature.resolve().parents:
        raise cli.UserError(f"{signature} is part of what is signed: put it beside {path}, not inside.")
    if signature.exists() and not (signature.is_file() and kinds.kind_of(small_file(signature))):
        raise cli.UserError(f"{signature} exists and is not a signature: choose a place with --signature.")
    small_file(private_key)
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=private_key)
    except Exception as error:  # not a key, with a password, or of a kind that the library does not take
        raise cli.UserError(
            f"{private_key} is not a valid private key (P-256, P-384 or P-521, no password): make one with "
            "keygen."
        ) from error
    signer.set_hashing_config(every_file())
    with cli.atomic_write(signature) as scratch:
        try:
            signer.sign(model, scratch)
        except ValueError as error:  # links could lead to other files tomorrow
            raise cli.UserError(
                f"{path} holds a symbolic link: copy it with the files themselves (cp -rL FOLDER COPY) and "
                "name the copy."
            ) from error
        except RecursionError as error:  # in the library, or in Python's own list of a folder
            raise cli.UserError(TOO_DEEP.format(path)) from error
    return signature


def verify(
    path: Path, public_key: Path, signature: Path | None = None, certificate: Path | None = None
) -> list[str]:
    """Check that the owner of this key signed exactly this file or folder (its name does not count).

    With `certificate`, the root of a chain, a signature of that kind is checked instead. Returns what is in
    the folder although the signature leaves it out. Raises NotVerified if it does not hold, UserError if the
    file or the key cannot be read.
    """
    signature = signature or signature_beside(path)
    model = existing_model(path)
    if certificate is None:
        fingerprint(public_key)
    try:
        verifier = (
            verifying.Config().use_elliptic_key_verifier(public_key=public_key)
            if certificate is None
            else verifying.Config().use_certificate_verifier(certificate_chain=[existing_key(certificate)])
        )
    except cli.UserError:
        raise
    except Exception as error:
        raise cli.UserError(
            f"{certificate or public_key} is a key of another kind (not P-256, P-384 or P-521): give the "
            "signer's."
        ) from error
    if not signature.exists():
        raise NotVerified(f"it is not signed: there is no {signature}")
    wanted = kinds.KEY if certificate is None else kinds.CERTIFICATE
    if wrong := kinds.objection(small_file(signature), signature, wanted):
        raise NotVerified(wrong)
    verifier.set_hashing_config(every_file())
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # of an old signature the library prints a remark
            verifier.verify(model, signature)
    except OSError as error:
        raise cli.UserError(f"{path} cannot be read ({error.strerror}): check permissions.") from error
    except RecursionError as error:
        raise cli.UserError(TOO_DEEP.format(path)) from error
    except Exception as error:  # the signature may be anything; nothing in it may stop us
        inside = (
            f"; the signature itself lies in {path}: move it beside"
            if model in signature.resolve().parents
            else ""
        )
        raise NotVerified(printable(kinds.reason(error, signature)) + inside) from error
    return left_out(model, signature)


def left_out(model: Path, signature: Path) -> list[str]:
    """What lies in the folder although the signature, which holds, says to ignore it."""
    if not model.is_dir():
        return []
    envelope = json.loads(small_file(signature))["dsseEnvelope"]
    signed = json.loads(base64.b64decode(envelope["payload"]))
    names = signed["predicate"].get("serialization", {}).get("ignore_paths", [])
    return sorted(str(name) for name in names if os.path.lexists(model / str(name)))


def existing_key(path: Path) -> Path:
    """The path of a key or certificate that can be read, else UserError."""
    small_file(path)
    return path


def tamper(path: Path) -> tuple[Path, int]:
    """Copy a file with one bit changed in its middle, and its signature. Returns the copy and the place."""
    if path.is_dir():
        raise cli.UserError(f"{path} is a folder: name a file to tamper with.")
    existing_model(path)
    copy = path.with_name(f"{path.stem}_tampered{path.suffix}")
    place = path.stat().st_size // 2
    with cli.atomic_write(copy) as scratch:
        shutil.copyfile(path, scratch)
        with scratch.open("r+b") as file:
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ 1]))
    if signature_beside(path).is_file():
        with cli.atomic_write(signature_beside(copy)) as scratch:
            shutil.copyfile(signature_beside(path), scratch)
    return copy, place


def existing_model(path: Path) -> Path:
    """The full path of a file or folder with something in it, else UserError."""
    try:
        if path.is_dir():
            nothing = not list(everything(path))  # all of it: the library leaves out what it cannot open
        elif path.is_file():
            with path.open("rb") as file:
                nothing = not file.read(1)
        else:
            raise cli.UserError(f"{path} is neither a file nor a folder: check the name.")
    except OSError as error:
        raise cli.UserError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error
    if nothing:
        raise cli.UserError(f"{path} is empty: name a model file, or a folder with files.")
    return path.resolve()


def small_file(path: Path) -> bytes:
    """The bytes of a key or signature file, else UserError: no device, no pipe, nothing huge."""
    if not path.is_file():
        raise cli.UserError(f"{path} does not exist or is not a file: make keys with `sign_model.py keygen`.")
    try:
        if path.stat().st_size > LARGEST:
            raise cli.UserError(f"{path} is far too large for a key: check the name.")
        return path.read_bytes()
    except OSError as error:
        raise cli.UserError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error


def printable(text: str) -> str:
    """The text with control characters as "?": names of files must not steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def main() -> int:
    """Read the command line and do one of the four things."""
    arguments = cli.parser(__doc__)
    arguments.add_argument("action", choices=["keygen", "sign", "verify", "tamper"], help="what to do")
    arguments.add_argument("model", nargs="?", type=Path, help="a model file or a folder (not for keygen)")
    arguments.add_argument("--key", type=Path, default=PRIVATE_KEY, help="the private key, to sign")
    arguments.add_argument(
        "--public", type=Path, help="the public key, to verify (default: the name of --key with .pub)"
    )
    arguments.add_argument("--certificate", type=Path, help="verify: the root of the signer's certificate")
    arguments.add_argument("--signature", type=Path, help="the signature (default: beside the model, .sig)")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    public = args.public or args.key.with_suffix(".pub")
    if args.action == "keygen":
        keygen(args.key, public)
        out.say(f"Wrote {args.key}: the private key, only you can read it. Never copy it into an image.")
        out.say(f"Wrote {public}: the public key, for everybody. Its SHA-256 is {fingerprint(public)}.")
        return cli.OK
    if args.model is None:
        raise cli.UserError(f"Which file? Type `python sign_model.py {args.action} FILE`.")
    if args.action == "sign":
        written = sign(args.model, args.key, args.signature)
        out.say(f"Wrote {written}: the digests of {args.model}, signed with {args.key}.")
        return cli.OK
    if args.action == "tamper":
        copy, place = tamper(args.model)
        out.say(f"Wrote {copy}: the same as {args.model}, but one bit is another in byte {place}.")
        out.say(f"Now type: python sign_model.py verify {copy}")
        return cli.OK
    try:
        ignored = verify(args.model, public, args.signature, args.certificate)
    except NotVerified as reason:
        out.say(f"NOT VERIFIED: {args.model}", "bold red")
        out.say(f"Reason: {reason}.")
        return cli.FINDING
    out.say(f"VERIFIED: {args.model}", "bold green")
    out.say(f"The owner of {args.certificate or public} signed it, and not one bit has changed since.")
    if ignored:
        names = printable(", ".join(ignored))
        out.say(f"Careful: the signature leaves out {names}. Nobody vouches for these.", "yellow")
    out.say("A signature says who, and unchanged. It does not say safe: a malicious file can be signed, too.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
