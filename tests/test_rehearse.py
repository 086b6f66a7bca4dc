"""./workshop.sh rehearse: it types what WORKSHOP.md says, and times it; here with commands that are quick."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from malicious_helpers import type_here

ROOT = Path(__file__).resolve().parent.parent
DEMOS = ("demo-malicious", "demo-poisoning", "demo-supply-chain")
Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]

PLAN = """
# For instructors

<!-- made by ./workshop.sh rehearse --update -->
old
<!-- end of what rehearse made -->

## 0:00 Welcome (5 minutes)

```
echo not in a demo
```

## 0:17 Demo 1: a model file (25 minutes)

```
cd demo-malicious
docker run --rm -it --entrypoint /bin/sh pickle-demo
```

### Step 1.1: write (2 minutes, 2 seconds)

```
ls cli.py; echo made >model.pt
```

```text
sample output, not typed
```

### Step 1.2: load (1 minute)

```
test -s model.pt && exit 1
```

## 0:42 Demo 2: a lie (30 minutes)

```
PAUSE=1 ./narrated.sh
```

### Step 2.1: poison (3 minutes)

### Step 2.2: look (4 minutes)

```
docker cp x y
```

## 1:37 Closing (20 minutes)

```
echo not in a demo
```
"""
NARRATED = """#!/bin/sh
read -r line; echo "read: $line"
for n in 1 2; do echo; echo "== Step 2.$n: part $n =="; done
"""


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """A workshop with this plan, and demos that hold almost nothing."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copytree(ROOT / "demo-malicious/exercises", tmp_path / "demo-malicious/exercises")
    for demo in DEMOS:
        (tmp_path / demo).mkdir(exist_ok=True)
        (tmp_path / demo / "cli.py").touch()
    (tmp_path / "demo-malicious/model.pt").touch()  # somebody's own: stays, and is not taken along
    (tmp_path / "demo-poisoning/narrated.sh").write_text(NARRATED)
    (tmp_path / "demo-poisoning/narrated.sh").chmod(0o755)
    (tmp_path / "WORKSHOP.md").write_text(PLAN)
    return tmp_path


def rehearse(workshop: Path, *args: str) -> Result:
    command = [sys.executable, "-B", str(workshop / "scripts/rehearse.py"), *args]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=workshop)


def test_every_step_is_typed_and_timed(workshop: Path) -> None:
    result = rehearse(workshop)
    assert result.returncode == 0, result.stdout + result.stderr
    transcript = "".join((workshop / f"results/transcript-{n}.txt").read_text() for n in (1, 2)).splitlines()
    assert [line for line in transcript if line.startswith("$ ")] == [
        "$ ls cli.py; echo made >model.pt",
        "$ test -s model.pt && exit 1",
        "$ PAUSE=1 ./narrated.sh",
    ]
    assert "read: " in transcript  # nothing waits for a person
    assert [line for line in transcript if line.startswith("###")] == [
        "### Step 1.1: write",
        "### Step 1.2: load",
        "### Step 2.1: poison",
        "### Step 2.2: look",
    ]
    assert not [line for line in transcript if line.startswith("==")]  # each title once
    table = (workshop / "results/rehearsal.md").read_text()
    assert re.findall(
        r"^\| (\d\.\d) .*? \| (\d+) \| (\d+|nothing typed) \| \d+ \|$", table, re.MULTILINE
    ) == [
        ("1.1", "2", "0"),
        ("1.2", "1", "0"),
        ("2.1", "3", "0"),
        ("2.2", "4", "0"),
    ]
    assert "| all demos | 10 | 0 | 600 |" in table
    assert "IN TIME: step 2.2, look: 0 s of 4 min" in result.stdout
    assert (workshop / "demo-malicious/model.pt").read_text() == ""
    assert (workshop / "WORKSHOP.md").read_text() == PLAN


def test_the_table_is_written_where_it_belongs(workshop: Path) -> None:
    assert rehearse(workshop, "--update").returncode == 0
    text = (workshop / "WORKSHOP.md").read_text()
    assert "old" not in text and "| 1.1 write | 2 | 0 | 120 |" in text
    assert text.endswith(PLAN[-40:])
    for name in ("transcript-1.txt", "transcript-2.txt"):
        assert (workshop / "docs/transcripts" / name).read_text() == (workshop / "results" / name).read_text()
    (workshop / "WORKSHOP.md").write_text(PLAN.replace("<!--", "<!"))
    result = rehearse(workshop, "--update")
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1


def test_what_fails_is_named_and_written_nowhere(workshop: Path) -> None:
    (workshop / "WORKSHOP.md").write_text(PLAN.replace("exit 1", "exit 3"))
    result = rehearse(workshop, "--update")
    assert result.returncode == 1
    assert "FAILED: Step 1.2, test -s model.pt && exit 3: exit code 3." in result.stdout
    assert "old" in (workshop / "WORKSHOP.md").read_text()
    assert not (workshop / "docs/transcripts").exists()


def test_one_demo_alone_leaves_the_table_of_the_whole_show(workshop: Path) -> None:
    result = rehearse(workshop, "2", "--update")
    assert result.returncode == 0 and "1.1" not in result.stdout
    assert (workshop / "WORKSHOP.md").read_text() == PLAN
    assert [path.name for path in (workshop / "docs/transcripts").iterdir()] == ["transcript-2.txt"]


