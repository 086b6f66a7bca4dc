"""Helper module, not a command: types what the documents say, in order, each command once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from documented import figures
from documented.blocks import FOLDERS, ROOT, Block, blocks_of
from documented.records import Record, keep, same_as
from documented.shell import Shell

AGAIN = re.compile(r"python |\./")  # a command that need not be typed again where another document has it


@dataclass
class Typing:
    """What was typed in a folder: its record, and a sentence for each command that ended otherwise."""

    record: Record = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    shortened: set[str] = field(default_factory=set)  # typed with more options than the document says
    unrecorded: set[str] = field(default_factory=set)  # what they say depends on the machine


def to_type(folder: str) -> Iterator[tuple[Block, str, int]]:
    """The commands of a folder, in order, each with its block and the exit code that it should have."""
    for document in FOLDERS[folder]:
        if not (ROOT / document).exists():
            continue
        for block in blocks_of(document):
            if block.folder == folder and not block.is_sample:
                for line, code in zip(block.commands, block.codes(), strict=True):
                    if not block.left_out(line):
                        yield block, line, code


def type_all(
    folder: str,
    root: Path,
    done: Record,
    *,
    in_tests: bool = False,
    after: Callable[[Typing], None] | None = None,
) -> Typing:
    """Type what the documents type in a folder, but what is `done`. `after` is called after each command.

    With `after`, everything is also printed.
    """
    typing = Typing(record=dict(done))
    shell = Shell(root / folder, root)
    try:
        prepared: set[int] = set()
        for block, line, code in to_type(folder):
            before = block.notes.get("first", "")
            if before and before not in typing.record and id(block) not in prepared:
                run_one(shell, typing, before, before, 0, say=after is not None)
                if before not in shown(folder):
                    typing.unrecorded.add(before)  # only a preparation
            prepared.add(id(block))
            command = same_as(line)
            if command in typing.record and AGAIN.match(command):
                continue
            more = block.notes.get("typed with", "")
            if in_tests and (short := block.shorter(line)):
                more += " " + short
                typing.shortened.add(command)
            run_one(shell, typing, command, f"{command} {more}".strip(), code, say=after is not None)
            if "no record" in block.notes:
                typing.unrecorded.add(command)
            if after:
                after(typing)
    finally:
        shell.close()
    return typing


def shown(folder: str) -> set[str]:
    """The commands that a sample of this folder's documents names, or that a sentence has figures of."""
    there = [document for document in FOLDERS[folder] if (ROOT / document).exists()]
    samples = {block.notes.get("shows", "") for document in there for block in blocks_of(document)}
    return samples | {sentence.source for sentence in figures.SENTENCES}


def run_one(shell: Shell, typing: Typing, command: str, line: str, code: int, *, say: bool) -> None:
    said = shell.type(line)
    assert said.code is not None
    keep(typing.record, command, said.output, said.code)
    if say:
        print(f"$ {line}\n{said.output}\n[exit code {said.code}]", flush=True)
    if said.code != code:
        typing.failed.add(command)
        ends = f"{line} ended with {said.code}, expected {code}:"
        typing.wrong.append("\n".join([ends, *said.output.splitlines()[-8:]]))
