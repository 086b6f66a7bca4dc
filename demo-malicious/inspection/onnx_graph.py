"""An ONNX model: which operators it asks for, and which other files it reads as weights.

Helper module, not a command. A small reader: the packages of the format bring or run much more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from inspection.files import leaves_folder
from inspection.names import few
from inspection.pickle_reader import Buffer
from inspection.protobuf import MOST_FIELDS, fields, protobuf_shape
from inspection.report import SAFE, UNKNOWN, UNSAFE, CannotJudge, Finding

UNCLEAR, ALL_OF_IT = -1, 2**63  # in place of how far the weights reach
ONNX_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training")


def is_onnx(data: Buffer) -> bool:
    """Whether the whole file is a message like ONNX's ModelProto: a version, a graph, operator sets."""
    shape = protobuf_shape(data)
    return (
        shape.get(7) == 2
        and (shape.get(1) == 0 or shape.get(8) == 2)
        and all(shape.get(number, 2) == 2 for number in (2, 3, 4, 6, 7, 8, 14, 20, 25))
    )


def onnx(data: Buffer) -> Finding:
    """What an ONNX model can do: read other files, or ask for operators of somebody's own library."""
    found = onnx_parts(data)
    if away := sorted(path for path in found.ends if leaves_folder(path)):
        return Finding(UNSAFE, f"it is ONNX, and reads a file outside of its folder as weights: {few(away)}")
    if strange := sorted(found.domains - set(ONNX_DOMAINS)):
        return Finding(
            UNKNOWN,
            f"it is ONNX with operators of {few(strange)}, which a library outside of the file brings",
            help="Ask the sender which library that is, and trust it or do not.",
        )
    more = f"; its weights lie in {few(sorted(found.ends))} beside it" if found.ends else ""
    return Finding(SAFE, f"it is ONNX: a graph of the standard's own operators{more}")


@dataclass
class OnnxParts:
    """What an ONNX model names: operators by their domain, other files and where their last weight ends."""

    domains: set[str] = field(default_factory=set)
    ends: dict[str, int] = field(default_factory=dict)  # path -> bytes


def onnx_parts(data: Buffer) -> OnnxParts:
    """Read an ONNX model field by field. Raises CannotJudge."""
    budget = [MOST_FIELDS]
    found = OnnxParts()

    def text(first: int, last: int) -> str:
        return bytes(data[first : min(last, first + 4000)]).decode("utf-8", "replace")

    def tensor(first: int, last: int) -> None:
        external: dict[str, str] = {}
        for number, kind, start, end in fields(data, first, last, budget):
            if number == 13 and kind == 2:  # external_data: key and value
                entry = {n: text(s, e) for n, k, s, e in fields(data, start, end, budget) if k == 2}
                external[entry.get(1, "")] = entry.get(2, "")
                if entry.get(1) == "location":  # each one counts, also if there are two
                    found.ends.setdefault(entry.get(2, ""), 0)
        if "location" in external:
            path, numbers = external["location"], (external.get("offset", "0"), external.get("length", "0"))
            if not all(number.isdecimal() and len(number) < 19 for number in numbers):
                found.ends[path] = UNCLEAR
            elif found.ends[path] != UNCLEAR:
                end = sum(map(int, numbers)) if "length" in external else ALL_OF_IT
                found.ends[path] = max(found.ends[path], end)

    def sparse(first: int, last: int) -> None:
        for number, kind, start, end in fields(data, first, last, budget):
            if number in (1, 2) and kind == 2:  # values and indices
                tensor(start, end)

    def graph(first: int, last: int, depth: int) -> None:
        if depth > 50:
            raise CannotJudge("it is an ONNX graph that is nested too deeply")
        for number, kind, start, end in fields(data, first, last, budget):
            if kind != 2:
                continue
            if number == 5:  # initializer
                tensor(start, end)
            elif number == 15:  # sparse_initializer
                sparse(start, end)
            elif number == 1:
                node(start, end, depth)

    def node(first: int, last: int, depth: int) -> None:
        for number, kind, start, end in fields(data, first, last, budget):
            if number == 7 and kind == 2:
                found.domains.add(text(start, end))
            elif number == 5 and kind == 2:  # attributes: tensors and graphs
                for inner, inner_kind, s, e in fields(data, start, end, budget):
                    if inner_kind == 2 and inner in (5, 10):
                        tensor(s, e)
                    elif inner_kind == 2 and inner in (6, 11):
                        graph(s, e, depth + 1)
                    elif inner_kind == 2 and inner in (22, 23):
                        sparse(s, e)

    try:
        for number, kind, start, end in fields(data, 0, len(data), budget):
            if number == 7 and kind == 2:
                graph(start, end, 0)
            elif number == 8 and kind == 2:
                found.domains |= {
                    text(s, e) for n, k, s, e in fields(data, start, end, budget) if n == 1 and k == 2
                }
            elif number == 25 and kind == 2:  # functions: their nodes
                for inner, inner_kind, s, e in fields(data, start, end, budget):
                    if inner == 7 and inner_kind == 2:
                        node(s, e, 0)
    except ValueError as error:
        raise CannotJudge("it is an ONNX file that is damaged") from error
    return found
