"""Every reader is asked: no file that runs code is called free of it, honest files get a true sentence."""

from __future__ import annotations

import array
import base64
import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import pickle
import random
import re
import struct
import sys
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import model_files

from inspection import formats, numpy_header, pickle_reader, texts
from inspection.folder import inspect_folder
from inspection.names import is_allowed, is_data
from inspection.pickle_values import Values
from inspection.report import SAFE, UNKNOWN, UNSAFE, Report
from inspection.verdict import conclude, fill, inspect_file


def verdict(data: bytes, name: str = "model") -> Report:
    """Our verdict on these bytes, without the scanners and the decompiler."""
    report = Report(Path(name))
    content = formats.look(data)
    content.pickles.clear()
    fill(report, content)
    conclude(report)
    assert "\n" not in report.reason
    return report


@pytest.fixture(scope="module")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marker") / "marker"


@pytest.fixture(scope="module")
def honest() -> model_files.Files:
    return model_files.honest()


@pytest.fixture(scope="module")
def hostile(marker: Path) -> model_files.Files:
    return model_files.hostile(marker)


# what is said of intact files that are not judged: the format, and a way forward
NOT_JUDGED = {
    "labels.joblib": "pickle.load would import",
    "scripted.pt": "TorchScript",
    "exported.pt2": "torch.export",
}
# hostile in a way that nobody can call code for certain
SUSPECTED = {"build_on_class.pkl", "extension.pkl"}


def test_no_hostile_file_is_called_free_of_code(hostile: model_files.Files, marker: Path) -> None:
    wrong = {}
    for name, data in hostile.items():
        report = verdict(data)
        if report.overall != (UNKNOWN if name in SUSPECTED else UNSAFE):
            wrong[name] = report.overall, report.reason
    assert wrong == {}
    assert len(hostile) >= 60
    assert not marker.exists()


def test_honest_files_get_a_true_sentence_and_a_way_forward(honest: model_files.Files) -> None:
    wrong = {}
    for name, data in honest.items():
        report = verdict(data)
        if name in NOT_JUDGED:
            fine = report.overall == UNKNOWN and NOT_JUDGED[name] in report.reason and report.help
        else:
            fine = report.overall == SAFE
        if not fine or re.search("damaged|bomb", report.reason):
            wrong[name] = report.overall, report.reason, report.help
    assert wrong == {}
    assert len(honest) >= 50
    assert len({Path(name).suffix for name in honest}) >= 10


def test_names_that_only_hold_data_are_told_from_others(honest: model_files.Files) -> None:
    report = verdict(honest["namespace.pth"])
    assert report.only_data == ["argparse.Namespace"]
    assert "argparse.Namespace" in report.reason
    assert "safe_globals([argparse.Namespace])" in report.help
    assert "--allow" in report.help
    for name in (
        "numpy.memmap",
        "numpy.load",
        "functools.partial",
        "builtins.getattr",
        "builtins.eval",
        "io.open",
    ):
        assert not is_data(name)
        assert not is_allowed(name)


def test_names_of_a_library_get_a_way_forward() -> None:
    report = verdict(b"\x80\x02csklearn.linear_model\nLinearRegression\n)\x81.")
    assert report.overall == UNSAFE
    assert "They are of sklearn" in report.help
    assert verdict(b"\x80\x02cos\nsystem\n)R.").help == ""
    whole = verdict(model_files.saved(torch.nn.Linear(2, 2)))
    assert whole.overall == UNSAFE
    assert "whole model" in whole.help


CALLS_ITS_ARGUMENT = (
    "copyreg._reconstructor",
    "copyreg.__newobj__",
    "numpy.random._pickle.__randomstate_ctor",
    "numpy.random._pickle.__generator_ctor",
)


def test_no_name_of_the_list_of_data_can_call_or_open_anything(marker: Path) -> None:
    """Each is called with texts, functions and classes: none calls them, and no file appears."""
    import importlib  # noqa: PLC0415

    from inspection.names import DATA  # noqa: PLC0415

    called: list[object] = []

    def trap(*arguments: object) -> object:
        called.append(arguments)
        return None

    for full in sorted(DATA):
        module, _, name = full.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue  # of another version of Python or NumPy
        if full in CALLS_ITS_ARGUMENT or not callable(found):
            continue  # they call what they are given, and a pickle can only give them names that it imports
        for arguments in (
            (str(marker),),
            (trap,),
            (str(marker), "w"),
            (trap, trap),
            ([trap],),
            ({"a": trap},),
        ):
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found(*arguments)
    assert called == []
    assert not marker.exists()


# --- every hiding place in every container -------------------------------------------------------------


