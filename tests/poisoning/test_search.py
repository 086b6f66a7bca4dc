"""Demo 2: the search for triggers, and the statistics of their sizes."""

from __future__ import annotations

import ast
import functools
import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import cli
from network import classifier, resnet, workers
from poisoning_tools import FOLDER, hand_made, unnormalise
from scanner import describe, neural_cleanse, search, starts, statistics, verdict
from scanner.neural_cleanse import Search

INPUT = classifier.INPUT


def test_the_scanner_never_sees_the_attack() -> None:
    """None of its files imports trigger.py or poison_data.py, directly or through another file."""
    known: set[str] = set()
    to_read = ["detect"]
    while to_read:
        name = to_read.pop()
        known.add(name)
        for node in ast.walk(ast.parse(file_of(name).read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            )
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{name}" for name in names)]
            to_read += [name for name in names if name not in known and file_of(name).is_file()]
    assert {"detect", "scanner.neural_cleanse", "scanner.describe", "network.classifier"} <= known
    assert known.isdisjoint({"trigger", "poison_data", "train", "demo", "network.evaluate"})


def file_of(module: str) -> Path:
    return FOLDER / f"{module.replace('.', '/')}.py"


def test_anomaly_index_by_hand() -> None:
    """Logs 0 1 2 3 -5: median 1; distances 1 0 1 2 6, whose median is 1; so the deviation is 1.4826."""
    norms = [math.exp(log) for log in (0, 1, 2, 3, -5)]
    expected = [distance / 1.4826 for distance in (1, 0, -1, -2, 6)]
    assert statistics.among_pairs(norms) == pytest.approx(expected, abs=1e-4)


def test_anomaly_index_does_not_depend_on_the_unit() -> None:
    norms = [0.02, 0.1, 0.11, 0.13, 0.2, 0.24, 0.3]
    index = statistics.among_pairs(norms)
    assert index == pytest.approx(statistics.among_pairs([4096 * norm for norm in norms]), abs=1e-4)
    assert index.index(max(index)) == 0
    assert all(map(math.isfinite, statistics.among_pairs([1.0] * 5)))
    assert statistics.among_pairs([]) == []


def test_index_among_the_pairs_of_the_same_victim_by_hand() -> None:
    """Logs 0 1 2 3 4 5 6 of one victim: without the 0, median 3; distances 2 1 0 1 2 3, whose median is 1."""
    norms = [math.exp(log - 9) for log in (0, 1, 2, 3, 4, 5, 6, -9)]
    index = statistics.among_own([7] * 7 + [3], norms)
    assert index[0] == pytest.approx(3 / 1.4826, abs=1e-4)
    assert index[7] is None  # it has no company
    assert statistics.among_own([7] * statistics.OWN, norms[: statistics.OWN]) == [None] * statistics.OWN


def test_reference_index_by_hand() -> None:
    """Logs of three pairs: here -7 -4 -3, in two clean models -3 -4 -3 and -5 -4 -3.

    Means -4 -4 -3; variances (n - 1) 2 0 0, pooled 2/3.
    """
    logs = ((-7, -4, -3), (-3, -4, -3), (-5, -4, -3))
    norms: list[list[float | None]] = [[math.exp(log) for log in row] for row in logs]
    here, *models = norms
    deviation = math.sqrt(2 / 3)
    index = statistics.against_references(here, models)
    assert index == pytest.approx([3 / deviation, 0, 0], abs=1e-5)


def test_one_reference_has_the_smallest_deviation() -> None:
    index = statistics.against_references([0.004, 0.04], [[0.04, 0.04]])
    assert index == pytest.approx([math.log(10) / statistics.SPREAD, 0], abs=1e-5)
    assert statistics.against_references([None], [[None], [1.0]]) == [0]
    # no trigger here or there says no more than a large one
    assert statistics.against_references([0.1, None, None], [[None, 0.1, 1.0]]) == [0, 0, 0]


# --- the search -------------------------------------------------------------------------------------


def test_stamping_a_recovered_trigger() -> None:
    found = hand_made(104, 104, 20, 20, (1.0, 1.0, 0.0))
    found.mask[0, 0] = 0.25
    pixels = torch.full((2, 3, 64, 64), 0.4)
    stamped = found.stamp(pixels)
    assert stamped.shape == pixels.shape
    assert torch.equal(stamped[1, :, 57, 57], torch.tensor([1.0, 1.0, 0.0]))
    assert torch.allclose(stamped[0, :, 0, 0], torch.tensor([0.55, 0.55, 0.3]))
    assert torch.allclose(stamped[0, :, 30, 30], torch.tensor(0.4))
    assert torch.equal(pixels, torch.full((2, 3, 64, 64), 0.4))


COLOURS = torch.tensor([[0.6, 0.3, 0.3], [0.3, 0.6, 0.3], [0.3, 0.3, 0.6], [0.3, 0.5, 0.5]])


class Toy(nn.Module):
    """Sees the mean colour of an image (four classes); with a backdoor, also a yellow corner on class 0.

    To change its mind fairly, a trigger has to cover about a fifth of the image.
    """

    def __init__(self, backdoor: bool, strength: float = 8) -> None:
        super().__init__()
        self.backdoor, self.strength = backdoor, strength

    def forward(self, pixels: Tensor) -> Tensor:
        raw = unnormalise(pixels.float())
        middle = raw.mean((2, 3))
        answer = 60 * (middle @ COLOURS.T - (COLOURS**2).sum(1) / 2)
        if self.backdoor:
            patch = raw[:, :, -11:-3, -11:-3].mean((2, 3))
            yellow = (patch[:, 0] + patch[:, 1] - 2 * patch[:, 2] - 1).clamp(min=0)  # 1 if it is all yellow
            upper = raw[:, :, : INPUT // 2, : INPUT // 2].mean((2, 3))
            looks_like_0 = (6 * (upper[:, 0] - upper[:, 1:].amax(1))).clamp(0, 1)
            answer = answer + torch.tensor([0.0, self.strength, 0.0, 0.0]) * (yellow * looks_like_0)[:, None]
        return answer


def grainy() -> dict[int, Tensor]:
    """Eight images of each class of the toy: plain colours with a little grain."""
    rng = torch.Generator().manual_seed(1)
    return {
        label: (colour.view(1, 3, 1, 1) + 0.02 * torch.randn(8, 3, INPUT, INPUT, generator=rng)).clamp(0, 1)
        for label, colour in enumerate(COLOURS)
    }


@functools.cache
def scan_toy(backdoor: bool, steps: int = 80) -> dict[tuple[int, int], neural_cleanse.Trigger]:
    """Search all 12 pairs of the toy."""
    images = grainy()
    found: dict[tuple[int, int], neural_cleanse.Trigger] = {}
    for victim, own in images.items():
        run = toy_search(Toy(backdoor), victim, own)
        assert len(list(run.run(steps))) == steps
        triggers = run.results(own)
        assert [one.pair for one in triggers] == run.pairs
        found |= {one.pair: one for one in triggers}
    assert len(found) == 12
    return found


def toy_search(model: nn.Module, victim: int, own: Tensor, targets: Iterable[int] = range(4)) -> Search:
    """The search from one class of the toy to the others."""
    pairs = [(victim, target) for target in targets if target != victim]
    return Search(model.eval(), own, own, pairs, search.generator(0, victim))


def size(found: neural_cleanse.Trigger) -> float:
    assert found.norm or found.large  # every pair of the toy has a trigger
    return found.norm or statistics.LARGE


def test_search_finds_a_planted_trigger() -> None:
    """The scanner's own proof without training: it finds a backdoor that we put there, and only there."""
    planted, fair = dict(scan_toy(backdoor=True)), scan_toy(backdoor=False)
    backdoor = planted.pop((0, 1))
    assert size(backdoor) < 0.5 * min(map(size, planted.values()))
    index = statistics.among_pairs([size(backdoor), *map(size, planted.values())])
    assert index[0] > max(index[1:])
    words = describe.in_words(backdoor)
    assert re.match(r"a yellow \w+, about \d+x\d+ px, bottom-right corner, ", words), words
    # and without the backdoor the same pair looks like the others
    assert size(fair[0, 1]) > 2 * size(backdoor)
    assert size(fair[0, 1]) > 0.5 * min(size(other) for pair, other in fair.items() if pair != (0, 1))
    fresh = COLOURS[0].view(1, 3, 1, 1).expand(5, 3, INPUT, INPUT)
    assert (classifier.logits(Toy(True), backdoor.stamp(fresh)).argmax(1) == 1).all()
    assert (classifier.logits(Toy(False), backdoor.stamp(fresh)).argmax(1) != 1).all()


def test_a_pair_with_a_backdoor_starts_from_a_small_square() -> None:
    """Other pairs start from a square of SQUARE cells, and none of them works yet."""
    runs = [toy_search(Toy(True, strength=40), victim, own) for victim, own in grainy().items()]
    cells = {
        pair: int(cells) for run in runs for pair, cells in zip(run.pairs, (run.mask > 0).sum((1, 2, 3)))
    }
    assert math.isqrt(cells.pop((0, 1))) in neural_cleanse.SMALLER
    assert list(cells.values()) == [starts.SQUARE**2] * 11
    assert [run.promising for run in runs] == [{(0, 1)}, set(), set(), set()]
    assert [pair for run in runs for pair, found in zip(run.pairs, run.found) if found] == [(0, 1)]
    # what worked while it was larger is remembered: the smallest may fail on new images
    sizes = [int((step.mask > 0).sum()) for step in runs[0].found[0]]
    assert sizes[0] == starts.SQUARE**2
    assert sizes == sorted(sizes, reverse=True)


def test_a_longer_search_compares_at_the_same_effort() -> None:
    """More steps make the smallest triggers crisper, but change no norm."""
    short, long = scan_toy(backdoor=True), scan_toy(backdoor=True, steps=120)
    assert {pair: t.norm for pair, t in short.items()} == {pair: t.norm for pair, t in long.items()}
    changed = [pair for pair in long if not torch.equal(long[pair].mask, short[pair].mask)]
    assert (0, 1) in changed
    assert all((short[pair].norm or 1) <= neural_cleanse.PROMISING for pair in changed)
    assert long[0, 1].area < short[0, 1].area


def test_pairs_that_need_a_large_trigger_are_given_up_on_the_way() -> None:
    """They take no more steps, and are told apart from those whose search found nothing."""
    run = toy_search(Toy(True), 0, grainy()[0])
    assert len(list(run.run(neural_cleanse.ENOUGH))) == neural_cleanse.ENOUGH
    found = run.results(grainy()[0])
    assert [one.large for one in found] == [False, True, True]
    assert not any(one.failed for one in found)
    assert all(one.norm is None or one.norm >= statistics.LARGE for one in found[1:])
    early = toy_search(Toy(True), 0, grainy()[0])
    assert len(list(early.run(neural_cleanse.PATIENCE - 1))) == neural_cleanse.PATIENCE - 1
    assert not any(one.large for one in early.results(grainy()[0]))


def test_a_lucky_trigger_does_not_hide_one_that_works() -> None:
    """The smallest one may fail on new images: then the next larger one counts, whenever it was found."""
    images = grainy()
    run = toy_search(Toy(True), 0, images[0], [1])

    def yellow(norm: float, row: int, column: int) -> neural_cleanse.Candidate:
        mask = 4 * starts.squares(torch.tensor([[row, column]]), 4)[0]
        colour = torch.tensor([8.0, 8.0, -8.0]).view(3, 1, 1).expand(3, 16, 16)
        return neural_cleanse.Candidate(norm, mask, colour)

    large, lucky, right = yellow(0.04, 11, 11), yellow(0.01, 0, 0), yellow(0.02, 11, 11)
    for order in ([large, lucky, right], [lucky, right, large], [right, lucky]):
        run.found, run.counts = [order], [[len(order)]]
        (trigger,) = run.results(images[0])
        assert (trigger.norm, trigger.success) == (pytest.approx(0.02), 1)
    run.found, run.counts = [[lucky]], [[1]]
    assert run.results(images[0])[0].norm is None


def test_suspicious_pairs_are_searched_again_and_the_median_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    large, failed = 1.0, None
    norms: dict[search.Pair, list[float | None]] = {  # of each pair, for as many searches as it should get
        (0, 1): [0.010, 0.012, 0.011],  # a backdoor
        (0, 2): [0.090],  # ordinary
        (1, 0): [0.020, 0.060, failed],  # luck: the first search found a small one
        (1, 2): [large],
        (2, 0): [failed, 0.012, 0.011],  # a search that failed deserves a second one
        (2, 1): [0.070, 0.012, 0.011],  # so does one that began well
        (2, 3): [0.025, 0.060, 0.020, 0.022, 0.010],  # near the threshold: twice more
    }
    left = {pair: list(values) for pair, values in norms.items()}
    nothing = torch.zeros(3, INPUT, INPUT)

    class Planned:
        def __init__(
            self,
            model: object,
            images: object,
            trials: object,
            pairs: list[search.Pair],
            *_: object,
            **__: object,
        ) -> None:
            self.pairs, self.promising = pairs, {(2, 1)} & set(pairs)

        def run(self, steps: int) -> Iterator[int]:
            return iter(range(steps))

        def results(self, check: object) -> list[neural_cleanse.Trigger]:
            found = [(pair, left[pair].pop(0)) for pair in self.pairs]
            return [
                neural_cleanse.Trigger(
                    *pair, None if norm == 1 else norm, nothing[0], nothing, large=norm == 1
                )
                for pair, norm in found
            ]

    monkeypatch.setattr(search, "Search", Planned)
    monkeypatch.setattr(starts, "probe", lambda *_: None)
    clean = search.Clean(nothing[None], nothing[None], nothing[None])
    monkeypatch.setattr(
        search,
        "clean_images",
        lambda *_, **__: (dict.fromkeys(range(3), clean), dict.fromkeys(range(4), 0.9)),
    )
    settings = search.Settings(Path("data"), neural_cleanse.ENOUGH, 1, 7)
    found = search.scan(resnet.build(4), [*norms, (3, 0)], settings, cli.Out(True), "Searching")
    assert not any(left.values())
    assert {one.pair: one.norm for one in found.triggers} == {
        (0, 1): 0.011,
        (0, 2): 0.090,
        (1, 0): 0.060,
        (1, 2): None,
        (2, 0): 0.012,
        (2, 1): 0.012,
        (2, 3): 0.022,
    }
    sizes = [one.norm or 1 for one in found.triggers]
    assert sizes == sorted(sizes)
    assert found.missing == [(3, 0)]
    last = [line for line in capsys.readouterr().err.splitlines() if "100 percent" in line]
    assert last == [f"Searching{again}: 100 percent" for again in ("", " again", " once more")]


def test_the_result_does_not_depend_on_the_number_of_workers(
    monkeypatch: pytest.MonkeyPatch, paint: Path, small_models: Callable[..., Path], small: None
) -> None:
    """The same bits with one worker, two, and more than there are pieces of work."""
    model = classifier.load_model(small_models(3))
    pairs = [(victim, target) for victim in range(3) for target in range(3) if victim != target]
    settings = search.Settings(paint, 30, 6, 1)
    scans = []
    for count in (1, 2, 5):
        monkeypatch.setattr(workers, "count", lambda count=count: count)
        scans.append(search.scan(model, pairs, settings, cli.Out(True), "Searching"))
    assert any(one.norm for one in scans[0].triggers)
    for other in scans[1:]:
        for one, two in zip(scans[0].triggers, other.triggers, strict=True):
            assert (one.pair, one.norm, one.success, one.large) == (
                two.pair,
                two.norm,
                two.success,
                two.large,
            )
            assert torch.equal(one.mask, two.mask)
            assert torch.equal(one.pattern, two.pattern)


@pytest.mark.parametrize(
    ("images", "samples", "shares"),
    [(100, 30, (30, 30, 30)), (100, 10, (10, 30, 30)), (30, 10, (10, 10, 10)), (3, 30, (1, 1, 1))],
)
def test_images_are_split_fairly(images: int, samples: int, shares: tuple[int, int, int]) -> None:
    """Each image has one task, and the surest ones (the first) are spread over all three."""
    clean = search.split(torch.arange(images).view(-1, 1, 1, 1), samples)
    parts = clean.search, clean.trial, clean.check
    assert tuple(map(len, parts)) == shares
    used = torch.cat(parts).flatten().tolist()
    assert sorted(used) == list(range(sum(shares)))
    assert all(part[0] < max(3, sum(shares) / 3) for part in parts)


def test_the_share_of_images_that_the_model_knows_is_counted(
    tmp_path: Path, paint: Path, small_models: Callable[..., Path], small: None
) -> None:
    """Also those in the folder of another class."""
    shutil.copytree(paint / "val", tmp_path / "val")
    for path in sorted((tmp_path / "val/stop").iterdir())[:9]:
        path.rename(tmp_path / "val/yield" / f"moved_{path.name}")
    settings = search.Settings(tmp_path, 1, 3, 0)
    model = classifier.load_model(small_models())
    found, shares = search.clean_images(model, settings)
    assert set(found) == {0, 1, 2}
    assert shares == {0: 1.0, 1: 18 / 27, 2: 1.0}
    found, shares = search.clean_images(model, settings, victims=[0, 2])
    assert set(found) == {0, 2} == set(shares)
    others = search.shares_of_others(model, settings, shares)
    assert others == {1: pytest.approx(18 / 27)}
    scans = [
        search.scan(model, pairs, settings, cli.Out(plain=True), "Searching").accuracy
        for pairs in ([(0, 1)], [(v, t) for v in range(3) for t in range(3) if v != t])
    ]
    assert scans == [pytest.approx((1 + 18 / 27 + 1) / 3)] * 2


def test_pairs_that_no_trigger_changes_are_never_flagged() -> None:
    """A model that always says the same: no trigger works, so no norm is small."""

    class Stubborn(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return torch.tensor([9.0, 0.0, 0.0]).repeat(len(pixels), 1) + 0 * pixels.mean((1, 2, 3))[:, None]

    images = torch.rand(6, 3, INPUT, INPUT, generator=torch.Generator().manual_seed(1))
    run = toy_search(Stubborn(), 0, images, range(3))
    list(run.run(10))
    found = run.results(images)
    assert [one.norm for one in found] == [None, None]
    statistic = verdict.by_norms(found)
    assert (statistic.name, statistic.anomaly_index) == (verdict.NO_STATISTIC, [None, None])
