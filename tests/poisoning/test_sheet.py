"""Demo 2: sheet.py puts the triggers of two scans side by side."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import detect
import sheet
from poisoning_tools import Refused, Run, ordinary
from scanner import result

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def two_scans(run_main: Run, four: Path, fake: Callable[..., None]) -> tuple[str, str]:
    fake(ordinary())
    run_main(detect, "--model", four, "--output", "clean", "--draw", "no_entry:priority_road")
    fake(ordinary(_3_2=0.005))
    run_main(detect, "--model", four, "--output", "poisoned")
    return "clean", "poisoned"


def test_side_by_side(run_main: Run, tmp_path: Path, two_scans: tuple[str, str]) -> None:
    ended = run_main(sheet, *two_scans, "--output", "new/sheet.png")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("Side by side saved to: new/sheet.png.")
    drawn = [
        {f"{pair.victim} to {pair.target}" for pair in result.read(tmp_path / name).drawn}
        for name in two_scans
    ]
    both = drawn[0] & drawn[1]
    assert "no_entry to priority_road" in both
    assert len(lines) == 1 + 2 * len(both)
    flagged = [line for line in lines if "FLAGGED" in line]
    assert len(flagged) == 1
    assert re.match(
        r"- poisoned, no_entry to priority_road: norm 0\.005, anomaly index \d+\.\d, FLAGGED\. A yellow ",
        flagged[0],
    )
    with Image.open(tmp_path / "new/sheet.png") as image:
        assert image.width == 2 * 576 + 3 * 16
        left, right = (image.crop((x, 56, x + 576, 56 + 192)) for x in (16, 16 + 576 + 16))
        with Image.open(tmp_path / "poisoned/trigger_3_to_2.png") as drawing:
            small = drawing.resize((576, 192), Image.Resampling.BOX)
            assert right.tobytes() == small.tobytes()
        assert left.getpixel((10, 10)) == right.getpixel((10, 10))  # grey, beside the trigger


def test_side_by_side_without_what_it_needs(  # noqa: PLR0917
    run_main: Run,
    assert_refused: Refused,
    tmp_path: Path,
    two_scans: tuple[str, str],
    four: Path,
    fake: Callable[..., None],
) -> None:
    clean, poisoned = two_scans
    assert_refused(run_main(sheet, clean, "missing"), "missing")
    assert_refused(run_main(sheet, clean, poisoned, "--output", "sheet.txt"), "sheet.txt")
    fake({(0, 1): 0.3})
    run_main(detect, "--model", four, "--output", "other", "--pairs", "stop:yield")
    run_main(detect, "--model", four, "--output", "third", "--pairs", "yield:stop")
    assert_refused(run_main(sheet, "other", "third"), "--draw yield:stop")
    (tmp_path / "poisoned/trigger_3_to_2.png").write_bytes(b"no image")
    assert_refused(run_main(sheet, clean, poisoned), "trigger_3_to_2.png")
    made = json.loads((tmp_path / "poisoned/scan.json").read_text())
    made["pairs"][0]["image"] = "../../secret.png"
    (tmp_path / "poisoned/scan.json").write_text(json.dumps(made))
    assert_refused(run_main(sheet, clean, poisoned), "scan.json")
    assert not (tmp_path / "sheet.txt").exists()
