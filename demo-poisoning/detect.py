"""Scan a model for a backdoor: recover the smallest trigger of each pair of classes and flag the outlier.

    python detect.py --model models/poisoned_model.pt --data data/traffic-signs --output scan_results/poisoned
    python detect.py --model models/clean_model.pt --data data/traffic-signs --output scan_results/clean
    python detect.py --pairs stop:yield no_entry:stop --reference models/clean_model.pt

Needs the weights and a few clean pictures per class (DATA/val/<class>/), nothing else. Writes scan.json,
triggers.safetensors and pictures to OUTPUT, in place of those of an earlier scan there.
Exit code: 0 nothing stands out, 1 backdoor found, 2 wrong usage or input, or no statistic is valid for this
scan (few pairs and no --reference): then it shows what it found and judges nothing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from torch import nn

import classifier
import cli
import describe
import judge
import references
import scan_file
import scan_model
import tell
import transferability
from classes import NAMES
from judge import Finding, Judgement
from scan_model import Pair, Scan, Settings

NATURAL = 3  # most suspicious pairs drawn that are not flagged


def pair(text: str) -> Pair:
    """Class numbers of "stop:yield". Raises UserError if it names no two classes."""
    victim, _, target = text.partition(":")
    if victim not in NAMES or target not in NAMES or victim == target:
        raise cli.UserError(f"{text!r} is no VICTIM:TARGET of two classes: write it like stop:yield.")
    return NAMES.index(victim), NAMES.index(target)


def chosen_pairs(options: argparse.Namespace, classes: int) -> list[Pair]:
    """The pairs of --pairs, and those from --victims to --targets; all pairs without these options.

    classes: how many the model knows. Raises UserError for names that it does not know.
    """
    known = NAMES[:classes]
    exact, draw = ([pair(text) for text in texts] for texts in (options.pairs, options.draw))
    typed = [NAMES[number] for one in exact + draw for number in one]
    for name in typed + options.victims + options.targets:
        if name not in known:
            raise cli.UserError(f"{options.model} knows no class {name!r}: use {', '.join(known)}.")
    pairs = {(victim, target) for victim in range(classes) for target in range(classes) if victim != target}
    if narrowed(options):
        area = bool(options.victims or options.targets)
        victims, targets = (names or known for names in (options.victims, options.targets))
        pairs = {(v, t) for v, t in pairs if area and NAMES[v] in victims and NAMES[t] in targets}
        pairs |= set(exact)
    if not pairs:
        raise cli.UserError("--victims and --targets leave no pair: name two different classes.")
    if missing := [one for one in draw if one not in pairs]:
        raise cli.UserError(
            f"--draw {scan_model.name(missing[0])} is not among the pairs to scan: add it to --pairs."
        )
    return sorted(pairs)


def narrowed(options: argparse.Namespace) -> bool:
    return bool(options.pairs or options.victims or options.targets)


def judged(
    found: Scan, norms: list[references.Norms], model: nn.Module, whole: bool, settings: Settings
) -> Judgement:
    """Choose the statistic that is valid for this scan, and apply it.

    norms: those of the references; whole: whether all pairs of the model were asked for.
    """
    if norms:
        return judge.by_references(found.triggers, norms)
    enough = min(map(len, found.pictures.values())) > transferability.SINGLES
    if whole and enough and len(found.triggers) < judge.FEW:
        pairs = [(trigger.victim, trigger.target) for trigger in found.triggers]
        shares = transferability.expected(model, found.pictures, pairs, settings.steps, settings.seed)
        return judge.by_transferability(found.triggers, shares)
    return judge.by_norms(found.triggers)


def to_draw(judgement: Judgement, draw: list[Pair]) -> list[Finding]:
    """Flagged pairs, the most suspicious of the others, and those of --draw."""
    others = [finding for finding in judgement.findings if not finding.flagged]
    natural = [finding for finding in others if finding.trigger.norm < 1][:NATURAL]
    asked = [one for one in others if (one.trigger.victim, one.trigger.target) in draw and one not in natural]
    return judgement.flagged + natural + asked or others[:1]


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument("--model", type=Path, default=Path("models/poisoned_model.pt"), help="model to scan")
    args.add_argument(
        "--data", type=Path, default=Path("data/traffic-signs"), help="folder with val/<class>/"
    )
    args.add_argument("--steps", type=int, default=100, help="steps of the search")
    args.add_argument("--samples", type=int, default=30, help="clean pictures per class to search with")
    args.add_argument(
        "--output", type=Path, default=Path("scan_results/scan"), help="folder for scan.json and the pictures"
    )
    for name, form, kind, text in (
        ("--pairs", "VICTIM:TARGET", str, "scan only these pairs, for example stop:yield"),
        ("--victims", "CLASS", str, "scan only pairs from these classes"),
        ("--targets", "CLASS", str, "scan only pairs to these classes"),
        ("--reference", "FILE", Path, "compare with known-clean models: model files or scan.json of scans"),
        ("--draw", "VICTIM:TARGET", str, "draw these pairs, too, flagged or not"),
    ):
        unset = argparse.SUPPRESS  # --help has no default to show
        args.add_argument(name, nargs="+", action="extend", default=unset, type=kind, metavar=form, help=text)
    args.add_argument("--all", action="store_true", help="print every pair")
    args.add_argument("--json", action="store_true", help="print what scan.json holds, and nothing else")
    args.add_argument("--seed", type=cli.seed, default=0, help="random movements of the pictures")
    nothing = argparse.Namespace(pairs=[], victims=[], targets=[], reference=[], draw=[])
    options = args.parse_args(namespace=nothing)
    if min(options.steps, options.samples) < 1:
        raise cli.UserError("--steps and --samples must be 1 or more.")
    chosen_pairs(options, len(NAMES))  # before anything else: are all names those of classes?
    return options


class Quiet(cli.Out):
    """Says nothing, for --json; progress still goes to stderr."""

    def say(self, text: str = "", style: str = "") -> None:
        pass


def main() -> int:
    options = parse()
    started = time.monotonic()
    out = Quiet(plain=True) if options.json else cli.Out(options.plain)
    settings = Settings(options.data, options.steps, options.samples, options.seed)
    model, checksum = classifier.load_model(options.model), scan_file.sha256(options.model)
    classes = classifier.class_count(model)
    pairs = chosen_pairs(options, classes)
    compare = {
        path: references.read(path, options.model, classes, pairs, settings) for path in options.reference
    }
    if replaced := [
        p for p in options.reference if options.output.resolve() in (p.resolve(), p.resolve().parent)
    ]:
        raise cli.UserError(f"{replaced[0]} would be replaced by this scan: choose another --output.")
    cli.check_place(options.output / scan_file.NAME)
    out.say(f"Scanning {options.model}, a model of {classes} classes: {len(pairs)} pairs.")
    found = scan_model.scan(model, pairs, settings, out, "Searching triggers")
    if found.missing:
        victims = dict.fromkeys(NAMES[victim] for victim, _ in found.missing)
        out.say(f"Not scanned, too few pictures that the model reads rightly: {', '.join(victims)}.")
    scanned = [one for one in pairs if one not in found.missing]
    norms = references.all_norms(compare, scanned, settings, out)
    judgement = judged(found, norms, model, not narrowed(options), settings)
    drawn = to_draw(judgement, [pair(text) for text in options.draw])

    scan_file.remove_old(options.output)
    for finding in drawn:
        picture = scan_file.picture_name(finding.trigger.victim, finding.trigger.target)
        example = found.pictures[finding.trigger.victim][0]
        describe.draw(finding.trigger, example, options.output / picture)
    record = scan_file.as_record(options.model, options.reference, classes, settings, judgement)
    record["sha256"] = checksum  # of what was scanned, even if the file has changed since
    record["seconds"] = round(time.monotonic() - started, 1)
    record["pairs"] = [scan_file.pair_record(finding, finding in drawn) for finding in judgement.findings]
    scan_file.write(options.output, record, [finding.trigger for finding in drawn])

    tell.findings(judgement, options.all, out)
    tell.result(judgement, drawn, found.pictures, out)
    tell.saved(drawn, options.output, out)
    out.say(f"Scanned {len(scanned)} pairs in {record['seconds']:.0f} seconds.")
    if options.json:
        print(scan_file.as_text(record))
    if judgement.verdict == "no valid statistic":
        other = ", or scan all pairs" if narrowed(options) else ""
        raise cli.UserError(
            "No statistic is valid for this scan, so nothing was judged: "
            f"compare with known-clean models (--reference){other}."
        )
    return cli.FINDING if judgement.flagged else cli.OK


if __name__ == "__main__":
    cli.run(main)
