"""What a scan found, as data: one ScanResult, written to scan.json and read from there by everything else.

The triggers themselves, masks and patterns, lie beside it in triggers.safetensors. A folder may come from
somebody else, so nothing in it is believed before it is checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass
from safetensors.torch import load, save_file
from torch import Tensor

import cli
from dataset.classes import NAMES
from network import classifier
from network.adapter import Network
from scanner import describe
from scanner.neural_cleanse import Trigger
from scanner.search import Pair, Settings
from scanner.verdict import AMONG_PAIRS, NO_STATISTIC, Statistic, is_above, is_near

NAME, TRIGGERS = "scan.json", "triggers.safetensors"
LARGEST = 20_000_000  # bytes of scan.json; all 1806 pairs of 43 classes need less than one million

Share = Annotated[float, Field(ge=0, le=1)]
PATH_MAX = 4096  # no path is longer
Printable = Annotated[str, Field(max_length=PATH_MAX, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
Verdict = Literal["backdoor", "clean", "no valid statistic", "not calibrated"]

CHECKED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(config=CHECKED)
class PairResult:
    """One pair of classes."""

    victim: str
    target: str
    norm: Annotated[float, Field(gt=0, le=1)] | None  # of the smallest trigger; None: no trigger found
    anomaly_index: float | None  # what the statistic gives; None where it says nothing
    held_out: Share  # share of new images that the trigger turns into the target
    flagged: bool
    image: str | None  # drawing of the trigger, beside scan.json; None: not drawn
    description: Printable

    @property
    def name(self) -> str:
        return f"{self.victim} → {self.target}"

    def __post_init__(self) -> None:
        self.classes: Sequence[str] = NAMES

    @property
    def numbers(self) -> Pair:
        """The class numbers of victim and target."""
        return self.classes.index(self.victim), self.classes.index(self.target)


@dataclass(config=CHECKED)
class ScanResult:
    """The scan of one model, the most suspicious pair first."""

    tool: Literal["detect.py"]
    format: Literal[2]  # 1 had other names, and no number of its own
    model: Printable  # the file that was scanned
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    data: Printable  # folder of the clean images
    classes: list[Printable]
    input_size: Annotated[int, Field(gt=0)]  # pixels, width and height of what the network sees
    steps: Annotated[int, Field(gt=0)]
    samples: Annotated[int, Field(gt=0)]
    seed: Annotated[int, Field(ge=0)]
    references: list[Printable]  # the known-clean models that it was compared with
    statistic: Printable  # its name
    explanation: Printable  # the same in a sentence
    threshold: Annotated[float, Field(gt=0)]  # of the anomaly index
    verdict: Verdict
    seconds: Annotated[float, Field(ge=0)]
    pairs: Annotated[list[PairResult], Field(min_length=1)]
    near_threshold: bool = False  # another search might decide otherwise
    easily_turned: list[str] = Field(default_factory=list)  # victims of which almost every pair is small
    network: Printable = ""  # another network than that of train.py (--arch), and what it was shown
    not_calibrated: Printable = ""  # why the error rates of the threshold do not hold for it; empty: they do
    last_layer: Printable = ""  # second opinion: the class that stands out there; empty: none, or not asked

    @model_validator(mode="after")
    def _holds_together(self) -> ScanResult:
        """Raise ValueError if one part contradicts another."""
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class comes twice")
        if not self.network and self.classes != list(NAMES[: len(self.classes)]):
            raise ValueError("other classes")
        if self.network and self.statistic == AMONG_PAIRS and not self.not_calibrated:
            raise ValueError("an index among pairs was never calibrated for other networks")
        if len({pair.name for pair in self.pairs}) < len(self.pairs):
            raise ValueError("a pair comes twice")
        for pair in self.pairs:
            pair.classes = self.classes
            if pair.victim == pair.target or not {pair.victim, pair.target} <= set(self.classes):
                raise ValueError("a pair of unknown classes")
            if pair.flagged != is_flagged(pair.anomaly_index, self.threshold, self.not_calibrated):
                raise ValueError("the flag is not that of the index")
            if pair.image not in (None, image_name(*pair.numbers)):  # a path could lead anywhere
                raise ValueError("an image of another name")
        if self.verdict != _verdict(self.statistic, self.not_calibrated, self.pairs):
            raise ValueError("the verdict is not that of the pairs")
        if not set(self.easily_turned) <= {pair.victim for pair in self.pairs}:
            raise ValueError("a class that was not scanned")
        if self.last_layer and self.last_layer not in self.classes:
            raise ValueError("the last layer has no such class")
        if self.near_threshold and not is_near(self.largest, self.threshold):
            raise ValueError("not near the threshold")
        return self

    def to_json(self) -> str:
        return SCAN_RESULT.dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> ScanResult:
        """Raises ValueError if the text is not a scan of ours, or contradicts itself."""
        return SCAN_RESULT.validate_json(text)

    @property
    def flagged(self) -> list[PairResult]:
        return [pair for pair in self.pairs if pair.flagged]

    @property
    def largest(self) -> float | None:
        """The largest anomaly index; None if no pair has one."""
        return max((one.anomaly_index for one in self.pairs if one.anomaly_index is not None), default=None)

    @property
    def drawn(self) -> list[PairResult]:
        return [pair for pair in self.pairs if pair.image]

    @property
    def settings(self) -> str:
        """How the search was set, in words."""
        words = f"{self.steps} steps, {self.samples} images per class, seed {self.seed}"
        return words + (f", compared with {', '.join(self.references)}" if self.references else "")

    @property
    def norms(self) -> dict[Pair, float | None]:
        """The norm of each pair of class numbers."""
        return {pair.numbers: pair.norm for pair in self.pairs}

    def show(self, index: float | None) -> str:
        """An anomaly index for people."""
        if index is None:
            return "none"
        return f"{round(index, 1) + 0.0:.1f}"  # + 0.0 makes 0.0 of -0.0


SCAN_RESULT = TypeAdapter(ScanResult)


def is_flagged(anomaly_index: float | None, threshold: float, not_calibrated: str) -> bool:
    """Whether a pair is flagged: never where nobody knows how often clean models have such an index."""
    return is_above(anomaly_index, threshold) and not not_calibrated


def _verdict(statistic: str, not_calibrated: str, pairs: list[PairResult]) -> Verdict:
    if statistic == NO_STATISTIC:
        return "no valid statistic"
    if not_calibrated:
        return "not calibrated"
    return "backdoor" if any(pair.flagged for pair in pairs) else "clean"


def summarize(
    model: Path,
    triggers: list[Trigger],
    statistic: Statistic,
    settings: Settings,
    *,
    sha256: str,
    classes: int,
    references: list[Path],
    seconds: float,
    network: Network | None = None,
    last_layer: str = "",
) -> ScanResult:
    """The result of a scan; pairs with no anomaly index come last. None of them is drawn yet."""
    pairs = [
        PairResult(
            victim=settings.names[trigger.victim],
            target=settings.names[trigger.target],
            norm=trigger.norm,
            anomaly_index=index,
            held_out=trigger.success,
            flagged=is_flagged(index, statistic.threshold, statistic.not_calibrated),
            image=None,
            description=describe.in_words(trigger),
        )
        for trigger, index in zip(triggers, statistic.anomaly_index)
    ]
    low = float("inf")
    pairs.sort(key=lambda one: (low if one.anomaly_index is None else -one.anomaly_index, one.norm or 1))
    return ScanResult(
        tool="detect.py",
        format=2,
        model=_printable(model),
        sha256=sha256,
        data=_printable(settings.data),
        classes=list(settings.names[:classes]),
        input_size=settings.size or classifier.INPUT,
        steps=settings.steps,
        samples=settings.samples,
        seed=settings.seed,
        references=[_printable(path) for path in references],
        statistic=statistic.name,
        explanation=statistic.explanation,
        threshold=statistic.threshold,
        verdict=_verdict(statistic.name, statistic.not_calibrated, pairs),
        seconds=round(seconds, 1),
        pairs=pairs,
        near_threshold=not statistic.not_calibrated and is_near(pairs[0].anomaly_index, statistic.threshold),
        network=str(network or ""),
        not_calibrated=statistic.not_calibrated,
        easily_turned=[settings.names[victim] for victim in statistic.easily_turned],
        last_layer=last_layer,
    )


def _printable(path: Path) -> str:
    """A path as text that any program can read; bytes that are not UTF-8 become escapes."""
    text = str(path).encode(errors="backslashreplace").decode()
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


# --- The folder of a scan ---------------------------------------------------------------------------


def image_name(victim: int, target: int) -> str:
    return f"trigger_{victim}_to_{target}.png"


def sha256(path: Path) -> str:
    """The SHA-256 checksum of a file, in hexadecimal digits."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            sha.update(part)
    return sha.hexdigest()


