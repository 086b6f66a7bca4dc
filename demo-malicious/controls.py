"""One model through every control: what does each control catch, what does it miss, what is not its job?

    python controls.py                          makes the files, tries every control on each, prints the table
    python controls.py --backdoored FILE        with a model of demo 2 that has a backdoor
    python controls.py --write CONTROLS.md      puts the table into that file

Without --backdoored it takes ../demo-poisoning/models/poisoned_model.*, if demo 2 has made one.
Every cell is measured. The files are made here, in a temporary folder; their payloads only write a marker.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cli
import policy
import sign_model
import variants
from create_malicious_model import VARIANTS, malicious_bytes
from inspection.files import existing_file
from inspection.report import SAFE, Report
from inspection.scanners import SCANNERS
from inspection.verdict import inspect_file
from statements import attestation, predicates
from statements.attestation import BOM, ENDING, MANIFEST, PROVENANCE, SIGNER, TEST_RESULT, TESTS, resource
from statements.rules import Policy, read_policy
from weights import shapes
from weights.safe_loading import load_pickle, load_safetensors
from weights.trial import try_to_load
from weights.writing import save_pickle, save_safetensors

POISONED = Path(__file__).resolve().parent.parent / "demo-poisoning" / "models"
START, END = "<!-- made by controls.py -->", "<!-- end of what controls.py made -->"

# What can be wrong with a model file. Each control is made against some of it.
CODE = "code"  # it runs something when it is loaded
STRANGER = "stranger"  # nobody whom we know has signed it
CHANGED = "changed"  # it is not what was signed
BACKDOOR = "backdoor"  # its numbers do what the attacker wants

CAUGHT, MISSED, NOT_ITS_JOB = "caught", "missed", "not its job"
PASSED, FALSE_ALARM = "passed", "FALSE ALARM"
NO_CONTROL = "no control at all"
EVIDENCE = "policy with evidence"  # evidence.toml

# What the statements about a model say, by those who really looked and by those who did not.
NOTHING: Mapping[str, str] = {}
HONEST = {"audit": "60 images look mislabelled", "scan": "backdoor: stop to yield"}  # what they found


@dataclass(frozen=True)
class Case:
    """One file on its way to the server."""

    name: str
    wrong: frozenset[str]  # what is wrong with it
    path: Path  # as it arrives
    delivered: Path  # as it would be served: converted, where the conversion works
    evidence: Path  # folder with what is said of it
    ours: bool = True  # made here, so that it may be loaded without any control

    @property
    def marker(self) -> Path:
        """What its payload writes, if it has one."""
        return marker_of(self.path)


class Company:
    """A folder with keys, the list of allowed digests and the policy: what a server's owner has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key, self.public = folder / "signer.key", folder / "signer.pub"
        sign_model.keygen(self.key, self.public)
        for name in ("policy.toml", "evidence.toml"):  # those that the server comes with
            shutil.copy(Path(policy.__file__).with_name(name), folder)
        self.rules = read_policy(folder / "policy.toml")
        attestation.write_keys(folder / "keys")
        # one signature is enough here: that of the file itself counts in both policies
        strict = read_policy(folder / "evidence.toml")
        self.strict = replace(strict, trusted_keys=self.rules.trusted_keys)

    def rules_for(self, case: Case) -> Policy:
        """The policy that asks for evidence, with what is said of this file."""
        assert self.strict.evidence is not None
        return replace(self.strict, evidence=replace(self.strict.evidence, folder=case.evidence))

    def receive(
        self,
        name: str,
        wrong: set[str],
        path: Path,
        found: Mapping[str, str] | None = None,
        ours: bool = True,
    ) -> Case:
        """Convert a file if that works. If we trust it, sign what came of it, and allow its digest.

        found: what audit and scan found, for a file that we trust; None for one that we do not.
        """
        trusted = found is not None
        converted = path.with_suffix(".safetensors")
        if path != converted:
            with contextlib.suppress(cli.UserError):  # refused: then somebody may try to serve it as it is
                save_safetensors(load_pickle(path), converted)
        delivered = converted if converted.exists() else path
        if trusted:
            sign_model.sign(delivered, self.key)
            policy.allow(delivered, self.rules)
            self.state(delivered, path.parent, found or NOTHING)
        return Case(name, frozenset(wrong), path, delivered, path.parent, ours)

    def state(self, model: Path, folder: Path, found: Mapping[str, str]) -> None:
        """Every role signs what it says of this model. Its data are a manifest that names nothing."""
        digest = attestation.sha256(model)
        manifest = folder / "data.sha256"
        manifest.write_text("", encoding="utf-8")
        data = attestation.sha256(manifest)

        def looked(step: str) -> Mapping[str, Any]:
            wrong = [found[step]] if step in found else []
            made_with = resource(step, finishedOn=attestation.now())
            return predicates.test_result(wrong, [], TESTS[step], made_with)

        hashes = [{"alg": "SHA-256", "content": digest}]
        listed = {"type": "machine-learning-model", "name": model.name, "hashes": hashes}
        sayings: dict[str, tuple[str, str, Mapping[str, Any]]] = {
            "list": (digest, BOM, {"metadata": {"timestamp": attestation.now()}, "components": [listed]}),
            "training": (
                digest,
                PROVENANCE,
                predicates.provenance("training", {}, [resource(MANIFEST, data)]),
            ),
            "data": (data, PROVENANCE, predicates.provenance("data", {})),
            "audit": (data, TEST_RESULT, looked("audit")),
            "scan": (digest, TEST_RESULT, looked("scan")),
        }
        for step, (subject, kind, said) in sayings.items():
            name = model.name if subject == digest else manifest.name
            signed = attestation.sign(
                attestation.statement({name: subject}, kind, json.loads(json.dumps(said))),
                self.folder / "keys" / f"{SIGNER[step]}.key",
            )
            (folder / f"{step}{ENDING}").write_text(signed, encoding="utf-8")


