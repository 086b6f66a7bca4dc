"""Write a tiny model file in the SafeTensors format by hand: a length, a JSON header, numbers. No code.

python make_example.py            # writes example.safetensors, for the ML-BOM step without the other demos
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import console

WEIGHTS = (0.5, -1.0, 2.0, 0.25)


def safetensors_bytes(weights: tuple[float, ...]) -> bytes:
    """One float32 tensor called "weight", laid out as the format wants it."""
    data = struct.pack(f"<{len(weights)}f", *weights)
    entry = {"dtype": "F32", "shape": [len(weights)], "data_offsets": [0, len(data)]}
    header = json.dumps({"weight": entry}).encode()
    return struct.pack("<Q", len(header)) + header + data


def main() -> int:
    parser = console.parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("example.safetensors"), help="file to write")
    args = parser.parse_args()
    with console.atomic_write(args.output) as scratch:
        scratch.write_bytes(safetensors_bytes(WEIGHTS))
    print(f"Wrote {args.output} ({args.output.stat().st_size} bytes).")
    return console.OK


if __name__ == "__main__":
    console.run(main)
