"""The chain of evidence of one model: list, training, data, audit, scan; each link says whether it holds.

Helper module, not a command: verify_chain.py uses it. Each step of a pipeline leaves a signed statement, and
the links hang together by SHA-256: the list names the model, the training names the model and the manifest
of the data, the audit names that manifest, the scan names the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from html import escape
from pathlib import Path
from typing import Any

from console import UserError
from statements import attestation
from statements.attestation import BOM, PROVENANCE, ROLES, TEST_RESULT, NotVerified, Statement

ENDING = ".dsse.json"
LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)
MANIFEST = "manifest"  # what a training statement calls the manifest of its data
SIGNER = {"list": "release", "training": "trainer", "data": "data", "audit": "scanner", "scan": "scanner"}
QUESTIONS = {
    "list": "Is this file on the signed list of what we ship?",
    "training": "Does the trainer say that this file came out of a training?",
    "data": "Does the data team say that the training data are theirs?",
    "audit": "Was that data audited, and did nothing stand out?",
    "scan": "Was this very file scanned for backdoors, and was none found?",
}


@dataclass(frozen=True)
class Link:
    """One link of the chain."""

    name: str
    holds: bool
    why: str  # one sentence without a full stop
    file: str = ""  # the statement that it rests on

    @property
    def verdict(self) -> str:
        return "holds" if self.holds else "BROKEN"


def read_keys(folder: Path) -> dict[str, Any]:
    """The public key of each role. Raises UserError."""
    keys = {}
    for role in ROLES:
        path = folder / f"{role}.pub"
        try:
            keys[role] = attestation.public_key(path)
        except OSError as error:
            raise UserError(
                f"Cannot read {path} ({error.strerror}): attest.py keys {folder} makes keys."
            ) from error
        except ValueError as error:
            raise UserError(f"{path} cannot be used: {error}.") from error
    if len({key.keyid for key in keys.values()}) < len(keys):
        raise UserError(f"{folder} gives two roles the same key: who may say what needs a key for each.")
    return keys


class Evidence:
    """The statements in a folder, and the public keys of the roles."""

    def __init__(self, folder: Path, keys: dict[str, Any], oldest: datetime) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder: name the one that holds the statements (*{ENDING}).")
        self.keys = keys
        self.oldest = oldest
        self.files = sorted(folder.glob(f"*{ENDING}"))
        self.left_out: dict[str, str] = {}  # files that say nothing here, and why
        for file in self.files:
            try:
                attestation.open_envelope(file)
            except OSError as error:
                self.left_out[file.name] = f"it cannot be read ({error.strerror})"
            except ValueError as error:
                self.left_out[file.name] = str(error)

    def said(self, digest: str, kind: str, role: str) -> Statement | None:
        """The latest statement of a kind about these bytes that this role signed."""
        found = [self.signed(file, role) for file, _ in self.about(digest, kind)]
        own = [one for one in found if isinstance(one, Statement)]
        return max(own, key=lambda one: str(time_of(one)), default=None)

    def about(self, digest: str, kind: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Statements of a kind that name these bytes, whoever signed them."""
        for file in self.files:
            if file.name not in self.left_out:
                _, content = attestation.open_envelope(file)
                named = {one["digest"]["sha256"] for one in content["subject"]}
                if content["predicateType"] == kind and digest in named:
                    yield file, content

    def signed(self, file: Path, role: str) -> Statement | str:
        """The statement if the role's key signed it; else a sentence that says who did."""
        try:
            return attestation.verify(file, self.keys[role])
        except NotVerified:
            others = [one for one in ROLES if one != role and self.signed_by(file, one)]
            who = (
                f"with the key of the role {others[0]}"
                if others
                else "with no key that we know, or changed since"
            )
            return f"{file.name} is signed {who}; it takes the key of the role {role}"

    def signed_by(self, file: Path, role: str) -> bool:
        """Whether the role's key signed it."""
        return attestation.is_signed(attestation.open_envelope(file)[0], self.keys[role])


def time_of(found: Statement) -> datetime | None:
    """When the step was done, as its signed statement says; None if it does not."""
    if found.kind == PROVENANCE:
        text = ((found.predicate.get("runDetails") or {}).get("metadata") or {}).get("finishedOn")
    elif found.kind == TEST_RESULT:
        notes = [one.get("annotations") or {} for one in found.predicate.get("configuration") or []]
        text = next((note["finishedOn"] for note in notes if "finishedOn" in note), None)
    else:
        text = (found.predicate.get("metadata") or {}).get("timestamp")
    try:
        when = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
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
) -> tuple[Link, Statement | None]:
    """The link that statements about these bytes make. All that the right role signed must pass."""
    problems, good = [], None
    for file, _ in evidence.about(digest, kind):
        found = evidence.signed(file, SIGNER[name])
        if isinstance(found, str):
            problems.append(found)
            continue
        if problem := check(found):
            return Link(name, False, f"{file.name}: {problem}", file.name), None
        if problem := age_problem(found, evidence.oldest):
            problems.append(f"{file.name}: {problem}")
            continue
        good = found
    if good:
        return Link(name, True, f"signed with the key of the role {SIGNER[name]}", good.file.name), good
    missing = f"no statement of this kind names these bytes (SHA-256 {digest[:12]}...)"
    return Link(name, False, "; ".join(problems) or missing), None


