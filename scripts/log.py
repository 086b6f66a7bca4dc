"""What was done, as the log of ./workshop.sh says it. Helper module.

The log is a file of lines; the copies of exercises/record.py in the demos write them, and nothing changes
them. What is true now follows from reading them in order.
"""

from __future__ import annotations

import json
import re
import stat
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from tasks import ROOT, UserError

sys.path.insert(0, str(ROOT / "demo-malicious/exercises"))
import record

EVENTS = {  # and what their item may be
    "shown": r"[123]|pipeline",  # ./workshop.sh run, pipeline
    "opened": r"[123]",  # ./workshop.sh shell
    "solved": r"[123]\.\d",  # python check.py
    "hint": r"[123]\.\d",  # ./workshop.sh hint
    "forgotten": r"[123]|pipeline",  # ./workshop.sh reset
}
KEYS = {"at", "event", "item"}
LARGEST = 1_000_000  # bytes; a whole workshop writes less than 10,000


@dataclass
class State:
    """What is done: dates by item, how many hints were given, and the demo that was used last."""

    shown: dict[str, datetime] = field(default_factory=dict)
    solved: dict[str, datetime] = field(default_factory=dict)
    hints: dict[str, int] = field(default_factory=dict)
    demo: int = 1


def add(event: str, item: str) -> None:
    """Note something. Raises UserError if it cannot be noted."""
    try:
        record.append(folder(), event, item)
    except OSError as error:
        raise UserError(
            f"{path()} cannot be written ({error.strerror}): make it writable; nothing was lost."
        ) from error


def folder() -> Path:
    """The folder that holds the log and what is made from it."""
    return record.folder() or ROOT / "progress"


def path() -> Path:
    """The log."""
    return folder() / record.LOG


def read() -> State:
    """What is true now; nothing done where there is no log. Raises UserError if it is not a whole log."""
    state = State()
    for line in lines():
        at, event, item = line
        if event == "shown":
            state.shown.setdefault(item, at)
        elif event == "solved":
            state.solved.setdefault(item, at)
        elif event == "hint":
            state.hints[item] = state.hints.get(item, 0) + 1
        elif event == "forgotten":
            for known in (state.shown, state.solved, state.hints):
                for key in [key for key in known if key.split(".")[0] == item]:
                    del known[key]
        if item[0].isdigit():
            state.demo = int(item[0])
    return state


def lines() -> list[tuple[datetime, str, str]]:
    """The lines of the log. Raises UserError for the first one that is not a line of ours."""
    log = path()
    try:
        if not log.exists():
            return []
        about = log.lstat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
            raise UserError(f"{log} is not a log of this workshop: move it away; nothing was changed.")
        text = log.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{log} cannot be read as text: repair it or move it away; nothing was changed."
        ) from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found.append(parsed(line))
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(
                f"Line {number} of {log} was not written by this workshop: remove that line, or move the "
                "file away; nothing was changed."
            ) from error
    return found


def parsed(line: str) -> tuple[datetime, str, str]:
    """One line of the log. Raises ValueError or TypeError if it is not one."""
    note = json.loads(line)
    if not isinstance(note, dict) or note.keys() != KEYS or note["event"] not in EVENTS:
        raise ValueError("not a note")
    if not re.fullmatch(EVENTS[note["event"]], note["item"]):
        raise ValueError("no such thing to do")
    return datetime.fromisoformat(note["at"]), note["event"], note["item"]
