"""Scan container images with Grype and print one table that compares them.

    python scan.py                       # the images of images.txt
    python scan.py debian:12 alpine:3    # others; also dir:FOLDER, file:FILE, sbom:FILE, docker:NAME:TAG
    python scan.py --recorded            # no internet: scans that others published, with date and source
    python scan.py --offline             # no internet: scans the package lists (SBOMs) in results/ again
    python scan.py --fail-on high        # exit code 1 if one has a High, a Critical or a known-exploited one
    python scan.py --diff BEFORE AFTER   # two reports: what is gone, fixed, suppressed, new

`./scan.sh` calls this with your Grype, or in this demo's own image. Grype reads an image straight from its
registry: no Docker needed for that. Where Syft is installed, it lists the packages for Grype.
For each image results/ gets Grype's report (.json) and the list of all packages, the SBOM (.syft.json or
.cdx.json); the table is there too, as comparison.md, .csv and .svg. Exit codes: 0 fine, 1 --fail-on found
something, 2 something went wrong.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from threading import Event, Lock

import console
from console import UserError
from reports import difference, recorded_scans, table
from reports.failures import Failure, explain
from reports.grype_report import (
    KNOWN_EXPLOITED,
    RESULTS,
    SBOM_ENDINGS,
    SEVERITIES,
    Finding,
    Scan,
    read_json,
    read_scan,
    report_name,
)
from reports.sources import check_names, lists_in, read_images, source_of

HERE = Path(__file__).resolve().parent
IMAGES = HERE / "images.txt"
STILL_THERE = 15  # seconds between two signs of life while an image is scanned

NOT_TRIED = Failure("not tried, because it would fail just so", "mend the other failure first")


class ScanError(Exception):
    """One image could not be scanned; the failure says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


