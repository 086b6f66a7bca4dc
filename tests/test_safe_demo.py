"""Demo 1, conversion: exact for what the format holds, a clear no to the rest, and nothing is ever run."""

from __future__ import annotations

import argparse
import collections
import datetime
import functools
import io
import pathlib
import pickle
import random
import re
import struct
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest
import torch
from safetensors import safe_open

import cli
import create_malicious_model as attack
import safe_demo
from inspection import files
from weights import comparison, difference, safe_loading, shapes, state_dicts, writing

sys.path.insert(0, str(Path(__file__).resolve().parent))
from malicious_helpers import trained_once

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Refused = Callable[..., None]


@pytest.fixture(scope="module", autouse=True)
def one_training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The small model is trained once for all tests."""
    with trained_once(tmp_path_factory):
        yield


@pytest.fixture
def safe_here(run_main: Run) -> Run:
    """Run safe_demo.py inside this process, in tmp_path."""
    return functools.partial(run_main, safe_demo)


@pytest.fixture
def weights() -> state_dicts.Weights:
    """A small state dict."""
    torch.manual_seed(1)
    return dict(torch.nn.Linear(3, 4).state_dict())


@pytest.fixture
def model(tmp_path: Path, weights: state_dicts.Weights) -> Path:
    """The state dict as a pickle."""
    return save(weights, tmp_path / "model.pt")


@pytest.fixture
def safe_model(tmp_path: Path, weights: state_dicts.Weights) -> Path:
    """The state dict as SafeTensors."""
    path = tmp_path / "model.safetensors"
    writing.save_safetensors(weights, path)
    return path


def save(value: object, path: Path, **options: bool) -> Path:
    torch.save(value, path, **options)
    return path


def torch_zip(program: bytes, packed: bool = False, **numbers: bytes) -> bytes:
    """A zip file as torch.save writes it, around any pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        for name, data in numbers.items():
            archive.writestr(f"archive/data/{name}", data)
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


# --- the paths that the workshop types (test_malicious.py types them in full) -------------------------------


def test_progress_is_shown_and_nothing_else_is_written(safe_here: Run, tmp_path: Path) -> None:
    created = safe_here("--repeat", 2)
    assert created.returncode == 0, created
    assert created.stderr.endswith("training: 100 percent\n")
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["safe_model.pt", "safe_model.safetensors"]


