"""The safe ways to read and write model weights: code in a model file is refused, never run.

Helper module, not a command: safe_demo.py and the other scripts use these functions. Two things are kept
out: code (weights_only=True, always) and files that claim to be much larger than they are (zip bombs and
their relatives). What is left to a hostile file is to waste some seconds; run_sandboxed.sh limits that.
"""

from __future__ import annotations

import importlib
import json
import mmap
import re
import sys
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file

import cli
from inspection.files import existing_file
from inspection.formats import look
from inspection.names import full_name, is_allowed, is_data
from inspection.pickle_reader import Buffer, TooLong, walk
from inspection.pickles import OLD_STREAM, STREAM
from inspection.plain_texts import printable
from inspection.report import UNSAFE
from inspection.zips import ZIP

Weights = dict[str, torch.Tensor]
T = TypeVar("T")

MB = 1_000_000
# of names and shapes; the numbers stand elsewhere. A ResNet18 has 0.015 MB and 5,000 instructions, a model
# with 36,096 tensors 5 MB and a million
LARGEST_PICKLE = 32 * MB
MOST_INSTRUCTIONS = 1_500_000  # PyTorch's safe reader takes a second for a million
LARGEST_HEADER = 32 * MB  # the same for SafeTensors, which is read much faster
GROWTH = 4  # how many times its own size a file may take in memory (tensors that share memory count twice)
SPARE = 300 * MB  # on top of that, for the loader itself
STACK = 128 * MB  # of address space; only a hostile file uses more than a little of it
BLOCK = 16 * MB  # that are compared at a time
DEEPEST = 6  # parts in parts of a checkpoint that are listed


class RefusedError(cli.UserError):
    """The file wants to import something that no model needs: it holds code, and that was not run."""


# --- reading -------------------------------------------------------------------------------------------


def load_pickle(path: Path, mmap: bool = False, part: str = "", allow: Sequence[str] = ()) -> Weights:
    """Read a state dict that torch.save wrote, with weights_only=True: code in it is never run.

    `part` names the state dict inside a checkpoint that holds more, at any depth, for example "state_dict"
    or "model.encoder". `allow` names what the file may import although PyTorch's list does not have it: only
    names that hold data are taken (inspection/names.py). Raises RefusedError if the file holds code,
    UserError if it is damaged or not a state dict (names to tensors).
    """
    existing_file(path)
    size = path.stat().st_size
    allowed: list[Any] = [*allowed_objects(allow)]

    def load() -> Any:
        check_format(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)

    try:
        found = within_limits(load, SPARE + GROWTH * size)
    except cli.UserError:
        raise
    except Exception as error:  # a hostile or damaged file can make the reader fail in any way
        if why := why_refused(error):
            ending = "" if "--allow" in why else ". Do not use this file."
            raise RefusedError(f"{path} was refused and not run: {why}{ending}") from error
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


def allowed_objects(names: Sequence[str]) -> Iterator[tuple[Any, str]]:
    """What safe_globals takes, for names that only hold data. Raises UserError for any other name."""
    for name in names:
        module, _, attribute = name.rpartition(".")
        if not module or not is_data(full_name(module, attribute)):
            raise cli.UserError(
                f"--allow {name[:100]} is not possible: only names that hold nothing but data can be "
                "allowed, and inspect_model.py lists those of a file."
            )
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise cli.UserError(f"--allow {name} is not possible: this Python does not have it.") from error
        yield found, name
        if module.startswith("numpy."):  # PyTorch compares the name that stands in the file
            yield found, name.replace("numpy._core", "numpy.core")
        if name == "numpy.dtype":  # its kinds have classes of their own
            numpy = importlib.import_module("numpy")
            kinds = {type(numpy.dtype(code)) for code in "?bhilqBHILQefdgFDGSUV"}
            yield from ((kind, f"{kind.__module__}.{kind.__qualname__}") for kind in kinds)


