"""Demo 2: detect.py, what it scans, concludes, writes and shows.

The scans are cut short or made up, and the network is a small one: the search has tests of its own.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import cli
import detect
import report
from dataset import classes
from network import classifier
from poisoning_tools import (
    PAIRS,
    Norms,
    Refused,
    Result,
    Run,
    Terminal,
    contents,
    hand_made,
    made_up,
    ordinary,
    subset,
    summarized,
    text,
    without_seconds,
)
from scanner import printing, verdict
from scanner.result import ScanResult, sha256
from scanner.result import read as read_scan

pytestmark = pytest.mark.usefixtures("small")

PAIR_NAMES = [f"{classes.NAMES[victim]}:{classes.NAMES[target]}" for victim, target in PAIRS]
SHORT = ("--steps", 2, "--samples", 6, "--output", "scan")


# --- which statistic --------------------------------------------------------------------------------


def test_pairs_are_compared_with_each_other_only_if_there_are_enough() -> None:
    clean = summarized(made_up(ordinary()))
    assert (clean.verdict, clean.flagged) == ("clean", [])
    backdoor = summarized(made_up(ordinary(_2_3=0.005)))
    assert backdoor.verdict == "backdoor"
    assert [pair.numbers for pair in backdoor.flagged] == [(2, 3)]
    assert backdoor.pairs[0].norm == 0.005
    # three of twelve pairs without a trigger leave nine
    few = summarized(made_up(ordinary(_2_3=0.005, _0_1=None, _0_2=None, _0_3=None)))
    assert few.verdict == "no valid statistic"
    assert all(pair.anomaly_index is None and not pair.flagged for pair in few.pairs)
    sizes = [pair.norm or 1 for pair in few.pairs]
    assert sizes == sorted(sizes)


def test_pairs_without_trigger_get_no_index_and_come_last() -> None:
    found = summarized(made_up(ordinary(_0_1=None))).pairs
    assert (found[-1].numbers, found[-1].anomaly_index) == ((0, 1), None)
    indices = [pair.anomaly_index for pair in found[:-1]]
    assert None not in indices
    assert indices == sorted(indices, key=lambda index: -(index or 0))


def test_a_natural_neighbour_is_no_news_to_references() -> None:
    """The same small norm in a clean model: the pairs alone say backdoor, the comparison does not."""
    here = made_up(ordinary(_2_3=0.005))
    assert summarized(here).verdict == "backdoor"
    assert summarized(here, verdict.by_references(here, [ordinary(_2_3=0.006)])).verdict == "clean"
    found = summarized(here, verdict.by_references(here, [ordinary(), ordinary()]))
    assert found.verdict == "backdoor"
    assert "2 clean models" in found.explanation


def test_pairs_that_need_a_large_trigger_are_known_and_failed_searches_are_not() -> None:
    """Neither has a norm. The large ones count in the comparison, the failed ones do not."""
    none = dict.fromkeys([f"_0_{number}" for number in (1, 2, 3)])
    triggers = made_up(ordinary(_2_3=0.005, **none))
    assert summarized(triggers).verdict == "no valid statistic"
    for trigger in triggers:
        trigger.large = trigger.norm is None
    found = summarized(triggers)
    assert [pair.numbers for pair in found.flagged] == [(2, 3)]
    assert [pair.anomaly_index for pair in found.pairs[-3:]] == [None] * 3
    assert "12 pairs" in found.explanation


def test_models_of_few_classes_get_no_verdict_from_their_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Error rates are known for ten classes. A comparison with clean models needs no others."""
    monkeypatch.setattr(verdict, "CLASSES", 10)
    here = made_up(ordinary(_2_3=0.005))
    statistic = verdict.by_norms(here, 9)
    assert (statistic.name, set(statistic.anomaly_index)) == (verdict.NO_STATISTIC, {None})
    assert "10 classes" in statistic.explanation
    assert verdict.by_norms(here, 10).name == verdict.AMONG_PAIRS
    assert summarized(here, verdict.by_references(here, [ordinary()])).verdict == "backdoor"


