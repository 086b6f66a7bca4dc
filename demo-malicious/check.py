"""Exercises: are they done? EXERCISES.md says what to do and shows solutions.

    python check.py        all four
    python check.py 1      make picklescan and modelscan disagree about exercise1.pt
    python check.py 2      convert a model of your own, exercise2.pt
    python check.py 3      write a policy, exercise3.toml, that refuses the signed malicious file
    python check.py 4      sign exercise2.safetensors, tamper with a copy, verify both

Exit code 0: done. 1: not yet, with a hint. 2: this machine cannot do it, or wrong usage.
Nothing of yours is loaded but with the safe loaders, and nothing is changed.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cli
import policy
import sign_model
from create_malicious_model import malicious_bytes
from exercises import record
from inspection.report import UNSAFE
from inspection.verdict import inspect_file
from statements.rules import read_policy
from weights.difference import differing
from weights.safe_loading import load_pickle, load_safetensors
from weights.writing import save_safetensors

FILE1, FILE2 = Path("exercise1.pt"), Path("exercise2.pt")
SAFE2, COPY2 = Path("exercise2.safetensors"), Path("exercise2_tampered.safetensors")
POLICY3 = Path("exercise3.toml")
PUBLIC_KEY = sign_model.PUBLIC_KEY


class NotYet(Exception):
    """The exercise is not done; the text is the hint."""


def expect(true: bool, hint: str) -> None:
    """Go on if this part of the exercise is done, else raise NotYet with the hint."""
    if not true:
        raise NotYet(hint)


def disagree() -> str:
    """Exercise 1: one scanner finds code in exercise1.pt, the other says that it is clean."""
    expect(FILE1.exists(), f"There is no {FILE1}. `create_malicious_model.py --list` names files to try.")
    report = inspect_file(FILE1)
    answers = {name: report.verdicts[name].answer for name in ("picklescan", "modelscan")}
    for name, answer in answers.items():
        if answer == "not installed":
            raise cli.UserError(
                f"{name} is not installed for this Python: do this exercise in the container."
            )
    said = " and ".join(f"{name} says {answer!r}" for name, answer in answers.items())
    expect(report.overall == UNSAFE, f"{said}, but {FILE1} must hold code: try another variant.")
    expect(
        sorted(answers.values()) == ["clean", "found"],
        f"{said}: try another variant. What does modelscan not know, or not read?",
    )
    return f"{said}, and the file is not safe to load."


def convert() -> str:
    """Exercise 2: exercise2.safetensors holds the same tensors as exercise2.pt, bit for bit."""
    expect(FILE2.exists(), f"There is no {FILE2}. Save the state dict of any model of yours with torch.save.")
    weights = load_pickle(FILE2)
    expect(SAFE2.exists(), f"{FILE2} is there, {SAFE2} is not: `safe_demo.py convert` makes it.")
    different = differing(weights, load_safetensors(SAFE2))
    expect(not different, f"{len(different)} tensors differ between {FILE2} and {SAFE2}: convert again.")
    return f"{SAFE2} holds the {len(weights)} tensors of {FILE2}, bit for bit."


def write_policy() -> str:
    """Exercise 3: the policy refuses a malicious file that is signed and on the list, but not a clean one.

    Both files are made in a temporary folder, signed with a new key that takes the place of yours.
    """
    rules = read_policy(POLICY3)
    expect(rules.trusted_keys is not None, f"{POLICY3} asks for no signature: trusted_keys must name a key.")
    with tempfile.TemporaryDirectory(prefix="exercise-") as name:
        folder = Path(name)
        key, public, listed = folder / "signer.key", folder / "signer.pub", folder / "allowed.sha256"
        sign_model.keygen(key, public)
        rules = dataclasses.replace(rules, trusted_keys=(public,), digests=rules.digests and listed)
        clean, malicious = folder / "clean.safetensors", folder / "malicious.pt"
        save_safetensors(load_pickle(clean_pickle(folder)), clean)
        malicious.write_bytes(malicious_bytes("system", folder / "marker"))
        for path in (clean, malicious):
            sign_model.sign(path, key)
            if rules.digests:
                policy.allow(path, rules)
        answers = {path: policy.decide(path, rules) for path in (clean, malicious)}
    expect(
        answers[clean].allowed,
        f"{POLICY3} refuses the clean model, too ({'; '.join(answers[clean].reasons)}).",
    )
    expect(
        not answers[malicious].allowed,
        f"{POLICY3} allows the malicious file, because it is signed. Which other line could refuse it?",
    )
    return (
        f"The signed malicious file is refused ({'; '.join(answers[malicious].reasons)}), the clean one not."
    )


def clean_pickle(folder: Path) -> Path:
    """A small clean model file."""
    import torch  # noqa: PLC0415 (here, so that the hints of the other exercises do not wait for it)

    path = folder / "clean.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    return path


def tamper() -> str:
    """Exercise 4: the signature of exercise2.safetensors holds, that of its changed copy does not."""
    expect(SAFE2.exists(), f"There is no {SAFE2}: do exercise 2 first.")
    expect(PUBLIC_KEY.exists(), f"There is no {PUBLIC_KEY}: `sign_model.py keygen` makes your keys.")
    try:
        sign_model.verify(SAFE2, PUBLIC_KEY)
    except sign_model.NotVerified as reason:
        raise NotYet(f"{SAFE2} is not verified: {reason}. Sign it.") from reason
    expect(COPY2.exists(), f"{SAFE2} is signed and verified. Now make {COPY2} with `sign_model.py tamper`.")
    expect(COPY2.read_bytes() != SAFE2.read_bytes(), f"{COPY2} is the same as {SAFE2}: tamper with it.")
    expect(
        sign_model.signature_beside(COPY2).exists(),
        f"{COPY2} has no signature beside it: copy that one, too.",
    )
    try:
        sign_model.verify(COPY2, PUBLIC_KEY)
    except sign_model.NotVerified as reason:
        return f"{SAFE2} is verified, and {COPY2} is not: {reason}."
    raise NotYet(f"{COPY2} is verified: somebody signed the copy anew. Put the signature of {SAFE2} there.")


EXERCISES: dict[int, Callable[[], str]] = {1: disagree, 2: convert, 3: write_policy, 4: tamper}


def check(number: int, out: cli.Out) -> int:
    """Check one exercise and print the answer. Returns 0 done, 1 not yet, 2 cannot be checked."""
    try:
        out.say(f"Exercise {number}: done. {EXERCISES[number]()}", "green")
        out.say(record.solved(1, number))
        return cli.OK
    except NotYet as hint:
        out.say(f"Exercise {number}: not yet. Hint: {hint}", "yellow")
        return cli.FINDING
    except cli.UserError as error:  # said here, so that the other exercises are checked all the same
        print(f"error: Exercise {number} cannot be checked. {error}", file=sys.stderr)
        return cli.ERROR


def main() -> int:
    """Read the command line, check one exercise or all."""
    arguments = cli.parser(__doc__)
    arguments.add_argument(
        "exercise", nargs="?", type=int, choices=EXERCISES, help="its number (default: all)"
    )
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    return max(check(number, out) for number in ([args.exercise] if args.exercise else EXERCISES))


if __name__ == "__main__":
    cli.run(main)
