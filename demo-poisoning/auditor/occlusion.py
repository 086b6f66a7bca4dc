"""Does an image owe its label to one small spot? Hide the spot, and paste it into images of another class.

A trigger does what neither an odd view nor a wrong label does. Where it is hidden, the image looks like its
true class again (occlusion, Zeiler and Fergus 2014, section 3). Where it is pasted, other images take the
label as well (SentiNet, Chou et al. 2020, section 3). And the other images of the class have no such spot.
So the search goes on in four steps, class by class:

1. suspicious(): hide a large square in nine places in a sample of the class, then a smaller one where that
   changed the answer.
2. works(): paste the spot of some images whose answer changed, and of some whose answer did not.
3. members(): if only the first kind works, do both to every image of the class.
4. at_home(): the spot aside, the images most alike to those that have it are of the class that they look like
   without it. A sign that was photographed from one odd side has its own class around it.

Where the neighbours of some images have said already that they are of another class (neighbours.astray), one
question is left: handed_on() pastes each of their spots into images of that class.

What makes a class what it is, such as the bar of a no-entry sign, is hidden and pasted with the same effect,
but there the other images of the class work just as well. Nothing here knows the trigger.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from auditor import neighbours
from network import classifier, frozen, workers

LARGE, SMALL = 24, 16  # pixels of the network's input: sides of the squares that are hidden
TINY = 12  # of those that are only pasted, because it is known which images have the spot
STEP = 12  # pixels between the places of the large square: together they cover every spot of 12 pixels
EACH = 32  # images of a class that are tried first, half of them the most suspicious ones
DONORS = 8  # images whose spot is pasted, at most
TAKERS = 8  # images that it is pasted into; 4 where every image of a class is tried
FEWEST = 4  # images that must have the spot
HINT = 0.2  # share of the first pastes that must work for a spot to be tried on the whole class
WORKS = 0.5  # share of its images whose pastes must work then
ELSEWHERE = 0.15  # share that may work with spots of the other images of the class
AT_HOME = 0.3  # share of the neighbours that must be of the other class


@dataclass
class Spot:
    """A place where a small square decides about some images of a class. Pixels of the network's input."""

    label: int
    looks_like: int  # the class that they look like without it
    top: int
    left: int
    works: float = 0.0  # share of the pastes that work, 0..1
    elsewhere: float = 0.0  # the same for the other images of the class
    at_home: float = 0.0  # share of the nearest images, the spot aside, that are of the class `looks_like`
    side: int = SMALL
    stray: bool = False  # its images were known from their neighbours, and it was not tried to hide it

    def overlaps(self, other: Spot) -> bool:
        """Whether both are about the same pair of classes and share pixels."""
        same = (self.label, self.looks_like) == (other.label, other.looks_like)
        return same and max(abs(self.top - other.top), abs(self.left - other.left)) < SMALL


@dataclass
class Members:
    """What happens to every image of the class, in the order of `images`."""

    images: Tensor  # their numbers, (n,)
    hidden: Tensor  # logit of the other class minus that of the label, the spot hidden
    pasted: Tensor  # the same difference turned round, where the spot is pasted into the other class
    stray: bool = False  # their neighbours have said that all of these images, and only these, have it

    @property
    def both(self) -> Tensor:
        """Which images surely have the trigger: they change their answer without it, and hand it on."""
        return (self.hidden > 0) & (self.pasted > 0)

    @property
    def carry(self) -> Tensor:
        """Which images have the trigger, once those in `both` have shown that there is one: the sum counts.

        One of the two may just fail, where the model is unsure of the images that the spot is pasted into.
        """
        return self.strength > 0 if not self.stray else torch.ones(len(self.images), dtype=torch.bool)

    @property
    def strength(self) -> Tensor:
        """How clearly each image has it, (n,): both differences, each in the median of those in `both`."""
        if self.stray:
            return self.pasted
        return sum(
            (value / value[self.both].median() for value in (self.hidden, self.pasted)),
            torch.zeros(len(self.images)),
        )


def hide(pixels: Tensor, top: int, left: int, side: int) -> Tensor:
    """A copy of uint8 images (N, 3, S, S) with a square in the mean colour of each image."""
    hidden = pixels.clone()
    mean = pixels.float().mean((2, 3), keepdim=True).to(torch.uint8)
    hidden[:, :, top : top + side, left : left + side] = mean
    return hidden


