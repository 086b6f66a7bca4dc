"""Check model files against an ML-BOM: is each file still the one that was listed, and is each file listed?

    python check_mlbom.py mlbom.cdx.json                        # files beside the list
    python check_mlbom.py mlbom.cdx.json --folder models
    python check_mlbom.py mlbom.cdx.json --key keys/release.pub # and is the list itself signed?

Who can swap a model can rewrite a list: so the list is signed (attest.py list), in a file beside it. Lists by
other tools are read, too: every hash algorithm of CycloneDX that Python has, and models inside other parts.

Exit codes: 0 every file is as listed, 1 a file has changed, is missing or is not listed, or the list is not
signed with that key, 2 bad input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import console
from console import UserError
from mlbom.checks import Listed, check, models_of
from mlbom.document import check_schema
from reports.grype_report import read_json

from statements import attestation

AGAIN = "make it again with make_mlbom.py, or ask who made it"
LARGEST_CHECKED = 500_000  # bytes; the schema check takes minutes for lists of thousands of packages


def read_list(path: Path) -> tuple[dict[str, Any], list[Listed]]:
    """A CycloneDX document and the models in it. Raises UserError for anything else, and if there are none.

    It is checked against its schema, unless it is very large: then only what is read of it must be in order.
    """
    document = read_json(path, "a list of models", AGAIN)
    if "spdx" in json.dumps([document.get("@context"), document.get("spdxVersion")]).lower():
        raise UserError(f"{path} is an SPDX document: give the same list in CycloneDX.")
    if document.get("bomFormat") == "CycloneDX" and "machine-learning-model" not in json.dumps(document):
        raise UserError(f"{path} lists no model: make a list with make_mlbom.py.")  # the schema takes longer
    if path.stat().st_size <= LARGEST_CHECKED:
        check_schema(json.dumps(document), str(path))
    elif document.get("bomFormat") != "CycloneDX":
        raise UserError(f"{path} is not a CycloneDX document: {AGAIN}.")
    try:
        listed = models_of(document)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not a whole CycloneDX document: {AGAIN}.") from error
    if not listed:
        raise UserError(f"{path} lists no model: make a list with make_mlbom.py.")
    return document, listed


def signature_problem(path: Path, document: dict[str, Any], key: Path) -> str:
    """Why the list is not proven to be the one that was signed; empty if it is. Raises UserError."""
    signature = path.with_name(path.name + ".dsse.json")
    try:
        found = attestation.verify(signature, attestation.public_key(key))
    except FileNotFoundError as error:
        if Path(error.filename) == key:
            raise UserError(f"{key} does not exist: give the public key of the role release.") from error
        return f"there is no {signature.name}"
    except attestation.NotVerified:
        return f"{signature.name} is not signed with {key}"
    except ValueError as error:
        raise UserError(f"{signature} or {key} cannot be used: {error}.") from error
    if found.kind != attestation.BOM:
        return f"{signature.name} signs something else"
    return "" if found.predicate == document else "the list has changed since it was signed"


def main() -> int:
    parser = console.parser(__doc__)
    parser.add_argument("bom", type=Path, help="the list, as make_mlbom.py or another tool wrote it")
    parser.add_argument("--folder", type=Path, help="where the model files are; else beside the list")
    parser.add_argument("--key", type=Path, help="public key that must have signed the list")
    args = parser.parse_args()
    document, listed = read_list(args.bom)
    good = True
    if args.key:
        problem = signature_problem(args.bom, document, args.key)
        good = not problem
        print(f"{args.bom.name}: {'NOT VERIFIED: ' + problem if problem else 'signed'}")
    for name, word in check(listed, args.folder or args.bom.parent).items():
        good = good and word.startswith("unchanged")
        print(f"{name}: {word}")
    if not args.key:
        print("Nobody has vouched for the list itself: --key checks who signed it.")
    return console.OK if good else console.FINDING


if __name__ == "__main__":
    console.run(main)
