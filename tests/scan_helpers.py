"""What the tests of demo 3 share: its folder on the import path, and its commands called in this process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo-supply-chain"
sys.path.append(str(DEMO))

Result = subprocess.CompletedProcess[str]


@pytest.fixture
def typed(run_main: Callable[..., Result]) -> Callable[..., Result]:
    """typed(compare, "a.json", "b.json") is like typing it in tmp_path: run_main, for demo 3's commands."""
    return run_main


def errors(result: Result) -> list[str]:
    """The lines on stderr that are errors; the others tell about progress."""
    assert "Traceback" not in result.stderr, result.stderr
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


def row(result: Result, image: str) -> dict[str, str]:
    """The table row of an image, in the plain layout."""
    (line,) = [line for line in result.stdout.splitlines() if line.startswith(f"- image: {image};")]
    return dict(part.split(": ", 1) for part in line.removeprefix("- ").split("; "))
