"""A report page as a tree of elements, for tests to walk in."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parts: list[Element | str] = field(default_factory=list)

    def all(self, *tags: str) -> list[Element]:
        """All elements inside with one of these tags (any, if none is given), in the order of the page."""
        found = []
        for part in self.parts:
            if isinstance(part, Element):
                found += [part] if not tags or part.tag in tags else []
                found += part.all(*tags)
        return found

    @property
    def text(self) -> str:
        inside = "".join(part if isinstance(part, str) else part.text for part in self.parts)
        return " ".join(inside.replace("\u00a0", " ").split())


class Tree(HTMLParser):
    """Builds Elements, and fails where a tag is not closed in order."""

    EMPTY = ("meta", "link", "img", "wbr", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Element("page", {})
        self.open = [self.root]
        self.feed(text)
        self.close()
        assert self.open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"{tag} has an attribute twice"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].parts.append(element)
        if tag not in self.EMPTY:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def tree(path: Path) -> Element:
    return Tree(path.read_text(encoding="utf-8")).root


def rows(table: Element) -> list[list[str]]:
    return [[cell.text for cell in row.all("th", "td")] for row in table.all("tr")]


def pair_tables(page: Element) -> list[Element]:
    return [table for table in page.all("table") if table.attributes.get("class") == "pairs"]


def decoded(source: str) -> Image.Image:
    kind, _, data = source.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def assert_inert(top: Element) -> None:
    """The page loads nothing, and runs no script."""
    assert top.all("script", "iframe", "object", "embed", "form", "video", "audio") == []
    for element in top.all():
        assert [name for name in element.attributes if name.startswith("on")] == []
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            assert element.attributes.get(name, "#").startswith(("#", "data:"))
    style = "".join(part.text for part in top.all("style"))
    assert "url(" not in style
    assert "@import" not in style
    policy = next(meta for meta in top.all("meta") if "http-equiv" in meta.attributes)
    assert policy.attributes["content"].startswith("default-src 'none';")
