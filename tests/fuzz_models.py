"""Fuzzing demo 1: hostile model files through every command, with a watch on time, memory and the disk.

    python tests/fuzz_models.py                        every trick and 500 random mutations
    python tests/fuzz_models.py --count 20000 --seed 7 the long run; with --one, each file through one command
    python tests/fuzz_models.py --target inspect       one command only
    python tests/fuzz_models.py --keep DIR             keep the files that broke something
    python tests/fuzz_models.py --busy                 beside other work: seconds of the processor count

The commands run in a worker process (importing PyTorch for each file would take hours), which is watched
from outside: 10 seconds and 1 GB for each file. A worker that breaks a limit is stopped and replaced.
Exit code 0: nothing found. 1: something was found; the report names the file, the command and the seed.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import itertools
import json
import lzma
import os
import pickle
import random
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "demo-malicious")]

import fuzz_files  # noqa: E402
from fuzz_files import ModelFile  # noqa: E402

SECONDS, BYTES = 10, 10**9  # what one file may cost
LONGEST_WAIT = 30  # times SECONDS, where seconds of the processor count
KEYS = ("signer.key", "signer.pub")

# name of the target -> (script, arguments; FILE is the hostile file)
TARGETS = {
    "inspect": ("inspect_model", ["FILE"]),
    "convert": ("safe_demo", ["convert", "FILE", "--out", "converted.safetensors"]),
    "load": ("safe_demo", ["load", "FILE"]),
    "sign": ("sign_model", ["sign", "FILE"]),
    "verify": ("sign_model", ["verify", "FILE"]),
    "check": ("policy", ["check", "FILE", "--policy", "lax.toml"]),
    "serve": ("serve", ["--model", "FILE", "--policy", "lax.toml", "--port", "0"]),
    "http": ("fuzz_http", ["FILE"]),
}
# only for the test of the fuzzer itself
FAULTY = {"naive": ("naive_command", ["FILE"])}
# a policy that lets every file reach the check that has to read it
LAX = 'max_bytes = "any"\ndigests = "any"\ntrusted_keys = "any"\nformats = ["scanned clean"]\n'


@dataclass
class Answer:
    """What one command did with one file."""

    code: int = 0
    stdout: str = ""
    stderr: str = ""
    events: list[str] = field(default_factory=list)  # forbidden things it did or tried to do
    disallowed: list[str] = field(default_factory=list)  # imported by loading, although called clean
    seconds: float = 0.0
    megabytes: int = 0  # the most it used at a time, with its child processes
    broken: str = ""  # why it was stopped, or how it ended, if it did not come back


def command(target: str) -> tuple[str, list[str]]:
    """The script and the arguments of a target."""
    return (TARGETS | FAULTY)[target]


# --- the worker: runs commands, one after the other ---------------------------------------------------------


def work(box: Path, targets: Iterable[str]) -> None:
    """Answer each line of standard input, {"target": ..., "file": ...}, with one line of JSON."""
    import torch  # noqa: PLC0415

    if "serve" in targets:
        import uvicorn  # noqa: PLC0415

        uvicorn.Server.run = lambda *_, **__: None  # type: ignore[method-assign]  # it would wait for requests
    if "convert" in targets:
        import torchvision.models  # noqa: F401, PLC0415 (at import it makes a cache folder in /tmp)
    torch.set_num_threads(1)
    from weights import limits  # noqa: PLC0415

    scripts = {command(name)[0]: __import__(command(name)[0]) for name in targets}
    answers = os.fdopen(os.dup(1), "w")
    requests = os.fdopen(os.dup(0), "r")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    streams = [(box.parent / name).open("w+b") for name in ("stdout", "stderr")]
    for number, stream in enumerate(streams, 1):  # the descriptors, so that C code is heard, too
        os.dup2(stream.fileno(), number)
    events = watch(box)
    print("ready", file=answers, flush=True)
    for line in requests:
        request = json.loads(line)
        for stream in streams:
            stream.seek(0)
            stream.truncate()
        events.clear()
        script, arguments = command(request["target"])
        code = run(scripts[script], [request["file"] if word == "FILE" else word for word in arguments])
        for stream in streams:
            stream.seek(0)
        said = [stream.read().decode(errors="backslashreplace") for stream in streams]
        answer = {"code": code, "stdout": said[0], "stderr": said[1], "events": list(events)}
        if code == 0 and request["target"] in ("inspect", "check", "serve", "http"):
            with limits.memory_limit(300_000_000):  # of the check, not of the command
                answer["disallowed"] = disallowed_names(Path(request["file"]))
        print(json.dumps(answer), file=answers, flush=True)


def run(script: ModuleType, arguments: list[str]) -> int:
    """Run a script's command line in this process. Returns its exit code; -1 after an exception."""
    import cli  # noqa: PLC0415

    sys.argv = [str(script.__file__), *arguments]
    try:
        cli.run(script.main)
    except SystemExit as ending:
        return int(ending.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # prints the traceback, as it would without us
    return -1


def watch(box: Path) -> list[str]:
    """Note every forbidden thing that Python does from now on: write elsewhere, start programs, connect."""
    seen: list[str] = []
    allowed = (str(box / "out"), str(box / "tmp"), "/dev/")
    changes = {
        "os.mkdir",
        "os.rename",
        "os.remove",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.chmod",
        "os.truncate",
    }

    def look(event: str, details: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = details
            if isinstance(path, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                return
        elif event == "subprocess.Popen":
            if details[1][0] != sys.executable:  # a scanner may work in a Python process of its own
                seen.append(f"started {details[1]}")
            return
        elif event == "socket.connect" and details[1][0] == "127.0.0.1" and "fuzz_http" in sys.modules:
            return  # to our own server, which cannot be told from others on this machine
        elif event in ("os.system", "os.exec", "os.posix_spawn", "socket.connect"):
            seen.append(f"{event} {details}"[:200])
            return
        elif event in changes:
            path = details[0]
        else:
            return
        place = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (resolve() would follow links)
        if not place.startswith(allowed):
            seen.append(f"{event} {place}")

    sys.addaudithook(look)
    return seen


def disallowed_names(path: Path) -> list[str]:
    """What torch.load without its safe loader would import from a file that a scanner called clean.

    This loads the file, but every import is replaced by something that does nothing, and is only noted.
    """
    import torch  # noqa: PLC0415
    from joblib.numpy_pickle import NumpyUnpickler  # noqa: PLC0415
    from torch._weights_only_unpickler import _get_allowed_globals  # noqa: PLC0415

    from inspection.names import JOBLIB_ARRAY, is_data  # noqa: PLC0415

    allowed = _get_allowed_globals()
    noted: set[str] = set()

    def found_name(module: str, name: str) -> str:
        if "\0" in module:  # no file has such a name, so every loader stops here
            raise ModuleNotFoundError(module)
        return fuzz_files.full_name(module, name)

    class Noting(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            full = found_name(module, name)
            if full in allowed and full != "builtins.bytearray":
                return super().find_class(module, name)
            noted.add(full)
            return fuzz_files.Nothing

    class Blind(Noting):
        """The same, but nothing at all is really imported, so that nothing keeps it from reading on."""

        def find_class(self, module: str, name: str) -> Any:
            noted.add(found_name(module, name))
            return fuzz_files.Nothing

        def persistent_load(self, _: Any) -> Any:
            return fuzz_files.Nothing()

    class Joblib(NumpyUnpickler):
        """joblib's own reader, which goes on behind the numbers of an array; only arrays are made."""

        def find_class(self, module: str, name: str) -> Any:
            noted.add(full := found_name(module, name))
            arrays = (JOBLIB_ARRAY, "numpy.dtype", "numpy.ndarray")
            return super().find_class(module, name) if full in arrays else fuzz_files.Nothing

    class Pickle:
        Unpickler, __name__ = Noting, "pickle"

        @staticmethod
        def load(file: Any, **options: Any) -> Any:
            return Noting(file, **options).load()

    # it need not load; what it imported up to there counts
    with suppress(Exception), path.open("rb") as file:
        torch.load(file, map_location="cpu", weights_only=False, pickle_module=Pickle)
    data = path.read_bytes()
    for part in parts_of(data):  # people load these with pickle itself, or with what unpacks them
        with suppress(Exception):
            Blind(io.BytesIO(part)).load()
        with suppress(Exception):
            Joblib("", io.BytesIO(part), ensure_native_byte_order=False).load()
    return sorted(name for name in noted - set(allowed) - {JOBLIB_ARRAY} if not is_data(name))


def parts_of(data: bytes, depth: int = 0) -> Iterator[bytes]:
    """The file, and what Python finds in it: unpacked, as members, behind the header of an array."""
    yield data
    if depth > 3:
        return
    for unpack in (zlib.decompress, gzip.decompress, bz2.decompress, lzma.decompress):
        with suppress(Exception):
            yield from parts_of(unpack(data)[:10_000_000], depth + 1)
    if data[:6] == b"\x93NUMPY":
        yield data[10 + int.from_bytes(data[8:10], "little") :]
    with suppress(Exception), zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist()[:100]:
            if member.file_size < 10_000_000 and not re.search(r"/data/\d+$", member.filename):
                yield from parts_of(archive.read(member), depth + 1)


# --- the harness: gives the worker files and watches it -----------------------------------------------------


class Worker:
    """A worker process that is replaced whenever it breaks a limit."""

    def __init__(self, folder: Path, targets: list[str], busy: bool = False) -> None:
        self.busy = busy  # count seconds of the processor
        self.command = [sys.executable, __file__, *(word for name in targets for word in ("--target", name))]
        self.box = folder / "box"
        self.out, self.tmp, self.marker = self.box / "out", self.box / "tmp", self.box / "marker"
        self.out.mkdir(parents=True)
        self.tmp.mkdir()
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        """Start the process, if none is there, and wait until it has imported everything."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [*self.command, "--worker", str(self.box)],
                cwd=self.out,
                env=os.environ
                | {"TMPDIR": str(self.tmp), "HOME": str(self.tmp), "PYTHONDONTWRITEBYTECODE": "1"}
                | {"OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            assert self.process.stdout
            assert self.process.stdout.readline() == "ready\n", "the worker did not start"
        return self.process

    def stop(self) -> None:
        """Stop the process and all that it started."""
        if self.process:
            with_children = [self.process.pid, *children(self.process.pid)]
            for pid in with_children:
                kill(pid)
            self.process.communicate()
            self.process = None

    def ask(self, target: str, file: str) -> Answer:
        """Run one command on one file in out/; stop it at 10 seconds or 1 GB."""
        process = self.start()
        assert process.stdin and process.stdout
        libraries = forget_peak(process.pid)
        start, used = time.monotonic(), processor(process.pid)
        process.stdin.write(json.dumps({"target": target, "file": file}) + "\n")
        process.stdin.flush()
        most = 0
        while not select.select([process.stdout], [], [], 0.02)[0]:
            most = max(most, sum(map(memory, [process.pid, *children(process.pid)])))
            waited = time.monotonic() - start
            seconds = processor(process.pid) - used if self.busy else waited
            if most > BYTES or seconds > SECONDS or waited > SECONDS * LONGEST_WAIT:
                why = f"more than {BYTES // 10**6} MB" if most > BYTES else f"more than {SECONDS} seconds"
                self.stop()
                return Answer(broken=why, seconds=seconds, megabytes=most // 10**6)
        seconds = processor(process.pid) - used if self.busy else time.monotonic() - start
        most = max(most, memory(process.pid, "VmHWM:") - libraries)
        line = process.stdout.readline()
        if not line:
            self.stop()
            return Answer(broken=f"the process died ({process.returncode})", seconds=seconds)
        answer = Answer(**json.loads(line), seconds=seconds, megabytes=most // 10**6)
        if most > BYTES:
            answer.broken = f"more than {BYTES // 10**6} MB"
        return answer


def memory(pid: int, what: str = "RssAnon:") -> int:
    """Bytes of memory that a process holds, without libraries and other files. 0 where there is no /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(what))


def processor(pid: int) -> float:
    """Seconds of the processor that a process and its ended children have used. 0 where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def forget_peak(pid: int) -> int:
    """Start VmHWM (the peak) anew, for the next command. Returns the bytes of libraries that it includes."""
    with suppress(OSError):  # without it, the peak of all commands so far counts, which is stricter
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return memory(pid, "RssFile:")


def children(pid: int) -> list[int]:
    """All processes below this one."""
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct = [int(word) for word in listing.read_text().split()]
        except OSError:
            continue
        found += [below for child in direct for below in (child, *children(child))]
    return found


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, 9)


@dataclass
class Finding:
    """A file that broke a rule, and which."""

    file: ModelFile
    target: str
    problems: list[str]
    answer: Answer


@dataclass
class Summary:
    """What came of all tries so far."""

    files: int = 0
    codes: Counter[str] = field(default_factory=Counter)  # "inspect 0" -> how often
    slowest: tuple[float, str] = (0.0, "")
    largest: tuple[int, str] = (0, "")
    findings: list[Finding] = field(default_factory=list)

    def add(self, file: ModelFile, target: str, answer: Answer, problems: list[str]) -> None:
        """Count one command on one file."""
        name = f"{target}: {file.name}"
        self.codes[f"{target} {answer.broken or answer.code}"] += 1
        self.slowest = max(self.slowest, (answer.seconds, name))
        self.largest = max(self.largest, (answer.megabytes, name))
        if problems:
            self.findings.append(Finding(file, target, problems, answer))


class Fuzzer:
    """Tries files: writes them into the output folder, runs commands on them, looks at what happened."""

    def __init__(self, folder: Path, targets: Iterable[str] = TARGETS, busy: bool = False) -> None:
        self.targets = list(targets)
        self.worker = Worker(folder, self.targets, busy)
        self.summary = Summary()
        self.seeds = fuzz_files.seeds(self.worker.marker)
        self.others = fuzz_files.other_formats(self.worker.marker)
        self.signatures = self.sign_seeds() if {"sign", "verify"} & set(self.targets) else []
        (self.worker.out / "lax.toml").write_text(LAX)
        self.kept = {path.name: path.read_bytes() for path in self.worker.out.iterdir()}

    def sign_seeds(self) -> list[ModelFile]:
        """Make keys, sign two seeds, and return their signatures, which are hostile files to be, too."""
        import sign_model  # noqa: PLC0415

        key, public = (self.worker.out / name for name in KEYS)
        sign_model.keygen(key, public)
        made = []
        for seed in (seed for seed in self.seeds if seed.name in ("clean zip", "safetensors")):
            path = self.worker.out / f"signed{seed.suffix}"
            path.write_bytes(seed.data)
            signature = sign_model.sign(path, key)
            made.append(ModelFile(f"signature of {seed.name}", f"{seed.suffix}.sig", signature.read_bytes()))
            signature.unlink()
        return made

    def tricks(self) -> list[ModelFile]:
        """The hostile files made by hand."""
        return [*self.seeds, *self.others, *self.signatures, *fuzz_files.tricks(self.worker.marker)]

    def mutated(self, rng: random.Random) -> ModelFile:
        """A random hostile file; one in ten is a signature."""
        if self.signatures and rng.random() < 0.1:
            return fuzz_files.mutate(self.signatures, rng)
        return fuzz_files.mutate([*self.seeds, *self.others], rng)

    def try_file(self, file: ModelFile, targets: Iterable[str] = ()) -> list[str]:
        """Run these commands (or all) on one file. Returns what was wrong, in words."""
        self.summary.files += 1
        problems: list[str] = []
        for target in targets or self.targets:
            is_signature = file.suffix.endswith(".sig")
            if is_signature and target != "verify":
                continue
            names = self.write(file, target)
            answer = self.worker.ask(target, names[0])
            found = [*rules_broken(answer), *self.look_at_disk(target, answer, names)]
            if target == "verify" and not is_signature and answer.code == 0:
                found.append("verified a file that nobody signed")
            self.summary.add(file, target, answer, found)
            problems += [f"{target}: {problem}" for problem in found]
        return problems

    def write(self, file: ModelFile, target: str) -> list[str]:
        """Put the hostile file (for verify: with a signature) into out/. Returns names, the model first."""
        model = self.worker.out / f"hostile{file.suffix}"
        model.write_bytes(file.data)
        if file.suffix.endswith(".sig"):
            shutil.copy(self.worker.out / f"signed{model.stem[7:]}", model.with_suffix(""))
            return [model.stem, model.name]
        # a mutation can write what was there before; with that signature it is verified, as it should be
        if target == "verify" and self.signatures and all(file.data != seed.data for seed in self.seeds):
            signature = self.worker.out / f"{model.name}.sig"
            signature.write_bytes(self.signatures[0].data)
            return [model.name, signature.name]
        return [model.name]

    def look_at_disk(self, target: str, answer: Answer, names: list[str]) -> list[str]:
        """Check that only the converted file is new, and put everything back in its place."""
        box, out = self.worker.box, self.worker.out
        expected = {"out", "tmp", *(f"out/{name}" for name in (*names, *self.kept))}
        if target == "convert" and answer.code == 0 and not answer.broken:
            expected.add("out/converted.safetensors")
        if target == "sign" and answer.code == 0 and not answer.broken:
            expected.add(f"out/{names[0]}.sig")
        there = {str(path.relative_to(box)) for path in box.rglob("*")}
        if answer.broken:  # a process that is killed cannot tidy up
            there -= {name for name in there if name.startswith("tmp/") or "/." in name}
        problems = [f"wrote {name}" for name in sorted(there - expected)]
        problems += [f"removed {name}" for name in sorted(expected - there)]
        for name, data in self.kept.items():
            if f"out/{name}" in there and (out / name).read_bytes() != data:
                problems.append(f"changed {name}")
            (out / name).write_bytes(data)
        for path in [*box.iterdir(), *out.iterdir(), *self.worker.tmp.iterdir()]:
            if path not in (out, self.worker.tmp) and path.name not in self.kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return problems


def rules_broken(answer: Answer) -> list[str]:
    """Which of the rules for bad input this answer breaks, in words."""
    if answer.broken:
        return [answer.broken]
    problems = list(answer.events)
    if answer.code not in (0, 1, 2):
        problems.append(f"exit code {answer.code}")
    if "Traceback" in answer.stdout + answer.stderr:
        problems.append("a traceback: " + answer.stderr.strip().splitlines()[-1])
    lines = answer.stderr.splitlines()
    if answer.code == 2 and not (len(lines) == 1 and lines[0].startswith("error: ")):
        problems.append(f"code 2 without one sentence on stderr: {lines}")
    if answer.code in (0, 1) and lines:
        problems.append(f"code {answer.code} with words on stderr: {lines[:3]}")
    if strange := {c for c in answer.stdout + answer.stderr if not c.isprintable() and c not in "\n\t"}:
        problems.append(f"control characters in the output: {sorted(strange)}")
    if answer.disallowed:
        problems.append(f"called clean, but loading would import {', '.join(answer.disallowed)}")
    return problems


@contextmanager
def fuzzer(targets: Iterable[str] = TARGETS, busy: bool = False) -> Iterator[Fuzzer]:
    """A fuzzer in a folder of its own, which is removed in the end."""
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        made = Fuzzer(Path(folder), targets, busy)
        try:
            yield made
        finally:
            made.worker.stop()


def report(summary: Summary) -> None:
    """Print the figures and each finding."""
    print(f"Files tried: {summary.files}; commands run: {sum(summary.codes.values())}")
    for name, count in sorted(summary.codes.items()):
        print(f"  {name}: {count}")
    print(f"Slowest: {summary.slowest[0]:.1f} seconds, {summary.slowest[1]}")
    print(f"Most memory: {summary.largest[0]} MB, {summary.largest[1]}")
    print(f"Findings: {len(summary.findings)}")
    for finding in summary.findings:
        print(f"- {finding.target}: {finding.file.name}")
        for problem in finding.problems:
            print(f"    {problem[:300]}")


def main() -> int:
    """Read the command line, try the files, report."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--count", type=int, default=500, help="how many random mutations")
    arguments.add_argument("--seed", type=int, default=0, help="the same seed makes the same mutations")
    arguments.add_argument("--target", action="append", choices=[*TARGETS, *FAULTY], help="only this command")
    arguments.add_argument("--one", action="store_true", help="each mutation through one command, in turn")
    arguments.add_argument("--busy", action="store_true", help="count seconds of the processor (Linux)")
    arguments.add_argument("--keep", type=Path, metavar="DIR", help="write the files of findings there")
    arguments.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.worker:
        work(args.worker, args.target or TARGETS)
        return 0
    rng = random.Random(args.seed)
    with fuzzer(args.target or TARGETS, args.busy) as trying:
        files = itertools.chain(trying.tricks(), (trying.mutated(rng) for _ in range(args.count)))
        for number, file in enumerate(files):
            turn = "verify" if file.suffix.endswith(".sig") else trying.targets[number % len(trying.targets)]
            for problem in trying.try_file(file, [turn] if args.one else []):
                print(f"{file.name}: {problem}"[:300], file=sys.stderr)
            if trying.summary.files % 500 == 0:
                found = len(trying.summary.findings)
                print(f"{trying.summary.files} files, {found} findings", file=sys.stderr)
        report(trying.summary)
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
            for number, finding in enumerate(trying.summary.findings):
                (args.keep / f"{number:03}{finding.file.suffix}").write_bytes(finding.file.data)
    return 1 if trying.summary.findings else 0


if __name__ == "__main__":
    sys.exit(main())
