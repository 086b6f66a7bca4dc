"""The things to do in this workshop, in their order: read from EXERCISES.md of each demo. Helper module."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMOS = {1: "demo-malicious", 2: "demo-poisoning", 3: "demo-supply-chain"}
TITLES = {
    1: "a model file that runs code",
    2: "a model that learned one lie",
    3: "what is in the image that you build on",
}
LEVELS = ("first", "more", "hard")
HINTS = 3

HEADING = re.compile(r"^## (\d)\. (.+)$", re.MULTILINE)
LEVEL = re.compile(rf"^Level: ({'|'.join(LEVELS)})\. On the board: (.+)$", re.MULTILINE)
HINT = re.compile(r"<details><summary>Hint (\d)</summary>\n\n(.*?)\n\n</details>", re.DOTALL)


class UserError(Exception):
    """Bad input: one sentence that names the file and says what to do next. Ends with exit code 2."""


@dataclass(frozen=True)
class Exercise:
    """One exercise of one demo."""

    demo: int
    number: int
    title: str
    level: str
    board: str  # what to write on the board
    hints: tuple[str, ...]

    @property
    def item(self) -> str:
        return f"{self.demo}.{self.number}"

    @property
    def name(self) -> str:
        return f'exercise {self.item} ({self.level}), "{self.title}"'


def of_demo(demo: int, root: Path = ROOT) -> list[Exercise]:
    """The exercises of a demo, the easy ones first. Raises UserError if its EXERCISES.md is not whole."""
    path = root / DEMOS[demo] / "EXERCISES.md"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: get it again from the repository.") from error
    starts = [*HEADING.finditer(text)]
    found = []
    for start, end in zip(starts, [*(one.start() for one in starts[1:]), len(text)]):
        part = text[start.end() : end]
        level, hints = LEVEL.search(part), HINT.findall(part)
        if not level or [number for number, _ in hints] != [str(n + 1) for n in range(HINTS)]:
            raise UserError(f"{path}: exercise {start[1]} lacks its level or one of its {HINTS} hints.")
        spoken = tuple(as_spoken(hint) for _, hint in hints)
        found.append(Exercise(demo, int(start[1]), start[2], level[1], as_spoken(level[2]), spoken))
    return sorted(found, key=lambda one: (LEVELS.index(one.level), one.number))


def every() -> list[Exercise]:
    """All exercises in the order in which `next` proposes them."""
    return [exercise for demo in DEMOS for exercise in of_demo(demo)]


def as_spoken(markdown: str) -> str:
    """A paragraph on one line, without the marks that only a page shows."""
    return re.sub(r"\s+", " ", markdown.replace("`", "")).strip()
