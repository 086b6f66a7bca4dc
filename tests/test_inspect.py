"""The inspector: it never runs anything, four scanners and our verdict, and no hostile file chokes it."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import resource
import struct
import subprocess
import time
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

import create_malicious_model as attack
import inspect_model
import make_table
from inspection import formats, names, verdict, zips
from inspection.report import SAFE, UNKNOWN, UNSAFE, Report, Verdict
from inspection.verdict import inspect_file
from weights import state_dicts, writing

INSPECT = "demo-malicious/inspect_model.py"
SYSTEM = f"{os.system.__module__}.system"

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Refused = Callable[..., None]


def installed(tool: str) -> bool:
    """Whether a scanner is here: picklescan and modelscan have no release for every Python."""
    try:
        version(tool)
    except PackageNotFoundError:
        return False
    return True


def text(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout + result.stderr


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Where payloads of this test write, a name that a careless shell command would trip over."""
    return tmp_path / "it's a $(marker) & more.txt"


@pytest.fixture
def weights() -> state_dicts.Weights:
    """A small state dict."""
    torch.manual_seed(1)
    return dict(torch.nn.Linear(3, 4).state_dict())


@pytest.fixture
def model(tmp_path: Path, weights: state_dicts.Weights) -> Path:
    """The state dict as a pickle."""
    path = tmp_path / "model.pt"
    torch.save(weights, path)
    return path


@pytest.fixture
def safe_model(tmp_path: Path, weights: state_dicts.Weights) -> Path:
    """The state dict as SafeTensors."""
    path = tmp_path / "model.safetensors"
    writing.save_safetensors(weights, path)
    return path


def dump(value: object, path: Path, kind: str) -> Path:
    """Write a value in one of the formats that torch.load reads."""
    if kind in ("zip", "legacy"):
        torch.save(value, path, _use_new_zipfile_serialization=kind == "zip")
    else:
        path.write_bytes(pickle.dumps(value, protocol=int(kind)))
    return path


# --- one file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "legacy", "0", "2", "4"])
def test_finds_the_payload_without_running_it(run_main: Run, tmp_path: Path, marker: Path, kind: str) -> None:
    path = dump(attack.payload_for(attack.PLAIN, marker), tmp_path / "model.pt", kind)
    result = run_main(inspect_model, path)
    assert result.returncode == 1, text(result)
    lines = [line for line in result.stdout.splitlines() if "DANGER" in line]
    assert any(f"DANGER, imports {SYSTEM}" in line for line in lines), result.stdout
    assert any("DANGER, calls system" in line and "echo" in line for line in lines), result.stdout
    assert f"Reason: it imports {SYSTEM}." in result.stdout
    assert "fickling; answer: found: LIKELY_OVERTLY_MALICIOUS" in result.stdout
    assert result.stderr == ""
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_passes_a_clean_state_dict(
    run_main: Run, tmp_path: Path, weights: state_dicts.Weights, kind: str
) -> None:
    path = dump(OrderedDict(weights), tmp_path / "model.pt", kind)
    result = run_main(inspect_model, path)
    assert result.returncode == 0, text(result)
    assert "NO CODE FOUND" in result.stdout
    assert "DANGER" not in result.stdout
    # fickling warns of this one as well: our verdict must not hide that
    assert "fickling; answer: suspicious: LIKELY_UNSAFE" in result.stdout
    assert "fickling warns of every model with tensors" in result.stdout


@pytest.mark.parametrize("name", attack.VARIANTS)
def test_every_variant_is_judged_unsafe_and_not_run(name: str, tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "model.pt"
    net = torch.nn.Linear(2, 2)  # no need for a large one: the hiding place is the same
    path.write_bytes(attack.malicious_bytes(name, marker, net))
    report = inspect_file(path)
    assert (report.overall, report.exit_code) == (UNSAFE, 1)
    expected = "torch.utils.collect_env.run" if name == "collect-env" else SYSTEM
    assert report.disallowed == [expected]
    assert expected in report.reason
    assert list(report.verdicts) == ["torch", "fickling", "picklescan", "modelscan"]
    assert any(
        "DANGER" in reason or "calls" in reason for reason in report.pickles[-1].marked.values()
    ) or any(part.marked for part in report.pickles)
    assert sorted(tmp_path.iterdir()) == [path]


def test_finds_a_payload_in_a_pickle_that_is_broken_behind_it(
    run_main: Run, tmp_path: Path, marker: Path
) -> None:
    """Loading would run the payload first and fail afterwards, so "damaged" would be the wrong answer."""
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(attack.payload_for(attack.PLAIN, marker), protocol=2)[:-1] + b"\xff\xff")
    result = run_main(inspect_model, path)
    assert result.returncode == 1, text(result)
    assert "NOT SAFE TO LOAD" in result.stdout


