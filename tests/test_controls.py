"""The table of demo 1's controls: what CONTROLS.md shows is what controls.py measures today."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch

import controls
from weights import writing

Table = dict[str, dict[str, str]]


def read_table(text: str) -> Table:
    """The table of a Markdown text: control -> file -> cell."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    titles, _, *rows = lines
    return {row[0]: dict(zip(titles[1:], row[1:])) for row in rows}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    """All cells, measured now. A clean model stands in for the backdoored one: none looks at the numbers."""
    folder = tmp_path_factory.mktemp("controls")
    stand_in = folder / "stand_in.pt"
    torch.save(controls.shapes.network().state_dict(), stand_in)
    company = controls.Company(folder)
    cases = controls.make_cases(company, stand_in)
    yield read_table(controls.markdown([controls.measure(case, company) for case in cases]))
    for case in cases:  # no payload ran but where the table needs it
        assert case.marker.exists() == (controls.CODE in case.wrong)


def test_the_document_shows_what_is_measured(measured: Table, root: Path) -> None:
    shown = read_table((root / "demo-malicious/CONTROLS.md").read_text(encoding="utf-8"))
    assert shown.keys() == measured.keys()
    for control, cells in measured.items():
        for file, cell in cells.items():
            if cell != "not installed":
                assert shown[control][file] == cell, (control, file)
        assert shown[control].keys() == cells.keys()


def test_what_the_table_teaches(measured: Table) -> None:
    """The sentences of the workshop, as figures."""
    clean, *malicious, signed, changed, backdoored, stolen, outside = list(measured["policy"])
    assert len(malicious) == 3
    assert [measured["no control at all"][file] for file in (*malicious, signed)] == ["code RAN"] * 4
    # our own verdict and the conversion catch all code, and raise no alarm for the clean model
    for control in ("scan: our verdict", "conversion"):
        assert [measured[control][file] for file in (*malicious, signed)] == ["caught"] * 4
        assert measured[control][clean] == "passed"
    assert measured["signature"][signed] == "not its job"
    assert measured["signature"][changed] == "caught"
    assert measured["policy"][signed] == "caught"
    # what its makers say of a model stops the backdoor, as long as they know it and nobody can forge them
    assert {measured["policy"][file] for file in (backdoored, stolen, outside)} == {"missed"}
    chain = measured[controls.EVIDENCE]
    assert [chain[file] for file in (backdoored, stolen, outside)] == ["caught", "missed", "missed"]
    assert [chain[file] for file in (clean, changed, signed)] == ["passed", "caught", "caught"]
    assert {measured[control][backdoored] for control in ("conversion", "signature")} == {"not its job"}


@pytest.mark.parametrize(
    ("wrong", "stopped", "cell"),
    [
        ({"code"}, True, "caught"),
        ({"code"}, False, "missed"),
        ({"code"}, "gives up", "gives up"),
        ({"backdoor"}, False, "not its job"),
        ({"backdoor"}, "gives up", "not its job"),
        ({"backdoor"}, True, "FALSE ALARM"),
        (set(), True, "FALSE ALARM"),
        (set(), False, "passed"),
    ],
)
def test_a_cell_compares_the_trouble_with_the_job(wrong: set[str], stopped: bool | str, cell: str) -> None:
    assert controls.rate_control(frozenset(wrong), {"code"}, stopped) == cell


def test_sentences_are_only_said_where_the_table_shows_them() -> None:
    row = {"file": "a file", "scan: one": "missed", "conversion": "caught", "signature": "not its job"}
    caught = {"policy": "caught", controls.EVIDENCE: "caught"}
    said = " ".join(controls.lessons([row | caught]))
    assert "Scanners that missed code: one. That could not read a file: none." in said
    assert "The signature holds for this one: a file." in said
    assert "Nothing stops" not in said
    said = " ".join(
        controls.lessons([row | caught | {"policy": "missed", "signature": "caught", "scan: one": "caught"}])
    )
    assert "Scanners that missed code: none." in said
    assert "Only the chain of evidence stops this one: a file." in said
    assert "Nothing stops" not in said
    assert "The signature holds" not in said
    missed = dict.fromkeys(caught, "missed")
    assert "Nothing stops this one: a file." in " ".join(controls.lessons([row | missed]))


def test_a_malicious_file_is_not_taken_for_the_backdoored_one(
    run_main: Callable[..., CompletedProcess[str]], assert_refused: Callable[..., None], tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(controls.malicious_bytes("system", tmp_path / "marker"))
    assert_refused(run_main(controls, "--backdoored", path), path, "refused and not run")
    document = tmp_path / "document.md"
    document.write_text("no place for a table")
    assert_refused(run_main(controls, "--write", document), document, "no place")
    assert document.read_text() == "no place for a table"
    assert sorted(tmp_path.iterdir()) == [document, path]


def test_a_backdoored_model_is_found_in_demo_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "POISONED", tmp_path)
    assert controls.find_backdoored(None) is None
    model = tmp_path / "poisoned_model.safetensors"
    writing.save_safetensors({"a": torch.zeros(1)}, model)
    assert controls.find_backdoored(None) == model
    assert controls.find_backdoored(model) == model
