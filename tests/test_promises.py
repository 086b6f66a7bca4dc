"""docs/promises.md: each promise of the workshop has a page and a heading; the minutes are as promised."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/promises.md"
TEXT = PAGE.read_text(encoding="utf-8")
LINES = re.findall(r"^- (.*)$", TEXT, flags=re.MULTILINE)
PROMISED = (
    "Way More Than You Wanted to Know",
    "Memes",
    "autonomous vehicle",
    "opening",
    "closing discussion",
    "Best practices",
    "Facts",
    "Responses",
    "Frameworks",
)


@pytest.mark.parametrize("line", LINES)
def test_a_promise_names_a_page_and_a_heading_that_are_there(line: str) -> None:
    links = re.findall(r"\]\(([^)#]+)#([^)]+)\)", line)
    assert links, "a promise without a place"
    for path, anchor in links:
        page = (PAGE.parent / path).read_text(encoding="utf-8")
        titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page, flags=re.M | re.S), flags=re.M)
        there = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
        assert anchor in there, f"{path} has no heading {anchor}"


@pytest.mark.parametrize("promise", PROMISED)
def test_every_promise_is_listed(promise: str) -> None:
    assert any(promise in line for line in LINES)


@pytest.mark.parametrize(("number", "minutes"), [(1, 25), (2, 30), (3, 20)])
def test_each_path_has_attack_defence_and_individual_work(number: int, minutes: int) -> None:
    part = TEXT.split(f"\n## Demo {number}, {minutes} minutes\n")[1].split("\n## ")[0]
    for word in ("Silver", "Gold", "Individual work"):
        assert f"\n- {word}" in part
    plan = (ROOT / "WORKSHOP.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \d:\d\d Demo {number}: .* \({minutes} minutes\)$", plan, flags=re.M)
    assert f"- Demo {number}, {minutes} minutes. Introduction, 5 minutes" in plan
