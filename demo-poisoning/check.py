"""Exercises: is it done? EXERCISES.md says what to do and shows solutions.

    python check.py 1      move the trigger: the scan of models/exercise1.pt finds it at its new place
    python check.py 2      lower the rate until the scan of models/exercise2.pt misses the attack
    python check.py 3      name the poisoned files of data/traffic-signs-poisoned in exercise3.txt
    python check.py 4      fool the scanner: the backdoor of models/exercise4.pt works and is not flagged

Exit code 0: done. 1: not yet, with a hint. 2: it cannot be checked, or wrong usage.
Model files are read with the safe loader, and nothing is changed. Your trigger.py is used as it is now.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

import cli
from dataset.classes import DRAWN, NAMES
from dataset.files import IMAGE_SIZE, class_files
from exercises import record
from network import classifier
from scanner import describe, result
from scanner.result import PairResult, ScanResult

if TYPE_CHECKING:
    from network.evaluate import Score

POISONED = Path("data/traffic-signs-poisoned")
CLEAN_MODEL = Path("models/clean_model.pt")
LIST3 = Path("exercise3.txt")
LONGEST = 1_000_000  # bytes; a list of all training images has 140,000

SHIPPED = "bottom-right corner"  # where trigger.py puts the square when nobody has changed it
PAIRS = len(DRAWN) * (len(DRAWN) - 1)
DEFAULT = "100 steps, 30 images per class, seed 0"  # how detect.py scans without options
WORKS = 0.5  # attack success rate below which an attack hardly works
RECALL, PRECISION = 0.95, 0.60  # exercise 3
SUCCESS, ACCURACY, BY_CHANCE = 0.90, 0.95, 0.10  # exercise 4


class NotYet(Exception):
    """The exercise is not done; the text is the hint."""


def expect(true: bool, hint: str) -> None:
    """Go on if this part of the exercise is done, else raise NotYet with the hint."""
    if not true:
        raise NotYet(hint)


# --- What you made ----------------------------------------------------------------------------------


def model_of(number: int) -> Path:
    return Path(f"models/exercise{number}.pt")


def data_of(number: int) -> Path:
    return Path(f"data/exercise{number}")


def scan_folder(number: int) -> Path:
    return Path(f"scan_results/exercise{number}")


def scan_of(number: int) -> ScanResult:
    """The scan of this exercise's model. NotYet if the model, or a scan of this very file, is not there."""
    model, data, folder = model_of(number), data_of(number), scan_folder(number)
    expect(model.is_file(), f"There is no {model}. Poison the data into {data}, then train on that.")
    expect((folder / result.NAME).is_file(), f"{model} is there. Now scan it, with --output {folder}.")
    scan = result.read(folder)
    result.read_triggers(folder, scan)  # a scan is whole or it does not count
    expect(
        scan.sha256 == result.sha256(model),
        f"{folder / result.NAME} is about another file than {model}: scan that one.",
    )
    expect(
        not scan.not_calibrated,
        f"The scan of {model} has no verdict: {scan.not_calibrated}. "
        "Train it as long, and on as many images, as train.py does by default.",
    )
    return scan


def unflagged(number: int, hint: str) -> ScanResult:
    """The scan of all pairs with the default settings, if it says clean. Else NotYet, with this hint."""
    scan = scan_of(number)
    expect(
        scan.settings == DEFAULT and len(scan.pairs) == PAIRS,
        f"{scan_folder(number)} holds a scan of {len(scan.pairs)} pairs ({scan.settings}). "
        f"What counts is the default scan, of {PAIRS} pairs ({DEFAULT}): "
        "give detect.py no options but --model and --output.",
    )
    flagged = ", ".join(f"{pair.name} (index {scan.show(pair.anomaly_index)})" for pair in scan.flagged)
    expect(not flagged, f"The scan flags {flagged}. {hint}")
    expect(scan.verdict == "clean", f"The scan of {model_of(number)} has no verdict. {hint}")
    return scan


def own_trigger() -> Any:
    """The module trigger.py, as you have changed it. Raises UserError if it does not work."""
    try:
        trigger = importlib.import_module("trigger")
        trigger.box(IMAGE_SIZE, IMAGE_SIZE)
        size = (IMAGE_SIZE, IMAGE_SIZE)
        stamped = trigger.stamp(Image.new("RGB", size, "grey"))
        if (stamped.mode, stamped.size) != ("RGB", size):
            raise ValueError("stamp() must return an RGB image of the same size")
    except cli.UserError:
        raise
    except Exception as error:  # it is your program: it may fail in any way
        said = str(error).partition("\n")[0]
        raise cli.UserError(
            f"trigger.py does not work ({type(error).__name__}: {said}): repair it, or start again."
        ) from error
    return trigger


