"""Demo 2: ScanResult, what scan.json may hold, and the triggers beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import report
from poisoning_tools import Refused, Run, made_up, ordinary, small_world, summarized
from scanner import result, verdict
from scanner.result import ScanResult


@pytest.fixture(autouse=True)
def tiny_networks() -> Iterator[None]:
    with small_world():
        yield


@pytest.fixture
def written() -> dict[str, Any]:
    """What detect.py writes about twelve pairs, the first of which is flagged."""
    found: dict[str, Any] = json.loads(summarized(made_up(ordinary(_0_1=0.005)), classes=4).to_json())
    return found


def test_what_is_written_is_read_again(written: dict[str, Any]) -> None:
    for found in (
        summarized(made_up(ordinary(_0_1=0.005))),
        summarized(made_up(ordinary(_2_1=None))),
        summarized(made_up({(0, 1): None})),
        summarized(
            made_up({(0, 1): 0.1}), verdict.by_references(made_up({(0, 1): 0.1}), [{(0, 1): 0.2}]), classes=2
        ),
    ):
        assert ScanResult.from_json(found.to_json()) == found
    assert ScanResult.from_json(json.dumps(written)).verdict == "backdoor"


def test_paths_are_written_as_any_program_can_read_them() -> None:
    """Bytes that are not UTF-8, and what would not stay on one line, become escapes."""
    strange = Path("signs\udcff/a\nb\u2028c\x1b[2J/\u00e4")
    found = summarized(made_up(ordinary()), settings=result.Settings(strange, 100, 30, 0))
    assert found.data == "signs\\udcff/a\\nb\\u2028c\\x1b[2J/\u00e4"
    assert ScanResult.from_json(found.to_json().encode()) == found


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"[1, 2]", b"null", b'"scan"', b"3", b"\xff\xfe", b"[" * 100_000),
        b'{"tool": "detect.py"}',
    ],
    ids=lambda content: content[:12].hex() or "empty",
)
def test_files_that_are_no_scan_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError):
        ScanResult.from_json(content)
    (tmp_path / "scan.json").write_bytes(content)
    with pytest.raises(result.cli.UserError, match=r"scan\.json is damaged.* scan the model again\.$"):
        result.read(tmp_path)


def damaged(written: dict[str, Any], how: str) -> str:
    """A scan.json that cannot be one of ours."""
    pair = written["pairs"][3]
    if how == "cut":
        return json.dumps(written)[:-5]
    if how == "twice":
        written["pairs"].append(written["pairs"][0])
    if how == "unknown key":
        written["note"] = "mine"
    if how == "missing key":
        del written["seconds"]
    changes: dict[str, tuple[dict[str, Any], str, Any]] = {
        "tool": (written, "tool", "other"),
        "other tool of ours": (written, "tool", "scan_models.py"),
        "classes": (written, "classes", ["stop", "tram"]),
        "fewer classes": (written, "classes", ["stop", "yield"]),
        "no pairs": (written, "pairs", []),
        "half a pair": (written, "pairs", [{"victim": "stop"}]),
        "a number of pairs": (written, "pairs", 3),
        "no checksum": (written, "sha256", None),
        "short checksum": (written, "sha256", "abc"),
        "steps": (written, "steps", "many"),
        "no steps": (written, "steps", 0),
        "true": (written, "seed", True),
        "threshold": (written, "threshold", float("nan")),
        "verdict": (written, "verdict", "clean"),
        "unknown verdict": (written, "verdict", "fine"),
        "path": (written, "model", "a\0b"),
        "lines": (written, "data", "a\nb"),
        "half a character": (written, "explanation", "\ud800"),
        "long path": (written, "model", 5000 * "a"),
        "infinite": (pair, "anomaly_index", float("inf")),
        "huge": (pair, "anomaly_index", 10**400),
        "norm 0": (pair, "norm", 0),
        "norm below 0": (pair, "norm", -1),
        "norm": (pair, "norm", 1.5),
        "norm nan": (pair, "norm", float("nan")),
        "norm inf": (pair, "norm", float("inf")),
        "norm text": (pair, "norm", "small"),
        "share": (pair, "held_out", -0.1),
        "text": (pair, "held_out", "much"),
        "flag": (pair, "flagged", "no"),
        "flag without index": (pair, "flagged", True),
        "same": (pair, "target", pair["victim"]),
        "image": (pair, "image", "../../secret.png"),
    }
    if how in changes:
        where, key, value = changes[how]
        where[key] = value
    return json.dumps(written)


BROKEN = (
    "cut,twice,unknown key,missing key,tool,other tool of ours,classes,fewer classes,no pairs,half a pair,"
    "a number of pairs,no checksum,short checksum,steps,no steps,true,threshold,verdict,unknown verdict,path,"
    "lines,half a character,long path,infinite,huge,norm 0,norm below 0,norm,norm nan,norm inf,norm text,"
    "share,text,flag,flag without index,same,image"
)


@pytest.mark.parametrize("how", BROKEN.split(","))
def test_a_broken_scan(written: dict[str, Any], how: str) -> None:
    text = damaged(written, how)
    with pytest.raises(ValueError):
        ScanResult.from_json(text)


def test_the_change_is_refused_not_the_copy(written: dict[str, Any]) -> None:
    """The other side of the test above."""
    assert len(ScanResult.from_json(damaged(written, "nothing")).pairs) == 12


@pytest.fixture
def copy(tmp_path: Path, scans: dict[str, Path]) -> Path:
    """A copy of the poisoned model's scan, in scan/."""
    shutil.copytree(scans["poisoned"], tmp_path / "scan")
    return tmp_path / "scan"


