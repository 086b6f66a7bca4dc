"""workshop.sh itself: its choices, its words and its exit codes, with fakes for everything heavy."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
from workshop_bench import FAKE_DOCKER, FAKE_PYTHON, Bench, Result


@pytest.fixture
def bench(root: Path, tmp_path: Path) -> Bench:
    return Bench(root, tmp_path)


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["juggle"], "juggle"),
        (["run", "4"], "4"),
        (["run", "--fast"], "--fast"),
        (["run", "--docker", "--native"], "one of"),
        (["reset", "everything"], "everything"),
        (["check", "--deep"], "--deep"),
        (["pipeline", "--fast"], "--fast"),
        (["pipeline", "--break"], "--break takes one of data, audit, training, scan, list, age, role"),
        (["pipeline", "--break", "everything"], "--break takes one of"),
        (["pipeline", "--docker", "--native"], "one of"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(bench: Bench, args: list[str], word: str) -> None:
    result = bench(*args)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert word in result.stderr
    assert "help" in result.stderr


@pytest.mark.parametrize("args", [[], ["help"], ["--help"]])
def test_help_names_every_command_and_runs_nothing(bench: Bench, args: list[str]) -> None:
    result = bench(*args)
    assert result.returncode == 0
    for command in ("check", "run", "pipeline", "test", "reset"):
        assert f"./workshop.sh {command}" in result.stdout
    assert "#" not in result.stdout
    assert bench.logged() == ""


@pytest.mark.parametrize("command", ["check", "run", "rehearse", "next", "test", "pack", "help"])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_of_one_command_runs_nothing(bench: Bench, command: str, option: str) -> None:
    result = bench(command, option)
    assert result.returncode == 0 and result.stderr == ""
    first, *more = result.stdout.splitlines()
    assert first.startswith(f"  ./workshop.sh {command} ")
    assert not any("./workshop.sh" in line for line in more[:-1])
    assert more[-1].startswith("./workshop.sh help shows all commands")
    assert bench.logged() == ""


def test_check_is_ready_with_docker_alone(bench: Bench) -> None:
    bench.docker()
    result = bench("check")
    assert result.returncode == 0, result.stdout
    assert "OK: Docker engine" in result.stdout
    assert "MISSING: Python" in result.stdout
    assert "will use Docker" in result.stdout


def test_check_is_ready_with_python_alone(bench: Bench) -> None:
    bench.python()
    result = bench("check")
    assert result.returncode == 0, result.stdout
    assert "MISSING: Docker engine - install Docker" in result.stdout
    assert "OK: Python 3." in result.stdout
    assert "will use Python" in result.stdout


def test_check_says_what_to_do_when_neither_is_there(bench: Bench) -> None:
    bench.docker()
    result = bench("check", FAKE_ENGINE="1")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert "MISSING: Docker engine - docker is installed but no engine answers: start Docker" in lines[0]
    assert [line for line in lines if line.startswith("MISSING: Python") and "no python on PATH" in line]
    assert lines[-1].startswith("Not ready")
    checked = [line for line in lines if line.startswith(("OK:", "WARNING:", "MISSING:"))]
    assert len(checked) == 6  # engine, architecture, disk, memory, Python, Grype


def test_a_python_that_does_not_run_is_skipped(bench: Bench) -> None:
    bench.executable(bench.bin / "python3.12", "#!/bin/sh\necho 'no such version' >&2\nexit 127\n")
    bench.executable(bench.bin / "python3.13", "#!/bin/sh\necho 'is 3.13.0 without venv'\nexit 1\n")
    bench.python("python3")
    result = bench("run", "1", "--native")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "(python3), without Docker" in result.stdout


def test_python_of_a_wrong_version_is_named_with_the_reason(bench: Bench) -> None:
    old = FAKE_PYTHON.replace(
        'exec "REAL" "$@"', "echo 'is 3.9.1, which PyTorch does not support here'; exit 1"
    )
    bench.executable(bench.bin / "python3", old)
    bench.executable(bench.bin / "python3.12", "#!/bin/sh\nexit 127\n")
    result = bench("run")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "neither a Docker engine nor a Python" in result.stderr
    assert "python3.12 does not run" in result.stderr
    assert "python3 is 3.9.1" in result.stderr
    assert not (bench.home / ".venv").exists()


@pytest.mark.parametrize("version", [(3, 9, 1), (3, 14, 1), (3, 15, 0)])
def test_the_question_to_a_python_refuses_versions_without_pytorch(
    root: Path, version: tuple[int, int, int]
) -> None:
    text = (root / "scripts/python.sh").read_text()
    probe = text.split("PYTHON_PROBE='")[1].split("'")[0]
    told = f"import sys; sys.version_info = {version}\n{probe}"
    result = subprocess.run([sys.executable, "-c", told], check=False, capture_output=True, text=True)
    assert result.returncode == 1
    assert ".".join(map(str, version)) in result.stdout


def test_docker_asked_for_but_absent(bench: Bench) -> None:
    bench.python()
    result = bench("run", "--docker")
    assert result.returncode == 1
    assert "no Docker engine answers" in result.stderr
    assert "without --docker" in result.stderr
    assert not (bench.home / ".venv").exists()


def test_an_engine_that_cannot_build_is_not_taken(bench: Bench) -> None:
    bench.docker()
    bench.python()
    result = bench("run", "1", FAKE_BUILDX="1")
    assert result.returncode == 0, result.stderr
    assert "cannot build images: install Docker's buildx component" in result.stdout
    assert "Way: Python" in result.stdout
    forced = bench("run", "1", "--docker", FAKE_BUILDX="1")
    assert forced.returncode == 1
    assert "install Docker's buildx component, or run without --docker" in forced.stderr
    assert "MISSING: Docker engine - it answers but cannot" in bench("check", FAKE_BUILDX="1").stdout


def test_without_an_engine_run_takes_python_and_shows_all_demos(bench: Bench, tmp_path: Path) -> None:
    bench.docker()
    bench.python()
    result = bench("run", cwd=tmp_path, FAKE_ENGINE="1")
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    first, second = result.stdout.splitlines()[:2]
    assert first.startswith("No Docker: no Docker engine answers")
    assert second.startswith("Way: Python 3.")
    assert "Download: at most about" in said
    assert "That is the large CUDA build" in said or sys.platform == "darwin"
    for demo in (1, 2, 3):
        assert f"- Demo {demo}, attack" in said or f"- Demo {demo}, the risk" in said
        assert f"- Demo {demo}, defence" in said
    for model in ("clean", "poisoned"):
        assert f"- {bench.home}/demo-poisoning/scan_results/{model}/trigger_0_to_1.png: " in said
    assert f"- {bench.home}/demo-poisoning/report.html: " in said
    assert said.rstrip().splitlines()[-1].startswith("Done: every step of run worked")
    log = bench.logged()
    assert "docker run" not in log and "docker build" not in log
    typed = [
        line for line in log.splitlines() if line.startswith(("python c", "python i", "python s", "script"))
    ]
    assert typed[:5] == [
        "python create_malicious_model.py",
        "python create_malicious_model.py attack",
        "python inspect_model.py malicious_model.pt",
        "python safe_demo.py",
        "python safe_demo.py load",
    ]
    typed = [line for line in typed if line.startswith("script")]
    assert typed[:3] == [f"script demo-poisoning/{n}.sh" for n in ("prepare", "workshop_demo", "gold_demo")]
    assert typed[3] == "script demo-supply-chain/scan.sh"


def test_a_second_run_installs_nothing(bench: Bench) -> None:
    bench.python()
    assert bench("run", "1").returncode == 0
    locked = f"--no-deps --require-hashes -r {bench.home}/demo-malicious/requirements.txt"
    assert locked in bench.logged()
    again = bench("run", "1")
    assert again.returncode == 0
    assert "Download: nothing." in again.stdout
    assert "-m pip install" not in bench.logged()


def test_demo_3_alone_needs_no_pytorch(bench: Bench) -> None:
    bench.python()
    assert bench("run", "3").returncode == 0
    assert "requirements-torch.txt" not in bench.logged()
    assert bench("run", "1").returncode == 0
    log = bench.logged()
    assert "requirements-torch.txt" in log
    assert "-m venv" not in log


def test_changed_requirements_are_installed(bench: Bench) -> None:
    bench.python()
    bench("run", "1")
    (bench.home / "demo-malicious/requirements.txt").write_text("rich==2\n")
    bench.logged()
    assert bench("run", "1").returncode == 0
    log = bench.logged()
    assert "-m pip install" in log
    assert "-m venv" not in log


@pytest.mark.parametrize("code", [0, 1])
def test_uv_installs_where_it_is_named_and_else_pip(bench: Bench, code: int) -> None:
    bench.python()
    bench.executable(bench.bin / "uv", f'#!/bin/sh\necho "uv $*" >>"$LOG"\nexit {code}\n')
    result = bench("run", "1", WORKSHOP_UV="uv")
    assert result.returncode == 0
    log = bench.logged()
    assert f"uv pip install --python {bench.home}/.venv/bin/python --no-deps --require-hashes -r " in log
    assert (
        ("-m pip install" in log) == ("uv could not install them: pip tries." in result.stdout) == bool(code)
    )


def test_an_interrupted_installation_is_started_over(bench: Bench) -> None:
    bench.python()
    broken = bench("run", "1", FAKE_PIP="1")
    assert broken.returncode == 1
    assert "this step of run failed: Install the Python packages" in broken.stderr
    assert "python create_malicious_model.py" not in bench.logged()
    (bench.home / ".venv/half-written").touch()
    result = bench("run", "1")
    assert result.returncode == 0, result.stdout
    assert "did not finish" in result.stdout
    assert not (bench.home / ".venv/half-written").exists()


def test_a_venv_of_the_users_own_is_left_alone(bench: Bench) -> None:
    bench.python()
    (bench.home / ".venv").mkdir()
    (bench.home / ".venv/precious").touch()
    result = bench("run", "1")
    assert result.returncode == 1
    assert "was not made by workshop.sh: move it away" in result.stderr
    assert (bench.home / ".venv/precious").exists()


def test_the_cpu_index_is_used_where_it_answers_and_given_up_where_it_fails(bench: Bench) -> None:
    if sys.platform == "darwin":
        pytest.skip("macOS takes PyTorch from the ordinary registry")
    bench.python()
    result = bench("run", "1", FAKE_INDEX="0")
    assert "PyTorch: the CPU build" in result.stdout
    torch = [line for line in bench.logged().splitlines() if "requirements-torch.txt" in line]
    assert len(torch) == 1
    assert torch[0].endswith("--index-url https://download.pytorch.org/whl/cpu")


def test_a_failing_step_is_named_and_the_other_demos_go_on(bench: Bench) -> None:
    bench.python()
    result = bench("run", FAKE_SAFE_DEMO="3")
    assert result.returncode == 1
    assert "FAILED with exit code 3" in result.stdout
    assert "this step of run failed: Demo 1, defence: load it safely" in result.stderr
    assert "- Demo 1, attack" in result.stdout
    assert "- Demo 1, defence" not in result.stdout.split("What was shown:")[1]
    assert "- Demo 2, defence" in result.stdout
    assert "every step" not in result.stdout


def test_a_missing_image_is_a_failure(bench: Bench) -> None:
    bench.python()
    bench.script("demo-poisoning/gold_demo.sh", "")
    result = bench("run", "2")
    assert result.returncode == 1
    assert "scan_results/poisoned/trigger_0_to_1.png was not made" in result.stderr


def test_a_scan_that_is_not_live_is_told_but_is_no_failure(bench: Bench) -> None:
    bench.python()
    result = bench("run", "3", FAKE_SCAN="2")
    assert result.returncode == 0, result.stderr
    assert "NO live scan" in result.stdout
    assert "recorded summary" in result.stdout
    assert "scanned just now" not in result.stdout
    assert "hardening compared" not in result.stdout
    assert "scanned just now" in bench("run", "3").stdout
    assert bench("run", "3", FAKE_SCAN="1").returncode == 1


def test_with_an_engine_the_steps_run_in_locked_up_containers(bench: Bench) -> None:
    bench.docker()
    result = bench("run", WORKSHOP_BUILD_ARGS="--build-arg TORCH_INDEX=")
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert result.stdout.startswith("Way: Docker")
    assert "image pickle-demo: 123 MB, built in" in said
    assert "image poisoning-demo: 123 MB, built in" in said
    log = bench.logged().splitlines()
    assert not [line for line in log if line.startswith("python")]
    builds = [line for line in log if line.startswith("docker build -t pickle-demo ")]
    assert len(builds) == 1 and "--build-arg TORCH_INDEX= " in builds[0]
    starts = [line for line in log if line.startswith("docker run")]
    assert len(starts) == 2  # demo 3's scripts start their own
    for start in starts:
        for flag in (
            "--network none",
            "--read-only",
            "--tmpfs /tmp",
            "--cap-drop ALL",
            "--security-opt no-new-privileges",
        ):
            assert flag in start
    typed = [line.split("container-1 ")[1] for line in log if line.startswith("docker exec")]
    assert typed[1] == "python create_malicious_model.py attack"
    assert typed[-2:] == ["./workshop_demo.sh", "./gold_demo.sh"]
    assert "script demo-malicious/run_sandboxed.sh" in log
    assert log.count("docker rm --force --volumes container-1") == 2
    assert (bench.home / "results/docker/demo-poisoning/scan_results/clean/trigger_0_to_1.png").is_file()
    assert (bench.home / "results/docker/demo-poisoning/report.html").is_file()


def test_a_second_docker_run_builds_nothing_until_a_file_changes(bench: Bench) -> None:
    bench.docker()
    bench("run", "1")
    assert "docker build -t" in bench.logged()
    again = bench("run", "1")
    assert "built earlier from the same files" in again.stdout
    assert "Download: nothing." in again.stdout
    assert "docker build -t" not in bench.logged()
    (bench.home / "demo-malicious/safe_demo.py").write_text("print()\n")
    bench("run", "1")
    assert "docker build -t" in bench.logged()


def test_an_image_of_demo_3_that_cannot_be_built_is_no_failure(bench: Bench) -> None:
    bench.docker()
    result = bench("run", "3", FAKE_BUILD="1", FAKE_SCAN="2")
    assert result.returncode == 0, result.stderr
    assert "image grype-demo: not built" in result.stdout
    assert "NO live scan" in result.stdout


def test_demo_3_without_its_image_takes_python_for_the_defence(bench: Bench) -> None:
    bench.docker()
    bench.python()
    bench.script("demo-supply-chain/gold_demo.sh", "command -v python")
    result = bench("run", "3", FAKE_BUILD="1", FAKE_SCAN="2")
    assert result.returncode == 0, result.stderr
    assert f"{bench.home}/.venv/bin/python" in result.stdout
    assert "Demo 3, defence: a bill of materials" in result.stdout


def test_demo_3_says_what_could_not_be_shown(bench: Bench) -> None:
    bench.docker()
    bench.script("demo-supply-chain/gold_demo.sh", "exit 2")
    result = bench("run", "3", FAKE_BUILD="1", FAKE_SCAN="2")
    assert result.returncode == 0, result.stderr
    assert "Demo 3, defence: NOT shown" in result.stdout
    assert bench("run", "3").returncode == 1  # with its image, there is no excuse


def test_an_inspection_that_finds_nothing_is_a_failure(bench: Bench) -> None:
    bench.python()
    result = bench("run", "1", FAKE_INSPECT="0")
    assert result.returncode == 1
    assert "read the file without loading it" in result.stderr
    assert "Demo 1, defence" not in result.stdout.split("What was shown:")[1]


def test_an_interrupted_run_stops_and_removes_its_container(bench: Bench) -> None:
    bench.docker()
    bench.executable(bench.bin / "docker", FAKE_DOCKER.replace("exec)", "exec) sleep 60 ;;\n    never)"))
    run = subprocess.Popen(
        [str(bench.home / "workshop.sh"), "run", "1"],
        env=bench.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(300):
        if "docker exec" in bench.log.read_text():
            break
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGTERM)  # SIGINT would be ignored under nohup
    said, _ = run.communicate(timeout=30)
    assert run.returncode == 130
    assert said.rstrip().splitlines()[-1].startswith("Stopped. Run the same command again")
    assert "docker rm --force --volumes container-1" in bench.logged()


def test_an_image_of_demo_1_that_cannot_be_built_is_a_failure(bench: Bench) -> None:
    bench.docker()
    result = bench("run", "1", FAKE_BUILD="1")
    assert result.returncode == 1
    assert "this step of run failed: Build the image pickle-demo" in result.stderr
    assert "docker run" not in bench.logged()


def test_the_container_is_removed_after_a_failing_step(bench: Bench) -> None:
    bench.docker()
    result = bench("run", "1", FAKE_SAFE_DEMO="1")
    assert result.returncode == 1
    assert "docker rm --force --volumes container-1" in bench.logged()


def test_plain_reaches_the_demos(bench: Bench) -> None:
    bench.docker()
    bench("run", "1", "--plain")
    assert "--env NO_COLOR=1 container-1" in bench.logged()


def test_test_runs_every_checker_and_names_those_that_failed(bench: Bench) -> None:
    bench.python()
    for tool in ("ruff", "mypy", "shellcheck", "hadolint"):
        bench.executable(
            bench.bin / tool, f'#!/bin/sh\necho "{tool} $*" >>"$LOG"\nexit ${{FAIL_{tool}:-0}}\n'
        )
    (bench.home / "demo-malicious/cli.py").touch()
    result = bench("test", "-k", "nothing", FAIL_ruff="1", FAIL_hadolint="1")
    assert result.returncode == 1
    for name in ("ruff: mistakes", "ruff: layout", "hadolint: Dockerfiles"):
        assert f"this step of test failed: {name}" in result.stderr
    assert len(result.stderr.splitlines()) == 3
    log = bench.logged()
    for call in (
        "ruff check .",
        "ruff format --check .",
        "mypy ",
        "shellcheck ",
        "python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder -k nothing",
    ):
        assert call in log
    assert bench("test").returncode == 0


def test_install_makes_venv_and_checks_nothing(bench: Bench) -> None:
    bench.python()
    result = bench("test", "--install")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(f"{bench.home}/.venv is ready.\n")
    log = bench.logged()
    assert f"-r {bench.home}/requirements-dev.txt" in log
    assert "-m pytest" not in log
    assert bench("test", "--install", FAKE_PIP="1").returncode == 0  # it is there: nothing to install
    (bench.home / "requirements-dev.txt").write_text("pytest==2\n")
    assert bench("test", "--install", FAKE_PIP="1").returncode == 1


def check(bench: Bench, root: Path, function: str) -> Result:
    """Call one of test.sh's checkers, with the real tools, in the bench."""
    shutil.copy(root / "pyproject.toml", bench.home)
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", f". scripts/say.sh; . scripts/test.sh; {function}"],
        check=False,
        cwd=bench.home,
        env=bench.environment(PATH=tools),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_types_are_checked_in_the_folders_of_a_demo_too(bench: Bench, root: Path) -> None:
    shutil.rmtree(bench.home / "demo-malicious/exercises")
    for demo in ("demo-malicious", "demo-poisoning"):  # the same names in two demos do not disturb each other
        (bench.home / demo / "scanner/deep").mkdir(parents=True)
        (bench.home / demo / "scanner/search.py").write_text("def norm() -> float:\n    return 1.0\n")
        (bench.home / demo / "scan.py").write_text("from scanner import search\n\nsearch.norm()\n")
        (bench.home / demo / "scanner/deep/alone.py").write_text("import scanner.search\n")
    good = check(bench, root, "check_types")
    assert good.returncode == 0, good.stdout
    assert good.stdout.count("no issues found in 3 source files") == 2
    (bench.home / "demo-poisoning/scanner/deep/alone.py").write_text(
        "from scanner import search\n\nsearch.nrm()\n"
    )
    (bench.home / "demo-malicious/scan.py").write_text(
        "from scanner import search\n\nx: str = search.norm()\n"
    )
    bad = check(bench, root, "check_types")
    assert bad.returncode == 1
    assert 'alone.py:3: error: Module has no attribute "nrm"' in bad.stdout
    assert "scan.py:3: error: Incompatible types" in bad.stdout


