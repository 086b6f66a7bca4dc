"""Demo 3's scan on real Grype and Syft: a registry on loopback, a small real database (real_grype.py)."""

# ruff: noqa: F811, F401 (fixtures are imported, and then named as arguments)

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
from scan_helpers import DEMO, Result, errors, row, typed  # noqa: I001
from real_grype import SMALL, Grype, build_database, real, run
import compare
import scan
from reports.grype_report import SEVERITIES, report_name

# counted by hand from grype_db/records and the packages of real_grype.OLD
OLD_FINDINGS = {
    "CVE-2025-32434": "Critical",
    "CVE-2026-24747": "High",
    "CVE-2025-47273": "High",
    "CVE-2023-4863": "High",
    "CVE-2023-4911": "High",
    "CVE-2024-2961": "High",
    "CVE-2025-8869": "Medium",
    "CVE-2025-9230": "Medium",
    "CVE-2019-1010022": "Negligible",
}


@pytest.fixture
def scanned(
    real: Grype, typed: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Result]:
    """scanned("python:3.11") scans an image of our registry; other names stay as they are."""
    monkeypatch.setenv("PATH", f"{real.tools}:/usr/bin:/bin")
    for name, value in real.settings().items():
        monkeypatch.setenv(name, value)

    def run_scan(*args: object) -> Result:
        names = [real.name(str(arg)) if str(arg) in KNOWN else arg for arg in args]
        return typed(scan, "--results", "results", *names)

    return run_scan


KNOWN = ("python:3.11", "python:3.11-slim", "python:3.11-alpine", "debian:10", "both:1", "nosuch:1")


