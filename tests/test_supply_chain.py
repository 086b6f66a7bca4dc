"""Demo 3 without a container: scan, compare, recorded scans, ML-BOM. Grype is a stand-in (stand_in.py)."""

# ruff: noqa: F811, F401 (fixtures are imported, and then named as arguments)

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import pty
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(Path(__file__).resolve().parent))
from scan_helpers import DEMO, Result, errors, row, typed  # noqa: E402, I001
import check_mlbom  # noqa: E402
import compare  # noqa: E402
import console  # noqa: E402
import make_mlbom  # noqa: E402
import scan  # noqa: E402
import stand_in  # noqa: E402
from mlbom import models  # noqa: E402
from reports import failures, grype_report, table  # noqa: E402

TOOLS = (
    "bash",
    "env",
    "dirname",
    "basename",
    "cat",
    "find",
    "mv",
    "cp",
    "rm",
    "mkdir",
    "mktemp",
    "chmod",
    "sort",
    "sed",
)


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A copy of the demo folder alone: results land here, and nothing outside it is needed."""
    kept = shutil.ignore_patterns("results", "__pycache__", ".mypy_cache", ".ruff_cache")
    return Path(shutil.copytree(ROOT / "demo-supply-chain", tmp_path / "demo-supply-chain", ignore=kept))


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for PATH with Python and a few tools, but neither Grype nor Docker."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    (folder / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / "python3").chmod(0o755)
    return folder


@pytest.fixture
def grype(tools: Path) -> Callable[[dict[str, dict[str, Any]]], Path]:
    """Put a stand-in for Grype on that PATH, with these answers."""
    return lambda answers: stand_in.write(tools / "grype", sys.executable, answers)


@pytest.fixture
def shell(demo: Path, tools: Path) -> Callable[..., Result]:
    """shell("./scan.sh", "--plain") types a command in the demo's folder."""

    def run(*command: object, cwd: Path = demo, **env: str) -> Result:
        return subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env={"PATH": str(tools), "HOME": str(demo.parent), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.fixture
def scanned(
    typed: Callable[..., Result], tools: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """scanned("python:3.11") is what ./scan.sh does where Grype and Python are here, in tmp_path."""
    monkeypatch.setenv("PATH", str(tools))
    return lambda *args: typed(scan, "--results", "results", *args)


# --- scan ---


def test_scan_compares_the_three_images(
    shell: Callable[..., Result], grype: Callable[..., Path], demo: Path
) -> None:
    grype(stand_in.THREE)
    result = shell("./scan.sh")
    assert result.returncode == 0, result.stderr
    assert not errors(result)
    debian = row(result, "python:3.11")
    assert [debian[name] for name in grype_report.SEVERITIES] == ["1", "0", "1", "0", "1", "1"]
    assert (debian["all"], debian["fixable"], debian["packages"]) == ("4", "2", "7 (deb 7)")
    assert (debian["packages with findings"], debian["built on"]) == ("3", "debian 12")
    assert debian["database"] == "2001-02-03T04:05:06Z"
    hardened = row(result, "cgr.dev/chainguard/python:latest")
    assert (hardened["High"], hardened["Unknown"], hardened["fixable"]) == ("1", "1", "0")
    assert hardened["database"] == "2001-02-03T04:05:06Z"
    assert debian["scanned"] == f"sha256:{'1' * 64}"
    for words in ("Scanning 1 of 3: python:3.11\n", "Scanning 3 of 3: cgr.dev/chainguard/python:latest\n"):
        assert words in result.stderr
    (command,) = [
        line for line in result.stderr.splitlines() if line.startswith("$ grype registry:python:3.11 ")
    ]
    assert [word.partition("=")[0] for word in shlex.split(command)[3:]] == [
        "-o",
        "json",
        "-o",
        "cyclonedx-json",
    ]
    made = sorted(path.name for path in (demo / "results").glob("*.json"))
    assert made == sorted(
        name + end
        for name in ("python_3.11", "python_3.11-alpine", "cgr.dev_chainguard_python_latest")
        for end in (".json", ".cdx.json")
    )


def test_scan_takes_other_names_and_another_folder(
    shell: Callable[..., Result], grype: Callable[..., Path], demo: Path, tmp_path: Path
) -> None:
    grype(
        {
            "registry.io/team/app:1": stand_in.answer(stand_in.ALPINE),
            "docker:mine:1": stand_in.THREE["python:3.11"],
        }
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = (demo / "scan.sh", "registry.io/team/app:1", "docker:mine:1", "--results", "out")
    result = shell(*command, cwd=elsewhere)  # called from another folder
    assert result.returncode == 0, result.stderr
    assert row(result, "registry.io/team/app:1")["Low"] == "1"
    assert (elsewhere / "out" / grype_report.report_name("registry.io/team/app:1")).exists()
    assert (elsewhere / "out" / grype_report.report_name("docker:mine:1")).exists()
    assert not (demo / "results").exists()


def test_scan_on_a_terminal_lays_out_columns(demo: Path, tools: Path, grype: Callable[..., Path]) -> None:
    grype(stand_in.THREE)

    def terminal(**env: str) -> str:
        reader, writer = pty.openpty()
        process = subprocess.Popen(
            ["./scan.sh"], cwd=demo, env={"PATH": str(tools), **env}, stdout=writer, stderr=subprocess.DEVNULL
        )
        os.close(writer)
        text = b""
        try:
            while block := os.read(reader, 65536):
                text += block
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(reader)
        assert process.wait() == 0
        return text.decode().replace("\r\n", "\n")

    lines = terminal().splitlines()
    (critical,) = [line for line in lines if line.startswith("Critical ")]
    assert critical.split() == ["Critical", "1", "0", "0"]
    head = next(line for line in lines if line.startswith("image "))
    assert [critical[head.index(name)] for name in ("python:3.11 ", "python:3.11-alpine", "cgr.dev")] == [
        *"100"
    ]
    assert "\x1b" not in "".join(lines)
    assert "; Critical: 1; High: 0; Medium: 1; " in terminal(NO_COLOR="1")


def test_one_image_out_of_reach_is_said_in_its_row(
    shell: Callable[..., Result], grype: Callable[..., Path], demo: Path
) -> None:
    grype({name: value for name, value in stand_in.THREE.items() if name != "python:3.11-alpine"})
    result = shell("./scan.sh")
    assert result.returncode == 2
    assert row(result, "python:3.11")["Critical"] == "1"
    assert row(result, "python:3.11-alpine")["Critical"] == "not scanned"
    why = "could not find registry:python:3.11-alpine: try again, or a newer Grype"
    assert f"- python:3.11-alpine: not scanned: {why}\n" in result.stdout
    assert errors(result) == ["error: 1 of 3 images not scanned (python:3.11-alpine): try again."]
    assert not list((demo / "results").glob("*alpine*"))


@pytest.mark.parametrize(
    "broken",
    [
        {"json": '{"matches": [', "cyclonedx-json": "{}"},
        {"json": '{"matches": 3, "source": {"target": {}}, "descriptor": {}}', "cyclonedx-json": "{}"},
        {"json": "[]", "cyclonedx-json": "{}"},
        {"json": json.dumps(stand_in.BEFORE), "cyclonedx-json": '{"components": [1]}'},
        {"json": "\x00", "cyclonedx-json": "{}"},
        {},  # says that all is well and writes nothing
    ],
)
def test_a_malformed_report_is_no_result(
    broken: dict[str, str], scanned: Callable[..., Result], grype: Callable[..., Path], tmp_path: Path
) -> None:
    grype({**stand_in.THREE, "python:3.11": broken})
    result = scanned()
    assert result.returncode == 2
    assert "- python:3.11: not scanned: Grype's report cannot be read: try again\n" in result.stdout
    assert len(errors(result)) == 1
    assert not list((tmp_path / "results").glob("python_3.11.*"))
    assert row(result, "python:3.11-alpine")["Low"] == "1"


def test_no_network_shows_the_recorded_scans(
    scanned: Callable[..., Result], grype: Callable[..., Path]
) -> None:
    grype({})
    result = scanned()
    assert result.returncode == 2
    (error,) = errors(result)
    assert error.startswith(
        "error: No live scan: could not find registry:python:3.11: try again, or a newer Grype;"
    )
    assert result.stdout.startswith("RECORDED, not measured now.\n")
    assert "Vulnerabilities, each counted once" not in result.stdout


def test_no_database_stops_at_once(scanned: Callable[..., Result], grype: Callable[..., Path]) -> None:
    failing = {"error": "[0002] ERROR failed to load vulnerability db: database does not exist", "code": 1}
    grype(dict.fromkeys(stand_in.THREE, failing))  # whichever comes first
    result = scanned()
    assert result.returncode == 2
    assert "failed to load vulnerability db: database does not exist" in errors(result)[0]
    assert result.stderr.count("$ grype ") == 1
    assert result.stdout.startswith("RECORDED")


def test_other_images_are_not_answered_with_the_recorded_ones(
    scanned: Callable[..., Result], grype: Callable[..., Path]
) -> None:
    grype({})
    result = scanned("nosuch/image:1")
    assert (result.returncode, result.stdout) == (2, "")
    (error,) = errors(result)
    assert "could not find registry:nosuch/image:1" in error
    assert "--recorded" in error


def test_without_grype_and_docker(shell: Callable[..., Result], tools: Path) -> None:
    result = shell("./scan.sh")
    assert result.returncode == 2
    assert errors(result) == [
        "error: No live scan: neither Grype nor a Docker engine is here; here are recorded scans instead."
    ]
    assert result.stdout.startswith("RECORDED")
    (tools / "python3").unlink()  # and without Python
    without_python = shell("./scan.sh")
    assert (without_python.returncode, without_python.stdout) == (2, result.stdout)
    assert errors(without_python) == errors(result)


def test_a_launcher_without_a_python_behind_it_is_passed_over(
    shell: Callable[..., Result], tools: Path, grype: Callable[..., Path]
) -> None:
    grype(stand_in.THREE)
    (tools / "python3").rename(tools / "python")
    (tools / "python3").write_text("#!/bin/sh\nexit 127\n")
    (tools / "python3").chmod(0o755)
    assert shell("./scan.sh").returncode == 0


def test_recorded_scans_are_marked_dated_and_sourced(shell: Callable[..., Result], demo: Path) -> None:
    result = shell("./scan.sh", "--recorded")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("RECORDED, not measured now.\n")
    recorded = json.loads((demo / "recorded" / "scans.json").read_text())
    assert recorded["scans"]
    for number, one in enumerate(recorded["scans"], 1):
        assert time.strptime(one["date"], "%Y-%m-%d")
        assert f"Scan {number}: {one['image']}, by {one['scanner']} on {one['date']}\n" in result.stdout
        assert one["source"].startswith("https://")
        assert f"  source: {one['source']}\n" in result.stdout
        counts = [one[name] for name in grype_report.SEVERITIES if name in one]
        if len(counts) == len(grype_report.SEVERITIES) and one["counted"].startswith("matches"):
            assert sum(counts) == one["matches"]
    assert "not recorded" in result.stdout  # holes stay holes
    assert (demo / "recorded" / "summary.txt").read_text() == result.stdout  # for machines without Python


@pytest.mark.parametrize("name", ["two words", "-rm", "", "a;b", "$(id)", "../x"])
def test_what_is_no_image_name_is_refused(
    name: str, scanned: Callable[..., Result], grype: Callable[..., Path], tmp_path: Path
) -> None:
    grype(stand_in.THREE)
    result = scanned("python:3.11", "--", name)
    assert (result.returncode, result.stdout) == (2, "")
    assert len(errors(result)) == 1
    assert repr(name) in result.stderr
    assert "Scanning" not in result.stderr
    assert not (tmp_path / "results").exists()


def test_an_unwritable_results_folder_is_refused(
    shell: Callable[..., Result], grype: Callable[..., Path], demo: Path
) -> None:
    grype(stand_in.THREE)
    (demo / "results").write_text("in the way")
    result = shell("./scan.sh")
    assert (result.returncode, result.stdout) == (2, "")
    (error,) = errors(result)
    assert f"{demo}/results" in error
    assert "Scanning" not in result.stderr
    assert (demo / "results").read_text() == "in the way"


def test_wrong_options_and_lists_are_refused(
    shell: Callable[..., Result], grype: Callable[..., Path], demo: Path
) -> None:
    grype(stand_in.THREE)
    assert shell("./scan.sh", "--fail-on", "terrible").returncode == 2
    (demo / "images.txt").write_text("# nothing but a remark\n")
    result = shell("./scan.sh")
    assert result.returncode == 2
    assert "images.txt names no image" in errors(result)[0]


def test_fail_on_ends_with_1(scanned: Callable[..., Result], grype: Callable[..., Path]) -> None:
    grype(stand_in.THREE)
    result = scanned("--fail-on", "high")
    assert result.returncode == 1
    assert "2 of 3 images have a vulnerability of severity high or above." in result.stdout
    assert scanned("python:3.11-alpine", "--fail-on", "medium").returncode == 0


def test_grype_settings_reach_grype(shell: Callable[..., Result], grype: Callable[..., Path]) -> None:
    names = ["GRYPE_DB_AUTO_UPDATE", "GRYPE_CHECK_FOR_APP_UPDATE"]
    grype({"x": {"environment": names, "code": 1}, "y": {"environment": names[:1], "code": 1}})
    assert "GRYPE_CHECK_FOR_APP_UPDATE=false" in shell("./scan.sh", "x").stderr
    assert (
        "GRYPE_CHECK_FOR_APP_UPDATE=true" in shell("./scan.sh", "x", GRYPE_CHECK_FOR_APP_UPDATE="true").stderr
    )
    assert "GRYPE_DB_AUTO_UPDATE=unset" in shell("./scan.sh", "y").stderr
    assert "GRYPE_DB_AUTO_UPDATE=false" in shell("./scan.sh", "y", GRYPE_DB_AUTO_UPDATE="false").stderr


def test_grypes_own_fail_on_is_not_an_error(
    scanned: Callable[..., Result], grype: Callable[..., Path]
) -> None:
    grype({"x": stand_in.answer(stand_in.BEFORE, code=2), "y": {"code": 2, "error": "usage"}})
    assert scanned("x").returncode == 0  # 2 with a report: the user's own threshold was reached
    assert scanned("y").returncode == 2


def test_a_scan_that_hangs_is_ended(
    scanned: Callable[..., Result], grype: Callable[..., Path], tmp_path: Path
) -> None:
    grype({"x": stand_in.answer(stand_in.BEFORE, seconds=60)})
    started = time.monotonic()
    result = scanned("x", "--timeout", "1")
    assert time.monotonic() - started < 30
    assert result.returncode == 2
    assert "no answer within 1 seconds" in errors(result)[0]
    assert not list((tmp_path / "results").iterdir())


def test_stopping_leaves_nothing_half_written(demo: Path, tools: Path, grype: Callable[..., Path]) -> None:
    grype({"x": stand_in.answer(stand_in.BEFORE, seconds=60)})
    process = subprocess.Popen(
        ["./scan.sh", "x"], cwd=demo, env={"PATH": str(tools)}, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 30
    while not list(demo.glob("results/.unfinished.*/x*.json")):
        assert time.monotonic() < until, "the scan never began"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert process.stderr is not None
    process.stderr.close()
    assert not list((demo / "results").iterdir())


@pytest.mark.parametrize(
    ("name", "counts", "distro", "built"),
    [
        (
            "chainguard-ruby-test",
            (3, {"CVE-2023-28755": "High"}, 2),
            "wolfi 20221118",
            "2023-05-17T01:32:43Z",
        ),
        ("ghsa-test", (2, {"CVE-2014-3577": "Medium"}, 1), "alpine 3.14.2", "2023-08-31T01:24:19Z"),
        ("keycloak-test", (6, {"CVE-2020-12413": "Low"}, 6), "redhat 9.1", "2023-09-01T01:26:55Z"),
    ],
)
def test_real_reports_are_counted(
    outside_data: Callable[[str], Path], name: str, counts: tuple[Any, ...], distro: str, built: str
) -> None:
    scan = grype_report.read_scan(outside_data("grype-json") / f"{name}.json")
    packages = {(match.package, match.version) for match in scan.matches}
    severities = {name: finding.severity for name, finding in scan.findings.items()}
    assert (len(scan.matches), severities, len(packages)) == counts
    assert (scan.distro, scan.database, scan.packages) == (distro, built, None)
    assert "@sha256:" in scan.index
    assert scan.digest.startswith("sha256:")


# --- what a reader must not be misled about ---


def written(folder: Path, **reports: dict[str, Any]) -> list[str]:
    """Write reports; gives the names of their files."""
    for name, document in reports.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return [f"{name}.json" for name in reports]


def with_packages(folder: Path, name: str, *packages: tuple[str, str]) -> None:
    """The SBOM beside a report."""
    components = [
        {"type": "library", "name": one, "version": version, "purl": f"pkg:deb/debian/{one}@{version}"}
        for one, version in packages
    ]
    (folder / f"{name}.cdx.json").write_text(json.dumps({"bomFormat": "CycloneDX", "components": components}))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"type": "directory", "target": "/srv/app"}, "directory /srv/app"),
        ({"type": "file", "target": "/srv/requirements.txt"}, "file /srv/requirements.txt"),
        ({"type": "sbom", "target": "list.json"}, "sbom list.json"),
        ({"type": "unknown", "target": "unknown"}, "unknown unknown"),
        ({"type": "something-new", "target": {"name": "x"}}, "something-new not recorded"),
        (None, "not recorded not recorded"),
    ],
)
def test_whatever_was_scanned_can_be_compared(
    source: Any, words: str, typed: Callable[..., Result], tmp_path: Path
) -> None:
    (name,) = written(tmp_path, a=stand_in.report("x:1", stand_in.match("CVE-1", "Low", "p"), source=source))
    result = typed(compare, name, name)
    assert result.returncode == 0, result.stderr
    assert f"; scanned: {words}; " in result.stdout
    assert "Still there: 1\n" in result.stdout


