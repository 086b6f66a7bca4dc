"""The repository as a whole: what must hold for every file that git tracks."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

DEMOS = ("demo-malicious", "demo-poisoning", "demo-supply-chain")
PYTHON_DEMOS = ("demo-malicious", "demo-poisoning")

# in pieces, so that this file does not hold them itself
REGISTRY_HOSTS = ("pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org", "deb.debian" + ".org")

# what bash 4 and 5 brought; macOS still has 3.2
NEW_BASH = {
    "mapfile or readarray": r"\b(mapfile|readarray)\b",
    "an associative array": r"\b(declare|local|typeset)\s+-\w*A",
    "a name reference": r"\b(declare|local|typeset)\s+-\w*n\b",
    "a global declaration": r"\b(declare|typeset)\s+-\w*g",
    "a change of case": r"\$\{\w+(\[[^]]*\])?(,|\^)",
    "a transformation": r"\$\{\w+@\w\}",
    "a pipe with errors": r"\|&",
    "an appending redirection of both streams": r"&>>",
    "a negative index": r"\$\{\w+\[-",
    "a fall-through in case": r";;?&",
    "a coprocess": r"\bcoproc\b",
    "wait for the next job": r"\bwait\s+-n\b",
    "a test for a set variable": r"\[\[\s+-v\s",
    "globstar": r"\bglobstar\b",
    "time in printf": r"printf\s.*%\(",
    "a clock variable": r"\$\{?EPOCH(SECONDS|REALTIME)",
}


@pytest.fixture(scope="module")
def tracked(root: Path) -> list[Path]:
    """Every file that git tracks, as a path from the root."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=False, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [Path(name) for name in listing.stdout.split("\0") if name and (root / name).is_file()]


@pytest.fixture(scope="module")
def scripts(root: Path, tracked: list[Path]) -> list[Path]:
    """The shell scripts that people start; the other .sh files are parts that a script reads."""
    shell = [path for path in tracked if is_shell(path)]
    return [path for path in shell if not (root / path).read_text().startswith("# shellcheck shell=")]


def is_shell(path: Path) -> bool:
    return path == Path(".ci/run") or path.suffix == ".sh"


def test_no_file_names_a_package_registry(root: Path, tracked: list[Path]) -> None:
    for path in tracked:
        text = (root / path).read_bytes().decode("utf-8", errors="replace")
        for host in REGISTRY_HOSTS:
            assert host not in text, f"{path} names {host}"


def test_nothing_depends_on_what_lies_beside_the_repository(root: Path, tracked: list[Path]) -> None:
    """Tests find data that is not here by WORKSHOP_TEST_DATA alone; .ci/run holds the one default."""
    above = re.compile(r"\b(ROOT|root)\.parent\s*/|\$ROOT\"?/\.\.|\.\./shared|/work/")
    found = [
        str(path) for path in tracked if above.search((root / path).read_bytes().decode("utf-8", "replace"))
    ]
    assert [path for path in found if path != "tests/test_repository.py"] == [".ci/run"]


def test_no_tracked_file_is_large(root: Path, tracked: list[Path]) -> None:
    large = {str(path): (root / path).stat().st_size for path in tracked}
    assert {path: size for path, size in large.items() if size > 1_000_000} == {}


SHARED = {
    "cli.py": PYTHON_DEMOS,
    "statements/attestation.py": DEMOS,
    "statements/chain.py": ("demo-malicious", "demo-supply-chain"),
    "statements/predicates.py": DEMOS,
}


@pytest.mark.parametrize("name", SHARED)
def test_demos_carry_the_same_copy_of_what_they_share(root: Path, name: str) -> None:
    assert len({(root / demo / name).read_bytes() for demo in SHARED[name]}) == 1


def test_every_copied_file_is_known_to_be_one(root: Path) -> None:
    """Tests import them all as one package, so two files of one name must be the same."""
    found = [
        path.relative_to(root / demo) for demo in DEMOS for path in (root / demo / "statements").glob("*.py")
    ]
    assert {str(path) for path in found if found.count(path) > 1} == set(SHARED) - {"cli.py"}


def test_scripts_can_be_started(root: Path, scripts: list[Path]) -> None:
    assert Path("workshop.sh") in scripts
    for path in scripts:
        assert (root / path).stat().st_mode & 0o111 == 0o111, f"{path} is not executable"
        first = (root / path).read_text().splitlines()[0]
        # /bin/sh is for those that also run inside an image, where there may be no bash
        assert first in ("#!/usr/bin/env bash", "#!/bin/sh"), f"{path} starts with {first}"


def test_parts_of_scripts_cannot_be_started(root: Path, tracked: list[Path], scripts: list[Path]) -> None:
    parts = [path for path in tracked if is_shell(path) and path not in scripts]
    assert parts
    assert [str(path) for path in parts if (root / path).stat().st_mode & 0o111] == []


