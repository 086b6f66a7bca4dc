"""Walk a model's chain of evidence, from the signed list back to the data, and say whether each link holds.

    python verify_chain.py models/clean_model.safetensors --keys keys
    python verify_chain.py models/clean_model.safetensors --keys keys --evidence said --drawing chain.svg

Five links: the list names the model (role release); the training names the model and its data (trainer); the
data are the data team's (data); the audit of these data passed (auditor); the scan of this very file found no
backdoor (scanner). attest.py makes the statements. One broken link, and the model is not to be trusted: the
link is named. What the chain cannot see: a stolen key, a lie of its owner, a backdoor that no scan finds.

Exit codes: 0 every link holds, 1 a link is broken, 2 bad input.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import console
from console import UserError

from statements import attestation, chain, keys, printing


def main() -> int:
    parser = console.parser(__doc__)
    parser.add_argument("model", type=Path, help="the model file that you were given")
    parser.add_argument("--keys", type=Path, required=True, help="folder with the public keys (*.pub)")
    parser.add_argument("--evidence", type=Path, help="folder with the statements; else beside the model")
    parser.add_argument("--max-age-days", type=int, default=365, help="take no statement that is older")
    parser.add_argument("--drawing", type=Path, help="write the chain as a drawing, too (.svg)")
    parser.add_argument("--json", action="store_true", help="for programs")
    args = parser.parse_args()
    if not 0 < args.max_age_days < 100_000:
        raise UserError("--max-age-days must be from 1 to 99999: choose such a number.")
    oldest = datetime.now(timezone.utc) - timedelta(days=args.max_age_days)
    evidence = keys.evidence_in(args.evidence or args.model.parent, args.keys, oldest)
    try:
        links = chain.walk(attestation.sha256(args.model), evidence)
    except OSError as error:
        raise UserError(
            f"Cannot read {args.model} ({error.strerror}): give a model file that exists."
        ) from error
    if args.drawing:
        with console.atomic_write(args.drawing) as scratch:
            scratch.write_text(printing.as_svg(args.model, links), encoding="utf-8")
    broken = [link.name for link in links if not link.holds]
    if args.json:
        print(printing.as_json(args.model, links), end="")
        return console.FINDING if broken else console.OK
    print(printing.as_text(args.model, links))
    for name, why in evidence.left_out.items():
        print(f"Left out: {name}: {why}.")
    if args.drawing:
        print(f"Wrote {args.drawing}: {printing.in_words(args.model, links)}")
    if broken:
        print(f"Result: DISCARD {args.model.name}. Broken: {', '.join(broken)}.")
        return console.FINDING
    print(f"Result: every link holds for {args.model.name}.")
    return console.OK


if __name__ == "__main__":
    console.run(main)