@dataclass
class Scanner:
    """The programs and options of one run, and what its parallel scans share."""

    grype: str
    syft: str | None
    args: Namespace
    stop: Event = field(default_factory=Event)  # we were told to end, or every other scan would fail, too
    talk: Lock = field(default_factory=Lock)
    turn: Lock = field(default_factory=Lock)  # one Grype at a time, until one has fetched its database
    ready: Event = field(default_factory=Event)

    def say(self, text: str) -> None:
        """One line about progress."""
        with self.talk:
            print(text, file=sys.stderr, flush=True)

    def scan(self, image: str, report: Path) -> None:
        """Scan one image: writes Grype's report and, beside it, the SBOM. Raises ScanError.

        The user's GRYPE_... settings (offline database, login, ignore rules) reach Grype as they are.
        """
        if self.syft and not image.startswith("sbom:"):
            sbom = beside(report, ".syft.json")
            self.run(
                [self.syft, "scan", source_of(image), *self.platform(), "-o", f"syft-json={sbom}"],
                image,
                sbom,
            )
            command, made = [self.grype, f"sbom:{sbom}"], []
        else:  # one run, two outputs: the findings, and all packages, which the findings alone do not have
            command = [self.grype, source_of(image), *self.platform()]
            made = ["-o", f"cyclonedx-json={beside(report, '.cdx.json')}"]
        for document in self.args.vex:
            command += ["--vex", str(document)]
        if self.args.only_fixed:
            command += ["--only-fixed"]
        command += ["-o", f"json={report}", *made]
        if not self.ready.is_set():
            with self.turn:
                if not self.ready.is_set():
                    self.run(command, image, report)
                    self.ready.set()
                    return
        self.run(command, image, report)

    def platform(self) -> list[str]:
        """The option for an image of several platforms."""
        return ["--platform", self.args.platform] if self.args.platform else []

    def run(self, command: list[str], image: str, output: Path) -> None:
        """Print a command, run it, and raise ScanError unless it wrote its output."""
        if self.stop.is_set():
            raise ScanError(NOT_TRIED)
        program = "Syft" if command[0] == self.syft else "Grype"
        self.say("$ " + shlex.join([program.lower(), *command[1:]]))
        log = output.with_name(output.name + ".log")
        try:
            with log.open("w", encoding="utf-8") as errors:
                process = subprocess.Popen(
                    command,
                    env=settings(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                )
                try:
                    self.wait(process, image)
                finally:
                    process.kill()  # does nothing when it has ended
                    process.wait()
        except OSError as error:
            raise ScanError(
                Failure(f"{command[0]} does not start ({error.strerror})", "install it again")
            ) from error
        # 2 means that the user's own GRYPE_FAIL_ON_SEVERITY was reached: the scan itself is complete
        if process.returncode != 0 and not (process.returncode == 2 and output.exists()):
            said = log.read_text(encoding="utf-8", errors="replace")
            failure = explain(said, process.returncode, program)
            if failure.everywhere:
                self.stop.set()
            raise ScanError(failure)

    def wait(self, process: subprocess.Popen[bytes], image: str) -> None:
        """Wait for a program and say every few seconds that it is still at work."""
        started, signs = time.monotonic(), 1
        while True:
            try:
                process.wait(timeout=0.2)
                return
            except subprocess.TimeoutExpired:
                seconds = time.monotonic() - started
            if self.stop.is_set():
                raise ScanError(Failure("stopped", "try again"))
            if seconds > self.args.timeout:
                raise ScanError(
                    Failure(f"no answer within {self.args.timeout} seconds", "allow more with --timeout")
                )
            if seconds > signs * STILL_THERE:
                signs += 1
                self.say(f"  still scanning {image}: {seconds:.0f} seconds")


def settings() -> dict[str, str]:
    """The user's environment for Grype and Syft; what Grype is told about registries holds for Syft, too."""
    env = {"GRYPE_CHECK_FOR_APP_UPDATE": "false", "SYFT_CHECK_FOR_APP_UPDATE": "false", **os.environ}
    for name, value in os.environ.items():
        if name.startswith("GRYPE_REGISTRY_") or name == "GRYPE_EXCLUDE":
            env.setdefault("SYFT" + name.removeprefix("GRYPE"), value)
    return env


def beside(report: Path, ending: str) -> Path:
    """The SBOM that belongs to a report: a.json -> a.cdx.json."""
    return report.with_name(report.name.removesuffix(".json") + ending)


def keep(report: Path, results: Path) -> None:
    """Move a report and its SBOM to the results; an older SBOM in the other format goes."""
    for ending in SBOM_ENDINGS:
        made = beside(report, ending)
        if made.exists():
            made.replace(results / made.name)
        else:
            (results / made.name).unlink(missing_ok=True)
    report.replace(results / report.name)


def scan_one(scanner: Scanner, image: str, place: str) -> Scan | Failure:
    """Scan one image, again if the network failed; gives the scan, or why there is none."""
    results, failure = scanner.args.results, NOT_TRIED
    for attempt in range(scanner.args.retries + 1):
        if scanner.stop.is_set():
            return failure
        started = time.monotonic()
        scanner.say(f"Scanning {place}: {image}" + (f", try {attempt + 1}" if attempt else ""))
        try:
            with console.scratch(results) as folder:
                report = folder / report_name(image)
                scanner.scan(image, report)
                found = read_scan(report, image)  # reads it before it counts as a result
                keep(report, results)
            scanner.say(f"  done: {image}, {time.monotonic() - started:.0f} seconds")
            return found
        except ScanError as error:
            failure = error.failure
        except UserError:
            failure = Failure("Grype's report cannot be read", "try again")
        except OSError as error:
            failure = Failure(f"a file cannot be written ({error.strerror})", "free some space and try again")
        scanner.say(f"  not scanned: {image}: {failure.reason}")
        if not failure.passing:
            break
        scanner.stop.wait(attempt + 1)
    return failure


def scan_all(scanner: Scanner, images: list[str]) -> tuple[dict[str, Scan], dict[str, Failure]]:
    """Scan the images, some at a time. Gives the scans, and for each image that failed the reason."""
    scans: dict[str, Scan] = {}
    failed: dict[str, Failure] = {}
    if scanner.args.resume:
        for image in images:
            if earlier := scanned_today(scanner.args, image):
                scanner.say(f"Taken from an earlier run: {image}, scanned {earlier.scanned}")
                scans[image] = earlier
    left = [image for image in images if image not in scans]
    with ThreadPoolExecutor(scanner.args.jobs) as pool:
        try:
            places = [f"{number} of {len(left)}" for number in range(1, len(left) + 1)]
            for image, outcome in zip(left, pool.map(scan_one, [scanner] * len(left), left, places)):
                if isinstance(outcome, Scan):
                    scans[image] = outcome
                else:
                    failed[image] = outcome
        except BaseException:
            scanner.stop.set()  # the scans that run end within a moment, and take their scratch folders away
            pool.shutdown(cancel_futures=True)
            raise
    return {image: scans[image] for image in images if image in scans}, failed


def scanned_today(args: Namespace, image: str) -> Scan | None:
    """The scan of an earlier run, if it is of today and was made with the same options; else None."""
    path = args.results / report_name(image)
    try:
        options = read_json(path)["descriptor"]["configuration"]
        found = read_scan(path, image)
        same = (options.get("platform") or "", options.get("vex-documents") or []) == (
            args.platform or "",
            [str(document) for document in args.vex],
        )
    except (UserError, KeyError, TypeError, AttributeError):
        return None
    today = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    return found if same and found.only_fixed == args.only_fixed and found.scanned.startswith(today) else None


def write_tables(results: Path, rows: table.Rows, notes: list[str], scans: dict[str, Scan]) -> None:
    """The table as files: for a page, for a spreadsheet, and as a chart."""
    for name, text in (
        ("comparison.md", table.as_markdown(rows, notes)),
        ("comparison.csv", table.as_csv(rows)),
        ("comparison.svg", table.as_chart(list(scans.values()))),
    ):
        with console.atomic_write(results / name) as scratch:
            scratch.write_text(text, encoding="utf-8")


def give_up(failure: Failure, images: list[str], plain: bool) -> int:
    """Nothing could be scanned: say so in one sentence and show or offer the recorded scans."""
    why = f"{failure.reason}: {failure.advice}" if failure.advice else failure.reason
    if images == read_images(IMAGES):
        print(f"error: No live scan: {why}; here are recorded scans instead.", file=sys.stderr)
        print(recorded_scans.show(plain, details=False))
    else:
        print(f"error: No live scan: {why}; ./scan.sh --recorded shows recorded scans.", file=sys.stderr)
    return console.ERROR


def read_arguments() -> Namespace:
    """The command line."""
    parser = console.parser(__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image names; none: those of images.txt")
    parser.add_argument("--recorded", action="store_true", help="show the recorded scans and scan nothing")
    parser.add_argument(
        "--offline", action="store_true", help="scan the package lists in the results again, without network"
    )
    parser.add_argument("--diff", nargs=2, type=Path, metavar=("BEFORE", "AFTER"), help="compare two reports")
    parser.add_argument("--all", action="store_true", help="with --diff: name every vulnerability")
    parser.add_argument(
        "--fail-on",
        choices=[KNOWN_EXPLOITED, *(word.lower() for word in SEVERITIES)],
        help="end with 1 from here up; what is known to be exploited is above all severities",
    )
    parser.add_argument("--only-fixed", action="store_true", help="count only what has a fix")
    parser.add_argument(
        "--vex", action="append", type=Path, default=[], metavar="FILE", help="a VEX document"
    )
    parser.add_argument("--platform", help="of an image for several, for example linux/arm64")
    parser.add_argument("--resume", action="store_true", help="keep today's reports that are there already")
    parser.add_argument("--jobs", type=int, default=2, help="images at the same time")
    parser.add_argument("--retries", type=int, default=1, help="further tries when the network fails")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the reports")
    parser.add_argument("--timeout", type=int, default=600, help="seconds to wait for one image")
    parser.add_argument(
        "--no-scanner", metavar="WHY", help="do not look for Grype: it is missing because of WHY"
    )
    args = parser.parse_args()
    if args.jobs < 1 or args.retries < 0 or args.timeout < 1:
        raise UserError(
            "--jobs and --timeout must be at least 1 and --retries at least 0: choose such numbers."
        )
    for document in args.vex:
        read_json(document, "a VEX document", "give one in JSON, OpenVEX or CSAF")
    return args


def main() -> int:
    args = read_arguments()
    plain = console.is_plain(args.plain)
    if args.recorded:
        print(recorded_scans.show(plain))
        return console.OK
    if args.diff:
        before, after = args.diff
        print(difference.show(before, after, args.all, plain))
        return console.OK

    if args.offline:
        os.environ["GRYPE_DB_AUTO_UPDATE"] = "false"
        args.images = lists_in(args.results)
    images = list(dict.fromkeys(args.images)) or read_images(IMAGES)
    check_names(images)
    grype = None if args.no_scanner else shutil.which("grype")
    if grype is None:
        return give_up(Failure(args.no_scanner or "there is no grype command here", ""), images, plain)
    with console.scratch(args.results):
        pass  # can we write there? Better to know before a scan of minutes
    scans, failed = scan_all(Scanner(grype, shutil.which("syft"), args), images)
    if not scans:
        return give_up(max(failed.values(), key=lambda failure: failure.everywhere), images, plain)
    rows, notes = table.rows_of(images, scans), table.notes_of(scans)
    notes += [f"{name}: not scanned: {failure.reason}: {failure.advice}" for name, failure in failed.items()]
    print(table.as_text(rows, notes, plain))
    write_tables(args.results, rows, notes, scans)
    print(f"Reports (.json), package lists (.syft.json, .cdx.json) and this table are in {args.results}.")
    if failed:
        names = ", ".join(failed)
        print(
            f"error: {len(failed)} of {len(images)} images not scanned ({names}): try again.", file=sys.stderr
        )
        return console.ERROR
    if args.fail_on and (found := {name: scan.above(args.fail_on) for name, scan in scans.items()}):
        return fail_on(found, args.fail_on)
    return console.OK


def fail_on(found: dict[str, list[Finding]], level: str) -> int:
    """Say how many images reach the level; 1 if one does."""
    reached = [name for name, findings in found.items() if findings]
    if not reached:
        return console.OK
    for name in reached:
        for one in found[name]:
            if one.known_exploited:
                print(f"{name}: {one.name} ({one.severity}) is known to be exploited.")
    above = "that is known to be exploited" if level == KNOWN_EXPLOITED else f"of severity {level} or above"
    print(f"{len(reached)} of {len(found)} images have a vulnerability {above}.")
    return console.FINDING


if __name__ == "__main__":
    console.run(main)
