"""Does a Jinja template put together the name of what it looks up?

Helper module, not a command. Nothing is rendered. By such a name a template can reach any of Python's inner
parts: texts.py finds x["__class__"], this finds x["_" * 2 ~ "class"], and the same by way of a variable.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from jinja2 import nodes

# they give numbers, or values that they were given; any other filter or call makes a text
FILTERS = {
    "length", "count", "int", "float", "abs", "round", "first", "last", "list", "items", "dictsort", "d",
    "default", "select", "reject", "selectattr", "rejectattr", "sort", "unique", "map", "min", "max", "sum",
    "groupby", "slice", "batch",
}  # fmt: skip
CALLS = {
    "items", "keys", "values", "get", "range", "namespace", "dict", "index", "find", "rfind", "count", "pop",
    "append", "extend", "startswith", "endswith", "isdigit", "isalpha", "cycler", "changed", "update",
}  # fmt: skip
NUMBERS = (nodes.Sub, nodes.Div, nodes.FloorDiv, nodes.Pow, nodes.Neg, nodes.Pos, nodes.Compare, nodes.Test)
MOST_VALUES, MOST_STEPS = 20_000, 10  # values of variables; variables of variables of variables
BY_ATTRIBUTE = {"map", "selectattr", "rejectattr", "groupby", "sort", "unique", "min", "max", "sum"}


def looks_up_made_names(tree: nodes.Template) -> bool:
    """Whether any key or attribute that the template looks up is a text that it makes itself."""
    made = made_variables(tree)
    return any(makes_text(key, made) for key in keys(tree))


def keys(tree: nodes.Template) -> Iterator[nodes.Node]:
    """What stands in square brackets, and the attributes that filters look up."""
    for item in tree.find_all(nodes.Getitem):
        yield item.arg
    for one in tree.find_all(nodes.Filter):
        if one.name in BY_ATTRIBUTE:
            yield from [pair.value for pair in one.kwargs if pair.key == "attribute"]
            yield from one.args[:1]


def made_variables(tree: nodes.Template) -> set[str]:
    """The variables that can hold a text which the template makes; all of them where that takes too long."""
    pairs = list(itertools.islice(assignments(tree), MOST_VALUES))
    made: set[str] = set()
    for _ in range(MOST_STEPS):
        more = {name for name, value in pairs if value is None or makes_text(value, made)} - made
        if not more and len(pairs) < MOST_VALUES:
            return made
        made |= more
    return {name.name for name in tree.find_all(nodes.Name)} | {name for name, _ in pairs}


def assignments(tree: nodes.Template) -> Iterator[tuple[str, nodes.Node | None]]:
    """Each variable with a value that it gets; None for a text that a block of the template makes."""
    for one in tree.find_all(nodes.Assign):
        yield from ((name, one.node) for name in targets(one.target))
    for block in tree.find_all(nodes.AssignBlock):
        yield from ((name, None) for name in targets(block.target))
    for loop in tree.find_all(nodes.For):
        yield from ((name, loop.iter) for name in targets(loop.target))
    for scope in tree.find_all(nodes.With):
        for target, value in zip(scope.targets, scope.values, strict=True):
            yield from ((name, value) for name in targets(target))
    parameters = [name.name for macro in tree.find_all(nodes.Macro) for name in macro.args]
    macros = {macro.name for macro in tree.find_all(nodes.Macro)}
    for call in tree.find_all(nodes.Call):
        if getattr(call.node, "name", None) in macros:
            for value in (*call.args, *(pair.value for pair in call.kwargs)):
                yield from ((name, value) for name in parameters)
        elif getattr(call.node, "name", None) == "namespace":
            yield from ((pair.key, pair.value) for pair in call.kwargs)


def targets(target: nodes.Node) -> Iterable[str]:
    """The names that are given a value; of a namespace, its attribute's."""
    if isinstance(target, nodes.NSRef):
        return [target.attr]
    return (
        [target.name]
        if isinstance(target, nodes.Name)
        else [name.name for name in target.find_all(nodes.Name)]
    )


def makes_text(value: nodes.Node, made: set[str]) -> bool:
    """Whether an expression can give a text that the template makes, and not only one that it was given."""
    if isinstance(value, NUMBERS) or (
        isinstance(value, nodes.Filter) and value.name in ("length", "count", "int")
    ):
        return False
    if isinstance(value, (nodes.Name, nodes.NSRef)):
        return getattr(value, "name", "") in made
    if isinstance(value, nodes.Getattr):
        return value.attr in made or makes_text(value.node, made)
    if isinstance(value, (nodes.Concat, nodes.Mul, nodes.Mod)):
        return True
    if isinstance(value, nodes.Add) and not is_number(value):
        return True
    if isinstance(value, nodes.Filter) and (
        value.name not in FILTERS or (value.name == "map" and bool(value.args))
    ):
        return True
    if isinstance(value, nodes.Call):
        name = getattr(value.node, "attr", None) or getattr(value.node, "name", None)
        if name not in CALLS:
            return True
    if isinstance(value, nodes.Getitem) and isinstance(value.arg, nodes.Slice) and texts_in(value.node):
        return True
    return any(makes_text(part, made) for part in value.iter_child_nodes())


def is_number(value: nodes.Add) -> bool:
    """Whether a sum has a number in it: then all of it are numbers."""
    return any(
        isinstance(part, nodes.Const) and isinstance(part.value, (int, float))
        for part in (value.left, value.right)
    ) or any(isinstance(part, nodes.Add) and is_number(part) for part in (value.left, value.right))


def texts_in(value: nodes.Node) -> bool:
    """Whether a text stands in an expression."""
    consts = [value] if isinstance(value, nodes.Const) else value.find_all(nodes.Const)
    return any(isinstance(const.value, str) for const in consts)
