"""axe-core, the accessibility checker, for pages in a browser."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
from pathlib import Path

import pytest

import browser as browsers

AXE = "axe-core@4.14.1"
AXE_SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="


def fetch_axe(folder: Path) -> str:
    """The script of axe-core, fetched from npm's registry and compared with its checksum."""
    command = ["npm", "pack", AXE, "--silent", "--fetch-retries=1", "--fetch-timeout=20000"]
    try:
        made = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=90)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"axe-core cannot be fetched: {error}")
    packed = list(folder.glob("*.tgz"))
    if not packed:
        pytest.skip(f"axe-core cannot be fetched: {made.stderr[-300:]}")
    digest = hashlib.sha512(packed[0].read_bytes()).digest()
    assert base64.b64encode(digest).decode() == AXE_SHA512
    with tarfile.open(packed[0]) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


def violations(browser: browsers.Browser, axe: str, undecided: bool = True) -> list[str]:
    """What axe-core finds on the open page, and what it cannot decide.

    With undecided=False, contrast that it cannot decide is left out: text in a box that scrolls.
    """
    browser.ask(axe + "; 0")
    assert browser.ask("axe.version") == AXE.split("@")[1]
    answer = browser.ask(
        "axe.run().then(r => ({bad: [...r.violations.map(v => ({...v, unsure: false})),"
        " ...r.incomplete.map(v => ({...v, unsure: true}))], passed: r.passes.length}))"
    )
    assert answer["passed"] >= 5
    return [
        f"{rule['id']}: {node['html'][:100]}"
        for rule in answer["bad"]
        if undecided or rule["id"] != "color-contrast" or rule["unsure"] is False
        for node in rule["nodes"]
    ]
