"""Demo 1 as the workshop types it: the commands one after the other, and the README shows what they print.

The parts have files of their own: test_attack.py, test_inspect.py, test_safe_demo.py, test_signing.py,
test_serve.py.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import create_malicious_model
import inspect_model
import make_table
import safe_demo

sys.path.insert(0, str(Path(__file__).resolve().parent))
from malicious_helpers import text, trained_once, type_here

CREATE = "demo-malicious/create_malicious_model.py"
INSPECT = "demo-malicious/inspect_model.py"
SAFE = "demo-malicious/safe_demo.py"
SIGN, POLICY, SERVE, CLIENT, CONTROLS = (
    f"demo-malicious/{name}.py" for name in ("sign_model", "policy", "serve", "client", "controls")
)
# what `*.pt *.safetensors` means where the workshop types it
FILES = (
    "malicious_collect_env.pt",
    "malicious_legacy.pt",
    "malicious_model.pt",
    "safe_model.pt",
    "safe_model.safetensors",
)
PLACE = "/tmp/pwned_by_pickle.txt"

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]
Typed = dict[str, Result]


@pytest.fixture(scope="module", autouse=True)
def one_training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The small model is trained once for all tests."""
    with trained_once(tmp_path_factory):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the commands are typed."""
    return tmp_path_factory.mktemp("workshop")


@pytest.fixture(scope="module")
def typed(folder: Path, root: Path) -> Typed:
    """The documented commands with their results, typed in one folder (the marker has its default place)."""
    commands = (
        f"{CREATE}",
        f"{CREATE} attack",
        f"{INSPECT} malicious_model.pt",
        f"{SAFE}",
        f"{SAFE} load",
        f"{INSPECT} safe_model.safetensors",
        f"{INSPECT} safe_model.pt",
        f"{SAFE} --model malicious_model.pt",
        f"{SAFE} convert malicious_model.pt",
        f"{CREATE} --variant system-legacy",
        f"{CREATE} --variant collect-env",
        f"{INSPECT} {' '.join(FILES)}",
        f"{CREATE} attack --variant resnet18",
        f"{SIGN} keygen",
        f"{SIGN} sign safe_model.safetensors",
        f"{SIGN} verify safe_model.safetensors",
        f"{SIGN} tamper safe_model.safetensors",
        f"{SIGN} verify safe_model_tampered.safetensors",
        f"{SIGN} sign malicious_model.pt",
        f"{SIGN} verify malicious_model.pt",
        f"{POLICY} allow safe_model.safetensors",
        f"{POLICY} check safe_model.safetensors",
        f"{POLICY} allow malicious_model.pt",
        f"{SERVE} --model malicious_model.pt",
        f"{CONTROLS} --backdoored safe_model.pt",
    )
    results = {}
    for command in commands:
        if command.startswith(POLICY):  # the rules lie beside the models
            shutil.copy(root / "demo-malicious/policy.toml", folder)
        # the first two in processes of their own, as people type them; importing PyTorch takes seconds
        words = command.split()
        own = command in (CREATE, f"{CREATE} attack")
        results[command] = (
            run(root, words, folder) if own else type_here([Path(words[0]).name, *words[1:]], folder)
        )
    return results | query_servers(root, folder)


def query_servers(root: Path, folder: Path) -> Typed:
    """The requests of the README, to a server that obeys the policy and to a naive one."""
    shutil.copy(root / "demo-malicious/circle.png", folder)
    results = {}
    with server(root, folder, "--model", "safe_model.safetensors") as url:
        for command in (f"{CLIENT} predict circle.png", f"{CLIENT} load malicious_model.pt"):
            words = [Path(CLIENT).name, *command.split()[1:], "--url", url]
            results[command] = type_here(words, folder)
    with server(root, folder, "--naive") as url:
        Path(PLACE).unlink(missing_ok=True)
        results["naive"] = type_here([Path(CLIENT).name, "load", "malicious_model.pt", "--url", url], folder)
    return results


@contextlib.contextmanager
def server(root: Path, folder: Path, *arguments: str) -> Iterator[str]:
    """A server on a free port; gives its address when it is ready."""
    command = [sys.executable, "-u", str(root / SERVE), "--port", "0", *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            said = ""
            while "Ready" not in said:
                line = process.stdout.readline()
                assert line, f"the server ended: {said}"
                said += line
            match = re.search(r"Listening on (\S+)", said)
            assert match, said
            yield match[1]
        finally:
            process.terminate()


def run(root: Path, words: list[str], folder: Path) -> Result:
    """Run one script, with its output in a pipe."""
    command = [sys.executable, str(root / words[0]), *words[1:]]
    return subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=300)


def test_the_exit_codes(typed: Typed) -> None:
    """0 fine, 1 something was found, 2 wrong use or bad input."""
    codes = [result.returncode for result in typed.values()]
    silver_and_gold = [0, 0, 1, 0, 0, 0, 0, 2, 1, 0, 0, 1, 0]
    signing, policy, asking = [0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 1, 1]
    expected = silver_and_gold + signing + policy + asking
    assert codes == expected, [text(result) for result in typed.values()]
    assert not any("Traceback" in text(result) for result in typed.values())


def test_silver_path(typed: Typed) -> None:
    """The marker is absent, the safe loader refuses, then loading alone writes it."""
    attacked = typed[f"{CREATE} attack"]
    exists = [line for line in attacked.stdout.splitlines() if "exists:" in line]
    assert exists == [f"{PLACE} exists: False", f"{PLACE} exists: False", f"{PLACE} exists: True"]
    assert attacked.stderr == ""


def test_gold_path(typed: Typed) -> None:
    """The code is found without running it, and the conversion is exact."""
    assert "NOT SAFE TO LOAD" in typed[f"{INSPECT} malicious_model.pt"].stdout
    assert "tensors are the same, bit for bit." in typed[SAFE].stdout
    assert (
        "Outputs are identical to those of safe_model.pt: largest difference 0.0."
        in typed[f"{SAFE} load"].stdout
    )
    for name in ("safe_model.pt", "safe_model.safetensors"):
        assert "NO CODE FOUND" in typed[f"{INSPECT} {name}"].stdout
    assert "(5 rows)" in typed[f"{INSPECT} {' '.join(FILES)}"].stdout


def test_nothing_else_is_written(typed: Typed, folder: Path) -> None:
    made = sorted(path.name for path in folder.iterdir())
    assert made == [
        "allowed.sha256",
        "circle.png",
        "malicious_collect_env.pt",
        "malicious_legacy.pt",
        "malicious_model.pt",
        "malicious_model.pt.sig",
        "malicious_resnet18.pt",
        "policy.toml",
        "safe_model.pt",
        "safe_model.safetensors",
        "safe_model.safetensors.sig",
        "safe_model_tampered.safetensors",
        "safe_model_tampered.safetensors.sig",
        "signer.key",
        "signer.pub",
    ]


def test_the_readme_shows_what_the_commands_print(typed: Typed, root: Path) -> None:
    """Every line of the README's samples that comes from these commands; figures may differ."""
    printed = {without_figures(line) for result in typed.values() for line in text(result).splitlines()}
    samples = re.findall(
        r"^```text\n(.*?)^```$", (root / "demo-malicious/README.md").read_text(), re.M | re.S
    )
    assert len(samples) >= 12
    sandbox = "Ways out (8 rows)"  # needs Docker: test_containers_malicious.py looks at it
    shown = "".join(sample for sample in samples if sandbox not in sample).splitlines()
    missing = [line for line in shown if without_figures(line) not in printed]
    assert missing == [], "the README shows lines that no command prints"


def without_figures(line: str) -> str:
    """The line with each number as N: times and sizes differ from run to run, words must not.

    How much faster one format was depends on the run, too: test_safe_demo.py checks those sentences.
    """
    if ", by the medians)" in line:
        line = line.split(" was ", maxsplit=1)[0]
    return re.sub(r"[0-9a-f]{12,64}|\d+(\.\d+)?", "N", line)


@pytest.mark.parametrize("module", [create_malicious_model, inspect_model, make_table, safe_demo])
def test_help_shows_commands(run_main: Run, module: object) -> None:
    name = getattr(module, "__name__", "")
    result = run_main(module, "--help")
    assert result.returncode == 0
    assert f"python {name}.py" in result.stdout
    refused = run_main(module, "--no-such-option")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
