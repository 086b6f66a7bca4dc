"""What the tests share: the demo folders on the import path, a script runner, and the Docker engine."""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent
for folder in ("demo-malicious", "demo-poisoning", "tests", "tests/poisoning"):
    sys.path.insert(0, str(ROOT / folder))

# what the tests solve is nobody's progress
os.environ["WORKSHOP_PROGRESS"] = tempfile.mkdtemp(prefix="progress-of-tests-")

# demo 3 takes demo 2's models out of its image, which may be there from a run of somebody's own
os.environ["MODELS_IMAGE"] = "no-models-of-tests"

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # started in the background: the commands that the tests start would ignore Ctrl+C, too
    signal.signal(signal.SIGINT, signal.default_int_handler)

Result = subprocess.CompletedProcess[str]


def call(command: list[str], cwd: Path, timeout: float, **env: str) -> Result:
    """Run a command without a terminal, as a pipe or a log would; both streams come back as text."""
    return subprocess.run(
        command,
        check=False,
        cwd=cwd,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
    )


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def outside_data() -> Callable[[str], Path]:
    """outside_data("gtsrb-sample"): a folder of WORKSHOP_TEST_DATA, with data that is not ours to publish."""

    def folder(name: str) -> Path:
        if not os.environ.get("WORKSHOP_TEST_DATA"):
            pytest.skip(f"WORKSHOP_TEST_DATA is not set, so there is no {name}/ (see CONTRIBUTING.md)")
        found = Path(os.environ["WORKSHOP_TEST_DATA"]).resolve() / name
        assert found.is_dir(), f"WORKSHOP_TEST_DATA is set, but {found} is not a folder"
        return found

    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium with one page, for the tests of a module: a browser.Browser."""
    browsers = importlib.import_module("browser")  # on the path that is set above
    program = browsers.find()
    if program is None:
        pytest.skip("no Chromium or Chrome on this machine")
    opened = browsers.Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of the accessibility checker axe-core."""
    script: str = importlib.import_module("accessibility").fetch_axe(tmp_path_factory.mktemp("axe"))
    return script


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., Result]:
    """run_script("demo-malicious/inspect_model.py", "a.pt") runs it with this Python, in tmp_path."""

    def run(script: str, *args: object, cwd: Path = tmp_path, timeout: float = 300, **env: str) -> Result:
        return call([sys.executable, str(ROOT / script), *map(str, args)], cwd, timeout, **env)

    return run