def write(
    folder: Path, result: ScanResult, triggers: dict[Pair, Trigger], examples: dict[int, Tensor]
) -> None:
    """Replace an earlier scan: draw these triggers, write their tensors, and last scan.json.

    triggers: those to draw; examples: an image of each victim class, float (3, S, S) in 0..1.
    """
    _remove_old(folder)
    tensors = {}
    for pair in result.pairs:
        if trigger := triggers.get(pair.numbers):
            pair.image = image_name(*pair.numbers)
            describe.draw(trigger, examples[trigger.victim], folder / pair.image)
            key = f"{trigger.victim}_to_{trigger.target}"
            tensors[f"mask_{key}"] = trigger.mask.float().contiguous()  # (S, S), 0 see-through to 1 opaque
            tensors[f"pattern_{key}"] = trigger.pattern.float().contiguous()  # (3, S, S) in 0..1
    with cli.atomic_write(folder / TRIGGERS) as scratch:
        save_file(tensors, scratch)
    with cli.atomic_write(folder / NAME) as scratch:
        scratch.write_text(result.to_json() + "\n", encoding="utf-8")


def _remove_old(folder: Path) -> None:
    """Remove what an earlier scan left; first scan.json, so that it never names an image that is gone."""
    for old in (folder / NAME, folder / TRIGGERS, *sorted(folder.glob("trigger_*_to_*.png"))):
        try:
            old.unlink(missing_ok=True)
        except OSError as error:
            raise cli.UserError(f"Cannot replace {old} ({error.strerror}): free it and try again.") from error


