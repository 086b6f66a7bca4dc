"""./workshop.sh reset: what it removes, what it puts back, what it asks, and what it leaves alone."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
from workshop_bench import Bench, files


@pytest.fixture
def bench(root: Path, tmp_path: Path) -> Bench:
    return Bench(root, tmp_path)


@pytest.fixture
def used_bench(bench: Bench) -> Bench:
    """A checkout in which everything was made, beside files that are tracked or the user's own."""
    home = bench.home
    made = (
        "demo-malicious/a.pt demo-malicious/a.safetensors demo-poisoning/data/train/stop/1.png "
        "demo-poisoning/models/clean_model.pt demo-poisoning/scan_results/clean/x.png "
        "demo-poisoning/outputs/y.png demo-supply-chain/results/z.json .venv/workshop-installed-dev "
        "results/docker/demo-poisoning/x.png"
    )
    for path in (
        *made.split(),
        "demo-poisoning/outputs/tracked.txt",
        "demo-malicious/tracked.pt",
        "notes.txt",
    ):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(path)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    tracked = ["workshop.sh", "scripts", "demo-poisoning/outputs/tracked.txt", "demo-malicious/tracked.pt"]
    subprocess.run([*git, "init", "-q"], cwd=home, check=True)
    subprocess.run([*git, "add", "-f", *tracked], cwd=home, check=True)
    subprocess.run([*git, "commit", "-qm", "x"], cwd=home, check=True)
    return bench


def test_reset_removes_what_was_made_and_nothing_else(used_bench: Bench) -> None:
    before = files(used_bench.home)
    result = used_bench("reset")
    assert result.returncode == 0, result.stderr
    assert before - files(used_bench.home) == {
        "demo-malicious/a.pt",
        "demo-malicious/a.safetensors",
        "demo-poisoning/data/train/stop/1.png",
        "demo-poisoning/models/clean_model.pt",
        "demo-poisoning/scan_results/clean/x.png",
        "demo-poisoning/outputs/y.png",
        "demo-supply-chain/results/z.json",
        "results/docker/demo-poisoning/x.png",
    }
    assert "Remove .venv" in result.stdout and "kept" in result.stdout
    assert not (used_bench.home / "results").exists()


def test_reset_of_one_demo_leaves_the_others(used_bench: Bench) -> None:
    before = files(used_bench.home)
    assert used_bench("reset", "1").returncode == 0
    assert before - files(used_bench.home) == {"demo-malicious/a.pt", "demo-malicious/a.safetensors"}


def test_reset_keeps_images_without_a_terminal_and_removes_them_with_yes(used_bench: Bench) -> None:
    used_bench.docker()
    image = used_bench.log.parent / "images/pickle-demo"
    image.write_text("label\n")
    assert "Remove the image pickle-demo (123 MB)? Not asked" in used_bench("reset").stdout
    assert image.exists()
    (used_bench.log.parent / "images/grype-demo").write_text("label\n")
    used_bench.logged()
    result = used_bench("reset", "--yes")
    assert result.returncode == 0, result.stderr
    assert not image.exists()
    assert "docker volume rm grype-demo-db" in used_bench.logged()
    assert not (used_bench.home / ".venv").exists()
    assert (used_bench.home / "demo-malicious/tracked.pt").exists()


def answer_on_a_terminal(bench: Bench, answer: bytes, *args: str) -> str:
    """Type `./workshop.sh reset ARGS` on a terminal, with this answer to every question."""
    master, terminal = pty.openpty()
    os.write(master, answer)
    result = subprocess.run(
        [str(bench.home / "workshop.sh"), "reset", *args],
        check=True,
        env=bench.environment(),
        stdin=terminal,
        capture_output=True,
        text=True,
        timeout=60,
    )
    os.close(master)
    os.close(terminal)
    return result.stdout


@pytest.mark.parametrize(("answer", "kept"), [(b"n\n", True), (b"\n", True), (b"y\n", False)])
def test_reset_asks_on_a_terminal(used_bench: Bench, answer: bytes, kept: bool) -> None:
    used_bench.docker()
    image = used_bench.log.parent / "images/pickle-demo"
    image.write_text("label\n")
    answer_on_a_terminal(used_bench, answer, "1")
    assert image.exists() is kept


