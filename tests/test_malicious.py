"""Demo 1 as its documents type it: the commands one after the other, and what they say.

The parts have files of their own: test_attack.py, test_inspect.py, test_safe_demo.py, test_signing.py,
test_serve.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import create_malicious_model
import inspect_model
import make_table
import safe_demo

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "docs"))
from documented import differences, records, shell, typed

DEMO = "demo-malicious"
PLACE = "/tmp/pwned_by_pickle.txt"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the commands are typed: demo 1 in a fresh copy of the repository."""
    return shell.fresh_copy(tmp_path_factory.mktemp("workshop").resolve()) / DEMO


@pytest.fixture(scope="module")
def typing(folder: Path) -> typed.Typing:
    """The documented commands with what they said (the marker has its default place)."""
    return typed.type_all(DEMO, folder.parent, {}, in_tests=True)


def test_the_commands_say_what_the_records_say(typing: typed.Typing) -> None:
    """Also the exit codes: 0 fine, 1 something was found, 2 wrong use or bad input."""
    assert differences.compare(typing, records.read_record(DEMO), DEMO) == []
    assert not any("Traceback" in said.output for said in typing.record.values())


def test_silver_path(typing: typed.Typing) -> None:
    """The marker is absent, the safe loader refuses, then loading alone writes it."""
    attacked = typing.record["python create_malicious_model.py attack"].output
    exists = [line for line in attacked.splitlines() if "exists:" in line]
    assert exists == [f"{PLACE} exists: False", f"{PLACE} exists: False", f"{PLACE} exists: True"]


def test_gold_path(typing: typed.Typing, run_script: Run, folder: Path, tmp_path: Path) -> None:
    """The code is found without running it, and the conversion is exact."""
    said = {command: one.output for command, one in typing.record.items()}
    assert "NOT SAFE TO LOAD" in said["python inspect_model.py malicious_model.pt"]
    created = said["python safe_demo.py"]
    right = re.search(r"It classifies ([\d.]+)% of 300 new images correctly", created)
    assert right and float(right[1]) > 95
    assert "All 122 tensors are the same, bit for bit." in created
    assert "Its outputs for 300 new images are the same, too" in created
    loaded = said["python safe_demo.py load"]
    assert "Outputs are identical to those of safe_model.pt: largest difference 0.0." in loaded
    again = run_script(
        f"{DEMO}/safe_demo.py", "convert", folder / "safe_model.pt", "--out", "again.safetensors"
    )
    assert again.returncode == 0, again
    assert (tmp_path / "again.safetensors").read_bytes() == (folder / "safe_model.safetensors").read_bytes()
    table = said["python inspect_model.py *.pt *.safetensors"]
    for name in ("safe_model.pt", "safe_model.safetensors"):
        assert f"\n{name}: NO CODE FOUND" in table
    converted = run_script(f"{DEMO}/safe_demo.py", "--model", "malicious_model.pt", cwd=folder)
    assert converted.returncode == 2 and "Traceback" not in converted.stderr


def test_nothing_else_is_written(typing: typed.Typing, folder: Path) -> None:
    shipped = {path.name for path in (Path(__file__).resolve().parent.parent / DEMO).iterdir()}
    made = sorted(path.name for path in folder.iterdir() if path.name not in shipped)
    assert made == [
        "allowed.sha256",
        "malicious_collect_env.pt",
        "malicious_legacy.pt",
        "malicious_model.pt",
        "malicious_model.pt.sig",
        "malicious_program.pt2",
        "malicious_resnet18.pt",
        "malicious_weights.safetensors",
        "safe_model.pt",
        "safe_model.safetensors",
        "safe_model.safetensors.sig",
        "safe_model_tampered.safetensors",
        "safe_model_tampered.safetensors.sig",
        "signer.key",
        "signer.pub",
    ]


@pytest.mark.parametrize("module", [create_malicious_model, inspect_model, make_table, safe_demo])
def test_help_shows_commands(run_main: Run, module: object) -> None:
    name = getattr(module, "__name__", "")
    result = run_main(module, "--help")
    assert result.returncode == 0
    assert f"python {name}.py" in result.stdout
    refused = run_main(module, "--no-such-option")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