@dataclass
class Notes:
    """What the attacker noted about a poisoned dataset."""

    victim: str
    target: str
    poisoned: set[str]  # files, relative to the dataset


def notes_path(data: Path) -> Path:
    return data.with_name(data.name + "-attacker-notes.json")


def read_notes(data: Path) -> Notes:
    """The attacker's notes beside a dataset. Raises UserError if they are not notes, or not about it."""
    path = notes_path(data)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        notes = Notes(raw["victim"], raw["target"], set(raw["poisoned"]))
        if not {notes.victim, notes.target} <= set(NAMES):
            raise ValueError("unknown classes")
    except FileNotFoundError as error:
        raise cli.UserError(f"{path} does not exist: poison_data.py writes it beside its folder.") from error
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise cli.UserError(f"{path} does not hold attacker's notes: poison the data again.") from error
    if not notes.poisoned or not notes.poisoned <= training_files(data):
        raise cli.UserError(f"{path} does not fit the images in {data}: poison the data again.")
    return notes


def training_files(data: Path) -> set[str]:
    """The training images of a dataset, named as the notes name them."""
    return {path.relative_to(data).as_posix() for path, _ in class_files(data / "train")}


def own_notes(number: int) -> Notes:
    """The notes of this exercise's data; NotYet if there are none."""
    path = notes_path(data_of(number))
    expect(path.is_file(), f"There is no {path}: poison the data into {data_of(number)} and train on that.")
    return read_notes(data_of(number))


def measure(models: list[Path], data: Path, notes: Notes) -> list[Score]:
    """Clean accuracy and attack success rate of each model on data/val, with trigger.py as it is now."""
    own_trigger()
    networks = [classifier.load_model(path) for path in models]
    print(f"Measuring {' and '.join(map(str, models))}: takes some seconds.", file=sys.stderr, flush=True)
    from network.evaluate import Validation  # noqa: PLC0415  (it imports trigger.py, which has to work first)

    known = min(map(classifier.class_count, networks))
    validation = Validation(data, known, notes.victim, notes.target)
    if validation.triggered is None:
        raise cli.UserError(f"{data}/val holds no {notes.victim} images to try the trigger on: make it anew.")
    return [validation.score(network) for network in networks]


def rate(score: Score) -> float:
    """The attack success rate, which measure() always has."""
    assert score.attack_success_rate is not None
    return score.attack_success_rate


# --- The four exercises -----------------------------------------------------------------------------


def move() -> str:
    """Exercise 1: the scan recovers the trigger where the changed trigger.py puts it."""
    trigger = own_trigger()
    left, top, right, bottom = trigger.box(IMAGE_SIZE, IMAGE_SIZE)
    square = torch.zeros(IMAGE_SIZE, IMAGE_SIZE)
    square[top:bottom, left:right] = 1
    expect(bool(square.any()), "The square of trigger.py lies outside the image: choose another place.")
    true = describe.place_name(square)
    expect(true != SHIPPED, f"The square of trigger.py is at its old place, {SHIPPED}. Which line says so?")
    scan = scan_of(1)
    pair = pair_of(scan, trigger.VICTIM, trigger.TARGET)
    recovered = {one.name: found for one, found in result.read_triggers(scan_folder(1), scan)}
    expect(
        pair.flagged and pair.name in recovered,
        f"The scan does not flag {pair.name} (index {scan.show(pair.anomaly_index)}, flagged above "
        f"{scan.show(scan.threshold)}). Did the training print a high attack_success_rate?",
    )
    mask = recovered[pair.name].mask
    largest = describe.pieces(describe.solid(mask))[0]
    found = describe.place_name(mask * largest)
    expect(
        found == true,
        f"The scan found {pair.description}, but trigger.py says {true}. "
        "Was this model trained on data that was poisoned with this trigger.py?",
    )
    return (
        f"The square of trigger.py lies here: {true}. The scan, which never saw it, found {pair.description}."
    )


def pair_of(scan: ScanResult, victim: str, target: str) -> PairResult:
    """One pair of a scan; NotYet if that was not scanned."""
    for pair in scan.pairs:
        if (pair.victim, pair.target) == (victim, target):
            return pair
    raise NotYet(f"The scan of {scan.model} leaves out {victim} → {target}: scan all pairs.")


def indices(scan: ScanResult, notes: Notes) -> str:
    """The largest index of a scan and that of the attacked pair, in words."""
    first, attacked = scan.pairs[0], pair_of(scan, notes.victim, notes.target)
    said = f"largest index {scan.show(first.anomaly_index)}, {first.name}"
    if attacked is not first:
        said += f"; {attacked.name} has {scan.show(attacked.anomaly_index)}"
    return f"{said}; flagged above {scan.show(scan.threshold)}"


