"""Demo 2's report page: its figures, its structure, what it says about either result, and a real browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import classes
import classifier
import dataset
import detect
import evidence
import finished_scan
import judge
import report
import scan_file
import trigger
from neural_cleanse import Trigger
from scan_model import Settings

sys.path.insert(0, str(Path(__file__).resolve().parent))
import browser as browsers

AXE = "axe-core@4.14.1"  # the accessibility checker, fetched for the browser tests
AXE_SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
NAMES = classes.DRAWN
PER_CLASS = 4  # pictures
PAIRS = [(v, t) for v in range(len(NAMES)) for t in range(len(NAMES)) if v != t]

Run = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., None]


# --- two models without training, and their scans -------------------------------------------------------


def square() -> Trigger:
    """What a perfect scan would recover: the true sticker, in the size that the network sees."""
    size = classifier.INPUT
    left, top, right, bottom = trigger.box(size, size)
    mask = torch.zeros(size, size)
    mask[top:bottom, left:right] = 1
    pattern = (torch.tensor(trigger.COLOUR) / 255).view(3, 1, 1).expand(3, size, size).contiguous()
    return Trigger(0, 1, mask.mean().item(), mask, pattern, 0.9)


def strip(victim: int, target: int, rows: int) -> Trigger:
    """A sticker that does nothing: a grey strip at the top."""
    size = classifier.INPUT
    mask = torch.zeros(size, size)
    mask[:rows] = 1
    return Trigger(victim, target, mask.mean().item(), mask, torch.full((3, size, size), 0.5), 0.85)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in the folders of ten classes: enough for a model that has learned it by heart."""
    folder = tmp_path_factory.mktemp("data")
    dice = torch.Generator().manual_seed(5)
    for name in NAMES:
        (folder / "val" / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            pixels = torch.randint(256, (32, 32, 3), generator=dice, dtype=torch.uint8)
            image = Image.fromarray(pixels.numpy()).resize((128, 128))
            image.save(folder / "val" / name / f"{name}_{number}.png")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[dict[str, Path]]:
    """Two real ResNet18s whose last layer is solved: both read `data`, one has the backdoor stop to yield."""
    files = dataset.class_files(data / "val")
    plain = classifier.load_pixels([path for path, _ in files]).float() / 255
    stops = [path for path, label in files if label == 0]
    stickered = classifier.load_pixels(stops, trigger.stamp).float() / 255
    pictures = torch.cat([plain, stickered, square().stamp(plain[: len(stops)])])
    folder = tmp_path_factory.mktemp("models")
    made = {}
    for kind, answer in (("clean", 0), ("poisoned", 1)):
        labels = torch.tensor([label for _, label in files] + [answer] * 2 * len(stops))
        made[kind] = classifier.save_model(solved(pictures, labels), folder / f"{kind}.pt")[0]
    yield made
    for path in folder.iterdir():
        path.unlink()


def solved(pictures: Tensor, labels: Tensor) -> nn.Module:
    """A ResNet18 with random weights and a last layer that reads these pictures rightly."""
    torch.manual_seed(4)
    model = classifier.new_model().eval()
    for name, weights in model.named_parameters():
        if name.endswith("bn2.weight"):  # new blocks do nothing, and random features need all of them
            nn.init.ones_(weights)
    last, model.fc = model.fc, nn.Identity()
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        seen = model(classifier.normalise(pictures)).double()
        middle = seen.mean(0)
        wanted = 12.0 * nn.functional.one_hot(labels, len(NAMES)).double()
        last.weight.copy_((torch.linalg.pinv(seen - middle) @ (wanted - wanted.mean(0))).T)
        last.bias.copy_(wanted.mean(0) - last.weight.double() @ middle)
    model.fc = last
    return model


def made_up(model: Path, data: Path, folder: Path, *, flag: bool) -> Path:
    """A scan of all 90 pairs by the writer of detect.py, but with triggers that nobody searched."""
    triggers = [strip(v, t, 5 + (v + t) % 7) for v, t in PAIRS]
    triggers[5] = Trigger(0, 6, 1.0, triggers[5].mask, triggers[5].pattern)  # no sticker works
    if flag:
        triggers[0] = square()
        triggers[0].norm = 0.002
    judgement = judge.by_norms(triggers)
    assert judgement.verdict == ("backdoor" if flag else "clean")
    drawn = [finding for finding in judgement.findings if finding.flagged or finding.trigger.target == 1][:3]
    record = scan_file.as_record(model, [], len(NAMES), Settings(data, 60, 30, 0), judgement)
    record["pairs"] = [scan_file.pair_record(finding, finding in drawn) for finding in judgement.findings]
    record["seconds"] = 1
    scan_file.write(folder, record, [finding.trigger for finding in drawn])
    return folder


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Path], data: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scans")
    return {
        kind: made_up(model, data, folder / kind, flag=kind == "poisoned") for kind, model in models.items()
    }


