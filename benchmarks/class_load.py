"""A class of 100 at once: what `next`, `hint`, `status` and `share` take when everybody types.

    python benchmarks/class_load.py [--people 100] [--rounds 2] [--quick]

Each attendee has a progress folder of their own, as in a seat of class/kubernetes.yaml; here all seats are
processes of one machine, which is harder. They solve exercises between the commands (the note that check.py
leaves), and in each round all begin at once. Then one page is made of all shared files. Prints a row for each
command and one for the page. Exit code 0: every answer came and was right. 1: some were not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo-malicious/exercises"))
import record

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
SOLVED = ("1.1", "1.2", "1.3", "1.4")  # after each round one more
COMMANDS = {
    "next": ["progress.py", "next"],
    "hint": ["progress.py", "hint"],
    "status": ["progress.py", "status"],
    "share": ["class_page.py", "share"],
}


def typed(command: list[str], folder: Path) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Seconds and result of a command with this progress folder."""
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-B", str(SCRIPTS / command[0]), *command[1:]],
        check=False,
        env=os.environ | {"WORKSHOP_PROGRESS": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    return time.monotonic() - started, result


def attend(
    person: int, home: Path, rounds: int, together: threading.Barrier
) -> list[tuple[str, float, bool]]:
    """What one attendee types; name of the command, seconds, and whether its answer was right, for each."""
    folder = home / f"seat-{person}"
    folder.mkdir()
    rows = []
    for number in range(rounds):
        together.wait()
        for name, command in COMMANDS.items():
            words = [*command, f"Attendee {person}"] if name == "share" else command
            seconds, result = typed(words, folder)
            good = result.returncode == 0 and result.stdout.strip() != "" and result.stderr == ""
            rows.append((name, seconds, good))
        record.append(folder, "solved", SOLVED[number % len(SOLVED)])
    return rows


def share(home: Path, people: int, rounds: int) -> tuple[float, int, bool]:
    """Collect all shared files and make the page: seconds, bytes, and whether everybody is on it."""
    files = home / "files"
    files.mkdir()
    for person in range(people):
        (files / f"{person}.json").write_bytes((home / f"seat-{person}/share.json").read_bytes())
    seconds, result = typed(["class_page.py", "page", str(files)], home)
    page = home / "class.html"
    solved = min(rounds - 1, len(SOLVED))
    everybody = all(f"\nAttendee {n}: {solved} solved" in result.stdout for n in range(people))
    return seconds, page.stat().st_size, result.returncode == 0 and everybody


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=100, help="attendees (default: 100)")
    parser.add_argument("--rounds", type=int, default=2, help="times that each types everything (default: 2)")
    parser.add_argument("--quick", action="store_true", help="4 people, once")
    args = parser.parse_args()
    people, rounds = (4, 1) if args.quick else (args.people, args.rounds)
    together = threading.Barrier(people)
    with tempfile.TemporaryDirectory(prefix="class-") as scratch, ThreadPoolExecutor(people) as pool:
        home, started = Path(scratch), time.monotonic()
        futures = [pool.submit(attend, person, home, rounds, together) for person in range(people)]
        rows = [row for future in futures for row in future.result()]
        all_seconds = time.monotonic() - started
        page_seconds, size, page_good = share(home, people, rounds)
    print(f"{people} people, {rounds} rounds, {os.cpu_count()} cores: {all_seconds:.1f} seconds in all.")
    print("| command | requests | errors | median, seconds | 95th percentile | longest |")
    print("|---|---|---|---|---|---|")
    for name in COMMANDS:
        seconds = sorted(took for one, took, _ in rows if one == name)
        wrong = sum(not good for one, _, good in rows if one == name)
        p95 = seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))]
        middle = statistics.median(seconds)
        print(f"| {name} | {len(seconds)} | {wrong} | {middle:.1f} | {p95:.1f} | {seconds[-1]:.1f} |")
    print(f"| the page of all | 1 | {int(not page_good)} | {page_seconds:.1f} | | |")
    print(f"The page has {size:,} bytes.")
    return 0 if page_good and all(good for *_, good in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
