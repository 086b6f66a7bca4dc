"""Helper module, not a command: what a run may say otherwise than its record, and what it may not."""

from __future__ import annotations

import difflib
import re

from documented.records import Record, same_as
from documented.typed import Typing, to_type

# What may differ between two runs: the groups of a pattern are figures, which may differ by so much, or in
# any way (None). On another processor another model is trained, so the figures of demo 2 have some room.
VARIES: list[tuple[str, float | None, str]] = [
    (r"\b([0-9a-f]{64}|[0-9a-f]{12})\b", None, "digests of models, keys and files that hold a time"),
    (r"/tmp/changed\.(\w+)", None, "names of scratch folders"),
    (r"(\d+(?:\.\d+)?) seconds?", None, "times"),
    (r"(\d+(?:\.\d+)?) ms", None, "times"),
    (r"\((\d+\.\d) to (\d+\.\d)\)", None, "times, lowest and highest"),
    (r": SafeTensors (was .*)$", None, "which format was faster, and by how much"),
    (r"is another in byte (\d+)", None, "which byte is changed depends on the size"),
    (r"\((\d+) bytes\)", 40, "the size of a pickle depends on the version of PyTorch"),
    (r"classifies (\d+\.\d)%", 5, "accuracy of a small model"),
    (r'^ *"(?:circle|square|triangle)": (\d\.\d+),?$', 0.01, "probabilities of the same small model"),
    (r"at most (\d\.\d+) percent", 0.1, "sizes of two formats"),
    (r"\(torch\.(bfloat16|float32)\)", None, "what this processor is fast in"),
    (r"clean_acc: (\d\.\d\d)", 0.03, "accuracy, another model on another processor"),
    (r"confidence: (\d\.\d\d)", 0.25, "the same"),
    (
        r"attack_success_rate: (\d\.\d\d)",
        0.4,
        "on no-entry signs; test_whole_demo.py is strict on stop signs",
    ),
    (r"found for (\d+) of \d+ pairs", 40, "pairs for which a search found something"),
    (r"the median of (\d+) pairs", 10, "pairs that count"),
    (r"norm=(0\.\d+)", 0.03, "the size of a recovered trigger"),
    (r"anomaly=(\d+\.\d)", 5, "the same, as an index"),
    (r"largest anomaly (\d+\.\d)", 4, "the same"),
    (r"works on (\d+) %", 25, "how often it works"),
    (r"Trying (\d+) recovered", 8, "how many are tried on both models"),
    (r"(?:threshold|Threshold:) (\d\.\d+)", 0.4, "calibrated on the model"),
    (r"score (\d\.\d+)", 0.5, "how much hangs on one patch"),
    (r"(\d+\.\d) % \((\d+) of (\d+); 95 % interval (\d+\.\d) to (\d+\.\d) %\)", 30, "rates of the monitor"),
    (r"reads (\d+) of (\d+) stop", 40, "images that the model knows"),
    (r"(\d+)x(\d+) px are hidden, (\d+) from the left and (\d+) from the top", 24, "where a patch decides"),
    (
        r"^\[trigger\]  ((?:no_entry|yield) .*)$",
        None,
        "a no-entry sign; test_whole_demo.py looks at the others",
    ),
    (r"seconds: (\d+)", None, "times"),
    (r"(\d\.\d\d\d?) \((\d\.\d\d\d?) to (\d\.\d\d\d?)\)", 0.15, "rates after a repair"),
    (r"Flagged (\d) of", 1, "a no-entry sign may go either way"),
    (r"^(\d+) images labelled yield carry", 6, "poisoned images that are found"),
    (r"and (\d+) % of these become yield \((\d+) % with", 50, "the same"),
    (r"(\d+) images carry a trigger\. (\d+) training images", 8, "the same"),
    (r"one by one: (\d+) of the other images, (\d+\.\d) %", 40, "label errors that are none"),
    (r"our ranking.*: (\d\.\d\d); recall among the first 90: (\d\.\d\d)", 0.15, "the audit, measured"),
]
# Lines that depend on the trained model as a whole: a run may have others.
MAY_BE_ANOTHER = re.compile(
    r"^Epoch [1-4]/5|^Epoch [1-5]/6|^Scanning class .*(?<!FLAGGED)$|^Smallest (natural )?trigger"
    r"|^Recovered trigger|^Last attempt|^Clean model: No backdoor found\. |no_entry\.jpg with the trigger: "
    r"|halfway through the network|^- method: (?!our)|^Top suspects"
)


def settled(recorded: str, said: str) -> tuple[str, str]:
    """Both lines, with N for each figure that differs by no more than it may."""
    for pattern, room, _ in VARIES:
        ours, theirs = list(re.finditer(pattern, recorded)), list(re.finditer(pattern, said))
        if len(ours) != len(theirs):
            continue
        for one, other in reversed(list(zip(ours, theirs))):
            for group in range(len(one.groups()), 0, -1):
                if room is None or abs(float(one[group]) - float(other[group])) <= room:
                    recorded = recorded[: one.start(group)] + "N" + recorded[one.end(group) :]
                    said = said[: other.start(group)] + "N" + said[other.end(group) :]
    return recorded, said


def fixed_lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip() and not MAY_BE_ANOTHER.match(line)]


def differences(recorded: str, said: str) -> list[str]:
    """What a run says otherwise than the record: lines with - (record) and + (run)."""
    ours, theirs = fixed_lines(recorded), fixed_lines(said)
    if len(ours) == len(theirs):
        pairs = [settled(one, other) for one, other in zip(ours, theirs)]
        ours, theirs = [one for one, _ in pairs], [other for _, other in pairs]
    return [line for line in difflib.ndiff(ours, theirs) if line[0] in "-+"]


def compare(typing: Typing, record: Record, folder: str) -> list[str]:
    """A sentence for each command that says something else than its record."""
    wrong = list(typing.wrong)
    for command, said in typing.record.items():
        if said.code is None or command in typing.shortened | typing.unrecorded:
            continue
        if command not in record:
            wrong.append(f"{folder}: {command} is in no record: python docs/samples.py --update {folder}")
        elif lines := differences(record[command].output, said.output):
            wrong.append("\n".join([f"{folder}: {command} says something else than its record:", *lines]))
    typed = {same_as(line) for _, line, _ in to_type(folder)}
    typed |= {block.notes.get("first", "") for block, _, _ in to_type(folder)}
    old = [command for command, said in record.items() if said.code is not None and command not in typed]
    return wrong + [f"{folder}: no document types {command}, and a record has it" for command in old]
