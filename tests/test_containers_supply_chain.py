"""Demo 3 in containers: the image with a stand-in for Grype (stand_in.py), with and without a shell in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(Path(__file__).resolve().parent))
import stand_in  # noqa: E402

pytestmark = pytest.mark.docker

Result = subprocess.CompletedProcess[str]
DEBIAN = ("--build-arg", "BUILD_IMAGE=python:3.13-slim", "--build-arg", "RUNTIME_IMAGE=python:3.13-slim")
CHAINGUARD = (
    "--build-arg",
    "BUILD_IMAGE=cgr.dev/chainguard/python:latest-dev",
    "--build-arg",
    "RUNTIME_IMAGE=cgr.dev/chainguard/python:latest",
)


@pytest.fixture(scope="module")
def made(docker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """made("debian", "/usr/local/bin/python3", *arguments) builds the demo's image with the stand-in."""
    tags: list[str] = []
    made_here = f"test{os.getpid()}"

    def build(name: str, python: str, *arguments: str, answers: dict[str, Any] | None = None) -> str:
        folder = tmp_path_factory.mktemp(name)
        stand_in.write(folder / "grype", python, stand_in.THREE if answers is None else answers)
        (folder / "Dockerfile").write_text(
            "FROM scratch\nCOPY grype /grype\n"
        )  # laid out like Anchore's image
        grype = f"grype-stand-in-{name}:{made_here}"
        built = docker("build", "-q", "-t", grype, str(folder))
        assert built.returncode == 0, built.stderr
        tags.append(grype)
        tag = docker.build(
            "demo-supply-chain",
            f"grype-demo-{name}:{made_here}",
            *arguments,
            "--build-arg",
            f"GRYPE_IMAGE={grype}",
        )
        tags.append(tag)
        return str(tag)

    yield build
    for tag in reversed(tags):
        docker("rmi", "-f", tag)
        docker("volume", "rm", "-f", tag.replace(":", "_") + "-db")


@pytest.fixture(scope="module")
def image(made: Callable[..., str]) -> str:
    """The image on a Debian-like base."""
    return made("debian", "/usr/local/bin/python3", *DEBIAN)


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A copy of the demo folder, so that results do not land in the repository."""
    kept = shutil.ignore_patterns("results", "__pycache__", ".mypy_cache", ".ruff_cache")
    return Path(shutil.copytree(ROOT / "demo-supply-chain", tmp_path / "demo-supply-chain", ignore=kept))


@pytest.fixture
def no_python(tmp_path: Path) -> Path:
    """A folder for PATH with docker but without Grype and without a Python that runs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    names = "bash env dirname basename cat find mv cp rm mkdir mktemp chmod sort sed docker".split()  # noqa: SIM905
    for name in names:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return folder


