"""A stand-in for Grype, to test our scripts without Grype, a registry or a vulnerability database.

It replays small documents of the true shape and ends with Grype's exit codes. It scans nothing: its figures
are made up here and must never appear in a document.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PROGRAM = """#!{python} -SE
import json, os, sys, time
ANSWERS = json.loads({answers!r})
source = sys.argv[1]
files = dict(word.split("=", 1) for word in sys.argv[2:] if "=" in word)
known = ("registry:", "docker:", "dir:", "sbom:")
if not source.startswith(known) or set(files) != {{"json", "cyclonedx-json"}}:
    sys.exit("[0000] ERROR called in another way than our scripts do: " + " ".join(sys.argv[1:]))
answer = ANSWERS.get(source.removeprefix("registry:"))
if isinstance(answer, list):  # one answer a call, the last one for all further calls
    count = __file__ + ".calls"
    with open(count, "a") as file:
        file.write(source + "\\n")
    with open(count) as file:
        calls = file.read().splitlines().count(source)
    answer = answer[min(calls, len(answer)) - 1]
if answer is None:
    print("[0000]  WARN something else", file=sys.stderr)
    print("\\x1b[31m[0001] ERROR\\x1b[0m could not find " + source, file=sys.stderr)
    sys.exit(1)
for name in answer.get("environment", []):
    print(name + "=" + os.environ.get(name, "unset"), file=sys.stderr)
for kind in ("json", "cyclonedx-json"):
    if kind in answer:
        with open(files[kind], "w") as file:
            file.write(answer[kind])
time.sleep(answer.get("seconds", 0))
if "signal" in answer:
    os.kill(os.getpid(), answer["signal"])
if "error" in answer:
    print(answer["error"], file=sys.stderr)
sys.exit(answer.get("code", 0))
"""


def match(name: str, severity: str, package: str, fix: str = "unknown", cve: str = "") -> dict[str, Any]:
    """One entry of matches[]: vulnerability `name` in `package`."""
    return {
        "vulnerability": {"id": name, "severity": severity, "fix": {"versions": [], "state": fix}},
        "relatedVulnerabilities": [{"id": cve}] if cve else [],
        "matchDetails": [],
        "artifact": {"name": package, "version": "1.0", "type": "deb"},
    }


def report(image: str, *matches: dict[str, Any], digit: str = "1", **changes: Any) -> dict[str, Any]:
    """A whole report, as Grype 0.88 and later lay it out; digit makes the digest."""
    return {
        "matches": list(matches),
        "source": {
            "type": "image",
            "target": {
                "userInput": image,
                "manifestDigest": "sha256:" + digit * 64,
                "repoDigests": [f"{image.partition(':')[0]}@sha256:{digit * 64}"],
            },
        },
        "distro": {"name": "debian", "version": "12", "idLike": []},
        "descriptor": {
            "name": "grype",
            "version": "0.0.0",
            "db": {"status": {"built": "2001-02-03T04:05:06Z"}},
            "timestamp": "2001-02-04T00:00:00Z",
        },
    } | changes


def sbom(packages: int) -> dict[str, Any]:
    """A CycloneDX SBOM with that many packages, and with a file and the system's name, which are none."""
    kinds = [*["library"] * (packages - 1), "application", "file", "operating-system"]
    components = [
        {"type": kind, "name": f"x{number}", "version": "1.0", "purl": f"pkg:deb/debian/x{number}@1.0"}
        for number, kind in enumerate(kinds)
    ]
    return {"bomFormat": "CycloneDX", "components": components}


def answer(document: dict[str, Any], packages: int = 3, **more: Any) -> dict[str, Any]:
    """What the stand-in does for one image: writes both documents and ends with 0."""
    return {"json": json.dumps(document), "cyclonedx-json": json.dumps(sbom(packages)), **more}


def write(path: Path, python: str, answers: dict[str, Any]) -> Path:
    """Write the stand-in as an executable that runs under `python`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROGRAM.format(python=python, answers=json.dumps(answers)))
    path.chmod(0o755)
    return path


BEFORE = report(
    "python:3.11",
    match("CVE-2001-0001", "High", "one", fix="wont-fix"),
    match("CVE-2001-0001", "Critical", "two", fix="fixed"),  # the same in a second package, judged worse
    match("GHSA-aaaa-bbbb-cccc", "Medium", "pip", fix="fixed", cve="CVE-2001-0002"),
    match("CVE-2001-0002", "Medium", "pip"),  # the same once more, under its own name
    match("CVE-2001-0003", "Negligible", "one", fix="not-fixed"),
    match("CVE-2001-0004", "Strange", "one", fix=""),
    digit="1",
)
ALPINE = report(
    "python:3.11-alpine",
    match("CVE-2001-0003", "Low", "busybox"),
    digit="2",
    distro={"name": "alpine", "version": "3"},
)
HARDENED = report(
    "cgr.dev/chainguard/python:latest",
    match("CVE-2001-0003", "Unknown", "one"),
    match("CVE-2001-0009", "High", "new"),
    digit="3",
    distro={"name": "wolfi", "version": "20010203"},
    descriptor={"db": {"built": "2001-02-03T04:05:06Z"}, "timestamp": "2001-02-04"},  # the older layout
)
THREE = {
    "python:3.11": answer(BEFORE, packages=7),
    "python:3.11-alpine": answer(ALPINE, packages=4),
    "cgr.dev/chainguard/python:latest": answer(HARDENED, packages=5),
}