def without_syft(real: Grype, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH with Grype alone."""
    (folder / "bin").mkdir()
    (folder / "bin" / "grype").symlink_to(real.tools / "grype")
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")


def test_the_table_agrees_with_a_count_by_hand(
    scanned: Callable[..., Result], real: Grype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = scanned("python:3.11", "python:3.11-slim", "python:3.11-alpine", "debian:10")
    assert (result.returncode, errors(result)) == (0, []), result.stderr
    old = row(result, real.name("python:3.11"))
    assert [old[name] for name in SEVERITIES] == ["1", "5", "2", "0", "1", "0"]
    assert (old["all"], old["fixable"], old["known exploited"]) == ("9", "8", "2")
    assert (old["highest EPSS"], old["ignored"]) == ("0.750 CVE-2023-4911", "0")
    assert (old["built on"], old["platform"], old["Python"]) == ("debian 12", "linux/amd64", "3.11.9")
    assert old["packages"] == "10 (deb 5, pypi 4, generic 1)"
    assert old["packages with findings"] == "7"  # libc6 and libc-bin, libssl3, four of Python
    assert old["scanned"] == real.crane("digest", real.name("python:3.11"))
    slim = row(result, real.name("python:3.11-slim"))
    assert (slim["all"], slim["Negligible"], slim["fixable"]) == ("1", "1", "0")
    alpine = row(result, real.name("python:3.11-alpine"))
    assert (alpine["all"], alpine["Medium"], alpine["Low"], alpine["built on"]) == (
        "2",
        "1",
        "1",
        "alpine 3.22.0",
    )
    assert (
        f"- {real.name('debian:10')}: warning: Package is from end-of-life distro: debian 10" in result.stdout
    )
    assert "$ syft scan registry:" in result.stderr
    made = json.loads((tmp_path / "results" / report_name(real.name("python:3.11"))).read_text())
    names = {one["id"] for m in made["matches"] for one in (m["vulnerability"], *m["relatedVulnerabilities"])}
    assert {name for name in names if name.startswith("CVE-")} == set(OLD_FINDINGS)

    without_syft(real, tmp_path, monkeypatch)  # Grype alone comes to the same figures
    alone = row(scanned("python:3.11"), real.name("python:3.11"))
    assert alone == old
    kept = sorted(path.name for path in (tmp_path / "results").glob("*python_3.11+*"))
    assert [name.split(".", 2)[2].split("+")[0] for name in kept] == ["cdx.json", "json"] or len(kept) == 2


def test_files_with_the_table(scanned: Callable[..., Result], real: Grype, tmp_path: Path) -> None:
    assert scanned("python:3.11", "debian:10").returncode == 0
    text = (tmp_path / "results" / "comparison.csv").read_text()
    assert text.startswith("image,scanned,platform,") and text.count("\n") == 3
    assert f"| image | {real.name('python:3.11')} |" in (tmp_path / "results" / "comparison.md").read_text()
    chart = (tmp_path / "results" / "comparison.svg").read_text()
    words = f"{real.name('python:3.11')}: 1 Critical, 5 High, 2 Medium, 1 Negligible, 9 in all."
    assert words in chart and 'role="img"' in chart
    assert f"{real.name('debian:10')}: nothing found" in chart


def test_the_difference_tells_gone_from_fixed(
    scanned: Callable[..., Result], typed: Callable[..., Result], real: Grype
) -> None:
    assert scanned("python:3.11", "python:3.11-slim").returncode == 0
    reports = [f"results/{report_name(real.name(name))}" for name in ("python:3.11", "python:3.11-slim")]
    result = typed(scan, "--diff", *reports)
    assert result.returncode == 0
    assert result.stdout.splitlines()[3:] == [
        "Gone, the package is no longer there: 2",
        "  CVE-2023-4863 (High, known to be exploited): pillow 9.5.0 (pypi)",
        "  CVE-2025-47273 (High): setuptools 65.5.1 (pypi)",
        "Fixed, the package is newer: 6",
        "  CVE-2025-32434 (Critical): torch 2.5.1 to 2.14.0",
        "  CVE-2023-4911 (High, known to be exploited): libc6 2.36-9+deb12u1 to 2.36-9+deb12u13",
        "  CVE-2024-2961 (High): libc6 2.36-9+deb12u1 to 2.36-9+deb12u13",
        "  CVE-2026-24747 (High): torch 2.5.1 to 2.14.0",
        "  CVE-2025-8869 (Medium): pip 24.0 to 25.3",
        "  CVE-2025-9230 (Medium): libssl3 3.0.17-1~deb12u2 to 3.0.17-1~deb12u3",
        "Still there: 1",
        "  CVE-2019-1010022 (Negligible): libc6 2.36-9+deb12u13 (deb)",
        "New: 0",
    ]
    assert typed(compare, *reports).stdout == result.stdout


def test_a_vex_statement_suppresses_and_does_not_fix(
    scanned: Callable[..., Result], typed: Callable[..., Result], real: Grype, tmp_path: Path
) -> None:
    name = real.name("python:3.11")
    assert scanned("python:3.11").returncode == 0
    shutil.copytree(tmp_path / "results", tmp_path / "before")
    result = scanned("python:3.11", "--vex", DEMO / "vex" / "pip.openvex.json")
    assert (row(result, name)["Medium"], row(result, name)["ignored"]) == ("1", "1")
    reason = (
        "VEX: not_affected, vulnerable_code_not_in_execute_path: The faulty code of pip unpacks archives only"
    )
    assert f"- {name}: ignored 1, {reason}" in result.stdout
    difference = typed(compare, f"before/{report_name(name)}", f"results/{report_name(name)}").stdout
    assert f"Suppressed, not fixed: 1\n  CVE-2025-8869 (Medium): pip 24.0 (pypi): {reason}" in difference
    assert "Fixed, the package is newer: 0\n" in difference
    # another image with another pip is not covered by it
    uncovered = scanned("python:3.11-alpine", "--vex", DEMO / "vex" / "pip.openvex.json")
    other = row(uncovered, real.name("python:3.11-alpine"))
    assert (other["Medium"], other["ignored"]) == ("1", "0")
    assert "no statement in pip.openvex.json took anything off the list" in uncovered.stdout


def test_fail_on_and_only_fixed(scanned: Callable[..., Result], real: Grype) -> None:
    assert scanned("python:3.11-slim", "--fail-on", "low").returncode == 0
    assert scanned("python:3.11-slim", "--fail-on", "negligible").returncode == 1
    result = scanned("python:3.11", "python:3.11-alpine", "--fail-on", "known-exploited")
    assert result.returncode == 1
    assert f"{real.name('python:3.11')}: CVE-2023-4911 (High) is known to be exploited.\n" in result.stdout
    assert "1 of 2 images have a vulnerability that is known to be exploited.\n" in result.stdout
    fixed = scanned("python:3.11", "--only-fixed")
    old = row(fixed, real.name("python:3.11"))
    assert (old["all"], old["fixable"], old["ignored"]) == ("8", "8", "1")
    assert "only what has a fix was counted" in fixed.stdout


def test_the_platform_is_chosen_and_named(scanned: Callable[..., Result], real: Grype) -> None:
    name = real.name("both:1")
    intel, arm = (row(scanned("both:1", "--platform", f"linux/{one}"), name) for one in ("amd64", "arm64"))
    assert (intel["platform"], arm["platform"]) == ("linux/amd64", "linux/arm64")
    assert (intel["all"], arm["all"]) == ("9", "2")
    assert arm["scanned"] == real.crane("digest", real.name("both:arm64"))
    assert intel["scanned"] != arm["scanned"]
    result = scanned("both:1", "--platform", "linux/amd64")
    index = real.crane("digest", name)
    assert f"for linux/amd64, one of the images of {name.split(':1')[0]}@{index}" in result.stdout
    none = scanned("both:1", "--platform", "linux/riscv64")
    assert none.returncode == 2
    assert "there is no image for that platform" in errors(none)[0]


def test_folders_files_sboms_and_archives(
    scanned: Callable[..., Result], real: Grype, tmp_path: Path
) -> None:
    for path, text in SMALL.items():
        (tmp_path / "app with space" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "app with space" / path).write_text(text)
    (tmp_path / "requirements.txt").write_text("torch==2.5.1\n")
    real.crane("pull", real.name("python:3.11-alpine"), str(tmp_path / "image.tar"))
    folder = row(scanned("dir:app with space"), "dir:app with space")
    assert (folder["all"], folder["scanned"]) == ("2", "directory app with space")
    locks = row(scanned("file:requirements.txt"), "file:requirements.txt")
    assert (locks["Critical"], locks["High"], locks["packages"]) == ("1", "1", "1 (pypi 1)")
    archive = row(scanned("docker-archive:image.tar"), "docker-archive:image.tar")
    assert (archive["all"], archive["built on"]) == ("2", "alpine 3.22.0")
    (sbom,) = (tmp_path / "results").glob("docker-archive*.syft.json")
    again = row(scanned(f"sbom:{sbom}"), f"sbom:{sbom}")
    assert (again["all"], again["packages"]) == ("2", archive["packages"])


def test_resume_takes_what_is_there(scanned: Callable[..., Result], real: Grype) -> None:
    first = scanned("python:3.11", "nosuch:1")
    assert first.returncode == 2
    again = scanned("python:3.11", "python:3.11-alpine", "--resume")
    assert f"Taken from an earlier run: {real.name('python:3.11')}, scanned " in again.stderr
    assert "Scanning 1 of 1: " in again.stderr
    assert row(again, real.name("python:3.11"))["all"] == "9"
    other = scanned("python:3.11", "--resume", "--only-fixed")  # other options: a new scan
    assert "Taken" not in other.stderr


# --- what goes wrong ---


def test_image_and_registry_out_of_reach(scanned: Callable[..., Result], real: Grype) -> None:
    result = scanned("python:3.11", "nosuch:1", "localhost:1/x:1", "--retries", "1")
    assert result.returncode == 2
    assert row(result, real.name("python:3.11"))["all"] == "9"
    assert (
        f"- {real.name('nosuch:1')}: not scanned: the registry has no such image or tag (NAME_UNKNOWN"
        in result.stdout
    )
    assert (
        "- localhost:1/x:1: not scanned: the registry cannot be reached (connection refused)" in result.stdout
    )
    assert "Scanning 3 of 3: localhost:1/x:1, try 2\n" in result.stderr
    assert len(errors(result)) == 1


def test_no_database_and_an_old_one(
    scanned: Callable[..., Result], real: Grype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRYPE_DB_CACHE_DIR", str(tmp_path / "empty"))
    result = scanned("python:3.11", "python:3.11-alpine", "--jobs", "1")
    assert (result.returncode, result.stdout) == (2, "")
    assert errors(result)[0].startswith("error: No live scan: there is no vulnerability database (")
    assert result.stderr.count("$ grype ") == 1  # no second try: it would fail just so

    old = build_database(real.tools, tmp_path / "database", datetime.now(timezone.utc) - timedelta(days=30))
    monkeypatch.setenv("GRYPE_DB_CACHE_DIR", str(tmp_path / "old"))
    settings = {"GRYPE_DB_CACHE_DIR": str(tmp_path / "old"), "GRYPE_DB_VALIDATE_AGE": "false"}
    run([str(real.tools / "grype"), "db", "import", str(old)], **settings)
    result = scanned("python:3.11")
    assert result.returncode == 2
    assert "the vulnerability database is too old" in errors(result)[0]
    monkeypatch.setenv("GRYPE_DB_VALIDATE_AGE", "false")
    result = scanned("python:3.11")
    assert result.returncode == 0, result.stderr
    assert "warning: the database was 30 days old when it was used\n" in result.stdout


class Registry(BaseHTTPRequestHandler):
    """A registry that answers each repository with one kind of trouble; its name is the HTTP status.

    What has no such name comes from the real registry, but the layers break off in the middle.
    """

    upstream = ""

    def do_GET(self) -> None:
        if self.path.startswith("/v2/python/"):
            self.forward()
            return
        status = next((int(part) for part in self.path.split("/") if part.isdecimal()), 200)
        codes = {401: "UNAUTHORIZED", 403: "DENIED", 404: "MANIFEST_UNKNOWN", 429: "TOOMANYREQUESTS"}
        error = {"code": codes.get(status, "UNKNOWN"), "message": "You have reached the limit " + "x" * 900}
        body = json.dumps({"errors": [error]} if status != 200 else {}).encode()
        if status == 503:
            body = b"<html>Service Unavailable</html>"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def forward(self) -> None:
        """Hand a request on; half of a layer arrives."""
        request = urllib.request.Request(f"http://{self.upstream}{self.path}", method=self.command)
        request.headers.update({"Accept": self.headers.get("Accept", "*/*")})
        for _ in range(20):  # the real one may be busy with another test
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    body = answer.read()
                break
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionRefusedError):
                    raise
            time.sleep(0.2)
        else:
            raise AssertionError(f"the registry at {self.upstream} does not answer")
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        is_layer = body.startswith(b"\x1f\x8b")
        self.wfile.write(body[: len(body) // 2] if is_layer else body)
        self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def troubled(real: Grype) -> Iterator[str]:
    """The address of such a registry."""
    Registry.upstream = real.registry
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"localhost:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "the registry refuses access (UNAUTHORIZED"),
        (403, "the registry refuses access (DENIED"),
        (404, "the registry has no such image or tag (MANIFEST_UNKNOWN"),
        (429, "the registry limits pulls (TOOMANYREQUESTS: You have reached the limit"),
        (503, "the registry has trouble of its own"),
    ],
)
def test_what_a_registry_answers(
    status: int, words: str, troubled: str, scanned: Callable[..., Result]
) -> None:
    result = scanned(f"{troubled}/{status}/app:1", "--retries", "0")
    assert result.returncode == 2
    assert words in errors(result)[0]
    assert len(errors(result)[0]) < 700


def test_a_pull_that_is_cut_off(scanned: Callable[..., Result], troubled: str, tmp_path: Path) -> None:
    result = scanned(f"{troubled}/python:3.11", "--retries", "1")
    assert result.returncode == 2
    assert "the transfer, or the file, was cut off (unexpected EOF)" in errors(result)[0]
    assert not list((tmp_path / "results").iterdir())


# user workshop, password only-for-tests, as `htpasswd -B` writes it
USERS = "workshop:$2y$05$LmP..ZHzWQovSqNAijlEGeTekuZTZx/5IElJZM2Eif9zD/sHuayBW\n"


@pytest.fixture
def private(real: Grype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a registry that asks for a login; it holds private/app:1. Nobody is logged in."""
    program = shutil.which("docker-registry") or shutil.which("registry")
    if not program:
        pytest.skip("there is no docker-registry on this machine (Debian: apt install docker-registry)")
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "users").write_text(USERS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"localhost:{free.getsockname()[1]}"
    (folder / "config.yml").write_text(
        f"version: 0.1\nhttp: {{addr: '{place}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"auth: {{htpasswd: {{realm: workshop, path: {folder}/users}}}}\n"
    )
    log = (folder / "log").open("w")
    process = subprocess.Popen([program, "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        wait_for(place)
        monkeypatch.setenv("DOCKER_CONFIG", str(folder / "docker"))
        real.crane("auth", "login", place, "-u", "workshop", "-p", "only-for-tests")
        real.crane("copy", real.name("python:3.11-alpine"), f"{place}/private/app:1")
        monkeypatch.setenv("DOCKER_CONFIG", str(folder / "nobody"))
        yield place
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(place: str) -> None:
    """Until a server answers there."""
    host, port = place.split(":")
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing answers at {place}")


def test_a_private_registry_asks_who_you_are(
    scanned: Callable[..., Result], private: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = f"{private}/private/app:1"
    nobody = scanned(image, "--retries", "0")
    assert (nobody.returncode, nobody.stdout) == (2, "")
    assert len(errors(nobody)) == 1
    assert "the registry refuses access (UNAUTHORIZED" in errors(nobody)[0]
    assert "docker login" in errors(nobody)[0]

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "private/docker"))  # as `docker login` leaves it
    logged_in = scanned(image, "--retries", "0")
    assert logged_in.returncode == 0, logged_in.stderr
    assert row(logged_in, image)["all"] == "2"
    assert "only-for-tests" not in logged_in.stdout + logged_in.stderr

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "private/nobody"))
    monkeypatch.setenv("GRYPE_REGISTRY_AUTH_AUTHORITY", private)  # Grype's own settings reach Syft, too
    monkeypatch.setenv("GRYPE_REGISTRY_AUTH_USERNAME", "workshop")
    for password, code in (("only-for-tests", 0), ("wrong", 2)):
        monkeypatch.setenv("GRYPE_REGISTRY_AUTH_PASSWORD", password)
        result = scanned(image, "--retries", "0")
        assert result.returncode == code, result.stderr
        assert password not in result.stdout + result.stderr


