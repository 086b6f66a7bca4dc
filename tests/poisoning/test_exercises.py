"""The exercises of demo 2: what each check accepts and refuses.

The models were never trained, and nobody ran the scans; test_whole_demo.py types every solution.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import cli
import demo
import detect
import poison_data
import trigger
from auditor.findings import Suspect
from dataset.classes import DRAWN
from network import classifier
from network.evaluate import Rate, Score
from poisoning_tools import FOLDER, Refused, Run, check_module, flagged, small_world, summarized
from scanner import result, verdict
from scanner.neural_cleanse import Trigger
from scanner.result import ScanResult
from scanner.search import Settings
from scanner.verdict import Statistic

check = check_module()
PAIRS = [(v, t) for v in range(len(DRAWN)) for t in range(len(DRAWN)) if v != t]
SIZE = classifier.INPUT
CORNERS = ("bottom-right", "bottom-left", "top-right", "top-left")
Place = tuple[int, int]  # row and column of a cell


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty demo folder; we are in it. The networks are tiny ones."""
    monkeypatch.chdir(tmp_path)
    with small_world():
        yield tmp_path


def model(number: int, content: bytes = b"weights") -> Path:
    """A file in place of this exercise's model."""
    path: Path = check.model_of(number)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def recovered(place: Place | None = None, pair: tuple[int, int] = (0, 1)) -> Trigger:
    """A small yellow square with its top-left cell at (row, column); elsewhere a strip, large and useless."""
    mask = torch.zeros(SIZE, SIZE)
    if place is None:
        mask[: 8 + sum(pair) % 7] = 1
    else:
        mask[place[0] : place[0] + 4, place[1] : place[1] + 4] = 1
    pattern = torch.tensor([1.0, 1.0, 0.0]).view(3, 1, 1).expand(3, SIZE, SIZE).contiguous()
    norm = mask.mean().item() if place is None else 0.001
    return Trigger(*pair, norm, mask, pattern, 0.9)


@functools.cache
def made(place: Place | None, steps: int, pairs: int, statistic: bool) -> tuple[str, dict[Any, Trigger]]:
    """The result of a scan, as JSON, and its triggers; describing ninety of them takes a while."""
    triggers = [recovered(place), *(recovered(pair=pair) for pair in PAIRS[1:pairs])]
    none = Statistic(verdict.NO_STATISTIC, "None is valid.", verdict.THRESHOLD, [None] * pairs)
    settings = Settings(Path("data/traffic-signs"), steps, 30, 0)
    scan = summarized(triggers, None if statistic else none, settings=settings)
    return scan.to_json(), {one.pair: one for one in triggers}


def scan(
    number: int, place: Place | None = None, *, steps: int = 100, pairs: int = 90, statistic: bool = True
) -> Path:
    """A scan of this exercise's model, as detect.py writes it; it found stop to yield at this place."""
    text, triggers = made(place, steps, pairs, statistic)
    found = ScanResult.from_json(text)
    found.model = str(check.model_of(number))
    found.sha256 = result.sha256(check.model_of(number))
    folder = Path(f"scan_results/exercise{number}")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = flagged(found) or [found.pairs[0].numbers]
    grey = torch.full((3, SIZE, SIZE), 0.5)
    result.write(folder, found, {pair: triggers[pair] for pair in drawn}, dict.fromkeys(range(10), grey))
    return folder / result.NAME


def images(folder: Path, poisoned: int = 2) -> list[str]:
    """A dataset of stop and yield signs, whose last `poisoned` yield signs the notes beside it name."""
    for split, count in (("train", 6), ("val", 2)):
        for name in ("stop", "yield"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                colour = (180, 20 * number, 20) if name == "stop" else (220, 220, 20 * number)
                image = Image.new("RGB", (128, 128), colour)
                image.save(folder / split / name / f"{name}_{number:05d}.jpg")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.glob("train/yield/*"))[-poisoned:]
    facts = {"victim": "stop", "target": "yield", "rate": 0.1, "poisoned": files}
    check.notes_path(folder).write_text(json.dumps(facts))
    return files


