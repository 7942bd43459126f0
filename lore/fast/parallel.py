"""Pieces of one update side by side on a CPU, each on a thread of its own.

Sharing every operation between threads pays where operations are large. Imagination makes thousands of small ones, and
its rows do not depend on each other: there each thread takes some of the rows through all of them. torch's own threads
wait for work at full speed, on the cores that these threads need: a learner of compiled loops leaves torch one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["SHARED", "pool", "run_shared", "run_summed", "run_together", "shares", "threads", "use"]

SHARED = 2**17
"""Elements from which rows of one call are shared between threads."""

T = TypeVar("T")
_count = 0
_here = threading.local()


def use(count: int) -> None:
    """Let pieces and compiled loops use ``count`` threads from here on; 0 means as many as torch uses."""
    global _count
    _count = count


def threads() -> int:
    """Threads that work can be shared between here: 1 inside a piece."""
    return 1 if getattr(_here, "is_piece", False) else _count or torch.get_num_threads()


@cache
def _pool(count: int, process: int) -> ThreadPoolExecutor:  # threads do not survive a fork: one pool per process
    return ThreadPoolExecutor(count, thread_name_prefix="lore")


def pool(count: int) -> ThreadPoolExecutor:
    """This process's pool of so many threads."""
    return _pool(count, os.getpid())


def shares(rows: int, device: torch.device) -> list[slice]:
    """``rows`` cut into one range for each thread that there is on ``device``; a single one off the CPU."""
    parts = threads() if device.type == "cpu" else 1
    cuts = [rows * i // parts for i in range(parts + 1)]
    return [slice(low, high) for low, high in pairwise(cuts) if high > low]


def run_together(works: Sequence[Callable[[], T]]) -> list[T]:
    """Results of all ``works``, in order: each thread takes the next one that is left and gives it one CPU thread.

    The first error is raised when all threads have stopped. Autocast holds in every thread as in the caller's. Where
    there is one thread, or one work, the caller does it as it is.
    """
    count = min(threads(), len(works))
    if count == 1:
        return [work() for work in works]
    before, mixed, dtype = torch.get_num_threads(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
    left, results = iter(range(len(works))), {}

    def take() -> None:
        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)
        _here.is_piece = True
        try:
            with torch.autocast("cpu", dtype, enabled=mixed):
                for i in left:
                    results[i] = works[i]()
        finally:
            _here.is_piece = False

    waits = [pool(count - 1).submit(take) for _ in range(count - 1)]
    try:
        take()
        for each in waits:
            each.result()
        return [results[i] for i in range(len(works))]
    finally:
        wait(waits)
        if before > 1:
            torch.set_num_threads(before)


def _shares(rows: int, elements: int) -> list[tuple[int, int]]:
    parts = threads() if elements >= SHARED else 1
    cuts = [rows * i // parts for i in range(parts + 1)]
    return list(pairwise(cuts))


def run_shared(loop: Any, rows: int, elements: int, *arrays: Any) -> None:
    """``loop(low, high, *arrays)`` over all rows, in shares."""
    if elements < SHARED:
        loop(0, rows, *arrays)
        return
    first, *others = _shares(rows, elements)
    waits = [pool(len(others)).submit(loop, low, high, *arrays) for low, high in others]
    loop(*first, *arrays)
    for other in waits:
        other.result()


def run_summed(loop: Any, rows: int, elements: int, width: int, *arrays: Any) -> Tensor:
    """As :func:`run_shared`; each share also adds to a row of its own [width], and their sum is returned."""
    first, *others = _shares(rows, elements)
    sums = np.zeros((1 + len(others), width), np.float32)
    waits = [pool(len(others)).submit(loop, low, high, *arrays, sums[1 + i]) for i, (low, high) in enumerate(others)]
    loop(*first, *arrays, sums[0])
    for other in waits:
        other.result()
    return torch.from_numpy(sums[0] if not others else sums.sum(0))
