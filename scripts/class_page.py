"""Who has done what: attendees who want to be listed share a file, the instructor makes one page of them.

    python scripts/class_page.py share NAME     writes progress/share.json: the name, and what you have solved
    python scripts/class_page.py page FOLDER    reads every .json file in FOLDER, writes progress/class.html
                                                and the same as text, progress/class.txt

Nothing is sent: people hand the file over, and only if they want to. The name is whatever they choose.
Exit code 0: fine. 1: some files could not be read; the page names them. 2: wrong usage, or nothing to read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from html import escape
from pathlib import Path

import log
import pages
from progress import Parser, run
from tasks import UserError, every

KEYS = {"tool", "format", "name", "solved"}
LONGEST_NAME = 40
LARGEST = 100_000  # bytes


def share(arguments: argparse.Namespace) -> int:
    """Write the file that an attendee hands over: the name and the exercises, no times, nothing else."""
    name = str(arguments.name).strip()
    if not is_name(name):
        raise UserError(f"A name has 1 to {LONGEST_NAME} characters that can be printed: choose another one.")
    solved = sorted(log.read().solved)
    path = log.folder() / "share.json"
    data = {"tool": "workshop.sh", "format": 1, "name": name, "solved": solved}
    pages.write(path, json.dumps(data, ensure_ascii=False, indent=1) + "\n")
    print(f"Wrote {path}. It says: {name} has solved {', '.join(solved) or 'nothing yet'}. Nothing was sent.")
    print("Hand it to your instructor if you want to be on the page of the class.")
    return 0


def is_name(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text.strip()) <= LONGEST_NAME and text.isprintable()


def read(path: Path) -> tuple[str, set[str]]:
    """Name and solved exercises of a shared file. Raises ValueError if it is not one."""
    known = {one.item for one in every()}
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            raise ValueError("no file, or too large")
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.keys() != KEYS:
            raise ValueError("not a shared file")
        if (data["tool"], data["format"]) != ("workshop.sh", 1):
            raise ValueError("not a shared file")
        solved = data["solved"]
        if not is_name(data["name"]) or not isinstance(solved, list) or not set(solved) <= known:
            raise ValueError("not a name, or unknown exercises")
    except (OSError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return data["name"], set(solved)


def page(arguments: argparse.Namespace) -> int:
    """Make the page of the class. Gives 1 if a file could not be read, else 0."""
    people: list[tuple[str, set[str]]] = []
    unread = []
    if not arguments.folder.is_dir():
        raise UserError(f"{arguments.folder} is not a folder: put the shared files into one.")
    for path in sorted(arguments.folder.glob("*.json")):
        try:
            people.append(read(path))
        except ValueError:
            unread.append(path.name.encode(errors="backslashreplace").decode())
    if not people:
        raise UserError(f"{arguments.folder} holds no shared file: ./workshop.sh share NAME writes one.")
    people.sort(key=lambda one: one[0].casefold())
    place = log.folder()
    pages.write(place / "class.txt", "\n".join(lines(people, unread)) + "\n")
    pages.write(place / "class.html", as_html(people, unread))
    print("\n".join(lines(people, unread)))
    print(f"The same as a page: {place / 'class.html'}.")
    return 1 if unread else 0


def lines(people: list[tuple[str, set[str]]], unread: list[str]) -> list[str]:
    """The page as plain text: a line for each person, then one for each exercise."""
    exercises = every()
    said = [f"{len(people)} people share what they have solved, of {len(exercises)} exercises."]
    for name, solved in people:
        in_order = [one.item for one in exercises if one.item in solved]
        said.append(f"{name}: {len(in_order)} solved{': ' if in_order else ''}{', '.join(in_order)}.")
    count = Counter(item for _, solved in people for item in solved)
    said += [f"Exercise {one.item} ({one.level}), {one.title}: {count[one.item]}." for one in exercises]
    return said + [f"NOT READ: {name} is not a shared file." for name in unread]


def as_html(people: list[tuple[str, set[str]]], unread: list[str]) -> str:
    exercises = every()
    head = "".join(f'<th scope="col">{one.item}</th>' for one in exercises)
    rows = ""
    for name, solved in people:
        cells = "".join(f"<td>{'done' if one.item in solved else 'open'}</td>" for one in exercises)
        rows += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>\n'
    body = f"<p>{len(people)} people share what they have solved.</p>\n<table>\n"
    body += (
        f'<caption>Exercises by person</caption>\n<tr><th scope="col">Name</th>{head}</tr>\n{rows}</table>\n'
    )
    body += "<h2>The exercises</h2>\n"
    body += pages.listing(lines(people, unread)[1 + len(people) :])
    return pages.html("Who has done what", body)


def main() -> int:
    arguments = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = arguments.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    one = commands.add_parser("share", help="write the file that you may hand to your instructor")
    one.add_argument("name", help="any name that you choose")
    one.set_defaults(does=share)
    two = commands.add_parser("page", help="make the page of the class from the files in a folder")
    two.add_argument("folder", type=Path)
    two.set_defaults(does=page)
    for part in (one, two):
        part.add_argument("--plain", action="store_true", help="changes nothing: this is plain text already")
    args = arguments.parse_args()
    code: int = args.does(args)
    return code


if __name__ == "__main__":
    sys.exit(run(main))
