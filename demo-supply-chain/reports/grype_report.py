"""Read Grype's report of one image and count what it says, by rules that make two images comparable.

Helper module, not a command: scan.py, compare.py and gold_demo.py use it. The rules:
- a vulnerability counts once per image, however many packages it is in: Grype's list names it for each;
- an advisory (GHSA-...) that stands for exactly one CVE counts as that CVE;
- if the packages disagree, the highest severity counts, and "fixable" means: fixed for at least one;
- what an ignore rule or a VEX statement took off the list is counted apart, with its reason.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from console import UserError
from reports.packages import Packages, kind_of, read_packages

SEVERITIES = ("Critical", "High", "Medium", "Low", "Negligible", "Unknown")  # highest first
KNOWN_EXPLOITED = "known-exploited"  # above every severity: somebody uses it already
RESULTS = Path(__file__).resolve().parent.parent / "results"  # where scan.py puts the reports
NOT_RECORDED = "not recorded"
REPORT, RESCAN = "a report of Grype", "scan the image again with ./scan.sh IMAGE"  # in messages
ORDINARY = re.compile(r"[a-z0-9.-]+(/[a-z0-9.-]+)*:[a-z0-9.-]+")  # no _, so that can stand for / and :
SBOM_ENDINGS = (".syft.json", ".cdx.json")  # Syft's own format knows more, so it is looked for first


@dataclass(frozen=True)
class Match:
    """One line of Grype's list: a vulnerability in a package."""

    name: str  # as Grype names it: CVE-..., GHSA-..., ALAS-...
    cves: frozenset[str]  # the CVEs that it is also known as
    severity: str  # one of SEVERITIES
    package: tuple[str, str]  # kind and name, for example ("deb", "zlib1g")
    version: str
    fixed_in: str | None  # versions; "" where a fix is known without a version, None where there is none
    known_exploited: bool
    epss: float | None  # 0 to 1: how likely it is to be used within 30 days
    reason: str = ""  # why it was ignored


@dataclass(frozen=True)
class Finding:
    """One vulnerability in one image, whatever number of packages it is in."""

    name: str
    severity: str
    packages: Mapping[tuple[str, str], str]  # kind and name -> version
    fixable: bool
    known_exploited: bool
    epss: float | None
    reason: str


@dataclass(frozen=True)
class Scan:
    """What one report says about one image, folder, file or SBOM."""

    image: str  # as the user typed it
    source: str  # image, directory, file, sbom ...
    digest: str  # what exactly was scanned: the manifest's sha256 for an image, else the path
    index: str  # name@sha256:... as published: for an image of several platforms, the digest of their list
    platform: str  # for example linux/amd64
    created: str  # when the image was made
    size: int | None  # bytes, unpacked
    distro: str  # for example "alpine 3.22.2"
    database: str  # when Grype's vulnerability database was built
    tool: str  # for example "Grype 0.121.2"
    scanned: str  # when the scan ran
    only_fixed: bool  # Grype was told to leave out what has no fix
    vex: tuple[str, ...]  # the VEX documents that it was given
    matches: tuple[Match, ...]
    ignored: tuple[Match, ...]
    warnings: tuple[str, ...]  # for example that the distribution is past its end of life
    packages: Packages | None  # from the SBOM; None where there is none
    aliases: Mapping[str, str] = field(default_factory=dict)  # advisory -> the one CVE that it stands for

    @property
    def findings(self) -> dict[str, Finding]:
        """Each vulnerability once, by name."""
        return once(self.matches, self.aliases)

    @property
    def suppressed(self) -> dict[str, Finding]:
        """What a rule or a VEX statement took off the list altogether, by name."""
        return {
            name: one for name, one in once(self.ignored, self.aliases).items() if name not in self.findings
        }

    def counts(self) -> list[int]:
        """Number of vulnerabilities for each of SEVERITIES."""
        found = Counter(one.severity for one in self.findings.values())
        return [found[name] for name in SEVERITIES]

    def above(self, level: str) -> list[Finding]:
        """Findings of this level or worse; a known-exploited one is worse than every severity."""
        allowed = SEVERITIES[: SEVERITIES.index(level.capitalize()) + 1] if level != KNOWN_EXPLOITED else ()
        return [one for one in self.findings.values() if one.known_exploited or one.severity in allowed]


def once(matches: Iterable[Match], aliases: Mapping[str, str]) -> dict[str, Finding]:
    """Put the lines of one vulnerability together: worst severity, all packages, fixable in at least one."""
    groups: dict[str, list[Match]] = {}
    for match in matches:
        groups.setdefault(aliases.get(match.name, match.name), []).append(match)
    return {
        name: Finding(
            name=name,
            severity=min((one.severity for one in group), key=SEVERITIES.index),
            packages={one.package: one.version for one in group},
            fixable=any(one.fixed_in is not None for one in group),
            known_exploited=any(one.known_exploited for one in group),
            epss=max((one.epss for one in group if one.epss is not None), default=None),
            reason=", ".join(dict.fromkeys(one.reason for one in group if one.reason)),
        )
        for name, group in groups.items()
    }


