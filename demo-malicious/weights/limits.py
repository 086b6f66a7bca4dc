"""A limit on memory, and a large stack, for a call that reads what somebody else wrote.

Helper module, not a command.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
STACK = 128_000_000  # bytes of address space; only a hostile file uses more than a little of it

_one_at_a_time = threading.Lock()  # the limits belong to the whole process


def within_limits(call: Callable[[], T], more: int) -> T:
    """Call a function that may take at most `more` bytes of new memory (on Linux; else without a limit).

    It gets a large stack, because a file with tuples in tuples in tuples would crash PyTorch on a small one.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    with _one_at_a_time, memory_limit(more):
        before = threading.stack_size(STACK)
        thread = threading.Thread(target=work, daemon=True)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
        thread.join()
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def memory_limit(more: int) -> Iterator[None]:
    """Let this process take at most `more` bytes of new address space, where the system can count it."""
    if sys.platform != "linux":
        yield
        return
    import resource  # noqa: PLC0415 (not there on Windows)

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    lowest = min(limit for limit in (now + STACK + more, soft, hard) if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