def test_scripts_are_checked_in_the_folders_of_a_demo_too(bench: Bench, root: Path) -> None:
    assert check(bench, root, "check_scripts").returncode == 0
    (bench.home / "demo-poisoning/tools").mkdir()
    (bench.home / "demo-poisoning/tools/x.sh").write_text("#!/bin/bash\necho $1\n")
    bad = check(bench, root, "check_scripts")
    assert bad.returncode == 1
    assert "demo-poisoning/tools/x.sh line 2" in bad.stdout


@pytest.mark.parametrize(
    ("engine", "said", "code"),
    [
        (True, "Container tests: 12 ran, 0 skipped.", 0),
        (True, "Container tests: 11 ran, 1 skipped.", 1),
        (True, "Container tests: 0 ran, 0 skipped.", 1),
        (True, "the tests could not start", 1),
        (False, "Container tests: 0 ran, 12 skipped.", 0),
    ],
)
def test_continuous_integration_insists_on_container_tests_where_an_engine_is(
    bench: Bench, root: Path, engine: bool, said: str, code: int
) -> None:
    bench.script("workshop.sh", f'echo "$*, required: ${{WORKSHOP_REQUIRE_DOCKER:-no}}"; echo "{said}"')
    if engine:
        bench.docker()
    result = continuous_integration(bench, root)
    assert result.returncode == code, result.stdout + result.stderr
    assert f"test, required: {'1' if engine else 'no'}" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last == (said if said.startswith("Container") else "Container tests: not reached.")