def git(folder: Path, *args: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(
        ["git", *who, *args], cwd=folder, check=True, capture_output=True, text=True, timeout=60
    ).stdout


@pytest.fixture
def clone(root: Path, bench: Bench) -> Bench:
    """A clone of this repository, with today's workshop.sh; no Docker engine in sight."""
    shutil.rmtree(bench.home)
    if subprocess.run(["git", "rev-parse"], cwd=root, check=False, capture_output=True).returncode != 0:
        pytest.skip("not a git checkout")
    git(root, "clone", "--quiet", str(root), str(bench.home))
    shutil.copy(root / "workshop.sh", bench.home)
    shutil.copytree(root / "scripts", bench.home / "scripts", dirs_exist_ok=True)
    git(bench.home, "add", "--all")
    git(bench.home, "commit", "--quiet", "--allow-empty", "--message", "today")
    return bench


def do_the_exercises(bench: Bench) -> set[str]:
    """Type each `sed` of the exercises' solutions; give the files that they changed."""
    changed = set()
    for document in bench.home.glob("demo-*/EXERCISES.md"):
        for command in re.findall(r"^sed -i\.bak .*$", document.read_text(), flags=re.MULTILINE):
            name = command.split()[-1]
            if (document.parent / f"{name}.bak").exists():  # put it back before the next exercise, as asked
                (document.parent / f"{name}.bak").replace(document.parent / name)
            subprocess.run(["bash", "-c", command], cwd=document.parent, check=True)
            changed.add(f"{document.parent.name}/{name}")
    assert changed == set(git(bench.home, "diff", "--name-only").splitlines())
    return changed


def listed_as_changed(bench: Bench) -> set[str]:
    """The files that reset.sh says the exercises change."""
    text = (bench.home / "scripts/reset.sh").read_text()
    return set(" ".join(re.findall(r'^CHANGED_BY_\d="(.*)"$', text, flags=re.MULTILINE)).split())


def test_reset_undoes_the_exercises(clone: Bench) -> None:
    before = files(clone.home)
    changed = do_the_exercises(clone)
    assert changed == listed_as_changed(clone)
    result = clone("reset", "--yes")
    assert result.returncode == 0, result.stderr
    for name in changed:
        assert f"Put back {name}, as git has it." in result.stdout
        assert f"Removed {name}.bak." in result.stdout
    assert git(clone.home, "status", "--porcelain") == ""
    assert files(clone.home) == before


def test_reset_without_a_terminal_keeps_a_change_and_the_copy_of_the_original(clone: Bench) -> None:
    changed = do_the_exercises(clone)
    before = {name: (clone.home / name).read_bytes() for name in files(clone.home)}
    result = clone("reset")
    assert result.returncode == 0, result.stderr
    for name in changed:
        assert f"Discard the change to {name} and put the original back? Not asked" in result.stdout
    assert {name: (clone.home / name).read_bytes() for name in files(clone.home)} == before


@pytest.mark.parametrize(("answer", "kept"), [(b"n\n", True), (b"y\n", False)])
def test_reset_asks_before_it_discards_a_change(clone: Bench, answer: bytes, kept: bool) -> None:
    trigger = clone.home / "demo-poisoning/trigger.py"
    original = trigger.read_text()
    trigger.write_text(original + "# mine\n")
    said = answer_on_a_terminal(clone, answer, "2")
    assert "Discard the change to demo-poisoning/trigger.py" in said
    assert ("Put back demo-poisoning/trigger.py" in said) is not kept
    assert (trigger.read_text() == original) is not kept


def test_reset_leaves_alone_what_no_exercise_changed(clone: Bench) -> None:
    readme, trigger = clone.home / "demo-poisoning/README.md", clone.home / "demo-poisoning/trigger.py"
    readme.write_text("my notes\n")
    shutil.copy(trigger, f"{trigger}.bak")  # somebody has put the original back by hand
    written = trigger.stat().st_mtime_ns
    result = clone("reset", "--yes")
    assert "Put back" not in result.stdout
    assert "Removed demo-poisoning/trigger.py.bak." in result.stdout
    assert readme.read_text() == "my notes\n"
    assert trigger.stat().st_mtime_ns == written
    assert git(clone.home, "status", "--porcelain") == " M demo-poisoning/README.md\n"


def test_reset_of_one_demo_puts_back_the_files_of_that_demo_alone(clone: Bench) -> None:
    do_the_exercises(clone)
    clone("reset", "1", "--yes")
    assert git(clone.home, "status", "--porcelain") == " M demo-poisoning/trigger.py\n"
    assert (clone.home / "demo-poisoning/trigger.py.bak").exists()


def test_reset_puts_back_a_deleted_and_a_staged_file_and_any_file_with_a_copy(clone: Bench) -> None:
    (clone.home / "demo-poisoning/trigger.py").unlink()
    (clone.home / "demo-malicious/exercise3.toml").write_text("mine\n")
    git(clone.home, "add", "demo-malicious/exercise3.toml")
    policy = clone.home / "demo-malicious/policy.toml"
    shutil.copy(policy, f"{policy}.bak")
    policy.write_text("mine\n")
    result = clone("reset", "--yes")
    assert result.stdout.count("Put back ") == 3
    assert git(clone.home, "status", "--porcelain") == ""
    assert not list(clone.home.glob("demo-*/*.bak"))


def test_reset_without_git_takes_the_copies(clone: Bench) -> None:
    original = {name: (clone.home / name).read_bytes() for name in files(clone.home)}
    changed = do_the_exercises(clone)
    shutil.rmtree(clone.home / ".git")
    result = clone("reset", "--yes")
    assert result.returncode == 0, result.stderr
    for name in changed:
        assert f"Put back {name}, from {name}.bak." in result.stdout
    assert {name: (clone.home / name).read_bytes() for name in files(clone.home)} == original


def test_reset_without_git_and_without_a_copy_changes_nothing(clone: Bench) -> None:
    trigger = clone.home / "demo-poisoning/trigger.py"
    trigger.write_text("mine\n")
    shutil.rmtree(clone.home / ".git")
    assert "trigger.py" not in clone("reset", "--yes").stdout
    assert trigger.read_text() == "mine\n"