def test_the_command_line_refuses_a_malicious_file(
    safe_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker, path = tmp_path / "marker", tmp_path / "given.pt"
    path.write_bytes(attack.malicious_bytes("system", marker))
    result = safe_here("convert", path)
    assert result.returncode == 1
    assert result.stdout.startswith(f"NOT CONVERTED: {path}\nReason: ")
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == [path]


def test_help_shows_commands(safe_here: Run) -> None:
    result = safe_here("--help")
    assert result.returncode == 0
    for action in ("", " load", " convert FILE", " compare"):
        assert f"python safe_demo.py{action} " in result.stdout


@pytest.mark.parametrize(
    "args", [["--no-such-option"], ["compare", "--repeat", "0"], ["compare", "--repeat", "x"]]
)
def test_usage_errors(safe_here: Run, args: list[str]) -> None:
    result = safe_here(*args)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


# --- malicious files: refused with the reason, never run ---------------------------------------------------


@pytest.mark.parametrize("switched_off", [False, True])
@pytest.mark.parametrize("name", attack.VARIANTS)
def test_no_variant_is_converted(
    safe_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, switched_off: bool
) -> None:
    if switched_off:  # somebody has switched PyTorch's safe default off for the whole process
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    variant, marker = attack.VARIANTS[name], tmp_path / "marker"
    path = tmp_path / variant.file
    path.write_bytes(  # the program is the same in a trained ResNet18, and training takes some seconds
        attack.malicious_bytes(variant.name, marker, shapes.network())
    )
    for command in (["convert", path], ["--model", path], ["load", path]):
        result = safe_here(*command)
        assert result.returncode in (1, 2), result
        assert str(path) in result.stdout + result.stderr
        assert not marker.exists()
        if command[0] == "convert" and name not in ("joblib", "export", "two-formats"):  # not for torch.load
            assert result.returncode == 1
            assert re.search(r"Reason: .* refused and not run: it wants to import [\w.]+,", result.stdout)
    assert list(tmp_path.iterdir()) == [path]


# --- what can be converted ---------------------------------------------------------------------------------


def test_conversion_is_exact_for_every_kind_of_tensor(safe_here: Run, tmp_path: Path) -> None:
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    weights = {
        "half": torch.randn(5).to(torch.bfloat16),
        "eighth": torch.randn(5).to(torch.float8_e4m3fn),
        "counter": torch.tensor(7, dtype=torch.int64),
        "truth": torch.tensor([True, False]),
        "complex": torch.tensor([1 + 2j], dtype=torch.complex64),
        "nothing": torch.zeros(0, 3),
        "not a number": torch.tensor([float("nan"), -0.0, float("inf")]),
        "turned": base.t(),
        "shared": base,
        "part": base[1:],
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    result = safe_here("convert", save(weights, tmp_path / "model.pt"))
    assert result.returncode == 0, result
    assert "These share their memory: 'turned', 'shared', 'part'." in result.stdout
    assert "Stored in another order (a transposed matrix, for example): 'turned'." in result.stdout
    assert "All 11 tensors are the same, bit for bit." in result.stdout
    converted = safe_loading.load_safetensors(tmp_path / "model.safetensors")
    assert difference.differing(weights, converted) == []
    assert all(converted[name].equal(tensor) for name, tensor in weights.items() if name != "not a number")


@pytest.mark.parametrize("old_format", [False, True])
def test_both_pickle_formats(
    safe_here: Run, tmp_path: Path, weights: state_dicts.Weights, old_format: bool
) -> None:
    path = save(weights, tmp_path / "m.pt", _use_new_zipfile_serialization=not old_format)
    assert safe_here("convert", path).returncode == 0
    converted = safe_loading.load_safetensors(tmp_path / "m.safetensors")
    assert difference.differing(weights, converted) == []


def test_a_difference_is_named() -> None:
    first = {"same": torch.zeros(3), "number": torch.zeros(3), "type": torch.zeros(3), "gone": torch.zeros(1)}
    second = {
        "same": torch.zeros(3),
        "number": torch.tensor([0.0, -0.0, 0.0]),
        "type": torch.zeros(3, dtype=torch.int32),
        "new": torch.zeros(1),
    }
    assert difference.differing(first, second) == ["gone", "new", "number", "type"]


def test_a_wrong_conversion_is_noticed(safe_here: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = writing.save_file

    def wrong(weights: state_dicts.Weights, path: Path, metadata: dict[str, str]) -> None:
        save({name: tensor + (name == "bias") for name, tensor in weights.items()}, path, metadata)

    monkeypatch.setattr(writing, "save_file", wrong)
    result = safe_here("convert", model)
    assert result.returncode == 1
    assert "Different after the conversion: 'bias'." in result.stdout


def test_one_part_of_a_checkpoint(
    safe_here: Run, assert_refused: Refused, tmp_path: Path, weights: state_dicts.Weights
) -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    checkpoint = {"epoch": 3, "state_dict": weights, "optimizer": optimizer.state_dict()}
    path = save(checkpoint, tmp_path / "checkpoint.pt")
    assert_refused(safe_here("convert", path), path, "'epoch'", "--part 'state_dict'")
    assert_refused(safe_here("convert", path, "--part", "optimizer"), path, "more than named tensors")
    assert_refused(safe_here("convert", path, "--part", "no"), path, "no part 'no'")
    assert list(tmp_path.iterdir()) == [path]
    assert safe_here("convert", path, "--part", "state_dict").returncode == 0
    converted = safe_loading.load_safetensors(path.with_suffix(".safetensors"))
    assert difference.differing(weights, converted) == []


@pytest.mark.parametrize(
    "value",
    [torch.zeros(3), [1, 2], {}, {"a": 1}, {1: torch.zeros(1)}, {"optimizer": {"lr": torch.zeros(1)}}],
)
def test_only_state_dicts_are_converted(
    safe_here: Run, assert_refused: Refused, tmp_path: Path, value: object
) -> None:
    path = save(value, tmp_path / "model.pt")
    for command in ("convert", "create"):
        assert_refused(safe_here(command, path), path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_at_any_depth(safe_here: Run, tmp_path: Path, weights: state_dicts.Weights) -> None:
    checkpoint = {"a.b": {"c": {"weights": weights}}, "list": [1], 3: {"ema": weights}}
    path = save(checkpoint, tmp_path / "checkpoint.pt")
    result = safe_here("convert", path)
    assert "--part 'a.b.c.weights' or '3.ema'" in result.stderr
    for part in ("a.b.c.weights", "a.b/c/weights", "3.ema"):
        assert safe_here("convert", path, "--part", part).returncode == 0, part
        converted = safe_loading.load_safetensors(path.with_suffix(".safetensors"))
        assert difference.differing(weights, converted) == []


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (argparse.Namespace(lr=0.1), ["argparse.Namespace"]),
        (numpy.float64(0.5), ["numpy._core.multiarray.scalar", "numpy.dtype"]),
        (numpy.zeros(2), ["numpy._core.multiarray._reconstruct", "numpy.dtype", "numpy.ndarray"]),
        (pathlib.PurePosixPath("a"), ["pathlib.PurePosixPath"]),
        (collections.defaultdict(list), ["builtins.list", "collections.defaultdict"]),
        (datetime.date(2026, 1, 2), ["datetime.date"]),
    ],
)
def test_names_that_only_hold_data_can_be_allowed_one_by_one(
    safe_here: Run, tmp_path: Path, weights: state_dicts.Weights, value: object, names: list[str]
) -> None:
    path = save({"w": weights, "more": value}, tmp_path / "model.pt")
    refused = safe_here("convert", path, "--part", "w")
    assert refused.returncode == 1
    assert "only holds data" in refused.stdout
    assert f"--allow {refused.stdout.rsplit('--allow ')[-1].strip()}" in refused.stdout
    options = [word for name in names for word in ("--allow", name)]
    assert safe_here("convert", path, "--part", "w", *options).returncode == 0, names
    assert (
        safe_here("convert", path, "--part", "w", *options[:-2]).returncode == 1
    )  # each one has to be named


@pytest.mark.parametrize(
    "name", ["os.system", "posix.system", "builtins.eval", "numpy.memmap", "nothing", "a.b"]
)
def test_names_that_could_run_code_cannot_be_allowed(
    safe_here: Run, assert_refused: Refused, tmp_path: Path, name: str
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "given.pt"
    path.write_bytes(attack.malicious_bytes("system", marker))
    assert_refused(safe_here("convert", path, "--allow", name), f"--allow {name} is not possible")
    assert list(tmp_path.iterdir()) == [path]


def test_other_formats_are_named(safe_here: Run, assert_refused: Refused, tmp_path: Path) -> None:
    script = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)
    assert_refused(safe_here("convert", script), script, "TorchScript")
    (tmp_path / "a.npy").write_bytes(
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }".ljust(117)
        + b"\n"
        + bytes(4)
    )
    assert_refused(safe_here("convert", tmp_path / "a.npy"), "NumPy array")


def test_a_model_of_36096_tensors_is_converted(safe_here: Run, tmp_path: Path) -> None:
    path = save(
        {f"layers.{i // 384}.experts.{i % 384}.w": torch.zeros(1) for i in range(36_096)}, tmp_path / "m.pt"
    )
    result = safe_here("convert", path)
    assert result.returncode == 0, result
    assert "All 36096 tensors are the same, bit for bit." in result.stdout


def test_converted_files_say_what_they_are_made_for(safe_here: Run, model: Path) -> None:
    assert safe_here("convert", model).returncode == 0
    with safe_open(model.with_suffix(".safetensors"), "pt") as file:
        assert file.metadata() == {"format": "pt"}


def special(kind: str) -> tuple[str, torch.Tensor]:
    """A name and a tensor that a pickle can hold and SafeTensors cannot."""
    if kind == "quantized":
        with pytest.warns(UserWarning, match="deprecated"):
            return kind, torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)
    return {
        "sparse": ("weird", torch.zeros(3, 3).to_sparse()),
        "without numbers": ("weird", torch.zeros(3, device="meta")),
        "conjugated": ("weird", torch.zeros(3, dtype=torch.complex64).conj()),
        "complex128": ("weird", torch.zeros(3, dtype=torch.complex128)),
        "__metadata__": ("__metadata__", torch.zeros(3)),
        "names": ("\ud800", torch.zeros(3)),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["quantized", "sparse", "without numbers", "conjugated", "complex128", "__metadata__", "names"],
)
def test_what_the_format_cannot_hold_is_refused(
    safe_here: Run, assert_refused: Refused, tmp_path: Path, kind: str
) -> None:
    name, tensor = special(kind)
    path = save({"fine": torch.zeros(1), name: tensor}, tmp_path / "model.pt")
    assert_refused(safe_here("convert", path), kind)
    assert list(tmp_path.iterdir()) == [path]