def aliases_of(*scans: Scan) -> dict[str, str]:
    """Advisory -> CVE, for each advisory that stands for exactly one CVE in all these reports together."""
    cves: dict[str, set[str]] = {}
    for scan in scans:
        for match in (*scan.matches, *scan.ignored):
            if not match.name.startswith("CVE-"):
                cves.setdefault(match.name, set()).update(match.cves)
    return {name: one for name, found in cves.items() if len(found) == 1 for one in found}


def severity_of(vulnerability: dict[str, Any]) -> str:
    """One of SEVERITIES; a word that we do not know counts as Unknown."""
    word = str(vulnerability.get("severity") or "").capitalize()
    return word if word in SEVERITIES else "Unknown"


Statements = Mapping[tuple[str, str], str]  # vulnerability and status -> justification, from VEX documents


def read_statements(paths: Iterable[str]) -> Statements:
    """The reasons in OpenVEX documents that are still there: Grype's report names the documents only."""
    found: dict[tuple[str, str], str] = {}
    for path in paths:
        try:
            statements = read_json(Path(path)).get("statements") or []
            for one in statements:
                named = one["vulnerability"]  # a name in old documents, later a record
                names = (
                    [named] if isinstance(named, str) else [named.get("name"), *(named.get("aliases") or [])]
                )
                why = [str(one[key]) for key in ("justification", "impact_statement") if one.get(key)]
                found.update({(str(name), str(one["status"])): ": ".join(why) for name in names if why})
        except (UserError, KeyError, TypeError, AttributeError):
            continue  # another format, or gone: then no reason is known
    return found


def reason_of(rules: list[dict[str, Any]], names: Iterable[str], statements: Statements) -> str:
    """Why Grype ignored a match, in words."""
    words = []
    for rule in rules:
        status = str(rule.get("vex-status") or "")
        why = rule.get("vex-justification") or rule.get("reason")
        why = why or next((statements[key] for name in names if (key := (name, status)) in statements), "")
        fix = rule.get("fix-state")
        if status:
            words.append(f"VEX: {status}" + (f", {why}" if why else ""))
        elif why:
            words.append(f"rule: {why}")
        elif fix and not rule.get("vulnerability"):
            words.append(f"left out: {fix}")
        elif upstream := (rule.get("package") or {}).get("upstream-name"):
            words.append(f"rule: a package of {upstream}, which is reported itself where it is there")
        else:
            words.append("a rule without a reason")
    return ", ".join(dict.fromkeys(words)) or "a rule without a reason"


def match_of(entry: dict[str, Any], statements: Statements) -> Match:
    """One entry of matches[] or ignoredMatches[]. Raises KeyError, TypeError, AttributeError for others."""
    vulnerability, artifact = entry["vulnerability"], entry["artifact"]
    related = [
        *(entry.get("relatedVulnerabilities") or []),
        *(vulnerability.get("relatedVulnerabilities") or []),
    ]
    scores = [item for one in (vulnerability, *related) for item in one.get("epss") or []]
    names = [str(one["id"]) for one in (vulnerability, *related)]
    fix = vulnerability.get("fix") or {}
    versions = [str(version) for version in fix.get("versions") or []]
    fixed = fix.get("state") == "fixed" or (not fix.get("state") and versions)
    return Match(
        name=names[0],
        cves=frozenset(name for name in names[1:] if name.startswith("CVE-")),
        severity=severity_of(vulnerability),
        package=(kind_of(artifact.get("purl") or "", artifact.get("type") or ""), str(artifact["name"])),
        version=str(artifact.get("version") or ""),
        fixed_in=", ".join(versions) if fixed else None,
        known_exploited=any(one.get("knownExploited") for one in (vulnerability, *related)),
        epss=max((float(item["epss"]) for item in scores), default=None),
        reason=reason_of(rules, names, statements) if (rules := entry.get("appliedIgnoreRules")) else "",
    )


def created_of(target: dict[str, Any]) -> str:
    """When the image was made, from its configuration, which the report holds as base64."""
    try:
        created = str(json.loads(base64.b64decode(target.get("config") or ""))["created"])
        return (
            NOT_RECORDED if created.startswith("0001-") else created
        )  # what a tool writes that does not tell
    except (binascii.Error, ValueError, KeyError, TypeError):
        return NOT_RECORDED


