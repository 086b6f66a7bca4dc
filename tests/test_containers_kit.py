"""A kit with Docker images: demo 3's, with real Grype in it, is packed, wiped, unpacked and scans offline."""

# ruff: noqa: F811, F401 (fixtures are imported, and then named as arguments)

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
from scan_helpers import Result, row  # noqa: I001
from real_grype import Grype, real
from test_run import checkout

pytestmark = pytest.mark.docker

IMAGE = f"grype-kit-{os.getpid()}"


def test_pack_wipe_unpack_scan(
    docker: Any, real: Grype, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("kit")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY grype /grype\n")  # laid out like Anchore's image
    shutil.copy(real.tools / "grype", folder)
    assert docker("build", "-q", "-t", f"{IMAGE}-source", str(folder)).returncode == 0
    names = "awk bash basename cat chmod cksum comm cp cut date df dirname docker env find grep head mkdir "
    names += "mktemp mv rm rmdir sed sha256sum sleep sort tail tar touch tr uname wc"
    (folder / "bin").mkdir()
    for name in names.split():
        (folder / "bin" / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name}"))

    def typed(line: str) -> Result:
        """Without Python on the PATH, as where Docker is all that there is."""
        settings = {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
        arguments = f"--build-arg GRYPE_IMAGE={IMAGE}-source"
        return subprocess.run(
            ["bash", "-c", line],
            cwd=checkout,
            env=settings
            | {"PATH": str(folder / "bin"), "HOME": str(folder), "SCAN_IMAGE": IMAGE, "DOCKER_BUILDKIT": "1"}
            | ({} if "unpack" in line else {"WORKSHOP_BUILD_ARGS": arguments}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    def put_database() -> None:
        place = ("--network", "none", "-v", f"{IMAGE}-db:/db", "--entrypoint", "grype")
        made = docker(
            "create", *place, IMAGE, "db", "import", f"/app/tmp/{real.database.name}"
        ).stdout.strip()
        assert docker("cp", str(real.database), f"{made}:/app/tmp/").returncode == 0
        assert docker("start", "-a", made).returncode == 0
        docker("rm", "-v", made)

    try:
        built = typed(f"docker build -q -t {IMAGE} $WORKSHOP_BUILD_ARGS demo-supply-chain")
        assert built.returncode == 0, built.stderr
        put_database()
        results = checkout / "demo-supply-chain/results"
        results.mkdir()
        sbom = results / "python_3.11.syft.json"
        syft = [
            str(real.tools / "syft"),
            "scan",
            f"registry:{real.name('python:3.11')}",
            "-o",
            f"syft-json={sbom}",
        ]
        subprocess.run(syft, check=True, capture_output=True)
        packed = typed(f"./workshop.sh pack '{folder}/made' 3 --docker")
        assert packed.returncode == 0, packed.stdout + packed.stderr
        listed = (folder / "made/MANIFEST").read_text().split("\n\n")[1]
        assert [line.split()[2] for line in listed.splitlines()] == [
            "grype/database.tar.gz",
            f"images/{IMAGE}.tar",
            "sboms/python_3.11.syft.json",
        ]

        assert docker("rmi", "-f", IMAGE).returncode == 0
        assert docker("volume", "rm", f"{IMAGE}-db").returncode == 0
        shutil.rmtree(results)

        unpacked = typed(f"./workshop.sh unpack '{folder}/made'")
        assert unpacked.returncode == 0, unpacked.stdout + unpacked.stderr
        assert "Ready, without internet: ./workshop.sh run --docker 3\n" in unpacked.stdout
        said = typed("cd demo-supply-chain && ./scan.sh --offline")
        assert said.returncode == 0, said.stdout + said.stderr
        assert row(said, "sbom:results/python_3.11.syft.json")["all"] == "9"
        assert "Building the image" not in said.stderr
    finally:
        docker("rmi", "-f", IMAGE, f"{IMAGE}-source")
        docker("volume", "rm", "-f", f"{IMAGE}-db")
