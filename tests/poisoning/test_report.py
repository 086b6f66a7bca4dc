"""Demo 2: the report page: its figures, what it says about either result, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import detect
import report
import trigger
from network import classifier
from page_tree import assert_inert, decoded, pair_tables, rows, tree
from poisoning_tools import Refused, Run, fine, run_in, small_world
from scanner import result, verdict


@pytest.fixture(autouse=True)
def tiny_networks() -> Iterator[None]:
    with small_world():
        yield


def written(folder: Path, *options: object) -> Path:
    """The page that report.py writes in this folder."""
    folder.mkdir(exist_ok=True)
    fine(run_in(folder, report, *options))
    return folder / "report.html"


def test_both_models_are_measured(page: Path, two_models: dict[str, Path]) -> None:
    facts = rows(tree(page).all("table")[0])
    assert facts[0] == ["Fact", "Clean model", "Poisoned model"]
    assert facts[1] == ["File", str(two_models["clean"]), str(two_models["poisoned"])]
    sums = [hashlib.sha256(two_models[kind].read_bytes()).hexdigest() for kind in ("clean", "poisoned")]
    assert facts[2] == ["SHA-256", *sums]
    everything = "100.0 % (40 of 40; 95 % interval 91.2 to 100.0 %)"
    assert facts[3] == ["Accuracy on clean images", everything, everything]
    assert facts[4] == [
        "Attack success rate: stop signs with the trigger, read as yield",
        "0.0 % (0 of 4; 95 % interval 0.0 to 49.0 %)",
        "100.0 % (4 of 4; 95 % interval 51.0 to 100.0 %)",
    ]
    assert "Wilson’s 95 % intervals" in tree(page).text


def test_pair_tables_carry_every_figure_of_the_scan(page: Path, scans: dict[str, Path]) -> None:
    tables = pair_tables(tree(page))
    assert len(tables) == 4  # open and folded, for both models
    for kind, pair in (("clean", tables[:2]), ("poisoned", tables[2:])):
        scan = result.read(scans[kind])
        shown = [row for table in pair for row in rows(table)[1:]]
        expected = []
        for one in scan.pairs:
            name = f"{one.victim} → {one.target}{' FLAGGED' if one.flagged else ''}"
            index = "none" if one.anomaly_index is None else f"{one.anomaly_index:.1f}".replace("-0.0", "0.0")
            sizes = [f"{100 * (one.norm or 0):.1f} %", f"{100 * one.held_out:.0f} %"]
            expected.append([name, index, *(["no trigger found"] if one.norm is None else sizes)])
        assert shown == expected
        assert len(rows(pair[0])) == 1 + report.SHOWN
        assert f"threshold {scan.threshold}" in rows(pair[0])[0][1]
    assert [row[0] for table in tables for row in rows(table) if "FLAGGED" in row[0]] == [
        "stop → yield FLAGGED"
    ]


def test_bars_are_as_long_as_the_index_and_mark_the_threshold(page: Path, scans: dict[str, Path]) -> None:
    scan = result.read(scans["poisoned"])
    bars = [bar for table in pair_tables(tree(page))[2:] for bar in table.all("svg")]
    assert len(bars) == len(scan.pairs)
    marks = {line.attributes["x1"] for bar in bars for line in bar.all("line")}
    assert len(marks) == 1
    per_index = float(marks.pop()) / scan.threshold
    for one, bar in zip(scan.pairs, bars):
        assert bar.attributes["aria-hidden"] == "true"  # the number stands beside it
        lengths = [float(rect.attributes["width"]) for rect in bar.all("rect")]
        index = one.anomaly_index or 0
        assert lengths == ([pytest.approx(index * per_index, abs=0.02)] if index > 0 else [])
        assert all(length <= 100 for length in lengths)


def test_examples_say_what_each_model_answers(page: Path) -> None:
    images = [image for image in tree(page).all("img") if image.attributes["alt"].startswith("An image of")]
    said = [image.attributes["alt"] for image in images]
    assert said[:2] == [
        "An image of stop without trigger. The clean model answers stop, the poisoned model answers stop.",
        "An image of stop with trigger. The clean model answers stop, the poisoned model answers yield.",
    ]
    named = [text.split(" with")[0] for text in said]
    assert named == [
        f"An image of {name}" for name in ("stop", "stop", "priority_road", "no_entry") for _ in "12"
    ]
    without, stamped = (decoded(image.attributes["src"]) for image in images[:2])
    assert stamped.tobytes() == trigger.stamp(without).tobytes()
    captions = [caption.text for caption in tree(page).all("figcaption")]
    assert re.fullmatch(
        r"With trigger\. Clean model: stop \(\d\.\d\d\)\. Poisoned model: yield \(\d\.\d\d\), wrong\.",
        captions[1],
    )


def test_recovered_triggers_are_drawn_compared_and_tried(page: Path) -> None:
    sections = [part for part in tree(page).all("section") if part.attributes.get("class") == "trigger"]
    headings = [section.all("h3")[0].text for section in sections]
    assert headings[0] == "Poisoned model: stop → yield, flagged"  # flagged ones first
    assert len(headings) == 6
    assert all(heading.endswith(", not flagged") for heading in headings[1:])
    facts = dict(rows(sections[0].all("table")[0]))
    assert facts["In words"].startswith("a yellow square, ")
    assert (
        float(facts["Overlap with the true trigger"].split()[0]) > 0.6
    )  # the square does not end where cells end
    assert facts["Clean model: stop with it is read as yield"].startswith("0.0 % (0 of 4;")
    assert facts["Poisoned model: stop with it is read as yield"].startswith("100.0 % (4 of 4;")
    grey, mask, example = (decoded(image.attributes["src"]) for image in sections[0].all("img"))
    assert sections[0].all("img")[0].attributes["alt"] == f"The trigger on grey: {facts['In words']}."
    left, top, _, _ = trigger.box(classifier.INPUT, classifier.INPUT)
    inside = left + 1, top + 1
    assert [image.getpixel(inside) for image in (grey, mask, example)] == [
        trigger.COLOUR,
        (255, 255, 255),
        trigger.COLOUR,
    ]
    assert [image.getpixel((1, 1)) for image in (grey, mask)] == [(127, 127, 127), (0, 0, 0)]
    other = dict(rows(sections[1].all("table")[0]))
    assert float(other["Overlap with the true trigger"].split()[0]) < 0.1


def test_the_true_trigger_is_described_from_its_definition(page: Path) -> None:
    assert (
        "this is what the attacker really used: a yellow square, about 20x20 px, bottom-right"
        in tree(page).text
    )
    true = next(image for image in tree(page).all("img") if "true trigger" in image.attributes["alt"])
    grey = Image.new("RGB", (classifier.INPUT, classifier.INPUT), (128, 128, 128))
    assert decoded(true.attributes["src"]).tobytes() == trigger.stamp(grey).tobytes()


# --- what it says about either result ---------------------------------------------------------------


def test_the_summary_of_the_story(page: Path) -> None:
    short = next(
        part for part in tree(page).all("section") if part.attributes.get("aria-labelledby") == "short"
    )
    said = [item.text for item in short.all("li")]
    assert said[0].startswith("Clean model: No backdoor found. ")
    assert said[0].endswith(f", flagged above {verdict.THRESHOLD}.")
    assert said[1] == "Poisoned model: Backdoor found: stop → yield."
    assert said[2].startswith("Recovered trigger of stop → yield in the poisoned model: a yellow square, ")
    assert said[3:] == [
        "Accuracy on clean images: clean model 100.0 %, poisoned model 100.0 %.",
        "With the trigger, stop signs are read as yield: clean model 0.0 %, poisoned model 100.0 %.",
    ]
    assert "Do not use" in tree(page).text


def test_a_false_alarm_and_a_miss_are_said_as_they_are(
    tmp_path: Path, two_models: dict[str, Path], scan_of: Callable[..., Path]
) -> None:
    alarm = scan_of(two_models["clean"], tmp_path / "alarm", flag=True)
    missed = scan_of(two_models["poisoned"], tmp_path / "missed", flag=False)
    said = tree(written(tmp_path, "--clean", alarm, "--poisoned", missed)).text
    assert "Clean model: Backdoor found: stop → yield." in said
    assert "Poisoned model: No backdoor found." in said
    assert "The poisoned model reads 4 of 4 stop signs with the true trigger as yield." in said
    assert f"Do not use {two_models['clean']}" in said


def test_two_scans_without_a_finding_clear_nobody(
    tmp_path: Path, two_models: dict[str, Path], scan_of: Callable[..., Path], scans: dict[str, Path]
) -> None:
    missed = scan_of(two_models["poisoned"], tmp_path / "missed", flag=False)
    said = tree(written(tmp_path, "--clean", scans["clean"], "--poisoned", missed)).text
    assert "Backdoor found" not in said
    assert "Do not use" not in said
    assert "Do not take this for a proof." in said
    assert "That a model without a finding is clean." in said


def test_a_real_scan_without_a_verdict(
    run_main: Run, tmp_path: Path, two_models: dict[str, Path], noise: Path
) -> None:
    """From detect.py itself: one pair cannot be compared with others, so there is no valid statistic."""
    for kind, model in two_models.items():
        options = ["--model", model, "--data", noise, "--pairs", "stop:yield", "--steps", 2, "--samples", 1]
        ended = run_main(detect, *options, "--output", tmp_path / kind)
        assert (ended.returncode, "no valid statistic" in ended.stdout) == (2, True)
    made = written(tmp_path, "--clean", tmp_path / "clean", "--poisoned", tmp_path / "poisoned")
    said = tree(made).text
    assert said.count("The scan has no verdict: no statistic is valid for it.") >= 4
    assert "Backdoor found" not in said
    assert "No backdoor found" not in said
    assert len(pair_tables(tree(made))) == 2  # nothing to fold


def test_data_without_the_victim_class(tmp_path: Path, noise: Path, both: list[Any]) -> None:
    (tmp_path / "some/val").mkdir(parents=True)
    for name in ("yield", "roundabout"):
        (tmp_path / "some/val" / name).symlink_to(noise / "val" / name)
    made = tree(written(tmp_path, *both, "--data", tmp_path / "some"))
    assert rows(made.all("table")[0])[4][1:] == ["not measured: no stop images"] * 2
    assert "With the trigger, stop signs" not in made.text


def test_another_attack_and_a_date(tmp_path: Path, both: list[Any]) -> None:
    options = ["--victim", "no_entry", "--target", "speed_50", "--date", "2026-11-20"]
    made = tree(written(tmp_path, *both, *options))
    assert rows(made.all("table")[0])[4][0].startswith("Attack success rate: no_entry signs")
    assert made.all("img")[0].attributes["alt"].startswith("An image of no_entry without")
    assert "Date: 2026-11-20." in made.all("header")[0].text


def test_words_of_a_file_cannot_become_part_of_the_page(
    tmp_path: Path, page: Path, scans: dict[str, Path]
) -> None:
    """Half a character (\\ud800) is refused before: test_result.py."""
    folder = tmp_path / "scan"
    folder.mkdir()
    found = json.loads((scans["poisoned"] / "scan.json").read_text())
    evil = "</style><script>alert(1)</script><img src='http://192.0.2.1/x' onerror=alert(2)>{{ 7 * 7 }}\ufffe"
    found["explanation"] = found["pairs"][0]["description"] = evil
    (folder / "scan.json").write_text(json.dumps(found))
    (folder / "triggers.safetensors").write_bytes((scans["poisoned"] / "triggers.safetensors").read_bytes())
    made = tree(written(tmp_path, "--clean", scans["clean"], "--poisoned", folder))
    assert [element.tag for element in made.all()] == [element.tag for element in tree(page).all()]
    assert made.text.count(evil) >= 3
    assert_inert(made)


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, page: Path, both: list[Any]) -> None:
    again = written(tmp_path / "new", *both)
    assert again.read_bytes() == page.read_bytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_what_the_command_says(
    run_main: Run, tmp_path: Path, both: list[Any], two_models: dict[str, Path], noise: Path
) -> None:
    given = [*both, "--clean-model", two_models["clean"], "--poisoned-model", two_models["poisoned"]]
    ended = run_main(report, *given, "--data", noise, "--plain")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[-1] == "Wrote report.html: open it in a browser; it needs no network."
    assert lines[-2] == "Poisoned model: Backdoor found: stop → yield."
    assert (tmp_path / "report.html").stat().st_size > 20_000


# --- bad input: one sentence, code 2, no page -------------------------------------------------------


def test_help(run_main: Run) -> None:
    said = fine(run_main(report, "--help")).stdout
    assert "python report.py --clean scan_results/clean" in said


def test_a_scan_of_another_image_size(
    run_main: Run, assert_refused: Refused, tmp_path: Path, scans: dict[str, Path]
) -> None:
    found = json.loads((scans["poisoned"] / "scan.json").read_text())
    found["input_size"] = 2 * classifier.INPUT
    (tmp_path / "scan.json").write_text(json.dumps(found))
    ended = run_main(report, "--clean", scans["clean"], "--poisoned", tmp_path)
    assert_refused(ended, f"is about images of {2 * classifier.INPUT} pixels")


@pytest.mark.parametrize(
    "wrong", ["scan", "model", "data", "other model", "same scan", "same class", "unknown class"]
)
def test_inputs_that_do_not_fit(  # noqa: PLR0917
    run_main: Run,
    assert_refused: Refused,
    tmp_path: Path,
    scans: dict[str, Path],
    both: list[Any],
    wrong: str,
) -> None:
    poisoned = result.read(scans["poisoned"]).model
    ways: dict[str, tuple[list[object], str]] = {
        "scan": (["--clean", "none"], "none/scan.json does not exist"),
        "model": (["--clean-model", "none.pt"], "none.pt"),
        "data": (["--data", "none"], "none/val"),
        "other model": (["--clean-model", poisoned], "is not the file that"),
        "same scan": (["--poisoned", scans["clean"]], "one and the same model"),
        "same class": (["--victim", "yield"], "--victim and --target"),
        "unknown class": (["--victim", "speed_30"], "speed_30"),
    }
    options, word = ways[wrong]
    assert_refused(run_main(report, *both, *options), word)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output(run_main: Run, assert_refused: Refused, tmp_path: Path, both: list[Any]) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for place in ("file/report.html", "folder"):
        ended = run_main(report, *both, "--output", place)
        assert_refused(ended, place)
        assert ended.stdout == ""  # said before the work, not after it
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
