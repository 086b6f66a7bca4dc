"""Compare a folder of models with a list of them: ours, or a CycloneDX document that another tool wrote.

Helper module, not a command: check_mlbom.py uses it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from console import UserError

# CycloneDX's names -> how hashlib makes one. BLAKE3 and Streebog are not in Python.
ALGORITHMS: dict[str, Callable[[], Any]] = {
    "MD5": lambda: hashlib.md5(usedforsecurity=False),
    "SHA-1": lambda: hashlib.sha1(usedforsecurity=False),
    "SHA-256": hashlib.sha256,
    "SHA-384": hashlib.sha384,
    "SHA-512": hashlib.sha512,
    "SHA3-256": hashlib.sha3_256,
    "SHA3-384": hashlib.sha3_384,
    "SHA3-512": hashlib.sha3_512,
    "BLAKE2b-256": lambda: hashlib.blake2b(digest_size=32),
    "BLAKE2b-384": lambda: hashlib.blake2b(digest_size=48),
    "BLAKE2b-512": lambda: hashlib.blake2b(digest_size=64),
}
WEAK = {"MD5", "SHA-1"}  # two files with the same one can be made
ENDINGS = {
    *(".safetensors", ".pt", ".pth", ".pt2", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib", ".dill", ".onnx"),
    *(".gguf", ".ggml", ".h5", ".hdf5", ".keras", ".pb", ".tflite", ".mlmodel", ".npy", ".npz", ".msgpack"),
    *(".nemo", ".model", ".mar", ".llamafile", ".xgb", ".cbm", ".torchscript", ".jit", ".ptl"),
}


@dataclass(frozen=True)
class Listed:
    """One model in a list."""

    name: str
    hashes: frozenset[tuple[str, str]]  # algorithm and value, in small letters


def components_of(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All components, also the one that the document is about, and those inside others."""
    waiting = list(reversed(document.get("components") or []))
    if subject := (document.get("metadata") or {}).get("component"):
        waiting.append(subject)
    while waiting:
        one = waiting.pop()
        yield one
        waiting += reversed(one.get("components") or [])


def models_of(document: Mapping[str, Any]) -> list[Listed]:
    """The models in a CycloneDX document, each with every hash that is given; the same twice counts once."""
    found = [
        Listed(
            str(one["name"]),
            frozenset((str(h["alg"]), str(h["content"]).lower()) for h in one.get("hashes") or []),
        )
        for one in components_of(document)
        if one["type"] == "machine-learning-model"
    ]
    return list(dict.fromkeys(found))


def digests(path: Path, algorithms: set[str]) -> dict[str, str]:
    """The hashes of a file, in one pass. Raises UserError."""
    running = {name: ALGORITHMS[name]() for name in algorithms}
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                for one in running.values():
                    one.update(block)
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}): give a file that you may read.") from error
    return {name: one.hexdigest() for name, one in running.items()}


def model_files(folder: Path) -> list[Path]:
    """Files in a folder and below it that are named like models. Raises UserError."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name the one with the model files.")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())


def verdict(path: Path, hashes: frozenset[tuple[str, str]]) -> str:
    """What the hashes of a list say of a file."""
    known = {name for name, _ in hashes} & set(ALGORITHMS)
    if not hashes:
        return "NO HASH in the list: nothing to compare with"
    if not known:
        return f"CANNOT BE CHECKED: {', '.join(sorted(name for name, _ in hashes))} is not known here"
    made = digests(path, known)
    wrong = sorted(name for name, value in hashes if name in made and made[name] != value)
    if wrong:
        return "CHANGED" + (f" ({', '.join(wrong)})" if wrong != ["SHA-256"] else "")
    if known <= WEAK:
        return f"WEAK HASH only ({', '.join(sorted(known))}): it matches, and so could a forged file"
    return "unchanged"


def check(listed: list[Listed], folder: Path) -> dict[str, str]:
    """One verdict for each model in the list, and one for each model file that is not on it."""
    files = model_files(folder)
    verdicts: dict[str, str] = {}
    seen: set[Path] = set()
    for name in dict.fromkeys(one.name for one in listed):
        path = find(name, folder, files)
        entries = [one.hashes for one in listed if one.name == name]
        if len(entries) > 1:
            verdicts[name] = "LISTED TWICE with different hashes"
        elif path is None:
            path = same_bytes(entries[0], files)
            verdicts[name] = "MISSING" if path is None else f"unchanged, as {path.relative_to(folder)}"
        else:
            verdicts[name] = verdict(path, entries[0])
        if path:
            seen.add(path)
    for path in files:
        if path not in seen:
            verdicts[str(path.relative_to(folder))] = "NOT LISTED"
    return verdicts


def find(name: str, folder: Path, files: list[Path]) -> Path | None:
    """The file that a list names; names may carry a path, which never leads out of the folder."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    for path in (folder.joinpath(*parts), folder / parts[-1]) if parts else ():
        if path.is_file():
            return next((one for one in files if one == path), path)
    return None


def same_bytes(hashes: frozenset[tuple[str, str]], files: list[Path]) -> Path | None:
    """A file with these hashes, where the list has another name for it: many tools write a title."""
    strong = {(name, value) for name, value in hashes if name in ALGORITHMS and name not in WEAK}
    for path in files if strong else ():
        made = digests(path, {name for name, _ in strong})
        if all(made[name] == value for name, value in strong):
            return path
    return None
