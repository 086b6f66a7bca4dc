"""Helper module, not a command: many models at once, on the cores of this machine or on a cluster (Dask).

Each worker is a process with one thread: PyTorch's threads wait for each other on busy cores. Only the
caller writes rows, so each comes once. What a worker was at when it died is done again by another.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from distributed import Client, KilledWorker, LocalCluster, as_completed

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo-poisoning"))

import cli

T = TypeVar("T")
Row = dict[str, Any]

PATIENCE = 10  # seconds for a scheduler to answer


class Silent(cli.Out):
    """For what happens on a worker: the lines of several would mix."""

    def say(self, text: str = "", style: str = "") -> None:
        pass

    def progress(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        yield from items


def add_options(args: argparse.ArgumentParser) -> None:
    """--workers and --scheduler, the same for every command that takes many models."""
    args.add_argument("--workers", type=int, default=0, help="processes here; 0: one per core")
    args.add_argument("--scheduler", metavar="ADDRESS", help="Dask workers of tcp://HOST:8786 instead")


@contextmanager
def connect(workers: int, scheduler: str | None) -> Iterator[Client]:
    """The workers. Raises UserError if the scheduler does not answer or has no workers."""
    if not scheduler:
        number = workers or os.cpu_count() or 1
        with (
            LocalCluster(n_workers=number, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError, TypeError) as error:
        raise cli.UserError(
            f"--scheduler {scheduler} does not answer: start one with `dask scheduler`."
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise cli.UserError(
                f"--scheduler {scheduler} has no workers: start one with "
                f"`dask worker {scheduler} --nthreads 1`."
            )
        yield client


def results(
    work: Callable[[T], Row], items: Sequence[T], options: argparse.Namespace
) -> Iterator[tuple[T, Row | cli.UserError]]:
    """Call work(item) on the workers; yield (item, row) as they come, or (item, what is wrong with it).

    With --workers 1 all happens in this process, in order. Raises UserError as connect() does.
    """
    if options.workers < 0:
        raise cli.UserError("--workers must be 0 or more.")
    if options.workers == 1 and not options.scheduler:
        for item in items:
            try:
                row: Row | cli.UserError = work(item)
            except cli.UserError as error:
                row = error
            yield item, row
        return
    with connect(options.workers, options.scheduler) as client:
        futures = {client.submit(work, item, pure=False): item for item in items}
        for future in as_completed(futures):
            try:
                row = future.result()
            except cli.UserError as error:
                row = error
            except KilledWorker:
                row = cli.UserError(f"{futures[future]} ended four workers: give them more memory.")
            yield futures[future], row
