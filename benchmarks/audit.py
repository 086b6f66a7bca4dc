"""Does the audit find poisoned images, on drawings and on photographs, and does it leave clean ones alone?

    python benchmarks/audit.py --photos FOLDER          all sets that have no row yet
    python benchmarks/audit.py --photos FOLDER --only clean    those with these words in their name

FOLDER is the training part of the official GTSRB benchmark (00000/00000_00000.ppm and so on). Without it the
drawings are measured alone. Each poisoned set holds three attacks: three pairs of classes with a trigger of
their own, at one rate. Each set has a model of its own: train.py fine-tunes --base on it, the clean model of
prepare.sh.
One row per set goes to audit.jsonl, and a set that has one is not run again. AUDIT.md is made of the rows.
cleanlab is asked if it is installed (pip install cleanlab==2.9.0).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import audit_page
import audit_rivals
import audit_sets
import torch
from audit_sets import DEMO, TUNED, Spec

# isort: split  (audit_sets puts demo-poisoning on the path)
import audit_data
import cli
from auditor import checks, findings, neighbours
from auditor.findings import Audit, Suspect
from dataset.files import Files, class_files
from network import classifier

HERE = Path(__file__).resolve().parent


def row(spec: Spec, photos: Path, base: Path) -> dict[str, Any]:
    """Make a set and its model, audit it, and keep what is worth keeping."""
    rng = random.Random(spec.name)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        audit_sets.gather(spec, photos, folder, rng)
        bad = audit_sets.spoil(spec, folder, rng)
        images: Files = class_files(folder / "train")
        files = audit_data.names(images, folder)
        labels = torch.tensor([label for _, label in images])
        pixels = classifier.load_pixels([path for path, _ in images])
        model = audit_sets.tuned(folder, base, spec.number)
        rates = audit_sets.success(spec, folder, model)
    started = time.process_time()
    found = Audit([Suspect(name, findings.label_of(name)) for name in files])
    alike = neighbours.compare(pixels, len(files))
    checks.check_duplicates(found, files, alike.pairs)
    strays = checks.check_neighbours(found, alike, labels)
    quiet = cli.Out(plain=True)
    middle, last = audit_data.examine(found, model, (pixels, labels), alike.nearest, quiet, strays=strays)
    checks.rank(found)
    seconds = time.process_time() - started
    flagged = {suspect.file for suspect in found.ranking if suspect.flagged}
    everything = {name for names in bad for name in names}
    made: dict[str, Any] = {
        "name": spec.name,
        "images": len(files),
        "findings": found.kinds(),
        "flagged": len(flagged),
        "duplicates": len(findings.conflicts(found.duplicates)),
        "errors": found.errors,
        "seconds": round(seconds, 1),
    }
    if everything:
        order = [suspect.file for suspect in found.ranking]
        made["bad"] = len(everything)
        made["right"] = len(flagged & everything)
        made["ranking"] = round(checks.hits(order, everything)["recall_at_1.5n"], 3)
    found_for = {(trigger.looks_like, trigger.label) for trigger in found.triggers}
    made["attacks"] = [
        {
            "trigger": trigger,
            "pair": f"{victim} to {target}",
            "tuned": (trigger, (victim, target)) in TUNED,
            "bad": len(names),
            "success": rate,
            "right": len(flagged & set(names)),
            "flagged": sum(name.split("/")[1] == target for name in flagged),
            "named": (victim, target) in found_for,
        }
        for (trigger, (victim, target)), names, rate in zip(spec.attacks, bad, rates)
    ]
    if spec.attacks:
        made["rivals"] = {
            method: [round(value, 3) for value in values]
            for method, values in audit_rivals.rivals(spec, (files, labels), bad, (middle, last)).items()
        }
    return made


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument("--photos", type=Path, help="training part of GTSRB, official layout")
    args.add_argument("--base", type=Path, default=DEMO / "models/clean_model.pt", help="model to start from")
    args.add_argument("--only", default="", help="only sets with all these words in their name")
    args.add_argument("--rows", type=Path, default=HERE / "audit.jsonl", help="file of raw rows")
    args.add_argument("--output", type=Path, default=HERE / "AUDIT.md", help="page to write")
    return args.parse_args()


def main() -> int:
    options = parse()
    out = cli.Out(options.plain)
    torch.set_num_threads(1)
    classifier.load_model(options.base)  # says what is wrong before minutes of work
    if options.photos and not (options.photos / "00014").is_dir():
        raise cli.UserError(f"{options.photos} holds no folder 00014: give GTSRB's training folder.")
    rows = []
    if options.rows.exists():
        rows = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines()]
    for spec in audit_sets.specs():
        named = all(word in spec.name.split() for word in options.only.split())
        wanted = named and (spec.kind == "drawings" or options.photos)
        if not wanted or spec.name in [row["name"] for row in rows]:
            continue
        out.say(f"{spec.name}.")
        rows.append(row(spec, options.photos, options.base))
        with options.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    with cli.atomic_write(options.output) as scratch:
        scratch.write_text(audit_page.page(rows), encoding="utf-8")
    out.say(f"Wrote {options.output}: {len(rows)} sets.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
