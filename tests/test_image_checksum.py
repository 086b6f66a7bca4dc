"""scripts/containers.sh: an image is built again if, and only if, something changes that it is made of."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEMOS = ("demo-malicious", "demo-poisoning", "demo-supply-chain")

DOCKERFILE = """\
FROM python AS build
COPY requirements.txt /build/
COPY --chown=1:1 *.py \\
    *.toml *.sh ./
FROM build AS more
COPY . ./
FROM python
COPY --from=more /app /app
"""
DOCKERIGNORE = """\
# only what the Dockerfile copies

*
!*.py
!*.sh
!*.toml
!*.html
!*.json
!requirements.txt
!images
!scanner/*.py
!deep/**/*.txt
images/draft*
"""
IN_THE_IMAGE = (
    "detect.py",
    "build.sh",
    "report.html",
    "policy.toml",
    "scans.json",
    ".hidden.py",
    "requirements.txt",
    "images/stop.png",
    "images/small/stop.png",
    "scanner/search.py",
    "deep/a.txt",
    "deep/er/still/a.txt",
)
NOT_IN_THE_IMAGE = (
    "README.md",
    "scanner/notes.md",
    "scanner/deeper/search.py",
    "images/draft.png",
    "data/train/1.png",
    "__pycache__/detect.cpython-312.pyc",
    "requirements.in",
)


def bash(command: str, root: Path, **env: str) -> str:
    """What a command says in which the functions of containers.sh are known; ROOT is the folder given."""
    parts = f'. "{ROOT}/scripts/say.sh"; . "{ROOT}/scripts/containers.sh"'
    result = subprocess.run(
        ["bash", "-c", f"set -u -o pipefail; {parts}; {command}"],
        check=True,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "ROOT": str(root), "WORKSHOP_BUILD_ARGS": ""} | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stderr == ""
    return result.stdout


def checksum(folder: Path, **env: str) -> str:
    """The checksum of a demo folder, as the image's label holds it."""
    said = bash(f'source_checksum "{folder.name}"', folder.parent, **env)
    assert said.count("-") == 1
    return said


def copied(folder: Path) -> list[str]:
    """The files that the folder's Dockerfile copies, as containers.sh sees it."""
    return bash(f'cd "{folder}" && copied_files', folder.parent).splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A demo folder with one file of each kind, most of them in its image."""
    folder = tmp_path / "a demo"
    for name in (*IN_THE_IMAGE, *NOT_IN_THE_IMAGE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / ".dockerignore").write_text(DOCKERIGNORE)
    return folder


def test_the_files_are_exactly_those_that_are_copied(folder: Path) -> None:
    assert copied(folder) == sorted(IN_THE_IMAGE)


@pytest.mark.parametrize("name", [*IN_THE_IMAGE, "Dockerfile", ".dockerignore"])
def test_a_change_of_what_is_in_the_image_changes_the_checksum(folder: Path, name: str) -> None:
    before = checksum(folder)
    text = (folder / name).read_text()
    (folder / name).write_text(text + "# changed\n")
    assert checksum(folder) != before
    (folder / name).write_text(text)
    assert checksum(folder) == before


@pytest.mark.parametrize("name", NOT_IN_THE_IMAGE)
def test_a_change_of_what_is_not_in_the_image_changes_nothing(folder: Path, name: str) -> None:
    before = checksum(folder)
    (folder / name).write_text("changed")
    assert checksum(folder) == before
    (folder / name).unlink()
    assert checksum(folder) == before


def test_names_rights_and_build_arguments_count(folder: Path) -> None:
    sums = [checksum(folder)]
    (folder / "build.sh").chmod(0o755)
    sums.append(checksum(folder))
    (folder / "scanner/search.py").rename(folder / "scanner/searching.py")
    sums.append(checksum(folder))
    (folder / "new.py").touch()
    sums += [checksum(folder), checksum(folder, WORKSHOP_BUILD_ARGS="--build-arg TORCH_INDEX=")]
    assert len(set(sums)) == len(sums)


@pytest.mark.parametrize(
    "line", ['COPY ["detect.py", "/app/"]', "COPY $FILES /app/", "ADD . /app", "COPY ./ /app", "copy / /app"]
)
def test_a_copy_that_names_no_plain_files_counts_as_all_of_the_folder(folder: Path, line: str) -> None:
    (folder / "Dockerfile").write_text(f"FROM python\n{line}\n")
    assert copied(folder) == sorted(IN_THE_IMAGE)


def test_without_dockerignore_everything_that_is_copied_counts(folder: Path) -> None:
    (folder / ".dockerignore").unlink()
    (folder / "Dockerfile").write_text("FROM python\nCOPY scanner *.md /app/\n")
    assert copied(folder) == [
        "README.md",
        "scanner/deeper/search.py",
        "scanner/notes.md",
        "scanner/search.py",
    ]


@pytest.fixture(params=DEMOS)
def demo(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a real demo folder, with things in it that a run leaves behind."""
    made = shutil.ignore_patterns("data", "models", "results", "scan_results", "outputs", ".mypy_cache")
    folder = Path(shutil.copytree(ROOT / request.param, tmp_path / request.param, ignore=made))
    for name in ("data/train/stop/1.png", "models/clean_model.pt", "results/x.json", "notes.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("made")
    return folder


def test_every_kind_of_file_of_a_demo_counts(demo: Path) -> None:
    """One file of each kind and folder that git tracks, but for what only people on this side need."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT / demo.name, check=False, capture_output=True, text=True
    )
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    outside = {".md", ".in", ".dockerignore", "Dockerfile"}
    kinds = {}
    for name in filter(None, tracked.stdout.split("\0")):
        path = Path(name)
        kind = path.suffix or path.name
        scripts_stay = demo.name == "demo-malicious" and kind == ".sh"  # they start the container
        apart = path.parts[0] in ("hardened", "kubernetes")  # an app and rules of their own, in other images
        if (demo / path).is_file() and kind not in outside and not scripts_stay and not apart:
            kinds[path.parent, kind] = path
    assert len(kinds) >= 4
    before = checksum(demo)
    for path in kinds.values():
        content = (demo / path).read_bytes()
        (demo / path).write_bytes(content + b"\n")
        assert checksum(demo) != before, path
        (demo / path).write_bytes(content)
    for name in ("README.md", "notes.md", "data/train/stop/1.png", "models/clean_model.pt", "results/x.json"):
        (demo / name).write_text("changed")
    assert checksum(demo) == before


@pytest.mark.docker
def test_docker_copies_the_same_files(demo: Path, docker: Any) -> None:
    """The engine itself says what the COPY lines give: into an empty image, which it writes to a folder."""
    lines = (demo / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copies = [line.split() for line in lines if line.startswith("COPY ") and "--from=" not in line]
    sources = [[word for word in words[1:-1] if not word.startswith("--")] for words in copies]
    # each goes into a numbered folder, and there to its own place
    made = []
    for number, source in enumerate(word for words in sources for word in words):
        inside = source if (demo / source).is_dir() else source.rpartition("/")[0]
        made.append(f"COPY {source} /{number}/{inside}/")
    (demo.parent / "Dockerfile").write_text("\n".join(["FROM scratch", *made, ""]))
    out = demo.parent / "out"
    built = docker("build", "-f", str(demo.parent / "Dockerfile"), "-o", str(out), str(demo))
    assert built.returncode == 0, built.stdout + built.stderr
    there = {
        str(path.relative_to(out / path.relative_to(out).parts[0]))
        for path in out.rglob("*")
        if path.is_file()
    }
    assert sorted(there) == copied(demo)
