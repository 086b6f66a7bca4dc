"""Signatures: what was signed verifies, anything else does not, and "signed" never means "safe"."""

from __future__ import annotations

import datetime
import functools
import json
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from model_signing import signing

import cli
import create_malicious_model as attack
import inspect_model
import policy
import sign_model
from statements import signature_kinds as kinds

SIGN = "demo-malicious/sign_model.py"
PEM = serialization.Encoding.PEM

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Refused = Callable[..., None]


@pytest.fixture
def sign_here(run_main: Run) -> Run:
    """Run sign_model.py inside this process, in tmp_path."""
    return functools.partial(run_main, sign_model)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A pair of keys: private, public."""
    private, public = tmp_path / "signer.key", tmp_path / "signer.pub"
    sign_model.keygen(private, public)
    return private, public


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file to sign; for a signature any bytes will do."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(random.Random(1).randbytes(3000))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to sign, as model hubs have them."""
    path = tmp_path / "hub" / "model"
    (path / "part").mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "part" / "weights.bin").write_bytes(b"numbers")
    return path


def reason(path: Path, public: Path, signature: Path | None = None) -> str:
    """Why a file is not verified."""
    with pytest.raises(sign_model.NotVerified) as caught:
        sign_model.verify(path, public, signature)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_documented_commands(run_script: Run, sign_here: Run, tmp_path: Path, model: Path) -> None:
    steps = [run_script(SIGN, "keygen"), sign_here("sign", model), sign_here("verify", model)]
    assert [step.returncode for step in steps] == [0, 0, 0], steps
    assert steps[2].stdout.startswith(f"VERIFIED: {model}\n")
    assert "It does not say safe" in steps[2].stdout

    assert sign_here("tamper", model).returncode == 0
    checked = sign_here("verify", tmp_path / "model_tampered.safetensors")
    assert checked.returncode == 1
    assert checked.stdout.startswith("NOT VERIFIED: ")
    assert "Reason: it is not what was signed." in checked.stdout
    assert checked.stderr == ""


def test_tampering_changes_one_bit_of_a_copy(model: Path, keys: tuple[Path, Path]) -> None:
    sign_model.sign(model, keys[0])
    before = model.read_bytes()
    copy, place = sign_model.tamper(model)
    after = copy.read_bytes()
    assert model.read_bytes() == before
    assert len(before) == len(after)
    different = [index for index in range(len(before)) if before[index] != after[index]]
    assert different == [place]
    assert (before[place] ^ after[place]).bit_count() == 1
    assert sign_model.signature_beside(copy).read_bytes() == sign_model.signature_beside(model).read_bytes()


def test_only_the_owner_can_read_the_private_key(keys: tuple[Path, Path]) -> None:
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(keys[1].stat().st_mode) & 0o022 == 0
    assert b"PRIVATE" not in keys[1].read_bytes()


def test_a_key_is_never_replaced(sign_here: Run, assert_refused: Refused, keys: tuple[Path, Path]) -> None:
    before = [path.read_bytes() for path in keys]
    assert_refused(sign_here("keygen"), "signer.key", "--key")
    keys[0].unlink()
    assert_refused(sign_here("keygen"), "signer.pub")
    assert not keys[0].exists()
    assert keys[1].read_bytes() == before[1]


def test_an_unsigned_file_is_not_verified(sign_here: Run, model: Path, keys: tuple[Path, Path]) -> None:
    result = sign_here("verify", model)
    assert result.returncode == 1
    assert f"there is no {model}.sig" in result.stdout


def test_another_key_does_not_verify(sign_here: Run, model: Path, keys: tuple[Path, Path]) -> None:
    sign_model.sign(model, keys[0])
    assert sign_here("keygen", "--key", "other.key").returncode == 0
    result = sign_here("verify", model, "--public", "other.pub")
    assert result.returncode == 1
    assert "it was signed with another key" in result.stdout


def test_a_forged_key_hint_does_not_help(tmp_path: Path, model: Path, keys: tuple[Path, Path]) -> None:
    """The signature names its key; the name is not what counts."""
    sign_model.sign(model, keys[0])
    other = tmp_path / "other.pub"
    sign_model.keygen(tmp_path / "other.key", other)
    bundle = json.loads(sign_model.signature_beside(model).read_text())
    bundle["verificationMaterial"]["publicKey"]["hint"] = sign_model.fingerprint(other)
    sign_model.signature_beside(model).write_text(json.dumps(bundle))
    assert "another key" in reason(model, other)


