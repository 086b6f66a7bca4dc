"""Read Grype's report of one image and count what it says, by rules that make two images comparable.

Helper module, not a command: scan.py, compare.py and gold_demo.py use it. The rules:
- a vulnerability counts once per image, however many packages it is in: Grype's list names it for each;
- an advisory (GHSA-...) that stands for exactly one CVE counts as that CVE;
- if the packages disagree, the highest severity counts, and "fixable" means: fixed for at least one.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console import UserError

SEVERITIES = ("Critical", "High", "Medium", "Low", "Negligible", "Unknown")  # highest first
RESULTS = Path(__file__).resolve().parent.parent / "results"  # where scan.py puts the reports
NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Scan:
    """What one report says about one image."""

    image: str  # as the user typed it
    digest: str  # name@sha256:..., what to pin
    distro: str  # for example "alpine 3.22.2"
    database: str  # when Grype's vulnerability database was built
    scanned: str  # when the scan ran
    severity: Mapping[str, str]  # vulnerability -> severity, each vulnerability once
    fixable: frozenset[str]  # those of them that a newer package fixes
    matches: int  # lines in Grype's own list: one per vulnerability and package
    affected: int  # packages with at least one vulnerability
    packages: int | None  # all packages in the image, from the SBOM; None where there is none

    def counts(self) -> list[int]:
        """Number of vulnerabilities for each of SEVERITIES."""
        found = Counter(self.severity.values())
        return [found[name] for name in SEVERITIES]


def vulnerability_of(match: dict[str, Any]) -> str:
    """The name under which a match counts: its own, or the one CVE that its advisory stands for."""
    name = str(match["vulnerability"]["id"])
    related = match.get("relatedVulnerabilities") or []
    cves = {item["id"] for item in related if item["id"].startswith("CVE-")}
    return name if name.startswith("CVE-") or len(cves) != 1 else str(cves.pop())


def severity_of(match: dict[str, Any]) -> str:
    """The match's severity, one of SEVERITIES; a word that we do not know counts as Unknown."""
    word = str(match["vulnerability"].get("severity", "")).capitalize()
    return word if word in SEVERITIES else "Unknown"


def digest_of(target: dict[str, Any]) -> str:
    """The image's digest: as published in the registry if the report knows it, else of its manifest."""
    published = target.get("repoDigests") or [target.get("manifestDigest")]
    return str(published[0] or NOT_RECORDED)


def database_of(descriptor: dict[str, Any]) -> str:
    """When the vulnerability database was built. Grype 0.88 moved this from db.built to db.status.built."""
    database = descriptor.get("db") or {}
    return str(database.get("built") or (database.get("status") or {}).get("built") or NOT_RECORDED)


def summarize(image: str, report: dict[str, Any], sbom: dict[str, Any] | None) -> Scan:
    """Count one report. Raises KeyError, TypeError or AttributeError when it is not Grype's."""
    severity: dict[str, str] = {}
    for match in report["matches"]:
        name, word = vulnerability_of(match), severity_of(match)
        severity[name] = min(severity.get(name, word), word, key=SEVERITIES.index)
    fixed = [m for m in report["matches"] if (m["vulnerability"].get("fix") or {}).get("state") == "fixed"]
    artifacts = [match["artifact"] for match in report["matches"]]
    target = report["source"]["target"]
    distro = report.get("distro") or {}
    return Scan(
        image=image,
        digest=digest_of(target if isinstance(target, dict) else {}),  # a folder has a path there
        distro=f"{distro.get('name') or ''} {distro.get('version') or ''}".strip() or NOT_RECORDED,
        database=database_of(report["descriptor"]),
        scanned=str(report["descriptor"].get("timestamp") or NOT_RECORDED),
        severity=severity,
        fixable=frozenset(vulnerability_of(match) for match in fixed),
        matches=len(report["matches"]),
        affected=len({(item["name"], item["version"], item["type"]) for item in artifacts}),
        packages=None if sbom is None else count_packages(sbom),
    )


def count_packages(sbom: dict[str, Any]) -> int:
    """Packages in a CycloneDX SBOM: all its components but single files and the operating system's name."""
    kinds = [component["type"] for component in sbom.get("components") or []]
    return sum(kind not in ("file", "operating-system") for kind in kinds)


def report_name(image: str) -> str:
    """The file name of an image's report: cgr.dev/team/python:latest -> cgr.dev_team_python_latest.json."""
    return re.sub(r"[/@:]", "_", image) + ".json"


def sbom_beside(report: Path) -> Path:
    """Where scan.py puts the SBOM that belongs to a report: a.json -> a.cdx.json."""
    return report.with_suffix(".cdx.json")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; bad input is a UserError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: scan an image first with ./scan.sh IMAGE.") from error
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}): give a file that you may read.") from error
    except (ValueError, RecursionError) as error:  # bad JSON, or not text at all
        raise UserError(f"{path} is not valid JSON: scan the image again with ./scan.sh IMAGE.") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} is not a report of Grype: scan the image again with ./scan.sh IMAGE.")
    return data


def read_scan(path: Path, image: str = "") -> Scan:
    """Read one report, and the SBOM beside it if there is one. Raises UserError for anything else."""
    report = read_json(path)
    sbom = read_json(sbom_beside(path)) if sbom_beside(path).exists() else None
    try:
        target = report["source"]["target"]
        return summarize(image or str(target["userInput"]).removeprefix("registry:"), report, sbom)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path} is not a report of Grype: scan the image again with ./scan.sh IMAGE."
        ) from error
