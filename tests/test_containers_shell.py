"""./workshop.sh shell in a real container: the same commands, an editor, work and progress that stay."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parent.parent
Result = subprocess.CompletedProcess[str]


def volumes(docker: Any) -> set[str]:
    return set(docker("volume", "ls", "--quiet", "--filter", "name=^workshop-demo-3-").stdout.split())


@pytest.fixture
def typed(docker: Any, tmp_path: Path) -> Iterator[Callable[[str], Result]]:
    """typed("ls") types into ./workshop.sh shell 3; what it made is removed afterwards."""
    before = volumes(docker)
    (tmp_path / "progress").mkdir()
    env = os.environ | {"WORKSHOP_PROGRESS": str(tmp_path / "progress"), "WORKSHOP_PLAIN": "1"}
    env.pop("WORKSHOP_SHELL", None)

    def one(lines: str) -> Result:
        return subprocess.run(
            [ROOT / "workshop.sh", "shell", "3", "--docker"],
            check=False,
            env=env,
            input=lines,
            capture_output=True,
            text=True,
            timeout=900,
        )

    yield one
    for volume in volumes(docker) - before:
        docker("volume", "rm", volume)


def test_work_and_progress_stay_and_nothing_else_can_be_written(
    typed: Callable[[str], Result], tmp_path: Path
) -> None:
    first = typed(
        "echo CVE-2025-6075 > exercise1.txt\npython check.py 1\nworkshop next\nid -u\nls EXERCISES.md\n"
    )
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Demo 3. You type in a container of the image grype-demo, without network, in /app" in first.stdout
    assert "Noted. What comes now: workshop next" in first.stdout
    assert "Next: exercise 3.2 (more)" in first.stdout
    assert first.stdout.splitlines()[-2:] == ["65532", "EXERCISES.md"]
    assert '"solved", "item": "3.1"' in (tmp_path / "progress/log.jsonl").read_text()
    second = typed("cat exercise1.txt\nnano --version\ntouch /workshop/scripts/x /usr/x\nworkshop status\n")
    assert "CVE-2025-6075" in second.stdout and "DONE: exercise 3.1" in second.stdout
    assert "GNU nano" in second.stdout
    assert second.stderr.count("Read-only file system") == 2
    # from outside, in the same log
    env = os.environ | {"WORKSHOP_PROGRESS": str(tmp_path / "progress")}
    said = subprocess.run(
        [ROOT / "workshop.sh", "status"], check=True, env=env, capture_output=True, text=True
    )
    assert "DONE: exercise 3.1" in said.stdout
    (tmp_path / "progress/log.jsonl").write_text("damaged\n")
    third = typed("python check.py 1; workshop next; echo code $?\n")
    assert "Exercise 1: done." in third.stdout and "Line 1 of /workshop/progress/log.jsonl" in third.stderr
    assert third.stdout.endswith("code 2\n")
    assert (tmp_path / "progress/log.jsonl").read_text().startswith("damaged\n")
