"""The keys of the roles in one folder, the statements in another: as the commands of this demo name them.

Helper module, not a command.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from console import UserError

from statements import chain
from statements.attestation import ENDING, ROLES


def evidence_in(folder: Path, keys: Path, oldest: datetime = chain.LONG_AGO) -> chain.Evidence:
    """The statements in a folder, with the public keys ROLE.pub in another. Raises UserError."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name the one that holds the statements (*{ENDING}).")
    try:
        known = chain.read_keys({role: keys / f"{role}.pub" for role in ROLES})
    except chain.BadKeys as error:
        raise UserError(f"{error}: python attest.py keys FOLDER makes keys.") from error
    return chain.Evidence(folder, known, oldest)
