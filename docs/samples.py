"""Types what the documents say, and writes the samples in them from what it got.

    python docs/samples.py                        # are the samples those of the records?
    python docs/samples.py --run demo-malicious   # type it all on a fresh copy, and compare with the record
    python docs/samples.py --update demo-poisoning  # the same, and write record and samples anew (minutes)

Each fenced command is typed as written, in order, on a copy of the repository, once for each folder. What it
said is kept in docs/records/FOLDER.txt. A ```text block of a document is a part of such a record. Comments
before a block say what is special about it:

    <!-- not run: REASON -->          the commands need something that a test has not (documented/blocks.py);
    <!-- not run: REASON (WORDS) -->  ... those that hold these words
    <!-- no record: REASON -->        what they say depends on the machine: only the exit code is looked at
    <!-- ends with: 0 1 -->           exit codes of the commands, one for all or one for each; else 0
    <!-- first: COMMAND -->           is typed before them: what the build of an image or another demo does
    <!-- typed with: OPTIONS -->      is always typed with these, for what the other demos would have made
    <!-- in tests also: OPTIONS -->   a test types these behind each command, to end sooner, and only looks at
                                      the exit code; | parts those of several commands
    <!-- shows: COMMAND -->           the sample is of this command; else of all in the block before it
    <!-- from: WORDS --> <!-- to: WORDS -->   ... from the line that begins so, to the one that does
    <!-- only: REGEX --> <!-- without: REGEX -->   ... of that, the lines that match, or do not
    <!-- not from a run: REASON -->   the block is no output, or one that depends on the machine
    <!-- figures: COMMAND -->         before a paragraph, or at the end of a line: its figures are in the
                                      record of this command; or FILE: in this file; several with "; "

Figures in sentences: those of documented/figures.py are put into the documents from the records, too.

Exit code 0: as it should be. 1: something differs; each difference is one sentence. 2: wrong usage.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from documented import figures
from documented.blocks import FOLDERS, ROOT, Block, blocks_of, documents, not_run
from documented.differences import compare
from documented.records import Record, read_record, record_path, same_as, written
from documented.shell import fresh_copy
from documented.typed import Typing, type_all

# a paragraph below such a comment, or a line that ends with one
PARAGRAPH = re.compile(r"^<!-- figures: (.*) -->\n((?:(?!```)\S.*\n)+)", re.MULTILINE)
LINE = re.compile(r"^()(.*\S) <!-- figures: (.*?) -->$", re.MULTILINE)
# a figure, but not a part of a name, or the number of a step
FIGURE = re.compile(r"(?<![\w.-])\d+x\d+|(?<![\w.-])\d+(?:[.,]\d+)*(?![\w-])(?!\. )")
NOT_PROSE = re.compile(r"`[^`]*`|\]\([^)]*\)|[Ss]teps? \d+(\.\d+)?( (and|or|to) \d+(\.\d+)?)?")


def sample(block: Block, before: Block | None, record: Record) -> str | None:
    """What the record says that this block shows. None: there is no record of it."""
    if "shows" in block.notes:
        commands = [block.notes["shows"]]
    else:
        commands = [] if before is None else list(map(same_as, before.commands))
    said = [record[command].output for command in commands if command in record]
    if not said or ("shows" in block.notes and len(said) < len(commands)):
        return None
    lines = "\n".join(text for text in said if text).splitlines()
    if start := block.notes.get("from"):
        first = [number for number, line in enumerate(lines) if line.startswith(start)]
        lines = lines[first[0] :] if first else []
    if end := block.notes.get("to"):
        last = [number for number, line in enumerate(lines) if line.startswith(end)]
        lines = lines[: last[0] + 1] if last else []
    if only := block.notes.get("only"):
        lines = [line for line in lines if re.search(only, line)]
    if without := block.notes.get("without"):
        lines = [line for line in lines if not re.search(without, line)]
    text = "\n".join(lines).strip("\n")
    return f"{text}\n" if text else None


def spliced(document: str, records: dict[str, Record], root: Path = ROOT) -> tuple[str, list[str]]:
    """The document with its samples as the records have them, and a sentence for each that has none."""
    text = (root / document).read_text(encoding="utf-8")
    before: Block | None = None
    parts, end, missing = [], 0, []
    for block in blocks_of(document, root):
        if not block.is_sample:
            before = block
        elif "not from a run" not in block.notes:
            new = sample(block, before, records.get(block.folder, {}))
            if new is None:
                missing.append(f"{block} shows output that no record has.")
            else:
                parts += [text[end : block.span[0]], new]
                end = block.span[1]
    text, unknown = figures.spliced(document, "".join([*parts, text[end:]]), records, root)
    return text, missing + unknown


def figures_without_record(document: str, records: dict[str, Record], root: Path = ROOT) -> list[str]:
    """A sentence for each figure that does not stand where its comment says: in a record, or in a file."""
    text = (root / document).read_text(encoding="utf-8")
    commands = {command: said.output for record in records.values() for command, said in record.items()}
    marked = [*PARAGRAPH.findall(text), *((source, prose) for _, prose, source in LINE.findall(text))]
    wrong = []
    for sources, prose in marked:
        there = ""
        for source in sources.split("; "):
            if source in commands:
                there += f"{commands[source]}\n"
            elif (root / source).is_file():
                there += (root / source).read_text(encoding="utf-8")
            else:
                wrong.append(f"{document}: figures: {source} is no command of a record and no file")
        known = set(FIGURE.findall(there))
        wrong += [
            f"{document}: {figure} is not in {sources}: {prose.strip()[:60]}..."
            for figure in FIGURE.findall(NOT_PROSE.sub("", prose))
            if figure not in known
        ]
    return wrong


def pages() -> list[str]:
    """The documents with commands, and those with a sentence in documented/figures.py."""
    return list(dict.fromkeys([*documents(), *(one.document for one in figures.SENTENCES)]))


def check(names: Iterable[str], root: Path = ROOT) -> list[str]:
    """Without running anything: a sentence for each sample and figure that is not the record's."""
    records = {folder: read_record(folder, root) for folder in FOLDERS}
    wrong = []
    for document in names:
        text, missing = spliced(document, records, root)
        old = (root / document).read_text(encoding="utf-8")
        wrong += missing
        changed = list(difflib.unified_diff(old.splitlines(), text.splitlines(), n=0, lineterm=""))
        wrong += ["\n".join([f"{document} is not what its record says:", *changed[2:]])] if changed else []
        wrong += figures_without_record(document, records, root)
    return wrong