def test_reports_from_a_windows_shell_are_read(typed: Callable[..., Result], tmp_path: Path) -> None:
    text = json.dumps(stand_in.report("x:1", stand_in.match("CVE-1", "Low", "p")))
    for number, encoding in enumerate(("utf-16", "utf-8-sig")):
        (tmp_path / f"{number}.json").write_bytes(text.encode(encoding))
    assert "Still there: 1\n" in typed(compare, "0.json", "1.json").stdout


def test_old_names_of_one_vulnerability_are_one(typed: Callable[..., Result], tmp_path: Path) -> None:
    known = stand_in.match("GHSA-1111-2222-3333", "High", "lib", cve="CVE-2020-1")
    bare = stand_in.match("GHSA-1111-2222-3333", "High", "lib")
    cve = stand_in.match("CVE-2020-1", "High", "lib")
    two = {**bare, "relatedVulnerabilities": [{"id": "CVE-2020-1"}, {"id": "CVE-2020-2"}]}
    names = written(
        tmp_path,
        known=stand_in.report("x", known),
        bare=stand_in.report("x", bare),
        cve=stand_in.report("x", cve),
    )
    for before, after in (
        (names[0], names[1]),
        (names[1], names[0]),
        (names[0], names[2]),
        (names[2], names[0]),
    ):
        result = typed(compare, before, after)
        assert "Still there: 1\n  CVE-2020-1 (High)" in result.stdout and "New: 0" in result.stdout
    assert "New: 1" in typed(compare, names[1], names[2]).stdout  # nobody says that these two are one
    written(tmp_path, two=stand_in.report("x", two))
    result = typed(compare, "known.json", "two.json")  # an advisory for two CVEs is neither of them
    assert "  GHSA-1111-2222-3333 (High)" in result.stdout


