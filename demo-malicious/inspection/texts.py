"""Texts beside weights that a loader acts on: chat templates, settings that name code.

Helper module, not a command. Nothing is rendered, evaluated or imported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from inspection.names import few
from inspection.report import SAFE, UNKNOWN, UNSAFE, Finding

LONGEST_TEMPLATE = 200_000  # characters; two of that length take a second or two to parse
MOST_TEMPLATES = 100  # of a file; models have one to five
DUNDER = re.compile(r"__[A-Za-z]\w*__")
# what templates of chat models use, and Jinja's sandbox allows
TEMPLATE_CALLS = {
    "raise_exception", "range", "namespace", "strftime_now", "dict", "lipsum", "cycler", "joiner", "loop",
    "append", "capitalize", "count", "endswith", "find", "format", "get", "index", "isdigit", "items", "join",
    "keys", "lower", "lstrip", "pop", "replace", "rfind", "rsplit", "rstrip", "split", "splitlines",
    "startswith", "strip", "title", "tojson", "update", "upper", "values", "zfill", "extend", "insert",
    "isalpha", "changed", "partition", "rpartition", "removeprefix", "removesuffix",
}  # fmt: skip


def chat_template(text: str, what: str) -> Finding:
    """Check a Jinja template by its structure, without rendering it."""
    import jinja2  # noqa: PLC0415 (only for files that have a template)
    from jinja2 import nodes  # noqa: PLC0415

    from inspection.template_keys import looks_up_made_names  # noqa: PLC0415

    if len(text) > LONGEST_TEMPLATE:
        return Finding(UNKNOWN, f"{what} is a template of {len(text)} characters, more than this tool reads")
    try:
        environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols", "jinja2.ext.do"])
        tree = environment.parse(re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", text))
        reached = {
            *(str(node.attr) for node in tree.find_all(nodes.Getattr)),
            *(str(getattr(node.arg, "value", "")) for node in tree.find_all(nodes.Getitem)),
        }
        texts = {str(node.value) for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
        texts |= {str(node.key) for node in tree.find_all(nodes.Keyword)}
        made = looks_up_made_names(tree)
        calls = {called(node.node) for node in tree.find_all(nodes.Call)} - macros(tree)
        filters = {node.name for node in tree.find_all(nodes.Filter)}
        foreign = list(tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)))
        plain = not list(tree.find_all((nodes.For, nodes.If, nodes.Macro, nodes.Call, nodes.Assign)))
    except (jinja2.TemplateError, RecursionError, ValueError, TypeError) as error:
        return Finding(UNKNOWN, f"{what} is a template that cannot be read ({type(error).__name__})")
    inner = sorted(
        {name for name in reached | texts if name.startswith("_") and "__" in name} | (filters & {"attr"})
    )
    inner += sorted(name for name in reached if name.startswith("_") and name not in inner)
    if inner:
        return Finding(
            UNSAFE,
            f"{what} is a template that reaches for Python's inner parts ({few(inner)}), as an escape does",
        )
    if made or any(DUNDER.search(text) for text in texts):
        return Finding(
            UNKNOWN,
            f"{what} is a template that puts together the name of what it looks up, or has one of Python's "
            "inner names in a text: what it reaches for cannot be told",
        )
    strange = sorted(calls - TEMPLATE_CALLS)
    if foreign or strange:
        reason = f"calls {few(strange)}" if strange else "takes in other templates"
        return Finding(UNKNOWN, f"{what} is a template that {reason}, which templates of models do not need")
    if plain:
        return Finding(SAFE, f"{what} is a template that only puts values into text")
    return Finding(
        SAFE,
        f"{what} is a template with loops or conditions: a program, for a sandboxed Jinja. It reaches for "
        "nothing but the chat",
    )


def called(node: object) -> str:
    """The last name of what is called."""
    return str(getattr(node, "attr", None) or getattr(node, "name", None) or type(node).__name__)


def macros(tree: object) -> set[str]:
    """Names that the template defines itself."""
    from jinja2 import nodes  # noqa: PLC0415

    return {node.name for node in tree.find_all(nodes.Macro)} | {"caller"}  # type: ignore[attr-defined]


def dictionaries(tree: object) -> Iterator[dict[str, object]]:
    """Every dictionary in parsed JSON, also in texts that are JSON themselves."""
    todo = [tree]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            yield part
            todo.extend(part.values())
        elif isinstance(part, list):
            todo.extend(part)
        elif isinstance(part, str) and part[:1] in "{[" and len(part) > 1:
            try:
                todo.append(json.loads(part))
            except (ValueError, RecursionError):
                continue