def test_names_in_a_file_cannot_steer_the_terminal(safe_here: Run, tmp_path: Path) -> None:
    base = torch.zeros(3, 4)
    path = save({"\x1b[2Ja": base, "\x1b[2Jb": base.t()}, tmp_path / "model.pt")
    result = safe_here("convert", path)
    assert result.returncode == 0, result
    assert "\\x1b[2Ja" in result.stdout
    assert "\x1b" not in result.stdout


# --- what the comparison says ------------------------------------------------------------------------------


def figures(pickle: list[float], safe: list[float]) -> list[comparison.Figures]:
    return [
        comparison.Figures("m: size on disk", [1010.0], [1010.0], [1000.0], "bytes"),
        comparison.Figures("m: load", pickle, pickle, safe),
        comparison.Figures("m: load and read every number", pickle, pickle, safe),
    ]


@pytest.mark.parametrize(
    ("pickle", "safe", "sentence"),
    [
        ([8.0, 9.0], [2.0, 2.0], "was faster than the pickle in every run (4.2 times"),
        ([2.0, 9.0, 9.0], [1.0, 3.0, 3.0], "was mostly faster than the pickle (3.0 times"),
        ([2.0, 2.0], [8.0, 9.0], "was not faster than the pickle everywhere (0.2 times"),
    ],
)
def test_only_what_the_figures_show_is_claimed(pickle: list[float], safe: list[float], sentence: str) -> None:
    said = comparison.claims(figures(pickle, safe), [("here", "loaded, code RAN"), ("there", "no code ran")])
    assert sentence in said[0]
    assert "at most 1.00 percent" in said[3]
    assert said[4] == "Code ran in: here."
    assert comparison.claims(figures(pickle, safe), [("here", "refused, no code ran")])[4].endswith(
        "none of the cases."
    )