def test_why_a_vulnerability_is_no_longer_listed(typed: Callable[..., Result], tmp_path: Path) -> None:
    ignored = {
        **stand_in.match("CVE-3", "High", "hushed"),
        "appliedIgnoreRules": [{"namespace": "", "reason": "we do not use it", "vulnerability": "CVE-3"}],
    }
    names = ("left", "newer", "hushed", "same", "kept")
    before = [stand_in.match(f"CVE-{number}", "High", name) for number, name in enumerate(names, 1)]
    written(
        tmp_path,
        before=stand_in.report("x:1", *before),
        after=stand_in.report("x:2", before[4], ignoredMatches=[ignored], digit="2"),
    )
    with_packages(tmp_path, "before", *((name, "1.0") for name in names))
    with_packages(tmp_path, "after", ("newer", "1.1"), ("hushed", "1.0"), ("same", "1.0"), ("kept", "1.0"))
    assert typed(compare, "before.json", "after.json").stdout.splitlines()[3:] == [
        "Gone, the package is no longer there: 1",
        "  CVE-1 (High): left 1.0 (deb)",
        "Fixed, the package is newer: 1",
        "  CVE-2 (High): newer 1.0 to 1.1",
        "Suppressed, not fixed: 1",
        "  CVE-3 (High): hushed 1.0 (deb): rule: we do not use it",
        "No longer reported, although the package is the same: 1",
        "  CVE-4 (High): same 1.0 (deb)",
        "Still there: 1",
        "  CVE-5 (High): kept 1.0 (deb)",
        "New: 0",
    ]


