"""One HTML page and the same as plain text, for people with and without a screen. Helper module."""

from __future__ import annotations

import os
import tempfile
from html import escape
from pathlib import Path

from tasks import UserError

STYLE = """
body { font: 18px/1.5 sans-serif; max-width: 46em; margin: 1em auto; padding: 0 1em }
body { color: #111; background: #fff }
img { max-width: 100%; image-rendering: pixelated; border: 4px solid #111 }
table { border-collapse: collapse } th, td { border: 1px solid #555; padding: .2em .6em; text-align: left }
h1 { font-size: 2em }
"""


def html(title: str, body: str) -> str:
    """A whole page, with nothing from elsewhere."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n{body}</main>\n</body>\n</html>\n"
    )


def listing(lines: list[str]) -> str:
    """A list in HTML."""
    return "<ul>\n" + "".join(f"<li>{escape(line)}</li>\n" for line in lines) + "</ul>\n"


def write(path: Path, text: str) -> None:
    """Write a whole file or none. Raises UserError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(file, "w", encoding="utf-8") as out:
                out.write(text)
            os.chmod(scratch, 0o664)  # noqa: PTH101 (a name, not a Path)
            os.replace(scratch, path)  # noqa: PTH105
        except BaseException:
            os.unlink(scratch)  # noqa: PTH108
            raise
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): make its folder writable.") from error
