"""Demo 3's evidence: ML-BOMs with cards and statements, signatures, and the chain, each link broken once."""
# ruff: noqa: F811, F401 (fixtures are imported, and then named as arguments)

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import spdx_python_model
from cryptography.hazmat.primitives import serialization

sys.path.append(str(Path(__file__).resolve().parent))
from scan_helpers import DEMO, Result, errors, typed  # isort: skip
import attest
import break_link
import check_mlbom
import make_mlbom
import verify_chain
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from statements import attestation, chain

LINKS = ["list", "training", "data", "audit", "scan"]


def safetensors(*values: float) -> bytes:
    """A whole SafeTensors file with one tensor."""
    data = struct.pack(f"<{len(values)}f", *values)
    entry = {"w": {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, len(data)]}}
    header = json.dumps(entry).encode()
    return struct.pack("<Q", len(header)) + header + data


def scan_result(
    model: Path, index: float = 1.9, threshold: float = 4.8, verdict: str = "", **more: object
) -> dict[str, Any]:
    """A result of detect.py, with what attest.py reads of it."""
    flagged = index > threshold
    return {
        "tool": "detect.py",
        "format": 2,
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "data": "data/traffic-signs",
        "steps": 300,
        "samples": 10,
        "seed": 0,
        "classes": ["stop", "yield"],
        "threshold": threshold,
        "near_threshold": abs(index - threshold) <= 1,
        "verdict": verdict or ("backdoor" if flagged else "clean"),
        "pairs": [
            {"victim": "stop", "target": "yield", "anomaly_index": index, "flagged": flagged},
            {"victim": "yield", "target": "stop", "anomaly_index": 0.1, "flagged": False},
        ],
        **more,
    }


def audit_result(verdict: str = "nothing stands out", modified: int = 0) -> dict[str, Any]:
    """A result of audit_data.py, with what attest.py reads of it."""
    changes = {"added": [], "removed": [], "modified": [f"train/stop/{n}.jpg" for n in range(modified)]}
    told = {"manifest": "../signs.sha256", "model": "good.safetensors", "verdict": verdict}
    return {"tool": "audit_data.py", **told, "changes": changes}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models, their data, keys, and all statements of the first: made once, then copied."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "good.safetensors").write_bytes(safetensors(1.0, 2.0))
    (folder / "bad.safetensors").write_bytes(safetensors(1.0, 2.5))
    for name in ("signs", "other"):
        (folder / f"{name}.sha256").write_text(
            f"{hashlib.sha256(name.encode()).hexdigest()}  train/stop/1.jpg\n"
        )
    (folder / "train.py").write_text("# the code\n")
    (folder / "base.safetensors").write_bytes(safetensors(0.0))
    (folder / "audit.json").write_text(json.dumps(audit_result()))
    (folder / "scan.json").write_text(json.dumps(scan_result(folder / "good.safetensors")))
    return folder


