"""A copy of workshop.sh and a PATH of our making: what the tests of workshop.sh run it in.

The PATH holds nothing but common tools and the fakes that a test puts there; they write what they were asked
into a log.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

Result = subprocess.CompletedProcess[str]

TOOLS = (
    "awk bash cat chmod cksum cmp cp cut df dirname du env find git grep id ls mkdir mktemp mv rm rmdir sed "
    "sh sleep sort tail tee touch tr uname"
)

# A Python that "installs" at once; the question of workshop.sh which Python it is goes to the real one.
FAKE_PYTHON = """#!/bin/sh
echo "python $*" >>"$LOG"
case "$1 $2" in
    "-c "*urllib*) exit "${FAKE_INDEX:-1}" ;;
    "-c import torch") exit 0 ;;
    "-c "*) exec "REAL" "$@" ;;
    "-B "*scripts/*) exec "REAL" "$@" ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip") exit "${FAKE_PIP:-0}" ;;
    inspect_model.py*) exit "${FAKE_INSPECT:-1}" ;;
    "safe_demo.py load") exit "${FAKE_SAFE_DEMO:-0}" ;;
    "safe_demo.py convert" | "sign_model.py verify" | "serve.py --model") exit 1 ;;
esac
"""

# A Docker engine that keeps the label of a built image in a file, so that a second build can be spared.
FAKE_DOCKER = """#!/bin/sh
echo "docker $*" >>"$LOG"
case "$1" in
    info) exit "${FAKE_ENGINE:-0}" ;;
    build)
        [ "$2" != --help ] || exit "${FAKE_BUILDX:-0}"
        [ -z "${FAKE_BUILD:-}" ] || exit "$FAKE_BUILD"
        for word in "$@"; do
            case $word in workshop.sources=*) echo "${word#*=}" >"$STORE/$3" ;; esac
        done ;;
    image)
        case "$2 $4" in
            "inspect "*Size*) echo 123000000 ;;
            "inspect "*) eval "name=\\$$#"; cat "$STORE/$name" 2>/dev/null ;;
            "rm "*) eval "name=\\$$#"; rm "$STORE/$name" ;;
        esac ;;
    run) echo container-1 ;;
    exec)
        case "$*" in
            *inspect_model.py*) exit 1 ;;
            *"safe_demo.py load"*) exit "${FAKE_SAFE_DEMO:-0}" ;;
            *"safe_demo.py convert"* | *"sign_model.py verify"* | *"serve.py --model"*) exit 1 ;;
        esac ;;
    cp)
        eval "to=\\$$#"
        for model in clean poisoned; do
            mkdir -p "$to/scan_results/$model" && echo png >"$to/scan_results/$model/trigger_0_to_1.png"
        done
        echo html >"$to/report.html" ;;
esac
"""

POISONING = {
    "prepare.sh": "mkdir -p models && touch models/clean_model.pt models/poisoned_model.pt",
    "workshop_demo.sh": "$PYTHON --version >/dev/null",
    "gold_demo.sh": """for model in clean poisoned; do
        mkdir -p scan_results/$model && echo png >scan_results/$model/trigger_0_to_1.png; done
        echo html >report.html""",
}


class Bench:
    """A copy of workshop.sh in a folder of its own, with a PATH of our making."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.home, self.bin, self.log = folder / "workshop", folder / "bin", folder / "log"
        (folder / "images").mkdir()
        self.bin.mkdir()
        self.home.mkdir()
        self.log.touch()
        for tool in TOOLS.split():
            (self.bin / tool).symlink_to(shutil.which(tool) or pytest.fail(f"no {tool} on this machine"))
        shutil.copy(root / "workshop.sh", self.home)
        shutil.copytree(root / "scripts", self.home / "scripts")
        for demo in ("demo-malicious", "demo-poisoning", "demo-supply-chain"):
            (self.home / demo).mkdir()
            (self.home / demo / "Dockerfile").write_text("FROM scratch\nCOPY *.py ./\n")
            shutil.copy(root / demo / "EXERCISES.md", self.home / demo)
        shutil.copytree(root / "demo-malicious/exercises", self.home / "demo-malicious/exercises")
        (self.home / "demo-malicious/requirements.txt").write_text("rich==1\n")
        (self.home / "demo-malicious/requirements-torch.txt").write_text("torch==1\n")
        (self.home / "requirements-dev.txt").write_text("pytest==1\n")
        for name, body in POISONING.items():
            self.script(f"demo-poisoning/{name}", body)
        self.script("demo-malicious/run_sandboxed.sh", "exit 1")
        self.script("demo-supply-chain/scan.sh", 'exit "${FAKE_SCAN:-0}"')
        self.script("demo-supply-chain/gold_demo.sh", "")

    def script(self, path: str, body: str) -> None:
        """A demo's script that logs its name and then does `body`."""
        self.executable(self.home / path, f'#!/bin/bash\necho "script {path}" >>"$LOG"\n{body}\n')

    def executable(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def python(self, name: str = "python3") -> None:
        self.executable(self.bin / name, FAKE_PYTHON.replace("REAL", sys.executable))

    def docker(self) -> None:
        self.executable(self.bin / "docker", FAKE_DOCKER)

    def environment(self, **env: str) -> dict[str, str]:
        fixed = {"PATH": str(self.bin), "LOG": str(self.log), "STORE": str(self.log.parent / "images")}
        return fixed | {"HOME": str(self.home), "LANG": os.environ.get("LANG", "C.UTF-8")} | env

    def __call__(self, *args: str, cwd: Path | None = None, **env: str) -> Result:
        """Run ./workshop.sh with these arguments, without a terminal."""
        return subprocess.run(
            [str(self.home / "workshop.sh"), *args],
            check=False,
            cwd=cwd or self.home,
            env=self.environment(**env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def logged(self) -> str:
        """What the fakes were asked since the last look."""
        text = self.log.read_text()
        self.log.write_text("")
        return text


def files(folder: Path) -> set[str]:
    """Every file below a folder but git's own, as paths from the folder."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts}
