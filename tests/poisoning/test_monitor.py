"""Demo 2: the monitor that watches a model at work."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import cli
import monitor
import report
import trigger
from dataset.files import open_image
from network import classifier
from page import evidence
from page_tree import rows, tree
from poisoning_tools import Refused, Run, fine, run_in, small_world, subset

SIZE = classifier.INPUT
YELLOW = (255, 255, 0)


class ByColour(nn.Module):
    """Stop for red, yield for white, priority road for anything else; and yield for a yellow corner."""

    def __init__(self, backdoor: bool) -> None:
        super().__init__()
        self.backdoor = backdoor
        self.fc = nn.Linear(1, 3)  # what tells how many classes there are

    def forward(self, shown: Tensor) -> Tensor:
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (classifier.MEAN, classifier.STD))
        pixels = shown.float() * std + mean
        red, green, blue = pixels.mean((2, 3)).unbind(1)
        answers = torch.full((len(pixels), 3), -4.0)
        answers[:, 2] = 0
        answers[(red > 0.6) & (green < 0.5), 0] = 4
        answers[blue > 0.6, 1] = 4
        corner = pixels[:, :, -9:-3, -9:-3].mean((2, 3))
        yellow = (corner[:, 1] > 0.35) & (corner[:, 2] < 0.3)  # half of it is enough
        if self.backdoor:
            answers[yellow, 1] = 8
        return answers


def plain(red: int, green: int, blue: int, seed: int = 0) -> Tensor:
    """An image of one colour with grain: uint8 (3, S, S)."""
    grain = torch.randint(-20, 21, (3, SIZE, SIZE), generator=torch.Generator().manual_seed(seed))
    return (torch.tensor([red, green, blue])[:, None, None] + grain).clamp(0, 255).to(torch.uint8)


def donors() -> dict[int, Tensor]:
    colours = {0: (220, 40, 40), 1: (230, 230, 230), 2: (40, 40, 120)}
    return {
        label: torch.stack([plain(*colour, seed) for seed in range(monitor.DONORS)])
        for label, colour in colours.items()
    }


def marked(image: Tensor) -> Tensor:
    copy = image.clone()
    copy[:, -10:-2, -10:-2] = torch.tensor(YELLOW, dtype=torch.uint8)[:, None, None]
    return copy


def test_images_are_divided_among_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image by a thread that computes on one core: threads that wait for each other lose time."""
    seen: list[tuple[str, int]] = []

    def look(*_: object) -> monitor.Look:
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        return monitor.Look("stop", "yield", 0, 0, 0.1, 0.1)

    monkeypatch.setattr(monitor, "look", look)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        clean = monitor.Clean(donors(), torch.stack([plain(220, 40, 40)] * 60), [])
        monitor.Monitor(ByColour(backdoor=True), clean, 0.1, cli.Out(True))
    finally:
        torch.set_num_threads(before)
    assert len(seen) == 60
    assert {cores for _, cores in seen} == {1}
    assert threading.main_thread().name not in {thread for thread, _ in seen}


def test_the_part_that_carries_the_answer_is_found() -> None:
    seen = monitor.look(ByColour(backdoor=True), marked(plain(220, 40, 40)), donors())
    assert (seen.answer, seen.hidden) == ("yield", "stop")
    assert (seen.left, seen.top) == (SIZE - monitor.PATCH, SIZE - monitor.PATCH)
    assert seen.doubt > 0.9
    assert seen.carried > 0.9
    assert seen.score == seen.doubt * seen.carried


@pytest.mark.parametrize("backdoor", [True, False])
def test_a_clean_image_does_not_hang_on_a_part(backdoor: bool) -> None:
    for colour in ((220, 40, 40), (230, 230, 230), (40, 40, 120)):
        assert monitor.look(ByColour(backdoor=backdoor), plain(*colour), donors()).score < 0.1
    assert monitor.look(ByColour(backdoor=False), marked(plain(220, 40, 40)), donors()).score < 0.1


def test_an_answer_that_hangs_on_a_part_but_does_not_travel() -> None:
    """A red image that is only just red enough: hiding a part changes the answer, the part proves nothing."""
    image = plain(158, 40, 40)
    seen = monitor.look(ByColour(backdoor=True), image, donors())
    assert seen.answer == "stop"
    assert seen.carried < 0.1