@pytest.mark.parametrize(
    ("away", "near", "said"),
    [(-1.1, False, "clean"), (-0.9, True, "clean"), (0.9, True, "backdoor"), (1.1, False, "backdoor")],
)
def test_a_verdict_near_the_threshold_says_so(away: float, near: bool, said: str) -> None:
    here = made_up(ordinary())
    statistic = verdict.Statistic("made up", "For this test.", 4.8, [4.8 + away, 3.0, *[0.0] * 10])
    found = summarized(here, statistic)
    assert (found.near_threshold, found.verdict) == (near, said)
    words = Said()
    printing.verdict(
        found, {pair.numbers: here[0] for pair in found.pairs}, [torch.zeros(3, 32, 32)] * 4, words
    )
    assert ("Close call" in str(words)) == ("Close call" in report_sentence(found)) == near
    if near:
        assert f"{4.8 + away:.1f} lies near the threshold of 4.8" in str(words)
        assert "--seed" in str(words)
    wrong = json.loads(found.to_json()) | {"near_threshold": True}
    with contextlib.nullcontext() if near else pytest.raises(ValueError, match="not near the threshold"):
        ScanResult.from_json(json.dumps(wrong))


def test_a_class_that_is_easily_turned_is_no_backdoor_and_not_judged() -> None:
    """Photographs showed it: a class known from three signs, each of whose pairs has a tiny trigger."""
    norms: dict[tuple[int, int], float | None] = {
        (victim, target): 0.07 + 0.001 * target
        for victim in range(10)
        for target in range(10)
        if victim != target
    }
    weak = {(8, target): 0.003 + 0.001 * target for target in range(10) if target != 8}
    found = summarized(made_up(norms | weak))
    assert (found.verdict, found.easily_turned) == ("clean", ["roundabout"])
    words = Said()
    printing.verdict(
        found, {pair.numbers: made_up(norms)[0] for pair in found.pairs}, [torch.zeros(3, 32, 32)] * 10, words
    )
    assert "Not judged: roundabout" in str(words)
    assert "Not judged: roundabout" in report_sentence(found)
    both = summarized(made_up(norms | weak | {(0, 1): 0.01}))  # a backdoor beside it is found, as ever
    assert [pair.numbers for pair in both.flagged] == [(0, 1)]
    assert both.easily_turned == ["roundabout"]
    many = {(victim, 1): 0.01 for victim in range(10) if victim != 1}  # one trigger for all signs
    assert {pair.numbers for pair in summarized(made_up(norms | many)).flagged} == set(many)
    wrong = json.loads(found.to_json()) | {"easily_turned": ["yield", "nobody"]}
    with pytest.raises(ValueError, match="a class that was not scanned"):
        ScanResult.from_json(json.dumps(wrong))


class Said(cli.Out):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(plain=True)
        self.lines: list[str] = []

    def say(self, text: str = "", style: str = "") -> None:
        self.lines.append(text)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def test_the_last_layer_gives_a_second_opinion(
    run_main: Run, tmp_path: Path, fake: Callable[..., None]
) -> None:
    """It is no verdict, but it is said, drawn on the page, and kept."""
    fake(ordinary())
    model = classifier.new_model(10)
    with torch.no_grad():
        model.fc.weight.copy_(torch.linspace(-0.01, 0.01, 10)[:, None])
    for name, change in (("even", 0.0), ("one", 0.1)):
        with torch.no_grad():
            model.fc.weight[9] += change
        classifier.save_model(model, tmp_path / f"{name}.pt")
    even, one = (
        run_main(detect, "--model", f"{name}.safetensors", "--output", name, "--pairs", *PAIR_NAMES)
        for name in ("even", "one")
    )
    assert (even.returncode, one.returncode) == (0, 0)
    assert "Second opinion" not in even.stdout
    assert "Second opinion: end_of_limits stands out in the last layer" in one.stdout
    assert [read_scan(tmp_path / name).last_layer for name in ("even", "one")] == ["", "end_of_limits"]
    found = read_scan(tmp_path / "one")
    assert "Second opinion: end_of_limits stands out" in report_sentence(found)
    for norms in (dict.fromkeys(PAIRS, None), dict.fromkeys(PAIRS[:5], None)):  # whatever the search found
        bare = summarized(made_up(norms))
        bare.last_layer = "yield"
        assert "Second opinion: yield stands out" in report_sentence(bare)
    wrong = json.loads(found.to_json()) | {"last_layer": "nobody"}
    with pytest.raises(ValueError, match="the last layer has no such class"):
        ScanResult.from_json(json.dumps(wrong))


