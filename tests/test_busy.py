"""The benchmark of busy machines: it runs what it says, alone and beside others, and keeps the rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import busy


def test_the_others_run_only_as_long_as_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen):
        def __init__(self, command: list[str]) -> None:
            super().__init__(command)
            started.append(self)

    monkeypatch.setattr(busy.subprocess, "Popen", Recorded)
    with busy.busy(2):
        assert [one.poll() for one in started] == [None, None]
    assert all(one.returncode is not None for one in started)


def test_each_command_is_measured_alone_and_beside_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [0]

    class Counted:
        def __init__(self, count: int) -> None:
            self.count = count

        def __enter__(self) -> None:
            others[0] = self.count

        def __exit__(self, *_: object) -> None:
            others[0] = 0

    asked: list[tuple[str, int]] = []

    def seconds(command: list[str]) -> float:
        asked.append((command[0], others[0]))
        return 10.0 + 5 * others[0]

    monkeypatch.setattr(busy, "busy", Counted)
    monkeypatch.setattr(busy, "seconds", seconds)
    monkeypatch.setattr(
        sys, "argv", ["busy.py", "--plain", "--repeat", "2", "--rows", str(tmp_path / "rows.jsonl")]
    )
    assert busy.main() == 0
    names = ["detect.py", "audit_data.py", "train.py", "monitor.py"]
    assert asked == [(name, count) for name in names for _ in range(2) for count in (0, 2)]
    assert all((busy.DEMO / name).is_file() for name in names)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["seconds"] for row in rows] == [10, 20] * 8
    assert capsys.readouterr().out.count("ratio: 2.0") == 4


def test_a_command_that_fails_is_named() -> None:
    with pytest.raises(busy.cli.UserError, match=r"detect\.py failed: error: missing\.pt"):
        busy.seconds(["detect.py", "--model", "missing.pt"])
