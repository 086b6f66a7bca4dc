"""The safe ways to read and write model weights: code in a model file is refused, never run.

Helper module, not a command: safe_demo.py and the other scripts use these functions. Two things are kept out:
code (weights_only=True, always) and files that claim to be much larger than they are (zip bombs and
their relatives). What is left to a hostile file is to waste some seconds; run_sandboxed.sh limits that.
"""

from __future__ import annotations

import io
import pickletools
import re
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file

import cli
from weights.files import existing_file

Weights = dict[str, torch.Tensor]
T = TypeVar("T")

MB = 1_000_000
LARGEST_PICKLE = 1 * MB  # bytes of names and shapes; the numbers stand elsewhere. A ResNet18 has 0.015 MB
LARGEST_HEADER = 8 * MB  # the same for SafeTensors, which is read much faster
GROWTH = 4  # how many times its own size a file may take in memory (tensors that share memory count twice)
SPARE = 300 * MB  # on top of that, for the loader itself
STACK = 128 * MB  # of address space; only a hostile file uses more than a little of it


class RefusedError(cli.UserError):
    """The file wants to import something that no model needs: it holds code, and that was not run."""


# --- reading -------------------------------------------------------------------------------------------


def load_pickle(path: Path, mmap: bool = False, part: str = "") -> Weights:
    """Read a state dict that torch.save wrote, with weights_only=True: code in it is never run.

    `part` names the state dict inside a checkpoint that holds more, for example "state_dict". Raises
    RefusedError if the file holds code, UserError if it is damaged or not a state dict (names to tensors).
    """
    existing_file(path)
    size = path.stat().st_size

    def load() -> Any:
        check_sizes(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)

    try:
        found = within_limits(load, SPARE + GROWTH * size)
    except cli.UserError:
        raise
    except Exception as error:  # a hostile or damaged file can make the reader fail in any way
        if why := why_refused(error):
            raise RefusedError(f"{path} was refused and not run: {why}. Do not use this file.") from error
        details = why_unreadable(error)
        raise cli.UserError(
            f"{path} cannot be read as model weights ({details}): get the file again."
        ) from error
    weights = state_dict(found, path, part)
    if (
        claimed := sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    ) > GROWTH * size + MB:
        raise cli.UserError(
            f"{path} has {size} bytes, but its tensors claim {claimed}: do not use this file."
        )
    return weights


def check_sizes(path: Path) -> None:
    """Look at the sizes that a pickle-based file declares, before anything is read by them (UserError)."""
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":  # PyTorch decides by these four bytes, so we do
            check_zip(path)
        else:
            check_stream(path)


def check_zip(path: Path) -> None:
    """The zip file of torch.save holds each thing once, not packed, with a right checksum (UserError)."""

    def expect(true: bool, otherwise: str) -> None:
        if not true:
            raise cli.UserError(
                f"{path} is not a valid zip file of torch.save ({otherwise}): do not use this file."
            )

    with path.open("rb") as file:  # a private function, because the public ones read the whole list
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    size_of_list = end[zipfile._ECD_SIZE] if end else 0  # type: ignore[attr-defined]
    expect(size_of_list <= LARGEST_PICKLE, f"its list of contents has {size_of_list} bytes")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = {member.filename for member in members}
        expect(len(names) == len(members), "it holds two things of one name")
        # PyTorch counts from the first byte, Python from the end: both must mean the same things
        expect(min(member.header_offset for member in members) == 0, "its beginning is something else")
        expect(
            all(member.compress_type == zipfile.ZIP_STORED for member in members), "it is packed, a zip bomb?"
        )
        total = sum(member.file_size for member in members)
        expect(total <= path.stat().st_size, f"it claims to hold {total} bytes, a zip bomb?")
        expect(
            not any(name.startswith("/") or ".." in Path(name).parts for name in names),
            "it holds names outside of its own folder",
        )
        pickles = [member.file_size for member in members if member.filename.endswith(".pkl")]
        expect(bool(pickles), "there is no pickle in it")
        expect(max(pickles) <= LARGEST_PICKLE, f"its pickle has {max(pickles)} bytes")
        # PyTorch does not look at the checksums, so it would take damaged numbers for good ones
        expect(archive.testzip() is None, "a checksum is wrong, so it is damaged")


def check_stream(path: Path) -> None:
    """In the format before PyTorch 1.6, five pickles in a row, these are of a reasonable size (UserError)."""
    with path.open("rb") as file:
        stream = io.BytesIO(file.read(LARGEST_PICKLE + 1))
    with suppress(Exception):  # damaged: PyTorch says so
        for _ in range(5):
            for _ in pickletools.genops(stream):
                pass
        return
    if len(stream.getvalue()) > LARGEST_PICKLE:
        raise cli.UserError(
            f"{path} is not a valid file of torch.save (or a far too large one): do not use this file."
        )


def why_refused(error: Exception) -> str:
    """PyTorch's reason in one short sentence: the name that the file wants to import, if it says so."""
    wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
    if wanted:
        return f"it wants to import {wanted[1]}, which is not on the list of names a model may use"
    return ""