def write_record(folder: str, old: Record, typing: Typing) -> None:
    """The record of what ended as it should; of what did not, or was not typed yet, the old one."""
    good = {command: said for command, said in typing.record.items() if command not in typing.failed}
    text = written(good | {c: said for c, said in old.items() if c not in good}, typing.unrecorded)
    if text:
        record_path(folder).write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="*", choices=[*FOLDERS, []], help="type in these (default: all)")
    parser.add_argument("--run", action="store_true", help="type everything, and compare with the records")
    parser.add_argument("--update", action="store_true", help="the same, and write records and samples")
    parser.add_argument(
        "--splice", action="store_true", help="type nothing; write the samples from the records again"
    )
    parser.add_argument("--not-run", action="store_true", help="list the commands that no test types")
    args = parser.parse_args()
    if args.not_run:
        print("\n".join(sorted(not_run())))
        return 0
    wrong: list[str] = []
    for folder in (args.folder or FOLDERS) if args.run or args.update else ():
        old = read_record(folder)
        with tempfile.TemporaryDirectory(prefix="documents-") as scratch:
            root = fresh_copy(Path(scratch).resolve())
            # what comes late is kept even if the rest is interrupted
            after = partial(write_record, folder, old) if args.update else lambda typing: None
            typing = type_all(folder, root, {}, after=after)
        wrong += typing.wrong if args.update else compare(typing, old, folder)
        if args.update:
            write_record(folder, {c: said for c, said in old.items() if c in typing.failed}, typing)
    if args.update or args.splice:
        records = {folder: read_record(folder) for folder in FOLDERS}
        for document in pages():
            (ROOT / document).write_text(spliced(document, records)[0], encoding="utf-8")
    wrong += check(pages())
    print(
        "\n".join(wrong) or "The samples are those of the records.", file=sys.stderr if wrong else sys.stdout
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
