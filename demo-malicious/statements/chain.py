"""The chain of evidence of one model: list, training, data, audit, scan; each link says whether it holds.

Helper module, not a command: policy.py of demo 1 and verify_chain.py of demo 3 walk it, with the same copy of
this file. Each step of a pipeline leaves a signed statement, and the links hang together by SHA-256: the list
names the model, the training names the model and the manifest of the data, the audit names that manifest, the
scan names the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

from statements import attestation
from statements.attestation import (
    BOM,
    CLEAN,
    ENDING,
    MANIFEST,
    NEAR,
    NOTHING,
    PROVENANCE,
    SIGNER,
    TEST_RESULT,
    TESTS,
    Statement,
)

Envelope = tuple[dict[str, Any], dict[str, Any]]  # as it is, and what is in it
LONGEST = 300  # letters of a reason
LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)
QUESTIONS = {
    "list": "Is this file on the signed list of what we ship?",
    "training": "Does the trainer say that this file came out of a training?",
    "data": "Does the data team say that the training data are theirs?",
    "audit": "Was that data audited, and did nothing stand out?",
    "scan": "Was this very file scanned for backdoors, and was none found?",
}


class BadKeys(Exception):
    """A key cannot be used: a sentence without a full stop, which names the file."""


@dataclass(frozen=True)
class Link:
    """One link of the chain."""

    name: str
    holds: bool
    why: str  # one sentence without a full stop, printable
    file: str = ""  # the statement that it rests on

    @property
    def verdict(self) -> str:
        return "holds" if self.holds else "BROKEN"


def printable(text: object) -> str:
    """Text from a statement or a folder, without what could steer a terminal, and not endless."""
    shown = "".join(one if one.isprintable() else "?" for one in str(text))
    return shown if len(shown) <= LONGEST else shown[:LONGEST] + "..."


def read_keys(files: Mapping[str, Path]) -> dict[str, Any]:
    """The public key of each role, from a file for each. Raises BadKeys."""
    keys: dict[str, Any] = {}
    for role, path in files.items():
        try:
            key = attestation.public_key(path)
        except OSError as error:
            raise BadKeys(f"{path} cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise BadKeys(f"{path} cannot be used ({error})") from error
        if twin := next((one for one, known in keys.items() if known.keyid == key.keyid), None):
            raise BadKeys(
                f"{path} is the key of the role {twin}, too, but who may say what needs a key for each role"
            )
        keys[role] = key
    return keys


class Evidence:
    """The statements in a folder, and the public keys of the roles. A folder that is not there holds none.

    Each file is read once: what is looked at is what was verified.
    """

    def __init__(self, folder: Path, keys: Mapping[str, Any], oldest: datetime) -> None:
        self.keys = keys
        self.oldest = oldest
        self.envelopes: dict[Path, Envelope] = {}
        self.left_out: dict[str, str] = {}  # files that say nothing here, and why
        for file in sorted(folder.glob(f"*{ENDING}")):
            try:
                self.envelopes[file] = attestation.open_envelope(file)
            except OSError as error:
                self.left_out[printable(file.name)] = f"it cannot be read ({error.strerror})"
            except ValueError as error:
                self.left_out[printable(file.name)] = printable(error)

    def said(self, digest: str, kind: str, role: str) -> Statement | None:
        """The latest statement of a kind about these bytes that this role signed."""
        found = [self.signed(file, role) for file in self.about(digest, kind)]
        own = [one for one in found if isinstance(one, Statement)]
        return max(own, key=lambda one: time_of(one) or LONG_AGO, default=None)

    def about(self, digest: str, kind: str) -> Iterator[Path]:
        """Files with statements of a kind that name these bytes, whoever signed them."""
        for file, (_, content) in self.envelopes.items():
            named = {one["digest"]["sha256"] for one in content["subject"]}
            if content["predicateType"] == kind and digest in named:
                yield file

    def signed(self, file: Path, role: str) -> Statement | str:
        """The statement if the role's key signed it; else a sentence that says who did."""
        if self.is_signed(file, role):
            return attestation.as_statement(file, self.envelopes[file][1])
        others = [one for one in self.keys if one != role and self.is_signed(file, one)]
        who = (
            f"with the key of the role {others[0]}"
            if others
            else "with no key that we know, or changed since"
        )
        return f"{printable(file.name)} is signed {who}; it takes the key of the role {role}"

    def is_signed(self, file: Path, role: str) -> bool:
        """Whether the role's key signed it."""
        return role in self.keys and attestation.is_signed(self.envelopes[file][0], self.keys[role])


def time_of(found: Statement) -> datetime | None:
    """When the step was done, as its signed statement says; None if it does not."""
    try:
        if found.kind == PROVENANCE:
            text = found.predicate["runDetails"]["metadata"]["finishedOn"]
        elif found.kind == TEST_RESULT:
            notes = [one.get("annotations") or {} for one in found.predicate["configuration"]]
            text = next(note["finishedOn"] for note in notes if "finishedOn" in note)
        else:
            text = found.predicate["metadata"]["timestamp"]
        when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):  # others write other things
        return None
    return when if when.tzinfo else when.replace(tzinfo=timezone.utc)


