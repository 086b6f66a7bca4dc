"""Demo 3's offline audit: pip-audit asks a service on loopback that knows a few recorded advisories."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
from scan_helpers import DEMO, Result

pytest.importorskip("pip_audit")
import audit_packages

SCRIPT = "demo-supply-chain/audit_packages.py"
OLD = DEMO / "practice" / "old-requirements.txt"


def test_the_cve_that_breaks_weights_only_is_found(run_script: Callable[..., Result]) -> None:
    result = run_script(SCRIPT, OLD, HTTP_PROXY="http://127.0.0.1:1", HTTPS_PROXY="http://127.0.0.1:1")
    assert (result.returncode, result.stderr) == (1, "")
    (line,) = [line for line in result.stdout.splitlines() if "weights_only=True" in line]
    assert line.startswith("- torch 2.5.1: CVE-2025-32434, GHSA-53q9-r3pm-6pq6; fixed in: 2.6.0; ")
    assert "Packages asked about: 4; skipped: 0.\n" in result.stdout
    assert "numpy" not in result.stdout


def test_who_knows_nothing_says_that_all_is_well(run_script: Callable[..., Result]) -> None:
    result = run_script(SCRIPT, OLD, "--without-advisories")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Recorded advisories: 0, ")
    assert result.stdout.endswith("pip-audit says: No known vulnerabilities found\n")


def test_our_own_locks_have_none_of_these(run_script: Callable[..., Result], root: Path) -> None:
    for lock in ("demo-malicious", "demo-poisoning"):
        result = run_script(SCRIPT, root / lock / "requirements.txt")
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("text", [None, "torch>=2\n", "nonsense nonsense\n"])
def test_what_it_cannot_read_is_refused(
    text: str | None, run_script: Callable[..., Result], assert_refused: Callable[..., None], tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "x.txt").write_text(text)
    result = run_script(SCRIPT, "x.txt")
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "x.txt" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("version", "found"),
    [("2.5.1", 2), ("2.5.1+cpu", 2), ("2.6.0", 1), ("2.6.0rc1", 2), ("2.10.0", 0), ("2.14.0", 0), ("odd", 0)],
)
def test_versions_are_compared_as_python_does(version: str, found: int) -> None:
    advisories = json.loads(audit_packages.ADVISORIES.read_text())["advisories"]
    assert len(audit_packages.answer(advisories, "Torch", version).get("vulns", [])) == found


def test_every_recorded_advisory_has_a_source() -> None:
    recorded = json.loads(audit_packages.ADVISORIES.read_text())
    assert recorded["advisories"]
    for one in recorded["advisories"]:
        assert one["source"].startswith("https://") and one["source"].endswith(one["id"])
        assert one["aliases"][0].startswith("CVE-")