@pytest.fixture
def run_main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Result]]:
    """run_main(inspect_model, "a.pt") is like run_script, in this process: importing torch takes seconds.

    A command's module imports what runs it, which is called cli, or console in demo 3.
    """
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)

    def run(module: ModuleType, *args: object) -> Result:
        monkeypatch.setattr("sys.argv", [f"{module.__name__}.py", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ending:
            (getattr(module, "cli", None) or module.console).run(module.main)
        said = capfd.readouterr()
        code = ending.value.code
        assert isinstance(code, int)
        return Result([module.__name__], code, said.out, said.err)

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def assert_refused() -> Callable[..., None]:
    """assert_refused(result, "word") checks the rule for bad input: code 2 and one sentence on stderr."""

    def check(result: Result, *words: object) -> None:
        said = f"stdout: {result.stdout}\nstderr: {result.stderr}"
        assert result.returncode == 2, said
        assert "Traceback" not in result.stderr, said
        assert len(result.stderr.strip().splitlines()) == 1, said
        assert result.stderr.startswith("error: "), said
        for word in words:
            assert str(word) in result.stderr, said

    return check


class Docker:
    """The machine's Docker engine, used through its command line."""

    # the flags that our READMEs give for a container that can reach and change nothing
    HARDENED = shlex.split(
        "--rm --network none --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges"
    )

    # the tests run two at a time, and threads that wait for each other on busy cores lose most of their time
    ONE_THREAD = ("--env", "OMP_NUM_THREADS=1")

    def __call__(self, *args: str, timeout: float = 600) -> Result:
        """docker("images") runs `docker images`."""
        return call(["docker", *args], ROOT, timeout, DOCKER_BUILDKIT="1")

    def build(self, folder: str, tag: str, *args: str, timeout: float = 1800) -> str:
        """Build the Dockerfile of a demo folder, with the user's WORKSHOP_BUILD_ARGS; gives the tag back."""
        extra = shlex.split(os.environ.get("WORKSHOP_BUILD_ARGS", ""))
        made = self("build", "-t", tag, *extra, *args, str(ROOT / folder), timeout=timeout)
        assert made.returncode == 0, (made.stdout + made.stderr)[-4000:]
        return tag

    def run(self, image: str, *command: str, flags: tuple[str, ...] = (), timeout: float = 600) -> Result:
        """Run a command in a new hardened container; `flags` come on top, for example --entrypoint."""
        return self("run", *self.HARDENED, *self.ONE_THREAD, *flags, image, *command, timeout=timeout)


@pytest.fixture(scope="session")
def docker() -> Docker:
    """The Docker engine; skips the test, with the reason, where none answers."""
    if not shutil.which("docker"):
        pytest.skip("no docker command on this machine")
    engine = Docker()
    try:
        answer = engine("info", timeout=30)
    except subprocess.TimeoutExpired:
        pytest.skip("the Docker engine did not answer within 30 seconds")
    if answer.returncode != 0:
        pytest.skip("no Docker engine answers (`docker info` failed)")
    if engine("build", "--help").returncode != 0:
        pytest.skip("Docker cannot build images here: its buildx component is missing")
    return engine


# The tests of one file run one after the other. So do those of several files that share something: images of
# Docker, the default marker of the attack, or what takes long to make.
TOGETHER = {
    "test_malicious": "containers",
    "test_run": "containers",
    "poisoning/test_documented": "poisoning/test_whole_demo",
    "poisoning/test_kit_offline": "poisoning/test_whole_demo",
    "poisoning/test_report_page": "poisoning/test_report",
}
# Begin with these, in this order. The long groups come first, because at the end one core would have nothing
# to do; but .ci/run builds the images meanwhile, so before each of them stands what needs none.
FIRST = (
    "test_benchmarks",
    "test_real_grype",
    "test_costly",
    "test_formats",
    "containers",
    "test_safe_demo",
    "test_fuzz",
    "test_inspect",
    "test_pipeline",
    "test_samples",
    "test_serve",
    "poisoning/test_whole_demo",
    "poisoning/test_containers",
)


def group_of(nodeid: str) -> str:
    """The group of a test: the path of its file below tests/ without .py, or a name for several files."""
    path = PurePosixPath(nodeid.split("::", 1)[0].removeprefix("tests/")).with_suffix("")
    return "containers" if str(path).startswith("test_containers") else TOGETHER.get(str(path), str(path))


class Groups(LoadScopeScheduling):
    """Exists because --dist loadscope parts the files of a group and starts with short ones."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Groups:
    """Called once by pytest-xdist."""
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the groups named above first."""

    def place(item: pytest.Item) -> int:
        group = group_of(item.nodeid)
        return FIRST.index(group) if group in FIRST else len(FIRST)

    items.sort(key=place)


REQUIRED = {"docker": "WORKSHOP_REQUIRE_DOCKER", "browser": "WORKSHOP_REQUIRE_BROWSER"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where what a test needs must be there (REQUIRED), a test that is skipped counts as failed."""
    report = yield
    for mark, variable in REQUIRED.items():
        if report.skipped and mark in report.keywords and os.environ.get(variable):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, although {variable} is set: {report.longrepr}"
    return report


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(os.environ["WORKSHOP_PROGRESS"], ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many container tests really ran."""
    ended = {
        outcome: [r for r in terminalreporter.getreports(outcome) if "docker" in getattr(r, "keywords", ())]
        for outcome in ("passed", "failed", "error", "skipped")
    }
    ran = sum(len(ended[outcome]) for outcome in ("passed", "failed", "error"))
    terminalreporter.write_line(f"Container tests: {ran} ran, {len(ended['skipped'])} skipped.")
