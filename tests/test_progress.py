"""next, hint, status, wanted, share, class and shell: one log for all demos, and what is read from it."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
from workshop_bench import Bench

ROOT = Path(__file__).resolve().parent.parent
DEMOS = ("demo-malicious", "demo-poisoning", "demo-supply-chain")
EVERY = [f"{demo}.{number}" for demo in (1, 2, 3) for number in (1, 2, 3, 4)]
Result = subprocess.CompletedProcess[str]
PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where progress is kept in these tests."""
    return tmp_path / "progress"


@pytest.fixture
def tool(run_script: Callable[..., Result], place: Path) -> Callable[..., Result]:
    """tool("next") runs scripts/progress.py; tool.wanted and others are asked for by file=."""

    def run(*args: object, file: str = "progress", shell: str = "") -> Result:
        return run_script(f"scripts/{file}.py", *args, WORKSHOP_PROGRESS=str(place), WORKSHOP_SHELL=shell)

    return run


def solve(place: Path, *items: str, event: str = "solved") -> None:
    """Note it as a demo's check.py does."""
    place.mkdir(exist_ok=True)
    with (place / "log.jsonl").open("a") as log:
        for item in items:
            log.write(json.dumps({"at": "2026-11-25T10:00:00+00:00", "event": event, "item": item}) + "\n")


# --- next, hint, status -----------------------------------------------------------------------------


def test_next_goes_from_the_first_demo_to_the_poster(tool: Callable[..., Result], place: Path) -> None:
    """Whoever does what next says, each time, comes to the end, and through every exercise."""
    done: list[str] = []
    for _ in range(30):
        said = tool("next").stdout
        assert said.startswith("Next: ") and len(said.splitlines()) == 1
        if found := re.search(r"exercise (\d\.\d) .*python check\.py \d$", said):
            solve(place, found[1])
            done.append(found[1])
        elif found := re.search(r"\./workshop\.sh (?:run (\d)|(pipeline))$", said):
            solve(place, found[1] or found[2], event="shown")
        else:
            break
    assert said == "Next: everything is done; your poster, and what you can do now: ./workshop.sh wanted\n"
    assert sorted(done) == EVERY
    assert [item[0] for item in done] == ["1"] * 4 + ["2"] * 4 + ["3"] * 4


def test_next_inside_a_shell_names_what_is_typed_there(tool: Callable[..., Result], place: Path) -> None:
    assert tool("next", shell="2").stdout.endswith("this checks it: python check.py 3\n") is False
    solve(place, "2", event="opened")
    assert "exercise 2.3 (first)" in tool("next", shell="2").stdout
    assert tool("next", shell="2").stdout.endswith("and this checks it: python check.py 3\n")
    other = tool("next", "1", shell="2").stdout
    assert "leave this shell with exit, then type ./workshop.sh run 1" in other
    assert "type: workshop hint" not in other


def test_hints_come_in_three_steps(tool: Callable[..., Result], place: Path) -> None:
    said = [tool("hint", "2.1").stdout for _ in range(4)]
    assert [text.split(" for ")[0] for text in said] == [f"Hint {n} of 3" for n in (1, 2, 3, 3)]
    assert len({text.splitlines()[0] for text in said}) == 3
    assert said[0].splitlines()[1] == "The next one: ./workshop.sh hint 2.1"
    assert said[2].splitlines()[1].endswith("The solution is in demo-poisoning/EXERCISES.md.")
    assert tool("hint", "2.2").stdout.startswith("Hint 1 of 3")
    assert "`" not in "".join(said)


def test_hint_without_a_number_is_for_what_comes_next(tool: Callable[..., Result], place: Path) -> None:
    solve(place, "1.1", "1.2")
    assert "for exercise 1.4 (more)" in tool("hint").stdout
    assert "for exercise 3.1 (first)" in tool("hint", shell="3").stdout
    solve(place, *EVERY)
    result = tool("hint")
    assert (result.returncode, result.stdout) == (2, "")


def test_status_has_a_line_for_each_thing(tool: Callable[..., Result], place: Path) -> None:
    assert tool("status").stdout.count("OPEN: ") == 16
    solve(place, "1", event="shown")
    solve(place, "1.1", "1.1", "3.4")
    lines = tool("status").stdout.splitlines()
    done = [line for line in lines if line.startswith("DONE: ")]
    assert [line.split(",")[0] for line in done] == [
        "DONE: demo 1 seen",
        "DONE: exercise 1.1 (first)",
        "DONE: exercise 3.4 (hard)",
    ]
    assert sum(line.startswith("OPEN: ") for line in lines) == 13
    assert lines[-2] == f"3 of 16 done. Kept in {place / 'log.jsonl'}."
    assert not list(place.glob("*.tmp"))


