"""The documents: what they name exists, what they type works, and their figures agree with the code."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "docs"))
from documented.blocks import STARTS

ROOT = Path(__file__).resolve().parent.parent
DEMOS = ("demo-malicious", "demo-poisoning", "demo-supply-chain")
DOCUMENTS = (
    "README.md",
    "WORKSHOP.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    *(f"{demo}/README.md" for demo in DEMOS),
)
# Pages around the demos: the same rules, but a page need not type a command.
PAGES = tuple(sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md")))
ALL = (*DOCUMENTS, *PAGES)
# Everything with links: also exercises, tables and benchmarks.
LINKED = tuple(
    sorted(
        {*ALL, *(str(path.relative_to(ROOT)) for path in ROOT.glob("*/*.md") if path.parent.name != "site")}
    )
)
IMAGES = dict(zip(("pickle-demo", "poisoning-demo", "grype-demo"), DEMOS))
SKELETON = [
    "Story",
    "Goal",
    "Files",
    "Silver path: attack",
    "Gold path: defend",
    "Without Docker",
    "What is safe here, and why",
    "If something goes wrong",
    "Stop and remove",
    "References",
]
IN_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FILE_NAME = re.compile(r"[\w.-]+(/[\w.-]+)*\.(py|sh|md|txt|in|toml|yml|json|jpg|png)")
COMMAND = re.compile(r"(\w+=(\"[^\"]*\"|\S*) +)*(python \S+\.py|\./\S+\.sh|docker run )")
SETTING = re.compile(r"WORKSHOP_[A-Z_]+")
OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")

# Prints the help of each script, FOLDER/SCRIPT, after a line with its name. One process for all: importing
# PyTorch takes seconds. What a folder holds itself is forgotten between the folders, which stand alone.
SHOW_HELP = """
import contextlib, os, runpy, sys
root, path = os.getcwd(), list(sys.path)
for name in sys.argv[1:]:
    folder, _, script = name.partition("//")
    os.chdir(os.path.join(root, folder))
    sys.path[:] = [os.path.dirname(os.path.abspath(script)), *path]
    print("===", name, flush=True)
    sys.argv = [script, "--help"]
    with contextlib.suppress(SystemExit):
        runpy.run_path(script, run_name="__main__")
    for module, loaded in list(sys.modules.items()):
        file = getattr(loaded, "__file__", None) or ""
        if file.startswith(root + os.sep) and "site-packages" not in file:
            del sys.modules[module]
