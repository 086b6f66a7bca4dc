"""The rules of policy.toml and evidence.toml: what such a file must hold, and how it is read.

policy.py decides by them. A rule that is missing or misspelled is an error: no check may be off by mistake.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pydantic

import cli
from inspection.files import existing_file
from statements import chain
from statements.attestation import SIGNER

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMATS = ("safetensors", "scanned clean")
KINDS = {
    "max_bytes": "a whole number",
    "digests": "a file name",
    "trusted_keys": "a list of file names",
    "formats": "a list of formats",
    "unsigned_files": "true or false",
    "evidence": "a table of its own, [evidence]",
}
NEEDED = [rule for rule in KINDS if rule not in ("unsigned_files", "evidence")]
EVIDENCE_KINDS = {
    "folder": "a folder name",
    "require": f"a list of links: {', '.join(chain.QUESTIONS)}",
    "keys": "a table with a key file for each role",
    "max_age_days": "a whole number of days from 1 to 99999",
}
ANY = "any"  # in policy.toml: this check is off

LinkName = Literal["list", "training", "data", "audit", "scan"]
Role = Literal["data", "trainer", "auditor", "scanner", "release"]


class EvidenceRules(pydantic.BaseModel):
    """What [evidence] must hold, if it is there."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    folder: str
    require: Annotated[list[LinkName], pydantic.Field(min_length=1)]
    keys: dict[Role, str]
    max_age_days: Annotated[int, pydantic.Field(ge=1, le=99_999)]

    @pydantic.model_validator(mode="after")
    def _has_keys(self) -> EvidenceRules:
        """Raise ValueError if a link is asked for that no key could prove."""
        needed = {SIGNER[link]: link for link in self.require}
        if {"data", "audit"} & set(self.require):
            needed.setdefault(SIGNER["training"], "data")  # the training says which data it was
        if missing := needed.keys() - self.keys.keys():
            role = min(missing)
            raise ValueError(f"the link {needed[role]} needs the key of the role {role}")
        return self


class Rules(pydantic.BaseModel):
    """What policy.toml must hold: all four rules, so that no check is off by mistake, and nothing else."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    max_bytes: int | Literal["any"]
    digests: str
    trusted_keys: list[str] | Literal["any"]
    formats: list[Literal["safetensors", "scanned clean"]] | Literal["any"]
    unsigned_files: bool = False  # true: a signature may leave out files of a folder
    evidence: EvidenceRules | None = None  # without it nobody is asked how the model was made


@dataclass(frozen=True)
class Evidence:
    """Which statements a model needs, signed with whose keys."""

    folder: Path  # with signed statements
    require: tuple[str, ...]  # links of the chain
    keys: Mapping[str, Path]  # role -> public key
    max_age_days: int


@dataclass(frozen=True)
class Policy:
    """The rules; None stands for "any"."""

    max_bytes: int | None
    digests: Path | None  # a file as sha256sum writes it: a digest and a name on each line
    trusted_keys: tuple[Path, ...] | None  # public keys
    formats: tuple[str, ...] | None
    unsigned_files: bool = False
    evidence: Evidence | None = None


def read_policy(path: Path) -> Policy:
    """Read the rules. All four must be there, so that no check is off by mistake. Raises UserError."""
    existing_file(path)
    try:
        rules = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise cli.UserError(f"{path} is not valid TOML ({error}): correct it.") from error
    try:
        given = Rules.model_validate(rules)
    except pydantic.ValidationError as error:
        raise cli.UserError(f"{path}: {what_is_wrong(error)}") from error
    beside = path.parent  # the files that it names lie beside it
    return Policy(
        max_bytes=given.max_bytes if isinstance(given.max_bytes, int) else None,
        digests=None if given.digests == ANY else beside / given.digests,
        trusted_keys=None if given.trusted_keys == ANY else tuple(beside / key for key in given.trusted_keys),
        formats=None if given.formats == ANY else tuple(given.formats),
        unsigned_files=given.unsigned_files,
        evidence=evidence_rules(given.evidence, beside) if given.evidence else None,
    )


def evidence_rules(given: EvidenceRules, beside: Path) -> Evidence:
    """The rules of [evidence], with whole paths."""
    keys = {str(role): beside / name for role, name in given.keys.items()}
    return Evidence(beside / given.folder, tuple(given.require), keys, given.max_age_days)


def what_is_wrong(error: pydantic.ValidationError) -> str:
    """The first fault of a policy in one sentence that names the rule."""
    fault = error.errors()[0]
    rule = str(fault["loc"][0])
    if rule == "evidence":
        return what_is_wrong_with_evidence(fault["type"], list(map(str, fault["loc"][1:])), fault["msg"])
    if fault["type"] == "missing":
        return f"{rule} is missing; a policy must hold {', '.join(NEEDED)}."
    if fault["type"] == "extra_forbidden":
        return f"{cli.printable(rule)} is unknown; a policy must hold {', '.join(NEEDED)}."
    if rule == "formats" and fault["type"] == "literal_error" and len(fault["loc"]) > 2:
        return f"{fault['input']!r} is not a known format; known are {' and '.join(FORMATS)}."
    return f'{rule} must be {KINDS[rule]}, or "any".'


def what_is_wrong_with_evidence(kind: str, place: list[str], message: str) -> str:
    """The same for a fault in the table [evidence]; place: the rule in it, and where in that."""
    needed = f"[evidence] must hold {', '.join(EVIDENCE_KINDS)}"
    if not place and kind == "value_error":
        return f"{message.removeprefix('Value error, ')}: name it under [evidence.keys]."
    if not place:
        return f"evidence must be {KINDS['evidence']}."
    if kind == "missing":
        return f"{place[0]} is missing; {needed}."
    if kind == "extra_forbidden":
        return f"{cli.printable(place[0])} is unknown; {needed}."
    if place[0] == "keys" and len(place) > 1 and kind == "literal_error":
        return f"{cli.printable(place[1])} is not a role; roles are {', '.join(SIGNER.values())}."
    return f"{place[0]} in [evidence] must be {EVIDENCE_KINDS[place[0]]}."
