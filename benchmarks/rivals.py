"""Two other ways to scan a model, on the models of held_out.py and detection.py: are they better than ours?

    python benchmarks/rivals.py --models held-out-work/models              rows, then RIVALS.md
    python benchmarks/rivals.py --models detection-work/models --rows detection-work/rows.jsonl
    python benchmarks/rivals.py --page                                     only RIVALS.md from the rows

MM-BD needs no clean images: Wang, Xiang, Miller and Kesidis, "MM-BD: Post-Training Detection of Backdoor
Attacks with Arbitrary Backdoor Pattern Types Using a Maximum Margin Statistic" (IEEE S&P 2024). The last
layer needs no images at all: Fields et al., "Trojan Signatures in DNN Weights" (ICCV workshops 2021); it is
what detect.py asks for a second opinion. Both are written from the papers. --rows are those of the models,
which say what is in each and what our scan found; a model that is not in --models is left out, and so is
another one of the same name. One row per model goes to rivals.jsonl at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cluster
import decided
import held_out_networks
import held_out_page
import intervals
import numpy as np
import pages
import population
import seeds
import torch
from scipy import stats
from torch import Tensor

# isort: split  (population puts demo-poisoning on the path)
import cli
from network import classifier, frozen
from scanner import last_layer, result

assert population
HERE = Path(__file__).resolve().parent
STARTS, STEPS = 10, 300  # of MM-BD: random images for each class, and the most steps of gradient ascent
RATE, MOMENTUM = 0.01, 0.9  # of the ascent, on pixels in 0..1
SETTLED, EVERY = 3e-3, 20  # it ends when the largest margins grew by less than that share in so many steps
SIGNIFICANT = 0.05  # p-value below which MM-BD and Dixon's test find a backdoor
SMALLEST_P = 1e-12  # p-values below count as this
METHODS = {"mm_bd": "MM-BD", "last_layer": "last layer"}

Row = dict[str, Any]


# --- MM-BD --------------------------------------------------------------------------------------------


def margins(
    read: Callable[[Tensor], Tensor], classes: int, size: int, *, starts: int, steps: int, seed: int
) -> list[float]:
    """The maximum margin of each class, in logits.

    Wang et al., section III-B: for each class, the largest difference between its logit and the largest of
    the others that gradient ascent reaches anywhere in the box of inputs, from random starts.

    read: gives logits, float (N, classes), for raw pixels, float (N, 3, size, size) in 0..1.
    """
    labels = torch.arange(classes).repeat_interleave(starts)
    pixels = torch.rand(len(labels), 3, size, size, generator=torch.Generator().manual_seed(seed))
    speed = torch.zeros_like(pixels)
    largest = last = torch.full((classes,), -float("inf"))
    for step in range(1, steps + 1):
        pixels.requires_grad_()
        margin = _margin(read(pixels), labels)
        (gradient,) = torch.autograd.grad(margin.sum(), pixels)
        largest = largest.maximum(margin.detach().view(classes, starts).max(1).values)
        length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
        speed = MOMENTUM * speed + gradient / length * size  # steps of one size: logits have no scale
        pixels = (pixels.detach() + RATE * speed).clamp(0, 1)  # projected: no input lies outside
        if step % EVERY == 0:
            if bool((largest - last < SETTLED * largest.abs()).all()):
                break
            last = largest
    with torch.no_grad():
        final = _margin(read(pixels), labels).view(classes, starts).max(1).values
    found: list[float] = largest.maximum(final).tolist()
    return found


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of a class for each image minus the largest of the others, (N,)."""
    own = labels.view(-1, 1)
    return logits.gather(1, own)[:, 0] - logits.scatter(1, own, -float("inf")).max(1).values


def gamma_p_value(largest_margins: Sequence[float]) -> float:
    """How likely so large a largest margin is without a backdoor.

    Wang et al., section III-C: a Gamma distribution is fitted to all margins but the largest; the p-value is
    that of the largest of as many draws from it. Margins are moved to be positive, if they are not.
    """
    values = np.sort(np.asarray(largest_margins, float))
    values = values - min(0.0, values[0] - 1e-3)
    rest = np.maximum(values[:-1], 1e-9)
    if np.ptp(rest) < 1e-9:
        return SMALLEST_P if values[-1] > rest[-1] else 1.0
    shape, _, scale = stats.gamma.fit(rest, floc=0)
    log_below = stats.gamma.logcdf(values[-1], shape, scale=scale)
    return float(-np.expm1(len(values) * log_below))


# --- One model ----------------------------------------------------------------------------------------