"""

Typed = tuple[str, str, list[str]]  # folder, script, arguments


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def code_blocks(text: str) -> list[tuple[str, str]]:
    """The fenced blocks of a document: language ("" or "text") and content."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def heading_links(text: str) -> set[str]:
    """The anchors that GitHub makes from the headings."""
    titles = re.findall(r"^#+ (.*)$", without_blocks(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def section(text: str, title: str) -> str:
    return re.split(r"^## ", text.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def is_made(path: str) -> bool:
    """Something that a demo makes: .gitignore names it, or a folder above it."""
    for line in read(".gitignore").splitlines():
        pattern = line.strip("/")
        if pattern and not line.startswith("#") and any(fnmatch(path, p) for p in (pattern, f"{pattern}/*")):
            return True
    return False


def places(document: str) -> list[str]:
    """Where the files that a document names may lie: its own folder and the root, or any demo."""
    return [folder_of(document), ""] if document.startswith(DEMOS) else ["", *DEMOS, folder_of(document)]


def folder_of(document: str) -> str:
    return document.rpartition("/")[0]


def script_of(line: str, folder: str) -> Typed | None:
    """The script that a line types, for python X.py, ./X.sh and docker run IMAGE X.py; else None."""
    if not COMMAND.match(line):
        return None
    words = shlex.split(line, comments=True)
    while re.match(r"\w+=", words[0]):
        words = words[1:]
    if words[0] == "docker":
        found = [number for number, word in enumerate(words) if word in IMAGES]
        rest = words[found[0] + 1 :] if found else []
        return (IMAGES[words[found[0]]], rest[0], rest[1:]) if rest else None
    if words[0] == "python":
        return folder, words[1], words[2:]
    script = words[0].removeprefix("./")
    if script == "workshop.sh" and words[1:2] == ["test"]:
        words = words[:2]  # the rest is for pytest
    return ("" if script == "workshop.sh" else folder), script, words[1:]


def typed_in_blocks(document: str) -> Iterator[Typed]:
    """The commands of the code blocks, with the folder that the `cd` lines before them lead to."""
    folder = STARTS.get(document) or STARTS.get(folder_of(document), folder_of(document))
    folder = "" if folder == "." else folder
    for _, block in code_blocks(read(document)):
        for line in block.replace("\\\n", " ").splitlines():
            if match := re.match(r"cd (demo-[\w-]+)", line):
                folder = match[1]
            elif found := script_of(line.removeprefix("$ "), folder):
                yield found


def typed_in_text(document: str) -> Iterator[Typed]:
    """The commands between the lines, in the folder where their script lies."""
    for code in IN_CODE.findall(without_blocks(read(document))):
        if found := script_of(code, ""):
            folder, script, words = found
            there = [place for place in places(document) if (ROOT / place / script).is_file()]
            yield folder or (there or [""])[0], script, words


def typed(document: str) -> list[Typed]:
    return [*typed_in_blocks(document), *typed_in_text(document)]


@pytest.fixture(scope="module")
def known_options() -> dict[tuple[str, str], set[str]]:
    """The options of each script that a document uses with one: (folder, script) to "--name"s."""
    used = {
        (folder, script)
        for document in ALL
        for folder, script, words in typed(document)
        if any(word.startswith("-") for word in words) and (ROOT / folder / script).is_file()
    }
    pythons = sorted(f"{folder}//{script}" for folder, script in used if script.endswith(".py"))
    said = subprocess.run(
        [sys.executable, "-c", SHOW_HELP, *pythons],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=120,
    ).stdout
    options = {}
    for part in said.split("=== ")[1:]:
        name, _, text = part.partition("\n")
        folder, _, script = name.partition("//")
        options[folder, script] = set(OPTION.findall(text))
    assert len(options) == len(pythons)
    for folder, script in used:
        if not script.endswith(".py"):
            options[folder, script] = set(OPTION.findall(shell_help(folder, script)))
    return options


def shell_help(folder: str, script: str) -> str:
    """What --help says, or the comment at the top for a script that has no --help."""
    text = (ROOT / folder / script).read_text()
    if script == "workshop.sh" or "--help" in text:
        result = subprocess.run(
            [ROOT / folder / script, "--help"], check=True, capture_output=True, text=True, timeout=60
        )
        return result.stdout
    return "\n".join(line for line in text.splitlines() if line.startswith("#"))


@pytest.mark.parametrize("document", LINKED)
def test_links_inside_the_repository_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", without_blocks(read(document))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), f"{document} links to {target}"
        if anchor:
            assert anchor in heading_links(file.read_text()), f"{document} links to {target}"


@pytest.mark.parametrize("document", LINKED)
def test_images_exist_and_have_a_description(document: str) -> None:
    text = without_blocks(read(document))
    for description, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)[^)]*\)", text):
        assert len(description.split()) >= 3, f"{document}: {target} needs a description in words"
        assert ((ROOT / document).parent / target).is_file(), f"{document} shows {target}"
    for tag in re.findall(r"<img[^>]*>", text):
        assert re.search(r'alt="[^"]+ [^"]+"', tag), f"{document}: {tag}"


@pytest.mark.parametrize("document", ALL)
def test_files_that_are_named_exist_or_are_made_by_a_demo(document: str) -> None:
    for name in IN_CODE.findall(without_blocks(read(document))):
        if FILE_NAME.fullmatch(name):
            found = [f"{place}/{name}".strip("/") for place in places(document)]
            assert any((ROOT / path).exists() or is_made(path) for path in found), f"{document}: {name}"


@pytest.mark.parametrize("document", ALL)
def test_commands_that_are_typed_exist(document: str) -> None:
    commands = typed(document)
    assert commands or document in PAGES
    for folder, script, _ in commands:
        assert (ROOT / folder / script).is_file(), f"{document} types {script}: {folder}/ has none"
        if script.endswith(".sh"):
            assert os.access(ROOT / folder / script, os.X_OK), f"{folder}/{script} is not executable"


@pytest.mark.parametrize("document", ALL)
def test_options_that_are_typed_are_in_the_help(
    document: str, known_options: dict[tuple[str, str], set[str]]
) -> None:
    for folder, script, words in typed(document):
        for word in words:
            if re.match(r"--?[a-zA-Z]", word):
                option = word.split("=")[0]
                known = known_options.get((folder, script), set())
                assert option in known, f"{document}: {script} has no {option}"


@pytest.mark.parametrize("document", ALL)
def test_workshop_commands_are_in_its_help(document: str) -> None:
    said = shell_help("", "workshop.sh")
    lines = dict(re.findall(r"^ +\./workshop\.sh (\w+)(.*)$", said, flags=re.MULTILINE))
    for _, script, words in typed(document):
        if script == "workshop.sh" and words:
            assert words[0] in lines, f"{document}: ./workshop.sh {words[0]}"
            for word in words[1:]:
                known = re.findall(r"[\w-]+", lines[words[0]])
                assert word in [*known, "--plain"], f"{document}: ./workshop.sh {shlex.join(words)}"