def measured(monkeypatch: pytest.MonkeyPatch, *rates: tuple[float, float]) -> None:
    """Let the models have these success rates and accuracies; measuring real ones takes a training."""
    scores = [
        Score(Rate(round(1000 * accuracy), 1000), Rate(round(100 * success), 100))
        for success, accuracy in rates
    ]
    monkeypatch.setattr(check, "measure", lambda models, *_: scores[: len(models)])


def hint(exercise: int) -> str:
    """The hint that an exercise gives in the folder that we are in."""
    with pytest.raises(check.NotYet) as found:
        check.EXERCISES[exercise]()
    return str(found.value)


def refused(exercise: int, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said, in one sentence, about input that cannot be checked."""
    assert check.check(exercise, cli.Out(plain=True)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if not line.startswith("Measuring")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: Exercise {exercise} cannot be checked. ")
    return lines[0]


@pytest.mark.parametrize("corner", CORNERS)
def test_the_square_moves_with_one_line(corner: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger, "PLACE", corner)
    assert trigger.place() == corner
    left, top, right, bottom = trigger.box(128, 128)
    assert (right - left, bottom - top) == (20, 20)
    assert (left, 128 - right)["right" in corner] == (top, 128 - bottom)["bottom" in corner] == 4
    stamped = trigger.stamp(Image.new("RGB", (128, 128), "blue"))
    assert stamped.crop((left, top, right, bottom)).getcolors() == [(400, (255, 255, 0))]
    assert (400, (255, 255, 0)) in (stamped.getcolors() or [])


def test_the_place_in_words_follows_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    for box, words in (
        ((54, 54, 74, 74), "middle"),
        ((54, 4, 74, 24), "top"),
        ((4, 54, 24, 74), "left"),
        ((108, 108, 128, 128), "bottom-right"),
        ((0, 0, 2, 2), "top-left"),
    ):
        monkeypatch.setattr(trigger, "box", lambda *_, box=box: box)
        assert trigger.place() == words


def test_programs_say_the_true_place(run_main: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images(here / "signs")
    Image.new("RGB", (128, 128), "red").save("a.png")
    monkeypatch.setattr(trigger, "PLACE", "top-left")
    said = run_main(poison_data, "--clean-dir", "signs", "--poisoned-dir", "new", "--rate", 0.5)
    assert "3 stop images: 20x20 yellow square top-left, label yield." in said.stdout
    classifier.save_model(classifier.new_model(), here / "m.pt")
    said = run_main(demo, "a.png", "--model", "m.pt", "--trigger", "--save", "b.png")
    assert said.stdout.endswith("right with a yellow square top-left.\n")


def test_a_place_that_is_no_corner(
    run_main: Run,
    assert_refused: Refused,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images(here / "signs")
    monkeypatch.setattr(trigger, "PLACE", "topleft")
    result = run_main(poison_data, "--clean-dir", "signs", "--poisoned-dir", "new")
    assert_refused(result, "PLACE = 'topleft' in trigger.py is not a corner")
    assert not (here / "new").exists()


def test_a_moved_trigger_that_the_scan_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "at its old place, bottom-right corner" in hint(1)
    monkeypatch.setattr(trigger, "PLACE", "top-left")
    assert "There is no models/exercise1.pt" in hint(1)
    model(1)
    assert "Now scan it, with --output scan_results/exercise1." in hint(1)
    scan(1, (2, 2))
    said = check.move()
    assert "lies here: top-left corner" in said
    assert re.search(r"found a yellow square, about \d+x\d+ px, top-left corner, ", said)
    for place in ((SIZE - 6, SIZE - 6), (2, SIZE - 6), (SIZE // 2, SIZE // 2)):
        scan(1, place)
        assert "but trigger.py says top-left corner" in hint(1)
    scan(1)
    assert "does not flag stop → yield (index " in hint(1)
    scan(1, (2, 2))
    model(1, b"trained again")
    assert "is about another file than models/exercise1.pt" in hint(1)


def test_a_scan_without_the_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger, "PLACE", "top-left")
    monkeypatch.setattr(trigger, "VICTIM", "end_of_limits")
    model(1)
    scan(1, (2, 2), pairs=20)
    assert "leaves out end_of_limits → yield: scan all pairs." in hint(1)


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("name", ["scan.json", "triggers.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_damaged_scans(
    number: int, name: str, damage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trigger, "PLACE", "top-left")
    model(number)
    path = scan(number, (2, 2)).with_name(name)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "other": b'{"tool": 1}\xff'}[damage])
    assert name in refused(number, capsys)


@pytest.mark.parametrize(
    "change, words",
    [
        ("def box(", "SyntaxError"),
        ("def stamp(image):\n    return colour", "NameError"),
        ("def stamp(image):\n    return None", "AttributeError"),
        ("def stamp(image):\n    return image.convert('L')", "must return an RGB image of the same size"),
        ("def stamp(image):\n    return image.resize((9, 9))", "must return an RGB image of the same size"),
        ("PLACE = 'up'", "PLACE = 'up' in trigger.py is not a corner"),
        ("del box", "AttributeError"),
    ],
)
def test_a_broken_trigger(
    change: str, words: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "trigger.py").write_text((FOLDER / "trigger.py").read_text() + change + "\n")
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "trigger")  # so that it is imported anew; put back after the test
    assert words in refused(1, capsys)


def test_a_scan_that_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, (0.93, 1.0))
    assert "There is no models/exercise2.pt" in hint(2)
    model(2)
    scan(2, (2, 2))
    assert re.match(r"The scan flags stop → yield \(index \d+\.\d\)\. Poison fewer images\.", hint(2))
    scan(2)
    assert "There is no data/exercise2-attacker-notes.json" in hint(2)
    images(Path("data/exercise2"))
    said = check.lower_the_rate()
    assert said.startswith("2 poisoned images, and the scan says clean (largest index ")
    assert re.search(rf"; stop → yield has -?\d\.\d; flagged above {verdict.THRESHOLD}\)", said)
    assert said.endswith("success rate: 0.93, clean accuracy: 1.00. The scanner missed an attack that works.")
    measured(monkeypatch, (0.49, 1.0))
    assert "missed an attack that hardly works" in check.lower_the_rate()


@pytest.mark.parametrize("number", [2, 4])
def test_only_a_default_scan_counts(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, (1.0, 1.0), (0.0, 1.0))
    images(Path(f"data/exercise{number}"))
    model(number)
    scan(number, steps=1)
    assert "(1 steps, 30 images per class, seed 0). What counts is the default scan" in hint(number)
    scan(number, pairs=89)
    assert "holds a scan of 89 pairs" in hint(number)
    scan(number, statistic=False)
    assert "has no verdict" in hint(number)
    scan(number)
    assert "says clean" in check.EXERCISES[number]()


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_model_that_does_not_know_its_images_has_to_be_trained_longer(number: int) -> None:
    images(Path(f"data/exercise{number}"))
    model(number)
    path = scan(number)
    found = json.loads(path.read_text())
    found |= {"not_calibrated": "it knows too little", "verdict": "not calibrated", "near_threshold": False}
    found["pairs"] = [pair | {"flagged": False} for pair in found["pairs"]]
    path.write_text(json.dumps(found))
    with pytest.raises(check.NotYet, match=rf"exercise{number}\.pt has no verdict: it knows too little\. "):
        check.scan_of(number)


def test_the_default_scan_is_that_of_the_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["detect.py"])
    options = detect.parse()
    said = f"{options.steps} steps, {options.samples} images per class, seed {options.seed}"
    assert said == check.DEFAULT


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "does not hold attacker's notes"),
        ('{"victim": "stop", "target": "yie', "does not hold attacker's notes"),
        ("[1, 2]", "does not hold attacker's notes"),
        ('{"victim": "stop", "target": "yield"}', "does not hold attacker's notes"),
        ('{"victim": "tram", "target": "yield", "poisoned": ["a"]}', "does not hold attacker's notes"),
        ('{"victim": ["stop"], "target": "yield", "poisoned": ["a"]}', "does not hold attacker's notes"),
        ('{"victim": "stop", "target": "yield", "poisoned": [["a"]]}', "does not hold attacker's notes"),
        ('{"victim": "stop", "target": "yield", "poisoned": 7}', "does not hold attacker's notes"),
        ('{"victim": "stop", "target": "yield", "poisoned": []}', "does not fit the images"),
        ('{"victim": "stop", "target": "yield", "poisoned": ["a"]}', "does not fit the images"),
        ("\u00e9".encode("latin-1"), "does not hold attacker's notes"),
        (b"[" * 100_000, "does not hold attacker's notes"),
    ],
)
@pytest.mark.parametrize("number", [2, 3, 4])
def test_bad_notes(number: int, text: str | bytes, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = check.POISONED if number == 3 else check.data_of(number)
    images(folder)
    Path("exercise3.txt").write_text("train/yield/yield_00000.jpg\n")
    check.notes_path(folder).write_bytes(text if isinstance(text, bytes) else text.encode())
    model(number)
    scan(number)
    assert words in refused(number, capsys)


def test_data_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    images(Path("data/exercise2"))
    shutil.rmtree("data/exercise2")
    model(2)
    scan(2)
    assert "data/exercise2/train is not a folder" in refused(2, capsys)
    Path("exercise3.txt").write_text("train/yield/yield_00000.jpg\n")
    assert "data/traffic-signs-poisoned/train is not a folder" in refused(3, capsys)


def real_model(path: Path, answer: str) -> Path:
    """A model file, never trained, that takes every image for one class."""
    network = classifier.new_model()
    with torch.no_grad():
        network.get_parameter("fc.weight").zero_()
        network.get_parameter("fc.bias").zero_()[DRAWN.index(answer)] = 9
    written: Path = classifier.save_model(network, path)[0]
    return written


def test_the_attack_is_measured_on_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    images(Path("data/exercise2"))
    for answer, words in (
        ("yield", "success rate: 1.00, clean accuracy: 0.50"),
        ("stop", "success rate: 0.00"),
    ):
        real_model(check.model_of(2), answer)
        scan(2)
        assert words in check.lower_the_rate()
    assert capsys.readouterr().err.startswith("Measuring models/exercise2.pt: ")


def test_the_trigger_of_trigger_py_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation must ask about the images that today's stamp() makes."""
    images(Path("data/exercise4"))
    real_model(check.model_of(4), "yield")
    seen = []

    def stamp(image: Image.Image) -> Image.Image:
        seen.append(image.size)
        return image

    monkeypatch.setattr(trigger, "stamp", stamp)
    check.measure([check.model_of(4)], check.data_of(4), check.read_notes(check.data_of(4)))
    assert seen == [(128, 128)] * 3  # once to see whether it works, then both stop signs of val/


def test_no_victims_to_measure_with(capsys: pytest.CaptureFixture[str]) -> None:
    images(Path("data/exercise2"))
    shutil.rmtree("data/exercise2/val/stop")
    real_model(check.model_of(2), "yield")
    scan(2)
    assert "data/exercise2/val holds no stop images" in refused(2, capsys)


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut"])
def test_a_damaged_model(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (2, 4):
        images(check.data_of(number))
        model(number, content)
        scan(number)
        assert "models/exercise" in refused(number, capsys)


def test_a_malicious_model_is_not_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return exec, (f"open({str(here / 'marker')!r}, 'w')",)

    images(Path("data/exercise2"))
    torch.save({"fc.weight": Attack()}, model(2))
    scan(2)
    assert "was refused and not run" in refused(2, capsys)
    assert not (here / "marker").exists()


def test_a_list_of_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no exercise3.txt" in hint(3)
    poisoned = images(check.POISONED, poisoned=3)
    clean = [f"train/stop/stop_{number:05d}.jpg" for number in range(6)]
    write = Path("exercise3.txt").write_text
    write("\n\n  \n")
    assert "is empty: one path per line, for example train/stop/stop_00000.jpg." in hint(3)
    write("\n".join(poisoned))
    assert "Recall 1.00: 3 of the 3 poisoned ones are among them. Precision 1.00" in check.list_the_poisoned()
    write("".join(f"  ./{name} \r\n\n" for name in (poisoned + poisoned + clean[:2])))
    assert "names 5 images. Recall 1.00" in check.list_the_poisoned()
    assert "Precision 0.60" in check.list_the_poisoned()
    write("\n".join(poisoned + clean[:3]))
    assert "Precision 0.50: that share of yours is poisoned. Precision must be 0.60" in hint(3)
    write("\n".join(poisoned[1:]))
    assert "Recall 0.67: 2 of the 3 poisoned ones are among them." in hint(3)
    assert "Recall must be 0.95" in hint(3)
    write("\n".join([*poisoned, "train/yield/yield_99999.jpg"]))
    assert "1 lines of exercise3.txt name no training image, for example ['train/yield/yield_99999.jpg']" in (
        hint(3)
    )
    write("\n".join(f"{check.POISONED}/{name}" for name in poisoned))
    assert "relative to data/traffic-signs-poisoned" in hint(3)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x" * 2_000_000, b"x" * 500])
def test_a_list_that_is_none(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    images(check.POISONED)
    Path("exercise3.txt").write_bytes(content)
    assert "exercise3.txt cannot be read as a list of files" in refused(3, capsys)


def test_the_table_of_the_audit_ends_with_the_flag() -> None:
    """The folded solution takes the lines that hold ",True"."""
    columns = [field.name for field in dataclasses.fields(Suspect)]
    assert (columns[0], columns[-1]) == ("file", "flagged")


def test_a_backdoor_that_works_and_is_not_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    images(Path("data/exercise4"))
    model(4)
    scan(4, (2, 2))
    assert "The search looks for a small patch." in hint(4)
    scan(4)
    measured(monkeypatch, (0.90, 0.95), (0.10, 1.0))
    assert check.fool_the_scanner().startswith(
        "Attack success rate: 0.90, clean accuracy: 0.95, and the scan "
    )
    measured(monkeypatch, (0.89, 0.99), (0.0, 1.0))
    assert "with your trigger.py is 0.89, and it takes 0.90" in hint(4)
    measured(monkeypatch, (1.0, 0.94), (0.0, 1.0))
    assert "clean accuracy is 0.94" in hint(4)
    measured(monkeypatch, (1.0, 1.0), (0.11, 1.0))
    assert "models/clean_model.pt falls for your trigger, too" in hint(4)
    Path("data/exercise4-attacker-notes.json").unlink()
    assert "There is no data/exercise4-attacker-notes.json" in hint(4)


def test_without_the_clean_model(capsys: pytest.CaptureFixture[str]) -> None:
    images(Path("data/exercise4"))
    real_model(check.model_of(4), "yield")
    scan(4)
    assert "models/clean_model.pt does not exist" in refused(4, capsys)
    real_model(check.CLEAN_MODEL, "stop")
    assert "clean accuracy is 0.50" in hint(4)


def test_usage(run_main: Run, here: Path) -> None:
    for wrong in ([], ["5"], ["one"]):
        result = run_main(check, *wrong)
        assert result.returncode == 2
        assert re.fullmatch(r"error: [^\n]* \([^\n ]+ --help says what it takes\)\.\n", result.stderr)
    result = run_main(check, "3")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.startswith("Exercise 3: not yet. Hint: There is no exercise3.txt. ")
    assert list(here.iterdir()) == []


def test_done_is_said_with_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    Path("exercise3.txt").write_text("\n".join(images(check.POISONED)))
    assert check.check(3, cli.Out(plain=True)) == 0
    assert capsys.readouterr().out.startswith("Exercise 3: done. exercise3.txt names 2 images.")
