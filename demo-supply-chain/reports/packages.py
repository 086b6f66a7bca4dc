"""Read the list of all packages, the SBOM, that Syft or Grype made: which kinds, which names, which versions.

Helper module, not a command: grype_report.py uses it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

# what Syft calls a kind -> what the package's URL (purl) calls it, which more people know
KINDS = {
    "python": "pypi",
    "binary": "generic",
    "go-module": "golang",
    "java-archive": "maven",
    "rust-crate": "cargo",
}
PYTHON = re.compile(
    r"python-?3?(\.\d+)?(-minimal|-base)?"
)  # as Debian, Alpine and Wolfi call the interpreter


@dataclass(frozen=True)
class Packages:
    """The packages of one image, each one once."""

    all: frozenset[tuple[str, str, str]]  # kind, name, version

    def versions(self, kind: str, name: str) -> set[str]:
        """The versions of a package; empty where it is not in the image."""
        return {version for a_kind, a_name, version in self.all if (a_kind, a_name) == (kind, name)}

    def by_kind(self) -> dict[str, int]:
        """Number of packages of each kind, most first."""
        return dict(Counter(sorted(kind for kind, _, _ in self.all)).most_common())

    def python(self) -> str:
        """The version of the Python interpreter: the program where it was recognised, else the package."""
        for kinds in (("generic",), ("apk", "deb", "rpm")):
            found = {
                v for kind, name, v in self.all if kind in kinds and PYTHON.fullmatch(name.lower()) and v
            }
            if found:
                return " and ".join(sorted(found))
        return "none found"


def kind_of(purl: str, kind: str) -> str:
    """The kind of a package by its URL, pkg:deb/debian/zlib1g@1 -> deb; without one by Syft's word for it."""
    found = re.match(r"pkg:/*([A-Za-z0-9.+-]+)/", purl)
    return found.group(1).lower() if found else KINDS.get(kind, kind) or "unknown"


def read_packages(sbom: dict[str, Any]) -> Packages:
    """The packages of an SBOM in Syft's own format or in CycloneDX.

    Raises KeyError, TypeError, AttributeError or ValueError for anything else.
    """
    if "artifacts" in sbom and "schema" in sbom:
        found = [(kind_of(item.get("purl") or "", item["type"]), item) for item in sbom["artifacts"]]
    elif sbom.get("bomFormat") == "CycloneDX":
        found = [
            (kind_of(item.get("purl") or "", item["type"]), item)
            for item in flat(sbom.get("components") or [])
            if item["type"] not in ("file", "operating-system")
        ]
    else:
        raise ValueError("neither Syft's format nor CycloneDX")
    return Packages(
        frozenset((kind, str(item["name"]), str(item.get("version") or "")) for kind, item in found)
    )


def flat(components: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Components and those inside them."""
    return [one for item in components for one in (item, *flat(item.get("components") or []))]
