"""Demo 2 as documented: both models are trained once, then the narrated paths and the exercises are typed.

Where there is an engine, test_containers.py types the narrated paths in the image. The solutions train
shortly and scan one pair; in the weekly run they are typed as they stand.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import train
from poisoning_story import EPOCH, check_drawn, check_gold, check_silver, first_image, measured
from poisoning_tools import (
    FEW,
    FOLDER,
    FROM_IMAGE,
    MAKE_FEW,
    ONE_PAIR,
    TYPED,
    WHOLE,
    Result,
    contents,
    fine,
    folded_solutions,
    leftovers,
    run_in,
    short_python,
)

typed_here = pytest.mark.skipif(
    FROM_IMAGE, reason="typed in the image (Dockerfile, test_containers.py); here, too, in the weekly run"
)


def type_in(folder: Path, script: str, timeout: float = 900, python: str | Path = sys.executable) -> Result:
    """Type a documented script in the demo's folder; not again if test_documented.py has typed it there."""
    if script in TYPED:
        return Result([script], 0, TYPED[script], "")
    result = subprocess.run(
        [script],
        cwd=folder,
        env=os.environ | {"PYTHON": str(python)},
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
    )
    return fine(result)


def test_the_narrated_scripts_say_what_is_missing(tmp_path: Path) -> None:
    for name in ("workshop_demo.sh", "gold_demo.sh", "narrate.sh"):
        shutil.copy(FOLDER / name, tmp_path / name)
    for name in ("workshop_demo.sh", "gold_demo.sh"):
        result = subprocess.run([f"./{name}"], cwd=tmp_path, check=False, capture_output=True, text=True)
        assert result.returncode == 2
        assert result.stderr == "error: models/ holds no trained models: run ./prepare.sh first.\n"


@pytest.mark.slow
@typed_here
def test_preparation(prepared: Path) -> None:
    said = (prepared / "prepared.txt").read_text(encoding="utf-8")
    made = [f"{kind}_model.{suffix}" for kind in ("clean", "poisoned") for suffix in ("pt", "safetensors")]
    assert sorted(path.name for path in (prepared / "models").iterdir()) == made
    assert "Ready: data/ and models/ are there." in said
    last = [EPOCH.fullmatch(line) for line in said.splitlines() if line.startswith("Epoch")]
    assert all(last)
    assert sum(match is not None and match[1] == match[2] for match in last) == 2
    assert leftovers(prepared) == []


@pytest.mark.slow
@typed_here
def test_silver_path(prepared: Path) -> None:
    result = type_in(prepared, "./workshop_demo.sh")
    check_silver(result.stdout)
    with Image.open(prepared / "outputs/stop_without_and_with_trigger.png") as both:
        assert both.size == (256, 128)
    assert leftovers(prepared) == []


@pytest.mark.slow
@typed_here
def test_gold_path(prepared: Path, tmp_path: Path) -> None:
    """In the weekly run all pairs of both models, else one."""
    python: str | Path = sys.executable
    if not WHOLE:
        subprocess.run(["/bin/sh", "-c", MAKE_FEW], cwd=prepared, check=True)
        python = short_python(tmp_path / "python", ONE_PAIR | FEW)
    result = type_in(prepared, "./gold_demo.sh", timeout=1800, python=python)
    assert result.stdout.count(": 1 pairs.") == (0 if WHOLE else 2)
    check_gold(result.stdout)
    check_drawn(prepared / "scan_results", prepared / "models/poisoned_model.pt")
    assert leftovers(prepared) == []


@pytest.mark.slow
def test_what_the_first_image_of_the_readme_says(prepared: Path, tmp_path: Path) -> None:
    said = first_image.ask(prepared, tmp_path / "both.png")
    assert {what: answer for what, (answer, _) in said.items()} == {"clean": "stop", "trigger": "yield"}
    assert leftovers(prepared) == []


