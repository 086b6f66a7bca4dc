"""Formats that are recognised and not judged are called by their name: as text, packed and in folders too."""

from __future__ import annotations

import gzip
import marshal
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import model_files
from model_files import field
from test_formats import verdict

from inspection.folder import inspect_folder
from inspection.report import SAFE, UNKNOWN, UNSAFE, Report
from inspection.text_models import text_model

CODE = compile("print(1)", "x", "exec")
ONE = (1 << 20).to_bytes(8, "little")  # FAISS writes it twice
CAFFE_LAYER = field(1, b"conv1") + field(2, b"Convolution")
OLD_LAYER = field(4, b"conv1") + field(5, 4)
PADDLE_BLOCK = field(1, 0) + field(2, 0) + field(4, field(3, b"conv2d"))
NODE = field(1, b"x") + field(2, b"Placeholder")
GRAPH = field(1, NODE) + field(4, field(1, 9))
# what a file holds, its name in the verdict; the layouts are those of the libraries' own files
BINARY: dict[str, tuple[bytes, str]] = {
    "Core ML": (field(1, 5) + field(2, field(1, b"")) + field(500, b""), "Core ML"),
    "Core ML, that is updatable": (field(1, 8) + field(2, b"") + field(10, 1) + field(502, b""), "Core ML"),
    "weights, .mlpackage": (struct.pack("<II56xI", 2, 2, 0xDEADBEEF) + bytes(60), "weights of a Core ML"),
    "Caffe": (field(1, b"net") + field(100, CAFFE_LAYER) * 2, "Caffe"),
    "Caffe of 2014": (field(1, b"net") + field(2, OLD_LAYER) * 2 + field(3, b"data") + field(4, 1), "Caffe"),
    "PaddlePaddle": (field(1, PADDLE_BLOCK) + field(4, field(1, 0)) + field(5, b""), "PaddlePaddle"),
    "PaddlePaddle without a table": (field(1, PADDLE_BLOCK) + field(4, field(1, 0)), "PaddlePaddle"),
    "Paddle, weights": (bytes(16) + b"\x06\0\0\0\x08\x05\x10\x40\x10\x03" + bytes(99), "PaddlePaddle"),
    "frozen graph": (GRAPH, "TensorFlow"),
    "meta graph": (field(1, field(4, b"train")) + field(2, GRAPH) + field(5, b""), "TensorFlow"),
    "checkpoint": (bytes(70) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "index of a TensorFlow checkpoint"),
    "FAISS": (b"IxF2" + struct.pack("<iq", 4, 60) + 2 * ONE + b"\1\1\0\0\0" + bytes(40), "FAISS"),
    "FAISS, graph": (b"IHNf" + struct.pack("<iq", 4, 60) + 2 * ONE + b"\1\1\0\0\0" + bytes(40), "FAISS"),
    "FAISS, binary": (b"IBxF" + struct.pack("<iiq", 64, 8, 5) + b"\1\1\0\0\0" + bytes(40), "FAISS"),
    "Torch7, a tensor": (
        struct.pack("<3i", 4, 1, 3) + b"V 1" + struct.pack("<i", 17) + b"torch.FloatTensor" + bytes(9),
        "Torch7",
    ),
    "Torch7, a table": (struct.pack("<5i", 3, 1, 1, 2, 5) + b"hello", "Torch7"),
    "XGBoost of 2019": (
        bytes(136) + b"\x0f" + bytes(7) + b"binary:logistic\6" + bytes(7) + b"gbtree" + bytes(30),
        "XGBoost",
    ),
    "XGBoost, version first": (b"{L" + struct.pack(">Q", 7) + b"version[#L", "XGBoost"),
    "ncnn": (b"\xdd\x85\x76\0\x4b\0\0\0" + bytes(30), "ncnn"),
    "fastText": (b"\xba\x16\x4f\x2f\x0c\0\0\0" + bytes(30), "fastText"),
    "RKNN": (b"RKNN" + bytes(40), "RKNN"),
    "TensorRT": (b"ftrt\0\0\0\0" + bytes(40), "TensorRT"),
    "MATLAB 4": (struct.pack("<5i", 10, 60, 4, 0, 2) + b"a\0" + bytes(99), "MATLAB"),
    "MATLAB 4, other order": (struct.pack(">5i", 1000, 1, 9, 1, 12) + b"testcomplex\0" + bytes(99), "MATLAB"),
    "MATLAB 7.3": (b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(99), "MATLAB"),
    "JLD2": (b"HDF5-based Julia Data Format, v".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(99), "JLD2"),
    "Julia's Serialization": (b"7JL\x1c\x04\0\0\0" + bytes(20), "Julia"),
    "BSON": (struct.pack("<i", 15) + b"\x10a\0\1\0\0\0\0\0\0\0", "BSON"),
    "R": (gzip.compress(b"RDX3\nX\n\0\0\0\3" + bytes(9)), "data of R"),
    "R, native": (b"B\n\2\0\0\0" + bytes(30), "data of R"),
    "NeMo": (model_files.tarred({"./model_config.yaml": b"target: a.B\n", "./w.ckpt": b""}, "w:gz"), "NeMo"),
    "NeMo, not packed": (model_files.tarred({"model_config.yaml": b"target: a.B\n"}), "NeMo"),
    "spaCy": (b"\x85\xa5model\x81\xa3dim\x01\xa3vec\xc0\xa3nam\xa1x\xa1a\xc0\xa1b\xc0", "spaCy"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BINARY)
def test_a_format_that_is_not_judged_is_named(kind: str) -> None:
    data, name = BINARY[kind]
    report = verdict(data)
    assert report.overall == UNKNOWN
    assert name in report.reason, report.reason
    assert report.help
    assert "at once" not in str(report.findings)


def test_only_one_reader_claims_such_a_file() -> None:
    """Neighbours in protobuf are told apart: none of these was a TensorFlow graph."""
    for kind in ("Caffe", "Caffe of 2014", "PaddlePaddle", "PaddlePaddle without a table", "Core ML"):
        assert "TensorFlow" not in verdict(BINARY[kind][0]).format


LUA = struct.pack("<3i", 8, 1, 12) + b"\x1bLJ\x01\0\0 code"
RUNS: dict[str, tuple[bytes, str]] = {
    "a code object": (marshal.dumps(CODE), "compiled Python"),
    "a code object in any form": (marshal.dumps(CODE, 2), "compiled Python"),
    "a function's code": (marshal.dumps((lambda a: a).__code__), "compiled Python"),
    "a .pyc file": (b"\xa7\x0d\r\n" + bytes(12) + marshal.dumps(CODE), "compiled Python"),
    "a .pyc file of 3.14": (b"\x2b\x0e\r\n" + bytes(12) + marshal.dumps(CODE), "compiled Python"),
    "Torch7, a function": (LUA, "Lua"),
    "Torch7, a function in a table": (struct.pack("<6i", 3, 1, 1, 1, 0, 0) + LUA, "Lua"),
    "llamafile": (b"MZqFpD='\n" + model_files.zipped({"m.gguf": model_files.gguf(a="b")}), "llamafile"),
    "self-extracting, Linux": (b"\x7fELF" + bytes(99) + model_files.zipped({"a": b"1"}), "by itself"),
    "self-extracting 7z": (b"MZ" + bytes(99) + b"7z\xbc\xaf\x27\x1c", "program"),
    "zipapp": (b"#!/usr/bin/env python3\n" + model_files.zipped({"__main__.py": b"print(1)\n"}), "script"),
}  # fmt: skip


@pytest.mark.parametrize("kind", RUNS)
def test_what_brings_code_is_not_safe(kind: str) -> None:
    data, name = RUNS[kind]
    report = verdict(data)
    assert report.overall == UNSAFE
    assert name in report.reason, report.reason


XML = b'<?xml version="1.0"?>\n'
TEXTS: dict[str, tuple[str, bytes, str]] = {
    "PMML": ("m.pmml", XML + b'<PMML version="4.3" xmlns="x">\n<Header/></PMML>', "PMML"),
    "OpenVINO": ("m.xml", XML + b'<net name="Model0" version="11">\n\t<layers>\n', "OpenVINO"),
    "LightGBM": ("m.txt", b"tree\nversion=v4\nnum_class=1\n", "LightGBM"),
    "XGBoost": (
        "m.json",
        b'{"learner":{"attributes":{},"gradient_booster":{}},"version":[3,2,0]}',
        "XGBoost",
    ),
    "CatBoost": ("m.json", b'{\n"features_info": {},\n"oblivious_trees": []}', "CatBoost"),
    "PaddlePaddle": ("m.json", b'{"base_code":{"magic":"pir","version":1},"program":{}}', "PaddlePaddle"),
    "MXNet": ("m-symbol.json", b'{"nodes": [], "arg_nodes": [], "heads": []}', "MXNet"),
    "ncnn": ("m.param", b"7767517\n75 83\nInput data 0 1 data\n", "ncnn"),
    "Caffe": ("m.prototxt", b'name: "n"\nlayer {\n  name: "c"\n  type: "ReLU"\n  bottom: "a"\n}\n', "Caffe"),
    "TensorFlow": ("m.pbtxt", b'node {\n  name: "x"\n  op: "Placeholder"\n}\n', "TensorFlow"),
    "Torch7": ("m.t7", b"4\n1\n3\nV 1\n17\ntorch.FloatTensor\n1\n", "Torch7"),
    "R": ("m.rds", b"A\n3\n262150\n197888\n5\nUTF-8\n", "data of R"),
    "R, several values": ("m.rda", b"RDA3\nA\n3\n262150\n197888\n5\nUTF-8\n", "data of R"),
    "Octave": ("m.mat", b"# Created by Octave 9.2.0\n# name: a\n", "Octave"),
    "spaCy": ("config.cfg", b'[paths]\ntrain = null\n\n[nlp]\nlang = "en"\n\n[components]\n', "spaCy"),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("wrap", [lambda raw: raw, gzip.compress], ids=["plain", "packed"])
def test_a_model_that_is_text_is_named(kind: str, wrap: Callable[[bytes], bytes], tmp_path: Path) -> None:
    name, raw, word = TEXTS[kind]
    (tmp_path / name).write_bytes(wrap(raw))
    for report in (verdict(wrap(raw)), inspect_folder(tmp_path)[0], verdict(model_files.zipped({name: raw}))):
        assert report.overall == UNKNOWN
        assert word in f"{report.reason} {report.findings}"
        assert report.format != "skipped"


def in_folder(folder: Path, name: str, raw: bytes) -> Report:
    (folder / name).write_bytes(raw)
    return next(report for report in inspect_folder(folder) if report.path.name == name)


def test_caffe_imports_what_a_python_layer_names(tmp_path: Path) -> None:
    layer = b'layer {\n  name: "p"\n  type: "Python"\n  python_param { module: "evil" layer: "L" }\n}\n'
    for report in (verdict(layer), in_folder(tmp_path, "net.prototxt", layer)):
        assert report.overall == UNSAFE
        assert "Python layer" in report.reason


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("loader_module: mlflow.sklearn\n    model_path: model.pkl\n  sklearn:\n    code: null", SAFE),
        ("loader_module: mlflow.pyfunc.loaders.code_model\n    model_code_path: agent.py", UNSAFE),
        ("loader_module: mlflow.sklearn\n    code: code", UNSAFE),
        ("loader_module: mlflow.sklearn\n    'code': 'code'", UNSAFE),
        ("loader_module: own_loader", UNKNOWN),
    ],
)
def test_code_that_mlflow_runs(settings: str, expected: str, tmp_path: Path) -> None:
    raw = f"flavors:\n  python_function:\n    {settings}\n".encode()
    assert in_folder(tmp_path, "MLmodel", raw).overall == expected


