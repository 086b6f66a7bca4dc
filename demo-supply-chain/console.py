"""What the commands of this demo share: exit codes, one-sentence errors, whole files, tables in plain text.

Helper module, not a command. It needs nothing but Python, so that a scan works before anything is installed.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import signal
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn, TextIO

OK, FINDING, ERROR = 0, 1, 2  # exit codes: fine / something was found / wrong usage or input


class UserError(Exception):
    """Bad input: one sentence that names the file and says what to do next. Ends with exit code 2."""


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one sentence, not after a paragraph of options."""

    def error(self, message: str) -> NoReturn:
        self.exit(ERROR, f"error: {message} ({self.prog} --help says what it takes).\n")


def parser(doc: str | None) -> argparse.ArgumentParser:
    """An argparse parser whose description is the module docstring; --help shows the defaults."""

    class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        def _get_help_string(self, action: argparse.Action) -> str | None:
            none = action.default in (None, "", [])  # nothing to say, or the help says it in words
            return action.help if none else super()._get_help_string(action)

    made = Parser(description=doc, formatter_class=Help)
    made.add_argument("--plain", action="store_true", help="plain linear text, for screen readers and logs")
    return made


class Spoken(io.TextIOBase):
    """Standard output for people who listen, line by line: with --plain, or with WORKSHOP_PLAIN set.

    The finding comes first in its line, no line is longer than somebody can hear to its end, and of a SHA-256
    and a long address only the beginning is read out. Commands (after "$ ") and JSON stay as they are, so
    that they can be used.
    """

    LONGEST = 200  # characters
    FINDING = re.compile(r"^(.*\S)\s+<- (.+)$")
    VERDICT = re.compile(r"^- (.*); ([^;:]+: [A-Z][A-Z -]+)$")  # the last cell of a row
    DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")

    ADDRESS = re.compile(r"(https?://[^/\s]+/[^/\s]+/)\S{60,}")  # half a minute each, mostly digits

    def __init__(self, out: TextIO) -> None:
        self.out, self.rest = out, ""

    @staticmethod
    def is_wanted(arguments: Sequence[str]) -> bool:
        """--plain was typed, or the workshop was started with it; --json is for programs."""
        asked = "--plain" in arguments or bool(os.environ.get("WORKSHOP_PLAIN"))
        return asked and "--json" not in arguments

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.out.write(self.as_heard(line) + "\n")
        return len(text)

    def flush(self) -> None:
        self.out.flush()

    def close(self) -> None:
        """Write what came without an end of line; the stream itself stays open."""
        if self.rest:
            self.out.write(self.as_heard(self.rest))
        self.rest = ""
        self.flush()

    @classmethod
    def as_heard(cls, line: str) -> str:
        """One line of output, in one or more lines."""
        if line.startswith(("$ ", "{")):
            return line
        line = cls.DIGEST.sub(r"\1...", cls.ADDRESS.sub(r"\1...", line))
        if found := cls.FINDING.match(line):
            line = f"{found[2].upper()}: {found[1]}"
        elif found := cls.VERDICT.match(line):
            line = f"- {found[2]}; {found[1]}"
        heard = []
        while len(line) > cls.LONGEST:
            ends = (line.rfind(mark, 0, cls.LONGEST) + len(mark) - 1 for mark in (". ", "; ", ", ", " "))
            end = next((end for end in ends if end > cls.LONGEST // 4), len(line))
            heard.append(line[:end])
            line = "  " + line[end:].lstrip()
            if not line.strip():
                return "\n".join(heard)
        return "\n".join([*heard, line])


def is_plain(asked: bool) -> bool:
    """Linear text when it was asked for, with NO_COLOR set, or when no terminal reads along."""
    return asked or bool(os.environ.get("NO_COLOR")) or not sys.stdout.isatty()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], plain: bool) -> str:
    """Lay out a table: aligned columns for a terminal, one line of "column: value" pairs a row for plain."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    terminal = shutil.get_terminal_size((200, 24)).columns  # one that does not say its width may be wide
    if plain or sum(widths) + 2 * (len(widths) - 1) > terminal:
        lines = ["- " + "; ".join(f"{name}: {cell}" for name, cell in zip(columns, row)) for row in cells]
        if not plain:  # a terminal would break words at its edge
            lines = [wrapped(line, terminal) for line in lines]
        return "\n".join([f"{title} ({len(cells)} {'row' if len(cells) == 1 else 'rows'})", *lines])
    laid = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)) for line in [columns, *cells]]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join(line.rstrip() for line in [title, laid[0], rule, *laid[1:]])


def wrapped(line: str, width: int) -> str:
    """A line in several, broken between words only: not at the hyphens of a name, not inside of a digest."""
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Give a temporary folder inside `folder`, which is made if needed; it is gone afterwards."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".unfinished.", dir=folder))
    except OSError as error:
        raise UserError(
            f"Cannot write in {folder} ({error.strerror}): choose a folder that you may write to."
        ) from error
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` and rename it to `path` only if all went well."""
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a file: choose another name.")
    with scratch(path.parent) as folder:
        yield folder / path.name
        try:
            (folder / path.name).replace(path)
        except OSError as error:
            raise UserError(f"Cannot write {path} ({error.strerror}): choose another place.") from error


def run(main: Callable[[], int]) -> None:
    """Call main() and end with its exit code; bad input ends with one sentence on stderr and code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name can hold bytes that are no text
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that clean-up runs when we are stopped
    out = sys.stdout
    if Spoken.is_wanted(sys.argv[1:]):
        sys.stdout = Spoken(out)
    try:
        code = main()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = ERROR
    except BrokenPipeError:  # the reader went away, for example `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        code = OK
    except OSError as error:  # a full disk, a name that is too long
        where = error.filename or "A file"
        print(
            f"error: {where} cannot be used ({error.strerror}): check the path, and that there is space.",
            file=sys.stderr,
        )
        code = ERROR
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        code = 130
    finally:
        if isinstance(sys.stdout, Spoken):
            with suppress(OSError):
                sys.stdout.close()
            sys.stdout = out
    sys.exit(code)
