"""The same ML-BOM as an SPDX 3.0.1 document, with SPDX's profiles for AI and for datasets.

Helper module, not a command: make_mlbom.py uses it. It says in SPDX's words what mlbom/document.py says in
those of CycloneDX. The SPDX project's own library writes it, and checks it while it writes.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import console

try:
    from spdx_python_model import v3_0_1 as spdx3
except ImportError as missing:
    print(
        f"error: the Python module {missing.name} is not installed: pip install -r requirements.txt does it.",
        file=sys.stderr,
    )
    sys.exit(console.ERROR)

Found = Mapping[str, Any]


class Writer:
    """An SPDX document that grows element by element."""

    def __init__(self, document: Found) -> None:
        self.base = document["serialNumber"]
        self.when = time_of(document["metadata"]["timestamp"])
        self.elements: list[Any] = []
        self.info = spdx3.CreationInfo(specVersion="3.0.1", created=self.when)
        tool = self.add(spdx3.SoftwareAgent, "agent:make_mlbom.py", name="make_mlbom.py")
        self.info.createdBy = [tool]

    def add(self, kind: Any, ref: str, **facts: Any) -> Any:
        """A new element; ref makes its identifier. What is not known is left out."""
        told = {key: value for key, value in facts.items() if value not in (None, "", [])}
        made = kind(spdxId=f"{self.base}#{quote(ref)}", creationInfo=self.info, **told)
        self.elements.append(made)
        return made

    def relate(self, source: Any, kind: str, targets: list[Any]) -> None:
        """Say how elements hang together."""
        if targets:
            self.add(
                spdx3.Relationship,
                f"relation:{len(self.elements)}",
                from_=source,
                relationshipType=getattr(spdx3.RelationshipType, kind),
                to=targets,
            )


def time_of(text: str) -> datetime:
    """A time as statements and lists write it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def spdx(document: Found) -> str:
    """A CycloneDX document of mlbom/document.py, as SPDX 3.0.1 in JSON.

    A profile is claimed only where all that it asks for is known. The one for AI asks for a supplier and a
    place to download from; the one for datasets asks for more than anybody has signed here, so the data are
    described in its words, and it is never claimed.
    """
    writer = Writer(document)
    known: dict[str, Any] = {}
    for one in document["components"]:
        make = {"machine-learning-model": model, "data": dataset}.get(one["type"], library)
        known[one["bom-ref"]] = make(writer, one)
    workflows = [flow for made in document.get("formulation") or [] for flow in made["workflows"]]
    for flow in workflows:
        (output,) = flow["outputs"]
        trained = known[output["resource"]["ref"]]
        trained.ai_informationAboutTraining = " ".join(told_by(flow)) or None
        trained.ai_hyperparameter = entries((one["name"], one["value"]) for one in flow["properties"])
        if "timeEnd" in flow:
            trained.builtTime = time_of(flow["timeEnd"])
    for link in document["dependencies"]:
        targets = [known[ref] for ref in link.get("dependsOn") or []]
        data = [one for one in targets if isinstance(one, spdx3.dataset_DatasetPackage)]
        writer.relate(known[link["ref"]], "trainedOn", data)
        writer.relate(known[link["ref"]], "dependsOn", [one for one in targets if one not in data])
    return finish(writer, [one for one in known.values() if isinstance(one, spdx3.ai_AIPackage)])


def told_by(flow: Found) -> Iterator[str]:
    """How a model was trained, in sentences."""
    for step in flow.get("steps") or []:
        yield from (f"Command: {one['executed']}." for one in step["commands"])


def model(writer: Writer, one: Found) -> Any:
    """A model, with what its card says."""
    card = one.get("modelCard") or {}
    parameters, considered = card.get("modelParameters") or {}, card.get("considerations") or {}
    measured = (card.get("quantitativeAnalysis") or {}).get("performanceMetrics") or []
    approach = parameters.get("approach") or {}
    made = writer.add(
        spdx3.ai_AIPackage,
        one["bom-ref"],
        **package(writer, one),
        software_primaryPurpose=spdx3.software_SoftwarePurpose.model,
        releaseTime=writer.when,
        comment="; ".join(f"{item['name']}: {item['value']}" for item in one.get("properties") or []),
        ai_typeOfModel=[
            str(parameters[name])
            for name in ("modelArchitecture", "architectureFamily")
            if name in parameters
        ]
        + list(approach.values()),
        ai_domain=[parameters["task"]] if "task" in parameters else [],
        ai_informationAboutApplication=" ".join(considered.get("useCases") or []),
        ai_limitation=" ".join(considered.get("technicalLimitations") or []),
        ai_metric=entries((metric_name(item), metric_value(item)) for item in measured),
    )
    licences(writer, made, one)
    ancestors = [
        writer.add(
            spdx3.ai_AIPackage,
            f"{one['bom-ref']}:ancestor:{number}",
            **package(writer, base),
            software_primaryPurpose=spdx3.software_SoftwarePurpose.model,
        )
        for number, base in enumerate((one.get("pedigree") or {}).get("ancestors") or [])
    ]
    writer.relate(made, "descendantOf", ancestors)
    return made


