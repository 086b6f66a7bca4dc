"""Divide work among threads, each of which computes on one processor core.

PyTorch would divide every single operation among all cores, and its threads wait for each other at the end
of each. If another program takes one of the cores, all of them wait. Whole pieces of work wait for nobody: as
fast on an idle machine, and many times faster on a busy one (benchmarks/README.md).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from network import device

Result = TypeVar("Result")
Work = Generator[object, None, Result]  # yields after each step, and returns its result


def count() -> int:
    """How many threads to use: as many as PyTorch would (the cores, or OMP_NUM_THREADS); one with a GPU."""
    return torch.get_num_threads() if device.best() == device.PROCESSOR else 1


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