def read(path: Path) -> ScanResult:
    """Read a scan.json, or the one in a folder. Raises UserError if it is missing or not a scan of ours."""
    path = path / NAME if path.is_dir() else path
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("too large")
        return ScanResult.from_json(path.read_bytes())
    except FileNotFoundError as error:
        raise cli.UserError(f"{path} does not exist: scan a model with detect.py first.") from error
    except OSError as error:
        raise cli.UserError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    except ValueError as error:
        raise cli.UserError(
            f"{path} is damaged, contradicts itself, or comes from another version of detect.py: "
            "scan the model again."
        ) from error


def read_triggers(folder: Path, result: ScanResult) -> list[tuple[PairResult, Trigger]]:
    """The triggers that a scan has drawn: masks (S, S) and patterns (3, S, S), float 0..1, S = INPUT.

    Raises UserError if their file is missing or does not belong to this result.
    """
    path = folder / TRIGGERS
    if result.network:
        raise cli.UserError(
            f"{folder / NAME} is about another network ({result.network}), and this needs one of train.py: "
            "its triggers are drawn beside it."
        )
    if result.input_size != classifier.INPUT:
        raise cli.UserError(
            f"{folder / NAME} is about images of {result.input_size} pixels, our models see "
            f"{classifier.INPUT}: scan the model again with detect.py."
        )
    if not result.drawn:
        return []
    if not path.is_file():
        raise cli.UserError(f"{path} does not exist: scan the model again with detect.py.")
    try:
        tensors = load(path.read_bytes())  # load_file() takes no path that is not UTF-8
        return [(pair, _trigger(pair, tensors)) for pair in result.drawn]
    except Exception as error:  # a damaged file can make the reader fail in any way
        raise cli.UserError(
            f"{path} is damaged or not that of the scan.json beside it: scan the model again with detect.py."
        ) from error


def _trigger(pair: PairResult, tensors: dict[str, Tensor]) -> Trigger:
    """Raises KeyError or ValueError if it is not there, or cannot be one."""
    victim, target = pair.numbers
    mask = tensors[f"mask_{victim}_to_{target}"].float()
    pattern = tensors[f"pattern_{victim}_to_{target}"].float()
    size = (classifier.INPUT, classifier.INPUT)
    if mask.shape != size or pattern.shape != (3, *size):
        raise ValueError("another size of images")
    if not all(((part >= 0) & (part <= 1)).all() for part in (mask, pattern)):
        raise ValueError("values that are not pixels")
    return Trigger(victim, target, pair.norm, mask, pattern, pair.held_out)
