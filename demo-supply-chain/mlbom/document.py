"""The ML-BOM as a CycloneDX 1.6 document: written, and checked against the schema.

Helper module, not a command: make_mlbom.py and check_mlbom.py use it.
"""

from __future__ import annotations

import sys

import console
from console import UserError
from mlbom.models import Model

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
    """Raise UserError if the text is not a valid CycloneDX 1.6 document."""
    if JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is not None:
        raise UserError(f"{name} does not follow the CycloneDX 1.6 schema: make it again with make_mlbom.py.")