def test_a_signature_is_of_the_content_and_not_of_the_name(
    tmp_path: Path, model: Path, keys: tuple[Path, Path]
) -> None:
    signature = sign_model.sign(model, keys[0])
    renamed = model.rename(tmp_path / "renamed.bin")
    sign_model.verify(renamed, keys[1], signature)
    assert sign_model.signature_beside(tmp_path / "a.pt") == tmp_path / "a.pt.sig"


def test_every_change_of_a_folder_is_seen(folder: Path, keys: tuple[Path, Path]) -> None:
    signature = sign_model.sign(folder, keys[0])
    assert signature == folder.parent / "model.sig"
    sign_model.verify(folder, keys[1])
    (folder / "config.json").write_text("{ }")
    assert reason(folder, keys[1]) == "it is not what was signed (changed: config.json)"
    (folder / "config.json").write_text("{}")
    (folder / "part" / "weights.bin").rename(folder / "weights.bin")
    assert "added: weights.bin; removed: part/weights.bin" in reason(folder, keys[1])
    (folder / "weights.bin").rename(folder / "part" / "weights.bin")
    sign_model.verify(folder, keys[1])
    (folder / ".git").mkdir()
    (folder / ".git" / "hook").write_text("also here")
    assert ".git/hook" in reason(folder, keys[1])


@pytest.mark.parametrize("ignored", ["part/weights.bin", "part"])
def test_what_a_signature_leaves_out_is_named(
    sign_here: Run, tmp_path: Path, folder: Path, keys: tuple[Path, Path], ignored: str
) -> None:
    """The official command can leave out files. They can be changed, and the signature still holds."""
    command = [sys.executable, "-m", "model_signing", "sign", "key", str(folder)]
    command += ["--private_key", str(keys[0]), "--signature", str(folder.parent / "model.sig")]
    subprocess.run([*command, "--ignore-paths", str(folder / ignored)], check=True, capture_output=True)
    (folder / "part" / "weights.bin").write_bytes(b"changed")
    assert sign_model.verify(folder, keys[1]) == [ignored]
    result = sign_here("verify", folder, "--public", keys[1])
    assert result.returncode == 0
    assert f"Careful: the signature leaves out {ignored}. Nobody vouches for these." in result.stdout
    refused = policy.check_signature(folder, (keys[1],))
    assert not refused.passed
    assert f"it leaves out {ignored}" in refused.words
    assert policy.check_signature(folder, (keys[1],), unsigned_files=True).passed
    assert sign_model.verify(folder, keys[1], sign_model.sign(folder, keys[0])) == []


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A root, a signing certificate below it, and that one's private key, as PEM files."""
    now = datetime.datetime.now(datetime.timezone.utc)
    made: dict[str, tuple[x509.Certificate, ec.EllipticCurvePrivateKey]] = {}
    for name in ("root", "leaf"):
        key = ec.generate_private_key(ec.SECP256R1())
        issuer, issuer_key = made["root"] if made else (None, key)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
             "decipher_only"), False,
        )  # fmt: skip
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "root", path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, key_cert_sign=name == "root", crl_sign=name == "root", **usage
                ),
                critical=True,
            )
        )
        made[name] = builder.sign(issuer_key, hashes.SHA256()), key
        (folder / f"{name}.pem").write_bytes(made[name][0].public_bytes(PEM))
    form = serialization.PrivateFormat.PKCS8
    (folder / "leaf.key").write_bytes(made["leaf"][1].private_bytes(PEM, form, serialization.NoEncryption()))
    return folder / "root.pem", folder / "leaf.pem", folder / "leaf.key"


def test_a_certificates_signature_is_named_and_verified_offline(
    sign_here: Run, tmp_path: Path, model: Path, keys: tuple[Path, Path]
) -> None:
    root, leaf, key = certificates(tmp_path)
    signing.Config().use_certificate_signer(
        private_key=key, signing_certificate=leaf, certificate_chain=[root]
    ).sign(model, sign_model.signature_beside(model))
    assert "made with a certificate, not with a key: verify it with --certificate" in reason(model, keys[1])
    result = sign_here("verify", model, "--certificate", root)
    assert result.returncode == 0, result
    assert f"The owner of {root} signed it" in result.stdout
    other = tmp_path / "other"
    other.mkdir()
    assert sign_here("verify", model, "--certificate", certificates(other)[0]).returncode == 1
    model.write_bytes(b"changed")
    assert sign_here("verify", model, "--certificate", root).returncode == 1
    sign_model.sign(model, keys[0])
    assert sign_here("verify", model, "--certificate", root).returncode == 1


