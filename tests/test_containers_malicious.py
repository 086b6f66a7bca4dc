"""Demo 1 in its container: the documented commands, with the flags that lock the container up."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

pytestmark = pytest.mark.docker

# what an attendee types after `docker run --rm -it --entrypoint /bin/sh pickle-demo`
DOCUMENTED = """
python create_malicious_model.py
python create_malicious_model.py attack
python inspect_model.py malicious_model.pt; [ $? -eq 1 ]
python safe_demo.py
python safe_demo.py load
python inspect_model.py safe_model.safetensors
"""
ONLINE = """
import socket
socket.setdefaulttimeout(5)
try:
    socket.create_connection(("192.0.2.1", 80))
except OSError as error:
    print(error)
print([name for _, name in socket.if_nameindex()])
"""
RIGHTS = """
import os
print(os.getuid(), os.getgid())
for path in ("/new", "/opt/site/new", "/usr/new"):
    try:
        open(path, "w").close()
    except OSError as error:
        print(path, error.strerror)
print(next(line for line in open("/proc/self/status") if line.startswith("CapEff")).split()[1].strip("0"))
"""


@pytest.fixture(scope="module")
def image(docker: Any) -> str:
    """The image, built as documented but under a name of its own, so that yours stays as it is."""
    return docker.build("demo-malicious", "pickle-demo-test")


def check_paths(output: str) -> None:
    """The attack fired, the inspection found it, and the conversion was exact."""
    place = "/tmp/pwned_by_pickle.txt exists:"
    exists = [line for line in output.splitlines() if "exists:" in line]
    assert exists == [f"{place} False", f"{place} False", f"{place} True"], output
    assert "NOT SAFE TO LOAD" in output
    assert "All 6 tensors are the same, bit for bit." in output
    assert "Outputs are identical to those of safe_model.pt: largest difference 0.0." in output
    assert "malicious file, safe loader off; pickle (.pt): loaded, code RAN" in output


@pytest.mark.parametrize("locked", [True, False], ids=["locked up", "plain docker run"])
def test_documented_commands_in_the_shell(docker: Any, image: str, locked: bool) -> None:
    script = "set -e\n" + DOCUMENTED.strip().replace("; [", " || [")
    if locked:
        result = docker.run(image, "-c", script, flags=("--entrypoint", "/bin/sh"))
    else:
        result = docker("run", "--rm", "--entrypoint", "/bin/sh", image, "-c", script)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    check_paths(result.stdout)


def test_runs_as_an_unprivileged_user_who_can_write_only_in_app_and_tmp(docker: Any, image: str) -> None:
    result = docker.run(image, "-c", RIGHTS)
    assert result.returncode == 0, result.stderr
    ids, *refused, capabilities = result.stdout.splitlines()
    assert ids == "65532 65532"
    assert len(refused) == 3, result.stdout
    assert capabilities == ""
    user = docker("image", "inspect", image, "--format", "{{.Config.User}}").stdout.strip()
    assert user == "65532:65532"


def test_no_network(docker: Any, image: str) -> None:
    result = docker.run(image, "-c", ONLINE)
    assert "Network is unreachable" in result.stdout, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "['lo']"


def test_without_arguments_the_first_script_runs(docker: Any, image: str) -> None:
    result = docker.run(image)
    assert result.returncode == 0, result.stderr
    assert "Wrote malicious_model.pt" in result.stdout


def test_a_run_leaves_nothing_behind(docker: Any, image: str) -> None:
    before = docker("volume", "ls", "-q").stdout, docker("ps", "-aq").stdout
    assert docker.run(image).returncode == 0
    assert (docker("volume", "ls", "-q").stdout, docker("ps", "-aq").stdout) == before


def test_the_image_holds_only_what_the_demo_needs(docker: Any, image: str) -> None:
    result = docker.run(image, "-c", "import os; print(*sorted(os.listdir()), sep='\\n')")
    scripts = ["create_malicious_model.py", "inspect_model.py", "safe_demo.py", "safe_loading.py", "cli.py"]
    assert result.stdout.split() == sorted(scripts)


@pytest.mark.slow
def test_distroless_base(docker: Any) -> None:
    """Bases without a shell: the same scripts, one `docker run` each or all in one container."""
    bases = [
        "BUILD_IMAGE=cgr.dev/chainguard/python:latest-dev",
        "RUNTIME_IMAGE=cgr.dev/chainguard/python:latest",
    ]
    extra = [word for base in bases for word in ("--build-arg", base)]
    image = docker.build("demo-malicious", "pickle-demo-distroless", *extra)
    commands = [shlex.split(line.split(";")[0])[1:] for line in DOCUMENTED.strip().splitlines()]
    # no shell to type them into, so Python starts them one after the other
    call = "print(subprocess.call([sys.executable, *command]), flush=True)"
    typed = f"import subprocess, sys\nfor command in {commands}: {call}"
    result = docker.run(image, "-c", typed)
    codes = [line for line in result.stdout.splitlines() if line.isdigit()]
    assert codes == ["0", "0", "1", "0", "0", "0"], result.stdout + result.stderr
    assert "There is no shell here" in result.stdout
    check_paths(result.stdout)
    no_shell = docker.run(image, "-c", "exit", flags=("--entrypoint", "/bin/sh"))
    assert no_shell.returncode == 127, no_shell.stderr