def check_format(path: Path) -> None:
    """Look at the format and at the sizes that it declares, before anything is read by them.

    Raises UserError that names a format which is none of torch.save's, RefusedError if there is code in it.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        content = look(data)
        if content.formats and not set(content.formats) <= {ZIP, STREAM, OLD_STREAM}:
            unsafe = next((one for one in content.findings if one.answer == UNSAFE), None)
            if unsafe:
                why = printable(str(unsafe))  # names in a hostile file must not steer the terminal
                raise RefusedError(f"{path} was refused and not run: {why}. Do not use this file.")
            hints = [one.help for one in content.findings if one.help]
            raise cli.UserError(
                f"{path} is {' and '.join(content.formats)}, a format that is not read as weights here. "
                f"{hints[0] if hints else 'Ask the sender for SafeTensors.'}"
            )
        if data[:4] == b"PK\x03\x04":  # PyTorch decides by these four bytes, so we do
            check_zip(path, data)
        else:
            check_stream(path, data)


def check_zip(path: Path, data: mmap.mmap) -> None:
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
        pickles = [member for member in members if member.filename.endswith(".pkl")]
        expect(bool(pickles), "there is no pickle in it")
        largest = max(member.file_size for member in pickles)
        expect(largest <= LARGEST_PICKLE, f"its pickle has {largest} bytes")
        # PyTorch does not look at the checksums, so it would take damaged numbers for good ones
        intact = all(right_checksum(member, data) for member in members)
        expect(intact, "a checksum is wrong, so it is damaged")
        for member in pickles:
            check_instructions(path, archive.read(member), 1)


def right_checksum(member: zipfile.ZipInfo, data: mmap.mmap) -> bool:
    """Whether the bytes of a member that is not packed have the checksum that the table promises."""
    start = member.header_offset
    name, extra = (int.from_bytes(data[start + place : start + place + 2], "little") for place in (26, 28))
    first = start + 30 + name + extra
    checksum = 0
    with memoryview(data) as view:
        for position in range(first, first + member.file_size, BLOCK):
            checksum = zlib.crc32(view[position : min(position + BLOCK, first + member.file_size)], checksum)
    return checksum == member.CRC


def check_stream(path: Path, data: Buffer) -> None:
    """In the format before PyTorch 1.6, five pickles in a row, these are of a reasonable size (UserError)."""
    check_instructions(path, data, 5)


def check_instructions(path: Path, data: Buffer, pickles: int) -> None:
    """So many pickles in a row have no more instructions than a large model needs (UserError)."""
    position, left = 0, MOST_INSTRUCTIONS
    try:
        for _ in range(pickles):
            found = walk(data, position, left)
            position, left = found.end, left - found.instructions
            if not found.complete:  # damaged: PyTorch says so
                break
    except TooLong:
        position = len(data)
        left = -1
    if left < 0 or position > LARGEST_PICKLE:
        raise cli.UserError(
            f"{path} is not a valid file of torch.save (or a far too large one: its pickles have more than "
            f"{MOST_INSTRUCTIONS} instructions or {LARGEST_PICKLE} bytes): do not use this file."
        )


def why_refused(error: Exception) -> str:
    """PyTorch's reason in a short sentence or two: the name that the file wants to import, if known."""
    wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
    if not wanted:
        return ""
    module, _, attribute = wanted[1].rpartition(".")
    name = full_name(module, attribute)
    if is_data(name) and not is_allowed(name):
        return (
            f"it wants to import {name}, which only holds data but is not on PyTorch's list. If you expect "
            f"that of this file, name it: --allow {name}"
        )
    return f"it wants to import {wanted[1]}, which is not on the list of names a model may use"


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
        parts = list(taken(found, part))
        if not parts:
            raise cli.UserError(f"{path} has no part {part!r}: leave --part out to see what there is.")
        found = parts[0]
    if not isinstance(found, dict) or not found:
        raise cli.UserError(
            f"{path} holds no state dict: save one with torch.save(model.state_dict(), FILE)."
        )
    for name, value in found.items():
        if is_named_tensor(name, value):
            continue
        other = repr(name)[:60] if isinstance(name, str | int) else "a name that is not text"
        if inner := list(parts_of(found)):
            more = f" or {inner[1]!r}" if len(inner) > 1 else ""
            raise cli.UserError(
                f"{path} holds more than named tensors ({other}), and SafeTensors has no place for that: "
                f"take one part of it, for example with --part {inner[0]!r}{more}."
            )
        raise cli.UserError(f"{path} holds more than named tensors ({other}): save the state dict only.")
    return dict(found)


