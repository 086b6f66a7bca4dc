"""An ordinary terminal, 80 columns wide: tables fit into it, and no word of them is broken at its edge.

Commands that are quick are typed on a pseudo-terminal. The tables of the others are read from the records of
what the documented commands said, and laid out again.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
import scan_helpers  # noqa: F401 (puts demo 3 on the import path)

import console  # isort: skip

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "docs"))
from documented.blocks import FOLDERS
from documented.records import read_record
from malicious_helpers import type_here

import cli

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 80
DEMO_1, DEMO_3 = ROOT / "demo-malicious", ROOT / "demo-supply-chain"
TITLE = re.compile(r"^(.*) \((\d+) rows?\)$")


def on_a_terminal(command: Sequence[object], folder: Path) -> str:
    """What a command says on a terminal of 80 columns, without colours."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
    plain = ("NO_COLOR", "COLUMNS", "WORKSHOP_PLAIN", "FORCE_COLOR", "CI")
    env = {name: value for name, value in os.environ.items() if name not in plain} | {"TERM": "xterm"}
    process = subprocess.Popen(
        [*map(str, command)],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=subprocess.PIPE,
    )
    os.close(its)
    said = b""
    while True:
        try:
            some = os.read(ours, 65536)
        except OSError:  # Linux says so at the end
            break
        if not some:
            break
        said += some
    os.close(ours)
    assert process.stderr
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=60) in (0, 1), errors
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", said.decode().replace("\r\n", "\n"))


def words(text: str) -> Counter[str]:
    """The words of a text as they stand, but for what a table puts around them."""
    found = (word.strip(";:│┃|") for word in re.sub("[─-╿]", " ", text).split())
    return Counter(word for word in found if re.search(r"\w", word) and len(word) <= WIDTH - len("  ;"))


def tables_of(text: str) -> list[list[str]]:
    """The lines of each table, drawn by rich, aligned by demo 3, or in rows where it is too wide for both."""
    lines, tables = text.splitlines(), []
    for number, line in enumerate(lines):
        after = lines[number + 1 :]
        if TITLE.match(line):
            end = next((n for n, row in enumerate(after) if not row.startswith(("- ", "  "))), len(after))
        elif after and after[0].startswith("┏"):
            end = next((n for n, row in enumerate(after) if row.startswith("└")), len(after)) + 1
        elif re.fullmatch(r"-+(  -+)+", line):
            end = next((n for n, row in enumerate(after) if not row.strip()), len(after))
        else:
            continue
        tables.append([line, *after[:end]])
    return tables


def too_long(table: list[str]) -> list[str]:
    """The lines that do not fit, but for those that are one word: there is no place to break them."""
    return [line for line in table if len(line) > WIDTH and len(line.split()) > 1]


def rows_of(table: list[str]) -> tuple[str, list[str], list[list[str]]]:
    """Title, names of the columns and cells of a table in plain text. "; " also stands inside of cells."""
    split = [line.removeprefix("- ").split("; ") for line in table[1:]]
    names = [part.partition(": ")[0] for part in split[0] if ": " in part]
    names = [name for name in names if all(any(p.startswith(f"{name}: ") for p in row) for row in split)]
    rows = []
    for parts in split:
        cells: list[str] = []
        for part in parts:
            if len(cells) < len(names) and part.startswith(f"{names[len(cells)]}: "):
                cells.append(part.partition(": ")[2])
            else:
                cells[-1] += f"; {part}"
        rows.append(cells)
    match = TITLE.match(table[0])
    assert match and len(rows) == int(match[2])
    return match[1], names, rows


RECORDED = [
    pytest.param(folder, table, id=f"{folder}: {table[0][:60]}")
    for folder in FOLDERS
    for table in {
        tuple(table): table
        for said in read_record(folder).values()
        for table in tables_of(said.output)
        if TITLE.match(table[0])
    }.values()
]


def test_the_records_have_tables_of_every_demo() -> None:
    assert {param.values[0] for param in RECORDED} >= {
        "demo-malicious",
        "demo-poisoning",
        "demo-supply-chain",
    }
    assert len(RECORDED) > 10


