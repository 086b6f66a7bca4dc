"""A model server that trusts or discards: it loads a file only if policy.toml allows it.

    python serve.py --model safe_model.safetensors     starts if the policy holds; else says why not, and ends
    python serve.py                                    starts without a model, loads one on request
    python serve.py --naive                            loads whatever it is told to, as many servers did

Then, from a second terminal (client.py does the same where there is no curl):

    curl http://127.0.0.1:8000/health
    curl http://127.0.0.1:8000/model
    curl --data-binary @circle.png http://127.0.0.1:8000/predict
    curl -d '{"path": "malicious_model.pt"}' http://127.0.0.1:8000/models/load

There is no login: leave it on 127.0.0.1, or behind something that asks who is there.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import socket
import stat
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import torch
import uvicorn
from anyio import to_thread
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import nn

import cli
import policy
import sign_model
from create_malicious_model import MARKER, VARIANTS, is_ours
from inspection.files import everything
from statements.rules import Policy, read_policy
from weights import served

LARGEST_IMAGE = 1_000_000  # bytes of a request for a prediction
LARGEST_ORDER = 10_000  # bytes of a request to load
MOST_DROPPED = 64_000_000  # bytes that are read only to say politely that they are too many
MOST_PIXELS = 4_000_000  # a small file can unfold to a huge image
MOST_FILES = 1000  # in a folder with a model, and folders
MOST_DEPTH = 50  # folders in each other; Python cannot make or delete a thousand
AT_ONCE = 100  # connections; more are told 503


class Refused(Exception):
    """A request that is not done: an HTTP status and the answer, which says why."""

    def __init__(self, status: int, error: str, **more: Any) -> None:
        super().__init__(error)
        self.status, self.answer = status, {"error": error, **more}


@dataclass(frozen=True)
class Loaded:
    """A model in memory and where it came from. Never changed: the next one takes its place as a whole."""

    name: str
    sha256: str
    network: nn.Module
    task: served.Task


class ModelServer:
    """What the server knows and can do, without HTTP."""

    def __init__(self, folder: Path, rules: Policy | None, marker: Path) -> None:
        self.folder, self.rules, self.marker = folder, rules, marker  # rules None: naive
        self.loaded: Loaded | None = None

    def load(self, name: str) -> dict[str, Any]:
        """Load the file of this name, or raise Refused; a refusal leaves the model before in place."""
        with copy_of(self.folder, name, self.rules.max_bytes if self.rules else None) as path:
            try:
                return self.load_trusted(path, self.rules) if self.rules else self.load_naive(path)
            except cli.UserError as error:  # no model, or no model of this demo
                raise Refused(409, policy.without_folder(error, path)) from error

    def load_trusted(self, path: Path, rules: Policy) -> dict[str, Any]:
        """The defence: first the policy, then a loader that runs nothing, whatever the policy says."""
        decision, weights = policy.admit(path, rules)
        if not decision.allowed:
            raise Refused(403, f"{path.name} is refused.", reasons=decision.reasons)
        self.loaded = Loaded(path.name, policy.sha256(path), *served.network(weights, Path(path.name)))
        return {"loaded": path.name, "checks": {check.name: check.words for check in decision.checks}}

    def load_naive(self, path: Path) -> dict[str, Any]:
        """The attack: torch.load without its safe mode. Only for the demo's own harmless files."""
        alike = [variant for variant in VARIANTS.values() if variant.file.suffix == path.suffix]
        ours = next((variant for variant in alike if is_ours(variant, path, self.marker)), None)
        if ours is None:
            raise Refused(403, f"{path.name} is not one of this demo's own files: --naive loads only those.")
        before = self.marker.exists()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Any = ours.fire(path)  # torch.load(path, weights_only=False): the file's code runs here
        ran = {"marker": str(self.marker), "before": before, "after": self.marker.exists()}
        try:
            network, task = served.network(found, Path(path.name))
        except Exception as error:  # the code has run all the same
            raise Refused(409, f"{path.name} holds no model of this demo.", **ran) from error
        self.loaded = Loaded(path.name, policy.sha256(path), network, task)
        return {"loaded": path.name, **ran}

    def predict(self, data: bytes) -> dict[str, Any]:
        """The shape on an image (PNG or JPEG), or Refused."""
        loaded = self.loaded  # taken once: another request may replace it in the meantime
        if loaded is None:
            raise Refused(409, "No model is loaded: POST /models/load first.")
        image = loaded.task.to_tensor(read_image(data))
        with torch.inference_mode():
            scores = loaded.network(image[None]).softmax(1)[0]
        if not scores.isfinite().all():
            raise Refused(409, f"{loaded.name} gives no numbers: its weights are of no use.")
        return {
            "model": loaded.name,
            "class": loaded.task.classes[int(scores.argmax())],
            "scores": {label: round(score, 4) for label, score in zip(loaded.task.classes, scores.tolist())},
        }


