"""What the containers of demos 1 and 2 have in common: no network, no rights, nothing left behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

ONLINE = """
import socket
socket.setdefaulttimeout(5)
try:
    socket.create_connection(("192.0.2.1", 80))
except OSError as error:
    print(error)
print([name for _, name in socket.if_nameindex()])
"""
RIGHTS = """
import os
print(os.getuid(), os.getgid())
for path in ("/new", "/opt/site/new", "/opt/torch/new", "/usr/new"):
    try:
        open(path, "w").close()
    except OSError as error:
        print(path, error.strerror)
print(next(line for line in open("/proc/self/status") if line.startswith("CapEff")).split()[1].strip("0"))
"""


def check_rights(docker: Any, image: str, run: Callable[..., Any]) -> None:
    """The user is nobody in particular, has no capabilities, and cannot write outside of /app and /tmp.

    `run` gives words to Python in a container of this image.
    """
    result = run("-c", RIGHTS)
    assert result.returncode == 0, result.stderr
    ids, *refused, capabilities = result.stdout.splitlines()
    assert ids == "65532 65532"
    assert len(refused) == 4, result.stdout
    assert capabilities == ""
    user = docker("image", "inspect", image, "--format", "{{.Config.User}}").stdout.strip()
    assert user == "65532:65532"


def check_no_network(run: Callable[..., Any]) -> None:
    """There is no way out, and no interface but the loopback. `run` gives words to Python in a container."""
    result = run("-c", ONLINE)
    assert "Network is unreachable" in result.stdout, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "['lo']"


@contextlib.contextmanager
def nothing_stays(docker: Any, image: str) -> Iterator[None]:
    """What is done in it with an image leaves no container and no volume; others may use the engine, too."""
    begin = time.time()

    def seen(*filters: str, what: str) -> list[list[str]]:
        since = ("--since", f"{begin:.9f}", "--until", f"{time.time():.9f}")
        words = [word for one in filters for word in ("--filter", one)]
        return [
            line.split() for line in docker("events", *since, *words, "--format", what).stdout.splitlines()
        ]

    yield
    made = {
        name for (name,) in seen("type=container", "event=create", f"image={image}", what="{{.Actor.ID}}")
    }
    mounted = seen("type=volume", "event=mount", what="{{.Actor.Attributes.container}} {{.Actor.ID}}")
    volumes = {volume for container, volume in mounted if container in made}
    assert made and volumes
    assert not made & set(docker("ps", "--all", "--quiet", "--no-trunc").stdout.split())
    assert not volumes & set(docker("volume", "ls", "--quiet").stdout.split())


def check_nothing_stays(docker: Any, image: str) -> str:
    """A run without arguments leaves nothing. Gives what it said."""
    with nothing_stays(docker, image):
        result = docker.run(image)
        assert result.returncode == 0, result.stderr
    said: str = result.stdout
    return said