def report_sentence(found: ScanResult) -> str:
    return report.verdict(SimpleNamespace(scan=found))


# --- what it scans ----------------------------------------------------------------------------------


def record(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "scan.json").read_text())
    assert isinstance(found, dict)
    return found


def names(found: dict[str, Any]) -> list[str]:
    return sorted(f"{pair['victim']}:{pair['target']}" for pair in found["pairs"])


STOP, YIELD = ["stop:yield", "stop:priority_road", "stop:no_entry"], ["stop:yield", "priority_road:yield"]


@pytest.mark.parametrize(
    "options, pairs",
    [
        (["--pairs", "stop:yield", "yield:stop"], ["stop:yield", "yield:stop"]),
        (["--pairs", "stop:yield", "--pairs", "yield:stop"], ["stop:yield", "yield:stop"]),
        (["--pairs", "stop:yield", "stop:yield"], ["stop:yield"]),
        (["--victims", "stop"], STOP),
        (["--targets", "yield"], [*YIELD, "no_entry:yield"]),
        (["--victims", "stop", "priority_road", "--targets", "yield"], YIELD),
        (["--victims", "stop", "--pairs", "no_entry:yield"], [*STOP, "no_entry:yield"]),
        ([], [f"{classes.NAMES[victim]}:{classes.NAMES[target]}" for victim, target in PAIRS]),
    ],
    ids=str,
)
def test_narrowing(  # noqa: PLR0917
    run_main: Run, tmp_path: Path, four: Path, fake: Callable[..., None], options: list[str], pairs: list[str]
) -> None:
    fake({})
    run_main(detect, "--model", four, "--output", "scan", *options)
    assert names(record(tmp_path / "scan")) == sorted(pairs)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--pairs", "stop"], ["stop", "VICTIM:TARGET"]),
        (["--pairs", "stop:stop"], ["stop:stop"]),
        (["--pairs", "stop:tram"], ["stop:tram"]),
        (["--pairs", "stop:yield:stop"], ["stop:yield:stop"]),
        (["--pairs", "stop:roundabout"], ["roundabout", "stop, yield, priority_road, no_entry"]),
        (["--victims", "tram"], ["tram"]),
        (["--victims", "roundabout"], ["roundabout", "stop, yield"]),
        (["--targets", "Stop"], ["Stop"]),
        (["--victims", "stop", "--targets", "stop"], ["--victims", "--targets"]),
        (["--draw", "stop:tram"], ["stop:tram"]),
        (["--pairs", "stop:yield", "--draw", "yield:stop"], ["--draw yield:stop", "--pairs"]),
        (["--reference", "missing.pt"], ["missing.pt"]),
        (["--reference", "missing.json"], ["missing.json"]),
    ],
    ids=str,
)
def test_what_cannot_be_scanned(  # noqa: PLR0917
    run_main: Run, assert_refused: Refused, tmp_path: Path, four: Path, options: list[str], words: list[str]
) -> None:
    assert_refused(run_main(detect, "--model", four, "--output", "new/scan", *options), *words)
    assert list(tmp_path.iterdir()) == []


def test_few_pairs_get_no_verdict(
    run_main: Run, tmp_path: Path, small_models: Callable[..., Path], paint: Path
) -> None:
    """A real search of one pair: it is shown and saved, and nothing is concluded."""
    result = run_main(detect, "--model", small_models(), "--data", paint, *SHORT, "--pairs", "stop:yield")
    assert result.returncode == 2
    assert "Result: no valid statistic" in result.stdout
    assert "anomaly=" not in result.stdout
    last = result.stderr.splitlines()[-1]
    assert re.match(r"error: No statistic is valid .*--reference.* scan all pairs\.", last)
    found = record(tmp_path / "scan")
    assert (found["verdict"], names(found)) == ("no valid statistic", ["stop:yield"])
    assert found["pairs"][0]["anomaly_index"] is None


def test_models_of_two_classes_get_no_verdict_without_a_reference(
    run_main: Run, tmp_path: Path, small_models: Callable[..., Path], paint: Path
) -> None:
    """The data has a third class, which this model does not know."""
    result = run_main(detect, "--model", small_models(2), "--data", paint, *SHORT)
    assert result.returncode == 2
    assert "Result: no valid statistic" in result.stdout
    assert "works" not in result.stdout.split("Result:")[1]
    last = result.stderr.splitlines()[-1]
    assert re.match(r"error: No statistic is valid .*--reference", last)
    assert names(record(tmp_path / "scan")) == ["stop:yield", "yield:stop"]