def test_who_solved_every_exercise_by_hand_has_seen_the_demo(
    tool: Callable[..., Result], place: Path
) -> None:
    solve(place, "1.1", "1.2", "1.3")
    assert "OPEN: demo 1 seen" in tool("status").stdout
    solve(place, "1.4")
    assert "DONE: demo 1 seen" in tool("status").stdout


def test_what_is_forgotten_is_open_again(tool: Callable[..., Result], place: Path) -> None:
    solve(place, "1.1", "2.1")
    solve(place, "1", "pipeline", event="shown")
    assert tool("note", "forgotten", "1").returncode == 0
    said = tool("status").stdout
    assert "OPEN: demo 1 seen" in said and "OPEN: exercise 1.1" in said
    assert "DONE: exercise 2.1" in said and "DONE: pipeline" in said
    tool("note", "forgotten", "pipeline")
    assert "OPEN: pipeline" in tool("status").stdout


@pytest.mark.parametrize(
    "content",
    [
        b"not json\n",
        b'{"at": "2026-11-25T10:00:00+00:00", "event": "solved"}\n',
        b'{"at": "yesterday", "event": "solved", "item": "1.1"}\n',
        b'{"at": "2026-11-25T10:00:00+00:00", "event": "invented", "item": "1.1"}\n',
        b'{"at": "2026-11-25T10:00:00+00:00", "event": "solved", "item": "9.9"}\n',
        b'{"at": "2026-11-25T10:00:00+00:00", "event": "solved", "item": 1}\n',
        b'{"at": 1, "event": ["solved"], "item": "1.1"}\n',
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\x00",
        b"\n",
        b'{"solved": ["1.1"]}\n',
        b"x" * 1_000_001,
    ],
)
@pytest.mark.parametrize("command", [("next",), ("status",), ("hint", "1.1")])
def test_a_damaged_or_foreign_log_is_one_sentence_and_nothing_is_lost(
    tool: Callable[..., Result], place: Path, assert_refused: Any, content: bytes, command: tuple[str, ...]
) -> None:
    place.mkdir()
    (place / "log.jsonl").write_bytes(content)
    result = tool(*command)
    assert_refused(result, "log.jsonl", "nothing was changed")
    assert result.stdout == ""
    assert (place / "log.jsonl").read_bytes() == content


def test_a_log_that_is_no_file(tool: Callable[..., Result], place: Path, assert_refused: Any) -> None:
    place.mkdir()
    os.mkfifo(place / "log.jsonl")
    assert_refused(tool("next"), "log.jsonl")
    assert_refused(tool("note", "shown", "1"), "log.jsonl")
    (place / "log.jsonl").unlink()
    (place / "log.jsonl").mkdir()
    assert_refused(tool("status"), "log.jsonl")
    assert_refused(tool("note", "shown", "1"), "log.jsonl", "nothing was lost")


def test_a_log_is_not_written_through_a_link(
    tool: Callable[..., Result], place: Path, tmp_path: Path
) -> None:
    other = tmp_path / "mine.txt"
    other.write_text("mine")
    place.mkdir()
    (place / "log.jsonl").symlink_to(other)
    assert tool("note", "shown", "1").returncode == 2
    assert other.read_text() == "mine"


def test_a_read_only_place_is_one_sentence(
    tool: Callable[..., Result], place: Path, tmp_path: Path, assert_refused: Any
) -> None:
    """A file where the folder should be: nobody can write below it, not even root."""
    place.write_text("a file")
    result = tool("hint", "1.1")
    assert result.stdout.startswith("Hint 1 of 3")
    assert_refused(Result([], result.returncode, "", result.stderr), "cannot be written", "nothing was lost")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_log_is_one_sentence(tool: Callable[..., Result], place: Path) -> None:
    solve(place, "1.1")
    (place / "log.jsonl").chmod(0o444)
    result = tool("hint", "1.1")
    assert result.returncode == 2 and "Permission denied" in result.stderr
    assert tool("status").stdout.count("DONE") == 1