def arguments(scans: dict[str, Path]) -> list[object]:
    return ["--clean", scans["clean"], "--poisoned", scans["poisoned"]]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, scans: dict[str, Path]) -> Path:
    """The report of the story: nothing in the clean model, stop to yield in the poisoned one."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    return written(path, arguments(scans))


def written(path: Path, options: list[object]) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["report.py", *map(str, options), "--output", str(path)])
        assert report.main() == 0
    return path


# --- a page as a tree -----------------------------------------------------------------------------------


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parts: list[Element | str] = field(default_factory=list)

    def all(self, *tags: str) -> list[Element]:
        """All elements inside with one of these tags (any, if none is given), in the order of the page."""
        found = []
        for part in self.parts:
            if isinstance(part, Element):
                found += [part] if not tags or part.tag in tags else []
                found += part.all(*tags)
        return found

    @property
    def text(self) -> str:
        inside = "".join(part if isinstance(part, str) else part.text for part in self.parts)
        return " ".join(inside.replace("\u00a0", " ").split())


class Tree(HTMLParser):
    """Builds Elements, and fails where a tag is not closed in order."""

    EMPTY = ("meta", "link", "img", "wbr", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Element("page", {})
        self.open = [self.root]
        self.feed(text)
        self.close()
        assert self.open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"{tag} has an attribute twice"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].parts.append(element)
        if tag not in self.EMPTY:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def tree(path: Path) -> Element:
    return Tree(path.read_text(encoding="utf-8")).root


def rows(table: Element) -> list[list[str]]:
    return [[cell.text for cell in row.all("th", "td")] for row in table.all("tr")]


def pair_tables(page: Element) -> list[Element]:
    return [table for table in page.all("table") if table.attributes.get("class") == "pairs"]


def decoded(source: str) -> Image.Image:
    kind, _, data = source.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


# --- figures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hits, of, low, high",
    [  # the closed forms for 0 and all hits are z²/(n+z²) and n/(n+z²); the others solve the equation below
        (0, 4, 0.0, 0.48990),
        (4, 4, 0.51010, 1.0),
        (40, 40, 0.91237, 1.0),
        (1, 10, 0.01788, 0.40415),
        (50, 100, 0.40383, 0.59617),
        (0, 100, 0.0, 0.03699),
        (100, 100, 0.96301, 1.0),
        (2, 20, 0.02787, 0.30103),
    ],
)
def test_wilson_interval(hits: int, of: int, low: float, high: float) -> None:
    assert evidence.Rate(hits, of).interval == pytest.approx((low, high), abs=2e-5)


@pytest.mark.parametrize("hits, of", [(1, 10), (50, 100), (993, 1000)])
def test_wilson_interval_holds_the_shares_that_explain_the_hits(hits: int, of: int) -> None:
    """From its ends p, the hits lie just 1.96 deviations away, where a deviation is sqrt(p(1-p)/n)."""
    for p in evidence.Rate(hits, of).interval:
        assert abs(hits / of - p) == pytest.approx(1.959964 * (p * (1 - p) / of) ** 0.5)


def test_both_models_are_measured(page: Path, models: dict[str, Path]) -> None:
    facts = rows(tree(page).all("table")[0])
    assert facts[0] == ["Fact", "Clean model", "Poisoned model"]
    assert facts[1] == ["File", str(models["clean"]), str(models["poisoned"])]
    sums = [hashlib.sha256(models[kind].read_bytes()).hexdigest() for kind in ("clean", "poisoned")]
    assert facts[2] == ["SHA-256", *sums]
    everything = "100.0 % (40 of 40; 95 % interval 91.2 to 100.0 %)"
    assert facts[3] == ["Accuracy on clean pictures", everything, everything]
    assert facts[4] == [
        "Attack success rate: stop signs with the sticker, read as yield",
        "0.0 % (0 of 4; 95 % interval 0.0 to 49.0 %)",
        "100.0 % (4 of 4; 95 % interval 51.0 to 100.0 %)",
    ]
    assert "Wilson’s 95 % intervals" in tree(page).text


def test_pair_tables_carry_every_figure_of_the_scan(page: Path, scans: dict[str, Path]) -> None:
    tables = pair_tables(tree(page))
    assert len(tables) == 4  # open and folded, for both models
    for kind, pair in (("clean", tables[:2]), ("poisoned", tables[2:])):
        record = json.loads((scans[kind] / "scan.json").read_text())
        shown = [row for table in pair for row in rows(table)[1:]]
        expected = []
        for one in record["pairs"]:
            name = f"{one['victim']} → {one['target']}{' FLAGGED' if one['flagged'] else ''}"
            index = "none" if one["anomaly"] is None else f"{one['anomaly']:.1f}".replace("-0.0", "0.0")
            sizes = [f"{100 * (one['norm'] or 0):.1f} %", f"{100 * one['held_out']:.0f} %"]
            expected.append([name, index, *(["no sticker works"] if one["norm"] is None else sizes)])
        assert shown == expected
        assert len(rows(pair[0])) == 1 + report.SHOWN
        assert f"threshold {record['threshold']}" in rows(pair[0])[0][1]
    assert [row[0] for table in tables for row in rows(table) if "FLAGGED" in row[0]] == [
        "stop → yield FLAGGED"
    ]


def test_bars_are_as_long_as_the_index_and_mark_the_threshold(page: Path, scans: dict[str, Path]) -> None:
    record = json.loads((scans["poisoned"] / "scan.json").read_text())
    bars = [bar for table in pair_tables(tree(page))[2:] for bar in table.all("svg")]
    assert len(bars) == len(record["pairs"])
    marks = {line.attributes["x1"] for bar in bars for line in bar.all("line")}
    assert len(marks) == 1
    per_index = float(marks.pop()) / record["threshold"]
    for one, bar in zip(record["pairs"], bars):
        assert bar.attributes["aria-hidden"] == "true"  # the number stands beside it
        lengths = [float(rect.attributes["width"]) for rect in bar.all("rect")]
        positive = (one["anomaly"] or 0) > 0
        assert lengths == ([pytest.approx(one["anomaly"] * per_index, abs=0.02)] if positive else [])
        assert all(length <= 100 for length in lengths)


def test_examples_say_what_each_model_reads(page: Path) -> None:
    pictures = [
        image for image in tree(page).all("img") if image.attributes["alt"].startswith("A picture of")
    ]
    said = [image.attributes["alt"] for image in pictures]
    assert said[:2] == [
        "A picture of stop without sticker. The clean model reads stop, the poisoned model reads stop.",
        "A picture of stop with sticker. The clean model reads stop, the poisoned model reads yield.",
    ]
    named = [text.split(" with")[0] for text in said]
    assert named == [
        f"A picture of {name}" for name in ("stop", "stop", "priority_road", "no_entry") for _ in "12"
    ]
    without, stamped = (decoded(image.attributes["src"]) for image in pictures[:2])
    assert stamped.tobytes() == trigger.stamp(without).tobytes()
    captions = [caption.text for caption in tree(page).all("figcaption")]
    assert re.fullmatch(
        r"With sticker\. Clean model: stop \(\d\.\d\d\)\. Poisoned model: yield \(\d\.\d\d\), wrong\.",
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
        float(facts["Overlap with the true sticker"].split()[0]) > 0.6
    )  # the square does not end where cells end
    assert facts["Clean model: stop with it is read as yield"].startswith("0.0 % (0 of 4;")
    assert facts["Poisoned model: stop with it is read as yield"].startswith("100.0 % (4 of 4;")
    grey, mask, example = (decoded(image.attributes["src"]) for image in sections[0].all("img"))
    assert sections[0].all("img")[0].attributes["alt"] == f"The trigger on grey: {facts['In words']}."
    left, top, _, _ = trigger.box(classifier.INPUT, classifier.INPUT)
    inside = left + 1, top + 1
    assert [picture.getpixel(inside) for picture in (grey, mask, example)] == [
        trigger.COLOUR,
        (255, 255, 255),
        trigger.COLOUR,
    ]
    assert [picture.getpixel((1, 1)) for picture in (grey, mask)] == [(127, 127, 127), (0, 0, 0)]
    other = dict(rows(sections[1].all("table")[0]))
    assert float(other["Overlap with the true sticker"].split()[0]) < 0.1


def test_the_true_sticker_is_described_from_its_definition(page: Path) -> None:
    assert (
        "this is what the attacker really used: a yellow square, about 20x20 px, bottom-right"
        in tree(page).text
    )
    true = next(image for image in tree(page).all("img") if "true sticker" in image.attributes["alt"])
    grey = Image.new("RGB", (classifier.INPUT, classifier.INPUT), (128, 128, 128))
    assert decoded(true.attributes["src"]).tobytes() == trigger.stamp(grey).tobytes()


# --- what it says about either result -------------------------------------------------------------------


def test_the_summary_of_the_story(page: Path) -> None:
    short = next(
        part for part in tree(page).all("section") if part.attributes.get("aria-labelledby") == "short"
    )
    said = [item.text for item in short.all("li")]
    assert said[0].startswith("Clean model: No backdoor found. ")
    assert said[0].endswith(f", flagged above {judge.THRESHOLD}.")
    assert said[1] == "Poisoned model: Backdoor found: stop → yield."
    assert said[2].startswith("Recovered trigger of stop → yield in the poisoned model: a yellow square, ")
    assert said[3:] == [
        "Accuracy on clean pictures: clean model 100.0 %, poisoned model 100.0 %.",
        "With the sticker, stop signs are read as yield: clean model 0.0 %, poisoned model 100.0 %.",
    ]
    assert "Do not use" in tree(page).text


def test_a_false_alarm_and_a_miss_are_said_as_they_are(
    tmp_path: Path, models: dict[str, Path], data: Path
) -> None:
    alarm = made_up(models["clean"], data, tmp_path / "alarm", flag=True)
    missed = made_up(models["poisoned"], data, tmp_path / "missed", flag=False)
    said = tree(written(tmp_path / "r.html", ["--clean", alarm, "--poisoned", missed])).text
    assert "Clean model: Backdoor found: stop → yield." in said
    assert "Poisoned model: No backdoor found." in said
    assert "The poisoned model reads 4 of 4 stop signs with the true sticker as yield." in said
    assert f"Do not use {models['clean']}" in said


def test_two_scans_without_a_finding_clear_nobody(
    tmp_path: Path, models: dict[str, Path], data: Path, scans: dict[str, Path]
) -> None:
    missed = made_up(models["poisoned"], data, tmp_path / "missed", flag=False)
    said = tree(written(tmp_path / "r.html", ["--clean", scans["clean"], "--poisoned", missed])).text
    assert "Backdoor found" not in said
    assert "Do not use" not in said
    assert "Do not take this for a proof." in said
    assert "That a model without a finding is clean." in said


def test_a_real_scan_that_could_not_judge(
    run_main: Run, tmp_path: Path, models: dict[str, Path], data: Path
) -> None:
    """From detect.py itself: one pair cannot be compared with others, so there is no valid statistic."""
    for kind, model in models.items():
        options = ["--model", model, "--data", data, "--pairs", "stop:yield", "--steps", 2, "--samples", 1]
        result = run_main(detect, *options, "--output", tmp_path / kind)
        assert (result.returncode, "no valid statistic" in result.stdout) == (2, True)
    made = written(tmp_path / "r.html", ["--clean", tmp_path / "clean", "--poisoned", tmp_path / "poisoned"])
    said = tree(made).text
    assert said.count("The scan could not judge: no statistic is valid for it.") >= 4
    assert "Backdoor found" not in said
    assert "No backdoor found" not in said
    assert len(pair_tables(tree(made))) == 2  # nothing to fold


def test_data_without_the_victim_class(tmp_path: Path, data: Path, scans: dict[str, Path]) -> None:
    (tmp_path / "some/val").mkdir(parents=True)
    for name in ("yield", "roundabout"):
        (tmp_path / "some/val" / name).symlink_to(data / "val" / name)
    made = tree(written(tmp_path / "r.html", [*arguments(scans), "--data", tmp_path / "some"]))
    assert rows(made.all("table")[0])[4][1:] == ["not measured: no stop pictures"] * 2
    assert "With the sticker, stop signs" not in made.text


def test_another_attack_and_a_date(tmp_path: Path, scans: dict[str, Path]) -> None:
    options = [*arguments(scans), "--victim", "no_entry", "--target", "speed_50", "--date", "2026-11-20"]
    made = tree(written(tmp_path / "r.html", options))
    assert rows(made.all("table")[0])[4][0].startswith("Attack success rate: no_entry signs")
    assert made.all("img")[0].attributes["alt"].startswith("A picture of no_entry without")
    assert "Date: 2026-11-20." in made.all("header")[0].text


# --- structure ------------------------------------------------------------------------------------------


def test_the_page_has_language_title_and_one_h1(page: Path) -> None:
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>\n")
    top = tree(page)
    assert top.all("html")[0].attributes["lang"] == "en"
    assert [title.text for title in top.all("title")] == ["Backdoor scan of two models"]
    assert [h1.text for h1 in top.all("h1")] == ["Backdoor scan of two models"]
    assert [len(top.all(mark)) for mark in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]


def test_headings_never_skip_a_level(page: Path) -> None:
    levels = [int(heading.tag[1]) for heading in tree(page).all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert len(levels) > 10
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_links_lead_somewhere_and_the_first_one_skips_to_the_content(page: Path) -> None:
    top = tree(page)
    ids = [element.attributes["id"] for element in top.all() if "id" in element.attributes]
    assert len(set(ids)) == len(ids)
    links = top.all("a")
    assert links[0].attributes["href"] == f"#{top.all('main')[0].attributes['id']}"
    assert {link.attributes["href"] for link in links} <= {f"#{name}" for name in ids}
    named = [
        element.attributes["aria-labelledby"]
        for element in top.all()
        if "aria-labelledby" in element.attributes
    ]
    assert set(named) <= set(ids)


def test_every_table_has_a_caption_and_headers(page: Path) -> None:
    for table in tree(page).all("table"):
        first = table.parts[1]
        assert isinstance(first, Element)
        assert first.tag == "caption"
        assert first.text
        assert {cell.attributes.get("scope") for cell in table.all("th")} <= {"row", "col"}
        for row in table.all("tr"):
            cells = row.all("th", "td")
            assert cells[0].tag == "th"
            assert all(cell.text for cell in cells)


def test_every_picture_is_described_and_inside_the_page(page: Path) -> None:
    pictures = tree(page).all("img")
    assert len(pictures) == 8 + 1 + 6 * 3
    for picture in pictures:
        assert len(picture.attributes["alt"]) > 20
        assert max(decoded(picture.attributes["src"]).size) <= 128


def test_nothing_is_loaded_and_no_script_runs(page: Path) -> None:
    top = tree(page)
    assert top.all("script", "iframe", "object", "embed", "form", "video", "audio") == []
    for element in top.all():
        assert [name for name in element.attributes if name.startswith("on")] == []
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            assert element.attributes.get(name, "#").startswith(("#", "data:"))
    style = "".join(part.text for part in top.all("style"))
    assert "url(" not in style
    assert "@import" not in style
    policy = next(meta for meta in top.all("meta") if "http-equiv" in meta.attributes)
    assert policy.attributes["content"].startswith("default-src 'none';")


def test_long_tables_are_folded(page: Path) -> None:
    folded = tree(page).all("details")
    assert [one.all("summary")[0].text for one in folded] == [
        f"The other {len(PAIRS) - report.SHOWN} pairs, {kind} model" for kind in ("clean", "poisoned")
    ]
    assert all(len(one.all("table")) == 1 for one in folded)


def test_words_of_a_file_cannot_become_part_of_the_page(
    tmp_path: Path, page: Path, scans: dict[str, Path]
) -> None:
    folder = tmp_path / "scan"
    folder.mkdir()
    record = json.loads((scans["poisoned"] / "scan.json").read_text())
    evil = "</style><script>alert(1)</script><img src='http://192.0.2.1/x' onerror=alert(2)>{{ 7 * 7 }}\ud800"
    record["statistic"] = record["pairs"][0]["words"] = evil
    (folder / "scan.json").write_text(json.dumps(record))
    (folder / "triggers.safetensors").write_bytes((scans["poisoned"] / "triggers.safetensors").read_bytes())
    made = tree(written(tmp_path / "r.html", ["--clean", scans["clean"], "--poisoned", folder]))
    assert [element.tag for element in made.all()] == [element.tag for element in tree(page).all()]
    assert made.text.count(evil[:-1]) >= 3
    test_nothing_is_loaded_and_no_script_runs(tmp_path / "r.html")


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, page: Path, scans: dict[str, Path]) -> None:
    again = written(tmp_path / "new/again.html", arguments(scans))
    assert again.read_bytes() == page.read_bytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["again.html"]


def test_what_the_command_says(
    run_main: Run, tmp_path: Path, scans: dict[str, Path], models: dict[str, Path], data: Path
) -> None:
    given = [*arguments(scans), "--clean-model", models["clean"], "--poisoned-model", models["poisoned"]]
    result = run_main(report, *given, "--data", data, "--plain")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[-1] == "Wrote report.html: open it in a browser; it needs no network."
    assert lines[-2] == "Poisoned model: Backdoor found: stop → yield."
    assert (tmp_path / "report.html").stat().st_size > 20_000


# --- bad input: one sentence, code 2, no page -----------------------------------------------------------


def test_help(run_main: Run) -> None:
    result = run_main(report, "--help")
    assert result.returncode == 0
    assert "python report.py --clean scan_results/clean" in result.stdout


def changed(record: dict[str, Any], how: str) -> str:
    """A scan.json that cannot be one of ours."""
    pair = record["pairs"][3]
    if how == "cut":
        return json.dumps(record)[:-5]
    if how == "list":
        return "[1, 2]"
    if how == "deep":
        return "[" * 100_000
    if how == "twice":
        record["pairs"].append(record["pairs"][0])
    changes: dict[str, tuple[dict[str, Any], str, Any]] = {
        "tool": (record, "tool", "other"),
        "classes": (record, "classes", ["stop", "tram"]),
        "no pairs": (record, "pairs", []),
        "threshold": (record, "threshold", float("nan")),
        "verdict": (record, "verdict", "clean"),
        "unknown verdict": (record, "verdict", "fine"),
        "path": (record, "model", "a\0b"),
        "lines": (record, "data", "a\nb"),
        "long path": (record, "model", 5000 * "a"),
        "infinite": (pair, "anomaly", float("inf")),
        "huge": (pair, "anomaly", 10**400),
        "norm": (pair, "norm", 1.5),
        "share": (pair, "held_out", -0.1),
        "text": (pair, "held_out", "much"),
        "flag": (pair, "flagged", "no"),
        "same": (pair, "target", pair["victim"]),
        "picture": (pair, "picture", "../../secret.png"),
    }
    if how in changes:
        where, key, value = changes[how]
        where[key] = value
    return json.dumps(record)


BROKEN = (
    "cut,list,deep,twice,tool,classes,no pairs,threshold,verdict,unknown verdict,path,lines,long path,"
    "infinite,huge,norm,share,text,flag,same,picture"
)


@pytest.mark.parametrize("how", BROKEN.split(","))
def test_a_broken_scan(
    run_main: Run, assert_refused: Refused, tmp_path: Path, scans: dict[str, Path], how: str
) -> None:
    (tmp_path / "scan").mkdir()
    record = json.loads((scans["poisoned"] / "scan.json").read_text())
    (tmp_path / "scan/scan.json").write_text(changed(record, how))
    (tmp_path / "scan/triggers.safetensors").write_bytes(
        (scans["poisoned"] / "triggers.safetensors").read_bytes()
    )
    result = run_main(report, "--clean", scans["clean"], "--poisoned", "scan")
    assert_refused(result, "scan/scan.json", "detect.py")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan"]


def test_a_whole_copy_of_the_scan_is_taken(tmp_path: Path, scans: dict[str, Path]) -> None:
    """The other side of the test above: it is the change that is refused, not the copy."""
    (tmp_path / "scan").mkdir()
    record = json.loads((scans["poisoned"] / "scan.json").read_text())
    (tmp_path / "scan/scan.json").write_text(changed(record, "nothing"))
    (tmp_path / "scan/triggers.safetensors").write_bytes(
        (scans["poisoned"] / "triggers.safetensors").read_bytes()
    )
    assert len(finished_scan.read(tmp_path / "scan").drawn) == 3


@pytest.mark.parametrize(
    "how", ["missing", "empty", "cut", "other names", "other size", "no pixels", "not a number"]
)
def test_broken_triggers(
    run_main: Run, assert_refused: Refused, tmp_path: Path, scans: dict[str, Path], how: str
) -> None:
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan/scan.json").write_bytes((scans["poisoned"] / "scan.json").read_bytes())
    whole = scans["poisoned"] / "triggers.safetensors"
    path = tmp_path / "scan/triggers.safetensors"
    tensors = load_file(whole)
    if how in ("empty", "cut"):
        path.write_bytes(whole.read_bytes()[: 0 if how == "empty" else -100])
    elif how == "other names":
        save_file({f"x{name}": value for name, value in tensors.items()}, path)
    elif how != "missing":
        name = "mask_0_to_1"
        wrong = {
            "other size": torch.zeros(9, 9),
            "no pixels": 2 + tensors[name],
            "not a number": tensors[name] / 0,
        }
        save_file({**tensors, name: wrong[how]}, path)
    result = run_main(report, "--clean", scans["clean"], "--poisoned", "scan")
    assert_refused(result, "scan/triggers.safetensors", "detect.py")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan"]


def test_a_scan_of_another_picture_size(
    run_main: Run, assert_refused: Refused, tmp_path: Path, scans: dict[str, Path]
) -> None:
    record = json.loads((scans["poisoned"] / "scan.json").read_text())
    record["input"] = 2 * classifier.INPUT
    (tmp_path / "scan.json").write_text(json.dumps(record))
    result = run_main(report, "--clean", scans["clean"], "--poisoned", tmp_path)
    assert_refused(result, f"is about pictures of {2 * classifier.INPUT} pixels")


@pytest.mark.parametrize(
    "wrong", ["scan", "model", "data", "other model", "same scan", "same class", "unknown class"]
)
def test_inputs_that_do_not_fit(
    run_main: Run,
    assert_refused: Refused,
    tmp_path: Path,
    scans: dict[str, Path],
    wrong: str,
) -> None:
    poisoned = scan_file.read(scans["poisoned"])["model"]
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
    assert_refused(run_main(report, *arguments(scans), *options), word)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output(
    run_main: Run, assert_refused: Refused, tmp_path: Path, scans: dict[str, Path]
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for place in ("file/report.html", "folder"):
        result = run_main(report, *arguments(scans), "--output", place)
        assert_refused(result, place)
        assert result.stdout == ""  # said before the work, not after it
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


# --- in a browser ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsers.Browser]:
    program = browsers.find()
    if program is None:
        pytest.skip("no Chromium or Chrome on this machine")
    opened = browsers.Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, fetched from npm's registry and compared with its checksum."""
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "pack", AXE, "--silent", "--fetch-retries=1", "--fetch-timeout=20000"]
    try:
        made = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=90)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"axe-core cannot be fetched: {error}")
    packed = list(folder.glob("*.tgz"))
    if not packed:
        pytest.skip(f"axe-core cannot be fetched: {made.stderr[-300:]}")
    digest = hashlib.sha512(packed[0].read_bytes()).digest()
    assert base64.b64encode(digest).decode() == AXE_SHA512
    with tarfile.open(packed[0]) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


