"""Break one link of a chain of evidence, as an attacker would, and see whether anybody notices.

    python break_link.py scan models/clean_model.safetensors --keys keys
    python verify_chain.py models/clean_model.safetensors --keys keys

    list       writes a word of its own into the signed list
    training   puts the training of another model in its place
    data       writes a word of its own into what the data team has signed
    audit      takes the audit away
    scan       signs a scan with a key of its own
    age        passes an old scan off as today's (for this one, it has the scanner's key)
    role       lets the trainer, whose key is real, sign the scan

It changes files in the folder of --evidence and never touches the model: work on a copy, or make the
statements again afterwards. Without the keys in --keys, only the last two could not be done.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import console
from console import UserError

from statements import attestation, keys
from statements.attestation import BOM, PROVENANCE, SIGNER, TEST_RESULT, resource
from statements.chain import Evidence, manifests_of

KINDS = {"list": BOM, "training": PROVENANCE, "data": PROVENANCE, "audit": TEST_RESULT, "scan": TEST_RESULT}
OLD = "2020-02-02T20:20:20Z"


class Link:
    """The statement that makes one link of a model's chain, and the keys that a thief may have."""

    def __init__(self, name: str, digest: str, evidence: Evidence, folder: Path) -> None:
        self.name, self.evidence, self.keys = name, evidence, folder
        self.file = self.find(name, digest)

    def find(self, name: str, digest: str) -> Path:
        """The file of a link. Raises UserError if it is not there, and nothing can be broken."""
        if name in ("data", "audit"):  # these are about the data that the training names
            trained = self.evidence.signed(self.find("training", digest), SIGNER["training"])
            digest = next(iter(manifests_of(trained)), "") if not isinstance(trained, str) else ""
        for file in self.evidence.about(digest, KINDS[name]):
            if self.evidence.is_signed(file, SIGNER[name]):
                return file
        raise UserError(f"There is no link {name} to break: verify_chain.py says what is there.")

    def content(self) -> dict[str, Any]:
        """What stands in the statement, to be changed."""
        return dict(json.loads(json.dumps(self.evidence.envelopes[self.file][1])))

    def replace(self, text: str) -> None:
        """Write another statement in its place."""
        with console.atomic_write(self.file) as scratch:
            scratch.write_text(text, encoding="utf-8")

    def sign(self, content: dict[str, Any], key: Path) -> None:
        """Sign another statement and write it in its place. Raises UserError."""
        try:
            self.replace(attestation.sign(content, key))
        except (OSError, ValueError) as error:
            raise UserError(f"{key} cannot sign ({error}): this attack needs that private key.") from error


def write_into(link: Link) -> str:
    """Change what was signed and leave the signature as it is."""
    envelope = link.evidence.envelopes[link.file][0]
    content = link.content()
    content["predicate"] = {**content["predicate"], "x-note": "all is well"}
    payload = base64.b64encode(json.dumps(content).encode()).decode()
    link.replace(json.dumps({**envelope, "payload": payload}, indent=1) + "\n")
    return f"wrote a word of its own into {link.file.name}; the signature is still there"


def take_away(link: Link) -> str:
    """Delete it."""
    link.file.unlink()
    return f"took {link.file.name} away"


def of_another_model(link: Link) -> str:
    """Replay the statement of another model; where there is none, one about other bytes, by a stranger."""
    own = {one["digest"]["sha256"] for one in link.content()["subject"]}
    for file, (envelope, content) in link.evidence.envelopes.items():
        others = {one["digest"]["sha256"] for one in content["subject"]}
        signed = content["predicateType"] == PROVENANCE and link.evidence.is_signed(file, SIGNER[link.name])
        if signed and not own & others:
            link.replace(json.dumps(envelope, indent=1) + "\n")
            return f"put the statement in {file.name}, about another model, into {link.file.name}"
    content = link.content()
    content["subject"] = [resource(one["name"], 64 * "0") for one in content["subject"]]
    sign_as_stranger(link, content)
    return f"put a statement about another model into {link.file.name}"


def sign_as_stranger(link: Link, content: dict[str, Any]) -> None:
    """Sign with a new key, which nobody knows."""
    with tempfile.TemporaryDirectory() as folder:
        attestation.write_keys(Path(folder), ["stranger"])
        link.sign(content, Path(folder) / "stranger.key")


def with_own_key(link: Link) -> str:
    """The same statement, signed by somebody whom nobody knows."""
    sign_as_stranger(link, link.content())
    return f"signed {link.file.name} with a key of its own"


def out_of_date(link: Link) -> str:
    """The same statement, from long ago."""
    content = link.content()
    content["predicate"]["configuration"][0]["annotations"]["finishedOn"] = OLD
    link.sign(content, link.keys / f"{SIGNER[link.name]}.key")
    return f"put a scan of {OLD[:4]} into {link.file.name}, signed with the scanner's key"


def by_the_trainer(link: Link) -> str:
    """The same statement, signed by another role."""
    link.sign(link.content(), link.keys / "trainer.key")
    return f"signed {link.file.name} with the trainer's key"


ATTACKS: dict[str, tuple[str, Callable[[Link], str]]] = {
    "list": ("list", write_into),
    "training": ("training", of_another_model),
    "data": ("data", write_into),
    "audit": ("audit", take_away),
    "scan": ("scan", with_own_key),
    "age": ("scan", out_of_date),
    "role": ("scan", by_the_trainer),
}


def main() -> int:
    parser = console.parser(__doc__)
    parser.add_argument("attack", choices=ATTACKS, help="what to break")
    parser.add_argument("model", type=Path, help="the model whose chain it is")
    parser.add_argument("--keys", type=Path, required=True, help="folder with the keys of the roles")
    parser.add_argument("--evidence", type=Path, help="folder with the statements; else beside the model")
    args = parser.parse_args()
    try:
        digest = attestation.sha256(args.model)
    except OSError as error:
        raise UserError(
            f"Cannot read {args.model} ({error.strerror}): give a model file that exists."
        ) from error
    name, attack = ATTACKS[args.attack]
    evidence = keys.evidence_in(args.evidence or args.model.parent, args.keys)
    print(f"The attacker {attack(Link(name, digest, evidence, args.keys))}.")
    return console.OK


if __name__ == "__main__":
    console.run(main)