def test_what_is_not_like_for_like_is_said_first(typed: Callable[..., Result], tmp_path: Path) -> None:
    one = stand_in.report("x:1")
    image = {**one["source"]["target"], "architecture": "arm64", "os": "linux"}
    later = {"built": "2001-02-09T00:00:00Z"}
    descriptor = {
        "name": "grype",
        "version": "0.0.1",
        "db": {"status": later},
        "timestamp": "2001-02-10T00:00:00Z",
    }
    other = stand_in.report("x:1", source={"type": "image", "target": image}, descriptor=descriptor)
    eol = [{"package": {}, "alerts": [{"type": "distro-eol", "message": "no more data"}]}]
    other |= {"distro": {"name": "alpine", "version": "3"}, "alertsByPackage": eol * 2}
    written(tmp_path, one=one, other=other)
    lines = typed(compare, "one.json", "other.json").stdout.splitlines()
    assert [line for line in lines if line.startswith("Not like for like: ")] == lines[:6]
    for number, words in enumerate(
        ("databases", "versions", "days", "platforms", "distributions", "after may be")
    ):
        assert words in lines[number]
    assert "no more data (packages: 2)" in lines[5]
    assert not typed(compare, "one.json", "one.json").stdout.startswith("Not")


def test_known_exploited_is_above_every_severity(
    scanned: Callable[..., Result], grype: Callable[..., Path]
) -> None:
    known = stand_in.match("CVE-1", "Negligible", "p")
    known["vulnerability"]["knownExploited"] = [{"cve": "CVE-1"}]
    related = stand_in.match("GHSA-1", "Low", "q", cve="CVE-2")  # known by its CVE's record
    related["relatedVulnerabilities"][0]["knownExploited"] = [{"cve": "CVE-2"}]
    harmless = stand_in.match("CVE-3", "Low", "q")
    grype(
        {
            "a:1": stand_in.answer(stand_in.report("a:1", known)),
            "b:1": stand_in.answer(stand_in.report("b:1", related)),
            "c:1": stand_in.answer(stand_in.report("c:1", harmless)),
        }
    )
    for level in ("known-exploited", "critical", "high"):
        for image, code in (("a:1", 1), ("b:1", 1), ("c:1", 0)):
            assert scanned(image, "--fail-on", level).returncode == code, (image, level)
    assert "a:1: CVE-1 (Negligible) is known to be exploited.\n" in scanned("a:1", "--fail-on", "high").stdout