def test_a_name_hides_nothing_that_a_loader_acts_on(tmp_path: Path) -> None:
    """A text that begins like a model's is still read for settings that run code."""
    yaml = b"# Created by Octave\na: !!python/object/apply:os.system ['true']\n"
    assert in_folder(tmp_path, "config.yaml", yaml).overall == UNSAFE
    tree = b'{"learner": {"gradient_booster": 1}, "auto_map": {"AutoModel": "own.Model"}}'
    assert in_folder(tmp_path, "config.json", tree).overall == UNSAFE


def test_documents_and_ordinary_texts_are_no_models(tmp_path: Path) -> None:
    shown = b"```\n[nlp]\n[components]\n```\nlayer {\n bottom: x\n"
    assert in_folder(tmp_path, "README.md", shown).overall == SAFE
    for text in (
        b"tree of life\n",
        b"<html><body>PMML</body></html>",
        b"4\n5\n6\n",
        b'{"trees": 3}',
        b"A\nB\n",
    ):
        assert text_model(text) is None
        assert in_folder(tmp_path, "notes.txt", text).overall == SAFE


@pytest.mark.parametrize(
    "piece", ["layer {\n", "<net ", "\n", " ", "(", '{"', "# \n", "type: ", "tree\n", "<!--"]
)
def test_no_text_takes_long(piece: str) -> None:
    assert text_model((piece * 300_000).encode()) is None


def test_what_is_both_is_both() -> None:
    """A pickle behind the first bytes of such a format is still found by the readers of pickles."""
    program = b"\x80\x02cos\nsystem\n(Vtrue\ntR."
    for data, _ in BINARY.values():
        assert verdict(program + data).overall == UNSAFE
        assert verdict(data + program).overall in (UNKNOWN, UNSAFE)
    assert verdict(pickle.dumps([1, 2]) + BINARY["FAISS"][0]).overall == UNKNOWN
