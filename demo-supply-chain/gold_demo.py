"""The gold path: compare the hardened image with the one before, and list the models that you ship.

    python gold_demo.py                               # the models of the poisoning demo, else a tiny example
    python gold_demo.py models/clean_model.safetensors

This is step 3.3 of the workshop. Its part 1 needs reports of ./scan.sh, which needs internet. Parts 2 and 3
always run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import console
from console import UserError
from reports.grype_report import RESULTS, report_name

HERE = Path(__file__).resolve().parent
BEFORE, AFTER = "python:3.11", "cgr.dev/chainguard/python:latest"
MODELS = HERE.parent / "demo-poisoning" / "models"


def show(script: str, *arguments: object) -> int:
    """Print a command as one would type it, run it, and give its exit code."""
    words = [os.path.relpath(word) if isinstance(word, Path) else str(word) for word in arguments]
    print(" ".join(["$ python", script, *words]), flush=True)
    return subprocess.run([sys.executable, str(HERE / script), *words], check=False).returncode


def heading(number: int, text: str) -> None:
    """Say which part of the step begins."""
    print(f"\nStep 3.3, part {number} of 3: {text}", flush=True)


def find_models(named: list[Path], results: Path) -> list[Path]:
    """The models to list: the named ones, else those of the poisoning demo, else a tiny example."""
    found = named or sorted([*MODELS.glob("*.safetensors"), *MODELS.glob("*.pt")])
    if not found:
        found = [results / "example.safetensors"]
        if show("make_example.py", "--output", found[0]) != 0:
            raise UserError(f"Cannot write {found[0]}: choose another folder with --results.")
    return found


def tamper(model: Path, folder: Path) -> Path:
    """Copy a model and flip the lowest bit of its last byte: one number changes a little."""
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    copy = folder / model.name
    copy.write_bytes(data)
    return copy


def main() -> int:
    parser = console.parser(__doc__)
    parser.add_argument("models", nargs="*", type=Path, help="model files to list")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="reports of ./scan.sh; the list goes here"
    )
    args = parser.parse_args()
    plain = ["--plain"] if console.is_plain(args.plain) else []

    heading(1, "harden and rescan: which vulnerabilities disappeared?")
    reports = [args.results / report_name(image) for image in (BEFORE, AFTER)]
    if all(report.exists() for report in reports):
        if show("compare.py", *reports, *plain) != 0:
            return console.ERROR
    else:
        print("There is no live scan yet: run ./scan.sh with internet, or see ./scan.sh --recorded.")

    heading(2, "list the models that you ship, with their SHA-256")
    models = find_models(args.models, args.results)
    bom = args.results / "mlbom.cdx.json"
    if show("make_mlbom.py", *models, "--output", bom) != 0:
        return console.ERROR

    heading(3, "somebody changes one bit of a model: does the list notice?")
    with tempfile.TemporaryDirectory(prefix="changed.") as folder:
        tamper(models[0], Path(folder))
        for model in models[1:]:
            (Path(folder) / model.name).symlink_to(model.resolve())
        noticed = show("check_mlbom.py", bom, "--folder", folder) == console.FINDING
    if not noticed:
        raise UserError(f"The change was not noticed: look at {bom}.")
    print(
        "The list noticed the change. It cannot tell whether a model is good: a poisoned one is listed too."
    )
    return console.OK


if __name__ == "__main__":
    console.run(main)