def test_what_syft_sees_of_a_model(real: Grype, tmp_path: Path) -> None:
    """What docs/supply-chain.md says: one entry a folder, the same for other weights; no .pt file."""
    models = tmp_path / "demo" / "models"
    models.mkdir(parents=True)
    for name in ("clean_model.safetensors", "poisoned_model.safetensors"):
        shutil.copy(DEMO / "hardened" / "model.safetensors", models / name)
    (models / "clean_model.pt").write_bytes(b"PK")

    def syft(folder: Path, *options: str) -> str:
        command = [str(real.tools / "syft"), "scan", f"dir:{folder}", "--select-catalogers", "model"]
        return run([*command, "--quiet", *options])

    shown = syft(tmp_path / "demo")
    documented = (DEMO.parent / "docs/supply-chain.md").read_text()
    assert [line.split() for line in shown.splitlines()] == [
        ["NAME", "VERSION", "TYPE"],
        ["models", "UNKNOWN", "model"],
    ]
    assert "\n".join(line.rstrip() for line in shown.splitlines()) in documented
    assert syft(models) == "No packages discovered" and "\nNo packages discovered\n" in documented
    (models / "clean_model.pt").rename(tmp_path / "moved.pt")
    assert syft(tmp_path / "demo") == shown

    def listed() -> tuple[dict[str, Any], dict[str, Any]]:
        """The entry of the model, and the SHA-256 of the files that are listed beside it."""
        parts = json.loads(syft(tmp_path / "demo", "-o", "cyclonedx-json"))["components"]
        (model,) = (part for part in parts if part["type"] == "machine-learning-model")
        assert "hashes" not in model
        return model, {part["name"]: part["hashes"] for part in parts if part["type"] == "file"}

    model, files = listed()
    assert sorted(files) == ["/models/clean_model.safetensors", "/models/poisoned_model.safetensors"]
    changed = bytearray((models / "poisoned_model.safetensors").read_bytes())
    changed[-1] ^= 1
    (models / "poisoned_model.safetensors").write_bytes(changed)
    assert listed()[0] == model and listed()[1] != files