def test_many_ignored_ones_are_one_note(scanned: Callable[..., Result], grype: Callable[..., Path]) -> None:
    rule = {"package": {"name": "linux(-.*)?-headers-.*", "upstream-name": "linux.*"}, "vulnerability": ""}
    ignored = [
        {**stand_in.match(f"CVE-{number}", "High", "linux-libc-dev"), "appliedIgnoreRules": [rule]}
        for number in range(300)
    ]
    grype({"x:1": stand_in.answer(stand_in.report("x:1", ignoredMatches=ignored))})
    result = scanned("x:1")
    assert row(result, "x:1")["ignored"] == "300"
    notes = [line for line in result.stdout.splitlines() if line.startswith("- x:1: ignored")]
    assert len(notes) == 1 and notes[0].endswith(" and 297 more")


def test_an_unknown_distribution_is_a_warning(
    scanned: Callable[..., Result], grype: Callable[..., Path]
) -> None:
    grype(
        {"x:1": stand_in.answer(stand_in.report("x:1", distro={"name": "", "version": "", "idLike": None}))}
    )
    assert "- x:1: warning: no known distribution" in scanned("x:1").stdout


def test_two_images_never_share_a_report() -> None:
    alike = [
        "a/b:1",
        "a_b:1",
        "a:b_1",
        "a/b_1",
        "A/b:1",
        "a/B:1",
        "a@b:1",
        "a:b:1",
        "a/b",
        "a/b:1.",
        "dir:a/b",
    ]
    long = ["registry.example/" + "x" * 300 + tail for tail in ("/a:1", "/b:1")]
    names = {grype_report.report_name(name).casefold() for name in [*alike, *long]}
    assert len(names) == len(alike) + len(long)
    assert all(len(name) < 200 for name in names)
    assert (
        grype_report.report_name("cgr.dev/chainguard/python:latest")
        == "cgr.dev_chainguard_python_latest.json"
    )


@pytest.mark.parametrize(
    ("typed_name", "source"),
    [
        ("python:3.11", "registry:python:3.11"),
        ("docker:24", "registry:docker:24"),
        ("docker:dind", "registry:docker:dind"),
        ("registry:2", "registry:registry:2"),
        ("docker:mine:1", "docker:mine:1"),
        ("docker:team/app", "docker:team/app"),
        ("registry:localhost:5000/x:1", "registry:localhost:5000/x:1"),
        ("docker", "registry:docker"),
        ("dir:/x", "dir:/x"),
        ("sbom:x.json", "sbom:x.json"),
        ("sbomtool:1", "registry:sbomtool:1"),
    ],
)
def test_a_name_says_where_the_image_is(typed_name: str, source: str) -> None:
    assert scan.source_of(typed_name) == source


# --- Grype's errors ---


NO_NETWORK = (
    '[0008] ERROR Get "https://r/v2/": dial tcp: lookup r on 10.0.0.1:53: '
    "dial udp 10.0.0.1:53: connect: network is unreachable"
)


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        ("", 137, "Grype was killed by the system"),
        ("", -9, "Grype was killed by the system"),
        ("", -11, "Grype was ended by SIGSEGV"),
        ("", 139, "Grype was ended by SIGSEGV"),
        ("", 1, "Grype ended with 1 and gave no reason"),
        ("\x1b[31m\n \n", 1, "Grype ended with 1 and gave no reason"),
        (
            "[0009] ERROR write /tmp/x: no space left on device",
            1,
            "the disk is full (no space left on device)",
        ),
        (
            "[0003] ERROR GET https://r/v2/x: UNAUTHORIZED: authentication required; [map[Type:repository]]",
            1,
            "the registry refuses access (UNAUTHORIZED: authentication required; [map[Type:repository]])",
        ),
        (
            "[0001] ERROR x: DENIED: requested access to the resource is denied",
            1,
            "the registry refuses access (DENIED",
        ),
        ("[0001] ERROR y: MANIFEST_UNKNOWN: manifest unknown", 1, "the registry has no such image or tag"),
        (
            '[0001] ERROR Get "https://r/": dial tcp: lookup r: no such host',
            1,
            "the registry cannot be reached",
        ),
        (NO_NETWORK, 1, "this machine has no network (dial udp 10.0.0.1:53: connect: network is unreachable"),
        (
            '[0001] ERROR Get "https://r/": net/http: TLS handshake timeout',
            1,
            "the transfer, or the file, was cut off",
        ),
        (
            "[0001] ERROR unexpected status code 502 Bad Gateway: <html>",
            1,
            "the registry has trouble of its own",
        ),
        (
            "[0001] ERROR x509: certificate signed by unknown authority",
            1,
            "the registry's certificate is not trusted",
        ),
        (
            "[0000] ERROR 2 errors occurred:\n\t* failed to load vulnerability db: database does not exist\n"
            "\t* failed to catalog: GET http://r/v2/none/manifests/1: NAME_UNKNOWN: Unknown name\n",
            1,
            "there is no vulnerability database (failed to load vulnerability db: database does not exist",
        ),
        (
            "[0000] ERROR the vulnerability database was built 6 days ago (max allowed age is 5 days)",
            1,
            "the vulnerab",
        ),
        (
            "[0000] ERROR failed to create VEX processor: unable to create VEX processor: "
            'unsupported VEX document format for "x.json"',
            1,
            "Grype cannot use the VEX document (unable to create VEX processor: unsupported VEX document",
        ),
        (
            "[0001] ERROR failed to load vulnerability db: database disk image is malformed",
            1,
            "the vulnerability database is damaged (disk image is malformed",
        ),
        (
            "[0001] ERROR failed to load vulnerability db: unable to unarchive: disk quota exceeded",
            1,
            "the disk is full (disk quota exceeded)",
        ),
        ("fatal error: runtime: out of memory\n\nruntime stack:\nruntime.throw()", 2, "memory ran out"),
        (
            "[0001] ERROR could not fetch image: pull failed: pull access denied for 5428, repository",
            1,
            "the registry refuses access (pull access denied for 5428",
        ),
        (
            '[0001] ERROR Get "https://r/v2/": http: server gave HTTP response to HTTPS client',
            1,
            "the registry speaks plain HTTP",
        ),
        (
            "[0001] ERROR x509: certificate has expired or is not yet valid: current time 2026-01-01",
            1,
            "the registry's certificate is not valid today",
        ),
        (
            '[0001] ERROR error getting credentials - err: exec: "docker-credential-desktop": not found',
            1,
            "the program that keeps Docker's passwords is missing",
        ),
        (
            "[0001] ERROR failed to catalog: unable to decode sbom: sbom format not recognized",
            1,
            "it is not a package list that Grype knows",
        ),
        (
            "[0001] ERROR unexpected media type for sha256:1ab9: application/vnd.oci.image.index.v1+json",
            1,
            "it is not one container image",
        ),
        (
            "[0007] ERROR unable to inspect existing image: Cannot connect to the Docker daemon at unix:///x",
            1,
            "Docker or Podman does not answer",
        ),
        (
            "[0006] ERROR 2 errors:\n - docker: docker not available\n - oci-registry: MANIFEST_UNKNOWN",
            1,
            "the registry has no such image or tag",
        ),
        (
            "[0010] ERROR unable to save image tar: stream error: stream ID 1",
            1,
            "the transfer, or the file, was cut off",
        ),
        ("1 error occurred:\n\t* cycle during symlink resolution", 1, "cycle during symlink resolution"),
        ("[0000]  WARN no such host\n[0001] ERROR something of its own", 1, "something of its own"),
        ("panic: runtime error\n\ngoroutine 1 [running]:\nmain.main()", 2, "panic: runtime error"),
        ("[0001] ERROR " + "long: " * 200 + "the reason", 1, "... long: "),
    ],
)
def test_why_grype_gave_up(said: str, code: int, reason: str) -> None:
    failure = failures.explain(said, code)
    assert failure.reason.startswith(reason)
    assert len(failure.reason) < 500 and "\n" not in failure.reason and "\x1b" not in failure.reason
    if said.endswith("the reason"):
        assert failure.reason.endswith("long: the reason")


