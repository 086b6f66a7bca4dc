"""./workshop.sh pipeline, for real but with models that learned nothing: from the data to the server.

What audit and scan found is made up; the statements, the chain, the policy and the server are the demos' own.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from workshop_bench import Bench

from dataset import manifest
from dataset.classes import DRAWN
from network import classifier
from statements import attestation

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("workshop.sh", "scripts", "demo-malicious", "demo-poisoning", "demo-supply-chain")
MADE = ("data", "models", "scan_results", "audit_results", "results", "outputs", "__pycache__", ".venv")
DATA = {"clean": "traffic-signs", "poisoned": "traffic-signs-poisoned"}
REFUSED = "it found something: backdoor: stop to yield"

Result = subprocess.CompletedProcess[str]


def audited(home: Path, name: str) -> None:
    """What audit_data.py would have written of the data of a model."""
    demo = home / "demo-poisoning"
    proof = manifest.write(demo / "data" / DATA[name])
    found = {
        "tool": "audit_data.py",
        "manifest": f"data/{proof.name}",
        "manifest_sha256": attestation.sha256(proof),
        "model": f"models/{name}_model.safetensors",
        "verdict": "nothing stands out" if name == "clean" else "findings",
        "changes": {"added": [], "removed": [], "modified": []},
    }
    place = demo / f"audit_results/pipeline-{name}"
    place.mkdir(parents=True)
    (place / "suspects.json").write_text(json.dumps(found))


def scanned(home: Path, name: str) -> None:
    """What detect.py would have written of a model."""
    demo = home / "demo-poisoning"
    bad = [("stop", "yield")] if name == "poisoned" else []
    pairs = [
        {"victim": a, "target": b, "anomaly_index": 7.2 if (a, b) in bad else 1.0, "flagged": (a, b) in bad}
        for a, b in itertools.permutations(DRAWN, 2)
    ]
    found = {
        "tool": "detect.py",
        "sha256": attestation.sha256(demo / f"models/{name}_model.safetensors"),
        "classes": list(DRAWN),
        "verdict": "backdoor" if bad else "clean",
        "near_threshold": False,
        "threshold": 4.8,
        "pairs": pairs,
    }
    place = demo / f"scan_results/{name}"
    place.mkdir(parents=True)
    (place / "scan.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the workshop whose .venv is this Python, with two models, their data and results."""
    folder = tmp_path_factory.mktemp("pipeline") / "workshop"
    folder.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns(*MADE))
        else:
            shutil.copy(source, folder / part)
    shutil.copy(ROOT / "requirements-dev.txt", folder)
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "lib64", "pyvenv.cfg"):
        if (Path(sys.prefix) / name).exists():
            (folder / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    marks = f"ROOT={folder}; VENV=$ROOT/.venv; . $ROOT/scripts/say.sh; . $ROOT/scripts/python.sh; "
    marks += 'for part in packages torch; do wanted $part >"$VENV/workshop-installed-$part"; done'
    subprocess.run(["bash", "-c", marks], check=True)
    demo = folder / "demo-poisoning"
    for seed, name in enumerate(DATA):
        place = demo / "data" / DATA[name] / "train/stop"
        place.mkdir(parents=True)
        Image.new("RGB", (128, 128), (200, 20 * seed, 20)).save(place / "stop_00000.jpg")
        torch.manual_seed(seed)
        (demo / "models").mkdir(exist_ok=True)
        classifier.save_model(classifier.new_model(), demo / f"models/{name}_model.pt")
        scanned(folder, name)
        audited(folder, name)
    yield folder
    shutil.rmtree(folder.parent)


def pipeline(home: Path, *words: str) -> Result:
    """Type ./workshop.sh pipeline in the copy."""
    return subprocess.run(
        ["./workshop.sh", "pipeline", "--native", *words],
        check=False,
        cwd=home,
        env=os.environ | {"WORKSHOP_PYTHON": sys.executable, "WORKSHOP_PROGRESS": str(home / "progress")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_from_the_data_to_the_server_and_one_broken_link(home: Path) -> None:
    result = pipeline(home, "--break", "age")
    said = result.stdout
    assert (result.returncode, result.stderr) == (0, ""), said[-3000:] + result.stderr
    assert "Traceback" not in said
    signed = re.findall(r"/([^/\s]+)\.dsse\.json, signed by the role (\w+)(?:: (\w+))?\.$", said, re.M)
    assert signed == [
        ("traffic-signs.sha256.data", "data", ""),
        ("traffic-signs-poisoned.sha256.data", "data", ""),
        ("traffic-signs.sha256.audit", "auditor", "PASSED"),
        ("traffic-signs-poisoned.sha256.audit", "auditor", "FAILED"),
        ("clean_model.safetensors.training", "trainer", ""),
        ("poisoned_model.safetensors.training", "trainer", ""),
        ("clean_model.safetensors.scan", "scanner", "PASSED"),
        ("poisoned_model.safetensors.scan", "scanner", "FAILED"),
        ("mlbom.cdx.json", "release", ""),
    ]
    order = [
        "Result: every link holds for clean_model.safetensors.",
        "Loaded clean_model.safetensors.",
        '"model": "clean_model.safetensors",',
        "NOT STARTED: poisoned_model.safetensors is refused.",
        "- evidence: audit: traffic-signs-poisoned.sha256.audit.dsse.json: it found something: audit_data.py",
        f"- evidence: scan: poisoned_model.safetensors.scan.dsse.json: {REFUSED}",
        "The attacker put a scan of 2020 into clean_model.safetensors.scan.dsse.json",
        "5. scan: BROKEN.",
        "Result: DISCARD clean_model.safetensors. Broken: scan.",
        "NOT STARTED: clean_model.safetensors is refused.",
        "- evidence: scan: clean_model.safetensors.scan.dsse.json: it is too old: of 2020-02-02",
        "Done: every step of pipeline worked",
    ]
    places = [said.find(words) for words in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)
    assert json.loads((home / "results/pipeline/mlbom.cdx.json").read_text())["specVersion"] == "1.6"
    assert json.loads((home / "progress/log.jsonl").read_text().splitlines()[-1])["item"] == "pipeline"


def test_an_audit_or_a_scan_of_something_else_is_not_taken(home: Path, tmp_path: Path) -> None:
    """It would be made again: here its command fails at once, because the data are too few."""
    result_of = home / "demo-poisoning/scan_results/clean/scan.json"
    before = result_of.read_text()
    result_of.write_text(before.replace(json.loads(before)["sha256"], 64 * "0"))
    result = pipeline(home)
    result_of.write_text(before)
    assert result.returncode == 1
    assert "== Scan the clean model: there is no scan of this file yet ==" in result.stdout
    assert "this step of pipeline failed: Scan the clean model" in result.stderr
    assert "Keys:" not in result.stdout


def test_without_models_it_says_what_makes_them(root: Path, tmp_path: Path) -> None:
    bench = Bench(root, tmp_path)
    bench.python()
    result = bench("pipeline", "--native")
    assert result.returncode == 1
    assert (
        "there is no demo-poisoning/models/clean_model.safetensors yet: ./workshop.sh run 2" in result.stderr
    )
    assert len(result.stderr.splitlines()) == 1
