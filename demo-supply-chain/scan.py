"""Scan container images with Grype and print one table that compares them.

    python scan.py                       # the images of images.txt
    python scan.py debian:12 alpine:3    # others
    python scan.py --recorded            # no internet: scans that others published, with date and source
    python scan.py --fail-on high        # exit code 1 if an image has a High or Critical one

`./scan.sh` calls this with your Grype, or in this demo's own image. Grype reads an image straight from its
registry: no Docker needed for that. For each image results/ gets Grype's report (.json) and the list of
all packages, the SBOM (.cdx.json). Exit codes: 0 fine, 1 --fail-on found something, 2 something went wrong.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import console
from console import UserError
from reports import recorded_scans
from reports.grype_report import RESULTS, SEVERITIES, Scan, read_scan, report_name, sbom_beside

HERE = Path(__file__).resolve().parent
IMAGES = HERE / "images.txt"
STILL_THERE = 15  # seconds between two signs of life while Grype works

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@:-]*")  # an image name; never starts like an option
OTHER_SOURCE = re.compile(r"(registry|docker|podman|docker-archive|oci-archive|oci-dir|sbom|dir):")


class ScanError(Exception):
    """Grype could not scan one image; the text says why."""


def read_images(path: Path) -> list[str]:
    """The image names in a file, one per line; lines that start with # are remarks."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: name the images on the command line instead.") from error
    images = [line for line in lines if line and not line.startswith("#")]
    if not images:
        raise UserError(f"{path} names no image: add one per line, or name one on the command line.")
    return images


def check_names(images: list[str]) -> None:
    """Refuse what cannot be an image name before anything is scanned."""
    for name in images:
        if not NAME.fullmatch(name):
            raise UserError(
                f"{name!r} is not a valid image name: write it like python:3.11 or host/team/image:tag."
            )


def source_of(image: str) -> str:
    """What Grype is asked to scan: the image in its registry, unless the name says another source."""
    return image if OTHER_SOURCE.match(image) else f"registry:{image}"