def why_unreadable(error: Exception) -> str:
    """What is wrong with a file that the loader cannot read, as far as that can be told."""
    if unknown := re.search(r"Unsupported operand (\d+)", str(error)):
        return (
            f"damaged, or not from torch.save: it has pickle instruction {unknown[1]}, which no model needs"
        )
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "it needs far more memory than its size explains"
    return "damaged, or not a model"


def state_dict(found: object, path: Path, part: str) -> Weights:
    """Check that what was loaded is names with tensors, or take the `part` that is. Raises UserError."""
    if part:
        if not isinstance(found, dict) or part not in found:
            raise cli.UserError(f"{path} has no part {part!r}: leave --part out to see what there is.")
        found = found[part]
    if not isinstance(found, dict) or not found:
        raise cli.UserError(
            f"{path} holds no state dict: save one with torch.save(model.state_dict(), FILE)."
        )
    for name, value in found.items():
        if is_named_tensor(name, value):
            continue
        other = repr(name)[:60] if isinstance(name, str | int) else "a name that is not text"
        parts = [key for key, inner in found.items() if isinstance(key, str) and is_state_dict(inner)]
        if parts:
            raise cli.UserError(
                f"{path} holds more than named tensors ({other}), and SafeTensors has no place for that: "
                f"take one part of it, for example with --part {parts[0]!r}."
            )
        raise cli.UserError(f"{path} holds more than named tensors ({other}): save the state dict only.")
    return dict(found)


def is_named_tensor(name: object, value: object) -> bool:
    """One entry of a state dict."""
    return isinstance(name, str) and isinstance(value, torch.Tensor)


def is_state_dict(value: object) -> bool:
    """Names with tensors and nothing else."""
    return isinstance(value, dict) and bool(value) and all(is_named_tensor(*item) for item in value.items())


def load_safetensors(path: Path) -> Weights:
    """Read a SafeTensors file. There is no pickle in it, so there is nothing that could run."""
    existing_file(path)
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")  # the length of the list of names and shapes
    if LARGEST_HEADER < header <= path.stat().st_size:
        raise cli.UserError(
            f"{path} has a header of {header} bytes: no model needs that, do not use this file."
        )
    try:
        return load_file(path)
    except Exception as error:  # a hostile or damaged file can make the reader fail in any way
        raise cli.UserError(
            f"{path} is not a valid SafeTensors file (damaged, or another format): convert the model again."
        ) from error


# --- limits --------------------------------------------------------------------------------------------

_one_at_a_time = threading.Lock()  # the limits belong to the whole process


def within_limits(call: Callable[[], T], more: int) -> T:
    """Call a function that may take at most `more` bytes of new memory (on Linux; else without a limit).

    It gets a large stack, because a file with tuples in tuples in tuples would crash PyTorch on a small one.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    with _one_at_a_time, memory_limit(more):
        before = threading.stack_size(STACK)
        thread = threading.Thread(target=work, daemon=True)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
        thread.join()
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def memory_limit(more: int) -> Iterator[None]:
    """Let this process take at most `more` bytes of new address space, where the system can count it."""
    if sys.platform != "linux":
        yield
        return
    import resource  # noqa: PLC0415 (not there on Windows)

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    lowest = min(limit for limit in (now + STACK + more, soft, hard) if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# --- writing -------------------------------------------------------------------------------------------


def save_pickle(weights: Weights, path: Path) -> None:
    """Write the weights as torch.save does: a pickle in a zip file."""
    with cli.atomic_write(path) as scratch:
        torch.save(weights, scratch)


def check_plain(weights: Weights, path: Path) -> None:
    """Raise UserError, with the tensor's name, for what SafeTensors cannot hold: `path` is not written."""
    if "__metadata__" in weights:
        raise cli.UserError(f"{path} is not written: SafeTensors keeps the name __metadata__ for itself.")
    for name, tensor in weights.items():
        special = {
            "quantized": tensor.is_quantized,
            "nested": tensor.is_nested,
            "without numbers": tensor.is_meta,
            str(tensor.layout).removeprefix("torch."): tensor.layout != torch.strided,
            "conjugated": tensor.is_conj() or tensor.is_neg(),
        }
        if kind := next((kind for kind, true in special.items() if true), ""):
            raise cli.UserError(
                f"{path} is not written: tensor {name[:60]!r} is {kind}; SafeTensors holds plain ones only."
            )


def save_safetensors(weights: Weights, path: Path) -> None:
    """Write the weights as SafeTensors: a list of names, types and shapes, then the numbers.

    Raises UserError, with the name of the tensor, for what the format cannot hold.
    """
    check_plain(weights, path)
    # a copy each, in plain order: the format stores tensors that share memory separately
    copies = {name: tensor.detach().clone().contiguous() for name, tensor in weights.items()}
    with cli.atomic_write(path) as scratch:
        try:
            save_file(copies, scratch)
        except OSError:
            raise
        except Exception as error:  # a type, or a name, that the format does not know
            kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in copies.values()})
            raise cli.UserError(
                f"{path} is not written: SafeTensors does not take one of these types or names "
                f"({', '.join(kinds)})."
            ) from error


def sharing(weights: Weights) -> list[list[str]]:
    """Groups of names whose tensors lie in the same memory, for example tied input and output layers."""
    groups: dict[int, list[str]] = {}
    for name, tensor in weights.items():
        groups.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)
    return [names for place, names in groups.items() if place and len(names) > 1]
