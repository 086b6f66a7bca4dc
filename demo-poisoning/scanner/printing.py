"""What people read of a scan: one line per pair, the result, and where the drawings are."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

import cli
from scanner import describe
from scanner.neural_cleanse import Trigger
from scanner.result import PairResult, ScanResult
from scanner.search import Pair

SHOWN = 10  # pairs printed without --all
DISPLAYED = 3  # triggers shown in the terminal


def pair_name(pair: PairResult) -> str:
    victim, target = pair.numbers
    return f"class {victim} ({pair.victim}) → class {target} ({pair.target})"


def line(pair: PairResult, result: ScanResult) -> str:
    """One line about one pair."""
    parts = [f"Scanning {pair_name(pair)} ..."]
    parts += ["no trigger found" if pair.norm is None else f"norm={pair.norm:.3f}"]
    if pair.anomaly_index is not None:
        parts += [f"anomaly={result.show(pair.anomaly_index)}"]
    if pair.norm is not None:
        parts += [f"works on {100 * pair.held_out:.0f} % of new images"]
    return "  ".join(parts + ["<- FLAGGED"] * pair.flagged)


def findings(result: ScanResult, everything: bool, out: cli.Out) -> None:
    """The pairs, most anomalous first, and the statistic."""
    for pair in result.pairs[: None if everything else SHOWN]:
        out.say(line(pair, result), "bold red" if pair.flagged else "")
    if len(result.pairs) > SHOWN and not everything:
        out.say(f"... and {len(result.pairs) - SHOWN} pairs that stand out less (--all shows them).")
    working = sum(pair.norm is not None for pair in result.pairs)
    out.say(f"A trigger that works was found for {working} of {len(result.pairs)} pairs.")
    out.say(f"Statistic: {result.explanation}")


def verdict(
    result: ScanResult, triggers: dict[Pair, Trigger], examples: dict[int, Tensor], out: cli.Out
) -> None:
    """The verdict; on a colour terminal also the flagged triggers, or the most suspicious one.

    triggers: those that were drawn; examples: an image of each victim class, float (3, S, S) in 0..1.
    """
    for pair in result.flagged:
        victim, target = pair.numbers
        out.say(
            f"Result: BACKDOOR DETECTED — class {victim} → class {target} ({pair.victim} → {pair.target})",
            "bold red",
        )
        out.say(f"Recovered trigger: {pair.description}.")
    if result.verdict == "clean":
        largest = result.largest
        found = "no small trigger works" if largest is None else f"largest anomaly {result.show(largest)}"
        out.say(f"Result: no backdoor found ({found}, flagged above {result.threshold}).")
    elif result.not_calibrated:
        out.say(f"Result: not calibrated, so this scan says neither yes nor no: {result.not_calibrated}.")
    elif result.verdict != "backdoor":
        out.say("Result: no valid statistic, so this scan says neither yes nor no.")
    if result.easily_turned:
        out.say(f"Not judged: {not_judged(result)}")
    if result.near_threshold:
        out.say(f"Close call: {near(result)}")
    if result.last_layer:
        out.say(f"Second opinion: {second_opinion(result)}")
    for pair in (result.flagged or result.drawn[:1])[:DISPLAYED]:
        trigger = triggers[pair.numbers]
        describe.show(trigger.stamp(examples[trigger.victim]), out)


def not_judged(result: ScanResult) -> str:
    """Which classes cannot be judged by their own pairs, and what to do, in two sentences."""
    victims = ", ".join(result.easily_turned)
    return (
        f"{victims}, because a small trigger turns the class into almost any other and a backdoor would not "
        "stand out. Train it with more images, or compare with known-clean models (--reference)."
    )


def near(result: ScanResult) -> str:
    """What to do about a verdict that another search might turn, in two sentences."""
    also = "" if result.references else ", or compare with known-clean models (--reference)"
    return (
        f"{result.show(result.largest)} lies near the threshold of {result.threshold}. "
        f"Scan again with another --seed{also}."
    )


def second_opinion(result: ScanResult) -> str:
    """What the last layer says, and what to do, in two sentences."""
    return (
        f"{result.last_layer} stands out in the last layer, as the target of a trigger does, patch or not. "
        "That proves nothing yet: look at the training images of that class (audit_data.py)."
    )


def saved(result: ScanResult, folder: Path, out: cli.Out) -> None:
    """Where the drawings are, and what they show."""
    for pair in result.drawn:
        smallest = "Smallest trigger" if pair.anomaly_index is None else "Smallest natural trigger"
        natural = "Last attempt of the search" if pair.norm is None else smallest
        what = "Recovered trigger" if pair.flagged else natural
        assert pair.image
        out.say(f"{what} saved to: {folder / pair.image}: {pair_name(pair)}, {pair.description}.")
