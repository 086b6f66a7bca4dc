"""The zip files that PyTorch writes: torch.save, TorchScript, torch.export and torch.package.

Helper module, not a command. Each has a loader of its own, which decides by other names.
"""

from __future__ import annotations

import re

from inspection import archives, raw_numbers
from inspection.archives import Zip
from inspection.content import Content, Look
from inspection.members import check_members, check_part, inside, read_member
from inspection.names import disallowed, few
from inspection.pickle_reader import walk
from inspection.pickle_values import Values
from inspection.pickles import BREAKS_OFF, one_pickle
from inspection.plain_texts import is_text
from inspection.report import UNKNOWN, UNSAFE, CannotJudge

SCRIPT = "Ask the sender for the state dict as SafeTensors, or run it in the sandbox (run_sandboxed.sh)."

SETTINGS = {  # what torch.save writes beside the pickle and the numbers
    "version": rb"\d{1,3}\n?",
    "byteorder": rb"little|big",
    ".format_version": rb"\d{1,3}",
    ".storage_alignment": rb"\d{1,9}",
    ".data/serialization_id": rb"\d{1,64}",
}


def torch_root(archive: Zip) -> str:
    """The folder of a zip file of torch.save that everything lies in, with its slash."""
    names = (member.filename for member in archive.members)
    return next((n[:-8] for n in names if n.lower().endswith("/data.pkl") and n.count("/") == 1), "")


def check_torch(archive: Zip, where: str, content: Content, look: Look) -> None:
    """The zip file of torch.save: one pickle, its numbers, a few settings. Anything else is not explained."""
    root = torch_root(archive)
    numbers = re.compile(re.escape(root) + r"data/(\d+)", re.I)
    stored: dict[str, int] | None = None
    sizes: dict[str, int] = {}
    for member in archive.members:
        name, place = member.filename, inside(where, member.filename)
        if name.endswith("/"):
            continue
        if match := numbers.fullmatch(name):
            sizes[match[1]] = member.file_size
            continue
        part = read_member(archive, member, place, content)
        if part is None:
            continue
        setting = SETTINGS.get(name.removeprefix(root))
        if setting and re.fullmatch(setting, part):
            continue
        if name.lower().endswith((".pkl", ".pickle")):
            content.count_for_scanners(part)
            values = Values(part) if name.lower() == root.lower() + "data.pkl" else None
            try:
                found = one_pickle(part, 0, place, content, values=values)
            except CannotJudge as error:
                content.limit = True
                content.add(UNKNOWN, str(error), place)
                continue
            if not found.complete:
                content.add(UNKNOWN, BREAKS_OFF, place)
            elif found.end < len(part):
                behind = f"it has {len(part) - found.end} bytes behind its pickle that no format explains"
                content.add(UNKNOWN, behind, place)
            if values and found.complete:
                try:
                    stored = raw_numbers.sizes_named(values)
                except CannotJudge as error:
                    content.add(UNKNOWN, str(error), place)
            continue
        check_part(part, place, content, look)
        if not name.lower().endswith((".json", ".txt", ".md", ".yaml", ".yml")):
            content.add(UNKNOWN, "it is a part that torch.save does not write", place)
    if stored is not None and sizes != stored:
        wrong = sorted(key for key in sizes.keys() | stored.keys() if sizes.get(key) != stored.get(key))
        content.add(UNKNOWN, f"its numbers are not those that its pickle names: data/{few(wrong)}", where)


