"""Documents that cannot lie: what they show is what the records say, and the records what the commands say.

docs/samples.py types the commands. Here: that nothing is left out, and the commands of demo 3 and of all.
test_malicious.py types those of demo 1, and poisoning/test_documented.py those of demo 2, with its models.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "docs"))
import samples
from documented import blocks, differences, figures, records, shell, typed

ROOT = Path(__file__).resolve().parent.parent
NOTES = {
    "not run": blocks.REASONS,
    "no record": None,
    "ends with": None,
    "first": None,
    "typed with": None,
    "in tests also": None,
    "shows": None,
    "from": None,
    "to": None,
    "only": None,
    "without": None,
    "not from a run": None,
    "figures": None,
}
DOCUMENTS = blocks.documents()
# words of a README at most, with commands and samples of output
WORDS = {"demo-malicious": 2620, "demo-poisoning": 2500, "demo-supply-chain": 2500}


def pages() -> list[str]:
    """Every page of the repository, but what a demo or the site has made."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_every_fenced_command_is_typed_by_a_test_or_says_why_not() -> None:
    """Every page with commands is typed, or has a test of its own; every sample has a source."""
    for page in pages():
        text = (ROOT / page).read_text(encoding="utf-8")
        assert not re.search(r"^ *~~~|^ +```", text, re.MULTILINE), f"{page}: fences begin a line, with ```"
        found = blocks.blocks_of(page)
        assert len(found) * 2 == len(re.findall(r"^```", text, re.MULTILINE)), page
        if page in blocks.ELSEWHERE:
            test = (ROOT / blocks.ELSEWHERE[page]).read_text(encoding="utf-8")
            assert "EXERCISES" in test or "solutions" in test or "kyverno" in test, page
        elif page not in DOCUMENTS:
            assert all("not from a run" in block.notes for block in found), f"{page}: add it to FOLDERS"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_comments_before_a_block_are_known(document: str) -> None:
    for block in blocks.blocks_of(document):
        assert set(block.notes) <= set(NOTES), block
        if "not run" in block.notes:
            reason, _, words = block.notes["not run"].partition(" (")
            assert reason in blocks.REASONS, block
            assert any(words.rstrip(")") in command for command in block.commands), block
        assert len(block.codes()) == len(block.commands) or block.is_sample, block


def test_what_is_not_run_is_listed() -> None:
    """Not silently skipped: the list is printed, and each reason names what covers it."""
    listed = blocks.not_run()
    reasons = Counter(line.split(":")[0] for line in listed)
    print("\n".join(listed))
    assert set(reasons) == set(blocks.REASONS)
    for reason, why in blocks.REASONS.items():
        for path in re.findall(r"tests/[\w/*]+\.py", why):
            assert list(ROOT.glob(path)), f"{reason}: {path}"


@pytest.mark.parametrize("document", samples.pages())
def test_samples_and_figures_are_those_of_the_records(document: str) -> None:
    assert samples.check([document]) == []


@pytest.mark.parametrize("demo", WORDS)
def test_a_tutorial_is_short(demo: str) -> None:
    text = re.sub(r"<!-- .*? -->", "", (ROOT / demo / "README.md").read_text(encoding="utf-8"))
    words = len(text.split())
    assert words <= WORDS[demo], f"{demo}/README.md has {words} words: move what is not a step to docs/"


@pytest.mark.parametrize(
    ("recorded", "said", "same"),
    [
        ("Trained in 16.0 seconds.", "Trained in 99.5 seconds.", True),
        ("Trained in 16.0 seconds.", "Learned in 16.0 seconds.", False),
        (
            "x: clean_acc: 0.99, attack_success_rate: 1.00",
            "x: clean_acc: 0.97, attack_success_rate: 0.99",
            True,
        ),
        (
            "x: clean_acc: 0.99, attack_success_rate: 1.00",
            "x: clean_acc: 0.60, attack_success_rate: 1.00",
            False,
        ),
        ("on 10 images (torch.bfloat16)", "on 10 images (torch.float32)", True),
        ("on 10 images (torch.bfloat16)", "on 10 images (torch.float16)", False),
        ("Epoch 2/6 — clean_acc: 0.50", "Epoch 2/6 — clean_acc: 0.90", True),
        ("Epoch 6/6 — clean_acc: 0.50", "Epoch 6/6 — clean_acc: 0.90", False),
        ("all 4 names that it imports", "all 5 names that it imports", False),
        ("Its SHA-256 is " + "ab" * 32, "Its SHA-256 is " + "0c" * 32, True),
        ("No code found: 2. Not safe: 3.", "No code found: 3. Not safe: 2.", False),
        ("one\ntwo", "one", False),
        ("one", "one\ntwo", False),
    ],
)
def test_only_what_may_differ_differs(recorded: str, said: str, same: bool) -> None:
    assert (differences.differences(recorded, said) == []) is same


