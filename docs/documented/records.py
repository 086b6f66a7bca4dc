"""Helper module, not a command: docs/records/, what each documented command said when it was typed."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from documented.blocks import ROOT

ENDED = re.compile(r"^\[exit code (\d+)\]$")


@dataclass
class Said:
    """What a command said, both streams as they came, and how it ended (None: inside a narrated script)."""

    output: str
    code: int | None


Record = dict[str, Said]


def same_as(command: str) -> str:
    """The command as it is recorded: PAUSE=1 only waits for Enter, where there is somebody to press it."""
    return re.sub(r"\s+#.*$", "", command.removeprefix("PAUSE=1 ")).strip()


def record_path(folder: str, root: Path = ROOT) -> Path:
    return root / "docs/records" / f"{'root' if folder == '.' else folder}.txt"


def read_record(folder: str, root: Path = ROOT) -> Record:
    """The record of a folder; empty if there is none."""
    path = record_path(folder, root)
    record: Record = {}
    command, lines = "", [""]
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        if line.startswith("> "):
            command, lines = line[2:], [""]
        elif ended := ENDED.match(line):
            keep(record, command, "\n".join(lines), int(ended[1]))
        else:
            lines.append(line)
    return record


def keep(record: Record, command: str, output: str, code: int) -> None:
    """Put a run into the record, and the commands that a narrated script has typed in it."""
    record[command] = Said(output.strip("\n"), code)
    for part in re.split(r"^\$ ", output, flags=re.MULTILINE)[1:]:
        inner, _, said = part.partition("\n")
        if inner not in record:
            record[inner] = Said(re.split(r"^\n== ", said, flags=re.MULTILINE)[0].strip("\n"), None)


def written(record: Record, but: Collection[str]) -> str:
    """The text of a record, without some commands."""
    typed = [one for one in record.items() if one[1].code is not None and one[0] not in but]
    return "".join(f"> {command}\n{said.output}\n[exit code {said.code}]\n\n" for command, said in typed)
