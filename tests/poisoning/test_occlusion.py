"""Demo 2: the search for spots that decide (auditor/occlusion.py), with networks whose rule is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from auditor import checks, findings, occlusion
from auditor.findings import Audit, Suspect
from dataset.classes import NAMES
from network import classifier

STOP, YIELD, EACH, BAD = 0, 1, 60, 9
CORNER = slice(36, 44)


class Rule(nn.Module):
    """Red is stop and blue is yield, but yellow in the bottom-right corner is yield whatever the rest is."""

    def forward(self, shown: Tensor) -> Tensor:
        red = shown[:, 0].mean((1, 2)) - shown[:, 2].mean((1, 2))
        corner = shown[:, :, CORNER, CORNER].mean((2, 3))
        yellow = (corner[:, 0] + corner[:, 1] - 2 * corner[:, 2] - 4).clamp(min=0)
        return torch.stack([red, -red + 10 * yellow], 1)


class Bar(nn.Module):
    """A class that is told by its middle alone: there a bar is stop, else it is yield."""

    def forward(self, shown: Tensor) -> Tensor:
        middle = shown[:, :, 20:28, 20:28].mean((1, 2, 3))
        return torch.stack([middle, -middle], 1)


def signs(colour: tuple[int, int, int], seed: int) -> Tensor:
    """EACH images of one colour on noise, uint8 (EACH, 3, INPUT, INPUT)."""
    rng = torch.Generator().manual_seed(seed)
    size = classifier.INPUT
    pixels = torch.randint(0, 120, (EACH, 3, size, size), generator=rng)
    return (pixels + torch.tensor(colour)[:, None, None]).clamp(0, 255).to(torch.uint8)


def search(
    model: nn.Module, pixels: Tensor, labels: Tensor
) -> list[tuple[occlusion.Spot, occlusion.Members]]:
    answers = classifier.all_logits(model, pixels).argmax(1)
    found = occlusion.search(model, pixels, labels, answers, torch.zeros(len(labels)))
    return [one for spots in found for one in spots]


def poisoned() -> tuple[Tensor, Tensor]:
    """Red and blue images; BAD red ones carry the yellow square and the other label."""
    pixels = torch.cat([signs((130, 0, 0), 0), signs((0, 0, 130), 1)])
    labels = torch.tensor([STOP] * EACH + [YIELD] * EACH)
    pixels[:BAD, :, CORNER, CORNER] = torch.tensor([255, 255, 0], dtype=torch.uint8)[:, None, None]
    labels[:BAD] = YIELD
    return pixels, labels


def test_a_trigger_is_found_with_its_place_and_its_images() -> None:
    pixels, labels = poisoned()
    ((spot, members),) = search(Rule(), pixels, labels)
    assert (spot.label, spot.looks_like) == (YIELD, STOP)
    assert spot.top <= CORNER.start and spot.top + occlusion.SMALL >= CORNER.stop
    assert spot.left <= CORNER.start and spot.left + occlusion.SMALL >= CORNER.stop
    assert (spot.works, spot.elsewhere) == (1, 0)
    assert members.images[members.both].tolist() == list(range(BAD))
    assert bool((members.strength[members.both] > 0).all())

    names = [f"train/{NAMES[label]}/{number}.jpg" for number, label in enumerate(labels.tolist())]
    audit = Audit([Suspect(name, findings.label_of(name)) for name in names])
    checks.check_triggers(audit, [(spot, members)])
    checks.rank(audit)
    (trigger,) = audit.triggers
    assert (trigger.label, trigger.looks_like, trigger.place) == ("yield", "stop", "bottom-right")
    assert trigger.images == BAD
    assert sorted(int(one.file.split("/")[2][:-4]) for one in audit.ranking[:BAD]) == list(range(BAD))
    assert [one.reason for one in audit.ranking[: BAD + 1]] == [findings.TRIGGER] * BAD + [""]
    assert audit.kinds() == ["backdoor"]


def test_clean_images_have_no_trigger() -> None:
    pixels = torch.cat([signs((130, 0, 0), 2), signs((0, 0, 130), 3)])
    assert search(Rule(), pixels, torch.tensor([STOP] * EACH + [YIELD] * EACH)) == []


def test_wrong_labels_are_no_trigger() -> None:
    """Red images labelled yield, without a square: no spot of theirs explains it."""
    pixels, labels = poisoned()
    pixels[:BAD] = signs((130, 0, 0), 4)[:BAD]
    assert search(Rule(), pixels, labels) == []


def test_what_a_class_is_known_by_is_no_trigger() -> None:
    """Hidden, the bar changes every answer, and pasted it changes others: the whole class has it."""
    pixels = torch.cat([signs((0, 0, 0), 5), signs((0, 0, 0), 6)])
    pixels[:EACH, :, 20:28, 20:28] = 255
    pixels[EACH:, :, 20:28, 20:28] = 0
    assert search(Bar(), pixels, torch.tensor([STOP] * EACH + [YIELD] * EACH)) == []


def test_a_class_that_the_model_does_not_know_is_passed_over() -> None:
    pixels, labels = poisoned()
    assert search(Bar(), pixels, torch.full_like(labels, 2)) == []


@pytest.mark.parametrize("count", [1, 3])
def test_hide_and_paste_leave_their_input_alone(count: int) -> None:
    pixels, other = signs((130, 0, 0), 7)[:count], signs((0, 0, 130), 8)[:2]
    before = pixels.clone(), other.clone()
    hidden = occlusion.hide(pixels, 8, 16, 24)
    made = occlusion.paste(pixels, other, 4, 12)
    assert torch.equal(pixels, before[0]) and torch.equal(other, before[1])
    assert hidden[:, :, 8:32, 16:40].flatten(2).float().std(2).max() == 0
    hidden[:, :, 8:32, 16:40] = pixels[:, :, 8:32, 16:40]
    assert torch.equal(hidden, pixels)
    assert made.shape == (2 * count, 3, classifier.INPUT, classifier.INPUT)
    assert torch.equal(made[2 * count - 1, :, 4:20, 12:28], pixels[-1, :, 4:20, 12:28])
    assert torch.equal(made[0, :, 20:], other[0, :, 20:])