@pytest.mark.parametrize("document", ALL)
def test_settings_that_are_named_exist(document: str) -> None:
    for name in set(SETTING.findall(read(document))):
        assert name in settings(), f"{document} names {name}"


def settings() -> set[str]:
    """The environment variables of ours that any code reads."""
    patterns = (
        "workshop.sh",
        ".ci/run",
        "scripts/*.sh",
        "tests/conftest.py",
        "tests/test_chain.py",
        "tests/poisoning/poisoning_tools.py",
        "tests/real_*",
        "demo-*/**/*.py",
        "demo-*/*.sh",
    )
    files = [path for pattern in patterns for path in ROOT.glob(pattern)]
    return {name for path in files for name in SETTING.findall(path.read_text(encoding="utf-8"))}


def test_every_setting_is_explained() -> None:
    explained = set(re.findall(r"^\| `(WORKSHOP_[A-Z_]+)` \|", read("CONTRIBUTING.md"), flags=re.MULTILINE))
    assert explained == settings()


@pytest.mark.parametrize("document", ALL)
def test_no_figure_is_left_open(document: str) -> None:
    assert sorted(set(re.findall(r"@@\w*@*", read(document)))) == []


@pytest.mark.parametrize("number, demo", list(enumerate(DEMOS, 1)))
def test_the_demos_share_one_skeleton(number: int, demo: str) -> None:
    text = without_blocks(read(f"{demo}/README.md"))
    titles = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert titles == SKELETON
    assert text.startswith(f"# Demo {number}: ")
    first = text.split("\n\n")[1]
    assert len(first.split()) >= 20 and not first.startswith("#"), "a paragraph that says what and why"


@pytest.mark.parametrize("demo", DEMOS)
def test_each_demo_names_every_file_that_it_has(demo: str) -> None:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT / demo, check=False, capture_output=True, text=True
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    named = " ".join(IN_CODE.findall(section(read(f"{demo}/README.md"), "Files")))
    for path in filter(None, listing.stdout.split("\0")):
        name = path.split("/")[0]
        if name not in ("README.md", ".dockerignore"):
            assert name in named, f"{demo}/README.md does not say what {name} is for"


def test_the_readme_starts_with_the_two_commands() -> None:
    """The first screen types the first of them, after what brings the files."""
    assert code_blocks(read("README.md"))[0][1].splitlines()[-1] == "./workshop.sh run"
    assert code_blocks(section(read("README.md"), "Start"))[0][1] == "./workshop.sh run\n./workshop.sh test\n"


def test_the_readme_lists_what_is_in_the_repository() -> None:
    part = section(read("README.md"), "What is in this repository")
    listed = [line.split()[0] for line in block_lines(part, "text")]
    assert listed
    for name in listed:
        assert (ROOT / name).exists(), name
    for path in [*ROOT.glob("*.*"), *ROOT.glob("demo-*"), *ROOT.glob("scripts/*.sh")]:
        if path.is_file() and not path.name.startswith("."):
            assert path.name in part, f"README.md does not say what {path.name} is for"


def block_lines(text: str, *languages: str) -> list[str]:
    blocks = [block for language, block in code_blocks(text) if language in languages]
    return "".join(blocks).splitlines()


def test_the_run_of_show_adds_up() -> None:
    text = read("WORKSHOP.md")
    parts = re.findall(r"^\| (\d+) to (\d+) \| ([^|]*) \| (\d+) \|$", text, flags=re.MULTILINE)
    assert all(int(end) - int(start) == int(length) for start, end, _, length in parts)
    assert [start for start, *_ in parts] == ["0", *(end for _, end, *_ in parts[:-1])]
    assert 110 <= sum(int(length) for *_, length in parts) <= 120
    for number, demo_length in enumerate((25, 30, 20), 1):
        (length,) = (int(length) for *_, name, length in parts if name.startswith(f"demo {number}:"))
        steps = re.findall(
            rf"^### Step {number}\.\d+: .* \((\d+) minutes?(?:, .*)?\)$", text, flags=re.MULTILINE
        )
        assert length == demo_length == sum(map(int, steps))


@pytest.mark.parametrize("document", ["demo-poisoning/README.md", "docs/poisoning/scan.md", "WORKSHOP.md"])
def test_the_threshold_is_the_one_in_the_code(document: str) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("demo-poisoning/**/*.py"))
    (threshold,) = re.findall(r"^THRESHOLD = ([\d.]+)", code, flags=re.MULTILINE)
    said = re.findall(r"(?:uses a threshold of|flags a pair if its index is above) (\S+)", read(document))
    assert said == [threshold]
