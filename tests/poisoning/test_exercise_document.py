"""EXERCISES.md of demo 2: its folded solutions, up to what takes no training."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

import trigger
from poisoning_tools import FOLDER, check_module, folded_solutions

check = check_module()


@pytest.fixture(scope="module")
def document() -> str:
    return (FOLDER / "EXERCISES.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def solutions() -> list[list[str]]:
    folded = folded_solutions()
    assert len(folded) == len(check.EXERCISES)
    return folded


def test_each_exercise_has_its_check(document: str, solutions: list[list[str]]) -> None:
    parts = re.split(r"^## ", document, flags=re.M)[1:]
    assert [part[0] for part in parts[:4]] == list(map(str, check.EXERCISES))
    for number, (part, commands) in enumerate(zip(parts, solutions), 1):
        last = f"python check.py {number}"
        assert f"```\n{last}\n```" in part
        assert commands[-1] == last
        assert "python" not in part.split("<details>")[0].replace("python audit_data.py --help", "").replace(
            last, ""
        )
        changes = sum(line.startswith("sed ") for line in commands)
        assert changes <= (number in (1, 4))  # a second -i.bak would lose the shipped file
    for command in ("mv trigger.py.bak trigger.py", "git checkout trigger.py"):
        assert command in document


def test_the_commands_of_the_solutions_parse(
    solutions: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every option is known, and every script is there: argparse reads each line up to an added --help."""
    lines = [line for commands in solutions for line in commands]
    assert all(line.startswith(("python ", "sed -i.bak ", "grep ")) for line in lines)
    for line in lines:
        words = shlex.split(line)
        if words[0] != "python":
            continue
        module = check if words[1] == "check.py" else importlib.import_module(words[1].removesuffix(".py"))
        monkeypatch.setattr("sys.argv", [*words[1:], "--help"])
        with pytest.raises(SystemExit) as ending:
            module.main()
        assert ending.value.code == 0, line


def test_the_changes_of_the_solutions_work(solutions: list[list[str]], tmp_path: Path) -> None:
    """Each sed changes one or two lines of the shipped trigger.py, and what it stamps."""
    for commands in solutions:
        for line in (one for one in commands if one.startswith("sed ")):
            shutil.copy(FOLDER / "trigger.py", tmp_path)
            before = (tmp_path / "trigger.py").read_text().splitlines()
            subprocess.run(shlex.split(line), check=True, cwd=tmp_path, timeout=10)
            after = (tmp_path / "trigger.py").read_text().splitlines()
            assert len(before) == len(after)
            assert sum(one != two for one, two in zip(before, after)) in (1, 2)
            assert (tmp_path / "trigger.py.bak").read_text().splitlines() == before
            spec = importlib.util.spec_from_file_location("changed_trigger", tmp_path / "trigger.py")
            assert spec is not None
            assert spec.loader is not None
            changed = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(changed)
            blue = Image.new("RGB", (128, 128), "blue")
            stamped = changed.stamp(blue)
            assert (stamped.mode, stamped.size) == ("RGB", (128, 128))
            assert stamped.tobytes() not in (blue.tobytes(), trigger.stamp(blue).tobytes())
