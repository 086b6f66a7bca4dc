"""The members of an archive, each checked as a file of its own.

Helper module, not a command.
"""

from __future__ import annotations

import zipfile

from inspection.archives import Zip
from inspection.content import Content, Look
from inspection.plain_texts import check_text, is_text
from inspection.report import UNKNOWN, CannotJudge


def inside(where: str, name: str) -> str:
    return f"{where}, {name}" if where else name


def read_member(archive: Zip, member: zipfile.ZipInfo, place: str, content: Content) -> bytes | None:
    """The bytes of a member, or None, with a finding, if it cannot or should not be read."""
    content.in_time()
    try:
        return archive.read(member)
    except CannotJudge as error:
        content.limit = True
        content.add(UNKNOWN, str(error), place)
        return None


def check_members(archive: Zip, where: str, content: Content, look: Look, explained: set[str]) -> None:
    """Check every member that the format does not explain, as a file of its own."""
    for member in archive.members:
        if member.filename in explained or member.filename.endswith("/"):
            continue
        place = inside(where, member.filename)
        part = read_member(archive, member, place, content)
        if part is None:
            continue
        check_part(part, place, content, look)


def check_part(part: bytes, place: str, content: Content, look: Look) -> None:
    """Check one part of an archive: as any format that fits, or as text."""
    before = len(content.findings)
    look(part, place, content)
    if len(content.findings) > before or not part:
        return
    if is_text(part):
        for finding in check_text(place, part):
            content.findings.append(finding.inside(place))
        return
    content.add(UNKNOWN, f"it has {len(part)} bytes that no format explains", place)