def test_compare_measures_each_size(safe_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "SIZES", {"100 kB": 100_000, "1 MB": 1_000_000})
    result = safe_here("compare", "--repeat", 2)
    assert result.returncode == 0, result
    for name, least in (("100 kB", 90_000), ("1 MB", 990_000)):
        sizes = re.findall(
            rf"what: {name}: size on disk; .*pickle: (\d+) bytes; .*SafeTensors: (\d+)", result.stdout
        )
        assert len(sizes) == 1
        assert all(least < int(size) < 1.2 * least + 30_000 for size in sizes[0])
        assert f"what: {name}: load; pickle: " in result.stdout
        assert f"what: {name}: load and read every number; " in result.stdout
    for case, ending in (
        ("pickle, safe loader (weights_only=True)", "refused, no code ran"),
        ("pickle, safe loader switched off", "loaded, code RAN"),
        ("the same file renamed to .safetensors", "refused, no code ran"),
        ("a SafeTensors file with the payload's bytes in it", "loaded, no code ran"),
    ):
        assert f"case: {case}; what happened: {ending}\n" in result.stdout
    assert "Code ran in: pickle, safe loader switched off." in result.stdout
    assert list(tmp_path.iterdir()) == []


# --- load --------------------------------------------------------------------------------------------------


def test_load_notices_a_pickle_that_was_changed(safe_here: Run, tmp_path: Path) -> None:
    torch.manual_seed(2)
    weights = dict(shapes.network().state_dict())
    writing.save_safetensors(weights, tmp_path / "mine.safetensors")
    assert "to compare with" in safe_here("load", "mine.safetensors").stdout
    weights["fc.bias"] = weights["fc.bias"] + 1
    writing.save_pickle(weights, tmp_path / "mine.pt")
    result = safe_here("load", "--model", "mine.safetensors")
    assert result.returncode == 1, result
    assert "Outputs differ" in result.stdout


