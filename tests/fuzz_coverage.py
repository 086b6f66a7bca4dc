"""Coverage-guided fuzzing of the inspector's readers with atheris, which is not installed with the project.

    pip install atheris                                       (Python 3.11 to 3.13, Linux)
    python tests/fuzz_coverage.py CORPUS -max_total_time=300  CORPUS is a folder, made and grown by this

Every input goes through every reader, in memory. Only a verdict may come out: any exception is a finding, and
atheris stops and keeps the input. "No code found" is compared with what a loader that imports nothing would
import. It is libFuzzer's command line: -help=1 names its options.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-not-found, unused-ignore]

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "demo-malicious"), str(HERE.parent / "benchmarks")]

with atheris.instrument_imports(include=["inspection"]):
    from inspection import formats
    from inspection.report import SAFE, Report
    from inspection.verdict import conclude, fill

import fuzz_files  # noqa: E402
import fuzz_models  # noqa: E402

from weights import limits  # noqa: E402

LARGEST = 20_000  # bytes of a seed


def look(data: bytes) -> None:
    """One input: a verdict, and never SAFE for what would import something that nobody vouches for."""
    if not data:
        return
    report = Report(Path("input"))
    content = formats.look(data)
    content.pickles.clear()  # fickling's decompiler is not what is tried here
    fill(report, content)
    conclude(report)
    if report.overall == SAFE:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            with limits.memory_limit(300_000_000):  # of the check: Python's own reader can be choked
                found = fuzz_models.disallowed_names(Path(file.name))
        if found:
            raise AssertionError(f"called free of code, but loading would import {found}")


def main() -> None:
    """Write the seeds into the corpus, then let libFuzzer work."""
    corpus = Path(next((word for word in sys.argv[1:] if not word.startswith("-")), ""))
    corpus.mkdir(parents=True, exist_ok=True)
    marker = Path(tempfile.gettempdir()) / "fuzz_coverage_marker"
    for number, seed in enumerate([*fuzz_files.seeds(marker), *fuzz_files.other_formats(marker)]):
        if len(seed.data) <= LARGEST:
            (corpus / f"seed{number:03}{seed.suffix}").write_bytes(seed.data)
    atheris.Setup(sys.argv, look)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
