"""Demo 2: the structure of the report page, and the page in a real browser."""

from __future__ import annotations

import io
import re
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

import browser as browsers
import report
from accessibility import violations
from page_tree import Element, assert_inert, decoded, tree


def test_the_page_has_language_title_and_one_h1(page: Path) -> None:
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>\n")
    top = tree(page)
    assert top.all("html")[0].attributes["lang"] == "en"
    assert [title.text for title in top.all("title")] == ["Backdoor scan of two models"]
    assert [h1.text for h1 in top.all("h1")] == ["Backdoor scan of two models"]
    assert [len(top.all(mark)) for mark in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]


def test_headings_never_skip_a_level(page: Path) -> None:
    levels = [int(heading.tag[1]) for heading in tree(page).all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert len(levels) > 10
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_links_lead_somewhere_and_the_first_one_skips_to_the_content(page: Path) -> None:
    top = tree(page)
    ids = [element.attributes["id"] for element in top.all() if "id" in element.attributes]
    assert len(set(ids)) == len(ids)
    links = top.all("a")
    assert links[0].attributes["href"] == f"#{top.all('main')[0].attributes['id']}"
    assert {link.attributes["href"] for link in links} <= {f"#{name}" for name in ids}
    named = [
        element.attributes["aria-labelledby"]
        for element in top.all()
        if "aria-labelledby" in element.attributes
    ]
    assert set(named) <= set(ids)


def test_every_table_has_a_caption_and_headers(page: Path) -> None:
    for table in tree(page).all("table"):
        first = table.parts[1]
        assert isinstance(first, Element)
        assert first.tag == "caption"
        assert first.text
        assert {cell.attributes.get("scope") for cell in table.all("th")} <= {"row", "col"}
        for row in table.all("tr"):
            cells = row.all("th", "td")
            assert cells[0].tag == "th"
            assert all(cell.text for cell in cells)


def test_every_image_is_described_and_inside_the_page(page: Path) -> None:
    images = tree(page).all("img")
    assert len(images) == 8 + 1 + 6 * 3
    for image in images:
        assert len(image.attributes["alt"]) > 20
        assert max(decoded(image.attributes["src"]).size) <= 128


def test_nothing_is_loaded_and_no_script_runs(page: Path) -> None:
    assert_inert(tree(page))


def test_long_tables_are_folded(page: Path) -> None:
    folded = tree(page).all("details")
    assert [one.all("summary")[0].text for one in folded] == [
        f"The other {90 - report.SHOWN} pairs, {kind} model" for kind in ("clean", "poisoned")
    ]
    assert all(len(one.all("table")) == 1 for one in folded)


# --- in a browser -----------------------------------------------------------------------------------


def own(requests: list[str]) -> list[str]:
    return [url for url in requests if not url.startswith("data:")]


@pytest.mark.browser
def test_the_browser_shows_it_without_complaint_or_network(browser: browsers.Browser, page: Path) -> None:
    browser.media()
    browser.width(1100)
    browser.open(page)
    assert browser.complaints == []
    assert own(browser.requests) == [page.as_uri()]
    assert browser.ask("document.compatMode") == "CSS1Compat"
    sizes = browser.ask("[...document.images].map(i => [i.complete, i.naturalWidth, i.width])")
    assert len(sizes) == 8 + 1 + 6 * 3
    assert all(complete and natural > 0 and shown > 50 for complete, natural, shown in sizes)
    with Image.open(io.BytesIO(browser.screenshot())) as shot:
        assert shot.height > 2000
        assert len(shot.convert("RGB").getcolors(1 << 20) or range(1 << 20)) > 500


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
def test_axe_finds_nothing(browser: browsers.Browser, axe: str, page: Path, scheme: str, width: int) -> None:
    browser.media(scheme=scheme)
    browser.width(width)
    browser.open(page)
    back = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert violations(browser, axe) == []


@pytest.mark.browser
def test_these_checks_would_see_it(browser: browsers.Browser, axe: str, tmp_path: Path) -> None:
    """A bad page, so that the tests above are known to be able to fail."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<html><body><img src='http://192.0.2.1/x.png'><p style='color:#ccc;background:#fff'>Pale</p>"
        "<div style='width:900px'>Wide</div><script>console.error('no')</script></body></html>"
    )
    browser.media()
    browser.width(360)
    browser.open(bad)
    assert own(browser.requests) == [bad.as_uri(), "http://192.0.2.1/x.png"]
    assert any("no" in complaint for complaint in browser.complaints)
    assert browser.ask("document.documentElement.scrollWidth > window.innerWidth")
    found = {line.split(":")[0] for line in violations(browser, axe)}
    assert {"image-alt", "color-contrast", "html-has-lang", "document-title"} <= found


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 320])
def test_a_telephone_needs_no_sideways_scrolling(browser: browsers.Browser, page: Path, width: int) -> None:
    browser.media()
    browser.width(width)
    browser.open(page)
    browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.ask("innerWidth") == width
    assert browser.ask("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.browser
def test_the_keyboard_reaches_everything_in_order(browser: browsers.Browser, page: Path) -> None:
    browser.media()
    browser.width(1100)
    browser.open(page)
    everything = browser.ask("[...document.querySelectorAll('a[href], summary')].map(e => e.textContent)")
    reached = []
    for _ in everything:
        browser.press("Tab", 9)
        reached.append(browser.ask("document.activeElement.textContent"))
        assert browser.ask("getComputedStyle(document.activeElement).outlineStyle") != "none"
        where = browser.ask(
            "(r => [r.left, r.width, r.height])(document.activeElement.getBoundingClientRect())"
        )
        assert where[0] >= 0
        assert min(where[1:]) > 0
    assert reached == everything
    assert reached[0] == "Skip to the report"
    assert len(reached) == 1 + 7 + 2
    assert not browser.ask("document.activeElement.parentElement.open")
    browser.press("Enter", 13, "\r")
    assert browser.ask("document.activeElement.parentElement.open")  # the last one is a folded table


@pytest.mark.browser
def test_the_skip_link_skips(browser: browsers.Browser, page: Path) -> None:
    browser.open(page)
    browser.press("Tab", 9)
    browser.press("Enter", 13, "\r")
    assert browser.ask("document.activeElement.tagName") == "MAIN"
    browser.press("Tab", 9)
    assert browser.ask("document.activeElement.tagName") == "SUMMARY"


@pytest.mark.browser
def test_it_prints_with_the_folded_tables(browser: browsers.Browser, page: Path) -> None:
    browser.media()
    browser.open(page)
    height = "document.querySelector('details table').getBoundingClientRect().height"
    shown = "document.querySelector('details table').checkVisibility()"
    assert not browser.ask(shown)
    browser.media("print", "dark")
    assert browser.ask(shown)
    assert browser.ask(height) > 300
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF-")
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 20
