"""The clean twins of demo 2, and benchmarks/twins.py, which says how much they help."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import twins  # noqa: E402 (after the path above)

from dataset.classes import DRAWN  # noqa: E402
from scanner import references, result, search  # noqa: E402

Run = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., None]

PAIRS = [f"{victim}:{target}" for victim, target in itertools.permutations(DRAWN, 2)]
NATURAL, ATTACKED = "no_entry:stop", "stop:yield"


def row(name: str, attacked: float | None = None) -> dict[str, Any]:
    """A model whose pairs need 6 to 8 % of the image, but for a natural and perhaps an attacked one."""
    rng = random.Random(name)
    norms = {pair: rng.uniform(0.06, 0.08) for pair in PAIRS} | {NATURAL: rng.uniform(0.012, 0.014)}
    made: dict[str, Any] = {"name": name, "kind": "clean", "clean": True, "norms": norms}
    if attacked is None:
        return made
    norms[ATTACKED] = attacked
    return made | {"kind": "square", "clean": False, "asr": 1.0, "attacked": [ATTACKED]}


def population(name: str) -> list[dict[str, Any]]:
    clean = [row(f"clean-{name}-{number}") for number in range(10)]
    return clean + [row(f"backdoor-{name}-{number}", attacked=0.01) for number in range(4)]


def test_what_is_natural_for_a_pair_is_no_news_to_twins() -> None:
    rows = population("a")
    alone = twins.rates(rows, twins.figure([]), twins.threshold(0))
    assert alone[1:] == (1.0, 0.0)  # every clean model is flagged for the pair that is natural
    helped = twins.rates(rows, twins.figure(twins.clean(population("b"))[:1]), twins.threshold(1))
    assert helped == (1.0, 0.0, 0.0)


def test_the_luck_with_twins_is_in_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "DRAWS", 6)
    found = twins.drawn([population("a"), population("b")], 2)
    assert found.shape == (6, 3)
    assert found.mean(0) == pytest.approx([1, 0, 0])
    assert twins.cells(found) == ["1.000 (1.000 to 1.000)"] + ["0.0 % (0.0 to 0.0 %)"] * 2


def test_the_command_and_its_page(run_main: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "DRAWS", 4)
    other = row("clean-vgg-0") | {"network": "vgg", "data": "drawn-500", "kind": "clean, VGG"}
    unlearned = row("noise-0", attacked=0.07) | {"asr": 0.5}
    few = row("clean-few") | {"norms": {ATTACKED: 0.07}}
    for name, rows in (("a", population("a")), ("b", [*population("b"), other, unlearned, few])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    made = run_main(twins, "--plain", "--rows", "a.jsonl", "b.jsonl", "--output", "T.md")
    assert made.returncode == 0, made.stderr
    text = (tmp_path / "T.md").read_text(encoding="utf-8")
    assert "10 clean models and 4 learned backdoors of `population.py`, and 10 and 4 of" in text
    assert " | 100.0 % (100.0 to 100.0 %) | 0.0 % (0.0 to 0.0 %) |" in text  # without twins
    assert "| 3 | 1.000 (1.000 to 1.000) | 0.0 % (0.0 to 0.0 %) | 0.0 % (0.0 to 0.0 %) |" in text
    assert "| VGG, drawings | none | " in text


def test_bad_input(run_main: Run, tmp_path: Path, assert_refused: Refused) -> None:
    command = ("--rows", "a.jsonl", "b.jsonl", "--output", "T.md")
    assert_refused(run_main(twins, *command), "a.jsonl cannot be read", "held_out.py run")
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text('{"name": "x"}\n')
    assert_refused(run_main(twins, *command), "holds no rows of detection.py or held_out.py")
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row("clean-0")) + "\n")
    assert_refused(run_main(twins, *command), "needs 10 clean models and a learned backdoor")
    assert not (tmp_path / "T.md").exists()


def test_the_twins_of_the_demo_are_whole_scans_of_clean_models() -> None:
    paths = sorted(twins.SHIPPED.glob("*.json"))
    references.check_distinct(paths)
    assert len(paths) == 3
    for path in paths:
        scan = result.read(path)
        assert (scan.verdict, scan.classes, scan.steps, scan.samples) == ("clean", list(DRAWN), 100, 30)
        assert set(map(search.name, scan.norms)) == set(PAIRS)
        assert not references.doubtful(scan.norms)


def test_the_page_is_made_of_the_rows() -> None:
    """But for what is drawn at random, which takes most of a minute."""
    rows = [
        one for path in ("detection_today.jsonl", "held_out.jsonl") for one in twins.read(twins.HERE / path)
    ]
    text = (twins.HERE / "TWINS.md").read_text(encoding="utf-8")
    for name, known in (("nothing", []), ("the twins of the demo", twins.shipped())):
        assert f"| {name} | {' | '.join(twins.compared(twins.ours(rows), known))} |" in text
