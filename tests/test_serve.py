"""The model server: it loads only what the policy allows, answers well, and stays up whatever it is sent."""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from PIL import Image

import cli
import client
import create_malicious_model as attack
import load_untrusted
import policy
import serve
import sign_model
import variants
from statements.rules import Policy, read_policy
from weights import shapes, writing

sys.path.insert(0, str(Path(__file__).resolve().parent))
from malicious_helpers import trained_once

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo-malicious"
SAFE, OTHER = "safe_model.safetensors", "other.safetensors"

Refused = Callable[..., None]
Ask = Callable[..., tuple[int, dict[str, Any]]]


# --- a folder with models, keys and a policy ---------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def one_training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The small model is trained once for all tests."""
    with trained_once(tmp_path_factory):
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: a trained model and another one, signed and listed, and the policy as it is shipped."""
    folder = tmp_path_factory.mktemp("prepared")
    sign_model.keygen(folder / "signer.key", folder / "signer.pub")
    shutil.copy(DEMO / "policy.toml", folder)
    writing.save_safetensors(dict(variants.trained().state_dict()), folder / SAFE)
    torch.manual_seed(9)
    writing.save_safetensors(dict(shapes.network().state_dict()), folder / OTHER)
    trust(folder, SAFE)
    trust(folder, OTHER)
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for one test, as the current folder."""
    place = tmp_path / "models"
    shutil.copytree(prepared, place, copy_function=os.link)
    for name in ("policy.toml", "allowed.sha256"):  # what a test may write to is no link
        (place / name).unlink()
        shutil.copy(prepared / name, place)
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Where payloads of this test write."""
    return tmp_path / "marker.txt"


def trust(folder: Path, name: str) -> None:
    """Sign a file and add it to the list."""
    sign_model.sign(folder / name, folder / "signer.key")
    policy.allow(folder / name, read_policy(folder / "policy.toml"))


def set_rule(folder: Path, name: str, value: str) -> None:
    """Change one rule of the policy."""
    lines = (folder / "policy.toml").read_text().splitlines()
    changed = [f"{name} = {value}" if line.startswith(name) else line for line in lines]
    assert changed != lines
    (folder / "policy.toml").write_text("\n".join(changed))


def failed(folder: Path, name: str) -> list[str]:
    """The checks that a file fails."""
    decision = policy.decide(folder / name, read_policy(folder / "policy.toml"))
    wrong = [check.name for check in decision.checks if not check.passed]
    assert decision.allowed == (not wrong)
    assert len(decision.reasons) == len(wrong)
    return wrong


# --- the policy --------------------------------------------------------------------------------------------


def test_the_shipped_policy_allows_a_signed_and_listed_model(folder: Path) -> None:
    assert failed(folder, SAFE) == []


def test_each_check_fails_alone(folder: Path) -> None:
    (folder / "plain.safetensors").write_bytes((folder / OTHER).read_bytes())
    assert failed(folder, "plain.safetensors") == ["signature"]  # listed, because the bytes are
    stranger = folder / "stranger.key"
    sign_model.keygen(stranger, folder / "stranger.pub")
    sign_model.sign(folder / "plain.safetensors", stranger)
    assert failed(folder, "plain.safetensors") == ["signature"]
    writing.save_safetensors({"weight": torch.zeros(3)}, folder / "new.safetensors")
    sign_model.sign(folder / "new.safetensors", folder / "signer.key")
    assert failed(folder, "new.safetensors") == ["digest"]
    set_rule(folder, "max_bytes", "1000")
    assert failed(folder, SAFE) == ["size"]  # and the others are not asked: they would read the file
    set_rule(folder, "max_bytes", "100_000_000")
    set_rule(folder, "formats", '["scanned clean"]')
    assert failed(folder, SAFE) == []  # SafeTensors has no code, so every scanner finds it clean
    set_rule(folder, "formats", "[]")
    assert failed(folder, SAFE) == ["format"]


def test_a_changed_file_fails_twice(folder: Path) -> None:
    copy, _ = sign_model.tamper(folder / SAFE)
    assert failed(folder, copy.name) == ["digest", "signature"]


def test_a_clean_pickle_passes_only_where_scanning_is_enough(folder: Path) -> None:
    torch.save(shapes.network().state_dict(), folder / "clean.pt")
    trust(folder, "clean.pt")
    assert failed(folder, "clean.pt") == []
    set_rule(folder, "formats", '["safetensors"]')
    assert failed(folder, "clean.pt") == ["format"]


@pytest.mark.parametrize("name", sorted(attack.VARIANTS))
def test_a_signed_and_listed_malicious_file_fails_by_its_format_alone(
    folder: Path, marker: Path, name: str
) -> None:
    variant = attack.VARIANTS[name]
    path = folder / variant.file
    path.write_bytes(attack.malicious_bytes(name, marker))
    trust(folder, path.name)
    assert failed(folder, path.name) == ["format"]
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# nothing", "is missing"),
        ("max_bytes = ", "not valid TOML"),
        ('max_bytes = 1\ndigests = "a"\ntrusted_keys = []\nformats = []\ntypo = 1', "typo"),
        (
            'max_bytes = "many"\ndigests = "a"\ntrusted_keys = []\nformats = []',
            "max_bytes must be a whole number",
        ),
        (
            'max_bytes = true\ndigests = "a"\ntrusted_keys = []\nformats = []',
            "max_bytes must be a whole number",
        ),
        ('max_bytes = 1\ndigests = "a"\ntrusted_keys = "key"\nformats = []', "trusted_keys must be a list"),
        ('max_bytes = 1\ndigests = "a"\ntrusted_keys = [1]\nformats = []', "trusted_keys must be a list"),
        ("max_bytes = 1\ndigests = []\ntrusted_keys = []\nformats = []", "digests must be a file name"),
        (
            'max_bytes = 1\ndigests = "a"\ntrusted_keys = []\nformats = ["pickle"]',
            "'pickle' is not a known format",
        ),
    ],
)
def test_a_wrong_policy_is_no_policy(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(cli.UserError, match=words):
        read_policy(tmp_path / "policy.toml")


@pytest.mark.parametrize(
    "form",
    [
        "{digest}  {name}",
        "{digest} *{name}",
        "SHA256 ({name}) = {digest}",
        "\\{digest}  x",
        "SHA2-256({name})= {digest}",
        "SHA256({name})= {digest}",
        "sha256:{digest}",
        "{digest} ^{name}",
    ],
)
@pytest.mark.parametrize("upper", [False, True])
def test_every_form_of_a_list_is_read(folder: Path, form: str, upper: bool) -> None:
    digest = policy.sha256(folder / SAFE)
    line = form.format(digest=digest.upper() if upper else digest, name=SAFE)
    (folder / "allowed.sha256").write_text(f"\ufeff{line}\r\n", encoding="utf-8")
    assert failed(folder, SAFE) == []


def test_a_folder_is_decided_as_a_whole(
    run: Any, folder: Path, assert_refused: Refused, marker: Path
) -> None:
    model = folder / "hub"
    model.mkdir()
    shutil.copy(folder / SAFE, model / "model.safetensors")
    (model / "config.json").write_text("{}")
    trust(folder, "hub")
    assert failed(folder, "hub") == []
    assert run(policy, "check", "hub").returncode == 0
    server = serve.ModelServer(folder, read_policy(folder / "policy.toml"), marker)
    assert server.load("hub")["loaded"] == "hub"
    set_rule(folder, "max_bytes", str((folder / SAFE).stat().st_size))  # the folder is two bytes larger
    assert failed(folder, "hub") == ["size"]
    small = serve.ModelServer(folder, read_policy(folder / "policy.toml"), marker)
    with pytest.raises(serve.Refused):
        small.load("hub")
    set_rule(folder, "max_bytes", "100_000_000")
    (model / "config.json").write_text('{"auto_map": {"AutoModel": "own.Model"}}')
    trust(folder, "hub")
    result = run(policy, "check", "hub")
    assert result.returncode == 1
    assert "config.json: it names Python code (own.Model)" in result.stdout
    with pytest.raises(serve.Refused):
        server.load("hub")
    (model / "config.json").unlink()
    (model / "config.json").symlink_to("/etc/hostname")
    assert_refused(run(policy, "check", "hub"), "config.json", "link")


def test_check_and_server_say_the_same(run: Any, folder: Path, marker: Path) -> None:
    """Whatever the file is: the server loads what `policy.py check` allows, and refuses what it refuses."""
    for rule in ("digests", "trusted_keys"):
        set_rule(folder, rule, '"any"')
    files = {
        "namespace.pt": {"w": torch.zeros(1), "args": argparse.Namespace(a=1)},
        "list.pt": [1, 2],
        "clean.pt": shapes.network().state_dict(),
    }
    for name, value in files.items():
        torch.save(value, folder / name)
    (folder / "renamed.pt").write_bytes((folder / SAFE).read_bytes())
    (folder / "cut.safetensors").write_bytes((folder / SAFE).read_bytes()[:5000])
    (folder / "bad.pt").write_bytes(attack.malicious_bytes("system", marker))
    server = serve.ModelServer(folder, read_policy(folder / "policy.toml"), marker)
    said = {}
    for name in (*files, "renamed.pt", "cut.safetensors", "bad.pt", SAFE):
        said[name] = run(policy, "check", name).returncode == 0
        try:
            assert server.load(name)["loaded"] == name
            assert said[name], name
        except serve.Refused as refusal:
            assert refusal.status == 403
            assert not said[name], name
    assert [name for name, allowed in said.items() if allowed] == ["clean.pt", SAFE]


def test_a_damaged_list_is_no_list(folder: Path) -> None:
    (folder / "allowed.sha256").write_text("# ours\n\nabc  model\n")
    with pytest.raises(cli.UserError, match="line 3"):
        failed(folder, SAFE)
    (folder / "allowed.sha256").unlink()
    assert failed(folder, SAFE) == ["digest"]


def run_main(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], module: Any, *args: object
) -> subprocess.CompletedProcess[str]:
    """Run a script's main() in this process."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("sys.argv", [module.__file__, *map(str, args)])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ending:
        cli.run(module.main)
    signal.signal(signal.SIGTERM, before)
    said = capfd.readouterr()
    return subprocess.CompletedProcess([], int(str(ending.value.code)), said.out, said.err)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """run(policy, "check", FILE) is `python policy.py check FILE`."""
    return lambda module, *args: run_main(monkeypatch, capfd, module, *args)


