"""`./workshop.sh run` for real, in a copy of the repository: what a newcomer types and sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from malicious_helpers import type_here

from poisoning_tools import FROM_IMAGE

PARTS = {"packages": "demo-*/requirements.txt", "torch": "demo-*/requirements-torch.txt"}
SHOWN_BY_3 = ("- Demo 3, the risk: ", "- Demo 3, defence: ")
SHOWN = (
    "- Demo 1, attack: a model file ran a program",
    "- Demo 1, defence: the inspection named the payload",
    *SHOWN_BY_3,
)


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """The tracked files alone, as a fresh clone has them, with today's changes."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=False, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listing.stdout.split("\0")):
        if (root / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, tmp_path / name)
    return tmp_path


def lend_packages(checkout: Path) -> None:
    """Give the copy a .venv that leads to the packages of the Python that runs this test."""
    venv = checkout / ".venv"
    venv.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        if not (Path(sys.prefix) / name).exists():
            pytest.skip("the tests do not run in a virtual environment")
        (venv / name).symlink_to(Path(sys.prefix) / name)
    for part, pattern in PARTS.items():
        content = b"".join(path.read_bytes() for path in sorted(checkout.glob(pattern)))
        checksum = subprocess.run(["cksum"], input=content, check=True, capture_output=True).stdout
        (venv / f"workshop-installed-{part}").write_bytes(checksum)


def run(
    checkout: Path, *args: str, demos: tuple[str, ...] = ("1", "3"), shown: tuple[str, ...] = SHOWN
) -> str:
    """Run demos, check that all went well, and give what was said."""
    result = subprocess.run(
        [str(checkout / "workshop.sh"), "run", *demos, "--plain", *args],
        check=False,
        cwd=checkout.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr
    assert "Done: every step of run worked" in result.stdout
    for line in shown:
        assert line in result.stdout
    assert ("scanned just now" in result.stdout) != ("RECORDED" in result.stdout)
    assert "example.safetensors: CHANGED" in result.stdout
    return result.stdout


def test_run_native(checkout: Path) -> None:
    """Demo 1 does the same in its container, so where that must run, only what it leaves here is made."""
    lend_packages(checkout)
    if FROM_IMAGE:
        said = run(checkout, "--native", demos=("3",), shown=SHOWN_BY_3)
        type_here(["create_malicious_model.py"], checkout / "demo-malicious")
    else:
        said = run(checkout, "--native")
        assert (checkout / "demo-malicious/safe_model.safetensors").is_file()
    assert f"{checkout}/.venv is ready: nothing to install." in said
    assert (checkout / "demo-malicious/malicious_model.pt").is_file()
    reset = subprocess.run([checkout / "workshop.sh", "reset"], check=True, capture_output=True, text=True)
    assert "Removed demo-malicious/malicious_model.pt." in reset.stdout
    assert not list(checkout.glob("demo-malicious/*.pt"))
    assert (checkout / ".venv/bin").is_symlink()


@pytest.mark.docker
def test_run_docker_builds_once(checkout: Path, docker: Any) -> None:
    said = run(checkout, "--docker")
    assert "image pickle-demo: " in said
    assert not (checkout / ".venv").exists()
    assert not list(checkout.glob("demo-malicious/*.pt"))  # it all happened in the container
    image = docker("image", "inspect", "--format", "{{.Id}}", "pickle-demo").stdout
    again = run(checkout, "--docker", demos=("3",), shown=SHOWN_BY_3)
    assert "built earlier from the same files" in again
    again = build(checkout, "pickle-demo", "demo-malicious")
    assert again == "The image pickle-demo is there already, built from the same files.\n"
    assert docker("image", "inspect", "--format", "{{.Id}}", "pickle-demo").stdout == image
    assert docker("ps", "--quiet", "--filter", "ancestor=pickle-demo").stdout == ""


def build(checkout: Path, image: str, folder: str) -> str:
    """What `run` does first in a demo: build its image, unless it is there from the same files."""
    parts = "".join(f'. "$ROOT/scripts/{part}.sh"; ' for part in ("say", "containers"))
    return subprocess.run(
        ["bash", "-c", f"{parts} build_image {image} {folder}"],
        check=True,
        env=os.environ
        | {"ROOT": str(checkout), "WORKSHOP_BUILD_ARGS": os.environ.get("WORKSHOP_BUILD_ARGS", "")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    ).stdout
