"""What is known about one file: the formats that fit, what each part would do, and our verdict.

Helper module, not a command.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cli
from inspection.decompiler import PickleReport

SAFE, UNSAFE, UNKNOWN = "NO CODE FOUND", "NOT SAFE TO LOAD", "CANNOT BE JUDGED"
EXIT_CODES = {SAFE: cli.OK, UNSAFE: cli.FINDING, UNKNOWN: cli.ERROR}
WORST_FIRST = (UNSAFE, UNKNOWN, SAFE)


class CannotJudge(Exception):
    """Why no verdict is possible: one clause that starts with "it"."""


@dataclass(frozen=True)
class Finding:
    """What one reader would make of a file, or of a part of it."""

    answer: str  # SAFE, UNSAFE or UNKNOWN
    reason: str  # one clause; it starts with "it" or "there"
    where: str = ""  # the part, in an archive
    help: str = ""  # a way forward, one sentence

    def inside(self, where: str) -> Finding:
        """The same finding, for a part of a larger file."""
        inner = f"{where}, {self.where}" if self.where else where
        return Finding(self.answer, self.reason, inner, self.help)

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" if self.where else self.reason


@dataclass(frozen=True)
class Verdict:
    """What one scanner says."""

    answer: str  # clean, suspicious, found, gives up, cannot read, not installed, not asked
    words: str = ""  # in the scanner's own terms
    names: frozenset[str] = frozenset()  # the imports that it speaks of, where it names them

    def __str__(self) -> str:
        return f"{self.answer}: {self.words}" if self.words else self.answer


@dataclass
class Report:
    """All that is known about one file."""

    path: Path
    size: int = 0  # bytes
    format: str = "unknown"  # every format that fits, joined by "and"
    formats: list[str] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)  # every name that loading would import
    disallowed: list[str] = field(default_factory=list)  # those that nobody vouches for
    only_data: list[str] = field(default_factory=list)  # those that only hold data, but need safe_globals
    findings: list[Finding] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)  # scanner -> what it says
    overall: str = UNKNOWN
    reason: str = ""  # one clause; it starts with "it" or "there", or names the part
    help: str = ""  # a way forward, one sentence
    notes: list[str] = field(default_factory=list)  # true of a file that is not dangerous, worth knowing
    pickles: list[PickleReport] = field(default_factory=list)
    tensors: list[tuple[str, str, str]] = field(default_factory=list)  # SafeTensors: name, type, shape

    @property
    def exit_code(self) -> int:
        """0 no code found, 1 not safe to load, 2 cannot be judged."""
        return EXIT_CODES[self.overall]
