"""Models that are text: which library's they are, and whether they name code.

Helper module, not a command. They are named and not judged, as their binary forms are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from inspection.recognised import MODELAUDIT, R_RUNS, SENDER
from inspection.report import UNKNOWN, UNSAFE, Finding

HEAD = 4000  # characters in which a format shows


@dataclass(frozen=True)
class TextKind:
    """A format: its name, how it begins, what stands anywhere in it, what is said of it."""

    name: str
    begins: str
    has: tuple[str, ...] = ()  # each is searched alone, so that no text takes long
    help: str = ""
    reason: str = ""
    answer: str = UNKNOWN


XML = r"\s*<(\?xml|!--|PMML|net\b)[^\0]*"
LAYER = r"(?m)^[ \t]*layers?[ \t]*\{"
TEXT_KINDS = [
    TextKind("PMML", XML + r"<(\w+:)?PMML[\s>]", (), MODELAUDIT),
    TextKind("OpenVINO", XML + r"<net\s[^>]*\bname=", ("<layers>",), MODELAUDIT),
    TextKind("LightGBM", r"tree\r?\nversion=v", (), MODELAUDIT),
    TextKind("XGBoost (JSON)", r'\s*\{\s*"(learner|version|Config|Model)"', ('"gradient_booster"',),
             MODELAUDIT),
    TextKind("CatBoost (JSON)", r"\s*\{", (r'"(oblivious_)?trees"', '"features_info"'),
             "Ask the sender for ONNX."),
    TextKind("PaddlePaddle (JSON)", r"\s*\{", (r'"magic"\s*:\s*"pir"',), SENDER),
    TextKind("MXNet (JSON)", r"\s*\{", ('"arg_nodes"', '"heads"'), MODELAUDIT),
    TextKind("ncnn", r"7767517\r?\n", (), SENDER),
    TextKind("Caffe", "", (LAYER, r"python_param\s*\{|\btype\s*:\s*['\"]Python['\"]"), SENDER,
             "it is a net of Caffe with a Python layer: Caffe imports the module that it names", UNSAFE),
    TextKind("Caffe", "", (LAYER, r"\b(bottom|top)\s*:"), SENDER),
    TextKind("TensorFlow graph", r"(#[^\n]*\n|\s)*(node|meta_info_def|versions|library)\s*\{",
             (r"\bop\s*:\s*['\"]",), "Ask the sender for SafeTensors or ONNX."),
    TextKind("Torch7", r"4\n\d+\n(\d+\nV \d+\n)?\d+\n[A-Za-z]|[3678]\n1\n\d+\n", (), SENDER),
    TextKind("data of R", r"(RDA[23]\r?\n)?A\r?\n[23]\r?\n\d+\r?\n\d+\r?\n", (), MODELAUDIT, R_RUNS),
    TextKind("data of Octave", r"# Created by Octave", (), SENDER),
    TextKind("spaCy", "", (r"(?m)^\[nlp\]", r"(?m)^\[(components|initialize)\b"),
             "Load it where only the packages that it needs are installed.",
             "it is the configuration of a spaCy pipeline: it names functions, and packages whose pipelines "
             "it takes, which spaCy imports and calls"),
]  # fmt: skip
NAMES = {kind.name for kind in TEXT_KINDS}


def text_model(raw: bytes) -> tuple[str, Finding] | None:
    """The name of the format and what is said of it; None for a text that is no model known here."""
    text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    for kind in TEXT_KINDS:
        if re.match(kind.begins, text[:HEAD]) and all(re.search(part, text) for part in kind.has):
            reason = kind.reason or f"it is a model of {kind.name}, as text, which is not judged here"
            return kind.name, Finding(kind.answer, reason, help=kind.help)
    return None
