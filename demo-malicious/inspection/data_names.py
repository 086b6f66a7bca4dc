"""Names that only hold data, each group with the reason; and some that seem to, and do not.

Helper module, not a command. What of these is not on PyTorch's own list takes
torch.serialization.safe_globals, to be loaded by weights_only=True. Each was read, in its source, for what it
does with any argument that a file can choose: none imports, opens a file, looks up an attribute by its name,
or calls anything but what the file imports as well, which is judged by its own name. NumPy believes what a
file says of its types and random numbers, and makes an array of any bytes: so numpy_types.py and
numpy_states.py follow how its names are used.
"""

from __future__ import annotations

GROUPS = {
    "settings: they fill their own attributes": """
        argparse.Namespace types.SimpleNamespace""",
    "collections: they keep what they are given": """
        collections.defaultdict collections.deque collections.Counter collections.OrderedDict
        collections.ChainMap collections.UserDict collections.UserList collections.UserString""",
    "how Python makes an object without a call of its __init__; the class is a name as well": """
        copyreg._reconstructor copyreg.__newobj__""",
    "plain values of Python": """
        builtins.object builtins.set builtins.frozenset builtins.complex builtins.slice builtins.range
        builtins.list builtins.dict builtins.tuple builtins.int builtins.float builtins.bool builtins.str
        builtins.bytes builtins.bytearray builtins.Ellipsis builtins.NotImplemented""",
    "numbers, times, identifiers, addresses: they read numbers and texts": """
        datetime.datetime datetime.date datetime.time datetime.timedelta datetime.timezone
        datetime.timezone.utc time.struct_time decimal.Decimal fractions.Fraction uuid.UUID
        ipaddress.IPv4Address ipaddress.IPv6Address ipaddress.IPv4Network ipaddress.IPv6Network
        ipaddress.IPv4Interface ipaddress.IPv6Interface""",
    "a pattern is translated and nothing is searched; a slow one costs time when it is used": """
        re._compile""",
    "paths are texts: nothing is opened": """
        pathlib.Path pathlib.PosixPath pathlib.WindowsPath pathlib.PurePath pathlib.PurePosixPath
        pathlib.PureWindowsPath pathlib._local.Path pathlib._local.PosixPath pathlib._local.WindowsPath
        pathlib._local.PurePosixPath pathlib._local.PureWindowsPath""",
    "arrays and numbers: NumPy checks their size, numpy_types.py what a type says of itself": """
        numpy.dtype numpy.ndarray numpy._core.multiarray.scalar numpy._core.multiarray._reconstruct
        numpy._core.numeric._frombuffer
        numpy.matrix numpy.matrixlib.defmatrix.matrix numpy.recarray numpy.rec.recarray numpy.record
        numpy.rec.record numpy._core.records.recarray numpy._core.records.record
        numpy.ma.MaskedArray numpy.ma.core.MaskedArray numpy.ma.core._mareconstruct
        array.array array._array_reconstructor
        numpy.bool_ numpy.bool numpy.int8 numpy.int16 numpy.int32 numpy.int64 numpy.uint8 numpy.uint16
        numpy.uint32 numpy.uint64 numpy.float16 numpy.float32 numpy.float64 numpy.longdouble
        numpy.complex64 numpy.complex128 numpy.str_ numpy.bytes_ numpy.datetime64 numpy.timedelta64""",
    "random numbers: a state, whose places NumPy does not check; numpy_states.py does": """
        numpy.random.__RandomState_ctor numpy.random._pickle.__randomstate_ctor
        numpy.random._pickle.__generator_ctor numpy.random._pickle.__bit_generator_ctor
        numpy.random.mtrand.RandomState numpy.random._generator.Generator
        numpy.random._mt19937.MT19937 numpy.random._pcg64.PCG64 numpy.random._pcg64.PCG64DXSM
        numpy.random._philox.Philox numpy.random._sfc64.SFC64
        numpy.random.bit_generator.SeedSequence numpy.random.bit_generator.__pyx_unpickle_SeedSequence""",
    "names of types, and a text that can be compared as a version": """
        torch.device torch.Size torch.dtype torch.memory_format torch.layout
        torch.torch_version.TorchVersion""",
}
DATA = frozenset(name for names in GROUPS.values() for name in names.split())

# how they begin, and what comes with them -> why they are not among them, and what to ask for
NOT_DATA = {
    ("zoneinfo.", "builtins.getattr"): "A time zone is read from a file of this machine, by the name that "
    "stands in the pickle: ask the sender to save its name as a text.",
    ("pytz.",): "A time zone is read from a file of this machine, by the name that stands in the pickle: ask "
    "the sender to save its name as a text.",
    ("scipy.sparse.",): "A sparse matrix says where its numbers are put, and nothing checks that when it is "
    "loaded: a wrong place crashes Python or writes over its memory. Ask the sender for its arrays, and "
    "call check_format(full_check=True) before you use the matrix.",
    (
        "pandas.",
    ): "A table of pandas is put together from classes that stand in the pickle: ask the sender for "
    "Parquet or CSV.",
    ("torch._C.Generator", "torch.storage._load_from_bytes"): "A generator of PyTorch is a pickle in the "
    "pickle, which is loaded without the safe mode: ask the sender for generator.get_state(), a tensor.",
}