def test_reads_the_part_of_a_polyglot_that_torch_reads(model: Path, tmp_path: Path, marker: Path) -> None:
    """An old-format pickle with a zip file behind it: zip tools see the zip, torch.load the pickle."""
    path = dump(attack.payload_for(attack.PLAIN, marker), tmp_path / "polyglot.pt", "legacy")
    path.write_bytes(path.read_bytes() + model.read_bytes())
    assert zipfile.is_zipfile(path)
    assert inspect_file(path).overall == UNSAFE
    # the other way round, torch.load is safe, but not every program reads the file as torch does
    clean = dump({"a": torch.zeros(1)}, tmp_path / "clean.pt", "legacy")
    clean.write_bytes(clean.read_bytes() + attack.malicious_bytes("system", marker))
    assert inspect_file(clean).overall == UNSAFE
    clean = dump({"a": torch.zeros(1)}, tmp_path / "clean.pt", "legacy")
    clean.write_bytes(clean.read_bytes() + model.read_bytes())
    report = inspect_file(clean)
    assert report.overall == UNKNOWN
    assert "zip of torch.save and stream of pickles" in report.reason
    assert "at once" in report.reason


def test_shows_the_lines_of_a_large_model_on_request(run_main: Run, tmp_path: Path) -> None:
    path = dump({f"t{i}": torch.zeros(1) for i in range(40)}, tmp_path / "model.pt", "zip")
    short, full = run_main(inspect_model, path), run_main(inspect_model, path, "--all")
    assert "more lines without a mark" in short.stdout
    assert "more lines without a mark" not in full.stdout
    assert len(full.stdout) > len(short.stdout)


def test_reads_the_header_of_safetensors(run_main: Run, safe_model: Path) -> None:
    result = run_main(inspect_model, safe_model)
    assert result.returncode == 0, text(result)
    assert "name: weight; type: F32; shape: 4x3" in result.stdout
    assert "NO CODE FOUND" in result.stdout


def test_the_content_counts_not_the_name(model: Path, safe_model: Path, tmp_path: Path, marker: Path) -> None:
    """A renamed file is judged by what stands in it."""
    pretender = tmp_path / "really.safetensors"
    pretender.write_bytes(attack.malicious_bytes("system", marker))
    assert inspect_file(pretender).overall == UNSAFE
    renamed = safe_model.rename(tmp_path / "really.pt")
    report = inspect_file(renamed)
    assert (report.format, report.overall) == (formats.SAFETENSORS, SAFE)
    assert not marker.exists()


def test_names_in_a_file_cannot_steer_the_terminal(run_main: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    writing.save_safetensors({"\x1b[2J[/red]": torch.zeros(1)}, path)
    result = run_main(inspect_model, path)
    assert result.returncode == 0, text(result)
    assert "\x1b" not in result.stdout
    assert "\\x1b[2J[/red]" in result.stdout


def test_old_names_are_written_as_python_3_spells_them() -> None:
    assert names.full_name("__builtin__", "set") == "builtins.set"
    assert names.full_name("posix", "system") == "posix.system"


def test_a_model_too_large_for_fickling_is_still_judged(tmp_path: Path, marker: Path) -> None:
    """Our verdict needs the names only; what the program does with them is fickling's part."""
    large: dict[str, object] = {f"layer.{i}": torch.zeros(1) for i in range(1500)}
    path = dump(large, tmp_path / "model.pt", "zip")
    report = inspect_file(path)
    assert report.verdicts["fickling"].answer == "gives up"
    assert (report.overall, report.exit_code) == (SAFE, 0)
    assert inspect_file(
        dump({**large, "x": attack.payload_for(attack.PLAIN, marker)}, path, "zip")
    ).disallowed == [SYSTEM]


def test_many_names_stay_one_short_line(tmp_path: Path) -> None:
    data = b"\x80\x02" + b"".join(b"cmodule%d\nname\n0" % i for i in range(300)) + b"N."
    path = tmp_path / "model.pkl"
    path.write_bytes(data)
    report = inspect_file(path)
    assert len(report.disallowed) == 300
    assert "module1.name" in report.reason
    assert " and 295 more" in report.reason


def test_says_when_it_cannot_be_judged(run_main: Run, assert_refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"a": 1}, protocol=4) + b"and something else")
    result = run_main(inspect_model, path)
    assert "CANNOT BE JUDGED" in result.stdout
    assert_refused(result, path, "cannot be judged")


