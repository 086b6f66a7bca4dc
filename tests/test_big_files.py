"""benchmarks/big_files.py in small: every command that it times really runs, and its ratios are right."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import big_files

import cli

Run = Callable[..., "subprocess.CompletedProcess[str]"]
COMMANDS = ["inspect, start", "inspect", "picklescan, start", "picklescan", "convert", "plain convert"]


def test_every_command_runs(tmp_path: Path) -> None:
    """Once, on 4 MB. How long it takes is not tested: that is what the benchmark is for."""
    best = big_files.measure(tmp_path, megabytes=4, repeat=1)
    assert list(best) == COMMANDS
    assert all(seconds > 0 and 5 < memory < 4000 for seconds, memory in best.values()), best
    assert (tmp_path / "large.pt").stat().st_size == pytest.approx(4_000_000, rel=0.05)
    assert len(load_file(tmp_path / "out.safetensors")) == big_files.TENSORS
    with pytest.raises(cli.UserError, match="-c failed"):
        big_files.run(["-c", "import sys; sys.exit(3)"])


@pytest.mark.parametrize(
    ("changed", "code", "line"),
    [
        ({}, 0, "- what: convert, time; ratio: 1.25; limit: 1.5"),
        ({"convert": (6.1, 1000)}, 1, "- what: convert, time; ratio: 1.52; limit: 1.5"),
        ({"convert": (5.0, 1300)}, 1, "- what: convert, memory; ratio: 1.30; limit: 1.2"),
        # start-up does not count: 3 seconds for the file itself, where twice 0.5 and 1 are allowed
        ({"inspect": (6.0, 300)}, 1, "ratio: 1.50; limit: 1.0"),
        ({"inspect": (2.0, 300)}, 0, "ratio: 0.00; limit: 1.0"),
    ],
)
def test_the_ratios(
    run_main: Run,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, tuple[float, int]],
    code: int,
    line: str,
) -> None:
    best = {
        "inspect, start": (3.0, 300), "inspect": (4.0, 300), "picklescan, start": (0.5, 50),
        "picklescan": (1.0, 50), "convert": (5.0, 1000), "plain convert": (4.0, 1000),
    } | changed  # fmt: skip
    monkeypatch.setattr(big_files, "measure", lambda *_: best)
    result = run_main(big_files, "--megabytes", "7")
    assert result.returncode == code, result
    assert "A file of 7 MB (6 rows)" in result.stdout
    assert line in result.stdout