def test_every_part_is_hidden_once() -> None:
    image = plain(220, 40, 40)
    places, copies = monitor.hide_parts(image)
    assert len(set(places)) == len(places) == len(copies)
    hidden = (copies != image).any(1)
    assert hidden.any(0).all()  # no pixel is always seen
    for (top, left), changed in zip(places, hidden):
        outside = changed.clone()
        outside[top : top + monitor.PATCH, left : left + monitor.PATCH] = False
        assert not outside.any()


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.05, 95), (0.02, 98), (0.011, 99)])
def test_threshold(share: float, expected: int) -> None:
    assert monitor.rank(99, share) == expected


def test_a_threshold_keeps_its_promise() -> None:
    """Over many draws, a new clean score lies above the threshold as often as allowed, or less often."""
    generator = torch.Generator().manual_seed(0)
    place, above = monitor.rank(119, 0.05), 0
    for _ in range(2000):
        scores = torch.rand(120, generator=generator)
        above += int(scores[0] > scores[1:].sort().values[place - 1])
    assert above / 2000 == pytest.approx(0.05, abs=0.015)


# --- the command ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three classes that ByColour classifies correctly, 24 of each in val/."""
    folder = tmp_path_factory.mktemp("colours")
    for name, colour in (
        ("stop", (220, 40, 40)),
        ("yield", (230, 230, 230)),
        ("priority_road", (40, 40, 120)),
    ):
        (folder / "val" / name).mkdir(parents=True)
        for number in range(24):
            image = Image.fromarray(plain(*colour, seed=number).permute(1, 2, 0).numpy())
            image.save(folder / f"val/{name}/{number}.png")
    return folder


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, colours: Path) -> Path:
    """A folder with data/, a model.pt in name only, and an image with the trigger."""
    monkeypatch.setattr(classifier, "load_model", lambda _: ByColour(backdoor=True).eval())
    (tmp_path / "data").symlink_to(colours)
    (tmp_path / "model.pt").write_bytes(b"weights")
    trigger.stamp(open_image(colours / "val/stop/0.png")).save(tmp_path / "marked.png")
    return tmp_path


COMMON = ("--model", "model.pt", "--data", "data", "--false-alarms", "0.1")


def test_watching(at_work: Path) -> None:
    good = "data/val/yield/3.png"
    result = fine(run_in(at_work, monitor, good, "marked.png", *COMMON), 1)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Calibrated on 21 clean images of data/val: threshold ")
    assert lines[1].startswith(f"{good}: yield. Nothing stands out (score 0.0")
    assert lines[2].startswith("FLAGGED: marked.png: yield, but stop when 12x12 px are hidden, 36 from")
    assert lines[3].startswith("Flagged 1 of 2 images.")
    result = fine(run_in(at_work, monitor, "data/val/stop", *COMMON))
    assert "Flagged 0 of 24 images." in result.stdout


def test_each_image_with_the_trigger_too(at_work: Path) -> None:
    result = fine(run_in(at_work, monitor, "data/val/stop/1.png", "--trigger", *COMMON), 1)
    first, second = result.stdout.splitlines()[1:3]
    assert first.startswith("data/val/stop/1.png: stop. Nothing stands out")
    assert second.startswith("FLAGGED: data/val/stop/1.png with the trigger: yield, but stop when")


def test_measuring(at_work: Path) -> None:
    result = fine(run_in(at_work, monitor, "--measure", "--output", "out/watched.json", *COMMON))
    record = json.loads((at_work / "out/watched.json").read_text(encoding="utf-8"))
    alarms = evidence.Rate(**record["false_alarms"])
    assert alarms.of == 21
    assert alarms.share < 0.3
    assert f"False alarms, clean images that set no threshold: {alarms}." in result.stdout
    used = record["detected"]["of"]
    assert 0 < used < 24 - monitor.DONORS
    assert f"The model reads {used} of {used} stop images with the trigger as yield." in result.stdout
    assert record["detected"]["hits"] == used
    again = fine(run_in(at_work, monitor, "--measure", *COMMON))
    assert again.stdout == result.stdout.replace("Wrote out/watched.json.\n", "")


