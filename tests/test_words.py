"""Words that the project no longer uses, because the field has others: they must not come back."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UNREAD = {".jsonl", ".svg", ".png", ".jpg", ".safetensors"}  # figures and drawings

# the old word, what to say now, and the only files where the old word means the thing itself
STORY = (  # where somebody puts a sticker on a real sign
    "README.md",
    "WORKSHOP.md",
    "docs/instructor/clock.md",
    "docs/instructor/room.md",
    "docs/records/demo-poisoning.txt",
    "docs/transcripts/transcript-2.txt",
    *(f"demo-poisoning/{name}" for name in ("README.md", "trigger.py", "workshop_demo.sh")),
)
WORDS = {
    "judge": (r"\bjudges?\b(?! for (itself|themselves))|\bjudge_|_judges?\b", "scanner, or verdict", ()),
    "sticker": (r"sticker", "trigger", STORY),
    # a field of scan files written by earlier versions
    "picture": (r"\bpictures?\b|picture_|_pictures?\b", "image", ("tests/poisoning/test_result.py",)),
    "reads rightly": (r"\brightly\b", "classifies correctly", ()),
    "dice": (r"\bdice\b|dice_|_dice\b", "rng, or random", ()),
    "place of computing": (
        r"\bplace\b\s*(:\s*torch\.device|=\s*(torch\.device|device\.))|\.to\(place\b",
        "device",
        (),
    ),
    "whole_file": (r"whole_(file|folder)", "atomic_write, atomic_folder", ()),
    "zoo": (r"\bzoo\b|zoo_|_zoo\b", "variants", ()),
    "ask.py": (r"\bask\.py\b|\bimport ask\b|\bfrom ask\b", "client", ()),
    "suspects.py": (r"\bsuspects\.py\b|\bimport suspects\b|\bfrom suspects\b", "features", ()),
    "Nothing to type here": (r"[Nn]othing to type here", "Helper module, not a command", ()),
    "optimiser": (r"\b[Oo]ptimisers?\b", "optimizer", ()),
}

# in messages: "x.pt is no model" reads like a riddle. "there is no model" and "is no longer" are fine.
IS_NO = re.compile(r"(?<!here )\b(?:is|are) no (?!longer\b|more\b|less\b)[a-z]")

# names in code that meant something private there
NAMES = {
    "outside": ("disallowed", ("demo-malicious",)),
    "tell": ("printing", ("demo-malicious", "demo-poisoning", "demo-supply-chain", "benchmarks")),
}


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Every text that git tracks but this one and the locks, by its path."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=False, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    read = [path for path in paths if path.is_file() and path.suffix not in UNREAD and path != Path(__file__)]
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for path in read
        if not re.fullmatch(r"requirements.*\.txt", path.name)
    }


def places(pattern: str, text: str) -> Iterator[str]:
    """The lines that hold a pattern, with their numbers."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(pattern, line):
            yield f"{number}: {line.strip()}"


@pytest.mark.parametrize("word", WORDS)
def test_an_old_word_is_gone(texts: dict[str, str], word: str) -> None:
    pattern, instead, allowed = WORDS[word]
    found = [
        f"{name}:{line}"
        for name, text in texts.items()
        if name not in allowed
        for line in places(rf"(?i){pattern}", text)
    ]
    found += [name for name in texts if name not in allowed and re.search(pattern, Path(name).stem)]
    assert found == [], f"say {instead}"


@pytest.mark.parametrize("word", [word for word, (_, _, allowed) in WORDS.items() if allowed])
def test_an_exception_is_still_needed(texts: dict[str, str], word: str) -> None:
    pattern, _, allowed = WORDS[word]
    assert [name for name in allowed if not re.search(pattern, texts[name])] == []


def strings(code: str) -> Iterator[tuple[int, str]]:
    """The strings of a Python file that are no documentation: messages, most of them."""
    tree = ast.parse(code)
    documentation = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            documentation.add(id(body[0].value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.lineno, node.value


def test_messages_say_what_is_not_valid(texts: dict[str, str]) -> None:
    found = [
        f"{name}:{line}: {text}"
        for name, code in texts.items()
        if name.startswith("demo-") and name.endswith(".py")
        for line, text in strings(code)
        if IS_NO.search(text)
    ]
    found += [
        f"{name}:{line}"
        for name, script in texts.items()
        if name.endswith(".sh")
        for line in places(IS_NO.pattern, script)
        if not line.split(": ", 1)[1].startswith("#")
    ]
    assert found == []


def names(code: str) -> Iterator[tuple[int, str]]:
    """The names of variables, arguments, functions and modules of a Python file, with their lines."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.FunctionDef) and "self" not in [one.arg for one in node.args.args]:
            yield node.lineno, node.name  # a method's name may be that of a protocol, such as file.tell()
        elif isinstance(node, ast.alias):
            yield node.lineno, node.asname or node.name
            yield node.lineno, node.name
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.value.lineno, node.arg


@pytest.mark.parametrize("word", NAMES)
def test_an_old_name_is_gone(texts: dict[str, str], word: str) -> None:
    instead, folders = NAMES[word]
    found = [
        f"{name}:{line}"
        for name, code in texts.items()
        if name.endswith(".py") and name.split("/")[0] in folders
        for line, used in names(code)
        if used == word
    ]
    assert found == [], f"say {instead}"