def test_without_network_nothing_is_tried_again(
    scanned: Callable[..., Result], grype: Callable[..., Path]
) -> None:
    """Grype takes seconds to give up; what lies on this machine is scanned all the same."""
    good = stand_in.answer(stand_in.report("x:1"))
    away = [{"error": NO_NETWORK, "code": 1}, good]
    grype({"x:1": away, "y:1": away})
    result = scanned("x:1", "y:1")
    assert result.returncode == 2
    assert result.stderr.count("$ grype ") == 2
    assert "error: No live scan: this machine has no network" in result.stderr
    grype({"z:1": away, "dir:.": good})
    result = scanned("z:1", "dir:.")
    assert result.returncode == 2
    assert "error: 1 of 2 images not scanned (z:1)" in result.stderr
    away_by_ipv6 = failures.explain(NO_NETWORK.replace("10.0.0.1", "[2001:db8::1]"), 1)
    assert away_by_ipv6.passing and away_by_ipv6.reason.startswith("the registry cannot be reached")


def test_a_network_that_fails_once_is_tried_again(
    scanned: Callable[..., Result], grype: Callable[..., Path]
) -> None:
    broken = {"error": "[0001] ERROR read: connection reset by peer", "code": 1}
    good = stand_in.answer(stand_in.report("x:1"))
    grype(
        {
            "x:1": [broken, good],
            "y:1": [broken, broken, good],
            "z:1": [{"error": "[0] ERROR odd", "code": 1}, good],
        }
    )
    result = scanned("x:1")
    assert result.returncode == 0 and "Scanning 1 of 1: x:1, try 2\n" in result.stderr
    assert scanned("y:1").returncode == 2  # twice is enough
    assert scanned("y:1", "--retries", "3").returncode == 0
    assert scanned("z:1").returncode == 2  # nothing says that it would pass


def test_killed_grype_leaves_the_others_alone(
    scanned: Callable[..., Result], grype: Callable[..., Path]
) -> None:
    grype({"x:1": {"signal": 9}, "y:1": stand_in.answer(stand_in.report("y:1"))})
    result = scanned("x:1", "y:1")
    assert result.returncode == 2
    assert "- x:1: not scanned: Grype was killed by the system: most likely memory ran out" in result.stdout
    assert row(result, "y:1")["all"] == "0"


@pytest.mark.parametrize(
    "arguments", [("--jobs", "0"), ("--retries", "-1"), ("--timeout", "0"), ("--vex", "nosuch")]
)
def test_impossible_options_are_refused(
    arguments: tuple[str, str], scanned: Callable[..., Result], grype: Callable[..., Path]
) -> None:
    grype(stand_in.THREE)
    result = scanned(*arguments)
    assert (result.returncode, result.stdout, len(errors(result))) == (2, "", 1)


def test_a_cell_is_no_formula_and_no_markup() -> None:
    rows = (["image"], [["=cmd()|x"]])
    assert table.as_csv(rows) == "image\n'=cmd()|x\n"
    assert "=cmd()\\|x" in table.as_markdown(rows, [])


def test_names_that_are_no_text_and_too_long(
    scanned: Callable[..., Result], typed: Callable[..., Result], grype: Callable[..., Path], tmp_path: Path
) -> None:
    odd = os.fsdecode(b"caf\xe9")
    grype({"x:1": stand_in.answer(stand_in.report("x:1"))})
    result = scanned("x:1", "--results", odd)
    assert (result.returncode, errors(result)) == (0, []), result.stderr
    assert list((tmp_path / odd).glob("x_1.json"))
    assert "this table are in caf" in result.stdout
    for name in (odd + "-none.json", "x" * 300 + ".json"):
        refused = typed(compare, name, name)
        assert (refused.returncode, len(errors(refused))) == (2, 1)


