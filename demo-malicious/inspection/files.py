"""Is there a file that can be read? One sentence if not.

Helper module, not a command.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import cli


def existing_file(path: Path) -> Path:
    """Give `path` back if it is a file that can be read, else raise UserError."""
    if path.is_dir():
        raise cli.UserError(f"{path} is a folder: name a model file.")
    try:
        if path.exists() and not path.is_file():
            raise cli.UserError(f"{path} is not an ordinary file (a device or a pipe): name a model file.")
        with path.open("rb") as file:
            if not file.read(1):
                raise cli.UserError(f"{path} is empty: download or create the file again.")
    except FileNotFoundError:
        raise cli.UserError(f"{path} does not exist: check the name, or create the file first.") from None
    except OSError as error:
        raise cli.UserError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error
    return path


def every_file(folder: Path) -> list[Path]:
    """Every file below a folder, in a fixed order. Raises UserError for a link, which could lead anywhere."""
    found = []
    for path in sorted(everything(folder)):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise cli.UserError(
                f"{path} is a link or a device: copy the folder with the files themselves "
                "(cp -rL FOLDER COPY) and name the copy."
            )
        if path.is_file():
            found.append(path)
    if not found:
        raise cli.UserError(f"{folder} holds no file: name a folder with a model.")
    return found


def everything(folder: Path) -> Iterator[Path]:
    """All that lies below a folder, links and folders included. Links are not followed.

    Neither os.walk nor Path.rglob: of folders in folders in folders each ends in a RecursionError in some
    version of Python. What the system cannot open, for example because its path is too long, is an OSError.
    """
    todo = [folder]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                path = Path(entry.path)
                yield path
                if entry.is_dir(follow_symlinks=False):
                    todo.append(path)


def leaves_folder(path: str) -> bool:
    """Whether a path that stands in a model leads out of the model's folder, on any system."""
    parts = PurePosixPath(path.replace("\\", "/"))
    return parts.is_absolute() or ".." in parts.parts or bool(re.match(r"[A-Za-z]:", path)) or "\0" in path
