"""Outside numbers: each has its entry in docs/facts.md, and the documents link to it.

An outside number is recognised by what stands in its paragraph: an outside link, the name of somebody who
publishes such numbers, something that we cannot have counted ourselves, or a very large number. A number
with none of these ("the scanner has an F1 score of 0.9") is not recognised; of twelve sentences by other
people, ten were.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FACTS = ROOT / "docs/facts.md"
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "demo-*/*.md", "docs/**/*.md")
    for path in ROOT.glob(pattern)
    if path != FACTS and path.name not in ("CHANGELOG.md", "SCANNERS.md", "CONTROLS.md")
)
FIELDS = ("Says", "Does not say", "Source", "Checked")

# Who publishes numbers about this field. A paragraph with one of these names and a number needs a source.
# Names of tools that we measure ourselves (picklescan, Grype, PyTorch) are not among them.
NAMES = (
    "Hugging Face",
    "Protect AI",
    "JFrog",
    "ReversingLabs",
    "nullifAI",
    "Mithril",
    "PoisonGPT",
    "PickleBall",
    "Hide and Seek",
    "Trail of Bits",
    "Sleepy Pickle",
    "BadNets",
    "Anthropic",
    "LAION",
    "Carlini",
    "NVIDIA",
    "Trend Micro",
    "Prowler",
    "Fulcio",
    "Stanza",
    "Keras",
    "TensorFlow",
    "of popular models",
    "of the popular models",
    "poisoned documents",
    "language models of",
)
# What we cannot have counted ourselves, whoever is named: how many of these there are, very large numbers.
# "malicious models" and so on: those of the demo stand in code, or are counted in words.
NOT_OURS = re.compile(
    r"\b\d(?:[\d,.]*\d)?(?:\s?%|\s?[KM]\b|\+| percent| million| billion)?\+? (?:of )?(?:[a-z-]+ ){0,3}"
    r"(?:organi[sz]ations|companies|professionals|practitioners|respondents|developers|repositories"
    r"|registries|incidents|breaches|downloads|servers on|popular models|models on"
    r"|malicious (?:[a-z-]+ )?models)\b"
    r"|\b[a-z]+(?:-[a-z]+)? percent of (?:all )?(?:organi[sz]ations|companies|developers|models)\b"
    r"|\b\d[\d.]* (?:million|billion)\b|\b\d[\d.]*[KM] |\b\d{3},\d{3}\b|\b\d{1,3},\d{3},\d{3}\b",
    flags=re.IGNORECASE,
)
CVE = re.compile(r"\b(?:CVE|AML|PYSEC|GHSA)[-.][\w.-]+")

# What is a number, but none that somebody counted: years, versions, steps and names with digits in them.
NO_FIGURE = re.compile(
    r"\b(?:19|20)\d\d(?:-\d\d-\d\d)?\b"
    r"|\b[Dd]emos? \d|\b[Ss]teps? [\d.]+(?: (?:to|and) [\d.]+)?|\b[Ee]xercises? \d|\b[Ll]inks? \d"
    r"|\b(?:Python|PyTorch|Docker|version|Grype|Keras|Stanza|WSL|A)\s?\d[\d.]*\d?(?: to \d[\d.]*)?"
    r"|\bML\d\d:\d+|\bSHA-?\d+|\b[Tt]op (?:10|Ten)|\bv\d[\d.]*"
    r"|\b[A-Za-z_-]+\d+\w*|\b7z\b|^\s*\d+\. "
)


def anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def entries() -> dict[str, str]:
    """Anchor and text of each entry of facts.md."""
    parts = re.split(r"^### (.*)$", FACTS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {
        anchor(title): re.split(r"^## ", body, maxsplit=1, flags=re.MULTILINE)[0]
        for title, body in zip(parts[::2], parts[1::2])
    }


def paragraphs(text: str) -> list[str]:
    """Paragraphs, list items and table rows outside code blocks."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [part for part in re.split(r"\n\s*\n|\n(?=\s*(?:- |\d+\. |\| ))", text) if part.strip()]