def platform_of(target: dict[str, Any]) -> str:
    """Operating system and architecture, for example linux/arm64/v8."""
    words = [target.get(name) for name in ("os", "architecture", "variant")]
    return "/".join(str(word) for word in words if word) or NOT_RECORDED


def database_of(descriptor: dict[str, Any]) -> str:
    """When the vulnerability database was built. Grype 0.88 moved this from db.built to db.status.built."""
    database = descriptor.get("db") or {}
    return str(database.get("built") or (database.get("status") or {}).get("built") or NOT_RECORDED)


def warnings_of(report: dict[str, Any]) -> tuple[str, ...]:
    """Grype's alerts about packages, each message once with the number of packages that it holds for."""
    messages: Counter[str] = Counter()
    for item in report.get("alertsByPackage") or []:
        messages.update({str(alert.get("message") or alert["type"]) for alert in item.get("alerts") or []})
    return tuple(f"{message} (packages: {count})" for message, count in sorted(messages.items()))


def summarize(image: str, report: dict[str, Any], packages: Packages | None) -> Scan:
    """Read one report. Raises KeyError, TypeError, ValueError or AttributeError when it is not Grype's."""
    descriptor, source = report["descriptor"], report.get("source") or {}
    target = source.get("target")
    details = target if isinstance(target, dict) else {}  # a folder, a file and an SBOM have a path there
    distro = report.get("distro") or {}
    published = details.get("repoDigests") or []
    options = descriptor.get("configuration") or {}
    documents = [str(one) for one in options.get("vex-documents") or []]
    statements = read_statements(documents)
    scan = Scan(
        image=image,
        source=str(source.get("type") or NOT_RECORDED),
        digest=str(
            details.get("manifestDigest") or (target if isinstance(target, str) else "") or NOT_RECORDED
        ),
        index=str(published[0]) if published else NOT_RECORDED,
        platform=platform_of(details),
        created=created_of(details),
        size=details.get("imageSize") if isinstance(details.get("imageSize"), int) else None,
        distro=f"{distro.get('name') or ''} {distro.get('version') or ''}".strip() or NOT_RECORDED,
        database=database_of(descriptor),
        tool=f"Grype {descriptor.get('version') or 'of unknown version'}",
        scanned=str(descriptor.get("timestamp") or NOT_RECORDED),
        only_fixed=bool(options.get("only-fixed")),
        vex=tuple(documents),
        matches=tuple(match_of(entry, statements) for entry in report["matches"]),
        ignored=tuple(match_of(entry, statements) for entry in report.get("ignoredMatches") or []),
        warnings=warnings_of(report),
        packages=packages,
    )
    return replace(scan, aliases=aliases_of(scan))


def report_name(image: str) -> str:
    """The file name of an image's report: cgr.dev/team/python:latest -> cgr.dev_team_python_latest.json.

    No two images share one, also where a file system takes A for a: what is not ordinary gets a checksum.
    """
    plain = re.sub(r"[^A-Za-z0-9.-]", "_", image)
    if ORDINARY.fullmatch(image) and len(image) <= 100:
        return plain + ".json"
    return f"{plain[:100]}+{hashlib.sha256(image.encode()).hexdigest()[:8]}.json"


def sboms_beside(report: Path) -> list[Path]:
    """Where the SBOM that belongs to a report can be: a.json -> a.syft.json, a.cdx.json."""
    return [report.with_name(report.name.removesuffix(".json") + ending) for ending in SBOM_ENDINGS]


def read_json(path: Path, what: str = REPORT, then: str = RESCAN) -> dict[str, Any]:
    """Read a JSON object. Raises UserError that says what it should be, and what to do then."""
    try:
        data = json.loads(path.read_bytes())  # from bytes: a Windows shell writes UTF-16
    except FileNotFoundError as error:
        first = "scan an image first with ./scan.sh IMAGE" if what == REPORT else then
        raise UserError(f"{path} does not exist: {first}.") from error
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}): give a file that you may read.") from error
    except (ValueError, RecursionError) as error:  # bad JSON, or not text at all
        raise UserError(f"{path} is not valid JSON: {then}.") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} is not {what}: {then}.")
    return data


def read_scan(path: Path, image: str = "") -> Scan:
    """Read one report, and the SBOM beside it if there is one. Raises UserError for anything else."""
    report = read_json(path)
    beside = [read_json(sbom) for sbom in sboms_beside(path) if sbom.exists()]
    try:
        target = (report.get("source") or {}).get("target")
        name = target.get("userInput") if isinstance(target, dict) else target
        packages = read_packages(beside[0]) if beside else None
        return summarize(image or str(name or path.name).removeprefix("registry:"), report, packages)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError) as error:
        raise UserError(f"{path} is not {REPORT}: {RESCAN}.") from error
