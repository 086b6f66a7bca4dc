"""Plain text, for people who listen: the finding first, nothing too long, nothing that cannot be read out.

Real commands of demos 1 and 3 and every output that the documents record are said in both ways and compared.
"""

from __future__ import annotations

import inspect
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
import scan_helpers  # noqa: F401 (puts demo 3 on the import path)

import console  # isort: skip
from malicious_helpers import type_here
from workshop_bench import Bench

import cli

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("demo-*/README.md"), *ROOT.glob("demo-*/recorded/*.txt")])
Result = subprocess.CompletedProcess[str]
HASH = "b4f799a6a203ab50a3b7544b2b85a10a7ec4092e18bd8ddc75f21ad49dc5aa56"


def heard(text: str) -> str:
    """What comes out where this is printed with --plain."""
    out = io.StringIO()
    spoken = cli.Spoken(out)
    print(text, end="", file=spoken)
    spoken.close()
    return out.getvalue()


def facts(text: str) -> list[str]:
    """The words and numbers, in any order and any case; of a SHA-256 the beginning."""
    text = re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", text)
    text = re.sub(r"(https?://[^/\s]+/[^/\s]+/)(\S{60,}|\.\.\.)", r"\1", text)
    return sorted(re.findall(r"[\w.%→-]*\w[\w%]*", text.lower()))


def assert_can_be_followed(text: str) -> None:
    for line in text.splitlines():
        if not line.startswith("$ "):
            assert len(line) <= 200, line
        assert not re.search(r"\b[0-9a-f]{64}\b", line), line
        assert not re.search(r"\S\s+<- ", line), line
        assert not re.search("[\x1b\u2500-\u257f]", line), line  # no colour, no drawn lines


def test_all_demos_speak_in_the_same_way() -> None:
    assert inspect.getsource(cli.Spoken) == inspect.getsource(console.Spoken)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Scanning a → b ...  norm=0.013  <- FLAGGED", "FLAGGED: Scanning a → b ...  norm=0.013"),
        ("[trigger]  yield   <- backdoor activates", "BACKDOOR ACTIVATES: [trigger]  yield"),
        (f"Its SHA-256 is {HASH}.", "Its SHA-256 is b4f799a6a203...."),
        (f"$ check {HASH} <- x", f"$ check {HASH} <- x"),
        ('{"a": "' + HASH + '"}', '{"a": "' + HASH + '"}'),
        (
            "- file: a.pt; torch: found; our verdict: NOT SAFE",
            "- our verdict: NOT SAFE; file: a.pt; torch: found",
        ),
        ("- check: size; answer: passed", "- check: size; answer: passed"),
        (f"from https://example.org/me/{HASH}/x.json now", "from https://example.org/me/... now"),
        ("", ""),
        ("<- nothing before it", "<- nothing before it"),
    ],
)
def test_one_line(line: str, said: str) -> None:
    assert heard(line) == said
    assert heard(f"{line}\n") == f"{said}\n"


def test_a_long_line_ends_where_a_sentence_or_a_part_does() -> None:
    sentence = "This sentence has forty-one letters here. "
    assert heard(sentence * 7).splitlines()[0] == (sentence * 4).strip()
    parts = "; ".join(f"column{n}: value{n}" for n in range(30))
    lines = heard(f"- {parts}").splitlines()
    assert all(len(line) <= 200 for line in lines)
    assert all(line.startswith("  column") for line in lines[1:]) and lines[0].endswith(";")
    assert facts(" ".join(lines)) == facts(parts)
    assert heard("x" * 500) == "x" * 500


