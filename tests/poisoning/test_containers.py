"""Demo 2 in its container: the models are trained while the image is built, and both paths run locked up.

One image is built here, because training takes minutes. That the Dockerfile's pattern also works on a
base without a shell is what the tests of demo 1's image show. Most tests share one container: each new one
gets a copy of 10,000 images and four models, which takes longer than what they do in it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from container_checks import check_no_network, check_nothing_stays, check_rights

from poisoning_story import ANSWER, EPOCH, check_drawn, check_gold, check_silver
from poisoning_tools import FEW, MAKE_FEW, TWO_VICTIMS, WHOLE, short

pytestmark = [pytest.mark.docker, pytest.mark.slow]

Run = Callable[..., Any]
InShell = Callable[..., str]

# the single commands of the documents that the narrated paths do not type, with few steps and images
DOCUMENTED = """
set -e
python demo.py inference-images/stop.jpg --model models/poisoned_model.pt
python demo.py inference-images/stop.jpg --model models/poisoned_model.safetensors --compare --save a.png
code=0
python detect.py --model models/clean_model.safetensors --data data/traffic-signs --steps 2 --samples 2 \
    --pairs stop:yield --reference models/poisoned_model.pt --output scan_results/quick || code=$?
echo "detect ended with $code"
python train.py --poisoned --epochs 1 --limit 300
ls a.png scan_results/quick/*.png models
"""
GOLD = "./gold_demo.sh || exit\nfind . -name '.*' ! -name . ! -name .made-by-this-demo\n"
# the weekly run scans all pairs, here and outside the image, and watches all images
SHORT = f"""{MAKE_FEW}
printf %s {shlex.quote(short("python", TWO_VICTIMS | FEW))} >short_python && chmod +x short_python || exit
export PYTHON=./short_python
"""
INVENTORY = """
from pathlib import Path
print(*sorted(path.name for path in Path("models").iterdir()))
print(*sorted(path.name for path in Path("data").iterdir()))
for name in ("traffic-signs", "traffic-signs-poisoned"):
    for split in ("train", "val"):
        print(len(list(Path("data", name, split).glob("*/*.jpg"))))