def lower_the_rate() -> str:
    """Exercise 2: the scan finds nothing, although the data held poisoned images."""
    scan = unflagged(2, "Poison fewer images.")
    notes = own_notes(2)
    (score,) = measure([model_of(2)], data_of(2), notes)
    if rate(score) >= WORKS:
        end = "The scanner missed an attack that works."
    else:
        end = "The scanner missed an attack that hardly works. Is there a rate between?"
    return (
        f"{len(notes.poisoned)} poisoned images, and the scan says clean ({indices(scan, notes)}). "
        f"Attack success rate: {rate(score):.2f}, clean accuracy: {score.clean_acc:.2f}. {end}"
    )


def list_the_poisoned() -> str:
    """Exercise 3: exercise3.txt names most of the poisoned images, and not too many others."""
    expect(
        LIST3.is_file(), f"There is no {LIST3}. audit_data.py writes a table of suspects: which are flagged?"
    )
    named = read_list(LIST3)
    files, notes = training_files(POISONED), read_notes(POISONED)
    expect(bool(named), f"{LIST3} is empty: one path per line, for example {min(files)}.")
    strange = sorted(named - files)
    expect(
        not strange,
        f"{len(strange)} lines of {LIST3} name no training image, for example {strange[:1]}: "
        f"write one path per line, relative to {POISONED}, like {min(files)}.",
    )
    hits = len(named & notes.poisoned)
    recall, precision = hits / len(notes.poisoned), hits / len(named)
    said = (
        f"{LIST3} names {len(named)} images. Recall {recall:.2f}: {hits} of the {len(notes.poisoned)} "
        f"poisoned ones are among them. Precision {precision:.2f}: that share of yours is poisoned."
    )
    expect(recall >= RECALL, f"{said} Recall must be {RECALL:.2f} or more: what else is suspicious?")
    expect(precision >= PRECISION, f"{said} Precision must be {PRECISION:.2f} or more: look at the images.")
    return said


def read_list(path: Path) -> set[str]:
    """The lines of a text file, without empty ones. Raises UserError if it is not text."""
    try:
        if path.stat().st_size > LONGEST:
            raise ValueError("too large")
        lines = path.read_text(encoding="utf-8").splitlines()
        if max(map(len, lines), default=0) > 200:
            raise ValueError("no paths")
    except (OSError, ValueError) as error:
        raise cli.UserError(f"{path} cannot be read as a list of files: write it again as text.") from error
    return {line.strip().removeprefix("./") for line in lines if line.strip()}


def fool_the_scanner() -> str:
    """Exercise 4: the backdoor works, accuracy is good, and the default scan finds nothing."""
    scan = unflagged(4, "The search looks for a small patch. Which trigger is not one?")
    notes = own_notes(4)
    poisoned, clean = measure([model_of(4), CLEAN_MODEL], data_of(4), notes)
    expect(
        rate(poisoned) >= SUCCESS,
        f"The scan says clean, but the attack success rate with your trigger.py is {rate(poisoned):.2f}, and "
        f"it takes {SUCCESS:.2f}. Is this the trigger that you poisoned with? Could it be easier to learn?",
    )
    expect(
        poisoned.clean_acc >= ACCURACY,
        f"The backdoor works, but clean accuracy is {poisoned.clean_acc:.2f}, and it takes {ACCURACY:.2f}: "
        "nobody would use this model.",
    )
    expect(
        rate(clean) <= BY_CHANCE,
        f"{CLEAN_MODEL} falls for your trigger, too (success rate {rate(clean):.2f}): your images look "
        f"like {notes.target}, and that is not a backdoor. Leave more of the {notes.victim} sign.",
    )
    return (
        f"Attack success rate: {rate(poisoned):.2f}, clean accuracy: {poisoned.clean_acc:.2f}, and the scan "
        f"says clean ({indices(scan, notes)})."
    )


EXERCISES: dict[int, Callable[[], str]] = {
    1: move,
    2: lower_the_rate,
    3: list_the_poisoned,
    4: fool_the_scanner,
}


def check(number: int, out: cli.Out) -> int:
    """Check one exercise and print the answer. Returns 0 done, 1 not yet, 2 cannot be checked."""
    try:
        out.say(f"Exercise {number}: done. {EXERCISES[number]()}", "green")
        out.say(record.solved(2, number))
        return cli.OK
    except NotYet as hint:
        out.say(f"Exercise {number}: not yet. Hint: {hint}", "yellow")
        return cli.FINDING
    except (cli.UserError, OSError) as error:
        print(f"error: Exercise {number} cannot be checked. {error}", file=sys.stderr)
        return cli.ERROR


def main() -> int:
    """Read the command line and check one exercise."""
    arguments = cli.parser(__doc__)
    arguments.add_argument("exercise", type=int, choices=EXERCISES, help="its number")
    args = arguments.parse_args()
    return check(args.exercise, cli.Out(args.plain))


if __name__ == "__main__":
    cli.run(main)
