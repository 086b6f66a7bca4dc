"""The variants: each runs its payload, the payload is harmless, and only our own files are ever run."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import create_malicious_model
import create_malicious_model as attack
import variants
from create_malicious_model import VARIANTS, Variant
from weights import shapes

sys.path.insert(0, str(Path(__file__).resolve().parent))
from malicious_helpers import trained_once

CREATE = "demo-malicious/create_malicious_model.py"
NAMES = list(VARIANTS)

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Refused = Callable[..., None]


def text(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout + result.stderr


@pytest.fixture(scope="module", autouse=True)
def one_training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The small model is trained once for all tests."""
    with trained_once(tmp_path_factory):
        yield


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Where payloads of this test write, a name that a careless shell command would trip over."""
    return tmp_path / "it's a $(marker) & more.txt"


def write(variant: Variant, marker: Path) -> bytes:
    """The bytes of a variant; the trained one comes without its training, which does not run anything."""
    return attack.malicious_bytes(variant.name, marker, shapes.network())


# --- harmless: nothing but the marker, no process, no network -----------------------------------------------

# Fires one file in a fresh Python and reports what Python itself did meanwhile: every file that it opened
# for writing or moved, every command that it started, every use of the network.
WATCH = """
import json, sys
sys.path.insert(0, {demo!r})
from pathlib import Path
import create_malicious_model, joblib
seen = []
def hook(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        seen.append([event, str(arguments[0])])
    elif event.startswith(("socket", "os.", "subprocess", "shutil", "ctypes.dlopen")):
        seen.append([event, str(arguments)])
sys.addaudithook(hook)
create_malicious_model.VARIANTS[{name!r}].fire(Path({path!r}))
events = list(seen)
print(json.dumps(events), file=sys.stderr)
"""
QUIET = {"os.listdir", "os.scandir", "os.putenv", "os.unsetenv"}  # reading, and the environment of a command


class Fired:
    """What one file did when it was loaded in a throw-away folder, in a session of its own."""

    def __init__(self, folder: Path, name: str, data: bytes) -> None:
        self.folder = folder
        self.path = folder / "model"
        self.path.write_bytes(data)
        demo = str(Path(attack.__file__).parent)
        code = WATCH.format(demo=demo, name=name, path=str(self.path))
        places = {name: str(folder) for name in ("HOME", "TMPDIR", "PWD")}
        self.before = self.files()
        child = subprocess.Popen(
            [sys.executable, "-B", "-c", code],
            cwd=folder,
            env=os.environ | places,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.printed, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
        self.events = [tuple(event) for event in json.loads(errors.splitlines()[-1])]
        self.left = self.still_running(child.pid)
        self.after = self.files()

    def files(self) -> dict[str, bytes]:
        """Every file below the folder, with its content."""
        return {
            str(p.relative_to(self.folder)): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()
        }

    @staticmethod
    def still_running(group: int) -> bool:
        """Whether a process of the child's session is left; it is stopped."""
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def events_of(self, *starts: str) -> list[str]:
        """What Python did of these kinds."""
        return [what for event, what in self.events if event.startswith(starts) and event not in QUIET]


@pytest.mark.parametrize("name", NAMES)
def test_each_payload_is_harmless(name: str, tmp_path: Path) -> None:
    """Only the marker is new on disk; one command at most, and it is the documented one; nothing stays."""
    marker = tmp_path / "marker.txt"
    fired = Fired(tmp_path, name, write(VARIANTS[name], marker))
    assert fired.after == fired.before | {"marker.txt": (attack.MESSAGE + "\n").encode()}
    assert fired.left is False
    assert fired.events_of("socket") == []
    assert [what for event, what in fired.events if event == "open"] == []  # the marker is the shell's work
    assert len(fired.events_of("os.system", "subprocess")) == 1
    # from Python 3.13 on, subprocess itself reports a second time, as os.posix_spawn
    for started in fired.events_of("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess"):
        assert attack.shell_text(marker) in started.encode().decode("unicode_escape")
    changes = fired.events_of("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "shutil")
    assert [
        what for what in changes if "torchinductor_" not in what
    ] == []  # PyTorch's own empty cache folder
    printed = [line for line in fired.printed.splitlines() if line.strip()]
    # collect_env.run keeps what its command prints and returns it
    assert printed == ([] if name == "collect-env" else [f"    >>> {attack.MESSAGE} <<<"])


def test_the_command_is_two_times_echo(tmp_path: Path) -> None:
    words = attack.shell_text(tmp_path / "marker").replace(attack.MESSAGE, "TEXT").split(";")
    assert words == [f"echo 'TEXT' > {tmp_path}/marker", " echo '    >>> TEXT <<<'"]


@pytest.mark.skipif(not attack.SHELL.exists(), reason="needs a shell to leave a process behind")
def test_the_watch_would_notice_harm(tmp_path: Path) -> None:
    """The same watch over a payload that is not harmless: it must see all of it."""
    code = (
        "import socket, subprocess; open('extra', 'w').close();"
        "subprocess.Popen(['sleep', '60'], stdout=-3, stderr=-3, stdin=-3);"
        "socket.socket().connect_ex(('127.0.0.1', 9))"
    )
    fired = Fired(tmp_path, "system", variants.saved(attack.Payload(exec, code)))
    assert set(fired.after) - set(fired.before) == {"extra"}
    assert fired.left is True
    assert len(fired.events_of("socket.connect")) == 1
    assert fired.events_of("subprocess") != []
    assert [what for event, what in fired.events if event == "open"] == ["extra"]


# --- malicious: refused by the safe loader, run by the old one ----------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_refused_by_the_safe_loader_and_run_by_the_other(
    name: str, tmp_path: Path, marker: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model"
    path.write_bytes(write(VARIANTS[name], marker))
    with warnings.catch_warnings(), pytest.raises((pickle.UnpicklingError, RuntimeError)):
        warnings.simplefilter("ignore")  # about joblib's newer kind of pickle
        torch.load(path, weights_only=True)
    assert not marker.exists()
    loaded = VARIANTS[name].fire(path)
    assert marker.read_text() == attack.MESSAGE + "\n"
    assert f">>> {attack.MESSAGE} <<<" in capfd.readouterr().out + repr(loaded)
    assert sorted(tmp_path.iterdir()) == sorted([path, marker])


@pytest.mark.parametrize("name", NAMES)
def test_no_shell_is_no_defence(
    name: str, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attack, "SHELL", tmp_path / "no shell here")
    path = tmp_path / "model"
    path.write_bytes(write(VARIANTS[name], marker))
    VARIANTS[name].fire(path)
    assert marker.read_text() == attack.MESSAGE + "\n"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "resnet18"])