print(*sorted(path.name for path in Path().iterdir()))
print([str(path) for path in Path("/build").rglob("*")])
print([str(path) for path in Path().rglob("*") if path.name == "__pycache__" or path.suffix == ".pyc"])
"""


@pytest.fixture(scope="module")
def container(docker: Any, image: str) -> Iterator[str]:
    """The name of the locked-up container that these tests share."""
    flags = (*docker.HARDENED, *docker.ONE_THREAD, "--detach", "--entrypoint", "sleep")
    started = docker("run", *flags, image, "infinity")
    assert started.returncode == 0, started.stderr
    yield started.stdout.strip()
    docker("rm", "--force", "--volumes", started.stdout.strip())


@pytest.fixture(scope="module")
def run(docker: Any, container: str) -> Run:
    """run("demo.py", "a.jpg") is `python demo.py a.jpg` in that container."""

    def give(*words: str, program: str = "python", timeout: float = 600) -> Any:
        return docker("exec", container, program, *words, timeout=timeout)

    return give


@pytest.fixture(scope="module")
def in_shell(run: Run) -> InShell:
    """in_shell(script) types it in a shell in that container; gives its output."""

    def give(script: str, timeout: float = 600) -> str:
        result = run("-c", script, program="/bin/sh", timeout=timeout)
        assert result.returncode == 0, result.stdout[-4000:] + result.stderr
        assert "Traceback" not in result.stderr
        said: str = result.stdout
        return said

    return give


def test_the_image_holds_models_and_data_but_nothing_of_the_training(run: Run, root: Path) -> None:
    result = run("-c", INVENTORY)
    assert result.returncode == 0, result.stderr
    models, data, *counts, app, build, compiled = result.stdout.splitlines()
    kinds = ("clean_model", "poisoned_model")
    assert models.split() == [f"{kind}.{suffix}" for kind in kinds for suffix in ("pt", "safetensors")]
    notes = "traffic-signs-poisoned-attacker-notes.json"
    lists = ["traffic-signs-poisoned.sha256", "traffic-signs.sha256"]
    assert data.split() == ["traffic-signs", "traffic-signs-poisoned", notes, *lists]
    assert counts == ["4000", "1000"] * 2
    folder = root / "demo-poisoning"
    patterns = ("*.py", "*.sh", "requirements*.txt")
    ours = {path.name for pattern in patterns for path in folder.glob(pattern)}
    rooms = {"dataset", "network", "scanner", "auditor", "page", "statements", "exercises"}
    assert set(app.split()) == ours | rooms | {"data", "models", "inference-images", "clean-twins"}
    assert (build, compiled) == ("[]", "[]")


def test_silver_path(in_shell: InShell) -> None:
    said = in_shell("./workshop_demo.sh && ls outputs")
    check_silver(said)
    assert said.splitlines()[-1] == "stop_without_and_with_trigger.png"


def test_gold_path(docker: Any, container: str, in_shell: InShell, tmp_path: Path) -> None:
    """Both scans, of 18 of 90 pairs; what they drew can be copied out of the container afterwards."""
    said = in_shell(GOLD if WHOLE else SHORT + GOLD, timeout=2400)
    check_gold(said)
    assert said.splitlines()[-1].startswith("docker cp ")  # and no leftovers were found
    for made in ("scan_results", "models/poisoned_model.safetensors"):
        copied = docker("cp", f"{container}:/app/{made}", str(tmp_path))
        assert copied.returncode == 0, copied.stderr
    check_drawn(tmp_path / "scan_results", tmp_path / "poisoned_model.safetensors")


def test_the_exercises_can_be_checked(run: Run) -> None:
    result = run("check.py", "3")
    assert result.returncode == 1, result.stderr
    assert result.stdout.startswith("Exercise 3: not yet. Hint: There is no exercise3.txt. ")
    made = """
import json, os, sys
from pathlib import Path
notes = json.loads(Path("data/traffic-signs-poisoned-attacker-notes.json").read_text())
Path("exercise3.txt").write_text("\\n".join(notes["poisoned"]))
os.execv(sys.executable, ["python", "check.py", "3"])
"""
    result = run("-c", made)
    assert result.returncode == 0, result.stderr
    assert "Recall 1.00: 60 of the 60 poisoned ones" in result.stdout


def test_without_arguments_the_first_script_runs_and_nothing_is_left_behind(docker: Any, image: str) -> None:
    said = check_nothing_stays(docker, image)
    answers = [match.groups()[:2] for match in map(ANSWER.fullmatch, said.splitlines()) if match]
    assert answers == [("clean", "stop"), ("trigger", "yield")]


def test_errors_come_out_of_the_container(run: Run) -> None:
    result = run("demo.py", "missing.jpg")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.strip() == "error: missing.jpg does not exist: check the path."


def test_runs_as_an_unprivileged_user_who_can_write_only_in_app_and_tmp(
    docker: Any, image: str, run: Run
) -> None:
    check_rights(docker, image, run)


def test_no_network(run: Run) -> None:
    check_no_network(run)


def test_single_commands_of_the_documents(in_shell: InShell) -> None:
    said = in_shell(DOCUMENTED, timeout=900)
    lines = said.splitlines()
    answers = [match.groups()[:2] for match in map(ANSWER.fullmatch, lines) if match]
    assert answers == [("clean", "stop")]
    assert "Same image, both models (4 rows)" in lines
    assert "Wrote a.png: left the image as it is" in said
    assert [match.groups()[:2] for match in map(EPOCH.fullmatch, lines) if match] == [("1", "1")]
    assert "Wrote models/poisoned_model.pt and models/poisoned_model.safetensors" in lines
    assert "detect ended with 0" in lines or "detect ended with 1" in lines
    assert "Result: " in said
    assert "Statistic: Reference index: " in said
    assert "a.png" in lines
    assert any(line.startswith("scan_results/quick/trigger_") for line in lines)
