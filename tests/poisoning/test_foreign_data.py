"""Demo 2: datasets as other people and their systems leave them: hidden files, links, any names."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

import audit_data
import cli
import make_dataset
import mitigate
import monitor
import poison_data
import signs
import train
from dataset import manifest, names
from dataset.files import class_files, open_image
from poisoning_tools import Refused, Run, contents, fine, small_world, text

STEERS = "zz\rResult: nothing stands out.\x1b[1A\x1b[2K\u202e.jpg"
SPOKEN = "zz\\rResult: nothing stands out.\\x1b[1A\\x1b[2K\\u202e.jpg"


@pytest.fixture(autouse=True)
def tiny_networks() -> Iterator[None]:
    with small_world():
        yield


@pytest.fixture
def own(tmp_path: Path, data: Path) -> Iterator[Path]:
    """A copy of the small dataset, with its manifest."""
    shutil.copytree(data, tmp_path / "own")
    manifest.write(tmp_path / "own")
    yield tmp_path / "own"
    shutil.rmtree(tmp_path / "own")  # with its hidden names, which look like scratch files


def an_image(own: Path) -> Path:
    return min((own / "val/stop").iterdir())


# --- nothing is learned that the manifest does not list ---------------------------------------------


def hide(own: Path) -> None:
    shutil.copy(an_image(own), own / "train/yield/.more.jpg")
    (own / "train/yield/._yield_00001.jpg").write_bytes(b"\0\5\x16\7Mac OS X")
    (own / "train/.ipynb_checkpoints").mkdir()
    shutil.copy(an_image(own), own / "train/.ipynb_checkpoints/yield.jpg")


def link(own: Path) -> None:
    (own.parent / "elsewhere").mkdir()
    shutil.copy(an_image(own), own.parent / "elsewhere/more.jpg")
    (own / "train/speed_20").symlink_to(own.parent / "elsewhere")


def deeper(own: Path) -> None:
    (own / "train/stop/more").mkdir()
    shutil.copy(an_image(own), own / "train/stop/more/more.jpg")


@pytest.mark.parametrize("more", [hide, link, deeper])
def test_the_manifest_lists_all_that_is_read(own: Path, more: Any) -> None:
    more(own)
    read = {path.relative_to(own).as_posix() for path, _ in class_files(own / "train")}
    assert read <= set(manifest.checksums(own))


def test_hidden_images_are_not_learned(run_main: Run, own: Path) -> None:
    """A manifest does not list them, so they were a way past it."""
    hide(own)
    proof = ("--manifest", "own.sha256")
    ended = fine(run_main(train, "--data", own, *proof, "--epochs", 1, "--model", "new/m.pt"))
    assert "Training on 80 images" in ended.stdout
    assert "added since own.sha256: 0" in fine(run_main(audit_data, own, *proof)).stdout
    assert not any("/." in path.relative_to(own.parent).as_posix() for path in monitor.image_files([own]))
    assert not any(name.startswith(".") for name in names.from_folders(own / "train"))


def test_a_linked_folder_counts_as_added(run_main: Run, assert_refused: Refused, own: Path) -> None:
    link(own)
    ended = run_main(train, "--data", own, "--manifest", "own.sha256", "--model", "new/m.pt")
    assert_refused(ended, "own.sha256", "1 added")
    assert not (own.parent / "new").exists()
    ended = run_main(audit_data, own, "--manifest", "own.sha256")
    assert (ended.returncode, "1: train/speed_20/more.jpg" in ended.stdout) == (1, True), text(ended)


def test_links_in_a_circle_end(own: Path) -> None:
    before = manifest.checksums(own)
    (own / "train/back").symlink_to("..")
    assert manifest.checksums(own) == before


def test_linked_images_are_watched(own: Path) -> None:
    before = len(monitor.image_files([own]))
    link(own)
    assert len(monitor.image_files([own])) == before + 1


def test_a_folder_that_cannot_be_read_is_not_passed_over(
    own: Path, monkeypatch: pytest.MonkeyPatch, run_main: Run, assert_refused: Refused
) -> None:
    """What was not read gets no verdict. (For root, who may run this, all can be read.)"""
    scan = os.scandir

    def deny(path: Any) -> Any:
        if str(path).endswith("train/stop"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", deny)
    assert_refused(run_main(monitor, own), "Cannot use", "train/stop (Permission denied)")


# --- any name ---------------------------------------------------------------------------------------


def test_a_manifest_of_any_names(tmp_path: Path) -> None:
    """In the way of sha256sum, which checks it."""
    some = ["a b", "new\nline", "re\rturn", "back\\slash", "\\n", "\u2028", "caf\udce9", " x", "ends\r"]
    for name in some:
        (tmp_path / f"d/{name}").mkdir(parents=True)
        (tmp_path / f"d/{name}/{name}").write_text(name, errors="surrogateescape")
    proof = manifest.write(tmp_path / "d")
    assert manifest.read(proof) == manifest.checksums(tmp_path / "d")
    assert set(manifest.read(proof)) == {f"{name}/{name}" for name in some}
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--quiet", proof], cwd=tmp_path / "d", check=True)


def test_a_name_cannot_steer_the_terminal(run_main: Run, own: Path) -> None:
    """Nor write a line of its own."""
    shutil.copy(an_image(own), own / "train/yield" / STEERS)
    said = run_main(audit_data, own, "--manifest", "own.sha256").stdout
    assert f"1: train/yield/{SPOKEN}." in said
    assert said.count("\r") == said.count("\x1b") == said.count("\u202e") == 0
    (own / "train/stop/x\ny.jpg").write_bytes(b"")
    ended = run_main(audit_data, own)
    assert ended.stderr.splitlines()[-1].startswith(f"error: {own}/train/stop/x\\ny.jpg cannot be read")


def test_only_what_is_not_seen_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    seen = "2\u00a0% Stra\u00dfe \u505c\u6b62 \U0001f6d1\tand \\n"
    assert cli.printable(seen) == seen
    assert cli.printable("a\nb\x00\x85\x9b") == r"a\nb\x00\x85\x9b"
    cli.Out(plain=True).table("t", ["n"], [["\x1b[2J"]])
    assert capsys.readouterr().out == "t (1 rows)\n- n: \\x1b[2J\n"


# --- poisoning other people's images ----------------------------------------------------------------


def test_images_of_any_name_and_kind_are_poisoned(run_main: Run, tmp_path: Path, own: Path) -> None:
    """A share of all images of the class."""
    for number, path in enumerate(sorted((own / "train/stop").iterdir())):
        if number % 2:
            path.rename(path.with_name(f"IMG {number}.JPG"))
        else:
            open_image(path).save(path.with_name(f"{number}.png"))
            path.unlink()
    before = manifest.checksums(own)
    fine(run_main(poison_data, "--clean-dir", own, "--poisoned-dir", "bad", "--rate", 0.75))
    assert len(list((tmp_path / "bad/train/stop").iterdir())) == 2
    changes = manifest.compare(before, manifest.checksums(tmp_path / "bad"))
    assert [len(names) for names in (changes.added, changes.removed, changes.modified)] == [6, 6, 0]
    assert {name.rpartition("/")[0] for name in changes.added} == {"train/yield"}
    assert manifest.checksums(own) == before


@pytest.mark.parametrize("kind", ["link to nowhere", "pipe"])
def test_what_cannot_be_copied_is_named(
    run_main: Run, assert_refused: Refused, tmp_path: Path, own: Path, kind: str
) -> None:
    odd = own / "val/notes"
    os.mkfifo(odd) if kind == "pipe" else odd.symlink_to("nowhere")
    ended = run_main(poison_data, "--clean-dir", own, "--poisoned-dir", "new")
    assert_refused(ended, f"{odd} cannot be copied")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own", "own.sha256"]


def test_a_damaged_image_is_named_where_it_lies(run_main: Run, assert_refused: Refused, own: Path) -> None:
    for path in (own / "train/stop").iterdir():
        path.write_bytes(b"no image")
    ended = run_main(poison_data, "--clean-dir", own, "--poisoned-dir", "new")
    assert_refused(ended, f"{own}/train/stop/stop_0", "cannot be read as an image")
    assert "/." not in ended.stderr  # a scratch folder, which is gone


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")  # to read it would take until somebody writes
    with pytest.raises(cli.UserError, match=r"a\.jpg cannot be read as an image"):
        open_image(tmp_path / "a.jpg")


# --- places to write to, numbers, and JSON ----------------------------------------------------------


def full_disk(*_: object, **__: object) -> None:
    raise RuntimeError("[enforce fail] PytorchStreamWriter failed writing file")


def full_disk_in_words(*_: object, **__: object) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("way", ["disk usage", "words"])
def test_a_full_disk_is_said(
    run_main: Run,
    assert_refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
    own: Path,
    way: str,
) -> None:
    """Libraries have errors of their own for it: torch's names no reason, that of SafeTensors does."""
    if way == "words":
        monkeypatch.setattr("network.classifier.save_file", full_disk_in_words)
    else:
        monkeypatch.setattr(torch, "save", full_disk)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    ended = run_main(train, "--data", own, "--epochs", 1, "--limit", 9, "--model", "new/m.pt")
    assert ended.returncode == 2, text(ended)
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1].endswith("(the disk is full): free some space there.")
    assert list((own.parent / "new").iterdir()) == []


