"""Model files of many kinds, honest and hostile, made here: what scanners are compared on.

Every hostile payload only creates a marker file. The kinds are published ones. Nothing here loads a file.
scanners.py and the tests use these files.
"""

from __future__ import annotations

import argparse
import bz2
import collections
import datetime
import decimal
import gzip
import io
import json
import lzma
import pathlib
import pickle
import struct
import sys
import tarfile
import uuid
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo-malicious"))

import joblib
import numpy
import safetensors.torch
import torch

import create_malicious_model as attack

Files = dict[str, bytes]  # name of the file -> its bytes


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


# --- builders ------------------------------------------------------------------------------------------


def saved(value: object, old: bool = False, **options: Any) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, file, _use_new_zipfile_serialization=not old, **options)
    return file.getvalue()


def dumped(value: object, compress: Any = 0) -> bytes:
    """What joblib.dump writes."""
    file = io.BytesIO()
    joblib.dump(value, file, compress=compress)
    return file.getvalue()


def array(value: Any) -> bytes:
    """What numpy.save writes."""
    file = io.BytesIO()
    numpy.save(file, value, allow_pickle=True)
    return file.getvalue()


def zipped(parts: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file with these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def tarred(parts: dict[str, bytes], mode: str = "w") -> bytes:
    """A tar archive with these members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=tarfile.GNU_FORMAT) as tar:  # type: ignore[call-overload]
        for name, data in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def gguf(**settings: str | int | list[str]) -> bytes:
    """A GGUF file without tensors (the layout is in ggml's docs/gguf.md)."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    body = b""
    for key, value in settings.items():
        body += text(key.replace("__", "."))
        if isinstance(value, str):
            body += struct.pack("<I", 8) + text(value)
        elif isinstance(value, int):
            body += struct.pack("<II", 4, value)
        else:
            body += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(settings)) + body


def field(number: int, value: bytes | int) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def onnx(location: str = "", domain: str = "", first: bytes = b"") -> bytes:
    """An ONNX model with one node and one weight (the layout is in onnx.proto)."""
    external = (
        field(13, field(1, b"location") + field(2, location.encode())) + field(14, 1) if location else b""
    )
    weight = field(1, 2) + field(2, 1) + field(8, b"w") + (external or field(9, bytes(8)))
    node = (
        field(1, b"x")
        + field(1, b"w")
        + field(2, b"y")
        + field(4, b"Add")
        + (field(7, domain.encode()) if domain else b"")
    )
    graph = field(1, node) + field(2, b"g") + field(5, weight)
    return first + field(1, 10) + field(7, graph) + field(8, field(1, domain.encode()) + field(2, 20))


def keras(layers: list[dict[str, Any]]) -> bytes:
    """A Keras 3 file with these layers in its configuration, and without weights."""
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    return zipped(
        {"metadata.json": b'{"keras_version": "3.10.0"}', "config.json": json.dumps(config).encode()}
    )


def layer(name: str, **config: Any) -> dict[str, Any]:
    """One layer of a Keras configuration."""
    return {"module": "keras.layers", "class_name": name, "config": config, "registered_name": None}


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}"
    "{{ '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] not in ['user', 'assistant'] %}"
    "{{ raise_exception('Only user and assistant roles') }}{% endif %}"
    "{{ '[INST] ' + message['content'] | trim }}"
    "{% endfor %}"
)
ESCAPE = "{{ ''.__class__.__mro__[1].__subclasses__() }}"


def exported(sample: object = None) -> bytes:
    """A program of torch.export; `sample` takes the place of its sample inputs."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
        torch.export.save(program, file)
    if sample is None:
        return file.getvalue()
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    return zipped({name: saved(sample) if "sample_inputs" in name else data for name, data in parts.items()})


def scripted() -> bytes:
    """A TorchScript file."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    return file.getvalue()


# --- honest files --------------------------------------------------------------------------------------


