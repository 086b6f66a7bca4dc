"""What test_cluster.py gives to workers: they import it by name."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import cli


def square(number: int) -> dict[str, Any]:
    return {"number": number, "square": number * number, "process": os.getpid()}


def die_once(job: tuple[str, int]) -> dict[str, Any]:
    """End the whole worker process the first time that number 3 comes, as the system does without memory."""
    folder, number = job
    if number == 3 and not (Path(folder) / "died").exists():
        (Path(folder) / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def always_die(number: int) -> dict[str, Any]:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def refuse_odd(number: int) -> dict[str, Any]:
    if number % 2:
        raise cli.UserError(f"{number} is odd: choose another.")
    return square(number)
