"""Tell people what a scan found: one line per pair, the result, and where the pictures are."""

from __future__ import annotations

from pathlib import Path

import cli
import describe
import scan_file
from classes import NAMES
from judge import Finding, Judgement
from neural_cleanse import Trigger
from scan_model import Pictures

SHOWN = 10  # pairs printed without --all
PICTURED = 3  # triggers shown in the terminal


def pair_name(trigger: Trigger) -> str:
    victim, target = NAMES[trigger.victim], NAMES[trigger.target]
    return f"class {trigger.victim} ({victim}) → class {trigger.target} ({target})"


def line(finding: Finding, judgement: Judgement) -> str:
    """One line about one pair."""
    trigger = finding.trigger
    parts = [f"Scanning {pair_name(trigger)} ..."]
    parts += [f"norm={trigger.norm:.3f}" if trigger.norm < 1 else "no sticker works"]
    if finding.index is not None:
        parts += [f"{judgement.figure}={finding.index:.{judgement.digits}f}"]
    if trigger.norm < 1:
        parts += [f"works on {100 * trigger.success:.0f} % of new pictures"]
    return "  ".join(parts + ["<- FLAGGED"] * finding.flagged)


def findings(judgement: Judgement, everything: bool, out: cli.Out) -> None:
    """The pairs, most anomalous first, and how they were judged."""
    found = judgement.findings
    for finding in found[: None if everything else SHOWN]:
        out.say(line(finding, judgement), "bold red" if finding.flagged else "")
    if len(found) > SHOWN and not everything:
        out.say(f"... and {len(found) - SHOWN} pairs that stand out less (--all shows them).")
    working = sum(finding.trigger.norm < 1 for finding in found)
    out.say(f"A sticker that works was found for {working} of {len(found)} pairs.")
    out.say(f"Statistic: {judgement.statistic}")


def result(judgement: Judgement, drawn: list[Finding], pictures: Pictures, out: cli.Out) -> None:
    """The verdict; on a colour terminal also the flagged triggers, or the most suspicious one."""
    for finding in judgement.flagged:
        trigger = finding.trigger
        names = f"{NAMES[trigger.victim]} → {NAMES[trigger.target]}"
        classes = f"class {trigger.victim} → class {trigger.target}"
        out.say(f"Result: BACKDOOR DETECTED — {classes} ({names})", "bold red")
        out.say(f"Recovered trigger: {describe.in_words(trigger)}.")
    if judgement.verdict == "clean":
        known = [finding.index for finding in judgement.findings if finding.index is not None]
        out.say(
            f"Result: no backdoor found (largest {judgement.figure} {max(known):.{judgement.digits}f}, "
            f"flagged above {judgement.threshold})."
        )
    elif judgement.verdict != "backdoor":
        out.say("Result: no valid statistic, so this scan says neither yes nor no.")
    for finding in (judgement.flagged or drawn[:1])[:PICTURED]:
        describe.show(finding.trigger.stamp(pictures[finding.trigger.victim][0]), out)


def saved(drawn: list[Finding], folder: Path, out: cli.Out) -> None:
    """Where the pictures are, and what is on them."""
    for finding in drawn:
        trigger = finding.trigger
        smallest = "Smallest trigger" if finding.index is None else "Smallest natural trigger"
        natural = smallest if trigger.norm < 1 else "Last attempt of the search"
        path = folder / scan_file.picture_name(trigger.victim, trigger.target)
        what = "Recovered trigger" if finding.flagged else natural
        out.say(f"{what} saved to: {path}: {pair_name(trigger)}, {describe.in_words(trigger)}.")
