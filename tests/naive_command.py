"""A command with every fault that the fuzzer looks for, so that a test can show that it would be found.

The fuzzer gives it only files of its own: they make a marker, or say in their first word what to do wrong.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch


def main() -> int:
    """Load the file as people should not, or do what its first word says."""
    path = Path(sys.argv[1])
    word, _, rest = path.read_bytes().partition(b" ")
    if word == b"wait":
        time.sleep(60)
    elif word == b"fill":
        print(len(bytearray(2_000_000_000)))
    elif word == b"die":
        os.abort()
    elif word == b"write":
        Path("../escape").write_bytes(rest)
    elif word == b"leave":
        Path("half-written").write_bytes(rest)
    elif word == b"remove":
        Path("lax.toml").unlink()
    elif word == b"say":
        print(rest.decode())
    elif word == b"complain":
        print(rest.decode(), file=sys.stderr)
        return 2
    else:
        torch.load(path, weights_only=False)
    return 0