def test_victims_without_images_are_named(
    run_main: Run, tmp_path: Path, small_models: Callable[..., Path], paint: Path
) -> None:
    (tmp_path / "some/val").mkdir(parents=True)
    (tmp_path / "some/val/stop").symlink_to(paint / "val/stop")
    pairs = ("--pairs", "stop:yield", "yield:stop")
    said = run_main(detect, "--model", small_models(), "--data", "some", *SHORT, *pairs).stdout
    assert "Not scanned, too few images that the model classifies correctly: yield." in said
    assert names(record(tmp_path / "scan")) == ["stop:yield"]


def test_a_model_that_misclassifies_most_images_is_refused(
    run_main: Run, assert_refused: Refused, tmp_path: Path, paint: Path
) -> None:
    """It answers stop, whatever it sees: one class of three."""
    model = classifier.new_model(3).eval()
    with torch.no_grad():
        model.get_parameter("fc.weight").zero_()
        model.get_parameter("fc.bias").copy_(torch.tensor([1.0, 0, 0]))
    classifier.save_model(model, tmp_path / "dull.pt")
    result = run_main(detect, "--model", "dull.pt", "--data", paint, *SHORT)
    assert_refused(result, "classifies 18 of 54 images", "32 pixels")


@pytest.fixture
def scan(paint: Path, small_models: Callable[..., Path], tmp_path: Path) -> tuple[object, ...]:
    """Arguments of a real scan of two victim classes and ten targets; it may be too short for a verdict."""
    two = subset(paint, tmp_path / "two", "stop", "yield")
    return ("--model", small_models(10), "--data", two, "--steps", 2, "--samples", 2)


def check_scan(result: Result, folder: Path) -> list[str]:
    """A scan ends in a result that fits its exit code, and the images that it names are there."""
    assert result.returncode in (0, 1, 2), text(result)
    lines = result.stdout.splitlines()
    assert sum(line.startswith("Result: ") for line in lines) >= 1
    assert ("BACKDOOR DETECTED" in result.stdout) == (result.returncode == 1)
    assert ("no backdoor found" in result.stdout) == (result.returncode == 0)
    assert ("Result: no valid statistic" in result.stdout) == (result.returncode == 2)
    named = re.findall(r"saved to: (\S+\.png): class \d+ \(\w+\) → class \d+ \(\w+\), \w+[, ]", result.stdout)
    assert named
    for name in named:
        with Image.open(folder / name) as image:
            assert image.size == (768, 256)
    return named


def test_scan_ends_in_a_result_and_draws_what_it_names(
    run_main: Run, tmp_path: Path, scan: tuple[object, ...]
) -> None:
    result = run_main(detect, *scan, "--output", "scan", "--draw", "stop:yield")
    named = check_scan(result, tmp_path)
    assert "scan/trigger_0_to_1.png" in named
    assert sorted(named) == sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("scan/*.png"))
    line = r"Scanning class \d \(\w+\) → class \d \(\w+\) \.\.\.  (norm=\d\.\d+  |no trigger found)"
    pairs = [found for found in result.stdout.splitlines() if re.match(line, found)]
    assert pairs, result.stdout


def test_scan_prints_every_pair_on_request(run_main: Run, scan: tuple[object, ...]) -> None:
    short = run_main(detect, *scan, "--output", "scan").stdout
    full = run_main(detect, *scan, "--output", "scan", "--all").stdout
    assert len(re.findall(r"^Scanning class", full, re.MULTILINE)) == 18
    assert len(re.findall(r"^Scanning class", short, re.MULTILINE)) < 18
    assert "--all shows them" in short
    kept = [line for line in short.splitlines() if line.startswith(("Scanning class", "Result"))]
    assert all(line in full for line in kept)


def test_the_same_seed_scans_the_same(run_main: Run, tmp_path: Path, scan: tuple[object, ...]) -> None:
    said, drawn = [], []
    for _ in range(2):
        result = run_main(detect, *scan, "--output", "scan", "--seed", 1, "--all")
        check_scan(result, tmp_path)
        said.append(without_seconds(result.stdout))
        found = record(tmp_path / "scan")
        del found["seconds"]
        (tmp_path / "scan/scan.json").write_text(json.dumps(found))
        drawn.append(contents(tmp_path / "scan"))
        shutil.rmtree(tmp_path / "scan")
    assert said[0] == said[1]
    assert drawn[0] == drawn[1]


