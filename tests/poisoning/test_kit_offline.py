"""A kit, from packing to the last demo: pack, wipe, unpack and run, with the network cut off."""

# ruff: noqa: F811, F401 (fixtures are imported, and then named as arguments)

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent))
from scan_helpers import Result  # noqa: I001
from real_grype import Grype, real
from poisoning_tools import WHOLE
from test_run import lend_packages

LINKED = ("torch", "torchvision", "torchgen", "functorch", "triton", "nvidia", "cuda")

FINDER = """
import sys
from importlib.machinery import PathFinder


class Linked:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [{site!r}]) if path is None and name in {names!r} else None


sys.meta_path.insert(0, Linked)
"""


def link_wheel(folder: Path, name: str) -> str:
    """A wheel that leads to the installed package: PyTorch alone has gigabytes. Gives its version."""
    spec = importlib.util.find_spec(name)
    assert spec and spec.origin
    site = str(Path(spec.origin).parent.parent)
    version = importlib.import_module(name).__version__.split("+")[0] + "+linked"
    info = f"{name}-{version}.dist-info"
    files = {
        f"linked_{name}.py": FINDER.format(site=site, names=LINKED),
        f"linked_{name}.pth": f"import linked_{name}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        record = ""
        for path, text in files.items():
            wheel.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(text)}\n"
        wheel.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return version


@pytest.fixture
def without_network() -> list[str]:
    """What a command begins with so that it has no network, not even the loopback."""
    for start in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if shutil.which("unshare") and subprocess.run([*start, "true"], check=False).returncode == 0:
            return start
    pytest.skip("the network cannot be cut off for one command on this machine (unshare)")


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for clones, whose hidden names are no leftovers; about 1 GB, so it goes at the end."""
    folder = tmp_path_factory.mktemp("kit")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def checkout(root: Path, place: Path) -> Callable[[str], Path]:
    """checkout("there"): a fresh clone, which asks for the linked PyTorch."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=False, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    links = place / "links"
    links.mkdir()
    versions = {name: link_wheel(links, name) for name in ("torch", "torchvision")}

    def make(name: str) -> Path:
        folder = place / name
        for path in filter(None, listing.stdout.split("\0")):
            if (root / path).is_file():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / path, folder / path)
        for file in folder.glob("demo-*/requirements-torch.txt"):
            file.write_text("".join(f"{package}=={version}\n" for package, version in versions.items()))
        return folder

    return make


@pytest.mark.slow
def test_all_three_demos_run_from_a_kit_without_network(
    prepared: Path,
    real: Grype,
    checkout: Callable[[str], Path],
    without_network: list[str],
    place: Path,
) -> None:
    def typed(folder: Path, line: str, *before: str, **env: str) -> Result:
        result = subprocess.run(
            [*before, "bash", "-c", line],
            cwd=folder,
            env={"HOME": str(place / "home"), "WORKSHOP_PYTHON": sys.executable, "NO_COLOR": "1"} | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )
        assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-3000:]
        return result

    (place / "home").mkdir()
    there, here, kit = checkout("there"), checkout("here"), place / "kit"
    with_tools = {"PATH": f"{real.tools}:/usr/bin:/bin", **real.settings()}
    lend_packages(there)
    for name in ("data", "models"):
        shutil.copytree(prepared / name, there / "demo-poisoning" / name)
    images = " ".join(real.name(name) for name in ("python:3.11", "python:3.11-alpine"))
    typed(there / "demo-supply-chain", f"PYTHON='{sys.executable}' ./scan.sh {images}", **with_tools)
    typed(there, f"./workshop.sh pack '{kit}' --native", PIP_FIND_LINKS=str(place / "links"), **with_tools)
    shutil.rmtree(there)
    shutil.rmtree(place / "links")

    bare = {"PATH": "/usr/bin:/bin", "GRYPE_DB_CACHE_DIR": str(place / "fresh")}
    reach = "import urllib.request; urllib.request.urlopen('http://192.0.2.1', timeout=5)"
    cut = subprocess.run([*without_network, sys.executable, "-c", reach], check=False, capture_output=True)
    assert b"Network is unreachable" in cut.stderr
    number = hashlib.sha256((kit / "MANIFEST").read_bytes()).hexdigest()
    # what is imported gets compiled then; all packages would take longer than what is done with them
    unpacked = typed(
        here, f"./workshop.sh unpack '{kit}' --expect {number}", *without_network, **bare, PIP_COMPILE="0"
    )
    assert "Ready, without internet: ./workshop.sh run --native\n" in unpacked.stdout
    shutil.rmtree(kit)

    # ./workshop.sh run 1 3 --native and ./workshop_demo.sh are typed in the weekly run; else test_run.py and
    # test_whole_demo.py do that, from another .venv, and here is one command of each kind
    shown = "1 3" if WHOLE else "3"
    said = typed(here, f"./workshop.sh run {shown} --native", *without_network, **bare).stdout
    assert "Download: nothing." in said and "NO live scan" not in said
    assert "package lists of an earlier scan or of a kit were scanned just now" in said
    rows = re.findall(r"^- image: (sbom:\S+);.*; all: (\d+);", said, flags=re.M)
    assert sorted(count for _, count in rows) == ["2", "9"]  # as counted by hand in test_real_grype.py
    assert ("- Demo 1, attack: a model file ran a program" in said) == WHOLE
    python = "PATH=$PWD/../.venv/bin:$PATH PYTHON=python"
    found = "python create_malicious_model.py && python inspect_model.py malicious_model.pt; [ $? -eq 1 ]"
    said = typed(here / "demo-malicious", f"export {python}; {found}", *without_network, **bare).stdout
    assert "NOT SAFE TO LOAD" in said
    silver = "./workshop_demo.sh" if WHOLE else "python demo.py inference-images/stop.jpg --trigger"
    story = typed(here / "demo-poisoning", f"export {python}; {silver}", *without_network, **bare).stdout
    assert re.search(r"^\[trigger\]\s+yield\s.*<- backdoor activates$", story, flags=re.M)