def test_load_refuses_a_model_of_another_kind(
    safe_here: Run, assert_refused: Refused, safe_model: Path
) -> None:
    assert_refused(safe_here("load", safe_model), safe_model, "inspect_model.py")


def test_load_before_create_says_what_to_type(safe_here: Run, assert_refused: Refused) -> None:
    assert_refused(safe_here("load"), "safe_model.safetensors", "python safe_demo.py")


# --- bad input: one sentence, code 2, nothing half-written -------------------------------------------------


def bad_file(kind: str, path: Path, good: bytes) -> Path:
    """A file (or folder) that no tool can use."""
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(
            {
                "empty": b"",
                "text": b"import this\nis not a model\n",
                "truncated": good[: len(good) // 2],
                "cut at the start": good[20:],
                "random": random.Random(7).randbytes(5000),
                "zip without pickle": torch_zip(b"").replace(b"data.pkl", b"data.txt"),
                "tail only": good[-22:],
            }[kind]
        )
    return path


BAD = [
    "missing",
    "folder",
    "empty",
    "text",
    "truncated",
    "cut at the start",
    "random",
    "zip without pickle",
    "tail only",
]


@pytest.mark.parametrize("kind", BAD)
def test_bad_files(safe_here: Run, assert_refused: Refused, tmp_path: Path, model: Path, kind: str) -> None:
    good = files.existing_file(model).read_bytes()
    pickle = bad_file(kind, tmp_path / "bad.pt", good)
    writing.save_safetensors(safe_loading.load_pickle(model), tmp_path / "good.safetensors")
    safe = bad_file(kind, tmp_path / "bad2.safetensors", (tmp_path / "good.safetensors").read_bytes())
    before = sorted(tmp_path.rglob("*"))
    for command in (
        ["convert", pickle],
        ["--model", pickle],
        ["load", pickle],
        ["load", safe],
        ["convert", safe],
    ):
        assert_refused(safe_here(*command), command[1])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev")
def test_devices_are_no_models(safe_here: Run, assert_refused: Refused) -> None:
    for command in ("convert", "load"):
        assert_refused(safe_here(command, "/dev/zero"), "/dev/zero", "device")


def test_places_that_take_no_file(
    safe_here: Run, assert_refused: Refused, model: Path, tmp_path: Path
) -> None:
    model.with_suffix(".safetensors").mkdir()
    assert_refused(safe_here("convert", model), model.with_suffix(".safetensors"))
    assert list(model.with_suffix(".safetensors").iterdir()) == []
    for place in ("other.pt", model):
        assert_refused(safe_here("convert", model, "--out", place), place, "--out")
    assert_refused(safe_here("convert", model, "--out", "/dev/null/x.safetensors"), "/dev/null")
    assert_refused(safe_here("convert"), "convert FILE")


# --- files that claim to be larger than they are -----------------------------------------------------------

MANY = 1_000_000  # instructions, which is what the largest models need


def call(module: str, name: str, argument: bytes) -> bytes:
    """Pickle instructions: call a function with one argument."""
    return b"c" + f"{module}\n{name}\n".encode() + argument + b"\x85R"


def hostile(kind: str) -> bytes:
    """Small files that cost a careless loader gigabytes, or crash it."""
    number = b"\x8a\x05" + (2**31).to_bytes(5, "little")
    text = b"X" + struct.pack("<I", MANY // 2) + b"a" * (MANY // 2)
    one = io.BytesIO()
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, one)
    clean = torch_zip(b"\x80\x02}.")
    encode = b"h\x01h\x02X\x06\0\0\0utf-32\x86R"
    return {
        "packed pickle": torch_zip(b"\x80\x02}." + bytes(10**8), packed=True),
        "packed numbers": torch_zip(b"\x80\x02}.", packed=True, n0=bytes(10**8)),
        "a large pickle": torch_zip(b"\x80\x02](" + b"}" * (2 * MANY) + b"e."),
        "a large old pickle": b"\x80\x02](" + b"}" * (2 * MANY) + b"e.",
        "a long old pickle": b"\x80\x02](" + b"K\x01" * (3 * MANY) + b"e.",
        "a tensor of one number": one.getvalue(),
        "a large bytearray": torch_zip(b"\x80\x02" + call("builtins", "bytearray", number) + b"."),
        "large texts": torch_zip(
            b"\x80\x02](c_codecs\nencode\nq\x01" + text + b"q\x02" + encode * (MANY // 50) + b"e."
        ),
        "tuples in tuples": torch_zip(b"\x80\x02}()" + b"\x85" * MANY + b"K\x01u."),
        "two of one name": twice(clean),
        "two zip files": clean + clean,
        "many names": names(600_000),
    }[kind]


def twice(clean: bytes) -> bytes:
    """A zip file with two pickles of one name: which one counts is up to the reader."""
    file = io.BytesIO(clean)
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("archive/data.pkl", b"\x80\x02].")
    return file.getvalue()


def names(count: int) -> bytes:
    """A zip file with a long list of contents."""
    clean = torch_zip(b"\x80\x02}.")
    end = len(clean) - 22
    start = struct.unpack_from("<I", clean, end + 16)[0]
    entry = clean[start : start + 46 + len("archive/data.pkl")]
    tail = clean[end : end + 12] + struct.pack("<I", len(entry) * count) + clean[end + 16 :]
    return clean[:start] + entry * count + tail


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("packed pickle", "packed"),
        ("packed numbers", "packed"),
        ("a large pickle", "makes more than 1200000"),
        ("a large old pickle", "makes more than 1200000"),
        ("a long old pickle", "too large"),
        ("a tensor of one number", "claim 4000000000000"),
        ("a large bytearray", "memory"),
        ("large texts", "memory"),
        ("tuples in tuples", "not text"),
        ("two of one name", "two things of one name"),
        ("two zip files", "beginning"),
        ("many names", "list of contents"),
    ],
)
def test_hostile_sizes(safe_here: Run, assert_refused: Refused, tmp_path: Path, kind: str, word: str) -> None:
    if word == "memory" and sys.platform != "linux":
        pytest.skip("only Linux counts the memory of a process for us")
    path = tmp_path / "model.pt"
    path.write_bytes(hostile(kind))
    start = time.process_time()  # not by the clock on the wall: the machine may be busy with other things
    assert_refused(safe_here("convert", path), path, word)
    assert time.process_time() - start < 60  # it would be hours
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the memory of a process for us")
def test_hostile_files_take_less_than_a_gigabyte(tmp_path: Path) -> None:
    """Measured from outside: the largest memory of a process of its own, PyTorch included.

    Libraries that are only mapped do not count: how much of them is in memory is up to the kernel.
    """
    (tmp_path / "model.pt").write_bytes(hostile("large texts"))  # the worst of them
    command = [sys.executable, safe_demo.__file__, "convert", "model.pt"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        most = 0
        while process.poll() is None:
            most = max(most, own_memory(process.pid))
            time.sleep(0.005)
        assert process.stderr
        assert process.stderr.read().startswith("error: ")
    assert 100_000 < most < 700_000  # kilobytes


def own_memory(pid: int) -> int:
    """Kilobytes that a process has in memory and shares with no file; 0 once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return sum(
        int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem"))
    )


def test_damaged_numbers_are_refused_although_pytorch_takes_them(tmp_path: Path, model: Path) -> None:
    """Why check_zip looks at the checksums: PyTorch does not."""
    data = bytearray(model.read_bytes())
    data[data.index(safe_loading.load_pickle(model)["weight"].numpy().tobytes())] ^= 1
    model.write_bytes(data)
    assert torch.load(model, weights_only=True)["weight"].shape == (4, 3)
    with pytest.raises(cli.UserError, match="checksum"):
        safe_loading.load_pickle(model)


def test_the_limits_are_gone_afterwards(model: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    safe_loading.load_pickle(model)
    model.write_bytes(b"damaged")
    with pytest.raises(cli.UserError):
        safe_loading.load_pickle(model)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def header(text: str, data: bytes = bytes(16), size: int | None = None) -> bytes:
    """A SafeTensors file with any header."""
    return struct.pack("<Q", len(text) if size is None else size) + text.encode() + data


@pytest.mark.parametrize(
    "data",
    [
        header("", size=2**63),
        header("{", size=10**12),
        header("{}" + " " * (safe_loading.LARGEST_HEADER + 1)),
        header("{"),
        header("[]"),
        header("[" * 50_000),
        header('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 99]}}'),
        header('{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 16]}}'),
        header('{"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}'),
        header('{"a": {"dtype": "F32", "shape": [4611686018427387908], "data_offsets": [0, 16]}}'),
        header('{"a": {"dtype": "XX", "shape": [4], "data_offsets": [0, 16]}}'),
        header(
            '{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},'
            ' "b": {"dtype": "F32", "shape": [3], "data_offsets": [4, 16]}}'
        ),
    ],
)
def test_hostile_safetensors(safe_here: Run, assert_refused: Refused, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    assert_refused(safe_here("load", path), path)


def test_mutated_files_never_run_and_never_crash(tmp_path: Path, weights: state_dicts.Weights) -> None:
    """A few hundred damaged files: each is read, or ends in one sentence, and no payload runs."""
    marker = tmp_path / "marker"
    seeds = [attack.malicious_bytes(name, marker) for name in ("system", "system-legacy", "joblib", "nested")]
    seeds += [
        pickle.dumps({"a": [1.5, "b", attack.payload_for(attack.PLAIN, marker)]}, protocol=number)
        for number in (0, 2, 4)
    ]
    for old_format in (False, True):
        file = io.BytesIO()
        torch.save(weights, file, _use_new_zipfile_serialization=not old_format)
        seeds.append(file.getvalue())
    writing.save_safetensors(weights, tmp_path / "seed")
    safe = (tmp_path / "seed").read_bytes()
    rng = random.Random(3)
    refused = 0
    for index in range(400):
        data = bytearray(safe if index % 4 == 0 else rng.choice(seeds))
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        for _ in range(rng.randrange(1, 6) if data else 0):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path = tmp_path / "mutated"
        path.write_bytes(data)
        try:
            safe_loading.load_safetensors(path) if index % 4 == 0 else safe_loading.load_pickle(path)
        except cli.UserError as error:
            refused += 1
            assert "\n" not in str(error)
        assert not marker.exists()
    assert 0 < refused < 400  # both endings were reached
