"""Files and folders that may not be read: one sentence, exit code 2, and no verdict on what was not read."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import inspect_model
import policy
import safe_demo
import serve
import sign_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
NOBODY = 65534
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything, so for a while root is somebody else."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture(params=["file", "folder in it", "list of the folder in it", "folder"])
def model(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder with a model, of which something may not be read, and its signature."""
    with tempfile.TemporaryDirectory() as name:  # not pytest's own, which belongs to root
        place = Path(name)
        place.chmod(0o777)
        folder = place / "model"
        (folder / "sub").mkdir(parents=True)
        for path in (folder / "a.pkl", folder / "sub" / "b.pkl"):
            path.write_bytes(pickle.dumps({"epoch": 3}))
        sign_model.keygen(place / "k.key", place / "k.pub")
        (place / "k.key").chmod(0o644)
        sign_model.sign(folder, place / "k.key")
        closed, mode = {
            "file": (folder / "a.pkl", 0),
            "folder in it": (folder / "sub", 0),
            "list of the folder in it": (folder / "sub", 0o444),
            "folder": (folder, 0),
        }[request.param]
        closed.chmod(mode)
        yield folder
        closed.chmod(0o755)


def lines(folder: Path) -> list[tuple[Any, ...]]:
    """What is typed: none of these may end well."""
    key, public = folder.with_name("k.key"), folder.with_name("k.pub")
    return [
        (inspect_model, folder),
        (inspect_model, folder, "--skip-unknown"),
        (policy, "check", folder, "--policy", Path(str(policy.__file__)).with_name("policy.toml")),
        (sign_model, "sign", folder, "--key", key, "--signature", folder.with_name("new.sig")),
        (sign_model, "verify", folder, "--public", public),
        (safe_demo, "convert", folder / "a.pkl", folder.with_name("out.safetensors")),
    ]


def test_what_cannot_be_read_gets_no_verdict(model: Path, run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"epoch": 3}))
    run_main(inspect_model, tmp_path / "a.pkl")  # what is imported late may not be readable for nobody
    for line in lines(model):
        with as_nobody():
            result = run_main(*line)
        said = result.stdout + result.stderr
        assert result.returncode == 2, (line, said)
        assert "Traceback" not in said
        assert "VERIFIED" not in said
    assert sorted(path.name for path in model.parent.iterdir()) == ["k.key", "k.pub", "model", "model.sig"]


def test_the_server_takes_no_part_of_a_folder(model: Path) -> None:
    with (
        as_nobody(),
        pytest.raises(serve.Refused, match="cannot be read"),
        serve.copy_of(model.parent, model.name, None),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have shorter paths")
def test_the_server_refuses_folders_in_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1000):
        Path("a").mkdir()
        monkeypatch.chdir("a")
    Path("model.txt").write_text("hello")
    monkeypatch.chdir(tmp_path)
    try:
        with (
            pytest.raises(serve.Refused, match="50 folders in each other"),
            serve.copy_of(tmp_path, "a", None),
        ):
            pass
    finally:  # pytest cannot take it away
        subprocess.run(["rm", "-r", tmp_path / "a"], check=True)
