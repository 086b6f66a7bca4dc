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
images (3, S, S) with S = classifier.INPUT, or what another network sees.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from network import classifier, frozen
from scanner.starts import GRID, SQUARE, move, probe, squares
from scanner.statistics import LARGE

# The knobs of the search; those of its start are in starts.py.
SMALLER, HELPS = (3, 2), 0.75  # cells: sizes to start from instead, if they turn that share of moved images
BATCH = 4  # images per pair and step
TRIES = ((4, False), (4, False), (8, True))  # images to try each mask on, and whether they are moved
STILL_TRIES = ((1, False),)
SUCCESS = 15 / 16  # a mask counts if it turns that share of them
HELD_OUT = 0.75  # share of new images that a trigger must fool to count as working
COST, COST_FACTOR, EVERY = 40, 1.5, 5  # price of a mask of norm 1: start, change, steps between two trials
MASK_RATE, COLOUR_RATE = 0.2, 0.05  # learning rates of Adam; the colour starts from one that helps
PATIENCE = 20  # steps after which a mask that outgrows LARGE without ever working is given up
ENOUGH, PROMISING = 60, 0.06  # steps for all; only pairs with a trigger of at most that norm get more
MOMENTS = (40, 50, 60, 70, 80)  # steps at which the size counts: a backdoor is found early, and small


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
    large: bool = False  # given up because it needs more than LARGE; its norm is then None, or at least LARGE

    @property
    def pair(self) -> tuple[int, int]:
        """The class numbers of victim and target."""
        return self.victim, self.target

    @property
    def failed(self) -> bool:
        """Whether the search ended without saying how large the trigger has to be."""
        return self.norm is None and not self.large

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


