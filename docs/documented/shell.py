"""Helper module, not a command: a bash that types documented commands in a copy of the repository."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from documented.blocks import ROOT
from documented.records import Said

# how far a command is; that a server has ended
NOT_SAID = re.compile(
    r"[A-Za-z][^:=]*: \d+ percent|bash: line \d+: +\d+ Terminated"
)  # how far it is; a server ends


class Shell:
    """One bash in a folder: what is typed there goes on with the same variables, folder and processes."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.root = root
        self.tools = Path(tempfile.mkdtemp(prefix="samples-"))
        for name in ("python", "python3"):
            (self.tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
            (self.tools / name).chmod(0o755)
        env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "WORKSHOP_PLAIN")}
        env |= {
            "DOCKER_HOST": "unix:///nowhere",  # the way without Docker, and nobody's images are touched
            "PATH": f"{self.tools}{os.pathsep}{env['PATH']}",
            "PYTHON": "python",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONIOENCODING": "utf-8",
            "COLUMNS": "80",
            "WORKSHOP_PROGRESS": str(self.tools / "progress"),
        }
        self.process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def type(self, command: str, timeout: float = 1800) -> Said:
        """Type one command. Raises TimeoutError if it does not end."""
        assert self.process.stdin and self.process.stdout
        # a server says things at any time: not in the record
        where = ">/dev/null 2>&1" if command.endswith("&") else ""
        quoted = command.replace("'", "'\\''")
        self.process.stdin.write(f"eval '{quoted}' </dev/null {where}\nprintf '\\n@@ended %s\\n' $?\n")
        self.process.stdin.flush()
        timer = threading.Timer(timeout, self.close)
        timer.start()
        lines: list[str] = []
        try:
            for line in self.process.stdout:
                if line.startswith("@@ended "):
                    output = "".join(lines).strip("\n").replace(f"{self.root}/", "")
                    return Said(output, int(line.split()[1]))
                if not NOT_SAID.match(line):
                    lines.append(line)
        finally:
            timer.cancel()
        raise TimeoutError(f"{command} did not end within {timeout:.0f} seconds: {''.join(lines)}")

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        shutil.rmtree(self.tools, ignore_errors=True)


def fresh_copy(to: Path) -> Path:
    """The files of the repository, without what the demos have made here."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    return to