def test_policy_commands(run: Any, folder: Path, assert_refused: Refused, marker: Path) -> None:
    (folder / "allowed.sha256").unlink()
    result = run(policy, "check", SAFE)
    assert result.returncode == 1, result.stderr
    assert "REFUSED" in result.stdout
    assert "check: digest; answer: FAILED" in result.stdout
    assert run(policy, "allow", SAFE).returncode == 0
    assert run(policy, "allow", SAFE).returncode == 0
    assert len((folder / "allowed.sha256").read_text().splitlines()) == 1
    result = run(policy, "check", SAFE)
    assert result.returncode == 0, result.stdout
    assert "ALLOWED" in result.stdout
    (folder / "malicious.pt").write_bytes(attack.malicious_bytes("system", marker))
    result = run(policy, "check", "malicious.pt")
    assert result.returncode == 1
    assert "check: format; answer: FAILED; why: NOT SAFE TO LOAD" in result.stdout
    assert_refused(run(policy, "check", "nothing.pt"), "nothing.pt")
    assert_refused(run(policy, "check", SAFE, "--policy", "nothing.toml"), "nothing.toml")
    set_rule(folder, "digests", '"any"')
    assert_refused(run(policy, "allow", SAFE), "no list")


# --- the server --------------------------------------------------------------------------------------------


