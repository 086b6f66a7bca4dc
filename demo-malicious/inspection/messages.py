"""Models that are one protobuf message: of TensorFlow, Caffe, Core ML, PaddlePaddle or SentencePiece.

Helper module, not a command. Protobuf has no first bytes to know a file by: the numbers and kinds of the
fields tell.
"""

from __future__ import annotations

from inspection.content import Content, Look
from inspection.hdf5 import keras_layers
from inspection.keras import KERAS_RUNS
from inspection.pickle_reader import Buffer
from inspection.protobuf import fields, protobuf_shape
from inspection.report import UNKNOWN, UNSAFE, CannotJudge

NUMBER, MESSAGE = 0, 2  # kinds of fields


def inner_shape(data: Buffer, wanted: int) -> dict[int, int]:
    """Field number -> kind, in the first message that stands in this field; empty if there is none."""
    try:
        for number, kind, start, end in fields(data, 0, len(data), [10_000]):
            if number == wanted and kind == MESSAGE:
                return {n: k for n, k, _, _ in fields(data, start, end, [10_000])}
    except (ValueError, CannotJudge):
        pass
    return {}


def is_vocabulary(data: Buffer) -> bool:
    """Whether a message like TensorFlow's graph is SentencePiece's vocabulary: texts with a score each."""
    piece = inner_shape(data, 1)
    return like_graph(protobuf_shape(data)) and piece.get(1) == MESSAGE and piece.get(2) == 5


def like_graph(shape: dict[int, int]) -> bool:
    """Whether the fields are those of TensorFlow's messages; a vocabulary has the same."""
    return shape == {1: NUMBER, 2: MESSAGE} or (set(shape) <= {1, 2, 3, 4} and shape.get(1) == MESSAGE)


def is_saved_model(data: Buffer) -> bool:
    """Whether the whole file is a message like TensorFlow's SavedModel or a graph, alone or with tables."""
    shape = protobuf_shape(data)
    if like_graph(shape):
        return not is_vocabulary(data) and not is_caffe(data) and not is_paddle(data)
    meta = set(shape) <= set(range(1, 8)) and set(shape.values()) == {MESSAGE} and {1, 2} <= set(shape)
    return meta and inner_shape(data, 2).items() >= {1: MESSAGE, 4: MESSAGE}.items()


def check_saved_model(data: Buffer, where: str, content: Content, look: Look) -> str:
    """TensorFlow: recognised, searched for a Lambda layer of Keras, and not judged beyond that."""
    keras, runs = keras_layers(data)
    if runs:
        content.add(UNSAFE, f"it is a Keras model (SavedModel) with {KERAS_RUNS[runs]}", where)
        return ""
    kind = "the Keras part of a SavedModel" if keras else "a TensorFlow graph or SavedModel"
    content.add(
        UNKNOWN,
        f"it is {kind}, which is not judged here; modelscan looks for operators that read and write files",
        where,
        "Ask the sender for SafeTensors or ONNX, or run it in a sandbox.",
    )
    return ""


def is_caffe(data: Buffer) -> bool:
    """Caffe's NetParameter: its layers stand in field 100, of old versions in field 2."""
    shape = protobuf_shape(data)
    if not set(shape) <= {1, 2, 3, 4, 5, 6, 7, 8, 100}:
        return False
    if shape.get(100) == MESSAGE:
        layer = inner_shape(data, 100)
        return layer.items() >= {1: MESSAGE, 2: MESSAGE}.items()
    layer = inner_shape(data, 2)
    return shape.get(2) == MESSAGE and layer.items() >= {4: MESSAGE, 5: NUMBER}.items()


def is_core_ml(data: Buffer) -> bool:
    """Core ML's Model: a version, a description, and what kind of model it is, from field 200 on."""
    shape = protobuf_shape(data)
    kinds = {number for number in shape if number >= 200}
    return (
        shape.items() >= {1: NUMBER, 2: MESSAGE}.items()
        and len(kinds) == 1
        and kinds <= set(range(200, 4000))
        and set(shape) - kinds <= {1, 2, 10}
    )


def is_paddle(data: Buffer) -> bool:
    """PaddlePaddle's ProgramDesc: blocks, each with its own number and that of the one around it."""
    shape = protobuf_shape(data)
    if not (set(shape) <= {1, 4, 5} and shape.get(1) == MESSAGE):
        return False
    block = inner_shape(data, 1)
    return block.items() >= {1: NUMBER, 2: NUMBER}.items() and bool({3, 4} & set(block))
