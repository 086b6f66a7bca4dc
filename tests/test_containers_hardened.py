"""Demo 3's two images of one app: built, asked, looked into and scanned with real Grype."""

# ruff: noqa: F811, F401 (fixtures are imported, and then named as arguments)

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
from scan_helpers import DEMO, Result  # noqa: I001
from real_grype import Grype, real

pytestmark = pytest.mark.docker

# PyTorch alone has gigabytes; a small old package stands for it here, with a vulnerability that our
# records have
ARGUMENTS = "--build-arg BASE=python:3.11 --build-arg TORCH_INDEX= --build-arg TORCH=pillow==9.5.0"


def typed(folder: Path, *arguments: str, **env: str) -> Result:
    """Type ./compare_hardened.sh in a copy of the demo."""
    return subprocess.run(
        ["./compare_hardened.sh", *arguments],
        cwd=folder,
        env=os.environ | {"DOCKER_BUILDKIT": "1", "WORKSHOP_BUILD_ARGS": ARGUMENTS} | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the demo folder, so that results do not land in the repository."""
    kept = shutil.ignore_patterns("results", "__pycache__", "exercise*[0-9]*")
    return Path(shutil.copytree(DEMO, tmp_path_factory.mktemp("demo") / DEMO.name, ignore=kept))


@pytest.fixture(scope="module")
def compared(docker: Any, demo: Path, real: Grype) -> Iterator[Result]:
    """What ./compare_hardened.sh says with Grype, Syft and a database on this machine."""
    said = typed(demo, PATH=f"{real.tools}:{os.environ['PATH']}", PYTHON=sys.executable, **real.settings())
    yield said
    docker("rmi", "-f", "conventional-app", "hardened-app")


def sides(result: Result) -> dict[str, tuple[str, str]]:
    """The table: what is compared -> the conventional side and the hardened one."""
    found = re.findall(r"^- (.*?): conventional (.*?); hardened (.*?)(?:; .*)?$", result.stdout, flags=re.M)
    return {what: (before, after) for what, before, after in found}


def test_the_number_goes_down(compared: Result) -> None:
    assert compared.returncode == 0, compared.stdout + compared.stderr
    table = sides(compared)
    size, packages, findings, start = (
        tuple(float(side.split()[0]) for side in table[what])
        for what in ("size", "packages", "findings: all", "start to ready")
    )
    assert size[0] > size[1] and packages[0] > packages[1] > 0 and findings[0] > findings[1]
    assert all(milliseconds > 0 for milliseconds in start)
    assert table["runs as"] == ("root", "user 65532")
    assert table["shell inside"] == ("yes", "no")
    assert table["findings: known exploited"][0] != "0"  # that of pillow, at least
    for command in (
        "$ docker build -q -f hardened/conventional.Dockerfile",
        "$ ./scan.sh docker:conventional-app",
    ):
        assert command in compared.stdout


def test_the_table_is_that_of_the_scan(compared: Result, demo: Path) -> None:
    assert compared.returncode == 0
    table, found = sides(compared), demo / "results" / "hardened"
    for number, name in enumerate(("conventional-app", "hardened-app")):
        (report,) = (p for p in found.glob(f"docker*{name}*.json") if not p.name.endswith(".syft.json"))
        names = {
            next((one["id"] for one in match["relatedVulnerabilities"]), match["vulnerability"]["id"])
            for match in json.loads(report.read_text())["matches"]
        }
        assert table["findings: all"][number] == str(len(names))


def test_both_give_the_same_answer(compared: Result) -> None:
    before, after = sides(compared)["answer"]
    assert json.loads(before) == json.loads(after) == {"colour": "red", "confidence": 0.983}


def test_the_hardened_image_can_be_locked_up_and_not_changed(compared: Result, docker: Any) -> None:
    tries = """
import os, pathlib, socket, sys
for name, act in {
    "write the app": lambda: pathlib.Path("/app/app.py").write_text(""),
    "write beside it": lambda: pathlib.Path("/app/new").write_text(""),
    "become root": lambda: os.setuid(0),
    "reach out": lambda: socket.create_connection(("192.0.2.1", 80), timeout=2),
}.items():
    try:
        act()
        sys.exit("it could " + name)
    except OSError:
        pass
"""
    result = docker.run("hardened-app", "-c", tries, flags=("--entrypoint", "python"))
    assert result.returncode == 0, result.stderr
    pip = docker.run("hardened-app", "-m", "pip", flags=("--entrypoint", "python"))
    assert "No module named pip" in pip.stderr
    made = json.loads(docker("image", "inspect", "hardened-app").stdout)[0]["Config"]
    assert (made["User"], made["Entrypoint"]) == ("65532:65532", ["python", "app.py"])


def test_without_grype_the_rest_is_measured_and_said(compared: Result, demo: Path, tmp_path: Path) -> None:
    names = "bash env dirname cat sed awk sort seq sleep date grep mktemp rm docker mkdir python3".split()  # noqa: SIM905
    for name in names:
        (tmp_path / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name}"))
    bad = f"{ARGUMENTS} --build-arg GRYPE_IMAGE=nosuch-registry.invalid/grype:1"
    result = typed(demo, PATH=str(tmp_path), SCAN_IMAGE="grype-demo-never:test", WORKSHOP_BUILD_ARGS=bad)
    assert result.returncode == 2
    assert "error: Not all of it worked: the scan" in result.stderr
    assert sides(result)["findings: all"] == ("not scanned", "not scanned")
    assert sides(result)["shell inside"] == ("yes", "no")


def test_images_of_the_engine_reach_the_container_that_scans(
    compared: Result, docker: Any, real: Grype, demo: Path, tmp_path: Path
) -> None:
    """Where Grype is only in our image, scan.sh saves the engine's image for it."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY grype /grype\n")
    shutil.copy(real.tools / "grype", tmp_path)
    tag, grype = f"grype-demo-real:test{os.getpid()}", f"grype-real:test{os.getpid()}"
    assert docker("build", "-q", "-t", grype, str(tmp_path)).returncode == 0
    docker.build("demo-supply-chain", tag, "--build-arg", f"GRYPE_IMAGE={grype}")
    volume = f"{tag.replace(':', '_')}-db"
    try:
        place = ("-v", f"{volume}:/db", "--network", "none", "--entrypoint", "grype")
        made = docker("create", *place, tag, "db", "import", f"/app/tmp/{real.database.name}").stdout.strip()
        assert docker("cp", str(real.database), f"{made}:/app/tmp/").returncode == 0
        imported = docker("start", "-a", made)
        assert imported.returncode == 0, imported.stderr
        docker("rm", "-v", made)
        names = "bash env dirname basename cat sed find mv rm mkdir mktemp chmod docker".split()  # noqa: SIM905
        (tmp_path / "bin").mkdir()
        for name in names:
            (tmp_path / "bin" / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name}"))
        result = subprocess.run(
            ["./scan.sh", "docker:hardened-app:latest", "--results", str(tmp_path / "results")],
            cwd=demo,
            env={"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "SCAN_IMAGE": tag}
            | {"GRYPE_DB_AUTO_UPDATE": "false"},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
    finally:
        docker("rmi", "-f", tag, grype)
        docker("volume", "rm", "-f", volume)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "- image: docker-archive:results/hardened-app_latest.tar; scanned: sha256:" in result.stdout
    assert not list((tmp_path / "results").glob("*.tar"))


def test_each_difference_is_said_for_both_sides(tmp_path: Path) -> None:
    said = typed(DEMO, "--explain", PATH=os.environ["PATH"]).stdout
    assert len(re.findall(r"^Difference \d of 6$", said, flags=re.M)) == 6
    for side in ("conventional", "hardened"):
        text = (DEMO / "hardened" / f"{side}.Dockerfile").read_text()
        sentences = re.findall(r"^# (\d)\. (.*\.{1,3})$", text, flags=re.M)
        assert [number for number, _ in sentences] == list("123456")
        for _, sentence in sentences:
            assert f"{side}: {sentence}\n" in said
        instructions = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert [line for line in instructions if f"    {line}\n" not in said] == []
