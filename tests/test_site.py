"""The documents as a web site: built strictly, searchable, and without violations for axe-core."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from accessibility import violations
from browser import Browser

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "docs/make_site.py"
PAGES = (
    "index",
    "search",
    "WORKSHOP",
    "docs/facts",
    "docs/instructor/checklist",
    "demo-malicious/SCANNERS",
    "demo-poisoning/README",
    "demo-supply-chain/README",
)


def make_site(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"PIP_NO_INPUT": "1"},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    installed = make_site("--install")
    if installed.returncode != 0:
        pytest.skip(f"the packages of the site cannot be installed: {installed.stderr[-300:]}")
    out = tmp_path_factory.mktemp("site")
    built = make_site("--out", out)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


def test_the_site_has_every_page_and_a_search(site: Path) -> None:
    pages = [path for pattern in ("*.md", "docs/**/*.md", "demo-*/*.md") for path in ROOT.glob(pattern)]
    for path in pages:
        name = str(path.relative_to(ROOT).with_suffix(".html"))
        assert (site / ("index.html" if name == "README.html" else name)).is_file()
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    for word in ("neural", "pickl", "rekor"):  # stems
        assert f'"{word}"' in index or f"{word}:" in index


def test_no_two_pages_have_the_same_name_in_the_table_of_contents(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    names = re.findall(r'<li class="toctree-l1"><a [^>]*>([^<]*)</a>', page)
    assert len(names) > 20 and sorted(set(names)) == sorted(names)


def test_the_site_has_the_projector_pages(site: Path) -> None:
    assert (site / "projector/index.html").is_file() and (site / "projector/demo-1.html").is_file()


def test_the_first_page_shows_the_image_with_its_description(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    assert "Way More Than You Wanted to Know" in page
    assert 'alt="Three images. First, a stop sign' in page


def test_a_link_that_leads_nowhere_fails_the_build(
    site: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("make_site", SCRIPT)
    assert spec and spec.loader
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    source = tmp_path / "source"
    source.mkdir()
    bad = ("[No such heading](#no-such-heading)", "[No such page](nowhere.md)", "![None](none.png)")
    (source / "index.md").write_text("\n\n".join(("# A page", *bad)) + "\n", encoding="utf-8")
    assert make.build(source, tmp_path / "out") != 0
    said = capfd.readouterr().err
    assert all(word in said for word in ("no-such-heading", "nowhere.md", "none.png")), said


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(site: Path, browser: Browser, axe: str, scheme: str) -> None:
    """What axe cannot decide, and is left out here, is the contrast of text in wide tables."""
    browser.media(scheme=scheme)
    browser.width(1100)
    for page in PAGES if scheme == "light" else PAGES[:2]:
        browser.open(site / f"{page}.html")
        assert violations(browser, axe, undecided=False) == [], page
