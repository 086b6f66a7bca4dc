"""How long it takes to hear what each step of the workshop says, in plain text, read by espeak-ng.

    python docs/heard.py [--update]

Reads docs/transcripts, as --plain would print them. Prints a table: seconds at 175 words a minute, the
voice's default, and the longest line. --update writes it into docs/instructor/room.md, between two comments.
Exit code 2: espeak-ng is not installed.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo-malicious"))

import cli

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/instructor/room.md"
START, END = "<!-- made by docs/heard.py -->", "<!-- end of what heard.py made -->"


def plain(text: str) -> str:
    """What comes out where this is printed with --plain."""
    out = io.StringIO()
    spoken = cli.Spoken(out)
    print(text, end="", file=spoken)
    spoken.close()
    return out.getvalue()


def seconds(text: str) -> float:
    """How long espeak-ng speaks this text."""
    with tempfile.TemporaryDirectory() as scratch:
        path = f"{scratch}/said.wav"
        subprocess.run(
            ["espeak-ng", "-v", "en-us", "-s", "175", "-w", path], input=text, text=True, check=True
        )
        with wave.open(path) as sound:
            return sound.getnframes() / sound.getframerate()


def steps() -> list[tuple[str, str]]:
    """Number and title of each step, with what it says."""
    found: list[tuple[str, str]] = []
    for demo in (1, 2, 3):
        text = (ROOT / f"docs/transcripts/transcript-{demo}.txt").read_text(encoding="utf-8")
        parts = re.split(r"^### Step ", text, flags=re.M)[1:]
        found += [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]
    return found


def table() -> list[str]:
    rows = ["| step | seconds to hear | longest line, characters |", "|---|---|---|"]
    for title, said in steps():
        text = plain(said)
        longest = max(len(line) for line in text.splitlines() if not line.startswith("$ "))
        rows.append(f"| {title} | {seconds(text):.0f} | {longest} |")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true", help="write the table into docs/instructor/room.md")
    args = parser.parse_args()
    if not shutil.which("espeak-ng"):
        print(
            "error: espeak-ng is not installed: on Debian and Ubuntu, apt install espeak-ng.", file=sys.stderr
        )
        return 2
    rows = table()
    print("\n".join(rows))
    if args.update:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
        after = rest.partition(END)[2]
        PAGE.write_text(before + "\n".join([START, "", *rows, "", END]) + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
