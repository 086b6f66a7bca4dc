"""Write an ML-BOM: a list of your model files with their SHA-256, in the CycloneDX format that scanners read.

    python make_mlbom.py model.safetensors                # writes mlbom.cdx.json
    python make_mlbom.py models/* --output - > list.json  # to standard output

Model files are only hashed, never loaded: a SafeTensors header is read as JSON, a pickle is not opened at
all. The list is checked against the CycloneDX 1.6 schema before it is written. check_mlbom.py uses it.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import console
from console import UserError

try:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
except ImportError:
    print("error: cyclonedx-python-lib is missing: pip install -r requirements.txt gets it.", file=sys.stderr)
    sys.exit(console.ERROR)

HEADER_LIMIT = 100_000_000  # bytes; the SafeTensors format allows no longer header


@dataclass(frozen=True)
class Model:
    """What can be said of a model file without loading it."""

    name: str
    sha256: str  # 64 hexadecimal digits
    facts: dict[str, str]  # format, bytes; for SafeTensors also tensors and parameters


def sha256(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read in blocks."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}): give a model file that exists.") from error
    return digest.hexdigest()


def safetensors_facts(path: Path) -> dict[str, str]:
    """Tensors and parameters from a SafeTensors header. Raises ValueError if the file is damaged."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(HEADER_LIMIT, path.stat().st_size - 8):
            raise ValueError("it has no whole header")
        header = json.loads(file.read(length))
    try:
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        end = max((int(entry["data_offsets"][1]) for entry in tensors), default=0)
        parameters = sum(math.prod(entry["shape"]) for entry in tensors)
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise ValueError("its header does not describe tensors") from error
    if 8 + length + end != path.stat().st_size:
        raise ValueError("its length is not what the header says")
    return {"format": "SafeTensors", "tensors": str(len(tensors)), "parameters": str(parameters)}


def read_model(path: Path) -> Model:
    """Hash a model file and find its format. Raises UserError if it is no model file."""
    digest = sha256(path)
    with path.open("rb") as file:
        first = file.read(1)
    if path.suffix == ".safetensors":
        try:
            facts = safetensors_facts(path)
        except (ValueError, RecursionError) as error:
            why = error if type(error) is ValueError else "its header is not JSON"
            raise UserError(f"{path} is no SafeTensors file ({why}): download it again.") from error
    elif zipfile.is_zipfile(path):
        facts = {"format": "PyTorch zip archive with a pickle in it, which can run code"}
    elif first == b"\x80":
        facts = {"format": "pickle, which can run code"}
    else:
        raise UserError(f"{path} is neither SafeTensors nor a whole PyTorch file: give a model file.")
    return Model(path.name, digest, {**facts, "bytes": str(path.stat().st_size)})


def component(model: Model) -> Component:
    """The entry of one model. The library has no class for CycloneDX's model card, so properties stand in."""
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=model.name,
        version=f"sha256:{model.sha256}",  # a model file has no version number: its content is its version
        bom_ref=model.name,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=model.sha256)],
        properties=[Property(name=f"workshop:{name}", value=value) for name, value in model.facts.items()],
    )


def mlbom(models: list[Model]) -> str:
    """The whole list as CycloneDX 1.6 JSON, checked against the schema."""
    names = [model.name for model in models]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{min(twice)} is named twice: an ML-BOM lists each file name once.")
    text = JsonV1Dot6(Bom(components=[component(model) for model in models])).output_as_string(indent=2)
    check_schema(text, "The new list")
    return text


def check_schema(text: str, name: str) -> None:
    """Raise UserError if the text is no CycloneDX 1.6 document."""
    if JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is not None:
        raise UserError(f"{name} does not follow the CycloneDX 1.6 schema: make it again with make_mlbom.py.")


def main() -> int:
    parser = console.parser(__doc__)
    parser.add_argument("models", type=Path, nargs="+", help="model files: .safetensors, .pt")
    parser.add_argument("--output", default="mlbom.cdx.json", help="file to write; - is standard output")
    args = parser.parse_args()
    models = [read_model(path) for path in args.models]
    text = mlbom(models)
    if args.output == "-":
        print(text)
        return console.OK
    with console.atomic_write(Path(args.output)) as scratch:
        scratch.write_text(text + "\n", encoding="utf-8")
    columns = ["model", *(models[0].facts if len(models) == 1 else ("format", "bytes")), "sha256"]
    rows = [[m.name, *(m.facts[name] for name in columns[1:-1]), m.sha256] for m in models]
    print(console.table("Models in the list", columns, rows, plain=True))  # hashes are too wide for columns
    print(f"Wrote {args.output}: valid CycloneDX 1.6, models: {len(models)}.")
    return console.OK


if __name__ == "__main__":
    console.run(main)
