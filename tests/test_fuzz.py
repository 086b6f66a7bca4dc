"""A short run of the fuzzer (fuzz_models.py says how to start a long one), and that it finds faults."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for fuzz_models.py, which starts itself again
import fuzz_files
import fuzz_models
from fuzz_files import ModelFile
from fuzz_models import Fuzzer

RANDOM_FILES = 500
FOUND = {  # tricks that broke a command once
    "model, sparse",
    "model, conjugated",
    "model, one number that claims to be 2 GB",
    "zip, zip bomb as tensor",
    "zip, a damaged start and the end of a set of disks",
    "zip, pickle with a list that doubles 40 times",
    "zip, pickle with a name with control characters",
}


@pytest.fixture(scope="module")
def trying() -> Iterator[Fuzzer]:
    """A fuzzer of all commands; its figures are shown at the end."""
    with fuzz_models.fuzzer() as made:
        yield made
        fuzz_models.report(made.summary)


def test_every_trick(trying: Fuzzer) -> None:
    """Each through the commands that have to understand it and one of the others; the long run tries all."""
    problems = {}
    for number, file in enumerate(trying.tricks()):
        targets = ["inspect", "convert", ("serve", "load", "verify", "sign", "check", "http")[number % 6]]
        if file in trying.signatures:
            targets = ["verify"]
        elif file.name in FOUND:
            targets = trying.targets
        if found := trying.try_file(file, targets):
            problems[file.name] = found
    assert problems == {}
    codes = trying.summary.codes
    # the files are not refused for some reason that has nothing to do with them
    for name in (
        "inspect 0",
        "inspect 1",
        "inspect 2",
        "convert 0",
        "convert 1",
        "convert 2",
        "serve 1",
        "http 1",
    ):
        assert codes[name] > 0, codes
    assert codes["verify 0"] == len(trying.signatures), "only the genuine signatures hold"
    assert trying.summary.files > 150
    assert {file.name for file in trying.tricks()} >= FOUND


@settings(
    max_examples=RANDOM_FILES,
    derandomize=True,  # the same files every time; the long run is for new ones
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(rng=st.randoms(use_true_random=False))
def test_random_mutations(trying: Fuzzer, rng: random.Random) -> None:
    """Each file through one command. If one fails, Hypothesis looks for a smaller change that fails, too."""
    file = trying.mutated(rng)
    target = "verify" if file.suffix.endswith(".sig") else rng.choice(trying.targets)
    assert trying.try_file(file, [target]) == [], file


@pytest.mark.parametrize("target", fuzz_models.TARGETS)
def test_what_is_no_file(trying: Fuzzer, target: str) -> None:
    """A pipe that nobody writes to, an endless device, a folder, links to nothing and to itself."""
    places = {
        name: trying.worker.out / f"{name}.pt" for name in ("pipe", "zero", "folder", "nothing", "loop")
    }
    os.mkfifo(places["pipe"])
    places["zero"].symlink_to("/dev/zero")
    places["folder"].mkdir()
    places["nothing"].symlink_to("no such file")
    places["loop"].symlink_to("loop.pt")
    for name, path in places.items():
        answer = trying.worker.ask(target, path.name)
        assert fuzz_models.rules_broken(answer) == [], name
        assert answer.code == 2, name
        path.rmdir() if name == "folder" else path.unlink()


# --- the fuzzer itself -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def naive() -> Iterator[Fuzzer]:
    """A fuzzer of a command that does everything wrong (naive_command.py)."""
    with fuzz_models.fuzzer(["naive"]) as made:
        yield made


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ("wait", "more than 1 seconds"),
        ("fill", "more than 1000 MB"),
        ("die", "the process died (-6)"),
        ("write outside", "wrote escape"),
        ("leave a half-written file", "wrote out/half-written"),
        ("remove a file", "removed out/lax.toml"),
        ("say \x1b[2J", "control characters in the output: ['\\x1b']"),
        ("complain without a sentence", "code 2 without one sentence on stderr"),
        ("complain error: one\nTwo.", "code 2 without one sentence on stderr"),
        ("no model", "a traceback: "),
    ],
)
def test_the_fuzzer_finds(naive: Fuzzer, monkeypatch: pytest.MonkeyPatch, order: str, found: str) -> None:
    if order == "wait":
        monkeypatch.setattr(fuzz_models, "SECONDS", 1)
    problems = naive.try_file(ModelFile(order, ".pt", order.encode()))
    assert any(problem.startswith(f"naive: {found}") for problem in problems), problems
    assert naive.try_file(ModelFile("nothing", ".pt", b"say nothing")) == [], "it goes on with the next file"


def test_the_fuzzer_finds_a_payload_that_runs(naive: Fuzzer) -> None:
    for seed in naive.seeds:
        problems = naive.try_file(seed)
        if seed.name.startswith("malicious") and seed.suffix == ".pt":
            assert "naive: wrote marker" in problems, seed.name
            assert any("os.system" in problem for problem in problems), seed.name
        elif seed.name.startswith("clean"):
            assert problems == [], seed.name


def test_what_a_file_would_import_is_noted_without_running_it(tmp_path: Path) -> None:
    """This is how the fuzzer knows that a file is called clean by mistake."""
    marker = tmp_path / "marker"
    for seed in fuzz_files.seeds(marker):
        path = tmp_path / f"model{seed.suffix}"
        path.write_bytes(seed.data)
        names = fuzz_models.disallowed_names(path)
        clean = seed.name.startswith(("clean", "safetensors"))
        assert (names == []) == clean, (seed.name, names)
    path.write_bytes(pickle.dumps(fuzz_files.Calls(eval, "1")))
    assert fuzz_models.disallowed_names(path) == ["builtins.eval"]
    assert not marker.exists()


def test_the_bombs_are_real(tmp_path: Path) -> None:
    """A trick that does not work would test nothing: these really unpack to 2 GB, or claim to."""
    tricks = {file.name: file for file in fuzz_files.tricks(tmp_path / "marker")}
    path = tmp_path / "model.pt"
    path.write_bytes(tricks["model, one number that claims to be 2 GB"].data)
    assert torch.load(path)["a"].nbytes == fuzz_files.BOMB
    path.write_bytes(tricks["zip, zip bomb as tensor"].data)
    assert path.stat().st_size < 3_000_000
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("archive/data/0").file_size == fuzz_files.BOMB
        with archive.open("archive/data/0") as member:
            assert member.read(2**24) == bytes(2**24)  # not all of it


def test_a_short_coverage_guided_run(tmp_path: Path) -> None:
    """Where atheris is installed; it is not among the project's tools."""
    pytest.importorskip("atheris", reason="atheris is not installed (fuzz_coverage.py says how)")
    script = Path(__file__).resolve().parent / "fuzz_coverage.py"
    command = [sys.executable, str(script), str(tmp_path / "corpus"), "-runs=300", "-max_len=20000"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Done 300 runs" in done.stderr
