"""Names that only hold data: honest files with them find a way forward, and what looks like data does not."""

from __future__ import annotations

import io
import ipaddress
import pickle
import re
import sys
import time
import zoneinfo
from collections import ChainMap, UserDict
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import model_files
from test_formats import verdict

import cli
from inspection.report import SAFE, UNKNOWN, UNSAFE
from weights.safe_loading import load_pickle

RANDOM = numpy.random
STATES = {
    "RandomState": lambda: RANDOM.RandomState(1),
    "default_rng": lambda: RANDOM.default_rng(1),
    "MT19937": lambda: RANDOM.MT19937(1),
    "PCG64": lambda: RANDOM.PCG64(1),
    "PCG64DXSM": lambda: RANDOM.PCG64DXSM(1),
    "Philox": lambda: RANDOM.Philox(1),
    "SFC64": lambda: RANDOM.SFC64(1),
    "SeedSequence": lambda: RANDOM.SeedSequence(1),
}


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("protocol", [2, 4])
def test_random_states_only_hold_data(kind: str, protocol: int) -> None:
    value = {"random": STATES[kind]()}
    assert verdict(pickle.dumps(value, protocol)).overall == SAFE
    assert verdict(model_files.dumped(value)).overall == SAFE
    zipped = model_files.saved(value)
    report = verdict(zipped)
    assert report.overall == SAFE
    # what the report says works as it stands there
    known = report.help.split("safe_globals(")[1].split(");")[0]
    with torch.serialization.safe_globals(eval(known, {"numpy": numpy})):
        assert torch.load(io.BytesIO(zipped))


def outside(value: object, place: int) -> object:
    """The same random numbers, with the place of the next one set to any number: NumPy takes it."""
    other = pickle.loads(pickle.dumps(value))
    state = other.state if hasattr(other, "state") else other.get_state(legacy=False)
    if "buffer_pos" in state:
        state["buffer_pos"] = place
    else:
        state["state"]["pos"] = place
    if hasattr(other, "state"):
        other.state = state
    else:
        other.set_state(state)
    return other


@pytest.mark.parametrize("kind", ["RandomState", "MT19937", "Philox"])
@pytest.mark.parametrize("place", [-1, 700, 2**31 - 1])
def test_a_random_state_that_points_outside_of_its_table_is_not_judged(kind: str, place: int) -> None:
    """Drawing the next number from it reads foreign memory, or crashes."""
    value = {"random": outside(STATES[kind](), place)}
    for data in (pickle.dumps(value), model_files.saved(value), model_files.dumped(value)):
        report = verdict(data)
        assert report.overall == UNKNOWN
        assert "random numbers" in str(report.findings)


MT = b"cnumpy.random._mt19937\nMT19937\n"
STATE = b"}(X\x0d\0\0\0bit_generatorX\7\0\0\0MT19937X\5\0\0\0state}X\3\0\0\0posJ\xff\xff\xff\x7fsu"


@pytest.mark.parametrize(
    "made",
    [
        MT + b")\x81",  # by NEWOBJ
        MT + b")R",  # by a call
        MT + b")}\x92",  # by NEWOBJ_EX
        b"(" + MT + b"o",  # by OBJ
        b"(inumpy.random._mt19937\nMT19937\n",  # by INST
        b"ccopyreg\n__newobj__\n" + MT + b"\x85R",
        b"ccopyreg\n_reconstructor\n" + MT + MT + b"N\x87R",
        b"cnumpy.random._pickle\n__bit_generator_ctor\n" + MT + b"\x85R",
        b"cnumpy.random._pickle\n__randomstate_ctor\nX\7\0\0\0MT19937\x85R",
    ],
)
def test_no_way_to_make_a_random_state_leads_past_the_check(made: bytes) -> None:
    report = verdict(b"\x80\x04" + made + STATE + b"b.")
    assert report.overall == UNKNOWN, report.reason
    twice = b"\x80\x04" + made + b"(X\7\0\0\0MT19937NK\1tb" + STATE + b"b."
    assert verdict(twice).overall == UNKNOWN


