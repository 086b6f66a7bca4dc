"""What people get of an audit: the contact sheet, files for programs, and what is printed."""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torchvision.transforms.v2 import functional as F
from torchvision.utils import make_grid

import cli
from auditor import neighbours
from auditor.checks import MANY, STANDS_OUT
from auditor.findings import ERROR, TRIGGER, Audit, Suspect, conflicts
from dataset.classes import NAMES
from dataset.files import open_image

COLUMNS, TILE = 10, 96  # of the contact sheet: images per row, pixels per image
NAMED = 3  # suspects that are named aloud; thirty paths cannot be followed by those who listen


# --- In files ---------------------------------------------------------------------------------------


def contact_sheet(folder: Path, top: list[Suspect], path: Path) -> None:
    """Write the top suspects into one PNG, row by row, COLUMNS images per row."""
    tiles = [open_image(folder / suspect.file).resize((TILE, TILE)) for suspect in top]
    sheet = make_grid([F.pil_to_tensor(tile) for tile in tiles], nrow=COLUMNS, padding=0, pad_value=255)
    with cli.atomic_write(path) as scratch:
        F.to_pil_image(sheet).save(scratch)


def as_record(audit: Audit, options: argparse.Namespace, top: list[Suspect]) -> dict[str, Any]:
    """The audit as one object for programs; of the images only the flagged ones and the top."""
    return {
        "tool": "audit_data.py",
        "data": str(options.data),
        "manifest": str(options.manifest) if options.manifest else None,
        "manifest_sha256": audit.manifest_sha256,
        "model": str(options.model) if options.model else None,
        "verdict": "findings" if audit.findings() else "nothing stands out",
        "findings": audit.kinds(),
        "threshold": STANDS_OUT,
        "changes": asdict(audit.changes) if audit.changes else None,
        "triggers": [asdict(trigger) for trigger in audit.triggers],
        "tracks": audit.tracks,
        "strays": [asdict(stray) for stray in audit.strays],
        "label_errors": audit.errors,
        "groups": [asdict(group) for group in audit.groups],
        "duplicates": audit.duplicates,
        "contact_sheet": [suspect.file for suspect in top],
        "suspects": [asdict(one) for one in audit.ranking if one.flagged or one in top],
        "measured": audit.measured,
    }