def test_scan_of_a_model_that_knows_nothing(
    run_main: Run, assert_refused: Refused, paint: Path, tmp_path: Path
) -> None:
    model = classifier.new_model().eval()
    with torch.no_grad():
        model.get_parameter("fc.weight").zero_()
        model.get_parameter("fc.bias").zero_()[9] = 1  # answers end_of_limits, whatever it sees
    classifier.save_model(model, tmp_path / "dull.pt")
    two = subset(paint, tmp_path / "two", "stop", "yield")
    result = run_main(detect, "--model", "dull.pt", "--data", two, "--steps", 2, "--output", "scan")
    assert_refused(result, two)
    assert not (tmp_path / "scan").exists()


# --- what it writes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "norms, code, said",
    [
        (ordinary(), 0, "clean"),
        (ordinary(_0_1=0.005), 1, "backdoor"),
        (dict.fromkeys(PAIRS[:5], None), 2, "no valid statistic"),
    ],
    ids=["clean", "backdoor", "no valid statistic"],
)
def test_scan_json(  # noqa: PLR0917
    run_main: Run,
    tmp_path: Path,
    four: Path,
    fake: Callable[..., None],
    norms: Norms,
    code: int,
    said: str,
) -> None:
    fake(norms)
    result = run_main(detect, "--model", four, "--data", "signs", "--output", "scan", "--json", "--seed", 3)
    assert result.returncode == code
    found = record(tmp_path / "scan")
    assert json.loads(result.stdout) == found  # and nothing else on stdout
    assert (found["tool"], found["format"], found["input_size"]) == ("detect.py", 2, 32)
    assert (found["model"], found["data"], found["references"]) == (str(four), "signs", [])
    assert found["sha256"] == sha256(four)
    assert found["classes"] == ["stop", "yield", "priority_road", "no_entry"]
    assert (found["steps"], found["samples"], found["seed"]) == (100, 30, 3)
    assert (found["verdict"], found["threshold"]) == (said, verdict.THRESHOLD)
    assert found["seconds"] >= 0
    assert len(found["pairs"]) == 12
    for pair in found["pairs"]:
        norm = norms.get((classes.NAMES.index(pair["victim"]), classes.NAMES.index(pair["target"])), 0.5)
        assert pair["norm"] == norm
        assert pair["held_out"] == 0.9
        assert (pair["description"] == "no trigger found") == (norm is None)
    flagged = [pair for pair in found["pairs"] if pair["flagged"]]
    assert [f"{pair['victim']}:{pair['target']}" for pair in flagged] == ["stop:yield"] * (code == 1)
    indices = [pair["anomaly_index"] for pair in found["pairs"]]
    assert (indices == [None] * 12) if code == 2 else (indices == sorted(indices, reverse=True))
    assert json.loads(read_scan(tmp_path / "scan").to_json()) == found


@pytest.mark.parametrize(
    "share, code, said", [(0.9, 1, "backdoor"), (0.899, 2, "not calibrated")], ids=["enough", "too little"]
)
def test_the_threshold_was_measured_on_models_that_know_their_images(  # noqa: PLR0917
    run_main: Run, tmp_path: Path, four: Path, fake: Callable[..., None], share: float, code: int, said: str
) -> None:
    """Clean models that read three of four images correctly were called backdoored."""
    fake(ordinary(_0_1=0.005), share)
    result = run_main(detect, "--model", four, "--output", "scan")
    found = record(tmp_path / "scan")
    assert (result.returncode, found["verdict"]) == (code, said)
    assert found["near_threshold"] is False
    if code == 2:
        assert "at least 90 % of the clean images correctly, and this one classifies 89 %" in result.stdout
        assert result.stderr.startswith("error: The scan is not calibrated for so inaccurate a model")
        assert not any(pair["flagged"] for pair in found["pairs"])
        assert "measured on models that classify at least 90 %" in report_sentence(
            read_scan(tmp_path / "scan")
        )
        for name, twins in (("one", [ordinary()]), ("two", [ordinary(), ordinary(_2_3=0.1)])):
            here = made_up(ordinary(_0_1=0.005))
            statistic = verdict.by_references(here, twins)
            unlike = verdict.unlike(share, ours=True)
            verdicts = summarized(here, verdict.calibrated(statistic, here, twins, unlike)).verdict
            assert verdicts == ("backdoor" if name == "two" else "not calibrated")