def inner_files(marker: Path) -> dict[str, bytes]:
    """The payload in each format that some loader takes."""
    payload = model_files.attack.payload_for(model_files.attack.PLAIN, marker)
    found = {f"pickle {number}": model_files.system_at(marker, number) for number in range(6)}
    return found | {
        "torch.save": model_files.saved(payload),
        "old format": model_files.saved(payload, old=True),
        "joblib": model_files.dumped({"a": payload}, 3),
        "array": model_files.array(numpy.array([payload], dtype=object)),
        "two formats": model_files.two_formats(model_files.system_at(marker)),
        "second pickle": pickle.dumps(1) + model_files.system_at(marker),
        "old tar": model_files.tarred(
            {"storages": pickle.dumps(0), "tensors": pickle.dumps(0), "pickle": pickle.dumps(payload)}
        ),
    }


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "alone": lambda data: data,
    "zip": lambda data: model_files.zipped({"a/model": data}),
    "packed zip": lambda data: model_files.zipped({"model": data}, zipfile.ZIP_DEFLATED),
    "torch.save": lambda data: model_files.zipped({"m/data.pkl": pickle.dumps({}), "m/more": data}),
    "npz": lambda data: model_files.zipped({"a.npy": model_files.array(numpy.zeros(1)), "b.npy": data}),
    "keras": lambda data: model_files.zipped(
        {"config.json": b"{}", "metadata.json": b"{}", "assets/x": data}
    ),
    "pt2": lambda data: model_files.zipped(
        {"m/archive_format": b"pt2", "m/data/sample_inputs/model.pt": data}
    ),
    "torch.package": lambda data: model_files.zipped({"p/.data/extern_modules": b"", "p/model.pkl": data}),
    "tar": lambda data: model_files.tarred({"model": data}),
    "tar.gz": lambda data: model_files.tarred({"model": data}, "w:gz"),
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zip in tar in gzip": lambda data: gzip.compress(
        model_files.tarred({"x": model_files.zipped({"y": data})})
    ),
    "behind a zip": lambda data: data + model_files.saved({"a": 1}),
    "behind text": lambda data: data + b"and some text",
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_hiding_place_in_every_container(marker: Path, container: str) -> None:
    wrong = {}
    for name, data in inner_files(marker).items():
        report = verdict(CONTAINERS[container](data))
        # of two zip files one behind the other, readers differ in which one they take
        expected = UNKNOWN if (container, name) == ("behind a zip", "torch.save") else UNSAFE
        if report.overall != expected:
            wrong[name] = report.overall, report.reason
    assert wrong == {}


@pytest.mark.parametrize("place", ["in front", "behind", "at 512"])
def test_a_payload_beside_any_honest_file_is_noticed(
    honest: model_files.Files, marker: Path, place: str
) -> None:
    """What stands before or behind a format is never passed over."""
    program = model_files.system_at(marker)
    wrong = {}
    for name, data in honest.items():
        if place == "behind":
            both = data + program
        else:
            both = (program if place == "in front" else program.ljust(512, b"\0")) + data
        report = verdict(both)
        if report.overall == SAFE or (place != "behind" and report.overall != UNSAFE):
            wrong[name] = report.overall, report.reason
    assert wrong == {}


# --- raw numbers between and behind pickles: every byte is accounted for --------------------------------


def old_stream_of_every_type() -> bytes:
    kinds = "float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 bool complex64 complex128"
    tensors = {kind: torch.zeros(7, dtype=getattr(torch, kind)) for kind in kinds.split()}
    tied = torch.zeros(2, 3)
    tensors |= {"tied": tied, "also": tied[1:]}
    return model_files.saved(tensors, old=True)


MEASURED: dict[str, Callable[[], bytes]] = {
    "old stream": old_stream_of_every_type,
    "old stream without tensors": lambda: model_files.saved({"a": 1}, old=True),
    "old tar": model_files.old_tar,
    "joblib": lambda: model_files.dumped(
        [
            numpy.arange(99, dtype="u1"), numpy.zeros((2, 3), ">f8"), numpy.array(5.0), numpy.zeros(0),
            numpy.asfortranarray(numpy.ones((3, 4))), numpy.array(["cat", "ox"]), numpy.array([b"x"]),
            numpy.array([True]), numpy.float64(1),
        ]
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MEASURED)
def test_raw_numbers_are_measured_to_the_last_byte(tmp_path: Path, kind: str) -> None:
    data = MEASURED[kind]()
    assert verdict(data).overall == SAFE, verdict(data).reason
    path = tmp_path / "model"
    path.write_bytes(data)  # the file is one that its loader takes
    if kind == "joblib":
        model_files.joblib.load(path)
    else:
        torch.load(path, weights_only=False)
    for changed in (data + b"x", data + b"PK", data.rstrip(b"\0")[:-1]):
        report = verdict(changed)
        assert report.overall == UNKNOWN, report
    assert verdict(data + model_files.system_at(tmp_path / "marker")).overall in (UNKNOWN, UNSAFE)


def test_what_the_old_tar_format_does_not_explain_is_named(tmp_path: Path) -> None:
    data = model_files.old_tar()
    assert "holds more than these parts" in verdict(model_files.old_tar(more=b"hi")).reason
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        first = tar.getmembers()[0]
    padding = bytearray(data)
    padding[first.offset_data + first.size + 3] = 65
    assert verdict(bytes(padding)).overall == UNKNOWN
    assert verdict(data + bytes(512)).overall == SAFE  # tar archives end with zeros
    assert verdict(model_files.old_tar(b"abc")).overall == UNKNOWN
    program = model_files.system_at(tmp_path / "marker")
    for hostile in (model_files.old_tar(program), model_files.old_tar(sys_info=program)):
        assert verdict(hostile).overall == UNSAFE


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b"K\x05\x86", b"K\x06\x86"),  # another shape than the numbers that follow
        (b"\x8c\x02f8", b"\x8c\x02f4"),
        (b"\x8c\x02f8", b"\x8c\x02V8"),
        (b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00", b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x01"),
        (b"\x8c\x05order", b"\x8c\x05reads"),
        (b"\xff\xff\xff\xff\xff", b"\xff\xff\xff\xff."),  # the padding before an array
    ],
)
def test_a_joblib_array_described_otherwise_is_not_judged(was: bytes, becomes: bytes) -> None:
    data = model_files.dumped({"w": numpy.ones((3, 5))})
    assert data.count(was)
    place = data.rindex(was)
    report = verdict(data[:place] + becomes + data[place + len(was) :])
    assert report.overall == UNKNOWN
    assert "joblib" in report.reason
    assert report.help


