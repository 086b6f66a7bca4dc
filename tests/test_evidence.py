"""Demo 1 asks for the chain of evidence: each link made, verified, broken once, for policy and server."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import cli
import controls
import policy
import serve
import sign_model
from statements import attestation, chain, predicates
from statements.attestation import ENDING, SIGNER
from statements.rules import read_policy
from weights import served, shapes, writing

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo-malicious"
MODEL, OTHER = "signs.safetensors", "other.safetensors"
LINKS = list(chain.QUESTIONS)

Refused = Callable[..., None]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Made once: a model of ten classes and another one, evidence for the first, keys, and the policy."""
    folder = tmp_path_factory.mktemp("prepared")
    company = controls.Company(folder)
    (folder / "evidence").mkdir()
    rules = read_policy(folder / "evidence.toml")
    for seed, name in enumerate((MODEL, OTHER)):
        torch.manual_seed(seed)
        network = shapes.network(classes=len(served.SIGNS.classes))
        writing.save_safetensors(dict(network.state_dict()), folder / name)
        sign_model.sign(folder / name, folder / "keys/release.key")
        policy.allow(folder / name, rules)
    company.state(folder / MODEL, folder / "evidence", controls.NOTHING)
    (folder / "evidence/data.sha256").unlink()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for one test, as the current folder. Models are links: never write into them."""
    place = tmp_path / "models"
    shutil.copytree(prepared, place, copy_function=os.link)
    for path in [*place.glob("evidence/*"), *place.glob("keys/*"), place / "evidence.toml"]:
        path.unlink()
        shutil.copy(prepared / path.relative_to(place), path)
    monkeypatch.chdir(place)
    return place


def asked(name: str = MODEL) -> dict[str, str]:
    """Check -> why, of those that fail: by the policy, and by the server, which must say the same."""
    rules = read_policy(Path("evidence.toml"))
    decision, _ = policy.admit(Path(name), rules)
    server = serve.ModelServer(Path(), rules, Path("marker"))
    if decision.allowed:
        assert [check.name for check in decision.checks][3:8] == [f"evidence: {link}" for link in LINKS]
        assert server.load(name)["checks"] == {check.name: check.words for check in decision.checks}
        return {}
    with pytest.raises(serve.Refused) as refusal:
        server.load(name)
    assert server.loaded is None
    assert (refusal.value.status, refusal.value.answer["reasons"]) == (403, decision.reasons)
    return {check.name: check.words for check in decision.checks if not check.passed}


def content(link: str) -> dict[str, Any]:
    """What stands in the statement of a link."""
    envelope = json.loads(Path(f"evidence/{link}{ENDING}").read_text())
    return dict(json.loads(base64.b64decode(envelope["payload"])))


def sign(link: str, said: dict[str, Any], role: str = "") -> None:
    """Put another statement in the place of this link's, signed by its role or by another one."""
    key = Path("keys") / f"{role or SIGNER[link]}.key"
    Path(f"evidence/{link}{ENDING}").write_text(attestation.sign(said, key))


def set_time(said: dict[str, Any], when: str) -> None:
    """Change when a step was done."""
    step = said["predicate"]
    if "runDetails" in step:
        step["runDetails"]["metadata"]["finishedOn"] = when
    elif "configuration" in step:
        step["configuration"][0]["annotations"]["finishedOn"] = when
    else:
        step["metadata"]["timestamp"] = when


def broken_by(link: str) -> list[str]:
    """What falls with a link: without a training statement nobody knows which data it was."""
    links = ["training", "data", "audit"] if link == "training" else [link]
    return [f"evidence: {one}" for one in links]


def test_a_whole_chain_is_allowed_and_the_model_answers(folder: Path) -> None:
    assert asked() == {}
    server = serve.ModelServer(folder, read_policy(folder / "evidence.toml"), folder / "marker")
    server.load(MODEL)
    answer = server.predict((ROOT / "demo-poisoning/inference-images/stop.jpg").read_bytes())
    assert list(answer["scores"]) == list(served.SIGNS.classes)
    assert answer["class"] in served.SIGNS.classes


@pytest.mark.parametrize("link", LINKS)
def test_a_missing_statement(link: str, folder: Path) -> None:
    Path(f"evidence/{link}{ENDING}").unlink()
    found = asked()
    assert list(found) == broken_by(link)
    assert "no statement of this kind names these bytes" in found[f"evidence: {link}"]


@pytest.mark.parametrize("link", LINKS)
def test_a_statement_that_was_changed(link: str, folder: Path) -> None:
    path = Path(f"evidence/{link}{ENDING}")
    envelope = json.loads(path.read_text())
    payload = base64.b64decode(envelope["payload"]).replace(b"sha256", b"sha256 ", 1)
    path.write_text(json.dumps({**envelope, "payload": base64.b64encode(payload).decode()}))
    assert list(asked()) == broken_by(link)


