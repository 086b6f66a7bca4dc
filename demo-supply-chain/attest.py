"""Sign statements about data, models and scans: each role says what it knows, with a key of its own.

    python attest.py keys keys                                        a pair of keys for each role
    python attest.py data data/traffic-signs.sha256 --keys keys       these files are ours
    python attest.py audit data/traffic-signs.sha256 --result audit_results/suspects.json --keys keys
    python attest.py training models/clean_model.safetensors --manifest data/traffic-signs.sha256 \\
        --command "python train.py --seed 0" --keys keys
    python attest.py scan models/clean_model.safetensors --result scan_results/clean/scan.json --keys keys
    python attest.py list results/mlbom.cdx.json --keys keys          this is what we ship

Each writes one signed statement, FILE.KIND.dsse.json, into the folder of --evidence, by default beside FILE.
verify_chain.py walks from a model through all of them. A statement says what its signer says: a signature
proves who, not that it is true.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import console
from console import UserError
from mlbom.checks import models_of
from mlbom.document import check_schema
from mlbom.models import SAYS, read_model
from reports.grype_report import read_json

from statements import attestation, predicates
from statements.attestation import BOM, ENDING, MANIFEST, PROVENANCE, SIGNER, TEST_RESULT, resource, sha256


def digest_of(path: Path) -> str:
    """SHA-256 of a file. Raises UserError."""
    try:
        return sha256(path)
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}): give a file that exists.") from error


def pairs(texts: list[str], option: str) -> dict[str, str]:
    """name=value texts as a table. Raises UserError."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UserError(f"{option} {text} is not valid: write it like name=value.")
        found[name] = value
    return found


def options_of(args: argparse.Namespace) -> dict[str, str]:
    """The command and the options that were handed in."""
    return {**({"command": args.command} if args.command else {}), **pairs(args.option, "--option")}


def say_data(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The data team: the files of this manifest are ours."""
    return PROVENANCE, predicates.provenance("data", options_of(args))


def say_training(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The trainer: this model came out of a training on the data of this manifest."""
    manifest = digest_of(args.manifest)
    facts = read_model(args.file).facts if args.file.suffix == ".safetensors" else {}
    told = {name.removeprefix(SAYS): value for name, value in facts.items() if name.startswith(SAYS)}
    if told.pop("manifest_sha256", manifest) != manifest:
        raise UserError(
            f"{args.file} says in its header that it was trained on other data than {args.manifest} lists: "
            "give the manifest of its data."
        )
    used = [resource(MANIFEST, manifest, dataset=args.manifest.stem)]
    used += [resource(path.name, digest_of(path)) for path in args.code]
    if args.base:
        used.append(resource("base weights", digest_of(args.base), file=args.base.name))
    metrics = [{"name": name, "value": value} for name, value in pairs(args.metric, "--metric").items()]
    return PROVENANCE, predicates.provenance("training", {**told, **options_of(args)}, used, metrics=metrics)


def say_audit(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The auditor: what audit_data.py says of these data."""
    found = read_json(args.result, "a result of audit_data.py", "give suspects.json of an audit")
    try:
        said = predicates.audit(found, digest_of(args.result))
    except ValueError as error:
        raise UserError(
            f"{args.result} cannot be signed ({error}): give suspects.json of an audit."
        ) from error
    named, known = Path(str(found.get("manifest"))).name, found.get("manifest_sha256")
    if named != args.file.name or known not in (None, digest_of(args.file)):
        raise UserError(
            f"{args.result} is the audit of other data ({named}): audit the data of {args.file} first."
        )
    return TEST_RESULT, said


def say_scan(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The scanner: what detect.py says of this very model."""
    found = read_json(args.result, "a result of detect.py", "give scan.json of a scan")
    try:
        said = predicates.scan(found, digest_of(args.result))
    except ValueError as error:
        raise UserError(f"{args.result} cannot be signed ({error}): give scan.json of a scan.") from error
    if found.get("sha256") != digest_of(args.file):
        raise UserError(f"{args.result} is the scan of another file than {args.file}: scan this one first.")
    return TEST_RESULT, said


def say_list(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The release team: this list is what we ship. Its models become the subjects, each by its SHA-256."""
    document = read_json(args.file, "a list of models", "make one with make_mlbom.py")
    check_schema(args.file.read_text(encoding="utf-8"), str(args.file))
    args.subjects = {
        one.name: value for one in models_of(document) for name, value in one.hashes if name == "SHA-256"
    }
    if not args.subjects:
        raise UserError(f"{args.file} lists no model with a SHA-256: make it with make_mlbom.py.")
    return BOM, document


SAYINGS: dict[str, Callable[[argparse.Namespace], tuple[str, dict[str, Any]]]] = {
    "data": say_data,
    "audit": say_audit,
    "training": say_training,
    "scan": say_scan,
    "list": say_list,
}


def read_arguments() -> argparse.Namespace:
    """The command line: one subcommand for each kind of statement."""
    parser = console.parser(__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    keys = kinds.add_parser("keys", help="write a pair of keys for each role")
    keys.add_argument("file", type=Path, metavar="FOLDER", help="folder for the keys")
    for name, say in SAYINGS.items():
        one = kinds.add_parser(name, help=say.__doc__)
        one.add_argument("file", type=Path, metavar="FILE", help="what the statement is about")
        one.add_argument("--keys", type=Path, required=True, help=f"folder with {SIGNER[name]}.key")
        one.add_argument("--evidence", type=Path, help="folder for the statement; else beside FILE")
        if name in ("audit", "scan"):
            one.add_argument(
                "--result", type=Path, required=True, help="the result file of the audit or scan"
            )
        if name in ("data", "training"):
            one.add_argument("--command", default="", help="the command that made it")
            one.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="more of it")
        if name == "training":
            one.add_argument("--manifest", type=Path, required=True, help="manifest of the training data")
            one.add_argument(
                "--code", type=Path, action="append", default=[], help="a file of the code or lock"
            )
            one.add_argument("--base", type=Path, help="weights that training began with")
            one.add_argument(
                "--metric", action="append", default=[], metavar="NAME=VALUE", help="a measurement"
            )
    return parser.parse_args()


def main() -> int:
    args = read_arguments()
    if args.kind == "keys":
        try:
            attestation.write_keys(args.file)
        except OSError as error:
            raise UserError(
                f"Cannot write {error.filename} ({error.strerror}): choose another folder."
            ) from error
        print(
            f"Wrote in {args.file}: a .key (private, keep it) and a .pub for {', '.join(attestation.ROLES)}."
        )
        return console.OK
    args.subjects = {args.file.name: digest_of(args.file)}
    kind, predicate = SAYINGS[args.kind](args)
    key = args.keys / f"{SIGNER[args.kind]}.key"
    try:
        text = attestation.sign(attestation.statement(args.subjects, kind, predicate), key)
    except OSError as error:
        raise UserError(
            f"Cannot read {key} ({error.strerror}): attest.py keys {args.keys} makes keys."
        ) from error
    except ValueError as error:
        raise UserError(f"{key} cannot sign: {error}.") from error
    name = args.file.name + ("" if args.kind == "list" else f".{args.kind}") + ENDING
    output = (args.evidence or args.file.parent) / name
    with console.atomic_write(output) as scratch:
        scratch.write_text(text, encoding="utf-8")
    said = f": {predicate['result']}" if kind == TEST_RESULT else ""
    print(f"Wrote {output}, signed by the role {SIGNER[args.kind]}{said}.")
    return console.OK


if __name__ == "__main__":
    console.run(main)
