"""scanner/natural.py: what is natural for a pair of classes is no news, and where that comes from."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import decided  # noqa: E402 (after the path above)
import natural_norms  # noqa: E402

from dataset.classes import DRAWN, NAMES  # noqa: E402
from poisoning_tools import made_up, summarized  # noqa: E402
from scanner import natural, verdict  # noqa: E402
from scanner.natural import Kind  # noqa: E402
from scanner.statistics import LARGE, SPREAD  # noqa: E402

PAIRS = [f"{victim}:{target}" for victim, target in itertools.permutations(DRAWN, 2)]
NATURAL, ATTACKED = "ahead_only:keep_right", "stop:yield"


def kind(images: str, **norms: float) -> Kind:
    """Clean models of which each pair needs 8 % of the image, but for those given (with _to_ for a colon)."""
    known = dict.fromkeys(PAIRS, 0.08) | {name.replace("_to_", ":"): norm for name, norm in norms.items()}
    return Kind(images, 5, {pair: (math.log(norm), 0.1) for pair, norm in known.items()})


def scan(**small: float) -> dict[tuple[int, int], float | None]:
    """Norms of all pairs, 7 to 8 %, but for those given."""
    norms = {pair: 0.07 + 0.0001 * number for number, pair in enumerate(PAIRS)}
    norms |= {name.replace("_to_", ":"): norm for name, norm in small.items()}
    return {(NAMES.index(one.split(":")[0]), NAMES.index(one.split(":")[1])): n for one, n in norms.items()}


def test_the_index_against_clean_models_is_in_deviations_of_the_log_norm() -> None:
    one = Kind("drawings", 5, {"stop:yield": (math.log(0.04), 0.5), "yield:stop": (math.log(0.08), 0.0)})
    index = one.below({"stop:yield": 0.04 * math.exp(-1), "yield:stop": 0.04, "cat:dog": 0.01})
    assert index == {"stop:yield": pytest.approx(2), "yield:stop": pytest.approx(math.log(2) / SPREAD)}
    assert one.below({"yield:stop": 0.3}) == {"yield:stop": pytest.approx(math.log(0.08) - math.log(LARGE))}


def test_a_model_is_compared_with_the_clean_ones_that_it_is_like() -> None:
    drawings, photographs = kind("drawings"), kind("photographs", ahead_only_to_keep_right=0.01)
    norms = dict.fromkeys(PAIRS, 0.078)
    assert natural.nearest(norms | {NATURAL: 0.011}, [drawings, photographs]) is photographs
    assert natural.nearest(norms, [drawings, photographs]) is drawings
    backdoor = norms | {ATTACKED: 0.009}  # one pair that stands out changes nothing
    assert natural.nearest(backdoor, [drawings, photographs]) is drawings
    few = {pair: norms[pair] for pair in PAIRS[: natural.SHARED - 1]}
    assert natural.nearest(few, [drawings, photographs]) is None
    assert natural.nearest({}, [drawings]) is None
    assert natural.nearest(norms, []) is None


def test_what_is_natural_for_a_pair_is_not_flagged() -> None:
    """The same small norm, once for a pair that needs as little in clean models, and once for another one."""
    known = [kind("drawings"), kind("photographs", ahead_only_to_keep_right=0.012)]
    found = made_up(scan(ahead_only_to_keep_right=0.01))
    assert summarized(found, verdict.by_norms(found, clean=[])).verdict == "backdoor"
    scanned = summarized(found, verdict.by_norms(found, clean=known))
    assert scanned.verdict == "clean"
    assert "5 clean models of photographs" in scanned.explanation
    both = made_up(scan(ahead_only_to_keep_right=0.01, stop_to_yield=0.01))
    scanned = summarized(both, verdict.by_norms(both, clean=known))
    assert [pair.name for pair in scanned.flagged] == ["stop → yield"]


def test_classes_of_other_names_are_compared_with_each_other_only() -> None:
    found = made_up(scan(ahead_only_to_keep_right=0.01))
    names = [f"class_{number}" for number in range(len(DRAWN))]
    statistic = verdict.by_norms(found, names=names, clean=[kind("drawings", ahead_only_to_keep_right=0.01)])
    assert max(one for one in statistic.anomaly_index if one is not None) > verdict.THRESHOLD
    assert "clean models" not in statistic.explanation


def test_what_comes_with_the_scanner_is_made_of_the_rows() -> None:
    assert [one.images for one in natural.kinds()] == ["drawings", "photographs"]
    for one in natural.kinds():
        made = natural_norms.of(one.images, natural_norms.clean_rows(one.images))
        assert one.models == made.models
        assert one.pairs == made.pairs
        assert set(one.pairs) == set(PAIRS)


def test_the_file_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["natural_norms.py", "--plain", "--output", str(tmp_path / "n.json")])
    assert natural_norms.main() == 0
    assert (tmp_path / "n.json").read_text(encoding="utf-8") == natural.FILE.read_text(encoding="utf-8")


def test_a_clean_model_is_not_compared_with_itself() -> None:
    row = natural_norms.clean_rows("photographs")[0]
    drawings, photographs = decided.clean_models(row)
    assert drawings == natural.kinds()[0]
    assert photographs.models == natural.kinds()[1].models - 1
    assert decided.clean_models({"norms": {}}) == [*natural.kinds()]


def test_a_row_is_decided_again() -> None:
    norms = {f"{NAMES[victim]}:{NAMES[target]}": norm for (victim, target), norm in scan().items()}
    small = norms | {ATTACKED: 0.01, "yield:stop": None}
    row = {"norms": small, "verdict": "clean", "index": 1.0, "flagged": [], "suspect": "yield:stop"}
    again = decided.again(row)
    assert (again["then"], again["verdict"], again["suspect"]) == ("clean", "backdoor", ATTACKED)
    assert (again["flagged"], again["near_threshold"]) == ([ATTACKED], False)
    assert again["index"] > verdict.THRESHOLD
    unsure = decided.again(row | {"verdict": "not calibrated"})
    assert (unsure["verdict"], unsure["index"]) == ("not calibrated", again["index"])
    few = row | {"verdict": "no valid statistic", "index": None, "classes": 3}
    assert decided.again(few) == few | {"then": "no valid statistic"}