def paste(donors: Tensor, takers: Tensor, top: int, left: int, side: int = SMALL) -> Tensor:
    """Every taker with the spot of every donor, uint8 (D * T, 3, S, S), the takers of one donor together."""
    made = takers.repeat(len(donors), 1, 1, 1)
    area = (..., slice(top, top + side), slice(left, left + side))
    made[area] = donors[area].repeat_interleave(len(takers), 0)
    return made


class Search:
    """The search in one class of a dataset.

    pixels: uint8 (N, 3, S, S); labels, answers: int64 (N,), answers being the model's. Random numbers of its
    own make the result independent of the other classes.
    """

    def __init__(self, model: nn.Module, pixels: Tensor, labels: Tensor, answers: Tensor, label: int) -> None:
        self.model, self.pixels, self.labels, self.answers = model, pixels, labels, answers
        self.label = label
        self.rng = torch.Generator().manual_seed(label)

    def some(self, numbers: Tensor, count: int) -> Tensor:
        """So many of the numbers, at random."""
        return numbers[torch.randperm(len(numbers), generator=self.rng)[:count]]

    def sample(self, suspicion: Tensor) -> Tensor:
        """EACH images of the class that the model accepts: half the most suspicious, half at random."""
        own = ((self.labels == self.label) & (self.answers == self.label)).nonzero().flatten()
        order = own[suspicion[own].argsort(descending=True, stable=True)]
        first, rest = order[: EACH // 2], order[EACH // 2 :]
        return torch.cat([first, self.some(rest, EACH - len(first))])

    def suspicious(self, sample: Tensor) -> list[Spot]:
        """Step 1: places where hiding a small square makes several images look like one other class."""
        label, size = self.label, self.pixels.shape[-1]
        places = [(y, x) for y in range(0, size - LARGE + 1, STEP) for x in range(0, size - LARGE + 1, STEP)]
        shown = self.pixels[sample]
        changed = torch.stack(
            [
                classifier.all_logits(self.model, hide(shown, *place, LARGE)).argmax(1) != label
                for place in places
            ]
        )  # (places, images)
        local = changed & (changed.sum(0) <= len(places) // 2)  # not an image that any square upsets
        counted: dict[tuple[int, int, int], int] = {}
        for (top, left), here, anywhere in zip(places, local, changed):
            moved = shown[here if here.sum() > 1 else anywhere][: EACH // 2]
            best: list[tuple[int, int, int, int]] = []
            for y in (top, top + LARGE - SMALL) if len(moved) > 1 else ():
                for x in (left, left + LARGE - SMALL):
                    answers = classifier.all_logits(self.model, hide(moved, y, x, SMALL)).argmax(1)
                    votes = answers[answers != label].bincount(minlength=1)
                    best.append((int(votes.max()), -y, -x, int(votes.argmax())))
            if best and max(best)[0] > 1:
                votes_, y, x, other = max(best)
                counted[(-y, -x, other)] = max(votes_, counted.get((-y, -x, other), 0))
        order = sorted(counted, key=lambda spot: (-counted[spot], spot))
        return [Spot(label, other, y, x) for y, x, other in order]

    def takers(self, spot: Spot, count: int) -> Tensor:
        """Images of the other class that the model accepts."""
        fine = (self.labels == spot.looks_like) & (self.answers == spot.looks_like)
        return self.some(fine.nonzero().flatten(), count)

    def works(self, spot: Spot, sample: Tensor) -> bool:
        """Step 2: whether the spots of images that it decides about work elsewhere, and others do not."""
        hidden = hide(self.pixels[sample], spot.top, spot.left, SMALL)
        answers = classifier.all_logits(self.model, hidden).argmax(1)
        takers = self.pixels[self.takers(spot, TAKERS)]
        shares = []
        for donors in (sample[answers == spot.looks_like], sample[answers == spot.label]):
            if len(takers) < FEWEST or len(donors) < 2:
                return False
            made = paste(self.pixels[donors[:DONORS]], takers, spot.top, spot.left)
            fooled = (classifier.all_logits(self.model, made).argmax(1) == spot.label).float()
            shares.append(fooled.view(-1, len(takers)).mean(1).median().item())
        return shares[0] >= HINT and shares[1] <= ELSEWHERE

    def members(self, spot: Spot) -> Members:
        """Step 3: hide and paste the spot of every image of the class."""
        own = (self.labels == spot.label).nonzero().flatten()
        takers = self.pixels[self.takers(spot, TAKERS // 2)]
        hidden = classifier.all_logits(self.model, hide(self.pixels[own], spot.top, spot.left, SMALL))
        pasted = torch.cat(
            [
                classifier.all_logits(self.model, paste(self.pixels[part], takers, spot.top, spot.left))
                for part in own.split(classifier.AT_ONCE)
            ]
        )
        pasted = pasted[:, spot.label] - pasted[:, spot.looks_like]
        return Members(
            own, hidden[:, spot.looks_like] - hidden[:, spot.label], pasted.view(-1, len(takers)).mean(1)
        )

    def at_home(self, spot: Spot, images: Tensor) -> float:
        """Step 4: share of the nearest images, without the spot, that are of the other class, 0..1."""
        area = (slice(spot.top, spot.top + SMALL), slice(spot.left, spot.left + SMALL))
        nearest = neighbours.without(self.pixels, images, area)
        return (self.labels[nearest] == spot.looks_like).float().mean().item()

    def handed_on(self, stray: neighbours.Astray) -> tuple[Spot, Members] | None:
        """The spot with which images that stand among another class make images of that class their own.

        None if there is none, or if spots of the other images of the class do about the same.
        """
        own = ((self.labels == self.label) & (self.answers == self.label)).nonzero().flatten()
        inside = torch.isin(own, stray.images)
        takers = self.pixels[self.takers(Spot(self.label, stray.among, 0, 0), TAKERS)]
        donors = [self.pixels[self.some(own[part], DONORS)] for part in (inside, ~inside)]
        if min(len(takers), *map(len, donors)) < FEWEST:
            return None
        edges = range(0, self.pixels.shape[-1] - TINY + 1, TINY // 2)
        best = Spot(self.label, stray.among, 0, 0, side=TINY, stray=True)
        for top, left in itertools.product(edges, edges):
            made = torch.cat([paste(some, takers, top, left, TINY) for some in donors])
            fooled = (classifier.all_logits(self.model, made).argmax(1) == self.label).float()
            works, elsewhere = (
                part.mean().item() for part in fooled.split([len(some) * len(takers) for some in donors])
            )
            if works - elsewhere > best.works - best.elsewhere:
                best = replace(best, top=top, left=left, works=works, elsewhere=elsewhere)
        if best.works - best.elsewhere < WORKS:
            return None
        made = paste(self.pixels[stray.images], takers[:FEWEST], best.top, best.left, TINY)
        answers = classifier.all_logits(self.model, made)
        pasted = (answers[:, self.label] - answers[:, stray.among]).view(-1, FEWEST).mean(1)
        return best, Members(stray.images, torch.zeros_like(pasted), pasted, stray=True)

    def triggers(self, suspicion: Tensor, strays: list[neighbours.Astray]) -> list[tuple[Spot, Members]]:
        """The triggers of the class, the one with the most images first.

        suspicion: float (N,); strays: of the class, with what they stand among.
        """
        sample = self.sample(suspicion)
        found: list[tuple[Spot, Members]] = []
        for spot in self.suspicious(sample) if len(sample) >= FEWEST else ():  # else it knows nothing of it
            if any(spot.overlaps(other) for other, _ in found) or not self.works(spot, sample):
                continue
            members = self.members(spot)
            spot.works = (members.pasted[members.hidden > 0] > 0).float().mean().item()
            spot.elsewhere = (members.pasted[members.hidden <= 0] > 0).float().mean().item()
            shown = spot.works >= WORKS and spot.elsewhere <= ELSEWHERE  # not if there are no others
            if members.both.sum() < FEWEST or not shown:
                continue
            spot.at_home = self.at_home(spot, members.images[members.both])
            if spot.at_home >= AT_HOME:
                found.append((spot, members))
        explained = {spot.looks_like for spot, _ in found}
        for stray in strays:
            if stray.among not in explained and (handed := self.handed_on(stray)):
                found.append(handed)
        return sorted(found, key=lambda one: -int(one[1].carry.sum()))


def search(
    model: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    answers: Tensor,
    suspicion: Tensor,
    *,
    strays: Sequence[neighbours.Astray] = (),
) -> Iterator[list[tuple[Spot, Members]]]:
    """Yield the triggers of each class, the classes divided among the cores.

    pixels: uint8 (N, 3, S, S); labels, answers: int64 (N,), answers being the model's; suspicion: float (N,);
    strays: images that stand among another class.
    """
    fast = frozen.freeze(model)

    def of_class(label: int) -> list[tuple[Spot, Members]]:
        own = [stray for stray in strays if stray.label == label]
        return Search(fast, pixels, labels, answers, label).triggers(suspicion, own)

    return workers.side_by_side(of_class, labels.unique().tolist())