def measured(known: Known, models: Path, starts: int, steps: int) -> Row:
    """Run both methods on one model: what a worker does. known: its row of held_out.py or detection.py."""
    torch.set_num_threads(1)
    classes = known.get("classes", 10)
    path = models / f"{known['name']}.safetensors"
    model = held_out_networks.load(path, known.get("network", "resnet18"), classes)
    began = time.process_time()
    means = last_layer.class_means(model)
    found: Row = {
        "last_layer": round(last_layer.dixon_p_value(means), 6),
        "last_layer_class": int(np.argmax(means)),
    }
    found["last_layer_seconds"] = round(time.process_time() - began, 3)
    began = time.process_time()
    read = partial(classifier.logits, frozen.freeze(model))
    largest = margins(read, classes, classifier.INPUT, starts=starts, steps=steps, seed=0)
    found |= {"mm_bd": float(f"{gamma_p_value(largest):.6g}"), "mm_bd_class": int(np.argmax(largest))}
    found |= {"margins": [round(value, 3) for value in largest]}
    found |= {"starts": starts, "steps": steps}
    found["mm_bd_seconds"] = round(time.process_time() - began, 1)
    return {name: known[name] for name in ("name", "kind", "clean", "asr")} | ours(known) | found


def ours(known: Known) -> Row:
    """What our scan found in this model: its index, and seconds."""
    if "verdict" in known:
        newest = decided.again(known)
        index = None if newest["verdict"] == held_out_page.NO_VERDICT else held_out_page.figure(newest)
        return {"index": index, "seconds": known["scan_cpu_seconds"], "in_scope": known["in_scope"]}
    # its seconds are not those of the processor
    index = round(max(decided.indices(known).values(), default=held_out_page.NONE), 4)
    return {"index": index, "seconds": None, "in_scope": True}


class Known(dict[str, Any]):
    """A row of held_out.py or detection.py."""

    def __str__(self) -> str:
        return str(self["name"])