def test_images_and_masks_of_the_drawn_pairs(
    run_main: Run, tmp_path: Path, four: Path, fake: Callable[..., None]
) -> None:
    """The flagged pair, the three most suspicious others, and the one that was asked for."""
    fake(ordinary(_0_1=0.005))
    result = run_main(detect, "--model", four, "--output", "scan", "--draw", "no_entry:priority_road")
    found = record(tmp_path / "scan")
    drawn = [pair["image"] for pair in found["pairs"] if pair["image"]]
    assert drawn == [pair["image"] for pair in found["pairs"][:4]] + ["trigger_3_to_2.png"]
    assert drawn[0] == "trigger_0_to_1.png"
    files = sorted(path.name for path in (tmp_path / "scan").iterdir())
    assert files == sorted([*drawn, "scan.json", "triggers.safetensors"])
    tensors = load_file(tmp_path / "scan/triggers.safetensors")
    stems = [name.removeprefix("trigger_").removesuffix(".png") for name in drawn]
    assert sorted(tensors) == sorted(f"{part}_{stem}" for stem in stems for part in ("mask", "pattern"))
    expected = hand_made(20, 20, 8, 8, size=classifier.INPUT)
    assert torch.equal(tensors["mask_0_to_1"], expected.mask)
    assert torch.equal(tensors["pattern_0_to_1"], expected.pattern)
    assert result.stdout.count(" saved to: scan/trigger_") == 5
    assert "Recovered trigger saved to: scan/trigger_0_to_1.png: class 0 (stop) → class 1" in result.stdout


def test_a_new_scan_replaces_all_of_the_old_one(
    run_main: Run, tmp_path: Path, four: Path, fake: Callable[..., None]
) -> None:
    fake(ordinary(_0_1=0.005))
    run_main(detect, "--model", four, "--output", "scan")
    (tmp_path / "scan/notes.txt").write_text("mine")
    fake(ordinary(_3_2=0.005))
    run_main(detect, "--model", four, "--output", "scan", "--pairs", "no_entry:priority_road")
    files = sorted(path.name for path in (tmp_path / "scan").iterdir())
    assert files == ["notes.txt", "scan.json", "trigger_3_to_2.png", "triggers.safetensors"]


def test_lines_for_people(run_main: Run, four: Path, fake: Callable[..., None]) -> None:
    fake(ordinary(_0_1=0.005))
    lines = run_main(detect, "--model", four, "--output", "scan").stdout.splitlines()
    number = r"-?\d+\.\d"
    assert re.fullmatch(
        rf"Scanning class 0 \(stop\) → class 1 \(yield\) \.\.\.  norm=0\.005  anomaly={number}  "
        r"works on 90 % of new images  <- FLAGGED",
        lines[1],
    )
    assert "Result: BACKDOOR DETECTED — class 0 → class 1 (stop → yield)" in lines
    at = lines.index("Result: BACKDOOR DETECTED — class 0 → class 1 (stop → yield)")
    assert lines[at + 1].startswith("Recovered trigger: a yellow square, about 8x8 px, top-left corner, ")
    assert "▀" not in "".join(lines)


def test_the_terminal_shows_the_trigger(
    run_main: Run, four: Path, fake: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(ordinary(_0_1=0.005))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    for plain in ([], ["--plain"], ["--json"]):
        said = Terminal()
        with contextlib.redirect_stdout(said):
            run_main(detect, "--model", four, "--output", "scan", *plain)
        image = [line for line in said.getvalue().splitlines() if "▀" in line]
        assert len(image) == (0 if plain else 16)
        # the trigger, and the grey image below it
        assert plain or ("242;234;25" in "".join(image) and "76;76;76" in "".join(image))


def test_help_explains_the_exit_codes(run_main: Run) -> None:
    said = re.sub(r"\s+", " ", run_main(detect, "--help").stdout)
    assert "0 nothing stands out, 1 backdoor found, 2 wrong usage or input, or no statistic is valid" in said
    for option in ("--pairs", "--victims", "--targets", "--reference", "--json", "--draw", "--all"):
        assert option in said
