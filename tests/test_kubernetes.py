"""Demo 3's gate of a cluster: the files are well-formed and agree, and Kyverno itself decides as they say.

Kyverno's command is not built by the tests: real_kyverno.sh does that with Go, in minutes and gigabytes.
"""

# ruff: noqa: F811, F401 (fixtures are imported, and then named as arguments)

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.append(str(Path(__file__).resolve().parent))
from scan_helpers import DEMO, Result  # noqa: I001
from real_grype import Grype, real

FOLDER = DEMO / "kubernetes"
HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def kyverno() -> str:
    """Kyverno's command: that of real_kyverno.sh, or one on the PATH."""
    built = subprocess.run([HERE / "real_kyverno.sh", "--have"], check=False, capture_output=True, text=True)
    found = built.stdout.strip() or shutil.which("kyverno")
    if not found:
        pytest.skip("there is no kyverno command: tests/real_kyverno.sh builds one with Go, in minutes")
    return found


def run(*command: str | Path) -> Result:
    return subprocess.run(
        list(map(str, command)), cwd=FOLDER, check=False, capture_output=True, text=True, timeout=300
    )


def documents(name: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all((FOLDER / name).read_text()) if one]


def test_kyverno_lets_in_and_refuses_what_its_own_test_says(kyverno: str) -> None:
    result = run(kyverno, "test", "tests", "--remove-color")
    assert result.returncode == 0, result.stdout + result.stderr
    expected = documents("tests/kyverno-test.yaml")[0]["results"]
    count = sum(len(one["resources"]) for one in expected)
    assert f"Test Summary: {count} tests passed and 0 tests failed" in result.stdout


def test_every_rule_refuses_something_and_every_pod_is_judged() -> None:
    """A test that only ever passes would prove nothing."""
    test = documents("tests/kyverno-test.yaml")[0]
    pods = {one["metadata"]["name"] for one in documents("tests/pods.yaml")}
    for policy in ("images-by-digest", "verified-models", "restricted"):
        judged = {one["result"]: set(one["resources"]) for one in test["results"] if one["policy"] == policy}
        assert judged["fail"] and judged["pass"] | judged["fail"] == pods
    named = {path for path in test["policies"] if path.startswith("../")}
    assert named | {"../policies/signed-images.yaml"} == {
        f"../policies/{path.name}" for path in (FOLDER / "policies").iterdir()
    }


