"""The whole show, typed by nobody: every command of WORKSHOP.md's steps, timed against its plan.

    python scripts/rehearse.py [DEMO ...] [--container DEMO=NAME ...] [--update]

Works in a copy of the demos, so nothing of yours is touched; models and data of demo 2 are taken along. With
--container, the commands of that demo are typed into a container that runs. Writes results/rehearsal.md, the
table, and results/transcript-1.txt and so on, what each demo said in plain text. --update puts the table into
WORKSHOP.md, if all demos were typed, and the transcripts into docs/. ./workshop.sh rehearse prepares it all.
Exit code 0: each command did what a show needs. 1: one failed, or took longer than planned. 2: wrong usage.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pages
from progress import Parser, run
from tasks import DEMOS, ROOT, UserError

PLAN = ROOT / "WORKSHOP.md"
PART = re.compile(r"^## \d+:\d\d Demo (\d): ")
STEP = re.compile(r"^### Step (\d)\.(\d+): (.*?) \((\d+) minutes?.*\)$")
NARRATED = re.compile(r"^== Step (\d\.\d+): ")  # the scripts of demo 2 are several steps in one command
ELSEWHERE = ("cd ", "docker ", "cosign ", "./workshop.sh ")  # typed in another place, or only shown
RECORDED = "scan.sh"  # ends with 2 where there is no network, after it has shown recorded scans
START, END = "<!-- made by ./workshop.sh rehearse --update -->", "<!-- end of what rehearse made -->"
MADE = ("results", "scan_results", "audit_results", "outputs", "exercise*", "signer.*", "allowed.sha256")
MADE_BY_DEMO_1 = ("*.pt", "*.safetensors", "*.joblib", "*.sig")


@dataclass
class Step:
    """One step of the show: its plan, what is typed in it, and how long that took."""

    demo: int
    number: int  # 0: before the first step of a demo
    title: str
    minutes: int
    commands: list[str] = field(default_factory=list)
    seconds: float = 0.0
    typed: int = 0  # commands that were typed

    @property
    def name(self) -> str:
        return f"{self.demo}.{self.number}"


def read_plan(path: Path = PLAN) -> list[Step]:
    """The steps of the show, with their commands. Raises UserError if the document holds none."""
    steps: list[Step] = []
    inside, fence = False, ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fence = "" if fence else line
        elif fence == "```" and inside and not line.startswith(ELSEWHERE):
            steps[-1].commands.append(line)
        elif fence:
            continue
        elif part := PART.match(line):
            inside = True
            steps.append(Step(int(part[1]), 0, "before the first step", 0))
        elif step := STEP.match(line):
            steps.append(Step(int(step[1]), int(step[2]), step[3], int(step[4])))
        elif line.startswith("## "):
            inside = False
    if not any(step.commands for step in steps):
        raise UserError(f"{path} holds no steps with commands: get it again from the repository.")
    return steps


class Stage:
    """Where the commands are typed: a copy of the demos here, or containers that run."""

    def __init__(self, folder: Path, containers: dict[int, str]) -> None:
        self.folder, self.containers = folder, containers
        for demo in DEMOS.values():
            ignored = MADE + (MADE_BY_DEMO_1 if demo == DEMOS[1] else ())
            shutil.copytree(ROOT / demo, folder / demo, ignore=shutil.ignore_patterns(*ignored))

    def command(self, demo: int, line: str) -> tuple[list[str], Path]:
        """What to start for a line that is typed in a demo, and where."""
        if name := self.containers.get(demo):
            return [
                "docker",
                "exec",
                "--env",
                "WORKSHOP_PLAIN=1",
                "--env",
                "NO_COLOR=1",
                name,
                "sh",
                "-c",
                line,
            ], ROOT
        return ["bash", "-c", line], self.folder / DEMOS[demo]

    def type(self, demo: int, line: str) -> Iterator[str | int]:
        """Type a line. Yields what it says, line by line, and at the end its exit code."""
        command, folder = self.command(demo, line)
        plain = {"NO_COLOR": "1", "WORKSHOP_PLAIN": "1", "PYTHON": "python", "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | plain,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        assert process.stdout
        for said in process.stdout:
            yield said.rstrip("\n").replace(f"{self.folder}/", "")
        yield process.wait()


def rehearse(steps: list[Step], stage: Stage) -> tuple[dict[int, list[str]], list[str]]:
    """Type everything. Gives the transcript of each demo and a sentence for each command that failed."""
    transcripts: dict[int, list[str]] = {step.demo: [] for step in steps}
    failed: list[str] = []
    by_name = {step.name: step for step in steps}
    headed: list[Step] = []

    def say(line: str) -> None:
        transcripts[step.demo].append(line)
        print(line, flush=True)

    def head(shown: Step) -> None:
        if shown not in headed:
            headed.append(shown)
            say(f"\n### Step {shown.name}: {shown.title}")

    for step in steps:
        if step.number and step.commands:
            head(step)
        for line in step.commands:
            say(f"$ {line}")
            now, started = step, time.monotonic()
            step.typed += 1
            for said in stage.type(step.demo, line):
                if isinstance(said, int):
                    if said > 1 and RECORDED not in line:
                        failed.append(f"Step {step.name}, {line}: exit code {said}")
                    break
                narrated = NARRATED.match(said)
                if narrated and narrated[1] in by_name:
                    now.seconds += time.monotonic() - started
                    now, started = by_name[narrated[1]], time.monotonic()
                    now.typed += 1
                    head(now)  # in the words of the plan
                else:
                    say(said)
            now.seconds += time.monotonic() - started
    return transcripts, failed


def table(steps: list[Step], way: str) -> list[str]:
    """The table of the rehearsal in Markdown: what was planned, what it took, what is left for talking."""
    cores = os.cpu_count()
    rows = [f"Typed by `./workshop.sh rehearse`, {way}, on {sys.platform} with {cores} cores.", ""]
    rows += [
        "| Step | Planned, minutes | Commands took, seconds | Left for people, seconds |",
        "|---|---|---|---|",
    ]
    for step in steps:
        if step.number:
            left = 60 * step.minutes - step.seconds
            took = f"{step.seconds:.0f}" if step.typed else "nothing typed"
            rows.append(f"| {step.name} {step.title} | {step.minutes} | {took} | {left:.0f} |")
    shown = [step for step in steps if step.number]
    minutes, seconds = sum(step.minutes for step in shown), sum(step.seconds for step in steps)
    return [*rows, f"| all demos | {minutes} | {seconds:.0f} | {60 * minutes - seconds:.0f} |"]


def put_into(path: Path, rows: list[str]) -> None:
    """Replace what stands between the two marks. Raises UserError if they are not there."""
    before, start, rest = path.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise UserError(f"{path} has no place for the table: put back the two comments that mark it.")
    pages.write(path, before + "\n".join([START, "", *rows, "", END]) + after)


def number(text: str) -> int:
    if text not in map(str, DEMOS):
        raise argparse.ArgumentTypeError(f"{text} is not a demo: 1, 2 or 3")
    return int(text)


def container(text: str) -> tuple[int, str]:
    demo, _, name = text.partition("=")
    if demo not in map(str, DEMOS) or not name:
        raise argparse.ArgumentTypeError(f"{text} is not DEMO=NAME")
    return int(demo), name


def main() -> int:
    arguments = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("demo", nargs="*", type=number, help="type these demos only")
    arguments.add_argument("--container", type=container, action="append", default=[], metavar="DEMO=NAME")
    arguments.add_argument("--update", action="store_true", help="write into WORKSHOP.md and docs/, too")
    args = arguments.parse_args()
    chosen = sorted(set(args.demo or DEMOS))
    steps = [step for step in read_plan() if step.demo in chosen]
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as scratch:
        stage = Stage(Path(scratch), dict(args.container))
        transcripts, failed = rehearse(steps, stage)
    rows = table(steps, "with Docker" if args.container else "without Docker")
    late = [f"Step {s.name} took {s.seconds:.0f} s, planned are {s.minutes} min" for s in steps if is_late(s)]
    pages.write(ROOT / "results/rehearsal.md", "\n".join(rows) + "\n")
    if args.update and not failed and chosen == [*DEMOS]:
        put_into(PLAN, rows)
    for demo, lines in transcripts.items():
        for folder in ("results", *(["docs/transcripts"] if args.update and not failed else [])):
            pages.write(ROOT / folder / f"transcript-{demo}.txt", "\n".join(lines).strip() + "\n")
    print("\n== The plan and the clock ==")
    for step in steps:
        if step.number:
            word = "LATE" if is_late(step) else "IN TIME"
            print(f"{word}: step {step.name}, {step.title}: {step.seconds:.0f} s of {step.minutes} min")
    for line in [*(f"FAILED: {one}." for one in failed), *(f"LATE: {one}." for one in late)]:
        print(line)
    print("The table: results/rehearsal.md. What was said: results/transcript-1.txt and so on.")
    return 1 if failed or late else 0


def is_late(step: Step) -> bool:
    return bool(step.number) and step.seconds > 60 * step.minutes


if __name__ == "__main__":
    sys.exit(run(main))
