"""Error rates of the scanner on models that nothing was tuned on.

    python benchmarks/held_out.py frozen                  first: write down which scanner it is (frozen.json)
    python benchmarks/held_out.py run --photos FOLDER     the models that have no row yet; minutes per model
    python benchmarks/held_out.py run --only "noise patch" "clean, VGG" --limit 4
    python benchmarks/held_out.py page                    HELD_OUT.md from the rows

`frozen` takes the checksums of the scanner and its thresholds; `run` refuses to go on with another one. The
kinds of models, and which of them the scan gives verdicts on, stand in held_out_models.py; the backdoors in
attacks.py. Each model is trained, measured and scanned as detect.py does it; its row goes to held_out.jsonl
at once, so a run that was stopped goes on where it was. The weights stay in --models, for rivals.py. Without
--photos (a copy of GTSRB, see demo-poisoning/get_gtsrb.py) the models of photographs are left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import cluster
import decided
import held_out_images
import held_out_models
import held_out_page
import held_out_scan
import population
from held_out_models import KINDS, Spec

# isort: split  (population puts demo-poisoning on the path)
import cli
import get_gtsrb
from scanner import result, verdict

HERE = Path(__file__).resolve().parent
DEMO = population.DEMO
FROZEN = ("detect.py", "scanner/*.py", "scanner/*.json", "network/*.py")  # what decides about a model

Row = dict[str, Any]


# --- The scanner that is measured ---------------------------------------------------------------------


def checksums() -> dict[str, Any]:
    """SHA-256 of each file of the scanner, and the thresholds."""
    files = sorted(path for pattern in FROZEN for path in DEMO.glob(pattern))
    return {
        "files": {path.relative_to(DEMO).as_posix(): result.sha256(path) for path in files},
        "threshold": verdict.THRESHOLD,
        "near": verdict.NEAR,
        "classes": verdict.CLASSES,
    }


def commit() -> str:
    """The commit that holds these files. Raises UserError if they are not committed."""
    files = [str(path) for pattern in FROZEN for path in DEMO.glob(pattern)]

    def git(*words: str) -> str:
        ended = subprocess.run(["git", *words], cwd=HERE, check=False, capture_output=True, text=True)
        if ended.returncode:
            raise cli.UserError("git knows no commit of this folder: clone the repository and try again.")
        return ended.stdout.strip()

    if git("status", "--porcelain", "--", *files):
        raise cli.UserError("The scanner has changes that are not committed: commit them before freezing it.")
    return git("rev-parse", "HEAD")


def frozen(path: Path) -> dict[str, Any]:
    """What was written down; "earlier" are the commits that were frozen before. Raises UserError."""
    try:
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names = ("commit", "files", "threshold", "near", "classes", "earlier")
        return {name: known[name] for name in names}
    except FileNotFoundError as error:
        raise cli.UserError(f"{path} does not exist: write it with held_out.py frozen.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise cli.UserError(
            f"{path} is damaged: remove it and write it again with held_out.py frozen."
        ) from error


def check_frozen(path: Path, changed: bool) -> None:
    """Raise UserError if the scanner is not the one that was written down, unless told that it may be."""
    known, now = frozen(path), checksums()
    files = known["files"].keys() | now["files"].keys()
    other = sorted(name for name in files if known["files"].get(name) != now["files"].get(name))
    other += [name for name in ("threshold", "near", "classes") if known[name] != now[name]]
    if other and not changed:
        raise cli.UserError(
            f"The scanner is not that of {path} (changed: {', '.join(other)}): go back to commit "
            f"{known['commit'][:12]}, or give --changed and other --rows."
        )


# --- All models ---------------------------------------------------------------------------------------


def read(path: Path) -> list[Row]:
    """The rows that are there. Raises UserError for a file of something else."""
    if not path.exists():
        return []
    try:
        rows: list[Row] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            row["name"], row["verdict"], row["scanner"]
    except (ValueError, KeyError, TypeError) as error:
        raise cli.UserError(f"{path} holds no rows of held_out.py: choose another --rows.") from error
    return rows


def chosen(options: argparse.Namespace, out: cli.Out) -> list[Spec]:
    """The models to make now. Raises UserError."""
    for text in options.only:
        if not any(text.lower() in kind.name.lower() for kind in KINDS):
            names = "; ".join(kind.name for kind in KINDS)
            raise cli.UserError(f"--only {text!r} is part of no kind's name: use one of {names}.")
    wanted = [
        spec
        for spec in held_out_models.specs()
        if not options.only or any(text.lower() in spec.kind.name.lower() for text in options.only)
    ]
    done = {row["name"] for row in read(options.rows)}
    wanted = [spec for spec in wanted if spec.name not in done]
    if options.photos is None and (left := [spec for spec in wanted if spec.kind.data == "photographs"]):
        out.say(f"Left out: {len(left)} models of photographs, which need --photos.")
        wanted = [spec for spec in wanted if spec not in left]
    return wanted[: options.limit or None]


def run(options: argparse.Namespace, out: cli.Out) -> int:
    """Make the missing rows."""
    check_frozen(options.frozen, options.changed)
    scanner = frozen(options.frozen)["commit"] if not options.changed else "changed"
    if options.photos:
        get_gtsrb.class_folders(options.photos)
    cli.check_place(options.rows)
    todo = chosen(options, out)
    options.models.mkdir(parents=True, exist_ok=True)
    work, models = options.work.absolute(), options.models.absolute()
    photos = options.photos and options.photos.absolute()
    for name in sorted({spec.data for spec in todo}):  # before the workers want the same one
        held_out_images.data_folder(name, work, photos, options.quick)
    job = partial(held_out_scan.make_row, work=work, models=models, photos=photos, quick=options.quick)
    made = cluster.results(job, todo, options) if todo else iter(())
    failed = False
    for spec, row in out.progress(made, len(todo), "Training and scanning models"):
        if isinstance(row, cli.UserError):
            failed = True
            print(f"error: {spec}: {row}", file=sys.stderr)
            continue
        with options.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row | {"scanner": scanner}) + "\n")
        rate = "" if row["asr"] is None else f", attack_success_rate {row['asr']:.2f}"
        index = "none" if row["index"] is None else f"{row['index']:.1f}"
        close = ", a close call" if row["near_threshold"] else ""
        out.say(f"{spec}: clean_acc {row['clean_acc']:.2f}{rate}; {row['verdict']}, index {index}{close}.")
    return cli.ERROR if failed else cli.OK


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument("what", choices=("frozen", "run", "page"), help="what to do")
    args.add_argument("--rows", type=Path, default=HERE / "held_out.jsonl", help="file of raw rows")
    args.add_argument("--output", type=Path, default=HERE / "HELD_OUT.md", help="page to write")
    args.add_argument("--frozen", type=Path, default=HERE / "frozen.json", help="checksums of the scanner")
    args.add_argument("--changed", action="store_true", help="run although the scanner is another one")
    args.add_argument("--work", type=Path, default=Path("held-out-work"), help="folder for images")
    args.add_argument(
        "--models", type=Path, default=Path("held-out-work/models"), help="folder for the trained models"
    )
    args.add_argument("--photos", type=Path, help="folder with your copy of GTSRB")
    args.add_argument("--only", nargs="+", default=[], metavar="KIND", help="kinds with these words")
    args.add_argument("--limit", type=int, default=0, help="make that many models and stop (0: all)")
    args.add_argument("--quick", action="store_true", help="few images and steps, to see that it works")
    cluster.add_options(args)
    options = args.parse_args()
    if options.limit < 0:
        raise cli.UserError("--limit must be 0 or more.")
    return options


def main() -> int:
    options = parse()
    out = cli.Out(options.plain)
    if options.what == "run":
        return run(options, out)
    if options.what == "frozen":
        facts = {"commit": commit()} | checksums() | {"earlier": []}
        if options.frozen.exists():  # rows that are there stay what they were: measured with that scanner
            known = frozen(options.frozen)
            facts["earlier"] = [*known["earlier"], known["commit"]]
        with cli.atomic_write(options.frozen) as scratch:
            scratch.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        out.say(f"Wrote {options.frozen}: {len(facts['files'])} files of commit {facts['commit'][:12]}.")
        return cli.OK
    rows = [decided.again(row) for row in read(options.rows)]
    text = held_out_page.page(rows, frozen(options.frozen))
    with cli.atomic_write(options.output) as scratch:
        scratch.write_text(text, encoding="utf-8")
    out.say(f"Wrote {options.output}.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