def test_the_deployment_gets_in_and_a_weaker_one_does_not(kyverno: str, tmp_path: Path) -> None:
    rules = ["tests/restricted.yaml", "policies/images-by-digest.yaml", "policies/verified-models.yaml"]
    result = run(kyverno, "apply", *rules, "-r", "app.yaml")
    assert "pass: 3, fail: 0, warn: 0, error: 0, skip: 0" in result.stdout, result.stdout + result.stderr
    text = (FOLDER / "app.yaml").read_text()
    for old, new in (
        ("runAsNonRoot: true", "runAsNonRoot: false"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"),
        ("drop: [ALL]", "drop: [KILL]"),
        ("seccompProfile: {type: RuntimeDefault}", "seccompProfile: {type: Unconfined}"),
        ("@sha256:" + "0" * 64, ":latest"),
        ("        validation.ml.sigstore.dev/ml: sign-colours", "        other: sign-colours"),
        ("mountPath: /models, readOnly: true", "mountPath: /models"),
    ):
        assert old in text
        (tmp_path / "weaker.yaml").write_text(text.replace(old, new))
        weaker = run(kyverno, "apply", *rules, "-r", tmp_path / "weaker.yaml")
        assert "pass: 2, fail: 1," in weaker.stdout, f"{new}: {weaker.stdout}"


def put(registry: str, path: str, content: bytes, kind: str) -> None:
    """Put a manifest into the registry."""
    request = urllib.request.Request(f"http://{registry}/v2/{path}", content, method="PUT")
    request.add_header("Content-Type", kind)
    urllib.request.urlopen(request, timeout=30).close()


def blob(registry: str, name: str, content: bytes) -> dict[str, Any]:
    """Put a blob into the registry; gives what a manifest says about it."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    start = urllib.request.Request(f"http://{registry}/v2/{name}/blobs/uploads/", b"", method="POST")
    with urllib.request.urlopen(start, timeout=30) as answer:
        place = answer.headers["Location"]
    place = place if place.startswith("http") else f"http://{registry}{place}"
    put(registry, f"{place.split('/v2/', 1)[1]}?digest={digest}", content, "application/octet-stream")
    return {"digest": digest, "size": len(content)}


def sign(registry: str, name: str, digest: str, key: Any) -> None:
    """What `cosign sign --key` leaves in a registry, in its first format."""
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    said = {
        "critical": {
            "identity": {"docker-reference": f"{registry}/{name}"},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    payload = json.dumps(said).encode()
    signature = base64.b64encode(key.sign(payload, ec.ECDSA(hashes.SHA256()))).decode()
    layer = blob(registry, name, payload) | {
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "annotations": {"dev.cosignproject.cosign/signature": signature},
    }
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}).encode()
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": blob(registry, name, config) | {"mediaType": "application/vnd.oci.image.config.v1+json"},
        "layers": [layer],
    }
    put(
        registry,
        f"{name}/manifests/{digest.replace(':', '-')}.sig",
        json.dumps(manifest).encode(),
        kind,
    )


def test_a_signature_opens_the_gate_and_another_key_does_not(
    kyverno: str, real: Grype, tmp_path: Path
) -> None:
    """The rule of policies/signed-images.yaml, on real images; a key stands for the keyless identity."""
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    ours, theirs = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pods = []
    for name, image, key in (
        ("signed", "python:3.11", ours),
        ("another-key", "python:3.11-slim", theirs),
        ("unsigned", "python:3.11-alpine", None),
    ):
        real.crane("copy", real.name(image), real.name(f"{name}/app:1"))
        digest = real.crane("digest", real.name(f"{name}/app:1"))
        if key:
            sign(real.registry, f"{name}/app", digest, key)
        container = {"name": "app", "image": real.name(f"{name}/app@{digest}")}
        pods.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "signs"},
                "spec": {"containers": [container]},
            }
        )
    policy = documents("policies/signed-images.yaml")[0]
    public = ours.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    policy["spec"]["matchImageReferences"] = [{"glob": f"{real.registry}/*"}]
    policy["spec"]["attestors"][0]["cosign"] = {
        "key": {"data": public.decode()},
        "ctlog": {"insecureIgnoreTlog": True, "insecureIgnoreSCT": True},
    }
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    for pod, verdict in zip(pods, ("pass: 1, fail: 0,", "pass: 0, fail: 1,", "pass: 0, fail: 1,")):
        (tmp_path / "pod.yaml").write_text(yaml.safe_dump(pod))
        result = run(kyverno, "apply", tmp_path / "policy.yaml", "-r", tmp_path / "pod.yaml", "--registry")
        assert verdict in result.stdout, result.stdout + result.stderr


def test_the_files_agree_with_each_other() -> None:
    namespace, deployment, service, network = documents("app.yaml")
    model = documents("model.yaml")[0]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = deployment["spec"]["template"]
    label = pod["metadata"]["labels"]["validation.ml.sigstore.dev/ml"]
    assert label == model["metadata"]["name"]
    (mount,) = pod["spec"]["containers"][0]["volumeMounts"]
    assert model["spec"]["model"]["path"] == mount["mountPath"]
    assert model["spec"]["model"]["signaturePath"].startswith(mount["mountPath"] + "/")
    for one in (deployment, service, network, model):
        assert one["metadata"]["namespace"] == namespace["metadata"]["name"]
    text = (DEMO / "hardened" / "hardened.Dockerfile").read_text()
    assert f"USER {pod['spec']['securityContext']['runAsUser']}:" in text
    assert f"EXPOSE {pod['spec']['containers'][0]['ports'][0]['containerPort']}\n" in text
    assert network["spec"]["egress"] == []


def test_the_release_signs_as_the_rule_asks(root: Path) -> None:
    """The identity that the release signs with is one that the rule takes, and no branch is."""
    (attestor,) = documents("policies/signed-images.yaml")[0]["spec"]["attestors"]
    (identity,) = attestor["cosign"]["keyless"]["identities"]
    release = yaml.safe_load((root / ".github/workflows/release.yml").read_text())
    signs = release["env"]["IDENTITY"].replace("${{ github.repository }}", "OWNER/NAME")
    tag, branch = (signs.replace("${{ github.ref }}", ref) for ref in ("refs/tags/v1.0.0", "refs/heads/main"))
    assert re.fullmatch(identity["subjectRegExp"], tag)
    assert not re.fullmatch(identity["subjectRegExp"], branch)
    assert not re.fullmatch(identity["subjectRegExp"], tag.replace("OWNER", "OTHER"))
    assert f"ISSUER={identity['issuer']}" in (root / "scripts/release.sh").read_text()
