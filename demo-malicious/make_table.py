"""Ask every scanner about every variant of the attack, then really load each file, and print one table.

    python make_table.py                         prints the table (some seconds)
    python make_table.py --check SCANNERS.md     exit code 1 if that file shows another verdict
    python make_table.py --write SCANNERS.md     replaces the table in that file

Every cell is measured. The payloads only write a marker, here in a temporary folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors.torch import load_file

import cli
import variants
from create_malicious_model import VARIANTS, malicious_bytes
from inspection.files import existing_file
from inspection.verdict import inspect_file
from weights.trial import try_to_load
from weights.writing import save_safetensors

START, END = "<!-- made by make_table.py -->", "<!-- end of what make_table.py made -->"
TOOLS = ("torch", "fickling", "picklescan", "modelscan")
ABSENT = "not installed"

Row = dict[str, str]


def files(folder: Path) -> Iterator[tuple[Path, Path, Callable[[Path], object]]]:
    """Write each file. Gives its path, the marker of its payload, and the loader that checks nothing."""
    from weights import shapes  # noqa: PLC0415 (takes seconds to import)

    clean = shapes.network()
    for name, old in (("clean_model.pt", False), ("clean_old_format.pt", True)):
        torch.save(clean.state_dict(), folder / name, _use_new_zipfile_serialization=not old)
        yield folder / name, folder / f"{name} was here", variants.unsafe_torch_load
    save_safetensors(clean.state_dict(), folder / "clean_model.safetensors")
    yield folder / "clean_model.safetensors", folder / "SafeTensors was here", load_file
    for variant in VARIANTS.values():
        path, marker = folder / variant.file, folder / f"{variant.name} was here"
        path.write_bytes(malicious_bytes(variant.name, marker, clean))  # not trained: the program is the same
        yield path, marker, variant.fire


def measure() -> list[Row]:
    """One row for each file: what each scanner says, our verdict, and what two loaders do."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for path, marker, unsafe in files(Path(folder)):
            report = inspect_file(path)
            row = {"file": path.name}
            for name, said in report.verdicts.items():
                row[name] = (
                    f"{said.answer}, {said.words}" if name == "fickling" and said.words else said.answer
                )
            row["our verdict"] = report.overall
            row["torch.load(FILE)"] = try_to_load(safe_torch_load, path, marker)
            row["loader without checks"] = try_to_load(unsafe, path, marker)
            rows.append(row)
    return rows


def safe_torch_load(path: Path) -> object:
    """torch.load with its default, which an environment variable could switch off."""
    return torch.load(path, weights_only=True)


def versions() -> str:
    """The versions of the tools, in words."""
    found = []
    for tool in TOOLS:
        try:
            found.append(f"{tool} {version(tool).split('+')[0]}")
        except PackageNotFoundError:
            found.append(f"{tool} {ABSENT}")
    return f"Measured with {', '.join(found)}."


def markdown(rows: list[Row]) -> str:
    """The rows as a Markdown table, with the versions above it."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join([versions(), "", *("| " + " | ".join(line) + " |" for line in lines)])


def differences(before: str, now: str) -> list[str]:
    """What changed between two tables, in words. One that is not installed now does not count."""
    if len(before.splitlines()) != len(now.splitlines()):
        return ["the two tables have not the same number of lines"]
    found = []
    columns = now.splitlines()[2].split(" | ")
    for old, new in zip(before.splitlines(), now.splitlines()):
        mark = " | " if old.startswith("|") else ", "
        for index, (was, became) in enumerate(zip(old.split(mark), new.split(mark))):
            if was != became and ABSENT not in became:
                where = (
                    f"{new.split(mark)[0].strip('| ')}, {columns[index].strip('| ')}: "
                    if mark == " | "
                    else ""
                )
                found.append(f"{where}{was.strip('| ')!r} is now {became.strip('| ')!r}")
    return found


def main() -> int:
    """Read the command line, measure, then print, check or write."""
    arguments = cli.parser(__doc__)
    arguments.add_argument("--check", type=Path, help="compare with the table in this file")
    arguments.add_argument("--write", type=Path, help="replace the table in this file")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    place = args.check or args.write
    text = existing_file(place).read_text(encoding="utf-8") if place else START + END
    if text.count(START) != 1 or text.count(END) != 1:
        raise cli.UserError(f"{place} has no place for the table: put the lines {START} and {END} in it.")
    before, old, after = text.split(START)[0], text.split(START)[1].split(END)[0].strip(), text.split(END)[1]
    rows = measure()
    if args.check:
        changed = differences(old, markdown(rows))
        for change in changed:
            out.say(change)
        out.say(f"{place}: {len(changed)} changes in {len(rows)} files.")
        return cli.FINDING if changed else cli.OK
    if args.write:
        with cli.atomic_write(place) as scratch:
            scratch.write_text(f"{before}{START}\n{markdown(rows)}\n{END}{after}", encoding="utf-8")
        out.say(f"Wrote the table of {len(rows)} files to {place}.")
        return cli.OK
    out.say(versions())
    out.table("What the scanners say, and what happens", list(rows[0]), [list(row.values()) for row in rows])
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