@contextmanager
def copy_of(folder: Path, name: str, most: int | None) -> Iterator[Path]:
    """A private copy of a file or folder and its signature: what is checked is what is loaded.

    Without it, somebody could exchange the file between the check and the loading. Raises Refused if the
    name leads out of the folder, or to something that is not an ordinary file, or to one that is too large.
    """
    if name != Path(name).name or name in ("", "..") or not name.isprintable():
        raise Refused(
            400, "path must be the name of a file or folder in the models folder, and nothing else."
        )
    with tempfile.TemporaryDirectory(prefix="model-server-") as scratch:
        copy = Path(scratch) / name
        try:
            if (folder / name).is_dir() and not (folder / name).is_symlink():
                take_folder(folder / name, copy, most)
            else:
                take(folder / name, copy, most)
            signature = sign_model.signature_beside(copy)
            if (folder / signature.name).exists():
                take(folder / signature.name, signature, sign_model.LARGEST)
        except FileNotFoundError:
            raise Refused(404, f"There is no {name} in the models folder.") from None
        except OSError as error:
            raise Refused(400, f"{name} cannot be read ({error.strerror}).") from error
        yield copy


def take(source: Path, copy: Path, most: int | None) -> None:
    """Copy one ordinary file. Follows no link and waits for no pipe."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(source, flags), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Refused(400, f"{source.name} is not a file.")
        if most is not None and size > most:
            raise Refused(
                403, f"{source.name} is refused.", reasons=[f"size: {size} bytes; at most {most} are allowed"]
            )
        with copy.open("wb") as target:
            shutil.copyfileobj(file, target)


def take_folder(source: Path, copy: Path, most: int | None) -> None:
    """Copy a folder of ordinary files. Follows no link; Refused if it is too large or holds nothing."""
    left, number = most, 0
    for found, path in enumerate(everything(source), 1):  # a folder that cannot be read is an OSError
        if found > MOST_FILES:
            raise Refused(400, f"{source.name} holds more than {MOST_FILES} files and folders.")
        inner = path.relative_to(source)
        if len(inner.parts) > MOST_DEPTH:
            raise Refused(400, f"{source.name} holds more than {MOST_DEPTH} folders in each other.")
        if path.is_dir() and not path.is_symlink():
            continue
        target = copy / inner
        target.parent.mkdir(parents=True, exist_ok=True)
        take(path, target, left)
        left = None if left is None else left - target.stat().st_size
        number += 1
    if not number:
        raise Refused(400, f"{source.name} holds no file.")


def read_image(data: bytes) -> Image.Image:
    """Decode a PNG or JPEG image; raises Refused for anything else, and before a huge one unfolds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow only warns of some bad files
            image = Image.open(io.BytesIO(data), formats=["PNG", "JPEG"])
            if image.width * image.height > MOST_PIXELS:
                raise Refused(400, f"The image has more than {MOST_PIXELS} pixels.")
            image.load()
            return image.convert("RGB")
    except Refused:
        raise
    except Exception as error:  # decoders fail in many ways on damaged files
        raise Refused(400, "The body is not a PNG or JPEG image, or it is damaged.") from error


async def body(request: Request, most: int) -> bytes:
    """The body of a request; Refused if it is longer than `most` bytes, whatever its header says.

    No more than `most` bytes are kept. The rest is read and dropped, up to a limit, because many clients
    only read an answer after they have sent all.
    """
    data, size = bytearray(), 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            data += part
        elif size > MOST_DROPPED:
            break
    if size > most:
        raise Refused(413, f"The body is longer than {most} bytes.")
    return bytes(data)


def ordered_name(data: bytes) -> str:
    """The name in an order {"path": name}; Refused if it is anything else."""
    try:
        name = json.loads(data)["path"]
    except (ValueError, TypeError, KeyError, RecursionError):
        name = None
    if not isinstance(name, str):
        raise Refused(400, 'The body must be JSON like {"path": "safe_model.safetensors"}.')
    return name