@pytest.mark.parametrize(("folder", "table"), RECORDED)
def test_a_recorded_table_fits_and_breaks_no_word(
    folder: str, table: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    title, names, rows = rows_of(table)
    if folder == "demo-supply-chain":
        monkeypatch.setenv("COLUMNS", str(WIDTH))
        assert console.table(title, names, rows, plain=True).splitlines() == table  # read as it was meant
        said = console.table(title, names, rows, plain=False)
    else:
        written = io.StringIO()
        out = cli.Out()
        out._console = cli.Console(
            file=written, width=WIDTH, force_terminal=True, highlight=False, soft_wrap=True
        )
        out.plain = False
        out.table(title, names, rows)
        said = re.sub(r"\x1b\[[\d;]*m", "", written.getvalue())
    (laid,) = tables_of(said)
    assert too_long(laid) == []
    cells = words("\n".join(cell for row in rows for cell in row))
    assert cells - words(said) == Counter()


def make_files(folder: Path) -> None:
    """Files for the commands below; what these say is looked at in tests of their own."""
    for line in (
        ["create_malicious_model.py", "--plain"],
        ["create_malicious_model.py", "--variant", "collect-env"],
        ["sign_model.py", "keygen"],
    ):
        assert type_here(line, folder).returncode == 0
    for script, *more in (
        ("make_example.py", "--output", "example.safetensors"),
        ("make_mlbom.py", "example.safetensors", "--output", "bom.json"),
    ):
        subprocess.run(
            [sys.executable, DEMO_3 / script, *more], cwd=folder, check=True, capture_output=True, timeout=60
        )
    (folder / "policy.toml").write_bytes((DEMO_1 / "policy.toml").read_bytes())


BEFORE, AFTER = (DEMO_3 / f"recorded/python_3.11-alpine_2025-11-{day}.json" for day in ("06", "14"))
TYPED = {
    "inspect": (DEMO_1 / "inspect_model.py", "malicious_model.pt"),
    "inspect-several": (
        DEMO_1 / "inspect_model.py",
        "malicious_model.pt",
        "malicious_collect_env.pt",
        "example.safetensors",
    ),
    "list-of-variants": (DEMO_1 / "create_malicious_model.py", "--list"),
    "policy": (DEMO_1 / "policy.py", "check", "malicious_model.pt"),
    "scan-recorded": (DEMO_3 / "scan.py", "--recorded"),
    "compare": (DEMO_3 / "compare.py", BEFORE, AFTER),
    "make-mlbom": (DEMO_3 / "make_mlbom.py", "example.safetensors", "--output", "bom.json"),
    "check-mlbom": (DEMO_3 / "check_mlbom.py", "bom.json", "--folder", "."),
}
WITH_TABLE = {
    "inspect",
    "inspect-several",
    "list-of-variants",
    "policy",
    "scan-recorded",
    "compare",
    "make-mlbom",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("typed")
    make_files(made)
    return made


@pytest.mark.parametrize("name", TYPED)
def test_a_command_keeps_its_words_whole_on_a_terminal(
    name: str, folder: Path, run_script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    command, *more = TYPED[name]
    script = Path(command)
    said = on_a_terminal([sys.executable, script, *more], folder)
    tables = tables_of(said)
    assert bool(tables) == (name in WITH_TABLE), said
    assert [line for table in tables for line in too_long(table)] == []
    if script.parent == DEMO_1:
        plain = type_here([script.name, *map(str, more)], folder).stdout
    else:
        plain = run_script(str(script.relative_to(ROOT)), *more, cwd=folder).stdout
    in_tables = words("\n".join(line for table in tables_of(plain) for line in table[1:]))
    assert set(in_tables) - set(words(said)) == set()


def test_a_broken_word_would_be_seen() -> None:
    assert words("- file: malicious_model.pt") - words("- file: malicious_mod\n  el.pt")
    assert not words("- file: a.pt; verdict: NOT SAFE") - words(
        "│ file │ verdict │\n│ a.pt │ NOT │\n│  │ SAFE │"
    )
