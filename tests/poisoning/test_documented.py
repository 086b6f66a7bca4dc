"""The commands of demo 2's documents, typed where its models are trained: they say what the records say."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from poisoning_tools import FOLDER, TYPED, WHOLE, leftovers

sys.path.insert(0, str(FOLDER.parent / "docs"))
differences, records, shell, typed = (
    importlib.import_module(f"documented.{name}") for name in ("differences", "records", "shell", "typed")
)


@pytest.mark.slow
@pytest.mark.skipif(
    not WHOLE,
    reason="ten minutes: the weekly run sets WORKSHOP_WHOLE",
)
def test_the_commands_say_what_the_records_say(prepared: Path) -> None:
    """In the folder that prepare.sh has made for all tests; demo 3's keys come from beside it."""
    done = {"./prepare.sh": records.Said((prepared / "prepared.txt").read_text(encoding="utf-8"), 0)}
    shell.fresh_copy(prepared.parent)
    typing = typed.type_all("demo-poisoning", prepared.parent, done, in_tests=True)
    TYPED.update({command: said.output for command, said in typing.record.items()})
    record = records.read_record("demo-poisoning")
    assert differences.compare(typing, record, "demo-poisoning") == []
    assert leftovers(prepared) == []
