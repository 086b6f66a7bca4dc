"""The ending: what you can now do, checked, and a poster of the trigger that your scan recovered.

    python scripts/wanted.py [FOLDER]

FOLDER is the folder of a scan that flagged something, such as demo-poisoning/scan_results/poisoned. Without
it, the newest scan of the poisoned model is taken. The poster goes to progress/wanted.html and, as plain
text, to progress/wanted.txt. Exit code 0: fine.
2: there is no such scan, or something cannot be read or written.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import log
import pages
from progress import Parser, run
from tasks import ROOT, UserError, every

# where the scan of the poisoned model may lie: in a container's shell, natively, after run with Docker
SCANS = (
    Path("scan_results/poisoned"),
    ROOT / "demo-poisoning/scan_results/poisoned",
    ROOT / "results/docker/demo-poisoning/scan_results/poisoned",
)
HOW = "./workshop.sh run 2 makes one"
LARGEST_SCAN, LARGEST_IMAGE = 20_000_000, 5_000_000  # bytes
PNG = b"\x89PNG\r\n\x1a\n"

ABILITIES = {
    "1.1": "make two scanners of model files disagree, and say why",
    "1.2": "turn a pickle into SafeTensors, bit for bit",
    "1.3": "write a policy that refuses a malicious file although it is signed",
    "1.4": "sign a model, and notice one changed bit",
    "2.1": "find a trigger in the weights alone, wherever it is",
    "2.2": "say how few poisoned images a scan no longer sees",
    "2.3": "name the poisoned files of a dataset",
    "2.4": "build a backdoor that this scan cannot see, and say what would",
    "3.1": "read a comparison of images with the date of its database in mind",
    "3.2": "say why a finding does not matter, in a form that a scanner reads",
    "3.3": "say what a list of models does not notice, and a signature does",
    "3.4": "walk a chain of signed statements, and name the link that is broken",
}
GO_ON = (
    "Look into a model file before anybody loads it: python inspect_model.py FILE, in demo-malicious.",
    "Do demo 2 with real photographs: docs/poisoning/more.md says how.",
    "Read how often the scan is wrong, and on what: benchmarks/HELD_OUT.md.",
    "Put a policy before your own model server: demo-malicious/policy.toml is a start.",
    "Each demo's README ends with references: the papers and the tools behind it.",
)


@dataclass
class Wanted:
    """The most suspicious pair of a scan, and what people should know of it."""

    victim: str
    target: str
    description: str
    index: float
    threshold: float
    held_out: float  # share of new images that the trigger turns into the target
    seconds: float
    model: str  # file that was scanned
    image: bytes  # PNG

    @property
    def facts(self) -> list[str]:
        return [
            f"Wanted for: turning {self.victim} into {self.target} in {self.model}.",
            f"Looks like: {self.description}.",
            f"Dangerous: on {100 * self.held_out:.0f} % of new images it works.",
            f"Given away by: an anomaly index of {self.index:.1f}, where {self.threshold:g} is suspicious.",
            f"Caught: from the weights alone, in a scan of {self.seconds:.0f} seconds.",
        ]

    @property
    def alt(self) -> str:
        return (
            f"Three panels. Left, the recovered trigger on grey: {self.description}. Middle, its mask. "
            f"Right, the trigger on a {self.victim} sign."
        )


def newest_scan() -> Path:
    """The newest folder with a scan of the poisoned model. Raises UserError if there is none."""
    there = [folder for folder in SCANS if (folder / "scan.json").is_file()]
    if not there:
        raise UserError(f"There is no scan of the poisoned model yet, so nobody is wanted: {HOW}.")
    return max(there, key=lambda folder: (folder / "scan.json").stat().st_mtime)


def read_scan(folder: Path) -> Wanted:
    """The most suspicious flagged pair of a scan. Raises UserError if there is none, or it is not a scan."""
    path = folder / "scan.json"
    try:
        if path.stat().st_size > LARGEST_SCAN:
            raise ValueError("too large")
        scan = json.loads(path.read_text(encoding="utf-8"))
        if scan["tool"] != "detect.py":
            raise ValueError("of another tool")
        flagged = [pair for pair in scan["pairs"] if pair["flagged"] is True]
        if not flagged:
            raise UserError(f"{path} flags nothing, so nobody is wanted: give the folder of another scan.")
        return wanted(folder, scan, max(flagged, key=lambda pair: float(pair["anomaly_index"])))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as a scan of detect.py: scan again, or {HOW}.") from error


def wanted(folder: Path, scan: Any, pair: Any) -> Wanted:
    """Take what the poster shows. Raises ValueError, TypeError or OSError for what is not a scan of ours."""
    if not re.fullmatch(r"trigger_\d{1,3}_to_\d{1,3}\.png", pair["image"]):  # a path could lead anywhere
        raise ValueError("another image")
    image = folder / pair["image"]
    if image.stat().st_size > LARGEST_IMAGE or not (content := image.read_bytes()).startswith(PNG):
        raise ValueError("not a PNG image")
    words = [pair["victim"], pair["target"], pair["description"], scan["model"]]
    if not all(isinstance(word, str) and word.isprintable() for word in words):
        raise ValueError("not text")
    return Wanted(
        victim=words[0],
        target=words[1],
        description=words[2],
        model=Path(words[3]).name,
        image=content,
        index=float(pair["anomaly_index"]),
        threshold=float(scan["threshold"]),
        held_out=float(pair["held_out"]),
        seconds=float(scan["seconds"]),
    )


def abilities(state: log.State) -> list[str]:
    """What you can do, in the order of the exercises; those not solved are said to be open."""
    return [
        f"{'CHECKED' if one.item in state.solved else 'NOT YET'}: I can {ABILITIES[one.item]}."
        for one in every()
    ]


def page(found: Wanted, able: list[str]) -> str:
    encoded = base64.b64encode(found.image).decode()
    body = f'<img src="data:image/png;base64,{encoded}" alt="{escape(found.alt)}">\n'
    body += pages.listing(found.facts) + "<h2>What I can do now</h2>\n" + pages.listing(able)
    return pages.html("WANTED", body + "<h2>Where to go on</h2>\n" + pages.listing([*GO_ON]))


def main() -> int:
    arguments = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", nargs="?", type=Path, help="of a scan (default: the newest one)")
    arguments.add_argument("--plain", action="store_true", help="changes nothing: this is plain text already")
    args = arguments.parse_args()
    able = abilities(log.read())
    found = read_scan(args.folder or newest_scan())
    text = "\n".join(
        ["WANTED", *found.facts, f"The image: {found.alt}", "", "What you can do now:", *able]
        + ["", "Where to go on:", *(f"- {line}" for line in GO_ON), ""]
    )
    place = log.folder()
    pages.write(place / "wanted.html", page(found, able))
    pages.write(place / "wanted.txt", text)
    print(text)
    print(f"The poster: {place / 'wanted.html'}; open it in a browser.")
    print(f"The same as text: {place / 'wanted.txt'}.")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
