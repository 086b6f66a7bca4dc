"""What every command of this demo shares: printing for people, one-sentence errors, files written atomically.

On a terminal the output is coloured by rich. When it is piped, when NO_COLOR is set, or with --plain,
the same words come as linear text that a screen reader can follow: no boxes, no colour, and each
table row names its columns. Both Python demos carry the same copy of this file, so that each folder
works alone.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn, TextIO, TypeVar

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

MADE_HERE = ".made-by-this-demo"  # marks folders that may be replaced
OK, FINDING, ERROR = 0, 1, 2  # exit codes: fine / something was found / wrong usage or input
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # kinds of characters (Unicode) that are not seen but do something
FULL = 1 << 16  # bytes: with fewer left, a disk is full

T = TypeVar("T")


class UserError(Exception):
    """Bad input: one sentence that names the file and says what to do next. Ends with exit code 2."""


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one sentence, not after a paragraph of options."""

    def error(self, message: str) -> NoReturn:
        self.exit(ERROR, f"error: {message} ({self.prog} --help says what it takes).\n")


def parser(doc: str | None) -> argparse.ArgumentParser:
    """An argparse parser whose description is the module docstring; --help shows every default."""

    class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        def _get_help_string(self, action: argparse.Action) -> str | None:
            none = action.default in (None, "", [])  # nothing to say, or the help says it in words
            return action.help if none else super()._get_help_string(action)

    made = Parser(description=doc, formatter_class=Help)
    made.add_argument("--plain", action="store_true", help="plain linear text, for screen readers and logs")
    return made


def seed(text: str) -> int:
    """The number of a --seed option: what every random generator takes. Raises UserError."""
    if not (text.isascii() and text.isdecimal() and int(text) < 2**32):
        raise UserError(f"--seed {text} is not a whole number from 0 to {2**32 - 1}: choose such a number.")
    return int(text)


def printable(text: str) -> str:
    """The text in one line, with escapes for what could steer a terminal: a file may have any name."""
    if text.isprintable():
        return text
    return "".join(
        ascii(one)[1:-1] if one != "\t" and unicodedata.category(one) in UNSEEN else one for one in text
    )


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


class Out:
    """Standard output for people: the same words on a terminal (rich) and in plain text."""

    def __init__(self, plain: bool = False) -> None:
        self.plain = plain or bool(os.environ.get("NO_COLOR")) or not sys.stdout.isatty()
        self._console = Console(highlight=False, soft_wrap=True)

    def say(self, text: str = "", style: str = "") -> None:
        """Print one line. The style (a rich style such as "bold red") only decorates, it says nothing."""
        text = "\n".join(map(printable, text.split("\n")))
        if self.plain:
            print(text, flush=True)
        else:
            self._console.print(text, style=style or None, markup=False)

    def heading(self, text: str) -> None:
        """Print a heading, set off by an empty line."""
        self.say()
        self.say(f"== {text} ==" if self.plain else text, "bold cyan")

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table. In plain text each row is one line of "column: value" pairs.

        So it is on a terminal where the columns would be too narrow for their longest words.
        """
        cells = [[printable(str(cell)) for cell in row] for row in rows]
        longest = [
            max(len(word) for cell in column for word in ["", *cell.split()])
            for column in zip(columns, *cells)
        ]
        if self.plain or sum(longest) + 3 * len(longest) + 1 > self._console.width:
            lines = ["- " + "; ".join(f"{name}: {cell}" for name, cell in zip(columns, row)) for row in cells]
            for line in [f"{title} ({len(cells)} rows)", *lines]:
                if self.plain:
                    self.say(line)
                else:
                    self._console.print(Text(line), soft_wrap=False)
            return
        table = Table(title=title, title_justify="left")
        for name in columns:
            table.add_column(name, overflow="fold")
        for row in cells:
            table.add_row(*map(Text, row))  # Text: words in a file must not become colours or commands
        self._console.print(table, soft_wrap=False)

    def progress(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        """Yield the items and show how far we are: a bar with the time left on a terminal, else lines.

        Lines come for each quarter and at least twice a minute, on stderr.
        """
        if not self.plain and sys.stderr.isatty():
            with Progress(console=Console(stderr=True), transient=True) as bar:
                task = bar.add_task(doing, total=total)
                for item in items:
                    yield item
                    bar.advance(task)
            return
        shown, started = 0, time.monotonic()
        last = started
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if (quarter := 4 * done // max(total, 1)) > shown or now - last > 30:
                shown, last = quarter, now
                left = (now - started) / done * (total - done)
                more = f", about {left:.0f} seconds left" if left >= 5 else ""
                print(f"{doing}: {100 * done // max(total, 1)} percent{more}", file=sys.stderr, flush=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` and rename it to `path` only if all went well.

    Raises UserError when the place cannot be written. An interrupted run leaves no half-written file.
    """
    with _scratch(path) as scratch:
        yield scratch / path.name
        (scratch / path.name).chmod(0o644)  # some writers make files that only their owner can read
        (scratch / path.name).replace(path)


def check_place(path: Path) -> None:
    """Raise UserError now, rather than after minutes of work, if the file `path` cannot be written."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file, in it or elsewhere.")
    new = [folder for folder in path.absolute().parents if not folder.exists()]  # innermost first
    with _scratch(path):
        pass
    with suppress(OSError):  # another program has written there meanwhile
        for folder in new:
            folder.rmdir()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Like atomic_write for a folder: an older folder of that name is replaced only at the end.

    Only a folder that was made here is replaced, so a mistyped name cannot wipe anything else.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, not a folder: move it or choose another name.")
    if path.is_dir() and any(path.iterdir()) and not (path / MADE_HERE).exists():
        raise UserError(f"{path} was not made by this demo and is not replaced: choose another name.")
    with _scratch(path) as scratch:
        new = scratch / "new"
        new.mkdir()
        yield new
        (new / MADE_HERE).touch()
        if path.exists():
            path.replace(scratch / "old")
        new.replace(path)


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    if path.name in ("", ".."):
        raise UserError(f"{path} is not the name of a file: add one to it.")
    folder = path.parent.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=folder))
    except OSError as error:
        full = error.errno == errno.ENOSPC
        what = "free some space there" if full else "choose a folder that you may write to"
        raise UserError(f"Cannot write {path} ({error.strerror}): {what}.") from error
    try:
        yield scratch
    except UserError:
        raise
    except Exception as error:  # of a library that writes: some have errors of their own
        if os.strerror(errno.ENOSPC) in str(error) or shutil.disk_usage(folder).free < FULL:
            raise UserError(f"Cannot write {path} (the disk is full): free some space there.") from error
        if isinstance(error, OSError) and error.filename and str(error.filename).startswith(str(folder)):
            raise UserError(f"Cannot write {path} ({error.strerror}): free it and try again.") from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def run(main: Callable[[], int]) -> None:
    """Call main() and end with its exit code; bad input ends with one sentence on stderr and code 2."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that clean-up runs when we are stopped
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names may hold bytes that are not UTF-8
            stream.reconfigure(errors="backslashreplace")
    out = sys.stdout
    if Spoken.is_wanted(sys.argv[1:]):
        sys.stdout = Spoken(out)
    try:
        code = main()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        code = ERROR
    except BrokenPipeError:  # the reader went away, for example `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        code = OK
    except OSError as error:  # for example a name that is too long
        if not error.filename:
            raise
        said = f"error: Cannot use {error.filename} ({error.strerror}): check the path."
        print(printable(said), file=sys.stderr)
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