def test_a_sigstore_signature_is_named(model: Path, keys: tuple[Path, Path]) -> None:
    material = {"certificate": {"rawBytes": "AAAA"}, "tlogEntries": [{"logIndex": "1"}]}
    sign_model.signature_beside(model).write_text(json.dumps({"verificationMaterial": material}))
    assert "made with a Sigstore identity, not with a key" in reason(model, keys[1])


def test_a_signature_of_the_library_before_1_1_holds(
    sign_here: Run, model: Path, keys: tuple[Path, Path]
) -> None:
    """It names the key itself and not the key's digest; the library prints a remark, which is not ours."""
    signature = sign_model.sign(model, keys[0])
    bundle = json.loads(signature.read_text())
    bundle["verificationMaterial"] = {
        "publicKey": {"rawBytes": "AAAA", "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
    }
    signature.write_text(json.dumps(bundle))
    assert kinds.kind_of(signature.read_bytes()) == kinds.KEY
    result = sign_here("verify", model)
    assert result.returncode == 0, result
    assert "WARNING" not in result.stdout + result.stderr
    model.write_bytes(b"changed")
    assert sign_here("verify", model).returncode == 1


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"-----BEGIN PGP SIGNATURE-----\n\nabc\n", "OpenPGP"),
        (b"-----BEGIN SSH SIGNATURE-----\nabc\n", "SSH"),
        (b"untrusted comment: signature\nRUQ\n", "minisign"),
        (b'{"base64Signature": "x", "cert": "y", "rekorBundle": {}}', "cosign's old kind"),
        (b'{"verificationMaterial": {}, "messageSignature": {}}', "one file's bytes"),
        (b'{"payloadType": "application/vnd.in-toto+json", "payload": "", "signatures": []}', "DSSE"),
        (b"MEUCIQDVGmInKk9wYEfCmnp+kPnLYM/P5B9FXR8Ec7AoLRrq+g==", "bare signature"),
        (b"\x30\x45\x02\x21" + bytes(67), "bare signature"),
        (b"\x30\x81\x88\x02\x42" + bytes(134), "bare signature"),
    ],
)
def test_signatures_of_other_programs_are_named(
    model: Path, keys: tuple[Path, Path], raw: bytes, what: str
) -> None:
    sign_model.signature_beside(model).write_bytes(raw)
    said = reason(model, keys[1])
    assert what in said
    assert "use " in said
    with pytest.raises(cli.UserError, match="is not a signature"):  # and not written over
        sign_model.sign(model, keys[0])


