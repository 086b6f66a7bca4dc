"""Defence: convert a model to SafeTensors without running it, check that it is the same, and measure.

    python safe_demo.py                  trains a small model, saves it as a pickle, converts it, measures
    python safe_demo.py load             loads the SafeTensors file: the same outputs, nothing that could run
    python safe_demo.py convert FILE     converts a model of yours; a malicious file is refused, not run
    python safe_demo.py compare          measures both formats at three model sizes (--repeat N)

A checkpoint holds more than weights: --part NAME takes one part of it, at any depth (model.encoder). If it
has objects that only hold data, such as argparse.Namespace, --allow NAME lets them in, one by one. Names that
could run code cannot be allowed.

With --model FILE.pt the first command takes your own state dict instead of training one.
Exit code 0: done. 1: the file is malicious, or something differs. 2: bad input.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import cli
from create_malicious_model import DEFAULT, malicious_bytes
from inspection.files import existing_file
from weights import comparison, shapes
from weights.before_loading import RefusedError
from weights.safe_loading import load_pickle, load_safetensors
from weights.state_dicts import Weights
from weights.writing import check_plain, differing_in_file, save_safetensors, sharing

MODEL = Path("safe_model.pt")
REPEAT = 7


def plain_payload(marker: Path) -> bytes:
    """Our own harmless payload, for the comparison."""
    return malicious_bytes(DEFAULT, marker)


# --- convert -------------------------------------------------------------------------------------------


def is_zip(path: Path) -> bool:
    """Whether the file can be mapped into memory: the zip format of torch.save, not the older ones."""
    with existing_file(path).open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def is_ours(weights: Weights) -> bool:
    """True if the names and shapes are those of the model that this demo trains."""
    last = weights.get("fc.weight")
    if last is None or last.shape[:1] != (len(shapes.CLASSES),):  # to build the network takes seconds
        return False
    expected = shapes.network().state_dict()
    return {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in expected.items()}


def convert(pickle: Path, safe: Path, part: str, allow: Sequence[str], out: cli.Out) -> int:
    """Load safely, write SafeTensors, read it again and compare tensor by tensor. Returns 0 or 1.

    Raises RefusedError if there is code in the file: a converter must not run what it converts.
    """
    weights = load_pickle(pickle, mmap=is_zip(pickle), part=part, allow=allow)  # mapped: large files fit
    numbers = sum(tensor.numel() for tensor in weights.values())
    kinds = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()}))
    out.say(
        f"Loaded {pickle} with weights_only=True: {len(weights)} tensors, {numbers} numbers ({kinds}), "
        "no code ran."
    )
    check_plain(weights, safe)
    for names in sharing(weights):
        out.say(f"These share their memory: {listed(names)}. SafeTensors stores each one by itself.")
    if turned := [name for name, tensor in weights.items() if not tensor.is_contiguous()]:
        out.say(f"Stored in another order (a transposed matrix, for example): {listed(turned)}.")

    save_safetensors(weights, safe)
    if different := differing_in_file(weights, safe):
        out.say(f"Different after the conversion: {listed(different)}.", "red")
        return cli.FINDING
    out.say(f"Wrote {safe}. All {len(weights)} tensors are the same, bit for bit.", "green")
    if is_ours(weights):
        before, after = shapes.outputs(weights, pickle)[0], shapes.outputs(load_safetensors(safe), safe)[0]
        if not torch.equal(before, after):
            out.say(f"But the outputs differ by up to {(before - after).abs().max().item()}.", "red")
            return cli.FINDING
        out.say(f"Its outputs for {len(after)} new images are the same, too: largest difference 0.0.")
    return cli.OK


def listed(names: list[str]) -> str:
    """The first few names, for people. The quotes of repr keep odd names from steering the terminal."""
    first = ", ".join(repr(name[:60]) for name in names[:4])
    return first + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# --- the four commands -----------------------------------------------------------------------------------


def create(given: Path | None, repeat: int, out: cli.Out) -> int:
    """Train (or take the given state dict), convert it, compare tensor by tensor, measure both formats."""
    pickle = given or MODEL
    safe = pickle.with_suffix(".safetensors")
    if given:
        existing_file(given)
        if given == safe:
            raise cli.UserError(f"{given} is SafeTensors already: type `python safe_demo.py load` with it.")
        out.heading("1. Your model")
    else:
        out.heading("1. Train a small model and save it as a pickle")
        start = time.perf_counter()
        steps = shapes.EPOCHS * shapes.TRAIN_IMAGES // shapes.BATCH
        with cli.atomic_write(
            pickle
        ) as scratch:  # first, so that an unwritable place is named before training
            model = shapes.train(lambda items: out.progress(items, steps, "training"))
            torch.save(model.state_dict(), scratch)
        out.say(f"Trained a ResNet18 in {time.perf_counter() - start:.1f} seconds. Wrote {pickle}.")
        accuracy = shapes.outputs(load_pickle(pickle), pickle)[1]
        out.say(f"It classifies {accuracy:.1%} of {shapes.NEW_IMAGES} new images correctly.")

    out.heading("2. Convert it to SafeTensors")
    if code := convert(pickle, safe, "", (), out):
        return code

    out.heading("3. Compare, measured on this machine just now")
    out.say("Measuring: this takes some seconds.")
    comparison.show(comparison.measure("this model", pickle, safe, repeat), repeat, plain_payload, out)
    if not given:
        out.say("Now type: python safe_demo.py load")
    return cli.OK


def convert_only(
    pickle: Path | None, safe: Path | None, part: str, allow: Sequence[str], out: cli.Out
) -> int:
    """Convert one file. A file with code in it is a finding (1), a damaged one is bad input (2)."""
    if pickle is None:
        raise cli.UserError("Which file? Type `python safe_demo.py convert FILE`.")
    safe = safe or pickle.with_suffix(".safetensors")
    if safe.suffix != ".safetensors" or safe == pickle:
        raise cli.UserError(
            f"{safe} cannot be the new file: give a name that ends in .safetensors with --out."
        )
    try:
        return convert(pickle, safe, part, allow, out)
    except RefusedError as error:
        out.say(f"NOT CONVERTED: {pickle}", "bold red")
        out.say(f"Reason: {error}")
        return cli.FINDING


def compare(repeat: int, out: cli.Out) -> int:
    """Measure both formats at all sizes, in one run."""
    out.say(f"Measuring {len(comparison.SIZES)} model sizes, {repeat} runs each: this takes some seconds.")
    rows = comparison.measure_sizes(
        repeat, lambda names: out.progress(names, len(comparison.SIZES), "measuring")
    )
    comparison.show(rows, repeat, plain_payload, out)
    return cli.OK


def load(given: Path | None, out: cli.Out) -> int:
    """Load the SafeTensors file, name new images, compare with the pickle where it is still there."""
    path = given or MODEL.with_suffix(".safetensors")
    if not given and not path.exists():
        raise cli.UserError(f"{path} does not exist: type `python safe_demo.py` first.")
    weights = load_safetensors(path)
    scores, accuracy = shapes.outputs(weights, path)
    numbers = sum(tensor.numel() for tensor in weights.values())
    out.say(f"Loaded {path}: {len(weights)} tensors, {numbers} numbers, no pickle, no code ran.")
    out.say(f"It classifies {accuracy:.1%} of {len(scores)} new images correctly.")
    pickle = path.with_suffix(".pt")
    if not pickle.exists():
        out.say(f"There is no {pickle} to compare with.")
        return cli.OK
    expected, _ = shapes.outputs(load_pickle(pickle), pickle)
    difference = (scores - expected).abs().max().item()
    if not torch.equal(scores, expected):
        out.say(f"Outputs differ from those of {pickle}: largest difference {difference}.", "red")
        return cli.FINDING
    out.say(f"Outputs are identical to those of {pickle}: largest difference {difference}.", "green")
    return cli.OK


def at_least_one(text: str) -> int:
    """A number for --repeat."""
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError("give a number from 1 to 1000")
    return int(text)


def main() -> int:
    """Read the command line and do one of the four things."""
    arguments = cli.parser(__doc__)
    actions = ["create", "convert", "load", "compare"]
    arguments.add_argument("action", nargs="?", default="create", choices=actions, help="what to do")
    arguments.add_argument("file", nargs="?", type=Path, help="your own model file, for convert and load")
    arguments.add_argument("--model", type=Path, metavar="FILE", help="another way to name FILE")
    arguments.add_argument("--out", type=Path, help="convert: the new file (default: FILE with .safetensors)")
    arguments.add_argument("--part", default="", help="convert: the part of a checkpoint, such as state_dict")
    arguments.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="NAME",
        help="convert: let this name in, which only holds data; may be given several times",
    )
    arguments.add_argument("--repeat", type=at_least_one, default=REPEAT, help="measure so many times")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    torch.set_num_threads(1)  # images this small are slower on many cores, above all when they are busy
    given = args.file or args.model
    if args.action == "convert":
        return convert_only(given, args.out, args.part, args.allow, out)
    if args.action == "load":
        return load(given, out)
    if args.action == "compare":
        return compare(args.repeat, out)
    return create(given, args.repeat, out)


if __name__ == "__main__":
    cli.run(main)