@pytest.mark.parametrize(
    "args",
    [["next", "4"], ["hint", "7"], ["hint", "1.9"], ["note", "solved", "x"], ["note", "x", "1.1"], ["x"], []],
)
def test_wrong_usage_is_one_sentence(
    tool: Callable[..., Result], args: list[str], assert_refused: Any
) -> None:
    assert_refused(tool(*args))


# --- What the demos write ---------------------------------------------------------------------------


def test_the_demos_carry_the_same_record() -> None:
    copies = {(ROOT / demo / "exercises/record.py").read_bytes() for demo in DEMOS}
    assert len(copies) == 1


def in_demo(demo: Path, code: str, **env: str) -> str:
    """What Python says in a demo's folder, with exercises/record.py imported."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WORKSHOP_")}
    return subprocess.run(
        [sys.executable, "-c", f"from exercises import record; {code}"],
        cwd=demo,
        env=clean | env,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A demo in a folder that has a workshop.sh."""
    (tmp_path / "workshop.sh").touch()
    demo = tmp_path / "demo-malicious"
    shutil.copytree(ROOT / "demo-malicious/exercises", demo / "exercises")
    return demo


SOLVED = "print(record.solved(1, 3))"


def test_a_demo_notes_in_the_checkout_around_it_or_where_it_is_told(checkout: Path, place: Path) -> None:
    assert in_demo(checkout, SOLVED) == "Noted. What comes now: ./workshop.sh next\n"
    note = json.loads((checkout.parent / "progress/log.jsonl").read_text())
    assert (note["event"], note["item"]) == ("solved", "1.3")
    other = checkout.parent / "elsewhere"
    assert in_demo(checkout, SOLVED, WORKSHOP_PROGRESS=str(other), WORKSHOP_SHELL="1").endswith(
        ": workshop next\n"
    )
    assert (other / "log.jsonl").stat().st_mode & 0o777 == 0o664


def test_a_demo_that_was_copied_away_says_that_nothing_is_kept(checkout: Path) -> None:
    (checkout.parent / "workshop.sh").unlink()
    assert in_demo(checkout, SOLVED).startswith(
        "Not noted, because nothing is kept here: ./workshop.sh shell 1"
    )
    assert not (checkout.parent / "progress").exists()


def test_a_demo_says_why_it_cannot_note(checkout: Path) -> None:
    (checkout.parent / "progress").write_text("a file")
    assert in_demo(checkout, SOLVED).startswith("Not noted: ")


def test_a_line_that_was_torn_off_costs_nothing_but_itself(
    checkout: Path, tool: Callable[..., Result], place: Path
) -> None:
    solve(place, "1.1")
    with (place / "log.jsonl").open("a") as log:
        log.write('{"at": "2026-')
    in_demo(checkout, SOLVED, WORKSHOP_PROGRESS=str(place))
    result = tool("status")
    assert result.returncode == 2 and "Line 2 of" in result.stderr
    whole = [line for line in (place / "log.jsonl").read_text().splitlines() if line.endswith("}")]
    (place / "log.jsonl").write_text("\n".join(whole) + "\n")
    assert tool("status").stdout.count("DONE: exercise") == 2


def test_many_can_note_at_the_same_time(checkout: Path, tool: Callable[..., Result], place: Path) -> None:
    code = "[record.solved(1, 1 + n % 4) for n in range(50)]"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WORKSHOP_")}
    command = [sys.executable, "-c", f"from exercises import record; {code}"]
    env = clean | {"WORKSHOP_PROGRESS": str(place)}
    for process in [subprocess.Popen(command, cwd=checkout, env=env) for _ in range(4)]:
        assert process.wait(timeout=60) == 0
    assert len((place / "log.jsonl").read_text().splitlines()) == 200
    assert tool("status").stdout.count("DONE: exercise") == 4


# --- EXERCISES.md -----------------------------------------------------------------------------------


@pytest.mark.parametrize("demo", DEMOS)
def test_every_exercise_has_a_level_a_line_for_the_board_and_three_hints(demo: str) -> None:
    text = (ROOT / demo / "EXERCISES.md").read_text()
    parts = re.split(r"^## (?=\d\. )", text, flags=re.MULTILINE)[1:]
    assert [part[0] for part in parts] == list("1234")
    levels = [
        re.findall(r"^Level: (first|more|hard)\. On the board: .{10,}\.$", part, re.MULTILINE)
        for part in parts
    ]
    assert sorted(level for (level,) in levels)[0] == "first"
    assert {"first", "more", "hard"} == {level for (level,) in levels}
    for part in parts:
        folded = re.findall(r"<details><summary>(.*?)</summary>\n\n(.*?)\n\n</details>", part, re.DOTALL)
        assert [title for title, _ in folded] == ["Hint 1", "Hint 2", "Hint 3", "Solution"]
        assert all(len(hint) < 400 for title, hint in folded if title != "Solution")


