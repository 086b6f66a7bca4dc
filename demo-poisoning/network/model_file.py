"""Open a model file without ever running code from it, and say by name what cannot be opened that way."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

import cli

NOT_PLAIN = "as a sparse or nested tensor, or without values: save it dense, with its values"
# A whole model, or a program with weights in it: to load one is to run it, or takes another library.
SAVE_WEIGHTS = "load it where you trust it, and save model.state_dict() there"
OTHER_FORMATS = {
    "TorchScript": SAVE_WEIGHTS,
    "torch.export": SAVE_WEIGHTS,
    "ONNX": "ask its maker for the PyTorch weights from which it was exported",
    "Keras": "only PyTorch networks are scanned: train or convert it with torchvision",
    "HDF5 (Keras)": "only PyTorch networks are scanned: train or convert it with torchvision",
    "TensorFlow": "only PyTorch networks are scanned: train or convert it with torchvision",
    "TensorFlow Lite": "ask its maker for the PyTorch weights from which it was made",
    "GGUF": "it holds a language model, and only image classifiers are scanned",
    "NumPy": "save the weights as a state dict with torch.save or as SafeTensors",
    "a pointer of Git LFS": "fetch the file itself with `git lfs pull`",
}
BEGINNINGS = (
    (0, b"\x89HDF\r\n\x1a\n", "HDF5 (Keras)"),
    (4, b"TFL3", "TensorFlow Lite"),
    (0, b"GGUF", "GGUF"),
    (0, b"\x93NUMPY", "NumPy"),
    (0, b"version https://git-lfs", "a pointer of Git LFS"),
)
OF_TORCH = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # the number with which torch.save began before its zip files
# ir_version (1 byte) and then the producer's name, or a graph: what exporters write first (onnx.proto)
ONNX = re.compile(rb"\x08[\x01-\x7f](\x12[\x01-\x7f][\w.+ -]|[\x1a\x22\x3a\x42])")
# names that only hold data (demo-malicious/inspection/names.py has all of them); the others may run code
DATA = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace|(collections|datetime)\.\w+|pathlib\.[\w.]+|"
    r"numpy\.(dtype|ndarray|dtypes\.\w+DType|\w*(core)\.multiarray\.(scalar|_reconstruct))"
)


def read(path: Path, mapped: bool = False) -> Any:
    """What a .safetensors or .pt file holds: tensors and plain containers, and nothing else.

    A .pt file is a pickle, so it goes through torch's restricted loader (weights_only=True). mapped: read
    from the disk only what is used, and not the state of an optimizer beside the weights. Raises UserError
    for a missing, damaged or refused file, and for other formats, by name.
    """
    if path.is_dir() and other_format(path):
        raise refused(path, other_format(path))
    if path.is_dir():
        raise cli.UserError(f"{path} is a folder: name the model file in it.")
    if not path.is_file():
        raise cli.UserError(f"{path} does not exist: train a model with train.py or check the path.")
    try:
        if path.suffix == ".safetensors":
            return load(path.read_bytes())  # load_file() takes no path that is not UTF-8
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mapped = mapped and zipfile.is_zipfile(path) and str(path).isprintable()  # torch's own limits
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a hostile or damaged file can make the readers fail in any way
        if ending := other_ending(path):
            raise cli.UserError(
                f"{path} is misnamed: by what is in it, its name should end in {ending}."
            ) from error
        if kind := other_format(path):
            raise refused(path, kind) from error
        if "GLOBAL " in str(error):  # torch's word for a name to import, which is how a pickle runs code
            raise _asks_for_more(path, str(error)) from error
        if is_plain_pickle(path):
            raise cli.UserError(
                f"{path} is a plain pickle, and not of torch.save: do not load it, but ask its maker for "
                "SafeTensors, or inspect it (demo-malicious/inspect_model.py)."
            ) from error
        raise cli.UserError(f"{path} is damaged or not a model file: train or download it again.") from error


def refused(path: Path, kind: str) -> cli.UserError:
    return cli.UserError(f"{path} is {kind}, which is not loaded here: {OTHER_FORMATS[kind]}.")


def _names_in_zip(path: Path) -> list[str]:
    """What a zip archive says that it holds; nothing if it is none, or damaged."""
    try:
        if not zipfile.is_zipfile(path):  # may raise, too
            return []
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):  # ValueError: a name is no text
        return []


def other_format(path: Path) -> str:
    """Which of the OTHER_FORMATS a file or folder has, by its content; empty if none of them."""
    if path.is_dir():
        return "TensorFlow" if (path / "saved_model.pb").is_file() else ""
    with path.open("rb") as file:
        start = file.read(64)
    for offset, beginning, kind in BEGINNINGS:
        if start[offset:].startswith(beginning):
            return kind
    if names := _names_in_zip(path):
        inside = {name.partition("/")[2] for name in names} | set(names)
        if any(name.startswith("code/") for name in inside) or "constants.pkl" in inside:
            return "TorchScript"
        if "archive_format" in inside or "serialized_exported_program.json" in inside:
            return "torch.export"
        if "config.json" in inside and any(name.endswith(".h5") for name in inside):
            return "Keras"
        if all(name.endswith(".npy") for name in names):
            return "NumPy"
        return ""
    return "ONNX" if ONNX.match(start) or path.suffix == ".onnx" else ""


def other_ending(path: Path) -> str:
    """.safetensors or .pt if the file is one of these under the other's name; empty if it is not."""
    with path.open("rb") as file:
        start = file.read(64)
    if path.suffix == ".safetensors":
        in_zip = any(name.endswith("data.pkl") for name in _names_in_zip(path))
        return ".pt" if in_zip or OF_TORCH in start else ""
    header = int.from_bytes(start[:8], "little")  # bytes of the JSON that follows
    return ".safetensors" if start[8:9] == b"{" and header < path.stat().st_size else ""


