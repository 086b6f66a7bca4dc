"""Scanning many models: one row each, and the verdict that detect.py gives when it is typed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import detect
from network import classifier
from poisoning_tools import FOLDER, WHOLE, Refused, fine, run_in, text

sys.path.insert(0, str(FOLDER.parent / "benchmarks"))

import scan_many


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three files, and in place of detect.py a scan that goes by what is in them."""

    def scan(job: scan_many.Job) -> dict[str, Any]:
        content = Path(job.model).read_text()
        if content == "broken":
            raise scan_many.cli.UserError(f"{job.model} is damaged: get it again.")
        flagged = ["stop:yield"] if content == "bad" else []
        return {
            "model": job.model,
            "sha256": scan_many.result.sha256(Path(job.model)),
            "verdict": "backdoor" if flagged else "clean",
            "flagged": flagged,
            "largest_index": 7.2,
            "threshold": 4.8,
            "seconds": 9.0,
        }

    monkeypatch.setattr(scan_many, "scan", scan)
    made = [tmp_path / f"{name}.pt" for name in ("good", "bad", "broken")]
    for path in made:
        path.write_text(path.stem)
    return made


def scanned(folder: Path, *arguments: object) -> Any:
    return run_in(folder, scan_many, *arguments, "--workers", 1, "--data", "data")


def test_rows_words_and_exit_codes(tmp_path: Path, models: list[Path]) -> None:
    good, bad, broken = models
    first = fine(scanned(tmp_path, good))
    assert f"{good}: clean, 9 seconds." in first.stdout
    second = fine(scanned(tmp_path, good, bad), 1)
    assert f"{good}: clean, scanned before." in second.stdout
    assert f"FLAGGED: {bad}: backdoor (stop:yield), 9 seconds." in second.stdout
    third = scanned(tmp_path, broken, bad)
    assert third.returncode == 2
    assert f"error: {broken}: {broken} is damaged: get it again." in third.stderr
    rows = [json.loads(line) for line in (tmp_path / "scans.jsonl").read_text().splitlines()]
    assert [row["model"] for row in rows] == [str(good), str(bad)]
    assert fine(scanned(tmp_path, bad), 1)  # what was found before is still found
    good.write_text("bad")
    assert "FLAGGED" in fine(scanned(tmp_path, good), 1).stdout  # another file than the one of the row


def test_bad_input(tmp_path: Path, models: list[Path], assert_refused: Refused) -> None:
    assert_refused(scanned(tmp_path, "gone.pt"), "gone.pt", "does not exist")
    assert_refused(scanned(tmp_path, models[0], models[0]), "same name")
    assert_refused(run_in(tmp_path, scan_many, models[0], "--workers", -1), "--workers")
    (tmp_path / "other.txt").write_text("{}")
    assert_refused(scanned(tmp_path, models[0], "--rows", "other.txt"), "other.txt", "scan_many.py")
    assert not (tmp_path / "scans.jsonl").exists()


def test_the_verdict_is_that_of_detect(tmp_path: Path, reader: Path, data: Path) -> None:
    """A real scan of one pair, typed and through two workers: the same figures. (Weekly: two models.)"""
    names = ("one", "two") if WHOLE else ("one",)
    for name in names:
        (tmp_path / name).mkdir()
        shutil.copy(reader, tmp_path / name / "m.pt")
    other = classifier.load_model(reader)
    with torch.no_grad():
        other.get_parameter("fc.bias").add_(0.01)
    classifier.save_model(other, tmp_path / "reference.pt")
    search = ("--steps", 2, "--samples", 1, "--pairs", "stop:yield", "--reference", "reference.pt")
    typed = fine(run_in(tmp_path, detect, "--model", "one/m.pt", "--data", data, "--json", *search))
    found = json.loads(typed.stdout)
    models = [f"{name}/m.pt" for name in names]
    made = run_in(tmp_path, scan_many, *models, "--data", data, "--workers", 2, *search)
    assert made.returncode == 0, text(made)
    rows = [json.loads(line) for line in (tmp_path / "scans.jsonl").read_text().splitlines()]
    assert sorted(row["model"] for row in rows) == [str(tmp_path / model) for model in models]
    for row in rows:
        assert (row["verdict"], row["sha256"]) == (found["verdict"], found["sha256"])
        indices = [pair["anomaly_index"] for pair in found["pairs"] if pair["anomaly_index"] is not None]
        assert row["largest_index"] == max(indices, default=None)
