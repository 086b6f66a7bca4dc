"""Trust or discard: may this model file be loaded? The rules stand in policy.toml.

    python policy.py check safe_model.safetensors     shows every check; exit code 0 allowed, 1 refused
    python policy.py allow safe_model.safetensors     adds the file's SHA-256 to the list of allowed ones
    python policy.py check FILE --policy evidence.toml    asks for the chain of evidence, too

A folder with a model works as well: every file in it counts.

No check alone is enough. The size keeps the machine alive, the digest says "exactly this file", the
signature says who made it, the format says whether it can hold code. None says what the model learned: for
that, [evidence] asks those who audited the data and scanned the model, each with a key of its own.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import cli
import sign_model
from inspection.files import every_file, existing_file
from inspection.folder import inspect_folder
from inspection.formats import SAFETENSORS
from inspection.report import SAFE, UNKNOWN, UNSAFE, Report
from inspection.verdict import inspect_file
from statements import chain
from statements.rules import Evidence, Policy, read_policy
from weights.safe_loading import load_model
from weights.state_dicts import Weights

POLICY = Path("policy.toml")
DIGEST = re.compile(  # as sha256sum writes it, with its option --tag, as openssl dgst, as registries
    r"(?:\\?|sha256:|\\?SHA2?-?256 ?\(.*\) ?= )([0-9a-fA-F]{64})(?=\s|$)"
)


@dataclass(frozen=True)
class Check:
    """One check of one file, and what it says in words."""

    name: str
    passed: bool
    words: str


@dataclass(frozen=True)
class Decision:
    """All checks in the order in which they were done. One that fails is enough to refuse."""

    checks: tuple[Check, ...]

    @property
    def allowed(self) -> bool:
        """True if every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Why the file is refused; empty if it is allowed."""
        return [f"{check.name}: {check.words}" for check in self.checks if not check.passed]


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex; of a folder, that of the list of its files as sha256sum writes it."""
    digest = hashlib.sha256()
    if path.is_dir():
        for part in every_file(path):
            digest.update(f"{sha256(part)}  {part.relative_to(path).as_posix()}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def allowed_digests(path: Path) -> set[str]:
    """The digests in the list; a list that is not there allows nothing. Raises UserError on a bad line."""
    if not path.exists():
        return set()
    found = set()
    for number, text in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        if not (match := DIGEST.match(line)):
            raise cli.UserError(f"{path}, line {number} does not hold a SHA-256: correct it.")
        found.add(match[1].lower())
    return found


def decide(path: Path, policy: Policy) -> Decision:
    """Check a file or folder, without loading it. Raises UserError only if there is no such thing.

    The cheap and certain checks come first, the reading of a possibly hostile format comes last.
    """
    existing_model(path)
    size = check_size(path, policy.max_bytes)
    if not size.passed:  # the others would have to read all of it
        return Decision((size,))
    return Decision(
        (
            size,
            check_digest(path, policy.digests),
            check_signature(path, policy.trusted_keys, policy.unsigned_files),
            *check_evidence(path, policy.evidence),
            check_format(path, policy.formats),
        )
    )


def admit(path: Path, policy: Policy) -> tuple[Decision, Weights]:
    """Decide, and where the rules allow it read the weights with the loaders that run nothing.

    policy.py shows this decision, and serve.py loads by it, so they cannot differ.
    """
    decision = decide(path, policy)
    if not decision.allowed:
        return decision, {}
    try:
        weights = load_model(path)
        loader = Check("loader", True, f"the safe loader reads it: {len(weights)} tensors")
    except cli.UserError as error:
        weights, loader = {}, Check("loader", False, sign_model.printable(without_folder(error, path)))
    return Decision((*decision.checks, loader)), weights


def existing_model(path: Path) -> Path:
    """Give `path` back if it is a file, or a folder of files without links. Raises UserError."""
    if path.is_symlink():
        raise cli.UserError(f"{path} is a link, which could lead elsewhere tomorrow: name the file itself.")
    if path.is_dir():
        every_file(path)
        return path
    return existing_file(path)


def check_size(path: Path, most: int | None) -> Check:
    """At most so many bytes."""
    size = sum(file.stat().st_size for file in (every_file(path) if path.is_dir() else [path]))
    if most is None:
        return Check("size", True, "any is allowed")
    return Check("size", size <= most, f"{size} bytes; at most {most} are allowed")


def check_digest(path: Path, listed: Path | None) -> Check:
    """Exactly this file was chosen before."""
    if listed is None:
        return Check("digest", True, "any is allowed")
    digest = sha256(path)
    if digest in allowed_digests(listed):
        return Check("digest", True, f"{digest[:12]}... is in {listed.name}")
    return Check("digest", False, f"{digest[:12]}... is not in {listed.name}")


def check_signature(path: Path, keys: tuple[Path, ...] | None, unsigned_files: bool = False) -> Check:
    """A key that we know has signed it, and it was not changed since."""
    if keys is None:
        return Check("signature", True, "none is needed")
    why = []
    for key in keys:
        try:
            ignored = sign_model.verify(path, key)
            if ignored and not unsigned_files:
                names = sign_model.printable(", ".join(ignored))
                return Check("signature", False, f"made with {key.name}, but it leaves out {names}")
            return Check("signature", True, f"made with {key.name}, and the file was not changed since")
        except (sign_model.NotVerified, cli.UserError) as error:
            why.append(f"{key.name}: {without_folder(error, path)}")
    return Check("signature", False, "; ".join(why) or "the policy trusts no key")


def check_evidence(path: Path, rules: Evidence | None) -> list[Check]:
    """One check for each link of the chain that the rules ask for: does the right role say so?"""
    if rules is None:
        return []
    try:
        keys = chain.read_keys(rules.keys)
    except chain.BadKeys as error:
        return [Check("evidence", False, sign_model.printable(str(error)))]
    oldest = datetime.now(timezone.utc) - timedelta(days=rules.max_age_days)
    links = chain.walk(sha256(path), chain.Evidence(rules.folder, keys, oldest))
    return [
        Check(f"evidence: {link.name}", link.holds, link.why) for link in links if link.name in rules.require
    ]


def check_format(path: Path, formats: tuple[str, ...] | None) -> Check:
    """A format that cannot hold code, or one that can, but no scanner finds code in this file."""
    if formats is None:
        return Check("format", True, "any is allowed")
    reports = inspect_folder(path) if path.is_dir() else [inspect_file(path)]
    worst = max(reports, key=severity)
    # printable: names in a hostile file must not steer the terminal
    place = f"{worst.path.relative_to(path)}: " if path.is_dir() else ""
    found = sign_model.printable(f"{worst.overall}: {place}{without_folder(worst.reason, path)}")
    if worst.overall != SAFE:
        return Check("format", False, found)
    models = [report for report in reports if report.formats]
    if "safetensors" in formats and models and all(report.formats == [SAFETENSORS] for report in models):
        return Check("format", True, "a valid SafeTensors file: there is no code in this format")
    if "scanned clean" in formats:
        return Check("format", True, found)
    kinds = " and ".join(sorted({report.format for report in models})) or "no model"
    return Check("format", False, f"{kinds}; allowed is only {' or '.join(formats)}")


def severity(report: Report) -> int:
    """How bad a verdict is: not judged weighs less than code that was found."""
    return (SAFE, UNKNOWN, UNSAFE).index(report.overall)


def without_folder(text: object, path: Path) -> str:
    """The text with only the name of the file: whoever asks a server need not learn its folders."""
    return str(text).replace(f"{path.parent}/", "")


def allow(path: Path, policy: Policy) -> None:
    """Add the digest of a file or folder to the list. Raises UserError if the policy has none."""
    existing_model(path)
    if policy.digests is None:
        raise cli.UserError(
            'The policy has digests = "any", so there is no list to add to: name a file there.'
        )
    if sha256(path) in allowed_digests(policy.digests):
        return
    before = policy.digests.read_bytes() if policy.digests.exists() else b""
    with cli.atomic_write(policy.digests) as scratch:
        scratch.write_bytes(before + f"{sha256(path)}  {path.name}\n".encode())


def main() -> int:
    """Read the command line, check or allow."""
    arguments = cli.parser(__doc__)
    arguments.add_argument("action", choices=["check", "allow"], help="what to do")
    arguments.add_argument("file", type=Path, help="a model file, or a folder; its signature lies beside it")
    arguments.add_argument("--policy", type=Path, default=POLICY, help="the rules")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    policy = read_policy(args.policy)
    if args.action == "allow":
        allow(args.file, policy)
        out.say(
            f"{args.file} is in {policy.digests} now. This file only: one changed bit, and it is refused."
        )
        return cli.OK
    decision, _ = admit(args.file, policy)
    rows = [(check.name, "passed" if check.passed else "FAILED", check.words) for check in decision.checks]
    out.table(f"{args.file}, checked by {args.policy}", ["check", "answer", "why"], rows)
    if decision.allowed:
        out.say("ALLOWED: the server would load it.", "bold green")
        return cli.OK
    out.say("REFUSED: one failed check is enough.", "bold red")
    return cli.FINDING


if __name__ == "__main__":
    cli.run(main)
