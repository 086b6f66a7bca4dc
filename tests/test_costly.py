"""Small files that would cost hours: each reader of demo 1 ends soon, with a verdict."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

import cli
from inspection import content, files, formats, pickle_reader
from inspection.folder import every_file, inspect_folder
from inspection.report import SAFE, UNKNOWN, UNSAFE, Report
from inspection.texts import chat_template
from inspection.verdict import conclude, fill, inspect_file
from policy import existing_model
from sign_model import keygen, sign
from weights.safe_loading import load_pickle

MOST_SECONDS = 60  # of the processor; without the limits it is minutes to hours
NOTHING = b"N0" * 1_000_000  # two million instructions without effect


@pytest.fixture(autouse=True)
def _soon() -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < MOST_SECONDS


def verdict(data: bytes) -> Report:
    """Our verdict on these bytes, without the scanners and the decompiler."""
    report = Report(Path("model"))
    found = formats.look(data)
    found.pickles.clear()
    fill(report, found)
    conclude(report)
    return report


def tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def tar_header(kind: bytes, size: int, name: str = "m") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def tar_extra(kind: bytes, text: bytes) -> bytes:
    return tar_header(kind, len(text)) + text + bytes(-len(text) % 512)


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def joblib_array(dtype: bytes, fields: bytes) -> bytes:
    """joblib's stand-in for an array of two elements, whose bytes follow."""
    made = b"cnumpy\ndtype\n" + text(dtype) + b"K\0K\1\x87R(K\3" + fields + b"tb"
    state = text(b"shape") + b"K\2\x85" + text(b"dtype") + made
    return b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(" + state + b"ub"


SMALLEST = b"J\xff\xff\xff\xff"
BYTES = joblib_array(b"u1", text(b"|") + b"NNN" + 2 * SMALLEST + b"K\0")
OBJECTS = joblib_array(b"O8", text(b"|") + b"NNN" + 2 * SMALLEST + b"K\x3f")


def filled_again() -> bytes:
    """A dictionary of 50,000 entries, and 100,000 times an instruction that copies it."""
    entries = b"".join(text(b"%d" % number) + b"N" for number in range(50_000))
    return (
        b"\x80\2ccollections\nOrderedDict\n)Rq\0}(" + entries + b"uq\x010" + b"h\0" + b"h\1b" * 100_000 + b"."
    )


def gguf(entries: Iterable[bytes]) -> bytes:
    rows = list(entries)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(rows)) + b"".join(rows)


def gguf_text(key: bytes, value: bytes) -> bytes:
    key, value = (struct.pack("<Q", len(part)) + part for part in (key, value))
    return key + struct.pack("<I", 8) + value


TEMPLATE = b"{% if a %}{{ a }}{% endif %}" * 7_000

