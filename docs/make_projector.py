"""Write pages for the projector, and the hand-out, as plain HTML; and the clock, docs/instructor/clock.md.

python docs/make_projector.py                writes them to projector/; open projector/index.html
python docs/make_projector.py --out FOLDER   to another folder
python docs/make_projector.py --check        only says whether the clock is current: exit code 1 if not

The text is that of WORKSHOP.md: of each step its command and its questions, without what to say and without
the answers. One heading for each step; no script, no colour that means something. It needs markdown-it-py,
which rich brings along.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parent.parent
WORKSHOP, HANDOUT, CLOCK = (
    ROOT / "WORKSHOP.md",
    ROOT / "docs/instructor/handout.md",
    ROOT / "docs/instructor/clock.md",
)
TITLE = "ML Pipeline Security: Way More Than You Wanted to Know"

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 60rem; padding: 0 1rem; background: #fff; color: #111;
       font: clamp(22px, 2.2vw, 44px)/1.4 sans-serif; }
h1 { font-size: 1.6em; line-height: 1.2; } h2 { font-size: 1.3em; line-height: 1.2; }
section { min-height: 92vh; border-top: 2px solid #555; }
pre, code { font-family: monospace; font-size: 0.9em; } pre { white-space: pre-wrap; overflow-wrap: anywhere;
      padding: 0.5em; border: 2px solid #555; }
blockquote { margin: 1em 0; padding-left: 0.6em; border-left: 0.3em solid #555; }
a { color: #0b4f8a; } a:focus { outline: 4px solid #0b4f8a; outline-offset: 2px; }
nav li { display: inline-block; margin-right: 1em; } nav ul { padding: 0; }
.time { color: #333; }
"""
PAPER = """
body {{ margin: 0 auto; max-width: 46rem; padding: 0 1rem; background: #fff; color: #000;
       font: {size}/1.35 sans-serif; }}
h1 {{ font-size: 1.4em; margin: 0.3em 0; }} h2 {{ font-size: 1.15em; margin: 0.7em 0 0.2em; }}
p, ul, ol {{ margin: 0.2em 0; }} code {{ font-family: monospace; }}
@media print {{ body {{ max-width: none; padding: 0; }} h2 {{ break-after: avoid; }}
               li {{ break-inside: avoid; }} }}
"""


@dataclass
class Step:
    """What the room sees of one step; for a part without steps there is one, with the title of the part."""

    title: str
    minutes: int
    blocks: list[str] = field(default_factory=list)  # Markdown
    skip: int = 0  # minutes that its line "Skip" gives back


