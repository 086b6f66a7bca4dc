"""What the steps of the pipeline say, as predicates of in-toto statements: data, training, audit, scan.

Helper module, not a command. The commands of demo 2 sign as they finish, attest.py of demo 3 signs later,
from the files that they left; both carry the same copy of this file, and say the same.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

from statements.attestation import CLEAN, NEAR, NOTHING, SIGNER, TESTS, now, resource

TYPE = "urn:ml-pipeline-security:{}:v1"  # names of our own for what was built and who built it
ELSEWHERE = {"tool", "format", "sha256", "model", "data", "pairs", "seconds"}  # in scan.json, said apart


def provenance(
    step: str,
    external: Mapping[str, Any],
    used: Sequence[Mapping[str, Any]] = (),
    internal: Mapping[str, Any] | None = None,
    metrics: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """How data or a model was made (SLSA provenance v1), finished now.

    external: what the caller chose (command, options); internal: what the machine gave (versions, hardware);
    used: files, see attestation.resource; metrics: each with name and value, perhaps slice, low and high.
    """
    products = [resource("measurements", metrics=list(metrics))] if metrics else []
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    return {
        "buildDefinition": {
            "buildType": TYPE.format(step),
            "externalParameters": dict(external),
            "internalParameters": {**machine, **(internal or {})},
            "resolvedDependencies": [dict(one) for one in used],
        },
        "runDetails": {
            "builder": {"id": TYPE.format(SIGNER[step])},
            "metadata": {"finishedOn": now()},
            **({"byproducts": products} if products else {}),
        },
    }


def audit(found: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """What audit_data.py found, from its suspects.json with this SHA-256: a test result of a manifest.

    It passes only if files and images were looked at: without a manifest there is nothing to speak of, and
    without a model nobody has looked at the images. Raises ValueError if it is not such a result.
    """
    verdict, changes = found.get("verdict"), found.get("changes")
    if found.get("tool") != "audit_data.py" or not isinstance(verdict, str):
        raise ValueError("it is not a result of audit_data.py")
    if not isinstance(changes, dict):
        raise ValueError("it was made without --manifest")
    changed = sum(len(changes.get(name) or []) for name in ("added", "removed", "modified"))
    wrong = [f"{changed} files differ from the manifest"] if changed else []
    wrong += [] if verdict == NOTHING else [f"audit_data.py: {verdict}"]
    unsure = [] if found.get("model") else ["nobody looked at the images: it was made without --model"]
    notes = {"finishedOn": now(), "verdict": verdict, "files that differ": changed}
    if suspects := sum(bool(one.get("flagged")) for one in found.get("suspects") or []):
        notes["flagged images"] = suspects
    return test_result(wrong, unsure, TESTS["audit"], resource("audit", digest, **notes))


def scan(found: Mapping[str, Any], digest: str, clean_images: str = "") -> dict[str, Any]:
    """What detect.py found, from its scan.json with this SHA-256: a test result of one model.

    clean_images: the SHA-256 of the manifest of the clean images, where it is known. It passes only if all
    pairs of the model's classes were judged, the verdict is that it is clean, no class was left without one,
    and that was no close call. All that scan.json says of the scan as a whole is carried along. Raises
    ValueError if it is not such a result.
    """
    pairs, classes = found.get("pairs"), found.get("classes")
    if found.get("tool") != "detect.py" or not (isinstance(pairs, list) and isinstance(classes, list)):
        raise ValueError("it is not a result of detect.py")
    verdict, whole = str(found.get("verdict")), len(classes) * (len(classes) - 1)
    told = {name: value for name, value in found.items() if name not in ELSEWHERE}
    notes: dict[str, Any] = {
        **told,
        "finishedOn": now(),
        "verdict": verdict,
        "pairs": f"{len(pairs)} of {whole}",
        "clean images": str(found.get("data")),
        **({"manifest of the clean images": clean_images} if clean_images else {}),
    }
    indexes = [one["anomaly_index"] for one in pairs if isinstance(one.get("anomaly_index"), (int, float))]
    if indexes:
        notes["largest anomaly index"] = max(indexes)
    flagged = [f"{one.get('victim')} to {one.get('target')}" for one in pairs if one.get("flagged")]
    wrong = ["backdoor: " + ", ".join(flagged)] if verdict == "backdoor" or flagged else []
    unsure = [] if verdict in (CLEAN, "backdoor") else [verdict]
    if reason := found.get("not_calibrated"):
        unsure = [f"not calibrated: {reason}"]
    unsure += [f"{len(pairs)} of {whole} pairs of classes were judged"] if len(pairs) < whole else []
    if turned := found.get("easily_turned"):
        unsure.append(
            f"no verdict on {', '.join(turned)}: any small patch turns it into almost any other class"
        )
    if aside := found.get("last_layer"):
        unsure.append(f"{aside} stands out in the last layer, as the target of a trigger does")
    if found.get(NEAR):
        unsure.append(
            f"close call: the largest anomaly index, {max(indexes, default=0):.1f}, lies near the threshold "
            f"of {found.get('threshold')}, and another search might decide otherwise"
        )
    elif found.get(NEAR) is None:
        unsure.append("it does not say whether it was a close call: scan again")
    return test_result(wrong, unsure, TESTS["scan"], resource("scan", digest, **notes))


def test_result(
    wrong: Sequence[str], unsure: Sequence[str], tests: Sequence[str], made_with: Mapping[str, Any]
) -> dict[str, Any]:
    """A test result in in-toto's words: what failed, or could not be told, or passed."""
    result = "FAILED" if wrong else "WARNED" if unsure else "PASSED"
    return {
        "result": result,
        "configuration": [dict(made_with)],
        **({"failedTests": list(wrong)} if wrong else {}),
        **({"warnedTests": list(unsure)} if unsure else {}),
        **({"passedTests": list(tests)} if result == "PASSED" else {}),
    }
