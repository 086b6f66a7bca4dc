"""What was found in a file so far, all its parts together, and how much may still be read.

Helper module, not a command.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from inspection.pickle_reader import MOST_INSTRUCTIONS, Buffer, instructions_for_scanners
from inspection.report import CannotJudge, Finding

MB = 1024 * 1024
KEPT = 64 * MB  # of pickles, for the decompiler
MOST_FOR_SCANNERS = 250_000  # instructions: they take seconds for them, and have no limits of their own
# of the processor, for all parts of an archive: a part takes milliseconds or at most seconds, but some
# kilobytes can unpack to thousands of large parts, and archives in archives to any number
MOST_SECONDS = 10


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
    for_scanners: int = 0  # instructions that they would read, also where a loader stops
    started: float = field(default_factory=time.thread_time)

    @property
    def heavy(self) -> bool:
        """Whether the scanners, which have no limits of their own, would take long."""
        used = max(MOST_INSTRUCTIONS - self.instructions, self.for_scanners)
        return self.limit or used > MOST_FOR_SCANNERS or self.members > 10_000

    def part(self) -> Content:
        """Empty findings for a part, with the same limits."""
        return type(self)(
            instructions=self.instructions,
            kept=self.kept,
            for_scanners=self.for_scanners,
            started=self.started,
        )

    def count_for_scanners(self, data: Buffer) -> None:
        """Note how many instructions the scanners would read in these bytes."""
        if self.for_scanners <= MOST_FOR_SCANNERS:
            self.for_scanners += instructions_for_scanners(data, MOST_FOR_SCANNERS + 1)

    def in_time(self) -> None:
        """Raises CannotJudge if the parts of this file have taken too long."""
        if time.thread_time() - self.started > MOST_SECONDS:
            raise CannotJudge(f"its parts take more than {MOST_SECONDS} seconds, more than this tool spends")

    def add(self, answer: str, reason: str, where: str = "", help: str = "") -> None:
        """Note one finding."""
        self.findings.append(Finding(answer, reason, where, help))


Look = Callable[[Buffer, str, Content], None]  # tries every format on a part: bytes, its place, findings