@pytest.fixture
def pipeline(made: Path, tmp_path: Path, typed: Callable[..., Result]) -> Path:
    """tmp_path with a whole chain for good.safetensors."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    commands: list[list[str]] = [
        ["keys", "keys"],
        ["data", "signs.sha256", "--command", "python make_dataset.py"],
        ["audit", "signs.sha256", "--result", "audit.json"],
        [
            "training",
            "good.safetensors",
            "--manifest",
            "signs.sha256",
            "--command",
            "python train.py --seed 7",
        ]
        + ["--option", "epochs=5", "--code", "train.py", "--base", "base.safetensors"]
        + ["--metric", "accuracy=0.97", "--metric", "attack success rate=0.01"],
        ["scan", "good.safetensors", "--result", "scan.json"],
    ]
    for words in commands:
        keys = [] if words[0] == "keys" else ["--keys", "keys"]
        result = typed(attest, *words, *keys)
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
    write_list(typed, "good.safetensors")
    return tmp_path


def write_list(typed: Callable[..., Result], *models: str, spec: str = "1.6") -> None:
    """The list of these models from all statements, signed."""
    options = ["--card", DEMO / "cards" / "traffic-signs.json", "--evidence", ".", "--keys", "keys"]
    options += ["--lock", DEMO / "requirements.txt", "--spec", spec]
    result = typed(make_mlbom, *models, *options)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    assert typed(attest, "list", "mlbom.cdx.json", "--keys", "keys").returncode == 0


def walk(typed: Callable[..., Result], model: str = "good.safetensors", *options: str) -> dict[str, str]:
    """Link -> why it is broken, of those that are; also checks the exit code."""
    result = typed(verify_chain, model, "--keys", "keys", "--json", *options)
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert [one["link"] for one in found["links"]] == LINKS
    broken = {one["link"]: one["why"] for one in found["links"] if not one["holds"]}
    assert result.returncode == (1 if broken else 0)
    assert found["trusted"] is not bool(broken)
    return broken


def sign_as(folder: Path, role: str, document: dict[str, Any], name: str) -> None:
    """Write a statement signed with the key of some role, right or wrong."""
    (folder / name).write_text(attestation.sign(document, folder / "keys" / f"{role}.key"))


def content_of(path: Path) -> dict[str, Any]:
    """What stands in an envelope."""
    return dict(json.loads(base64.b64decode(json.loads(path.read_text())["payload"])))


# --- the chain ---


def test_a_whole_chain_holds(pipeline: Path, typed: Callable[..., Result]) -> None:
    assert walk(typed) == {}
    result = typed(verify_chain, "good.safetensors", "--keys", "keys", "--drawing", "chain.svg")
    assert result.returncode == 0
    for number, name in enumerate(LINKS, 1):
        assert f"{number}. {name}: holds. " in result.stdout
    assert result.stdout.endswith("Result: every link holds for good.safetensors.\n")
    holds = ", ".join(f"{name} holds" for name in LINKS)
    words = f"Chain of 5 links for good.safetensors: {holds}."
    assert f'<desc id="d">{words}</desc>' in (pipeline / "chain.svg").read_text()
    (pipeline / "elsewhere").mkdir()
    for file in pipeline.glob("*.dsse.json"):
        file.rename(pipeline / "elsewhere" / file.name)
    assert walk(typed, "good.safetensors", "--evidence", "elsewhere") == {}


def test_one_changed_bit_of_the_model_breaks_all_that_names_it(
    pipeline: Path, typed: Callable[..., Result]
) -> None:
    data = bytearray((pipeline / "good.safetensors").read_bytes())
    data[-1] ^= 1
    (pipeline / "good.safetensors").write_bytes(data)
    assert list(walk(typed)) == LINKS


@pytest.mark.parametrize(
    ("file", "link"),
    [
        ("mlbom.cdx.json.dsse.json", "list"),
        ("good.safetensors.training.dsse.json", "training"),
        ("signs.sha256.data.dsse.json", "data"),
        ("signs.sha256.audit.dsse.json", "audit"),
        ("good.safetensors.scan.dsse.json", "scan"),
    ],
)
def test_each_statement_is_needed_whole_and_by_its_role(
    file: str, link: str, pipeline: Path, typed: Callable[..., Result]
) -> None:
    broken = [link] if link != "training" else ["training", "data", "audit"]  # who knows which data it was?
    good = (pipeline / file).read_text()
    content = content_of(pipeline / file)
    right = attestation.SIGNER[link]

    (pipeline / file).unlink()  # missing
    assert list(walk(typed)) == broken
    for wrong in set(attestation.ROLES) - {right}:  # signed by every wrong role
        sign_as(pipeline, wrong, content, file)
        found = walk(typed)
        assert list(found) == broken
        assert (
            f"is signed with the key of the role {wrong}; it takes the key of the role {right}" in found[link]
        )
    envelope = json.loads(good)
    payload = base64.b64decode(envelope["payload"]).replace(b"sha256", b"sha256 ", 1)
    for changed in (
        {**envelope, "payload": base64.b64encode(payload).decode()},  # changed after it was signed
        {**envelope, "signatures": [{**envelope["signatures"][0], "sig": "AAAA"}]},
    ):
        (pipeline / file).write_text(json.dumps(changed))
        assert list(walk(typed)) == broken
    attestation.write_keys(pipeline / "stranger")
    (pipeline / file).write_text(attestation.sign(content, pipeline / "stranger" / f"{right}.key"))
    assert "with no key that we know" in walk(typed)[link]
    (pipeline / file).write_text(good)
    assert walk(typed) == {}


def test_a_statement_of_another_model_does_not_count(pipeline: Path, typed: Callable[..., Result]) -> None:
    for kind in ("training", "scan"):  # renamed, as if they were the bad model's
        shutil.copy(
            pipeline / f"good.safetensors.{kind}.dsse.json", pipeline / f"bad.safetensors.{kind}.dsse.json"
        )
    assert list(walk(typed, "bad.safetensors")) == LINKS
    assert walk(typed) == {}


def test_the_backdoored_model_is_caught_by_the_scan(pipeline: Path, typed: Callable[..., Result]) -> None:
    (pipeline / "scan.json").write_text(json.dumps(scan_result(pipeline / "bad.safetensors", index=8.3)))
    typed(attest, "training", "bad.safetensors", "--manifest", "signs.sha256", "--keys", "keys")
    result = typed(attest, "scan", "bad.safetensors", "--result", "scan.json", "--keys", "keys")
    assert "signed by the role scanner: FAILED" in result.stdout
    write_list(typed, "good.safetensors", "bad.safetensors")
    broken = walk(typed, "bad.safetensors")
    assert list(broken) == ["scan"]
    assert "it found something: backdoor: stop to yield" in broken["scan"]
    said = typed(verify_chain, "bad.safetensors", "--keys", "keys")
    assert said.stdout.endswith("Result: DISCARD bad.safetensors. Broken: scan.\n")
    # a later scan that passed does not wipe it out
    passed = {**content_of(pipeline / "bad.safetensors.scan.dsse.json")}
    passed["predicate"] = content_of(pipeline / "good.safetensors.scan.dsse.json")["predicate"]
    sign_as(pipeline, "scanner", passed, "again.dsse.json")
    assert list(walk(typed, "bad.safetensors")) == ["scan"]
    assert walk(typed) == {}


def test_a_scanner_that_cannot_tell_is_no_pass(pipeline: Path, typed: Callable[..., Result]) -> None:
    unsure = scan_result(pipeline / "good.safetensors", verdict="no valid statistic")
    (pipeline / "scan.json").write_text(json.dumps(unsure))
    assert (
        "WARNED"
        in typed(attest, "scan", "good.safetensors", "--result", "scan.json", "--keys", "keys").stdout
    )
    assert "it could not tell: no valid statistic" in walk(typed)["scan"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"index": 4.2}, "it could not tell: close call: the largest anomaly index, 4.2, lies near"),
        ({"verdict": "not calibrated"}, "it could not tell: not calibrated"),
        ({"not_calibrated": "no clean twin"}, "it could not tell: not calibrated: no clean twin"),
        ({"index": 5.1}, "it found something: backdoor: stop to yield, close call: "),
        ({"easily_turned": ["roundabout"]}, "it could not tell: no verdict on roundabout"),
        ({"last_layer": "yield"}, "it could not tell: yield stands out in the last layer"),
    ],
)
def test_a_verdict_that_is_not_a_plain_clean_is_no_pass(
    changes: dict[str, Any], words: str, pipeline: Path, typed: Callable[..., Result]
) -> None:
    (pipeline / "scan.json").write_text(json.dumps(scan_result(pipeline / "good.safetensors", **changes)))
    said = typed(attest, "scan", "good.safetensors", "--result", "scan.json", "--keys", "keys").stdout
    assert "PASSED" not in said
    assert words in walk(typed)["scan"]
    write_list(typed, "good.safetensors")
    card = json.loads((pipeline / "mlbom.cdx.json").read_text())["components"][0]["modelCard"]
    why = {one["type"]: one["value"] for one in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert words.split(": ", 1)[1].split(", close", maxsplit=1)[0] in why["backdoor scan, why"]


def test_a_scan_that_does_not_say_how_close_it_was_is_no_pass(
    pipeline: Path, typed: Callable[..., Result]
) -> None:
    older = scan_result(pipeline / "good.safetensors")
    del older["near_threshold"]
    (pipeline / "scan.json").write_text(json.dumps(older))
    typed(attest, "scan", "good.safetensors", "--result", "scan.json", "--keys", "keys")
    assert "it does not say whether it was a close call" in walk(typed)["scan"]


def test_the_statement_carries_the_whole_verdict(pipeline: Path, typed: Callable[..., Result]) -> None:
    more = {"statistic": "norms", "explanation": "How.", "references": ["r.pt"], "calibrated": True}
    (pipeline / "scan.json").write_text(json.dumps({**scan_result(pipeline / "good.safetensors"), **more}))
    typed(attest, "scan", "good.safetensors", "--result", "scan.json", "--keys", "keys")
    said = content_of(pipeline / "good.safetensors.scan.dsse.json")["predicate"]["configuration"][0]
    notes = said["annotations"]
    assert more.items() <= notes.items()
    assert (notes["verdict"], notes["near_threshold"], notes["threshold"]) == ("clean", False, 4.8)


@pytest.mark.parametrize(
    ("note", "words"),
    [
        ({"near_threshold": True}, "it was a close call"),
        ({"easily_turned": ["roundabout"]}, "it has no verdict on some classes"),
        ({"last_layer": "yield"}, "a class stands out in the last layer"),
        ({"verdict": "backdoor"}, "its verdict is: backdoor"),
    ],
)
def test_a_pass_that_contradicts_its_details_is_no_pass(
    note: dict[str, Any], words: str, pipeline: Path, typed: Callable[..., Result]
) -> None:
    path = pipeline / "good.safetensors.scan.dsse.json"
    content = content_of(path)
    content["predicate"]["configuration"][0]["annotations"].update(note)
    sign_as(pipeline, "scanner", content, path.name)
    assert f"it says that it passed, and that {words}" in walk(typed)["scan"]


def test_data_that_was_not_audited_or_did_not_pass(pipeline: Path, typed: Callable[..., Result]) -> None:
    for result, words in (
        (audit_result("findings"), "it found something: audit_data.py: findings"),
        (audit_result(modified=60), "it found something: 60 files differ from the manifest"),
    ):
        (pipeline / "audit.json").write_text(json.dumps(result))
        typed(attest, "audit", "signs.sha256", "--result", "audit.json", "--keys", "keys")
        assert words in walk(typed)["audit"]


def test_an_audit_that_never_looked_at_the_images_is_no_pass(
    pipeline: Path, typed: Callable[..., Result]
) -> None:
    (pipeline / "audit.json").write_text(json.dumps({**audit_result(), "model": None}))
    said = typed(attest, "audit", "signs.sha256", "--result", "audit.json", "--keys", "keys").stdout
    assert "signed by the role auditor: WARNED" in said
    assert "it could not tell: nobody looked at the images" in walk(typed)["audit"]


def test_a_scan_of_some_pairs_is_no_pass(pipeline: Path, typed: Callable[..., Result]) -> None:
    narrow = scan_result(pipeline / "good.safetensors")
    del narrow["pairs"][1]
    (pipeline / "scan.json").write_text(json.dumps(narrow))
    typed(attest, "scan", "good.safetensors", "--result", "scan.json", "--keys", "keys")
    assert "it could not tell: 1 of 2 pairs of classes were judged" in walk(typed)["scan"]


@pytest.mark.parametrize(("link", "file"), [("scan", "good.safetensors"), ("audit", "signs.sha256")])
def test_other_tests_that_passed_do_not_count(
    link: str, file: str, pipeline: Path, typed: Callable[..., Result]
) -> None:
    """The scanner's signature under the unit tests of the model is no scan."""
    path = pipeline / f"{file}.{link}.dsse.json"
    content = content_of(path)
    content["predicate"]["passedTests"] = ["unit tests"]
    sign_as(pipeline, attestation.SIGNER[link], content, path.name)
    assert f"it does not say that this passed: {attestation.TESTS[link][0]}" in walk(typed)[link]


