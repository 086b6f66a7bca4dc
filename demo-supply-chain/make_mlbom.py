"""Write an ML-BOM: what your models are, what they were made of and how, in CycloneDX, which scanners read.

    python make_mlbom.py model.safetensors                # files and SHA-256: writes mlbom.cdx.json
    python make_mlbom.py models/* --output - > list.json  # to standard output
    python make_mlbom.py models/clean_model.safetensors --card cards/traffic-signs.json \\
        --evidence models --keys keys --lock ../demo-poisoning/requirements.txt

A card (--card) says in CycloneDX's own words what the model is for and where it fails. Signed statements
(--evidence, --keys; see attest.py) tell how it was trained, on which data, and what a scan found: only what
the right key signed is believed. Lock files (--lock) name the software.

Model files are only hashed, never loaded: a SafeTensors header is read as JSON, a pickle is not opened at
all. The list is checked against the CycloneDX schema before it is written. check_mlbom.py uses it.
"""

from __future__ import annotations

import json
from argparse import Namespace
from datetime import datetime, timezone
from pathlib import Path

import console
from console import UserError
from mlbom.document import CARD_PARTS, VERSIONS, Entry, Scanned, Training, mlbom
from mlbom.models import Model, read_model
from mlbom.spdx import spdx
from reports.grype_report import read_json

from statements import attestation, keys

OUTPUTS = {"cyclonedx": "mlbom.cdx.json", "spdx": "mlbom.spdx.json"}


def read_card(path: Path) -> dict[str, object]:
    """A card: an object with some of CARD_PARTS. The schema checks what is in them. Raises UserError."""
    card = read_json(path, "a card", "start with a copy of cards/traffic-signs.json")
    if unknown := set(card) - set(CARD_PARTS):
        raise UserError(f"{path} holds {min(unknown)!r}: a card has {', '.join(CARD_PARTS)}.")
    return card


def entries_of(models: list[Model], args: Namespace) -> list[Entry]:
    """The models with what card and statements say of them."""
    card = read_card(args.card) if args.card else {}
    if not args.evidence:
        return [Entry(model, card) for model in models]
    if not args.keys:
        raise UserError("--evidence needs --keys: a statement counts only if the right key signed it.")
    known = keys.evidence_in(args.evidence, args.keys)
    entries = []
    for model in models:
        training = known.said(model.sha256, attestation.PROVENANCE, "trainer")
        scan = known.said(model.sha256, attestation.TEST_RESULT, "scanner")
        entries.append(
            Entry(
                model,
                card,
                Training(training.predicate) if training else None,
                Scanned(scan.predicate) if scan else None,
            )
        )
    return entries


def main() -> int:
    parser = console.parser(__doc__)
    parser.add_argument("models", type=Path, nargs="+", help="model files: .safetensors, .pt")
    parser.add_argument(
        "--format",
        choices=OUTPUTS,
        default="cyclonedx",
        help="spdx is SPDX 3.0.1, which check_mlbom.py cannot read",
    )
    parser.add_argument(
        "--output", help="file to write; - is standard output (default: mlbom.cdx.json or mlbom.spdx.json)"
    )
    parser.add_argument("--card", type=Path, help="what the models are for, and their limits (JSON)")
    parser.add_argument("--evidence", type=Path, help="folder with signed statements (*.dsse.json)")
    parser.add_argument("--keys", type=Path, help="folder with the public keys of the roles (*.pub)")
    parser.add_argument(
        "--lock", type=Path, action="append", default=[], help="a requirements.txt; repeatable"
    )
    parser.add_argument("--spec", choices=VERSIONS, default="1.6", help="version of CycloneDX")
    args = parser.parse_args()
    models = [read_model(path) for path in args.models]
    when = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    entries = entries_of(models, args)
    text, written = mlbom(entries, args.spec, when, args.lock), f"CycloneDX {args.spec}"
    if args.format == "spdx":
        text, written = spdx(json.loads(text)), "SPDX 3.0.1"
    output = args.output or OUTPUTS[args.format]
    if output == "-":
        print(text)
        return console.OK
    with console.atomic_write(Path(output)) as scratch:
        scratch.write_text(text + "\n", encoding="utf-8")
    columns = ["model", *(models[0].facts if len(models) == 1 else ("format", "bytes")), "sha256"]
    rows = [[m.name, *(m.facts[name] for name in columns[1:-1]), m.sha256] for m in models]
    print(console.table("Models in the list", columns, rows, console.is_plain(args.plain)))
    if args.evidence:
        for entry in entries:
            told = [name for name, known in (("training", entry.training), ("scan", entry.scan)) if known]
            print(f"{entry.model.name}: signed statements used: {', '.join(told) or 'none'}.")
    print(f"Wrote {output}: valid {written}, models: {len(models)}.")
    return console.OK


if __name__ == "__main__":
    console.run(main)