def known_models(path: Path) -> list[Known]:
    """The rows of held_out.py or detection.py. Raises UserError."""
    try:
        rows = [Known(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            row["name"], row["kind"], row["clean"], row["asr"], ours(row)
    except OSError as error:
        raise cli.UserError(f"{path} cannot be read: make it with held_out.py run.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise cli.UserError(f"{path} holds no rows of held_out.py or detection.py: check --rows.") from error
    return rows


def read(path: Path) -> list[Row]:
    """The rows of this command that are there. Raises UserError."""
    if not path.exists():
        return []
    try:
        rows: list[Row] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            row["name"], row["index"], [row[method] for method in METHODS]
    except (ValueError, KeyError, TypeError) as error:
        raise cli.UserError(f"{path} holds no rows of rivals.py: choose another --scores.") from error
    return rows


def is_here(known: Known, models: Path) -> bool:
    """Whether the very model of a row is there, not another one of that name, as its checksum says."""
    path = models / f"{known['name']}.safetensors"
    return path.is_file() and known.get("sha256") == result.sha256(path)


def run(options: argparse.Namespace, out: cli.Out) -> int:
    """Make the missing rows."""
    known = known_models(options.rows)
    here = [row for row in known if is_here(row, options.models)]
    if not here:
        raise cli.UserError(f"{options.models} holds none of the models in {options.rows}: check --models.")
    if len(here) < len(known):
        out.say(f"Left out: {len(known) - len(here)} models that are not in {options.models}.")
    cli.check_place(options.scores)
    done = {row["name"] for row in read(options.scores)}
    todo = [row for row in here if row["name"] not in done][: options.limit or None]
    work = partial(measured, models=options.models.absolute(), starts=options.starts, steps=options.steps)
    made = cluster.results(work, todo, options) if todo else iter(())
    failed = False
    for model, row in out.progress(made, len(todo), "Measuring models"):
        if isinstance(row, cli.UserError):
            failed = True
            print(f"error: {model}: {row}", file=sys.stderr)
            continue
        with options.scores.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        out.say(f"{row['name']}: MM-BD p = {row['mm_bd']:.3g}, last layer p = {row['last_layer']:.3g}.")
    return cli.ERROR if failed else cli.OK


# --- The page -----------------------------------------------------------------------------------------


def suspicion(row: Row, method: str) -> float:
    """A figure that is the larger the more suspicious a model is."""
    if method == "index":
        return float(row["index"])
    return float(-np.log10(max(row[method], SMALLEST_P)))


def compared(clean: Sequence[Row], backdoored: Sequence[Row]) -> tuple[list[str], dict[str, str]]:
    """AUROC of our index and of the others, and what each of those gains on ours, with intervals.

    Also the gains whose interval lies above 0.
    """
    values = {
        method: intervals.wins(*([suspicion(row, method) for row in rows] for rows in (clean, backdoored)))
        for method in ("index", *METHODS)
    }
    gains = {method: values[method] - values["index"] for method in METHODS}
    cells = [intervals.with_interval(value) for value in values.values()]
    written = {method: intervals.with_interval(gain, "+") for method, gain in gains.items()}
    sure = {method: text for method, text in written.items() if intervals.bootstrap(gains[method])[0] > 0}
    return [*cells, *written.values()], sure


def page(rows: list[Row]) -> str:
    """RIVALS.md. Raises UserError without models of both kinds that got a verdict of our scan."""
    with_verdict = [row for row in rows if row["index"] is not None]
    clean = [row for row in with_verdict if row["clean"]]
    learned = [row for row in with_verdict if held_out_page.is_learned(row)]
    if not clean or not learned:
        raise cli.UserError("The page needs rows of clean and of learned backdoored models: measure more.")
    groups = {"all, in scope of our scan": [row for row in learned if row["in_scope"]]}
    groups["all, out of its scope"] = [row for row in learned if not row["in_scope"]]
    for row in learned:
        groups.setdefault(row["kind"], []).append(row)
    lines, better = [], []
    for name, own in groups.items():
        if not own:
            continue
        cells, sure = compared(clean, own)
        lines.append([name, str(len(own)), *cells])
        better += [
            f"{METHODS[method]} on {name} ({len(own)} models): {gain}" for method, gain in sure.items()
        ]
    rates = []
    for method, name in METHODS.items():
        alarms = sum(row[method] < SIGNIFICANT for row in clean)
        misses = sum(row[method] >= SIGNIFICANT for row in learned)
        rates.append([name, intervals.exact(alarms, len(clean)), intervals.exact(misses, len(learned))])
    timed = [row for row in rows if row["seconds"] is not None]
    seconds = {"our scan": "seconds", "MM-BD": "mm_bd_seconds", "last layer": "last_layer_seconds"}
    every = [
        [row["name"], "clean" if row["clean"] else f"{row['asr']:.2f}"]
        + ["none" if row["index"] is None or row["index"] == held_out_page.NONE else f"{row['index']:.1f}"]
        + [f"{row[method]:.3g}" for method in METHODS]
        for row in rows
    ]
    return pages.render(
        "rivals.md.jinja",
        clean=len(clean),
        learned=len(learned),
        left=len(rows) - len(clean) - len(learned),
        settings=sorted({(row["starts"], row["steps"]) for row in rows}),
        significant=SIGNIFICANT,
        compared=seeds.table(
            ["backdoored models", "number", "our index", *METHODS.values()]
            + [f"{name} minus ours" for name in METHODS.values()],
            lines,
        ),
        better=better,
        rates=seeds.table(["method", "false alarms", "misses"], rates),
        timed=len(timed),
        seconds={
            name: float(np.median([row[key] for row in timed])) for name, key in seconds.items() if timed
        },
        every=seeds.table(["model", "attack success rate", "our index", *METHODS.values()], every),
    )


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument(
        "--models", type=Path, default=Path("held-out-work/models"), help="folder of the trained models"
    )
    args.add_argument("--rows", type=Path, default=HERE / "held_out.jsonl", help="what is in the models")
    args.add_argument("--scores", type=Path, default=HERE / "rivals.jsonl", help="file of raw rows")
    args.add_argument("--output", type=Path, default=HERE / "RIVALS.md", help="page to write")
    args.add_argument("--starts", type=int, default=STARTS, help="random images per class for MM-BD")
    args.add_argument("--steps", type=int, default=STEPS, help="most steps of gradient ascent")
    args.add_argument("--limit", type=int, default=0, help="measure that many models and stop (0: all)")
    args.add_argument("--page", action="store_true", help="measure nothing")
    cluster.add_options(args)
    options = args.parse_args()
    if min(options.starts, options.steps) < 1 or options.limit < 0:
        raise cli.UserError("--starts and --steps must be 1 or more, and --limit 0 or more.")
    return options


def main() -> int:
    options = parse()
    out = cli.Out(options.plain)
    code = cli.OK if options.page else run(options, out)
    text = page(read(options.scores))
    with cli.atomic_write(options.output) as scratch:
        scratch.write_text(text, encoding="utf-8")
    out.say(f"Wrote {options.output}.")
    return code


if __name__ == "__main__":
    cli.run(main)