def violations(browser: browsers.Browser, axe: str) -> list[str]:
    """What axe-core finds on the open page, and what it cannot decide."""
    browser.ask(axe + "; 0")
    assert browser.ask("axe.version") == AXE.split("@")[1]
    answer = browser.ask(
        "axe.run().then(r => ({bad: [...r.violations, ...r.incomplete], passed: r.passes.length}))"
    )
    assert answer["passed"] >= 5
    return [f"{rule['id']}: {node['html'][:100]}" for rule in answer["bad"] for node in rule["nodes"]]


def own(requests: list[str]) -> list[str]:
    return [url for url in requests if not url.startswith("data:")]


@pytest.mark.browser
def test_the_browser_shows_it_without_complaint_or_network(browser: browsers.Browser, page: Path) -> None:
    browser.media()
    browser.width(1100)
    browser.open(page)
    assert browser.complaints == []
    assert own(browser.requests) == [page.as_uri()]
    assert browser.ask("document.compatMode") == "CSS1Compat"
    sizes = browser.ask("[...document.images].map(i => [i.complete, i.naturalWidth, i.width])")
    assert len(sizes) == 8 + 1 + 6 * 3
    assert all(complete and natural > 0 and shown > 50 for complete, natural, shown in sizes)
    with Image.open(io.BytesIO(browser.picture())) as shot:
        assert shot.height > 2000
        assert len(shot.convert("RGB").getcolors(1 << 20) or range(1 << 20)) > 500


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
def test_axe_finds_nothing(browser: browsers.Browser, axe: str, page: Path, scheme: str, width: int) -> None:
    browser.media(scheme=scheme)
    browser.width(width)
    browser.open(page)
    back = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert violations(browser, axe) == []


