"""How people and programs get the chain of evidence: as a list to read aloud, as JSON, as a drawing.

Helper module, not a command: verify_chain.py uses it.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from statements.chain import QUESTIONS, Link


def as_text(model: Path, links: list[Link]) -> str:
    """The chain as a list that can be read aloud."""
    lines = [f"The chain of evidence of {model.name}, {len(links)} links:"]
    for number, link in enumerate(links, 1):
        lines += [f"{number}. {link.name}: {link.verdict}. {QUESTIONS[link.name]}", f"   {link.why}."]
        if link.file and link.holds:
            lines.append(f"   statement: {link.file}")
    return "\n".join(lines)


def as_json(model: Path, links: list[Link]) -> str:
    """The chain for programs."""
    found = [{"link": one.name, "holds": one.holds, "why": one.why, "statement": one.file} for one in links]
    return (
        json.dumps(
            {"model": model.name, "trusted": all(one.holds for one in links), "links": found}, indent=1
        )
        + "\n"
    )


def in_words(model: Path, links: list[Link]) -> str:
    """The alternative text of the drawing."""
    return (
        f"Chain of {len(links)} links for {model.name}: "
        + ", ".join(f"{one.name} {one.verdict}" for one in links)
        + "."
    )


def as_svg(model: Path, links: list[Link]) -> str:
    """The chain as a drawing: a box a link, solid where it holds, dashed and marked BROKEN where not."""
    width = 180 * len(links) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 150" role="img" aria-labelledby="t d" '
        'font-family="sans-serif" font-size="16">',
        f'<title id="t">Chain of evidence of {escape(model.name)}</title>',
        f'<desc id="d">{escape(in_words(model, links))}</desc>',
        f'<rect width="{width}" height="150" fill="white"/>',
        f'<text x="20" y="28">{escape(model.name)}</text>',
    ]
    for number, link in enumerate(links):
        left = 20 + 180 * number
        style = "" if link.holds else ' stroke-dasharray="6 5"'
        color = "#1b7837" if link.holds else "#b2182b"
        if number:
            parts.append(f'<path d="M {left - 40} 85 h 40" stroke="#444444" stroke-width="3"/>')
        parts += [
            f'<rect x="{left}" y="50" width="140" height="70" rx="8" fill="none" stroke="{color}" '
            f'stroke-width="3"{style}/>',
            f'<text x="{left + 70}" y="80" text-anchor="middle" font-weight="bold">{link.name}</text>',
            f'<text x="{left + 70}" y="104" text-anchor="middle" fill="{color}">{link.verdict}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