@pytest.mark.parametrize("how", ["cut", "verdict", "image", "format 1"])
def test_a_broken_scan_ends_in_one_sentence(  # noqa: PLR0917
    run_main: Run, assert_refused: Refused, tmp_path: Path, scans: dict[str, Path], copy: Path, how: str
) -> None:
    """The command, for a file that is damaged, contradicts itself, is hostile, or is an old one."""
    found = json.loads((copy / "scan.json").read_text())
    (copy / "scan.json").write_text(old(found) if how == "format 1" else damaged(found, how))
    ended = run_main(report, "--clean", scans["clean"], "--poisoned", "scan")
    assert_refused(ended, "scan/scan.json", "another version of detect.py: scan the model again.")
    assert ended.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan"]


def old(found: dict[str, Any]) -> str:
    """The same scan as detect.py wrote it before its result had a format number."""
    names = {"anomaly_index": "anomaly", "description": "words", "image": "picture"}
    pairs = [{names.get(key, key): value for key, value in pair.items()} for pair in found["pairs"]]
    made = found | {"input": found["input_size"], "reference": [], "pairs": pairs}
    return json.dumps(
        {key: value for key, value in made.items() if key not in {"format", "input_size", "references"}}
    )


def test_a_whole_copy_of_the_scan_is_taken(copy: Path) -> None:
    scan = result.read(copy)
    assert [pair.name for pair, _ in result.read_triggers(copy, scan)] == [pair.name for pair in scan.drawn]
    assert len(scan.drawn) == 3


@pytest.mark.parametrize(
    "how", ["missing", "empty", "cut", "other names", "other size", "no pixels", "not a number"]
)
def test_broken_triggers(copy: Path, how: str) -> None:
    break_triggers(copy / "triggers.safetensors", how)
    with pytest.raises(result.cli.UserError, match=r"scan/triggers\.safetensors .*: scan .* detect\.py\.$"):
        result.read_triggers(copy, result.read(copy))


@pytest.mark.parametrize("how", ["missing", "not a number"])
def test_broken_triggers_end_in_one_sentence(  # noqa: PLR0917
    run_main: Run, assert_refused: Refused, tmp_path: Path, scans: dict[str, Path], copy: Path, how: str
) -> None:
    break_triggers(copy / "triggers.safetensors", how)
    ended = run_main(report, "--clean", scans["clean"], "--poisoned", "scan")
    assert_refused(ended, "scan/triggers.safetensors", "detect.py")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan"]


def break_triggers(path: Path, how: str) -> None:
    whole, tensors = path.read_bytes(), load_file(path)
    path.unlink()
    if how in ("empty", "cut"):
        path.write_bytes(whole[: 0 if how == "empty" else -100])
    elif how == "other names":
        save_file({f"x{name}": value for name, value in tensors.items()}, path)
    elif how != "missing":
        name = "mask_0_to_1"
        wrong = {
            "other size": torch.zeros(9, 9),
            "no pixels": 2 + tensors[name],
            "not a number": tensors[name] / 0,
        }
        save_file({**tensors, name: wrong[how]}, path)