def test_git_records_that_scripts_are_executable(root: Path, scripts: list[Path]) -> None:
    listing = subprocess.run(
        ["git", "ls-files", "--stage", "--", *map(str, scripts)],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert len(listing) == len(scripts)
    assert [line for line in listing if not line.startswith("100755 ")] == []


def without_comments(text: str) -> str:
    return re.sub(r"(^|\s)#.*", "", text, flags=re.MULTILINE)


def test_scripts_use_no_newer_bash_than_3_2(root: Path, tracked: list[Path]) -> None:
    for path in filter(is_shell, tracked):
        text = without_comments((root / path).read_text())
        for what, pattern in NEW_BASH.items():
            found = re.search(pattern, text)
            assert not found, f"{path} uses {what}: {found and found.group()}"


def test_scripts_are_indented_by_four_spaces(root: Path, tracked: list[Path]) -> None:
    for path in filter(is_shell, tracked):
        for line in (root / path).read_text().splitlines():
            blank = re.match(r"\s*", line)
            assert blank and set(blank.group()) <= {" "} and len(blank.group()) % 4 == 0, f"{path}: {line}"


def test_every_list_in_bash_is_safe_when_it_is_empty(root: Path, tracked: list[Path]) -> None:
    """With `set -u`, bash 3.2 takes "${list[@]}" of an empty list for an error.

    So a list is expanded as ${list[@]+"${list[@]}"}, or under a comment or a test that says why it is full.
    """
    for path in filter(is_shell, tracked):
        for line in without_comments((root / path).read_text()).splitlines():
            bare = re.sub(r'\$\{(\w+)\[@\]\+"\$\{\1\[@\]\}"\}', "", line)
            for name in re.findall(r"\$\{(\w+)\[@\]\}", bare):
                assert is_never_empty(name, (root / path).read_text()), f"{path}: {name} in {line.strip()}"


def is_never_empty(name: str, text: str) -> bool:
    """The script starts the list with something in it, or looks at its length first."""
    return bool(re.search(rf"\b{name}=\([^)]", text)) or f"${{#{name}[@]}}" in text


def pins(text: str) -> dict[str, list[str]]:
    """Name and exact versions of each requirement; any other kind of requirement fails."""
    found: dict[str, list[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        requirement = line.split("#")[0].strip()
        if not requirement or requirement.startswith("-"):
            continue
        match = re.match(r"([\w.\-]+)(?:\[[^]]*\])?==([\w.+]+)(\s*;[^-]*)?(\s+--hash=\S+)*\s*$", requirement)
        assert match, f"not an exact pin: {requirement[:80]}"
        found.setdefault(match.group(1).lower(), []).append(match.group(2))
    return found


SHARED_LOCKS = [f"{demo}/requirements" for demo in DEMOS] + ["requirements-dev"]
LOCKS = [*SHARED_LOCKS, "demo-supply-chain/hardened/requirements"]  # an image of its own


@pytest.mark.parametrize("lock", [*LOCKS, "docs/requirements"])  # docs/ has an environment of its own
def test_requirements_are_exact_and_locked_with_hashes(root: Path, lock: str) -> None:
    direct = pins((root / f"{lock}.in").read_text())
    text = (root / f"{lock}.txt").read_text()
    locked = pins(text)
    assert direct
    for name, versions in direct.items():
        assert set(versions) <= set(locked.get(name, [])), f"{name} is not locked as {versions}"
    for entry in text.replace("\\\n", " ").splitlines():
        if "==" in entry.split("#")[0]:
            assert entry.count("--hash=sha256:") >= 1, f"{entry[:60]} has no hash"


def test_all_demos_take_the_same_torch(root: Path) -> None:
    versions: dict[str, set[str]] = {}
    for demo in PYTHON_DEMOS:
        for name, pinned in pins((root / demo / "requirements-torch.txt").read_text()).items():
            versions.setdefault(name, set()).update(pinned)
    assert set(versions) == {"torch", "torchvision"}
    assert [name for name, pinned in versions.items() if len(pinned) != 1] == []


def test_shared_packages_have_one_version(root: Path) -> None:
    """The demos and the tests share .venv, so the locks must agree on what they have in common."""
    locks = [pins((root / f"{lock}.txt").read_text()) for lock in SHARED_LOCKS]
    for name in {name for lock in locks for name in lock}:
        wanted = {tuple(sorted(lock[name])) for lock in locks if name in lock}
        assert len(wanted) == 1, f"{name}: {sorted(wanted)}"


@pytest.mark.parametrize("demo", DEMOS)
def test_every_demo_folder_is_complete(root: Path, demo: str) -> None:
    for name in ("Dockerfile", ".dockerignore", "README.md"):
        assert (root / demo / name).is_file(), f"{demo} has no {name}"


@pytest.mark.parametrize("demo", DEMOS)
def test_images_run_as_a_numeric_user_that_is_not_root(root: Path, demo: str) -> None:
    users = re.findall(r"^USER\s+(\S+)", (root / demo / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert users
    assert re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", users[-1]), f"last USER is {users[-1]}"