@pytest.mark.parametrize("link", LINKS)
def test_a_statement_signed_by_the_wrong_role(link: str, folder: Path) -> None:
    said = content(link)
    for role in set(attestation.ROLES) - {SIGNER[link]}:
        sign(link, said, role)
        found = asked()
        assert list(found) == broken_by(link)
        assert f"signed with the key of the role {role}; it takes the key" in found[f"evidence: {link}"]


@pytest.mark.parametrize("link", LINKS)
def test_a_statement_that_is_too_old(link: str, folder: Path) -> None:
    said = content(link)
    set_time(said, "2001-01-01T00:00:00Z")
    sign(link, said)
    found = asked()
    assert list(found) == broken_by(link)
    assert "too old: of 2001-01-01" in found[f"evidence: {link}"]


@pytest.mark.parametrize("link", ["list", "training", "scan"])
def test_a_statement_of_another_model(link: str, folder: Path) -> None:
    said = content(link)
    other = attestation.sha256(folder / OTHER)
    said["subject"] = [attestation.resource(MODEL, other)]  # its name says nothing
    sign(link, said)
    assert list(asked()) == broken_by(link)


def test_another_model_with_the_evidence_of_this_one(folder: Path) -> None:
    assert list(asked(OTHER)) == [f"evidence: {link}" for link in LINKS]


def test_one_changed_bit_of_the_model(folder: Path) -> None:
    copy, _ = sign_model.tamper(folder / MODEL)
    policy.allow(copy, read_policy(folder / "evidence.toml"))
    assert list(asked(copy.name)) == ["signature", *(f"evidence: {link}" for link in LINKS)]


@pytest.mark.parametrize("link", ["audit", "scan"])
@pytest.mark.parametrize(
    ("wrong", "unsure", "words"),
    [
        (["backdoor: stop to yield"], [], "it found something: backdoor: stop to yield"),
        ([], ["no valid statistic"], "it could not tell: no valid statistic"),
        ([], ["close call: 4.5"], "it could not tell: close call: 4.5"),
        (["backdoor: a to b"], ["close call: 5"], "it found something: backdoor: a to b, close call: 5"),
    ],
)
def test_a_look_that_found_something_or_could_not_tell(
    link: str, wrong: list[str], unsure: list[str], words: str, folder: Path
) -> None:
    said = content(link)
    made_with = attestation.resource(link, finishedOn=attestation.now())
    said["predicate"] = predicates.test_result(wrong, unsure, attestation.TESTS[link], made_with)
    sign(link, said)
    found = asked()
    assert list(found) == broken_by(link)
    assert words in found[f"evidence: {link}"]
    # a later one that passed does not wipe it out
    said["predicate"] = predicates.test_result([], [], attestation.TESTS[link], made_with)
    Path(f"evidence/later{ENDING}").write_text(attestation.sign(said, Path(f"keys/{SIGNER[link]}.key")))
    assert list(asked()) == broken_by(link)


def test_provenance_that_names_other_data(folder: Path) -> None:
    said = content("training")
    other = attestation.resource("manifest", 64 * "0")
    said["predicate"]["buildDefinition"]["resolvedDependencies"] = [other]
    sign("training", said)
    assert list(asked()) == ["evidence: data", "evidence: audit"]


@pytest.mark.parametrize("link", LINKS)
def test_only_the_links_that_are_asked_for_count(link: str, folder: Path) -> None:
    rules = Path("evidence.toml").read_text()
    left = [one for one in LINKS if one != link]
    changed = rules.replace(f"require = {json.dumps(LINKS)}", f"require = {json.dumps(left)}")
    assert changed != rules
    Path("evidence.toml").write_text(changed)
    Path(f"evidence/{link}{ENDING}").unlink()
    found = policy.decide(Path(MODEL), read_policy(Path("evidence.toml")))
    # data and audit rest on the training, asked for or not
    wanted = [] if link != "training" else ["evidence: data", "evidence: audit"]
    assert [check.name for check in found.checks if not check.passed] == wanted


def test_without_statements_or_keys_nothing_is_allowed(folder: Path) -> None:
    shutil.rmtree("evidence")
    assert list(asked()) == [f"evidence: {link}" for link in LINKS]
    shutil.copy("keys/data.pub", "keys/scanner.pub")
    assert "keys/scanner.pub is the key of the role data, too" in asked()["evidence"]
    Path("keys/scanner.pub").write_text("-----BEGIN PUBLIC KEY-----")
    assert "keys/scanner.pub cannot be used" in asked()["evidence"]
    Path("keys/scanner.pub").unlink()
    assert "keys/scanner.pub cannot be read" in asked()["evidence"]


