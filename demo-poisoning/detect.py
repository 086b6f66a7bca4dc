"""Scan a model for a backdoor: recover the smallest trigger of each pair of classes and flag the outlier.

    python detect.py --model models/poisoned_model.pt --data data/traffic-signs --output scan_results/poisoned
    python detect.py --model models/clean_model.pt --data data/traffic-signs --output scan_results/clean
    python detect.py --pairs stop:yield no_entry:stop --reference models/clean_model.pt
    python detect.py --model models/clean_model.safetensors --key keys/scanner.key   # and sign what came out
    python detect.py --arch resnet50 --model mine.pt --data images --pairs cat:dog   # a network of your own

Needs the weights and a few clean images per class (DATA/val/<class>/), nothing else. Writes scan.json,
triggers.safetensors and drawings to OUTPUT, in place of those of an earlier scan there.
Exit code: 0 nothing stands out, 1 backdoor found, 2 wrong usage or input, or no statistic is valid for this
scan (few pairs or few classes, and no --reference) or calibrated for this model (--arch, or more than one in
ten clean images wrong, and no two clean twins as --reference): then it shows what it found without a verdict.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cli
from dataset.classes import NAMES
from dataset.files import few
from network.adapter import Adapter
from scanner import foreign, last_layer, printing, references, result, search, verdict
from scanner.foreign import Subject
from scanner.result import ScanResult
from scanner.search import Found, Pair, Settings
from scanner.verdict import Statistic
from statements import records, signing

NATURAL = 3  # most suspicious pairs drawn that are not flagged


def pair(text: str, names: Sequence[str] = NAMES) -> Pair:
    """Class numbers of "stop:yield". Raises UserError if it names no two classes."""
    numbers = {name: number for number, name in enumerate(names)}
    parts = text.split(":")
    for middle in range(1, len(parts)):  # a name may hold a colon itself
        victim, target = ":".join(parts[:middle]), ":".join(parts[middle:])
        if victim in numbers and target in numbers and victim != target:
            return numbers[victim], numbers[target]
    raise cli.UserError(
        f"{text!r} is not a valid VICTIM:TARGET: write two classes like {search.name((0, 1), names)}."
    )


def chosen_pairs(
    options: argparse.Namespace, known: Sequence[str], names: Sequence[str] = NAMES
) -> list[Pair]:
    """The pairs of --pairs, and those from --victims to --targets; all pairs without these options.

    known: the classes of the model, by number; names: all that there are. Raises UserError for names that it
    does not know.
    """
    exact, draw = ([pair(text, names) for text in texts] for texts in (options.pairs, options.draw))
    typed = [names[number] for one in exact + draw for number in one]
    for name in typed + options.victims + options.targets:
        if name not in known:
            raise cli.UserError(f"{options.model} knows no class {name!r}: use {', '.join(few(known))}.")
    numbers = {name: number for number, name in enumerate(known)}
    area = bool(options.victims or options.targets)
    victims, targets = (names or list(known) for names in (options.victims, options.targets))
    if narrowed(options) and not area:
        victims = []
    pairs = {
        (numbers[victim], numbers[target]) for victim in victims for target in targets if victim != target
    }
    pairs |= set(exact)
    if not pairs:
        raise cli.UserError("--victims and --targets leave no pair: name two different classes.")
    if missing := [one for one in draw if one not in pairs]:
        raise cli.UserError(
            f"--draw {search.name(missing[0], names)} is not among the pairs to scan: add it to --pairs."
        )
    return sorted(pairs)


def narrowed(options: argparse.Namespace) -> bool:
    return bool(options.pairs or options.victims or options.targets)


def statistic_for(
    found: Found, norms: list[references.Norms], classes: int, names: Sequence[str]
) -> Statistic:
    """Apply the statistic that is valid for this scan.

    norms: those of the references; classes: how many the model knows; names: theirs, by number.
    """
    if norms:
        return verdict.by_references(found.triggers, norms)
    return verdict.by_norms(found.triggers, classes, names)


def to_draw(scan: ScanResult, draw: list[Pair]) -> list[Pair]:
    """Flagged pairs, the most suspicious of the others, and those of --draw."""
    others = [pair for pair in scan.pairs if not pair.flagged]
    natural = [pair for pair in others if pair.norm is not None][:NATURAL]
    asked = [pair for pair in others if pair.numbers in draw]
    return [pair.numbers for pair in scan.flagged + natural + asked or others[:1]]


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument("--model", type=Path, default=Path("models/poisoned_model.pt"), help="model to scan")
    args.add_argument(
        "--data", type=Path, default=Path("data/traffic-signs"), help="folder with val/<class>/"
    )
    args.add_argument("--steps", type=int, default=100, help="steps of the search")
    args.add_argument("--samples", type=int, default=30, help="clean images per class to search with")
    args.add_argument(
        "--output", type=Path, default=Path("scan_results/scan"), help="folder for scan.json and the images"
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
    args.add_argument("--seed", type=cli.seed, default=0, help="random movements of the images")
    foreign.add_options(args)
    signing.add_options(args, "scan")
    nothing = argparse.Namespace(pairs=[], victims=[], targets=[], reference=[], draw=[])
    vars(nothing).update(dict.fromkeys(foreign.OPTIONS))
    options = args.parse_args(namespace=nothing)
    if min(options.steps, options.samples) < 1:
        raise cli.UserError("--steps and --samples must be 1 or more.")
    foreign.check(options)
    if not options.arch:
        chosen_pairs(options, NAMES)  # before anything else: are all names those of classes?
    return options


class Quiet(cli.Out):
    """Says nothing, for --json; progress still goes to stderr."""

    def say(self, text: str = "", style: str = "") -> None:
        pass


def read_references(
    options: argparse.Namespace, subject: Subject, pairs: list[Pair], settings: Settings, sha256: str
) -> dict[Path, references.Reference]:
    """What --reference names: models still to be scanned, or norms of scans. Raises UserError."""
    compare = {
        path: references.read(
            path,
            options.model,
            sha256=sha256,
            classes=len(subject.names),
            pairs=pairs,
            settings=settings,
            load=subject.load,
            network=str(subject.network or ""),
        )
        for path in options.reference
    }
    output = options.output.resolve()
    if replaced := [p for p in options.reference if output in (p.resolve(), p.resolve().parent)]:
        raise cli.UserError(f"{replaced[0]} would be replaced by this scan: choose another --output.")
    references.check_distinct(options.reference)
    return compare


def check_judged(scan: ScanResult, *, whole_would_help: bool) -> None:
    """Raise UserError, with the way forward, for a scan that says neither yes nor no."""
    if scan.verdict == "not calibrated":
        raise cli.UserError(
            f"The scan is not calibrated for {scan.network or 'so inaccurate a model'}, so there is no "
            "verdict: compare with two or more known-clean models of the same kind (--reference)."
        )
    if scan.verdict == "no valid statistic":
        other = ", or scan all pairs" if whole_would_help else ""
        raise cli.UserError(
            "No statistic is valid for this scan, so there is no verdict: "
            f"compare with known-clean models (--reference){other}."
        )


def main() -> int:
    options = parse()
    started = time.monotonic()
    out = Quiet(plain=True) if options.json else cli.Out(options.plain)
    subject = foreign.open_subject(options)
    model, network, classes = subject.model, subject.network, len(subject.names)
    settings = Settings(options.data, options.steps, options.samples, options.seed)
    if network:
        settings = replace(settings, names=subject.names, size=network.size)
    pairs = chosen_pairs(options, subject.names, settings.names)
    sha256 = result.sha256(options.model)
    compare = read_references(options, subject, pairs, settings, sha256)
    cli.check_place(options.output / result.NAME)
    signing.check(options, "scan", options.model)
    if isinstance(model, Adapter):
        foreign.check_pairs(pairs)
        foreign.check_images(model, settings, out)
    out.say(f"Scanning {options.model}, a model of {classes} classes: {len(pairs)} pairs.")
    if isinstance(model, Adapter):
        models = 1 + sum(isinstance(one, Adapter) for one in compare.values())
        foreign.say_how_long(models * foreign.expected_seconds(model, pairs, settings), out)

    found = search.scan(model, pairs, settings, out, "Searching triggers")
    if found.missing:
        victims = dict.fromkeys(settings.names[victim] for victim, _ in found.missing)
        out.say(f"Not scanned, too few images that the model classifies correctly: {', '.join(victims)}.")
    scanned = [one for one in pairs if one not in found.missing]
    norms = references.all_norms(compare, scanned, settings, out)
    statistic = statistic_for(found, norms, classes, settings.names)
    if unlike := verdict.unlike(found.accuracy, ours=network is None):
        statistic = verdict.calibrated(statistic, found.triggers, norms, unlike)
    scan = result.summarize(
        options.model,
        found.triggers,
        statistic,
        settings,
        sha256=sha256,
        classes=classes,
        references=options.reference,
        seconds=time.monotonic() - started,
        network=network,
        last_layer="" if network else last_layer.standing_out(model, NAMES),
    )
    drawn = to_draw(scan, [pair(text, settings.names) for text in options.draw])
    triggers = {one.pair: one for one in found.triggers if one.pair in drawn}
    examples = {victim: images[0] for victim, images in found.images.items()}
    result.write(options.output, scan, triggers, examples)

    printing.findings(scan, options.all, out)
    printing.verdict(scan, triggers, examples, out)
    printing.saved(scan, options.output, out)
    out.say(f"Scanned {len(scanned)} pairs in {scan.seconds:.0f} seconds.")
    if options.key:
        out.say(records.scan(options, options.output / result.NAME))
    if options.json:
        print(scan.to_json())
    check_judged(scan, whole_would_help=narrowed(options) and classes >= verdict.CLASSES and not network)
    return cli.FINDING if scan.flagged else cli.OK


if __name__ == "__main__":
    cli.run(main)
