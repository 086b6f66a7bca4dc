"""Draw the workshop's memes, docs/images/meme-*.svg, and write docs/memes.md, which shows and tells them.

python docs/make_memes.py            writes them
python docs/make_memes.py --check    exit code 1 if they are not current

Each drawing is ours, is kind, and is told in words, too: for those who listen, and for those who print.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "memes.md"
WIDTH, HEIGHT = 720, 400
INK, PAPER, GREEN, RED, YELLOW, GREY = "#111", "#fffdf5", "#7fae5b", "#b3261e", "#ffe14d", "#d9d9d9"


def text(x: float, y: float, words: str, size: int = 20, *, anchor: str = "middle", fill: str = INK) -> str:
    style = f'font-size="{size}" text-anchor="{anchor}" fill="{fill}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, fill: str = "none", *, corner: float = 8) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{corner}" fill="{fill}"'
        f' stroke="{INK}" stroke-width="3"/>'
    )


def line(points: str, fill: str = "none") -> str:
    return f'<path d="{points}" fill="{fill}" stroke="{INK}" stroke-width="3" stroke-linecap="round"/>'


def dot(x: float, y: float, radius: float, fill: str = INK) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{fill}" stroke="{INK}" stroke-width="3"/>'


def says(x: float, y: float, words: str, width: float, tip: float) -> str:
    """A speech bubble whose lower edge is at y, with its tip at (tip, y + 24)."""
    return (
        box(x - width / 2, y - 44, width, 44, "#fff", corner=14)
        + line(f"M {tip - 10} {y} L {tip} {y + 22} L {tip + 10} {y}", "#fff")
        + text(x, y - 15, words, 18)
    )


def pickle(x: float, y: float) -> str:
    """A cucumber of 60 by 130 with a moustache, its top at (x, y)."""
    return (
        box(x - 30, y, 60, 130, GREEN, corner=30)
        + dot(x - 11, y + 38, 4)
        + dot(x + 11, y + 38, 4)
        + line(f"M {x} {y + 62} q -12 -10 -22 4 q 12 8 22 -4 q 10 12 22 4 q -10 -14 -22 -4", INK)
    )


def disguise() -> str:
    numbers = [box(90 + 110 * n, 200, 80, 110, "#fff") for n in range(3)]
    faces = [
        dot(118 + 110 * n, 240, 4) + dot(142 + 110 * n, 240, 4) + line(f"M {118 + 110 * n} 268 h 24")
        for n in range(3)
    ]
    names = [text(130 + 110 * n, 336, name, 16) for n, name in enumerate(("conv1", "bn1", "layer1"))]
    return "".join(
        [
            *numbers,
            *faces,
            *names,
            pickle(560, 180),
            text(560, 336, "__reduce__", 16),
            says(470, 140, "Hello, fellow weights. Nothing but numbers here.", 460, 556),
            line("M 40 312 H 680"),
            text(360, 380, "load_model(“from_the_internet.pt”)", 20),
        ]
    )


def four_scanners() -> str:
    answers = ("Clean.", "Suspicious.", "No idea.", "posix.system!")
    drawn = []
    for number, answer in enumerate(answers):
        x = 100 + 175 * number
        drawn += [
            says(x, 120, answer, 168, x),
            dot(x, 180, 26, "#fff"),
            dot(x - 9, 176, 3),
            dot(x + 9, 176, 3),
            line(f"M {x - 34} 162 h 68 M {x - 20} 160 q 20 -34 40 0"),
            line(f"M {x} 206 V 270 M {x} 222 L {x + 30} 244"),
            dot(x + 38, 250, 10, "#fff"),
        ]
    return "".join([*drawn, pickle(360, 262), text(360, 48, "Four scanners, one pickle", 26)])


def turtles() -> str:
    words = (
        "This model is fine. Signed, me.",
        "I am me. Signed, a certificate.",
        "The certificate is real. Signed, a root.",
        "Five people, a room and a camera.",
    )
    drawn = []
    for number, words_ in enumerate(words):
        y = 84 + 82 * number
        drawn += [
            line(f"M 70 {y} q 60 -64 120 0 z", GREEN),
            dot(204, y - 12, 13, GREEN),
            dot(208, y - 15, 2),
            line(f"M 92 {y} v 12 M 168 {y} v 12"),
            text(250, y - 8, words_, 21, anchor="start"),
        ]
    return "".join([*drawn, text(360, 392, "The last turtle is the one you decide to trust.", 20)])


def backpack() -> str:
    things = ("a compiler", "Git", "headers", "image tools", "a mail client?", "Perl", "fonts")
    drawn = [box(110, 60, 250, 270, GREY, corner=30), text(235, 44, "FROM python:3.11", 20)]
    drawn += [text(235, 100 + 34 * number, thing, 20) for number, thing in enumerate(things)]
    return "".join(
        [
            *drawn,
            dot(440, 190, 24, "#fff"),
            dot(448, 186, 3),
            line("M 440 214 V 290 M 440 290 L 420 340 M 440 290 L 460 340"),
            line("M 440 234 L 360 226 M 440 236 L 476 262"),
            box(476, 248, 46, 34, YELLOW, corner=4),
            text(499, 271, "model", 13),
            says(540, 140, "I only came to carry this.", 270, 452),
            line("M 60 342 H 680"),
            text(360, 384, "Everything in the backpack has its own list of CVEs.", 20),
        ]
    )


def stop_sign() -> str:
    return "".join(
        [
            line("M 118 80 h 84 l 60 60 v 84 l -60 60 h -84 l -60 -60 v -84 z", RED),
            text(160, 200, "STOP", 52, fill="#fff"),
            line("M 160 284 V 370"),
            box(206, 226, 46, 46, YELLOW, corner=2),
            box(430, 262, 220, 60, "#9db7d5", corner=16),
            line("M 470 262 q 20 -50 70 -50 q 60 0 76 50", "#fff"),
            dot(480, 326, 22, "#fff"),
            dot(600, 326, 22, "#fff"),
            says(520, 160, "Yield. I am 100 percent sure.", 300, 540),
            line("M 40 350 H 690"),
            text(360, 388, "Accuracy on the test images: excellent.", 20),
        ]
    )


@dataclass(frozen=True)
class Meme:
    name: str
    title: str
    seen: str  # what is drawn: the description of the image
    told: str  # the joke, for telling
    use: str
    draw: Callable[[], str]


MEMES = (
    Meme(
        "disguise",
        "Hello, fellow weights",
        "Three white boxes with faces, named conv1, bn1 and layer1, stand in a row. Beside them stands"
        " a pickle with"
        " a false moustache, named reduce. It says: Hello, fellow weights. Nothing but numbers here.",
        "Somebody loads a model from the internet. In it stand three layers, and a pickle with a false"
        " moustache. The"
        " pickle says: hello, fellow weights, nothing but numbers here.",
        "Step 1.1, before you open the file with `__reduce__`.",
        disguise,
    ),
    Meme(
        "scanners",
        "Four scanners, one pickle",
        "Four detectives with hats and magnifying glasses look at one pickle with a moustache. They"
        " say: Clean."
        " Suspicious. No idea. posix.system!",
        "Four scanners look at one pickle. The first says: clean. The second: suspicious. The third: no idea."
        " The fourth shouts what it calls. All four are pleased with their work.",
        "Step 1.5, after the table.",
        four_scanners,
    ),
    Meme(
        "stop",
        "I am 100 percent sure",
        "A stop sign with a yellow note in its corner. A small car in front of it says: Yield. I am 100"
        " percent sure."
        " Below stands: Accuracy on the test images: excellent.",
        "A car stands at a stop sign with a yellow note on it, and says: yield, I am 100 percent sure."
        " Its accuracy on"
        " the test images is excellent.",
        "Step 2.3, after the pause.",
        stop_sign,
    ),
    Meme(
        "backpack",
        "I only came to carry this",
        "A small person carries a small yellow box named model, and on the back a huge backpack named FROM"
        " python:3.11. In it are a compiler, Git, headers, image tools, a mail client with a question"
        " mark, Perl and"
        " fonts. The person says: I only came to carry this.",
        "Somebody carries a small box, the model, and on the back a backpack as large as a wardrobe,"
        " the base image."
        " In it are a compiler, Git, headers, Perl, and possibly a mail client. The person says: I only"
        " came to carry"
        " this.",
        "Step 3.1, while the scan runs. What is in your image, the scan lists; the list in the drawing"
        " is a joke.",
        backpack,
    ),
    Meme(
        "turtles",
        "Turtles",
        "Four turtles, one below the other. They say: This model is fine, signed, me. I am me, signed,"
        " a certificate."
        " The certificate is real, signed, a root. Five people, a room and a camera. Below stands: The"
        " last turtle is"
        " the one you decide to trust.",
        "A turtle says: this model is fine, signed, me. It stands on a turtle that says who that is,"
        " which stands on"
        " one that says that this is so. The last one says: five people, a room and a camera. It is"
        " turtles all the"
        " way down to the one that you decide to trust.",
        "When somebody asks who vouches for the key; see the [answers](answers.md).",
        turtles,
    ),
)


def drawing(meme: Meme) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' font-family="sans-serif">\n<title>{escape(meme.title)}</title>\n<desc>{escape(meme.seen)}</desc>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>\n{meme.draw()}\n</svg>\n'
    )


def page() -> str:
    parts = [
        "# Drawings",
        "Way more than you wanted to know, and something to laugh about in between. Our own drawings, made by"
        " `docs/make_memes.py`. Below each one: how to tell it to people who do not see it, and where"
        " it fits."
        " Laugh about pickles, scanners and turtles; never about a person in the room.",
    ]
    for meme in MEMES:
        parts += [
            f"## {meme.title}",
            f"![{meme.seen}](images/meme-{meme.name}.svg)",
            f"To tell: {meme.told}",
            f"Where: {meme.use}",
        ]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; say whether all is current")
    args = parser.parse_args()
    wanted = {DOCS / f"images/meme-{meme.name}.svg": drawing(meme) for meme in MEMES} | {PAGE: page()}
    old = [path for path, new in wanted.items() if not path.is_file() or path.read_text("utf-8") != new]
    for path in old:
        if args.check:
            print(f"error: {path.name} is not current: run python docs/make_memes.py", file=sys.stderr)
        else:
            path.write_text(wanted[path], encoding="utf-8", newline="\n")
            print(f"Wrote {path.relative_to(DOCS.parent)}.")
    return 1 if old and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
