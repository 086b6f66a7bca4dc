"""The manifest of a dataset: one SHA-256 checksum per file, in the text format of sha256sum.

    (cd data/traffic-signs && sha256sum --check --quiet ../traffic-signs.sha256)

It lies beside the folder, not in it: a copy of the folder must not carry its own proof along. Who can write
the folder can usually write beside it as well, so compare with a copy that was kept elsewhere (signed, in
another team's repository, on paper). It proves that files changed since then, not that they were good.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import cli
from dataset.files import all_files

LINE = re.compile(r"(\\?)([0-9a-f]{64}) [ *](.+)")  # a backslash in front: the name has escapes
ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}  # those of sha256sum
ESCAPED = re.compile(r"\\([\\nr])")


@dataclass
class Changes:
    """Files that differ between a manifest and a folder, each list sorted."""

    added: list[str]
    removed: list[str]
    modified: list[str]


def checksums(folder: Path) -> dict[str, str]:
    """Path relative to the folder, with "/", and SHA-256 of every file; hidden names are left out.

    These are all files that class_files() may find: it leaves the same names out, and follows links as well.
    """
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in all_files(folder)
        if path.is_file()
    }
    return dict(sorted(found.items()))


def path_of(folder: Path) -> Path:
    """Where the manifest of a dataset lies: data/traffic-signs.sha256 for data/traffic-signs.

    Raises UserError for the root of the file system, which has nothing beside it.
    """
    if folder.name in ("", ".."):
        folder = folder.resolve()
    if not folder.name:
        raise cli.UserError(f"{folder} is not a folder for images: choose one in it.")
    return folder.with_name(folder.name + ".sha256")


def write(folder: Path) -> Path:
    """Write the manifest of a folder beside it; the same files give the same bytes. Returns its path."""
    lines = [_line(name, checksum) for name, checksum in checksums(folder).items()]
    with cli.atomic_write(path_of(folder)) as scratch:
        # bytes: sha256sum wants no Windows line ends; file names come as the system spells them
        scratch.write_bytes("".join(lines).encode(errors="surrogateescape"))
    return path_of(folder)


def _line(name: str, checksum: str) -> str:
    escaped = "".join(ESCAPES.get(one, one) for one in name)
    return f"{checksum}  {name}\n" if escaped == name else f"\\{checksum}  {escaped}\n"


def read(path: Path) -> dict[str, str]:
    """The checksums in a manifest, by file. Raises UserError if it is missing or holds other lines."""
    try:
        text = path.read_bytes().decode(errors="surrogateescape").replace("\r\n", "\n")
    except FileNotFoundError as error:
        raise cli.UserError(f"{path} does not exist: make_dataset.py writes it beside the folder.") from error
    except OSError as error:
        raise cli.UserError(f"{path} cannot be read: give a file of sha256sum lines.") from error
    found = [LINE.fullmatch(line) for line in text.removesuffix("\n").split("\n")]
    if not found or None in found:
        raise cli.UserError(
            f"{path} is not a valid manifest: each line must be a SHA-256 checksum and a file name."
        )
    shown = {value[1:]: key for key, value in ESCAPES.items()}
    return {
        ESCAPED.sub(lambda found: shown[found[1]], match[3]) if match[1] else match[3]: match[2]
        for match in found
        if match
    }


def compare(trusted: dict[str, str], now: dict[str, str]) -> Changes:
    """What was added, removed and modified since the trusted manifest was written."""
    return Changes(
        added=sorted(now.keys() - trusted.keys()),
        removed=sorted(trusted.keys() - now.keys()),
        modified=sorted(name for name in now.keys() & trusted.keys() if now[name] != trusted[name]),
    )