def test_a_full_disk_is_said_in_one_sentence(
    scanned: Callable[..., Result],
    grype: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    grype({"x:1": stand_in.answer(stand_in.report("x:1"))})
    monkeypatch.setattr(Path, "write_text", full)
    result = scanned("x:1")
    assert (result.returncode, len(errors(result))) == (2, 1)
    assert "No space left on device" in errors(result)[0]
    assert not list((tmp_path / "results").glob("comparison.*"))
    monkeypatch.setattr(Path, "replace", full)
    result = scanned("x:1")
    assert (result.returncode, result.stdout) == (2, "")
    assert "a file cannot be written (No space left on device)" in errors(result)[0]


# --- compare ---


def test_compare_names_what_disappeared(
    scanned: Callable[..., Result], grype: Callable[..., Path], typed: Callable[..., Result], tmp_path: Path
) -> None:
    grype(stand_in.THREE)
    assert scanned().returncode == 0
    results = tmp_path / "results"
    result = typed(
        compare,
        results / "python_3.11.json",
        results / "cgr.dev_chainguard_python_latest.json",
    )
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[:3] == [
        "Not like for like: different versions of the scanner: Grype 0.0.0 and Grype of unknown version.",
        "Not like for like: different distributions, and each judges for itself: debian and wolfi.",
        "Before and after (2 rows)",
    ]
    assert lines[5:] == [
        "Gone, the package is no longer there: 3",
        "  CVE-2001-0001 (Critical): one 1.0 (deb), two 1.0 (deb)",
        "  CVE-2001-0002 (Medium): pip 1.0 (deb)",
        "  CVE-2001-0004 (Unknown): one 1.0 (deb)",
        "Fixed, the package is newer: 0",
        "Still there: 1",
        "  CVE-2001-0003 (Unknown): one 1.0 (deb)",
        "New: 1",
        "  CVE-2001-0009 (High): new 1.0 (deb)",
    ]
    assert (
        row(result, "cgr.dev/chainguard/python:latest")["published as"]
        == f"cgr.dev/chainguard/python@sha256:{'3' * 64}"
    )


def test_compare_shortens_long_lists(typed: Callable[..., Result], tmp_path: Path) -> None:
    many = [stand_in.match(f"CVE-2001-{number:04}", "Low", "x") for number in range(25)]
    (tmp_path / "a.json").write_text(json.dumps(stand_in.report("a:1", *many)))
    (tmp_path / "b.json").write_text(json.dumps(stand_in.report("b:1")))
    short = typed(compare, "a.json", "b.json").stdout
    assert "can tell why without the package lists: 25\n" in short
    assert "  and 15 more: --all names them\n" in short
    assert typed(compare, "a.json", "b.json", "--all").stdout.count("(Low)") == 25


@pytest.mark.parametrize(
    "content",
    [None, b"{", b"\xff\xfe", b"[]", b'{"matches": []}', b"[" * 100_000],
    ids=["missing", "cut", "no text", "a list", "no source", "deep"],
)
def test_compare_refuses_what_is_no_report(
    content: bytes | None,
    typed: Callable[..., Result],
    assert_refused: Callable[..., None],
    tmp_path: Path,
) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    assert_refused(typed(compare, "x.json", "x.json"), "x.json", "./scan.sh")


# --- ML-BOM ---


def tensors(*values: float) -> bytes:
    """A whole SafeTensors file with one tensor."""
    data = struct.pack(f"<{len(values)}f", *values)
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, len(data)]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + data


