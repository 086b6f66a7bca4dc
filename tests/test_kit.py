"""./workshop.sh pack and unpack: what a kit holds, and which kits are refused before anything is loaded."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
from workshop_bench import FAKE_DOCKER, FAKE_PYTHON, Bench, Result

MORE_TOOLS = ("comm", "date", "gzip", "head", "sha256sum", "tail", "tar", "wc")
WHEEL = "some_package-1.0-py3-none-any.whl"

# pip download writes one wheel; the version of .venv's Python is asked for in words of its own
DOWNLOAD = f"""case "$*" in
    *"pip download"*) eval "next=no"; for word in "$@"; do
        [ "$next" != yes ] || {{ mkdir -p "$word"; echo wheel >"$word/{WHEEL}"; }}
        next=no; [ "$word" != --dest ] || next=yes; done; exit 0 ;;
esac
"""

SAVE = """case "$1 $2" in
    "save --output") cp "$STORE/saved-$4.tar" "$3"; exit ;;
    "version "*) echo "${FAKE_PLATFORM:-linux/amd64}"; exit ;;
    "load "*) exit "${FAKE_LOAD:-0}" ;;
    "run --rm") exit 1 ;;
esac
"""


@pytest.fixture
def bench(root: Path, tmp_path: Path) -> Bench:
    made = Bench(root, tmp_path)
    for tool in MORE_TOOLS:
        (made.bin / tool).unlink(missing_ok=True)
        (made.bin / tool).symlink_to(shutil.which(tool) or pytest.fail(f"no {tool} on this machine"))
    return made


def saved_image(path: Path, name: str, architecture: str) -> None:
    """What `docker save` writes, as far as a look from outside goes."""
    config = json.dumps({"architecture": architecture, "os": "linux"}).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": [f"{name}:latest"], "Layers": []}]).encode()
    with tarfile.open(path, "w") as archive:
        for member, content in (("c.json", config), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def native(bench: Bench, tmp_path: Path) -> Path:
    """A kit for the way without Docker: one package, and demo 2's data and models."""
    text = FAKE_PYTHON.replace("REAL", sys.executable).replace(
        'case "$1 $2" in', f'{DOWNLOAD}case "$1 $2" in'
    )
    bench.executable(bench.bin / "python3", text)
    for folder in ("data", "models"):
        (bench.home / "demo-poisoning" / folder).mkdir()
        (bench.home / "demo-poisoning" / folder / "some.file").write_text(folder)
    result = bench("pack", str(tmp_path / "kit"), "--native")
    assert result.returncode == 0, result.stdout + result.stderr
    shutil.rmtree(bench.home / ".venv")
    for folder in ("data", "models"):
        shutil.rmtree(bench.home / "demo-poisoning" / folder)
    bench.logged()
    return tmp_path / "kit"


@pytest.fixture
def images(bench: Bench, tmp_path: Path) -> Path:
    """A kit for the way with Docker."""
    bench.executable(bench.bin / "docker", FAKE_DOCKER.replace('case "$1" in', f'{SAVE}case "$1" in', 1))
    for name in ("pickle-demo", "poisoning-demo", "grype-demo"):
        saved_image(tmp_path / "images" / f"saved-{name}.tar", name, "amd64")
    bench.script("demo-poisoning/build.sh", "docker build -t poisoning-demo $WORKSHOP_BUILD_ARGS .")
    result = bench("pack", str(tmp_path / "kit"), "--docker")
    assert result.returncode == 0, result.stdout + result.stderr
    bench.logged()
    return tmp_path / "kit"


def sealed(kit: Path) -> None:
    """Write the list of the kit anew, as somebody could who changed something in it."""
    head = (kit / "MANIFEST").read_text().split("\n\n")[0]
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_size} {path.relative_to(kit)}"
        for path in sorted(kit.rglob("*"))
        if path.is_file() and path.name != "MANIFEST"
    ]
    (kit / "MANIFEST").write_text("\n".join([head, "", *lines]) + "\n")


def assert_refused(bench: Bench, result: Result, *words: str) -> None:
    """Exit code 2, one sentence that names the file, and nothing was loaded."""
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stdout + result.stderr
    for word in words:
        assert word in result.stderr
    asked = bench.logged()
    for act in ("load", "cp", "create", "-m venv", "-m pip install", "exec"):
        assert f"docker {act}" not in asked and f"python {act}" not in asked, asked
    assert not (bench.home / ".venv").exists() or "pickle-demo" in asked
    assert not (bench.home / "demo-poisoning/models").exists()


