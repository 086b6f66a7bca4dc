"""Real Grype, Syft and a registry on loopback, for tests: small images with real package databases.

The programs come from real_tools.sh, which builds them with Go; the vulnerability database is built by
Grype's own builder from the records in grype_db/records. Where there is no Go the tests skip, unless
WORKSHOP_REQUIRE_GRYPE is set. The images hold package databases in their real formats and nothing that runs.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def tools_folder() -> Path:
    """The folder of the real programs; installs them where Go is there, else skips the test."""
    if not shutil.which("go") and not os.environ.get("WORKSHOP_REQUIRE_GRYPE"):
        found = subprocess.run(
            [HERE / "real_tools.sh", "--have"], capture_output=True, text=True, check=False
        )
        if found.returncode != 0:
            pytest.skip("Go is not on this machine, so real Grype cannot be built")
    made = subprocess.run([HERE / "real_tools.sh"], capture_output=True, text=True, check=False, timeout=1800)
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.strip())


def layer(files: dict[str, str]) -> bytes:
    """A layer of an image: these files, always the same bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, text in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return content.getvalue()


def debian(release: str, packages: dict[str, tuple[str, str]]) -> dict[str, str]:
    """os-release and dpkg's database, for packages name -> (source, version)."""
    stanzas = [
        f"Package: {name}\nStatus: install ok installed\nMaintainer: x\nArchitecture: amd64\n"
        f"Source: {source}\nVersion: {version}\nDescription: x\n"
        for name, (source, version) in packages.items()
    ]
    return {
        "etc/os-release": f'ID=debian\nVERSION_ID="{release}"\nNAME="Debian GNU/Linux"\n',
        "var/lib/dpkg/status": "\n".join(stanzas) + "\n",
    }


def alpine(release: str, packages: dict[str, str]) -> dict[str, str]:
    """os-release and apk's database, for packages name -> version."""
    stanzas = [
        f"C:Q1x\nP:{name}\nV:{version}\nA:x86_64\nS:1\nI:1\nT:x\nU:x\nL:MIT\no:{name}\n"
        for name, version in packages.items()
    ]
    return {
        "etc/os-release": f"ID=alpine\nVERSION_ID={release}.0\nNAME=Alpine\n",
        "lib/apk/db/installed": "\n".join(stanzas) + "\n",
    }


def python_packages(packages: dict[str, str]) -> dict[str, str]:
    """What pip leaves of installed packages, for name -> version."""
    return {
        f"usr/local/lib/python3.11/site-packages/{name}-{version}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        for name, version in packages.items()
    }


PYTHON = {
    "usr/local/lib/libpython3.11.so.1.0": "\x00" * 9 + "3.11.9" + "\x00" * 9
}  # as Syft recognises Python
OLD = {
    **debian(
        "12",
        {
            "zlib1g": ("zlib", "1:1.2.13.dfsg-1"),
            "libc6": ("glibc", "2.36-9+deb12u1"),
            "libc-bin": ("glibc", "2.36-9+deb12u1"),
            "libssl3": ("openssl", "3.0.17-1~deb12u2"),
            "bash": ("bash", "5.2.15-2+b2"),
        },
    ),
    **python_packages({"pip": "24.0", "setuptools": "65.5.1", "torch": "2.5.1", "pillow": "9.5.0"}),
    **PYTHON,
}
NEW = {
    **debian(
        "12",
        {
            "zlib1g": ("zlib", "1:1.2.13.dfsg-1"),
            "libc6": ("glibc", "2.36-9+deb12u13"),
            "libssl3": ("openssl", "3.0.17-1~deb12u3"),
        },
    ),
    **python_packages({"pip": "25.3", "torch": "2.14.0"}),
    **PYTHON,
}
SMALL = {**alpine("3.22", {"busybox": "1.37.0-r18", "musl": "1.2.5-r10"}), **python_packages({"pip": "25.2"})}
FORGOTTEN = debian("10", {"zlib1g": ("zlib", "1:1.2.11.dfsg-1+deb10u2")})
IMAGES = {"python:3.11": OLD, "python:3.11-slim": NEW, "python:3.11-alpine": SMALL, "debian:10": FORGOTTEN}


@dataclass(frozen=True)
class Grype:
    """Where the real parts are."""

    tools: Path  # grype, syft, crane
    registry: str  # host and port
    database: Path  # the archive that `grype db import` takes
    cache: Path  # GRYPE_DB_CACHE_DIR with that database in it

    def name(self, image: str) -> str:
        """The image's name in our registry."""
        return f"{self.registry}/{image}"

    def crane(self, *arguments: str) -> str:
        """Run crane, which puts images together and talks to registries."""
        return run([str(self.tools / "crane"), *arguments])

    def settings(self, cache: Path | None = None) -> dict[str, str]:
        """The environment for an offline scan with our database."""
        return {"GRYPE_DB_AUTO_UPDATE": "false", "GRYPE_DB_CACHE_DIR": str(cache or self.cache)}


def run(command: list[str], **env: str) -> str:
    """Run a program that must work; gives its output."""
    result = subprocess.run(
        command, env=os.environ | env, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def build_database(tools: Path, folder: Path, built: datetime) -> Path:
    """Build a database with Grype's builder that says it was built then; gives the archive."""
    when = built.strftime("%Y-%m-%dT%H:%M:%SZ")
    command = [str(tools / "grype-db-build"), str(HERE / "grype_db" / "records"), str(folder), when]
    return Path(run(command).splitlines()[-1])


def push(crane: Path, name: str, files: dict[str, str], folder: Path, platform: str) -> None:
    """Make an image of one layer in the registry."""
    archive = folder / "layer.tar"
    archive.write_bytes(layer(files))
    run([str(crane), "append", "-f", str(archive), "-t", name])
    run([str(crane), "mutate", name, "--set-platform", platform, "-t", name])


def serve(tools: Path, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a registry on a free port of loopback."""
    log = (folder / "registry.log").open("w")
    process = subprocess.Popen(
        [tools / "crane", "registry", "serve", "--address", "127.0.0.1:0"], stdout=log, stderr=log
    )
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if found := re.search(r"serving on port (\d+)", (folder / "registry.log").read_text()):
            return process, f"localhost:{found.group(1)}"
        time.sleep(0.1)
    process.kill()
    raise AssertionError((folder / "registry.log").read_text())


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grype]:
    """Real Grype with a small database, and a registry that serves IMAGES. Made once for all tests."""
    tools = tools_folder()
    folder = tmp_path_factory.mktemp("real-grype")
    database = build_database(tools, folder / "database", datetime.now(timezone.utc) - timedelta(hours=1))
    grype = {"GRYPE_DB_CACHE_DIR": str(folder / "cache"), "GRYPE_CHECK_FOR_APP_UPDATE": "false"}
    run([str(tools / "grype"), "db", "import", str(database)], **grype)
    process, registry = serve(tools, folder)
    try:
        for image, files in IMAGES.items():
            push(tools / "crane", f"{registry}/{image}", files, folder, "linux/amd64")
        push(tools / "crane", f"{registry}/both:arm64", SMALL, folder, "linux/arm64")
        push(tools / "crane", f"{registry}/both:amd64", OLD, folder, "linux/amd64")
        run(
            [
                str(tools / "crane"),
                "index",
                "append",
                "-m",
                f"{registry}/both:arm64",
                "-m",
                f"{registry}/both:amd64",
            ]
            + ["-t", f"{registry}/both:1"]
        )
        yield Grype(tools, registry, database, folder / "cache")
    finally:
        process.terminate()
        process.wait(timeout=30)