def test_mlbom_lists_models_with_their_hash(typed: Callable[..., Result], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    weights = {"a": torch.zeros(2, 3), "b": torch.ones(4)}
    torch.save(weights, tmp_path / "model.pt")
    safetensors.save_file(weights, tmp_path / "model.safetensors")
    result = typed(make_mlbom, "model.pt", "model.safetensors")
    assert (result.returncode, result.stderr) == (0, "")
    made = json.loads((tmp_path / "mlbom.cdx.json").read_text())
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    listed = {item["name"]: item for item in made["components"]}
    assert set(listed) == {"model.pt", "model.safetensors"}
    for name, item in listed.items():
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert item["type"] == "machine-learning-model"
        assert item["hashes"] == [{"alg": "SHA-256", "content": digest}]
        assert digest in result.stdout
    facts = {item["name"]: item["value"] for item in listed["model.safetensors"]["properties"]}
    assert (facts["workshop:tensors"], facts["workshop:parameters"]) == ("2", "10")
    assert "pickle" in json.dumps(listed["model.pt"])


def test_mlbom_goes_to_standard_output(typed: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(tensors(1.0))
    result = typed(make_mlbom, "m.safetensors", "--output", "-")
    assert json.loads(result.stdout)["components"][0]["name"] == "m.safetensors"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors"]


class Payload:
    """A pickle of this makes a folder when it is loaded."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("pwned",)


def test_mlbom_never_loads_a_pickle(
    typed: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.pt").write_bytes(pickle.dumps(Payload()))
    result = typed(make_mlbom, "bad.pt")
    assert result.returncode == 0
    assert "pickle, which can run code" in result.stdout
    assert not (tmp_path / "pwned").exists()
    monkeypatch.chdir(tmp_path)
    pickle.loads((tmp_path / "bad.pt").read_bytes())
    assert (tmp_path / "pwned").exists()  # the payload itself works


DAMAGED = {
    "text.pt": b"not a model\n",
    "random.pt": bytes(range(1, 200)),
    "empty.pt": b"",
    "cut.pt": b"PK\x03\x04 the rest of the archive is missing",
    "empty.safetensors": b"",
    "random.safetensors": bytes(range(200)),
    "cut.safetensors": tensors(1.0, 2.0)[:-3],
    "long.safetensors": tensors(1.0, 2.0) + b"extra",
    "list.safetensors": struct.pack("<Q", 2) + b"[]",
    "shapeless.safetensors": struct.pack("<Q", 8) + b'{"w": 1}',
    "nojson.safetensors": struct.pack("<Q", 2) + b"{{",
    "deep.safetensors": struct.pack("<Q", 100_000) + b"[" * 100_000,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_model_is_recognised(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(console.UserError, match=name):
        models.read_model(tmp_path / name)


@pytest.mark.parametrize("name", ["missing.safetensors", "text.pt", "cut.safetensors"])
def test_mlbom_refuses_damaged_files(
    name: str, typed: Callable[..., Result], assert_refused: Callable[..., None], tmp_path: Path
) -> None:
    if name in DAMAGED:
        (tmp_path / name).write_bytes(DAMAGED[name])
    (tmp_path / "good.safetensors").write_bytes(tensors(1.0))
    assert_refused(typed(make_mlbom, "good.safetensors", name), name)
    assert not list(tmp_path.glob("*.json"))


def test_mlbom_refuses_bad_places(
    typed: Callable[..., Result], assert_refused: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "m.safetensors").write_bytes(tensors(1.0))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "m.safetensors").write_bytes(tensors(2.0))
    assert_refused(typed(make_mlbom, tmp_path / "sub"), "sub")
    assert_refused(typed(make_mlbom, "m.safetensors", "sub/m.safetensors"), "m.safetensors is named twice")
    assert_refused(typed(make_mlbom, "m.safetensors", "--output", "sub"), "sub is a folder")
    assert_refused(typed(make_mlbom, "m.safetensors", "--output", "m.safetensors/x.json"), "m.safetensors")
    assert not list(tmp_path.glob("**/*.json"))


UNSIGNED = "Nobody has vouched for the list itself: --key checks who signed it.\n"


def test_check_notices_changed_and_missing_models(typed: Callable[..., Result], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(tensors(1.0, 2.0))
    assert typed(make_mlbom, "a.safetensors", "b.safetensors").returncode == 0
    result = typed(check_mlbom, "mlbom.cdx.json")
    assert (result.returncode, result.stdout) == (
        0,
        f"a.safetensors: unchanged\nb.safetensors: unchanged\n{UNSIGNED}",
    )
    (tmp_path / "a.safetensors").write_bytes(tensors(1.0, 2.1))
    (tmp_path / "b.safetensors").unlink()
    result = typed(check_mlbom, "mlbom.cdx.json")
    assert (result.returncode, result.stdout) == (
        1,
        f"a.safetensors: CHANGED\nb.safetensors: MISSING\n{UNSIGNED}",
    )


@pytest.mark.parametrize(
    "content",
    [None, "{", "{}", '{"bomFormat": "CycloneDX", "specVersion": "1.6"}'],
    ids=["missing", "cut", "another format", "no models"],
)
def test_check_refuses_what_is_no_list(
    content: str | None,
    typed: Callable[..., Result],
    assert_refused: Callable[..., None],
    tmp_path: Path,
) -> None:
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    assert_refused(typed(check_mlbom, "x.json"), "x.json")


def test_only_the_list_needs_a_library(demo: Path, grype: Callable[..., Path], tools: Path) -> None:
    grype(stand_in.THREE)

    def bare(*command: str) -> Result:  # -S: without anything that was installed
        return subprocess.run(
            [sys.executable, "-S", *command],
            cwd=demo,
            env={"PATH": str(tools)},
            capture_output=True,
            text=True,
            check=False,
        )

    assert bare("scan.py").returncode == 0
    refused = bare("make_mlbom.py", "x.pt")
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "error: the Python module cryptography is not installed: "
    ) or refused.stderr.startswith("error: the Python module cyclonedx is not installed: ")
    assert refused.stderr.endswith(": pip install -r requirements.txt does it.\n")


# --- the paths as documented ---


def test_silver_and_gold_path(shell: Callable[..., Result], grype: Callable[..., Path], demo: Path) -> None:
    grype(stand_in.THREE)
    assert shell("./scan.sh").returncode == 0
    gold = shell("./gold_demo.sh", PYTHON=sys.executable)
    assert gold.returncode == 0, gold.stderr
    assert (
        "Gone, the package is no longer there: 3\n  CVE-2001-0001 (Critical): one 1.0 (deb), two 1.0 (deb)\n"
        in gold.stdout
    )
    assert "example.safetensors: CHANGED\n" in gold.stdout
    assert "The list noticed the change." in gold.stdout
    listed = json.loads((demo / "results" / "mlbom.cdx.json").read_text())["components"]
    assert [item["name"] for item in listed] == ["example.safetensors"]
    assert not list((demo / "results").glob(".*"))


def test_gold_path_without_scan_and_with_other_models(shell: Callable[..., Result], demo: Path) -> None:
    (demo.parent / "mine").mkdir()
    for name in ("a", "b"):
        (demo.parent / "mine" / f"{name}.safetensors").write_bytes(tensors(1.0, 2.0))
    gold = shell("./gold_demo.sh", "--models", "../mine", PYTHON=sys.executable)
    assert gold.returncode == 0, gold.stderr
    assert "There is no live scan yet" in gold.stdout
    assert "a.safetensors: CHANGED\nb.safetensors: unchanged\n" in gold.stdout
    assert (demo.parent / "mine" / "a.safetensors").read_bytes() == tensors(1.0, 2.0)


def test_gold_path_refuses_bad_input(shell: Callable[..., Result], demo: Path) -> None:
    (demo.parent / "empty").mkdir()
    for arguments, words in (
        (["--models", "nowhere"], "nowhere is not a folder"),
        (["--models", "../empty"], "../empty holds no .safetensors or .pt file"),
        (["--wrong"], "--wrong is not known"),
    ):
        result = shell("./gold_demo.sh", *arguments, PYTHON=sys.executable)
        assert (result.returncode, result.stdout) == (2, "")
        assert words in errors(result)[0]
    (demo.parent / "empty" / "x.safetensors").write_bytes(b"nothing")
    result = shell("./gold_demo.sh", "--models", "../empty", PYTHON=sys.executable)
    assert result.returncode == 2
    assert "x.safetensors is not a valid SafeTensors file" in errors(result)[0]


def test_help_says_how_to_use_them(shell: Callable[..., Result], tools: Path) -> None:
    for _ in ("with Python", "without"):
        for script in ("./scan.sh", "./gold_demo.sh"):
            result = shell(script, "--help")
            assert result.returncode == 0
            assert "Exit codes" in result.stdout
        (tools / "python3").unlink(missing_ok=True)
    assert shell("./scan.sh", "--recorded").stdout.startswith("RECORDED")
