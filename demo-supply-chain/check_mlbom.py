"""Check model files against an ML-BOM: is each file still the one that was listed?

    python check_mlbom.py mlbom.cdx.json               # files beside the list
    python check_mlbom.py mlbom.cdx.json --folder models

Exit codes: 0 every file is as listed, 1 a file has changed or is missing, 2 bad input.
"""

from __future__ import annotations

from pathlib import Path

import console
from console import UserError
from mlbom.document import check_schema
from mlbom.models import sha256
from reports.grype_report import read_json


def listed(path: Path) -> dict[str, str]:
    """File name -> SHA-256, from an ML-BOM. Raises UserError for anything else."""
    data = read_json(path)
    check_schema(path.read_text(encoding="utf-8"), str(path))
    models = [item for item in data.get("components", []) if item["type"] == "machine-learning-model"]
    found = {item["name"]: hash_["content"] for item in models for hash_ in item.get("hashes", [])}
    if not found:
        raise UserError(f"{path} lists no model: make a list with make_mlbom.py.")
    return found


def verdict(file: Path, expected: str) -> str:
    """One word on one file: unchanged, CHANGED or MISSING."""
    if not file.is_file():
        return "MISSING"
    return "unchanged" if sha256(file) == expected else "CHANGED"


def main() -> int:
    parser = console.parser(__doc__)
    parser.add_argument("bom", type=Path, help="the list, as make_mlbom.py wrote it")
    parser.add_argument("--folder", type=Path, help="where the model files are; else beside the list")
    args = parser.parse_args()
    folder = args.folder or args.bom.parent
    verdicts = {name: verdict(folder / Path(name).name, digest) for name, digest in listed(args.bom).items()}
    for name, word in verdicts.items():
        print(f"{name}: {word}")
    return console.OK if set(verdicts.values()) == {"unchanged"} else console.FINDING


if __name__ == "__main__":
    console.run(main)
