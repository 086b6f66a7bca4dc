"""Audit a requirements file with pip-audit and without network: recorded advisories are served on loopback.

    python audit_packages.py practice/old-requirements.txt            which CVE breaks weights_only=True?
    python audit_packages.py ../demo-poisoning/requirements.txt       a lock file of ours
    python audit_packages.py practice/old-requirements.txt --without-advisories

The last one asks a server that knows nothing. pip-audit then says "No known vulnerabilities found" and ends
with 0: so ask of each clean answer what was looked at. Exit codes: 0 nothing found, 1 something, 2 bad input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import console
from console import UserError
from reports.grype_report import read_json

try:
    import pip_audit  # noqa: F401  # is it there? It is run as a command
    from packaging.version import InvalidVersion, Version
except ImportError as missing:
    print(
        f"error: the Python module {missing.name} is not installed: pip install -r requirements.txt does it.",
        file=sys.stderr,
    )
    sys.exit(console.ERROR)

ADVISORIES = Path(__file__).resolve().parent / "recorded" / "advisories.json"


def answer(advisories: list[dict[str, Any]], name: str, version: str) -> dict[str, Any]:
    """What the OSV service would answer for a package, from the recorded advisories."""
    try:
        asked = Version(version)
    except InvalidVersion:
        return {}
    found = [one for one in advisories if one["package"] == name.lower() and asked < Version(one["fixed"])]
    return {"vulns": [record(one) for one in found]} if found else {}


def record(advisory: dict[str, Any]) -> dict[str, Any]:
    """One advisory in the form of OSV."""
    package = {"name": advisory["package"], "ecosystem": "PyPI"}
    events = [{"introduced": "0"}, {"fixed": advisory["fixed"]}]
    return {
        "id": advisory["id"],
        "aliases": advisory["aliases"],
        "summary": advisory["about"],
        "details": advisory["about"],
        "modified": "2026-01-01T00:00:00Z",
        "published": "2026-01-01T00:00:00Z",
        "affected": [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}],
    }


@contextmanager
def served(advisories: list[dict[str, Any]]) -> Iterator[str]:
    """A small OSV service on a free port of this machine; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(answer(advisories, asked["package"]["name"], asked["version"])).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
    finally:
        server.shutdown()
        server.server_close()


def main() -> int:
    parser = console.parser(__doc__)
    parser.add_argument("requirements", type=Path, help="a file with exact versions, name==1.0")
    parser.add_argument("--without-advisories", action="store_true", help="ask a service that knows nothing")
    args = parser.parse_args()
    if not args.requirements.is_file():
        raise UserError(f"{args.requirements} does not exist: give a requirements.txt with exact versions.")
    recorded = read_json(ADVISORIES)
    advisories = [] if args.without_advisories else recorded["advisories"]
    print(
        f"Recorded advisories: {len(advisories)}, of {recorded['recorded']}. Nothing else is known here.",
        flush=True,
    )
    with served(advisories) as url, tempfile.TemporaryDirectory(prefix="audit.") as cache:
        command = ["--vulnerability-service", "osv", "--osv-url", url, "--no-deps", "--disable-pip"]
        command += ["--desc", "on", "--aliases", "on", "--progress-spinner", "off", "--cache-dir", cache]
        command += ["--format", "json", "--requirement", str(args.requirements)]
        env = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        print(
            "$ pip-audit --vulnerability-service osv --osv-url URL ... --requirement",
            args.requirements,
            flush=True,
        )
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *command],
            env=env,
            check=False,
            capture_output=True,
            text=True,
        )
    return show(done, args.requirements)


def show(done: subprocess.CompletedProcess[str], requirements: Path) -> int:
    """Print what pip-audit found; its own last words come with it."""
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError) as error:
        said = done.stderr.strip().splitlines() or ["it gave no reason"]
        raise UserError(
            f"pip-audit cannot read {requirements} ({said[-1][:200]}): pin exact versions."
        ) from error
    for package in found:
        for one in package.get("vulns") or []:
            names = ", ".join([one["id"], *one["aliases"]])
            fixed = ", ".join(one["fix_versions"]) or "none"
            print(
                f"- {package['name']} {package['version']}: {names}; fixed in: {fixed}; {one['description']}"
            )
    skipped = [package["name"] for package in found if "skip_reason" in package]
    print(f"Packages asked about: {len(found) - len(skipped)}; skipped: {len(skipped)}.")
    print(f"pip-audit says: {(done.stderr.strip().splitlines() or ['nothing'])[-1]}")
    return console.FINDING if any(package.get("vulns") for package in found) else console.OK


if __name__ == "__main__":
    console.run(main)