def test_the_numbers_of_a_zip_file_are_those_that_its_pickle_names(marker: Path) -> None:
    """Members that no pickle names, and settings that hold something else, are not explained."""
    good = model_files.saved({"w": torch.zeros(5), "b": torch.zeros(2).half()})
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    program = model_files.system_at(marker)
    changes: dict[str, bytes] = {
        "archive/data/2": program,  # one more
        "archive/data/0": bytes(24),  # longer than the tensor
        "archive/data/1": b"",
        "archive/byteorder": b"middle",
        "archive/version": program,
        "archive/.data/serialization_id": b"\0" * 8,
    }
    assert verdict(model_files.zipped(parts)).overall == SAFE
    for name, data in changes.items():
        report = verdict(model_files.zipped(parts | {name: data}))
        assert report.overall in (UNKNOWN, UNSAFE), name
    del parts["archive/data/1"]
    report = verdict(model_files.zipped(parts))
    assert report.overall == UNKNOWN
    assert "data/1" in report.reason


def hdf5(version: int, size: int = 500) -> bytes:
    """The header of an HDF5 file of this size (the layout is in the HDF Group's specification)."""
    place, wide = {0: (40, 13), 1: (44, 13), 2: (28, 9), 3: (28, 9)}[version]
    made = bytearray(b"\x89HDF\r\n\x1a\n" + bytes([version]) + bytes(size - 9))
    made[wide] = 8
    made[place : place + 8] = struct.pack("<Q", size)
    return bytes(made)


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_the_weights_of_a_keras_file_end_where_they_say(marker: Path, version: int) -> None:
    parts = {"config.json": b'{"class_name": "Sequential", "config": {"layers": []}}', "metadata.json": b"{}"}
    for behind, expected in ((b"", SAFE), (model_files.system_at(marker), UNKNOWN)):
        weights = {"model.weights.h5": hdf5(version) + behind}
        assert verdict(model_files.zipped(parts | weights)).overall == expected


@pytest.mark.parametrize(
    "message",
    [
        b"\x07\0(\0\1\0\0\0\1\0\0\0\1\0\1\0\x30\xca\5\0\0\0\0\0",
        b"\x07(\0\1\1\0\0\0\1\0\1\0\xbf\x2b\1\0\0\0\0\0",
        b"\1\x08@\x018\r\0\0other.h5\0/x\0",
        b"\x08\0\x10\0\0\0\0\0\4\3\x90Z\0\0\0\0\0\0\x15\0\0\0",
        b"\x08\x0e\0\0\4\3\0I\0\0\0\0\0\0\x15\0\0\0",
    ],
    ids=["raw file", "raw file, new", "link", "virtual", "virtual, new"],
)
def test_weights_of_keras_that_lie_in_another_file_are_not_judged(message: bytes) -> None:
    """Whoever loads them reads any file of the machine as weights."""
    parts = {"config.json": b'{"class_name": "Sequential", "config": {"layers": []}}', "metadata.json": b"{}"}
    numbers = numpy.random.default_rng(0).normal(size=200_000).astype("f4").tobytes()
    for inner, expected in ((b"", SAFE), (message, UNKNOWN)):
        size = 500 + len(numbers) + len(inner)
        weights = hdf5(0, size)[:500] + numbers + inner
        report = verdict(model_files.zipped(parts | {"model.weights.h5": weights}))
        assert report.overall == expected


def test_two_formats_at_once_are_never_free_of_code(honest: model_files.Files) -> None:
    """Also if both are clean: which one counts is up to the reader."""
    zip_file = model_files.saved({"a": 1})
    for name in ("old_state_dict.pt", "settings.pkl", "floats.npy", "chat.gguf"):
        report = verdict(honest[name] + zip_file)
        assert report.overall == UNKNOWN, name
        assert "at once" in report.reason, report.reason
    clean = model_files.two_formats(pickle.dumps({"a": 1}))
    assert verdict(clean).overall == UNKNOWN
    assert "SafeTensors and plain pickle at once" in verdict(clean).reason


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x04cos\n" + b"path.os." * 30 + b"system\n(S'true'\ntR",  # a name that is longer than any
        b"\x80\x02cmy-model\nx\n",  # a file beside the model can have such a name
        b"\x80\x02(S'a'\nimy model\nx\n",
    ],
)
def test_a_pickle_that_breaks_off_behind_an_odd_import_is_one(program: bytes) -> None:
    """Loading has imported, and may have called, by the time it fails; no scanner is needed to see it."""
    both = model_files.two_formats(program)
    with pytest.raises(Exception, match=r"my.model|Ran out of input"):
        pickle.loads(both)
    assert verdict(both).overall == UNKNOWN
    assert "at once" in verdict(both).reason
    nowhere = b"\x80\x02cmy\0model\nx\n"  # no file has such a name: numbers that look like an import
    assert verdict(model_files.two_formats(nowhere)).overall == SAFE


@pytest.mark.parametrize("save", [numpy.savez, numpy.savez_compressed])
def test_records_with_many_fields_are_numbers(tmp_path: Path, save: Callable[..., None]) -> None:
    """Their names are no types, whatever letters they have, and the header may be long."""
    fields = [(f"a_field_of_our_own_{number}", "<f4") for number in range(300)]
    save(tmp_path / "records.npz", a=numpy.zeros(500, numpy.dtype(fields)), b=numpy.ones(3))
    assert inspect_file(tmp_path / "records.npz").overall == SAFE
    numpy.save(tmp_path / "records.npy", numpy.zeros(5, numpy.dtype([("one", "?"), ("two", "<i4", (2,))])))
    assert inspect_file(tmp_path / "records.npy").overall == SAFE


