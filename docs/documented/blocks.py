"""Helper module, not a command: the fenced blocks of the documents, and what the comments before them say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Where commands are typed, and the documents that type there, in this order. A command that was typed already
# is not typed again.
FOLDERS = {
    "demo-malicious": (
        "demo-malicious/README.md",
        "docs/malicious.md",
        "README.md",
        "WORKSHOP.md",
        "CONTRIBUTING.md",
    ),
    "demo-poisoning": (
        "demo-poisoning/README.md",
        "docs/poisoning/scan.md",
        "docs/poisoning/data.md",
        "docs/poisoning/more.md",
        "README.md",
        "WORKSHOP.md",
    ),
    "demo-supply-chain": ("demo-supply-chain/README.md", "docs/supply-chain.md", "README.md", "WORKSHOP.md"),
    ".": ("README.md", "WORKSHOP.md", "CONTRIBUTING.md", "benchmarks/README.md", "class/README.md"),
}
# Where a page begins to type, or the pages of a folder, if not in its own folder.
STARTS = {
    "docs/malicious.md": "demo-malicious",
    "docs/poisoning": "demo-poisoning",
    "docs/supply-chain.md": "demo-supply-chain",
    "": ".",
    "benchmarks": ".",
    "class": ".",
}
# Documents whose commands are typed by tests of their own.
ELSEWHERE = {
    "demo-malicious/EXERCISES.md": "tests/test_exercises.py",
    "demo-poisoning/EXERCISES.md": "tests/poisoning/test_whole_demo.py",
    "demo-supply-chain/EXERCISES.md": "tests/test_exercises_supply_chain.py",
    "demo-supply-chain/kubernetes/README.md": "tests/test_kubernetes.py",
}
REASONS = {
    "Docker": "an engine and its images: tests/test_containers_*.py type them where an engine answers",
    "registry": "images from a registry: tests/test_real_grype.py does it with one on this machine",
    "internet": "a server outside",
    "tool": "a program that this project does not install: Syft, cosign, kubectl",
    "installs": "downloads packages for minutes: every environment of the tests is made so",
    "person": "somebody who types, or an address that only they know",
    "photographs": "a copy of GTSRB: tests/poisoning/test_gtsrb.py does it with WORKSHOP_TEST_DATA",
    "minutes": "a run of minutes, or of hours, whose parts other tests run",
    "pipeline": "the models of demo 2 and a chain for them: tests/test_pipeline.py types them",
    "removes": "removes what the others made: tests/test_reset.py does it",
}

FENCE = re.compile(r"^((?:<!-- [a-z ]+: [^\n]* -->\n)*)```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"^<!-- ([a-z ]+): (.*) -->$", re.MULTILINE)


@dataclass
class Block:
    """A fenced block of a document, and what the comments before it say."""

    document: str
    line: int  # of its first line, from 1
    span: tuple[int, int]  # its content in the text of the document
    language: str
    text: str
    notes: dict[str, str]
    folder: str = ""  # where its commands are typed

    @property
    def is_sample(self) -> bool:
        return bool(self.language)

    @property
    def commands(self) -> list[str]:
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        return [line for line in lines if line and not line.startswith(("#", "cd demo-"))]

    def left_out(self, command: str) -> str:
        """Why a command is not typed by a test, or ""."""
        reason, _, words = self.notes.get("not run", "").partition(" (")
        return reason if words.rstrip(")") in command else ""

    def codes(self) -> list[int]:
        """The exit code that each command should have."""
        codes = [int(code) for code in self.notes.get("ends with", "0").split()]
        return codes * len(self.commands) if len(codes) == 1 else codes

    def shorter(self, command: str) -> str:
        """The options that a test adds to a command, or ""; " | " parts those of several commands."""
        parts = self.notes.get("in tests also", "").split("|")
        return parts[self.commands.index(command) if len(parts) > 1 else 0].strip()

    def __str__(self) -> str:
        return f"{self.document}, line {self.line}"


def blocks_of(document: str, root: Path = ROOT) -> list[Block]:
    """The fenced blocks of a document, in order; `cd demo-...` says where the next commands are typed."""
    text = (root / document).read_text(encoding="utf-8")
    above = document.rpartition("/")[0]
    start = STARTS.get(document) or STARTS.get(above, above)
    folder = start
    found: list[Block] = []
    for match in FENCE.finditer(text):
        since = found[-1].span[1] if found else 0
        if start == "." and re.search(r"^## ", text[since : match.start()], re.MULTILINE):
            folder = start  # each part of such a page begins at the top
        notes = dict(COMMENT.findall(match[1]))
        block = Block(
            document, text.count("\n", 0, match.start(3)) + 1, match.span(3), match[2], match[3], notes
        )
        if not block.is_sample and (moved := re.search(r"^cd (demo-[\w-]+)", block.text, re.MULTILINE)):
            folder = moved[1]
        block.folder = folder
        found.append(block)
    return found


def documents(folders: Iterable[str] = FOLDERS) -> list[str]:
    """The documents that type in these folders."""
    return list(dict.fromkeys(one for folder in folders for one in FOLDERS[folder] if (ROOT / one).exists()))


def not_run() -> list[str]:
    """The commands that no test types as they stand, each with the reason and the place."""
    blocks = [block for document in documents() for block in blocks_of(document) if not block.is_sample]
    return [
        f"{reason}: {command} ({block})"
        for block in blocks
        for command in block.commands
        if (reason := block.left_out(command))
    ]