class Running:
    """The server's application in a thread, on a free port."""

    def __init__(self, models: serve.ModelServer) -> None:
        self.models = models
        self.place = serve.listen("127.0.0.1", 0)
        self.port = self.place.getsockname()[1]
        config = uvicorn.Config(serve.application(models, cli.Out(plain=True)), log_level="critical")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.place]})
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        self.place.close()

    def __call__(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def load(self, name: object) -> tuple[int, dict[str, Any]]:
        return self("POST", "/models/load", json.dumps({"path": name}))

    def predict(self, image: bytes) -> tuple[int, dict[str, Any]]:
        return self("POST", "/predict", image)


@pytest.fixture
def start(folder: Path, marker: Path) -> Iterator[Callable[..., Running]]:
    """start() starts a server with the policy, start(naive=True) one without."""
    started: list[Running] = []

    def go(naive: bool = False) -> Running:
        rules = None if naive else read_policy(folder / "policy.toml")
        started.append(Running(serve.ModelServer(folder, rules, marker)))
        return started[-1]

    yield go
    for server in started:
        server.stop()


@pytest.fixture
def server(start: Callable[..., Running]) -> Running:
    return start()


def test_health_model_and_predictions(server: Running, folder: Path) -> None:
    assert server("GET", "/health") == (200, {"status": "ok", "model": None})
    assert server("GET", "/model")[0] == 404
    assert server.predict(shapes.png("circle", 1))[0] == 409
    status, answer = server.load(SAFE)
    assert (status, answer["loaded"], list(answer["checks"])) == (
        200,
        SAFE,
        ["size", "digest", "signature", "format", "loader"],
    )
    assert server("GET", "/health") == (200, {"status": "ok", "model": SAFE})
    status, answer = server("GET", "/model")
    assert (status, answer["sha256"]) == (200, policy.sha256(folder / SAFE))
    right = [
        server.predict(shapes.png(shape, seed))[1]["class"] == shape
        for shape in shapes.CLASSES
        for seed in range(5)
    ]
    assert sum(right) >= 14
    status, answer = server.predict((DEMO / "circle.png").read_bytes())
    assert (status, answer["class"], answer["model"]) == (200, "circle", SAFE)
    assert abs(sum(answer["scores"].values()) - 1) < 0.01
    large = io.BytesIO()
    Image.open(DEMO / "circle.png").resize((640, 480)).save(large, "JPEG")
    assert server.predict(large.getvalue())[1]["class"] == "circle"


@pytest.mark.parametrize("name", sorted(attack.VARIANTS))
def test_malicious_files_are_refused_and_the_model_before_stays(
    server: Running, folder: Path, marker: Path, name: str
) -> None:
    server.load(OTHER)
    path = folder / attack.VARIANTS[name].file
    path.write_bytes(attack.malicious_bytes(name, marker))
    trust(folder, path.name)
    status, answer = server.load(path.name)
    assert status == 403, answer
    assert [reason.split(":")[0] for reason in answer["reasons"]] == ["format"]
    assert str(folder) not in str(answer)
    assert "model-server-" not in str(answer)  # nor the private copy's folder
    assert not marker.exists()
    assert server("GET", "/health")[1]["model"] == OTHER


def test_without_any_rule_the_loader_still_runs_nothing(
    start: Callable[..., Running], folder: Path, marker: Path
) -> None:
    for name in ("max_bytes", "digests", "trusted_keys", "formats"):
        set_rule(folder, name, '"any"')
    server = start()
    (folder / "malicious.pt").write_bytes(attack.malicious_bytes("resnet18", marker))
    status, answer = server.load("malicious.pt")
    assert status == 403, answer
    assert "loader: malicious.pt was refused and not run" in answer["reasons"][0]
    assert not marker.exists()


def test_naive_the_same_request_owns_the_server(
    start: Callable[..., Running], folder: Path, marker: Path
) -> None:
    server = start(naive=True)
    (folder / "model.pt").write_bytes(attack.malicious_bytes("resnet18", marker))
    status, answer = server.load("model.pt")
    assert (status, answer["before"], answer["after"]) == (200, False, True)
    assert attack.MESSAGE in marker.read_text()
    # and nobody notices: it answers as before
    assert server.predict((DEMO / "circle.png").read_bytes())[1]["class"] == "circle"
    marker.unlink()
    (folder / "model.pt").write_bytes(attack.malicious_bytes("system", marker))
    status, answer = server.load("model.pt")
    assert (status, answer["after"]) == (409, True)  # no model, but the code has run


def test_naive_loads_nothing_but_our_own_files(
    start: Callable[..., Running], folder: Path, marker: Path, tmp_path: Path
) -> None:
    server = start(naive=True)
    strange = tmp_path / "strange.txt"
    (folder / "model.pt").write_bytes(attack.malicious_bytes("system", strange))
    (folder / "mixed.pt").write_bytes(attack.malicious_bytes("system", marker) + b"\0")
    for name in ("model.pt", "mixed.pt", SAFE):
        status, answer = server.load(name)
        assert status == 403, answer
    assert not strange.exists()
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("", 400),
        (".", 400),
        ("..", 400),
        ("../secret.pt", 400),
        ("/etc/passwd", 400),
        ("sub/model.pt", 400),
        ("a\0b", 400),
        ("a\nb", 400),
        ("nothing.pt", 404),
        ("x" * 300, 400),
        ("sub", 400),
        ("pipe", 400),
        ("link.safetensors", 400),
        ("empty.pt", 409),
    ],
)
def test_names_that_lead_elsewhere(server: Running, folder: Path, name: str, status: int) -> None:
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "link.safetensors").symlink_to(folder / SAFE)
    (folder / "empty.pt").touch()
    answer = server.load(name)
    assert answer[0] == status, answer
    assert server("GET", "/health") == (200, {"status": "ok", "model": None})


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"3", b'{"path": 3}', b'{"name": "a"}', b"\xff", b"[" * 5000, b'"path"']
)
def test_orders_that_are_none(server: Running, body: bytes) -> None:
    assert server("POST", "/models/load", body)[0] == 400