def test_subclasses_of_arrays_only_hold_data() -> None:
    """joblib's own test files hold a numpy.matrix; tables are often a numpy.recarray, statistics masked."""
    table = numpy.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")])
    masked = numpy.ma.masked_array([1, 2], [False, True])
    for value in (numpy.eye(2).view(numpy.matrix), table.view(numpy.recarray), masked, array.array("f", [1])):
        for protocol in (2, 4):
            report = verdict(pickle.dumps(value, protocol))
            assert report.overall == SAFE, report.reason
    for old in (b"numpy.matrixlib.defmatrix\nmatrix", b"numpy.core.records\nrecarray"):
        assert verdict(b"\x80\x02c" + old + b"\n.").overall == SAFE
    assert verdict(b"\x80\x02cnumpy\nmemmap\n.").overall == UNSAFE  # it opens a file


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"7z\xbc\xaf\x27\x1c" + bytes(50), "7z archive"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(50), "RAR archive"),
        (b"\x04\x22\x4d\x18" + bytes(50), "lz4"),
        (b"\x28\xb5\x2f\xfd" + bytes(50), "zstd"),
        (b"ZF0x10" + bytes(50), "joblib before 0.10"),
        (b"\x89HDF\r\n\x1a\n" + bytes(500), "HDF5"),
        (bytes(512) + b"\x89HDF\r\n\x1a\n" + bytes(500), "HDF5"),
        (bytes(4) + b"TFL3" + bytes(50), "TensorFlow Lite"),
        (bytes(4) + b"ET12" + bytes(50), "ExecuTorch"),
        (bytes(4) + b"PTMF" + bytes(50), "PyTorch Mobile"),
        (bytes(4) + b"ORTM" + bytes(50), "ONNX Runtime"),
        (b"CBM1" + bytes(50), "CatBoost"),
        (b"{L\0\0\0\0\0\0\0\x07learner{" + bytes(50), "XGBoost"),
        (b"\xac\xed\0\x05sr" + bytes(50), "Java"),
        (b"\x12\x01" + bytes(50), "MXNet"),
        (b"\x82\xa6params\x81\xa6kernel\x00\xa4step\x01", "msgpack"),  # begins as a pickle could, too
        (b"\xde\x00\x20\xa6params" + bytes(50), "msgpack"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(100), "MATLAB"),
        (b"lmgg" + bytes(50), "ggml"),
        (model_files.field(1, 1) + model_files.field(2, b"\x0a\x00"), "SavedModel"),
        (b"GGUF\x07\0\0\0" + bytes(16), "version 7"),
        (model_files.zipped({"schema.json": b"{}", "x": b"1"}), "skops"),
        (model_files.zipped({"MAR-INF/MANIFEST.json": b"{}", "handler.py": b"import os\n"}), "TorchServe"),
        (model_files.zipped({"readme.txt": b"hello"}), "zip archive of 1 files"),
        (model_files.tarred({"readme.txt": b"hello"}), "tar archive"),
        (b"PK\x03\x04 and no more", "zip file"),
        (model_files.array(numpy.zeros(2)).replace(b"descr", b"Descr"), "NumPy array file that is damaged"),
        (model_files.array(numpy.zeros(2)) + b"x", "another number of bytes"),
        (model_files.zipped({"a.npy": model_files.array(numpy.zeros(2)) + b"x"}), "another number of bytes"),
        (b"\x80\x02](", "breaks off"),
        (pickle.dumps(1) + b"\0\1\2", "3 bytes behind its pickle"),
        (b"no model at all", "not a model file"),
    ],
)
def test_what_is_recognised_and_not_judged_is_named(data: bytes, word: str) -> None:
    report = verdict(data)
    assert report.overall == UNKNOWN
    assert word in " ".join([report.reason, *map(str, report.findings)])


UNKNOWN_KINDS: dict[str, Callable[[bytes], bytes]] = {  # each around a pickle that runs our payload
    "behind a mark for UTF-8": lambda program: b"\xef\xbb\xbf" + program,
    "behind a line end": lambda program: b"\n" + program,
    "in UTF-16": lambda program: program.decode("latin1").encode("utf-16"),
    "in base64": base64.b64encode,
    "in JSON, in base64": lambda program: json.dumps({"model": base64.b64encode(program).decode()}).encode(),
    "in hex": lambda program: program.hex().encode(),
    "deflated without a header": lambda program: zlib.compress(program)[2:-4],
    "in raw numbers (a memory map)": lambda program: bytes(16) + program,
    "in msgpack, as Flax writes": lambda program: b"\x81\xa1w\xc7" + bytes([len(program) & 255, 3]) + program,
    "CatBoost": lambda program: b"CBM1" + program,
    "XGBoost (UBJSON)": lambda program: b"{L" + struct.pack(">Q", 7) + b"learner{" + program,
    "Arrow": lambda program: b"ARROW1\0\0" + program,
    "Parquet": lambda program: b"PAR1" + program + b"PAR1",
    "MATLAB": lambda program: b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + program,
    "R": lambda program: gzip.compress(b"X\n\0\0\0\3" + program),
    "compiled Python": lambda program: b"\xa7\x0d\x0d\x0a" + bytes(12) + program,
    "behind an image": lambda program: b"\x89PNG\r\n\x1a\n" + program,
    "behind GGUF": lambda program: model_files.gguf(a="b") + program,
    "behind gzip": lambda program: gzip.compress(pickle.dumps(1)) + program,
    "TorchScript, in an extra file": lambda program: with_member(
        model_files.scripted(), "archive/extra/note", program
    ),
}