def test_a_kit_says_what_it_is_and_what_it_holds(native: Path) -> None:
    head, listed = (native / "MANIFEST").read_text().split("\n\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    assert (fields["way"], fields["demos"]) == ("native", "1 2 3")
    assert fields["platform"] == f"{platform.system()} {platform.machine()}"
    assert fields["made"].startswith("20") and fields["made"].endswith("Z")
    paths = [line.split()[2] for line in listed.splitlines()]
    assert paths == ["demo-2.tar", f"python/{WHEEL}"]
    for line in listed.splitlines():
        digest, size, path = line.split()
        content = (native / path).read_bytes()
        assert (digest, int(size)) == (hashlib.sha256(content).hexdigest(), len(content))
    assert not native.with_name("kit.unfinished").exists()


def test_unpacking_installs_from_the_kit_alone(bench: Bench, native: Path) -> None:
    bench.executable(
        bench.bin / "python3",
        (bench.bin / "python3")
        .read_text()
        .replace("#!/bin/sh\n", '#!/bin/sh\necho "$PIP_NO_INDEX $PIP_FIND_LINKS" >>"$LOG"\n'),
    )
    result = bench("unpack", str(native))
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"1 {native}/python\npython -m pip install" in bench.logged()
    assert (bench.home / "demo-poisoning/models/some.file").read_text() == "models"
    assert "Ready, without internet: ./workshop.sh run --native\n" in result.stdout
    again = bench("unpack", str(native))
    assert (again.returncode, "they are kept" in again.stdout) == (0, True)


def test_images_from_a_kit_need_no_second_build(bench: Bench, images: Path) -> None:
    result = bench("unpack", str(images))
    assert result.returncode == 0, result.stdout + result.stderr
    loaded = [line.split("/")[-1] for line in bench.logged().splitlines() if line.startswith("docker load")]
    assert loaded == ["pickle-demo.tar", "poisoning-demo.tar", "grype-demo.tar"]
    said = bench("run", "1", "--docker").stdout
    assert "The image pickle-demo is there already, built from the same files." in said


def test_images_that_were_built_with_arguments_are_known_as_such(
    bench: Bench, images: Path, tmp_path: Path
) -> None:
    arguments = "--build-arg TORCH_INDEX= --build-arg GRYPE_IMAGE=python:3.13-slim"
    made = bench("pack", str(tmp_path / "other"), "1", "--docker", WORKSHOP_BUILD_ARGS=arguments)
    assert made.returncode == 0, made.stderr
    assert bench("unpack", str(tmp_path / "other")).returncode == 0
    said = bench("run", "1", "--docker")
    assert "built from the same files" in said.stdout
    bench.logged()
    (tmp_path / "other/MANIFEST").write_text(
        (tmp_path / "other/MANIFEST").read_text().replace("--build-arg TORCH_INDEX=", "--network host")
    )
    assert_refused(bench, bench("unpack", str(tmp_path / "other")), "MANIFEST", "build arguments")


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "one byte": (lambda kit: (kit / f"python/{WHEEL}").write_text("whEel\n"), f"python/{WHEEL}", "damaged"),
    "cut off": (lambda kit: os.truncate(kit / "demo-2.tar", 512), "demo-2.tar", "512 bytes instead of"),
    "a file is missing": (lambda kit: (kit / f"python/{WHEEL}").unlink(), f"python/{WHEEL}", "incomplete"),
    "a file more": (
        lambda kit: (kit / "python/setup.py").touch(),
        "python/setup.py",
        "not on the kit's list",
    ),
    "a hidden file more": (lambda kit: (kit / ".pth").touch(), ".pth", "not on the kit's list"),
    "a link": (lambda kit: (kit / "python/x").symlink_to("/etc/passwd"), "python/x", "is a link"),
    "no list": (lambda kit: (kit / "MANIFEST").unlink(), "MANIFEST", "missing"),
    "an empty list": (lambda kit: (kit / "MANIFEST").write_text(""), "MANIFEST", "does not begin with"),
    "half a list": (
        lambda kit: (kit / "MANIFEST").write_text((kit / "MANIFEST").read_text()[:-20]),
        "MANIFEST",
        "damaged or incomplete",
    ),
    "a list of something else": (
        lambda kit: (kit / "MANIFEST").write_text("Manifest-Version: 1.0\n"),
        "MANIFEST",
        "does not begin with",
    ),
    "a path that leads out": (
        lambda kit: (kit / "MANIFEST").write_text((kit / "MANIFEST").read_text() + f"{'0' * 64} 5 ../../x\n"),
        "MANIFEST",
        "../../x",
    ),
    "another machine": (
        lambda kit: (kit / "MANIFEST").write_text(
            (kit / "MANIFEST").read_text().replace(platform.machine(), "riscv64")
        ),
        "MANIFEST",
        "is for Linux riscv64" if sys.platform == "linux" else "riscv64",
    ),
    "another version of the workshop": (
        lambda kit: (kit / "MANIFEST").write_text(
            (kit / "MANIFEST").read_text().replace("sources-1: ", "sources-1: 9")
        ),
        "MANIFEST",
        "from other files of demo 1",
    ),
    "another Python": (
        lambda kit: (kit / "MANIFEST").write_text(
            "".join(
                "python: 3.99\n" if line.startswith("python: ") else line
                for line in (kit / "MANIFEST").read_text().splitlines(keepends=True)
            )
        ),
        "python",
        "Python 3.99",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_kit_that_is_not_as_it_was_packed_is_refused(bench: Bench, native: Path, what: str) -> None:
    act, file, words = DAMAGE[what]
    act(native)
    assert_refused(bench, bench("unpack", str(native)), f"{native}/{file}", words)


def archive(path: Path, name: str, kind: bytes = tarfile.REGTYPE) -> None:
    with tarfile.open(path, "w") as made:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "/etc/passwd"
        made.addfile(entry)


FOREIGN: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a script": (lambda kit: (kit / "python/setup.py").touch(), "python/setup.py", "does not belong"),
    "a package for another machine": (
        lambda kit: (kit / "python/a-1-cp312-cp312-manylinux_2_28_s390x.whl").touch(),
        "a-1-cp312-cp312-manylinux_2_28_s390x.whl",
        "another kind of machine",
    ),
    "data that leads out": (
        lambda kit: archive(kit / "demo-2.tar", "models/../../x"),
        "demo-2.tar",
        "leads out",
    ),
    "data elsewhere": (lambda kit: archive(kit / "demo-2.tar", "train.py"), "demo-2.tar", "holds train.py"),
    "data that is a link": (
        lambda kit: archive(kit / "demo-2.tar", "data/x", tarfile.SYMTYPE),
        "demo-2.tar",
        "something else than files",
    ),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_does_not_belong_is_refused_though_the_list_names_it(
    bench: Bench, native: Path, what: str
) -> None:
    act, file, words = FOREIGN[what]
    act(native)
    number = hashlib.sha256((native / "MANIFEST").read_bytes()).hexdigest()
    sealed(native)
    assert_refused(bench, bench("unpack", str(native)), file, words)
    assert_refused(
        bench, bench("unpack", str(native), "--expect", number), "MANIFEST", "not the one that you expect"
    )


@pytest.mark.parametrize(
    ("name", "architecture", "words"),
    [("pickle-demo", "arm64", "for linux/arm64"), ("alpine", "amd64", "does not hold the image pickle-demo")],
)
def test_an_image_says_itself_what_it_is(
    bench: Bench, images: Path, name: str, architecture: str, words: str
) -> None:
    saved_image(images / "images/pickle-demo.tar", name, architecture)
    sealed(images)
    assert_refused(bench, bench("unpack", str(images)), "images/pickle-demo.tar", words)


def test_images_for_another_engine_are_refused(bench: Bench, images: Path) -> None:
    result = bench("unpack", str(images), FAKE_PLATFORM="linux/arm64")
    assert_refused(bench, result, "MANIFEST", "is for linux/amd64, and this machine is linux/arm64")
    assert_refused(bench, bench("unpack", str(images), FAKE_ENGINE="1"), "MANIFEST", "start Docker")


def test_no_room_is_said_before_anything_is_loaded(bench: Bench, native: Path) -> None:
    (bench.bin / "df").unlink()
    bench.executable(bench.bin / "df", "#!/bin/sh\necho head\necho disk 9 9 1 9 /\n")
    assert_refused(bench, bench("unpack", str(native)), "free some space")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["pack"], "needs a folder"),
        (["unpack"], "needs a folder"),
        (["unpack", "nosuch"], "nosuch is not a folder"),
        (["unpack", "a", "--docker"], "does not know --docker"),
        (["unpack", "a", "--expect"], "takes the SHA-256"),
        (["pack", "a", "b"], "one folder"),
        (["pack", "demo-malicious"], "is there already"),
    ],
)
def test_wrong_use(bench: Bench, args: list[str], words: str) -> None:
    result = bench(*args)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert words in result.stderr


def test_what_is_not_there_cannot_be_packed(bench: Bench, tmp_path: Path) -> None:
    bench.python()
    result = bench("pack", str(tmp_path / "kit"), "--native")
    assert result.returncode == 1
    assert "demo 2 has no models here yet: ./workshop.sh run 2 --native makes them" in result.stderr
    assert not (tmp_path / "kit").exists() and not (tmp_path / "kit.unfinished").exists()