@pytest.mark.parametrize(
    ("document", "old", "new"),
    [
        ("demo-malicious/README.md", "Wrote malicious_model.pt (", "Wrote malicious_model.pt (1"),
        ("demo-malicious/README.md", "python sign_model.py keygen", "python sign_model.py make-keys"),
        ("demo-poisoning/README.md", "20x20 yellow square", "21x21 yellow square"),
        (
            "README.md",
            "Loaded safe_model.safetensors: 122 tensors",
            "Loaded safe_model.safetensors: 123 tensors",
        ),
    ],
)
def test_a_broken_document_is_noticed(tmp_path: Path, document: str, old: str, new: str) -> None:
    """One letter of a sample, one figure or one command changed: there is a sentence that names it."""
    files = {one.source for one in figures.SENTENCES if (ROOT / one.source).is_file()}
    for name in (document, *files, *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/records/*.txt"))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    assert samples.check([document], tmp_path) == []
    text = (ROOT / document).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / document).write_text(text.replace(old, new, 1), encoding="utf-8")
    (sentence, *_) = samples.check([document], tmp_path)
    assert sentence.startswith(document)


def test_an_update_that_is_interrupted_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "record_path", lambda folder: tmp_path / f"{folder}.txt")
    old = {"a": records.Said("old a", 0), "b": records.Said("old b", 0), "c": records.Said("old c", 0)}
    now = {"a": records.Said("new a", 0), "b": records.Said("broken", 2), "d": records.Said("here only", 0)}
    samples.write_record("x", old, typed.Typing(now, failed={"b"}, unrecorded={"d"}))
    text = (tmp_path / "x.txt").read_text(encoding="utf-8")
    assert re.findall(r"^(?:new|old|broken|here).*", text, re.M) == ["new a", "old b", "old c"]


def test_a_figure_in_prose_that_no_record_has_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "made.md").write_text("| 23 of 76 |")
    (tmp_path / "page.md").write_text(
        "<!-- figures: made.md -->\nIn step 3 it calls 23 of 76 clean.\n\n"
        "And 24 of 76. <!-- figures: made.md -->\n"
    )
    (sentence,) = samples.figures_without_record("page.md", {}, tmp_path)
    assert sentence.startswith("page.md: 24 is not in made.md")


@pytest.mark.parametrize(
    "one", figures.SENTENCES, ids=lambda one: f"{one.document}: {one.words.strip()[:50]}"
)
def test_each_figure_of_a_sentence_is_that_of_its_record(one: figures.Sentence) -> None:
    """Another one in its place, in the document or in the record, is noticed, and put right by --splice."""
    text = (ROOT / one.document).read_text(encoding="utf-8")
    kept = {folder: records.read_record(folder) for folder in blocks.FOLDERS}
    assert figures.spliced(one.document, text, kept, ROOT) == (text, [])
    (there,) = one.pattern.finditer(text)
    slots = re.compile(
        "".join(f"({p})" if p in (figures.FIGURE, figures.WORDS) else p for p in parts_of(one))
    )
    match = slots.fullmatch(there.group())
    assert match and match.groups()
    for number in range(1, len(match.groups()) + 1):
        old = match[number]
        new = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), old)
        start, end = (there.start() + place for place in match.span(number))
        changed, wrong = figures.spliced(one.document, text[:start] + new + text[end:], kept, ROOT)
        assert (changed, wrong) == (text, []), f"{old} as {new}"


def parts_of(one: figures.Sentence) -> list[str]:
    """The pattern of a sentence in pieces: its words, and what a figure looks like."""
    return re.split(f"({re.escape(figures.FIGURE)}|{re.escape(figures.WORDS)})", one.pattern.pattern)


def test_a_record_without_the_figure_is_noticed() -> None:
    one = next(one for one in figures.SENTENCES if one.source == figures.MONITOR)
    text = (ROOT / one.document).read_text(encoding="utf-8")
    kept = {folder: dict(records.read_record(folder)) for folder in blocks.FOLDERS}
    for said in kept["demo-poisoning"].values():
        said.output = said.output.replace("False alarms", "Other alarms")
    others, wrong = figures.spliced(one.document, text, kept, ROOT)
    assert others == text and len(wrong) == 1 and "no longer has the figures" in wrong[0]


def test_the_documents_say_where_their_figures_come_from() -> None:
    marked = [name for name in DOCUMENTS if "figures: " in (ROOT / name).read_text(encoding="utf-8")]
    assert {"WORKSHOP.md", "docs/poisoning/scan.md", "docs/poisoning/data.md"} <= set(marked)


def test_a_command_that_fails_or_says_something_else_is_noticed(tmp_path: Path) -> None:
    """The other half: a document that is what its record says, and a program that is not."""
    (tmp_path / "said.txt").write_text("as recorded\n")
    bash = shell.Shell(tmp_path, tmp_path)
    try:
        assert bash.type("cat said.txt") == records.Said("as recorded", 0)
        assert bash.type("cd .. && false") == records.Said("", 1)
        assert bash.type(f"cat {tmp_path.name}/said.txt; exit_code() (exit 3); exit_code").code == 3
        with pytest.raises(TimeoutError, match="sleep"):
            bash.type("sleep 60", timeout=0.2)
    finally:
        bash.close()
    typing = typed.Typing({"x": records.Said("something else", 0)})
    (first, *_) = differences.compare(typing, {"x": records.Said("as recorded", 0)}, "demo-malicious")
    assert "says something else than its record" in first


def type_all(folder: str, tmp_path: Path) -> typed.Typing:
    """Type everything that the documents type there, on a fresh copy."""
    return typed.type_all(folder, shell.fresh_copy(tmp_path.resolve()), {}, in_tests=True)


@pytest.mark.parametrize("folder", ["demo-supply-chain", "."])
def test_the_commands_say_what_the_records_say(folder: str, tmp_path: Path) -> None:
    assert differences.compare(type_all(folder, tmp_path), records.read_record(folder), folder) == []
