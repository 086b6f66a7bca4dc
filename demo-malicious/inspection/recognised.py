"""Formats that are known by their first bytes and not judged here: their names, and which tool reads them.

Helper module, not a command. "Not judged" is no verdict: nobody has read here what their loaders do.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from inspection import archives, messages
from inspection.pickle_reader import Buffer
from inspection.report import UNKNOWN, UNSAFE

MODELAUDIT = "ModelAudit reads this format, and looks for what is suspicious in it."
UNPACK = "Unpack it and inspect the folder."
SENDER = "Ask the sender for SafeTensors, ONNX or GGUF."
R_RUNS = (
    "it is data of R (.rds, .RData), which is not judged here; R before 4.4.0 runs code in such a file when "
    "a value of it is used (CVE-2024-27322)"
)


@dataclass(frozen=True)
class Kind:
    """A format: its name, how to know it, and what is said of it."""

    name: str
    fits: Callable[[Buffer], bool]
    help: str = ""
    reason: str = ""
    answer: str = UNKNOWN

    @property
    def sentence(self) -> str:
        return self.reason or f"it is {self.name}, which is not judged here"


def magic(*starts: bytes, at: int = 0) -> Callable[[Buffer], bool]:
    """Whether a file has one of these bytes at a place."""
    return lambda data: bytes(data[at : at + 48]).startswith(starts)


def pattern(expression: bytes, most: int = 512) -> Callable[[Buffer], bool]:
    """Whether the first bytes of a file are like this."""
    compiled = re.compile(expression, re.S)
    return lambda data: compiled.match(bytes(data[0:most])) is not None


def is_python_code(data: Buffer) -> bool:
    """Compiled Python: a code object of marshal, alone or behind the header of a .pyc file."""
    head = bytes(data[0:64])
    if head[2:4] == b"\r\n" and head[1:2] in b"\x0b\x0c\x0d\x0e\x0f":
        return any(is_code(head[start:]) for start in (8, 12, 16))
    return is_code(head)


def is_code(head: bytes) -> bool:
    """Five or six small numbers (arguments, stack, flags), then the instructions as bytes."""
    if head[:1] not in (b"\xe3", b"\x63") or len(head) < 30:
        return False
    arguments = struct.unpack_from("<2I", head, 1)
    return max(arguments) < 256 and any(head[1 + 4 * n : 2 + 4 * n] in (b"s", b"\xf3") for n in (4, 5, 6))


def is_bson(data: Buffer) -> bool:
    """Julia's BSON.jl, MongoDB and others: the size of the file, then a kind and a name."""
    head = bytes(data[0:64])
    return (
        len(data) > 7
        and int.from_bytes(head[:4], "little") == len(data)
        and bytes(data[len(data) - 1 : len(data)]) == b"\0"
        and re.match(rb"[\x01-\x13][^\0]{1,40}\0", head[4:]) is not None
    )


def is_matlab_4(data: Buffer) -> bool:
    """MATLAB's first format: five numbers, then a name."""
    head = bytes(data[0:84])
    for order in "<>":
        if len(head) < 22:
            return False
        kind, rows, columns, complex_, size = struct.unpack_from(order + "5i", head)
        if (
            kind // 1000 == (0 if order == "<" else 1)
            and kind % 1000 in (0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52)
            and min(rows, columns) >= 0
            and complex_ in (0, 1)
            and 2 <= size <= 64
            and re.fullmatch(rb"[A-Za-z]\w*\0", head[20 : 20 + size])
        ):
            return True
    return False


def is_faiss(data: Buffer) -> bool:
    """An index of FAISS: four letters, the dimension, the count, and twice a number that FAISS puts there."""
    head = bytes(data[0:33])
    if re.match(rb"I[A-Za-z0-9]{3}", head) and head[16:32] == 2 * (1 << 20).to_bytes(8, "little"):
        return True
    bits, size = int.from_bytes(head[4:8], "little"), int.from_bytes(head[8:12], "little")
    return head[:2] == b"IB" and 0 < 8 * size == bits


# objects with and without a version, tables, functions: each with its number, which begins at 1
TORCH7 = pattern(
    rb"\x04\0\0\0\x01\0\0\0(.\0\0\0V \d+)?.\0\0\0[A-Za-z][\w.]{0,100}"
    rb"|\x03\0\0\0\x01\0\0\0..[\0-\3]\0([\1-\x08]\0\0\0|$)"
    rb"|[\x06-\x08]\0\0\0\x01\0\0\0.{4}\x1bL"
)


def has_lua(data: Buffer) -> bool:
    """Torch7 with functions in it, which are compiled Lua."""
    return TORCH7(data) and (data.find(b"\x1bLJ") >= 0 or data.find(b"\x1bLua") >= 0)


def with_zip(data: Buffer) -> bool:
    """A program with a zip archive behind it."""
    return PROGRAM(data) and archives.end_of_zip(data) >= 0


