"""Write an ML-BOM: a list of your model files with their SHA-256, in the CycloneDX format that scanners read.

    python make_mlbom.py model.safetensors                # writes mlbom.cdx.json
    python make_mlbom.py models/* --output - > list.json  # to standard output

Model files are only hashed, never loaded: a SafeTensors header is read as JSON, a pickle is not opened at
all. The list is checked against the CycloneDX 1.6 schema before it is written. check_mlbom.py uses it.
"""

from __future__ import annotations

from pathlib import Path

import console
from mlbom.document import mlbom
from mlbom.models import read_model


def main() -> int:
    parser = console.parser(__doc__)
    parser.add_argument("models", type=Path, nargs="+", help="model files: .safetensors, .pt")
    parser.add_argument("--output", default="mlbom.cdx.json", help="file to write; - is standard output")
    args = parser.parse_args()
    models = [read_model(path) for path in args.models]
    text = mlbom(models)
    if args.output == "-":
        print(text)
        return console.OK
    with console.atomic_write(Path(args.output)) as scratch:
        scratch.write_text(text + "\n", encoding="utf-8")
    columns = ["model", *(models[0].facts if len(models) == 1 else ("format", "bytes")), "sha256"]
    rows = [[m.name, *(m.facts[name] for name in columns[1:-1]), m.sha256] for m in models]
    print(console.table("Models in the list", columns, rows, plain=True))  # hashes are too wide for columns
    print(f"Wrote {args.output}: valid CycloneDX 1.6, models: {len(models)}.")
    return console.OK


if __name__ == "__main__":
    console.run(main)
