"""Hostile model files, as bytes: seeds that are whole, tricks made by hand, and random mutations of both.

Nothing here loads a file. The payload in the malicious seeds only makes an empty marker file.
"""

from __future__ import annotations

import io
import json
import marshal
import os
import pickle
import random
import shlex
import struct
import sys
import warnings
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

import create_malicious_model as attack

HUGE = 2**62  # a size that nothing has
BOMB = 2**31  # bytes a bomb unpacks to: twice of what a command may use
ODD_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    HUGE,
    2**64,
    1e308,
    "",
    "F32",
    "\x1b[2J",
    [],
    {},
    [[]],
    [-1, -2],
]


@dataclass(frozen=True)
class ModelFile:
    """One file to try: what was done to it, the ending of its name, its bytes."""

    name: str
    suffix: str
    data: bytes


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


class Nothing:
    """Stands in for whatever a hostile file wants to import: can be called and filled, does nothing."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...

    def append(self, _: object) -> None: ...

    def extend(self, _: object) -> None: ...

    def __setitem__(self, _: object, __: object) -> None: ...


def full_name(module: str, name: str) -> str:
    """A name as Python 3 spells it: old pickles say __builtin__ where Python 3 says builtins."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def saved(value: object, legacy: bool = False) -> bytes:
    """What torch.save writes, in the zip format or in the one before PyTorch 1.6."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def zipped(members: list[tuple[str, bytes]]) -> bytes:
    """A zip file as torch.save makes it (stored, not compressed); names may repeat."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def members_of(data: bytes) -> list[tuple[str, bytes]]:
    """The members of a zip file: (name, bytes)."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


# --- seeds -------------------------------------------------------------------------------------------------


def seeds(marker: Path) -> list[ModelFile]:
    """Small whole files of every format, clean and malicious. A payload that runs makes `marker`."""
    torch.manual_seed(0)
    weights = {"weight": torch.randn(4, 3), "bias": torch.randn(4)}
    payload = Calls(os.system, f"touch {shlex.quote(str(marker))}")
    checkpoint = {"epoch": 3, "state_dict": weights, "optimizer": {"state": {0: weights}, "note": payload}}
    published = [
        ModelFile(
            f"variant, {variant.name}", variant.file.suffix, attack.malicious_bytes(variant.name, marker)
        )
        for variant in attack.VARIANTS.values()
        if variant.name != "resnet18"  # it is 45 MB
    ]
    return [
        ModelFile("clean zip", ".pt", saved(weights)),
        ModelFile("clean legacy", ".pt", saved(weights, legacy=True)),
        ModelFile("clean checkpoint", ".pt", saved({"epoch": 3, "state_dict": weights})),
        ModelFile("malicious zip", ".pt", saved(payload)),
        ModelFile("malicious legacy", ".pt", saved(payload, legacy=True)),
        ModelFile("malicious checkpoint", ".pt", saved(checkpoint)),
        ModelFile("malicious pickle 0", ".pkl", pickle.dumps({"a": payload}, protocol=0)),
        ModelFile("malicious pickle 2", ".joblib", pickle.dumps({"a": payload}, protocol=2)),
        ModelFile("malicious pickle 4", ".pkl", pickle.dumps([1.5, payload], protocol=4)),
        ModelFile("safetensors", ".safetensors", save(weights, {"format": "pt"})),
        *published,
    ]


def other_formats(marker: Path) -> list[ModelFile]:
    """Small whole files of the formats that are not torch.save's, clean and malicious."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
    import model_files  # noqa: PLC0415 (below the path)

    payload = Calls(os.system, f"touch {shlex.quote(str(marker))}")
    program = pickle.dumps(payload, protocol=2)
    numbers, field = model_files.numpy.arange(6.0), model_files.field
    objects = model_files.array(model_files.numpy.array([payload], dtype=object))
    made = {
        "numbers.npy": model_files.array(numbers),
        "objects.npy": objects,
        "numbers.npz": model_files.archive_of(model_files.numpy.savez_compressed, numbers),
        "objects.npz": model_files.zipped({"a.npy": objects}, zipfile.ZIP_DEFLATED),
        "clean.joblib": model_files.dumped({"a": [1, 2]}, 3),
        "zlib.joblib": model_files.dumped({"a": payload}, 3),
        "xz.joblib": model_files.dumped({"a": payload}, ("xz", 3)),
        "arrays.joblib": model_files.dumped([numbers, payload]),
        "arrays_clean.joblib": model_files.dumped([numbers, numbers[:2]]),
        "objects.joblib": model_files.dumped([model_files.numpy.array([payload], dtype=object)], 3),
        "old.tar": model_files.tarred({"storages": program, "tensors": b"", "pickle": program}),
        "old_clean.tar": model_files.old_tar(),
        "nemo.tar.gz": model_files.tarred({"a.yaml": b"a: 1", "w.ckpt": saved(payload)}, "w:gz"),
        "chat.gguf": model_files.gguf(a="b", tokenizer__chat_template=model_files.CHATML, c=["d", "e"], f=1),
        "model.onnx": model_files.onnx("weights.bin"),
        "dense.keras": model_files.keras([model_files.layer("Dense", units=3)]),
        "both.safetensors": model_files.two_formats(program),
        "nested.zip": model_files.zipped({"a/b.zip": model_files.zipped({"model.pt": saved(payload)})}),
        "random.pkl": pickle.dumps({"a": model_files.numpy.random.default_rng(1)}),
        "random.joblib": model_files.dumped({"a": model_files.numpy.random.RandomState(1)}),
        "net.caffemodel": field(1, b"net") + field(100, field(1, b"conv") + field(2, b"Convolution")) * 2,
        "net.mlmodel": field(1, 5) + field(2, field(1, b"")) + field(500, b""),
        "flat.index": b"IxF2" + struct.pack("<iqqqi", 4, 60, 1 << 20, 1 << 20, 1) + bytes(40),
        "table.t7": struct.pack("<5i", 3, 1, 1, 2, 5) + b"hello" + struct.pack("<3i", 8, 1, 9) + b"\x1bLJ",
        "data.bson": struct.pack("<i", 15) + b"\x10a\0\1\0\0\0\0\0\0\0",
        "flax.msgpack": b"\x82\xa6params\x81\xa6kernel\x00\xa4step\x01",
        "trees.json": b'{"learner":{"attributes":{},"gradient_booster":{}},"version":[3,2,0]}',
        "net.prototxt": b'layer {\n  type: "Python"\n  python_param { module: "os" }\n}\n',
        "code.pyc": b"\xa7\x0d\r\n" + bytes(12) + marshal.dumps(compile("1", "x", "exec")),
        "hub.mat": b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(99),
    }
    return [ModelFile(f"other, {name}", Path(name).suffix, data) for name, data in made.items()]


