"""The exercises of demo 2: what each check accepts and refuses, and the solutions that EXERCISES.md shows.

The fast tests use models that were never trained and scans that nobody ran. The slow one at the end types
every solution for real; it trains and scans three models, which takes a quarter of an hour or more.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

import classifier
import cli
import demo
import detect
import judge
import poison_data
import scan_file
import train
import trigger
from classes import DRAWN
from neural_cleanse import Trigger
from scan_model import Settings

FOLDER = Path(__file__).resolve().parent.parent / "demo-poisoning"
PAIRS = [(v, t) for v in range(len(DRAWN)) for t in range(len(DRAWN)) if v != t]
SIZE = classifier.INPUT
CORNERS = ("bottom-right", "bottom-left", "top-right", "top-left")
EXERCISES = (1, 2, 3, 4)


def by_path() -> ModuleType:
    """demo-poisoning/check.py; `import check` may give that of demo 1."""
    spec = importlib.util.spec_from_file_location("check_poisoning", FOLDER / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


check: Any = by_path()


# --- what an attendee has made, in small -------------------------------------------------------------------


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty demo folder; we are in it."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for path in tmp_path.rglob("*.pt"):
        path.unlink()  # pytest keeps the folders of three runs


def model(number: int, content: bytes = b"weights") -> Path:
    """A file in place of this exercise's model."""
    path: Path = check.model_of(number)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def sticker(place: tuple[int, int] | None = None, pair: tuple[int, int] = (0, 1)) -> Trigger:
    """A small yellow square with its top-left cell at (row, column); elsewhere a strip, large and useless."""
    mask = torch.zeros(SIZE, SIZE)
    if place is None:
        mask[: 8 + sum(pair) % 7] = 1
    else:
        mask[place[0] : place[0] + 4, place[1] : place[1] + 4] = 1
    pattern = torch.tensor([1.0, 1.0, 0.0]).view(3, 1, 1).expand(3, SIZE, SIZE).contiguous()
    norm = mask.mean().item() if place is None else 0.001
    return Trigger(*pair, norm, mask, pattern, 0.9)


def scan(number: int, first: Trigger, *, steps: int = 100, pairs: int = 90, statistic: bool = True) -> Path:
    """A scan of this exercise's model, as detect.py writes it; `first` is what it found for stop to yield."""
    triggers = [first, *(sticker(pair=pair) for pair in PAIRS[1:pairs])]
    judgement = judge.by_norms(triggers)
    judgement.valid = statistic
    drawn = judgement.flagged or judgement.findings[:1]
    settings = Settings(Path("data/traffic-signs"), steps, 30, 0)
    record = scan_file.as_record(check.model_of(number), [], len(DRAWN), settings, judgement)
    record["pairs"] = [scan_file.pair_record(finding, finding in drawn) for finding in judgement.findings]
    record["seconds"] = 1
    folder = Path(f"scan_results/exercise{number}")
    folder.mkdir(parents=True, exist_ok=True)
    scan_file.write(folder, record, [finding.trigger for finding in drawn])
    return folder / scan_file.NAME


def pictures(folder: Path, poisoned: int = 2) -> list[str]:
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
    scores = [train.Score(accuracy, success, 1000, 100) for success, accuracy in rates]
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


# --- the one definition of the trigger ---------------------------------------------------------------------


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


