"""What went wrong when Grype or Syft gave up, in one sentence with what to do next.

Helper module, not a command: scan.py uses it. Both end with 1 whatever happened: the words must tell.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

LONGEST = 400  # characters of a program's own words


@dataclass(frozen=True)
class Failure:
    """Why one image was not scanned."""

    reason: str  # a part of a sentence, without a full stop
    advice: str
    passing: bool = False  # worth another try right away
    everywhere: bool = False  # the other images would fail just so


REST = r"[^\n]*"
# Each cause: what the programs call it, what we say, what to do next, and what else holds for it.
# The first match decides: what holds for every image comes first.
CAUSES = [
    (
        ("no space left on device", "disk quota exceeded"),
        ("the disk is full", "free some space and try again"),
        {"everywhere": True},
    ),
    (
        ("out of memory", "cannot allocate memory"),
        ("memory ran out", "give it more, or scan fewer at once"),
        {},
    ),
    (
        (f"(checksums did not match|bad db checksum|disk image is malformed){REST}",),
        ("the vulnerability database is damaged", "run `grype db delete`, then connect once or import one"),
        {"everywhere": True},
    ),
    (
        (f"database was built .*ago{REST}",),
        ("the vulnerability database is too old", "connect once, or set GRYPE_DB_VALIDATE_AGE=false"),
        {"everywhere": True},
    ),
    (
        (f"failed to load vulnerability (db|database){REST}", "database does not exist"),
        ("there is no vulnerability database", "connect once, or import one with `grype db import FILE`"),
        {"everywhere": True},
    ),
    (
        (f"(unable to create VEX processor|parsing vex document|VEX document){REST}",),
        ("Grype cannot use the VEX document", "give OpenVEX 0.2 or newer, or CSAF"),
        {"everywhere": True},
    ),
    (
        (f"TOOMANYREQUESTS{REST}", "429 Too Many Requests", "pull rate limit"),
        ("the registry limits pulls", "try again later, or log in with `docker login`"),
        {},
    ),
    (
        (
            f"(UNAUTHORIZED|pull access denied|DENIED|FORBIDDEN|status code 40[13]){REST}",
            "authentication required",
            "no basic auth",
        ),
        ("the registry refuses access", "check the name, or log in with `docker login`"),
        {},
    ),
    (
        (f"(no child with platform|image platform .*does not match|no match for platform){REST}",),
        ("there is no image for that platform", "choose another --platform"),
        {},
    ),
    (
        (f"(NAME|MANIFEST)_UNKNOWN{REST}", "manifest unknown", "repository does not exist"),
        ("the registry has no such image or tag", "check the name"),
        {},
    ),
    (  # the name server cannot be asked where a registry is (another one, with IPv6, might be: that is below)
        (r"dial udp [\d.]+:\d+: connect: network is unreachable",),
        ("this machine has no network", "connect it, or type ./scan.sh --offline"),
        {},  # what lies on this machine can be scanned all the same
    ),
    (
        (
            "no such host",
            "server misbehaving",
            "connection refused",
            "network is unreachable",
            "no route to host",
        ),
        ("the registry cannot be reached", "check the network and the name"),
        {"passing": True},
    ),
    (
        (
            *("i/o timeout", "TLS handshake timeout", "connection reset", "unexpected EOF"),
            *("deadline exceeded", f"stream error: {REST}"),
        ),
        ("the transfer, or the file, was cut off", "try again"),
        {"passing": True},
    ),
    (
        (f"(50[0234] [A-Z]|status code 50[0234]){REST}",),
        ("the registry has trouble of its own", "try again later"),
        {"passing": True},
    ),
    (
        (f"x509: {REST}expired{REST}",),
        ("the registry's certificate is not valid today", "check the clock of this machine"),
        {},
    ),
    (
        (f"x509: {REST}",),
        ("the registry's certificate is not trusted", "set GRYPE_REGISTRY_CA_CERT to that of its authority"),
        {},
    ),
    (
        ("server gave HTTP response to HTTPS client",),
        (
            "the registry speaks plain HTTP",
            "set GRYPE_REGISTRY_INSECURE_USE_HTTP=true if you trust that network",
        ),
        {},
    ),
    (
        (f"(error getting credentials|docker-credential-){REST}",),
        ("the program that keeps Docker's passwords is missing", "mend credsStore in ~/.docker/config.json"),
        {},
    ),
    (
        (f"(unable to decode sbom|sbom format not recognized){REST}",),
        ("it is not a package list that Grype knows", "give one of Syft, CycloneDX or SPDX"),
        {},
    ),
    (
        (f"(unexpected media type|unsupported mediatype){REST}",),
        ("it is not one container image", "give the name of an image, or an archive of one platform"),
        {},
    ),
    (
        (f"(cannot connect to the docker daemon|docker not available|no host address){REST}",),
        ("Docker or Podman does not answer", "start it, or leave its name away to ask the registry"),
        {},
    ),
    (("permission denied",), ("a file may not be read", "check its permissions"), {}),
]


def last_error(errors: str) -> str:
    """The last ERROR message in the log, on one line, without colours and time stamps; else the last line."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", errors)
    message = re.split(r"^\[\d+\]\s*ERROR\s*", text, flags=re.MULTILINE)[-1]
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if crash := re.search(r"^(panic|fatal error): .*", text, flags=re.MULTILINE):  # as Go says it
        lines = [crash.group()]
    elif message is text or len(lines) > 20:  # no such mark: a program that failed in another way
        lines = lines[-1:]
    return " ".join(lines).rstrip(".").removeprefix("* ")


def shorten(message: str, keep_end: bool = False) -> str:
    """At most LONGEST characters. What is cut is the end; or else the beginning, at a colon or a space."""
    if len(message) <= LONGEST:
        return message
    if not keep_end:
        return message[:LONGEST].rpartition(" ")[0] + " ..."
    tail = message[-LONGEST:]
    return "... " + (tail.partition(": ")[2] or tail.partition(" ")[2] or tail)


def explain(errors: str, code: int, program: str = "Grype") -> Failure:
    """Tell from the log and the exit code of a program why it failed."""
    said = last_error(errors)
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return Failure(
            f"{program} was killed by the system",
            "most likely memory ran out: give it more, or scan fewer at once",
        )
    for patterns, (reason, advice), more in CAUSES:
        if found := re.search("|".join(patterns), said, flags=re.IGNORECASE):
            detail = shorten(found.group().strip().rstrip("."))
            return Failure(f"{reason} ({detail})", advice, **more)
    if code < 0 or code > 128:
        number = -code if code < 0 else code - 128
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return Failure(f"{program} was ended by {name}", "try again", passing=True)
    return Failure(
        shorten(said, keep_end=True) or f"{program} ended with {code} and gave no reason",
        f"try again, or a newer {program}",
    )