COSTLY: dict[str, tuple[Callable[[], bytes], str]] = {
    "instructions of all parts of an old tar file": (
        lambda: tar(
            [
                (
                    "storages",
                    b"\x80\2K\4."
                    + 4 * (b"\x80\2" + NOTHING + b"K\0K\0ctorch\nByteStorage\n\x87." + bytes(8))
                    + b"\x80\2N.",
                ),
                ("tensors", b"\x80\2K\0."),
                ("pickle", b"\x80\2N."),
            ]
        ),
        "more than 6000000 instructions",
    ),
    "later pickles of an old tar file that reach to its end": (
        lambda: tar([("storages", b"\x80\2V" * 2_000_000), ("tensors", b""), ("pickle", b"")]),
        "old tar format",
    ),
    "joblib files in a row, each of which a plain reader reads to the end": (
        lambda: 500 * (b"\x80\4" + BYTES + b"C\1.") + b"\x80\2" + NOTHING + b"N.",
        "more than 6000000 instructions",
    ),
    "arrays of objects in joblib": (
        lambda: b"\x80\4](" + 4 * (OBJECTS + b"\x80\2" + NOTHING + b"N.") + b"e.",
        "more than 6000000 instructions",
    ),
    "too many instructions, in two pickles": (
        lambda: 2 * (b"\x80\2" + 2 * NOTHING + b"N."),
        "6000000 instructions",
    ),
    "values on the stack": (lambda: b"\x80\4" + b"\x8c\0" * 2_600_000 + b".", "more than 2500000 values"),
    "values in the memo": (lambda: b"\x80\4N" + b"\x94" * 2_600_000 + b".", "more than 2500000 values"),
    "tuples in tuples": (
        lambda: b"\x80\2cnumpy.random._pickle\n__randomstate_ctor\n0)" + b"\x85" * 1_300_000 + b".",
        "more than 1200000 tuples",
    ),
    "one state for many objects": (lambda: zipped({"m/data.pkl": filled_again()}), "again and again"),
    "a header of tar for all members": (
        lambda: (
            tar_extra(b"g", b"".join(b"13 a%06d=1\n" % number for number in range(400_000)))
            + 10_000 * tar_header(b"0", 0)
        ),
        "extra headers",
    ),
    "a long header of tar": (
        lambda: tar_header(b"0", 0) + tar_extra(b"x", b"1" * 1_000_000) + tar_header(b"0", 0),
        "extra headers",
    ),
    "headers of tar in a row": (lambda: 3000 * tar_extra(b"g", b"") + tar_header(b"0", 0), "extra headers"),
    "long names of tar in a row": (
        lambda: 3000 * tar_extra(b"L", b"a") + tar_header(b"0", 0),
        "extra headers",
    ),
    "sparse members": (lambda: 8 * tar_header(b"S", 0), "sparse"),
    "gzip files in a row": (lambda: gzip.compress(b"") * 2_000_000, "in a row"),
    "templates": (lambda: gguf(gguf_text(b"template%d" % n, TEMPLATE) for n in range(200)), "more templates"),
    "entries of GGUF": (lambda: gguf([struct.pack("<QIB", 0, 0, 0)] * 2_500_000), "more entries"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_file_cannot_be_judged(name: str) -> None:
    make, reason = COSTLY[name]
    report = verdict(make())
    assert report.overall == UNKNOWN
    assert reason in report.reason


@pytest.mark.parametrize(
    "again",
    [b"h\0h\1\x930", b"h\2h\3\x930", b"h\4h\0Ns0", b"h\4h\2Ns0"],
    ids=["import", "import, protocol 0", "key", "key, protocol 0"],
)
def test_a_text_that_is_used_again_and_again_is_read_once(
    again: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six megabytes can name the same two long texts a million times."""
    texts = b"".join(
        [
            b"\x80\2cnumpy.random._pickle\n__randomstate_ctor\n0",
            *(text(letter * 1900) + b"q" + bytes([n]) for n, letter in enumerate((b"a", b"b"))),
            *(
                b"V" + letter * 300 + b"\nq" + bytes([n])
                for n, letter in enumerate((b"\\u0061", b"\\u0062"), 2)
            ),
            b"}q\4",
        ]
    )
    decoded = []

    def count(text: pickle_reader.Text, data: bytes) -> str:
        decoded.append(text.first)
        return "a"

    monkeypatch.setattr(pickle_reader.Text, "decoded", count)
    assert verdict(texts + again * 1000 + b"N.").overall in (SAFE, UNSAFE)
    assert 0 < len(decoded) <= 8


def test_parts_of_an_archive_have_a_time_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 KB can unpack to a hundred large parts, of which each takes seconds."""
    for data in (zipped({f"m/{n}": b"\x80\2N0" for n in range(3)}), tar((str(n), b"\1") for n in range(3))):
        monkeypatch.setattr(content, "MOST_SECONDS", 10)
        assert "its parts take" not in str(formats.look(data).findings)
        monkeypatch.setattr(content, "MOST_SECONDS", 0)
        report = verdict(data)
        assert report.overall == UNKNOWN
        assert "its parts take more than" in report.reason


@pytest.mark.parametrize("start", [b"\x80\x020", b"\x80\x02N." * 2001])
def test_scanners_are_not_asked_to_read_where_a_loader_stops(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(start + NOTHING)
    report = inspect_file(path)
    assert report.overall == UNKNOWN
    assert {said.answer for said in report.verdicts.values()} == {"not asked"}


def test_names_that_no_pattern_may_take_long_for() -> None:
    names = [
        "m/archive_format",
        "m/data/weights/weight" + "1" * 60_000 + "!",
        "m/weights/" + "weight" * 10_000 + "!",
    ]
    assert verdict(zipped(dict.fromkeys(names, b""))).formats == ["torch.export archive (.pt2)"]


def test_a_template_that_stands_there_twice_is_judged_both_times() -> None:
    """Readers differ in which one they take."""
    escape, plain = b"{{ a.__class__ }}", b"{{ a }}"
    for pair in ((escape, plain), (plain, escape)):
        report = verdict(gguf(gguf_text(b"tokenizer.chat_template", one) for one in pair))
        assert report.overall == UNSAFE


def nested(opening: str, inner: str, closing: str) -> str:
    return opening * 400 + "[" + inner * 500_000 + '"a"]' + closing * 400


TEXTS = {
    "model.yaml": (lambda: "\n" * 1_000_000, SAFE, "it is text"),
    "MLmodel": (lambda: "\n" * 1_000_000, SAFE, "it is text"),
    "config.json": (lambda: nested('{"auto_map":', '"abc",', "}"), UNSAFE, "it names Python code (a, abc)"),
    "keras.json": (
        lambda: nested('{"class_name":"function","config":', '"abc",', "}"),
        UNKNOWN,
        "a function, which are not known",
    ),
    "a.safetensors.index.json": (
        lambda: json.dumps({"weight_map": {str(n): str(n) for n in range(1_000_000)}}),
        UNKNOWN,
        "it names more than 10000 shards",
    ),
    "model_index.json": (
        lambda: json.dumps(
            {"_class_name": "", "_diffusers_version": "", **{str(n): [str(n), ""] for n in range(500_000)}}
        ),
        UNKNOWN,
        "a pipeline of more than 1000 parts",
    ),
    "tokenizer_config.json": (
        lambda: json.dumps({"a": [{"chat_template": f"{n}{TEMPLATE.decode()}"} for n in range(200)]}),
        UNKNOWN,
        "more chat templates",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_would_be_read_again_and_again(tmp_path: Path, name: str) -> None:
    make, expected, reason = TEXTS[name]
    (tmp_path / name).write_text(make())
    (report,) = inspect_folder(tmp_path)
    assert report.overall == expected
    assert reason in report.reason


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"{{% set a{n}=a{n + 1} %}}" for n in range(8000)) + "{{ a[a0] }}",
        "".join(f"{{% macro f{n}(a{n}) %}}{{% endmacro %}}{{{{ f0(1) }}}}" for n in range(3000))
        + "{{ a[a0] }}",
        "{{ " + "a[" * 150 + "b" + "]" * 150 + " }}" + "{{ a[b + 1 + c] }}" * 4000,
    ],
    ids=["variables of variables", "macros", "keys"],
)
def test_templates_whose_keys_would_take_long(text: str) -> None:
    assert chat_template(text[:199_000], "it").answer in (SAFE, UNKNOWN)


def test_settings_of_hydra_and_mlflow_are_still_found(tmp_path: Path) -> None:
    for name, text in (("a.yaml", "\n\n - {_target_ : os.system}"), ("b.yaml", "a:\n  - - _target_:\n b")):
        (tmp_path / name).write_text(text)
    (tmp_path / "MLmodel").write_text("\n\n  loader_module: evil.code\n")
    assert [report.overall for report in inspect_folder(tmp_path)] == [UNKNOWN] * 3


def test_a_folder_of_many_files_is_listed_once(tmp_path: Path) -> None:
    """Also a model with a million nodes is read once, and not for each file beside it."""
    size, graph = b"", b"\x0a\0" * 200_000
    left = len(graph)
    while left > 127:
        size, left = size + bytes([left & 127 | 128]), left >> 7
    (tmp_path / "a.onnx").write_bytes(b"\x08\x07\x42\0\x3a" + size + bytes([left]) + graph)
    for number in range(4000):
        (tmp_path / f"{number}.index.json").write_text('{"weight_map": {"a": "a.onnx"}}')
    assert {report.overall for report in inspect_folder(tmp_path)} == {SAFE}
    (tmp_path / "7-00001-of-00002.7").write_text("extra")
    unknown = [report for report in inspect_folder(tmp_path) if report.overall == UNKNOWN]
    assert [report.path.name for report in unknown] == ["7.index.json"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have shorter paths")
def test_folders_in_folders_and_links_of_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1200):  # each step by itself: the whole path is longer than some functions take
        Path("a").mkdir()
        monkeypatch.chdir("a")
    Path("model.txt").write_text("hello")
    monkeypatch.chdir(tmp_path)
    try:
        assert [report.overall for report in inspect_folder(tmp_path)] == [SAFE]
        assert len(files.every_file(tmp_path)) == 1
        assert existing_model(tmp_path) == tmp_path
        keygen(tmp_path.with_name("k.key"), tmp_path.with_name("k.pub"))
        with contextlib.suppress(cli.UserError):  # some versions of Python cannot list it: then one sentence
            sign(tmp_path, tmp_path.with_name("k.key"))
    finally:  # pytest cannot take it away
        subprocess.run(["rm", "-r", tmp_path / "a"], check=True)
    links = tmp_path / "links"
    links.mkdir()
    for number in range(1500):
        (links / str(number)).symlink_to(str(number + 1))
    (links / "1500").write_text("hello")
    assert len(every_file(links)) == 1501
    assert {report.overall for report in inspect_folder(links)} == {SAFE, UNKNOWN}


@pytest.mark.parametrize("name", ["a.pt", "a.pkl"])
def test_conversion_refuses_one_state_for_many_objects(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(zipped({"m/data.pkl": filled_again()}) if name == "a.pt" else filled_again())
    with pytest.raises(cli.UserError, match="again and again"):
        load_pickle(path)


def test_conversion_counts_the_instructions_of_all_pickles(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(zipped({f"m/{name}.pkl": b"\x80\2" + b"N0" * 400_000 + b"N." for name in ("data", "b")}))
    with pytest.raises(cli.UserError, match="more than 1500000 instructions"):
        load_pickle(path)
