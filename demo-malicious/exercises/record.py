"""Note a solved exercise, so that ./workshop.sh next and status know it. Helper module, not a command.

A note is one line of JSON at the end of log.jsonl. The file lies in the folder that WORKSHOP_PROGRESS names,
else in progress/ of the checkout around this demo. Lines are only added, never changed, so two containers can
write at the same time and a damaged file loses nothing. All three demos carry the same copy of this file.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

LOG = "log.jsonl"


def folder() -> Path | None:
    """Where progress is kept; None where it cannot be: in a container that was started without it."""
    if named := os.environ.get("WORKSHOP_PROGRESS"):
        return Path(named)
    checkout = Path(__file__).resolve().parents[2]
    return checkout / "progress" if (checkout / "workshop.sh").is_file() else None


def append(folder: Path, event: str, item: str) -> None:
    """Add a line to the log, which is made if needed. Raises OSError if it cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    # not through a link, and not waiting for whoever reads a pipe
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    file = os.open(folder / LOG, flags, 0o664)
    try:
        with suppress(OSError):  # some shared folders know no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(0, "not a file", str(folder / LOG))
        if about.st_uid == os.geteuid():
            os.fchmod(file, 0o664)  # the other side of a container is another user of the same group
        torn = about.st_size > 0 and os.pread(file, 1, about.st_size - 1) != b"\n"
        note = {"at": datetime.now(timezone.utc).isoformat(timespec="seconds"), "event": event, "item": item}
        os.write(file, (b"\n" if torn else b"") + json.dumps(note).encode() + b"\n")
    finally:
        os.close(file)


def solved(demo: int, exercise: int) -> str:
    """Note that an exercise is solved. Gives the sentence that says whether it is noted, and what to type."""
    place = folder()
    if place is None:
        return f"Not noted, because nothing is kept here: ./workshop.sh shell {demo} opens a place that does."
    try:
        append(place, "solved", f"{demo}.{exercise}")
    except OSError as error:
        return f"Not noted: {place / LOG} cannot be written ({error.strerror})."
    command = "workshop next" if os.environ.get("WORKSHOP_SHELL") else "./workshop.sh next"
    return f"Noted. What comes now: {command}"
