"""Load test of demo 1's model server: requests a second, errors and waiting times. Takes half a minute.

    python benchmarks/serving.py            python benchmarks/serving.py --quick

It starts the server as a user would, with a signed ResNet18 that its policy allows, and sends images
from 1, 4 and 16 clients at a time, then from 16 clients while other requests exchange the model again and
again. Every answer is checked: it must be what the model that it names says about this image.

Exit code 0: no error. 1: at least one answer was wrong or did not come. 2: the server did not start.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent / "demo-malicious"
sys.path.insert(0, str(DEMO))

import torch  # noqa: E402 (after the path above)

import cli  # noqa: E402
import policy  # noqa: E402
import sign_model  # noqa: E402
from statements.rules import read_policy  # noqa: E402
from weights import (  # noqa: E402
    shapes,
    writing,
)

CLIENTS = (1, 4, 16)
SECONDS, QUICK_SECONDS = 5.0, 0.5  # of each measurement
MODELS = ("first.safetensors", "second.safetensors")
STARTED = 90  # seconds that the server may take to start


@dataclass
class Measured:
    """What one measurement gave: waiting times in ms, and how many answers were wrong or missing."""

    name: str
    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    errors: int = 0

    def row(self) -> list[str]:
        """One line of the table."""
        times = sorted(self.times) or [float("nan")]
        percent = [times[min(len(times) - 1, len(times) * p // 100)] for p in (50, 95, 99, 100)]
        rate = len(self.times) / max(self.seconds, 1e-9)
        return [
            self.name,
            str(len(self.times)),
            f"{rate:.1f}",
            str(self.errors),
            *(f"{value:.1f}" for value in percent),
        ]


def prepare(folder: Path) -> None:
    """Two different models, signed and allowed, and the policy that says so."""
    private, public = folder / "signer.key", folder / "signer.pub"
    sign_model.keygen(private, public)
    (folder / "policy.toml").write_text((DEMO / "policy.toml").read_text())
    rules = read_policy(folder / "policy.toml")
    for seed, name in enumerate(MODELS):
        torch.manual_seed(seed)  # not trained: that changes the answers, but not the time that they take
        writing.save_safetensors(dict(shapes.network().state_dict()), folder / name)
        sign_model.sign(folder / name, private)
        policy.allow(folder / name, rules)


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """The server in a process of its own; gives its port."""
    command = [sys.executable, str(DEMO / "serve.py"), "--model", MODELS[0], "--port", "0", "--plain"]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout
    watchman = threading.Timer(STARTED, process.kill)
    watchman.start()
    try:
        said, port = "", 0
        for line in process.stdout:
            said += line
            if line.startswith("Listening on"):
                port = int(line.rsplit(":", 1)[1])
            if line.startswith("Ready."):
                break
        else:
            raise cli.UserError(f"The server did not start; it said: {' '.join(said.split())}")
        watchman.cancel()
        # its later lines are read and dropped, so that it never waits for us
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield port
    finally:
        watchman.cancel()
        process.terminate()
        process.wait()


def post(connection: http.client.HTTPConnection, path: str, body: bytes) -> dict[str, object]:
    """One request over a connection that stays open; the answer, or OSError if it was none."""
    connection.request("POST", path, body)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != http.client.OK:
        raise OSError(f"{answer.status} {text[:200]!r}")
    return json.loads(text)


@dataclass
class Job:
    """What one client does again and again."""

    path: str
    bodies: list[bytes]  # sent in turn
    right: list[object]  # the answers that may come; empty: any
    found: Measured


def repeat(port: int, job: Job, until: float) -> None:
    """Do the job over one connection until that time (time.perf_counter)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    count = 0
    while time.perf_counter() < until:
        begin = time.perf_counter()
        try:
            answer = post(connection, job.path, job.bodies[count % len(job.bodies)])
            if job.right and answer not in job.right:
                raise OSError("a wrong answer")
            job.found.times.append(1000 * (time.perf_counter() - begin))
        except (OSError, ValueError, http.client.HTTPException) as error:
            print(f"error: {error}", file=sys.stderr)
            job.found.errors += 1
            connection.close()
        count += 1
    connection.close()


def measure(port: int, clients: int, seconds: float, right: list[object], exchange: bool) -> list[Measured]:
    """Send images from so many clients at a time, if wanted while the model is exchanged."""
    image = (DEMO / "circle.png").read_bytes()
    orders = [json.dumps({"path": name}).encode() for name in MODELS]
    predictions = Measured(
        f"predict, {clients} client{'s' if clients > 1 else ''}{', models exchanged' if exchange else ''}"
    )
    loads = Measured("load, 2 clients at the same time")
    jobs = [Job("/predict", [image], right, predictions)] * clients
    jobs += [Job("/models/load", orders, [], loads)] * (2 if exchange else 0)
    start = time.perf_counter()
    threads = [threading.Thread(target=repeat, args=(port, job, start + seconds)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for found in (predictions, loads):
        found.seconds = time.perf_counter() - start
    return [predictions, loads] if exchange else [predictions]


def answers_of_all(port: int) -> list[object]:
    """What each model says about the image."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    found: list[object] = []
    for name in reversed(MODELS):  # ends with the one that the server started with
        post(connection, "/models/load", json.dumps({"path": name}).encode())
        found.append(post(connection, "/predict", (DEMO / "circle.png").read_bytes()))
    connection.close()
    return found


def main() -> int:
    """Read the command line, measure, print the table."""
    arguments = cli.parser(__doc__)
    arguments.add_argument("--quick", action="store_true", help=f"{QUICK_SECONDS} s a measurement, for tests")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    seconds = QUICK_SECONDS if args.quick else SECONDS
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        begin = time.perf_counter()
        with server(Path(folder)) as port:
            started = time.perf_counter() - begin
            right = answers_of_all(port)
            assert right[0] != right[1], "the two models must differ, or a mix of them would not be noticed"
            found: list[Measured] = []
            for clients in out.progress(CLIENTS, len(CLIENTS), "predictions"):
                found += measure(port, clients, seconds, right[-1:], exchange=False)
            found += measure(port, CLIENTS[-1], seconds, right, exchange=True)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    out.say(f"Other work on this machine when the test began: a load average of {busy:.1f}.")
    out.say(f"{date.today()}, {machine}, Python {platform.python_version()}, torch {torch.__version__}")
    out.say(f"The server was ready after {started:.1f} s, with a model of 45 MB checked and loaded.")
    columns = ["what", "answers", "a second", "errors", "median ms", "95 % ms", "99 % ms", "largest ms"]
    out.table("Measured", columns, [each.row() for each in found])
    load = found[-1].seconds / max(len(found[-1].times), 1)  # they wait for each other: one at a time
    out.say(f"Loading one model, with every check of the policy, takes {load:.1f} s while 16 clients ask.")
    errors = sum(each.errors for each in found)
    out.say(f"Errors: {errors} of {sum(len(each.times) + each.errors for each in found)} requests.")
    return cli.FINDING if errors or not all(each.times for each in found) else cli.OK


if __name__ == "__main__":
    cli.run(main)
