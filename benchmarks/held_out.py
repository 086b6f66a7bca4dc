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
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cluster
import held_out_models
import held_out_scan
import intervals
import pages
import population
import seeds
from attacks import ATTACKS
from held_out_models import KINDS, Spec

# isort: split  (population puts demo-poisoning on the path)
import cli
import get_gtsrb
from scanner import result, verdict

HERE = Path(__file__).resolve().parent
DEMO = population.DEMO
FROZEN = ("detect.py", "scanner/*.py", "network/*.py")  # what decides about a model
WORKING_ASR = 0.9  # a backdoor that works less often was not learned: there is little to find
NONE = -100.0  # stands for "no trigger works for any pair": below every index that there is
NO_VERDICT = "no valid statistic"

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
        held_out_models.data_folder(name, work, photos, options.quick)
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


# --- The page -----------------------------------------------------------------------------------------


def is_learned(row: Row) -> bool:
    return not row["clean"] and row["asr"] >= WORKING_ASR


def figure(row: Row) -> float:
    """The largest anomaly index of a model that got a verdict."""
    return NONE if row["index"] is None else float(row["index"])


def with_verdict(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["verdict"] != NO_VERDICT]


def area(clean: Sequence[Row], backdoored: Sequence[Row]) -> str:
    """AUROC of the index with its interval."""
    if not with_verdict(clean) or not with_verdict(backdoored):
        return "none"
    values = intervals.wins(
        [figure(row) for row in with_verdict(clean)], [figure(row) for row in with_verdict(backdoored)]
    )
    return intervals.with_interval(values)


def spread(values: Sequence[float]) -> str:
    """Least and largest."""
    if not values:
        return "none"
    return f"{min(values):.2f} to {max(values):.2f}"


def counts(rows: Sequence[Row], error: str) -> list[str]:
    """Errors with exact interval, close calls, models without verdict."""
    of = with_verdict(rows)
    wrong = sum(row["verdict"] == error for row in of)
    return [
        intervals.exact(wrong, len(of)) if of else "none",
        str(sum(row["near_threshold"] for row in of)),
        str(len(rows) - len(of)),
    ]


def page(rows: list[Row], known: dict[str, Any]) -> str:
    """HELD_OUT.md. Raises UserError without rows of both kinds, or with rows of a scanner never frozen."""
    rows = sorted(rows, key=lambda row: (not row["clean"], row["seed"]))
    scanners = Counter(row["scanner"] for row in rows)
    if scanners.keys() - {known["commit"], *known["earlier"]}:
        raise cli.UserError("The rows are not all of a frozen scanner: make them again in another --rows.")
    clean = [row for row in rows if row["clean"]]
    learned = [row for row in rows if is_learned(row)]
    scope = [row for row in learned if row["in_scope"]]
    if not with_verdict(clean) or not with_verdict(scope):
        raise cli.UserError("The page needs clean and learned backdoored models in scope: go on with run.")
    attacked, honest = [], []
    for kind in KINDS:
        own = [row for row in rows if row["kind"] == kind.name]
        if not own:
            continue
        accuracy = spread([row["clean_acc"] for row in own])
        if kind.attack is None:
            largest = max((figure(row) for row in with_verdict(own)), default=math.nan)
            index = "none" if math.isnan(largest) else f"{largest:.1f}"
            honest.append([kind.name, str(len(own)), accuracy, index, *counts(own, "backdoor")])
        else:
            good = [row for row in own if is_learned(row)]
            rates = spread([row["asr"] for row in own])
            cells = [
                kind.name,
                "yes" if kind.in_scope else "no",
                f"{len(good)} of {len(own)}",
                rates,
                accuracy,
            ]
            attacked.append([*cells, area(clean, good), *counts(good, "clean")])

    def named(row: Row) -> str:
        index = "none" if row["index"] is None else f"{row['index']:.1f}"
        rate = "" if row["asr"] is None else f", attack success rate {row['asr']:.2f}"
        return f"{row['name']}{rate}, index {index}, smallest trigger for {row['suspect']}"

    alarms = [f"False alarm: {named(row)}." for row in with_verdict(clean) if row["verdict"] == "backdoor"]
    misses = [
        f"Miss{'' if row['in_scope'] else ' (out of scope)'}: {named(row)}."
        for row in with_verdict(learned)
        if row["verdict"] == "clean"
    ]
    right = [row for row in scope if row["verdict"] == "backdoor"]
    every = []
    for row in rows:
        rate = "" if row["asr"] is None else f"{row['asr']:.2f}"
        index = "none" if row["index"] is None else f"{row['index']:.1f}"
        close = ", close call" if row["near_threshold"] else ""
        cells = [row["name"], f"{row['clean_acc']:.3f}", rate, row["verdict"] + close, index, row["suspect"]]
        seconds = [f"{row['train_cpu_seconds']:.0f}", f"{row['scan_cpu_seconds']:.0f}"]
        every.append([*cells, *seconds, row["scanner"][:7]])
    return pages.render(
        "held_out.md.jinja",
        commit_now=known["commit"],
        earlier={commit: scanners[commit] for commit in known["earlier"] if scanners[commit]},
        threshold=known["threshold"],
        near=known["near"],
        classes=known["classes"],
        files=known["files"],
        working_asr=WORKING_ASR,
        models=len(rows),
        planned=len(held_out_models.specs()),
        clean=len(clean),
        scope=len(scope),
        area=area(clean, scope),
        alarms=counts(clean, "backdoor"),
        misses=counts(scope, "clean"),
        named=intervals.exact(
            sum(bool(set(row["attacked"]) & set(row["flagged"])) for row in right), len(right)
        ),
        attacked=seeds.table(
            [
                "kind",
                "in scope",
                "learned",
                "attack success rates",
                "accuracy",
                "AUROC against all clean models",
            ]
            + ["missed", "close calls", "no verdict"],
            attacked,
        ),
        honest=seeds.table(
            ["kind", "models", "accuracy", "largest index", "false alarms", "close calls", "no verdict"],
            honest,
        ),
        errors=alarms + misses,
        weak=[named(row) + "." for row in rows if not row["clean"] and not is_learned(row)],
        sources=[(name, attack.source) for name, attack in ATTACKS.items()],
        every=seeds.table(
            ["model", "accuracy", "attack success rate", "verdict", "index", "smallest trigger for"]
            + ["training, CPU seconds", "scan, CPU seconds", "scanner"],
            every,
        ),
    )


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
    text = page(read(options.rows), frozen(options.frozen))
    with cli.atomic_write(options.output) as scratch:
        scratch.write_text(text, encoding="utf-8")
    out.say(f"Wrote {options.output}.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
