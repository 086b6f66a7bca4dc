"""Settings in JSON that make a loader import and call code: which keys do, and what they name.

Helper module, not a command. Nothing is imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inspection.files import leaves_folder
from inspection.names import few
from inspection.report import UNKNOWN, UNSAFE, Finding
from inspection.texts import dictionaries

Settings = dict[str, Any]

# sentence-transformers imports what these name and calls it; names without a dot are looked up in a list
CLASSES = ("activation_function", "activation_fn", "sbert_ce_default_activation_function")
KERNELS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
SENTENCES = "sentence_transformers."
EXPRESSION = re.compile(r"\$\s*(import\b|from\s|[^\s\d].*[(\[@])", re.S)  # MONAI evaluates it as Python
MOST_PARTS = 1000  # of a pipeline; they have about ten
ADAPTER_LIBRARIES = ("transformers", "diffusers", "peft")


def check_settings(name: str, tree: object, here: Path) -> list[Finding]:
    """What the settings in a JSON file import; nothing if no loader that is known here imports for them.

    name: of the file, in small letters; tree: what it holds; here: its folder.
    """
    if name == "modules.json" and isinstance(tree, list):  # sentence-transformers
        types = {printed(part.get("type", SENTENCES)) for part in tree if isinstance(part, dict)}
        return list(sentence_modules(types))
    if not isinstance(tree, dict):
        return []
    parts = list(dictionaries(tree))
    found = [*code_of(tree, parts, here), *calls(tree, parts), *adapter(tree)]
    if name == "model_index.json" or "_diffusers_version" in tree:
        found += pipeline(tree, here)
    return found


def sentence_modules(types: set[str]) -> Iterator[Finding]:
    """The parts of a model of sentence-transformers that are not its own."""
    if own := sorted(name for name in types if not name.startswith(SENTENCES)):
        yield Finding(
            UNSAFE, f"it names code ({few(own)}) that sentence-transformers imports from the folder"
        )


def code_of(tree: Settings, parts: list[Settings], here: Path) -> Iterator[Finding]:
    """Code that transformers imports when it is told to trust it, and kernels, for which it does not ask."""
    named = texts_under(parts, ("auto_map",))
    tasks = [task for part in parts for task in values_of(part.get("custom_pipelines"))]
    impl = [task.get("impl", task) if isinstance(task, dict) else task for task in tasks]
    named |= texts_in(impl)
    if named:
        scripts = sorted(script.name for script in here.glob("*.py"))
        beside = f"; beside it: {few(scripts)}" if scripts else ""
        yield Finding(
            UNSAFE,
            f"it names Python code ({few(sorted(named))}) that transformers imports with "
            f"trust_remote_code=True{beside}",
        )
    elif tree.get("trust_remote_code") is True:
        yield Finding(UNSAFE, "it asks for trust_remote_code=True")
    kernels = {text for text in texts_under(parts, KERNELS) if "/" in text}
    if kernels:
        yield Finding(
            UNSAFE, f"it names kernels ({few(sorted(kernels))}): code that transformers gets from a hub"
        )


def calls(tree: Settings, parts: list[Settings]) -> Iterator[Finding]:
    """Classes and functions that are named by their path, to be imported and called."""
    classes = texts_under(parts, CLASSES)
    if own := sorted(name for name in classes if "." in name and not name.startswith("torch.nn.")):
        yield Finding(UNSAFE, f"it names code ({few(own)}) that sentence-transformers imports and calls")
    if isinstance(tree.get("types"), dict) and "structure" in tree:
        yield from sentence_modules(texts_in(tree["types"]))
    if targets := sorted(texts_under(parts, ("_target_",))):
        yield Finding(
            UNKNOWN,
            f"it has _target_ (Hydra, MONAI): it names code ({few(targets)}) that a loader imports and calls",
        )
    # deeper inside, vocabularies have texts like these
    if any(
        isinstance(text, str) and EXPRESSION.match(text)
        for value in tree.values()
        for text in values_of(value)
    ):
        yield Finding(UNKNOWN, "it has texts that begin with $ and are Python, which MONAI evaluates")


def adapter(tree: Settings) -> Iterator[Finding]:
    """Libraries that peft imports for an adapter."""
    mapping = tree.get("auto_mapping")
    if isinstance(mapping, dict) and mapping.get("parent_library"):
        library = printed(mapping["parent_library"])
        if library.split(".", maxsplit=1)[0] not in ADAPTER_LIBRARIES:
            yield Finding(UNKNOWN, f"it is an adapter whose base model is code of {library[:100]!r}")
    megatron = tree.get("megatron_core")
    if megatron and megatron != "megatron.core":
        yield Finding(UNKNOWN, f"it is an adapter for which peft imports {printed(megatron)[:100]!r}")


def pipeline(tree: Settings, here: Path) -> Iterator[Finding]:
    """Parts of a pipeline of diffusers that are code of its folder."""
    if "_class_name" not in tree:
        return
    pairs = [value for value in tree.values() if isinstance(value, list) and len(value) == 2]
    libraries = {printed(value[0]) for value in pairs} - {"transformers", "diffusers", "None"}
    if len(libraries) > MOST_PARTS:  # each is looked up in the folder
        yield Finding(UNKNOWN, f"it is a pipeline of more than {MOST_PARTS} parts, more than this tool reads")
        return
    if own := sorted(name for name in libraries if has_code(here, name)):
        yield Finding(UNSAFE, f"it names Python code of this folder ({few(own)}) that diffusers imports")


def has_code(here: Path, name: str) -> bool:
    """Whether a pipeline's part is Python code of this folder."""
    return not leaves_folder(name) and ((here / f"{name}.py").exists() or any((here / name).glob("*.py")))


def printed(value: object) -> str:
    """A value as a text; what is no text and no number could be large, or nested too deeply for repr."""
    return str(value) if isinstance(value, (str, int, float, type(None))) else "something that is not a text"


def values_of(value: object) -> list[object]:
    """The values of an object or a list; another value as a list of one."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def texts_under(parts: list[Settings], keys: tuple[str, ...]) -> set[str]:
    """Every text that is a value below one of these keys."""
    return texts_in([part[key] for part in parts for key in keys if key in part])


def texts_in(value: object) -> set[str]:
    """Every text in parsed JSON that is a value."""
    found, todo = set(), [value]
    seen: set[int] = set()  # one key can stand below itself hundreds of times: each part is read once
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            found.add(part)
        elif isinstance(part, (dict, list)) and id(part) not in seen:
            seen.add(id(part))
            todo.extend(part.values() if isinstance(part, dict) else part)
    return found
