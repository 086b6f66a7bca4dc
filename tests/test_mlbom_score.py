"""The benchmark of the ML-BOM: the lists that outside scorers see, and what is said of their answers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import mlbom_score  # noqa: E402 (after the path above)

SCORING = """
def calculate_completeness_score(document, validate):
    return {"total_score": 3.0, "missing_fields": {"critical": ["suppliedBy"], "important": ["purl"]}}
"""


def test_a_scorer_gets_the_list_and_its_answer_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "src" / "models"
    rules.mkdir(parents=True)
    (rules / "scoring.py").write_text(SCORING)
    monkeypatch.setenv("OWASP_AIBOM", str(tmp_path))
    monkeypatch.delenv("AISBOM", raising=False)
    name = "with card and statements"
    monkeypatch.setattr(mlbom_score, "LISTS", {name: mlbom_score.LISTS[name]})
    assert mlbom_score.main() == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"| {name} | 3.0 | suppliedBy (it is there), purl |"


def test_a_list_without_a_card_states_nothing() -> None:
    assert not mlbom_score.stated({"components": [{}]}, "suppliedBy")


def test_without_a_scorer_it_says_what_is_missing(run_script: Callable[..., Any]) -> None:
    result = run_script(ROOT / "benchmarks" / "mlbom_score.py")
    assert (result.returncode, result.stdout) == (2, "")
    assert "AISBOM or OWASP_AIBOM" in result.stderr