def png_of(width: int, height: int) -> bytes:
    """A small file that says that it is a huge image."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def gif() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "GIF")
    return file.getvalue()


BAD_IMAGES = {
    "empty": b"",
    "text": b"not a image",
    "cut": shapes.png("square", 1)[:300],
    "header only": shapes.png("square", 1)[:20],
    "changed": shapes.png("square", 1).replace(b"IDAT", b"IDAX"),
    "another format": gif(),
    "huge": png_of(30_000, 30_000),
    "far too huge": png_of(2**31 - 1, 2**31 - 1),
    "no pixels": png_of(0, 0),
    "fewer pixels than it says": png_of(500, 500),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images(server: Running, kind: str) -> None:
    server.load(OTHER)
    status, answer = server.predict(BAD_IMAGES[kind])
    assert status == 400, answer
    assert server.predict(shapes.png("square", 1))[0] == 200


def test_bodies_that_are_too_long(server: Running) -> None:
    long = b"x" * (serve.LARGEST_IMAGE + 1)
    assert server.predict(long)[0] == 413
    # without a length in the header
    assert server("POST", "/predict", iter([long]))[0] == 413
    assert server("POST", "/models/load", b" " * (serve.LARGEST_ORDER + 1))[0] == 413
    # a model file sent by mistake
    assert server.predict(bytes(50_000_000))[0] == 413
    assert server("GET", "/health")[0] == 200


def test_wrong_methods_and_places(server: Running) -> None:
    for method, path, status in (
        ("GET", "/predict", 405),
        ("POST", "/health", 405),
        ("GET", "/nothing", 404),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request(method, path)
        assert connection.getresponse().status == status
        connection.close()


@pytest.mark.parametrize("kind", ["other network", "no numbers", "not a state dict"])
def test_models_of_another_kind(server: Running, folder: Path, kind: str) -> None:
    server.load(OTHER)
    path = folder / f"odd{'.pt' if kind == 'not a state dict' else '.safetensors'}"
    if kind == "not a state dict":
        torch.save([1, 2, 3], path)
    elif kind == "other network":
        writing.save_safetensors(dict(torch.nn.Linear(2, 2).state_dict()), path)
    else:
        weights = shapes.network().state_dict()
        weights["fc.bias"] = torch.full((3,), float("nan"))
        writing.save_safetensors(dict(weights), path)
    trust(folder, path.name)
    if kind == "no numbers":  # fits, so it is loaded; but its answers are not passed on
        assert server.load(path.name)[0] == 200
        assert server.predict(shapes.png("circle", 1))[0] == 409
    else:
        assert server.load(path.name)[0] == (403 if kind == "not a state dict" else 409)
        assert server("GET", "/health")[1]["model"] == OTHER


def test_concurrent_loads_and_predictions_never_mix(server: Running) -> None:
    image = shapes.png("triangle", 3)
    right = {}
    for name in (SAFE, OTHER):
        server.load(name)
        right[name] = server.predict(image)[1]
    assert right[SAFE]["scores"] != right[OTHER]["scores"]
    with ThreadPoolExecutor(12) as pool:
        loads = [pool.submit(server.load, name) for name in (SAFE, OTHER) * 3]
        answers = [pool.submit(server.predict, image) for _ in range(60)]
    assert {load.result()[0] for load in loads} == {200}
    for answer in answers:
        status, found = answer.result()
        assert status == 200
        assert found == right[found["model"]]


def test_a_file_exchanged_after_its_check_is_not_loaded(
    folder: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old trick: pass the check with a good file and put a bad one in its place before it is loaded."""
    rules = read_policy(folder / "policy.toml")
    decide = policy.decide

    def decide_and_exchange(path: Path, rules: Policy) -> policy.Decision:
        decision = decide(path, rules)
        (folder / SAFE).unlink()
        (folder / SAFE).write_bytes((folder / OTHER).read_bytes())
        return decision

    digest = policy.sha256(folder / SAFE)
    monkeypatch.setattr(policy, "decide", decide_and_exchange)
    server = serve.ModelServer(folder, rules, marker)
    server.load(SAFE)
    assert server.loaded
    assert policy.sha256(folder / SAFE) != digest
    assert server.loaded.sha256 == digest