def test_what_takes_longer_than_planned_is_late(workshop: Path) -> None:
    (workshop / "WORKSHOP.md").write_text(PLAN.replace("load (1 minute)", "load (0 minutes)"))
    result = rehearse(workshop)
    assert result.returncode == 1 and "LATE: step 1.2" in result.stdout


def test_a_plan_without_steps(workshop: Path) -> None:
    (workshop / "WORKSHOP.md").write_text("# nothing\n")
    result = rehearse(workshop)
    assert result.returncode == 2 and "holds no steps" in result.stderr
    assert rehearse(workshop, "--container", "7=x").returncode == 2


def test_commands_of_a_demo_go_into_its_container(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = workshop / "bin/docker"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "docker $*"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=":")
    result = rehearse(workshop, "--container", "1=first")
    assert "docker exec --env WORKSHOP_PLAIN=1 --env NO_COLOR=1 first sh -c test -s model.pt" in result.stdout
    assert "read: " in result.stdout


def test_the_plan_of_this_repository_is_understood() -> None:
    """Each heading of a step is one, and each fenced command stands under one."""
    code = "import rehearse; print(*(f'{s.name} {len(s.commands)}' for s in rehearse.read_plan()), sep='\\n')"
    said = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=ROOT / "scripts", check=True, capture_output=True, text=True
    ).stdout
    steps = dict(line.split() for line in said.splitlines())
    text = (ROOT / "WORKSHOP.md").read_text()
    assert set(re.findall(r"^### Step (\d\.\d+):", text, re.MULTILINE)) == {
        s for s in steps if s[-2:] != ".0"
    }
    assert sum(map(int, steps.values())) >= 20


# --- The transcripts that are kept: docs/transcripts, what each demo says in plain text ----------------

TRANSCRIPTS = ROOT / "docs/transcripts"
QUICK = (  # commands of demo 1 that train nothing; what they say is compared with the transcript
    "create_malicious_model.py",
    "inspect_model.py malicious_model.pt",
    "safe_demo.py convert malicious_model.pt",
    "create_malicious_model.py --variant system-legacy",
    "create_malicious_model.py --variant collect-env",
    "sign_model.py keygen",
    "sign_model.py sign malicious_model.pt",
    "sign_model.py verify malicious_model.pt",
    "policy.py allow malicious_model.pt",
    "serve.py --model malicious_model.pt",
)


def planned() -> dict[str, list[str]]:
    """The commands of WORKSHOP.md's steps, by demo, as rehearse types them."""
    code = "import json, rehearse as r; print(json.dumps([(s.demo, s.commands) for s in r.read_plan()]))"
    said = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=ROOT / "scripts", check=True, capture_output=True, text=True
    ).stdout
    commands: dict[str, list[str]] = {}
    for demo, some in json.loads(said):
        commands.setdefault(str(demo), []).extend(some)
    return commands


def kept(demo: str) -> list[str]:
    """The lines of a kept transcript."""
    path = TRANSCRIPTS / f"transcript-{demo}.txt"
    return path.read_text(encoding="utf-8").splitlines()


KEPT = sorted(path.stem[-1] for path in TRANSCRIPTS.glob("transcript-[123].txt"))


def test_there_are_transcripts() -> None:
    assert {"1", "3"} <= set(KEPT)


@pytest.mark.parametrize("demo", KEPT)
def test_a_transcript_types_what_the_plan_says(demo: str) -> None:
    lines = [line.removeprefix("$ ") for line in kept(demo) if line.startswith("$ ")]
    for command in planned()[demo]:
        assert command in lines, f"{command} is not in the transcript: ./workshop.sh rehearse {demo} --update"
        lines = lines[lines.index(command) + 1 :]  # in this order


@pytest.mark.parametrize("demo", KEPT)
def test_a_transcript_can_be_followed(demo: str) -> None:
    for line in kept(demo):
        assert line.startswith("$ ") or len(line) <= 200, line
        assert not re.search(r"\b[0-9a-f]{64}\b|\S\s+<- |\x1b|Traceback", line), line


def comparable(lines: list[str]) -> list[str]:
    """Without what differs between two runs: digests, byte counts, seconds."""
    text = "\n".join(line for line in lines if not line.endswith("percent"))
    return re.sub(r"\d+(\.\d+)?", "N", re.sub(r"\b[0-9a-f]{12}\.\.\.", "DIGEST", text)).split("\n")


@pytest.mark.skipif(
    not (3, 11) <= sys.version_info < (3, 13), reason="not all scanners have a release for it"
)
def test_the_transcript_of_demo_1_is_what_its_commands_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKSHOP_PLAIN", "1")
    shutil.copy(ROOT / "demo-malicious/policy.toml", tmp_path)
    lines = kept("1")
    for command in QUICK:
        at = lines.index(f"$ python {command}")
        end = next(
            n for n in range(at + 1, len(lines) + 1) if n == len(lines) or lines[n].startswith(("$ ", "### "))
        )
        result = type_here(command.split(), tmp_path)
        said = comparable(result.stdout.splitlines())
        assert said == comparable([*lines[at + 1 : end], ""][: len(said)]), command
