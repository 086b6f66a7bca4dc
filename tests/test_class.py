"""The class in a cluster: the manifest is valid, locked and complete, and the scripts do what they say.

No cluster is asked: the manifest is checked against the schemas of Kubernetes, kubectl is a fake.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = ROOT / "class/kubernetes.yaml"
IMAGES = {1: "pickle-demo", 2: "poisoning-demo", 3: "grype-demo"}
Result = subprocess.CompletedProcess[str]

KUBECTL = """#!/bin/sh
echo "kubectl $*" >>"$LOG"
case "$1 $2" in
    "get pods") [ -z "$NO_CLUSTER" ] || exit 1; printf 'pod/seat-0\\npod/seat-1\\npod/seat-2\\n' ;;
    "create configmap") echo "kind: ConfigMap" ;;
    "apply --server-side") cat >"$LOG.applied" ;;
    "exec "*)
        case "$*" in
            *pod/seat-0*) echo '{"tool": "workshop.sh", "format": 1, "name": "Ada", "solved": ["1.1"]}' ;;
            *pod/seat-1*) echo 'half a fi'; exit 1 ;;
            *) exit 1 ;;
        esac ;;
esac
"""


@pytest.fixture(scope="module")
def things() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def pod(things: list[dict[str, Any]]) -> dict[str, Any]:
    (seats,) = (one for one in things if one["kind"] == "StatefulSet")
    spec: dict[str, Any] = seats["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
def test_the_manifest_is_valid(things: list[dict[str, Any]], version: str) -> None:
    assert len(things) == 7
    for thing in things:
        kubernetes_validate.validate(thing, version, strict=True)


def test_a_mistake_in_the_manifest_would_be_seen(things: list[dict[str, Any]]) -> None:
    (seats,) = (one for one in things if one["kind"] == "StatefulSet")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(seats | {"spec": seats["spec"] | {"replica": 3}}, "1.37", strict=True)


def test_every_container_is_locked_and_has_limits(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    for key, value in {"runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532}.items():
        assert pod["securityContext"][key] == value
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    for one in [*pod["initContainers"], *pod["containers"]]:
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert one["resources"]["limits"].keys() == {"cpu", "memory", "ephemeral-storage"}
        assert one["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "ports" not in one
    assert all(set(volume) - {"name"} <= {"emptyDir", "configMap"} for volume in pod["volumes"])


def test_nobody_has_a_network(things: list[dict[str, Any]]) -> None:
    (policy,) = (one for one in things if one["kind"] == "NetworkPolicy")
    assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert {one["metadata"].get("namespace") for one in things[1:]} == {"ml-security-class"}


def test_every_demo_has_its_container_with_what_a_shell_needs(pod: dict[str, Any]) -> None:
    containers = {one["name"]: one for one in pod["containers"]}
    for number, image in IMAGES.items():
        one = containers[f"demo-{number}"]
        assert one["image"] == image
        env = {variable["name"]: variable["value"] for variable in one["env"]}
        assert (env["WORKSHOP_SHELL"], env["WORKSHOP_PROGRESS"]) == (str(number), "/progress")
        assert env["PATH"].startswith("/workshop/scripts/bin:")
        mounts = {mount["mountPath"]: mount["name"] for mount in one["volumeMounts"]}
        assert mounts["/app"] == f"app-{number}" and mounts["/progress"] == "progress"
        assert mounts["/workshop"] == mounts["/app/EXERCISES.md"] == "tools"
        (copy,) = (init for init in pod["initContainers"] if init["name"] == f"copy-{number}")
        assert copy["image"] == image and copy["volumeMounts"][0]["name"] == f"app-{number}"


def test_the_tools_are_all_that_next_needs(pod: dict[str, Any], tmp_path: Path) -> None:
    """Laid out as the cluster would, from the files that tools.sh sends, they answer."""
    sent = {}
    for words in re.findall(r"--from-file=(\S+)", (ROOT / "class/tools.sh").read_text()):
        key, _, name = words.rpartition("=")
        path = ROOT / name
        files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
        sent.update({key or file.name: file for file in files})
    assert sum(file.stat().st_size for file in sent.values()) < 900_000  # a ConfigMap holds a mebibyte
    (tools,) = (volume["configMap"] for volume in pod["volumes"] if volume["name"] == "tools")
    for item in tools["items"]:
        target = tmp_path / item["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(sent[item["key"]].read_bytes())
        target.chmod(tools["defaultMode"])
    env = os.environ | {"WORKSHOP_PROGRESS": str(tmp_path / "p"), "WORKSHOP_SHELL": "1"}
    for command, words in {
        "next": "Next: ",
        "hint": "Hint 1 of 3",
        "share Ada": "Wrote ",
        "status": "OPEN",
    }.items():
        line = [str(tmp_path / "scripts/bin/workshop"), *command.split()]
        result = subprocess.run(line, check=False, env=env, capture_output=True, text=True, timeout=60)
        assert (result.returncode, result.stderr) == (0, ""), command
        assert words in result.stdout


@pytest.fixture
def kubectl(tmp_path: Path) -> dict[str, str]:
    """The environment with a fake kubectl, which logs what it was asked."""
    fake = tmp_path / "bin/kubectl"
    fake.parent.mkdir()
    fake.write_text(KUBECTL)
    fake.chmod(0o755)
    (tmp_path / "log").touch()
    path = f"{fake.parent}:{os.environ['PATH']}"
    return {"PATH": path, "LOG": str(tmp_path / "log"), "WORKSHOP_PROGRESS": str(tmp_path / "progress")}


def typed(script: str, *args: object, **env: str) -> Result:
    return subprocess.run(
        [ROOT / "class" / script, *map(str, args)],
        check=False,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_collecting_takes_what_was_shared_and_nothing_half(kubectl: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    older = {"tool": "workshop.sh", "format": 1, "name": "Bo", "solved": []}
    (folder / "seat-1.json").write_text(json.dumps(older))
    result = typed("collect.sh", folder, **kubectl)
    assert result.returncode == 0, result.stderr
    assert "Ada: 1 solved: 1.1." in result.stdout and "Bo: 0 solved." in result.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["seat-0.json", "seat-1.json"]
    assert "Ada" in (tmp_path / "progress/class.html").read_text()


def test_collecting_without_a_cluster_or_a_folder(kubectl: dict[str, str], tmp_path: Path) -> None:
    result = typed("collect.sh", tmp_path / "files", NO_CLUSTER="1", **kubectl)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert typed("collect.sh", **kubectl).returncode == 2
    assert typed("collect.sh", "--help", **kubectl).stdout.startswith("Collect")


def test_the_tools_are_sent_as_one_config_map(kubectl: dict[str, str]) -> None:
    assert typed("tools.sh", **kubectl).returncode == 0
    asked = Path(kubectl["LOG"]).read_text()
    assert "kubectl create configmap workshop-tools --namespace ml-security-class --dry-run=client" in asked
    assert Path(kubectl["LOG"] + ".applied").read_text() == "kind: ConfigMap\n"
    assert typed("tools.sh", "x", **kubectl).returncode == 2


def test_without_kubectl_it_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bash").symlink_to("/bin/bash")
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    for script in ("tools.sh", "collect.sh"):
        words = [] if script == "tools.sh" else [tmp_path / "files"]
        result = typed(script, *words, PATH=str(tmp_path))
        assert result.returncode == 2 and "kubectl is not installed" in result.stderr


def test_the_load_of_a_class_is_measured() -> None:
    """benchmarks/class_load.py on four people: every answer came, and everybody is on the page."""
    result = subprocess.run(
        [sys.executable, ROOT / "benchmarks/class_load.py", "--quick"],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \|", result.stdout, re.M)
    assert rows == [(name, "4", "0") for name in ("next", "hint", "status", "share")]