def test_the_private_copy_is_removed(
    folder: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    server = serve.ModelServer(folder, read_policy(folder / "policy.toml"), marker)
    server.load(OTHER)
    (folder / "malicious.pt").write_bytes(attack.malicious_bytes("system", marker))
    with pytest.raises(serve.Refused):
        server.load("malicious.pt")
    assert list(scratch.iterdir()) == []


# --- the command lines -------------------------------------------------------------------------------------


def test_a_refused_model_does_not_start(run: Any, folder: Path, marker: Path) -> None:
    (folder / "malicious_model.pt").write_bytes(attack.malicious_bytes("system", marker))
    trust(folder, "malicious_model.pt")
    result = run(serve, "--model", "malicious_model.pt", "--port", "0")
    assert result.returncode == 1, result.stderr
    assert "NOT STARTED: malicious_model.pt is refused." in result.stdout
    assert "format: NOT SAFE TO LOAD: it imports posix.system" in result.stdout
    assert not marker.exists()


def test_wrong_use_of_the_server(run: Any, folder: Path, assert_refused: Refused) -> None:
    assert_refused(run(serve, "--models", "nothing"), "nothing")
    assert_refused(run(serve, "--policy", "nothing.toml"), "nothing.toml")
    assert_refused(run(serve, "--port", "99999"), "--port")
    assert_refused(run(serve, "--model", "nothing.pt", "--port", "0"), "nothing.pt")
    with serve.listen("127.0.0.1", 0) as place:
        port = place.getsockname()[1]
        assert_refused(run(serve, "--port", port), port, "another program uses it")
        place.close()
    assert_refused(run(client, "health", "--wait", 0, "--url", f"http://127.0.0.1:{port}"), "serve.py")
    assert_refused(run(client, "predict"), "need a name")
    assert_refused(run(client, "predict", "nothing.png"), "nothing.png")


def test_server_and_client_as_documented(folder: Path, run: Any, marker: Path) -> None:
    """A real server in a process of its own, asked by client.py and, where there is one, by curl."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(DEMO / "serve.py"), "--model", SAFE, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("Ready."):
                break
        url = f"http://127.0.0.1:{port}"
        assert said[:2] == [f"Loaded {SAFE}.\n", f"Listening on {url}\n"], said
        shutil.copy(DEMO / "circle.png", folder)
        (folder / "malicious_model.pt").write_bytes(attack.malicious_bytes("system", marker))
        result = run(client, "predict", "circle.png", "--url", url)
        assert result.returncode == 0, result.stdout
        assert '"class": "circle"' in result.stdout
        result = run(client, "load", "malicious_model.pt", "--url", url)
        assert result.returncode == 1
        assert result.stdout.startswith("403 Forbidden")
        for what in ("health", "model"):
            assert run(client, what, "--url", url).returncode == 0
        if shutil.which("curl"):
            for words in documented_curl():
                found = subprocess.run(
                    [word.replace("http://127.0.0.1:8000", url) for word in words],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                assert json.loads(found.stdout), words
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)[0]
    assert process.returncode in (0, 130)
    assert "Traceback" not in rest
    assert "Load 'malicious_model.pt': malicious_model.pt is refused." in rest


def documented_curl() -> list[list[str]]:
    """The curl commands of the server's help text."""
    lines = [line.strip() for line in (serve.__doc__ or "").splitlines()]
    found = [shlex.split(line) for line in lines if line.startswith("curl ")]
    assert len(found) == 4
    return [[words[0], "--silent", *words[1:]] for words in found]


def test_the_load_test_finds_no_error(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/serving.py"), "--quick"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Errors: 0 of" in result.stdout
    assert result.stdout.count("- what: predict,") == 4


# --- the sandbox's script outside of a sandbox -------------------------------------------------------------


def test_nothing_is_loaded_outside_a_sandbox(
    run: Any, assert_refused: Refused, folder: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not in the process that the script itself starts to load."""
    path = folder / "malicious.pt"
    path.write_bytes(attack.malicious_bytes("system", marker))
    for arguments in (("malicious.pt",), ("--load", "malicious.pt")):
        result = run(load_untrusted, *arguments)
        assert_refused(result, "This is no", "nothing was loaded", "run_sandboxed.sh")
    assert not marker.exists()


def test_hostile_output_cannot_steer_the_terminal() -> None:
    assert load_untrusted.visible("\x1b[2J\nline\x07") == "\\x1b[2J\nline\\x07"


@pytest.mark.parametrize("arguments", [(), ("nothing.pt",), ("--demo", "nothing"), (".",)])
def test_wrong_use_of_the_sandbox(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = subprocess.run(
        [str(DEMO / "run_sandboxed.sh"), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2, result.stdout
    assert result.stderr
