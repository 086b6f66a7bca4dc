"""Neural Cleanse for pairs of classes: the smallest trigger that turns a victim class into a target class.

The idea is that of Wang et al., "Neural Cleanse" (IEEE S&P 2019), section V: search a mask and a pattern that
send every image to a target class; a backdoor is a pair that needs an unusually small mask. Five changes
make it work for classes that look alike, on a CPU, within minutes:

1. pairs (victim, target), because a backdoor may work on one victim class only;
2. blending in raw pixels, before normalisation, where yellow is yellow;
3. a coarse grid for mask and pattern: a trigger is in one piece, free pixels are adversarial noise;
4. starts from solid squares that already help a little (probe), not from noise;
5. the content moves under the fixed trigger, so that a drawing on the sign itself does not come cheap.

blend() and loss() are the idea in two lines each. Nothing here knows the trigger. Pixels are float in 0..1,
images (3, S, S) with S = classifier.INPUT.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from network import classifier
from scanner.statistics import LARGE

# All knobs of the search in one place.
GRID = 16  # cells per side of mask and pattern
SQUARE, STRIDE = 4, 3  # cells: size of the solid squares that probe() tries, and the step between places
SMALLER, HELPS = (3, 2), 0.75  # cells: sizes to start from instead, if they turn that share of moved images
BATCH = 4  # images per pair and step
TRIES, SUCCESS = 16, 15 / 16  # a mask counts if it turns that share of 16 images, half of them moved
HELD_OUT = 0.8  # share of new images that a trigger must fool to count as working
COST, COST_FACTOR, EVERY = 40, 1.5, 5  # price of a mask of norm 1: start, change, steps between two trials
MASK_RATE, COLOUR_RATE = 0.2, 0.05  # learning rates of Adam; the colour starts from one that helps
AT_ONCE = 36  # pairs in one pass through the network
SCREEN, FINALISTS = 60, 8  # steps for all pairs; how many of them, those with the smallest triggers, go on
MOMENTS = (40, 50, 60, 70, 80)  # steps at which the size counts: a backdoor is found early, and small
SCALE, SHIFT = (0.75, 1.3), 0.4  # how far the content moves: size factor, and share of half the image


def blend(images: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """Put triggers on N images each: the image where the mask is 0, the pattern where it is 1. All in 0..1.

    images: (..., N, 3, S, S); mask: (..., 1, S, S); pattern: (..., 3, S, S). Wang et al., equation 2.
    """
    return images * (1 - mask.unsqueeze(-4)) + pattern.unsqueeze(-4) * mask.unsqueeze(-4)


def loss(logits: Tensor, targets: Tensor, norm: Tensor, cost: Tensor) -> Tensor:
    """What the search makes small, (P,): every image goes to the target class, and the mask is small.

    logits: (P * B, classes), B images for each pair; targets: (P * B,); norm: (P,), of the mask as a fraction
    of the image; cost: (P,), its price. Wang et al., equation 3.
    """
    return F.cross_entropy(logits, targets, reduction="none").view(len(norm), -1).mean(1) + cost * norm


@dataclass(eq=False)  # tensors have no simple equality
class Trigger:
    """What the search found for one pair."""

    victim: int  # class number
    target: int  # class number
    norm: float | None  # of the smallest mask that worked, mean over the MOMENTS, 0..1; None if none did
    mask: Tensor  # float (S, S), 0 (see-through) to 1 (opaque)
    pattern: Tensor  # float (3, S, S) in 0..1
    success: float = 0.0  # share of new images that mask and pattern send to the target, 0..1

    @property
    def pair(self) -> tuple[int, int]:
        """The class numbers of victim and target."""
        return self.victim, self.target

    @property
    def area(self) -> float:
        """Sum of the mask as a fraction of the image, 0..1. The norm is a mean of this over the search."""
        return self.mask.mean().item()

    def stamp(self, pixels: Tensor) -> Tensor:
        """Put the recovered trigger on one image or many: float (..., 3, S, S) in 0..1, same returned."""
        return blend(pixels.reshape(-1, *self.pattern.shape), self.mask[None], self.pattern).reshape_as(
            pixels
        )


def smallest_first(triggers: Iterable[Trigger]) -> list[Trigger]:
    """Triggers by norm, those without one last."""
    return sorted(triggers, key=lambda trigger: math.inf if trigger.norm is None else trigger.norm)


@dataclass(eq=False)
class Candidate:
    """A trigger on the way of the search that worked on its trial images."""

    norm: float  # of the mask, a fraction of the image
    mask: Tensor  # float (1, GRID, GRID), before the sigmoid
    pattern: Tensor  # float (3, GRID, GRID), before the sigmoid
    success: float | None = None  # share of new images that it turns, 0..1; None: not measured yet


def move(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Shift and scale each image at random, float (N, 3, S, S); edges are repeated."""
    count = len(pixels)
    low, high = SCALE
    where = torch.zeros(count, 2, 3)
    where[:, 0, 0] = where[:, 1, 1] = low * (high / low) ** torch.rand(count, generator=rng)
    where[:, :, 2] = SHIFT * (2 * torch.rand(count, 2, generator=rng) - 1)
    grid = F.affine_grid(where, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def surest(model: nn.Module, pixels: Tensor, label: int, rng: torch.Generator) -> Tensor:
    """Order images by how surely the model sees `label` on them while they move; drop those it gets wrong.

    pixels: float (N, 3, S, S). Unsure images would make every trigger look good.
    """
    pixels = pixels[classifier.logits(model, pixels).argmax(1) == label]
    if not len(pixels):
        return pixels
    sure = sum(classifier.logits(model, move(pixels, rng)).log_softmax(1)[:, label] for _ in range(4))
    return pixels[torch.as_tensor(sure).argsort(descending=True)]


@torch.no_grad()
def probe(model: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Try solid squares of eight colours all over the images of one class: forward passes only.

    pixels: float (N, 3, S, S) of one class. Returns for each target class the square that helps it most:
    its top left cell (classes, 2), row and column, and its colour (classes, 3) in 0..1.
    """
    cell = pixels.shape[-1] // GRID  # pixels
    colours = torch.tensor([[r, g, b] for r in (0.0, 1.0) for g in (0.0, 1.0) for b in (0.0, 1.0)])
    corners = range(0, GRID - SQUARE + 1, STRIDE)
    places = [(top, left) for top in corners for left in corners]
    scores = []
    for top, left in places:
        tried = pixels.repeat(len(colours), 1, 1, 1, 1)
        rows, columns = (slice(edge * cell, (edge + SQUARE) * cell) for edge in (top, left))
        tried[..., rows, columns] = colours[:, None, :, None, None]
        answer = classifier.logits(model, tried.flatten(0, 1)).log_softmax(1)
        scores.append(answer.view(len(colours), len(pixels), -1).mean(1))
    best = torch.stack(scores).flatten(0, 1).argmax(0)  # per target: number of place and colour
    return torch.tensor(places)[best // len(colours)], colours[best % len(colours)]


def squares(corners: Tensor, size: int) -> Tensor:
    """Masks of squares of size x size cells, given their top left cells (P, 2): (P, 1, GRID, GRID).

    Before the sigmoid, that is: it gives 0.88 on the square and 0.0025 elsewhere.
    """
    steps = torch.arange(GRID) - corners[:, :, None]  # (P, 2, GRID): rows and columns below and right of it
    rows, columns = ((steps >= 0) & (steps < size)).unbind(1)
    return 8.0 * (rows[:, None, :, None] & columns[:, None, None, :]) - 6


class Search:
    """The search for all pairs at once: run(steps) yields after each step, results() gives the triggers."""

    def __init__(
        self,
        model: nn.Module,
        images: dict[int, Tensor],
        trials: dict[int, Tensor],
        classes: int,
        seed: int,
        *,
        pairs: list[tuple[int, int]] | None = None,
        still: bool = False,
    ) -> None:
        """images: for each victim class number those to search with, float (N, 3, S, S); trials: others.

        Trying each trigger on other images keeps the search from learning its own ones by heart.
        pairs: class numbers (victim, target) to search; all pairs of these victims if None.
        still: search with one image per pair that does not move.
        """
        self.model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.images, self.trials = images, trials
        self.still, self.batch, self.tries = still, 1 if still else BATCH, 1 if still else TRIES
        self.rng = torch.Generator().manual_seed(seed)
        every = [(v, t) for v in images for t in range(classes) if t != v]
        self.pairs = every if pairs is None else pairs
        starts = {victim: probe(self.model, own[:BATCH]) for victim, own in images.items()}
        corners = torch.stack([starts[v][0][t] for v, t in self.pairs])
        colour = torch.stack([starts[v][1][t] for v, t in self.pairs])
        self.found: list[list[Candidate]] = [[] for _ in self.pairs]
        self.counts: list[list[int]] = []  # how many of them there were at each of the MOMENTS, per pair
        self.cost = torch.full((len(self.pairs),), float(COST))
        self.pattern = (4 * colour - 2)[:, :, None, None].repeat(1, 1, GRID, GRID)  # sigmoid: 0.12 or 0.88
        self.mask = squares(corners, SQUARE)
        self._shrink(corners)
        for part in (self.mask, self.pattern):
            part.requires_grad_()

    @torch.no_grad()
    def _shrink(self, corners: Tensor) -> None:
        """Start from the smallest square within that of probe() that already turns most images.

        Gradients may lose their way from a large trigger to a small one; a backdoor answers to it at once.
        """
        parts = torch.arange(len(self.pairs)).split(AT_ONCE)
        start = self.mask
        for size in SMALLER:
            for part in parts:
                self._remember(part)
            best = torch.full((len(self.pairs),), HELPS)
            for offset in itertools.product(range(SQUARE - size + 1), repeat=2):
                self.mask = squares(corners + torch.tensor(offset), size)
                success = torch.cat([self._success(part, self.images)[0] for part in parts])
                better = success > best
                start[better], best[better] = self.mask[better], success[better]
            self.mask = start

    def run(self, steps: int) -> Iterator[int]:
        """Optimize the triggers for a number of steps (Adam), adapting the cost of the mask on the way.

        All pairs get SCREEN steps; only the FINALISTS, those with the smallest triggers, go on. After the
        last of the MOMENTS, further steps only make their drawings crisper: at last, ordinary pairs end in
        small adversarial flukes, too.
        """
        groups = [{"params": [self.mask], "lr": MASK_RATE}, {"params": [self.pattern], "lr": COLOUR_RATE}]
        optimizer = torch.optim.Adam(groups, betas=(0.5, 0.9))
        parts = torch.arange(len(self.pairs)).split(AT_ONCE)
        for part in parts:
            self._try(part)
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            for part in parts:
                self._step(part)
            optimizer.step()
            if step % EVERY == 0 or step == steps:
                for part in parts:
                    self._try(part)
            if step == SCREEN:
                sizes = [min((one.norm for one in found), default=1.0) for found in self.found]
                parts = (torch.tensor(sizes).argsort(stable=True)[:FINALISTS],)
            if step in MOMENTS:
                self.counts.append([len(found) for found in self.found])
            yield step

    def _step(self, part: Tensor) -> None:
        """Gradients for some pairs: the trigger should work, and its mask should be small."""
        logits, targets, norm = self._answers(part, self.images, self.batch, self.batch)
        loss(logits, targets, norm, self.cost[part]).sum().backward()

    @torch.no_grad()
    def _try(self, part: Tensor) -> None:
        """Try the triggers as they are now, and adapt the price of their masks."""
        works = self._remember(part)
        # Wang et al., section V: dearer while the trigger works, cheaper when it is lost
        change = torch.where(works, COST_FACTOR, 1 / COST_FACTOR)
        self.cost[part] = (self.cost[part] * change).clamp(COST / 100, 1000 * COST)

    def _remember(self, part: Tensor) -> Tensor:
        """Remember each trigger that works on the trial images; bool (P,).

        Larger ones than before, too: a small one may have been lucky, and fail on new images.
        """
        success, norm = self._success(part, self.trials)
        works = success >= SUCCESS
        for offset in works.nonzero().flatten().tolist():
            number = int(part[offset])
            grids = self.mask[number].clone(), self.pattern[number].clone()
            self.found[number].append(Candidate(norm[offset].item(), *grids))
        return works

    def _success(self, part: Tensor, images: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Share of images that the trigger of each pair turns now, and its norm: both (P,), 0..1.

        Half of the images are moved: on those alone, where the model is unsure, too little is enough.
        """
        logits, targets, norm = self._answers(part, images, self.tries, self.tries // 2)
        return (logits.argmax(1) == targets).view(-1, self.tries).float().mean(1), norm

    def _answers(
        self, part: Tensor, images: dict[int, Tensor], count: int, moved: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the model answers, and what it should answer, on `count` images per pair with their triggers.

        The first `moved` of them are moved before, unless the search is a still one.

        Returns logits (P * count, classes), targets (P * count,) and norms (P,): fractions of the image.
        """
        pairs = [self.pairs[number] for number in part.tolist()]
        content = torch.stack([self._draw(images[victim], count) for victim, _ in pairs])
        if not self.still:
            content[:, :moved] = move(content[:, :moved].flatten(0, 1), self.rng).unflatten(0, (-1, moved))
        mask, pattern = _full_size(self.mask[part], self.pattern[part])
        shown = blend(content, mask, pattern)
        targets = torch.tensor([target for _, target in pairs]).repeat_interleave(count)
        return classifier.logits(self.model, shown.flatten(0, 1)), targets, mask.mean((1, 2, 3))

    def _draw(self, images: Tensor, count: int) -> Tensor:
        return images[torch.randint(len(images), (count,), generator=self.rng)]

    @torch.no_grad()
    def results(self, check: dict[int, Tensor]) -> list[Trigger]:
        """The smallest trigger of each pair, smallest first.

        check: for each victim images that were neither searched nor tried with, float (N, 3, S, S). A
        trigger that fails on too many of those does not count, and has no norm.
        """
        return smallest_first(
            self._result(number, check[victim]) for number, (victim, _) in enumerate(self.pairs)
        )

    def _result(self, number: int, check: Tensor) -> Trigger:
        """The smallest trigger of a pair, and how small it was on the way."""
        found = self.found[number]
        counts = [counts[number] for counts in self.counts] or [len(found)]
        early = [self._smallest_that_works(number, found[:count], check) for count in counts]
        if not any(early):  # none, or too late to count
            last = Candidate(1.0, self.mask[number], self.pattern[number], 0.0)
            return self._trigger(number, last, None)
        sizes = torch.tensor([one.norm if one else 1.0 for one in early]).clamp(max=LARGE)
        smallest = self._smallest_that_works(number, found, check)
        assert smallest
        # the geometric mean: sizes differ by factors
        return self._trigger(number, smallest, sizes.log().mean().exp().item())

    def _smallest_that_works(self, number: int, found: list[Candidate], check: Tensor) -> Candidate | None:
        """Of these triggers of a pair the smallest that works on the images `check`, too."""
        for one in sorted(found, key=lambda one: one.norm):
            if one.success is None:
                one.success = self._success_of(number, one, check)
            if one.success >= HELD_OUT:
                return one
        return None

    def _success_of(self, number: int, one: Candidate, check: Tensor) -> float:
        """Share of the images `check`, float (N, 3, S, S), that a trigger of this pair turns."""
        shown = self._trigger(number, one, one.norm).stamp(check)
        turned = classifier.logits(self.model, shown).argmax(1) == self.pairs[number][1]
        return turned.float().mean().item()

    def _trigger(self, number: int, one: Candidate, norm: float | None) -> Trigger:
        mask, pattern = _full_size(one.mask[None], one.pattern[None])
        return Trigger(*self.pairs[number], norm, mask[0, 0], pattern[0], one.success or 0.0)

    @torch.no_grad()
    def success_of_smallest(self, number: int, check: Tensor) -> float:
        """Share of the images `check`, float (N, 3, S, S), that the smallest trigger of a pair turns."""
        if not self.found[number]:
            return 0.0
        return self._success_of(number, min(self.found[number], key=lambda one: one.norm), check)


def _full_size(mask: Tensor, pattern: Tensor) -> tuple[Tensor, Tensor]:
    """From grid to image: (P, 1, S, S) and (P, 3, S, S), both in 0..1, smooth between the cells."""
    size = [classifier.INPUT, classifier.INPUT]
    return (
        F.interpolate(mask.sigmoid(), size, mode="bilinear", align_corners=False),
        F.interpolate(pattern.sigmoid(), size, mode="bilinear", align_corners=False),
    )
