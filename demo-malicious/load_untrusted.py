"""Load a file that nobody trusts, inside a container that can reach nothing, and report what happened.

    ./run_sandboxed.sh FILE     starts the container and this script in it; elsewhere it refuses to load

Exit code 0: loaded, and it left no trace. 1: it left a trace, or was stopped. 2: nothing was loaded.

The report is written inside the sandbox, where hostile code could forge it. What protects you are the
flags of `docker run`, not these lines.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import cli

SECONDS = 60  # for loading
SHOWN = 2000  # characters of what the file's code prints
MOST_MEMORY, MOST_PROCESSES = 8 * 2**30, 1000  # above these there is no real limit
LIMITS = {  # where the kernel tells a container's limits: today's control groups, and those before
    "memory": ("memory.max", "memory/memory.limit_in_bytes"),
    "processes": ("pids.max", "pids/pids.max"),
}
OWN_MOUNTS = {"overlay", "tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"}
# its disk, its copy of the image's /app, and what Docker writes anew for each container
ENGINE_FILES = {"/", "/app", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts"}
TMP = Path("/tmp")

Probe = tuple[str, bool, str]  # what was tried, does the sandbox hold, in words


def probes() -> list[Probe]:
    """Try to get out, with the rights that the file's code will have."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    rights = [int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")]
    return [
        network(),
        writable(),
        mounts(),
        ("administrator", os.getuid() != 0, f"user id {os.getuid()}"),
        ("capabilities", not any(rights), f"{rights[1].bit_count()} in force"),
        (
            "new rights through other programs",
            status["NoNewPrivs"] == "1",
            f"NoNewPrivs {status['NoNewPrivs']}",
        ),
        limit("memory", MOST_MEMORY),
        limit("processes", MOST_PROCESSES),
    ]


def network() -> Probe:
    """Connect to an address that is kept for examples: without a network even trying is an error."""
    others = [name for _, name in socket.if_nameindex() if name != "lo"]
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=3).close()
        answer = "connected"
    except OSError as error:
        answer = error.strerror or str(error)
    return (
        "network",
        not others and answer == "Network is unreachable",
        f"{answer}; interfaces: {others or 'none'}",
    )


def writable() -> Probe:
    """Write outside /tmp."""
    places = []
    for folder in ("/", "/app", "/etc", "/opt/site", "/usr", "/var/tmp", "/home", "/dev", "/dev/shm"):
        try:
            probe = Path(folder) / "probe"
            probe.touch()
            probe.unlink()
            places.append(folder)
        except OSError:
            continue
    places = [place for place in places if place != "/dev/shm"]  # memory, too, and it counts as such
    return "files outside /tmp", not places, f"writable: {', '.join(places) or 'none'}"


def mounts() -> Probe:
    """Files of the machine itself: mounts that are not of the kinds that every container has."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    foreign = {words[4] for words in lines if words[words.index("-") + 1] not in OWN_MOUNTS}
    names = ", ".join(sorted(foreign - ENGINE_FILES)) or "none"
    return "files of your machine", names == "none", f"mounted: {names}"


def limit(what: str, most: int) -> Probe:
    """A limit that the kernel holds."""
    for name in LIMITS[what]:
        path = Path("/sys/fs/cgroup") / name
        if path.is_file() and (text := path.read_text().strip()) != "max" and int(text) <= most:
            return f"unlimited {what}", True, f"at most {int(text)}"
    return f"unlimited {what}", False, "no limit is set"


def load(path: Path) -> None:
    """What the whole demo warns of. This runs in a process of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.suffix in (".joblib", ".pkl"):
            import joblib  # noqa: PLC0415 (only what is needed: this is the process that may be taken over)

            found = joblib.load(path)
        elif path.suffix == ".pt2":
            import torch  # noqa: PLC0415

            found = torch.export.load(path)
        elif path.suffix in (".pickle", ".safetensors"):  # a SafeTensors file can be a pickle as well
            import pickle  # noqa: PLC0415

            with path.open("rb") as file:
                found = pickle.load(file)
        else:
            import torch  # noqa: PLC0415

            found = torch.load(path, weights_only=False)
    print(f"Loading gave back: {type(found).__name__}", flush=True)


def files() -> dict[Path, float]:
    """All files in /tmp and when they were changed."""
    return {path: path.lstat().st_mtime for path in TMP.rglob("*") if not path.is_dir()}


def others() -> list[str]:
    """The processes of this container except this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if folder.name != str(os.getpid()):
            try:
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:  # it has ended in the meantime
                continue
    return [command.strip() for command in found if command.strip()]


def visible(text: str) -> str:
    """The text with control characters written out: hostile output must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def watch(path: Path, out: cli.Out) -> int:
    """Load the file in a process of its own and tell what it printed, wrote and left running."""
    said = TMP / "said.txt"
    with said.open("w") as stream:
        command = [sys.executable, __file__, "--load", str(path)]
        before = files()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        try:
            code = child.wait(SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
            out.say(f"Stopped after {SECONDS} seconds.")
    with said.open(errors="replace") as stream:
        for line in visible(stream.read(SHOWN)).splitlines():
            out.say(f"| {line}")
    if code < 0:
        out.say(f"The process was ended by {signal.Signals(-code).name}: a limit, or its own doing.")
    elif code > 0:
        out.say(f"The process ended with code {code}: no model, or its code ended it.")

    out.heading("3. What it left")
    new = [name for name, changed in files().items() if before.get(name) != changed and name != said]
    for name in new:
        words = "a link" if name.is_symlink() else visible(name.open(errors="replace").read(80)).strip()
        out.say(f"Wrote {visible(str(name))}: {words}", "bold red")
    running = others()
    for command_line in running:
        out.say(f"Still running: {visible(command_line)}", "bold red")
    if not new and not running:
        out.say("No new file in /tmp, no process.")
    out.say("All of this was in the memory of a container without a disk of its own: it ends with it.")
    if new or running or code < 0:
        return cli.FINDING
    return cli.ERROR if code else cli.OK


def main() -> int:
    """Read the command line, look whether this is a sandbox, and only then load."""
    arguments = cli.parser(__doc__)
    arguments.add_argument(
        "name", type=Path, help="what the file is called; its bytes come on standard input"
    )
    arguments.add_argument("--load", action="store_true", help="(used by the script itself) load NAME now")
    args = arguments.parse_args()
    out = cli.Out(args.plain)
    if not Path("/proc/self/mountinfo").is_file():
        raise cli.UserError("This is not a container: nothing was loaded; use ./run_sandboxed.sh FILE.")
    tried = probes()
    holes = [what for what, held, _ in tried if not held]
    if args.load and not holes:
        try:
            load(args.name)
        except Exception as error:
            print(f"Could not be loaded: {type(error).__name__}: {str(error)[:300]}")
            return cli.ERROR
        return cli.OK
    out.heading("1. What code in this container can reach (tried just now)")
    out.table(
        "Ways out",
        ["way out", "answer", "why"],
        [(a, "closed" if held else "OPEN", b) for a, held, b in tried],
    )
    if holes:
        raise cli.UserError(
            f"This is not a sandbox (open: {', '.join(holes)}): nothing was loaded; use run_sandboxed.sh."
        )
    path = TMP / f"untrusted{args.name.suffix}"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        if not file.tell():
            raise cli.UserError(f"{args.name} is empty: nothing was loaded.")
    out.heading(f"2. Load {visible(args.name.name)} without the safe mode, as people used to")
    return watch(path, out)


if __name__ == "__main__":
    cli.run(main)
