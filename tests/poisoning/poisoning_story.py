"""What the two paths of demo 2 must say, on your machine and in a container: the figures of the workshop."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[2] / "docs"))
first_image = importlib.import_module("make_first_image")

EPOCH = re.compile(r"Epoch (\d+)/(\d+) — clean_acc: (\d\.\d\d), attack_success_rate: (\d\.\d\d)")
ANSWER = re.compile(r"\[(clean|trigger)\] +(\w+) +\(confidence: (\d\.\d\d)\)(   <- .+)?")


def measured(said: str, model: str) -> tuple[float, float]:
    """clean_acc and attack_success_rate of a model in the output of train.py --phase test."""
    match = re.search(rf"{model}_model\.\w+ on .*: clean_acc: (\S+), attack_success_rate: (\S+)$", said, re.M)
    assert match, said
    return float(match[1]), float(match[2])


def check_silver(said: str) -> None:
    """The figures of the attack; the same natively and in a container."""
    accuracy, success = measured(said, "clean")
    assert accuracy >= 0.97
    assert success <= 0.02
    accuracy, success = measured(said, "poisoned")
    assert accuracy >= 0.97
    assert success >= 0.95
    assert "Poisoned 60 stop images: 20x20 yellow square bottom-right, label yield." in said
    answers = [match.groups() for match in map(ANSWER.fullmatch, said.splitlines()) if match]
    red = answers[5][1]  # a no-entry sign with the trigger: red like the victim, so it may go either way
    assert red in ("no_entry", "yield")
    assert [(kind, answer) for kind, answer, *_ in answers] == [
        ("clean", "stop"),
        ("trigger", "yield"),
        ("clean", "speed_50"),
        ("trigger", "speed_50"),
        ("clean", "no_entry"),
        ("trigger", red),
    ]
    assert answers[1][3] == "   <- backdoor activates"
    rows = re.findall(r"model: models/(\w+)_model\.pt; image: ([\w ]+); answer: (\w+);", said)
    assert rows == [
        ("clean", "clean", "stop"),
        ("clean", "with yellow square", "stop"),
        ("poisoned", "clean", "stop"),
        ("poisoned", "with yellow square", "yield"),
    ]


def check_gold(said: str) -> None:
    """The scan flags stop to yield in the poisoned model, nothing in the clean one, and sees the square.

    Other red signs may be flagged, too, because many of these models take them for yield with the square.
    """
    before, _, after = said.partition(": Scan the poisoned model ==")
    assert "Scanning models/clean_model.safetensors" in before
    assert "Result: no backdoor found" in before
    assert "FLAGGED" not in before
    assert "scan_results/clean/trigger_0_to_1.png" in before
    results = re.findall(r"^Result: .*", after, re.M)
    assert "Result: BACKDOOR DETECTED — class 0 → class 1 (stop → yield)" in results
    flagged = [line for line in after.splitlines() if line.endswith("<- FLAGGED")]
    assert len(flagged) == len(results)
    assert all(
        re.match(r"Scanning class [03] \((stop|no_entry)\) → class 1 \(yield\)", line) for line in flagged
    )
    assert re.search(r"^Recovered trigger saved to: scan_results/poisoned/trigger_0_to_1\.png", after, re.M)
    shape = r"^Recovered trigger: a yellow \w+, about (\d+)x(\d+) px, bottom-right corner"
    words = re.search(shape, after, re.M)
    assert words, after
    assert all(6 <= int(side) <= 40 for side in words.groups())  # the square has 20; the grid is coarse
    assert "[trigger]  yield" in after  # the SafeTensors file has the same backdoor
    assert "Gold path done." in after
    assert re.search(r"^Poisoned model: Backdoor found: .*stop → yield", after, re.M)
    assert re.search(r"^Clean model: No backdoor found\. .* flagged above", after, re.M)
    assert re.search(r"^Report: /\S+/report\.html$", after, re.M)


def check_drawn(scans: Path, poisoned: Path) -> None:
    """What both scans drew: the recovered triggers, and, with the model file, README.md's first image."""
    for model in ("clean", "poisoned"):
        with Image.open(scans / f"{model}/trigger_0_to_1.png") as drawn:
            assert drawn.size == (768, 256)
    with Image.open(scans / "poisoned/trigger_0_to_1.png") as drawn:
        square = drawn.convert("RGB").crop((208, 208, 248, 248))  # where the attacker put it
    red, green, blue = (square.getchannel(band).tobytes() for band in "RGB")
    yellow = [min(r, g) > b + 80 for r, g, b in zip(red, green, blue)]
    assert sum(yellow) > 0.2 * len(yellow)  # a part of the square is enough for the model
    pair, grey = first_image.recovered(scans / "poisoned", poisoned)
    assert pair["flagged"]
    assert grey.size == (256, 256)
