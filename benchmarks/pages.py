"""Helper module, not a command: fills in the Markdown pages of the benchmarks (jinja2)."""

from __future__ import annotations

from pathlib import Path

import jinja2

PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # Markdown, from our own rows
)


def render(template: str, **values: object) -> str:
    """The text of a page from its template in this folder."""
    return PAGES.get_template(template).render(values)
