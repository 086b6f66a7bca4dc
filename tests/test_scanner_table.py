"""The rates in SCANNERS.md: the rows are what the scanners say today, and the arithmetic is right."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import scanners


@pytest.fixture(scope="module")
def published() -> list[scanners.Row]:
    return [json.loads(line) for line in scanners.ROWS.read_text(encoding="utf-8").splitlines()]


def test_the_rows_are_what_the_scanners_say_today(
    published: list[scanners.Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ModelAudit is not asked here. After a new version: python benchmarks/scanners.py --write."""
    monkeypatch.setattr(
        scanners, "modelaudit", lambda folder, names, strict: dict.fromkeys(names, scanners.ABSENT)
    )
    assert scanners.differences(published, scanners.measure()) == []


def test_the_page_shows_the_rows(published: list[scanners.Row]) -> None:
    page = scanners.PAGE.read_text(encoding="utf-8")
    assert page.split(scanners.START)[1].split(scanners.END)[0].strip() == scanners.markdown(published)


def test_the_table_is_fair(published: list[scanners.Row]) -> None:
    """Enough files of both kinds, and our own verdict is rated like the others."""
    honest = [row for row in published if row["kind"] == "honest"]
    hostile = [row for row in published if row["kind"] == "hostile"]
    assert len(honest) >= 50
    assert len({Path(row["file"]).suffix for row in honest}) >= 10
    assert len(hostile) >= 30
    assert all(set(scanners.MODES) <= set(row) for row in published)
    assert [row["file"] for row in hostile if row["inspect_model.py"] == scanners.CLEAN] == []


@pytest.mark.parametrize(
    ("count", "total", "lower", "upper"),
    [(0, 30, 0.0, 0.1157), (1, 29, 0.0009, 0.1776), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1.0)],
)
def test_intervals_are_exact(count: int, total: int, lower: float, upper: float) -> None:
    assert scanners.interval(count, total) == pytest.approx((lower, upper), abs=0.0005)


def test_a_changed_answer_would_be_noticed(published: list[scanners.Row]) -> None:
    changed = [dict(row) for row in published]
    changed[0]["picklescan"] = "another"
    assert scanners.differences(published, changed) == [
        f"{published[0]['file']}, picklescan: {published[0]['picklescan']!r} is now 'another'"
    ]
    changed[0]["picklescan"] = scanners.ABSENT
    assert scanners.differences(published, changed) == []
    assert scanners.differences(published, published[1:]) == [f"{published[0]['file']} is gone"]