def test_a_scanner_that_sees_more_than_we_do_is_heard() -> None:
    report = Report(Path("model.pt"), formats=[zips.ZIP], verdicts={"torch": Verdict("clean")})
    verdict.conclude(report)
    assert report.overall == SAFE
    report.verdicts["picklescan"] = Verdict("found", "dangerous x.y")
    verdict.conclude(report)
    assert (report.overall, report.reason) == (UNKNOWN, "picklescan finds something (dangerous x.y)")


@pytest.mark.parametrize("tool", ["picklescan.scanner", "modelscan.modelscan"])
def test_a_scanner_that_is_not_installed_says_so(
    model: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, tool, None)
    report = inspect_file(model)
    assert report.verdicts[tool.split(".", maxsplit=1)[0]] == Verdict("not installed")
    assert report.overall == SAFE


def test_plain_text_has_no_colour_and_no_boxes(run_script: Run, model: Path) -> None:
    output = run_script(INSPECT, model, "--plain").stdout
    assert "NO CODE FOUND" in output
    assert "\x1b" not in output
    assert output.isascii()


# --- many files ---------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, weights: state_dicts.Weights, marker: Path) -> Path:
    """A folder with a clean model, a malicious one, a damaged one, and a file that is not a model."""
    inside = tmp_path / "models"
    (inside / "deeper").mkdir(parents=True)
    writing.save_safetensors(weights, inside / "clean.safetensors")
    (inside / "bad.pt").write_bytes(attack.malicious_bytes("system", marker))
    (inside / "deeper" / "damaged.pt").write_bytes(b"PK\x03\x04 and no more")
    (inside / "notes.txt").write_text("not a model")
    return inside


def test_a_folder_gives_one_table_and_the_reasons(run_main: Run, folder: Path, marker: Path) -> None:
    result = run_main(inspect_model, folder)
    assert result.returncode == 2, text(result)
    assert "Model files (3 rows)" in result.stdout
    rows = [line for line in result.stdout.splitlines() if line.startswith("- file: ")]
    assert [row.split("; ")[0].rsplit("/", 1)[1] for row in rows] == [
        "bad.pt",
        "clean.safetensors",
        "damaged.pt",
    ]
    verdicts = [row.rsplit("our verdict: ", 1)[1] for row in rows]
    assert verdicts == [UNSAFE, SAFE, UNKNOWN]
    assert "torch: found; fickling: found" in rows[0]
    assert f"bad.pt: {UNSAFE}, it would import {SYSTEM}." in result.stdout
    assert (
        f"damaged.pt: {UNKNOWN}, it begins like a zip file and has no table of contents: it is cut off."
        in result.stdout
    )
    assert "No code found: 1. Not safe to load: 1. Cannot be judged: 1." in result.stdout
    assert not marker.exists()


def test_the_highest_exit_code_counts(run_main: Run, folder: Path) -> None:
    clean, bad, damaged = folder / "clean.safetensors", folder / "bad.pt", folder / "deeper" / "damaged.pt"
    assert run_main(inspect_model, clean, clean).returncode == 0
    assert run_main(inspect_model, clean, bad).returncode == 1
    assert run_main(inspect_model, bad, damaged, clean).returncode == 2
    missing = run_main(inspect_model, clean, folder / "missing.pt")
    assert missing.returncode == 2
    assert "does not exist" in missing.stdout


def test_many_files_can_be_decompiled_as_well(run_main: Run, folder: Path) -> None:
    result = run_main(inspect_model, folder, "--decompile")
    assert "DANGER, calls system" in result.stdout
    assert "name: weight; type: F32; shape: 4x3" in result.stdout


def test_json_says_the_same(run_main: Run, folder: Path) -> None:
    result = run_main(inspect_model, folder, "--json")
    assert result.returncode == 2
    found = json.loads(result.stdout)
    assert [one["verdict"] for one in found] == [UNSAFE, SAFE, UNKNOWN, SAFE]  # the last one is text
    assert [one["exit_code"] for one in found] == [1, 0, 2, 0]
    assert found[0]["not_allowed"] == [SYSTEM]
    assert found[0]["scanners"]["fickling"] == {"answer": "found", "words": "LIKELY_OVERTLY_MALICIOUS"}
    assert found[0]["sha256"] == inspect_model.sha256(folder / "bad.pt")


