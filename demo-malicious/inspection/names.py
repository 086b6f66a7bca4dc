"""What an imported name means: PyTorch's safe loader allows it, it only holds data, or nobody vouches for it.

Helper module, not a command.
"""

from __future__ import annotations

import re
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

from torch._weights_only_unpickler import _get_allowed_globals

from inspection.data_names import DATA, NOT_DATA

# The names that weights_only=True allows: PyTorch's own list. The function is private to PyTorch, which is
# one reason why requirements-torch.txt pins the version.
ALLOWED = frozenset(_get_allowed_globals())

# Classes of numpy.dtypes are named by what they are: Float64DType and so on
NUMPY_DTYPE = re.compile(r"numpy\.dtypes\.\w+DType")
# joblib's stand-in for an array: its numbers stand between the instructions, which we do not follow
JOBLIB_ARRAY = "joblib.numpy_pickle.NumpyArrayWrapper"
# calls that make an object of another class, which PyTorch's safe loader wants to be told as well
MAKES = {
    "numpy.random._pickle.__randomstate_ctor": "numpy.random.RandomState",
    "numpy.random._pickle.__generator_ctor": "numpy.random.Generator",
    "numpy.dtype": '*(type(numpy.dtype(code)) for code in "?bhilqBHILQefdgFDGSUV")',
}
LONGEST_NAME = 200
VALID_NAME = re.compile(rf"[\w.<>]{{1,{LONGEST_NAME}}}")


def full_name(module: str, name: str) -> str:
    """A name as Python 3 and today's NumPy spell it: old pickles say __builtin__ and numpy.core."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    module = re.sub(r"^numpy\.core\b", "numpy._core", module)
    return f"{module}.{name}"


def is_allowed(name: str) -> bool:
    """Whether PyTorch's safe loader takes this name."""
    return name in ALLOWED


def is_data(name: str) -> bool:
    """Whether this name only builds a plain value. PyTorch's safe loader refuses it unless it is told so."""
    return name in DATA or bool(NUMPY_DTYPE.fullmatch(name))


def disallowed(names: set[str]) -> list[str]:
    """The names that neither PyTorch's list nor ours vouches for."""
    return sorted(n for n in names if not is_allowed(n) and not is_data(n) and n != JOBLIB_ARRAY)


def only_data(names: set[str]) -> list[str]:
    """The names that only hold data and that the safe loader would not take by itself."""
    return sorted(name for name in names if is_data(name) and not is_allowed(name))


def for_safe_globals(names: list[str]) -> str:
    """What torch.serialization.safe_globals takes for these names that only hold data, as Python."""
    return ", ".join([*names, *(MAKES[name] for name in names if name in MAKES)])


def way_forward(names: list[str]) -> str:
    """What an honest sender and receiver can do about these names; nothing if they are Python's own."""
    for (start, *more), why in NOT_DATA.items():
        if any(name.startswith(start) for name in names) and all(
            name.startswith(start) or name in more for name in names
        ):
            return why
    layers = [name for name in names if name.startswith("torch.nn.")]
    libraries = sorted({name.split(".")[0] for name in names if name not in layers})
    if layers and set(libraries) <= {"__main__"}:
        return "It looks like a whole model, saved with torch.save(model): ask the sender for its state dict."
    if not libraries or set(libraries) & {
        *sys.stdlib_module_names,
        "posix",
        "nt",
        "__main__",
        "torch",
        "numpy",
    }:
        return ""
    return (
        f"They are of {few(libraries)}: loading runs that library's code, and the file alone cannot tell "
        "whether that is harmless. Ask the sender for SafeTensors, skops or ONNX, or use run_sandboxed.sh."
    )


def few(names: list[str]) -> str:
    """The names in one line, which stays short whatever a hostile file holds."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(name[:200] for name in names[:5]) + more


def refused(names: list[str]) -> str:
    """Why a file with these names is not safe, in one clause."""
    return (
        f"it imports {few(names)}. PyTorch's safe loader (weights_only=True) does not allow that in a model; "
        "weights_only=False would run it"
    )