def test_exercises_that_are_not_whole_are_named(tmp_path: Path) -> None:
    for demo in DEMOS:
        shutil.copytree(ROOT / demo / "exercises", tmp_path / demo / "exercises")
        shutil.copy(ROOT / demo / "EXERCISES.md", tmp_path / demo)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")

    def said() -> str:
        command = [sys.executable, "-B", str(tmp_path / "scripts/progress.py"), "status"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
        return result.stderr

    path = tmp_path / "demo-poisoning/EXERCISES.md"
    whole = path.read_text()
    path.write_text(whole.replace("<summary>Hint 2</summary>", "<summary>Help</summary>", 1))
    assert "exercise 1 lacks its level or one of its 3 hints" in said()
    path.unlink()
    assert "cannot be read" in said()


# --- The ending -------------------------------------------------------------------------------------


def scan(folder: Path, **changes: Any) -> Path:
    """The folder of a scan that flagged stop -> yield, as detect.py writes it, with what the poster reads."""
    pair = {
        "victim": "stop",
        "target": "yield",
        "anomaly_index": 7.23,
        "held_out": 0.87,
        "flagged": True,
        "image": "trigger_0_to_1.png",
        "description": "a yellow square, about 12x14 px, bottom-right corner, 1.2 % of the image",
    }
    data = {"tool": "detect.py", "model": "models/poisoned_model.pt", "threshold": 4.8, "seconds": 61.0}
    folder.mkdir(parents=True, exist_ok=True)
    data |= {key: value for key, value in changes.items() if key in data}
    pair |= {key: value for key, value in changes.items() if key in pair}
    (folder / "scan.json").write_text(json.dumps(data | {"pairs": [pair]}))
    (folder / "trigger_0_to_1.png").write_bytes(PNG)
    return folder


def test_the_poster_has_the_numbers_of_the_scan(
    tool: Callable[..., Result], place: Path, tmp_path: Path
) -> None:
    solve(place, "2.3")
    result = tool(scan(tmp_path / "scan"), file="wanted")
    assert result.returncode == 0, result.stderr
    html, text = ((place / f"wanted.{kind}").read_text() for kind in ("html", "txt"))
    for fact in ("stop into yield", "about 12x14 px", "on 87 %", "index of 7.2", "4.8 is", "61 seconds"):
        assert fact in html and fact in text and fact in result.stdout, fact
    assert re.search(
        r'<img src="data:image/png;base64,[\w+/=]+" alt="Three panels\. [^"]*yellow square', html
    )
    assert "CHECKED: I can name the poisoned files of a dataset." in text
    assert text.count("NOT YET: I can ") == 11
    assert "Where to go on" in html
    assert not re.search(r'(src|href)="http', html)


def test_the_newest_scan_is_taken(tool: Callable[..., Result], place: Path, tmp_path: Path) -> None:
    scan(tmp_path / "scan_results/poisoned", victim="no_entry")
    assert "turning no_entry into yield" in tool(file="wanted").stdout


def test_words_in_a_scan_are_no_markup(tool: Callable[..., Result], place: Path, tmp_path: Path) -> None:
    tool(scan(tmp_path / "scan", description='<script>alert("x")</script>'), file="wanted")
    html = (place / "wanted.html").read_text()
    assert "<script" not in html and 'alert("x")' not in html


@pytest.mark.parametrize(
    "changes",
    [
        {"tool": "other"},
        {"flagged": False},
        {"flagged": "yes"},
        {"image": "../../etc/passwd"},
        {"image": None},
        {"image": "trigger_0_to_2.png"},
        {"anomaly_index": None},
        {"anomaly_index": "many"},
        {"description": "two\nlines"},
        {"description": 7},
        {"model": ["a"]},
        {"threshold": {}},
    ],
)
def test_a_scan_that_is_none_is_one_sentence(
    tool: Callable[..., Result], place: Path, tmp_path: Path, assert_refused: Any, changes: dict[str, Any]
) -> None:
    assert_refused(tool(scan(tmp_path / "scan", **changes), file="wanted"), "scan.json")
    assert not (place / "wanted.html").exists()


def test_files_of_a_scan_that_are_none(
    tool: Callable[..., Result], place: Path, tmp_path: Path, assert_refused: Any
) -> None:
    folder = scan(tmp_path / "scan")
    (folder / "trigger_0_to_1.png").write_bytes(b"GIF89a")
    assert_refused(tool(folder, file="wanted"), "scan.json")
    for content in (b"\xff", b"[]", b"[" * 100_000, b"{}", b'{"tool": "detect.py", "pairs": 3}'):
        (folder / "scan.json").write_bytes(content)
        assert_refused(tool(folder, file="wanted"), "scan.json")
    assert_refused(tool(tmp_path / "nowhere", file="wanted"), "nowhere")


# --- The class --------------------------------------------------------------------------------------


def shared(folder: Path, file: str, name: str, *solved: str) -> None:
    folder.mkdir(exist_ok=True)
    data = {"tool": "workshop.sh", "format": 1, "name": name, "solved": list(solved)}
    (folder / file).write_text(json.dumps(data))


def test_a_shared_file_holds_the_name_and_the_exercises_alone(
    tool: Callable[..., Result], place: Path
) -> None:
    solve(place, "2.1", "1.1")
    solve(place, "1.2", event="hint")
    result = tool("share", "Ada", file="class_page")
    assert "Ada has solved 1.1, 2.1. Nothing was sent." in result.stdout
    assert json.loads((place / "share.json").read_text()) == {
        "tool": "workshop.sh",
        "format": 1,
        "name": "Ada",
        "solved": ["1.1", "2.1"],
    }


@pytest.mark.parametrize("name", ["", "   ", "x" * 41, "two\nlines", "\x1b[31m"])
def test_names_that_are_none(
    tool: Callable[..., Result], place: Path, assert_refused: Any, name: str
) -> None:
    assert_refused(tool("share", name, file="class_page"), "A name")
    assert not (place / "share.json").exists()


def test_the_page_of_the_class(tool: Callable[..., Result], place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "class"
    shared(folder, "1.json", "Émile <b>", "1.1", "3.4")
    shared(folder, "2.json", "ada", "1.1")
    result = tool("page", folder, file="class_page")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert lines[1:3] == ["ada: 1 solved: 1.1.", "Émile <b>: 2 solved: 1.1, 3.4."]
    assert "Exercise 1.1 (first), Make picklescan and modelscan disagree: 2." in lines
    html = (place / "class.html").read_text()
    assert (
        "Émile &lt;b&gt;" in html and html.count("<td>done</td>") == 3 and html.count("<td>open</td>") == 21
    )
    assert html.count('<th scope="row">') == 2


def test_files_that_nobody_shared_are_named_and_not_counted(
    tool: Callable[..., Result], place: Path, tmp_path: Path, assert_refused: Any
) -> None:
    folder = tmp_path / "class"
    shared(folder, "good.json", "Ada", "1.1")
    for number, content in enumerate((b"", b"[]", b"\xff", b"[" * 100_000, b'{"name": "x"}', b"x" * 200_000)):
        (folder / f"bad{number}.json").write_bytes(content)
    shared(folder, "bad6.json", "Eve", "9.9")
    shared(folder, "bad7.json", "\x1b[2J", "1.1")
    (folder / "bad8.json").mkdir()
    (folder / "notes.txt").write_text("not read")
    result = tool("page", folder, file="class_page")
    assert result.returncode == 1
    assert re.findall(r"NOT READ: (\S+)", result.stdout) == [f"bad{number}.json" for number in range(9)]
    assert "1 people share" in result.stdout
    (folder / "good.json").unlink()
    assert_refused(tool("page", folder, file="class_page"), "no shared file")
    assert_refused(tool("page", folder / "bad0.json", file="class_page"), "not a folder")


# --- As it is typed ---------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(ROOT, tmp_path)


def test_run_notes_what_was_shown_and_next_goes_on_from_there(bench: Bench) -> None:
    bench.python()
    assert bench("next").stdout.endswith("./workshop.sh run 1\n")
    assert bench("run", "1", "--native").returncode == 0
    assert "exercise 1.1 (first)" in bench("next").stdout
    assert "DONE: demo 1 seen" in bench("status", "--plain").stdout


def test_a_step_that_failed_was_not_shown(bench: Bench) -> None:
    bench.python()
    assert bench("run", "1", "--native", FAKE_SAFE_DEMO="3").returncode == 1
    assert bench("next").stdout.endswith("./workshop.sh run 1\n")


def test_without_python_an_image_does_it(bench: Bench) -> None:
    bench.docker()
    (bench.log.parent / "images/pickle-demo").write_text("label\n")
    assert bench("next").returncode == 0
    (line,) = (line for line in bench.logged().splitlines() if line.startswith("docker run "))
    assert "--network none --read-only" in line and "--cap-drop ALL" in line
    assert f"--volume {bench.home}/progress:/workshop/progress:z" in line
    assert line.endswith("--entrypoint python pickle-demo -B /workshop/scripts/progress.py next")
    assert all(
        part.endswith(":ro") for part in re.findall(r"--volume (\S+)", line) if "/progress:" not in part
    )


def test_without_anything_next_still_says_what_to_do(bench: Bench) -> None:
    result = bench("next")
    assert result.returncode == 2
    assert "./workshop.sh run" in result.stdout


def test_reset_forgets_only_with_yes(bench: Bench) -> None:
    bench.python()
    solve(bench.home / "progress", "1.1", "2.1")
    kept = (bench.home / "progress/log.jsonl").read_text()
    assert "Forget your progress in demo 1? Not asked" in bench("reset", "1").stdout
    assert (bench.home / "progress/log.jsonl").read_text() == kept
    assert "Your progress in demo 1 is forgotten." in bench("reset", "1", "--yes").stdout
    said = bench("status").stdout
    assert "OPEN: exercise 1.1" in said and "DONE: exercise 2.1" in said


@pytest.mark.parametrize(
    "args", [["shell"], ["shell", "4"], ["shell", "1", "2"], ["shell", "1", "--docker", "--native"]]
)
def test_shell_wants_one_demo(bench: Bench, args: list[str]) -> None:
    result = bench(*args)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1


def typed(bench: Bench, text: str, *args: str, **env: str) -> Result:
    """./workshop.sh ARGS with this typed into it, through a pipe."""
    return subprocess.run(
        [str(bench.home / "workshop.sh"), *args],
        check=False,
        env=bench.environment(**env),
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_shell_without_docker_is_in_the_folder_of_the_demo_with_our_python(bench: Bench) -> None:
    bench.python()
    (bench.home / ".bashrc").write_text("PATH=/usr/bin:/bin\n")  # HOME is there: as version managers do
    result = typed(
        bench, "pwd\ncommand -v python\nworkshop next\nworkshop shell 1\n", "shell", "3", "--native"
    )
    assert f"Demo 3. You type in bash on this machine, in {bench.home}/demo-supply-chain" in result.stdout
    assert (
        f"{bench.home}/demo-supply-chain\n{bench.home}/.venv/bin/python\nNext: exercise 3.1" in result.stdout
    )
    assert "this is the shell of demo 3 already" in result.stderr
    assert '"opened", "item": "3"' in (bench.home / "progress/log.jsonl").read_text()


def test_the_terminal_of_a_shell_keeps_our_python_in_front(bench: Bench) -> None:
    """Interactive bash reads the user's own settings, which may change PATH."""
    bench.python()
    (bench.home / ".bashrc").write_text(f"PATH={bench.bin}\n")
    master, terminal = pty.openpty()
    os.write(master, b"command -v python; exit\n")
    result = subprocess.run(
        [str(bench.home / "workshop.sh"), "shell", "1", "--native"],
        check=False,
        env=bench.environment(),
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
        timeout=60,
        start_new_session=True,
    )
    os.close(terminal)
    os.close(master)
    assert f"{bench.home}/.venv/bin/python\n" in result.stdout


def test_shell_with_docker_is_locked_and_keeps_work_and_progress(bench: Bench) -> None:
    bench.docker()
    bench.python()
    (bench.log.parent / "images/pickle-demo").write_text("sha256:0123456789abcdef\n")
    result = typed(bench, "", "shell", "1", "--docker")
    assert result.returncode == 0, result.stderr
    assert "Demo 1. You type in a container of the image pickle-demo" in result.stdout
    line = [line for line in bench.logged().splitlines() if line.startswith("docker run ")][-1]
    assert "--network none --read-only --tmpfs /tmp --cap-drop ALL" in line
    assert f"--volume {bench.home}/progress:/workshop/progress:z" in line
    assert re.search(r"--volume workshop-demo-1-[\w-]+:/app ", line)
    assert "--tty" not in line
    assert (bench.home / "progress").stat().st_mode & 0o7777 == 0o2775


# --- With a real engine -----------------------------------------------------------------------------
