"""Put the triggers of two scans side by side in one image: the same pairs in two models.

    python sheet.py scan_results/clean scan_results/poisoned --output scan_results/sheet.png

Shows the pairs that detect.py drew in both scans; its option --draw stop:yield draws a pair in any case.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import cli
from dataset.files import open_image
from scanner import result
from scanner.result import PairResult, ScanResult

WIDTH, HEIGHT, EDGE = 576, 192, 16  # pixels: one drawing of three panels, and the space around it
LINE, LETTERS = 24, 18  # pixels: height of a line of text, and of its letters
LINES = 3  # of text below each drawing


def drawn(scan: ScanResult) -> dict[str, PairResult]:
    """The pairs of a scan that have a drawing, by name ("stop to yield"), most anomalous first."""
    return {f"{pair.victim} to {pair.target}": pair for pair in scan.drawn}


def caption(name: str, pair: PairResult, scan: ScanResult) -> str:
    """One pair of one scan in words."""
    norm = "no trigger found" if pair.norm is None else f"norm {pair.norm:.3f}"
    index = "" if pair.anomaly_index is None else f", {scan.statistic} {scan.show(pair.anomaly_index)}"
    return f"{name}: {norm}{index}{', FLAGGED' if pair.flagged else ''}. {pair.description.capitalize()}."


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text with line breaks, so that it fits below a drawing."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= WIDTH:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines[:LINES])


def title(folder: Path, scan: ScanResult) -> str:
    """What stands above a column: the folder's name, the model and the verdict."""
    return f"{folder.name}: {Path(scan.model).name}, verdict: {scan.verdict}"


def sheet(folders: list[Path]) -> tuple[Image.Image, list[str]]:
    """Draw the sheet of two scan folders. Returns it and its content in words, one line per image.

    Raises UserError if a folder holds no scan, or if no pair was drawn in both.
    """
    scans = [result.read(folder) for folder in folders]
    found = [drawn(scan) for scan in scans]
    names = [name for name in found[1] if name in found[0]]
    if not names:
        example = next(iter(found[1])).replace(" to ", ":")
        raise cli.UserError(
            f"{folders[0]} and {folders[1]} show no pair that both have: "
            f"scan the first model again with --draw {example}."
        )
    font = ImageFont.load_default(LETTERS)
    row = HEIGHT + LINES * LINE + EDGE
    size = (2 * WIDTH + 3 * EDGE, LINE + 2 * EDGE + row * len(names))
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    words = []
    for column, (folder, scan, pairs) in enumerate(zip(folders, scans, found)):
        left = EDGE + column * (WIDTH + EDGE)
        pen.text((left, EDGE), title(folder, scan), "black", font)
        for number, name in enumerate(names):
            top = LINE + 2 * EDGE + number * row
            drawing = open_image(folder / str(pairs[name].image))
            image.paste(drawing.resize((WIDTH, HEIGHT), Image.Resampling.BOX), (left, top))
            text = caption(name, pairs[name], scan)
            pen.text((left, top + HEIGHT), wrapped(text, font), "black", font, spacing=LINE - LETTERS)
            words.append(f"{folder.name}, {text}")
    return image, words


def main() -> int:
    args = cli.parser(__doc__)
    args.add_argument("scans", type=Path, nargs=2, metavar="FOLDER", help="--output folders of detect.py")
    args.add_argument("--output", type=Path, default=Path("scan_results/sheet.png"), help="image to write")
    options = args.parse_args()
    if options.output.suffix != ".png":
        raise cli.UserError(f"{options.output} is not the name of a PNG file: let it end with .png.")
    out = cli.Out(options.plain)
    image, words = sheet([folder.parent if folder.suffix == ".json" else folder for folder in options.scans])
    with cli.atomic_write(options.output) as scratch:
        image.save(scratch)
    out.say(f"Side by side saved to: {options.output}. Each image: trigger on grey, mask, trigger on a sign.")
    for line in words:
        out.say(f"- {line}")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
