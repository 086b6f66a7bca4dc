"""Exercises: are they done? EXERCISES.md says what to do and shows solutions.

    python check.py        all four
    python check.py 1      what is new in an image of which not a byte has changed? exercise1.txt
    python check.py 2      a VEX statement for one finding, exercise2.openvex.json
    python check.py 3      swap a model so that its list does not notice, in exercise3/
    python check.py 4      a whole chain in exercise4/, and one with one broken link in exercise4_broken/

Exit code 0: done. 1: not yet, with a hint. 2: this machine cannot do it, or wrong usage.
Nothing of yours is loaded, and nothing is changed. No network is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import console
from console import UserError
from mlbom.checks import check, models_of
from mlbom.models import sha256
from reports import difference
from reports.grype_report import read_json, read_scan

from exercises import record
from statements import attestation, chain, keys

HERE = Path(__file__).resolve().parent
BEFORE, AFTER = (HERE / "recorded" / f"python_3.11-alpine_2025-11-{day}.json" for day in ("06", "14"))
FILE1, FILE2 = Path("exercise1.txt"), Path("exercise2.openvex.json")
FOLDER3, FOLDER4, BROKEN4 = Path("exercise3"), Path("exercise4"), Path("exercise4_broken")
MODEL, LIST = "example.safetensors", "mlbom.cdx.json"
EXAMPLE = (
    "e8857ef70df3995695c8ae8b10f8195f226456d128f43de72d0fb6d9837c4150"  # SHA-256 of make_example.py's file
)
JUSTIFICATIONS = {
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
}  # of OpenVEX


class NotYet(Exception):
    """The exercise is not done; the text is the hint."""


def expect(true: bool, hint: str) -> None:
    """Go on if this part of the exercise is done, else raise NotYet with the hint."""
    if not true:
        raise NotYet(hint)


def new_finding() -> str:
    """Exercise 1: exercise1.txt names the vulnerability that only the newer database knows."""
    expect(FILE1.exists(), f"There is no {FILE1}. Compare the two reports in recorded/ with compare.py.")
    try:
        named = FILE1.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise NotYet(f"{FILE1} cannot be read as text: write one name into it.") from error
    new = [
        c.finding.name for c in difference.changes(read_scan(BEFORE), read_scan(AFTER)) if c.group == "new"
    ]
    expect(len(named) == 1, f"{FILE1} must hold one name, like CVE-2001-0001.")
    expect(named == new, f"{named[0][:40]} is not new in the second report. Which group names what is new?")
    return f"{new[0]} is new: the image is the same to the last byte, and the database is eight days newer."


def vex_statement() -> str:
    """Exercise 2: a VEX document that says why a finding of the recorded report does not matter."""
    expect(FILE2.exists(), f"There is no {FILE2}. Start with a copy of vex/pip.openvex.json.")
    document = read_json(FILE2, "a VEX document", "start with a copy of vex/pip.openvex.json")
    context, statements = str(document.get("@context")), document.get("statements")
    expect(context.startswith("https://openvex.dev/ns"), f"{FILE2} has no @context of OpenVEX.")
    expect(isinstance(statements, list) and bool(statements), f"{FILE2} has no statements.")
    scan = read_scan(BEFORE)
    for one in statements if isinstance(statements, list) else []:
        name, products = named_in(one)
        finding = scan.findings.get(name)
        expect(finding is not None, f"{name or 'Nothing'} is named: choose a finding of {BEFORE.name}.")
        there = finding.packages if finding else {}
        found = {f"{package}@{version}" for (_, package), version in there.items()}
        expect(
            any(product.split("?")[0].endswith(f"/{one_of}") for product in products for one_of in found),
            f"No product names a package that has {name}: write its URL, like pkg:pypi/pip@24.0.",
        )
        expect(one.get("status") == "not_affected", f"{name}: the status must be not_affected.")
        expect(
            one.get("justification") in JUSTIFICATIONS,
            f"{name}: the justification must be one of {', '.join(sorted(JUSTIFICATIONS))}.",
        )
        expect(name != "CVE-2025-8869", "CVE-2025-8869 is the example: choose another finding.")
        expect(len(str(one.get("impact_statement") or "")) >= 20, f"{name}: say why, in impact_statement.")
    return "Whoever reads the scan knows now why this one does not count, and who says so."


def named_in(statement: Any) -> tuple[str, list[str]]:
    """The vulnerability and the products of an OpenVEX statement; empty where there are none."""
    try:
        named = statement["vulnerability"]
        name = named if isinstance(named, str) else str(named["name"])
        return name, [str(one if isinstance(one, str) else one["@id"]) for one in statement["products"]]
    except (KeyError, TypeError):
        return "", []


def swapped_model() -> str:
    """Exercise 3: the model is another one, the list says "unchanged", and the signature gives it away."""
    model, bom, key = FOLDER3 / MODEL, FOLDER3 / LIST, FOLDER3 / "keys" / "release.pub"
    for path in (model, bom, key, FOLDER3 / f"{LIST}.dsse.json"):
        expect(path.exists(), f"There is no {path}. EXERCISES.md has the commands to begin with.")
    envelope, signed = attestation.open_envelope(FOLDER3 / f"{LIST}.dsse.json")
    expect(
        attestation.is_signed(envelope, attestation.public_key(key)),
        "The signature was not made with these keys: leave it as it was.",
    )
    expect(
        EXAMPLE in {one["digest"]["sha256"] for one in signed["subject"]},
        "The signature is not of the first list: leave it as it was, you do not have the key.",
    )
    expect(sha256(model) != EXAMPLE, f"{model} is still the file that was signed: change a byte of it.")
    verdicts = check(models_of(read_json(bom)), FOLDER3)
    expect(
        set(verdicts.values()) == {"unchanged"}, f"check_mlbom.py notices: {verdicts}. Rewrite the list, too."
    )
    expect(signed["predicate"] != read_json(bom), "The list is still the signed one.")
    return "The list has no idea. check_mlbom.py --key has: only the signature gives the swap away."


def broken_chain() -> str:
    """Exercise 4: every link holds in one folder, exactly one is broken in its copy."""
    for folder, wanted in ((FOLDER4, 0), (BROKEN4, 1)):
        expect(folder.is_dir(), f"There is no {folder}/. EXERCISES.md has the commands to begin with.")
        evidence = keys.evidence_in(folder, folder / "keys")
        expect((folder / MODEL).exists(), f"There is no {folder / MODEL}: verify_chain.py needs the model.")
        broken = [link.name for link in chain.walk(sha256(folder / MODEL), evidence) if not link.holds]
        named = ", ".join(broken) or "none"
        expect(
            len(broken) == wanted,
            f"In {folder} these links are broken: {named}; it must be {wanted} of them.",
        )
    return f"The whole chain holds, and in the copy one link is broken: {broken[0]}."


EXERCISES: dict[int, Callable[[], str]] = {
    1: new_finding,
    2: vex_statement,
    3: swapped_model,
    4: broken_chain,
}


def run(number: int) -> int:
    """Check one exercise and print the answer. Returns 0 done, 1 not yet, 2 cannot be checked."""
    try:
        print(f"Exercise {number}: done. {EXERCISES[number]()}")
        print(record.solved(3, number))
        return console.OK
    except NotYet as hint:
        print(f"Exercise {number}: not yet. Hint: {hint}")
        return console.FINDING
    except (
        UserError,
        ValueError,
    ) as error:  # said here, so that the other exercises are checked all the same
        print(f"error: Exercise {number} cannot be checked. {error}", file=sys.stderr)
        return console.ERROR


def main() -> int:
    parser = console.parser(__doc__)
    parser.add_argument("number", nargs="?", type=int, choices=EXERCISES, help="exercise; none: all")
    args = parser.parse_args()
    return max(run(number) for number in ([args.number] if args.number else EXERCISES))


if __name__ == "__main__":
    console.run(main)
