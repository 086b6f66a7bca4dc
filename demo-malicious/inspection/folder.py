"""A folder as model hubs have them: every file is looked at, by its content and not by its name.

Helper module, not a command. What is skipped is listed. Settings that name code, lists of shards and links
are judged as well: a loader follows them.
"""

from __future__ import annotations

import codecs
import json
import mmap
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import cli
from inspection import text_models
from inspection.files import leaves_folder
from inspection.names import few
from inspection.onnx_graph import ALL_OF_IT, is_onnx, onnx_parts
from inspection.plain_texts import check_text, is_text
from inspection.report import SAFE, UNKNOWN, UNSAFE, CannotJudge, Finding, Report
from inspection.settings import check_settings
from inspection.verdict import inspect_file

TEXT, IMAGE, SKIPPED, LINK, WEIGHTS = "text", "image", "skipped", "link", "weights of an ONNX model"
UNREAD = "not read"  # counts, also where what is skipped does not
MOST_MODELS = 20  # ONNX models of a folder whose weights may lie beside them
HARMLESS = (TEXT, IMAGE, WEIGHTS)  # formats that are no models, summed up in one line
IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"%PDF-", b"RIFF")
SCRIPTS = ("it is Python code", "it is a script, which is not judged here")
LARGEST_JSON = 64 * 2**20
MOST_SHARDS = 10_000  # the largest models have about two hundred


def inspect_folder(folder: Path) -> list[Report]:
    """One report for each file below the folder, in the order of their names.

    Raises UserError if the folder itself cannot be read.
    """
    return list(reports(folder))


def reports(folder: Path) -> Iterator[Report]:
    """The reports of inspect_folder, one after the other."""
    for path in every_file(folder):
        yield inspect_entry(path, folder)


def every_file(folder: Path) -> list[Path]:
    """Every file below the folder, links included, and what stands for a folder that is not looked into.

    Raises UserError if the folder itself cannot be read.
    """
    found: list[Path] = []
    # not os.walk: folders in folders in folders end in a RecursionError in some versions of Python
    todo = [folder]
    while todo:
        here = todo.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    inner = entry.is_dir(follow_symlinks=False) and entry.name != ".git"
                    (todo if inner else found).append(Path(entry.path))
        except OSError as error:
            if here == folder:
                raise cli.UserError(
                    f"{folder} cannot be read ({error.strerror}): check its permissions."
                ) from error
            found.append(here)  # it is named as one that cannot be read
    return sorted(found)


def inspect_entry(path: Path, folder: Path) -> Report:
    """One file of a folder."""
    try:
        path.lstat()
    except OSError as error:
        return told(path, UNREAD, UNKNOWN, f"it cannot be read ({error.strerror})")
    if path.is_symlink() and (away := leads_away(path, folder)):
        return told(path, LINK, UNKNOWN, away)
    if path.name == ".git" and path.is_dir():
        return told(
            path, SKIPPED, UNKNOWN, "it is Git's own folder, which is not looked into; no loader reads it"
        )
    if path.is_dir() and not path.is_symlink():
        return told(path, UNREAD, UNKNOWN, "it is a folder that cannot be read")
    if path.is_dir():
        return told(path, LINK, UNKNOWN, "it is a link to a folder, which is not looked into twice")
    if path.exists() and not path.is_file():
        return told(path, UNREAD, UNKNOWN, "it is not an ordinary file (a device or a pipe)")
    try:
        size = path.stat().st_size
        if size == 0:
            return told(path, TEXT, SAFE, "it is empty")
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        return told(path, UNREAD, UNKNOWN, f"it cannot be read ({error.strerror})")
    report = inspect_file(path)
    if report.formats == ["script"] and path.suffix in (".sh", ".bash", ".py"):
        return told(path, SKIPPED, UNKNOWN, "it is a script, which is not judged here", size)
    if report.formats == ["compiled Python code"] and path.suffix == ".pyc":
        return told(path, SKIPPED, UNKNOWN, "it is compiled Python code, which is not judged here", size)
    model = report.format if report.formats and set(report.formats) <= text_models.NAMES else ""
    if report.formats and not model:
        return report
    if head.startswith(IMAGES):
        return told(path, IMAGE, SAFE, "it is an image or a document", size)
    if path.suffix == ".pyc":
        return told(path, SKIPPED, UNKNOWN, "it is compiled Python code, which is not judged here", size)
    if graph := onnx_model_of(path, size):
        return told(path, WEIGHTS, SAFE, f"it holds the weights that {graph} names, and no more", size)
    raw = path.read_bytes() if size <= LARGEST_JSON else b""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as Windows writes text
        raw = raw.decode("utf-16", "replace").encode("utf-8", "replace")
    if raw and is_text(raw):
        findings = [*check_text(path.name, raw), *check_json(path, raw)]
        worst = min(findings, key=lambda one: (UNSAFE, UNKNOWN, SAFE).index(one.answer))
        # no loader runs a script by itself; where settings name it, the settings are not safe
        kind = model or (SKIPPED if worst.reason.startswith(SCRIPTS) else TEXT)
        return told(path, kind, worst.answer, worst.reason, size)
    return told(path, SKIPPED, UNKNOWN, "it is of no format that is known here", size)


