"""The configuration of a Keras model: which classes and modules does it ask for?

Helper module, not a command. Nothing is imported.
"""

from __future__ import annotations

import json
import re

from inspection.names import few
from inspection.report import SAFE, UNKNOWN, UNSAFE, Finding
from inspection.texts import dictionaries

# Layers, optimizers, losses and so on that only compute. A layer that is not here is named, not trusted.
KERAS_LAYERS = set(
    """
    Sequential Functional Model InputLayer Input Dense Conv1D Conv2D Conv3D Conv1DTranspose
    Conv2DTranspose Conv3DTranspose DepthwiseConv1D DepthwiseConv2D SeparableConv1D SeparableConv2D
    MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GlobalAveragePooling1D
    GlobalAveragePooling2D GlobalAveragePooling3D Flatten Reshape Permute RepeatVector Cropping1D
    Cropping2D Cropping3D ZeroPadding1D ZeroPadding2D ZeroPadding3D UpSampling1D UpSampling2D
    UpSampling3D Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianDropout
    GaussianNoise AlphaDropout BatchNormalization LayerNormalization GroupNormalization
    UnitNormalization SpectralNormalization Activation ReLU LeakyReLU PReLU ELU Softmax Add Subtract
    Multiply Average Maximum Minimum Concatenate Dot Attention AdditiveAttention MultiHeadAttention
    GroupQueryAttention Embedding LSTM GRU SimpleRNN LSTMCell GRUCell SimpleRNNCell RNN StackedRNNCells
    ConvLSTM1D ConvLSTM2D ConvLSTM3D Bidirectional TimeDistributed Masking Identity Rescaling Resizing
    CenterCrop Normalization RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast
    RandomBrightness RandomCrop ActivityRegularization EinsumDense GlorotUniform GlorotNormal HeUniform
    HeNormal LecunUniform LecunNormal Zeros Ones Constant RandomNormal RandomUniform TruncatedNormal
    VarianceScaling Orthogonal L1 L2 L1L2 MaxNorm NonNeg UnitNorm MinMaxNorm DTypePolicy Policy Variable
    Adam AdamW SGD RMSprop Adagrad Adadelta Adamax Nadam Ftrl Lion BinaryCrossentropy
    CategoricalCrossentropy SparseCategoricalCrossentropy MeanSquaredError MeanAbsoluteError Huber
    Accuracy BinaryAccuracy CategoricalAccuracy SparseCategoricalAccuracy AUC Precision Recall Mean
    CompileConfig __keras_tensor__ __tuple__ __tensor__ __numpy__ TensorShape __dict__
    """.split()  # noqa: SIM905 (a list of names reads better like this)
)
KERAS_RUNS = {
    "Lambda": "a Lambda layer, which is Python code in the file",
    "__lambda__": "a Lambda layer, which is Python code in the file",
    "TFSMLayer": "a layer that loads a TensorFlow SavedModel",
    "TorchModuleWrapper": "a layer that holds a pickled PyTorch module",
    "JaxLayer": "a layer that calls a function of JAX",
    "FlaxLayer": "a layer that calls a function of Flax",
}
KERAS_MODULES = re.compile(
    r"(tf_)?keras(\.src)?(\.api)?(\._v\d)?(\.(layers|models|initializers|regularizers|constraints|optimizers|losses"
    r"|metrics|activations|engine|dtype_policies|mixed_precision|backend)(\.\w+)*)?"
)


def keras_config(text: str) -> Finding:
    """Check the configuration of a Keras model: which classes and modules it asks for."""
    try:
        tree = json.loads(text)
        parts = list(dictionaries(tree))
    except (ValueError, RecursionError):
        return Finding(UNKNOWN, "it is a Keras model whose configuration cannot be read")
    runs, strange = set(), set()
    for part in parts:
        kind, module = part.get("class_name"), part.get("module")
        if isinstance(kind, str):
            if kind in KERAS_RUNS:
                runs.add(KERAS_RUNS[kind])
            elif kind == "function":
                name = part.get("config")  # what is no text could be large
                strange.add(f"the function {name!r}"[:80] if isinstance(name, str) else "a function")
            elif kind not in KERAS_LAYERS:
                strange.add(f"the class {kind!r}"[:80])
        if isinstance(module, str) and not KERAS_MODULES.fullmatch(module) and module != "builtins":
            runs.add(f"the module {module!r}"[:80] + ", which loading would import")
        own = part.get("registered_name")
        if isinstance(own, str) and ">" in own:
            strange.add(f"the class {own!r}"[:80])
    if runs:
        return Finding(UNSAFE, f"it is a Keras model with {few(sorted(runs))}")
    if strange:
        return Finding(
            UNKNOWN,
            f"it is a Keras model that asks for {few(sorted(strange))}, which are not known here",
            help="Ask the sender for the weights only, and build the model yourself.",
        )
    return Finding(SAFE, "it is a Keras model of Keras's own layers, and no Lambda layer is among them")
