"""The simulation behind "a textbook threshold is useless": models without any backdoor, drawn by chance."""

from __future__ import annotations

import re

import pytest
import torch

from poisoning_tools import FOLDER
from scanner.statistics import among_pairs

MODELS, PAIRS = 20_000, 90
SAID = {
    "docs/poisoning/scan.md": r"above 2 in (\d+) percent of the cases, above 3\.5 in (\d+) percent",
    "WORKSHOP.md": r"passes 2 in (\d+) percent of the cases, and 3\.5 in (\d+) percent",
}


@pytest.fixture(scope="module")
def largest() -> torch.Tensor:
    """The largest anomaly index of each of 20,000 models with 90 independent, log-normal norms."""
    norms = torch.randn(MODELS, PAIRS, generator=torch.Generator().manual_seed(0)).exp()
    return torch.tensor([max(among_pairs(one)) for one in norms.tolist()])


@pytest.mark.parametrize("document", SAID)
def test_the_documents_say_what_the_simulation_gives(document: str, largest: torch.Tensor) -> None:
    found = re.findall(SAID[document], (FOLDER.parent / document).read_text(encoding="utf-8"))
    shares = [f"{100 * (largest > threshold).float().mean():.0f}" for threshold in (2, 3.5)]
    assert [tuple(shares)] == found