def write(audit: Audit, options: argparse.Namespace, top: list[Suspect]) -> None:
    """Write suspects.csv (all images), the contact sheet, and last suspects.json: then all is there."""
    (options.output / "suspects.json").unlink(missing_ok=True)  # else an earlier one beside a new table
    with (
        cli.atomic_write(options.output / "suspects.csv") as scratch,
        scratch.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        table = csv.DictWriter(file, list(asdict(audit.ranking[0])))
        table.writeheader()
        table.writerows(asdict(suspect) for suspect in audit.ranking)
    if top:
        contact_sheet(options.data, top, options.output / "contact_sheet.png")
    else:
        (options.output / "contact_sheet.png").unlink(missing_ok=True)  # that of an earlier audit
    facts = as_record(audit, options, top)
    with cli.atomic_write(options.output / "suspects.json") as scratch:
        scratch.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


# --- In words ---------------------------------------------------------------------------------------


def say_files(audit: Audit, options: argparse.Namespace, out: cli.Out) -> None:
    """Print images per class, and what the manifest and the near-duplicates say."""
    now = Counter(suspect.label for suspect in audit.ranking)
    names = [name for name in NAMES if name in now or name in audit.expected]
    if audit.changes is None:
        out.say("Training images per class: " + ", ".join(f"{name} {now[name]}" for name in names) + ".")
        out.say("No --manifest: nothing to compare the files with.")
    else:
        uneven = [name for name in names if now[name] != audit.expected.get(name, 0)]
        for name in uneven:
            out.say(
                f"Class {name}: {now[name]} training images, {audit.expected.get(name, 0)} in the manifest."
            )
        if not uneven:
            out.say("Every class has as many training images as in the manifest.")
        for what, files in asdict(audit.changes).items():
            ends = [cli.printable(files[end]) for end in (0, -1) if files]
            some = f": {' to '.join(dict.fromkeys(ends))}" if files else ""
            out.say(f"Files {what} since {options.manifest}: {len(files)}{some}.")
    bad = conflicts(audit.duplicates)
    more = " or more" if len(audit.duplicates) >= neighbours.MOST else ""
    out.say(
        f"Near-duplicates: {len(audit.duplicates)}{more} pairs of images, "
        f"{len(bad)} of them with two different labels."
    )
    for one, two in bad[: options.top]:
        out.say(f"- {cli.printable(one)} and {cli.printable(two)} show the same.")


def say_strays(audit: Audit, out: cli.Out) -> None:
    """Print what the neighbours say, or why they were not asked."""
    if not audit.tracks:
        out.say("Neighbours: not asked, because these images come in no tracks (several frames of one sign).")
    for one in audit.strays:
        out.say(
            f"{one.images} images labelled {one.label} stand among images labelled {one.among}, "
            "as frames of one track do  <- STANDS OUT",
            "bold red",
        )


def say_groups(audit: Audit, out: cli.Out) -> None:
    """Print what the inner features say."""
    for group in audit.groups[:5]:
        note = "  <- STANDS OUT" if group.flagged else ""
        s, verb = ("", "looks") if group.images == 1 else ("s", "look")
        out.say(
            f"{group.images} image{s} labelled {group.label} {verb} like "
            f"{group.looks_like} halfway through the network, {100 * group.share:.1f} % of the class, "
            f"{100 * group.clear:.1f} % clearly{note}",
            "bold red" if group.flagged else "",
        )
    if not any(group.flagged for group in audit.groups):
        out.say(
            f"No class has {100 * STANDS_OUT:g} % or more images that clearly look like one other class, "
            f"or {100 * MANY:g} % that do at all."
        )
    say_triggers(audit, out)
    note = "  <- STANDS OUT" if audit.scattered() else ""
    out.say(
        f"Looking mislabelled one by one: {audit.errors} of the other images, "
        f"{100 * audit.errors / len(audit.ranking):.1f} % of all{note}",
        "bold red" if note else "",
    )


def say_triggers(audit: Audit, out: cli.Out) -> None:
    """Print what hiding and pasting small spots says."""
    for one in audit.triggers:
        hidden = f"hide it, and they look like {one.looks_like}; "
        if one.stray:
            hidden = f"they stand among {one.looks_like} images; "
        out.say(
            f"{one.images} images labelled {one.label} carry the same kind of spot, {one.place}: "
            f"{hidden}paste it into {one.looks_like} images, and "
            f"{100 * one.works:.0f} % of these become {one.label} "
            f"({100 * one.elsewhere:.0f} % with that spot of other {one.label} images)  <- BACKDOOR",
            "bold red",
        )
    if not audit.triggers:
        out.say("No small spot decides about some images of a class and not about the others.")


def say_measured(audit: Audit, truth: Path, out: cli.Out) -> None:
    """Print how well each method ranks the images that the attacker's notes name."""
    n = audit.measured[0]["k"]
    out.table(
        f"Measured against {truth}, {n} poisoned images",
        ("method", f"precision among the first {n}", f"recall among the first {n * 3 // 2}"),
        [(m["method"], f"{m['precision_at_n']:.2f}", f"{m['recall_at_1.5n']:.2f}") for m in audit.measured],
    )


def meaning(audit: Audit) -> str:
    """What kind of attack or mistake the images speak for, in sentences that end with a space."""
    said = ""
    if audit.triggers:
        carry = sum(suspect.reason == TRIGGER for suspect in audit.ranking)
        said += f"This is a backdoor: {carry} images carry a trigger. "
    if audit.one_way():
        said += "Many images of one class look like one other: "
        said += "wrong labels, or a trigger that is not a spot. "
    elif audit.unexplained():
        said += "Many images of one class stand among those of another: "
        said += "wrong labels, or a trigger that no spot shows. "
    if audit.scattered():
        wrong = sum(suspect.reason == ERROR for suspect in audit.ranking)
        said += f"Label errors: {wrong} images look mislabelled, and no trigger explains them. "
    return said


def say(audit: Audit, options: argparse.Namespace, top: list[Suspect], out: cli.Out) -> None:
    """Print everything, the result last."""
    say_files(audit, options, out)
    say_strays(audit, out)
    if options.model:
        say_groups(audit, out)
    else:
        out.say("No --model: nothing looked at the images themselves.")
    if audit.measured:
        say_measured(audit, options.truth, out)
    if top:
        first = ", ".join(cli.printable(suspect.file) for suspect in top[:NAMED])
        more = f", and {len(top) - NAMED} more, named in suspects.json" if len(top) > NAMED else ""
        out.say(f"Top suspects in {options.output}/contact_sheet.png, {COLUMNS} per row: {first}{more}.")
    out.say(f"Wrote {options.output}/suspects.json and {options.output}/suspects.csv.")
    if audit.findings():
        flagged = sum(suspect.flagged for suspect in audit.ranking)
        last = (
            f"{flagged} training images are flagged: look at them." if flagged else "Look at what is named."
        )
        out.say(f"Result: FINDINGS. {meaning(audit)}{last}", "bold red")
    else:
        out.say("Result: nothing stands out. That clears the data of what was looked for, not of everything.")