@pytest.mark.parametrize("wrong", [[], "x", {"a": []}, [3], [{"hashes": 3}]])
def test_a_signed_list_of_another_shape_is_no_list(
    wrong: object, pipeline: Path, typed: Callable[..., Result]
) -> None:
    content = content_of(pipeline / "mlbom.cdx.json.dsse.json")
    content["predicate"]["components"] = wrong
    sign_as(pipeline, "release", content, "mlbom.cdx.json.dsse.json")
    assert list(walk(typed)) == ["list"]
    content["predicate"]["metadata"] = wrong
    sign_as(pipeline, "release", content, "mlbom.cdx.json.dsse.json")
    assert list(walk(typed)) == ["list"]


def test_provenance_that_names_other_data(pipeline: Path, typed: Callable[..., Result]) -> None:
    typed(attest, "training", "good.safetensors", "--manifest", "other.sha256", "--keys", "keys")
    broken = walk(typed)
    assert list(broken) == ["data", "audit"]
    assert "no statement of this kind names these bytes" in broken["audit"]


@pytest.mark.parametrize("first", [True, False])
def test_each_manifest_that_the_training_names_counts(
    first: bool, pipeline: Path, typed: Callable[..., Result]
) -> None:
    """Audited data, and some more that nobody audited."""
    name = "good.safetensors.training.dsse.json"
    content = content_of(pipeline / name)
    other = hashlib.sha256((pipeline / "other.sha256").read_bytes()).hexdigest()
    used = content["predicate"]["buildDefinition"]["resolvedDependencies"]
    used.insert(0 if first else len(used), attestation.resource("manifest", other))
    sign_as(pipeline, "trainer", content, name)
    assert list(walk(typed)) == ["data", "audit"]
    used[0 if first else -1] = {"name": "manifest", "digest": {"sha512": "0" * 128}}
    sign_as(pipeline, "trainer", content, name)
    assert "each manifest of the data by its SHA-256" in walk(typed)["training"]


def test_two_trainings_that_name_different_data_both_count(
    pipeline: Path, typed: Callable[..., Result]
) -> None:
    typed(attest, "training", "good.safetensors", "--manifest", "other.sha256", "--keys", "keys")
    (pipeline / "good.safetensors.training.dsse.json").rename(pipeline / "a.dsse.json")
    typed(attest, "training", "good.safetensors", "--manifest", "signs.sha256", "--keys", "keys")
    assert list(walk(typed)) == ["data", "audit"]