# --- bad input ----------------------------------------------------------------------------------------------


def zip_bytes(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def bad_file(kind: str, path: Path, good: bytes) -> Path:
    """A file (or folder) that no tool can use."""
    if kind == "missing":
        return path
    if kind == "empty folder":
        path.mkdir()
        return path
    path.write_bytes(
        {
            "empty": b"",
            "text": b"import this\nis not a model\n",
            "truncated": good[: len(good) // 2],
            "cut at the start": good[20:],
            "random": random.Random(7).randbytes(5000),
            "zip without pickle": zip_bytes({"readme.txt": b"hello"}),
        }[kind]
    )
    return path


BAD = ["missing", "empty folder", "empty", "text", "truncated", "cut at the start", "random"]


@pytest.mark.parametrize("kind", [*BAD, "zip without pickle"])
@pytest.mark.parametrize("good", ["model.pt", "model.safetensors"])
def test_bad_file(
    run_main: Run, assert_refused: Refused, weights: state_dicts.Weights, good: str, kind: str
) -> None:
    folder = Path.cwd()  # run_main works in the test's own folder
    (writing.save_pickle if good.endswith(".pt") else writing.save_safetensors)(weights, Path(good))
    path = bad_file(kind, folder / f"bad-{good}", Path(good).read_bytes())
    before = sorted(folder.rglob("*"))
    assert_refused(run_main(inspect_model, path), path)
    assert sorted(folder.rglob("*")) == before


def rewritten(data: bytes, change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> bytes:
    """A zip file with other members."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # about a name that stands there twice
        for name, content in change(members):
            archive.writestr(name, content)
    return file.getvalue()


def claimed_often(text: bytes, times: int) -> bytes:
    """A zip file whose list of contents names one member many times."""
    file = zip_bytes({"m/data.pkl": b"\x80\x02N.", "m/a.txt": text})
    start = struct.unpack_from("<I", file, len(file) - 6)[0]
    second = file.rindex(b"PK\x01\x02")
    entries = file[start:second] + file[second:-22] * times
    return file[:start] + entries + file[-22:-10] + struct.pack("<IIH", len(entries), start, 0)


def hostile_files(folder: Path, clean: bytes, malicious: bytes) -> dict[str, tuple[Path, str]]:
    """Files that are made to choke or to fool their readers, each with the verdict that it must get."""
    big = 1024 * 1024 * 1024
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    wrong_crc = bytearray(malicious)
    with zipfile.ZipFile(io.BytesIO(malicious)) as archive:
        crc = struct.pack("<I", archive.infolist()[0].CRC)
    wrong_crc = bytearray(malicious.replace(crc, b"\1\2\3\4"))
    huge = clean.replace(
        clean[clean.rindex(b"PK\x01\x02") :][20:28],  # the two sizes of the last member
        struct.pack("<II", 0x7FFFFFFF, 0x7FFFFFFF),
    )
    files = {
        "bomb.pt": (
            zip_bytes({"m/data.pkl": b"\x80\x02N." + bytes(200_000_000)}, zipfile.ZIP_DEFLATED),
            UNKNOWN,
        ),
        "large member.pt": (zip_bytes({"m/data.pkl": b"\x80\x02" + b"N0" * 20_000_000}), UNKNOWN),
        "huge size.pt": (huge, UNKNOWN),
        "same name twice.pt": (rewritten(clean, lambda members: [*members, members[0]]), UNKNOWN),
        "payload behind the same name.pt": (
            rewritten(
                clean, lambda members: [*members, (members[0][0], b"\x80\x02cos\nsystem\n(U\x04true tR.")]
            ),
            UNSAFE,
        ),
        "upwards.pt": (rewritten(malicious, lambda m: [("../" * 5 + n, d) for n, d in m]), UNSAFE),
        "absolute.pt": (rewritten(malicious, lambda m: [("/tmp/" + n, d) for n, d in m]), UNSAFE),
        "wrong checksum.pt": (bytes(wrong_crc), UNSAFE),
        "many members.pt": (zip_bytes({f"m/{i}": b"" for i in range(25_000)}), UNKNOWN),
        "one text claimed often.pt": (claimed_often(b"hello, world\n" * 400_000, 1_000), UNKNOWN),
        "a list without an end.pt": (claimed_often(b"hello, world\n", 600_000), UNKNOWN),
        "many instructions.pkl": (b"\x80\x02" + b"N0" * 500_000 + b"N.", SAFE),
        "too many instructions.pkl": (b"\x80\x02" + b"N0" * 4_000_000 + b"N.", UNKNOWN),
        "deep.pkl": (b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b".", SAFE),
        "doubling.pkl": (b"\x80\x02K\x01" + b"2\x86" * 60 + b".", SAFE),
        "doubling list.pkl": (b"\x80\x02]" + b"2\x86" * 60 + b".", SAFE),
        "many calls.pkl": (b"\x80\x02" + b"cbuiltins\nlen\n)R0" * 7_000 + b"N.", UNSAFE),
        "many pickles.pkl": ((b"\x80\x02" + b"cbuiltins\nlen\n)R0" * 1_000 + b"N.") * 60, UNSAFE),
        "long name.pkl": (b"\x80\x02c" + b"a" * 5_000_000 + b"\nb\n.", UNKNOWN),
        "long bytes.pkl": (b"\x80\x04\x8e" + struct.pack("<Q", big * 9) + b"x.", UNKNOWN),
        "long number.pkl": (b"I" + b"9" * 3_000_000 + b"\n.", SAFE),
        "huge header.safetensors": (struct.pack("<Q", 90_000_000) + b"{" + b" " * 90_000_000, UNKNOWN),
        "header past the end.safetensors": (struct.pack("<Q", 2**60) + header, UNKNOWN),
        "not json.safetensors": (struct.pack("<Q", 8) + b"{{{{}}}}" + bytes(4), UNKNOWN),
        "deep json.safetensors": (struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 199_995, UNKNOWN),
        "overlap.safetensors": (
            (
                both := b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                + header[1:].replace(b"a", b"b", 1)
            )
            and struct.pack("<Q", len(both)) + both + bytes(4),
            UNKNOWN,
        ),
        "good.safetensors": (struct.pack("<Q", len(header)) + header + bytes(4), SAFE),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: (folder / name, expected) for name, (_, expected) in files.items()}


def test_hostile_files_end_in_a_verdict_soon(
    tmp_path: Path, model: Path, marker: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    inspect_file(model)  # the scanners are imported now
    hostile = hostile_files(tmp_path, model.read_bytes(), attack.malicious_bytes("system", marker))
    before = sorted(tmp_path.rglob("*"))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong = {}
    for name, (path, expected) in hostile.items():
        start = time.process_time()
        report = inspect_file(path)
        seconds = time.process_time() - start
        if report.overall != expected or seconds > 60 or not report.reason or "\n" in report.reason:
            wrong[name] = (report.overall, report.reason, seconds)
    assert wrong == {}
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory  # kilobytes on Linux, bytes on macOS
    assert grown < 500 * (1024 if os.uname().sysname == "Linux" else 1024**2)
    assert sorted(tmp_path.rglob("*")) == before
    assert capfd.readouterr() == ("", "")


def test_no_folder_of_hostile_files_ends_in_a_traceback(
    run_main: Run, tmp_path: Path, model: Path, marker: Path
) -> None:
    hostile_files(tmp_path, model.read_bytes(), attack.malicious_bytes("system", marker))
    result = run_main(inspect_model, tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in text(result)
    assert max(map(len, result.stdout.splitlines())) < 1000


def test_mutated_files_never_run_and_never_crash(
    tmp_path: Path, marker: Path, weights: state_dicts.Weights
) -> None:
    """A few hundred damaged files: each ends in a verdict, and no payload runs."""
    payload = attack.payload_for(attack.PLAIN, marker)
    kinds = {"zip": ".pt", "legacy": ".pt", "0": ".pkl", "2": ".pkl", "4": ".pkl"}
    seeds = [
        (dump(value, tmp_path / "seed", kind).read_bytes(), suffix)
        for kind, suffix in kinds.items()
        for value in (payload, weights if kind in ("zip", "legacy") else {"a": [1.5, "b", payload]})
    ]
    writing.save_safetensors(weights, tmp_path / "seed")
    seeds.append(((tmp_path / "seed").read_bytes(), ".safetensors"))
    rng = random.Random(3)
    seen = set()
    for _ in range(200):
        start, suffix = rng.choice(seeds)
        data = bytearray(start)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        for _ in range(rng.randrange(1, 6) if data else 0):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path = tmp_path / f"mutated{suffix}"
        path.write_bytes(data)
        report = inspect_file(path)
        seen.add(report.overall)
        assert "\n" not in report.reason
        assert not marker.exists()
    assert seen == {SAFE, UNSAFE, UNKNOWN}  # all endings were reached


# --- the table of disagreements -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured() -> list[make_table.Row]:
    """Every scanner on every file, and every file loaded: some seconds."""
    return make_table.measure()


def table_in_the_documents(root: Path) -> str:
    page = (root / "demo-malicious/SCANNERS.md").read_text(encoding="utf-8")
    return page.split(make_table.START)[1].split(make_table.END)[0].strip()


def test_the_published_table_is_true(measured: list[make_table.Row], root: Path) -> None:
    """Fails when a new version of a scanner changes a verdict. Then: make_table.py --write SCANNERS.md."""
    assert make_table.differences(table_in_the_documents(root), make_table.markdown(measured)) == []


def test_a_changed_verdict_would_be_noticed(measured: list[make_table.Row]) -> None:
    now = make_table.markdown(measured)
    changed = [dict(row) for row in measured]
    changed[4]["modelscan"] = "gives up"
    before = changed[4]["file"], measured[4]["modelscan"]
    expected = (
        [] if before[1] == "not installed" else [f"{before[0]}, modelscan: 'gives up' is now {before[1]!r}"]
    )
    assert make_table.differences(make_table.markdown(changed), now) == expected
    assert make_table.differences(make_table.markdown(measured[:-1]), now) != []
    version = now.replace("torch 2", "torch 1", 1)
    assert len(make_table.differences(version, now)) == 1
    changed[4]["modelscan"] = "not installed"  # where it is not installed, nothing can be said
    assert make_table.differences(now, make_table.markdown(changed)) == []


def test_what_the_page_says_about_the_table_is_true(measured: list[make_table.Row]) -> None:
    rows = {row["file"]: row for row in measured}
    clean = [row for name, row in rows.items() if name.startswith("clean")]
    malicious = [row for name, row in rows.items() if name.startswith("malicious")]
    assert (len(clean), len(malicious)) == (3, 8)
    for row in malicious:
        # PyTorch goes by the ending of the name, and reads .safetensors as such
        safe = "loads" if row["file"].endswith(".safetensors") else "refuses"
        assert (row["our verdict"], row["torch.load(FILE)"]) == (UNSAFE, safe)
        assert row["loader without checks"] == "executes"
    for row in clean:
        assert (row["our verdict"], row["torch.load(FILE)"]) == (SAFE, "loads")
        assert row["loader without checks"] == "loads"
    assert rows["malicious_collect_env.pt"]["fickling"] == rows["clean_model.pt"]["fickling"]
    if installed("modelscan"):
        assert rows["malicious_model.pt"]["modelscan"] == "found"
        assert rows["malicious_legacy.pt"]["modelscan"] == "clean"
        assert rows["malicious_collect_env.pt"]["modelscan"] == "clean"
    if installed("picklescan"):
        assert rows["clean_model.safetensors"]["picklescan"] == "clean"
    present = [tool for tool in make_table.TOOLS if measured[0][tool] != "not installed"]
    columns = [[row[tool].split(",")[0] for row in measured] for tool in present]
    assert len(set(map(tuple, columns))) == len(columns)  # no two scanners agree on all files


def test_the_table_can_be_written_and_checked(
    run_main: Run, tmp_path: Path, measured: list[make_table.Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_table, "measure", lambda: measured)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{make_table.START}\nold\n{make_table.END}\nafter\n")
    assert run_main(make_table, "--check", page).returncode == 1
    assert run_main(make_table, "--write", page).returncode == 0
    assert page.read_text().startswith(f"before\n{make_table.START}\nMeasured with torch")
    assert page.read_text().endswith(f"{make_table.END}\nafter\n")
    checked = run_main(make_table, "--check", page)
    assert (checked.returncode, "0 changes in 11 files" in checked.stdout) == (0, True)
    page.write_text("no place")
    refused = run_main(make_table, "--write", page)
    assert refused.returncode == 2
    assert page.read_text() == "no place"


def test_printing_the_table_leaves_nothing_behind(run_main: Run, tmp_path: Path) -> None:
    result = run_main(make_table)
    assert result.returncode == 0, text(result)
    assert "(11 rows)" in result.stdout
    assert attack.MESSAGE not in result.stdout  # the payloads' own lines stay out of the table
    assert list(tmp_path.iterdir()) == []