def test_states_of_older_versions_of_numpy() -> None:
    """Before 1.17 a tuple, before 2.0 a dictionary for the call itself."""
    old = b"\x80\x02cnumpy.random\n__RandomState_ctor\n)R(X\7\0\0\0MT19937N%sK\0G\0\0\0\0\0\0\0\0tb."
    assert verdict(old % b"M\x70\x02").overall == SAFE
    assert verdict(old % b"M\x71\x02").overall == UNKNOWN
    newer = b"\x80\x02cnumpy.random._pickle\n__generator_ctor\nX\7\0\0\0MT19937\x85R%sb."
    assert verdict(newer % STATE).overall == UNKNOWN
    assert verdict(newer % STATE.replace(b"J\xff\xff\xff\x7f", b"K\1")).overall == SAFE


def test_a_checkpoint_with_a_random_state_is_converted_by_naming_each_name(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(model_files.saved({"model": {"w": torch.ones(2)}, "random": RANDOM.RandomState(1)}))
    names = verdict(path.read_bytes()).only_data
    assert set(load_pickle(path, part="model", allow=names)) == {"w"}


@pytest.mark.parametrize(
    "value",
    [
        ipaddress.ip_address("192.0.2.1"),
        ipaddress.ip_network("2001:db8::/32"),
        re.compile("a+"),
        time.gmtime(0),
        UserDict(a=1),
        ChainMap({"a": 1}),
        torch.torch_version.TorchVersion("2.1"),
        ...,
    ],
)
def test_other_values_that_only_hold_data(value: object) -> None:
    for protocol in (2, 4):
        report = verdict(pickle.dumps({"value": value}, protocol))
        assert report.overall == SAFE, report.reason


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (pickle.dumps(zoneinfo.ZoneInfo("UTC")), "time zone"),
        (b"\x80\x02cscipy.sparse._csr\ncsr_matrix\n)\x81}b.", "full_check"),
        (b"\x80\x02cpandas\nDataFrame\n)\x81}b.", "Parquet"),
        (pickle.dumps(torch.Generator()), "get_state"),
    ],
)
def test_what_looks_like_data_and_is_not_says_why(data: bytes, word: str) -> None:
    report = verdict(data)
    assert report.overall == UNSAFE
    assert word in report.help
    hostile = verdict(data[:2] + b"cos\nsystem\n0" + data[2:])
    assert "system" in hostile.reason
    assert word not in hostile.help


# --- types of NumPy --------------------------------------------------------------------------------------

BYTES = b"A" * 8