def with_member(data: bytes, name: str, more: bytes) -> bytes:
    """A zip file with one more member."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {one: archive.read(one) for one in archive.namelist()}
    return model_files.zipped(parts | {name: more})


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("kind", UNKNOWN_KINDS)
def test_what_is_not_known_is_never_free_of_code(marker: Path, kind: str, protocol: int) -> None:
    """Some of these are no threat by themselves; a verdict on what nobody has read would be one."""
    report = verdict(UNKNOWN_KINDS[kind](model_files.system_at(marker, protocol)))
    assert report.overall == UNKNOWN
    if not report.formats:
        assert "Ask the sender" in report.help


def test_a_zip_file_that_two_readers_read_differently_is_not_free_of_code() -> None:
    clean, other = model_files.saved({"a": 1}), model_files.saved({"b": 2})
    assert verdict(clean).overall == SAFE
    renamed = clean.replace(b"archive/data.pkl", b"archive/data.pkm", 1)  # only before the member itself
    assert verdict(renamed).overall == UNKNOWN
    assert verdict(clean + other).overall == UNKNOWN
    assert verdict(other[:-2] + struct.pack("<H", 9) + b"a comment").overall == UNKNOWN
    end = clean.rindex(b"PK\x05\x06")
    moved = bytearray(clean)
    struct.pack_into("<I", moved, end + 16, struct.unpack_from("<I", clean, end + 16)[0] - 64)
    assert verdict(bytes(moved)).overall == UNKNOWN
    start = clean.index(b"PK\x01\x02")
    between = bytearray(clean[:start] + bytes(5000) + clean[start:])
    assert verdict(bytes(between)).overall == UNKNOWN


# --- beyond pickle -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ bos_token }}{{ messages[0]['content'] }}", SAFE),
        (model_files.CHATML, SAFE),
        (model_files.LLAMA, SAFE),
        (model_files.ESCAPE, UNSAFE),
        ("{{ messages['__class__'] }}", UNSAFE),
        ("{% set x = '__glo' ~ 'bals__' %}{{ messages | attr(x) }}", UNSAFE),
        ("{{ messages | map(attribute='__init__') | list }}", UNSAFE),
        ("{{ self._TemplateReference__context }}", UNSAFE),
        ("{{ cycler.__init__.__globals__.os.popen('true').read() }}", UNSAFE),
        ("{% include '/etc/passwd' %}", UNKNOWN),
        ("{{ open('/etc/passwd') }}", UNKNOWN),
        ("{{ messages[0].mystery() }}", UNKNOWN),
        ("{% if %}", UNKNOWN),
        ("{{" * 3000, UNKNOWN),
        ("x" * 300_000, UNKNOWN),
    ],
)
def test_chat_templates(template: str, expected: str) -> None:
    finding = texts.chat_template(template, "it")
    assert finding.answer == expected, finding
    assert verdict(model_files.gguf(tokenizer__chat_template=template)).overall == expected


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (model_files.layer("Dense", units=3), SAFE),
        (model_files.layer("Bidirectional", layer=model_files.layer("LSTM", units=3)), SAFE),
        (model_files.layer("Lambda"), UNSAFE),
        (model_files.layer("Bidirectional", layer=model_files.layer("Lambda")), UNSAFE),
        (model_files.layer("Dense", activation={"class_name": "__lambda__"}), UNSAFE),
        (model_files.layer("TFSMLayer", filepath="/tmp/x"), UNSAFE),
        (model_files.layer("TorchModuleWrapper", module="gASV"), UNSAFE),
        ({"module": "os", "class_name": "function", "config": "system"}, UNSAFE),
        ({"module": "keras.utils", "class_name": "get_file", "config": {}}, UNSAFE),
        (
            {"module": "keras.config", "class_name": "function", "config": "enable_unsafe_deserialization"},
            UNSAFE,
        ),
        (model_files.layer("MyLayer"), UNKNOWN),
        ({"class_name": "function", "config": "my_function", "module": "builtins"}, UNKNOWN),
        (model_files.layer("StringLookup", vocabulary="/etc/passwd"), UNKNOWN),
    ],
)
def test_keras_layers(layer: dict[str, object], expected: str) -> None:
    assert verdict(model_files.keras([layer])).overall == expected
    in_text = {"class_name": "Model", "config": json.dumps(layer)}
    assert verdict(model_files.keras([in_text])).overall == expected  # settings as a text within settings


def test_onnx_paths_at_every_place() -> None:
    """External data may stand in an attribute of a node, in a sparse one, and in the graph of a loop."""
    outside = model_files.field(13, model_files.field(1, b"location") + model_files.field(2, b"../x"))
    attribute = model_files.field(1, b"value") + model_files.field(5, outside)
    node = model_files.field(4, b"Constant") + model_files.field(5, attribute)
    inner = model_files.field(1, b"body") + model_files.field(6, model_files.field(1, node))
    loop = model_files.field(4, b"Loop") + model_files.field(5, inner)
    sparse = model_files.field(22, model_files.field(2, outside))
    sparse_node = model_files.field(4, b"Constant") + model_files.field(5, sparse)
    for one in (node, loop, sparse_node):
        model = (
            model_files.field(1, 10)
            + model_files.field(7, model_files.field(1, one))
            + model_files.field(8, b"")
        )
        assert verdict(model).overall == UNSAFE
    assert verdict(model_files.onnx("sub/weights.bin")).overall == SAFE
    assert verdict(model_files.onnx(domain="com.example")).overall == UNKNOWN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trained by somebody on 2026-01-02, licence apache-2.0", SAFE),
        ("import os; os.system('true')", UNKNOWN),
        ("__import__('os').system('true')", UNKNOWN),
        ("eval(compile(x, 'x', 'exec'))", UNKNOWN),
        ("<script>alert(1)</script>", UNKNOWN),
    ],
)
def test_metadata_of_safetensors(text: str, expected: str) -> None:
    data = model_files.safetensors.torch.save({"w": torch.zeros(1)}, {"note": text})
    assert verdict(data).overall == expected


@pytest.mark.parametrize(
    "description", ["|O", [("a", "f4"), ("b", "|O")], [("a", [("b", "O")])], ("O", (2,))]
)
def test_arrays_of_objects_at_every_depth(description: object) -> None:
    assert numpy_header.has_objects(description)
    assert not numpy_header.has_objects([("a", "<f4"), ("b", "|S3"), ("c", "<U2"), ("d", "|b1")])


# --- limits follow real models -------------------------------------------------------------------------


@pytest.mark.parametrize("tensors", [18_432, 36_096])
def test_models_of_many_tensors_are_judged(tensors: int) -> None:
    data = model_files.saved(
        {f"layers.{i // 384}.experts.{i % 384}.w": torch.zeros(1) for i in range(tensors)}
    )
    assert verdict(data).overall == SAFE


def test_a_header_of_11_megabytes_is_read() -> None:
    names = {f"model.layers.{i}.{'x' * 60}": torch.zeros(1) for i in range(85_000)}
    data = model_files.safetensors.torch.save(names)
    assert struct.unpack("<Q", data[:8])[0] > 11_000_000
    assert verdict(data).overall == SAFE


def test_hundreds_of_thousands_of_names_are_read() -> None:
    assert verdict(pickle.dumps({f"word{i}": i for i in range(400_000)}, protocol=4)).overall == SAFE


# --- the pickle reader sees what Python's own does -----------------------------------------------------


class Noting(pickle._Unpickler):
    """Python's own reader, which imports nothing and notes what it was asked for."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.seen: set[str] = set()

    def find_class(self, module: str, name: str) -> object:
        self.seen.add(pickle_reader.full_name(module, name))
        return lambda *_: None

    def persistent_load(self, _: object) -> object:
        return None

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError("an extension")


