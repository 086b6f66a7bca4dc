"""The whole of demo 2 for several seeds: does every one of them keep what the documents claim?

    python benchmarks/seeds.py                    five seeds, about five minutes each on 2 cores
    python benchmarks/seeds.py --photos FOLDER    also reads the photographs in FOLDER/val/<class>/
    python benchmarks/seeds.py --gtsrb FOLDER     on photographs: your copy of GTSRB takes the drawings' place

For each seed, with the demo's own commands and that seed: draw the images, poison a copy, train both
models, scan both, audit both sets of images, repair the poisoned model. One row per seed goes to
seeds.jsonl, and a seed that has one is not run again; images and models that stand in --work/seed-N
are kept. SEEDS.md is made of the rows. With --gtsrb they are seeds_gtsrb.jsonl and SEEDS_GTSRB.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "demo-poisoning"
sys.path.insert(0, str(DEMO))

import pages  # noqa: E402 (after the path above)
from population import PHOTO_EPOCHS  # noqa: E402

import cli  # noqa: E402 (after the path above)
import get_gtsrb  # noqa: E402
import trigger  # noqa: E402
from auditor import checks  # noqa: E402
from dataset.files import class_files  # noqa: E402
from network import classifier  # noqa: E402
from network.evaluate import Validation  # noqa: E402
from scanner import result, search, verdict  # noqa: E402

CLEAN, POISONED = "data/traffic-signs", "data/traffic-signs-poisoned"
REPAIRED = re.compile(r"repair: (\w+); clean accuracy .*?: ([\d.]+) .*; attack success rate .*?: ([\d.]+) ")


PAGES = {  # files of rows: what the title and the first lines of the page say of them
    "seeds.jsonl": ("", ""),
    "seeds_gtsrb.jsonl": (
        " on photographs",
        "With `--gtsrb FOLDER`: photographs from GTSRB (Stallkamp et al., 2012), split by track. ",
    ),
    "seeds_former.jsonl": (
        " with the former drawings",
        "They were of one style for each sign, and training took five epochs. ",
    ),
}


def together(folder: Path, *commands: list[str]) -> list[str]:
    """Run commands of the demo side by side, each on its share of the cores. Returns what they printed."""
    threads = str(max(1, (os.cpu_count() or 1) // len(commands)))
    running = [
        subprocess.Popen(
            [sys.executable, str(DEMO / command[0]), *command[1:]],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": threads},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        for command in commands
    ]
    said = []
    for process, command in zip(running, commands):
        output, errors = process.communicate()
        if process.returncode not in (cli.OK, cli.FINDING):
            raise cli.UserError(f"{' '.join(command)} failed in {folder}: {errors.strip()[-500:]}")
        said.append(output)
    return said


def trained(folder: Path, seed: int, out: cli.Out, gtsrb: Path | None = None) -> None:
    """Make images and models of one seed with the demo's commands, unless they are there.

    gtsrb: a copy of GTSRB, for photographs instead of drawings.
    """
    number = ["--seed", str(seed)]
    folder.mkdir(parents=True, exist_ok=True)
    images = ["make_dataset.py"]
    if gtsrb:
        images = ["get_gtsrb.py", "--photos", str(gtsrb.absolute()), "--out", CLEAN]
    for made, command in ((CLEAN, images), (POISONED, ["poison_data.py"])):
        if not (folder / made).exists():
            out.say(f"{command[0]}.")
            together(folder, [*command, *number])
    if gtsrb:
        number = [*number, "--epochs", str(PHOTO_EPOCHS)]
    wanted = {"clean": ["train.py", *number], "poisoned": ["train.py", "--poisoned", *number]}
    missing = [
        wanted[kind]
        for kind in ("clean", "poisoned")
        if not (folder / f"models/{kind}_model.safetensors").exists()
    ]
    if missing:
        out.say("Trainings.")
        together(folder, *missing)


def scores(folder: Path, photos: Path | None) -> dict[str, Any]:
    """Clean accuracy and attack success rate of both models, on drawn images and on photographs."""
    made = {}
    for name, place in (("", folder / CLEAN), ("_photos", photos)):
        if place is None:
            continue
        validation = Validation(place, 10, trigger.VICTIM, trigger.TARGET)
        for kind in ("clean", "poisoned"):
            score = validation.score(classifier.load_model(folder / f"models/{kind}_model.pt"))
            made[kind + name] = [round(score.clean_acc, 4), round(score.attack_success_rate or 0, 4)]
    return made


def scan_of(folder: Path, kind: str) -> dict[str, Any]:
    """What a scan found: its verdict, the pairs that it flagged with their triggers in words, two indices."""
    found = result.read(folder / f"scan_results/{kind}")
    index = {search.name(pair.numbers): round(pair.anomaly_index or 0, 1) for pair in found.pairs}
    flagged = {search.name(pair.numbers): pair.description for pair in found.flagged}
    attacked = f"{trigger.VICTIM}:{trigger.TARGET}"
    others = [value for pair, value in index.items() if pair != attacked]
    return {
        "verdict": found.verdict,
        "flagged": flagged,
        "attacked": index[attacked],
        "largest_other": max(others),
        "seconds": found.seconds,
    }


def row(
    seed: int, folder: Path, photos: Path | None, out: cli.Out, gtsrb: Path | None = None
) -> dict[str, Any]:
    """Run the demo with one seed in `folder`. Returns what is worth keeping."""
    number = ["--seed", str(seed)]
    trained(folder, seed, out, gtsrb)
    made: dict[str, Any] = {"seed": seed} | scores(folder, photos)
    out.say("Scans.")
    commands = {
        kind: ["detect.py", "--model", f"models/{kind}_model.pt", "--output", f"scan_results/{kind}"]
        for kind in ("clean", "poisoned")
    }
    together(folder, *commands.values())
    made["scans"] = {kind: scan_of(folder, kind) for kind in commands}
    out.say("Audits and repairs.")
    together(
        folder,
        ["audit_data.py", CLEAN, "--model", "models/clean_model.pt", "--output", "audit_results/clean"],
        ["audit_data.py", POISONED, "--model", "models/poisoned_model.pt"]
        + ["--truth", f"{POISONED}-attacker-notes.json"],
    )
    audits = {
        kind: json.loads((folder / "audit_results" / place / "suspects.json").read_text(encoding="utf-8"))
        for kind, place in (("clean", "clean"), ("poisoned", "."))
    }
    made["audits"] = {
        kind: {
            "verdict": found["verdict"],
            "shares": [
                round(max([group[share] for group in found["groups"]] or [0]), 4)
                for share in ("share", "clear")
            ],
        }
        for kind, found in audits.items()
    }
    made["methods"] = [
        [one["method"], round(one["recall_at_1.5n"], 3), round(one["precision_at_n"], 3)]
        for one in audits["poisoned"]["measured"]
    ]
    repairs = [["--repair", "finetune"]]
    if made["scans"]["poisoned"]["flagged"]:
        repairs[0].append("unlearn")
    if any(one["flagged"] for one in audits["poisoned"]["suspects"]):
        repairs.append(["--repair", "drop"])
    said = together(folder, *(["mitigate.py", *number, *repair] for repair in repairs))
    made["repairs"] = {
        name: [float(accuracy), float(rate)] for name, accuracy, rate in REPAIRED.findall("\n".join(said))
    }
    return made


def broken_claims(row: dict[str, Any]) -> list[str]:
    """What the documents claim and this seed does not keep."""
    scans, audits = row["scans"], row["audits"]
    words = scans["poisoned"]["flagged"].get(f"{trigger.VICTIM}:{trigger.TARGET}", "")
    ours = row["methods"][-1]
    claims = {
        "the poisoned model's accuracy is 0.97 or more": row["poisoned"][0] >= 0.97,
        "its attack success rate is 0.95 or more": row["poisoned"][1] >= 0.95,
        "the clean model's accuracy is 0.97 or more": row["clean"][0] >= 0.97,
        "its attack success rate is 0.02 or less": row["clean"][1] <= 0.02,
        "the scan finds nothing in the clean model": not scans["clean"]["flagged"],
        "the scan flags the pair that was attacked": bool(words),
        "its words are right": "yellow" in words and "bottom-right" in words,
        "the audit finds nothing in the clean images": audits["clean"]["verdict"] == "nothing stands out",
        "95 % of the poisoned images are among the first 1.5 n suspects": ours[1] >= 0.95,
    }
    return [claim for claim, kept in claims.items() if not kept]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def pair_of(values: list[float]) -> str:
    return f"{values[0]:.3f} / {values[1]:.2f}"


def page(rows: list[dict[str, Any]], name: str = "seeds.jsonl") -> str:
    """The page of a file of rows, one of PAGES: SEEDS.md for seeds.jsonl."""
    rows = sorted(rows, key=lambda row: row["seed"])
    broken = [f"Seed {row['seed']}: not kept: {claim}." for row in rows for claim in broken_claims(row)]
    photos = all("clean_photos" in row for row in rows)
    head = ["seed", "clean model", "poisoned model"]
    head += ["clean, photographs", "poisoned, photographs"] if photos else []
    first = [
        [str(row["seed"]), pair_of(row["clean"]), pair_of(row["poisoned"])]
        + ([pair_of(row["clean_photos"]), pair_of(row["poisoned_photos"])] if photos else [])
        for row in rows
    ]
    second = []
    for row in rows:
        clean, poisoned = row["scans"]["clean"], row["scans"]["poisoned"]
        flagged = "; ".join(f"{pair}: {words}" for pair, words in poisoned["flagged"].items()) or "nothing"
        largest = max(clean["attacked"], clean["largest_other"])
        figures = [largest, poisoned["attacked"], poisoned["largest_other"]]
        second.append([str(row["seed"]), *(f"{value:.1f}" for value in figures), flagged])
    methods = [name.split(", told")[0] for name, _, _ in rows[0]["methods"]]
    third = [
        [
            str(row["seed"]),
            *(f"{recall:.2f} ({precision:.2f})" for _, recall, precision in row["methods"]),
            *(
                " and ".join(f"{100 * share:.1f} %" for share in row["audits"][kind]["shares"])
                for kind in ("poisoned", "clean")
            ),
        ]
        for row in rows
    ]
    repairs = ["finetune", "unlearn", "drop"]
    fourth = [
        [
            str(row["seed"]),
            *(pair_of(row["repairs"][name]) if name in row["repairs"] else "not run" for name in repairs),
        ]
        for row in rows
    ]
    scan_head = [
        "seed",
        "clean model, largest",
        "poisoned, stop to yield",
        "poisoned, other pairs",
        "flagged",
    ]
    return pages.render(
        "seeds.md.jinja",
        rows=name,
        of=PAGES.get(name, ("", ""))[0],
        about=PAGES.get(name, ("", ""))[1],
        broken=broken,
        models=table(head, first),
        threshold=verdict.THRESHOLD,
        scans=table(scan_head, second),
        many=checks.MANY,
        stands_out=checks.STANDS_OUT,
        audits=table(["seed", *methods, "share, poisoned", "share, clean data"], third),
        repairs=table(["seed", *repairs], fourth),
    )


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument("--seeds", type=cli.seed, nargs="+", default=[0, 1, 2, 3, 4], help="which seeds")
    args.add_argument("--rows", type=Path, help="file of raw rows (default: seeds.jsonl here)")
    args.add_argument("--output", type=Path, help="page to write (default: SEEDS.md here)")
    args.add_argument("--work", type=Path, default=Path("seeds-work"), help="folder for data and models")
    args.add_argument("--photos", type=Path, help="folder with val/<class>/ of real photographs")
    args.add_argument("--gtsrb", type=Path, help="copy of GTSRB: photographs instead of drawings")
    options = args.parse_args()
    options.rows = options.rows or HERE / ("seeds_gtsrb.jsonl" if options.gtsrb else "seeds.jsonl")
    options.output = options.output or HERE / ("SEEDS_GTSRB.md" if options.gtsrb else "SEEDS.md")
    return options


def main() -> int:
    options = parse()
    out = cli.Out(options.plain)
    if options.photos:
        class_files(options.photos / "val")  # says what is wrong before minutes of work
    if options.gtsrb:
        get_gtsrb.class_folders(options.gtsrb)
    rows = []
    if options.rows.exists():
        rows = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines()]
    for seed in options.seeds:
        if seed in [row["seed"] for row in rows]:
            continue
        out.heading(f"Seed {seed}")
        folder = options.work / f"{'photos' if options.gtsrb else 'seed'}-{seed}"
        rows.append(row(seed, folder, options.photos, out, options.gtsrb))
        with options.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    with cli.atomic_write(options.output) as scratch:
        scratch.write_text(page(rows, options.rows.name), encoding="utf-8")
    out.say(f"Wrote {options.output}: {len(rows)} seeds.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