def test_the_same_payload_gives_the_same_bytes(name: str, marker: Path) -> None:
    assert attack.malicious_bytes(name, marker) == attack.malicious_bytes(name, marker)


def test_the_hidden_payload_changes_no_weight(tmp_path: Path, marker: Path) -> None:
    model = shapes.network()
    path = tmp_path / "model.pt"
    path.write_bytes(attack.malicious_bytes("resnet18", marker, model))
    loaded: Any = variants.unsafe_torch_load(path)
    assert list(loaded) == list(model.state_dict())
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    shapes.network(loaded, path)  # raises if a name is missing or too many
    assert "note" not in model.state_dict()._metadata  # the model in memory stays clean


def test_each_variant_is_described_and_published() -> None:
    assert len(VARIANTS) >= 6
    assert len({variant.file for variant in VARIANTS.values()}) == len(VARIANTS)
    for name, variant in VARIANTS.items():
        assert variant.name == name
        assert variant.about.endswith(".")
        assert "\n" not in variant.about
        assert variant.source.startswith("https://")


# --- only our own files are ever run -----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_our_own_file_is_known(name: str, tmp_path: Path, marker: Path) -> None:
    variant, path = VARIANTS[name], tmp_path / "model"
    data = write(variant, marker)
    path.write_bytes(data)
    assert attack.is_ours(variant, path, marker)
    assert not attack.is_ours(variant, path, tmp_path / "another marker, with another length")
    path.write_bytes(data.replace(b"echo", b"true"))
    assert not attack.is_ours(variant, path, marker)
    path.write_bytes(data + b"x")
    assert not attack.is_ours(variant, path, marker)
    assert not attack.is_ours(variant, tmp_path / "missing", marker)
    assert not attack.is_ours(variant, tmp_path, marker)


def test_no_other_program_passes_as_ours(tmp_path: Path, marker: Path) -> None:
    """A zip file of the right size whose program is another one, or stands there twice."""
    path, variant = tmp_path / "model", VARIANTS["nested"]
    path.write_bytes(attack.malicious_bytes(variant.name, marker))
    with zipfile.ZipFile(path) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    for changed in (
        [(name, data.replace(b"epoch", b"epocH")) for name, data in members],
        [*members, members[0]],
    ):
        file = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
            warnings.simplefilter("ignore")  # about the name that stands there twice
            for name, data in changed:
                archive.writestr(name, data)
        assert variants.program(file.getvalue()) != variants.program(path.read_bytes())


def test_other_weights_are_still_ours(tmp_path: Path, marker: Path) -> None:
    """Numbers do not run, so a model that was trained on another machine is the same program."""
    path = tmp_path / "model.pt"
    path.write_bytes(attack.malicious_bytes("resnet18", marker, shapes.network()))
    other = attack.malicious_bytes("resnet18", marker, shapes.network())
    assert other != path.read_bytes()
    assert variants.program(other) == variants.program(path.read_bytes())


# --- the commands ------------------------------------------------------------------------------------------