def metric_name(item: Found) -> str:
    """What was measured, and on what."""
    return f"{item['type']} ({item['slice']})" if "slice" in item else str(item["type"])


def metric_value(item: Found) -> str:
    """The value, with its interval if it has one."""
    between = item.get("confidenceInterval")
    if not between:
        return str(item["value"])
    return f"{item['value']} (95 % interval {between['lowerBound']} to {between['upperBound']})"


def dataset(writer: Writer, one: Found) -> Any:
    """The data that a model was trained on."""
    return writer.add(
        spdx3.dataset_DatasetPackage,
        one["bom-ref"],
        **package(writer, one),
        software_primaryPurpose=spdx3.software_SoftwarePurpose.data,
        dataset_datasetType=[spdx3.dataset_DatasetType.noAssertion],
    )


def library(writer: Writer, one: Found) -> Any:
    """A package of the software."""
    made = writer.add(spdx3.software_Package, one["bom-ref"], **package(writer, one))
    licences(writer, made, one)
    return made


def package(writer: Writer, one: Found) -> dict[str, Any]:
    """What models, data and libraries have in common."""
    supplier = (one.get("supplier") or {}).get("name")
    places = [ref["url"] for ref in one.get("externalReferences") or [] if ref["type"] == "distribution"]
    return {
        "name": one["name"],
        "description": one.get("description"),
        "software_packageVersion": one.get("version"),
        "software_packageUrl": one.get("purl"),
        "software_downloadLocation": places[0] if places else None,
        "verifiedUsing": [
            spdx3.Hash(algorithm=spdx3.HashAlgorithm.sha256, hashValue=item["content"])
            for item in one.get("hashes") or []
        ],
        "suppliedBy": agent(writer, supplier) if supplier else None,
    }


def agent(writer: Writer, name: str) -> Any:
    """The organization of this name."""
    known = {one.name: one for one in writer.elements if isinstance(one, spdx3.Organization)}
    return known.get(name) or writer.add(spdx3.Organization, f"organization:{len(known)}", name=name)


def licences(writer: Writer, made: Any, one: Found) -> None:
    """What the supplier declares. What somebody else would conclude, nobody has looked into."""
    told = [
        item.get("expression") or item["license"].get("id") or item["license"].get("name")
        for item in one.get("licenses") or []
    ]
    if len(told) != 1:  # several are alternatives or all of them: CycloneDX does not say
        return
    said = writer.add(
        spdx3.simplelicensing_LicenseExpression,
        f"licence:{len(writer.elements)}",
        simplelicensing_licenseExpression=told[0],
    )
    writer.relate(made, "hasDeclaredLicense", [said])


def entries(pairs: Iterable[tuple[str, str]]) -> list[Any]:
    """A table of names and values."""
    return [spdx3.DictionaryEntry(key=name, value=value) for name, value in pairs]


def finish(writer: Writer, models: list[Any]) -> str:
    """The document around the elements, as JSON."""
    kind = spdx3.ProfileIdentifierType
    claimed = [kind.core, kind.software, kind.simpleLicensing]
    if all(one.suppliedBy and one.software_downloadLocation for one in models):
        claimed.append(kind.ai)
    shipped = [one for one in models if one.releaseTime]
    bom = writer.add(
        spdx3.software_Sbom,
        "bom",
        rootElement=shipped,
        element=list(writer.elements),
        profileConformance=claimed,
    )
    writer.add(
        spdx3.SpdxDocument,
        "document",
        rootElement=[bom],
        element=list(writer.elements),
        profileConformance=claimed,
    )
    made = spdx3.SHACLObjectSet(writer.elements)
    file = io.BytesIO()
    spdx3.JSONLDSerializer().write(made, file)
    return json.dumps(json.loads(file.getvalue()), indent=2)
