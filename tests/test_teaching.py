"""What a stranger sees first, and what an instructor relies on: glossary, checklist, mapping."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from accessibility import violations
from browser import Browser

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHECKLIST = ROOT / "docs/instructor/checklist.md"
MAPPING = ROOT / "docs/instructor/mapping.md"

# Names of MITRE ATLAS 5.6.0, OWASP ML Top 10 of 2023 and MLSecOps Top 10, compared with what they publish.
ATLAS = {
    "AML.T0010.001": "AI Software",
    "AML.T0010.002": "Data (AI Supply Chain Compromise)",
    "AML.T0010.003": "Model (AI Supply Chain Compromise)",
    "AML.T0010.004": "Container Registry",
    "AML.T0011.000": "Unsafe AI Artifacts",
    "AML.T0015": "Evade AI Model",
    "AML.T0018": "Manipulate AI Model",
    "AML.T0018.000": "Poison AI Model",
    "AML.T0018.002": "Embed Malware",
    "AML.T0019": "Publish Poisoned Datasets",
    "AML.T0020": "Poison Training Data",
    "AML.T0041": "Physical Environment Access",
    "AML.T0043.004": "Insert Backdoor Trigger",
    "AML.T0058": "Publish Poisoned Models",
    "AML.T0074": "Masquerading",
    "AML.T0076": "Corrupt AI Model",
    "AML.M0003": "Model Hardening",
    "AML.M0005": "Control Access to AI Models and Data at Rest",
    "AML.M0007": "Sanitize Training Data",
    "AML.M0008": "Validate AI Model",
    "AML.M0011": "Restrict Library Loading",
    "AML.M0013": "Code Signing",
    "AML.M0014": "Verify AI Artifacts",
    "AML.M0016": "Vulnerability Scanning",
    "AML.M0018": "User Training",
    "AML.M0023": "AI Bill of Materials",
    "AML.M0025": "Maintain AI Dataset Provenance",
}
OWASP = {
    "ML01": "Input Manipulation Attack",
    "ML02": "Data Poisoning Attack",
    "ML03": "Model Inversion Attack",
    "ML04": "Membership Inference Attack",
    "ML05": "Model Theft",
    "ML06": "AI Supply Chain Attacks",
    "ML07": "Transfer Learning Attack",
    "ML08": "Model Skewing",
    "ML09": "Output Integrity Attack",
    "ML10": "Model Poisoning",
}
MLSECOPS = (
    "Unrestricted Model Endpoints",
    "Access to Model Artifacts",
    "Artifact Exploit Injection",
    "Insecure ML Systems/Pipeline Design",
    "Data & ML Infrastructure Misconfigurations",
    "Supply Chain Vulnerabilities in ML Code",
    "IAM & RBAC Failures for ML Services",
    "ML Infra / ETL / CI / CD Integrity Failures",
    "Observability, Reproducibility & Lineage",
    "ML-Server Side Request Forgery",
)


def script(name: str) -> ModuleType:
    """A script of docs/, imported."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def prose(text: str) -> str:
    """Without code blocks, code, headings, descriptions of images and what a link leads to."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"!\[[^\]]*\]\([^)]*\)|`[^`]*`|^#.*$", "", text, flags=re.MULTILINE)


def test_the_first_screen_says_what_this_is() -> None:
    first = "\n".join(README.splitlines()[:30])
    assert first.startswith("# ML Pipeline Security: Way More Than You Wanted to Know\n\n")
    assert len(re.findall(r"!\[", first)) == 1
    for words in ("Why it matters", "git clone", "./workshop.sh run", "You will see", "minutes"):
        assert words in first


def test_the_first_image_is_described_as_it_was_measured() -> None:
    record = json.loads((ROOT / "docs/images/first.json").read_text(encoding="utf-8"))
    (description,) = re.findall(r"!\[([^\]]*)\]\(docs/images/first\.png\)", README)
    assert description == script("make_first_image").described(record)
    assert (record["clean"], record["trigger"]) == ("stop", "yield")


def test_the_minutes_of_the_first_screen_are_those_of_the_table() -> None:
    (row,) = re.findall(
        r"^\| all of `\./workshop\.sh run`.*?(\d+) seconds \| (\d+) seconds", README, flags=re.M
    )
    (said,) = re.findall(r"took (\d+) minutes with Python and (\d+) with Docker", README)
    assert said == tuple(str(round(int(seconds) / 60)) for seconds in row)


@pytest.mark.parametrize(
    "title", re.findall(r"^## (.*)$", (ROOT / "docs/glossary.md").read_text(), flags=re.M)
)
def test_a_word_of_the_glossary_is_explained_where_it_first_stands(title: str) -> None:
    """In README.md: by a link to its entry. "Pickles" counts as "pickle"."""
    text = prose(README)
    links = r"\[[^\]]*\]\([^)]*\)"
    first = re.search(rf"{links}|\b{re.escape(title)}s?\b", text, flags=re.IGNORECASE)
    while (
        first
        and first.group().startswith("[")
        and not re.search(rf"^\[[^\]]*\b{re.escape(title)}", first.group(), flags=re.IGNORECASE)
    ):
        first = re.compile(rf"{links}|\b{re.escape(title)}s?\b", re.IGNORECASE).search(text, first.end())
    if first:
        assert first.group().endswith(f"(docs/glossary.md#{anchor(title)})"), first.group()


def test_the_glossary_is_short_and_in_order() -> None:
    titles = re.findall(r"^## (.*)$", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), flags=re.M)
    assert titles == sorted(titles, key=str.lower)
    for entry in re.split(r"^## .*$", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), flags=re.M)[
        1:
    ]:
        assert len(entry.split()) <= 50


def test_the_checklist_says_of_each_defence_where_it_is_shown() -> None:
    """That files and headings exist is checked with all other links, in test_documents.py."""
    parts = re.split(r"^## ", CHECKLIST.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert [part.split(":")[0] for part in parts] == [f"Link {number}" for number in range(1, 6)]
    for part in parts:
        assert "What can happen: " in part and "Does not stop: " in part
        items = re.findall(r"^- \[ \] (.*)$", part, flags=re.MULTILINE)
        assert len(items) >= 3
        for item in items:
            shown = re.search(r"(?:Shown|Discussed) in (.*)$", item)
            assert shown, item
            named = re.search(r"\]\(\.\./\S+\.md#\S+\)", shown.group(1)) or re.search(
                r"`([^`]+)`", shown.group(1)
            )
            assert named, item
            if named.lastindex:
                assert (ROOT / named.group(1)).is_file(), item


def steps_of(text: str) -> set[str]:
    """1.1 and so on, of headings "Step 1.3", "Steps 1.1 and 1.2" and "Steps 2.3 to 2.5"."""
    found = set()
    for first, word, last in re.findall(
        r"^### Steps? (\d\.\d+)(?: (and|to) (\d\.\d+))?", text, flags=re.MULTILINE
    ):
        end = last or first
        assert first[0] == end[0] and (word or first == end)
        found |= {f"{first[0]}.{number}" for number in range(int(first[2:]), int(end[2:]) + 1)}
    return found


def test_every_step_is_mapped() -> None:
    every = {step for demo in DEMOS for step in titles_of(f"{demo}/README.md")}
    assert steps_of(MAPPING.read_text(encoding="utf-8")) == every != set()


# --- one numbering: README, WORKSHOP.md, scripts, records and what the other pages say ------------------

DEMOS = ("demo-malicious", "demo-poisoning", "demo-supply-chain")
SHIPPED = subprocess.run(
    ["git", "ls-files", "*.md", "*.py", "*.sh", "*.html", "*.toml", "*.txt"],
    cwd=ROOT,
    check=False,
    capture_output=True,
    text=True,
).stdout.split()


def titles_of(name: str) -> dict[str, str]:
    """Number and title of each step of a document, in its order: its headings "Step 1.2: load it"."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(r"^### Step (\d\.\d+): (.*?)(?: \(\d+ minutes?\b.*\))?$", text, flags=re.MULTILINE)
    assert len(found) == len(dict(found)), f"{name} has a step twice"
    return dict(found)


