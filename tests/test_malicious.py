"""Demo 1: the attack works and is harmless, the inspector never runs anything, the conversion is exact."""

from __future__ import annotations

import io
import os
import pickle
import random
import re
import signal
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

import cli
import create_malicious_model
import inspect_model
import safe_demo
import safe_loading

CREATE = "demo-malicious/create_malicious_model.py"
INSPECT = "demo-malicious/inspect_model.py"
SAFE = "demo-malicious/safe_demo.py"

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Refused = Callable[..., None]


class Calls:
    """Pickles as a call of `function` with `arguments`; used to write files, never to load them."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.fixture
def run_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Like run_script, inside this process: importing torch again for each bad file would take minutes."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)

    def run(script: str, *args: object) -> subprocess.CompletedProcess[str]:
        module = {CREATE: create_malicious_model, INSPECT: inspect_model, SAFE: safe_demo}[script]
        monkeypatch.setattr("sys.argv", [script, *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ending:
            cli.run(module.main)
        said = capfd.readouterr()
        return subprocess.CompletedProcess([script], ending.value.code, said.out, said.err)  # type: ignore[arg-type]

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Where payloads of this test write, a name that a careless shell command would trip over."""
    return tmp_path / "it's a $(marker) & more.txt"


@pytest.fixture
def malicious(tmp_path: Path, marker: Path) -> Path:
    """A malicious model file, not made by the command under test."""
    path = tmp_path / "given.pt"
    path.write_bytes(create_malicious_model.malicious_bytes(marker))
    return path


@pytest.fixture
def weights() -> safe_loading.Weights:
    """A small state dict."""
    torch.manual_seed(1)
    return dict(torch.nn.Linear(3, 4).state_dict())


@pytest.fixture
def model(tmp_path: Path, weights: safe_loading.Weights) -> Path:
    """The state dict as a pickle."""
    path = tmp_path / "model.pt"
    torch.save(weights, path)
    return path


def text(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout + result.stderr


# --- the paths that the workshop types ---------------------------------------------------------------------


def test_silver_and_gold_path(run_script: Run, tmp_path: Path, root: Path) -> None:
    """The documented commands, one after the other, in one folder (the marker has its default place)."""
    created = run_script(CREATE)
    assert created.returncode == 0, text(created)
    assert (tmp_path / "malicious_model.pt").is_file()

    attacked = run_script(CREATE, "attack")
    assert attacked.returncode == 0, text(attacked)
    exists = [line for line in attacked.stdout.splitlines() if "exists:" in line]
    place = "/tmp/pwned_by_pickle.txt exists:"
    assert exists == [f"{place} False", f"{place} False", f"{place} True"]
    assert attacked.stderr == ""

    inspected = run_script(INSPECT, "malicious_model.pt")
    assert inspected.returncode == 1, text(inspected)
    assert "NOT SAFE TO LOAD" in inspected.stdout

    converted = run_script(SAFE)
    assert converted.returncode == 0, text(converted)
    assert "All 6 tensors are the same, bit for bit." in converted.stdout

    loaded = run_script(SAFE, "load")
    assert loaded.returncode == 0, text(loaded)
    assert "Outputs are identical to those of safe_model.pt: largest difference 0.0." in loaded.stdout

    for name in ("safe_model.pt", "safe_model.safetensors"):  # the last one is shown in the README
        clean = run_script(INSPECT, name)
        assert clean.returncode == 0, text(clean)
        assert "NO CODE FOUND" in clean.stdout

    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["malicious_model.pt", "safe_model.pt", "safe_model.safetensors"]

    refused = run_script(SAFE, "--model", "malicious_model.pt")
    assert refused.returncode == 2

    everything = [created, attacked, inspected, converted, loaded, clean, refused]
    printed = {without_figures(line) for result in everything for line in text(result).splitlines()}
    sample = re.findall(r"^```text\n(.*?)^```$", (root / "demo-malicious/README.md").read_text(), re.M | re.S)
    assert len(sample) == 7
    for line in "".join(sample).splitlines():
        assert without_figures(line) in printed, f"the README shows a line that no command prints: {line}"


def without_figures(line: str) -> str:
    """The line with each number as N: times and sizes differ from run to run, words must not."""
    return re.sub(r"\d+(\.\d+)?", "N", line)


@pytest.mark.parametrize("script", [CREATE, INSPECT, SAFE])
def test_help_shows_commands(run_script: Run, script: str) -> None:
    result = run_script(script, "--help")
    assert result.returncode == 0
    assert f"python {Path(script).name}" in result.stdout


@pytest.mark.parametrize("script", [CREATE, INSPECT, SAFE])
def test_unknown_option_is_a_usage_error(run_here: Run, script: str) -> None:
    result = run_here(script, "--no-such-option")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_plain_text_has_no_colour_and_no_boxes(run_script: Run, malicious: Path) -> None:
    output = run_script(INSPECT, malicious, "--plain").stdout
    assert "\x1b" not in output
    assert output.isascii()


# --- the attack --------------------------------------------------------------------------------------------


def test_attack_goes_from_absent_to_present(run_script: Run, tmp_path: Path, marker: Path) -> None:
    result = run_script(CREATE, "attack", "--marker", marker)
    assert result.returncode == 0, text(result)
    before, refused, after = (part for part in result.stdout.split("\n\n== ") if "exists:" in part)
    assert f"{marker} exists: False" in before
    assert "Refused: it wants to import" in refused
    assert f"{marker} exists: False" in refused
    assert f"{marker} exists: True" in after
    assert create_malicious_model.MESSAGE in marker.read_text()
    # harmless: the model and the marker are all there is, so no part of the odd name was run as a command
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "malicious_model.pt", marker])