class Reduced:
    """Pickles as a call, and a state to fill its result with."""

    def __init__(self, call: object, *arguments: object, state: object = None) -> None:
        self.reduced = (call, arguments) if state is None else (call, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


def type_of(code: object, *state: object) -> Reduced:
    return Reduced(numpy.dtype, code, False, True, state=state)


def array_of(kind: Reduced) -> Reduced:
    return Reduced(
        numpy.zeros(1).__reduce__()[0], numpy.ndarray, (0,), b"b", state=(1, (1,), kind, False, BYTES)
    )


OBJECT, WHOLE = numpy.dtype("O"), numpy.dtype("i8")
FOREIGN = {  # of each, NumPy takes the bytes for the place of an object, or reads and writes outside of them
    "objects without the flags": type_of("O8", 3, "|", None, None, None, -1, -1, 0),
    "a field of objects": type_of("V8", 3, "|", None, ("a",), {"a": (OBJECT, 0)}, 8, 1, 0),
    "a record": type_of(numpy.record, 3, "|", None, ("a",), {"a": (OBJECT, 0)}, 8, 1, 0),
    "a field behind the end": type_of("V8", 3, "|", None, ("a",), {"a": (WHOLE, 2**30)}, 8, 1, 0),
    "a field before the start": type_of("V8", 3, "|", None, ("a",), {"a": (WHOLE, -800)}, 8, 1, 0),
    "a field without a name": type_of(
        "V8", 3, "|", None, ("a",), {"a": (WHOLE, 0), "b": (OBJECT, 0)}, 8, 1, 0),
    "an array in it": type_of("V8", 3, "|", (OBJECT, (1,)), None, None, 8, 1, 0),
    "a larger array in it": type_of("V8", 3, "|", (WHOLE, (1000,)), None, None, 8, 1, 0),
    "another size": type_of("i8", 3, "<", None, None, None, 800, 8, 0),
    "fields of a number": type_of("i8", 3, "<", None, ("a",), {"a": (OBJECT, 0)}, 8, 1, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_type_of_numpy_that_says_what_is_not_true_is_not_judged(name: str, protocol: int) -> None:
    value = {"array": array_of(FOREIGN[name])}
    for data in (pickle.dumps(value, protocol), model_files.saved(value), model_files.dumped(value)):
        report = verdict(data)
        assert report.overall == UNKNOWN
        assert "a type of NumPy" in str(report.findings)


def test_a_type_within_another_cannot_be_changed_later() -> None:
    """Else what it promises to the other one would no longer be true."""
    small, large = (
        pickle.dumps((3, "|", None, ("a",), {"a": (WHOLE, place)}, place + 8, 1, 16), 2)[2:-1] + b"b"
        for place in (0, 800)
    )
    made = b"\x80\2(cnumpy\ndtype\n(X\2\0\0\0V8I00\nI01\ntRr\xe8\3\0\0"
    again = b"j\xe8\3\0\0"
    # filled twice, or after it became a part of something
    for states, expected in (
        (small, SAFE),
        (large, SAFE),
        (small + again + large, UNKNOWN),
        (b"]" + again + b"a" + again + large, UNKNOWN),
        (again + b"\x85" + again + large, UNKNOWN),
    ):
        assert verdict(made + states + b"t.").overall == expected


ARGUMENTS = b"(K\1tS'O'\ncbuiltins\nbytearray\n(C\x08AAAAAAAAtR"


@pytest.mark.parametrize(
    "data",
    [
        b"cnumpy\nndarray\n(" + ARGUMENTS + b"tR.",
        b"cnumpy\nrecarray\n(" + ARGUMENTS + b"tR.",
        b"(" + ARGUMENTS + b"inumpy\nndarray\n.",
        b"(cnumpy\nndarray\n" + ARGUMENTS + b"o.",
        b"cnumpy\nndarray\n(" + ARGUMENTS + b"t\x81.",
        b"cnumpy\nndarray\n(" + ARGUMENTS + b"t}\x92.",
        b"ccopyreg\n__newobj__\n(cnumpy\nndarray\n" + ARGUMENTS + b"tR.",
    ],
    ids=["REDUCE", "recarray", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "copyreg"],
)
def test_an_array_that_is_made_by_its_class_is_not_safe(data: bytes, tmp_path: Path) -> None:
    """numpy.ndarray((1,), "O", bytes) takes any bytes for the place of a Python object."""
    for whole in (b"\x80\4" + data, model_files.zipped({"m/data.pkl": b"\x80\4" + data})):
        report = verdict(whole)
        assert report.overall == UNSAFE
        assert "an array of NumPy by its class" in str(report.findings)
        path = tmp_path / "model.pt"
        path.write_bytes(whole)
        with pytest.raises(cli.UserError):
            load_pickle(path, allow=["numpy.ndarray", "builtins.bytearray", "numpy.recarray"])


TRUE = {
    "numbers": numpy.zeros(3),
    "other byte order": numpy.zeros(3, ">f4"),
    "texts": numpy.array(["a", "bcd"]),
    "objects": numpy.array([None, "a"], "O"),
    "times": numpy.array(["2026-01-01"], "M8[ns]"),
    "spans": numpy.zeros(2, "m8[25s]"),
    "a record": numpy.rec.array([(1, "a")], dtype=[("a", "i4"), ("b", "U3")]),
    "fields with objects": numpy.zeros(2, [("a", "i1"), ("b", [("c", "O"), ("d", "f4", (2, 3))])]),
    "aligned": numpy.zeros(2, numpy.dtype([("a", "i1"), ("b", "i8")], align=True)),
    "titles": numpy.zeros(2, [(("long title", "a"), "i4")]),
    "metadata": numpy.zeros(2, numpy.dtype("i8", metadata={"a": 1})),
    "masked": numpy.ma.zeros(3, dtype=[("a", "i4")]),
}


@pytest.mark.parametrize("name", TRUE)
@pytest.mark.parametrize("protocol", range(6))
def test_honest_types_of_numpy_only_hold_data(name: str, protocol: int) -> None:
    value = [TRUE[name], TRUE[name][:1], TRUE[name].dtype]
    report = verdict(pickle.dumps(value, protocol))
    assert report.overall == SAFE, report.reason


@pytest.mark.parametrize("name", ["numbers", "texts", "times", "spans", "aligned", "titles"])
def test_arrays_of_any_type_are_measured_in_joblib(name: str) -> None:
    assert verdict(model_files.dumped({"array": TRUE[name]})).overall == SAFE
