"""Demo 2: what its commands sign of what they did, and how the chain of evidence takes it.

Trained shortly, and nothing is searched: training, audit and scan have tests of their own.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed448, rsa
from PIL import Image
from safetensors import safe_open

import audit_data
import detect
import make_dataset
import poison_data
import train
from auditor import features
from dataset import manifest
from dataset.classes import DRAWN
from network import classifier
from network.evaluate import Validation
from poisoning_tools import Norms, Refused, Result, Run, contents, fine, run_in
from statements import attestation, chain, signing

CLASSES = len(DRAWN)
EACH = features.FEWEST + 4  # images of each class
COLOURS = dict(
    zip(
        DRAWN,
        [(200, 20, 20), (240, 240, 240), (20, 20, 200), (20, 160, 20), (200, 200, 20)]
        + [(20, 200, 200), (200, 20, 200), (10, 10, 10), (240, 130, 20), (120, 120, 120)],
    )
)
TRAIN = ("--epochs", 1, "--seed", 1, "--manifest", "signs.sha256", "--data", "signs", "--model", "m.pt")


def draw(folder: Path, colour: tuple[int, int, int], number: int) -> None:
    """A rectangle of one colour on noise: even a network that learned next to nothing tells them apart."""
    rng = np.random.default_rng([*colour, number])
    noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
    image = noise.resize((128, 128), Image.Resampling.BICUBIC)
    left, top = (int(value) for value in rng.integers(16, 40, 2))
    image.paste(colour, (left, top, left + 72, top + 72))
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / f"{folder.name}_{number:05d}.jpg", quality=92)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keys, data and a model, signed by those who made them."""
    folder = tmp_path_factory.mktemp("records")
    attestation.write_keys(folder / "keys")
    for name, colour in COLOURS.items():
        for number in range(EACH):
            draw(folder / "signs/train" / name, colour, number)
            draw(folder / "signs/val" / name, colour, EACH + number)
    manifest.write(folder / "signs")
    fine(run_in(folder, train, *TRAIN, "--key", "keys/trainer.key", "--evidence", "said"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for one test, as the current folder."""
    shutil.copytree(made, tmp_path, copy_function=os.link, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(folder: Path, file: str, role: str) -> attestation.Statement:
    """The statement in a file, which this role must have signed."""
    return attestation.verify(folder / file, attestation.public_key(folder / f"keys/{role}.pub"))


def broken(folder: Path, model: str = "m.safetensors") -> dict[str, str]:
    """The broken links of a model's chain, with the reasons. Nobody writes a list here."""
    keys = chain.read_keys({role: folder / f"keys/{role}.pub" for role in attestation.ROLES})
    evidence = chain.Evidence(folder / "said", keys, chain.LONG_AGO)
    assert evidence.left_out == {}
    links = chain.walk(attestation.sha256(folder / model), evidence)
    return {link.name: link.why for link in links if not link.holds and link.name != "list"}


def signed(run: Run, command: ModuleType, role: str, *words: object) -> Result:
    """Run a command that signs into said/."""
    return run(command, *words, "--key", f"keys/{role}.key", "--evidence", "said")


AUDIT = ("signs", "--manifest", "signs.sha256", "--model", "m.safetensors")
SCAN = ("--model", "m.safetensors", "--data", "signs", "--output", "scan")


def test_every_step_signs_and_the_chain_holds(here: Path, run_main: Run, fake: Callable[..., None]) -> None:
    fake({})
    assert list(broken(here)) == ["data", "audit", "scan"]
    small = ("--train", 1, "--val", 1, "--out", "more")
    assert "Wrote said/more.sha256.data.dsse.json" in signed(run_main, make_dataset, "data", *small).stdout
    found = said(here, "said/more.sha256.data.dsse.json", "data")
    assert found.subjects == {"more.sha256": attestation.sha256(here / "more.sha256")}
    own = attestation.statement(
        {"signs.sha256": attestation.sha256(here / "signs.sha256")}, found.kind, dict(found.predicate)
    )
    (here / "said/signs.dsse.json").write_text(attestation.sign(own, here / "keys/data.key"))
    result = signed(run_main, audit_data, "auditor", *AUDIT)
    assert (result.returncode, "signed with keys/auditor.key: PASSED." in result.stdout) == (0, True)
    assert list(broken(here)) == ["scan"]
    result = signed(run_main, detect, "scanner", *SCAN)
    assert (result.returncode, "signed with keys/scanner.key: PASSED." in result.stdout) == (0, True)
    assert broken(here) == {}
    assert broken(here, "m.pt").keys() == {"scan"}  # the same numbers, but this file was not scanned


def test_the_training_says_how_the_model_was_made(here: Path) -> None:
    found = said(here, "said/m.safetensors.training.dsse.json", "trainer")
    assert found.subjects == {name: attestation.sha256(here / name) for name in ("m.pt", "m.safetensors")}
    definition = found.predicate["buildDefinition"]
    assert definition["externalParameters"]["command"].startswith("python train.py --epochs 1 --seed 1 ")
    assert definition["externalParameters"] | {"epochs": 1, "seed": 1} == definition["externalParameters"]
    assert {"torch", "torchvision", "device", "python", "machine"} <= definition["internalParameters"].keys()
    used = {one["name"]: one for one in definition["resolvedDependencies"]}
    digest = attestation.sha256(here / "signs.sha256")
    assert used["manifest"]["digest"] == {"sha256": digest}
    assert used["manifest"]["annotations"] == {"dataset": "signs"}
    lock = attestation.sha256(signing.DEMO / "requirements.txt")
    assert used["requirements.txt"]["digest"] == {"sha256": lock}
    assert len(used["code"]["digest"]["sha256"]) == 64
    (products,) = found.predicate["runDetails"]["byproducts"]
    metrics = products["annotations"]["metrics"]
    names = [(one["name"], one["slice"]) for one in metrics]
    assert names[:2] == [("accuracy", "all validation images"), ("accuracy", "stop")]
    assert names[-2:] == [
        ("attack success rate", "stop with the trigger"),
        ("leak of the trigger", "no_entry with the trigger"),
    ]
    assert len(names) == 1 + CLASSES + 2
    assert all(0 <= one["low"] <= one["value"] <= one["high"] <= 1 for one in metrics)
    with safe_open(here / "m.safetensors", "pt") as file:
        facts = file.metadata()
    assert facts == {"format": "pt", "seed": "1", "epochs": "1", "manifest_sha256": digest}


def test_the_figures_are_those_of_the_model(here: Path) -> None:
    found = said(here, "said/m.safetensors.training.dsse.json", "trainer")
    (products,) = found.predicate["runDetails"]["byproducts"]
    told = {(one["name"], one["slice"]): one["value"] for one in products["annotations"]["metrics"]}
    model = classifier.load_model(here / "m.pt")
    score = Validation(here / "signs", CLASSES, "stop", "yield").score(model)
    assert told["accuracy", "all validation images"] == round(score.clean_acc, 4)
    assert told["attack success rate", "stop with the trigger"] == round(score.attack_success_rate or 0, 4)
    leak = Validation(here / "signs", CLASSES, "no_entry", "yield").score(model).attack_success_rate
    assert told["leak of the trigger", "no_entry with the trigger"] == round(leak or 0, 4)
    shutil.copytree(here / "signs/val/yield", here / "only/val/yield")
    own = Validation(here / "only", CLASSES, "stop", "yield").score(model)
    assert told["accuracy", "yield"] == round(own.clean_acc, 4)


def test_base_weights_are_named(here: Path, run_main: Run) -> None:
    fine(signed(run_main, train, "trainer", *TRAIN[:-1], "next.pt", "--init", "m.safetensors"))
    found = said(here, "said/next.safetensors.training.dsse.json", "trainer")
    used = {one["name"]: one for one in found.predicate["buildDefinition"]["resolvedDependencies"]}
    assert used["base weights"] == attestation.resource(
        "base weights", attestation.sha256(here / "m.safetensors"), file="m.safetensors"
    )


@pytest.mark.parametrize("change", ["added", "removed", "modified"])
def test_the_trainer_refuses_other_data_than_the_manifest_lists(
    change: str, here: Path, run_main: Run, assert_refused: Refused
) -> None:
    image = sorted((here / "signs/train/stop").iterdir())[0]
    if change == "added":
        shutil.copy(image, image.with_name("new.jpg"))
    elif change == "removed":
        image.unlink()
    else:
        image.unlink()  # the copy is a link: never write into it
        shutil.copy(sorted((here / "signs/train/yield").iterdir())[0], image)
    before = contents(here)
    result = signed(run_main, train, "trainer", *TRAIN)
    assert_refused(result, f"signs does not hold what signs.sha256 lists (1 {change})")
    assert contents(here) == before


def test_what_the_scan_says_of_a_backdoor(here: Path, run_main: Run, fake: Callable[..., None]) -> None:
    fake({(0, 1): 0.004})
    result = signed(run_main, detect, "scanner", *SCAN)
    assert (result.returncode, "signed with keys/scanner.key: FAILED." in result.stdout) == (1, True)
    found = said(here, "said/m.safetensors.scan.dsse.json", "scanner")
    assert found.subjects == {"m.safetensors": attestation.sha256(here / "m.safetensors")}
    scan, code = found.predicate["configuration"][:2]
    assert scan["digest"]["sha256"] == attestation.sha256(here / "scan/scan.json")
    notes = scan["annotations"]
    record = json.loads((here / "scan/scan.json").read_text())
    assert notes["threshold"] == record["threshold"]
    assert notes["largest anomaly index"] == record["pairs"][0]["anomaly_index"]
    assert notes["pairs"] == "90 of 90"
    lines = "".join(
        f"{attestation.sha256(path)}  {path.relative_to(here / 'signs/val').as_posix()}\n"
        for path in sorted((here / "signs/val").rglob("*.jpg"))
    )
    (here / "lines").write_text(lines)
    assert notes["manifest of the clean images"] == attestation.sha256(here / "lines")
    assert code["name"] == "code"
    assert "it found something: backdoor: stop to yield" in broken(here)["scan"]


@pytest.mark.parametrize(
    ("norms", "narrow", "words"),
    [
        ({}, ["--pairs", "stop:yield"], "no valid statistic, 1 of 90 pairs of classes were judged"),
        ({}, ["--victims", *DRAWN[:9]], "81 of 90 pairs"),
    ],
)
def test_a_scan_that_cannot_judge_says_so_and_is_no_pass(  # noqa: PLR0917
    norms: Norms, narrow: list[str], words: str, here: Path, run_main: Run, fake: Callable[..., None]
) -> None:
    fake(norms)
    result = signed(run_main, detect, "scanner", *SCAN, *narrow)
    assert "signed with keys/scanner.key: WARNED." in result.stdout
    assert "it could not tell: " in broken(here)["scan"]
    assert words in broken(here)["scan"]


def test_what_the_audit_says_of_changed_data_and_of_a_glance(here: Path, run_main: Run) -> None:
    result = signed(run_main, audit_data, "auditor", *AUDIT[:-2])
    assert (result.returncode, "signed with keys/auditor.key: WARNED." in result.stdout) == (0, True)
    assert "it could not tell: nobody looked at the images" in broken(here)["audit"]
    sorted((here / "signs/train/stop").iterdir())[0].unlink()
    result = signed(run_main, audit_data, "auditor", *AUDIT)
    assert (result.returncode, "signed with keys/auditor.key: FAILED." in result.stdout) == (1, True)
    assert "it found something: 1 files differ from the manifest" in broken(here)["audit"]


def test_poisoned_data_come_with_a_manifest_too(here: Path, run_main: Run) -> None:
    fine(run_main(poison_data, "--clean-dir", "signs", "--poisoned-dir", "bad"))
    assert manifest.read(here / "bad.sha256") == manifest.checksums(here / "bad")


COMMANDS: dict[str, tuple[ModuleType, tuple[object, ...]]] = {
    "train": (train, TRAIN),
    "audit": (audit_data, AUDIT),
    "scan": (detect, SCAN),
    "data": (make_dataset, ("--train", 1, "--val", 1, "--out", "more")),
}


KEYS = ["nosuch.key", "keys", "signs.sha256", "m.pt", "keys/data.pub", "x448", "locked"]


@functools.cache
def odd_keys() -> dict[str, bytes]:
    """A key of another kind, and one behind a password; making it takes half a second."""
    form, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    other = ed448.Ed448PrivateKey.generate().private_bytes(form, kind, serialization.NoEncryption())
    secret = serialization.BestAvailableEncryption(b"secret")
    locked = rsa.generate_private_key(65537, 2048).private_bytes(form, kind, secret)
    return {"x448": other, "locked": locked}


@pytest.mark.parametrize("step", COMMANDS)
@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_cannot_sign_is_refused_before_anything_is_made(  # noqa: PLR0917
    step: str, key: str, here: Path, run_main: Run, fake: Callable[..., None], assert_refused: Refused
) -> None:
    fake({})
    for name, content in odd_keys().items():
        (here / name).write_bytes(content)
    before = contents(here)
    command, words = COMMANDS[step]
    assert_refused(run_main(command, *words, "--key", key), key)
    assert contents(here) == before


@pytest.mark.parametrize(
    ("step", "words", "missing"),
    [
        ("train", ("--data", "signs"), "--manifest"),
        ("audit", ("signs",), "--manifest"),
    ],
)
def test_a_signature_needs_a_manifest(  # noqa: PLR0917
    step: str, words: tuple[str, ...], missing: str, here: Path, run_main: Run, assert_refused: Refused
) -> None:
    command, _ = COMMANDS[step]
    assert_refused(run_main(command, *words, "--key", "keys/data.key"), missing)
    assert_refused(run_main(*[command, *COMMANDS[step][1], "--evidence", "said"]), "--key")


def test_names_that_are_no_text_can_be_signed(here: Path) -> None:
    assert signing.text("a\udcff.pt") == "a\\udcff.pt"
