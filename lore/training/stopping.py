"""Stopping at a whole step: SIGINT and SIGTERM are noted, and the loop looks when it may."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import Any

__all__ = ["stop_signals"]


@contextmanager
def stop_signals():
    """A list that becomes non-empty on SIGINT or SIGTERM; a second signal acts at once."""
    stop: list[int] = []

    def handle(number: int, frame: Any) -> None:
        stop.append(number)
        signal.signal(number, old[number])

    old: dict[int, Any] = {}
    try:
        old |= {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller's own signals stand
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
