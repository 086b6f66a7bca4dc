"""Publishing: base images are pinned by real digests, and each image is built for both architectures."""

# ruff: noqa: F811, F401 (fixtures are imported, and then named as arguments)

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.append(str(Path(__file__).resolve().parent))
from scan_helpers import Result  # noqa: I001
from real_grype import Grype, real

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts/refresh_pins.sh"
DOCKERFILES = sorted(
    [*ROOT.glob("demo-*/Dockerfile"), ROOT / "demo-supply-chain/hardened/hardened.Dockerfile"]
)


def pin(*arguments: str | Path, path: str = "/usr/bin:/bin") -> Result:
    return subprocess.run(
        [SCRIPT, *arguments],
        env={"PATH": path, "HOME": os.environ.get("HOME", "/")},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_base_images_are_pinned_to_what_the_registry_has(real: Grype, tmp_path: Path) -> None:
    one, two = tmp_path / "Dockerfile", tmp_path / "two.Dockerfile"
    text = "ARG BUILD_IMAGE={0}\nARG RUNTIME_IMAGE={1}\nARG TORCH_INDEX=https://x/y\nFROM ${{BUILD_IMAGE}}\n"
    old, new = real.name("python:3.11"), real.name("both:1")
    one.write_text(text.format(old, new))
    two.write_text(text.format(old, f"{new}@sha256:{'0' * 64}"))  # pinned some time ago
    assert pin("--check", one).returncode == 1
    result = pin(one, two, path=f"{real.tools}:/usr/bin:/bin")
    assert result.returncode == 0, result.stdout + result.stderr
    pinned = [f"{name}@{real.crane('digest', name)}" for name in (old, new)]
    assert one.read_text() == two.read_text() == text.format(*pinned)
    assert pin("--check", one, two).stdout == "Every base image is pinned by digest.\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Dockerfile", "two.Dockerfile"]


def test_nothing_is_changed_when_one_image_cannot_be_looked_up(real: Grype, tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(
        f"ARG BUILD_IMAGE={real.name('python:3.11')}\nARG RUNTIME_IMAGE={real.name('nosuch:1')}\n"
    )
    before = file.read_text()
    result = pin(file, path=f"{real.tools}:/usr/bin:/bin")
    assert result.returncode == 2
    assert f"the digest of {real.name('nosuch:1')} could not be looked up" in result.stderr
    assert file.read_text() == before


@pytest.mark.parametrize(("arguments", "words"), [(["--all"], "--all"), (["nosuch"], "nosuch is not a file")])
def test_wrong_use_of_the_pinning(arguments: list[str], words: str) -> None:
    result = pin(*arguments)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert words in result.stderr


def test_what_is_not_pinned_is_named() -> None:
    """Not a demand that all is pinned: see the script for why."""
    said = pin("--check").stdout
    for file in DOCKERFILES:
        for base in re.findall(r"^ARG \w+_IMAGE=(\S+)$", file.read_text(), flags=re.M):
            assert ("@sha256:" in base) or f"{file.relative_to(ROOT)}: {base} is not pinned\n" in said


def test_every_base_image_can_be_pinned() -> None:
    """FROM takes nothing but arguments that the script knows, and earlier stages."""
    for file in DOCKERFILES:
        stages = re.findall(r"^FROM \S+ AS (\S+)$", file.read_text(), flags=re.M)
        for base in re.findall(r"^FROM (\S+)", file.read_text(), flags=re.M):
            known = re.fullmatch(r"\$\{(\w+_IMAGE)\}", base)
            assert base in stages or (known and f"ARG {known[1]}=" in file.read_text()), f"{file}: {base}"


def bake() -> dict[str, dict[str, str]]:
    """The targets of docker-bake.hcl with their simple settings."""
    text = (ROOT / "docker-bake.hcl").read_text()
    return {
        name: dict(re.findall(r"^  (\w+) += (.*)$", body, flags=re.M))
        for name, body in re.findall(r'^target "([\w-]+)" \{\n(.*?)^\}', text, flags=re.M | re.S)
    }


def test_the_bake_file_builds_every_image_for_both_architectures() -> None:
    targets = bake()
    common = targets.pop("common")
    assert common["platforms"] == '["linux/amd64", "linux/arm64"]'
    assert "type=sbom" in common["attest"] and "type=provenance,mode=max" in common["attest"]
    built = {
        ROOT / target["context"].strip('"') / target.get("dockerfile", "Dockerfile").strip('"')
        for target in targets.values()
    }
    assert built == set(DOCKERFILES)
    for name, target in targets.items():
        assert target["inherits"] == '["common"]'
        assert target["tags"] == f'["${{REGISTRY}}{name}:${{TAG}}"]'
    script = (ROOT / "scripts/release.sh").read_text()
    assert f'IMAGES="{" ".join(targets)}"' in script


def test_buildx_reads_the_bake_file() -> None:
    found = shutil.which("buildx")
    command = [found] if found else ["docker", "buildx"]
    if (
        not found
        and subprocess.run(["docker", "buildx", "version"], check=False, capture_output=True).returncode
    ):
        pytest.skip("there is no buildx on this machine")
    env = os.environ | {"REGISTRY": "ghcr.io/somebody/", "TAG": "1.2.3"}
    made = subprocess.run(
        [*command, "bake", "--print"], cwd=ROOT, env=env, check=True, capture_output=True, text=True
    )
    assert made.stdout.count("ghcr.io/somebody/") == len(bake()) - 1


def test_the_release_signs_with_no_more_rights_than_it_needs() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    assert jobs["build"]["permissions"] == {"contents": "read", "packages": "write"}
    assert jobs["publish"]["permissions"] == {"contents": "read", "packages": "write", "id-token": "write"}
    assert jobs["publish"]["needs"] == "build"
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands == ["scripts/release.sh build", "scripts/release.sh publish"]


def test_the_release_joins_signs_by_digest_and_verifies(tmp_path: Path) -> None:
    """With stand-ins for docker and cosign, which write down what they were asked."""
    digest = "sha256:" + "1" * 64
    for name in ("docker", "cosign"):
        (tmp_path / name).write_text(
            f'#!/bin/sh\necho "{name} $*" >>"{tmp_path}/asked"\n'
            f'case "$*" in *inspect*) echo {digest} ;; esac\n'
        )
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "REGISTRY": "ghcr.io/Some/", "TAG": "v1", "IDENTITY": "me"}
    subprocess.run([ROOT / "scripts/release.sh", "publish"], env=env, check=True, capture_output=True)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[:4] == [
        "docker buildx imagetools create --tag ghcr.io/some/pickle-demo:v1 "
        "ghcr.io/some/pickle-demo:v1-amd64 ghcr.io/some/pickle-demo:v1-arm64",
        "docker buildx imagetools inspect ghcr.io/some/pickle-demo:v1 --format {{.Manifest.Digest}}",
        f"cosign sign --yes ghcr.io/some/pickle-demo@{digest}",
        "cosign verify --certificate-oidc-issuer https://token.actions.githubusercontent.com "
        f"--certificate-identity me ghcr.io/some/pickle-demo@{digest}",
    ]
    assert len(asked) == 16
    wrong = subprocess.run([ROOT / "scripts/release.sh"], check=False, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
