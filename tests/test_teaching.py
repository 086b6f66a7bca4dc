"""What a stranger sees first, and what an instructor relies on: glossary, checklist, mapping."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

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
    (native, docker) = re.findall(
        r"^\| all of `\./workshop\.sh run`.*?(\d+) seconds \| (\d+)", README, flags=re.M
    )[0]
    said = re.findall(r"took (\d+) minutes with Python and (\d+) with Docker", README)
    assert said == [(str(round(int(native) / 60)), str(round(int(docker) / 60)))]


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
        r"^### Steps? (\d\.\d)(?: (and|to) (\d\.\d))?", text, flags=re.MULTILINE
    ):
        end = last or first
        assert first[0] == end[0] and (word or first == end)
        found |= {f"{first[0]}.{number}" for number in range(int(first[2]), int(end[2]) + 1)}
    return found


def test_every_step_of_the_workshop_is_mapped() -> None:
    workshop = (ROOT / "WORKSHOP.md").read_text(encoding="utf-8")
    assert steps_of(MAPPING.read_text(encoding="utf-8")) == steps_of(workshop) != set()


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
