"""Divide work among threads, each of which computes on one processor core.

PyTorch would divide every single operation among all cores, and its threads wait for each other at the end
of each. If another program takes one of the cores, all of them wait. Whole pieces of work wait for nobody: as
fast on an idle machine, and many times faster on a busy one (benchmarks/README.md). Training cannot be
divided like this, and asks how many cores are free().
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from network import device

Part = TypeVar("Part")
Result = TypeVar("Result")
Work = Generator[object, None, Result]  # yields after each step, and returns its result

PROBE = 0.1  # seconds
_caller = threading.local()  # .cores: of a thread whose own operations take one core meanwhile


def count() -> int:
    """How many threads to use: as many as PyTorch would (the cores, or OMP_NUM_THREADS); one with a GPU."""
    if device.best() != device.PROCESSOR:
        return 1
    return getattr(_caller, "cores", 0) or torch.get_num_threads()


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Meanwhile each operation of this thread takes one core; only divided work takes all of them."""
    threads = _caller.cores = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _caller.cores = 0
        torch.set_num_threads(threads)


def free(threads: int) -> int:
    """How many cores so many threads get now: fewer than there are if other programs want them, too.

    They compute for PROBE seconds, and the time that they got is counted.
    """
    if threads < 2:
        return threads
    torch.ones(1).add(1)  # wakes up what PyTorch starts with its first operation

    def compute(_: int) -> None:
        torch.set_num_threads(1)
        numbers, end = torch.ones(400, 400), time.monotonic() + PROBE
        while time.monotonic() < end:
            numbers @ numbers

    used, started = time.process_time(), time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(compute, range(threads)))
    got = (time.process_time() - used) / (time.monotonic() - started)
    return max(1, min(threads, int(got + 0.25)))  # rounded down, but for what a quiet machine does beside


def side_by_side(call: Callable[[Part], Result], parts: Sequence[Part]) -> Iterator[Result]:
    """Yield call(part) for each part, in order; each is computed on one core."""
    workers, gradients = min(count(), len(parts)), torch.is_grad_enabled()
    if workers < 2:
        yield from map(call, parts)
        return

    def work(part: Part) -> Result:
        torch.set_num_threads(1)  # of this thread
        with torch.set_grad_enabled(gradients):
            return call(part)

    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(work, parts)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # where the caller stops, or a part fails


def divide(pieces: Sequence[Work[Result]]) -> Generator[None, None, list[Result]]:
    """Do the pieces side by side. Yields after each step of any of them; returns their results in order.

    Each piece sees one core and none of the others, so its result does not depend on how many there are.
    An error of one piece is raised, and the others end after their next step; so they do if the caller stops.
    """
    workers = min(count(), len(pieces))
    if workers < 2:
        return (yield from _one_after_the_other(pieces))
    steps: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True: a step was done; False: a piece has ended
    stop = threading.Event()

    def work(piece: Work[Result]) -> Result:
        torch.set_num_threads(1)  # of this thread
        try:
            while not stop.is_set():
                try:
                    next(piece)
                except StopIteration as end:
                    result: Result = end.value
                    return result
                steps.put(True)
            raise RuntimeError("stopped")
        except BaseException:
            stop.set()
            raise
        finally:
            steps.put(False)

    with ThreadPoolExecutor(workers) as pool:
        try:
            futures = [pool.submit(work, piece) for piece in pieces]
            left = len(pieces)
            while left:
                if steps.get():
                    yield
                else:
                    left -= 1
        finally:
            stop.set()
    errors = [error for future in futures if (error := future.exception())]
    if errors:
        raise next((error for error in errors if str(error) != "stopped"), errors[0])
    return [future.result() for future in futures]


def _one_after_the_other(pieces: Sequence[Work[Result]]) -> Generator[None, None, list[Result]]:
    threads = torch.get_num_threads()
    results = []
    torch.set_num_threads(1)
    try:
        for piece in pieces:
            while True:
                try:
                    next(piece)
                except StopIteration as end:
                    results.append(end.value)
                    break
                yield
    finally:
        torch.set_num_threads(threads)
    return results
