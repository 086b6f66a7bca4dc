"""Demo 2: detect.py --reference compares with known-clean models."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

import detect
from dataset import classes
from poisoning_tools import Norms, Refused, Run, made_up, ordinary, summarized
from scanner import result, statistics, verdict
from scanner.result import sha256

pytestmark = pytest.mark.usefixtures("small")


def test_a_reference_can_be_a_model_or_its_scan(
    run_main: Run, tmp_path: Path, small_models: Callable[..., Path], paint: Path
) -> None:
    """Real searches: a reference scanned now and one read from scan.json give the same figures."""
    one, other = small_models(3, 1), small_models(3, 2)
    both = ("--steps", 20, "--samples", 6, "--data", paint, "--victims", "stop")
    run_main(detect, "--model", other, *both, "--output", "clean")
    found = []
    for number, reference in enumerate((other, "clean/scan.json")):
        place = f"scan{number}"
        ended = run_main(detect, "--model", one, *both, "--output", place, "--reference", reference)
        assert ended.returncode in (0, 1), ended.stderr
        assert "Statistic: Reference index" in ended.stdout
        assert "in 1 clean model, " in ended.stdout
        found.append(result.read(tmp_path / place))
        assert found[-1].references == [str(reference)]
        assert found[-1].threshold == verdict.REFERENCE_THRESHOLD
        found[-1].references, found[-1].seconds = [], 0
    assert found[0] == found[1]
    clean = result.read(tmp_path / "clean").norms
    assert any(found[0].norms.values())
    for pair in found[0].pairs:
        here, there = (min(norm or 1, statistics.LARGE) for norm in (pair.norm, clean[pair.numbers]))
        by_hand = math.log(there / here) / statistics.SPREAD
        assert pair.anomaly_index == pytest.approx(by_hand, abs=1e-3)


def a_scan(folder: Path, norms: Norms, **other: object) -> Path:
    """A scan.json of another model with four classes."""
    made = json.loads(summarized(made_up(norms), classes=4).to_json())
    path = folder / "clean.json"
    path.write_text(json.dumps(made | other))
    return path


def test_references_clear_a_natural_neighbour(
    run_main: Run, tmp_path: Path, four: Path, fake: Callable[..., None]
) -> None:
    fake(ordinary(_0_1=0.005))
    assert run_main(detect, "--model", four, "--output", "scan").returncode == 1
    clean = a_scan(tmp_path, ordinary(_0_1=0.006))
    ended = run_main(detect, "--model", four, "--output", "scan", "--reference", clean)
    assert ended.returncode == 0
    assert "Result: no backdoor found" in ended.stdout
    # who uses a poisoned model as reference hides the same backdoor; so there is a note
    assert f"note: {clean} would be flagged itself, make sure that it is clean." in ended.stderr
    (tmp_path / "clean").mkdir()
    a_scan(tmp_path, ordinary()).rename(tmp_path / "clean/scan.json")
    clean = tmp_path / "clean"  # a folder will do
    ended = run_main(
        detect, "--model", four, "--output", "scan", "--reference", clean, "--pairs", "stop:yield"
    )
    assert ended.returncode == 1
    assert "note:" not in ended.stderr


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"steps": 61}, "61 steps, not 100"),
        ({"samples": 8}, "8 samples, not 30"),
        ({"input_size": 64}, "64 pixels per side, not 32"),
        ({"classes": ["stop", "yield"]}, "scan the model again"),
        ({"classes": list(classes.NAMES[:10])}, "10 classes, not 4"),
        ({"tool": "scan_models.py"}, "scan the model again"),
        ({"pairs": []}, "scan the model again"),
        ({"pairs": [{"victim": "stop"}]}, "scan the model again"),
        ({"pairs": 3}, "scan the model again"),
        ({"sha256": None}, "scan the model again"),
        ({"steps": "many"}, "scan the model again"),
        ({"format": 1}, "scan the model again"),
    ],
    ids=str,
)
def test_references_of_another_kind_are_refused(  # noqa: PLR0917
    run_main: Run, assert_refused: Refused, tmp_path: Path, four: Path, wrong: dict[str, object], word: str
) -> None:
    path = a_scan(tmp_path, ordinary(), **wrong)
    ended = run_main(detect, "--model", four, "--output", "scan", "--reference", path)
    assert_refused(ended, path, word)
    assert not (tmp_path / "scan").exists()


def test_references_that_do_not_fit(
    run_main: Run, assert_refused: Refused, tmp_path: Path, four: Path, small_models: Callable[..., Path]
) -> None:
    scan = ("--model", four, "--output", "scan", "--reference")
    assert_refused(run_main(detect, *scan, small_models(3)), small_models(3), "3 classes")
    assert_refused(run_main(detect, *scan, four.with_suffix(".safetensors")), "is the scanned model itself")
    assert_refused(run_main(detect, *scan, small_models(4), small_models(4)), "is the same model as")
    partial = a_scan(tmp_path, {(0, 1): 0.1, (1, 0): 0.1})
    assert_refused(run_main(detect, *scan, partial), partial, "stop:priority_road")
    own = a_scan(tmp_path, ordinary(), sha256=sha256(four))
    assert_refused(run_main(detect, *scan, own), own, "is the scanned model itself")
    (tmp_path / "folder").mkdir()
    assert_refused(run_main(detect, *scan, "folder"), "folder")
    (tmp_path / "text.pt").write_text("no model")
    assert_refused(run_main(detect, *scan, "text.pt"), "text.pt")
    assert not (tmp_path / "scan").exists()