def test_names_in_statements_and_folders_do_not_steer_the_terminal(
    pipeline: Path, typed: Callable[..., Result]
) -> None:
    name = "good.safetensors.scan.dsse.json"
    content = content_of(pipeline / name)
    content["predicate"] |= {"result": "FAILED", "failedTests": ["\x1b[2J" + "long " * 999]}
    sign_as(pipeline, "scanner", content, "\x1b[31m" + name)
    (pipeline / "\x1b[32m.dsse.json").write_text("{")
    said = typed(verify_chain, "good.safetensors", "--keys", "keys").stdout
    assert "\x1b" not in said
    assert "it found something: ?[2Jlong long" in said
    assert max(map(len, said.splitlines())) < 500


def test_too_old_and_from_the_future(pipeline: Path, typed: Callable[..., Result]) -> None:
    name = "good.safetensors.scan.dsse.json"
    content = content_of(pipeline / name)
    notes = content["predicate"]["configuration"][0]["annotations"]
    for when, words in (
        ("2001-01-01T00:00:00Z", "it is too old: of 2001-01-01"),
        ("2999-01-01T00:00:00Z", "it comes from the future"),
        ("yesterday", "it does not say when it was made"),
    ):
        notes["finishedOn"] = when
        sign_as(pipeline, "scanner", content, name)
        assert words in walk(typed)["scan"]
    assert typed(verify_chain, "good.safetensors", "--keys", "keys", "--max-age-days", "0").returncode == 2


def test_a_list_must_name_the_model_inside_too(pipeline: Path, typed: Callable[..., Result]) -> None:
    name = "mlbom.cdx.json.dsse.json"
    content = content_of(pipeline / name)  # its subject is the model, but its content is another list
    content["predicate"]["components"] = [{**content["predicate"]["components"][0], "hashes": []}]
    sign_as(pipeline, "release", content, name)
    assert "does not list these bytes" in walk(typed)["list"]


def test_an_envelope_of_another_kind_does_not_count(pipeline: Path, typed: Callable[..., Result]) -> None:
    """Signed for another purpose: the type of the content is signed, too, and must be the one we read."""
    file = pipeline / "good.safetensors.scan.dsse.json"
    payload = base64.b64decode(json.loads(file.read_text())["payload"])
    pair = serialization.load_pem_private_key((pipeline / "keys" / "scanner.key").read_bytes(), None)
    envelope = attestation.Envelope(payload, "application/octet-stream", {})
    envelope.sign(attestation.CryptoSigner(pair))
    file.write_text(json.dumps(envelope.to_dict()))
    assert list(walk(typed)) == ["scan"]
    assert f"Left out: {file.name}: " in typed(verify_chain, "good.safetensors", "--keys", "keys").stdout


def test_what_is_no_statement_is_left_out_and_named(pipeline: Path, typed: Callable[..., Result]) -> None:
    for number, text in enumerate(
        ("", "{", "[]", "{}", '{"payload": 1, "payloadType": "x", "signatures": []}', "[" * 9999)
    ):
        (pipeline / f"junk{number}.dsse.json").write_text(text)
    (pipeline / "folder.dsse.json").mkdir()
    result = typed(verify_chain, "good.safetensors", "--keys", "keys")
    assert result.returncode == 0
    assert result.stdout.count("Left out: ") == 7


def test_a_bundle_of_sigstore_is_named(pipeline: Path, typed: Callable[..., Result]) -> None:
    """As cosign and GitHub write them: our statement in it does not count, nobody checks that signer."""
    file = pipeline / "good.safetensors.scan.dsse.json"
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"certificate": {"rawBytes": ""}},
        "dsseEnvelope": json.loads(file.read_text()),
    }
    file.write_text(json.dumps(bundle))
    assert list(walk(typed)) == ["scan"]
    said = typed(verify_chain, "good.safetensors", "--keys", "keys").stdout
    assert f"Left out: {file.name}: it is a bundle of Sigstore" in said


def test_a_signature_made_without_a_name_for_its_key_counts(
    pipeline: Path, typed: Callable[..., Result]
) -> None:
    for file in pipeline.glob("*.dsse.json"):  # as cosign and others write them
        envelope = json.loads(file.read_text())
        envelope["signatures"] = [{"keyid": "", "sig": "AAAA"}, {"sig": envelope["signatures"][0]["sig"]}]
        file.write_text(json.dumps(envelope))
    assert walk(typed) == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch.safetensors", "--keys", "keys"], "nosuch.safetensors"),
        (["good.safetensors", "--keys", "nosuch"], "nosuch/data.pub"),
        (["good.safetensors", "--keys", "keys", "--evidence", "nosuch"], "nosuch is not a folder"),
        (["good.safetensors", "--keys", "broken"], "broken/data.pub cannot be used"),
        (["good.safetensors", "--keys", "same"], "same/scanner.pub is the key of the role data, too"),
    ],
)
def test_bad_input_is_refused(
    words: list[str],
    said: str,
    pipeline: Path,
    typed: Callable[..., Result],
    assert_refused: Callable[..., None],
) -> None:
    shutil.copytree(pipeline / "keys", pipeline / "broken")
    (pipeline / "broken" / "data.pub").write_text("not a key")
    shutil.copytree(pipeline / "keys", pipeline / "same")
    shutil.copy(pipeline / "keys" / "data.pub", pipeline / "same" / "scanner.pub")
    assert_refused(typed(verify_chain, *words), said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["keys", "keys"], "keys/data.key"),
        (["data", "nosuch", "--keys", "keys"], "nosuch"),
        (["data", "signs.sha256", "--keys", "nosuch"], "nosuch/data.key"),
        (["data", "signs.sha256", "--keys", "keys", "--option", "x"], "name=value"),
        (["scan", "bad.safetensors", "--result", "scan.json", "--keys", "keys"], "the scan of another file"),
        (
            ["scan", "good.safetensors", "--result", "audit.json", "--keys", "keys"],
            "not a result of detect.py",
        ),
        (
            ["audit", "signs.sha256", "--result", "scan.json", "--keys", "keys"],
            "not a result of audit_data.py",
        ),
        (["audit", "signs.sha256", "--result", "train.py", "--keys", "keys"], "train.py is not valid JSON"),
        (["audit", "other.sha256", "--result", "audit.json", "--keys", "keys"], "the audit of other data"),
        (["audit", "signs.sha256", "--result", "copied.json", "--keys", "keys"], "the audit of other data"),
        (["list", "scan.json", "--keys", "keys"], "scan.json"),
    ],
)
def test_attest_refuses_what_it_cannot_vouch_for(
    words: list[str],
    said: str,
    pipeline: Path,
    typed: Callable[..., Result],
    assert_refused: Callable[..., None],
) -> None:
    (pipeline / "copied.json").write_text(json.dumps({**audit_result(), "manifest_sha256": "0" * 64}))
    before = sorted(pipeline.iterdir())
    assert_refused(typed(attest, *words), said)
    assert sorted(pipeline.iterdir()) == before