OPCODES = [bytes([code]) for code in range(256) if pickle_reader.ARGUMENT[code] is not None]
PIECES = [
    *OPCODES, b"os\n", b"system\n", b"\x02os", b"\x06system", b"\x01", b"(", b".", b"\x8c\x02os", b"\x93",
    b"cos\nsystem\n", b"Vos\n", b"S'system'\n", b"q\x01", b"h\x01", b"\x94", b"K\x01", b"X\x02\0\0\0os",
    b"U\x02os", b"0", b"2", b")", b"R",
]  # fmt: skip


@settings(max_examples=1500, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=25).map(b"".join))
def test_no_import_of_pythons_own_reader_is_overlooked(data: bytes) -> None:
    reader = Noting(data)
    with contextlib.suppress(Exception):
        reader.load()
    valid = {name for name in reader.seen if pickle_reader.VALID_NAME.fullmatch(name)}
    for values in (None, Values(data)):
        found = pickle_reader.walk(data, values=values)
        assert valid <= found.names or found.hides, (data, valid, found)


@settings(max_examples=600, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(st.data())
def test_headers_of_any_bytes_end_in_a_verdict(data: st.DataObject) -> None:
    """Beginnings of each format, cut, changed and filled with anything: a verdict, and never an exception."""
    starts = [
        model_files.gguf(a="b", c=1, d=["e"]), model_files.onnx("x"), model_files.array(numpy.zeros(2)),
        model_files.safetensors.torch.save({"w": torch.zeros(2)}), model_files.tarred({"a": b"b"}),
        model_files.zipped({"m/data.pkl": b"N."}), model_files.keras([model_files.layer("Dense")]),
        gzip.compress(b"N."), zlib.compress(b"N."), lzma.compress(b"N."), b"\x89HDF\r\n\x1a\n" + bytes(40),
        pickle.dumps([1, "a", {"b": 2.0}], protocol=4),
    ]  # fmt: skip
    start = bytearray(data.draw(st.sampled_from(starts)))
    for _ in range(data.draw(st.integers(0, 6))):
        place = data.draw(st.integers(0, len(start) - 1))
        start[place : place + 1] = data.draw(st.binary(min_size=0, max_size=9))
        if not start:
            start = bytearray(b"\0")
    assert verdict(bytes(start)).overall in (SAFE, UNSAFE, UNKNOWN)


LFS_POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"


# --- folders -------------------------------------------------------------------------------------------


def by_name(folder: Path) -> dict[str, Report]:
    return {str(report.path.relative_to(folder)): report for report in inspect_folder(folder)}


@pytest.fixture
def hub(tmp_path: Path, honest: model_files.Files) -> Path:
    """A folder as a model hub has it, with nothing to object to."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(honest["plain.safetensors"])
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "hidden_size": 4}')
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": model_files.CHATML}))
    (folder / "README.md").write_text("# A model\n\nIntroduction\n")
    (folder / "LICENSE").write_text("Copyright somebody\nall rights\n")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (folder / "spiece.model").write_bytes(
        model_files.field(1, model_files.field(1, b"a") + b"\x15" + struct.pack("<f", 1.0)) * 3
    )
    (folder / "empty.txt").touch()
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    return folder


def test_a_clean_folder_is_free_of_code(hub: Path) -> None:
    assert {name: r.reason for name, r in by_name(hub).items() if r.overall != SAFE} == {}


def test_content_decides_and_not_the_ending(hub: Path, marker: Path) -> None:
    for name in ("MODEL.PT", "checkpoint.pth.tar", "weights", "notes.txt", "image.png", ".hidden"):
        (hub / name).write_bytes(model_files.attack.malicious_bytes("system", marker))
        assert by_name(hub)[name].overall == UNSAFE, name
        (hub / name).unlink()
    (hub / "unknown.dat").write_bytes(random.Random(1).randbytes(100))
    report = by_name(hub)["unknown.dat"]
    assert (report.format, report.overall) == ("skipped", UNKNOWN)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("config.json", '{"auto_map": {"AutoModel": "modeling_own.Model"}}', UNSAFE),
        ("config.json", '{"auto_map": {"AutoTokenizer": ["tok.Slow", null]}}', UNSAFE),
        ("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["a/b--tok.Slow", null]}}', UNSAFE),
        ("config.json", '{"trust_remote_code": true}', UNSAFE),
        ("modules.json", '[{"idx": 0, "type": "custom_st.Transformer"}]', UNSAFE),
        ("modules.json", '[{"idx": 0, "type": "sentence_transformers.models.Pooling"}]', SAFE),
        ("adapter_config.json", '{"peft_type": "LORA", "auto_mapping": null}', SAFE),
        ("adapter_config.json", '{"auto_mapping": {"parent_library": "transformers_modules.x"}}', UNKNOWN),
        ("config.json", "{", UNKNOWN),
        ("chat_template.jinja", model_files.CHATML, SAFE),
        ("chat_template.jinja", model_files.ESCAPE, UNSAFE),
        ("tokenizer_config.json", json.dumps({"chat_template": model_files.ESCAPE}), UNSAFE),
        ("config.yaml", "a: !!python/object/apply:os.system ['true']\n", UNSAFE),
        ("config.yaml", "_target_: my.Class\n", UNKNOWN),
        ("config.yaml", "net: {lr: 1, _target_: os.system}\n", UNKNOWN),
        ("config.yaml", 'net: {"_targ\\x65t_": os.system}\n', UNKNOWN),
        ("config.yaml", "? _target_\n: os.system\n", UNKNOWN),
        ("v1-inference.yaml", "model:\n  target: ldm.models.LatentDiffusion\n", UNKNOWN),
        ("v1-inference.yaml", "x: &x os.system\nmodel: {target: *x}\n", UNKNOWN),
        ("v1-inference.yaml", "model:\n  'target': >-\n    os.system\n", UNKNOWN),
        ("v1-inference.yaml", "model:\n  target:\n    !!str 'os.system'\n", UNKNOWN),
        ("cli.yaml", "model:\n  class_path: os.system\n  init_args: {command: id}\n", UNKNOWN),
        ("data.yaml", "target: price\nclass_path: images/train\nfile: a_target_b.csv\n", SAFE),
        ("config.yaml", "a: !!pyth%6fn/object/apply:os.system ['true']\n", UNSAFE),
        (
            "config.yaml",
            "%TAG !y! tag:yaml.org,2002:py\n---\na: !y!thon/object/apply:os.system [id]\n",
            UNSAFE,
        ),
        ("MLmodel", "flavors: {python_function: {loader_module: evil.code}}\n", UNKNOWN),
        ("MLmodel", 'flavors:\n  python_function:\n    "loader_module": evil.code\n', UNKNOWN),
        ("MLmodel", "flavors: {python_function: {loader_module: mlflow.pytorch, code: ''}}\n", SAFE),
        ("MLmodel", "flavors: {python_function: {loader_module: mlflow.pyfunc.model, code: src}}\n", UNSAFE),
        ("config.json", '{"cl\\u0061ss_name": "Lambda"}', UNSAFE),
        (
            "tokenizer_config.json",
            json.dumps({"chat_template": model_files.ESCAPE}).replace("chat_", "ch\\u0061t_"),
            UNSAFE,
        ),
        ("yolo.yaml", "nc: 80\nactivation: print(1)\nbackbone:\n  - [-1, 1, Conv]\nhead: []\n", UNKNOWN),
        ("flow.yml", "{'backbone': [], head: [], activation: print(1)}\n", UNKNOWN),
        ("data.yaml", "train: images/train\nnames: [head, backbone]\n", SAFE),
        ("hparams.yaml", "a: !<tag:yaml.org,2002:python/object/apply:os.getcwd> []\n", UNSAFE),
        ("hparams.yaml", "%TAG !p! tag:yaml.org,2002:python/\n---\na: !p!name:os.getcwd\n", UNSAFE),
        ("hparams", "a: !!python/name:os.getcwd\n", UNSAFE),  # what counts is the content, not the ending
        ("README.md", "A file with !!python/name or _target_: in it can run code.\n", SAFE),
        ("config.json", '{"custom_pipelines": {"pair": {"impl": "pair.P", "pt": ["AutoModel"]}}}', UNSAFE),
        ("config.json", '{"_attn_implementation": "somebody/kernel"}', UNSAFE),
        ("config.json", '{"_attn_implementation": "flash_attention_2"}', SAFE),
        ("config.json", '{"activation_function": "os.getcwd"}', UNSAFE),  # sentence-transformers, Dense
        ("config.json", '{"activation_function": "torch.nn.modules.activation.Tanh"}', SAFE),
        ("config.json", '{"activation_function": "gelu_new"}', SAFE),
        ("config.json", '{"sentence_transformers": {"activation_fn": "own.act"}}', UNSAFE),
        ("router_config.json", '{"types": {"query_0": "own.Module"}, "structure": {}}', UNSAFE),
        (
            "router_config.json",
            '{"types": {"a": "sentence_transformers.models.Dense"}, "structure": {}}',
            SAFE,
        ),
        ("MODULES.JSON", '[{"idx": 0, "type": "custom_st.Transformer"}]', UNSAFE),
        ("adapter_config.json", '{"peft_type": "LORA", "megatron_core": "own.core"}', UNKNOWN),
        ("inference.json", '{"net": {"_target_": "os.system", "command": "true"}}', UNKNOWN),
        ("inference.json", '{"imports": ["$import os"]}', UNKNOWN),
        ("inference.json", '{"run": ["$__import__(\'os\').getcwd()"]}', UNKNOWN),
        ("prices.json", '{"price": "$5 (net)", "home": "$HOME"}', SAFE),
        ("tokenizer.json", '{"model": {"merges": ["$ (x[", "$_ ["]}}', SAFE),
        ("MLmodel", "flavors:\n  python_function:\n    loader_module: own_loader\n", UNKNOWN),
        ("MLmodel", "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n", SAFE),
        ("demo.ipynb", '{"cells": [], "nbformat": 4}', UNKNOWN),
        ("kernel.cu", "__global__ void add() {}\n", UNKNOWN),
        ("modeling.py", "import os\n", UNKNOWN),
        ("install.sh", "echo\n", UNKNOWN),
        ("setup.sh", "#!/bin/sh\necho\n", UNKNOWN),
        ("start", "#!/bin/sh\necho\n", UNSAFE),
        ("plugin.js", "import page from './page.html';\n", UNKNOWN),
        ("tokenizer.json", LFS_POINTER, UNKNOWN),
        ("model-00002.safetensors", LFS_POINTER, UNKNOWN),
    ],
)
def test_settings_that_make_a_loader_act(hub: Path, name: str, text: str, expected: str) -> None:
    (hub / name).write_text(text)
    assert by_name(hub)[name].overall == expected, by_name(hub)[name].reason


def test_code_of_a_pipeline_counts_whatever_version_it_says(hub: Path) -> None:
    """diffusers does not need the version to import what stands beside it."""
    (hub / "own.py").write_text("class Pipeline: ...\n")
    for more in ({}, {"_diffusers_version": "0.30.0"}):
        (hub / "model_index.json").write_text(json.dumps({"_class_name": ["own", "Pipeline"], **more}))
        assert by_name(hub)["model_index.json"].overall == UNSAFE


def test_what_a_pointer_and_a_script_are_called(hub: Path) -> None:
    """A pointer of Git LFS is small text, and stands for a model that nobody has looked at."""
    (hub / "model.bin").write_text(LFS_POINTER)
    (hub / "plugin.js").write_text("import page from './page.html';\n")
    found = by_name(hub)
    assert "Git LFS" in found["model.bin"].reason
    assert "git lfs pull" in found["model.bin"].help
    assert "script" in found["plugin.js"].reason


def test_the_weights_beside_an_onnx_model(hub: Path) -> None:
    """They are of no format, and explained if the model names them up to their last byte."""

    def saved_with(**external: str) -> None:
        pairs = {"location": "model.onnx_data"} | external
        entries = b"".join(
            model_files.field(13, model_files.field(1, key.encode()) + model_files.field(2, value.encode()))
            for key, value in pairs.items()
        )
        weight = model_files.field(8, b"w") + entries + model_files.field(14, 1)
        graph = model_files.field(7, model_files.field(5, weight))
        model = model_files.field(1, 10) + graph + model_files.field(8, b"")
        (hub / "model.onnx").write_bytes(model)

    data = hub / "model.onnx_data"
    data.write_bytes(random.Random(1).randbytes(5000))
    for external in ({}, {"length": "5000"}, {"offset": "4096", "length": "904"}):
        saved_with(**external)
        assert by_name(hub)["model.onnx_data"].overall == SAFE, external
    for external in ({"length": "4999"}, {"length": "5001"}, {"offset": "x", "length": "5000"}):
        saved_with(**external)
        assert by_name(hub)["model.onnx_data"].overall == UNKNOWN, external
    saved_with(length=str(len(data.read_bytes())))
    data.write_bytes(b"\x80\x02cos\nsystem\n(Vtrue\ntR.")
    saved_with(length=str(data.stat().st_size))
    assert by_name(hub)["model.onnx_data"].overall == UNSAFE  # what is a pickle as well is judged as one


def test_texts_of_windows_are_texts(hub: Path) -> None:
    (hub / "requirements.txt").write_text("torch\r\n", encoding="utf-16")
    assert by_name(hub)["requirements.txt"].overall == SAFE
    (hub / "config.yaml").write_text("a: !!python/object/apply:os.system ['true']\n", encoding="utf-16")
    assert by_name(hub)["config.yaml"].overall == UNSAFE


def test_a_lambda_layer_in_the_keras_part_of_a_saved_model(hub: Path) -> None:
    for layer, expected in (("Dense", UNKNOWN), ("Lambda", UNSAFE)):
        settings = json.dumps({"class_name": "Sequential", "layers": [{"class_name": layer}]}).encode()
        node = model_files.field(2, b"root") + model_files.field(4, b"_tf_keras_model")
        data = model_files.field(1, node + model_files.field(5, settings)) * 2
        assert verdict(data).overall == expected, layer


def test_lists_of_shards(hub: Path, honest: model_files.Files) -> None:
    index = hub / "model.safetensors.index.json"

    def said(*shards: str) -> Report:
        index.write_text(json.dumps({"weight_map": {f"w{n}": shard for n, shard in enumerate(shards)}}))
        return by_name(hub)[index.name]

    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert "2 shards that are missing" in said(*names).reason
    for name in names:
        (hub / name).write_bytes(honest["plain.safetensors"])
    assert said(*names).overall == SAFE
    assert "does not name" in said(names[0]).reason
    for away in ("../other/model.safetensors", "/etc/passwd", "C:\\model.safetensors"):
        assert said(*names, away).overall == UNSAFE
    index.write_text('{"weight_map": 3}')
    assert by_name(hub)[index.name].overall == UNKNOWN


def test_links_of_a_hubs_cache_are_followed_and_others_are_not(tmp_path: Path, hub: Path) -> None:
    cache = tmp_path / "models--a--b"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    hub.joinpath("model.safetensors").rename(cache / "blobs" / "abc")
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    assert by_name(snapshot)["model.safetensors"].overall == SAFE
    assert {r.overall for r in inspect_folder(cache)} == {SAFE}
    (snapshot / "away").symlink_to("/etc/hostname")
    (snapshot / "nothing").symlink_to("no such file")
    (snapshot / "folder").symlink_to("/etc")
    os.mkfifo(snapshot / "pipe")
    found = by_name(snapshot)
    assert {found[name].overall for name in ("away", "nothing", "folder", "pipe")} == {UNKNOWN}
    assert "leads out of the folder" in found["away"].reason


def test_a_tar_archive_that_leaves_its_folder(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../escape"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    report = verdict(file.getvalue())
    assert report.overall == UNSAFE
    assert any("link to /etc/passwd" in str(finding) for finding in report.findings)


def test_one_file_through_the_whole_inspection(tmp_path: Path, honest: model_files.Files) -> None:
    """With the decompiler and the scanners, as people type it."""
    for name in (
        "namespace.pth",
        "floats.npy",
        "chat.gguf",
        "model.onnx",
        "dense.keras",
        "compressed.joblib",
    ):
        path = tmp_path / name
        path.write_bytes(honest[name])
        assert inspect_file(path).overall == SAFE, name