def application(server: ModelServer, out: cli.Out) -> Starlette:
    """The routes. Work is done in threads, so that /health answers at any time."""
    loading = anyio.CapacityLimiter(1)  # one load at a time: two can not race
    predicting = anyio.CapacityLimiter(os.cpu_count() or 1)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "model": server.loaded and server.loaded.name})

    async def model(request: Request) -> Response:
        if (loaded := server.loaded) is None:
            raise Refused(404, "No model is loaded: POST /models/load first.")
        return JSONResponse({"model": loaded.name, "sha256": loaded.sha256, "classes": loaded.task.classes})

    async def load(request: Request) -> Response:
        name = ordered_name(await body(request, LARGEST_ORDER))
        try:
            answer = await to_thread.run_sync(server.load, name, limiter=loading)
        except Refused as refusal:
            out.say(f"Load {name!r}: {refusal} {'; '.join(refusal.answer.get('reasons', []))}".strip())
            raise
        out.say(f"Load {name!r}: done.")
        return JSONResponse(answer)

    async def predict(request: Request) -> Response:
        image = await body(request, LARGEST_IMAGE)
        return JSONResponse(await to_thread.run_sync(server.predict, image, limiter=predicting))

    async def refuse(request: Request, refusal: Exception) -> Response:
        assert isinstance(refusal, Refused)
        # a body that is far too long is not read to its end, so this connection cannot be used again
        headers = {"Connection": "close"} if refusal.status == 413 else None
        return JSONResponse(refusal.answer, refusal.status, headers)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        out.say("Ready. Ctrl-C ends the server.")
        yield

    routes = [
        Route("/health", health),
        Route("/model", model),
        Route("/models/load", load, methods=["POST"]),
        Route("/predict", predict, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={Refused: refuse}, lifespan=lifespan)


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections on this address. Raises UserError if it cannot be had."""
    try:
        made = socket.create_server((host, port), backlog=2048)
        # send small answers at once: else each waits 40 ms for the client's system to confirm its first half
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
    except (OSError, OverflowError) as error:
        used = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "another program uses it" if used else str(error)
        raise cli.UserError(f"Cannot listen on {host} port {port} ({why}): choose another --port.") from error


def main() -> int:
    """Read the command line, load the model if one is named, serve until Ctrl-C."""
    arguments = cli.parser(__doc__)
    arguments.add_argument("--model", help="a file or folder in the models folder to start with")
    arguments.add_argument("--models", type=Path, default=Path(), help="the folder to load from")
    arguments.add_argument("--policy", type=Path, default=policy.POLICY, help="the rules")
    arguments.add_argument("--naive", action="store_true", help="no rules, no safe loader: the attack")
    arguments.add_argument("--marker", type=Path, default=MARKER, help="the file that payloads write")
    arguments.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container, else leave it")
    arguments.add_argument("--port", type=int, default=8000, help="where to listen")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    if not args.models.is_dir():
        raise cli.UserError(f"{args.models} is not a folder: name the one that holds the models.")
    rules = None if args.naive else read_policy(args.policy)
    torch.set_num_threads(1)  # for one image; the cores work on several images side by side
    server = ModelServer(args.models, rules, args.marker.absolute())
    with listen(args.host, args.port) as place:
        if args.naive:
            out.say("NAIVE: no policy, and weights_only=False. It loads this demo's harmless files only.")
        for rule, value in vars(rules).items() if rules else ():
            if value is None and rule != "evidence":
                out.say(f'Careful: {args.policy} has {rule} = "any", so this check is off.')
        if args.model:
            try:
                server.load(args.model)
            except Refused as refusal:
                if refusal.status != 403:
                    raise cli.UserError(str(refusal)) from refusal
                out.say(f"NOT STARTED: {refusal}", "bold red")
                for reason in refusal.answer.get("reasons", []):
                    out.say(f"- {reason}")
                return cli.FINDING
            out.say(f"Loaded {args.model}.", "bold green")
        out.say(f"Listening on http://{args.host}:{place.getsockname()[1]}")
        uvicorn.Server(
            uvicorn.Config(application(server, out), log_level="warning", limit_concurrency=AT_ONCE)
        ).run(sockets=[place])
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
