"""Scan many models with detect.py, several at a time: on the cores of this machine, or on a cluster.

    python benchmarks/scan_many.py models/*.safetensors --data data/traffic-signs
    python benchmarks/scan_many.py models/*.safetensors --scheduler tcp://10.0.0.1:8786

One row per model goes to scans.jsonl: its SHA-256, verdict, flagged pairs and largest index, as detect.py
gives them. A model whose row is there is not scanned again, unless the file has changed. Each scan is
detect.py, with one thread. On a cluster every worker needs this repository, and models and data under the
same paths.
Exit code: 0 no backdoor found, 1 found in at least one, 2 wrong usage, or a model that could not be scanned.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEMO = Path(__file__).resolve().parent.parent / "demo-poisoning"
sys.path.insert(0, str(DEMO))

import cluster  # noqa: E402 (after the path above)

import cli  # noqa: E402
from scanner import result  # noqa: E402


@dataclass(frozen=True)
class Job:
    """One model and how to scan it; all paths are absolute."""

    model: str
    data: str
    output: str  # folder that detect.py writes
    options: tuple[str, ...]

    def __str__(self) -> str:
        return self.model


def scan(job: Job) -> dict[str, Any]:
    """Run detect.py on one model. Raises UserError with its sentence if it cannot scan it."""
    command = [sys.executable, str(DEMO / "detect.py"), "--model", job.model, "--data", job.data]
    said = subprocess.run(
        [*command, "--output", job.output, "--json", *job.options],
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if said.returncode not in (cli.OK, cli.FINDING):
        raise cli.UserError(said.stderr.strip().splitlines()[-1].removeprefix("error: "))
    found = json.loads(said.stdout)
    indices = [pair["anomaly_index"] for pair in found["pairs"] if pair["anomaly_index"] is not None]
    return {
        "model": job.model,
        "sha256": found["sha256"],
        "verdict": found["verdict"],
        "flagged": [f"{p['victim']}:{p['target']}" for p in found["pairs"] if p["flagged"]],
        "largest_index": max(indices, default=None),
        "threshold": found["threshold"],
        "seconds": found["seconds"],
    }


def read(rows: Path) -> dict[str, dict[str, Any]]:
    """The rows that are there, by model and checksum. Raises UserError for a file of something else."""
    if not rows.exists():
        return {}
    try:
        made = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
        return {row["model"] + row["sha256"]: row for row in made}
    except (ValueError, KeyError, TypeError) as error:
        raise cli.UserError(f"{rows} holds no rows of scan_many.py: choose another --rows.") from error


def main() -> int:
    args = cli.parser(__doc__)
    args.add_argument("models", type=Path, nargs="+", help="model files")
    args.add_argument(
        "--data", type=Path, default=Path("data/traffic-signs"), help="folder with val/<class>/"
    )
    args.add_argument("--output", type=Path, default=Path("scan_results/many"), help="folder for the scans")
    args.add_argument("--rows", type=Path, default=Path("scans.jsonl"), help="file of rows")
    args.add_argument("--steps", type=int, default=100, help="steps of the search")
    args.add_argument("--samples", type=int, default=30, help="clean images per class to search with")
    args.add_argument("--seed", type=cli.seed, default=0, help="random movements of the images")
    args.add_argument("--pairs", nargs="+", default=[], metavar="VICTIM:TARGET", help="scan only these pairs")
    args.add_argument("--reference", type=Path, nargs="+", default=[], metavar="FILE", help="clean models")
    cluster.add_options(args)
    options = args.parse_args()
    out = cli.Out(options.plain)
    for path in options.models:
        if not path.is_file():
            raise cli.UserError(f"{path} does not exist: check the path.")
    cli.check_place(options.rows)
    done = read(options.rows)
    how = tuple(f"--{name}={getattr(options, name)}" for name in ("steps", "samples", "seed"))
    if options.pairs:
        how += ("--pairs", *options.pairs)
    if options.reference:
        how += ("--reference", *(str(path.absolute()) for path in options.reference))
    jobs, found = [], False
    for path in map(Path.absolute, options.models):
        if row := done.get(f"{path}{result.sha256(path)}"):
            out.say(f"{path}: {row['verdict']}, scanned before.")
            found |= row["verdict"] == "backdoor"
            continue
        folder = (options.output / f"{path.parent.name}-{path.stem}").absolute()
        jobs.append(Job(str(path), str(options.data.absolute()), str(folder), how))
    if len({job.output for job in jobs}) < len(jobs):
        raise cli.UserError("Two models have the same name and folder name: scan them in two runs.")
    failed = False
    work = cluster.results(scan, jobs, options) if jobs else iter(())
    for job, row in out.progress(work, len(jobs), "Scanning models"):
        if isinstance(row, cli.UserError):
            failed = True
            print(f"error: {job}: {row}", file=sys.stderr)
            continue
        with options.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        found |= row["verdict"] == "backdoor"
        flagged = f" ({', '.join(row['flagged'])})" if row["flagged"] else ""
        word = "FLAGGED: " if row["flagged"] else ""
        out.say(f"{word}{job}: {row['verdict']}{flagged}, {row['seconds']:.0f} seconds.")
    if failed:
        return cli.ERROR
    return cli.FINDING if found else cli.OK


if __name__ == "__main__":
    cli.run(main)