def honest() -> Files:
    """Intact files as people share them, of a dozen formats."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(4, 3)
    state = linear.state_dict()
    optimizer = torch.optim.AdamW(linear.parameters())
    linear(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1).state_dict()
    numbers = numpy.arange(6.0).reshape(2, 3)
    with_all = {
        "state_dict": state,
        "optimizer": optimizer.state_dict(),
        "lr_schedulers": [schedule],
        "epoch": 3,
    }
    tied = torch.zeros(3, 4)
    files: Files = {
        "state_dict.pt": saved(state),
        "ordered.bin": saved(collections.OrderedDict(state)),
        "parameter.pth": saved({"w": torch.nn.Parameter(torch.ones(2))}),
        "half.bin": saved({name: value.half() for name, value in state.items()}),
        "bfloat16.bin": saved({name: value.bfloat16() for name, value in state.items()}),
        "integers.pt": saved({"a": torch.arange(3), "b": torch.tensor([True]), "c": torch.zeros(2).char()}),
        "tied.pt": saved({"embed": tied, "head": tied}),
        "sparse.pt": saved({"s": torch.eye(3).to_sparse()}),
        "checkpoint.ckpt": saved(with_all),
        "batchnorm.pt": saved(torch.nn.BatchNorm1d(3).state_dict()),
        "lora.bin": saved({f"base.layers.{i}.lora_A.weight": torch.zeros(2, 4) for i in range(8)}),
        "experts.bin": saved({f"layers.{i // 64}.experts.{i % 64}.w": torch.zeros(1) for i in range(3000)}),
        "old_state_dict.pt": saved(state, old=True),
        "old_checkpoint.pth.tar": saved(with_all, old=True),
        "namespace.pth": saved({"state_dict": state, "args": argparse.Namespace(lr=0.1, name="run")}),
        "numpy_scalar.pth": saved({"model": state, "best": numpy.float64(0.9)}),
        "numpy_array.pth": saved({"model": state, "mean": numbers}),
        "paths.pt": saved({"model": state, "out": pathlib.PurePosixPath("runs/1")}),
        "defaultdict.pt": saved({"model": state, "log": collections.defaultdict(list, a=[1])}),
        "dates.pt": saved({"model": state, "when": datetime.datetime(2026, 1, 2), "id": uuid.UUID(int=1)}),
        "decimals.pt": saved({"model": state, "loss": decimal.Decimal("0.1")}),
        "deque.pt": saved({"model": state, "losses": collections.deque([0.1, 0.2])}),
        "dtype.pt": saved({"model": state, "dtype": torch.float16, "device": torch.device("cpu")}),
        "random_state.pt": saved({"torch": torch.get_rng_state(), "numpy": numpy.random.get_state()}),
        "plain.safetensors": safetensors.torch.save(state),
        "metadata.safetensors": safetensors.torch.save(state, {"format": "pt", "licence": "apache-2.0"}),
        "half.safetensors": safetensors.torch.save({"w": torch.zeros(2, 2).half()}),
        "experts.safetensors": safetensors.torch.save({f"e.{i}": torch.zeros(1) for i in range(3000)}),
        "adapter.safetensors": safetensors.torch.save({"lora_A": torch.zeros(2, 2)}, {"ss_network_dim": "8"}),
        "vocabulary.pkl": pickle.dumps({f"word{i}": i for i in range(2000)}, protocol=4),
        "settings.pkl": pickle.dumps({"layers": [64, 32], "rate": 0.1, "names": ("a", "b")}, protocol=2),
        "labels_0.pkl": pickle.dumps(["cat", "dog"], protocol=0),
        "labels_5.pkl": pickle.dumps({"labels": {"cat", "dog"}}, protocol=5),
        "counter.pkl": pickle.dumps(collections.Counter("abca"), protocol=4),
        "numpy_array.pkl": pickle.dumps({"mean": numbers}, protocol=4),
        "compressed.joblib": dumped({"a": [1, 2]}, 3),
        "gzip.joblib": dumped({"a": [1, 2]}, ("gzip", 3)),
        "xz.joblib": dumped({"classes": ["a", "b"]}, ("xz", 3)),
        "plain.joblib": dumped({"classes": ["a", "b"]}),
        "arrays.joblib": dumped({"weights": numbers}),
        "arrays_compressed.joblib": dumped({"weights": numbers, "bias": numbers[0]}, 3),
        "labels.joblib": dumped({"labels": numpy.array(["cat", None], dtype=object)}),
        "vocabulary.pkl.gz": gzip.compress(pickle.dumps({"word": 1})),
        "floats.npy": array(numbers),
        "structured.npy": array(numpy.zeros(3, dtype=[("a", "f4"), ("b", "i8")])),
        "texts.npy": array(numpy.array(["cat", "dog"])),
        "objects.npy": array(numpy.array(["cat", None], dtype=object)),
        "arrays.npz": archive_of(numpy.savez, numbers),
        "compressed.npz": archive_of(numpy.savez_compressed, numbers),
        "chat.gguf": gguf(general__architecture="llama", tokenizer__chat_template=CHATML),
        "instruct.gguf": gguf(general__architecture="llama", tokenizer__chat_template=LLAMA),
        "base.gguf": gguf(general__architecture="llama", tokenizer__tokens=["a", "b"], general__file_type=1),
        "model.onnx": onnx(),
        "large.onnx": onnx("large.onnx.data"),
        "ml.onnx": onnx(domain="ai.onnx.ml"),
        "dense.keras": keras([layer("InputLayer", batch_shape=[None, 4]), layer("Dense", units=2)]),
        "images.keras": keras([layer("Conv2D", filters=2), layer("Flatten"), layer("Dropout", rate=0.1)]),
        "scripted.pt": scripted(),
        "exported.pt2": exported(),
        "before_0_4.pt": old_tar(),
    }  # fmt: skip
    return files


def old_tar(between: bytes = b"", **more: bytes) -> bytes:
    """What PyTorch before 0.4 wrote: one tensor of 11 times 9. `between` stands behind its numbers."""

    class Referring(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return 5 if value == "the tensor" else None

    program = io.BytesIO()
    Referring(program, 2).dump({"w": "the tensor"})
    storage = pickle.dumps((140, "cpu", torch.FloatStorage), 2) + struct.pack("<q", 99) + bytes(4 * 99)
    tensor = pickle.dumps((5, 140, torch.FloatTensor), 2) + struct.pack("<i4x2q2qq", 2, 11, 9, 9, 1, 0)
    parts = {
        "sys_info": pickle.dumps({"protocol_version": 1000, "little_endian": True}, 2),
        "pickle": program.getvalue(),
        "tensors": pickle.dumps(1, 2) + tensor,
        "storages": pickle.dumps(1, 2) + storage + between + pickle.dumps([], 2),
    }
    return tarred(parts | more)


def archive_of(save: Callable[..., None], value: Any) -> bytes:
    """What numpy.savez writes."""
    file = io.BytesIO()
    save(file, first=value, second=value)
    return file.getvalue()


# --- hostile files -------------------------------------------------------------------------------------

# Calls that run something, start something, or read and write files; all with harmless arguments. From the
# advisories of picklescan and the papers PickleBall (2025) and "Hide and Seek" (2025).
GADGETS = {
    "eval": ("builtins", "eval", "1"),
    "exec": ("builtins", "exec", "1"),
    "popen": ("os", "popen", "true"),
    "run": ("subprocess", "run", "true"),
    "getoutput": ("subprocess", "getoutput", "true"),
    "run_code": ("runpy", "_run_code", "1"),
    "pipepager": ("pydoc", "pipepager", "1"),
    "timeit": ("timeit", "timeit", "1"),
    "profile": ("cProfile", "run", "1"),
    "trace": ("trace", "Trace.run", "1"),
    "cdll": ("ctypes", "CDLL", "nothing.so"),
    "import_module": ("importlib", "import_module", "this"),
    "attrgetter": ("operator", "attrgetter", "system"),
    "resolve_name": ("pkgutil", "resolve_name", "os:system"),
    "run_pip": ("ensurepip", "_run_pip", "x"),
    "idle": ("idlelib.pyshell", "ModifiedInterpreter.runcommand", "1"),
    "torch_load": ("torch.serialization", "load", "x.pt"),
    "load_config": ("torch.utils._config_module", "ConfigModule.load_config", "x"),
    "compile_file": ("torch._inductor.codecache", "compile_file", "x"),
    "crackfortran": ("numpy.f2py.crackfortran", "getlincoef", "1"),
    "runstring": ("numpy.testing._private.utils", "runstring", "1"),
    "file_handler": ("logging", "FileHandler", "/dev/null"),
    "memmap": ("numpy", "memmap", "/dev/null"),
    "https": ("http.client", "HTTPSConnection", "localhost"),
    "own_class": ("own_library.models", "Net", "x"),
}


def gadget(name: str, protocol: int) -> bytes:
    """A pickle that calls one of GADGETS."""
    module, function, argument = GADGETS[name]
    if protocol >= 4:
        text = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() + b"\x94" for part in (module, function))
        return (
            b"\x80\x04" + text + b"\x93\x94\x8c" + bytes([len(argument)]) + argument.encode() + b"\x94\x85R."
        )
    return b"c" + f"{module}\n{function}\n(V{argument}\ntR.".encode()


def system_at(marker: Path, protocol: int = 2) -> bytes:
    """A pickle of our own payload."""
    return pickle.dumps(attack.payload_for(attack.PLAIN, marker), protocol=protocol)


def hostile(marker: Path) -> Files:
    """Files that run code in some loader, or reach out of their folder. Payloads only make the marker."""
    payload = attack.payload_for(attack.PLAIN, marker)
    small = torch.nn.Linear(2, 2)
    files: Files = {
        variant.file.name: attack.malicious_bytes(name, marker, small)
        for name, variant in attack.VARIANTS.items()
    }
    for number, name in enumerate(GADGETS):
        if number % 2:
            files[f"gadget_{name}.pkl"] = gadget(name, 4)
        else:
            files[f"gadget_{name}.pt"] = zipped({"m/data.pkl": gadget(name, 2), "m/version": b"3\n"})
    clean = pickle.dumps({"a": 1}, protocol=2)
    text = system_at(marker, 0)
    files |= {
        "protocol_0.pkl": text,
        "protocol_5.pkl": system_at(marker, 5),
        "broken_behind.pkl": system_at(marker)[:-1] + b"\xff\xff",
        "text_broken_behind.pkl": text[:-1] + b"%",
        "second_pickle.pkl": clean + system_at(marker),
        "escaped_name.pkl": b"V\\u006fs\nVsystem\n\x93(Vtrue\ntR.",
        "by_memo.pkl": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x9400h\x00h\x01\x93\x8c\x04true\x85R.",
        "computed_name.pkl": b"\x80\x04cbuiltins\nstr\n\x8c\x02os\x85R\x8c\x06system\x93\x8c\x04true\x85R.",
        "inst.pkl": b"(Vtrue\nios\nsystem\n.",
        "build_on_class.pkl": b"\x80\x02cargparse\nNamespace\n}X\x01\0\0\0aK\x01sb.",
        "extension.pkl": b"\x80\x02\x82\x01(X\x01\0\0\0atR.",
        "zlib.joblib": dumped({"note": payload}, 3),
        "xz.joblib": dumped({"note": payload}, ("xz", 3)),
        "lzma.joblib": lzma.compress(system_at(marker), lzma.FORMAT_ALONE),
        "bz2.joblib": bz2.compress(system_at(marker)),
        "behind_arrays.joblib": dumped([numpy.arange(4.0), payload]),
        "in_array.joblib": dumped([numpy.array([payload], dtype=object), numpy.arange(4.0)], 3),
        "raw_zlib.pkl": zlib.compress(system_at(marker)),
        "twice_gzip.pkl.gz": gzip.compress(gzip.compress(system_at(marker))),
        "objects.npy": array(numpy.array([payload], dtype=object)),
        "objects.npz": zipped({"a.npy": array(numpy.array([payload], dtype=object))}),
        "old_tar.pt": tarred({"storages": pickle.dumps(0) + pickle.dumps([]), "tensors": pickle.dumps(0),
                              "pickle": pickle.dumps(payload)}),
        "between_numbers.pt": old_tar(system_at(marker)),
        "pickle_in_tar_name.pt": tarred({clean_names(): b"", "storages": pickle.dumps(0) + pickle.dumps([]),
                                         "tensors": pickle.dumps(0), "pickle": pickle.dumps(payload)}),
        "nemo.tar.gz": tarred({"model_config.yaml": b"a: 1\n", "model_weights.ckpt": saved(payload)}, "w:gz"),
        "sample_inputs.pt2": exported(payload),
        "zip_in_zip.zip": zipped({"inner/model.pt": saved(payload)}),
        "other_ending.pt": zipped({"m/data.pkl": clean, "m/note.bin": system_at(marker)}),
        "flags.pt": flags(saved(payload)),
        "checksum.pt": checksum(saved(payload)),
        "pickle_before_zip.pt": saved(payload, old=True) + saved({"a": 1}),
        "zip_behind_text.pt": b"hello\n" + saved(payload),
        "pickle_in_safetensors.safetensors": two_formats(system_at(marker)),
        "escape.gguf": gguf(general__architecture="llama", tokenizer__chat_template=ESCAPE),
        "escape_by_filter.gguf": gguf(tokenizer__chat_template="{{ messages | attr('__init__') }}"),
        "traversal.onnx": onnx("../../etc/passwd"),
        "absolute.onnx": onnx("/etc/passwd"),
        "windows.onnx": onnx("C:\\secrets"),
        "pickle_in_onnx.onnx": onnx(first=pickle_in_message(b"(Vtrue\nios\nsystem\n.")),
        "lambda.keras": keras([layer("Lambda", function={"class_name": "__lambda__", "config": {}})]),
        "wrapped_lambda.keras": keras([layer("TimeDistributed", layer=layer("Lambda", function="f"))]),
        "module.keras": keras([{"module": "subprocess", "class_name": "function", "config": "getoutput"}]),
        "library.so.pt": b"\x7fELF\x02\x01\x01" + bytes(60),
    }  # fmt: skip
    return files


def clean_names() -> str:
    """A member's name that is a row of clean pickles, as torch.save wrote before 1.6 (PyTorch PR 145020)."""
    clean = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"\x80\x02M\xe9\x03." + 3 * b"\x80\x02}."
    return clean.decode("utf8", "surrogateescape")


def flags(data: bytes) -> bytes:
    """A zip file that says it is encrypted; PyTorch does not look at that."""
    changed = bytearray(data)
    for magic, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        place = changed.find(magic)
        while place >= 0:
            changed[place + offset] |= 1
            place = changed.find(magic, place + 4)
    return bytes(changed)


def checksum(data: bytes) -> bytes:
    """A zip file with a wrong checksum of its pickle; PyTorch does not look at that."""
    place = data.index(b"PK\x01\x02") + 16
    wrong = bytearray(data)
    wrong[place] ^= 1
    return bytes(wrong)


def pickle_in_message(program: bytes) -> bytes:
    """Two fields that a protobuf reader skips, and that a pickle reads as instructions."""
    return b"\x80\x04Nr" + bytes([len(program) + 3]) + bytes(3) + program


def two_formats(program: bytes) -> bytes:
    """A valid SafeTensors file that is a pickle as well."""
    import variants  # noqa: PLC0415 (below the path)

    return variants.behind_safetensors_header(program)
