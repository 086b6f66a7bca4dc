"""What the tests of demo 3 share: its folder on the import path, and its commands called in this process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo-supply-chain"
sys.path.append(str(DEMO))
import console  # noqa: E402

Result = subprocess.CompletedProcess[str]


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Result]]:
    """typed(compare, "a.json", "b.json") is like typing it in tmp_path, in this process: that is faster."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)

    def run(command: ModuleType, *args: object) -> Result:
        monkeypatch.setattr("sys.argv", [f"{command.__name__}.py", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ending:
            console.run(command.main)
        said = capfd.readouterr()
        code = ending.value.code
        assert isinstance(code, int)
        return Result([command.__name__], code, said.out, said.err)

    yield run
    signal.signal(signal.SIGTERM, before)


def errors(result: Result) -> list[str]:
    """The lines on stderr that are errors; the others tell about progress."""
    assert "Traceback" not in result.stderr, result.stderr
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


def row(result: Result, image: str) -> dict[str, str]:
    """The table row of an image, in the plain layout."""
    (line,) = [line for line in result.stdout.splitlines() if line.startswith(f"- image: {image};")]
    return dict(part.split(": ", 1) for part in line.removeprefix("- ").split("; "))