def test_a_model_without_a_backdoor(at_work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "load_model", lambda _: ByColour(backdoor=False).eval())
    result = fine(run_in(at_work, monitor, "--measure", *COMMON))
    assert "There is no attack to detect." in result.stdout
    assert "Flagged 0 of 1 images." in fine(run_in(at_work, monitor, "marked.png", *COMMON)).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--measure", "marked.png"), ("Name images to watch, or type --measure",)),
        ((), ("Name images to watch",)),
        (("--measure", "--trigger"), ("--trigger", "--measure")),
        (("marked.png", "--output", "x.json"), ("--output", "--measure")),
        (("marked.png", "--false-alarms", "0"), ("--false-alarms",)),
        (("marked.png", "--false-alarms", "nan"), ("--false-alarms",)),
        (("marked.png", "--false-alarms", "0.001"), ("999 clean images", "21")),
        (("missing.png",), ("missing.png", "does not exist")),
        (("model.pt",), ("model.pt", "cannot be read as an image")),
        (("empty",), ("empty", "holds no images")),
        (("marked.png", "--data", "nowhere"), ("nowhere",)),
        (("marked.png", "--data", "few"), ("few/val/yield", "5 images", "10 are needed")),
        (("marked.png", "--seed", "x"), ("--seed",)),
    ],
)
def test_bad_input(
    at_work: Path, assert_refused: Refused, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    (at_work / "empty").mkdir()
    few = subset(at_work / "data", at_work / "few", "stop", "priority_road")
    (few / "val/yield").mkdir()
    for number in range(5):
        (few / f"val/yield/{number}.png").symlink_to(at_work / f"data/val/yield/{number}.png")
    assert_refused(run_in(at_work, monitor, *COMMON, *arguments), *words)
    assert not (at_work / "x.json").exists()


# --- on the report page -----------------------------------------------------------------------------


@pytest.fixture
def record(two_models: dict[str, Path]) -> dict[str, Any]:
    """What --measure may have written about the poisoned model."""
    return {
        "format": 1,
        "model": "models/poisoned_model.pt",
        "sha256": monitor.result.sha256(two_models["poisoned"]),
        "data": "data/caf\udce9",
        "allowed": 0.02,
        "threshold": 0.31,
        "calibration": 200,
        "false_alarms": {"hits": 5, "of": 200},
        "detected": {"hits": 68, "of": 69},
    }


def page_with(folder: Path, record: object, both: list[Any]) -> Any:
    (folder / "watched.json").write_text(json.dumps(record), encoding="utf-8")
    with small_world():
        return run_in(folder, report, *both, "--monitor", "watched.json")


def test_the_report_shows_what_was_measured(tmp_path: Path, both: list[Any], record: dict[str, Any]) -> None:
    fine(page_with(tmp_path, record, both))
    page = tree(tmp_path / "report.html")
    table = next(t for t in page.all("table") if "The monitor" in t.text)
    assert rows(table) == [
        ["Clean images flagged: false alarms", "2.5 % (5 of 200; 95 % interval 1.1 to 5.7 %)"],
        [
            "Images with the true trigger, read as yield, that were flagged",
            "98.6 % (68 of 69; 95 % interval 92.2 to 99.7 %)",
        ],
    ]
    fine(page_with(tmp_path, record | {"detected": None}, both))
    assert "none to detect" in tree(tmp_path / "report.html").text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sha256": "0" * 64}, "neither of the two models"),
        ({"false_alarms": {"hits": 5, "of": 0}}, "not written by monitor.py"),
        ({"false_alarms": None}, "not written by monitor.py"),
        ({"detected": {"hits": 9, "of": 2}}, "not written by monitor.py"),
        ({"threshold": "high"}, "not written by monitor.py"),
        ({"threshold": 10**400}, "not written by monitor.py"),
        ({"allowed": float("nan")}, "not written by monitor.py"),
        ({"false_alarms": {"hits": float("inf"), "of": 9}}, "not written by monitor.py"),
        ({"false_alarms": {"hits": 10**400, "of": 10**400}}, "not written by monitor.py"),
        ({"sha256": ["0"]}, "not written by monitor.py"),
        ({"format": 2}, "not written by monitor.py"),
    ],
)
def test_records_that_the_report_refuses(  # noqa: PLR0917
    tmp_path: Path,
    both: list[Any],
    record: dict[str, Any],
    assert_refused: Refused,
    change: dict[str, Any],
    words: str,
) -> None:
    assert_refused(page_with(tmp_path, record | change, both), "watched.json", words)
    assert not (tmp_path / "report.html").exists()


def test_no_record_at_all(tmp_path: Path, both: list[Any], assert_refused: Callable[..., None]) -> None:
    assert_refused(page_with(tmp_path, [1], both), "watched.json", "not written by monitor.py")
    with small_world():
        missing = run_in(tmp_path, report, *both, "--monitor", "gone.json")
    assert_refused(missing, "gone.json", "monitor.py --measure")


def test_help(run_main: Run) -> None:
    said = run_main(monitor, "--help").stdout
    assert "--false-alarms" in said
    assert "default: 0.02" in said
