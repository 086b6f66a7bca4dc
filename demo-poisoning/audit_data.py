"""Audit a dataset: what changed since the manifest, what is in it twice, and which images look mislabelled.

    python audit_data.py data/traffic-signs --model models/clean_model.pt
    python audit_data.py data/traffic-signs-poisoned --model models/poisoned_model.pt
    python audit_data.py data/traffic-signs-poisoned --manifest data/traffic-signs.sha256
    python audit_data.py data/traffic-signs --manifest data/traffic-signs.sha256 \\
        --model models/clean_model.pt --key keys/auditor.key             # and sign what came out

--model is a model that was trained on this very data, poisoned or not. Writes suspects.json, suspects.csv
and an image of the top suspects. With --truth, the attacker's notes, it measures itself.
Exit code: 0 nothing stands out, 1 something was found, 2 wrong usage or input.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import cli
from auditor import checks, features, findings, neighbours, occlusion, output
from auditor.findings import Audit, Suspect
from dataset import manifest
from dataset.classes import NAMES
from dataset.files import class_files
from network import classifier, workers
from statements import records, signing


def names(images: list[tuple[Path, int]], data: Path) -> list[str]:
    """The image files relative to the dataset, with "/"."""
    return [path.relative_to(data).as_posix() for path, _ in images]


def read_truth(path: Path, files: list[str]) -> set[str]:
    """The poisoned files in the attacker's notes. Raises UserError if they do not belong to this dataset."""
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))["poisoned"]
        truth = {name for name in noted if isinstance(name, str)}
    except FileNotFoundError as error:
        raise cli.UserError(f"{path} does not exist: poison_data.py writes it beside its folder.") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise cli.UserError(
            f"{path} does not hold attacker's notes: give those of poison_data.py."
        ) from error
    if not truth or not truth <= set(files):
        raise cli.UserError(f"{path} names images that are not in this dataset: give the notes of this one.")
    return truth


def look(model: nn.Module, pixels: Tensor, out: cli.Out) -> tuple[Tensor, Tensor, Tensor]:
    """Features of layer3 and of the last layer, and answers, for uint8 images (N, 3, S, S)."""
    total = -(-len(pixels) // classifier.AT_ONCE)
    parts = list(out.progress(features.extract(model, pixels), total, "Extracting features"))
    middle, last, answers = (torch.cat(part) for part in zip(*parts))
    return middle, last, answers


def examine(
    found: Audit,
    model: nn.Module,
    images: tuple[Tensor, Tensor],
    nearest: Tensor,
    out: cli.Out,
    *,
    strays: Sequence[neighbours.Astray] = (),
) -> tuple[Tensor, Tensor]:
    """All that a model says of the training images, noted in `found`. Returns both kinds of features.

    images: pixels, uint8 (N, 3, S, S), and labels, int64 (N,); nearest: of neighbours.compare(); strays: of
    checks.check_neighbours().
    """
    pixels, labels = images
    middle, last, answers = look(model, pixels, out)
    strange = neighbours.strangers(nearest, labels)
    margin = checks.check_features(found, middle, labels, strange, answers)
    search = occlusion.search(model, pixels, labels, answers, margin + strange, strays=strays)
    classes = out.progress(search, len(labels.unique()), "Hiding spots")
    checks.check_triggers(found, [spot for spots in classes for spot in spots])
    checks.check_errors(found, margin, labels, answers)
    return middle, last


def parse() -> argparse.Namespace:
    args = cli.parser(__doc__)
    args.add_argument("data", type=Path, help="dataset with train/<class>/")
    args.add_argument("--manifest", type=Path, help="trusted list of SHA-256 checksums")
    args.add_argument("--model", type=Path, help="model that was trained on this data")
    args.add_argument("--truth", type=Path, help="the attacker's notes: measure the audit")
    args.add_argument("--top", type=int, default=30, help="suspects on the contact sheet")
    args.add_argument("--output", type=Path, default=Path("audit_results"), help="folder for the results")
    signing.add_options(args, "audit")
    options = args.parse_args()
    if options.key and not options.manifest:
        raise cli.UserError("--key signs which data were audited: give their --manifest, too.")
    if options.top < 1:
        raise cli.UserError("--top must be 1 or more.")
    if options.truth and not options.model:
        raise cli.UserError("--truth measures what the model says: give --model, too.")
    return options


@workers.one_core()
def main() -> int:
    options = parse()
    out = cli.Out(options.plain)
    trusted = manifest.read(options.manifest) if options.manifest else None
    model = classifier.load_model(options.model) if options.model else None
    known = classifier.class_count(model) if model else len(NAMES)
    training = class_files(options.data / "train", known)
    files = names(training, options.data)
    labels = torch.tensor([label for _, label in training])
    truth = read_truth(options.truth, files) if options.truth else set()
    sizes = Counter(labels.tolist())
    if model and (len(sizes) < 2 or min(sizes.values()) < features.FEWEST):
        raise cli.UserError(
            f"{options.data}/train has too few images for statistics: "
            f"it takes {features.FEWEST} in each of two classes or more, or leave out --model."
        )
    cli.check_place(options.output / "suspects.json")
    signing.check(options, "audit", options.manifest or options.data)

    found = Audit([Suspect(name, findings.label_of(name)) for name in files])
    if trusted is not None:
        found.manifest_sha256 = hashlib.sha256(options.manifest.read_bytes()).hexdigest()
        checks.check_manifest(found, options.data, trusted)
    images = list(training)
    if (options.data / "val").is_dir():
        images += class_files(options.data / "val", known)
    read = workers.side_by_side(lambda image: classifier.load_pixels([image[0]])[0], images)
    pixels = torch.stack([*out.progress(read, len(images), "Reading images")])
    alike = neighbours.compare(pixels, len(training))
    checks.check_duplicates(found, names(images, options.data), alike.pairs)
    strays = checks.check_neighbours(found, alike, labels)
    if model:
        middle, last = examine(
            found, model, (pixels[: len(training)], labels), alike.nearest, out, strays=strays
        )
    checks.rank(found)
    if truth and model:
        checks.measure(found, truth, files, (middle, last, labels))
    top = [one for one in found.ranking if one.flagged or one.score > 0][: options.top]
    output.write(found, options, top)
    output.say(found, options, top, out)
    if options.key:
        out.say(records.audit(options))
    return cli.FINDING if found.findings() else cli.OK


if __name__ == "__main__":
    cli.run(main)
