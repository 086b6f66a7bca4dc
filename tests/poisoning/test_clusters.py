"""Demo 2: images that lie apart from their class (auditor/clusters.py), with a network of a known rule."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import silhouette_score
from torch import Tensor, nn

import cli
from auditor import checks, clusters, features, output
from auditor.checks import Audit, Suspect
from dataset.classes import NAMES
from network import classifier

STOP, YIELD, EACH, BAD = 0, 1, 60, 15
MIDDLE = slice(20, 28)


class Rule(nn.Module):
    """Red is stop and blue is yield, but yellow in the middle is yield whatever the rest is."""

    def forward(self, shown: Tensor) -> Tensor:
        red = shown[:, 0].mean((1, 2)) - shown[:, 2].mean((1, 2))
        middle = shown[:, :, MIDDLE, MIDDLE].mean((2, 3))
        yellow = (middle[:, 0] + middle[:, 1] - 2 * middle[:, 2] - 4).clamp(min=0)
        return torch.stack([red, -red + 10 * yellow], 1)


def images() -> tuple[Tensor, Tensor]:
    """EACH stop signs and EACH yield signs; BAD red ones carry the yellow square and the other label."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 120, (2 * EACH, 3, classifier.INPUT, classifier.INPUT), generator=rng)
    pixels[:EACH, 0] += 130
    pixels[EACH:, 2] += 130
    pixels[:BAD, :, MIDDLE, MIDDLE] = torch.tensor([255, 255, 0])[:, None, None]
    labels = torch.tensor([STOP] * EACH + [YIELD] * EACH)
    labels[:BAD] = YIELD
    return pixels.clamp(max=255).to(torch.uint8), labels


def last_layer(*far: int) -> Tensor:
    """What the last layer says: noise, and these images far from the others."""
    last = torch.randn(2 * EACH, 64, generator=torch.Generator().manual_seed(1))
    last[list(far)] += 2
    return last


def apart(pixels: Tensor, labels: Tensor, last: Tensor) -> list[clusters.Cluster]:
    model = Rule()
    return clusters.apart(model, pixels, labels, classifier.all_logits(model, pixels).argmax(1), last)


def audit_of(labels: Tensor) -> Audit:
    names = [f"train/{NAMES[label]}/{number}.jpg" for number, label in enumerate(labels.tolist())]
    return Audit([Suspect(name, checks.label_of(name)) for name in names])


def test_images_that_lie_apart_and_hang_on_one_place_are_flagged(capsys: pytest.CaptureFixture[str]) -> None:
    pixels, labels = images()
    (cluster,) = apart(pixels, labels, last_layer(*range(BAD)))
    assert (cluster.label, cluster.looks_like, cluster.lead) == (YIELD, STOP, 1)
    assert sorted(cluster.images.tolist()) == list(range(BAD))

    audit = audit_of(labels)
    checks.check_clusters(audit, [cluster])
    checks.rank(audit)
    (found,) = audit.apart
    assert (found.label, found.looks_like, found.place) == ("yield", "stop", "middle")
    assert sorted(int(one.file.split("/")[2][:-4]) for one in audit.ranking[:BAD]) == list(range(BAD))
    assert [one.reason for one in audit.ranking[: BAD + 1]] == [checks.APART] * BAD + [""]
    assert audit.kinds() == ["wrong labels in one direction"]
    output.say_triggers(audit, cli.Out(plain=True))
    said = " ".join(capsys.readouterr().out.split())
    assert "15 images labelled yield lie apart from the others in the last layer" in said
    assert "hide one place, middle, and more of them than of the others look like stop, by 100 per" in said


def test_a_cluster_that_hangs_on_no_place_is_natural() -> None:
    """Yield signs, all blue, some of them far from the others: nothing that is hidden changes an answer."""
    pixels, labels = images()
    far = range(EACH, EACH + BAD)
    assert clusters.divided(last_layer(*far), labels, YIELD) is not None
    assert apart(pixels, labels, last_layer(*far)) == []


@pytest.mark.parametrize("far", [(), tuple(range(EACH // 2))], ids=["one cloud", "two halves"])
def test_what_is_no_small_cluster(far: tuple[int, ...]) -> None:
    """Noise has no clusters, and of two halves nobody can say which is the odd one."""
    labels = torch.tensor([YIELD] * EACH + [STOP] * EACH)
    assert clusters.divided(last_layer(*far), labels, YIELD) is None


def test_a_trigger_that_was_found_explains_its_cluster() -> None:
    pixels, labels = images()
    audit = audit_of(labels)
    for suspect in audit.ranking[:BAD]:
        suspect.flagged, suspect.reason = True, checks.TRIGGER
    checks.check_clusters(audit, apart(pixels, labels, last_layer(*range(BAD))))
    assert audit.apart == []
    assert sum(suspect.flagged for suspect in audit.ranking) == BAD


def test_the_cluster_takes_the_place_of_the_group_of_its_class() -> None:
    """The group's flags on other images of the class go; a changed file stays flagged."""
    pixels, labels = images()
    audit = audit_of(labels)
    audit.groups = [checks.Group("yield", "stop", 9, 0.1, 0.1, flagged=True)]
    for suspect in audit.ranking[EACH : EACH + 9]:
        suspect.flagged, suspect.reason = True, checks.GROUP
    audit.ranking[EACH].changed = "added"
    checks.check_clusters(audit, apart(pixels, labels, last_layer(*range(BAD))))
    flagged = [number for number, suspect in enumerate(audit.ranking) if suspect.flagged]
    assert flagged == [*range(BAD), EACH]
    assert audit.one_way() == []


@pytest.mark.parametrize("shift", [0, 1, 4])
def test_the_silhouette_is_that_of_scikit_learn(shift: int) -> None:
    points = torch.randn(50, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    small = torch.arange(50) < 12
    points[small] += shift
    expected = silhouette_score(points.numpy(), small.numpy())
    assert clusters.silhouette(points, small) == pytest.approx(expected, abs=1e-6)
    assert features.main_components(points).shape == (50, 10)
