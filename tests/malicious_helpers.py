"""What the tests of demo 1 share: commands typed in this process, because importing PyTorch takes seconds."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from unittest import mock

import pytest
import torch

from weights import safe_loading, shapes, writing

Result = subprocess.CompletedProcess[str]
DEMO = Path(__file__).resolve().parent.parent / "demo-malicious"


def text(result: Result) -> str:
    """All that a command said."""
    return result.stdout + result.stderr


def type_here(line: list[str], folder: Path) -> Result:
    """type_here(["inspect_model.py", "a.pt"], FOLDER): as `python inspect_model.py a.pt` typed in FOLDER.

    For fixtures that outlive a test; a test itself has run_main. What a payload's shell prints is kept, too.
    """
    script = importlib.import_module(Path(line[0]).stem)
    assert Path(str(script.__file__)).parent == DEMO, script
    before = Path.cwd(), signal.getsignal(signal.SIGTERM)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with written_to(out, 1, "stdout"), written_to(err, 2, "stderr"), mock.patch("sys.argv", line):
            os.chdir(folder)
            try:
                script.cli.run(script.main)
            except SystemExit as ending:
                code = int(ending.code or 0)
            finally:
                os.chdir(before[0])
                signal.signal(signal.SIGTERM, before[1])
        for stream in (out, err):
            stream.seek(0)
        return Result(line, code, out.read().decode(), err.read().decode())


@contextmanager
def trained_once(factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let shapes.train really train once in a session, and give its model from then on: it takes seconds.

    The workers of pytest-xdist share the model; each has a folder of its own in that of the session.
    """
    base = factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trained.safetensors"
    train = shapes.train

    def once(progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> torch.nn.Module:
        if not place.exists():
            writing.save_safetensors(dict(train(progress).state_dict()), place)
        else:
            for _ in progress(range(shapes.EPOCHS * shapes.TRAIN_IMAGES // shapes.BATCH)):
                pass
        return shapes.network(safe_loading.load_safetensors(place), place).eval()

    with mock.patch.object(shapes, "train", once):
        yield


@contextmanager
def written_to(file: IO[bytes], number: int, name: str) -> Iterator[None]:
    """Send a standard stream to a file: Python's object, and the descriptor that child processes inherit."""
    getattr(sys, name).flush()
    kept = os.dup(number)
    os.dup2(file.fileno(), number)
    try:
        with os.fdopen(os.dup(number), "w", encoding="utf-8") as stream, mock.patch.object(sys, name, stream):
            yield
    finally:
        os.dup2(kept, number)
        os.close(kept)
