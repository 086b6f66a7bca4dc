"""Demo 1 in its container: the documented commands, with the flags that lock the container up."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pickle
import re
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from container_checks import check_no_network, check_nothing_stays, check_rights, nothing_stays

import create_malicious_model as attack
from poisoning_tools import WHOLE

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo-malicious"
Result = subprocess.CompletedProcess[str]

# what an attendee types after `docker run --rm -it --entrypoint /bin/sh pickle-demo`
DOCUMENTED = """
python create_malicious_model.py
python create_malicious_model.py attack
python inspect_model.py malicious_model.pt; [ $? -eq 1 ]
python safe_demo.py
python safe_demo.py load
python inspect_model.py safe_model.safetensors
python sign_model.py keygen
python sign_model.py sign safe_model.safetensors
python sign_model.py sign malicious_model.pt
python sign_model.py verify malicious_model.pt
python policy.py allow safe_model.safetensors
python policy.py allow malicious_model.pt
python policy.py check malicious_model.pt; [ $? -eq 1 ]
python serve.py --model malicious_model.pt; [ $? -eq 1 ]
"""
UNTRAINED = """python -c '
from pathlib import Path
from weights import shapes, writing
writing.save_safetensors(dict(shapes.network().state_dict()), Path("safe_model.safetensors"))'"""
PYTHON = ("--entrypoint", "python")
CODES = ["1" if "; [ $? -eq 1 ]" in line else "0" for line in DOCUMENTED.strip().splitlines()]
SERVER_NEEDS = re.compile(r"malicious_model\.py$|safe_demo\.py$|keygen|sign safe|allow safe")
SERVED = """
python serve.py --model safe_model.safetensors &
tries=60
until python client.py health; do tries=$((tries - 1)); [ "$tries" -gt 0 ]; sleep 1; done
python client.py predict circle.png
python client.py load malicious_model.pt; [ $? -eq 1 ]
"""
# where no shell starts them one after the other: all in one process, because each would import PyTorch again
ONE_PROCESS = """
import runpy, sys
for command in {commands}:
    sys.argv = command
    try:
        runpy.run_path(command[0], run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    print(code, flush=True)
"""
# bytes of all packages but PyTorch and what it needs itself (CUDA's libraries among them), and of everything
SIZES = """
from importlib.metadata import distributions
OF_TORCH = ("torch", "nvidia", "cuda", "triton", "numpy", "sympy", "mpmath", "networkx", "setuptools",
            "jinja2", "markupsafe", "fsspec", "filelock", "typing", "pillow")
extra = everything = 0
for package in distributions(path=["/opt/site", "/opt/torch"]):
    size = sum(path.locate().stat().st_size for path in package.files or [] if path.locate().is_file())
    everything += size
    extra += 0 if package.metadata["Name"].lower().startswith(OF_TORCH) else size
print(extra, everything)
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
    assert "All 122 tensors are the same, bit for bit." in output
    assert "Outputs are identical to those of safe_model.pt: largest difference 0.0." in output
    assert "VERIFIED: malicious_model.pt" in output
    assert "REFUSED: one failed check is enough." in output
    assert "NOT STARTED: malicious_model.pt is refused." in output


def test_documented_commands_in_the_shell(docker: Any, image: str) -> None:
    """All in the weekly run; else what is served: `run 1 --docker` and a test below type the rest.

    What is served then was never trained; that the trained model says "circle" is typed natively.
    """
    lines = [line for line in DOCUMENTED.strip().splitlines() if WHOLE or SERVER_NEEDS.search(line)]
    assert len(lines) == (14 if WHOLE else 5)
    if not WHOLE:
        lines[lines.index("python safe_demo.py")] = UNTRAINED
    script = "set -e\n" + "\n".join([*lines, SERVED]).replace("; [", " || [")
    flags = ("--entrypoint", "/bin/sh")
    result = docker.run(image, "-c", script, flags=flags)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    if WHOLE:
        check_paths(result.stdout)
    assert re.search(f'"class": "{"circle" if WHOLE else "[a-z]+"}"', result.stdout)
    assert "403 Forbidden" in result.stdout


def test_documented_commands_in_a_plain_container(docker: Any, image: str) -> None:
    script = "set -e\n" + "\n".join(DOCUMENTED.strip().replace("; [", " || [").splitlines()[:3])
    result = docker("run", "--rm", "--entrypoint", "/bin/sh", image, "-c", script)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "/tmp/pwned_by_pickle.txt exists: True" in result.stdout


@pytest.fixture
def published(docker: Any, image: str) -> Iterator[str]:
    """The naive server in a container that only this machine can reach, as documented; gives its address."""
    script = "python create_malicious_model.py && python serve.py --naive --host 0.0.0.0"
    started = docker(
        "run", "-d", "--rm", "-p", "127.0.0.1::8000", "--entrypoint", "/bin/sh", image, "-c", script
    )
    assert started.returncode == 0, started.stderr
    name = started.stdout.strip()
    yield f"http://{docker('port', name, '8000').stdout.splitlines()[0]}"
    docker("rm", "--force", "--volumes", name)


def test_the_server_answers_this_machine(published: str) -> None:
    for _ in range(60):
        try:
            with urllib.request.urlopen(f"{published}/health", timeout=10) as answer:
                assert json.load(answer)["status"] == "ok"
                break
        except OSError:
            time.sleep(1)
    else:
        pytest.fail("the server did not answer within a minute")
    order = json.dumps({"path": "malicious_model.pt"}).encode()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{published}/models/load", order, timeout=60)
    assert refused.value.code == 409
    answer = json.load(refused.value)
    assert (answer["before"], answer["after"]) == (False, True)  # owned by a file that is not a model at all


# --- the sandbox -------------------------------------------------------------------------------------------


class Code:
    """Pickles as a call of exec with Python text. Loaded by the sandbox only."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (self.text,)


