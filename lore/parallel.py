"""Pieces of one update side by side on a CPU, each on a thread of its own.

Sharing every operation between threads pays where operations are large. Imagination makes thousands of small ones, and
its rows do not depend on each other: there each thread takes some of the rows through all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from typing import TypeVar

import torch

__all__ = ["pool", "shares", "together"]

T = TypeVar("T")


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:  # threads do not survive a fork: one pool per process
    return ThreadPoolExecutor(threads, thread_name_prefix="lore")


def pool(threads: int) -> ThreadPoolExecutor:
    """This process's pool of so many threads."""
    return _pool(threads, os.getpid())


def shares(rows: int, device: torch.device) -> list[slice]:
    """``rows`` cut into one range for each thread that torch may use on ``device``; a single one off the CPU."""
    parts = torch.get_num_threads() if device.type == "cpu" else 1
    cuts = [rows * i // parts for i in range(parts + 1)]
    return [slice(low, high) for low, high in pairwise(cuts) if high > low]


def together(works: Sequence[Callable[[], T]]) -> list[T]:
    """Results of all ``works``, each run on one thread with one CPU thread for its operations; the first error is
    raised when all have ended.

    Autocast holds in every thread as in the caller's. A single work runs in the caller as it is.
    """
    if len(works) == 1:
        return [works[0]()]
    threads, dtype = torch.get_num_threads(), torch.get_autocast_dtype("cpu")
    mixed = torch.is_autocast_enabled("cpu")

    def alone(work: Callable[[], T]) -> T:
        torch.set_num_threads(1)
        with torch.autocast("cpu", dtype, enabled=mixed):
            return work()

    waits = [pool(len(works) - 1).submit(alone, work) for work in works[1:]]
    try:
        return [alone(works[0]), *(each.result() for each in waits)]
    finally:
        wait(waits)
        torch.set_num_threads(threads)