def marker_of(path: Path) -> Path:
    """Where the payload of a file writes: beside it."""
    return path.with_name(f"{path.name} was here")


def make_cases(company: Company, backdoored: Path | None) -> list[Case]:
    """The files of the table: a clean model, four malicious ones, a changed one, one with a backdoor.

    The last one comes three times: with what honest people found, and with two sets of statements that hold.
    """
    model = shapes.network()  # not trained: that changes nothing here

    def place(folder: str, name: str) -> Path:
        (company.folder / folder).mkdir()
        return company.folder / folder / name

    def malicious(folder: str, variant: str) -> Path:
        path = place(folder, VARIANTS[variant].file.name)
        path.write_bytes(malicious_bytes(variant, marker_of(path), model))
        return path

    path = place("clean", "model.pt")
    save_pickle(dict(model.state_dict()), path)
    clean = company.receive("clean, signed by us", set(), path, NOTHING)
    wrong = {CODE, STRANGER}
    cases = [
        clean,
        company.receive("malicious, zip", wrong, malicious("zip", "resnet18")),
        company.receive("malicious, old format", wrong, malicious("old", "system-legacy")),
        company.receive("malicious, collect_env", wrong, malicious("env", "collect-env")),
        # one of us was careless, or is the attacker: our own key signs the malicious file
        company.receive("malicious, signed by us", {CODE}, malicious("signed", "resnet18"), NOTHING),
        company.receive("changed after signing", {CHANGED}, sign_model.tamper(clean.delivered)[0]),
    ]
    # Nobody knows of the backdoor, so the team signs this model like any other. What is said of it differs.
    told = {
        "backdoored (demo 2), signed by us": HONEST,
        # who has the trainer's key and the scanner's names other data, and a scan that never was
        "the same, keys of trainer and scanner stolen": NOTHING,
        # a trigger that the audit and the scan are not made for: both looked, and found nothing
        "the same, a trigger outside their scope": NOTHING,
    }
    for number, (name, found) in enumerate(told.items() if backdoored else ()):
        assert backdoored is not None
        path = place(f"backdoored{number}", f"model{backdoored.suffix}")
        shutil.copy(backdoored, path)
        cases.append(company.receive(name, {BACKDOOR}, path, found, ours=False))
    return cases


# --- the controls: True stops the file, False lets it pass, text says why there is no answer ----------------


def scanner(name: str, report: Report) -> bool | str:
    """Whether a scanner raises the alarm. picklescan only notes what it finds suspicious, fickling warns."""
    answer = report.verdicts[name].answer
    if answer in ("found", "clean"):
        return answer == "found"
    return name == "fickling" if answer == "suspicious" else answer


def conversion(path: Path) -> bool:
    """Whether the file is refused by the loaders that a conversion uses. They run nothing."""
    try:
        (load_safetensors if path.suffix == ".safetensors" else load_pickle)(path)
    except cli.UserError:
        return True
    return False


def signature(path: Path, public_key: Path) -> bool:
    """Whether the signature is missing or wrong."""
    try:
        sign_model.verify(path, public_key)
    except sign_model.NotVerified:
        return True
    return False


def without_control(case: Case) -> str:
    """What happens to somebody who just loads the file as people used to."""
    if not case.ours:
        return "not tried"  # it was given to us, so only the safe loaders touch it
    load: Callable[[Path], object] = variants.unsafe_torch_load
    if case.path.suffix == ".safetensors":
        load = load_safetensors
    return "code RAN" if try_to_load(load, case.path, case.marker) == "executes" else "loaded"