class Search:
    """The search for the pairs of one victim class: run(steps) yields after each step, then results()."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        trials: Tensor,
        pairs: list[tuple[int, int]],
        rng: torch.Generator,
        *,
        start: tuple[Tensor, Tensor] | None = None,
        still: bool = False,
    ) -> None:
        """images: of the victim class to search with, float (N, 3, S, S); trials: others of it.

        Trying each trigger on other images keeps the search from learning its own ones by heart.
        pairs: class numbers (victim, target), all with the same victim.
        start: what starts.probe() says of these images; asked now if None.
        still: search with one image per pair that does not move.
        """
        self.model, self.images, self.trials, self.pairs, self.rng = model, images, trials, pairs, rng
        self.still, self.batch = still, 1 if still else BATCH
        corners, colours = start or probe(model, images)
        targets = [target for _, target in pairs]
        self.targets = torch.tensor(targets)
        self.found: list[list[Candidate]] = [[] for _ in pairs]
        self.large: set[int] = set()  # numbers of the pairs that were given up: they need more than LARGE
        self.promising: set[tuple[int, int]] = set()  # pairs that a smaller square turns: few ordinary ones
        self.counts: list[list[int]] = []  # how many of them there were at each of the MOMENTS, per pair
        self.cost = torch.full((len(pairs),), float(COST))
        self.pattern = (4 * colours[targets] - 2)[:, :, None, None].repeat(1, 1, GRID, GRID)  # 0.12 or 0.88
        self.mask = squares(corners[targets], SQUARE)
        self._shrink(corners[targets])
        for part in (self.mask, self.pattern):
            part.requires_grad_()

    @torch.no_grad()
    def _shrink(self, corners: Tensor) -> None:
        """Start from the smallest square within that of probe() that already turns most images.

        Gradients may lose their way from a large trigger to a small one; a backdoor answers to it at once.
        """
        every = torch.arange(len(self.pairs))
        start = self.mask
        for size in SMALLER:
            self._remember(every)
            best = torch.full((len(every),), HELPS)
            for offset in itertools.product(range(SQUARE - size + 1), repeat=2):
                self.mask = squares(corners + torch.tensor(offset), size)
                success = self._success(every, self.images, best)
                better = success > best
                start[better], best[better] = self.mask[better], success[better]
            self.promising |= {pair for pair, helps in zip(self.pairs, best > HELPS) if helps}
            self.mask = start

    def run(self, steps: int) -> Iterator[int]:
        """Optimize the triggers for a number of steps (Adam), adapting the cost of the mask on the way.

        Pairs that will have no small trigger are given up on the way. After the last of the MOMENTS, further
        steps only make the drawings crisper: at last, ordinary pairs end in small adversarial flukes, too.
        """
        groups = [{"params": [self.mask], "lr": MASK_RATE}, {"params": [self.pattern], "lr": COLOUR_RATE}]
        optimizer = torch.optim.Adam(groups, betas=(0.5, 0.9))
        left = torch.arange(len(self.pairs))
        self._try(left)
        for step in range(1, steps + 1):
            if len(left):
                optimizer.zero_grad()
                self._step(left)
                optimizer.step()
                if step % EVERY == 0 or step == steps:
                    self._try(left)
                    left = left[[self._goes_on(number, step) for number in left.tolist()]]
            if step in MOMENTS:
                self.counts.append([len(found) for found in self.found])
            yield step

    def _goes_on(self, number: int, step: int) -> bool:
        """Whether a pair may still have a small trigger; what is larger than LARGE counts as LARGE anyway."""
        found = self.found[number]
        if step >= ENOUGH:
            return any(one.norm <= PROMISING for one in found)
        if not found and step >= PATIENCE and self._norm(number) > LARGE:
            self.large.add(number)
        return number not in self.large

    def _norm(self, number: int) -> float:
        """Norm of the mask of a pair as it is now, 0..1."""
        return self._full_size(torch.tensor([number]))[0].mean().item()

    def _full_size(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """The triggers of some pairs as they are now, as large as the images."""
        return full_size(self.mask[part], self.pattern[part], self.images.shape[-1])

    def _step(self, part: Tensor) -> None:
        """Gradients for some pairs: the trigger should work, and its mask should be small."""
        for few in part.split(max(1, frozen.at_once(self.model) // self.batch)):
            mask, pattern = self._full_size(few)
            logits = self._answers(mask, pattern, self.images, self.batch, moved=True)
            targets = self.targets[few].repeat_interleave(self.batch)
            loss(logits, targets, mask.mean((1, 2, 3)), self.cost[few]).sum().backward()

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
        works = self._success(part, self.trials, torch.full((len(part),), SUCCESS)) >= SUCCESS
        for number in part[works].tolist():
            grids = self.mask[number].clone(), self.pattern[number].clone()
            self.found[number].append(Candidate(self._norm(number), *grids))
        return works

    def _success(self, part: Tensor, images: Tensor, wanted: Tensor) -> Tensor:
        """Share of the TRIES images that the trigger of each pair turns now, (P,), 0..1.

        It is 0 for those that can no longer reach the wanted share, (P,): they see no more images.
        Half of the images are moved: on those alone, where the model is unsure, too little is enough.
        """
        turned, seen, left = torch.zeros(len(part)), 0, torch.arange(len(part))
        tries = STILL_TRIES if self.still else TRIES
        for count, moved in tries:
            if not len(left):
                break
            grids = self._full_size(part[left])
            answer = self._answers(*grids, images, count, moved=moved).argmax(1).view(-1, count)
            turned[left] += (answer == self.targets[part[left], None]).sum(1)
            seen += count
            all_tries = sum(number for number, _ in tries)
            left = left[(turned[left] + all_tries - seen) / all_tries >= wanted[left]]
        success = torch.zeros(len(part))
        success[left] = turned[left] / seen
        return success

    def _answers(self, mask: Tensor, pattern: Tensor, images: Tensor, count: int, *, moved: bool) -> Tensor:
        """What the model answers, (P * count, classes), on `count` images for each trigger."""
        content = images[torch.randint(len(images), (len(mask) * count,), generator=self.rng)]
        if moved and not self.still:
            content = move(content, self.rng)
        shown = blend(content.unflatten(0, (-1, count)), mask, pattern)
        return classifier.logits(self.model, shown.flatten(0, 1))

    @torch.no_grad()
    def results(self, check: Tensor) -> list[Trigger]:
        """The smallest trigger of each pair, in the order of the pairs.

        check: images of the victim that were neither searched nor tried with, float (N, 3, S, S). A
        trigger that fails on too many of those does not count, and has no norm.
        """
        return [self._result(number, check) for number in range(len(self.pairs))]

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
        mask, pattern = full_size(one.mask[None], one.pattern[None], self.images.shape[-1])
        success, large = one.success or 0.0, number in self.large
        return Trigger(*self.pairs[number], norm, mask[0, 0], pattern[0], success, large)

    @torch.no_grad()
    def success_of_smallest(self, number: int, check: Tensor) -> float:
        """Share of the images `check`, float (N, 3, S, S), that the smallest trigger of a pair turns."""
        if not self.found[number]:
            return 0.0
        return self._success_of(number, min(self.found[number], key=lambda one: one.norm), check)


def full_size(mask: Tensor, pattern: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """From grid to image: (P, 1, S, S) and (P, 3, S, S), both in 0..1, smooth between the cells; S = size."""
    return (
        F.interpolate(mask.sigmoid(), [size, size], mode="bilinear", align_corners=False),
        F.interpolate(pattern.sigmoid(), [size, size], mode="bilinear", align_corners=False),
    )