GREEDY = """
import os, socket, threading

def tried(what, action):
    try:
        action()
        print(what, "REACHED", flush=True)
    except BaseException as error:
        print(what, "failed:", type(error).__name__, flush=True)

def many():
    for _ in range(500):
        threading.Thread(target=threading.Event().wait, daemon=True).start()

def root():
    os.setuid(0)

tried("network", lambda: socket.create_connection(("192.0.2.1", 80), 3))
tried("name", lambda: socket.getaddrinfo("example.org", 80))
tried("engine", lambda: socket.socket(socket.AF_UNIX).connect("/var/run/docker.sock"))
for place in ("/", "/app", "/opt/site", "/opt/torch", "/etc", "/usr", "/var/tmp"):
    tried("write " + place, lambda: open(place + "/new", "w"))
tried("change the program", lambda: open("/app/cli.py", "a"))
tried("root", root)
tried("mount", lambda: os.mkdir("/mnt/new"))
tried("device", lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0)))
tried("fill the memory disk", lambda: open("/tmp/large", "wb").write(bytes(600_000_000)))
os.remove("/tmp/large")
tried("500 threads", many)
print("\\x1b[2J and no control of the terminal", flush=True)
"""


def sandbox(image: str, *arguments: object, **env: str) -> Result:
    """Run the script as a user would."""
    return subprocess.run(
        [str(DEMO / "run_sandboxed.sh"), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"SANDBOX_IMAGE": image} | env,
    )


def hostile(folder: Path, text: str) -> Path:
    """A pickle that runs this Python text."""
    path = folder / "hostile.pkl"
    path.write_bytes(pickle.dumps(Code(text)))
    return path


def test_the_payload_fires_in_the_sandbox_and_reaches_nothing(
    docker: Any, image: str, tmp_path: Path
) -> None:
    marker = tmp_path / "marker.txt"  # of this machine
    (tmp_path / "model.pt").write_bytes(attack.malicious_bytes("system", marker))
    with nothing_stays(docker, image):
        result = sandbox(image, tmp_path / "model.pt")
        assert f">>> {attack.MESSAGE} <<<" in result.stdout  # it ran, but the marker's folder is not in there
        assert "No new file in /tmp, no process." in result.stdout
        assert not marker.exists()
        (tmp_path / "model.pt").write_bytes(attack.malicious_bytes("system", Path("/tmp/sandbox-marker.txt")))
        result = sandbox(image, tmp_path / "model.pt")
        assert result.returncode == 1, result.stdout + result.stderr
        assert f">>> {attack.MESSAGE} <<<" in result.stdout
        assert f"Wrote /tmp/sandbox-marker.txt: {attack.MESSAGE}" in result.stdout
        assert result.stdout.count("answer: closed") == 8
        assert "OPEN" not in result.stdout
        assert not Path("/tmp/sandbox-marker.txt").exists()