# --- tricks made by hand -----------------------------------------------------------------------------------


def tricks(marker: Path) -> list[ModelFile]:
    """Every attack on a reader that we know a name for; each is one file."""
    whole = {seed.name: seed.data for seed in seeds(marker)}
    clean, malicious = whole["clean zip"], whole["malicious zip"]
    found = {f"zip, {name}": (".pt", data) for name, data in zip_tricks(clean, malicious).items()}
    for name, stream in pickle_tricks().items():
        found[f"pickle, {name}"] = ".pkl", stream
        found[f"zip, pickle with {name}"] = ".pt", zipped([("a/data.pkl", stream), ("a/version", b"3\n")])
    for name, value in odd_models().items():
        found[f"model, {name}"] = ".pt", saved(value)
    for name, data in safetensors_tricks().items():
        found[f"safetensors, {name}"] = ".safetensors", data
    for name, data in wrong_files(whole).items():
        found[f"{name}, as .pt"] = ".pt", data
        found[f"{name}, as .safetensors"] = ".safetensors", data
    return [ModelFile(name, suffix, data) for name, (suffix, data) in found.items()]


def zip_tricks(clean: bytes, malicious: bytes) -> dict[str, bytes]:
    """Two readers of one zip file can see different things; sizes and names in it can lie."""
    good, bad = members_of(clean), members_of(malicious)
    stream = bad[0][1]
    first = dict(good[:1])
    name = good[0][0]
    escape = b"written outside"
    small = dict(members_of(saved({"a": torch.zeros(1)})))[name]
    # the first 1 is how many numbers are stored, the second is how many the tensor has
    big_tensor = small.replace(b"K\x01", b"J" + struct.pack("<i", BOMB // 4), 2)
    return {
        "two pickles under one name, clean one first": zipped([*good, (name, stream)]),
        "two pickles under one name, malicious one first": zipped([(name, stream), *good]),
        "a second folder with a pickle": zipped([*good, ("other/data.pkl", stream)]),
        "a pickle with another ending": zipped([*good, ("archive/data.bin", stream)]),
        "upper case": zipped([(member.upper(), data) for member, data in bad]),
        "path with ..": zipped([*good, ("archive/../../../escape.txt", escape), ("../escape.txt", escape)]),
        "absolute path": zipped([*good, ("/escape.txt", escape)]),
        "pickle at an absolute path": zipped([("/archive/data.pkl", stream)]),
        "pickle at a path with ..": zipped([("../data.pkl", stream)]),
        "names that steer a terminal": zipped([("a\x1b[2J\n/data.pkl", stream), ("\r\x1b]0;x\x07", b"")]),
        "no folder": zipped([("data.pkl", stream)]),
        "no pickle": zipped([("readme.txt", b"hello")]),
        "no member": zipped([]),
        "20000 members": zipped([*good, *((f"archive/data/{i}", b"") for i in range(20_000))]),
        "zip in a zip": zipped([(name, clean)]),
        "wrong CRC": patched(malicious, 16, struct.pack("<I", 12345)),
        "huge size in the directory": patched(clean, 24, struct.pack("<I", 2**32 - 2)),
        "huge compressed size": patched(clean, 20, struct.pack("<I", 2**32 - 2)),
        "huge size, 64 bits": huge_zip64(clean),
        "unknown compression": patched(clean, 10, struct.pack("<H", 99)),
        "encrypted": patched(clean, 8, struct.pack("<H", 1)),
        "member at a wrong place": patched(clean, 42, struct.pack("<I", 7)),
        "end record says 65535 members": clean[:-12] + b"\xff\xff" + clean[-10:],
        "long comment": clean[:-2] + struct.pack("<H", 60_000) + b"c" * 60_000,
        "a damaged start and the end of a set of disks": b"XXXX" + several_disks(malicious)[4:],
        "text in front": b"#!/bin/sh\n" + malicious,
        "malicious zip behind a clean one": clean + malicious,
        "clean zip behind a malicious one": malicious + clean,
        "zip bomb as pickle": bomb([(name, None)]),
        "zip bomb as tensor": bomb([(name, big_tensor), ("archive/data/0", None), ("archive/version", b"3")]),
        "zip bomb beside the model": bomb([*first.items(), *good[1:], ("archive/more", None)]),
    }


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    """A zip file whose first entry in the directory has `new` at `offset`."""
    start = data.index(b"PK\x01\x02") + offset
    return data[:start] + new + data[start + len(new) :]


def several_disks(data: bytes) -> bytes:
    """A zip file of torch.save that says it is one of seven disks."""
    place = data.rindex(b"PK\x06\x07") + 16
    return data[:place] + struct.pack("<I", 7) + data[place + 4 :]


def huge_zip64(data: bytes) -> bytes:
    """A zip file whose last member claims 2^62 bytes, in the way of large zip files (ZIP64)."""
    entry = data.rindex(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    extra = struct.pack("<HHQQ", 1, 16, HUGE, HUGE)
    name_end = entry + 46 + struct.unpack_from("<H", data, entry + 28)[0]
    new = bytearray(data[entry:name_end]) + extra
    struct.pack_into("<II", new, 20, 2**32 - 1, 2**32 - 1)
    struct.pack_into("<HH", new, 30, len(extra), 0)
    tail = bytearray(data[end : end + 22])
    start = struct.unpack_from("<I", tail, 16)[0]
    struct.pack_into("<IIH", tail, 12, entry + len(new) - start, start, 0)
    return data[:entry] + bytes(new) + bytes(tail)


@cache
def zeros_deflated(size: int) -> tuple[bytes, int]:
    """(compressed bytes, CRC) of `size` zeros, a multiple of 16 MB; the same block again and again."""
    block = bytes(2**24)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(size // len(block)):
        crc = zlib.crc32(block, crc)
    return packed * (size // len(block)) + packer.flush(), crc


def bomb(members: list[tuple[str, bytes | None]]) -> bytes:
    """A zip file in which a member without bytes (None) unpacks to BOMB zeros; about 2 MB."""
    file, directory = bytearray(), bytearray()
    for name, data in members:
        packed, crc = zeros_deflated(BOMB) if data is None else (data, zlib.crc32(data))
        size, method = (BOMB, 8) if data is None else (len(data), 0)
        about = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 33, crc, len(packed), size, len(name), 0)
        place = len(file)
        file += b"PK\x03\x04" + about + name.encode() + packed
        directory += b"PK\x01\x02\x14\x00" + about + struct.pack("<HHHII", 0, 0, 0, 0, place) + name.encode()
    count = len(members)
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(file), 0)
    return bytes(file + directory + b"PK\x05\x06" + end)


def pickle_tricks() -> dict[str, bytes]:
    """Pickles that are small and cost a careless reader its time, its memory or its stack."""
    start, end = b"\x80\x02", b"."
    return {
        "a list that doubles 40 times": start + b"]" + b"2\x86" * 40 + end,
        "100000 lists in each other": start + b"]" * 100_000 + b"a" * 99_999 + end,
        "100000 tuples in each other": start + b")" + b"\x85" * 100_000 + end,
        "a text of 2^62 bytes": b"\x80\x04\x8d" + struct.pack("<Q", HUGE) + b"x" + end,
        "bytes of 4 GB": b"\x80\x03B" + struct.pack("<I", 2**32 - 1) + b"x" + end,
        "a frame of 2^62 bytes": b"\x80\x04\x95" + struct.pack("<Q", HUGE) + b"N" + end,
        "a memo far out": start + b"]r" + struct.pack("<I", 2**31 - 1) + end,
        "a number of a million digits": start
        + b"\x8b"
        + struct.pack("<i", 500_000)
        + b"\x7f" * 500_000
        + end,
        "a decimal number of a million digits": b"I" + b"7" * 1_000_000 + b"\n.",
        "2 GB of bytearray, which the safe loader allows": calls_builtin(b"bytearray"),
        "range of 2^31 as a list": calls_builtin(b"range"),
        "a name with line breaks": b"cos\nsys\x1b[2Jtem\n(S'true'\ntR.",
        "a name with control characters": start + b"csys\x00\x01\nsys\x1b[2Jtem\n)R" + end,
        "a name that is not ASCII": "cоs\nsystem\n(tR.".encode(),  # a Cyrillic o
        "a stack that is empty": start + b"0000RRR" + end,
        "a memo that is empty": start + b"h\x09" + end,
        "an unknown instruction": start + b"\xff\xfe" + end,
        "a protocol of the future": b"\x80\xff" + b"N" + end,
        "no end": start + b"]" * 50,
        "a persistent id": b"Pwhatever\n.",
        "an extension code": start + b"\x82\x01" + end,
        "400 KB of empty instructions": start + b"N0" * 200_000 + b"N" + end,
    }


def calls_builtin(name: bytes) -> bytes:
    """A pickle that calls a built-in with the number 2^31."""
    return b"\x80\x02c__builtin__\n" + name + b"\n\x8a\x05\x00\x00\x00\x80\x00\x85R."


def odd_models() -> dict[str, object]:
    """Files that torch.save really writes, with content that a converter does not expect."""
    loop: dict[str, Any] = {"weight": torch.zeros(2)}
    loop["self"] = loop
    base = torch.zeros(8)
    return {
        "one number that claims to be 2 GB": {"a": torch.zeros(1).expand(BOMB // 4)},
        "one number that claims to be 2^62": {"a": torch.zeros(1, dtype=torch.uint8).expand(HUGE)},
        "sparse": {"a": torch.eye(3).to_sparse()},
        "without numbers (meta)": {"a": torch.empty(3, device="meta")},
        "complex": {"a": torch.zeros(3, dtype=torch.complex64)},
        "conjugated": {"a": torch.ones(3, dtype=torch.complex64).conj()},
        "eight bits": {"a": torch.zeros(3).to(torch.float8_e4m3fn)},
        "shared": {"a": base, "b": base[2:], "c": base.view(2, 4).t()},
        "a loop": loop,
        "names that are numbers": {1: torch.zeros(1)},
        "names that steer a terminal": {"\x1b[2J\n[red]": torch.zeros(1)},
        "a name of the metadata": {"__metadata__": torch.zeros(1)},
        "a name that is no text": {"\ud800": torch.zeros(1)},
        "a name of 100000 letters": {"n" * 100_000: torch.zeros(1)},
        "nothing": {},
        "a tensor": torch.zeros(3),
        "a list": [torch.zeros(3)],
        "None": None,
        "a parameter": {"a": torch.nn.Parameter(torch.zeros(2))},
    }


def safetensors_bytes(header: bytes, numbers: bytes = bytes(64), length: int | None = None) -> bytes:
    """A SafeTensors file with any header; `length` is what it claims the header to be."""
    return struct.pack("<Q", len(header) if length is None else length) + header + numbers


def tensor(shape: list[int], start: int, end: int, kind: str = "F32") -> dict[str, object]:
    """One entry of a SafeTensors header."""
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


def safetensors_tricks() -> dict[str, bytes]:
    """Headers that lie about places, sizes and types, and headers that are no JSON."""
    a, b = tensor([8], 0, 32), tensor([8], 32, 64)
    good = json.dumps({"a": a, "b": b}).encode()
    headers: dict[str, object] = {
        "overlapping places": {"a": tensor([16], 0, 64), "b": b},
        "the same place twice": {"a": tensor([16], 0, 64), "b": tensor([16], 0, 64)},
        "a hole": {"a": a, "b": tensor([4], 48, 64)},
        "a place behind the end": {"a": tensor([16], 0, 64), "b": tensor([8], 64, 96)},
        "a negative place": {"a": tensor([8], -32, 0)},
        "an end before the start": {"a": tensor([8], 32, 0), "b": b},
        "a huge place": {"a": tensor([8], HUGE, HUGE + 32)},
        "a huge shape": {"a": tensor([HUGE], 0, 64)},
        "a shape that overflows": {"a": tensor([2**32, 2**32], 0, 0)},
        "a shape that overflows to the right size": {"a": tensor([2**62 + 4, 4], 0, 64)},
        "zero times a huge shape": {"a": tensor([0, HUGE, HUGE], 0, 0), "b": tensor([16], 0, 64)},
        "a negative shape": {"a": tensor([-4, -4], 0, 64)},
        "a shape of 100000 dimensions": {"a": tensor([1] * 100_000, 0, 4), "b": tensor([15], 4, 64)},
        "an unknown type": {"a": tensor([16], 0, 64, "F99")},
        "a type that is code": {"a": tensor([16], 0, 64, "__import__('os')")},
        "metadata that is no text": {"__metadata__": {"x": [1]}, "a": tensor([16], 0, 64)},
        "metadata that steers a terminal": {"__metadata__": {"\x1b[2J": "\x1b]0;x\x07"}, "a": a, "b": b},
        "a name that steers a terminal": {"\x1b[2J\n[red]": tensor([16], 0, 64)},
        "a list": [1, 2],
        "null": None,
        "no tensors": {},
        "20000 tensors": {f"t{i}": tensor([0], 0, 0) for i in range(20_000)} | {"z": tensor([16], 0, 64)},
    }
    made = {name: safetensors_bytes(json.dumps(header).encode()) for name, header in headers.items()}
    return made | {
        "invalid JSON": safetensors_bytes(good[:-1]),
        "two objects": safetensors_bytes(good + good),
        "a name twice": safetensors_bytes(good.replace(b'"b"', b'"a"')),
        "JSON that is not UTF-8": safetensors_bytes(good.replace(b'"b"', b'"\xff"')),
        "half a character": safetensors_bytes(good.replace(b'"b"', b'"\\ud800"')),
        "brackets 100000 deep": safetensors_bytes(b'{"a":' + b"[" * 100_000),
        "numbers with 100000 digits": safetensors_bytes(good.replace(b"32", b"3" * 100_000)),
        "a header of 10 MB of spaces": safetensors_bytes(good + b" " * 10_000_000),
        "a header longer than the file": safetensors_bytes(good, length=10**6),
        "a header of 2^63 bytes": safetensors_bytes(good, length=2**63),
        "a header of 2^64-1 bytes": safetensors_bytes(good, length=2**64 - 1),
        "a header of 0 bytes": safetensors_bytes(b""),
        "more numbers than named": safetensors_bytes(good, bytes(65)),
        "fewer numbers than named": safetensors_bytes(good, bytes(63)),
        "nothing but a length": struct.pack("<Q", 10**6),
    }


def wrong_files(whole: dict[str, bytes]) -> dict[str, bytes]:
    """Files that are no model at all, and a model under the name of another format."""
    return {
        "one byte": b"\x80",
        "text": b"import this\nis not a model\n",
        "zeros": bytes(5000),
        "noise": random.Random(7).randbytes(5000),
        "gzip": b"\x1f\x8b\x08" + bytes(50),
        "zlib": zlib.compress(whole["malicious pickle 2"]),
        "7z": b"7z\xbc\xaf\x27\x1c" + bytes(50),
        "GGUF": b"GGUF\x03\x00\x00\x00" + b"\xff" * 16,
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(500),
        "numpy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (9999999999,), }\n",
        "safetensors": whole["safetensors"],
        "malicious zip": whole["malicious zip"],
        "malicious pickle": whole["malicious pickle 4"],
        "pickle with a clean zip behind it": whole["malicious legacy"] + whole["clean zip"],
        "TorchScript": zipped(
            [(f"m/{name}", b"\x80\x02N.") for name in ("data.pkl", "constants.pkl", "code/x")]
        ),
    }


# --- random mutations --------------------------------------------------------------------------------------


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def set_bytes(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    data[start : start + 4] = struct.pack("<I", rng.choice([0, 1, 2**16, 2**31, 2**32 - 1]))


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(1, len(data) + 1) :]


def cut_out(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.randint(1, 64)]


def repeat(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    data[start:start] = data[start : start + rng.randint(1, 64)] * rng.randint(1, 50)


def exchange(data: bytearray, rng: random.Random) -> None:
    first, second = rng.randrange(len(data)), rng.randrange(len(data))
    size = rng.randint(1, 64)
    data[first : first + size], data[second : second + size] = (
        data[second : second + size],
        data[first : first + size],
    )


MUTATORS: list[Callable[[bytearray, random.Random], None]] = [
    flip_bits,
    set_bytes,
    truncate,
    cut_out,
    repeat,
    exchange,
]


def mutate(whole: list[ModelFile], rng: random.Random) -> ModelFile:
    """A seed with 1 to 3 random changes: of the raw bytes, or of a part that is then packed correctly."""
    seed = rng.choice(whole)
    steps = [rng.choice(MUTATORS) for _ in range(rng.randint(1, 3))]
    where, data = "raw", seed.data
    if zipfile.is_zipfile(io.BytesIO(data)) and data[:2] == b"PK" and rng.random() < 0.6:
        where, members = "in the zip", members_of(data)
        chosen = rng.choice([0, 0, 0, rng.randrange(len(members))])  # the pickle comes first
        members[chosen] = members[chosen][0], changed(members[chosen][1], steps, rng)
        data = zipped(members)
    elif seed.suffix == ".safetensors" and rng.random() < 0.6:
        where, data = "in the header", change_header(data, rng)
    else:
        data = changed(data, steps, rng)
    return ModelFile(f"{seed.name}, {where}: {', '.join(step.__name__ for step in steps)}", seed.suffix, data)


def changed(
    data: bytes, steps: Sequence[Callable[[bytearray, random.Random], None]], rng: random.Random
) -> bytes:
    """The bytes after these changes."""
    new = bytearray(data)
    for step in steps:
        if new:
            step(new, rng)
    return bytes(new)


def change_header(data: bytes, rng: random.Random) -> bytes:
    """A SafeTensors file with one value of its header replaced by an odd one."""
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + size])
    entry = header[rng.choice(sorted(header))]
    key = rng.choice(sorted(entry))
    value = rng.choice(ODD_VALUES)
    if isinstance(entry[key], list) and rng.random() < 0.7:
        entry[key][rng.randrange(len(entry[key]))] = value
    else:
        entry[key] = value
    return safetensors_bytes(json.dumps(header).encode(), data[8 + size :])