def taken(found: object, part: str) -> Iterator[object]:
    """The parts of this name, at any depth. Names may hold dots, so every way to split is tried."""
    if not isinstance(found, dict):
        return
    keys: dict[str, object] = {str(key): value for key, value in found.items() if isinstance(key, str | int)}
    if part in keys:
        yield keys[part]
    for match in re.finditer(r"[./]", part):
        head = part[: match.start()]
        if head in keys:
            yield from taken(keys[head], part[match.end() :])


def parts_of(found: object, before: str = "", depth: int = 0) -> Iterator[str]:
    """The names of all state dicts inside, as --part takes them."""
    if not isinstance(found, dict) or depth > DEEPEST:
        return
    for key, inner in found.items():
        if isinstance(key, str | int) and isinstance(inner, dict):
            if is_state_dict(inner):
                yield f"{before}{key}"
            else:
                yield from parts_of(inner, f"{before}{key}.", depth + 1)


def is_named_tensor(name: object, value: object) -> bool:
    """One entry of a state dict."""
    return isinstance(name, str) and isinstance(value, torch.Tensor)


def is_state_dict(value: object) -> bool:
    """Names with tensors and nothing else."""
    return isinstance(value, dict) and bool(value) and all(is_named_tensor(*item) for item in value.items())


def load_model(path: Path) -> Weights:
    """Read weights with the loaders that run nothing: a file, or a folder with one model, also in shards."""
    if not path.is_dir():
        return load_safetensors(path) if path.suffix == ".safetensors" else load_pickle(path)
    files = sorted(file for file in path.rglob("*.safetensors") if file.is_file())
    if not files:
        files = sorted(
            file for file in path.rglob("*") if file.suffix in (".pt", ".pth", ".bin") and file.is_file()
        )
    if not files:
        raise cli.UserError(f"{path} holds no weights: put a SafeTensors file there.")
    weights: Weights = {}
    for file in files:
        part = load_model(file)
        if twice := sorted(part.keys() & weights.keys()):
            raise cli.UserError(f"{path} holds the tensor {twice[0][:60]!r} in two files: name one of them.")
        weights |= part
    return weights


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
    twice = {name for names in sharing(weights) for name in names[1:]}
    # the format stores tensors that share memory separately, and in plain order; the others need no copy
    plain = {
        name: tensor.detach().clone().contiguous() if name in twice else tensor.detach().contiguous()
        for name, tensor in weights.items()
    }
    with cli.atomic_write(path) as scratch:
        try:
            save_file(plain, scratch, {"format": "pt"})  # what other programs look for: made for PyTorch
        except OSError:
            raise
        except Exception as error:  # a type, or a name, that the format does not know
            kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in plain.values()})
            raise cli.UserError(
                f"{path} is not written: SafeTensors does not take one of these types or names "
                f"({', '.join(kinds)})."
            ) from error


def differing_in_file(weights: Weights, path: Path) -> list[str]:
    """Names of the tensors that are not the same bit for bit in a SafeTensors file; read in blocks."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        different = sorted(header.keys() ^ weights.keys())
        for name in sorted(header.keys() & weights.keys()):
            start, end = header[name]["data_offsets"]
            tensor = weights[name].detach().contiguous()
            raw = tensor.flatten().view(torch.uint8).numpy()
            file.seek(8 + length + start)
            same = end - start == raw.nbytes and header[name]["shape"] == list(tensor.shape)
            for position in range(0, raw.nbytes, BLOCK):
                if not same:
                    break
                block = raw[position : position + BLOCK].tobytes()
                same = file.read(len(block)) == block
            if not same:
                different.append(name)
    return sorted(different)


def sharing(weights: Weights) -> list[list[str]]:
    """Groups of names whose tensors lie in the same memory, for example tied input and output layers."""
    groups: dict[int, list[str]] = {}
    for name, tensor in weights.items():
        groups.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)
    return [names for place, names in groups.items() if place and len(names) > 1]