def test_what_comes_in_pieces_is_one_line() -> None:
    out = io.StringIO()
    spoken = cli.Spoken(out)
    for piece in ("Scanning", " a  <- FLA", "GGED\nnext", " one"):
        spoken.write(piece)
    spoken.close()
    assert out.getvalue() == "FLAGGED: Scanning a\nnext one"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_recorded_output_can_be_followed(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = "".join(re.findall(r"^```text\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))
    said = heard(text)
    assert_can_be_followed(said)
    assert facts(said) == facts(text)


def test_the_documents_record_findings_and_long_lines() -> None:
    """Else the test above would test nothing."""
    text = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    assert "<- FLAGGED" in text and "<- backdoor activates" in text
    assert any(len(line) > 200 for line in text.splitlines())
    assert re.search(r"\b[0-9a-f]{64}\b", text)


# --- Real commands ----------------------------------------------------------------------------------

MASKS = ((r"\d+(\.\d+)? (ms|s|seconds|MB)\b", "N"), (r"/tmp/[\w./-]+", "PLACE"))


def masked(text: str) -> str:
    for pattern, word in MASKS:
        text = re.sub(pattern, word, text)
    return text


DEMO_1 = (
    "create_malicious_model.py --list",
    "create_malicious_model.py --marker {tmp}/marker",
    "inspect_model.py malicious_model.pt",
    "policy.py check malicious_model.pt",
    "sign_model.py sign malicious_model.pt",
    "sign_model.py verify malicious_model.pt",
    "policy.py allow malicious_model.pt",
    "safe_demo.py convert malicious_model.pt",
)


def test_demo_1_says_the_same_in_both_ways(
    run_main: Callable[..., Result], tmp_path: Path, root: Path
) -> None:
    import create_malicious_model  # noqa: PLC0415
    import inspect_model  # noqa: PLC0415
    import policy  # noqa: PLC0415
    import safe_demo  # noqa: PLC0415
    import sign_model  # noqa: PLC0415

    modules = {
        f"{module.__name__}.py": module
        for module in (create_malicious_model, inspect_model, policy, safe_demo, sign_model)
    }
    shutil.copy(root / "demo-malicious/policy.toml", tmp_path)
    keys = run_main(sign_model, "keygen", "--plain")
    assert_can_be_followed(keys.stdout)
    assert re.search(r"\b[0-9a-f]{12}\.\.\.", keys.stdout)
    for line in DEMO_1:
        script, *words = line.format(tmp=tmp_path).split()
        one, two = (run_main(modules[script], *words, *more) for more in ([], ["--plain"]))
        assert one.returncode == two.returncode, line
        assert_can_be_followed(two.stdout)
        assert facts(masked(two.stdout)) == facts(masked(one.stdout)), line


DEMO_3 = (
    "scan.py --recorded",
    "compare.py recorded/python_3.11-alpine_2025-11-06.json recorded/python_3.11-alpine_2025-11-14.json",
    "make_example.py --output {tmp}/example.safetensors",
    "make_mlbom.py {tmp}/example.safetensors --output {tmp}/mlbom.cdx.json",
    "check_mlbom.py {tmp}/mlbom.cdx.json --folder {tmp}",
    "attest.py --help",
    "verify_chain.py {tmp}/example.safetensors --keys {tmp}",
    "check.py",
)


@pytest.fixture(scope="module")
def made_by_3(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the commands that make something write: command -> content of its file."""
    folder, made = tmp_path_factory.mktemp("demo-3"), {}
    for line in DEMO_3:
        if line.startswith("make_"):
            script, *words = line.format(tmp=folder).split()
            command = [sys.executable, str(ROOT / "demo-supply-chain" / script), *words]
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
            made[line] = Path(words[-1]).read_bytes()
    return made


@pytest.mark.parametrize("line", DEMO_3)
def test_demo_3_says_the_same_in_both_ways(
    line: str, run_script: Callable[..., Result], made_by_3: dict[str, bytes], tmp_path: Path
) -> None:
    for folder in ("recorded", "vex"):
        shutil.copytree(ROOT / "demo-supply-chain" / folder, tmp_path / folder)
    for before in DEMO_3[: DEMO_3.index(line)]:
        if before in made_by_3:
            Path(before.format(tmp=tmp_path).split()[-1]).write_bytes(made_by_3[before])
    words = f"demo-supply-chain/{line.format(tmp=tmp_path)}".split()
    one, two, three = (
        run_script(*words),
        run_script(*words, "--plain"),
        run_script(*words, WORKSHOP_PLAIN="1"),
    )
    assert one.returncode == two.returncode == three.returncode
    assert "Traceback" not in two.stderr
    assert two.stdout == three.stdout
    assert_can_be_followed(two.stdout)
    assert facts(masked(two.stdout)) == facts(masked(one.stdout))
    assert one.stderr == two.stderr


def test_json_stays_whole(tmp_path: Path) -> None:
    type_here(["create_malicious_model.py"], tmp_path)
    words = ["inspect_model.py", "malicious_model.pt", "--json"]
    said = type_here(words, tmp_path)
    assert json.loads(said.stdout)
    assert type_here([*words, "--plain"], tmp_path).stdout == said.stdout


# --- Tables on a terminal ---------------------------------------------------------------------------

COLUMNS = ("file", "verdict", "picklescan", "modelscan", "fickling", "reason")
ROWS = [
    (
        "malicious_collect_env.pt",
        "NOT SAFE TO LOAD",
        "found",
        "clean",
        "suspicious",
        "imports torch.utils.collect_env",
    ),
    ("safe_model.pt", "no code found", "clean", "clean", "suspicious", "nothing disallowed"),
]


def on_a_terminal(columns: tuple[str, ...], rows: Any, width: int) -> str:
    out = cli.Out(plain=False)
    out.plain = False
    written = io.StringIO()
    out._console = cli.Console(
        file=written, width=width, force_terminal=True, highlight=False, soft_wrap=True
    )
    out.table("Files", columns, rows)
    return re.sub(r"\x1b\[[\d;]*m", "", written.getvalue())


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_a_table_fits_the_terminal_and_breaks_no_word(width: int) -> None:
    said = on_a_terminal(COLUMNS, ROWS, width)
    assert all(len(line) <= width for line in said.splitlines())
    for row in ROWS:
        for cell in row:
            for word in cell.split():
                assert word in said.replace("\n", " "), word


def test_a_table_is_drawn_where_it_fits() -> None:
    assert "│" in on_a_terminal(COLUMNS, ROWS, 200)
    assert "│" not in on_a_terminal(COLUMNS, ROWS, 80)
    assert "│" in on_a_terminal(("a", "b"), [("1", "2")], 80)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_table_of_demo_3_fits_too(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    said = console.table("Files", COLUMNS, ROWS, plain=False)
    assert all(len(line) <= width for line in said.splitlines())
    assert "malicious_collect_env.pt" in said and "suspicious" in said


# --- The installer ----------------------------------------------------------------------------------

PIP = """    "-m pip") echo "Collecting torch"; echo "Something went wrong" >&2; exit "${FAKE_PIP:-0}" ;;"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(ROOT, tmp_path)
    bench.python()
    fake = bench.bin / "python3"
    fake.write_text(re.sub(r'^ *"-m pip"\).*$', PIP, fake.read_text(), flags=re.MULTILINE))
    return bench


def test_the_installer_is_not_read_aloud(bench: Bench) -> None:
    assert "Collecting torch" in bench("run", "1", "--native").stdout
    shutil.rmtree(bench.home / ".venv")
    result = bench("run", "1", "--native", "--plain")
    assert result.returncode == 0, result.stderr
    assert "Collecting" not in result.stdout + result.stderr
    assert f"What it says goes to {bench.home}/results/install.log." in result.stdout
    assert "Collecting torch" in (bench.home / "results/install.log").read_text()


def test_the_end_of_the_log_is_said_when_it_fails(bench: Bench) -> None:
    result = bench("run", "1", "--native", "--plain", FAKE_PIP="1")
    assert result.returncode == 1
    assert "It failed. The last lines of" in result.stderr and "Something went wrong" in result.stderr
