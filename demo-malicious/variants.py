"""Other places in a model file where a call can hide: the working model, the old format, joblib, and more.

Helper module, not a command: create_malicious_model.py writes these files. Each place takes any payload, an
object that pickle turns into a call, and knows nothing about it. All are published tricks.
"""

from __future__ import annotations

import io
import logging
import pickle
import re
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils import collect_env

# where torch.save puts the numbers of tensors in its zip file, and their checksum
NUMBERS = re.compile(r"[^/]+/(data/\d+|\.data/serialization_id)")

_trained: list[torch.nn.Module] = []  # training takes some seconds, so one run does it once at most


@dataclass(frozen=True)
class Variant:
    """One malicious model file: what it is, where it is published, how to write it and how to set it off."""

    name: str
    file: Path  # the name that create_malicious_model.py gives it
    about: str  # one sentence
    source: str  # where this is described in public
    how: str  # the call that sets it off
    write: Callable[[Any], bytes]  # payload -> the bytes of the file
    fire: Callable[[Path], object]  # loads the file, so the payload runs; gives back what came out
    calls: Callable[..., Any] | None = None  # the function that the payload calls there; None: os.system
    no_safe_way: str = ""  # why torch.load's safe default does not apply to this format, one sentence


def saved(value: object, **options: bool) -> bytes:
    """The bytes that torch.save writes (the same bytes each time)."""
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def old_format(payload: object) -> bytes:
    """The format before PyTorch 1.6: five pickles in a row. The payload is the fourth."""
    return saved(payload, _use_new_zipfile_serialization=False)


def trained(progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> torch.nn.Module:
    """A ResNet18 that really works, trained at the first call (some seconds)."""
    if not _trained:
        from weights import shapes  # noqa: PLC0415 (takes seconds to import, and only this variant needs it)

        _trained.append(shapes.train(progress))
    return _trained[0]


def resnet18(payload: object, model: torch.nn.Module | None = None) -> bytes:
    """The payload beside the weights of a trained model, where no tool that lists the weights looks."""
    weights: Any = (model or trained()).state_dict()
    # PyTorch keeps version numbers in _metadata and ignores names that it does not know there:
    # names, numbers and predictions of the model stay as they are
    weights._metadata["note"] = payload
    return saved(weights)


def joblib_model(payload: object) -> bytes:
    """A small linear model in the format of scikit-learn: joblib files are pickles, too."""
    import joblib  # noqa: PLC0415 (as above)

    model = {"note": payload, "weights": [[0.5, -1.25], [2.0, 0.75]], "classes": ["cat", "dog"]}
    file = io.BytesIO()
    joblib.dump(model, file, protocol=4)
    return file.getvalue()


def nested(payload: object) -> bytes:
    """A checkpoint as trainers write it, with the payload three levels down in the optimizer's settings."""
    layer = torch.nn.Linear(2, 2)
    with torch.no_grad():
        for number in layer.parameters():
            number.fill_(0.5)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9).state_dict()
    optimizer["param_groups"][0]["initial_lr"] = payload
    return saved({"epoch": 3, "state_dict": layer.state_dict(), "optimizer": optimizer})


def sample_inputs(payload: object) -> bytes:
    """A program of torch.export whose sample inputs are the payload; its loader unpickles them."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what comes in later versions
        model = torch.nn.Linear(2, 2)
        with torch.no_grad():
            for number in model.parameters():
                number.fill_(0.5)
        torch.export.save(torch.export.export(model, (torch.zeros(1, 2),)), file)
    options: Any = OrderedDict()  # no keyword arguments, so that the program loads as it should
    options.note = payload
    new = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(new, "w") as archive:
        for name in old.namelist():
            data = saved(((torch.zeros(1, 2),), options)) if "sample_inputs" in name else old.read(name)
            archive.writestr(zipfile.ZipInfo(name), data)
    return new.getvalue()


def two_formats(payload: object) -> bytes:
    """A valid SafeTensors file that is a pickle as well."""
    return behind_safetensors_header(pickle.dumps(payload, protocol=2))


def behind_safetensors_header(program: bytes) -> bytes:
    """A SafeTensors file with one tensor, whose numbers are this pickle.

    The first byte is the length of the header, 86, which a pickle reads as "a text follows, to the end of
    the line". The line ends behind the last number of the header; ], } and } make a list and two dicts.
    """
    end = b"\n]}}"
    header = b'{"weights":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d' % (len(program), len(program))
    header = header.ljust(ord("V") - len(end)) + end
    return struct.pack("<Q", len(header)) + header + program


def unsafe_torch_load(path: Path) -> object:
    """Load as everybody did before PyTorch 2.6. Only ever call this with a file of this demo."""
    return torch.load(path, weights_only=False)


def unsafe_export_load(path: Path) -> object:
    """torch.export.load unpickles by itself. Only ever call this with a file of this demo."""
    logging.getLogger("torch.export").setLevel(logging.CRITICAL)
    logging.getLogger("torch._export.serde.serialize").setLevel(logging.CRITICAL)
    return torch.export.load(path)


def unsafe_pickle_load(path: Path) -> object:
    """As many programs read whatever they are given. Only ever call this with a file of this demo."""
    with path.open("rb") as file:
        return pickle.load(file)


def unsafe_joblib_load(path: Path) -> object:
    """joblib has no safe way to load. Only ever call this with a file of this demo."""
    import joblib  # noqa: PLC0415 (as above)

    return joblib.load(path)


TORCH_LOAD = "torch.load(FILE, weights_only=False)"
OTHER_PLACES = {
    variant.name: variant
    for variant in (
        Variant(
            "system-legacy",
            Path("malicious_legacy.pt"),
            "The same call in the file format before PyTorch 1.6, which every version still loads.",
            "https://docs.pytorch.org/docs/stable/generated/torch.save.html",
            TORCH_LOAD,
            old_format,
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
            saved,
            unsafe_torch_load,
            calls=collect_env.run,
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
        Variant(
            "export",
            Path("malicious_program.pt2"),
            "A program of torch.export, the newest format, with the call in its sample inputs.",
            "https://github.com/pytorch/pytorch/pull/176791",
            "torch.export.load(FILE)",
            sample_inputs,
            unsafe_export_load,
            no_safe_way="torch.export.load tries weights_only=True, and then weights_only=False by itself",
        ),
        Variant(
            "two-formats",
            Path("malicious_weights.safetensors"),
            "A valid SafeTensors file that is a pickle as well: which one it is, the reader decides.",
            "https://blog.trailofbits.com/2024/03/04/relishing-new-fickling-features-for-securing-ml-systems/",
            "pickle.load(open(FILE, 'rb'))",
            two_formats,
            unsafe_pickle_load,
        ),
    )
}


def is_ours(variant: Variant, path: Path, payload: object) -> bool:
    """Whether the file holds this program and no other. Its weights may differ: they never run."""
    try:
        if not path.is_file():
            return False
        if variant.write is resnet18:
            from weights import shapes  # noqa: PLC0415 (as above)

            ours = resnet18(payload, shapes.network())  # no training needed to know the program
        else:
            ours = variant.write(payload)
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