def links(paragraph: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", paragraph)


def figures(paragraph: str) -> list[str]:
    """The numbers of a paragraph, but for years, versions, commands and addresses."""
    words = re.sub(r"`[^`]*`", "", re.sub(r"\]\([^)]*\)|[][]", "", paragraph))
    return re.findall(r"\d[\d.,]*", NO_FIGURE.sub("", CVE.sub("", words)))


def sources() -> set[str]:
    """Every outside address that facts.md names."""
    return {link for link in links(FACTS.read_text(encoding="utf-8")) if link.startswith("http")}


def has_its_entry(paragraph: str) -> bool:
    """It links to an entry of facts.md, or to a source that an entry names, or names a CVE with an entry."""
    known, addresses = entries(), {source.rstrip("/") for source in sources()}
    for link in links(paragraph):
        page, _, name = link.partition("#")
        if page.endswith("facts.md") and name in known:
            return True
        if link.rstrip("/") in addresses:
            return True
    return any(anchor(name) in known for name in CVE.findall(paragraph))


def unsourced(text: str) -> list[str]:
    """The paragraphs with a number and an outside link or name, and without an entry."""
    return [
        paragraph.strip()
        for paragraph in paragraphs(text)
        if (figures(paragraph) or NOT_OURS.search(paragraph))
        and (
            any(link.startswith("http") for link in links(paragraph))
            or any(name.lower() in paragraph.lower() for name in NAMES)
            or NOT_OURS.search(re.sub(r"`[^`]*`|\]\([^)]*\)|[][]", "", paragraph))
        )
        and not has_its_entry(paragraph)
    ]


@pytest.mark.parametrize("name", entries())
def test_each_fact_says_what_it_does_not_say_and_where_it_comes_from(name: str) -> None:
    text = entries()[name]
    found = re.findall(r"^- ([A-Z][a-z ]+):", text, flags=re.MULTILINE)
    assert tuple(found) == FIELDS
    (source,) = re.findall(r"^- Source: (.*)$", text, flags=re.MULTILINE)
    assert re.search(r"\]\(https://", source), "a source is a link"
    assert re.search(r"20\d\d|repository|Security Model|packages|Top 10|Ten\]", source), "a source has a date"


@pytest.mark.parametrize("page", PAGES)
def test_every_outside_number_has_its_entry(page: str) -> None:
    assert unsourced((ROOT / page).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES)
def test_a_figure_that_links_to_its_entry_is_the_one_of_the_entry(page: str) -> None:
    """[44.9 percent](docs/facts.md#pickleball): what the link says is in the entry."""
    known = entries()
    for words, name in re.findall(r"\[([^\]]*)\]\([^)\s]*facts\.md#([^)\s]*)\)", (ROOT / page).read_text()):
        for figure in figures(words):
            assert re.search(rf"(?<![\d.,]){re.escape(figure.rstrip('.,'))}(?![\d])", known[name]), (
                f"{page}: {words}: {figure} is not in facts.md#{name}"
            )


@pytest.mark.parametrize("page", PAGES)
def test_every_cve_has_its_entry(page: str) -> None:
    if page == "demo-supply-chain/EXERCISES.md":
        pytest.skip("its exercises are about the CVEs of recorded scans, which are in recorded/")
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)
    assert {name for name in re.findall(r"CVE-\d+-\d+", text) if anchor(name) not in entries()} == set()


def test_every_fact_is_used_by_a_document() -> None:
    """By its anchor, by one of its sources, or by its CVE number."""
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    unused = [
        name
        for name, entry in entries().items()
        if f"facts.md#{name}" not in text
        and name.upper() not in text
        and not any(link in text for link in links(entry) if link.startswith("http"))
    ]
    assert unused == []


@pytest.mark.parametrize(
    "text",
    [
        "JFrog found about 100 models.",
        "A [report](https://example.com/report) says 7 percent.",
        "Of the popular models, 44 percent are pickles.",
        "Researchers found 1,574 malicious models.",
        "9 in 10, or 89% of organizations, had an incident.",
        "There were 705K models, and 91 of them attacked somebody.",
        "A hub with 4.47 million files had a problem.",
        "Out of 1,873,342, most have no licence.",
        "In the study of Anthropic it was 250 documents ([source](facts.md#no-such-fact)).",
    ],
)
def test_a_number_without_its_entry_would_be_seen(text: str) -> None:
    assert unsourced(text) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "Our scan took 60 seconds on 2 cores.",
        "JFrog wrote about it in 2024.",
        "Of 68 models that we trained, none was flagged wrongly, and of 4,000 images 60 are poisoned.",
        "The file has 1.94 GB, and 11 of 12 scanners read it.",
        "JFrog found [about 100 models](docs/facts.md#jfrog).",
        "[Python](https://www.python.org) 3.10 is enough.",
    ],
)
def test_other_numbers_are_left_alone(text: str) -> None:
    assert unsourced(text) == []
