"""Many models at once: rows come once, also where a worker dies, and are those of a serial run."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import cluster  # noqa: E402 (after the path above)
import cluster_tasks  # noqa: E402
from distributed import LocalCluster  # noqa: E402

import cli  # noqa: E402


def options(workers: int = 2, scheduler: str | None = None) -> argparse.Namespace:
    return argparse.Namespace(workers=workers, scheduler=scheduler)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are new processes, which have to find the same modules."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


def test_two_workers_give_the_rows_of_a_serial_run() -> None:
    here = list(cluster.results(cluster_tasks.square, range(5), options(1)))
    there = list(cluster.results(cluster_tasks.square, range(5), options(2)))
    assert [item for item, _ in here] == list(range(5))
    assert {row["process"] for _, row in here if isinstance(row, dict)} == {os.getpid()}
    assert os.getpid() not in {row["process"] for _, row in there if isinstance(row, dict)}

    def plain(found: list[tuple[int, cluster.Row | cli.UserError]]) -> list[tuple[int, int]]:
        return sorted((item, row["square"]) for item, row in found if isinstance(row, dict))

    assert plain(here) == plain(there) == [(n, n * n) for n in range(5)]


def test_a_worker_that_dies_loses_nothing_and_rows_come_once(tmp_path: Path) -> None:
    jobs = [(str(tmp_path), number) for number in range(6)]
    rows = [row for _, row in cluster.results(cluster_tasks.die_once, jobs, options())]
    assert (tmp_path / "died").exists()
    assert sorted(row["number"] for row in rows if isinstance(row, dict)) == list(range(6))


def test_what_ends_every_worker_is_given_up_and_named() -> None:
    found = dict(cluster.results(cluster_tasks.always_die, range(3), options()))
    assert "ended four workers" in str(found[1])
    assert [found[n]["square"] for n in (0, 2) if isinstance(found[n], dict)] == [0, 4]


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_input_of_one_does_not_stop_the_others(workers: int) -> None:
    found = dict(cluster.results(cluster_tasks.refuse_odd, range(4), options(workers)))
    assert sorted(found) == [0, 1, 2, 3]
    assert str(found[3]) == "3 is odd: choose another."
    assert isinstance(found[3], cli.UserError)


@pytest.fixture
def address() -> Iterator[str]:
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as running:
        yield running.scheduler_address


def test_a_scheduler_that_is_running_already(address: str) -> None:
    found = dict(cluster.results(cluster_tasks.square, range(3), options(scheduler=address)))
    assert sorted(found) == [0, 1, 2]


@pytest.mark.parametrize("wrong", ["tcp://127.0.0.1:9", "nonsense://x", "here"])
def test_a_scheduler_that_does_not_answer(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with pytest.raises(cli.UserError, match="does not answer: start one with `dask scheduler`"):
        list(cluster.results(cluster_tasks.square, range(3), options(scheduler=wrong)))


@pytest.fixture
def empty() -> Iterator[str]:
    """The address of a scheduler in a process of its own, as `dask scheduler` starts one."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    command += ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:
        assert running.stderr
        said = next(found for line in running.stderr if (found := re.search(r"tcp://[\d.]+:\d+", line)))
        yield said[0]
        running.kill()


def test_a_scheduler_without_workers(
    empty: str, run_script: Callable[..., Any], assert_refused: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "model.pt").write_bytes(b"not read: there is nobody to do it")
    refused = run_script("benchmarks/scan_many.py", "model.pt", "--scheduler", empty, cwd=tmp_path)
    assert_refused(refused, "has no workers: start one with `dask worker")


def test_fewer_than_no_workers() -> None:
    with pytest.raises(cli.UserError, match="--workers must be 0 or more"):
        list(cluster.results(cluster_tasks.square, range(3), options(-1)))