@pytest.mark.parametrize("variant", ["system-legacy", "collect-env", "joblib", "export", "two-formats"])
def test_the_demo_files_fire_in_the_sandbox(docker: Any, image: str, variant: str) -> None:
    result = sandbox(image, "--demo", variant)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"Wrote /tmp/pwned_by_pickle.txt: {attack.MESSAGE}" in result.stdout


def test_greedy_code_in_the_sandbox_gets_nothing(docker: Any, image: str, tmp_path: Path) -> None:
    result = sandbox(image, hostile(tmp_path, GREEDY))
    lines = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    assert len([line for line in lines if "failed:" in line]) == 16, result.stdout + result.stderr
    assert "REACHED" not in result.stdout
    assert "\x1b" not in result.stdout


def test_code_that_stays_is_named_and_ends_with_the_sandbox(docker: Any, image: str, tmp_path: Path) -> None:
    code = "import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)"
    result = sandbox(image, hostile(tmp_path, code))
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Still running: sleep 1000" in result.stdout


def test_code_that_takes_all_memory_is_ended(docker: Any, image: str, tmp_path: Path) -> None:
    result = sandbox(image, hostile(tmp_path, "x = bytearray(b'x') * (3 * 2**30)"))
    assert result.returncode == 1, result.stdout + result.stderr
    assert "ended by SIGKILL" in result.stdout or "too much memory" in result.stdout


def test_code_that_never_ends_is_ended_from_outside(docker: Any, image: str, tmp_path: Path) -> None:
    begin = time.monotonic()
    result = sandbox(image, hostile(tmp_path, "while True: pass"), SANDBOX_SECONDS="15")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "more than 15 seconds" in result.stdout
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize(
    ("missing", "named"),
    [("--network none", "network"), ("--memory 2g", "unlimited memory"), ("all", "capabilities")],
)
def test_nothing_is_loaded_where_the_sandbox_has_a_hole(
    docker: Any, image: str, tmp_path: Path, missing: str, named: str
) -> None:
    flags = "--network none --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges"
    flags += " --memory 2g --pids-limit 64"
    command = ["docker", "run", "--rm", "--interactive", *shlex.split("" if missing == "all" else flags)]
    if missing != "all":
        assert missing in flags
        command = shlex.split(shlex.join(command).replace(f" {missing}", ""))
    path = hostile(tmp_path, "print('I RAN', flush=True)")
    with path.open("rb") as file:
        result = subprocess.run(
            [*command, image, "load_untrusted.py", "hostile.pkl"],
            check=False,
            capture_output=True,
            text=True,
            stdin=file,
            timeout=180,
        )
    assert result.returncode == 2, result.stdout + result.stderr
    assert named in result.stderr
    assert "nothing was loaded" in result.stderr
    assert "I RAN" not in result.stdout


# --- the image ---------------------------------------------------------------------------------------------


def test_runs_as_an_unprivileged_user_who_can_write_only_in_app_and_tmp(docker: Any, image: str) -> None:
    check_rights(docker, image, functools.partial(docker.run, image))


def test_no_network(docker: Any, image: str) -> None:
    check_no_network(functools.partial(docker.run, image))


def test_without_arguments_the_first_script_runs_and_nothing_is_left_behind(docker: Any, image: str) -> None:
    assert "Wrote malicious_model.pt" in check_nothing_stays(docker, image)


def test_the_image_holds_only_what_the_demo_needs(docker: Any, image: str) -> None:
    result = docker.run(image, "-c", "import os; print(*sorted(os.listdir()), sep='\\n')")
    there = [path.name for path in DEMO.iterdir() if path.suffix in (".py", ".toml")]
    assert result.stdout.split() == sorted(
        [*there, "circle.png", "exercises", "inspection", "statements", "weights"]
    )


