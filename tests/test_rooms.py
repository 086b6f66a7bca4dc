"""The rooms of the house: what stands where, what may import what, and the map that shows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "docs"))
import make_map

ROOT = make_map.ROOT
DEMOS = tuple(make_map.DEMOS)
# Attack, signature and policy of demo 1 stand in the file whose name promises them, and nowhere else: its
# other commands take them from there.
SHOWN = {"create_malicious_model", "sign_model", "policy"}


@pytest.fixture(autouse=True)
def checkout() -> None:
    """The rooms are read from what git tracks."""
    if subprocess.run(["git", "rev-parse"], cwd=ROOT, check=False, capture_output=True).returncode != 0:
        pytest.skip("not a git checkout")


def imports_of(demo: str) -> dict[str, set[str]]:
    """Each module of a demo, with the modules of that demo that it imports."""
    known = make_map.modules(ROOT / demo)
    return {name: make_map.imported(path) & known.keys() for name, path in known.items()}


def commands_of(demo: str) -> set[str]:
    """The modules of a demo that people type."""
    return {name for name, path in make_map.modules(ROOT / demo).items() if make_map.is_command(path)}


@pytest.mark.parametrize("demo", DEMOS)
def test_nothing_imports_a_command(demo: str) -> None:
    """What two files need stands in a room: a command is for people, and holds what its name promises."""
    commands = commands_of(demo)
    assert commands
    found = {
        f"{name} imports {other}"
        for name, others in imports_of(demo).items()
        for other in others & commands
        if not (demo == "demo-malicious" and name in commands and other in SHOWN)
    }
    assert sorted(found) == []


@pytest.mark.parametrize("demo", DEMOS)
def test_no_import_goes_in_a_circle(demo: str) -> None:
    left = imports_of(demo)
    while ready := {name for name, others in left.items() if not others & left.keys() - {name}}:
        left = {name: others for name, others in left.items() if name not in ready}
    assert sorted(left) == []


@pytest.mark.parametrize("demo", DEMOS)
def test_rooms_hold_no_commands(demo: str) -> None:
    """hardened/ is no room: it holds the app that demo 3 packs twice, and the image starts it."""
    commands = [name for name in commands_of(demo) if "." in name]
    assert [name for name in commands if not name.startswith("hardened.")] == []


@pytest.mark.parametrize("demo", DEMOS)
def test_rooms_import_only_from_rooms_below_them(demo: str) -> None:
    above: list[str] = []
    for room in make_map.rooms(ROOT / demo):
        assert room.imports.isdisjoint(above), (
            f"{demo}: {room.name} imports {sorted(room.imports & set(above))}"
        )
        above.append(room.name)


@pytest.mark.parametrize("demo", DEMOS)
def test_no_demo_imports_from_another(demo: str) -> None:
    """Each demo can be copied away. What they share by name (cli.py) is a copy of its own in each."""
    own = make_map.modules(ROOT / demo).keys()
    foreign = {name for other in DEMOS for name in make_map.modules(ROOT / other)} - own
    for name, path in make_map.modules(ROOT / demo).items():
        assert make_map.imported(path) & foreign == set(), name


def test_the_top_of_demo_2_holds_commands_and_three_files_more() -> None:
    top = {name for name in make_map.modules(ROOT / "demo-poisoning") if "." not in name}
    assert top - commands_of("demo-poisoning") == {"trigger", "signs", "cli"}
    assert len(top) <= 16


def test_the_map_is_current() -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "docs/make_map.py", "--check"], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_the_map_names_every_room_and_file() -> None:
    shown = [path.read_text(encoding="utf-8") for path in (make_map.DRAWING, make_map.PAGE)]
    for demo in DEMOS:
        for room in make_map.rooms(ROOT / demo):
            for name in (room.name, *room.files):
                assert all(name in text for text in shown), f"{demo}: {name}"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A demo of four files in a repository of its own."""
    for name, text in {
        "scan.py": 'from scanner import search\nif __name__ == "__main__":\n    search.go()\n',
        "cli.py": "",
        "scanner/search.py": "import scanner.norms\nimport cli\n",
        "scanner/norms.py": "def go():\n    from cli import run\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    return tmp_path


def test_imports_are_found_in_all_their_forms(small: Path) -> None:
    floors = make_map.rooms(small)
    assert [(room.name, room.files, sorted(room.imports)) for room in floors] == [
        ("typed commands", ["scan.py"], ["scanner/"]),
        ("scanner/", ["norms", "search"], ["cli.py"]),
        ("cli.py", [], []),
    ]
    assert make_map.described({"small": floors}).splitlines() == [
        "- small, from top to bottom:",
        "  - typed commands: scan.py (imports from scanner/)",
        "  - scanner/: norms, search (imports from cli.py)",
        "  - cli.py",
    ]