def continuous_integration(bench: Bench, root: Path, **env: str) -> Result:
    """Run .ci/run in the bench, whose workshop.sh is a fake by now."""
    (bench.home / ".ci").mkdir(exist_ok=True)
    shutil.copy(root / ".ci/run", bench.home / ".ci/run")
    return subprocess.run(
        [str(bench.home / ".ci/run")],
        check=False,
        cwd=bench.log.parent,
        env=bench.environment(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


SHOW_SETTINGS = """echo "starter: ${WORKSHOP_ENGINE_STARTER-unset}"
echo "data: ${WORKSHOP_TEST_DATA-unset}"
echo "engine: ${STARTED_BY-unset}" """


def engine_starter(bench: Bench, folder: Path) -> Path:
    """A folder with tools/docker-here.sh, which claims to start an engine, and data/."""
    (folder / "tools").mkdir(parents=True)
    (folder / "data").mkdir()
    starter = folder / "tools/docker-here.sh"
    bench.executable(starter, '#!/bin/sh\n[ "$1" = start ] && echo "export STARTED_BY=$0"\n')
    return starter


def test_continuous_integration_takes_a_starter_and_data_from_beside_the_checkout(
    bench: Bench, root: Path
) -> None:
    bench.script("workshop.sh", SHOW_SETTINGS)
    said = continuous_integration(bench, root).stdout
    assert "starter: unset\ndata: unset\nengine: unset\n" in said
    beside = engine_starter(bench, bench.home.parent / "lent")
    found = {line.split(": ")[0]: line.split(": ")[1] for line in settings(bench, root)}
    assert Path(found["starter"]).resolve() == Path(found["engine"]).resolve() == beside
    assert Path(found["data"]).resolve() == beside.parent.parent / "data"


def test_continuous_integration_prefers_the_variables_to_what_lies_beside(bench: Bench, root: Path) -> None:
    bench.script("workshop.sh", SHOW_SETTINGS)
    engine_starter(bench, bench.home.parent / "lent")
    mine = engine_starter(bench, bench.home.parent / "deeper/mine")
    said = settings(bench, root, WORKSHOP_ENGINE_STARTER=str(mine), WORKSHOP_TEST_DATA="elsewhere")
    assert said == [f"starter: {mine}", "data: elsewhere", f"engine: {mine}"]
    said = settings(bench, root, WORKSHOP_ENGINE_STARTER="", WORKSHOP_TEST_DATA="")
    assert said == ["starter: ", "data: ", "engine: unset"]


def settings(bench: Bench, root: Path, **env: str) -> list[str]:
    lines = continuous_integration(bench, root, **env).stdout.splitlines()
    return [line for line in lines if line.startswith(("starter: ", "data: ", "engine: "))]


def test_continuous_integration_installs_while_the_engine_starts(bench: Bench, root: Path) -> None:
    bench.script("workshop.sh", f'echo "$*" >>"{bench.home}/typed"')
    starter = engine_starter(bench, bench.home.parent / "lent")
    seen = f'until grep -q install "{bench.home}/typed"; do sleep 0.05; done'  # would wait for ever otherwise
    bench.executable(starter, f"#!/bin/sh\n{seen}\n")
    result = continuous_integration(bench, root)
    assert result.returncode == 0, result.stderr
    assert (bench.home / "typed").read_text() == "test --install\ntest\n"


def test_an_engine_that_does_not_start_stops_continuous_integration(bench: Bench, root: Path) -> None:
    bench.script("workshop.sh", SHOW_SETTINGS)
    broken = bench.home.parent / "broken"
    bench.executable(broken, "#!/bin/sh\nexit 3\n")
    result = continuous_integration(bench, root, WORKSHOP_ENGINE_STARTER=str(broken))
    assert result.returncode == 1
    assert result.stderr == "error: the Docker engine did not start.\n"
    assert result.stdout == ""