def test_the_image_stays_small(docker: Any, image: str) -> None:
    """Five layers on top of the base image; scanners, signing and the server take less than 100 MB."""
    history = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image)
    layers = [line for line in history.stdout.splitlines() if not line.startswith("0 ")]
    ours = ("COPY /opt/torch", "COPY /opt/site", "COPY /opt/compiled", "COPY /build/app", "COPY /editor/")
    own = [line for line in layers if any(copied in line for copied in ours)]
    assert len(own) == 5, history.stdout
    assert layers[:5] == own
    result = docker.run(image, "-c", SIZES)
    extra, everything = map(int, result.stdout.split())
    assert 0 < extra < 100_000_000
    assert extra < everything / 4


def version(docker: Any, image: str) -> str:
    """The Python of an image, for example 3.12."""
    said = docker.run(image, "-c", "import sys; print(*sys.version_info[:2], sep='.')", flags=PYTHON)
    assert said.returncode == 0, said.stderr
    return str(said.stdout.strip())


@contextlib.contextmanager
def lent_packages(docker: Any, image: str, to: str, file: Path) -> Iterator[tuple[str, ...]]:
    """Write the Dockerfile for images of the base `to`; gives the flags that their containers need.

    If the first image has the same Python, a volume lends its packages, and a note stands in their place:
    PyTorch, which may have gigabytes, and the others, which the weekly run installs as ever.
    """
    text = (DEMO / "Dockerfile").read_text()
    if version(docker, image) != version(docker, to):
        file.write_text(text)
        yield ()
        return
    note = "RUN mkdir /opt/{0} && echo lent >/opt/{0}/note\n\n"
    stage = re.compile(r"^FROM \S+ AS torch$.*?(?=^FROM )", flags=re.M | re.S)
    start = "FROM ${BUILD_IMAGE} AS torch\nUSER 0\nWORKDIR /build\n"
    text, count = stage.subn(start + note.format("torch"), text)
    assert count == 1
    # "RUN " and all lines that end with a backslash, and the last one
    steps = {"compiled": r'^RUN python -c "import torchvision"(?:[^\n]*\\\n)+[^\n]*\n'}
    if not WHOLE:
        steps["site"] = r"^RUN [^\n]*\n *python -m pip install [^\n]*--target /opt/site [^\n]*\n"
    for folder, step in steps.items():
        text, count = re.subn(step, note.format(folder), text, flags=re.M)
        assert count == 1
    file.write_text(text)
    lent = "/opt/torch" if WHOLE else "/opt"
    volume = f"packages-of-tests-{os.getpid()}"
    filled = docker("create", "--volume", f"{volume}:{lent}", image)
    assert filled.returncode == 0, filled.stderr
    try:
        docker("rm", filled.stdout.strip())
        yield ("--volume", f"{volume}:{lent}:ro")
    finally:
        docker("volume", "rm", volume)


@pytest.mark.slow
def test_distroless_base(docker: Any, image: str, tmp_path: Path) -> None:
    """Bases without a shell: the same scripts, one `docker run` each or all in one container."""
    bases = [
        "BUILD_IMAGE=cgr.dev/chainguard/python:latest-dev",
        "RUNTIME_IMAGE=cgr.dev/chainguard/python:latest",
    ]
    extra = [word for base in bases for word in ("--build-arg", base)]
    file = tmp_path / "Dockerfile"
    with lent_packages(docker, image, "cgr.dev/chainguard/python:latest", file) as flags:
        image = docker.build("demo-malicious", "pickle-demo-distroless", *extra, "--file", str(file))
        commands = [shlex.split(line.split(";")[0])[1:] for line in DOCUMENTED.strip().splitlines()]
        result = docker.run(image, "-c", ONE_PROCESS.format(commands=commands), flags=flags)
        codes = [line for line in result.stdout.splitlines() if line.isdigit()]
        assert codes == CODES, result.stdout + result.stderr
        assert "There is no shell here" in result.stdout
        check_paths(result.stdout)
        no_shell = docker.run(image, "-c", "exit", flags=("--entrypoint", "/bin/sh"))
        assert no_shell.returncode == 127, no_shell.stderr
