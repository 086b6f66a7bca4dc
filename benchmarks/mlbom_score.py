"""What do others think of our ML-BOM? Two outside scorers, on the list without and with what is known.

    AISBOM=FOLDER/bin/aisbom OWASP_AIBOM=FOLDER/aibom-generator python benchmarks/mlbom_score.py

AISBOM names the command of aisbom-cli (pip install aisbom-cli, in an environment of its own), which is run
without a network. OWASP_AIBOM names a clone of GenAI-Security-Project/aibom-generator, of which only the
scoring is asked. What is not named is left out. Model, data and statements are made in a temporary folder.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DEMO = Path(__file__).resolve().parent.parent / "demo-supply-chain"
CARD = ["--card", str(DEMO / "cards" / "traffic-signs.json")]
EVIDENCE = ["--evidence", ".", "--keys", "keys"]
LOCK = ["--lock", str(DEMO / "requirements.txt")]
LISTS = {
    "files and checksums": [],
    "with card": CARD,
    "with card and statements": [*CARD, *EVIDENCE],
    "with software, too": [*CARD, *EVIDENCE, *LOCK],
    "the same in 1.7": [*CARD, *EVIDENCE, *LOCK, "--spec", "1.7"],
}
# only the scoring: the rest of the generator wants a model hub
OWASP = """
import json, logging, sys, types
sys.path.insert(0, sys.argv[1])
logging.disable(logging.CRITICAL)
package = types.ModuleType("src.models")
package.__path__ = [sys.argv[1] + "/src/models"]
sys.modules["src.models"] = package
from src.models.scoring import calculate_completeness_score
print(json.dumps(calculate_completeness_score(json.load(sys.stdin), validate=False)))
"""


def run(folder: Path, script: str, *words: str) -> None:
    """Type a command of demo 3 in this folder."""
    subprocess.run(
        [sys.executable, str(DEMO / script), *words], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )


def prepare(folder: Path) -> None:
    """A small model, and signed statements about its training and its scan."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    (folder / "data.sha256").write_text("0" * 64 + "  train/stop/1.jpg\n")
    run(folder, "attest.py", "keys", "keys")
    words = ["training", "m.safetensors", "--manifest", "data.sha256", "--command", "python train.py"]
    words += ["--option", "epochs=5", "--option", "seed=0", "--metric", "accuracy=0.97"]
    run(folder, "attest.py", *words, "--keys", "keys")


def by_aisbom(path: Path, command: str) -> tuple[float, list[str]]:
    """aisbom's score out of 100, and what it misses."""
    alone = ["unshare", "--net", "--map-root-user"] if sys.platform == "linux" else []
    quiet = os.environ | {"AISBOM_OFFLINE": "1", "AISBOM_NO_TELEMETRY": "1"}
    made = subprocess.run(
        [*alone, command, "score", str(path), "--json"], env=quiet, check=True, capture_output=True, text=True
    )
    found = json.loads(made.stdout)
    return found["overall"], [
        f"{one['label']} -{one['pointsRecoverable']}"
        for one in found["dimensions"]
        if one["pointsRecoverable"]
    ]


def by_owasp(path: Path, clone: str) -> tuple[float, list[str]]:
    """The score of the OWASP generator out of 100, and the fields that it misses and thinks important."""
    made = subprocess.run(
        [sys.executable, "-c", OWASP, clone],
        input=path.read_text(encoding="utf-8"),
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(made.stdout)
    document = json.loads(path.read_text(encoding="utf-8"))
    return found["total_score"], [
        name + (" (it is there)" if stated(document, name) else "")
        for tier in ("critical", "important")
        for name in found["missing_fields"][tier]
    ]


def stated(document: Mapping[str, Any], field: str) -> bool:
    """Whether a field that the OWASP scoring misses stands where CycloneDX puts it."""
    model = document["components"][0]
    card = model.get("modelCard") or {}
    places = {
        "primaryPurpose": (card.get("modelParameters") or {}).get("task"),
        "suppliedBy": (model.get("supplier") or {}).get("name"),
        "intendedUse": (card.get("considerations") or {}).get("useCases"),
        "hyperparameter": [
            one for one in card.get("properties") or [] if one["name"].endswith("hyperparameter")
        ],
    }
    return bool(places.get(field))


def main() -> int:
    scorers = {
        name: (scorer, os.environ[place])
        for name, scorer, place in (("aisbom", by_aisbom, "AISBOM"), ("OWASP", by_owasp, "OWASP_AIBOM"))
        if os.environ.get(place)
    }
    if not scorers:
        print("error: name a scorer in AISBOM or OWASP_AIBOM; see --help.", file=sys.stderr)
        return 2
    print("| list | " + " | ".join(f"{name}, of 100 | what it misses" for name in scorers) + " |")
    print("|" + "---|" * (1 + 2 * len(scorers)))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder)
        for name, options in LISTS.items():
            run(folder, "make_mlbom.py", "m.safetensors", *options, "--output", "list.json")
            cells = [name]
            for scorer, where in scorers.values():
                score, misses = scorer(folder / "list.json", where)
                cells += [f"{score:.1f}", ", ".join(misses) or "nothing"]
            print("| " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    if sys.argv[1:]:
        print(__doc__)
        sys.exit(0 if sys.argv[1:] == ["--help"] else 2)
    sys.exit(main())