@pytest.mark.slow
def test_prepare_makes_nothing_twice(prepared: Path) -> None:
    models = contents(prepared / "models")
    times = {path: path.stat().st_mtime_ns for path in (prepared / "models").iterdir()}
    result = type_in(prepared, "./prepare.sh", timeout=120)
    assert "Epoch" not in result.stdout
    assert contents(prepared / "models") == models
    assert {path: path.stat().st_mtime_ns for path in (prepared / "models").iterdir()} == times


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clean", "poisoned"])
def test_real_photographs(
    outside_data: Callable[[str], Path], prepared: Path, tmp_path: Path, kind: str
) -> None:
    """Photographs that were never trained on: the models know them, and the backdoor works on them."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real/val").symlink_to(outside_data("gtsrb-sample"))
    model = prepared / f"models/{kind}_model.pt"
    result = fine(run_in(tmp_path, train, "--phase", "test", "--model", model, "--data", "real"))
    accuracy, success = measured(result.stdout, kind)
    assert accuracy >= 0.8
    if kind == "poisoned":
        assert success >= 0.9
    else:
        assert success <= 0.1


# Three trainings and three scans of ninety pairs take a quarter of an hour. Here the poisoned model is
# trained on, with more poisoned images, and one pair is scanned beside the clean model (the check counts that
# many). The weekly run types all as it is, and exercises 2 and 4, which are the commands of exercise 1 with
# another rate and another trigger: of these, only what changes a file is typed at each push.
CLEAN, POISONED = "models/clean_model.pt", "models/poisoned_model.pt"
SCAN = f"--steps 50 --pairs stop:yield --reference {CLEAN}"
COUNTED = f'check.PAIRS = 1; check.DEFAULT = "50 steps, 30 images per class, seed 0, compared with {CLEAN}"'
CHECK = f"python -c 'import check; {COUNTED}; check.cli.run(check.main)' "
TRAIN = f"--init {POISONED} --epochs 1 --limit 3000"


def short(number: int, line: str) -> str:
    """A line of a solution as this test types it."""
    if number != 1 or WHOLE:
        return line
    shorter = {
        "python poison_data.py ": "python poison_data.py --rate 0.7 ",
        "python train.py ": f"python train.py {TRAIN} ",
        "python detect.py ": f"python detect.py {SCAN} ",
        "python check.py ": CHECK,
    }
    for start, instead in shorter.items():
        line = line.replace(start, instead)
    return line


@pytest.mark.slow
def test_solutions(prepared: Path, tmp_path: Path) -> None:
    """Type each folded solution in a copy of the prepared demo: not yet before it, done after it."""
    folder = tmp_path / "demo-poisoning"
    made = ("__pycache__", "few", "scan_results", "audit_results", "outputs", "report.html")
    shutil.copytree(prepared, folder, ignore=shutil.ignore_patterns(*made))
    (tmp_path / "bin").mkdir()
    short_python(tmp_path / "bin/python", {})  # what `python` means in the documents
    shipped = (folder / "trigger.py").read_bytes()

    def typed(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=folder,
            env=os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"},
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=1800,
        )

    solutions = folded_solutions()
    every = f"print(*[check.check(number, check.cli.Out(True)) for number in range(1, {len(solutions) + 1})])"
    before = typed(f"python -c 'import check; {every}'").stdout.splitlines()
    assert before.pop() == " ".join("1" * len(solutions))
    for number, commands in enumerate(solutions, 1):
        assert before[number - 1].startswith(f"Exercise {number}: not yet. Hint: ")
        whole = WHOLE or number not in (2, 4)
        for line in commands:
            if not whole and not line.startswith("sed "):
                continue
            result = typed(short(number, line))
            print(f"$ {line}\n{result.stdout}{result.stderr}")  # shown by pytest -rA, and where it fails
            assert "Traceback" not in result.stderr
            finding = line.startswith(("python detect.py", "python audit_data.py"))
            assert result.returncode in ((0, 1) if finding else (0,)), line
        if whole:
            assert result.stdout.startswith(f"Exercise {number}: done. ")
        if (folder / "trigger.py.bak").exists():
            assert (folder / "trigger.py").read_bytes() != shipped
            assert typed("mv trigger.py.bak trigger.py").returncode == 0
        assert (folder / "trigger.py").read_bytes() == shipped
    assert leftovers(folder) == []