def last_words(errors: str) -> str:
    """The line of Grype's error output that says what went wrong, without colours and time stamps."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in errors.splitlines()]
    lines = [re.sub(r"^\[\d+\]\s*(ERROR|WARN)\s*", "", line) for line in lines if line]
    return lines[-1].rstrip(".")[:200] if lines else "Grype gave no reason"


def run_grype(grype: str, image: str, report: Path, timeout: int) -> None:
    """Scan one image: Grype writes its report and, in the same run, the SBOM. Raises ScanError.

    The user's GRYPE_... settings (offline database, registry login, ignore rules) reach Grype as they are.
    """
    # one run, two outputs: the findings, and the full package list that the findings alone do not have
    outputs = ["-o", f"json={report}", "-o", f"cyclonedx-json={sbom_beside(report)}"]
    command = [grype, source_of(image), *outputs]
    print("$ " + shlex.join(["grype", *command[1:]]), file=sys.stderr, flush=True)
    env = {"GRYPE_CHECK_FOR_APP_UPDATE": "false", **os.environ}
    log = report.with_suffix(".log")
    started = time.monotonic()
    try:
        with log.open("w") as errors:
            process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            try:
                wait(process, image, started, timeout)
            finally:
                process.kill()  # does nothing when it has ended
                process.wait()
    except OSError as error:
        raise ScanError(f"{grype} does not start ({error.strerror})") from error
    # 2 means that the user's own GRYPE_FAIL_ON_SEVERITY was reached: the scan itself is complete
    if process.returncode != 0 and not (process.returncode == 2 and report.exists()):
        raise ScanError(last_words(log.read_text(encoding="utf-8", errors="replace")))


def wait(process: subprocess.Popen[bytes], image: str, started: float, timeout: int) -> None:
    """Wait for Grype and say every few seconds that it is still at work."""
    while process.poll() is None:
        left = started + timeout - time.monotonic()
        try:
            process.wait(timeout=max(0.0, min(STILL_THERE, left)))
        except subprocess.TimeoutExpired:
            seconds = round(time.monotonic() - started)
            if left <= STILL_THERE:
                raise ScanError(f"no answer within {timeout} seconds") from None
            print(f"  still scanning {image}: {seconds} seconds", file=sys.stderr, flush=True)


def scan_all(grype: str, images: list[str], results: Path, timeout: int) -> tuple[list[Scan], dict[str, str]]:
    """Scan one image after the other. Gives the scans, and for each image that failed the reason."""
    scans: list[Scan] = []
    failed: dict[str, str] = {}
    for number, image in enumerate(images, 1):
        started = time.monotonic()
        print(f"Scanning {number} of {len(images)}: {image}", file=sys.stderr, flush=True)
        with console.scratch(results) as folder:
            report = folder / report_name(image)
            try:
                run_grype(grype, image, report, timeout)
                scans.append(read_scan(report, image))  # reads it before it counts as a result
                for made in (sbom_beside(report), report):
                    made.replace(results / made.name)
            except (ScanError, UserError, OSError) as error:
                why = "Grype's report cannot be read" if isinstance(error, UserError) else str(error)
                failed[image] = why
                print(f"  not scanned: {why}", file=sys.stderr, flush=True)
                if "vulnerability d" in why:  # "... db", "... database": the others would fail just so
                    failed.update(dict.fromkeys(images[number:], why))
                    break
            else:
                print(f"  done in {time.monotonic() - started:.0f} seconds", file=sys.stderr, flush=True)
    return scans, failed


def compare_table(images: list[str], scans: list[Scan], failed: dict[str, str], plain: bool) -> str:
    """The comparison: in plain text one line an image, on a terminal one column an image."""
    by_name = {scan.image: scan for scan in scans}
    columns = [
        "image",
        *SEVERITIES,
        "all",
        "fixable",
        "packages",
        "packages with findings",
        "distro",
        "database",
    ]
    rows: list[list[object]] = []
    for name in images:
        if name in by_name:
            scan = by_name[name]
            packages = "unknown" if scan.packages is None else scan.packages
            counts = [*scan.counts(), len(scan.severity), len(scan.fixable)]
            rows.append([name, *counts, packages, scan.affected, scan.distro, scan.database])
        else:
            rows.append([name, *["not scanned"] * (len(columns) - 1)])
    title = "Vulnerabilities, each counted once per image"
    if plain:
        text = console.table(title, columns, rows, plain)
    else:
        turned = list(zip(*[columns, *rows]))
        text = console.table(title, turned[0], turned[1:], plain)
    lines = [text, "", "What exactly was scanned"]
    for name in images:
        lines.append(
            f"- {name}: {by_name[name].digest if name in by_name else 'not scanned: ' + failed[name]}"
        )
    return "\n".join([*lines, "These counts hold for these digests and this database: tomorrow's differ."])


def found(scans: list[Scan], fail_on: str | None) -> int:
    """How many scans have a vulnerability at the severity `fail_on` or above."""
    bad = SEVERITIES[: SEVERITIES.index(fail_on.capitalize()) + 1] if fail_on else ()
    return sum(any(word in bad for word in scan.severity.values()) for scan in scans)


def give_up(why: str, images: list[str], plain: bool) -> int:
    """Nothing could be scanned: say so in one sentence and show or offer the recorded scans."""
    if images == read_images(IMAGES):
        print(f"error: No live scan: {why}; here are recorded scans instead.", file=sys.stderr)
        print(recorded_scans.show(plain))
    else:
        print(f"error: No live scan: {why}; ./scan.sh --recorded shows recorded scans.", file=sys.stderr)
    return console.ERROR


def main() -> int:
    parser = console.parser(__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image names; none: those of images.txt")
    parser.add_argument("--recorded", action="store_true", help="show the recorded scans and scan nothing")
    parser.add_argument(
        "--fail-on", choices=[word.lower() for word in SEVERITIES], help="end with 1 from here up"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the reports")
    parser.add_argument("--timeout", type=int, default=600, help="seconds to wait for one image")
    parser.add_argument(
        "--no-scanner", metavar="WHY", help="do not look for Grype: it is missing because of WHY"
    )
    args = parser.parse_args()
    plain = console.is_plain(args.plain)
    if args.recorded:
        print(recorded_scans.show(plain))
        return console.OK

    images = list(dict.fromkeys(args.images)) or read_images(IMAGES)
    check_names(images)
    grype = None if args.no_scanner else shutil.which("grype")
    if grype is None:
        return give_up(args.no_scanner or "there is no grype command here", images, plain)
    with console.scratch(args.results):
        pass  # can we write there? Better to know before a scan of minutes
    scans, failed = scan_all(grype, images, args.results, args.timeout)
    if not scans:
        return give_up(f"Grype says: {failed[images[0]]}", images, plain)
    print(compare_table(images, scans, failed, plain))
    print(f"Reports (.json) and package lists (.cdx.json) are in {args.results}.")
    if failed:
        names = ", ".join(failed)
        print(
            f"error: {len(failed)} of {len(images)} images not scanned ({names}): try again.", file=sys.stderr
        )
        return console.ERROR
    if count := found(scans, args.fail_on):
        print(f"{count} of {len(images)} images have a vulnerability of severity {args.fail_on} or above.")
        return console.FINDING
    return console.OK


if __name__ == "__main__":
    console.run(main)
