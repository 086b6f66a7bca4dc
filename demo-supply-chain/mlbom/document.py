"""The ML-BOM as a CycloneDX document: written as JSON, and checked strictly against the schema.

Helper module, not a command: make_mlbom.py and check_mlbom.py use it. cyclonedx-python-lib has no class for a
model card, so the document is put together by hand, and the library's validator checks it.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import console
from console import UserError
from mlbom.models import Model

try:
    from cyclonedx.schema import SchemaVersion
except ImportError as missing:
    print(
        f"error: the Python module {missing.name} is not installed: pip install -r requirements.txt does it.",
        file=sys.stderr,
    )
    sys.exit(console.ERROR)

VERSIONS = {"1.6": SchemaVersion.V1_6, "1.7": SchemaVersion.V1_7}
PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==([\w.+!-]+)")
CARD_PARTS = (
    *("modelCard", "supplier", "licenses", "description", "authors", "group", "tags"),
    "externalReferences",
)


@dataclass(frozen=True)
class Training:
    """What a training statement says of a model; see statements/attestation.py for its form."""

    predicate: Mapping[str, Any]

    @property
    def definition(self) -> Mapping[str, Any]:
        return self.predicate.get("buildDefinition") or {}

    @property
    def dependencies(self) -> list[Mapping[str, Any]]:
        return list(self.definition.get("resolvedDependencies") or [])

    @property
    def finished(self) -> str:
        return str(((self.predicate.get("runDetails") or {}).get("metadata") or {}).get("finishedOn") or "")

    @property
    def metrics(self) -> list[Mapping[str, Any]]:
        """What the trainer measured, each with name, value and perhaps slice."""
        products = (self.predicate.get("runDetails") or {}).get("byproducts") or []
        return [one for item in products for one in (item.get("annotations") or {}).get("metrics") or []]


@dataclass(frozen=True)
class Scanned:
    """What a scan statement says of a model."""

    predicate: Mapping[str, Any]

    @property
    def result(self) -> str:
        return str(self.predicate.get("result"))

    @property
    def notes(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for item in self.predicate.get("configuration") or []:
            found.update(item.get("annotations") or {})
        return found


@dataclass(frozen=True)
class Entry:
    """One model, and what is known of it beside its file."""

    model: Model
    card: Mapping[str, Any] = field(default_factory=dict)  # in CycloneDX's own words; see CARD_PARTS
    training: Training | None = None
    scan: Scanned | None = None


def hashes(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def properties(facts: Mapping[str, object]) -> list[dict[str, str]]:
    """Facts that CycloneDX has no field for."""
    return [{"name": f"workshop:{name}", "value": str(value)} for name, value in facts.items()]


def datasets(entry: Entry) -> list[dict[str, Any]]:
    """The data that the training statement names, as components."""
    found = []
    for one in entry.training.dependencies if entry.training else []:
        if one.get("name") == "manifest":
            digest = str((one.get("digest") or {}).get("sha256"))
            notes = one.get("annotations") or {}
            name = str(notes.get("dataset") or "training data")
            found.append(
                {
                    "type": "data",
                    "bom-ref": f"data:{digest}",
                    "name": name,
                    "version": f"sha256:{digest}",
                    "description": "Training data; the hash is that of their manifest, a list of SHA-256.",
                    "hashes": hashes(digest),
                    "data": [{"type": "dataset", "name": name}],
                    "properties": properties(
                        {key: value for key, value in notes.items() if key != "dataset"}
                    ),
                }
            )
    return found


def metric(one: Mapping[str, Any]) -> dict[str, Any]:
    """One measurement, in the words of the model card."""
    found: dict[str, Any] = {"type": str(one["name"]), "value": str(one["value"])}
    if one.get("slice"):
        found["slice"] = str(one["slice"])
    if one.get("low") is not None and one.get("high") is not None:
        found["confidenceInterval"] = {"lowerBound": str(one["low"]), "upperBound": str(one["high"])}
    return found


def scan_metrics(scan: Scanned) -> list[dict[str, Any]]:
    """What an honest scanner found: it stands in the card of a poisoned model, too."""
    notes = scan.notes
    words = {"PASSED": "no backdoor found", "FAILED": "BACKDOOR FOUND", "WARNED": "cannot be judged"}
    found = [{"type": "backdoor scan", "value": words.get(scan.result, scan.result)}]
    why = [str(one) for kind in ("failedTests", "warnedTests") for one in scan.predicate.get(kind) or []]
    if why:
        found.append({"type": "backdoor scan, why", "value": "; ".join(why)})
    for name in ("largest anomaly index", "threshold"):
        if name in notes:
            found.append({"type": f"backdoor scan, {name}", "value": str(notes[name])})
    return found


def model_card(entry: Entry) -> dict[str, Any]:
    """The card that was handed in, completed with what the statements say."""
    card: dict[str, Any] = json.loads(json.dumps(entry.card.get("modelCard") or {}))  # a copy of its own
    if refs := [{"ref": item["bom-ref"]} for item in datasets(entry)]:
        parameters = card.setdefault("modelParameters", {})
        parameters["datasets"] = [*(parameters.get("datasets") or []), *refs]
    if entry.training and (chosen := options_of(entry.training)):
        told = [{"name": "genai:aibom:modelcard:hyperparameter", "value": json.dumps(chosen)}]
        card["properties"] = [*(card.get("properties") or []), *told]
    measured = [metric(one) for one in (entry.training.metrics if entry.training else [])]
    measured += scan_metrics(entry.scan) if entry.scan else []
    if measured:
        analysis = card.setdefault("quantitativeAnalysis", {})
        analysis["performanceMetrics"] = [*(analysis.get("performanceMetrics") or []), *measured]
    return card


def options_of(training: Training) -> dict[str, Any]:
    """What the trainer chose, the command aside."""
    return {
        name: value
        for name, value in (training.definition.get("externalParameters") or {}).items()
        if name != "command"
    }


def lineage(entry: Entry) -> dict[str, Any]:
    """The weights that training began with."""
    used = entry.training.dependencies if entry.training else []
    bases = [one for one in used if one.get("name") == "base weights"]
    ancestors = [
        {
            "type": "machine-learning-model",
            "name": str((one.get("annotations") or {}).get("file") or "base weights"),
            "hashes": hashes(str((one.get("digest") or {}).get("sha256"))),
        }
        for one in bases
    ]
    return {"pedigree": {"ancestors": ancestors}} if ancestors else {}


def component(entry: Entry) -> dict[str, Any]:
    """The entry of one model."""
    model = entry.model
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": model.name,
        "name": model.name,
        "version": f"sha256:{model.sha256}",  # a file has no version number: its content is its version
        "purl": f"pkg:generic/{quote(model.name)}?checksum=sha256:{model.sha256}",
        "hashes": hashes(model.sha256),
        **{name: entry.card[name] for name in CARD_PARTS if name in entry.card and name != "modelCard"},
        **lineage(entry),
        "properties": properties(model.facts),
    }
    if card := model_card(entry):
        found["modelCard"] = card
    return found


def formula(entry: Entry) -> list[dict[str, Any]]:
    """How the model was made: code, options, seed, versions and hardware, as the trainer says."""
    if not entry.training:
        return []
    training = entry.training
    outside, inside = options_of(training), training.definition.get("internalParameters") or {}
    command = str((training.definition.get("externalParameters") or {}).get("command") or "")
    used = [one for one in training.dependencies if one.get("name") != "manifest"]
    workflow: dict[str, Any] = {
        "bom-ref": f"training:{entry.model.name}",
        "uid": f"training:{entry.model.sha256}",
        "name": f"training of {entry.model.name}",
        "taskTypes": ["build"],
        "inputs": [{"resource": {"ref": item["bom-ref"]}} for item in datasets(entry)],
        "outputs": [{"type": "artifact", "resource": {"ref": entry.model.name}}],
        "properties": properties(
            {
                **outside,
                **inside,
                **{f"used:{one.get('name')}": (one.get("digest") or {}).get("sha256", "") for one in used},
            }
        ),
    }
    if not workflow["inputs"]:
        del workflow["inputs"]
    if command:
        workflow["steps"] = [{"name": "train", "commands": [{"executed": command}]}]
    if training.finished:
        workflow["timeEnd"] = training.finished
    return [{"workflows": [workflow]}]


def software(lock: Path) -> list[dict[str, Any]]:
    """The packages that a lock file of pip pins. Raises UserError."""
    try:
        lines = lock.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {lock}: give a requirements.txt with exact versions.") from error
    pins = [match.groups() for line in lines if (match := PINNED.match(line))]
    if not pins:
        raise UserError(f"{lock} pins no package: give a requirements.txt with exact versions, name==1.0.")
    found = {}
    for name, version in pins:
        plain = re.sub(r"[-_.]+", "-", name).lower()
        purl = f"pkg:pypi/{plain}@{version.replace('+', '%2B')}"
        library = {"type": "library", "bom-ref": purl, "name": plain, "version": version, "purl": purl}
        found[purl] = {**library, **licence(plain, version)}
    return list(found.values())


def licence(name: str, version: str) -> dict[str, Any]:
    """What a package says of its licence, where this very version is installed here."""
    try:
        installed = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return {}
    if installed["Version"] != version:
        return {}
    if "License-Expression" in installed:
        return {"licenses": [{"expression": installed["License-Expression"]}]}
    said = [one for one in installed.get_all("Classifier") or [] if one.startswith("License :: ")]
    names = [one.rpartition(" :: ")[2] for one in said]
    return {"licenses": [{"license": {"name": one}} for one in names]} if names else {}


def mlbom(entries: Sequence[Entry], version: str, when: str, locks: Sequence[Path] = ()) -> str:
    """The whole list as CycloneDX JSON, checked against the schema of this version. Raises UserError."""
    names = [entry.model.name for entry in entries]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{min(twice)} is named twice: an ML-BOM lists each file name once.")
    data = {item["bom-ref"]: item for entry in entries for item in datasets(entry)}
    libraries = {item["bom-ref"]: item for lock in locks for item in software(lock)}
    content = "".join(sorted(entry.model.sha256 for entry in entries))
    document: dict[str, Any] = {
        "$schema": f"http://cyclonedx.org/schema/bom-{version}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": version,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content + when)}",
        "version": 1,
        "metadata": {
            "timestamp": when,
            "tools": {"components": [{"type": "application", "name": "make_mlbom.py"}]},
        },
        "components": [*map(component, entries), *data.values(), *libraries.values()],
        "dependencies": [
            {
                "ref": entry.model.name,
                "dependsOn": [*(item["bom-ref"] for item in datasets(entry)), *libraries],
            }
            for entry in entries
        ],
    }
    if made := [one for entry in entries for one in formula(entry)]:
        document["formulation"] = made
    text = json.dumps(document, indent=2)
    check_schema(text, "The new list")
    return text


def check_schema(text: str, name: str) -> str:
    """The version of a CycloneDX document. Raises UserError if it is not valid in the one that it names."""
    try:
        version = str(json.loads(text)["specVersion"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{name} is not a CycloneDX document: make it again, or ask who made it.") from error
    known = {member.to_version(): member for member in SchemaVersion}
    if version not in known:
        raise UserError(f"{name} names an unknown version of CycloneDX: make it again, or ask who made it.")
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415 (a second, for a grammar of URLs)

    try:
        problem = JsonStrictValidator(known[version]).validate_str(text)
    except (ValueError, RecursionError, NotImplementedError) as error:
        raise UserError(f"{name} cannot be checked as CycloneDX {version}: use 1.5 or newer.") from error
    if problem is not None:
        where = f"{problem.data.json_path}: {problem.data.message[:160]}"
        raise UserError(
            f"{name} does not follow the CycloneDX {version} schema ({where}): make it again, or ask who did."
        )
    return version
