"""What was found in a file so far, all its parts together, and how much may still be read.

Helper module, not a command.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from inspection.pickle_reader import MOST_INSTRUCTIONS, Buffer
from inspection.report import Finding

MB = 1024 * 1024
KEPT = 64 * MB  # of pickles, for the decompiler


@dataclass
class Content:
    """What was found in a file, all its parts together."""

    formats: list[str] = field(default_factory=list)  # of the file as a whole
    findings: list[Finding] = field(default_factory=list)
    names: set[str] = field(default_factory=set)  # every import
    pickles: list[tuple[str, bytes]] = field(default_factory=list)  # for the decompiler: where, bytes
    tensors: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    instructions: int = MOST_INSTRUCTIONS  # that may still be followed
    kept: int = KEPT
    members: int = 0  # of zip files
    limit: bool = False  # something was too large or damaged: no work for the scanners, which have no limits

    @property
    def heavy(self) -> bool:
        """Whether the scanners, which have no limits of their own, would take long."""
        return self.limit or MOST_INSTRUCTIONS - self.instructions > 250_000 or self.members > 10_000

    def part(self) -> Content:
        """Empty findings for a part, with the same limits."""
        return type(self)(instructions=self.instructions, kept=self.kept)

    def add(self, answer: str, reason: str, where: str = "", help: str = "") -> None:
        """Note one finding."""
        self.findings.append(Finding(answer, reason, where, help))


Look = Callable[[Buffer, str, Content], None]  # tries every format on a part: bytes, its place, findings