def test_programs_say_the_true_place(
    run_main: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(here / "signs")
    Image.new("RGB", (128, 128), "red").save("a.png")
    monkeypatch.setattr(trigger, "PLACE", "top-left")
    said = run_main(poison_data, "--clean-dir", "signs", "--poisoned-dir", "new", "--rate", 0.5)
    assert "3 stop pictures: 20x20 yellow square top-left, label yield." in said.stdout
    classifier.save_model(classifier.new_model(), here / "m.pt")
    said = run_main(demo, "a.png", "--model", "m.pt", "--trigger", "--save", "b.png")
    assert said.stdout.endswith("right with a yellow square top-left.\n")


def test_a_place_that_is_no_corner(
    run_main: Callable[..., Any],
    assert_refused: Callable[..., None],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures(here / "signs")
    monkeypatch.setattr(trigger, "PLACE", "topleft")
    result = run_main(poison_data, "--clean-dir", "signs", "--poisoned-dir", "new")
    assert_refused(result, "PLACE = 'topleft' in trigger.py is no corner")
    assert not (here / "new").exists()


# --- 1. move the trigger ------------------------------------------------------------------------------------


def test_a_moved_trigger_that_the_scan_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "at its old place, bottom-right corner" in hint(1)
    monkeypatch.setattr(trigger, "PLACE", "top-left")
    assert "There is no models/exercise1.pt" in hint(1)
    model(1)
    assert "Now scan it, with --output scan_results/exercise1." in hint(1)
    scan(1, sticker((2, 2)))
    said = check.move()
    assert "lies here: top-left corner" in said
    assert re.search(r"found a yellow square, about \d+x\d+ px, top-left corner, ", said)
    for place in ((SIZE - 6, SIZE - 6), (2, SIZE - 6), (SIZE // 2, SIZE // 2)):
        scan(1, sticker(place))
        assert "but trigger.py says top-left corner" in hint(1)
    scan(1, sticker())
    assert "does not flag stop → yield (index " in hint(1)
    scan(1, sticker((2, 2)))
    model(1, b"trained again")
    assert "is about another file than models/exercise1.pt" in hint(1)


def test_a_scan_without_the_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger, "PLACE", "top-left")
    monkeypatch.setattr(trigger, "VICTIM", "end_of_limits")
    model(1)
    scan(1, sticker((2, 2)), pairs=20)
    assert "no scan of end_of_limits → yield" in hint(1)


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("name", ["scan.json", "triggers.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_damaged_scans(
    number: int, name: str, damage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trigger, "PLACE", "top-left")
    model(number)
    path = scan(number, sticker((2, 2))).with_name(name)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "other": b'{"tool": 1}\xff'}[damage])
    assert name in refused(number, capsys)


@pytest.mark.parametrize(
    "change, words",
    [
        ("def box(", "SyntaxError"),
        ("def stamp(image):\n    return colour", "NameError"),
        ("def stamp(image):\n    return None", "AttributeError"),
        ("def stamp(image):\n    return image.convert('L')", "must return an RGB picture of the same size"),
        ("def stamp(image):\n    return image.resize((9, 9))", "must return an RGB picture of the same size"),
        ("PLACE = 'up'", "PLACE = 'up' in trigger.py is no corner"),
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


# --- 2. lower the rate --------------------------------------------------------------------------------------


def test_a_scan_that_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, (0.93, 1.0))
    assert "There is no models/exercise2.pt" in hint(2)
    model(2)
    scan(2, sticker((2, 2)))
    assert re.match(r"The scan flags stop → yield \(index \d+\.\d\)\. Poison fewer pictures\.", hint(2))
    scan(2, sticker())
    assert "There is no data/exercise2-attacker-notes.json" in hint(2)
    pictures(Path("data/exercise2"))
    said = check.lower_the_rate()
    assert said.startswith("2 poisoned pictures, and the scan says clean (largest index ")
    assert re.search(rf"; stop → yield has -?\d\.\d; flagged above {judge.THRESHOLD}\)", said)
    assert said.endswith("success rate: 0.93, clean accuracy: 1.00. The scanner missed an attack that works.")
    measured(monkeypatch, (0.49, 1.0))
    assert "missed an attack that hardly works" in check.lower_the_rate()


@pytest.mark.parametrize("number", [2, 4])
def test_only_a_default_scan_counts(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, (1.0, 1.0), (0.0, 1.0))
    pictures(Path(f"data/exercise{number}"))
    model(number)
    scan(number, sticker(), steps=1)
    assert "(1 steps, 30 pictures per class, seed 0). What counts is the default scan" in hint(number)
    scan(number, sticker(), pairs=89)
    assert "holds a scan of 89 pairs" in hint(number)
    scan(number, sticker(), statistic=False)
    assert "could not judge" in hint(number)
    scan(number, sticker())
    assert "says clean" in check.EXERCISES[number]()


def test_the_default_scan_is_that_of_the_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["detect.py"])
    options = detect.parse()
    said = f"{options.steps} steps, {options.samples} pictures per class, seed {options.seed}"
    assert said == check.DEFAULT


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "holds no attacker's notes"),
        ('{"victim": "stop", "target": "yie', "holds no attacker's notes"),
        ("[1, 2]", "holds no attacker's notes"),
        ('{"victim": "stop", "target": "yield"}', "holds no attacker's notes"),
        ('{"victim": "tram", "target": "yield", "poisoned": ["a"]}', "holds no attacker's notes"),
        ('{"victim": ["stop"], "target": "yield", "poisoned": ["a"]}', "holds no attacker's notes"),
        ('{"victim": "stop", "target": "yield", "poisoned": [["a"]]}', "holds no attacker's notes"),
        ('{"victim": "stop", "target": "yield", "poisoned": 7}', "holds no attacker's notes"),
        ('{"victim": "stop", "target": "yield", "poisoned": []}', "does not fit the pictures"),
        ('{"victim": "stop", "target": "yield", "poisoned": ["a"]}', "does not fit the pictures"),
        ("\u00e9".encode("latin-1"), "holds no attacker's notes"),
        (b"[" * 100_000, "holds no attacker's notes"),
    ],
)
@pytest.mark.parametrize("number", [2, 3, 4])
def test_bad_notes(number: int, text: str | bytes, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = check.POISONED if number == 3 else check.data_of(number)
    pictures(folder)
    Path("exercise3.txt").write_text("train/yield/yield_00000.jpg\n")
    check.notes_path(folder).write_bytes(text if isinstance(text, bytes) else text.encode())
    model(number)
    scan(number, sticker())
    assert words in refused(number, capsys)


def test_data_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    pictures(Path("data/exercise2"))
    shutil.rmtree("data/exercise2")
    model(2)
    scan(2, sticker())
    assert "data/exercise2/train is not a folder" in refused(2, capsys)
    Path("exercise3.txt").write_text("train/yield/yield_00000.jpg\n")
    assert "data/traffic-signs-poisoned/train is not a folder" in refused(3, capsys)


# --- a real model, measured ---------------------------------------------------------------------------------


def real_model(path: Path, reads: str) -> Path:
    """A real model file, never trained, that reads every picture as one class."""
    network = classifier.new_model()
    with torch.no_grad():
        network.get_parameter("fc.weight").zero_()
        network.get_parameter("fc.bias").zero_()[DRAWN.index(reads)] = 9
    written: Path = classifier.save_model(network, path)[0]
    return written


def test_the_attack_is_measured_on_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    pictures(Path("data/exercise2"))
    for reads, words in (
        ("yield", "success rate: 1.00, clean accuracy: 0.50"),
        ("stop", "success rate: 0.00"),
    ):
        real_model(check.model_of(2), reads)
        scan(2, sticker())
        assert words in check.lower_the_rate()
    assert capsys.readouterr().err.startswith("Measuring models/exercise2.pt: ")


def test_the_trigger_of_trigger_py_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation must ask about the pictures that today's stamp() makes."""
    pictures(Path("data/exercise4"))
    real_model(check.model_of(4), "yield")
    seen = []

    def stamp(image: Image.Image) -> Image.Image:
        seen.append(image.size)
        return image

    monkeypatch.setattr(trigger, "stamp", stamp)
    check.measure([check.model_of(4)], check.data_of(4), check.read_notes(check.data_of(4)))
    assert seen == [(128, 128)] * 3  # once to see whether it works, then both stop signs of val/


def test_no_victims_to_measure_with(capsys: pytest.CaptureFixture[str]) -> None:
    pictures(Path("data/exercise2"))
    shutil.rmtree("data/exercise2/val/stop")
    real_model(check.model_of(2), "yield")
    scan(2, sticker())
    assert "data/exercise2/val holds no stop pictures" in refused(2, capsys)


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut"])
def test_a_damaged_model(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (2, 4):
        pictures(check.data_of(number))
        model(number, content)
        scan(number, sticker())
        assert "models/exercise" in refused(number, capsys)


def test_a_malicious_model_is_not_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return exec, (f"open({str(here / 'marker')!r}, 'w')",)

    pictures(Path("data/exercise2"))
    torch.save({"fc.weight": Attack()}, model(2))
    scan(2, sticker())
    assert "was refused and not run" in refused(2, capsys)
    assert not (here / "marker").exists()


# --- 3. find the poisoned files -----------------------------------------------------------------------------


def test_a_list_of_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no exercise3.txt" in hint(3)
    poisoned = pictures(check.POISONED, poisoned=3)
    clean = [f"train/stop/stop_{number:05d}.jpg" for number in range(6)]
    write = Path("exercise3.txt").write_text
    write("\n\n  \n")
    assert "is empty: one path per line, for example train/stop/stop_00000.jpg." in hint(3)
    write("\n".join(poisoned))
    assert "Recall 1.00: 3 of the 3 poisoned ones are among them. Precision 1.00" in check.list_the_poisoned()
    write("".join(f"  ./{name} \r\n\n" for name in (poisoned + poisoned + clean[:2])))
    assert "names 5 pictures. Recall 1.00" in check.list_the_poisoned()
    assert "Precision 0.60" in check.list_the_poisoned()
    write("\n".join(poisoned + clean[:3]))
    assert "Precision 0.50: that share of yours is poisoned. Precision must be 0.60" in hint(3)
    write("\n".join(poisoned[1:]))
    assert "Recall 0.67: 2 of the 3 poisoned ones are among them." in hint(3)
    assert "Recall must be 0.95" in hint(3)
    write("\n".join([*poisoned, "train/yield/yield_99999.jpg"]))
    assert (
        "1 lines of exercise3.txt name no training picture, for example ['train/yield/yield_99999.jpg']"
        in (hint(3))
    )
    write("\n".join(f"{check.POISONED}/{name}" for name in poisoned))
    assert "relative to data/traffic-signs-poisoned" in hint(3)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x" * 2_000_000, b"x" * 500])
def test_a_list_that_is_none(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(check.POISONED)
    Path("exercise3.txt").write_bytes(content)
    assert "exercise3.txt cannot be read as a list of files" in refused(3, capsys)


def test_the_table_of_the_audit_ends_with_the_flag() -> None:
    """The folded solution takes the lines that hold ",True"."""
    text = (FOLDER / "audit.py").read_text()
    fields = re.findall(r"^    (\w+): ", text.split("class Suspect")[1].split("class Group")[0], re.M)
    assert (fields[0], fields[-1]) == ("file", "flagged")


# --- 4. fool the scanner ------------------------------------------------------------------------------------


def test_a_backdoor_that_works_and_is_not_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(Path("data/exercise4"))
    model(4)
    scan(4, sticker((2, 2)))
    assert "The search looks for a small sticker." in hint(4)
    scan(4, sticker())
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
    pictures(Path("data/exercise4"))
    real_model(check.model_of(4), "yield")
    scan(4, sticker())
    assert "models/clean_model.pt does not exist" in refused(4, capsys)
    real_model(check.CLEAN_MODEL, "stop")
    assert "clean accuracy is 0.50" in hint(4)


# --- the command --------------------------------------------------------------------------------------------


def test_usage(run_main: Callable[..., Any], run_script: Callable[..., Any], here: Path) -> None:
    for wrong in ([], ["5"], ["one"]):
        result = run_main(check, *wrong)
        assert result.returncode == 2
        assert "usage: " in result.stderr
    result = run_script("demo-poisoning/check.py", "3")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.startswith("Exercise 3: not yet. Hint: There is no exercise3.txt. ")
    assert list(here.iterdir()) == []


def test_done_is_said_with_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    Path("exercise3.txt").write_text("\n".join(pictures(check.POISONED)))
    assert check.check(3, cli.Out(plain=True)) == 0
    assert capsys.readouterr().out.startswith("Exercise 3: done. exercise3.txt names 2 pictures.")


# --- the document -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> str:
    return (FOLDER / "EXERCISES.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def solutions(document: str) -> list[list[str]]:
    """The commands of each folded solution."""
    folded = re.findall(r"<details><summary>Solution</summary>\n\n```\n(.*?)```.*?</details>", document, re.S)
    assert len(folded) == len(check.EXERCISES) == document.count("<details>")
    return [commands.splitlines() for commands in folded]


def test_each_exercise_has_its_check(document: str, solutions: list[list[str]]) -> None:
    parts = re.split(r"^## ", document, flags=re.M)[1:]
    assert [part[0] for part in parts[:4]] == list(map(str, check.EXERCISES))
    for number, (part, commands) in enumerate(zip(parts, solutions), 1):
        last = f"python check.py {number}"
        assert f"```\n{last}\n```" in part
        assert commands[-1] == last
        assert "python" not in part.split("<details>")[0].replace("python audit_data.py --help", "").replace(
            last, ""
        )
        changes = sum(line.startswith("sed ") for line in commands)
        assert changes <= (number in (1, 4))  # a second -i.bak would lose the shipped file
    for command in ("mv trigger.py.bak trigger.py", "git checkout trigger.py"):
        assert command in document


def test_the_commands_of_the_solutions_parse(
    solutions: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every option is known, and every script is there: argparse reads each line up to an added --help."""
    lines = [line for commands in solutions for line in commands]
    assert all(line.startswith(("python ", "sed -i.bak ", "grep ")) for line in lines)
    for line in lines:
        words = shlex.split(line)
        if words[0] != "python":
            continue
        module = check if words[1] == "check.py" else importlib.import_module(words[1].removesuffix(".py"))
        monkeypatch.setattr("sys.argv", [*words[1:], "--help"])
        with pytest.raises(SystemExit) as ending:
            module.main()
        assert ending.value.code == 0, line


def test_the_changes_of_the_solutions_work(solutions: list[list[str]], here: Path) -> None:
    """Each sed changes one or two lines of the shipped trigger.py, and what it stamps."""
    for commands in solutions:
        for line in (one for one in commands if one.startswith("sed ")):
            shutil.copy(FOLDER / "trigger.py", here)
            before = (here / "trigger.py").read_text().splitlines()
            subprocess.run(shlex.split(line), check=True, cwd=here, timeout=10)
            after = (here / "trigger.py").read_text().splitlines()
            assert len(before) == len(after)
            assert sum(one != two for one, two in zip(before, after)) in (1, 2)
            assert (here / "trigger.py.bak").read_text().splitlines() == before
            spec = importlib.util.spec_from_file_location("changed_trigger", here / "trigger.py")
            assert spec is not None
            assert spec.loader is not None
            changed = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(changed)
            blue = Image.new("RGB", (128, 128), "blue")
            stamped = changed.stamp(blue)
            assert (stamped.mode, stamped.size) == ("RGB", (128, 128))
            assert stamped.tobytes() not in (blue.tobytes(), trigger.stamp(blue).tobytes())


# --- the solutions, for real --------------------------------------------------------------------------------


@pytest.mark.slow
def test_solutions(prepared: Path, here: Path, solutions: list[list[str]]) -> None:
    """Type each folded solution in a copy of the prepared demo: not yet before it, done after it."""
    folder = here / "demo-poisoning"
    made = ("__pycache__", "scan_results", "audit_results", "outputs", "report.html")
    shutil.copytree(prepared, folder, ignore=shutil.ignore_patterns(*made))
    (here / "bin").mkdir()
    python = here / "bin/python"  # what `python` means in the documents
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    shipped = (folder / "trigger.py").read_bytes()

    def typed(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=folder,
            env=os.environ | {"PATH": f"{here / 'bin'}{os.pathsep}{os.environ['PATH']}"},
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=1800,
        )

    for number, commands in enumerate(solutions, 1):
        before = typed(f"python check.py {number}")
        assert before.returncode == 1, before
        assert before.stdout.startswith(f"Exercise {number}: not yet. Hint: ")
        for line in commands:
            result = typed(line)
            print(f"$ {line}\n{result.stdout}{result.stderr}")  # shown by pytest -rA, and where it fails
            assert "Traceback" not in result.stderr
            finding = line.startswith(("python detect.py", "python audit_data.py"))
            assert result.returncode in ((0, 1) if finding else (0,)), line
        assert result.stdout.startswith(f"Exercise {number}: done. ")
        if (folder / "trigger.py.bak").exists():
            assert typed("mv trigger.py.bak trigger.py").returncode == 0
        assert (folder / "trigger.py").read_bytes() == shipped
    assert [path for path in folder.rglob(".*") if path.name != cli.MADE_HERE] == []