def in_folder(demo: Path, path: Path, tag: str, *command: str, **env: str) -> Result:
    """Type a command in the demo's folder; SCAN_IMAGE names the image that stands for grype-demo."""
    docker_settings = {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
    return subprocess.run(
        command,
        cwd=demo,
        env={"PATH": str(path), "HOME": str(demo.parent), "DOCKER_BUILDKIT": "1", "SCAN_IMAGE": tag}
        | docker_settings
        | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_commands_in_a_hardened_container(docker: Any, image: str) -> None:
    script = """
        set -e
        id -u
        ./scan.sh --plain
        ls results
        ./gold_demo.sh
        python check_mlbom.py results/mlbom.cdx.json
        ./scan.sh --recorded
    """
    result = docker.run(image, "-c", script, flags=("--entrypoint", "/bin/sh"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith("65532\n")
    assert (
        "; built on: debian 12; " in result.stdout and "; Critical: 1; High: 0; Medium: 1;" in result.stdout
    )
    assert "\ncgr.dev_chainguard_python_latest.json\n" in result.stdout
    assert "Gone, the package is no longer there: 3\n" in result.stdout
    assert "example.safetensors: CHANGED\n" in result.stdout
    assert "\nexample.safetensors: unchanged\n" in result.stdout
    assert "\nRECORDED, not measured now.\n" in result.stdout


def test_the_image_scans_by_default_and_ends_with_2_on_failure(docker: Any, image: str) -> None:
    scan = docker.run(image)
    assert scan.returncode == 0, scan.stderr
    assert "- image: python:3.11-alpine; scanned: sha256:2222" in scan.stdout
    failed = docker.run(image, "scan.py", "nosuch:1")
    assert failed.returncode == 2
    assert "could not find registry:nosuch:1" in failed.stderr


def test_without_a_shell_in_the_image(docker: Any, made: Callable[..., str]) -> None:
    tag = made("chainguard", "/usr/bin/python", *CHAINGUARD)
    shell = docker.run(tag, "-c", "true", flags=("--entrypoint", "/bin/sh"))
    assert shell.returncode != 0  # there really is none
    scan = docker.run(tag)
    assert scan.returncode == 0, scan.stderr
    assert "- image: python:3.11; scanned: sha256:1111" in scan.stdout
    gold = docker.run(tag, "gold_demo.py")
    assert gold.returncode == 0, gold.stderr
    assert "The list noticed the change." in gold.stdout


def test_an_image_without_grype_shows_the_recorded_scans(docker: Any) -> None:
    tag = f"grype-demo-none:test{os.getpid()}"
    docker.build("demo-supply-chain", tag, *DEBIAN, "--build-arg", "GRYPE_IMAGE=python:3.13-slim")
    try:
        scan = docker.run(tag)
        gold = docker.run(tag, "gold_demo.py")
    finally:
        docker("rmi", "-f", tag)
    assert scan.returncode == 2
    assert scan.stderr.startswith("error: No live scan: there is no grype command here;")
    assert scan.stdout.startswith("RECORDED")
    assert gold.returncode == 0, gold.stderr


def test_scan_sh_uses_the_image_and_brings_the_reports_back(
    docker: Any, image: str, demo: Path, no_python: Path
) -> None:
    scan = in_folder(demo, no_python, image, "./scan.sh", "--fail-on", "critical")
    assert scan.returncode == 1, scan.stdout + scan.stderr
    assert "- image: python:3.11; scanned: sha256:1111" in scan.stdout
    assert "Scanning 3 of 3: cgr.dev/chainguard/python:latest" in scan.stderr
    report = json.loads((demo / "results" / "python_3.11.json").read_text())
    assert len(report["matches"]) == len(stand_in.BEFORE["matches"])
    assert (demo / "results" / "python_3.11.cdx.json").exists()
    assert not list((demo / "results").glob(".*"))

    (demo / "mine").mkdir()
    example = [sys.executable, str(demo / "make_example.py"), "--output", str(demo / "mine/m.safetensors")]
    subprocess.run(example, check=True, capture_output=True)
    gold = in_folder(demo, no_python, image, "./gold_demo.sh", "--models", "mine")
    assert gold.returncode == 0, gold.stdout + gold.stderr
    assert "Gone, the package is no longer there: 3\n" in gold.stdout  # the reports went into the container
    assert "m.safetensors: CHANGED\n" in gold.stdout
    assert (
        json.loads((demo / "results" / "mlbom.cdx.json").read_text())["components"][0]["name"]
        == "m.safetensors"
    )
    assert not (demo / "results" / "m.safetensors").exists()
    assert docker("ps", "-aq", "--filter", f"ancestor={image}").stdout == ""  # nothing is left running


def test_the_models_of_demo_2_come_out_of_its_image(
    made: Callable[..., str], demo: Path, no_python: Path, docker: Any, tmp_path: Path
) -> None:
    example = [sys.executable, str(demo / "make_example.py"), "--output", str(tmp_path / "m.safetensors")]
    subprocess.run(example, check=True, capture_output=True)
    (tmp_path / "Dockerfile").write_text(
        'FROM scratch\nCOPY m.safetensors /app/models/\nVOLUME /app\nENTRYPOINT ["python"]\n'
    )
    models = f"models-of-tests:{os.getpid()}"
    built = docker("build", "-q", "-t", models, str(tmp_path))
    assert built.returncode == 0, built.stderr
    try:
        image = made("debian", "/usr/local/bin/python3", *DEBIAN)
        gold = in_folder(demo, no_python, image, "./gold_demo.sh", MODELS_IMAGE=models)
        assert gold.returncode == 0, gold.stdout + gold.stderr
        assert f"Taking the models out of the image {models} into " in gold.stderr
        assert "m.safetensors: CHANGED\n" in gold.stdout
        assert docker("ps", "-aq", "--filter", f"ancestor={models}").stdout == ""
    finally:
        docker("rmi", "-f", models)


def test_scan_sh_hands_grype_settings_on_but_no_local_paths(
    made: Callable[..., str], demo: Path, no_python: Path
) -> None:
    names = ["GRYPE_DB_AUTO_UPDATE", "GRYPE_DB_CACHE_DIR"]
    answers = {name: {"environment": [name], "code": 1} for name in names}
    tag = made("settings", "/usr/local/bin/python3", *DEBIAN, answers=answers)
    settings = {"GRYPE_DB_AUTO_UPDATE": "false", "GRYPE_DB_CACHE_DIR": "/home/somebody"}
    said = {name: in_folder(demo, no_python, tag, "./scan.sh", name, **settings).stderr for name in names}
    assert "GRYPE_DB_AUTO_UPDATE=false" in said["GRYPE_DB_AUTO_UPDATE"]
    assert "GRYPE_DB_CACHE_DIR=/db" in said["GRYPE_DB_CACHE_DIR"]


def test_scan_sh_builds_the_image_on_first_use(docker: Any, image: str, demo: Path, no_python: Path) -> None:
    stand_in_tag = image.replace("grype-demo-", "grype-stand-in-")
    tag = f"grype-demo-first:test{os.getpid()}"
    arguments = " ".join([*DEBIAN, "--build-arg", f"GRYPE_IMAGE={stand_in_tag}"])
    try:
        scan = in_folder(demo, no_python, tag, "./scan.sh", WORKSHOP_BUILD_ARGS=arguments)
    finally:
        docker("rmi", "-f", tag)
        docker("volume", "rm", "-f", tag.replace(":", "_") + "-db")
    assert scan.returncode == 0, scan.stdout + scan.stderr
    assert f"Building the image {tag}, once" in scan.stderr
    assert "- image: python:3.11; scanned: sha256:1111" in scan.stdout


def test_scan_sh_when_the_image_cannot_be_built(docker: Any, demo: Path, no_python: Path) -> None:
    bad = "--build-arg GRYPE_IMAGE=nosuch-registry.invalid/grype:1"
    started = time.monotonic()
    scan = in_folder(demo, no_python, "grype-demo-never:test", "./scan.sh", WORKSHOP_BUILD_ARGS=bad)
    assert time.monotonic() - started < 120
    assert scan.returncode == 2
    assert "could not be built (is there internet?); here are recorded scans instead." in scan.stderr
    assert scan.stdout.startswith("RECORDED")


def test_scan_sh_refuses_an_unwritable_results_folder(image: str, demo: Path, no_python: Path) -> None:
    (demo / "results").write_text("in the way")
    scan = in_folder(demo, no_python, image, "./scan.sh")
    assert scan.returncode == 2
    assert f"error: Cannot write in {demo}/results" in scan.stderr
