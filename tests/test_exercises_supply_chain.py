"""The exercises of demo 3: not done as shipped, done with the solutions that EXERCISES.md shows."""
# ruff: noqa: F811, F401 (fixtures are imported, and then named as arguments)

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
from scan_helpers import DEMO, Result, typed  # isort: skip


def load_check() -> ModuleType:
    """check.py of this demo: the others have one of the same name."""
    spec = importlib.util.spec_from_file_location("check_supply_chain", DEMO / "check.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = load_check()
TEXT = (DEMO / "EXERCISES.md").read_text(encoding="utf-8")
PARTS = [part.rsplit("</details>", 1)[0] for part in re.split(r"^## \d\. ", TEXT, flags=re.MULTILINE)[1:]]


def commands(text: str) -> list[str]:
    """The lines of the code blocks."""
    blocks = re.findall(r"^```\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture
def run(typed: Callable[..., Result], tmp_path: Path) -> Callable[[str], Result]:
    """run("python check.py 1") types a line in tmp_path, which has what the exercises start with."""
    for name in ("recorded", "practice", "vex"):
        shutil.copytree(DEMO / name, tmp_path / name)

    def one(line: str) -> Result:
        words = shlex.split(line)
        if words[0] == "python" and words[1].endswith(".py"):
            module = (
                check if words[1] == "check.py" else importlib.import_module(words[1].removesuffix(".py"))
            )
            return typed(module, *words[2:])
        line = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", line)
        return subprocess.run(["bash", "-c", line], cwd=tmp_path, check=False, capture_output=True, text=True)

    return one


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_not_done_as_shipped_and_done_with_the_solution(number: int, run: Callable[[str], Result]) -> None:
    task, solution = PARTS[number - 1].split("<details>", 1)
    result = run(f"python check.py {number}")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.startswith(f"Exercise {number}: not yet. Hint: ")
    for line in commands(task):
        result = run(line)
        assert "check.py" in line or result.returncode == 0, (line, result.stdout, result.stderr)
    assert result.stdout.startswith(
        f"Exercise {number}: not yet. Hint: "
    )  # what is given is not yet the solution
    for line in commands(solution):
        result = run(line)
        assert result.returncode == 0 or "verify_chain.py" in line, (line, result.stdout, result.stderr)
    assert result.stdout.startswith(f"Exercise {number}: done. ")


def test_all_at_once_and_starting_again(run: Callable[[str], Result], tmp_path: Path) -> None:
    assert len(PARTS) == len(check.EXERCISES) == TEXT.count("<summary>Solution</summary>")
    before = sorted(tmp_path.iterdir())
    result = run("python check.py")
    assert (result.returncode, result.stdout.count("not yet")) == (1, 4)
    for name in ("exercise1.txt", "exercise2.openvex.json"):
        (tmp_path / name).write_text("x")
    (tmp_path / "exercise3").mkdir()
    (line,) = commands(TEXT.split("## Start again")[1])
    assert run(line).returncode == 0
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("text", ["", "CVE-2025-8869", "CVE-2025-6075 CVE-2025-8869", "\x00"])
def test_a_wrong_name_is_not_done(text: str, run: Callable[[str], Result], tmp_path: Path) -> None:
    (tmp_path / "exercise1.txt").write_text(text)
    assert run("python check.py 1").returncode == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "fixed"},
        {"justification": "it is fine"},
        {"impact_statement": "fine"},
        {"products": [{"@id": "pkg:apk/alpine/musl@1.2.5"}]},
        {"products": []},
        {"vulnerability": {"name": "CVE-1999-0001"}},
        {"vulnerability": 3},
    ],
)
def test_a_weak_vex_statement_is_not_done(
    changes: dict[str, object], run: Callable[[str], Result], tmp_path: Path
) -> None:
    good = {
        "vulnerability": {"name": "CVE-2025-46394"},
        "products": [{"@id": "pkg:apk/alpine/busybox@1.37.0-r19?arch=x86_64"}],
        "status": "not_affected",
        "justification": "vulnerable_code_not_in_execute_path",
        "impact_statement": "Nobody unpacks an archive with this image's tar.",
    }
    for statement, code in ((good, 0), ({**good, **changes}, 1)):
        document = {"@context": "https://openvex.dev/ns/v0.2.0", "statements": [statement]}
        (tmp_path / "exercise2.openvex.json").write_text(json.dumps(document))
        assert run("python check.py 2").returncode == code
    (tmp_path / "exercise2.openvex.json").write_text("{")
    assert run("python check.py 2").returncode == 2


def test_a_list_that_the_attacker_signs_anew_is_no_solution(run: Callable[[str], Result]) -> None:
    task, solution = PARTS[2].split("<details>", 1)
    for line in (*commands(task), *commands(solution)[:2]):
        run(line)
    run("python attest.py list exercise3/mlbom.cdx.json --keys exercise3/keys")
    result = run("python check.py 3")
    assert result.returncode == 1 and "you do not have the key" in result.stdout


def test_two_broken_links_are_one_too_many(run: Callable[[str], Result], tmp_path: Path) -> None:
    task, solution = PARTS[3].split("<details>", 1)
    for line in (*commands(task), *commands(solution)[:2]):
        run(line)
    (tmp_path / "exercise4_broken" / "data.sha256.audit.dsse.json").unlink()
    result = run("python check.py 4")
    assert (
        result.returncode == 1
        and "these links are broken: audit, scan; it must be 1 of them" in result.stdout
    )