def passed(found: Statement) -> str:
    """Why a test result is no pass."""
    result = found.predicate.get("result")
    if result == "PASSED":
        return ""
    failed = ", ".join(
        map(str, found.predicate.get("failedTests") or found.predicate.get("warnedTests") or [])
    )
    words = {"FAILED": "it found something", "WARNED": "it could not tell"}.get(
        str(result), "it gives no result"
    )
    return words + (f": {failed}" if failed else "")


def manifest_of(found: Statement) -> str | None:
    """SHA-256 of the manifest that a training statement names."""
    definition = found.predicate.get("buildDefinition") or {}
    for one in definition.get("resolvedDependencies") or []:
        if one.get("name") == MANIFEST:
            return str((one.get("digest") or {}).get("sha256") or "") or None
    return None


def listed(digest: str) -> Callable[[Statement], str]:
    """A check for lists: is the file in the bill of materials itself, too?"""

    def check(found: Statement) -> str:
        components = found.predicate.get("components") or []
        hashes = {item.get("content") for one in components for item in one.get("hashes") or []}
        return "" if digest in hashes else "the bill of materials in it does not list these bytes"

    return check


def walk(model: Path, evidence: Evidence) -> list[Link]:
    """All links of a model's chain, in order. What rests on a broken link is broken, too. Raises OSError."""
    digest = attestation.sha256(model)
    on_list, _ = find(evidence, "list", digest, BOM, listed(digest))
    training, trained = find(
        evidence,
        "training",
        digest,
        PROVENANCE,
        lambda s: "" if manifest_of(s) else "it names no manifest of the data",
    )
    links = [on_list, training]
    manifest = manifest_of(trained) if trained else None
    if manifest:
        links.append(find(evidence, "data", manifest, PROVENANCE, lambda _: "")[0])
        links.append(find(evidence, "audit", manifest, TEST_RESULT, passed)[0])
    else:
        why = "without a training statement nobody knows which data it was"
        links += [Link("data", False, why), Link("audit", False, why)]
    return [*links, find(evidence, "scan", digest, TEST_RESULT, passed)[0]]


def as_text(model: Path, links: list[Link]) -> str:
    """The chain as a list that can be read aloud."""
    lines = [f"The chain of evidence of {model.name}, {len(links)} links:"]
    for number, link in enumerate(links, 1):
        lines += [f"{number}. {link.name}: {link.verdict}. {QUESTIONS[link.name]}", f"   {link.why}."]
        if link.file and link.holds:
            lines.append(f"   statement: {link.file}")
    return "\n".join(lines)


def as_json(model: Path, links: list[Link]) -> str:
    """The chain for programs."""
    found = [{"link": one.name, "holds": one.holds, "why": one.why, "statement": one.file} for one in links]
    return (
        json.dumps(
            {"model": model.name, "trusted": all(one.holds for one in links), "links": found}, indent=1
        )
        + "\n"
    )


def in_words(model: Path, links: list[Link]) -> str:
    """The alternative text of the drawing."""
    return (
        f"Chain of {len(links)} links for {model.name}: "
        + ", ".join(f"{one.name} {one.verdict}" for one in links)
        + "."
    )


def as_svg(model: Path, links: list[Link]) -> str:
    """The chain as a drawing: a box a link, solid where it holds, dashed and marked BROKEN where not."""
    width = 180 * len(links) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 150" role="img" aria-labelledby="t d" '
        'font-family="sans-serif" font-size="16">',
        f'<title id="t">Chain of evidence of {escape(model.name)}</title>',
        f'<desc id="d">{escape(in_words(model, links))}</desc>',
        f'<rect width="{width}" height="150" fill="white"/>',
        f'<text x="20" y="28">{escape(model.name)}</text>',
    ]
    for number, link in enumerate(links):
        left = 20 + 180 * number
        style = "" if link.holds else ' stroke-dasharray="6 5"'
        color = "#1b7837" if link.holds else "#b2182b"
        if number:
            parts.append(f'<path d="M {left - 40} 85 h 40" stroke="#444444" stroke-width="3"/>')
        parts += [
            f'<rect x="{left}" y="50" width="140" height="70" rx="8" fill="none" stroke="{color}" '
            f'stroke-width="3"{style}/>',
            f'<text x="{left + 70}" y="80" text-anchor="middle" font-weight="bold">{link.name}</text>',
            f'<text x="{left + 70}" y="104" text-anchor="middle" fill="{color}">{link.verdict}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