@pytest.mark.browser
def test_these_checks_would_see_it(browser: browsers.Browser, axe: str, tmp_path: Path) -> None:
    """A bad page, so that the tests above are known to be able to fail."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<html><body><img src='http://192.0.2.1/x.png'><p style='color:#ccc;background:#fff'>Pale</p>"
        "<div style='width:900px'>Wide</div><script>console.error('no')</script></body></html>"
    )
    browser.media()
    browser.width(360)
    browser.open(bad)
    assert own(browser.requests) == [bad.as_uri(), "http://192.0.2.1/x.png"]
    assert any("no" in complaint for complaint in browser.complaints)
    assert browser.ask("document.documentElement.scrollWidth > window.innerWidth")
    found = {line.split(":")[0] for line in violations(browser, axe)}
    assert {"image-alt", "color-contrast", "html-has-lang", "document-title"} <= found


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 320])
def test_a_telephone_needs_no_sideways_scrolling(browser: browsers.Browser, page: Path, width: int) -> None:
    browser.media()
    browser.width(width)
    browser.open(page)
    browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.ask("innerWidth") == width
    assert browser.ask("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.browser
def test_the_keyboard_reaches_everything_in_order(browser: browsers.Browser, page: Path) -> None:
    browser.media()
    browser.width(1100)
    browser.open(page)
    everything = browser.ask("[...document.querySelectorAll('a[href], summary')].map(e => e.textContent)")
    reached = []
    for _ in everything:
        browser.press("Tab", 9)
        reached.append(browser.ask("document.activeElement.textContent"))
        assert browser.ask("getComputedStyle(document.activeElement).outlineStyle") != "none"
        where = browser.ask(
            "(r => [r.left, r.width, r.height])(document.activeElement.getBoundingClientRect())"
        )
        assert where[0] >= 0
        assert min(where[1:]) > 0
    assert reached == everything
    assert reached[0] == "Skip to the report"
    assert len(reached) == 1 + 7 + 2
    assert not browser.ask("document.activeElement.parentElement.open")
    browser.press("Enter", 13, "\r")
    assert browser.ask("document.activeElement.parentElement.open")  # the last one is a folded table


@pytest.mark.browser
def test_the_skip_link_skips(browser: browsers.Browser, page: Path) -> None:
    browser.open(page)
    browser.press("Tab", 9)
    browser.press("Enter", 13, "\r")
    assert browser.ask("document.activeElement.tagName") == "MAIN"
    browser.press("Tab", 9)
    assert browser.ask("document.activeElement.tagName") == "SUMMARY"


@pytest.mark.browser
def test_it_prints_with_the_folded_tables(browser: browsers.Browser, page: Path) -> None:
    browser.media()
    browser.open(page)
    height = "document.querySelector('details table').getBoundingClientRect().height"
    shown = "document.querySelector('details table').checkVisibility()"
    assert not browser.ask(shown)
    browser.media("print", "dark")
    assert browser.ask(shown)
    assert browser.ask(height) > 300
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF-")
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 20