def test_offline_scans_the_lists_that_are_there(
    scanned: Callable[..., Result], real: Grype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nothing = scanned("--offline")
    assert (nothing.returncode, len(errors(nothing)), nothing.stdout) == (2, 1, "")
    assert "results holds no package list" in errors(nothing)[0]
    assert scanned("python:3.11", "python:3.11-alpine").returncode == 0
    (tmp_path / "results" / "mlbom.cdx.json").write_text("{}")  # a list of models is none of packages
    for _ in range(2):  # the second time as the first: its own reports are no lists
        result = scanned("--offline")
        assert result.returncode == 0, result.stderr
        rows = [line for line in result.stdout.splitlines() if line.startswith("- image: sbom:")]
        assert sorted(line.split("; all: ")[1].split(";")[0] for line in rows) == ["2", "9"]
        assert result.stderr.count("$ grype ") == 2 and "$ syft" not in result.stderr


def test_a_scan_that_looked_at_nothing_is_a_clean_scan(
    scanned: Callable[..., Result], tmp_path: Path
) -> None:
    """Its figures are zero; the number of packages beside them says why."""
    (tmp_path / "models").mkdir()
    shutil.copy(DEMO / "hardened" / "model.safetensors", tmp_path / "models")
    result = scanned("dir:models", "--fail-on", "negligible")
    assert result.returncode == 0
    found = row(result, "dir:models")
    assert (found["all"], found["packages"]) == ("0", "0")
    assert "- dir:models: warning: not one package was found, so nothing was looked at" in result.stdout


@pytest.mark.parametrize("spec", ["1.6", "1.7"])
def test_grype_and_syft_read_the_list_of_models(
    spec: str, scanned: Callable[..., Result], typed: Callable[..., Result], real: Grype, tmp_path: Path
) -> None:
    pytest.importorskip("cyclonedx")
    import make_mlbom  # noqa: PLC0415  # needs libraries that the scan does without

    (tmp_path / "m.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    (tmp_path / "lock.txt").write_text("torch==2.5.1\npip==25.3\n")
    options = ("--lock", "lock.txt", "--card", DEMO / "cards" / "traffic-signs.json", "--spec", spec)
    assert typed(make_mlbom, "m.safetensors", *options).returncode == 0
    result = scanned("sbom:mlbom.cdx.json")
    assert result.returncode == 0, result.stderr
    assert (row(result, "sbom:mlbom.cdx.json")["Critical"], row(result, "sbom:mlbom.cdx.json")["High"]) == (
        "1",
        "1",
    )
    read = run([str(real.tools / "syft"), "convert", str(tmp_path / "mlbom.cdx.json"), "-o", "syft-json"])
    assert {one["name"] for one in json.loads(read)["artifacts"]} >= {"torch", "pip"}


@pytest.mark.docker
def test_a_real_image_agrees_with_its_own_package_manager(
    docker: Any, scanned: Callable[..., Result], real: Grype, tmp_path: Path
) -> None:
    """The base image of our own Dockerfile: what dpkg and Python in it say is what the table says."""
    image = "python:3.13-slim"
    archive = tmp_path / "image.tar"
    assert docker("save", "--output", str(archive), image).returncode == 0
    real.crane("push", str(archive), real.name("base:1"))
    archive.unlink()

    def ask(*command: str) -> str:
        result = docker.run(image, *command[1:], flags=("--entrypoint", command[0]))
        assert result.returncode == 0, result.stderr
        return str(result.stdout).strip()

    names = {line.split(":")[0] for line in ask("dpkg-query", "-W", "-f", "${Package}\\n").splitlines()}
    result = scanned(real.name("base:1"))
    assert result.returncode == 0, result.stderr
    found = row(result, real.name("base:1"))
    assert f"(deb {len(names)}, " in found["packages"], found["packages"]
    # Syft knows the Python of the official image, and not every one that somebody has compiled
    assert found["Python"] in (ask("python3", "--version").removeprefix("Python "), "none found")
    release = ask(
        "sh", "-c", ". /etc/os-release && echo $VERSION_ID"
    )  # Syft names the point release, too: 12.15
    assert found["built on"].split(".")[0] == f"debian {release}"
    assert found["platform"] == "linux/" + ask("dpkg", "--print-architecture")


def test_scan_sh_from_pull_to_table(real: Grype, tmp_path: Path) -> None:
    """As it is typed: the script finds Python, Grype and Syft itself, and says each command that it runs."""
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{real.tools}:/usr/bin:/bin", "HOME": str(tmp_path), **real.settings()}
    images = [real.name(name) for name in ("python:3.11", "python:3.11-alpine", "nosuch:1")]
    command = [str(DEMO / "scan.sh"), *images, "--results", str(tmp_path / "results"), "--fail-on", "high"]
    result = subprocess.run(command, cwd=tmp_path, env=env, check=False, capture_output=True, text=True)
    assert (
        result.returncode == 2 and len(errors(result)) == 1
    )  # one is missing: that is said before findings are
    assert [row(result, name)["all"] for name in images] == ["9", "2", "not scanned"]
    typed_commands = [line.split()[1] for line in result.stderr.splitlines() if line.startswith("$ ")]
    assert sorted(typed_commands) == ["grype", "grype", "syft", "syft", "syft"]
    command.remove(images[2])
    result = subprocess.run(command, cwd=tmp_path, env=env, check=False, capture_output=True, text=True)
    assert (result.returncode, errors(result)) == (1, [])
    assert "1 of 2 images have a vulnerability of severity high or above.\n" in result.stdout
