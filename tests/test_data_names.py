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

import numpy
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import model_files
from test_formats import verdict

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
