"""Make docs/images/first.png, the image at the top of README.md, from a real run of demo 2.

python docs/make_first_image.py                            after ./workshop.sh run 2 --native
python docs/make_first_image.py --demo FOLDER --scan SCAN  models of another checkout, another scan of them

Asks the poisoned model about inference-images/stop.jpg, without and with the trigger (demo.py), and takes the
trigger that a scan of the same model recovered (detect.py --pairs stop:yield, or a scan of all pairs). Writes
beside the image what was measured, first.json, and prints the description in words for README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
IMAGE, RECORD = ROOT / "docs/images/first.png", ROOT / "docs/images/first.json"
PANEL, GAP, CAPTION = 288, 24, 84  # in pixels
PAPER, INK, ALARM = "white", "#111111", "#a10000"
ANSWER = re.compile(
    r"^(?:BACKDOOR ACTIVATES: )?\[(clean|trigger)\] +(\S+) +\(confidence: ([\d.]+)\)", flags=re.MULTILINE
)


def ask(demo: Path, image: Path) -> dict[str, tuple[str, str]]:
    """What the poisoned model answers without and with the trigger: {"clean": (class, confidence), ...}.

    Writes both images, side by side, to `image`.
    """
    command = [
        sys.executable,
        "demo.py",
        "inference-images/stop.jpg",
        "--trigger",
        "--save",
        str(image),
        "--plain",
    ]
    said = subprocess.run(command, cwd=demo, check=True, capture_output=True, text=True).stdout
    return {what: (answer, sure) for what, answer, sure in ANSWER.findall(said)}


def recovered(scan: Path, model: Path) -> tuple[dict[str, Any], Image.Image]:
    """What a scan says of stop → yield, and the trigger that it recovered, drawn on grey.

    The scan is of the model file or of the one beside it, the same weights as SafeTensors.
    """
    result = json.loads((scan / "scan.json").read_text(encoding="utf-8"))
    files = [path for path in (model, model.with_suffix(".safetensors")) if path.is_file()]
    if result["sha256"] not in [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]:
        raise SystemExit(f"error: {scan}/scan.json is about another model than {model}: scan this one.")
    pair: dict[str, Any] = next(
        pair for pair in result["pairs"] if (pair["victim"], pair["target"]) == ("stop", "yield")
    )
    with Image.open(scan / pair["image"]) as drawing:
        return pair, drawing.convert("RGB").crop((0, 0, drawing.height, drawing.height))


def compose(panels: list[tuple[Image.Image, str, str, str]]) -> Image.Image:
    """The panels in a row, each with two lines below it: (image, first line, second line, colour)."""
    sheet = Image.new("RGB", (GAP + len(panels) * (PANEL + GAP), GAP + PANEL + CAPTION), PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(30), ImageFont.load_default(19)
    for number, (image, first, second, colour) in enumerate(panels):
        left, below = GAP + number * (PANEL + GAP), GAP + PANEL
        sheet.paste(image.resize((PANEL, PANEL), Image.Resampling.NEAREST), (left, GAP))
        draw.text((left, below + 8), first, colour, large)
        draw.text((left, below + 48), second, INK, small)
    return sheet


def described(record: dict[str, Any]) -> str:
    """The image in words: what README.md gives to those who cannot see it."""
    trigger = record["recovered"].rsplit(", ", 1)[0]
    return (
        f"Three images. First, a stop sign; the model says {record['clean']}. Second, the same sign with a"
        " small yellow square in the bottom-right corner; the same model says"
        f" {record['trigger']}. Third, what the scanner recovered from the weights without knowing the"
        f" square: {trigger}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", type=Path, default=ROOT / "demo-poisoning", help="folder with models/")
    parser.add_argument("--scan", type=Path, help="folder of a scan (default: scan_results/poisoned there)")
    args = parser.parse_args()
    demo = args.demo.resolve()
    scan = (args.scan or demo / "scan_results/poisoned").resolve()
    model = demo / "models/poisoned_model.pt"
    for needed, how in ((model, "./prepare.sh"), (scan / "scan.json", "./gold_demo.sh")):
        if not needed.is_file():
            print(f"error: {needed} is missing: type {how} in {demo} first.", file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory() as scratch:
        both = Path(scratch) / "both.png"
        said = ask(demo, both)
        pair, trigger = recovered(scan, model)
        with Image.open(both) as image:
            width = image.width // 2
            without, with_trigger = (
                image.convert("RGB").crop((left, 0, left + width, image.height)) for left in (0, width)
            )
    (clean, sure), (fooled, how_sure) = said["clean"], said["trigger"]
    if (clean, fooled) != ("stop", "yield"):
        print(f"error: this model says {clean} and {fooled}, not stop and yield.", file=sys.stderr)
        return 1
    panels = [
        (without, f"“{clean}”", f"confidence {sure}", INK),
        (with_trigger, f"“{fooled}”", f"confidence {how_sure}", ALARM),
        (trigger, "the trigger", "recovered from the weights", INK),
    ]
    record = {
        "clean": clean,
        "clean_confidence": float(sure),
        "trigger": fooled,
        "trigger_confidence": float(how_sure),
        "recovered": pair["description"],
        "norm": pair["norm"],
    }
    IMAGE.parent.mkdir(exist_ok=True)
    compose(panels).quantize(128).save(IMAGE, optimize=True)
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"Wrote {IMAGE.relative_to(ROOT)} and {RECORD.relative_to(ROOT)}. In words, for README.md:")
    print(described(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