def is_plain_pickle(path: Path) -> bool:
    """Whether a file begins as pickle.dump writes it, and torch.save does not."""
    with path.open("rb") as file:
        start = file.read(64)
    return start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5") and OF_TORCH not in start


def _asks_for_more(path: Path, said: str) -> cli.UserError:
    """Why the restricted loader refused a pickle, and the way forward. said: its own words."""
    name = next(iter(re.findall(r"GLOBAL ([\w.]+)", said)), "")
    if DATA.fullmatch(name):
        return cli.UserError(
            f"{path} was refused and not run: beside its weights it carries {name}, so take the weights out "
            f"with demo-malicious/safe_demo.py (convert FILE --allow {name} --part NAME)."
        )
    if re.match(r"(torch\.nn|torchvision|timm|__main__|models?)\b", name):
        return cli.UserError(
            f"{path} was refused and not run: it is a whole model or holds whole layers ({name}), "
            "so ask its maker for model.state_dict() or SafeTensors."
        )
    return cli.UserError(
        f"{path} was refused and not run: it asks for more than tensors, "
        "so inspect it (demo-malicious/inspect_model.py) and do not load it."
    )


def is_plain(value: torch.Tensor) -> bool:
    """Whether a tensor is dense and has values: the restricted loader takes others, too."""
    return value.layout == torch.strided and not (value.is_nested or value.is_meta)


def check_finite(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Raise UserError if a number among the weights is infinite or NaN, or a tensor has none."""
    if odd := [name for name, value in weights.items() if not is_plain(value)]:
        raise cli.UserError(f"{path} holds {odd[0]!r} {NOT_PLAIN}.")
    if broken := [name for name, value in weights.items() if not value.isfinite().all()]:
        raise cli.UserError(
            f"{path} holds numbers that are infinite or not a number (in {broken[0]!r}), and no answer of "
            "such a model means anything: train or download it again."
        )