def age_problem(found: Statement, oldest: datetime) -> str:
    """Why the statement's age rules it out; empty if it does not."""
    when = time_of(found)
    if when is None:
        return "it does not say when it was made"
    if when < oldest:
        return f"it is too old: of {when.date()}, and we take none from before {oldest.date()}"
    if when > datetime.now(timezone.utc) + timedelta(days=1):
        return f"it comes from the future: {when.date()}"
    return ""


def find(
    evidence: Evidence, name: str, digest: str, kind: str, check: Callable[[Statement], str]
) -> tuple[Link, list[Statement]]:
    """The link that statements about these bytes make, and those that count. None that counts may fail."""
    problems, good = [], []
    for file in evidence.about(digest, kind):
        found = evidence.signed(file, SIGNER[name])
        if isinstance(found, str):
            problems.append(found)
            continue
        shown = printable(file.name)
        try:
            problem = check(found)
        except (AttributeError, TypeError):  # a list where an object is promised
            problem = "it does not follow its specification"
        if problem:
            return Link(name, False, f"{shown}: {problem}", shown), []
        if problem := age_problem(found, evidence.oldest):
            problems.append(f"{shown}: {problem}")
            continue
        good.append(found)
    if good:
        last = printable(good[-1].file.name)
        return Link(name, True, f"signed with the key of the role {SIGNER[name]}", last), good
    missing = f"no statement of this kind names these bytes (SHA-256 {digest[:12]}...)"
    return Link(name, False, "; ".join(problems) or missing), []


def passed(name: str, found: Statement) -> str:
    """Why a test result is no pass of this link: it failed, could not tell, or is of other tests."""
    result = found.predicate.get("result")
    if result == "PASSED":
        missing = [one for one in TESTS[name] if one not in (found.predicate.get("passedTests") or [])]
        return f"it does not say that this passed: {', '.join(missing)}" if missing else contradiction(found)
    failed = ", ".join(
        str(one) for kind in ("failedTests", "warnedTests") for one in found.predicate.get(kind) or []
    )
    words = {"FAILED": "it found something", "WARNED": "it could not tell"}.get(
        str(result), "it gives no result"
    )
    return words + (f": {printable(failed)}" if failed else "")


def contradiction(found: Statement) -> str:
    """Why the details of a test result that passed say that it did not."""
    for item in found.predicate.get("configuration") or []:
        notes = item.get("annotations") or {}
        if notes.get(NEAR):
            return "it says that it passed, and that it was a close call"
        if notes.get("easily_turned"):
            return "it says that it passed, and that it has no verdict on some classes"
        if notes.get("last_layer"):
            return "it says that it passed, and that a class stands out in the last layer"
        if notes.get("verdict", CLEAN) not in (CLEAN, NOTHING):
            return f"it says that it passed, and that its verdict is: {printable(notes['verdict'])}"
    return ""


def manifests_of(found: Statement) -> list[str]:
    """SHA-256 of each manifest that a training statement names; empty for one without."""
    used = found.predicate["buildDefinition"].get("resolvedDependencies") or []
    named = [one for one in used if one.get("name") == MANIFEST]
    return [str((one.get("digest") or {}).get("sha256") or "") for one in named]


def names_data(found: Statement) -> str:
    """Why a training statement does not say which data it was."""
    manifests = manifests_of(found)
    return "" if manifests and all(manifests) else "it does not name each manifest of the data by its SHA-256"


def listed(digest: str) -> Callable[[Statement], str]:
    """A check for lists: is the file in the bill of materials itself, too?"""

    def check(found: Statement) -> str:
        components = found.predicate.get("components") or []
        hashes = {item.get("content") for one in components for item in one.get("hashes") or []}
        return "" if digest in hashes else "the bill of materials in it does not list these bytes"

    return check


def walk(digest: str, evidence: Evidence) -> list[Link]:
    """All links of the chain of a model with this SHA-256. What rests on a broken link is broken, too."""
    on_list, _ = find(evidence, "list", digest, BOM, listed(digest))
    training, trainings = find(evidence, "training", digest, PROVENANCE, names_data)
    manifests = list(dict.fromkeys(one for found in trainings for one in manifests_of(found)))
    data = every(evidence, "data", manifests, PROVENANCE, lambda _: "")
    audit = every(evidence, "audit", manifests, TEST_RESULT, partial(passed, "audit"))
    scan, _ = find(evidence, "scan", digest, TEST_RESULT, partial(passed, "scan"))
    return [on_list, training, data, audit, scan]


def every(
    evidence: Evidence, name: str, manifests: list[str], kind: str, check: Callable[[Statement], str]
) -> Link:
    """A link that must hold for each manifest of the data, of which there must be one."""
    if not manifests:
        return Link(name, False, "without a training statement nobody knows which data it was")
    links = [find(evidence, name, manifest, kind, check)[0] for manifest in manifests]
    return next((link for link in links if not link.holds), links[-1])