def told(path: Path, kind: str, answer: str, reason: str, size: int = 0) -> Report:
    """A report on something that is no model file."""
    return Report(path, size, kind, overall=answer, reason=reason)


def onnx_model_of(path: Path, size: int) -> str:
    """The ONNX model beside this file whose weights end where the file ends; nothing if there is none."""
    for model in onnx_models(path.parent, path.parent.stat().st_mtime_ns):
        try:
            status = model.stat()
            ends = onnx_ends(model, status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):
            continue
        if ends.get(path.name) in (size, ALL_OF_IT):
            return model.name
    return ""


@lru_cache(maxsize=64)  # for each file of a folder of many the same question is asked
def onnx_models(folder: Path, changed: int) -> list[Path]:
    """The first ONNX models of a folder; `changed` is when it was changed last."""
    return sorted(folder.glob("*.onnx"))[:MOST_MODELS]


@lru_cache(maxsize=4 * MOST_MODELS)
def onnx_ends(model: Path, size: int, changed: int) -> dict[str, int]:
    """Where the weights end that an ONNX model of this size and time of change names; nothing if it is none.

    Raises OSError, ValueError.
    """
    if size == 0 or not model.is_file():
        return {}
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return onnx_parts(data).ends if is_onnx(data) else {}
        except CannotJudge:
            return {}


def leads_away(path: Path, folder: Path) -> str:
    """Why a link is not followed; nothing if it stays in the folder, or in the cache of a hub."""
    if not path.exists():  # asked first: links of links of links are no work for Python
        return "it is a link to nothing"
    target = Path(os.path.realpath(path))
    root = folder.resolve()
    # the cache of a model hub: snapshots/<revision>/<name> is a link to blobs/<digest>
    caches = [parent.parent / "blobs" for parent in (root, *root.parents) if parent.name == "snapshots"]
    if root in target.parents or any(cache in target.parents for cache in caches):
        return ""
    return f"it is a link that leads out of the folder, to {target}"


# --- JSON ------------------------------------------------------------------------------------------------


def check_json(path: Path, raw: bytes) -> list[Finding]:
    """JSON files whose content makes a loader import code or read other files."""
    if path.suffix.lower() != ".json":
        return []
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError):
        return [Finding(UNKNOWN, "it is JSON that cannot be read")]
    if path.name.lower().endswith(".index.json"):
        return shards(tree, path)
    return check_settings(path.name.lower(), tree, path.parent)


def shards(tree: Any, path: Path) -> list[Finding]:
    """A list of shards: none may be missing, lie elsewhere, or be in the folder and not on the list."""
    mapping = tree.get("weight_map") if isinstance(tree, dict) else None
    if not isinstance(mapping, dict) or not all(isinstance(name, str) for name in mapping.values()):
        return [Finding(UNKNOWN, "it is a list of shards that cannot be read")]
    named = set(mapping.values())
    if len(named) > MOST_SHARDS:  # each is looked up in the folder
        return [Finding(UNKNOWN, f"it names more than {MOST_SHARDS} shards, more than this tool looks for")]
    away = sorted(name for name in named if leaves_folder(name))
    missing = sorted(name for name in named if not leaves_folder(name) and not (path.parent / name).exists())
    first = path.name.removesuffix(".index.json").rsplit(".", 1)
    beside = shards_in(path.parent, path.parent.stat().st_mtime_ns).get(first[0], [])
    extra = sorted(name for name in beside if name.endswith(f".{first[-1]}") and name not in named)
    if away:
        return [Finding(UNSAFE, f"it names shards outside of the folder: {few(away)}")]
    if missing:
        return [Finding(UNKNOWN, f"it names {len(missing)} shards that are missing: {few(missing)}")]
    if extra:
        return [
            Finding(UNKNOWN, f"{len(extra)} shards lie in the folder that it does not name: {few(extra)}")
        ]
    return []


@lru_cache(maxsize=64)  # there can be as many lists as files
def shards_in(folder: Path, changed: int) -> dict[str, list[str]]:
    """What looks like its shards for each list in a folder, by the list's name without its endings.

    `changed` is when the folder was changed last.
    """
    names = [path.name for path in folder.iterdir()]
    found: dict[str, list[str]] = {
        name.removesuffix(".index.json").rsplit(".", 1)[0]: []
        for name in names
        if name.lower().endswith(".index.json")
    }
    for name in names:
        head = name.rpartition("-of-")[0]
        for dash in re.finditer("-", head):
            if (start := head[: dash.start()]) in found:
                found[start].append(name)
    return found
