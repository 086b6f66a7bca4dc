"""cli.py, of which both Python demos carry a copy: progress, places to write to, odd output."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import cli


def test_long_work_says_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """100 parts of 20 seconds: a line at least each 40 seconds, with the time left."""
    now = 0.0

    def parts() -> Iterator[int]:
        nonlocal now
        for number in range(100):
            now += 20
            yield number

    monkeypatch.setattr(cli.time, "monotonic", lambda: now)
    assert list(cli.Out(plain=True).progress(parts(), 100, "Searching")) == list(range(100))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Searching: 2 percent, about 1960 seconds left"
    assert lines[-1] == "Searching: 100 percent"
    assert 50 <= len(lines) <= 54


def test_short_work_says_little(capsys: pytest.CaptureFixture[str]) -> None:
    list(cli.Out(plain=True).progress(range(8), 8, "Searching"))
    assert capsys.readouterr().err.splitlines() == [
        f"Searching: {share} percent" for share in (25, 50, 75, 100)
    ]


def test_checking_a_place_leaves_no_folder(tmp_path: Path) -> None:
    cli.check_place(tmp_path / "one/two/three/scan.json")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_asks_for_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But what was wrong before that is still said."""

    def full(**_: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(cli.tempfile, "mkdtemp", full)
        with pytest.raises(cli.UserError, match=r"No space left on device\): free some space there\."):
            cli.check_place(tmp_path / "model.pt")
    monkeypatch.setattr(cli.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(cli.UserError, match="another mistake"), cli.atomic_write(tmp_path / "model.pt"):
        raise cli.UserError("another mistake")


def test_a_place_that_another_program_uses_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two repairs side by side may make the same new folder."""

    @contextlib.contextmanager
    def busy(path: Path) -> Iterator[Path]:
        path.parent.mkdir(parents=True)
        (path.parent / "other.pt").touch()
        yield path.parent

    monkeypatch.setattr(cli, "_scratch", busy)
    cli.check_place(tmp_path / "one/two/scan.json")
    assert [path.name for path in (tmp_path / "one/two").iterdir()] == ["other.pt"]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_names_that_are_not_utf_8_are_printed_as_escapes(
    monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, stream, io.TextIOWrapper(written, encoding="utf-8"))

    def main() -> int:
        if stream == "stderr":
            raise cli.UserError("a\udcff.pt does not exist.")
        print("Wrote a\udcff.pt")
        return 0

    with pytest.raises(SystemExit) as ending:
        cli.run(main)
    getattr(sys, stream).flush()
    assert ending.value.code == (2 if stream == "stderr" else 0)
    assert b"a\\udcff.pt" in written.getvalue()


def test_the_help_says_each_default_once_and_no_empty_one() -> None:
    parser = cli.parser("What it does.")
    parser.add_argument("--steps", default=100, help="steps of the search")
    parser.add_argument("--data", help="folder (default: that of the scan)")
    parser.add_argument("--allow", default=[], help="let this name in")
    said = parser.format_help()
    assert "steps of the search (default: 100)" in said and "logs (default: False)" in " ".join(said.split())
    assert said.count("default: that of the scan") == 1
    assert "None" not in said and "[])" not in said
