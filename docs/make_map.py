"""Draw docs/map.svg, the rooms of the three demos and what imports what, from the files that git tracks.

python docs/make_map.py            writes docs/map.svg, and its description into docs/map.md
python docs/make_map.py --check    exit code 1 if they no longer show what is there
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DRAWING, PAGE = ROOT / "docs/map.svg", ROOT / "docs/map.md"
DEMOS = {
    "demo-malicious": "1: a model file that runs code",
    "demo-poisoning": "2: a model that learned one lie",
    "demo-supply-chain": "3: what is in the image",
}
START, END = "<!-- made by make_map.py -->", "<!-- end of what make_map.py made -->"
COMMANDS = "typed commands"  # the room of a demo that is no folder

# Python files that can be started to look at something, but are there to be imported
ALSO_LIBRARIES = ("signs",)

COLUMN, GAP, LINE, MARGIN = 352, 18, 19, 12  # in pixels


@dataclass
class Room:
    """A part of a demo: the commands, a folder, or a file at the top that others import."""

    name: str
    files: list[str] = field(default_factory=list)  # as people call them
    imports: set[str] = field(default_factory=set)  # names of other rooms


def tracked(folder: Path, *patterns: str) -> list[str]:
    """The files that git tracks in a folder and that are there, as paths from it."""
    command = ["git", "ls-files", "-z", "--", *patterns]
    names = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted(name for name in names if name and (folder / name).is_file())


def modules(folder: Path) -> dict[str, Path]:
    """The Python files of a demo by the name under which the demo imports them: scanner.search."""
    return {name[:-3].replace("/", "."): folder / name for name in tracked(folder, "*.py")}


def imported(path: Path) -> set[str]:
    """The dotted names that a Python file imports, anywhere in it; `from a import b` gives a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def is_command(path: Path) -> bool:
    """People type it: it does something when it is started, and is no library that can also be started."""
    starts = 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
    return starts and path.stem not in ALSO_LIBRARIES


def rooms(folder: Path) -> list[Room]:
    """The rooms of a demo, so ordered that as few as possible import from a room above them."""
    known = modules(folder)
    room_names = {name: room_of(name, path) for name, path in known.items()}
    found = {name: Room(name) for name in room_names.values()}
    for name, path in known.items():
        room = found[room_names[name]]
        if room.name != path.name:
            room.files.append(path.stem if room.name.endswith("/") else path.name)
        room.imports |= {room_names[other] for other in imported(path) & known.keys()} - {room.name}
    for script in tracked(folder, "*.sh"):
        if not (folder / script).stat().st_mode & 0o111:
            continue  # a part that another script reads
        found.setdefault(COMMANDS, Room(COMMANDS)).files.append(script)
    ordered: list[Room] = []
    while found:
        importers = {name: sum(name in other.imports for other in found.values()) for name in found}
        ordered.append(found.pop(min(found, key=lambda name: (name != COMMANDS, importers[name], name))))
    return ordered


def room_of(module: str, path: Path) -> str:
    if "." in module:
        return module.split(".", maxsplit=1)[0] + "/"
    return COMMANDS if is_command(path) else path.name


def described(houses: dict[str, list[Room]]) -> str:
    """The drawing in words, as a list."""
    lines = []
    for demo, floors in houses.items():
        lines.append(f"- {demo}, from top to bottom:")
        for room in floors:
            files = f": {', '.join(room.files)}" if room.files else ""
            uses = f" (imports from {and_list(names_of(room, floors))})" if room.imports else ""
            lines.append(f"  - {room.name}{files}{uses}")
    return "\n".join(lines)


def names_of(room: Room, floors: list[Room]) -> list[str]:
    """What a room imports from, in the order of the floors."""
    return [other.name for other in floors if other.name in room.imports]


def and_list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def drawn(houses: dict[str, list[Room]]) -> str:
    """The drawing, as SVG."""
    shapes: list[str] = []
    bottoms = []
    for number, (demo, floors) in enumerate(houses.items()):
        left, top = GAP + number * (COLUMN + GAP), GAP
        shapes.append(text(left, top + 16, demo, "title") + text(left, top + 36, DEMOS[demo], "small"))
        top += 50
        for room in floors:
            lines = [("bold", room.name)]
            lines += [("", line) for line in textwrap.wrap(", ".join(room.files), 46)]
            if room.imports:
                uses = "imports from " + and_list(names_of(room, floors))
                lines += [("small", line) for line in textwrap.wrap(uses, 50)]
            height = 2 * MARGIN + LINE * len(lines) - 4
            kind = "commands" if room.name == COMMANDS else "room"
            shapes.append(
                f'<rect class="{kind}" x="{left}" y="{top}" width="{COLUMN}" height="{height}" rx="6"/>'
            )
            for row, (style, line) in enumerate(lines):
                shapes.append(text(left + MARGIN, top + MARGIN + LINE * row + 12, line, style))
            top += height + GAP
        bottoms.append(top)
    width, height = GAP + len(houses) * (COLUMN + GAP), max(bottoms)
    style = (
        "text{font:14px sans-serif;fill:#111}.title{font-size:18px;font-weight:bold}.bold{font-weight:bold}"
        ".small{font-size:13px;fill:#333}.room{fill:#f2f5fa;stroke:#35507a;stroke-width:1.5}"
        ".commands{fill:#fdf3d8;stroke:#7a5a00;stroke-width:2.5}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    about = f"<title>The rooms of the three demos</title>\n<desc>{escape(described(houses))}</desc>"
    paper = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    return "\n".join([head, about, f"<style>{style}</style>", paper, *shapes, "</svg>", ""])


def text(x: int, y: int, words: str, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x}" y="{y}">{escape(words)}</text>'


def page(houses: dict[str, list[Room]], old: str) -> str:
    """The page with the description of the drawing put into its place."""
    before, rest = old.split(START, 1)
    image = "![Three columns of boxes, one for each demo. The list below says the same in words.](map.svg)"
    return f"{before}{START}\n{image}\n\n{described(houses)}\n{END}{rest.split(END, 1)[1]}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the map is current")
    args = parser.parse_args()
    houses = {demo: rooms(ROOT / demo) for demo in DEMOS}
    wanted = {DRAWING: drawn(houses), PAGE: page(houses, PAGE.read_text(encoding="utf-8"))}
    old = [path for path, new in wanted.items() if not path.is_file() or path.read_text("utf-8") != new]
    for path in old:
        name = path.relative_to(ROOT)
        if args.check:
            print(f"error: {name} is not current: run python docs/make_map.py", file=sys.stderr)
        else:
            path.write_text(wanted[path], encoding="utf-8", newline="\n")
            print(f"Wrote {name}.")
    if not old:
        print("The map is current.")
    return 1 if old and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