def test_attack_goes_from_absent_to_present(run_script: Run, tmp_path: Path, marker: Path) -> None:
    result = run_script(CREATE, "attack", "--marker", marker)
    assert result.returncode == 0, text(result)
    before, refused, after = (part for part in result.stdout.split("\n\n== ") if "exists:" in part)
    assert f"{marker} exists: False" in before
    assert "Refused: it wants to import" in refused
    assert f"{marker} exists: False" in refused
    assert f"{marker} exists: True" in after
    assert attack.MESSAGE in marker.read_text()
    # harmless: the model and the marker are all there is, so no part of the odd name was run as a command
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "malicious_model.pt", marker])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "resnet18"])
def test_create_and_attack_each_variant(run_main: Run, tmp_path: Path, marker: Path, name: str) -> None:
    created = run_main(create_malicious_model, "--variant", name, "--marker", marker)
    assert created.returncode == 0, text(created)
    assert created.stdout.startswith(f"Wrote {VARIANTS[name].file} (")
    assert not marker.exists()
    attacked = run_main(create_malicious_model, "attack", "--variant", name, "--marker", marker)
    assert attacked.returncode == 0, text(attacked)
    assert "Wrote" not in attacked.stdout  # it ran the file that was there
    # what comes before the attack: refused, read as the other format that it is, or there is no safe way
    safe = {"export": "No: torch.export.load tries", "two-formats": "Loaded as the other format that it is"}
    first = safe.get(name, "Refused: ")
    assert first in attacked.stdout
    assert attacked.stdout.count("exists: False") == 2
    assert attacked.stdout.count("exists: True") == 1
    assert "\n" not in text(attacked).split(first)[1].split(f".\n{marker} exists")[0]
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / VARIANTS[name].file, marker])


def test_a_working_model_with_a_payload_predicts_the_same(run_main: Run, marker: Path) -> None:
    result = run_main(create_malicious_model, "attack", "--variant", "resnet18", "--marker", marker)
    assert result.returncode == 0, text(result)
    assert "came back with 122 tensors, the weights of a working model" in result.stdout
    assert "Largest difference to the scores of the clean model: 0.0." in result.stdout
    accuracy = float(result.stdout.split("it classifies ")[1].split("%")[0])
    assert accuracy > 95


def test_list_names_every_variant_and_its_source(run_main: Run, tmp_path: Path) -> None:
    result = run_main(create_malicious_model, "--list")
    assert result.returncode == 0
    for variant in VARIANTS.values():
        assert f"variant: {variant.name}; file: {variant.file}" in result.stdout
        assert variant.source in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_unknown_variant_is_a_usage_error(run_main: Run) -> None:
    result = run_main(create_malicious_model, "--variant", "no-such")
    assert result.returncode == 2
    assert "system-legacy" in result.stderr


def test_attack_removes_its_old_marker_first(run_main: Run, marker: Path) -> None:
    for _ in range(2):
        result = run_main(create_malicious_model, "attack", "--marker", marker)
        assert result.returncode == 0, text(result)
        assert result.stdout.count("exists: False") == 2
        assert result.stdout.count("exists: True") == 1


def test_attack_never_runs_a_payload_that_is_not_ours(run_main: Run, tmp_path: Path, marker: Path) -> None:
    foreign = tmp_path / "foreign.txt"
    for variant in (VARIANTS["system"], VARIANTS["joblib"]):
        call = attack.Payload(os.system, f"echo x > '{foreign}'")
        (tmp_path / variant.file).write_bytes(variants.saved(call))
        result = run_main(create_malicious_model, "attack", "--variant", variant.name, "--marker", marker)
        assert result.returncode == 0, text(result)
        assert f"Wrote {variant.file}" in result.stdout
        assert not foreign.exists()


@pytest.mark.parametrize("name", ["system", "joblib"])
def test_attack_says_when_the_safe_default_is_switched_off(
    run_main: Run, marker: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    result = run_main(create_malicious_model, "attack", "--variant", name, "--marker", marker)
    assert result.returncode == 0, text(result)
    assert "NOT refused: TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" in result.stdout


def test_a_foreign_file_is_never_taken_for_the_marker(
    run_main: Run, assert_refused: Refused, tmp_path: Path
) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("three years of work")
    assert_refused(run_main(create_malicious_model, "attack", "--marker", thesis), thesis, "--marker")
    assert thesis.read_text() == "three years of work"


@pytest.mark.parametrize("place", ["/proc/no/marker.txt", "/dev/null/marker.txt"])
def test_marker_in_an_unwritable_place(run_main: Run, assert_refused: Refused, place: str) -> None:
    assert_refused(run_main(create_malicious_model, "attack", "--marker", place), place, "--marker")


@pytest.mark.parametrize("place", ["file/model.pt", "/proc/model.pt"])
def test_unwritable_model(
    run_main: Run, assert_refused: Refused, tmp_path: Path, marker: Path, place: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    for action in ("create", "attack"):
        refused = run_main(create_malicious_model, action, "--model", place, "--marker", marker)
        assert_refused(refused, place)
    assert not marker.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_model_that_is_a_folder(run_main: Run, assert_refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "malicious_model.pt").mkdir()
    assert_refused(run_main(create_malicious_model), "malicious_model.pt")
    assert list((tmp_path / "malicious_model.pt").iterdir()) == []
