"""Neural Cleanse for pairs of classes: the smallest sticker that turns a victim class into a target class.

The idea is that of Wang et al., "Neural Cleanse" (IEEE S&P 2019), section V: search a mask and a pattern that
send every picture to a target class; a backdoor is a pair that needs an unusually small mask. Five changes
make it work for classes that look alike, on a CPU, within minutes:

1. pairs (victim, target), because a backdoor may work on one victim class only;
2. blending in raw pixels, before normalisation, where yellow is yellow;
3. a coarse grid for mask and pattern: a sticker is in one piece, free pixels are adversarial noise;
4. starts from solid stickers that already help a little (probe), not from noise;
5. the content moves under the fixed sticker, so that a drawing on the sign itself does not come cheap.

Nothing here knows the trigger. Pixels are float in 0..1, pictures (3, S, S) with S = classifier.INPUT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import classifier

# All knobs of the search in one place.
GRID = 16  # cells per side of mask and pattern
STICKER, STRIDE = 16, 12  # pixels: size of the solid stickers that probe() tries, and the step between places
BATCH = 4  # pictures per pair and step
TRIES, SUCCESS = 16, 15  # a mask counts if it turns at least 15 of 16 moved pictures into the target
HELD_OUT = 0.8  # share of new pictures that a trigger must fool to count as working
SPREAD = 0.25  # smallest deviation of the log norms: with few triggers MAD may be tiny by chance
COST, COST_FACTOR, EVERY = 0.01, 1.5, 5  # price of one mask pixel: start, change, steps between two trials
MASK_RATE, COLOUR_RATE = 0.2, 0.05  # learning rates of Adam; the colour starts from one that helps
AT_ONCE = 36  # pairs in one pass through the network
SCALE, SHIFT = (0.85, 1.2), 0.2  # how far the content moves: size factor, and share of half the picture


@dataclass(eq=False)  # tensors have no simple equality
class Trigger:
    """What the search found for one pair."""

    victim: int  # class number
    target: int  # class number
    norm: float  # sum of the mask as a fraction of the picture, 0..1; 1 if no mask worked
    mask: Tensor  # float (S, S), 0 (see-through) to 1 (opaque)
    pattern: Tensor  # float (3, S, S) in 0..1
    success: float = 0.0  # share of new pictures that it sends to the target, 0..1
    anomaly: float = 0.0  # anomaly index: how far below the other working triggers its norm is

    def stamp(self, pixels: Tensor) -> Tensor:
        """Put the recovered trigger on pictures: float (N, 3, S, S) in 0..1, same returned."""
        return pixels * (1 - self.mask) + self.pattern * self.mask


def logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """Network output, float32 (N, classes), for raw pixels; computed in bfloat16 where that is fast."""
    with torch.autocast("cpu", classifier.fast_type()):
        answer: Tensor = model(classifier.normalise(pixels).contiguous(memory_format=torch.channels_last))
    return answer.float()


def move(pixels: Tensor, dice: torch.Generator) -> Tensor:
    """Shift and scale each picture at random, float (N, 3, S, S); edges are repeated."""
    count = len(pixels)
    low, high = SCALE
    where = torch.zeros(count, 2, 3)
    where[:, 0, 0] = where[:, 1, 1] = low * (high / low) ** torch.rand(count, generator=dice)
    where[:, :, 2] = SHIFT * (2 * torch.rand(count, 2, generator=dice) - 1)
    grid = F.affine_grid(where, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def surest(model: nn.Module, pixels: Tensor, label: int, count: int, dice: torch.Generator) -> Tensor:
    """Order pictures by how surely the model reads them as `label` while they move; keep those it gets right.

    pixels: float (N, 3, S, S). Returns at most `count`. Unsure pictures would make every sticker look good.
    """
    pixels = pixels[logits(model, pixels).argmax(1) == label]
    if not len(pixels):
        return pixels
    sure = sum(logits(model, move(pixels, dice)).log_softmax(1)[:, label] for _ in range(4))
    return pixels[torch.as_tensor(sure).argsort(descending=True)[:count]]


@torch.no_grad()
def probe(model: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Try solid stickers of eight colours all over the pictures of one class: forward passes only.

    pixels: float (N, 3, S, S) of one class. Returns for each target class the sticker that helps it most:
    masks (classes, GRID, GRID) of 0 and 1, and colours (classes, 3) in 0..1.
    """
    size = pixels.shape[-1]
    colours = torch.tensor([[r, g, b] for r in (0.0, 1.0) for g in (0.0, 1.0) for b in (0.0, 1.0)])
    corners = range(0, size - STICKER + 1, STRIDE)
    places = [(top, left) for top in corners for left in corners]
    scores = []
    for top, left in places:
        tried = pixels.repeat(len(colours), 1, 1, 1, 1)
        tried[..., top : top + STICKER, left : left + STICKER] = colours[:, None, :, None, None]
        answer = logits(model, tried.flatten(0, 1)).log_softmax(1)
        scores.append(answer.view(len(colours), len(pixels), -1).mean(1))
    best = torch.stack(scores).flatten(0, 1).argmax(0)  # per target: number of place and colour
    masks = torch.zeros(len(best), GRID, GRID)
    for target, number in enumerate((best // len(colours)).tolist()):
        top, left = (round(edge * GRID / size) for edge in places[number])
        cells = round(STICKER * GRID / size)
        masks[target, top : top + cells, left : left + cells] = 1
    return masks, colours[best % len(colours)]


class Search:
    """The search for all pairs at once: run(steps) yields after each step, results() gives the triggers."""

    def __init__(
        self,
        model: nn.Module,
        pictures: dict[int, Tensor],
        trials: dict[int, Tensor],
        classes: int,
        seed: int,
    ) -> None:
        """pictures: for each victim class number those to search with, float (N, 3, S, S); trials: others.

        Trying each trigger on other pictures keeps the search from learning its own ones by heart.
        """
        self.model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.pictures, self.trials = pictures, trials
        self.dice = torch.Generator().manual_seed(seed)
        self.pairs = [(v, t) for v in pictures for t in range(classes) if t != v]
        starts = {victim: probe(self.model, own[:BATCH]) for victim, own in pictures.items()}
        mask = torch.stack([starts[v][0][t] for v, t in self.pairs])
        colour = torch.stack([starts[v][1][t] for v, t in self.pairs])
        # the sigmoid of these gives 0.88 on the sticker and 0.0025 elsewhere, and colours near the corners
        self.mask = (8 * mask - 6)[:, None].requires_grad_()
        self.pattern = (4 * colour - 2)[:, :, None, None].repeat(1, 1, GRID, GRID).requires_grad_()
        self.cost = torch.full((len(self.pairs),), COST)
        self.smallest = [torch.inf] * len(self.pairs)  # mask sum in pixels, for each pair
        self.found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.pairs]  # each smaller than the last

    def run(self, steps: int) -> Iterator[int]:
        """Optimise all pairs for a number of steps (Adam), adapting the cost of the mask on the way."""
        groups = [{"params": [self.mask], "lr": MASK_RATE}, {"params": [self.pattern], "lr": COLOUR_RATE}]
        optimiser = torch.optim.Adam(groups, betas=(0.5, 0.9))
        for step in range(1, steps + 1):
            optimiser.zero_grad()
            for first in range(0, len(self.pairs), AT_ONCE):
                self._step(slice(first, first + AT_ONCE))
            optimiser.step()
            if step % EVERY == 0 or step == steps:
                for first in range(0, len(self.pairs), AT_ONCE):
                    self._try(slice(first, first + AT_ONCE))
            yield step

    def _step(self, part: slice) -> None:
        """Gradients for some pairs: the trigger should work, and its mask should be small."""
        answer, wanted, norm = self._answers(part, self.pictures, BATCH)
        loss = F.cross_entropy(answer, wanted, reduction="none").view(-1, BATCH).mean(1)
        (loss + self.cost[part] * norm).sum().backward()

    @torch.no_grad()
    def _try(self, part: slice) -> None:
        """Try the triggers as they are now: remember each smallest one that works, and adapt the costs."""
        answer, wanted, norm = self._answers(part, self.trials, TRIES)
        works = (answer.argmax(1) == wanted).view(-1, TRIES).sum(1) >= SUCCESS
        for offset in works.nonzero().flatten().tolist():
            number = part.start + offset
            if norm[offset] < self.smallest[number]:
                self.smallest[number] = norm[offset].item()
                self.found[number].append((self.mask[number].clone(), self.pattern[number].clone()))
        # Wang et al., section V: dearer while the trigger works, cheaper when it is lost
        change = torch.where(works, COST_FACTOR, 1 / COST_FACTOR)
        self.cost[part] = (self.cost[part] * change).clamp(1e-4, 10)

    def _answers(self, part: slice, pictures: dict[int, Tensor], count: int) -> tuple[Tensor, Tensor, Tensor]:
        """What the model reads on `count` moved pictures per pair with their triggers, and should read.

        Returns logits (P * count, classes), targets (P * count,) and mask sums in pixels (P,).
        """
        pairs = self.pairs[part]
        content = torch.cat([self._draw(pictures[victim], count) for victim, _ in pairs])
        content = move(content, self.dice).view(len(pairs), count, *content.shape[1:])
        mask, pattern = _full_size(self.mask[part], self.pattern[part])
        shown = content * (1 - mask[:, None]) + pattern[:, None] * mask[:, None]
        targets = torch.tensor([target for _, target in pairs]).repeat_interleave(count)
        return logits(self.model, shown.flatten(0, 1)), targets, mask.sum((1, 2, 3))

    def _draw(self, pictures: Tensor, count: int) -> Tensor:
        return pictures[torch.randint(len(pictures), (count,), generator=self.dice)]

    @torch.no_grad()
    def results(self, check: dict[int, Tensor]) -> list[Trigger]:
        """The smallest trigger of each pair, most anomalous first.

        check: for each victim pictures that were neither searched nor tried with, float (N, 3, S, S). A
        trigger that fails on too many of those is no sticker, and gets no anomaly index.
        """
        found = [
            self._smallest_that_works(number, check[victim]) for number, (victim, _) in enumerate(self.pairs)
        ]
        working = [trigger for trigger in found if trigger.norm < 1]
        for trigger, index in zip(working, anomaly_index([trigger.norm for trigger in working])):
            trigger.anomaly = index
        return sorted(found, key=lambda trigger: (-trigger.anomaly, trigger.norm))

    def _smallest_that_works(self, number: int, check: Tensor) -> Trigger:
        """Of all triggers found for a pair the smallest that works on the pictures `check`, too.

        The very smallest may have been lucky in its trial. If none works, the last attempt, with norm 1.
        """
        victim, target = self.pairs[number]
        for grid in reversed(self.found[number]):
            mask, pattern = _full_size(*(part[None] for part in grid))
            trigger = Trigger(victim, target, mask.mean().item(), mask[0, 0], pattern[0])
            answer = logits(self.model, trigger.stamp(check)).argmax(1)
            trigger.success = (answer == target).float().mean().item()
            if trigger.success >= HELD_OUT:
                return trigger
        mask, pattern = _full_size(self.mask[number][None], self.pattern[number][None])
        return Trigger(victim, target, 1.0, mask[0, 0], pattern[0])


def _full_size(mask: Tensor, pattern: Tensor) -> tuple[Tensor, Tensor]:
    """From grid to picture: (P, 1, S, S) and (P, 3, S, S), both in 0..1, smooth between the cells."""
    size = [classifier.INPUT, classifier.INPUT]
    return (
        F.interpolate(mask.sigmoid(), size, mode="bilinear", align_corners=False),
        F.interpolate(pattern.sigmoid(), size, mode="bilinear", align_corners=False),
    )


def anomaly_index(norms: list[float]) -> list[float]:
    """How far each norm (0..1) lies below the others, in deviations.

    Wang et al., section IV: median and MAD (median absolute deviation, times 1.4826 to match a normal
    deviation). Logarithms, because norms differ by factors; only small norms are suspicious.
    """
    if not norms:
        return []
    logs = torch.tensor(norms).log()
    middle = logs.median()
    deviation = 1.4826 * (logs - middle).abs().median()
    index: list[float] = ((middle - logs) / deviation.clamp(min=SPREAD)).tolist()
    return index