def test_an_audit_without_a_manifest_is_no_audit(
    pipeline: Path, typed: Callable[..., Result], assert_refused: Callable[..., None]
) -> None:
    (pipeline / "audit.json").write_text(json.dumps({**audit_result(), "changes": None}))
    assert_refused(
        typed(attest, "audit", "signs.sha256", "--result", "audit.json", "--keys", "keys"), "--manifest"
    )


def test_private_keys_are_for_their_owner(pipeline: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in (pipeline / "keys").glob("*.key")} == {0o600}


def test_a_training_that_contradicts_the_model_is_not_signed(
    pipeline: Path, typed: Callable[..., Result], assert_refused: Callable[..., None]
) -> None:
    """The header of a SafeTensors file may name its data; it proves nothing, but it must not contradict."""
    content = (pipeline / "good.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    digest = hashlib.sha256((pipeline / "signs.sha256").read_bytes()).hexdigest()
    header["__metadata__"] = {"manifest_sha256": digest, "seed": "7", "epochs": "\x1b[2J"}
    text = json.dumps(header).encode()
    (pipeline / "told.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    words = ("training", "told.safetensors", "--keys", "keys", "--manifest")
    assert_refused(typed(attest, *words, "other.sha256"), "trained on other data than other.sha256 lists")
    assert not (pipeline / "told.safetensors.training.dsse.json").exists()
    assert typed(attest, *words, "signs.sha256").returncode == 0
    made = content_of(pipeline / "told.safetensors.training.dsse.json")["predicate"]["buildDefinition"]
    assert made["externalParameters"] == {"seed": "7"}
    write_list(typed, "told.safetensors")
    listed = json.loads((pipeline / "mlbom.cdx.json").read_text())["components"][0]["properties"]
    assert {"name": "workshop:header says manifest_sha256", "value": digest} in listed


# --- breaking it ---


@pytest.mark.parametrize(
    ("attack", "links", "words"),
    [
        ("list", ["list"], "with no key that we know, or changed since"),
        ("training", ["training", "data", "audit"], "no statement of this kind names these bytes"),
        ("data", ["data"], "with no key that we know, or changed since"),
        ("audit", ["audit"], "no statement of this kind names these bytes"),
        ("scan", ["scan"], "with no key that we know, or changed since"),
        ("age", ["scan"], "it is too old: of 2020-02-02"),
        (
            "role",
            ["scan"],
            "is signed with the key of the role trainer; it takes the key of the role scanner",
        ),
    ],
)
@pytest.mark.parametrize("others", [False, True])
def test_every_attack_on_a_link_is_named(  # noqa: PLR0917
    attack: str, links: list[str], words: str, others: bool, pipeline: Path, typed: Callable[..., Result]
) -> None:
    if others:  # statements about another model lie there, too
        typed(attest, "training", "bad.safetensors", "--manifest", "signs.sha256", "--keys", "keys")
    before = (pipeline / "good.safetensors").read_bytes()
    result = typed(break_link, attack, "good.safetensors", "--keys", "keys")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("The attacker ")
    found = walk(typed)
    assert list(found) == links
    assert words in found[links[0]]
    assert (pipeline / "good.safetensors").read_bytes() == before


def test_what_is_not_there_cannot_be_broken(
    pipeline: Path, typed: Callable[..., Result], assert_refused: Callable[..., None]
) -> None:
    (pipeline / "good.safetensors.training.dsse.json").unlink()
    for attack in ("training", "data", "audit"):
        assert_refused(typed(break_link, attack, "good.safetensors", "--keys", "keys"), "no link training")
    assert_refused(typed(break_link, "scan", "bad.safetensors", "--keys", "keys"), "no link scan to break")
    assert_refused(typed(break_link, "scan", "nosuch", "--keys", "keys"), "nosuch")
    (pipeline / "keys/scanner.key").unlink()
    assert_refused(typed(break_link, "age", "good.safetensors", "--keys", "keys"), "needs that private key")
    assert list(walk(typed)) == ["training", "data", "audit"]


# --- the list ---


@pytest.mark.parametrize("spec", ["1.6", "1.7"])
def test_the_list_says_what_the_model_is(spec: str, pipeline: Path, typed: Callable[..., Result]) -> None:
    write_list(typed, "good.safetensors", spec=spec)
    text = (pipeline / "mlbom.cdx.json").read_text()
    version = {"1.6": SchemaVersion.V1_6, "1.7": SchemaVersion.V1_7}[spec]
    assert JsonStrictValidator(version).validate_str(text) is None
    made = json.loads(text)
    parts = {item["bom-ref"]: item for item in made["components"]}
    model = parts["good.safetensors"]
    manifest = hashlib.sha256((pipeline / "signs.sha256").read_bytes()).hexdigest()
    card = model["modelCard"]
    assert card["modelParameters"]["task"] == "image classification"
    assert card["modelParameters"]["datasets"] == [{"ref": f"data:{manifest}"}]
    measured = {one["type"]: one["value"] for one in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert measured["accuracy"] == "0.97"
    assert measured["backdoor scan"] == "no backdoor found"
    assert measured["backdoor scan, largest anomaly index"] == "1.9"
    assert parts[f"data:{manifest}"]["hashes"] == [{"alg": "SHA-256", "content": manifest}]
    base = hashlib.sha256((pipeline / "base.safetensors").read_bytes()).hexdigest()
    assert model["pedigree"]["ancestors"][0]["hashes"][0]["content"] == base
    (workflow,) = made["formulation"][0]["workflows"]
    assert workflow["steps"][0]["commands"] == [{"executed": "python train.py --seed 7"}]
    facts = {one["name"]: one["value"] for one in workflow["properties"]}
    assert facts["workshop:epochs"] == "5"
    assert facts["workshop:used:train.py"] == hashlib.sha256(b"# the code\n").hexdigest()
    assert parts["pkg:pypi/cryptography@50.0.2"]["type"] == "library"
    assert model["supplier"] and model["licenses"] and card["considerations"]["technicalLimitations"]
    assert "pkg:pypi/cryptography@50.0.2" in made["dependencies"][0]["dependsOn"]


def test_the_list_of_the_poisoned_model_carries_what_the_scanner_found(
    pipeline: Path, typed: Callable[..., Result]
) -> None:
    (pipeline / "scan.json").write_text(json.dumps(scan_result(pipeline / "bad.safetensors", index=8.3)))
    typed(attest, "scan", "bad.safetensors", "--result", "scan.json", "--keys", "keys")
    write_list(typed, "bad.safetensors")
    model = json.loads((pipeline / "mlbom.cdx.json").read_text())["components"][0]
    assert {"type": "backdoor scan", "value": "BACKDOOR FOUND"} in model["modelCard"]["quantitativeAnalysis"][
        "performanceMetrics"
    ]


def test_only_what_the_right_key_signed_gets_into_the_list(
    pipeline: Path, typed: Callable[..., Result]
) -> None:
    name = "good.safetensors.scan.dsse.json"
    sign_as(pipeline, "trainer", content_of(pipeline / name), name)  # the trainer praises its own model
    result = typed(make_mlbom, "good.safetensors", "--evidence", ".", "--keys", "keys")
    assert "good.safetensors: signed statements used: training.\n" in result.stdout
    assert "backdoor scan" not in (pipeline / "mlbom.cdx.json").read_text()
    assert typed(make_mlbom, "good.safetensors", "--evidence", ".").returncode == 2


@pytest.mark.parametrize(
    "card",
    [
        "[]",
        "{",
        '{"wrong": 1}',
        '{"modelCard": {"wrong": 1}}',
        '{"supplier": 3}',
        '{"licenses": [{"license": {"id": "No-Such"}}]}',
    ],
)
def test_a_card_that_is_not_cyclonedx_is_refused(
    card: str, pipeline: Path, typed: Callable[..., Result], assert_refused: Callable[..., None]
) -> None:
    (pipeline / "card.json").write_text(card)
    (pipeline / "mlbom.cdx.json").unlink()
    assert_refused(typed(make_mlbom, "good.safetensors", "--card", "card.json"))
    assert not (pipeline / "mlbom.cdx.json").exists()


@pytest.mark.parametrize("lock", ["torch>=2\n", "", "# nothing\n"])
def test_a_lock_that_pins_nothing_is_refused(
    lock: str, pipeline: Path, typed: Callable[..., Result], assert_refused: Callable[..., None]
) -> None:
    (pipeline / "lock.txt").write_text(lock)
    assert_refused(typed(make_mlbom, "good.safetensors", "--lock", "lock.txt"), "lock.txt")


def test_the_signed_list_is_checked(pipeline: Path, typed: Callable[..., Result]) -> None:
    (pipeline / "folder").mkdir()
    shutil.copy(pipeline / "good.safetensors", pipeline / "folder")

    def check(*options: str) -> tuple[int, str]:
        result = typed(check_mlbom, "mlbom.cdx.json", "--folder", "folder", *options)
        return result.returncode, result.stdout.splitlines()[0]

    key = ("--key", "keys/release.pub")
    assert check(*key) == (0, "mlbom.cdx.json: signed")
    assert check("--key", "keys/trainer.pub")[0] == 1
    text = (pipeline / "mlbom.cdx.json").read_text()
    forged = text.replace('"0.97"', '"0.99"')
    assert forged != text
    (pipeline / "mlbom.cdx.json").write_text(forged)
    assert check(*key) == (1, "mlbom.cdx.json: NOT VERIFIED: the list has changed since it was signed")
    (pipeline / "mlbom.cdx.json").write_text(text)
    (pipeline / "mlbom.cdx.json.dsse.json").rename(pipeline / "away.json")
    assert check(*key) == (1, "mlbom.cdx.json: NOT VERIFIED: there is no mlbom.cdx.json.dsse.json")
    assert check()[0] == 0  # without --key, and that is said
    assert (
        "Nobody has vouched for the list itself"
        in typed(check_mlbom, "mlbom.cdx.json", "--folder", "folder").stdout
    )
    shutil.copy(pipeline / "good.safetensors.scan.dsse.json", pipeline / "mlbom.cdx.json.dsse.json")
    assert (
        typed(check_mlbom, "mlbom.cdx.json", "--folder", "folder", "--key", "keys/scanner.pub").returncode
        == 1
    )
    assert typed(check_mlbom, "mlbom.cdx.json", "--folder", "folder", "--key", "nosuch.pub").returncode == 2


# --- lists by other tools ---


def foreign(*components: dict[str, Any], version: str = "1.5", **more: Any) -> str:
    """A CycloneDX document."""
    return json.dumps(
        {"bomFormat": "CycloneDX", "specVersion": version, "version": 1, "components": components, **more}
    )


def model_entry(name: str, *hashes: tuple[str, str], **more: Any) -> dict[str, Any]:
    """A model in such a document."""
    given = {"hashes": [{"alg": name, "content": value} for name, value in hashes]} if hashes else {}
    return {"type": "machine-learning-model", "name": name, **given, **more}


CONTENT = safetensors(3.0)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def checked(typed: Callable[..., Result], folder: Path, document: str) -> tuple[int, list[str]]:
    """Exit code and verdicts for a folder with one model, a.safetensors, and this list."""
    (folder / "a.safetensors").write_bytes(CONTENT)
    (folder / "list.json").write_text(document)
    result = typed(check_mlbom, "list.json")
    assert result.stderr == ""
    return result.returncode, result.stdout.splitlines()[:-1]


@pytest.mark.parametrize(
    ("algorithm", "make"),
    [
        ("SHA-256", hashlib.sha256),
        ("SHA-384", hashlib.sha384),
        ("SHA-512", hashlib.sha512),
        ("SHA3-256", hashlib.sha3_256),
        ("SHA3-512", hashlib.sha3_512),
        ("BLAKE2b-256", lambda data: hashlib.blake2b(data, digest_size=32)),
        ("BLAKE2b-512", lambda data: hashlib.blake2b(data, digest_size=64)),
    ],
)
def test_every_strong_hash_is_read(
    algorithm: str, make: Callable[[bytes], Any], typed: Callable[..., Result], tmp_path: Path
) -> None:
    good, bad = make(CONTENT).hexdigest(), make(b"x").hexdigest()
    assert checked(typed, tmp_path, foreign(model_entry("a.safetensors", (algorithm, good.upper())))) == (
        0,
        ["a.safetensors: unchanged"],
    )
    code, lines = checked(typed, tmp_path, foreign(model_entry("a.safetensors", (algorithm, bad))))
    assert code == 1 and lines[0].startswith("a.safetensors: CHANGED")
    both = model_entry("a.safetensors", ("SHA-256", SHA256), (algorithm, bad))
    assert checked(typed, tmp_path, foreign(both))[0] == 1  # one right hash does not make up for a wrong one


@pytest.mark.parametrize(
    ("entries", "verdicts"),
    [
        ([model_entry("a.safetensors")], ["a.safetensors: NO HASH in the list: nothing to compare with"]),
        (
            [model_entry("a.safetensors", ("MD5", hashlib.md5(CONTENT).hexdigest()))],
            ["a.safetensors: WEAK HASH only (MD5): it matches, and so could a forged file"],
        ),
        (
            [model_entry("a.safetensors", ("BLAKE3", "0" * 64))],
            ["a.safetensors: CANNOT BE CHECKED: BLAKE3 is not known here"],
        ),
        (
            [
                model_entry("a.safetensors", ("SHA-256", SHA256)),
                model_entry("a.safetensors", ("SHA-256", "0" * 64)),
            ],
            ["a.safetensors: LISTED TWICE with different hashes"],
        ),
        (
            [model_entry("b.safetensors", ("SHA-256", "0" * 64))],
            ["b.safetensors: MISSING", "a.safetensors: NOT LISTED"],
        ),
        (
            [model_entry("team/sign-reader", ("SHA-256", SHA256))],
            ["team/sign-reader: unchanged, as a.safetensors"],
        ),
        ([model_entry("../../a.safetensors", ("SHA-256", SHA256))], ["../../a.safetensors: unchanged"]),
        ([model_entry("models/a.safetensors", ("SHA-256", SHA256))], ["models/a.safetensors: unchanged"]),
    ],
)
def test_lists_by_other_tools(
    entries: list[dict[str, Any]], verdicts: list[str], typed: Callable[..., Result], tmp_path: Path
) -> None:
    code, lines = checked(typed, tmp_path, foreign(*entries))
    assert lines == verdicts
    assert code == (0 if all("unchanged" in line for line in lines) else 1)


def test_models_inside_other_parts_count(typed: Callable[..., Result], tmp_path: Path) -> None:
    inner = model_entry("a.safetensors", ("SHA-256", SHA256))
    outer = {
        "type": "application",
        "name": "service",
        "components": [{"type": "library", "name": "x", "components": [inner]}],
    }
    assert checked(typed, tmp_path, foreign(outer)) == (0, ["a.safetensors: unchanged"])
    subject = foreign(metadata={"component": {**inner, "bom-ref": "m"}})
    assert checked(typed, tmp_path, subject) == (0, ["a.safetensors: unchanged"])
    twice = foreign(inner, {**outer, "name": "other"})
    assert checked(typed, tmp_path, twice) == (0, ["a.safetensors: unchanged"])


def test_a_model_that_nobody_listed_is_found_below_the_folder(
    typed: Callable[..., Result], tmp_path: Path
) -> None:
    for name in ("sub/deep/extra.PT", "sub/weights.gguf", "sub/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    code, lines = checked(typed, tmp_path, foreign(model_entry("a.safetensors", ("SHA-256", SHA256))))
    assert (code, lines[1:]) == (1, ["sub/deep/extra.PT: NOT LISTED", "sub/weights.gguf: NOT LISTED"])


@pytest.mark.parametrize("version", ["1.2", "1.3", "1.4", "1.5", "1.6", "1.7"])
def test_all_versions_with_json_are_read(version: str, typed: Callable[..., Result], tmp_path: Path) -> None:
    entry = model_entry("a.safetensors", ("SHA-256", SHA256))
    if version < "1.5":  # no models yet
        (tmp_path / "list.json").write_text(
            foreign({"type": "library", "name": "x", "version": "1"}, version=version)
        )
        result = typed(check_mlbom, "list.json")
        assert result.returncode == 2 and "lists no model" in result.stderr
    else:
        assert checked(typed, tmp_path, foreign(entry, version=version))[0] == 0


@pytest.mark.parametrize(
    "text",
    [
        '{"spdxVersion": "SPDX-2.3"}',
        '{"bomFormat": "CycloneDX", "specVersion": "9.9"}',
        '{"bomFormat": "CycloneDX", "specVersion": "1.0"}',
    ],
)
def test_other_formats_are_refused(
    text: str, typed: Callable[..., Result], tmp_path: Path, assert_refused: Callable[..., None]
) -> None:
    (tmp_path / "list.json").write_text(text)
    assert_refused(typed(check_mlbom, "list.json"), "list.json")


@pytest.mark.parametrize("broken", ["", "hash", "name", "list"])
def test_a_very_large_list_is_read_within_seconds(
    broken: str, typed: Callable[..., Result], tmp_path: Path, assert_refused: Callable[..., None]
) -> None:
    many: list[Any] = [
        {"type": "library", "name": f"package-{number}", "version": "1", "description": "x" * 100}
        for number in range(5000)
    ]
    entry = model_entry("a.safetensors", ("SHA-256", SHA256))
    broken_parts: dict[str, dict[str, Any]] = {
        "hash": {"hashes": [3]},
        "name": {"name": None},
        "list": {"components": 3},
        "": {},
    }
    entry |= broken_parts[broken]
    if broken == "name":
        del entry["name"]
    document = foreign(*many, entry)
    if not broken:
        assert checked(typed, tmp_path, document) == (0, ["a.safetensors: unchanged"])
        return
    (tmp_path / "list.json").write_text(document)
    assert_refused(typed(check_mlbom, "list.json"), "list.json")


# --- the list as SPDX 3 ---


def as_spdx(typed: Callable[..., Result], *options: object) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The document, and its elements; read back by the SPDX project's library, which checks each of them."""
    options = (*options, "--evidence", ".", "--keys", "keys", "--lock", DEMO / "requirements.txt")
    result = typed(make_mlbom, "good.safetensors", "--format", "spdx", *options)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("Wrote mlbom.spdx.json: valid SPDX 3.0.1, models: 1.\n")
    document = json.loads(Path("mlbom.spdx.json").read_text())
    _, found = spdx_python_model.load_data(document)
    assert found.missing_ids == set()
    if schema := os.environ.get("WORKSHOP_SPDX_SCHEMA"):
        jsonschema.validate(document, json.loads(Path(schema).read_text()))
    return document, document["@graph"]


def of_type(elements: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [one for one in elements if one["type"] == name]


def test_the_list_as_spdx_says_the_same(pipeline: Path, typed: Callable[..., Result]) -> None:
    _, elements = as_spdx(typed, "--card", DEMO / "cards" / "traffic-signs.json")
    model, base = of_type(elements, "ai_AIPackage")
    digest = hashlib.sha256((pipeline / "good.safetensors").read_bytes()).hexdigest()
    assert model["verifiedUsing"] == [{"type": "Hash", "algorithm": "sha256", "hashValue": digest}]
    assert (model["name"], model["ai_domain"]) == ("good.safetensors", ["image classification"])
    assert "ResNet18" in model["ai_typeOfModel"]
    metrics = {one["key"]: one["value"] for one in model["ai_metric"]}
    assert metrics["accuracy"] == "0.97"
    assert metrics["backdoor scan"] == "no backdoor found"
    hyperparameters = {one["key"]: one["value"] for one in model["ai_hyperparameter"]}
    assert hyperparameters["workshop:epochs"] == "5"
    assert model["ai_informationAboutTraining"] == "Command: python train.py --seed 7."
    (data,) = of_type(elements, "dataset_DatasetPackage")
    manifest = hashlib.sha256((pipeline / "signs.sha256").read_bytes()).hexdigest()
    assert data["verifiedUsing"][0]["hashValue"] == manifest
    relations = {
        (one["from"], one["relationshipType"]): one["to"] for one in of_type(elements, "Relationship")
    }
    assert relations[model["spdxId"], "trainedOn"] == [data["spdxId"]]
    assert relations[model["spdxId"], "descendantOf"] == [base["spdxId"]]
    libraries = of_type(elements, "software_Package")
    assert relations[model["spdxId"], "dependsOn"] == [one["spdxId"] for one in libraries]
    assert "pkg:pypi/cryptography@50.0.2" in {one["software_packageUrl"] for one in libraries}
    (licence,) = relations[model["spdxId"], "hasDeclaredLicense"]
    expressions = {
        one["spdxId"]: one["simplelicensing_licenseExpression"]
        for one in of_type(elements, "simplelicensing_LicenseExpression")
    }
    assert expressions[licence] == "Apache-2.0"


def test_a_profile_is_claimed_only_if_it_is_kept(pipeline: Path, typed: Callable[..., Result]) -> None:
    def claimed(*options: object) -> list[str]:
        (document,) = of_type(as_spdx(typed, *options)[1], "SpdxDocument")
        return list(document["profileConformance"])

    card = json.loads((DEMO / "cards" / "traffic-signs.json").read_text())
    assert claimed() == ["core", "software", "simpleLicensing"]
    card["externalReferences"] = [{"type": "distribution", "url": "https://example.org/good.safetensors"}]
    (pipeline / "card.json").write_text(json.dumps(card))
    assert claimed("--card", "card.json") == ["core", "software", "simpleLicensing", "ai"]


def test_a_model_of_which_nothing_is_known_is_spdx_too(typed: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "a b#c.safetensors").write_bytes(safetensors(1.0))
    result = typed(make_mlbom, "a b#c.safetensors", "--format", "spdx", "--output", "-")
    (model,) = of_type(json.loads(result.stdout)["@graph"], "ai_AIPackage")
    assert model["name"] == "a b#c.safetensors"
    assert "ai_metric" not in model
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b#c.safetensors"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<html>", "is not valid JSON: make it again with make_mlbom.py, or ask who made it."),
        ('{"@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld", "@graph": []}', "SPDX document"),
        ('{"spdxVersion": "SPDX-2.3", "packages": []}', "SPDX document"),
    ],
)
def test_a_list_of_another_kind_is_called_by_its_name(
    text: str, words: str, typed: Callable[..., Result], tmp_path: Path, assert_refused: Callable[..., None]
) -> None:
    (tmp_path / "list.json").write_text(text)
    assert_refused(typed(check_mlbom, "list.json"), words)


def test_an_older_in_toto_statement_is_called_so(pipeline: Path, typed: Callable[..., Result]) -> None:
    path = pipeline / "good.safetensors.training.dsse.json"
    envelope = json.loads(path.read_text())
    content = {**content_of(path), "_type": "https://in-toto.io/Statement/v0.1"}
    envelope["payload"] = base64.b64encode(json.dumps(content).encode()).decode()
    path.write_text(json.dumps(envelope))
    said = typed(verify_chain, "good.safetensors", "--keys", "keys").stdout
    assert f"Left out: {path.name}: it is an in-toto statement of another version than v1." in said