def measure(case: Case, company: Company) -> dict[str, str]:
    """One row of the table: the file, and what each control says about it."""
    report = inspect_file(case.path)
    answers: dict[str, tuple[set[str], bool | str]] = {
        f"scan: {name}": ({CODE}, scanner(name, report)) for name in SCANNERS
    }
    answers["scan: our verdict"] = {CODE}, report.overall != SAFE
    answers["conversion"] = {CODE}, conversion(case.path)
    answers["signature"] = {STRANGER, CHANGED}, signature(case.delivered, company.public)
    # whether a file is served is decided by the policy alone, so all that can be wrong is its job
    for name, rules in (("policy", company.rules), (EVIDENCE, company.rules_for(case))):
        answers[name] = {CODE, STRANGER, CHANGED, BACKDOOR}, not policy.decide(case.delivered, rules).allowed
    cells = {name: rate_control(case.wrong, job, said) for name, (job, said) in answers.items()}
    return {"file": case.name, NO_CONTROL: without_control(case), **cells}


def rate_control(wrong: frozenset[str], job: set[str], stopped: bool | str) -> str:
    """Was this control right about a file? Compares what is wrong with what the control is made against."""
    if wrong & job:
        return stopped if isinstance(stopped, str) else CAUGHT if stopped else MISSED
    if stopped is True:
        return FALSE_ALARM
    return NOT_ITS_JOB if wrong else PASSED


# --- the command line --------------------------------------------------------------------------------------


def find_backdoored(given: Path | None) -> Path | None:
    """The model of demo 2: the given one, else the one in its folder, else None. Raises UserError."""
    if given:
        load = load_safetensors if given.suffix == ".safetensors" else load_pickle
        load(existing_file(given))  # says what is wrong with it, if anything
        return given
    return next(iter(sorted(POISONED.glob("poisoned_model.*"))), None)


def markdown(rows: list[dict[str, str]]) -> str:
    """The table in Markdown, a file in each column: there are more controls than files."""
    lines = [[title, *(row[title] for row in rows)] for title in rows[0]]
    lines[0][0] = "control"
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def lessons(rows: list[dict[str, str]]) -> list[str]:
    """What the table shows, in sentences that are only said where the cells show it."""

    def who(answer: str, kind: str = "scan: ") -> str:
        found = [
            name for name in rows[0] if name.startswith(kind) and any(row[name] == answer for row in rows)
        ]
        return ", ".join(name.removeprefix("scan: ") for name in found) or "none"

    said = [
        "caught, missed: that kind of trouble is its job. not its job: it looks for something else.",
        "FALSE ALARM: it warns, but what it looks for is not there.",
        f"Scanners that missed code: {who(MISSED)}. That could not read a file: {who('cannot read')}. "
        f"That warn of a file without code: {who(FALSE_ALARM)}.",
    ]
    for row in rows:
        if row["signature"] == NOT_ITS_JOB and row["conversion"] == CAUGHT:
            said.append(f"The signature holds for this one: {row['file']}. It says who, not safe.")
        if row[EVIDENCE] == MISSED:
            said.append(f"Nothing stops this one: {row['file']}. Every link of its chain holds.")
        elif row["policy"] == MISSED:
            said.append(
                f"Only the chain of evidence stops this one: {row['file']}. The backdoor is in its numbers, "
                "where demo 2 looks, and those who looked must say so."
            )
    return said


def main() -> int:
    """Read the command line, measure, print or write."""
    arguments = cli.parser(__doc__)
    arguments.add_argument("--backdoored", type=Path, metavar="FILE", help="a poisoned model of demo 2")
    arguments.add_argument("--write", type=Path, metavar="FILE", help="replace the table in this document")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    text = existing_file(args.write).read_text(encoding="utf-8") if args.write else START + END
    if text.count(START) != 1 or text.count(END) != 1:
        raise cli.UserError(f"{args.write} has no place for the table: put {START} and {END} in it.")
    backdoored = find_backdoored(args.backdoored)
    with tempfile.TemporaryDirectory(prefix="controls-") as folder:
        company = Company(Path(folder))
        cases = make_cases(company, backdoored)
        rows = [measure(case, company) for case in out.progress(cases, len(cases), "trying every control")]
    if args.write:
        before, after = text.split(START)[0], text.split(END)[1]
        with cli.atomic_write(args.write) as scratch:
            scratch.write_text(f"{before}{START}\n{markdown(rows)}\n{END}{after}", encoding="utf-8")
        out.say(f"Wrote the table of {len(rows)} files to {args.write}.")
        return cli.OK
    out.table("One model through every control", list(rows[0]), [list(row.values()) for row in rows])
    for line in lessons(rows):
        out.say(line)
    if not backdoored:
        out.say(
            "There is no backdoored model here: make one with demo 2, and give it with --backdoored FILE."
        )
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
