"""Ask the model server of serve.py, where there is no curl (in the container, for example).

    python client.py health
    python client.py model
    python client.py predict circle.png
    python client.py load malicious_model.pt

Exit code 0: done. 1: the server refused. 2: no server answers, or wrong usage.
"""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import cli

SECONDS = 60


def ask(url: str, method: str, path: str, body: bytes | None, wait: float) -> tuple[int, str]:
    """Send one request; returns the HTTP status and the answer as text. Raises UserError if none comes.

    A server that was started just now needs a moment: the request is sent again for `wait` seconds.
    """
    until = time.monotonic() + wait
    while True:
        try:
            return send(url, method, path, body)
        except (OSError, ValueError, http.client.HTTPException) as error:
            if not isinstance(error, ConnectionRefusedError) or time.monotonic() > until:
                raise cli.UserError(
                    f"No server answers at {url} ({error}): start it with `python serve.py`."
                ) from error
        time.sleep(0.2)


def send(url: str, method: str, path: str, body: bytes | None) -> tuple[int, str]:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=SECONDS)
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.read().decode("utf-8", errors="replace")


def main() -> int:
    """Read the command line, ask, print the answer."""
    arguments = cli.parser(__doc__)
    arguments.add_argument("what", choices=["health", "model", "predict", "load"], help="what to ask for")
    arguments.add_argument("name", nargs="?", help="predict: an image; load: a file in the models folder")
    arguments.add_argument("--url", default="http://127.0.0.1:8000", help="the server")
    arguments.add_argument("--wait", type=float, default=60, help="seconds to wait until a server is there")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    if (args.name is None) != (args.what in ("health", "model")):
        raise cli.UserError("predict and load need a name behind them, health and model do not.")
    if args.what == "predict":
        try:
            image = Path(args.name).read_bytes()
        except OSError as error:
            raise cli.UserError(f"{args.name} cannot be read ({error.strerror}): check the name.") from error
        status, text = ask(args.url, "POST", "/predict", image, args.wait)
    elif args.what == "load":
        order = json.dumps({"path": args.name}).encode()
        status, text = ask(args.url, "POST", "/models/load", order, args.wait)
    else:
        status, text = ask(args.url, "GET", f"/{args.what}", None, args.wait)
    out.say(f"{status} {http.client.responses.get(status, '')}")
    try:
        out.say(json.dumps(json.loads(text), indent=2))  # escapes what could steer the terminal
    except ValueError:
        out.say(ascii(text[:500]))
    return cli.OK if status == http.client.OK else cli.FINDING


if __name__ == "__main__":
    cli.run(main)