@dataclass
class Part:
    title: str
    begins: int  # minutes after the beginning
    minutes: int
    steps: list[Step]

    @property
    def name(self) -> str:
        """The file: opening, demo-1 and so on."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.split(":")[0].split(",")[0].lower()).strip("-")


def clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02d}"


def duration(minutes: int) -> str:
    return f"{minutes} minute" + "s" * (minutes != 1)


def blocks(text: str) -> list[str]:
    """Paragraphs, lists and fenced blocks, without the comments before them."""
    text = re.sub(r"^<!-- .* -->\n", "", text, flags=re.MULTILINE)
    found = re.findall(r"^```.*?^```$|(?:^(?!```).+\n?)+", text, flags=re.MULTILINE | re.DOTALL)
    return [
        part.strip()
        for block in found
        for part in ([block] if block.startswith("```") else block.split("\n\n"))
    ]


def shown(text: str) -> list[str]:
    """What the room sees: commands, questions and tasks. Not what to say, and not the answers.

    A question to ask first stands first.
    """
    first: list[str] = []
    kept: list[str] = []
    answers = False
    for block in blocks(text):
        if block.startswith("```"):
            kept.append(block)
            continue
        if not re.match(r"[-\d]", block):  # a paragraph
            answers = block.startswith("Expect")
        if answers or block.startswith("#"):
            continue
        if re.match(r"1\. ", block):
            kept.append(block)
        elif task := re.match(r"(Think|Pair|Share|Discuss|Type)\b[^.:]*[.:](?: \"[^\"]+\")?", block):
            kept.append(task.group().rstrip(":") + ("." if task.group().endswith(":") else ""))
        for line in block.splitlines():
            if asked := re.match(r"- Ask(?: first)?[^:\"]*: (.*)", line):
                questions = re.findall(r"\"([^\"]+)\"", asked.group(1))[:1] or [asked.group(1)]
                there = first if line.startswith("- Ask first") else kept
                there += [f"> {question[0].upper()}{question[1:]}" for question in questions]
    return first + kept


def skipped(text: str) -> int:
    """The minutes that the lines "Skip" of a step give back."""
    return sum(int(time) for time in re.findall(r"^- Skip: .*?(\d+) minutes?\b", text, flags=re.MULTILINE))


def parts(text: str) -> list[Part]:
    """The parts of WORKSHOP.md that have a time, with their steps."""
    found = []
    headings = r"^## (\d+):(\d\d) (.*?) \((\d+) minutes\)$"
    pieces = re.split(headings, text, flags=re.MULTILINE)[1:]
    for hours, minute, title, minutes, body in zip(*(iter(pieces),) * 5):
        inside = re.split(r"^## ", body, maxsplit=1, flags=re.MULTILINE)[0]
        before, *rest = re.split(
            r"^### (Step \d\.\d+: .*?) \((\d+) minutes?(?:, .*?)?\)$", inside, flags=re.MULTILINE
        )
        steps = [
            Step(name, int(time), shown(body), skipped(body)) for name, time, body in zip(*(iter(rest),) * 3)
        ]
        if steps:
            steps[0].blocks = shown(before) + steps[0].blocks
        else:
            steps = [Step(title, int(minutes), shown(before))]
        found.append(Part(title, 60 * int(hours) + int(minute), int(minutes), steps))
    return found


def html(markdown: str) -> str:
    return MarkdownIt().render(markdown)


def document(title: str, style: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def page(part: Part, all_parts: list[Part]) -> str:
    """One part: a section for each step, with a link to the next."""
    links = ""
    for other in all_parts:
        here = ' aria-current="page"' if other is part else ""
        links += f'<li><a href="{other.name}.html"{here}>{escape(other.title)}</a></li>'
    body = ['<a href="#steps">Skip to the steps</a>\n', f'<nav aria-label="Parts"><ul>{links}</ul></nav>\n']
    body += ['<main id="steps" tabindex="-1">\n', f"<h1>{escape(part.title)}</h1>\n"]
    time = part.begins
    for number, step in enumerate(part.steps, 1):
        heading = step.title if len(part.steps) > 1 else "What to do"
        body.append(f'<section aria-labelledby="h{number}" id="s{number}">\n')
        body.append(f'<h2 id="h{number}">{escape(heading)}</h2>\n')
        body.append(f'<p class="time">{clock(time)} to {clock(time + step.minutes)}</p>\n')
        body += [html(block) for block in step.blocks]
        time += step.minutes
        if number < len(part.steps):
            following = part.steps[number].title.split(":")[0]
            body.append(f'<p><a href="#s{number + 1}">Next: {escape(following.lower())}</a></p>\n')
        body.append("</section>\n")
    body.append("</main>\n")
    return document(f"{part.title} - projector", STYLE, "".join(body))


def index(all_parts: list[Part]) -> str:
    items = "".join(
        f'<li>{clock(part.begins)}: <a href="{part.name}.html">{escape(part.title)}</a>,'
        f" {part.minutes} minutes</li>\n"
        for part in all_parts
    )
    body = (
        f"<main>\n<h1>{escape(TITLE)}</h1>\n<h2>Parts</h2>\n<ul>\n{items}</ul>\n"
        '<h2>On paper</h2>\n<ul>\n<li><a href="handout.html">Hand-out, one page</a></li>\n'
        '<li><a href="handout-large.html">Hand-out in large print</a></li>\n</ul>\n</main>\n'
    )
    return document(f"{TITLE} - projector", STYLE, body)


def handout(size: str) -> str:
    text = HANDOUT.read_text(encoding="utf-8")
    return document(
        "Hand-out: ML Pipeline Security", PAPER.format(size=size), f"<main>\n{html(text)}</main>\n"
    )


def clock_page(all_parts: list[Part]) -> str:
    """docs/instructor/clock.md: when each part and each step begins."""
    lines = [
        "# Clock",
        "",
        "Minutes after the beginning. Made from [WORKSHOP.md](../../WORKSHOP.md) by `docs/make_projector.py`."
        " Print it, and write the time of day beside it. If you are more than 3 minutes late at the end of a"
        ' demo, see "Behind" in the [plans](plans.md#behind).',
    ]
    end = 0
    for part in all_parts:
        if part.begins > end:
            lines += ["", f"## {clock(end)} Break, {part.begins - end} minutes"]
        lines += ["", f"## {clock(part.begins)} {part.title}, {part.minutes} minutes", ""]
        time = part.begins
        for step in part.steps:
            if len(part.steps) > 1:
                lines.append(f"- {clock(time)} {step.title}, {duration(step.minutes)}")
            time += step.minutes
        end = part.begins + part.minutes
        lines.append(f"- {clock(end)} ends")
        if slack := sum(step.skip for step in part.steps):
            where = ", ".join(step.title[5:].split(":")[0] for step in part.steps if step.skip)
            of = "steps" if "," in where else "step"
            lines += ["", f'Slack inside: {slack} minutes, by the lines "Skip" of {of} {where}.']
    slack = 120 - end
    lines += ["", f"## {clock(end)} End", "", f"Slack in a slot of 120 minutes: {slack} minutes.", ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "projector", help="folder (default: projector)")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; say whether the clock is current"
    )
    args = parser.parse_args()
    all_parts = parts(WORKSHOP.read_text(encoding="utf-8"))
    wanted = clock_page(all_parts)
    current = CLOCK.is_file() and CLOCK.read_text(encoding="utf-8") == wanted
    if args.check:
        if not current:
            print(
                "error: docs/instructor/clock.md is not current: run python docs/make_projector.py",
                file=sys.stderr,
            )
        return 0 if current else 1
    if not current:
        CLOCK.write_text(wanted, encoding="utf-8", newline="\n")
        print("Wrote docs/instructor/clock.md.")
    pages = {f"{part.name}.html": page(part, all_parts) for part in all_parts} | {
        "index.html": index(all_parts),
        "handout.html": handout("10.5pt"),
        "handout-large.html": handout("20pt"),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    for name, content in pages.items():
        (args.out / name).write_text(content, encoding="utf-8", newline="\n")
    print(f"Wrote {len(pages)} pages: open {args.out}/index.html.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
