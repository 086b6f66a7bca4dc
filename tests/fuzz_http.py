"""The model server over real HTTP, for the fuzzer: not run by hand. One server for all files of a worker.

It is asked to load the file, and gets the file itself as an order and as an image. It must answer each time.
Exit code 0: loaded. 1: refused by the policy. 2: refused otherwise. A server that fails is an exception.
"""

from __future__ import annotations

import asyncio
import functools
import http.client
import json
import sys
import threading
from pathlib import Path

import uvicorn

import cli
import serve
from statements.rules import read_policy

HOST = "127.0.0.1"


@functools.cache
def port() -> int:
    """The port of the server, which is started when it is first asked for."""
    place = serve.listen(HOST, 0)
    server = serve.ModelServer(Path(), read_policy(Path("lax.toml")), Path("marker").absolute())
    config = uvicorn.Config(serve.application(server, cli.Out(plain=True)), log_level="warning")
    answering = uvicorn.Server(config).serve(sockets=[place])
    threading.Thread(target=asyncio.run, args=[answering], daemon=True).start()
    number: int = place.getsockname()[1]
    return number


def ask(way: str, path: str, body: bytes = b"") -> tuple[int, str]:
    """One request; gives the status and the answer's error, if any. RuntimeError if the server fails."""
    connection = http.client.HTTPConnection(HOST, port(), timeout=60)
    connection.request(way, path, body)
    answer = connection.getresponse()
    said = json.loads(answer.read())
    connection.close()
    if answer.status >= 500:
        raise RuntimeError(f"{way} {path}: {answer.status}")
    return answer.status, said.get("error", "")


def main() -> int:
    """Load the file that is named, send it as a body, and see that the server is still there."""
    path = Path(sys.argv[1])
    status, error = ask("POST", "/models/load", json.dumps({"path": path.name}).encode())
    if path.is_file():
        with path.open("rb") as file:
            body = file.read(100_000)
        for place in ("/models/load", "/predict"):
            ask("POST", place, body)
    assert ask("GET", "/health")[0] == 200
    if status in (200, 403):
        return cli.OK if status == 200 else cli.FINDING
    raise cli.UserError(error)