def check_torchscript(archive: Zip, where: str, content: Content, look: Look) -> None:
    """TorchScript: a program of its own for torch.jit.load. Python does not run its pickles."""
    for member in archive.members:
        if not member.filename.lower().endswith((".pkl", ".pickle")):
            continue
        place = inside(where, member.filename)
        part = read_member(archive, member, place, content)
        if part is None:
            continue
        content.count_for_scanners(part)
        found = walk(part, 0, content.instructions)
        content.instructions -= found.instructions
        found.names = {
            name for name in found.names if not name.startswith(("__torch__.", "torch.jit._pickle."))
        }
        content.names |= found.names
        bad = disallowed(found.names)
        if bad or found.hides:
            content.add(
                UNSAFE,
                f"it imports {few(bad) or 'a name that it puts together'}, which TorchScript does not need",
                place,
            )
    content.add(
        UNKNOWN,
        "it is TorchScript, a program that torch.jit.load compiles; its code is not judged here",
        where,
        SCRIPT,
    )


def check_pt2(archive: Zip, where: str, content: Content, look: Look) -> None:
    """torch.export's archive: a member can be an archive itself, and the loader unpickles some."""
    for member in archive.members:
        name = member.filename.lower()
        if member.filename.endswith("/") or (is_numbers(name) and not looks_packed(archive.head(member))):
            continue  # numbers
        place = inside(where, member.filename)
        part = read_member(archive, member, place, content)
        if part is None:
            continue
        if re.search(r"\.(so|cpp|cu|ptx|cubin|hsaco|dll|dylib)$", name):
            content.add(
                UNSAFE, "it is compiled or source code, which loading a package of AOTInductor runs", place
            )
            continue
        before = len(content.findings)
        look(part, place, content)
        if (
            len(content.findings) == before
            and not is_text(part)
            and not re.search(r"(weights|constants)/", name)
        ):
            content.add(UNKNOWN, f"it has {len(part)} bytes that no format explains", place)
    content.add(
        UNKNOWN,
        "it is a program of torch.export (.pt2), which is not judged here: its graph names functions and "
        "formulas, and torch.export.load evaluates them; it also unpickles its sample inputs and falls back "
        "to weights_only=False by itself",
        where,
        SCRIPT,
    )


def check_package(archive: Zip, where: str, content: Content, look: Look) -> None:
    """torch.package: Python source and pickles that import it."""
    check_members(archive, where, content, look, set())
    content.add(
        UNSAFE,
        "it is an archive of torch.package, which brings Python code and runs it when it is imported",
        where,
    )


def is_numbers(name: str) -> bool:
    """Whether a member of an archive of torch.export has the name of a tensor, such as weights/weight_0."""
    folder, _, base = name.rpartition("/")
    # with no pattern for all of it: a name has up to 65,535 letters, and it would be tried at each of them
    end = max(
        base.rfind(word) + len(word) if word in base else -1 for word in ("weight", "tensor", "constant")
    )
    return (
        folder.rpartition("/")[2] in ("weights", "constants")
        and end >= 0
        and re.fullmatch(r"\w+", base[end:]) is not None
        and base[-1].isdecimal()
    )


def looks_packed(head: bytes) -> bool:
    """Whether a part begins as an archive or a pickle does."""
    return head[:4] in (archives.LOCAL,) or (head[:1] == b"\x80" and head[1:2] <= b"\x05")


def is_torchscript(inner: set[str]) -> bool:
    """Whether there is code in it, by the names inside of its folder."""
    code = "constants.pkl" in inner or any(name.startswith("code/") for name in inner)
    return code and not is_pt2(inner)


def is_saved(names: set[str], inner: set[str]) -> bool:
    """Whether torch.load would read it, or any other reader of pickles that stand in a zip file."""
    return (
        any(name.endswith((".pkl", ".pickle")) for name in names)
        and not is_torchscript(inner)
        and not is_package(inner)
        and ("data.pkl" in inner or not is_pt2(inner))
    )


def is_pt2(inner: set[str]) -> bool:
    return (
        "archive_format" in inner
        or any(re.fullmatch(r"(.*/)?models/[^/]+\.json", name) for name in inner)
        or {"serialized_exported_program.json"} <= inner
    )


def is_package(inner: set[str]) -> bool:
    return ".data/extern_modules" in inner or ".data/python_version" in inner