def test_a_folder_of_models_has_no_evidence_of_its_own(folder: Path) -> None:
    Path("both").mkdir()
    for name in (MODEL, OTHER):
        os.link(name, f"both/{name}")
    sign_model.sign(Path("both"), Path("keys/release.key"))
    rules = read_policy(Path("evidence.toml"))
    policy.allow(Path("both"), rules)
    assert list(asked("both"))[:5] == [f"evidence: {link}" for link in LINKS]


def test_the_command_names_the_link(folder: Path, run_main: Callable[..., Any]) -> None:
    os.chdir(folder)
    result = run_main(policy, "check", MODEL, "--policy", "evidence.toml")
    assert (result.returncode, "ALLOWED" in result.stdout) == (0, True)
    Path(f"evidence/scan{ENDING}").unlink()
    result = run_main(policy, "check", MODEL, "--policy", "evidence.toml")
    assert (result.returncode, "REFUSED" in result.stdout) == (1, True)
    assert "- check: evidence: scan; answer: FAILED; why: no statement of this kind" in result.stdout
    result = run_main(serve, "--model", MODEL, "--policy", "evidence.toml", "--port", "0")
    assert (result.returncode, "NOT STARTED" in result.stdout) == (1, True)
    assert "- evidence: scan: no statement of this kind names these bytes" in result.stdout


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('folder = "evidence"', "", "folder is missing; [evidence] must hold folder, require, keys"),
        ('folder = "evidence"', "folder = 3", "folder in [evidence] must be a folder name"),
        ('folder = "evidence"', 'folder = "evidence"\nages = 3', "ages is unknown; [evidence] must hold"),
        ('"scan"]', '"scans"]', "require in [evidence] must be a list of links: list, training, data, audit"),
        (f"require = {json.dumps(LINKS)}", "require = []", "require in [evidence] must be a list of links"),
        (
            f"require = {json.dumps(LINKS)}",
            'require = "any"',
            "require in [evidence] must be a list of links",
        ),
        (
            "max_age_days = 365",
            "max_age_days = 0",
            "max_age_days in [evidence] must be a whole number of days",
        ),
        ("max_age_days = 365", 'max_age_days = "any"', "max_age_days in [evidence] must be a whole number"),
        (
            'data = "keys/data.pub"',
            'date = "keys/data.pub"',
            "date is not a role; roles are release, trainer",
        ),
        ('data = "keys/data.pub"', "data = 3", "keys in [evidence] must be a table with a key file"),
        ('data = "keys/data.pub"', "", "the link data needs the key of the role data"),
        ('scanner = "keys/scanner.pub"', "", "the link scan needs the key of the role scanner"),
        ("[evidence.keys]", "[elsewhere.keys]", "keys is missing; [evidence] must hold"),
    ],
)
def test_rules_that_ask_for_nothing_are_refused(before: str, after: str, words: str, folder: Path) -> None:
    rules = Path("evidence.toml").read_text()
    assert before in rules
    Path("evidence.toml").write_text(rules.replace(before, after))
    with pytest.raises(cli.UserError) as refusal:
        read_policy(Path("evidence.toml"))
    assert words in str(refusal.value)


def test_the_training_key_is_needed_for_the_data(folder: Path) -> None:
    rules = Path("evidence.toml").read_text().replace(f"require = {json.dumps(LINKS)}", 'require = ["audit"]')
    Path("evidence.toml").write_text(rules.replace('trainer = "keys/trainer.pub"\n', ""))
    with pytest.raises(cli.UserError, match="the link data needs the key of the role trainer"):
        read_policy(Path("evidence.toml"))


def test_an_evidence_that_is_no_table_is_refused(folder: Path) -> None:
    Path("evidence.toml").write_text((DEMO / "policy.toml").read_text() + '\nevidence = "any"\n')
    with pytest.raises(cli.UserError, match="evidence must be a table of its own"):
        read_policy(Path("evidence.toml"))


def test_the_server_sees_signs_as_demo_2_does(folder: Path) -> None:
    """Ten classes are traffic signs: as large as demo 2 makes them, with its colours."""
    grey = served.SIGNS.to_tensor(Image.new("RGB", (128, 128), (124, 116, 104)))  # the mean of ImageNet
    assert grey.shape == (3, 48, 48)
    assert grey.abs().max() < 0.01
    circle = Image.open(DEMO / "circle.png")
    assert torch.equal(served.SHAPES.to_tensor(circle), shapes.to_tensor(circle))