def test_another_error_of_a_library_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="enforce"), cli.atomic_write(tmp_path / "x"):
        full_disk()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "arguments", "word"),
    [
        (make_dataset, ["--out", "/"], "/ is not a folder"),
        (make_dataset, ["--out", ".", "--train", 1, "--val", 1], "was not made by this demo"),
        (make_dataset, ["--train", 10**9], "100,000 images per class"),
        (train, ["--model", ""], "is a folder"),
        (train, ["--model", "/"], "is a folder"),
        (train, ["--model", "own"], "own is a folder"),
        (monitor, ["--measure", "--output", "own"], "own is a folder"),
        (monitor, ["--measure", "--output", ".."], ".. is"),
        (signs, ["--output", "x.txt"], "x.txt is not the name of a PNG file"),
        (signs, ["--output", "own"], "own is not the name of a PNG file"),
    ],
    ids=str,
)
def test_places_that_are_no_files(  # noqa: PLR0917
    run_main: Run, assert_refused: Refused, own: Path, module: Any, arguments: list[Any], word: str
) -> None:
    before = contents(own.parent)
    more = [] if module in (make_dataset, signs) else ["--data", own]
    assert_refused(run_main(module, *more, *arguments), word)
    assert contents(own.parent) == before


def test_the_manifest_of_the_folder_one_is_in(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own / "train")
    assert manifest.path_of(Path("..")).resolve() == own.parent / "own.sha256"
    monkeypatch.chdir(own)
    assert manifest.path_of(Path()) == own.parent / "own.sha256"


def test_more_processes_than_work_are_not_started(monkeypatch: pytest.MonkeyPatch, run_main: Run) -> None:
    asked = []

    class Pool(make_dataset.ProcessPoolExecutor):
        def __init__(self, processes: int) -> None:
            asked.append(processes)
            super().__init__(1)

    monkeypatch.setattr(make_dataset, "ProcessPoolExecutor", Pool)
    fine(run_main(make_dataset, "--out", "new", "--train", 4, "--val", 2, "--workers", 10**9))
    assert asked == [2]


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(cli.UserError, match="is not a list of suspects"):
        mitigate.read_suspects(tmp_path / "deep.json")
    with pytest.raises(cli.UserError, match="does not hold attacker's notes"):
        audit_data.read_truth(tmp_path / "deep.json", [])