def test_attack_removes_its_old_marker_first(run_here: Run, marker: Path) -> None:
    for _ in range(2):
        result = run_here(CREATE, "attack", "--marker", marker)
        assert result.returncode == 0, text(result)
        assert result.stdout.count("exists: False") == 2
        assert result.stdout.count("exists: True") == 1


def test_attack_never_runs_a_payload_that_is_not_ours(run_here: Run, tmp_path: Path, marker: Path) -> None:
    foreign = tmp_path / "foreign.txt"
    torch.save(Calls(os.system, f"echo x > '{foreign}'"), tmp_path / "malicious_model.pt")
    result = run_here(CREATE, "attack", "--marker", marker)
    assert result.returncode == 0, text(result)
    assert "Wrote malicious_model.pt" in result.stdout
    assert not foreign.exists()


def test_attack_says_when_the_safe_default_is_switched_off(run_script: Run, marker: Path) -> None:
    result = run_script(CREATE, "attack", "--marker", marker, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")
    assert "NOT refused: TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" in result.stdout


def test_a_foreign_file_is_never_taken_for_the_marker(
    run_here: Run, assert_refused: Refused, tmp_path: Path
) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("three years of work")
    assert_refused(run_here(CREATE, "attack", "--marker", thesis), thesis, "--marker")
    assert thesis.read_text() == "three years of work"


@pytest.mark.parametrize("place", ["/proc/no/marker.txt", "/dev/null/marker.txt"])
def test_marker_in_an_unwritable_place(run_here: Run, assert_refused: Refused, place: str) -> None:
    assert_refused(run_here(CREATE, "attack", "--marker", place), place, "--marker")


@pytest.mark.parametrize(
    "make", [create_malicious_model.shell_payload, create_malicious_model.python_payload]
)
def test_both_payloads_run_when_loaded_and_only_write_the_marker(
    make: Callable[[Path], object], tmp_path: Path, marker: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pt"
    torch.save(make(marker), path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.read_text() == create_malicious_model.MESSAGE + "\n"
    assert f">>> {create_malicious_model.MESSAGE} <<<" in capfd.readouterr().out
    assert sorted(tmp_path.iterdir()) == sorted([path, marker])


def test_the_same_payload_gives_the_same_bytes(marker: Path) -> None:
    first, second = (create_malicious_model.malicious_bytes(marker) for _ in range(2))
    assert first == second


# --- the inspector -----------------------------------------------------------------------------------------


def dump(value: object, path: Path, kind: str) -> Path:
    """Write a value in one of the formats that torch.load reads."""
    if kind == "zip":
        torch.save(value, path)
    elif kind == "legacy":
        torch.save(value, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(value, protocol=int(kind)))
    return path


@pytest.mark.parametrize("kind", ["zip", "legacy", "0", "2", "4"])
def test_inspect_finds_the_payload_without_running_it(
    run_here: Run, tmp_path: Path, marker: Path, kind: str
) -> None:
    path = dump(create_malicious_model.shell_payload(marker), tmp_path / "model.pt", kind)
    result = run_here(INSPECT, path)
    assert result.returncode == 1, text(result)
    system = f"{os.system.__module__}.system"
    lines = [line for line in result.stdout.splitlines() if "DANGER" in line]
    assert any(f"DANGER, imports {system}" in line for line in lines), result.stdout
    assert any("DANGER, calls system" in line and "echo" in line for line in lines), result.stdout
    assert f"Reason: it imports {system}." in result.stdout
    assert "LIKELY_OVERTLY_MALICIOUS" in result.stdout
    assert result.stderr == ""
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_inspect_passes_a_clean_state_dict(
    run_here: Run, tmp_path: Path, weights: safe_loading.Weights, kind: str
) -> None:
    path = dump(OrderedDict(weights), tmp_path / "model.pt", kind)
    result = run_here(INSPECT, path)
    assert result.returncode == 0, text(result)
    assert "NO CODE FOUND" in result.stdout
    assert "DANGER" not in result.stdout
    # fickling warns of this one as well: our verdict must not hide that
    assert "fickling; answer: LIKELY_UNSAFE" in result.stdout
    assert "fickling warns of every model with tensors" in result.stdout


def test_inspect_names_what_a_deny_list_misses(run_here: Run, tmp_path: Path) -> None:
    """A public gap: fickling gives this call the same answer as a clean file; an allow list does not."""
    from torch.utils import collect_env  # noqa: PLC0415

    path = dump(Calls(collect_env.run, "echo nothing"), tmp_path / "model.pt", "zip")
    result = run_here(INSPECT, path)
    assert result.returncode == 1
    assert "DANGER, imports torch.utils.collect_env.run" in result.stdout
    assert "it imports torch.utils.collect_env.run." in result.stdout
    assert "fickling; answer: LIKELY_UNSAFE" in result.stdout


def test_inspect_finds_a_payload_beside_real_weights(
    run_here: Run, tmp_path: Path, weights: safe_loading.Weights, marker: Path
) -> None:
    mixed = {**weights, "extra": create_malicious_model.shell_payload(marker)}
    result = run_here(INSPECT, dump(mixed, tmp_path / "model.pt", "zip"))
    assert result.returncode == 1
    assert "DANGER, calls system" in result.stdout
    assert not marker.exists()


def test_inspect_finds_a_payload_in_a_pickle_that_is_broken_behind_it(
    run_here: Run, tmp_path: Path, marker: Path
) -> None:
    """Loading would run the payload first and fail afterwards, so "damaged" would be the wrong answer."""
    path = tmp_path / "model.pkl"
    path.write_bytes(
        pickle.dumps(create_malicious_model.shell_payload(marker), protocol=2)[:-1] + b"\xff\xff"
    )
    result = run_here(INSPECT, path)
    assert result.returncode == 1, text(result)
    assert "NOT SAFE TO LOAD" in result.stdout


def test_inspect_reads_the_part_of_a_polyglot_that_torch_reads(
    run_here: Run, tmp_path: Path, weights: safe_loading.Weights, marker: Path
) -> None:
    """An old-format pickle with a clean zip file behind it: zip tools see the zip, torch.load the pickle."""
    path = dump(create_malicious_model.shell_payload(marker), tmp_path / "model.pt", "legacy")
    clean = io.BytesIO()
    torch.save(weights, clean)
    path.write_bytes(path.read_bytes() + clean.getvalue())
    assert zipfile.is_zipfile(path)
    result = run_here(INSPECT, path)
    assert result.returncode == 1, text(result)
    assert "NOT SAFE TO LOAD" in result.stdout


def test_inspect_shows_the_lines_of_a_large_model_on_request(run_here: Run, tmp_path: Path) -> None:
    path = dump({f"t{i}": torch.zeros(1) for i in range(40)}, tmp_path / "model.pt", "zip")
    short, full = run_here(INSPECT, path), run_here(INSPECT, path, "--all")
    assert "more lines without a mark" in short.stdout
    assert "more lines without a mark" not in full.stdout
    assert len(full.stdout) > len(short.stdout)


def test_inspect_reads_the_header_of_safetensors(
    run_here: Run, tmp_path: Path, weights: safe_loading.Weights
) -> None:
    path = tmp_path / "model.safetensors"
    safe_loading.save_safetensors(weights, path)
    result = run_here(INSPECT, path)
    assert result.returncode == 0, text(result)
    assert "name: weight; type: F32; shape: 4x3" in result.stdout
    assert "NO CODE FOUND" in result.stdout


def test_names_in_a_file_cannot_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.safetensors"
    safe_loading.save_safetensors({"\x1b[2J[/red]": torch.zeros(1)}, path)
    assert inspect_model.inspect_safetensors(path, cli.Out(plain=True)) == 0
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert "\\x1b[2J[/red]" in output


def test_old_names_are_written_as_python_3_spells_them() -> None:
    assert inspect_model.full_name("__builtin__", "set") == "builtins.set"
    assert inspect_model.full_name("posix", "system") == "posix.system"


# --- bad input: one sentence, code 2, nothing run, nothing half-written -------------------------------------


def bad_file(kind: str, suffix: str, folder: Path, good: bytes) -> Path:
    """A file (or folder) that no tool can use."""
    path = folder / f"bad{suffix}"
    if kind == "missing":
        return path
    if kind in ("folder", "empty folder"):
        path.mkdir()
        if kind == "folder":
            (path / "model.pt").write_bytes(good)
        return path
    path.write_bytes(
        {
            "empty": b"",
            "text": b"import this\nis not a model\n",
            "truncated": good[: len(good) // 2],
            "cut at the start": good[20:],
            "random": random.Random(7).randbytes(5000),
            "zip without pickle": zip_bytes({"readme.txt": b"hello"}),
        }[kind]
    )
    return path


def zip_bytes(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


BAD = ["missing", "folder", "empty folder", "empty", "text", "truncated", "cut at the start", "random"]


@pytest.mark.parametrize("kind", [*BAD, "zip without pickle"])
def test_bad_pickle_file(run_here: Run, assert_refused: Refused, model: Path, kind: str) -> None:
    path = bad_file(kind, ".pt", model.parent, model.read_bytes())
    before = sorted(model.parent.rglob("*"))
    assert_refused(run_here(INSPECT, path), path)
    assert sorted(model.parent.rglob("*")) == before


@pytest.fixture
def safe_model(tmp_path: Path, weights: safe_loading.Weights) -> Path:
    """The state dict as SafeTensors."""
    path = tmp_path / "model.safetensors"
    safe_loading.save_safetensors(weights, path)
    return path


@pytest.mark.parametrize("kind", BAD)
def test_bad_safetensors_file(run_here: Run, assert_refused: Refused, safe_model: Path, kind: str) -> None:
    path = bad_file(kind, ".safetensors", safe_model.parent, safe_model.read_bytes())
    before = sorted(safe_model.parent.rglob("*"))
    assert_refused(run_here(INSPECT, path), path)
    assert sorted(safe_model.parent.rglob("*")) == before


def test_a_renamed_malicious_file_is_refused(
    run_here: Run, assert_refused: Refused, malicious: Path, marker: Path
) -> None:
    renamed = malicious.rename(malicious.with_suffix(".safetensors"))
    assert_refused(run_here(INSPECT, renamed), renamed)
    assert not marker.exists()


def test_inspect_says_when_it_cannot_judge(run_here: Run, assert_refused: Refused, tmp_path: Path) -> None:
    """A harmless pickle with instructions that PyTorch's safe loader does not know: no verdict."""
    path = dump({"a": 1}, tmp_path / "model.pkl", "4")
    result = run_here(INSPECT, path)
    assert "CANNOT BE JUDGED" in result.stdout
    assert_refused(result, path, "cannot be judged")


@pytest.mark.parametrize("place", ["file/model.pt", "/proc/model.pt"])
def test_unwritable_model(
    run_here: Run, assert_refused: Refused, tmp_path: Path, marker: Path, place: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    for action in ("create", "attack"):
        assert_refused(run_here(CREATE, action, "--model", place, "--marker", marker), place)
    assert not marker.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_model_that_is_a_folder(run_here: Run, assert_refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "malicious_model.pt").mkdir()
    assert_refused(run_here(CREATE), "malicious_model.pt")
    assert list((tmp_path / "malicious_model.pt").iterdir()) == []


def test_mutated_files_never_run_and_never_crash(
    tmp_path: Path, marker: Path, weights: safe_loading.Weights
) -> None:
    """A few hundred damaged files: each ends in a verdict or in one sentence, and no payload runs."""
    payload = create_malicious_model.shell_payload(marker)
    suffixes = {"zip": ".pt", "legacy": ".pt", "0": ".pkl", "2": ".pkl", "4": ".pkl"}
    seeds = [
        (dump(value, tmp_path / "seed", kind).read_bytes(), suffix)
        for kind, suffix in suffixes.items()
        for value in (payload, weights if kind in ("zip", "legacy") else {"a": [1.5, "b", payload]})
    ]
    safe_loading.save_safetensors(weights, tmp_path / "seed")
    seeds.append(((tmp_path / "seed").read_bytes(), ".safetensors"))
    dice = random.Random(3)
    out = cli.Out(plain=True)
    refused = 0
    for _ in range(400):
        start, suffix = dice.choice(seeds)
        data = bytearray(start)
        if dice.random() < 0.3:
            del data[dice.randrange(len(data)) :]
        for _ in range(dice.randrange(1, 6) if data else 0):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path = tmp_path / f"mutated{suffix}"
        path.write_bytes(data)
        judge = (
            inspect_model.inspect_safetensors
            if suffix == ".safetensors"
            else partial(inspect_model.inspect_pickles, every_line=True)
        )
        try:
            judge(path, out=out)
        except cli.UserError as error:
            refused += 1
            assert "\n" not in str(error)
        assert not marker.exists()
    assert 0 < refused < 400  # both endings were reached
