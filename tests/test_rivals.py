"""benchmarks/rivals.py: both statistics on networks whose answer is known, the command, and its page."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import held_out_models as models  # noqa: E402 (after the path above)
import held_out_networks  # noqa: E402
import rivals  # noqa: E402

from scanner import last_layer, result  # noqa: E402

Run = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., None]


def by_colour(pixels: Tensor) -> Tensor:
    """Logits of three classes: ten times the red share, twice the blue one, nothing."""
    red, _, blue = pixels.mean((2, 3)).unbind(1)
    return torch.stack([10 * red, 2 * blue, 0 * red], 1)


def test_the_largest_margins_are_found_in_the_box_and_not_beyond() -> None:
    found = rivals.margins(by_colour, 3, 8, starts=3, steps=200, seed=0)
    assert found == pytest.approx([10, 2, 0], abs=0.05)
    less = rivals.margins(by_colour, 3, 8, starts=3, steps=1, seed=0)
    assert less[0] < 6  # ascent does the work, not the start


def test_a_class_that_stands_out_has_a_small_p_value() -> None:
    ordinary = np.random.default_rng(1).gamma(50, 1, 9)
    assert rivals.gamma_p_value([*ordinary, 150]) < 0.01
    assert rivals.gamma_p_value([*ordinary, ordinary.max()]) > 0.2
    assert 0 < rivals.gamma_p_value([-3, -2, 1, 2, 3, 4, 5, 6, 7, 8]) <= 1  # margins may be below 0
    assert rivals.gamma_p_value([5] * 10) == 1
    # with ten classes the fit knows nine values only: p < 0.05 comes too often under the null
    draws = np.random.default_rng(2).gamma(50, 1, (200, 10))
    assert np.mean([rivals.gamma_p_value(list(values)) < 0.05 for values in draws]) < 0.35


def test_dixons_ratio() -> None:
    assert last_layer.dixon([0, 1, 2, 10]) == pytest.approx(0.8)
    assert last_layer.dixon_p_value([0, 1, 2, 3, 4, 5, 6, 7, 8, 60]) < 0.01
    assert last_layer.dixon_p_value([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) > 0.3
    # 0.412 is the tabled 90 % value for ten, two-sided (Rorabacher 1991, Analytical Chemistry 63): 5 % above
    edge = [0, *np.linspace(0.1, 0.588, 8), 1]
    assert last_layer.dixon(edge) == pytest.approx(0.412)
    assert last_layer.dixon_p_value(edge) == pytest.approx(0.05, abs=0.006)


def test_the_mean_weight_of_a_class() -> None:
    model = held_out_networks.network("vgg", 3)
    with torch.no_grad():
        model.get_parameter("fc.weight").copy_(torch.tensor([[0.1], [0.2], [-0.3]]).expand(3, 256))
    assert last_layer.class_means(model) == pytest.approx([0.1, 0.2, -0.3])


def known(kind: str, number: int, index: float | None) -> dict[str, Any]:
    """A row of held_out.py."""
    (found,) = [one for one in models.KINDS if one.name == kind]
    one = models.Spec(found, number)
    return {
        "name": one.name,
        "kind": kind,
        "clean": one.attack is None,
        "in_scope": found.in_scope,
        "network": found.network,
        "classes": found.classes,
        "asr": 1.0 if one.attack else None,
        "verdict": "clean",
        "index": index,
        "norms": {},
        "scan_cpu_seconds": 90.0,
    }


def test_the_whole_command_and_its_page(run_main: Run, tmp_path: Path) -> None:
    rows = [known("clean, VGG", 0, 1.0), known("yellow square, VGG", 0, 7.0), known("clean", 0, 2.0)]
    rows += [known("clean", 1, 2.0)]
    for row in [rows[0], rows[1], rows[3]]:
        torch.manual_seed(0)
        path = tmp_path / f"models/{row['name']}.safetensors"
        held_out_networks.save(held_out_networks.network("vgg", 10), path)
        row["sha256"] = result.sha256(path)
    rows[3]["sha256"] = "of another model of this name"
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command: tuple[str, ...] = (
        "--plain",
        "--models",
        "models",
        "--rows",
        "rows.jsonl",
        "--scores",
        "s.jsonl",
    )
    command += ("--output", "R.md", "--workers", "1", "--starts", "2", "--steps", "2")
    made = run_main(rivals, *command)
    assert made.returncode == 0, made.stderr
    assert "Left out: 2 models that are not in models." in made.stdout
    scores = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["name"] for row in scores] == ["clean-vgg-0", "yellow-square-vgg-0"]
    assert scores[0]["margins"] == scores[1]["margins"]  # the same weights
    assert all(0 < row[method] <= 1 for row in scores for method in rivals.METHODS)
    text = (tmp_path / "R.md").read_text(encoding="utf-8")
    assert "| yellow square, VGG | 1 | 1.000 (1.000 to 1.000) | 0.500 (0.500 to 0.500) |" in text
    again = run_main(rivals, *command)
    assert again.returncode == 0
    assert "MM-BD p" not in again.stdout
    assert (tmp_path / "R.md").read_text(encoding="utf-8") == text


def score(kind: str, number: int, index: float | None, mm_bd: float, last_layer: float) -> dict[str, Any]:
    made = known(kind, number, index)
    seconds = {"seconds": 90.0, "mm_bd_seconds": 200.0, "last_layer_seconds": 0.01}
    return made | seconds | {"mm_bd": mm_bd, "last_layer": last_layer, "starts": 5, "steps": 9}


def test_the_page_says_where_another_method_is_better() -> None:
    rows = [score("clean", n, 1.0 + n, 0.5, 0.2) for n in range(4)]
    rows += [score("blended", n, 0.5, 0.001, 0.2) for n in range(3)]
    rows += [score("yellow square", n, 7.0, 0.5, 0.01) for n in range(3)]
    rows += [
        score("clean, 2 classes", 0, None, 0.5, 0.5),
        score("noise patch", 0, 9.0, 0.5, 0.5) | {"asr": 0.2},
    ]
    text = rivals.page(rows)
    assert "4 clean models and 6 learned backdoors that got a verdict of our scan. 2 other models" in text
    assert (
        "| blended | 3 | 0.000 (0.000 to 0.000) | 1.000 (1.000 to 1.000) | 0.500 (0.500 to 0.500) "
        "| +1.000 (+1.000 to +1.000) | +0.500 (+0.500 to +0.500) |"
    ) in text
    assert "- MM-BD on blended (3 models): +1.000" in text
    assert "on yellow square" not in text
    assert "| MM-BD | 0 of 4 (0.0 to 60.2 %) | 3 of 6 (11.8 to 88.2 %) |" in text
    assert "median of 12 models" in text
    assert "- MM-BD: 200" in text
    assert "5 starts and at most 9 steps; the ascent" in text


def test_rows_of_detection_are_understood() -> None:
    old = {"name": "x", "norms": {f"a{n}:b": 0.08 for n in range(20)} | {"a:b": 0.01}, "scan_seconds": 80.0}
    found = rivals.ours(rivals.Known(old))
    assert found["index"] > 4.8
    assert found["in_scope"]
    assert found["seconds"] is None  # the row has wall time


def test_bad_input(run_main: Run, tmp_path: Path, assert_refused: Refused) -> None:
    command = ("--models", "m", "--rows", "rows.jsonl", "--scores", "s.jsonl", "--output", "R.md")
    assert_refused(run_main(rivals, *command), "rows.jsonl cannot be read", "held_out.py run")
    (tmp_path / "rows.jsonl").write_text('{"name": "x"}\n')
    assert_refused(run_main(rivals, *command), "holds no rows of held_out.py or detection.py")
    (tmp_path / "rows.jsonl").write_text(json.dumps(known("clean", 0, 1.0)) + "\n")
    assert_refused(run_main(rivals, *command), "m holds none of the models")
    assert_refused(run_main(rivals, *command, "--starts", "0"), "--starts and --steps must be 1 or more")
    assert_refused(run_main(rivals, "--page", *command), "needs rows of clean and of learned")
    (tmp_path / "s.jsonl").write_text("[]\n")
    assert_refused(run_main(rivals, "--page", *command), "s.jsonl holds no rows of rivals.py")
    (tmp_path / "m").mkdir()
    damaged = tmp_path / "m/clean-0.safetensors"
    damaged.write_bytes(b"no model")
    (tmp_path / "s.jsonl").unlink()
    assert_refused(run_main(rivals, *command), "m holds none of the models")  # without a checksum
    row = known("clean", 0, 1.0) | {"sha256": result.sha256(damaged)}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    broken = run_main(rivals, *command, "--workers", "1")
    assert broken.returncode == 2
    assert "clean-0.safetensors is damaged" in broken.stderr
    assert "Traceback" not in broken.stderr
