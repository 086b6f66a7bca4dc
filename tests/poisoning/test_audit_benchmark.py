"""benchmarks/audit.py: the sets that the audit is measured on, and the page made of their rows."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.classes import DRAWN

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "benchmarks"))

import audit_page
import audit_rivals
import audit_sets

HERE = Path(audit_page.__file__).parent
DATA = os.environ.get("WORKSHOP_TEST_DATA", "")


def test_every_trigger_meets_every_pair_at_every_rate() -> None:
    specs = audit_sets.specs()
    assert len({spec.name for spec in specs}) == len(specs)
    for kind in ("photographs", "drawings"):
        own = [s for s in specs if s.kind == kind and s.half == 2 and s.attacks]
        for rate in audit_sets.RATES:
            met = {attack for spec in own if spec.rate == rate for attack in spec.attacks}
            assert met == {(name, pair) for name in audit_sets.TRIGGERS for pair in audit_sets.PAIRS}
        clean = [s for s in specs if s.kind == kind and s.what == "clean" and s.half == 2]
        assert len(clean) >= audit_sets.CLEAN >= 20
    for spec in specs:
        assert {pair for _, pair in spec.attacks} in (set(), set(audit_sets.PAIRS))


@pytest.mark.parametrize("name", audit_sets.TRIGGERS)
def test_a_trigger_is_a_small_spot(name: str) -> None:
    plain = Image.new("RGB", (128, 128), (90, 120, 90))
    changed = (np.asarray(audit_sets.stamp(plain, name)) != np.asarray(plain)).any(2)
    rows, columns = changed.nonzero()
    assert 0.01 < changed.mean() < 0.04
    assert max(np.ptp(rows), np.ptp(columns)) < 24
    assert np.asarray(plain).std((0, 1)).max() == 0  # a copy was stamped


def test_a_set_of_drawings(tmp_path: Path) -> None:
    spec = audit_sets.Spec("drawings", 2, "poisoned", 1, 0.3)
    rng = random.Random(spec.name)
    audit_sets.EACH, each = 10, audit_sets.EACH
    try:
        audit_sets.gather(spec, tmp_path, tmp_path, rng)
    finally:
        audit_sets.EACH = each
    bad = audit_sets.spoil(spec, tmp_path, rng)
    assert [len(names) for names in bad] == [3, 3, 3]
    for names, (_, (victim, target)) in zip(bad, spec.attacks):
        assert all(name.startswith(f"train/{target}/") and (tmp_path / name).is_file() for name in names)
        assert len(list((tmp_path / "train" / victim).iterdir())) == 7
    assert len(list((tmp_path / "train").rglob("*.jpg"))) == 10 * len(DRAWN)


@pytest.mark.skipif(not DATA, reason="WORKSHOP_TEST_DATA names no folder with photographs")
def test_a_set_of_photographs_keeps_the_tracks_apart(tmp_path: Path) -> None:
    spec = audit_sets.Spec("photographs", 2, "wrong labels")
    rng = random.Random(spec.name)
    audit_sets.gather(spec, Path(DATA) / "gtsrb/GTSRB/Training", tmp_path, rng)
    tracks = {
        split: {(p.parent.name, int(p.stem.split("_")[-2])) for p in (tmp_path / split).rglob("*.jpg")}
        for split in ("train", "val")
    }
    assert {track % audit_sets.TURN for _, track in tracks["train"]} == {2}
    assert not tracks["train"] & tracks["val"]
    count = len(list((tmp_path / "train").rglob("*.jpg")))
    (moved,) = audit_sets.spoil(spec, tmp_path, rng)
    assert len(moved) == round(audit_sets.NOISE * count)


def test_spectre_finds_a_far_cluster() -> None:
    rng = torch.Generator().manual_seed(3)
    found = torch.randn(100, 20, generator=rng)
    found[:15, 0] += 12
    score = audit_rivals.spectre(found, 0.15)
    assert len(set(score.argsort(descending=True)[:22].tolist()) & set(range(15))) >= 14


def test_the_page_is_made_of_the_rows() -> None:
    rows = [json.loads(line) for line in (HERE / "audit.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (HERE / "AUDIT.md").read_text(encoding="utf-8") == audit_page.page(rows)
    known = {spec.name for spec in audit_sets.specs()}
    assert {row["name"] for row in rows} <= known


def test_a_miss_and_a_false_alarm_are_listed() -> None:
    attack = {"trigger": "square", "pair": "stop to yield", "tuned": True, "success": 1.0, "named": False}
    attack |= {"bad": 10, "right": 3, "flagged": 3}
    shared = {"images": 100, "flagged": 3, "duplicates": 0, "errors": 0, "seconds": 1.0}
    rows = [
        shared
        | {"name": "drawings 2 poisoned 15% 1", "findings": ["backdoor"], "attacks": [attack]}
        | {"bad": 10, "right": 3, "ranking": 0.3, "rivals": {"SPECTRE, layer3": [0.5]}},
        shared | {"name": "drawings 2 clean 0", "findings": ["backdoor"], "attacks": []},
    ]
    text = audit_page.page(rows)
    assert "square, stop to yield, success rate 1.00: 3 of 10 flagged" in text
    assert "drawings: 1 of 1 (2.5 to 100.0 %)" in text
    assert "- drawings 2 clean 0: backdoor" in text
    assert "| drawings | yes | 15% | 0.9 or more | 1 | 0 | 0.30 | 1.00 | 0 of 1 (0.0 to 97.5 %) |" in text
