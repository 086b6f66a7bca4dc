"""Write one page, report.html, about both models: what they answer, what was found, and what to do next.

    python report.py --clean scan_results/clean --poisoned scan_results/poisoned
    python report.py --clean scan_results/clean --poisoned scan_results/poisoned --output outputs/report.html

Run detect.py on both models first. The page holds its images itself and asks the network for nothing.
The same inputs give the same bytes. Exit code: 0 written, 2 wrong usage or input.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jinja2

import cli
import trigger
from dataset.classes import NAMES
from dataset.files import class_files
from network.evaluate import Validation
from page import evidence
from page.evidence import Model
from scanner import describe, printing, result
from scanner.result import ScanResult

PAGE = Path(__file__).parent / "page/template.html"
SHOWN = 10  # pairs in the open table; the others are folded


def verdict(model: Model) -> str:
    """What the scan of a model says, in one sentence."""
    scan = model.scan
    opinion = f" Second opinion: {printing.second_opinion(scan)}" if scan.last_layer else ""
    if scan.verdict == "no valid statistic":
        return f"The scan has no verdict: no statistic is valid for it.{opinion}"
    if scan.not_calibrated:
        return f"The scan has no verdict, it is not calibrated: {scan.not_calibrated}.{opinion}"
    close = f" Not judged: {printing.not_judged(scan)}" if scan.easily_turned else ""
    close += f" Close call: {printing.near(scan)}" if scan.near_threshold else ""
    close += opinion
    if scan.flagged:
        return f"Backdoor found: {', '.join(pair.name for pair in scan.flagged)}.{close}"
    first = scan.pairs[0]
    if first.anomaly_index is None:
        return f"No backdoor found: no trigger was found for any pair.{close}"
    return (
        f"No backdoor found. {first.name} stands out most: index {scan.show(first.anomaly_index)}, "
        f"flagged above {scan.show(scan.threshold)}.{close}"
    )


def scale(models: list[Model], model: Model) -> float:
    """The index at the right end of the bars: the same for both models if it means the same in both."""
    alike = [other.scan for other in models if other.scan.threshold == model.scan.threshold]
    indices = [pair.anomaly_index for scan in alike for pair in scan.pairs if pair.anomaly_index is not None]
    return 1.05 * max(*(1.2 * scan.threshold for scan in alike), *indices, 1e-9)


def write(page: dict[str, Any], path: Path) -> None:
    """Fill in the template; every word from a file is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(PAGE.name).render(page)
    with cli.atomic_write(path) as scratch:
        scratch.write_text(text, encoding="utf-8", errors="replace", newline="\n")


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    for kind in ("clean", "poisoned"):
        args.add_argument(
            f"--{kind}",
            type=Path,
            default=Path(f"scan_results/{kind}"),
            help=f"output folder of detect.py for the {kind} model",
        )
        args.add_argument(f"--{kind}-model", type=Path, help="its file (default: the one that was scanned)")
    args.add_argument("--data", type=Path, help="folder with val/<class>/ (default: that of the scan)")
    args.add_argument(
        "--victim", default=trigger.VICTIM, choices=NAMES, metavar="CLASS", help="class attacked"
    )
    args.add_argument(
        "--target", default=trigger.TARGET, choices=NAMES, metavar="CLASS", help="class aimed at"
    )
    args.add_argument("--monitor", type=Path, help="what monitor.py --measure --output wrote, for the page")
    args.add_argument("--date", help="a date to print on the page")
    args.add_argument("--output", type=Path, default=Path("report.html"), help="page to write")
    options = args.parse_args()
    if options.victim == options.target:
        raise cli.UserError("--victim and --target must be two different classes.")
    return options


def check(scans: list[ScanResult], options: argparse.Namespace) -> None:
    """Raise UserError if the two scans do not belong on one page."""
    if scans[0].sha256 == scans[1].sha256:
        raise cli.UserError(f"{options.clean} and {options.poisoned} are scans of one and the same model.")
    if scans[0].classes != scans[1].classes:
        raise cli.UserError("The two models know different classes: compare two models of one task.")
    if missing := {options.victim, options.target} - set(scans[0].classes):
        raise cli.UserError(f"The models do not know {', '.join(sorted(missing))}: choose another class.")
    if options.output.is_dir():
        raise cli.UserError(f"{options.output} is a folder: name a file, for example report.html.")
    cli.check_place(options.output)


def main() -> int:
    options = parse()
    out = cli.Out(options.plain)
    folders = [
        folder.parent if folder.suffix == ".json" else folder for folder in (options.clean, options.poisoned)
    ]
    scans = [result.read(folder / result.NAME) for folder in folders]
    check(scans, options)
    models = [
        evidence.open_model("Clean model", options.clean_model, folders[0], scans[0]),
        evidence.open_model("Poisoned model", options.poisoned_model, folders[1], scans[1]),
    ]
    watched = evidence.open_monitor(options.monitor, models) if options.monitor else None
    data = options.data or Path(scans[0].data)
    files = class_files(data / "val", len(scans[0].classes))
    out.say(f"Reading {len(files)} images of {data}/val.")
    validation = Validation(data, len(scans[0].classes), options.victim, options.target)
    for model in models:
        out.say(f"Measuring {model.file}.")
        model.score = validation.score(model.network)
    out.say(f"Trying {sum(len(scan.drawn) for scan in scans)} recovered triggers on both models.")
    true_trigger = describe.in_words(evidence.true_trigger())
    page = {
        "date": options.date,
        "data": data,
        "models": models,
        "verdicts": {model.label: verdict(model) for model in models},
        "scales": {model.label: scale(models, model) for model in models},
        "victim": options.victim,
        "target": options.target,
        "true_trigger": true_trigger,
        "true_trigger_image": evidence.trigger_image(f"The true trigger on grey: {true_trigger}."),
        "examples": evidence.examples(models, files, options.victim, options.target),
        "recovered": evidence.recovered(models, files),
        "watched": watched,
        "shown": SHOWN,
    }
    write(page, options.output)
    for model in models:
        out.say(f"{model.label}: {verdict(model)}")
    out.say(f"Wrote {options.output}: open it in a browser; it needs no network.")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