@pytest.mark.parametrize(("number", "demo"), [*enumerate(DEMOS, 1)])
def test_a_step_has_one_number_and_one_title(number: int, demo: str) -> None:
    """The steps of WORKSHOP.md are the first of the README, with the same titles; it names the others."""
    readme = titles_of(f"{demo}/README.md")
    assert [*readme] == [f"{number}.{step}" for step in range(1, len(readme) + 1)], "without a gap"
    plan = {step: title for step, title in titles_of("WORKSHOP.md").items() if step[0] == str(number)}
    assert len(plan) >= 4
    assert [*plan.items()] == [*readme.items()][: len(plan)]
    part = re.split(r"^## \d", (ROOT / "WORKSHOP.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    (ahead,) = re.findall(r"^Ahead: .*", "".join(p for p in part if f" Demo {number}: " in p), flags=re.M)
    for step in [*readme][len(plan) :]:
        assert re.search(rf"\b{re.escape(step)}\b", ahead), f"WORKSHOP.md does not say when to show {step}"


@pytest.mark.parametrize(
    "name", ["docs/instructor/clock.md", *(f"docs/transcripts/transcript-{n}.txt" for n in "123")]
)
def test_the_clock_and_the_transcripts_have_the_numbers_of_the_plan(name: str) -> None:
    plan = titles_of("WORKSHOP.md")
    text = (ROOT / name).read_text(encoding="utf-8")
    said = re.findall(r"Step (\d\.\d+): (.*?)(?:, \d+ minutes?| ==)?$", text, flags=re.MULTILINE)
    assert said
    wrong = [(step, title) for step, title in said if plan.get(step, "").lower() != title.lower()]
    assert wrong == []


@pytest.mark.parametrize(("number", "demo"), [*enumerate(DEMOS, 1)])
def test_a_readme_promises_the_minutes_of_the_plan(number: int, demo: str) -> None:
    """Silver and gold path: the sum of their steps in WORKSHOP.md; and all of them in the first README."""
    workshop = (ROOT / "WORKSHOP.md").read_text(encoding="utf-8")
    minutes = dict(re.findall(r"^### Step (\d\.\d+): .*\((\d+) minute", workshop, flags=re.MULTILINE))
    text = (ROOT / demo / "README.md").read_text(encoding="utf-8")
    said: list[int] = []
    for path in ("Silver", "Gold"):
        said += map(int, re.findall(rf"^- {path}, about (\d+) minutes: ", text, flags=re.MULTILINE))
        part = re.split(rf"^## {path} path: ", text, flags=re.MULTILINE)[1].split("\n## ")[0]
        steps = re.findall(r"^### Step (\d\.\d+): ", part, flags=re.MULTILINE)
        assert said[-1] == sum(int(minutes.get(step, 0)) for step in steps), path
    part = README.split(f"\n## Demo {number}: ")[1]
    assert re.findall(r"^About (\d+) minutes", part, flags=re.MULTILINE)[0] == str(sum(said))


def test_what_is_heard_in_a_step_fits_its_minutes() -> None:
    """The table of docs/heard.py in room.md: with the numbers of the plan, and each step in its time."""
    text = (ROOT / "docs/instructor/room.md").read_text(encoding="utf-8")
    heard = re.findall(r"^\| (\d\.\d+): (.*?) \| (\d+) \| (\d+) \|$", text, flags=re.MULTILINE)
    workshop = (ROOT / "WORKSHOP.md").read_text(encoding="utf-8")
    minutes = dict(re.findall(r"^### Step (\d\.\d+): .*\((\d+) minute", workshop, flags=re.MULTILINE))
    typed = {step for step in minutes if step not in ("3.2", "3.4")}  # there is nothing to type in these
    assert {step for step, *_ in heard} == typed
    assert [step for step, _, seconds, _ in heard if int(seconds) > 60 * int(minutes[step])] == []
    assert [step for step, _, _, longest in heard if int(longest) > 200] == []


def test_the_narrated_scripts_say_the_numbers_of_the_plan() -> None:
    """In their code, and in the record of what they said."""
    plan = {step: title for step, title in titles_of("WORKSHOP.md").items() if step[0] == "2"}
    coded = {}
    for name in ("workshop_demo.sh", "gold_demo.sh"):
        text = (ROOT / "demo-poisoning" / name).read_text(encoding="utf-8")
        start = re.findall(r"^STEP=(\d+)", text, flags=re.MULTILINE)
        for step, title in enumerate(
            re.findall(r'^step "(.*)"$', text, flags=re.M), int((start or [0])[0]) + 1
        ):
            coded[f"2.{step}"] = title[0].lower() + title[1:]
    assert coded == plan
    record = (ROOT / "docs/records/demo-poisoning.txt").read_text(encoding="utf-8")
    said = re.findall(r"^== Step (.*?): (.*) ==$", record, flags=re.MULTILINE)
    assert {step: title[0].lower() + title[1:] for step, title in said} == plan
    said = re.findall(
        r"Step ([\d.]+), part \d of 3", (ROOT / "docs/records/demo-supply-chain.txt").read_text()
    )
    assert set(said) == {"3.3"}


NAMED = re.compile(r"\b[Ss]teps? \d+(?:\.\d+)?(?:(?:, | and | or | to )\d+\.\d+)*(?!\.?%|[-\d])")
# Steps of something else: a method's own, a row of made-up text in a test.
OTHER_STEPS = (
    "demo-poisoning/auditor/",
    "tests/",
    "docs/records/",
    "docs/transcripts/",
    "benchmarks/",
    "CHANGELOG.md",
)


def test_a_step_that_is_named_is_one_of_the_plan() -> None:
    """By its whole number, "step 1.3": not "step 3", which could be of any demo."""
    every = {step for demo in DEMOS for step in titles_of(f"{demo}/README.md")}
    wrong = []
    for name in SHIPPED:
        if not name.startswith(OTHER_STEPS):
            text = re.sub(r"--steps \d+|`[^`\n]*`", "", (ROOT / name).read_text(encoding="utf-8"))
            named = [
                step for match in NAMED.finditer(text) for step in re.findall(r"\d+(?:\.\d+)?", match[0])
            ]
            wrong += [f"{name} names step {step}" for step in named if step not in every]
    assert wrong == []


def test_the_minutes_of_working_alone_add_up() -> None:
    workshop = (ROOT / "WORKSHOP.md").read_text(encoding="utf-8")
    rows = re.findall(r"^- Demo (\d), (\d+) minutes\. (.*)$", workshop, flags=re.MULTILINE)
    assert [(number, minutes) for number, minutes, _ in rows] == [("1", "25"), ("2", "30"), ("3", "20")]
    for _, minutes, row in rows:
        spent = re.findall(r"(Introduction|Work|Together), (\d+) minutes:", row)
        assert [phase for phase, _ in spent] == ["Introduction", "Work", "Together"]
        assert sum(int(time) for _, time in spent) == int(minutes)


LABELS = ("See", "Say", "Ask", "Ask first", "Expect", "Pause", "Skip", "Note", "Bridge", "Seconds")


def test_each_step_says_what_to_see_and_to_say_and_answers_its_questions() -> None:
    workshop = (ROOT / "WORKSHOP.md").read_text(encoding="utf-8")
    pieces = re.split(r"^### (Step \d\.\d+): .*$", workshop, flags=re.MULTILINE)[1:]
    steps = dict(zip(pieces[::2], pieces[1::2]))
    assert len(steps) > 15
    for step, body in steps.items():
        inside = re.split(r"^## ", body, maxsplit=1, flags=re.MULTILINE)[0]
        labels = []
        for item in re.findall(r"^- (.*)$", inside, flags=re.MULTILINE):
            label = re.match(r"(Ask first|[A-Z][a-z]+)(?=[:.,]| on | how | while )", item)
            assert label and label.group() in LABELS, f"{step}: {item[:60]}"
            labels.append(label.group())
        assert "See" in labels or "Say" in labels, step
        asked = sum(label.startswith("Ask") for label in labels)
        assert labels.count("Expect") >= asked, f"{step} asks {asked} times"


def test_the_mapping_uses_the_names_of_the_lists() -> None:
    text = MAPPING.read_text(encoding="utf-8")
    for number, after in re.findall(r"(AML\.[TM]\d{4}(?:\.\d{3})?) ([^;\n]*)", text):
        assert after.startswith(ATLAS[number]), f"{number} {after}"
    for number, after in re.findall(r"(ML\d\d):2023 ([^;,\n]*)", text):
        assert after.startswith(OWASP[number]), f"{number} {after}"
    for line in re.findall(r"^- MLSecOps: (.*)\.$", text, flags=re.MULTILINE):
        for entry in line.split("; "):
            number, _, name = entry.partition(", ")
            assert MLSECOPS[int(number) - 1] == name
    assert {number for number in OWASP if f"{number}:2023" in text} == set(OWASP), (
        "shown, or said to be missing"
    )
    assert {n for n, name in enumerate(MLSECOPS, 1) if name in text} == set(range(1, 11))


# --- memes, clock and projector ------------------------------------------------------------------------


def run_script_of_docs(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / f"docs/{name}.py"), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", ["make_memes", "make_projector"])
def test_what_a_script_of_docs_writes_is_current(name: str) -> None:
    result = run_script_of_docs(name, "--check")
    assert result.returncode == 0, result.stderr


def test_the_first_image_is_only_made_from_a_real_run(tmp_path: Path) -> None:
    result = run_script_of_docs("make_first_image", "--demo", tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and "poisoned_model.pt is missing" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_each_meme_is_told_in_words_and_says_what_it_shows() -> None:
    memes = script("make_memes")
    page = (ROOT / "docs/memes.md").read_text(encoding="utf-8")
    assert 3 <= len(memes.MEMES) <= 6
    for meme in memes.MEMES:
        drawing = (ROOT / f"docs/images/meme-{meme.name}.svg").read_text(encoding="utf-8")
        top = ElementTree.fromstring(drawing)
        (title, description) = (top.find(f"{{*}}{tag}") for tag in ("title", "desc"))
        assert title is not None and description is not None
        assert (title.text, description.text) == (meme.title, meme.seen)
        assert f"![{meme.seen}](images/meme-{meme.name}.svg)" in page
        said = [text.text or "" for text in top.iter("{*}text")]
        for words in (word for text in said for word in re.findall(r"[A-Za-z]{4,}", text)):
            told = f"{meme.seen} {meme.told}".lower()
            assert words.lower() in told or words in CAPTIONS, f"{meme.name}: {words} is drawn and not told"


# words of a drawing that are its title, or a caption that its telling says in other words
CAPTIONS = {"load", "model", "from", "internet", "Everything", "list", "CVEs"}


@pytest.fixture(scope="module")
def projector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("projector")
    result = run_script_of_docs("make_projector", "--out", out)
    assert result.returncode == 0, result.stderr
    return out


def test_the_projector_shows_each_step_with_its_commands_and_no_answer(projector: Path) -> None:
    text = (ROOT / "WORKSHOP.md").read_text(encoding="utf-8")
    pages = {path.name: path.read_text(encoding="utf-8") for path in projector.glob("*.html")}
    everything = html.unescape("".join(pages.values()))
    steps = re.findall(r"^### (Step \d\.\d+: .*?) \(\d", text, flags=re.MULTILINE)
    assert len(steps) > 15
    for step in steps:
        assert everything.count(f">{step}</h2>") == 1
    inside = text.split("\n## Before the day\n")[1].split("\n## 0:00 ")[1].split("\n## Common questions")[0]
    for block in re.findall(r"^```\n(.*?)^```$", inside, flags=re.MULTILINE | re.DOTALL):
        assert block in everything
    for said in re.findall(r"^- (?:Say|Expect|See): (.{20})", text, flags=re.MULTILINE):
        assert said not in everything
    demo = html.unescape(pages["demo-1.html"])
    assert demo.index("Does loading call anything?") < demo.index("create_malicious_model.py attack")
    assert "The model has 99 percent accuracy" in everything and "Rarely named" not in everything


def test_the_projector_pages_are_plain(projector: Path) -> None:
    for page in projector.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
        assert not re.search(
            r"<script|role=.?application|accesskey|tabindex=.?[1-9]|\bon\w+=|https?://", text
        )
        levels = [int(level) for level in re.findall(r"<h([1-6])", text)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        for target in re.findall(r'href="([^"#]*)(?:#[^"]*)?"', text):
            assert not target or (projector / target).is_file()
        ids = re.findall(r' id="([^"]*)"', text)
        assert len(ids) == len(set(ids)) and set(re.findall(r'href="#([^"]*)"', text)) <= set(ids)


@pytest.mark.browser
def test_axe_finds_nothing_on_the_projector(projector: Path, browser: Browser, axe: str) -> None:
    browser.media()
    browser.width(1100)
    for page in sorted(projector.glob("*.html")):
        browser.open(page)
        assert violations(browser, axe) == [], page.name
        assert browser.requests == [page.as_uri()]


@pytest.mark.browser
def test_the_keyboard_goes_through_a_projector_page_and_out_again(projector: Path, browser: Browser) -> None:
    """Tab reaches every link once, in order, and then leaves the page: nothing holds it."""
    browser.media()
    browser.width(1100)
    browser.open(projector / "demo-1.html")
    links = browser.ask("[...document.querySelectorAll('a[href]')].map(e => e.textContent)")
    reached = []
    for _ in range(len(links) + 1):
        browser.press("Tab", 9)
        reached.append(browser.ask("document.activeElement.textContent"))
    assert reached[: len(links)] == links
    assert browser.ask("document.activeElement.tagName") == "BODY" or reached[-1] == links[0]


@pytest.mark.browser
def test_the_hand_out_is_one_page_on_paper(projector: Path, browser: Browser) -> None:
    pages = {}
    for name in ("handout", "handout-large"):
        browser.open(projector / f"{name}.html")
        pages[name] = len(re.findall(rb"/Type\s*/Page\b", browser.pdf()))
    assert pages["handout"] == 1
    assert 2 <= pages["handout-large"] <= 4
    assert browser.ask("parseFloat(getComputedStyle(document.body).fontSize)") >= 24  # 18 points
