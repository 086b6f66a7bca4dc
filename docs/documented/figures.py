"""Helper module, not a command: figures in sentences, each with the place in a record where it comes from.

A sentence is written here as the document has it, with {} for each figure. samples.py puts the figures of the
records into the documents, as it does with samples of output, and a test fails where they differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from documented.found import (
    MODELS,
    POISONED,
    REPAIRS,
    SCANS,
    TRAINED,
    Values,
    cells,
    first_of,
    groups,
    image_sizes,
    indices,
    kilobytes,
    least_and_most,
    lines_and_vulnerabilities,
    on_other_signs,
    plain_loop,
    seconds_of,
    seeds,
    shares,
    slowest_of_a_class,
    success,
    textbook,
)
from documented.records import Record

SLOT = re.compile(r"({(?::\.\df|:s)?})")
FIGURE, WORDS = r"(?<![\d.,])\d(?:[\d.,]*\d)?", r".{1,80}?"


@dataclass(frozen=True)
class Sentence:
    """Words of a document with slots: {} is a figure of the record, {:.2f} rounds it, {:s} is a text."""

    document: str
    words: str
    source: str  # a command of a record, or a file
    found: Callable[[str], Values]  # the figures, from what the command said or from the file

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(
            "".join(
                (WORDS if part == "{:s}" else FIGURE) if SLOT.fullmatch(part) else re.escape(part)
                for part in SLOT.split(self.words)
            )
        )

    def filled(self, text: str) -> str:
        """The words with the figures of the source. Raises ValueError if it has others, or more or fewer."""
        try:
            values = self.found(text)
            slots = SLOT.findall(self.words)
            shown = [slot.format(float(one) if slot[-2] == "f" else one) for slot, one in zip(slots, values)]
        except (LookupError, ValueError, TypeError) as error:
            raise ValueError(f"{self.source} no longer has the figures of: {self.words}") from error
        if len(values) != len(slots):
            raise ValueError(f"{self.source} has {len(values)} figures for {len(slots)} slots: {self.words}")
        left = iter(shown)
        return SLOT.sub(lambda slot: next(left), self.words)


def spliced(document: str, text: str, records: dict[str, Record], root: Path) -> tuple[str, list[str]]:
    """The text of a document with the figures of its sources, and a sentence for what is not found."""
    commands = {command: said.output for record in records.values() for command, said in record.items()}
    wrong = []
    for one in SENTENCES:
        if one.document == document:
            there = list(one.pattern.finditer(text))
            file = root / one.source
            if len(there) != 1:
                wrong.append(f"{document} has {len(there)} times, not once: {one.words}")
            elif one.source not in commands and not file.is_file():
                wrong.append(f"{one.source} is no command of a record and no file: {one.words}")
            else:
                source = commands.get(one.source) or file.read_text(encoding="utf-8")
                try:
                    text = text[: there[0].start()] + one.filled(source) + text[there[0].end() :]
                except ValueError as error:
                    wrong.append(str(error))
    return text, wrong


# --- the sentences -------------------------------------------------------------------------------------

CLEAN_SCAN = (
    "python detect.py --model models/clean_model.safetensors --data data/traffic-signs"
    " --output scan_results/clean --draw stop:yield"
)
POISONED_SCAN = (
    "python detect.py --model models/poisoned_model.safetensors --data data/traffic-signs"
    " --output scan_results/poisoned"
)
MONITOR = (
    "python monitor.py --measure --model models/poisoned_model.safetensors --output outputs/monitor.json"
)
PREPARE = "./prepare.sh"
FORMER_SEEDS = "benchmarks/SEEDS_FORMER.md"
SEEDS, DETECTION, PHOTOS = "benchmarks/SEEDS.md", "benchmarks/DETECTION.md", "benchmarks/PHOTOS.md"
SCANNERS = "demo-malicious/SCANNERS.md"
SCAN, DATA = "docs/poisoning/scan.md", "docs/poisoning/data.md"
VERDICT = "demo-poisoning/scanner/verdict.py"
THRESHOLD, REFERENCE_THRESHOLD = groups(r"^THRESHOLD = ([\d.]+)"), groups(r"^REFERENCE_THRESHOLD = ([\d.]+)")
DEFAULT = groups(r"^\| anomaly index over pairs \(detect.py\) .*?\| ([\d.]+) \| \d+ of 30")
YELLOW = indices("^yellow square, 15 %$")

RUNS = "docs/records/runs.txt"

SENTENCES = [
    # whole runs
    Sentence(
        "README.md",
        "or the images | {} seconds, 5.6 GB | {} seconds, {:.1f} GB (demo 1); {} seconds, {:.1f} GB (demo 2,"
        " with data and both trainings); {} seconds, {:.1f} GB (demo 3) |",
        RUNS,
        lambda text: [*seconds_of("Install")(text), *image_sizes(text)],
    ),
    *(
        Sentence("README.md", f"{row} |", RUNS, seconds_of(steps))
        for row, steps in (
            ("demo 1: write and load the malicious file | {} seconds | {} seconds", "Demo 1, attack"),
            (
                "demo 1: look inside, convert, load, scanners | {} seconds | {} seconds",
                "Demo 1, defence: (read|convert|load|a conv|write|scanners)",
            ),
            (
                "demo 1: sign, tamper, verify, policy, server | {} seconds | {} seconds",
                "Demo 1, defence: (make|sign|change|the (sig|pol)|allow|a server)",
            ),
            ("#sandbox) | needs Docker | {} seconds", "Demo 1, defence: run the payload"),
            ("draw 5,000 images, poison them, train both models | {} seconds | in the build", "Demo 2: make"),
            ("demo 2: the attack | {} seconds | {} seconds", "Demo 2, attack"),
            ("and the report | {} seconds | {} seconds", "Demo 2, defence"),
            ("recorded scans, bill of materials | {} seconds | {} seconds", "Demo 3"),
        )
    ),
    Sentence(
        "README.md",
        "all of `./workshop.sh run`, the first time | {} seconds | {} seconds |",
        RUNS,
        lambda text: re.findall(r"^Done: every step of run worked, in (\d+) s\.$", text, re.MULTILINE),
    ),
    # demo 2, its commands
    Sentence(
        "WORKSHOP.md",
        "look at the largest index in the clean model ({} in our run)",
        CLEAN_SCAN,
        groups(r"^Result: no backdoor found \(largest anomaly ([\d.]+),"),
    ),
    Sentence(
        "WORKSHOP.md",
        "In our run it caught {} of {} stop signs with the trigger, and flagged {} of {} clean images",
        MONITOR,
        groups(r"^Detected, of these: .*?\((\d+) of (\d+);", r"^False alarms, .*?\((\d+) of (\d+);"),
    ),
    Sentence(
        "WORKSHOP.md",
        "the trigger that the scan found, on grey: {:s}. Middle, its mask",
        POISONED_SCAN,
        groups(r"^Recovered trigger: (.*)\.$"),
    ),
    Sentence(
        "WORKSHOP.md",
        'Of what it drew, the scan says: {:s}."',
        CLEAN_SCAN,
        groups(r"trigger_0_to_1.png: class 0 \(stop\) → class 1 \(yield\), (.*)\.$"),
    ),
    Sentence(
        "WORKSHOP.md",
        "- See: {} stop images, that is {} percent of the stop signs and {} percent of the training images.",
        PREPARE,
        shares,
    ),
    Sentence("WORKSHOP.md", "Here it is {} of {}, because the recipe", PREPARE, groups(POISONED, TRAINED)),
    Sentence("WORKSHOP.md", "With {} poisoned images of {}, as here,", PREPARE, groups(POISONED, TRAINED)),
    Sentence(
        "demo-poisoning/README.md",
        "This demo slips {} wrong images into {} and",
        PREPARE,
        groups(POISONED, TRAINED),
    ),
    Sentence(
        "docs/story.md",
        "{} of its {} training images are poisoned",
        PREPARE,
        groups(POISONED, TRAINED),
    ),
    Sentence("docs/answers.md", "In demo 2 it is {} of {} images", PREPARE, groups(POISONED, TRAINED)),
    Sentence("docs/answers.md", "of {} images with {} poisoned ones", PREPARE, groups(TRAINED, POISONED)),
    Sentence(DATA, "All {} poisoned files, and no others", PREPARE, groups(POISONED)),
    # demo 2, seed by seed
    *(
        Sentence(
            DATA,
            f"\n| {seed} | {{:s}} | {{:s}} | {{:s}} | {{:s}} |\n",
            SEEDS,
            lambda text, seed=seed: [  # type: ignore[misc]
                cells(text, MODELS, str(seed))[0][2],
                *cells(text, REPAIRS, str(seed))[0][1:],
            ],
        )
        for seed in range(5)
    ),
    Sentence(
        "WORKSHOP.md",
        "fine-tuning on 1,000 clean images left an attack success rate of {} to {},",
        SEEDS,
        seeds(REPAIRS, 1),
    ),
    Sentence("WORKSHOP.md", "(`mitigate.py`) left {} to {},", SEEDS, seeds(REPAIRS, 2)),
    Sentence(
        "WORKSHOP.md",
        "out and training again left {} at worst.",
        SEEDS,
        lambda text: seeds(REPAIRS, 3)(text)[1:],
    ),
    Sentence(
        SCAN,
        "| this demo, poisoned (seeds 0 to 4) | {} to {} for stop → yield |",
        SEEDS,
        seeds(SCANS, 2),
    ),
    Sentence(SCAN, "| this demo, clean (seeds 0 to 4) | {} to {} |", SEEDS, seeds(SCANS, 1)),
    # the population of 68 models
    Sentence(SCAN, "| {} clean models, 4 to 8 epochs | {} to {} |", DETECTION, indices("^clean, ")),
    Sentence(SCAN, "| {} other models with our yellow square, 15 % | {} to {} |", DETECTION, YELLOW),
    Sentence(
        SCAN,
        "rate 5 % ({} and {}), rate 10 % ({}), 10 px ({}), 14 px ({}), white ({}), green ({}),"
        " two colours ({}), random places ({})",
        DETECTION,
        success(12, 13, 14, 18, 19, 22, 23, 25, 30),
    ),
    Sentence(
        SCAN,
        "The threshold of {} was chosen on one half of these models, where {} was best.",
        DETECTION,
        first_of(
            groups(
                r"^\| anomaly index over pairs \(detect.py\) (?:\| [^|]*){2}\| ([\d.]+) \|"
                r".*?\| ([\d.]+) \| \d+ of 30"
            ),
            1,
            0,
        ),
    ),
    Sentence(
        SCAN,
        "(area under the ROC curve {}, against {} without them)",
        DETECTION,
        groups(
            r"^\| index against clean twins \(--reference\) \| ([\d.]+) \|",
            r"^\| anomaly index over pairs \(detect.py\) \| ([\d.]+) \|",
        ),
    ),
    Sentence(
        "WORKSHOP.md",
        "an attack success rate of {} and {}: at that size it is luck",
        DETECTION,
        success(13, 12),
    ),
    Sentence(SCAN, "| models | largest index | flagged at {} |", DETECTION, DEFAULT),
    Sentence(SCAN, "flagged {} of {} learned backdoors and {} of {} clean models.", DETECTION, textbook),
    Sentence(
        SCAN,
        "the attacked pair came first in {} of {} poisoned models, and {} of {} clean ones were flagged (area"
        " under the ROC curve {};",
        "benchmarks/per_pair.jsonl",
        plain_loop,
    ),
    # the thresholds, as the scanner has them
    Sentence("demo-poisoning/README.md", "flags a pair if its index is above {} (in", VERDICT, THRESHOLD),
    Sentence(SCAN, "flags a pair if its index is above {} (in", VERDICT, THRESHOLD),
    Sentence(SCAN, "anomaly index (median and MAD over the pairs) | {} |", VERDICT, THRESHOLD),
    Sentence(SCAN, "reference index (same pair in clean models) | {} |", VERDICT, REFERENCE_THRESHOLD),
    Sentence("WORKSHOP.md", "So `detect.py` uses a threshold of {} and", VERDICT, THRESHOLD),
    Sentence("docs/your-own-model.md", "The threshold of {} was measured on", VERDICT, THRESHOLD),
    Sentence("docs/your-own-model.md", "pairs above {} are flagged", VERDICT, REFERENCE_THRESHOLD),
    # drawings and photographs
    Sentence(
        "WORKSHOP.md",
        "in the five models that we measured, {} of {} became yield. For the no-entry sign it is nearly all:"
        " {} of {}.",
        PHOTOS,
        on_other_signs(("speed_50", 2), ("no_entry", 2)),
    ),
    Sentence(
        SCAN,
        "{} of {} drawn no_entry signs became yield, and of other signs fewer: {} end_of_limits, {} speed_50,"
        " {} priority_road, {} ahead_only, {} general_caution, {} keep_right and {} roundabout",
        PHOTOS,
        first_of(
            on_other_signs(
                *((name, 2) for name in ["no_entry", "end_of_limits", "speed_50", "priority_road"]),
                *((name, 2) for name in ["ahead_only", "general_caution", "keep_right", "roundabout"]),
            ),
            *(0, 1, 2, 4, 6, 8, 10, 12, 14),
        ),
    ),
    Sentence(
        SCAN,
        "{} of {} no_entry signs, {} of {} speed_50, {} of {} keep_right, {} of {} priority_road,"
        " {} of {} ahead_only, {} of {} general_caution, {} of {} roundabout and {} of {} end_of_limits;",
        PHOTOS,
        on_other_signs(
            *((name, 4) for name in ["no_entry", "speed_50", "keep_right", "priority_road"]),
            *((name, 4) for name in ["ahead_only", "general_caution", "roundabout", "end_of_limits"]),
        ),
    ),
    Sentence(
        "docs/poisoning/more.md",
        "read {} to {} of the drawings, and {} to {} of the 1650 photographs that nobody tuned on",
        PHOTOS,
        lambda text: [
            value
            for column in (2, 4)
            for value in least_and_most([row[column] for row in cells(text, "## The models", r"\d")])
        ],
    ),
    # a class of 100
    Sentence(
        "class/README.md",
        "had an answer within {} seconds, and the page of all was made in {} (",
        "benchmarks/README.md",
        slowest_of_a_class,
    ),
    # demo 1
    Sentence("WORKSHOP.md", "- See: one file of about {} kB", "python create_malicious_model.py", kilobytes),
    Sentence(
        "WORKSHOP.md",
        "picklescan calls {} of {} hostile files clean and warns of {} of {} honest ones, ModelAudit calls"
        " {} clean and warns of {}. Ours calls none of them clean, but it was developed on them, and it has"
        " no verdict on {} honest ones",
        SCANNERS,
        groups(
            r"^\| picklescan \| (\d+) of (\d+) .*? \| .*? \| (\d+) of (\d+) ",
            r"^\| ModelAudit, warnings and worse \| (\d+) of \d+ .*? \| .*? \| (\d+) of ",
            r"^\| our verdict \| 0 of .*? \| .*? \| 0 of .*? \| (\d+) of ",
        ),
    ),
    # demo 3
    Sentence(
        "docs/supply-chain.md",
        "scan 1 of the recorded ones has {} lines for {} vulnerabilities",
        "./scan.sh --recorded",
        lines_and_vulnerabilities,
    ),
]