XGBOOST = rb".{136}[\x04-\x28]\0{7}[a-z]+:[a-z0-9-]+[\x04-\x08]\0{7}(gbtree|gblinear|dart)"
PROGRAM = magic(b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa", b"\xca\xfe\xba\xbe", b"MZ")
R = magic(b"RDX", b"RDA2\n", b"RDA3\n", b"RDB", b"X\n\0\0\0", b"B\n\2\0\0\0", b"B\n\3\0\0\0")
KINDS = [
    Kind("ggml", magic(b"lmgg", b"fmgg", b"tjgg", b"algg", b"ggml", b"ggmf", b"ggjt"),
         "Ask the sender for GGUF.", "it is a file of ggml before GGUF, which is not judged here"),
    Kind("TensorFlow Lite", magic(b"TFL3", at=4), MODELAUDIT),
    Kind("ExecuTorch", magic(b"ET12", b"ET13", at=4), MODELAUDIT),
    Kind("PyTorch Mobile", magic(b"PTMF", at=4)),
    Kind("ONNX Runtime's own format", magic(b"ORTM", at=4), "Ask the sender for ONNX."),
    Kind("TensorRT", magic(b"ptrt", b"ftrt"), MODELAUDIT,
         "it is an engine of TensorRT, which is compiled for one kind of GPU and is not judged here"),
    Kind("CatBoost", magic(b"CBM1"), MODELAUDIT),
    Kind("XGBoost (UBJSON)", pattern(rb"\{(L\0{7}|[iU])[\x05-\x07](learner|version|Config|Model)"),
         MODELAUDIT),
    Kind("XGBoost (binary, before 3.1)", pattern(rb"(binf)?" + XGBOOST), "Ask the sender for .ubj or .json."),
    Kind("Core ML", messages.is_core_ml, MODELAUDIT),
    Kind("weights of Core ML", pattern(rb".{4}\x02\0\0\0\0{56}\xef\xbe\xad\xde"), SENDER,
         "it holds the weights of a Core ML model, and is not judged here"),
    Kind("Caffe", messages.is_caffe, SENDER),
    Kind("PaddlePaddle", messages.is_paddle, MODELAUDIT),
    Kind("weights of PaddlePaddle", pattern(rb"\0{16}[\x04-\x50]\0{3}\x08[\0-\x20]\x10"), MODELAUDIT,
         "it holds the weights of a PaddlePaddle model, and is not judged here"),
    Kind("MXNet", magic(b"\x12\x01" + bytes(14)), MODELAUDIT),
    Kind("index of a TensorFlow checkpoint",
         lambda data: bytes(data[len(data) - 8 : len(data)]) == b"\x57\xfb\x80\x8b\x24\x75\x47\xdb",
         SENDER, "it is the index of a TensorFlow checkpoint, which is not judged here"),
    Kind("an index of FAISS", is_faiss, "Ask for the vectors as .npy, and build the index yourself."),
    Kind("Torch7", has_lua, SENDER,
         "it is Torch7 with compiled functions of Lua in it, which its loader makes", UNSAFE),
    Kind("Torch7", lambda data: TORCH7(data) and not has_lua(data), MODELAUDIT),
    Kind("ncnn", magic(b"\xdd\x85\x76\0"), SENDER),
    Kind("RKNN", magic(b"RKNN"), MODELAUDIT),
    Kind("fastText", magic(b"\xba\x16\x4f\x2f"), SENDER),
    Kind("MATLAB", lambda data: magic(b"MATLAB 5.0 MAT-f")(data) or is_matlab_4(data),
         "scipy.io.loadmat reads its numbers, and no more."),
    Kind("data of Julia (Serialization)", magic(b"7JL"), SENDER,
         "it is data of Julia (Serialization), which can hold code and is not judged here"),
    Kind("BSON", is_bson, SENDER,
         "it is BSON, which is not judged here: Julia's BSON.jl makes types and functions that stand in it"),
    Kind("data of R", R, MODELAUDIT, R_RUNS),
    Kind("Parquet", magic(b"PAR1")), Kind("Arrow", magic(b"ARROW1")),
    Kind("SQLite", magic(b"SQLite format 3\0")), Kind("a file of Java objects", magic(b"\xac\xed\0\x05")),
    Kind("7z archive", magic(b"7z\xbc\xaf\x27\x1c"), UNPACK, "it is a 7z archive, which is not judged here"),
    Kind("RAR archive", magic(b"Rar!\x1a\x07"), UNPACK, "it is a RAR archive, which is not judged here"),
    Kind("lz4", magic(b"\x04\x22\x4d\x18"), UNPACK,
         "it is compressed with lz4, as joblib can do; it is not unpacked here"),
    Kind("zstd", magic(b"\x28\xb5\x2f\xfd"), UNPACK, "it is compressed with zstd; it is not unpacked here"),
    Kind("old joblib", magic(b"ZF"), "Ask the sender for SafeTensors.",
         "it is compressed as by joblib before 0.10, which is not judged here"),
    Kind("compiled Python code", is_python_code, "", "it is compiled Python code, not a model", UNSAFE),
    Kind("program with an archive", with_zip, "The model in it may be had alone: ask the sender for GGUF.",
         "it is a program with a zip archive behind it, as a llamafile is: it runs by itself", UNSAFE),
    Kind("program", lambda data: PROGRAM(data) and not with_zip(data), "",
         "it is a program or a library of machine code, not a model", UNSAFE),
    Kind("script", magic(b"#!"), "", "it is a script, not a model", UNSAFE),
]  # fmt: skip
