"""Text files beside weights: which of them does a loader act on?

Helper module, not a command.
"""

from __future__ import annotations

import json
import re

from inspection.keras import keras_config
from inspection.pickle_reader import Buffer
from inspection.report import SAFE, UNKNOWN, UNSAFE, Finding
from inspection.text_models import text_model
from inspection.texts import LONGEST_TEMPLATE, MOST_TEMPLATES, chat_template, dictionaries

MB = 1024 * 1024
SCRIPTS = (
    ".sh", ".bash", ".bat", ".ps1", ".cmd", ".js", ".mjs", ".ts", ".ipynb", ".lua", ".r", ".jl", ".rb",
    ".pl", ".php", ".java", ".c", ".cc", ".cpp", ".cxx", ".cu", ".cuh", ".h", ".hpp", ".rs", ".go",
)  # fmt: skip
PROSE = (".md", ".rst", ".txt", ".html", ".json", ".jsonl", ".csv", ".tsv")  # no loader reads them as YAML
DOCUMENTS = (".md", ".rst", ".html")  # they show settings, and no loader reads them
TEXT = Finding(SAFE, "it is text")
YOLO_RUNS = (
    "it has a backbone and a head, as the plan of a YOLO model: YOLOv5 and others evaluate its texts "
    "(activation, layers, arguments) as Python"
)
# the second: spelled out, or as a prefix; the third gives any tag another name
PYTHON_TAG = re.compile(r"!!?python/|tag:yaml\.org,2002:python/|^%TAG\b", re.M)
KEY = r"(?:^|[{,])[ \t]*[\"']?"  # where a key of YAML may begin; what may come before its value
VALUE = r"[\"']?\s*:\s*(?:[&!]\S{0,99}\s+|[>|][+-]?\d?\s+){0,5}"
MLFLOW_CODE = re.compile(KEY + r"(model_code_path|code)[\"']?[ \t]*:[ \t]*(?!null\b|~|[\"']{2})(\S+)", re.M)
MLFLOW = re.compile(r"\bloader_module\b" + VALUE + r"(?![\"']?mlflow\.)[\"']?([\w.*]+)")
# with a dotted name as their value: the first configuration of Stable Diffusion, LightningCLI
TARGET = re.compile(
    r"\b_target_\b|\b(?:target|class_path)\b" + VALUE + r"(?:\*|[\"']?[A-Za-z_]\w{0,99}\.[\w.])"
)
YOLO = re.compile(KEY + r"(backbone|head)[\"']?[ \t]*:", re.M)
ESCAPE = re.compile(r"\\(?:x|u00|U000000)([2-7][0-9a-fA-F])|%([2-7][0-9a-fA-F])")


def is_text(data: Buffer) -> bool:
    """Whether the file is text: UTF-8 without control characters, all of it."""
    if len(data) > 64 * MB:
        return False
    raw = bytes(data[0 : len(data)])
    if re.search(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]", raw[:65536]) or b"\0" in raw:
        return False
    try:
        raw.decode("utf-8")
        return True
    except UnicodeDecodeError:
        return False


def check_text(name: str, raw: bytes) -> list[Finding]:
    """What a text beside weights can do: by its name and its content."""
    found = settings_in(name, raw)
    if not name.lower().endswith(DOCUMENTS) and (model := text_model(raw)):
        found = [model[1], *(one for one in found if one != TEXT)]
    return found


def settings_in(name: str, raw: bytes) -> list[Finding]:
    """What settings in a text make a loader do."""
    text, name = raw.decode("utf-8", "replace"), name.lower()
    spelled = spelled_out(text)
    if name.endswith(SCRIPTS):
        return [Finding(UNKNOWN, "it is a script, which is not judged here: read it before you run it")]
    if name.endswith((".py", ".pyc", ".pth")) or re.match(r"\s*(import \w+|from \w[\w.]* import )", text):
        return [Finding(UNKNOWN, "it is Python code, which is not judged here: read it before you run it")]
    if name.endswith((".jinja", ".jinja2", ".j2")):
        return [chat_template(text, "it")]
    if not name.endswith(PROSE) and PYTHON_TAG.search(spelled):
        return [Finding(UNSAFE, "it is YAML that asks for Python objects, which an unsafe YAML loader makes")]
    if not name.endswith(PROSE) and (target := TARGET.search(spelled)):
        key = re.sub(r"\W.*", "", target[0], flags=re.S)
        of = {"_target_": "Hydra", "class_path": "LightningCLI"}.get(key, "Stable Diffusion and others")
        names = f"it is YAML with {key} ({of}), which names code that a loader imports and calls"
        return [Finding(UNKNOWN, names)]
    if not name.endswith(PROSE) and set(YOLO.findall(spelled)) == {"backbone", "head"}:
        return [Finding(UNKNOWN, YOLO_RUNS)]
    if re.split(r"[/\\, ]", name)[-1] == "mlmodel" and (found := mlflow(spelled)):
        return found
    if '"class_name"' in spelled and text.lstrip()[:1] == "{":
        return [keras_config(text)]
    found = []
    if '"chat_template"' in spelled and text.lstrip()[:1] == "{":
        try:
            templates = set()  # one that stands there often is read once
            for part in dictionaries(json.loads(text)):
                value = part.get("chat_template")
                for one in value if isinstance(value, list) else [value]:
                    template = one.get("template") if isinstance(one, dict) else one
                    if isinstance(template, str):
                        templates.add(template)
            if len(templates) > MOST_TEMPLATES or sum(map(len, templates)) > 2 * LONGEST_TEMPLATE:
                return [Finding(UNKNOWN, "it has more chat templates than this tool reads")]
            found += [chat_template(template, "its chat_template") for template in sorted(templates)]
        except (ValueError, RecursionError):
            found.append(Finding(UNKNOWN, "it is JSON that cannot be read"))
    return found or [TEXT]


def spelled_out(text: str) -> str:
    """The text with escapes of YAML, JSON and tags as the letters that they stand for."""
    if "\\" not in text and "%" not in text:
        return text
    return ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), text)


def mlflow(text: str) -> list[Finding]:
    """What MLflow imports or runs for a model with these settings, beside its own modules."""
    found = []
    if loader := MLFLOW.search(text):
        found.append(Finding(UNKNOWN, f"it is a model of MLflow, which imports {loader[1][:100]} to load it"))
    for key, path in MLFLOW_CODE.findall(text):
        does = "runs" if key == "model_code_path" else "puts in front of what Python imports"
        found.append(
            Finding(UNSAFE, f"it names Python code ({path[:100]}) that MLflow {does} when it loads the model")
        )
    return found


def printable(text: str) -> str:
    """The text with control characters and unpaired surrogates as "?", and not too long."""
    return "".join(c if c.isprintable() else "?" for c in text[:500])
