"""The files for those who carry on: their tools can read them, and they agree with what is here."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.append(str(Path(__file__).resolve().parent))
from workshop_bench import Bench

ROOT = Path(__file__).resolve().parent.parent
FORMS = sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml"))
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def tracked() -> Iterator[Path]:
    """The text files that git tracks."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=False, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listing.stdout.split("\0")):
        if (ROOT / name).is_file() and Path(name).suffix not in (".png", ".jpg", ".safetensors"):
            yield ROOT / name


def test_the_version_is_the_same_everywhere() -> None:
    (newest, day), *older = re.findall(
        r"^## (\d+\.\d+\.\d+), (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE
    )
    citation = load("CITATION.cff")
    assert citation["version"] == newest
    assert citation["date-released"] == date.fromisoformat(day)
    versions = [newest, *(version for version, _ in older)]
    assert versions == sorted(
        versions, key=lambda name: [int(part) for part in name.split(".")], reverse=True
    )


def test_the_citation_says_what_the_format_asks_for() -> None:
    citation = load("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def editorconfig() -> configparser.ConfigParser:
    settings = configparser.ConfigParser(interpolation=None)
    settings.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    return settings


def test_the_editor_is_told_what_the_checkers_enforce() -> None:
    settings = editorconfig()
    assert settings["top"]["root"] == "true"
    ruff = re.search(r"^line-length = (\d+)", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert ruff and settings["*.py"]["max_line_length"] == ruff.group(1)
    assert settings["*"]["end_of_line"] == "lf"
    assert "eol=lf" in (ROOT / ".gitattributes").read_text()


def test_files_are_as_the_editor_is_told() -> None:
    for path in tracked():
        content = path.read_bytes()
        content.decode(editorconfig()["*"]["charset"])
        assert b"\r" not in content, path
        assert not content or content.endswith(b"\n"), f"{path}: no line end at the end"
        assert not re.search(rb"[ \t]\n", content), f"{path}: white space at the end of a line"


def test_the_hooks_are_the_checkers_of_workshop_sh(bench: Bench) -> None:
    """Each hook asks a tool the same as `./workshop.sh test` does; together they ask everything."""
    bench.python()
    (bench.home / "demo-malicious/cli.py").touch()
    tools = bench.home / ".venv/bin"
    bench("test")  # makes .venv, with nothing in it
    for name in ("ruff", "mypy", "shellcheck", "hadolint"):
        bench.executable(tools / name, f'#!/bin/sh\necho "{name} $*" >>"$LOG"\n')
    bench.logged()
    said = bench("test")
    assert said.returncode == 0, said.stdout + said.stderr
    asked = {line for line in bench.logged().splitlines() if not line.startswith("python")}
    (repo,) = load(".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"
    for hook in repo["hooks"]:
        subprocess.run(
            shlex.split(hook["entry"]), cwd=bench.home, env=bench.environment(), check=True, timeout=60
        )
        assert not hook["pass_filenames"]
        assert f'step "{hook["name"]}"' in (ROOT / "scripts/test.sh").read_text()
    assert set(bench.logged().splitlines()) == asked
    assert len(repo["hooks"]) == (ROOT / "scripts/test.sh").read_text().count('    step "') - 1  # pytest


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(ROOT, tmp_path)


def test_a_checker_that_is_unknown_is_refused(bench: Bench) -> None:
    result = subprocess.run(
        ["scripts/checker.sh", "rm"], cwd=bench.home, check=False, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: scripts/checker.sh takes ")


def test_updates_are_proposed_for_every_folder_with_pins() -> None:
    covered: dict[str, set[str]] = {}
    for update in load(".github/dependabot.yml")["updates"]:
        folders = update.get("directories") or [update["directory"]]
        covered[update["package-ecosystem"]] = {folder.strip("/") for folder in folders}
        assert update["schedule"]["interval"] == "weekly"
        assert list(update["groups"].values()) == [{"patterns": ["*"]}]
    names = {path.relative_to(ROOT) for path in tracked()}
    assert covered == {
        "pip": {
            str(path.parent) if path.parent != Path() else ""
            for path in names
            if re.fullmatch(r"requirements.*\.in", path.name)
        },
        "docker": {str(path.parent) for path in names if path.name.endswith("Dockerfile")},
        "github-actions": {""},
    }


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.name)
def test_the_forms_for_issues_can_be_shown(form: Path) -> None:
    content = load(str(form))
    if form.name == "config.yml":
        assert content == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} == set(content)
    asked = [part for part in content["body"] if part["type"] != "markdown"]
    assert asked
    assert len({part["id"] for part in asked}) == len(asked)
    assert all(part["attributes"]["label"] for part in asked)
    for name in re.findall(r"\b[A-Z]+\.md\b", form.read_text()):
        assert (ROOT / name).is_file()
    for command in re.findall(r"\./workshop\.sh (\w+)", form.read_text()):
        assert f"        {command})" in (ROOT / "workshop.sh").read_text()


PUSH = {"contents": "read", "packages": "write"}
MAY_WRITE = {  # the only jobs that may
    "site.yml": {"publish": {"pages": "write", "id-token": "write"}},
    "release.yml": {"build": PUSH, "publish": PUSH | {"id-token": "write"}},
}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_what_is_there_and_pin_what_is_not(workflow: Path) -> None:
    content = load(str(workflow))
    assert content["permissions"] == {"contents": "read"}
    steps = [step for job in content["jobs"].values() for step in job["steps"]]
    for step in steps:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step.get("uses", "x@" + 40 * "0")), step
        if "run" in step:
            words = shlex.split(step["run"])
            assert (ROOT / words[words[0] == "python"]).is_file(), step
    assert all("timeout-minutes" in job for job in content["jobs"].values())
    more = {name: job["permissions"] for name, job in content["jobs"].items() if "permissions" in job}
    assert more == MAY_WRITE.get(workflow.name, {})
    if workflow.name == "site.yml":  # only on request
        assert all("workflow_dispatch" in content["jobs"][name]["if"] for name in more)
    elif more:  # only for a tag
        assert content[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true


def test_continuous_integration_runs_weekly_and_where_contributing_says() -> None:
    content = load(".github/workflows/ci.yml")
    assert [entry["cron"].split()[-1] for entry in content[True]["schedule"]] == [
        "1"
    ]  # YAML reads `on` as true
    jobs = content["jobs"]
    assert jobs["all"]["strategy"]["matrix"]["os"] == ["ubuntu-latest", "ubuntu-24.04-arm"]
    assert [step["run"] for step in jobs["all"]["steps"] if "run" in step] == [".ci/run"]
    native = {
        (one["os"].split("-")[0], one["python"]) for one in jobs["native"]["strategy"]["matrix"]["include"]
    }
    assert {("ubuntu", "3.10"), ("ubuntu", "3.14")} < native
    assert any(name == "macos" for name, _ in native)
    (command,) = (step["run"] for step in jobs["native"]["steps"] if "run" in step)
    page = (ROOT / "CONTRIBUTING.md").read_text()
    for words in (".ci/run", command, "every Monday", "ARM64", "3.10 and 3.14", "macOS on Apple Silicon"):
        assert words in page


def test_the_dev_container_can_run_all_demos() -> None:
    machine = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    minor = re.search(r"python:3\.(\d+)", machine["image"])
    assert minor and 10 <= int(minor.group(1)) <= 14  # without Docker
    assert any("/docker-in-docker:" in feature for feature in machine["features"])  # with Docker
    text = (ROOT / "workshop.sh").read_text()
    needed = {name: int(size) for name, size in re.findall(r"^(GB_\w+)=(\d+)", text, flags=re.MULTILINE)}
    size = {name: int(machine["hostRequirements"][name].removesuffix("gb")) for name in ("memory", "storage")}
    assert size["memory"] >= needed["GB_MEMORY_DOCKER"]
    assert size["storage"] >= needed["GB_DISK_CUDA"]
    assert machine["postCreateCommand"] == "./workshop.sh test --install"
    script, command = machine["postAttachCommand"].split()
    assert (ROOT / script).is_file() and f"        {command})" in text
    (port,) = machine["forwardPorts"]
    assert f"default={port}" in (ROOT / "demo-malicious/serve.py").read_text()
