"""What does a loader do with a file that may be malicious: load it, refuse it, or run its payload?

Helper module, not a command: make_table.py and controls.py try files that this demo wrote itself.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path


def try_to_load(loader: Callable[[Path], object], path: Path, marker: Path) -> str:
    """What the loader does with the file: loads, refuses, or executes (the marker is there afterwards)."""
    try:
        with warnings.catch_warnings(), no_output():
            warnings.simplefilter("ignore")
            loader(path)
        ending = "loads"
    except Exception:  # the loaders fail in many ways
        ending = "refuses"
    return "executes" if marker.exists() else ending


@contextlib.contextmanager
def no_output() -> Iterator[None]:
    """Send what a payload prints to nowhere: it is a process of its own, so sys.stdout is not enough."""
    sys.stdout.flush()
    before = os.dup(1)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)