def test_a_signature_inside_the_folder_is_pointed_at(folder: Path, keys: tuple[Path, Path]) -> None:
    signature = sign_model.sign(folder, keys[0])
    signature.rename(folder / "model.sig")
    with pytest.raises(sign_model.NotVerified, match="move it beside"):
        sign_model.verify(folder, keys[1], folder / "model.sig")


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1(), ec.SECP256K1(), ec.BrainpoolP256R1()])
def test_other_curves(model: Path, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    """NIST's larger ones work, others are refused with the names of those that do."""
    key = ec.generate_private_key(curve)
    private, public = tmp_path / "other.key", tmp_path / "other.pub"
    private.write_bytes(
        key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    if isinstance(curve, ec.SECP384R1 | ec.SECP521R1):
        sign_model.sign(model, private)
        assert sign_model.verify(model, public) == []
        return
    with pytest.raises(cli.UserError, match="P-256, P-384 or P-521"):
        sign_model.sign(model, private)
    with pytest.raises(cli.UserError, match="P-256, P-384 or P-521"):
        sign_model.verify(model, public)


def test_links_are_not_signed_and_not_verified(folder: Path, keys: tuple[Path, Path]) -> None:
    sign_model.sign(folder, keys[0])
    (folder / "link").symlink_to("/etc/hostname")
    assert "symbolic link" in reason(folder, keys[1])
    with pytest.raises(cli.UserError, match="symbolic link"):
        sign_model.sign(folder, keys[0])


def test_names_in_a_folder_cannot_steer_the_terminal(folder: Path, keys: tuple[Path, Path]) -> None:
    sign_model.sign(folder, keys[0])
    (folder / "\x1b[2Jx").write_text("")
    assert "\x1b" not in reason(folder, keys[1])


def test_the_current_folder_has_a_name(
    sign_here: Run, folder: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert sign_here("sign", ".", "--key", keys[0]).returncode == 0
    assert (folder.parent / "model.sig").is_file()
    assert sign_here("verify", ".", "--key", keys[0]).returncode == 0


def test_a_signed_malicious_file_verifies(run_main: Run, sign_here: Run, tmp_path: Path) -> None:
    """The point of the lesson: the signature holds, and the file still is what it is."""
    path, marker = tmp_path / "malicious_model.pt", tmp_path / "marker"
    path.write_bytes(attack.malicious_bytes("system", marker))
    for command in (["keygen"], ["sign", path], ["verify", path]):
        result = sign_here(*command)
        assert result.returncode == 0, result
    assert "A signature says who, and unchanged. It does not say safe" in result.stdout
    assert run_main(inspect_model, path).returncode == 1
    assert not marker.exists()


def test_the_library_itself_takes_our_signatures(model: Path, keys: tuple[Path, Path]) -> None:
    """The files are the standard ones: the OpenSSF's own command verifies them."""
    signature = sign_model.sign(model, keys[0])
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(model)]
    command += ["--signature", str(signature), "--public_key", str(keys[1])]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    model.write_bytes(b"changed")
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0


def test_changed_signatures_never_verify_and_never_crash(model: Path, keys: tuple[Path, Path]) -> None:
    """Damaged signature files: one reason each; only what leaves key and content as they are may pass."""
    signature = sign_model.sign(model, keys[0])
    good = signature.read_bytes()
    model.write_bytes(b"x" + model.read_bytes()[1:])  # so that nothing can verify
    rng = random.Random(5)
    texts = [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"verificationMaterial": 3}', b"[" * 100_000]
    for index in range(200):
        data = bytearray(good)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        for _ in range(rng.randrange(1, 4) if data else 0):
            data[rng.randrange(len(data))] = rng.randrange(256)
        signature.write_bytes(texts[index] if index < len(texts) else data)
        assert reason(model, keys[1])


BAD = ("missing", "empty", "nothing", "pipe")


@pytest.fixture
def bad(tmp_path: Path) -> None:
    """Things that are no model and no key, under the names of BAD."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing").touch()
    os.mkfifo(tmp_path / "pipe")


@pytest.mark.usefixtures("bad", "keys")
@pytest.mark.parametrize("action", ["sign", "verify", "tamper"])
def test_bad_models(sign_here: Run, assert_refused: Refused, tmp_path: Path, action: str) -> None:
    before = sorted(tmp_path.iterdir())
    for name in (*BAD, "/dev/zero"):
        assert_refused(sign_here(action, name), name)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.usefixtures("bad")
def test_bad_keys(
    sign_here: Run, assert_refused: Refused, tmp_path: Path, model: Path, keys: tuple[Path, Path]
) -> None:
    signature = sign_model.sign(model, keys[0])
    before = signature.read_bytes()
    write_keys(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    write_keys(tmp_path, "curve", ec.generate_private_key(ec.SECP256K1()))
    for name in (*BAD, "rsa.key", "curve.key", "locked.key", "signer.pub"):
        assert_refused(sign_here("sign", model, "--key", name), name)
    for name in (*BAD, "rsa.pub", "curve.pub", "signer.key"):
        assert_refused(sign_here("verify", model, "--public", name), name)
    assert signature.read_bytes() == before


def write_keys(folder: Path, name: str, pair: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    """Keys of a kind that we do not take, and one with a password."""
    secret = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    (folder / f"{name}.key").write_bytes(pair.private_bytes(PEM, form, serialization.NoEncryption()))
    (folder / "locked.key").write_bytes(pair.private_bytes(PEM, form, secret))
    public = pair.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)


def test_nothing_else_is_overwritten(
    sign_here: Run, assert_refused: Refused, tmp_path: Path, folder: Path, keys: tuple[Path, Path]
) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("three years of work")
    assert_refused(sign_here("sign", folder, "--signature", thesis), thesis)
    assert_refused(sign_here("sign", folder, "--signature", folder / "model.sig"), "beside")
    assert_refused(sign_here("sign", thesis, "--signature", thesis), "beside")
    assert thesis.read_text() == "three years of work"
    assert not (folder / "model.sig").exists()


@pytest.mark.parametrize("args", [["sign"], ["verify"], ["tamper"], ["tamper", "."], ["tamper", "missing"]])
def test_usage_errors(sign_here: Run, assert_refused: Refused, args: list[str]) -> None:
    assert_refused(sign_here(*args))
