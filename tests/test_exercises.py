"""The exercises of demo 1: not done as shipped, done with the solution that EXERCISES.md shows."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# both Python demos have a check.py: this one has to come first
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo-malicious"))
import check
import cli

Typed = Callable[[str], int]


@pytest.fixture
def folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of the demo, as an attendee has it; we are in it."""
    shutil.copy(root / "demo-malicious/exercise3.toml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def typed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Typed]:
    """typed("python check.py 1") does what the shell would do and gives the exit code.

    Our scripts run in this process: importing PyTorch again for each command would take a minute.
    """
    before = signal.getsignal(signal.SIGTERM)

    def type_command(line: str) -> int:
        words = shlex.split(line)
        if words[0] != "python" or words[1] == "-c":
            if words[0] == "python":
                words[0] = sys.executable
            return subprocess.run(words, check=False, cwd=folder, timeout=60).returncode
        monkeypatch.setattr("sys.argv", words[1:])
        with pytest.raises(SystemExit) as ending:
            cli.run(importlib.import_module(Path(words[1]).stem).main)
        assert isinstance(ending.value.code, int)
        return ending.value.code

    yield type_command
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def solutions(root: Path) -> list[str]:
    """The commands of each folded solution."""
    text = (root / "demo-malicious/EXERCISES.md").read_text(encoding="utf-8")
    folded = re.findall(r"<details><summary>Solution</summary>\n\n```\n(.*?)```.*?</details>", text, re.S)
    assert len(folded) == len(check.EXERCISES) == text.count("<summary>Solution</summary>")
    return folded


def checked(typed: Typed, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """done, not yet or cannot be checked, for each exercise; the command must say the same by its code."""
    capfd.readouterr()
    code = typed("python check.py")
    said = "".join(capfd.readouterr())
    answers = ["done", "not yet", "cannot be checked"]  # by exit code
    found = dict(re.findall(rf"Exercise (\d):? ({'|'.join(answers)})\.", said))
    assert code == max(map(answers.index, found.values())), said
    assert said.count("Hint: ") == list(found.values()).count("not yet")
    return [found[str(number)] for number in check.EXERCISES]


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="modelscan has no release for this Python")
@pytest.mark.skipif(sys.version_info < (3, 11), reason="picklescan has no release for this Python")
def test_exercises_fail_as_shipped_and_pass_with_the_solutions(
    folder: Path, typed: Typed, solutions: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert checked(typed, capfd) == ["not yet"] * 4
    for number, commands in enumerate(solutions, 1):
        assert typed(f"python check.py {number}") == 1
        for line in commands.splitlines():
            assert typed(line) == 0, capfd.readouterr()
        assert line == f"python check.py {number}"
        assert f"Exercise {number}: done." in capfd.readouterr().out
    assert checked(typed, capfd) == ["done"] * 4
    spoil(folder)
    assert checked(typed, capfd) == ["not yet"] * 4


def spoil(folder: Path) -> None:
    """Take something back from each solution."""
    shutil.copy(folder / "exercise2.pt", folder / "exercise1.pt")
    (folder / "exercise2.safetensors").unlink()
    shutil.copy(folder / "exercise3.toml.bak", folder / "exercise3.toml")


def hint(exercise: int) -> str:
    """The hint that an exercise gives in the folder that we are in."""
    with pytest.raises(check.NotYet) as found:
        check.EXERCISES[exercise]()
    return str(found.value)


def write_rules(**changes: str) -> None:
    rules = {"max_bytes": "1000000", "digests": '"any"', "trusted_keys": '["signer.pub"]', "formats": '"any"'}
    lines = [f"{name} = {value}\n" for name, value in (rules | changes).items()]
    check.POLICY3.write_text("".join(lines))


def test_a_policy_must_refuse_one_file_and_take_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rules(formats='["safetensors"]')
    assert "signed malicious file is refused" in check.write_policy()
    write_rules(formats='["scanned clean"]')
    assert "signed malicious file is refused" in check.write_policy()
    write_rules()
    assert "allows the malicious file" in hint(3)
    write_rules(max_bytes="1")
    assert "refuses the clean model, too" in hint(3)
    write_rules(trusted_keys='"any"')
    assert "asks for no signature" in hint(3)
    check.POLICY3.write_text("max_bytes = ")
    with pytest.raises(cli.UserError):
        check.write_policy()


def test_a_copy_that_was_signed_anew_is_no_solution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sign = check.sign_model
    assert "do exercise 2 first" in hint(4)
    check.SAFE2.write_bytes(b"some model")
    assert "sign_model.py keygen" in hint(4)
    sign.keygen(sign.PRIVATE_KEY, sign.PUBLIC_KEY)
    assert "is not verified" in hint(4)
    sign.sign(check.SAFE2, sign.PRIVATE_KEY)
    assert "tamper" in hint(4)
    shutil.copy(check.SAFE2, check.COPY2)
    assert "is the same as" in hint(4)
    check.COPY2.write_bytes(b"some nodel")
    assert "no signature beside it" in hint(4)
    sign.sign(check.COPY2, sign.PRIVATE_KEY)
    assert "signed the copy anew" in hint(4)
    shutil.copy(sign.signature_beside(check.SAFE2), sign.signature_beside(check.COPY2))
    assert "is not what was signed" in check.tamper()


def test_usage(run_main: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    assert run_main(check, "5").returncode == 2
    nothing = run_main(check, "3")
    assert nothing.returncode == 2
    assert nothing.stderr.startswith("error: Exercise 3 cannot be checked. exercise3.toml does not exist")
    assert list(tmp_path.iterdir()) == []
