"""How fast a service may be asked, and when no more: one bucket of requests and one of tokens, each filled evenly over
the minute, and a circuit that opens after failures in a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

__all__ = ["MAX_FAILURES", "Circuit", "Pace", "retry_after"]

MAX_FAILURES = 5
"""Questions in a row that may fail before asking stops."""
_LONGEST = 3600.0


class _Bucket:
    """At most ``per_minute`` units in any 60 s (a single larger demand may overdraw): a tenth as burst, the rest
    evenly."""

    def __init__(self, per_minute: float, now: float) -> None:
        self.capacity = max(1.0, per_minute / 10)
        self.rate = max(per_minute - self.capacity, 1.0) / 60
        self.level, self.at = self.capacity, now

    def reserve(self, units: float, now: float) -> float:
        """Take ``units`` and say from when on they may be used; earlier demands go first."""
        now = max(now, self.at)
        self.level = min(self.capacity, self.level + (now - self.at) * self.rate)
        short = min(units, self.capacity) - self.level
        if short > 0:
            now += short / self.rate
            self.level += short
        self.level -= units
        self.at = now
        return now


class Pace:
    """Limits per minute on requests and on tokens (read and written); 0 sets none. Safe with threads.

    One object serves all questions of a backend in this process; another process has its own.
    """

    def __init__(
        self, requests_per_minute: int = 0, tokens_per_minute: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.requests_per_minute, self.tokens_per_minute, self._clock = requests_per_minute, tokens_per_minute, clock
        self._start()

    def _start(self) -> None:
        now = self._clock()
        self._requests = _Bucket(self.requests_per_minute, now) if self.requests_per_minute else None
        self._tokens = _Bucket(self.tokens_per_minute, now) if self.tokens_per_minute else None
        self._held_until = now
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("requests_per_minute", "tokens_per_minute", "_clock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def drain(self) -> None:
        """Begin with empty buckets: what follows another one at once adds no burst of its own."""
        with self._lock:
            for bucket in (self._requests, self._tokens):
                if bucket is not None:
                    bucket.level = 0.0

    def reserve(self, tokens: int) -> float:
        """Seconds to wait before the next request, which is expected to take ``tokens``; it counts from here on."""
        with self._lock:
            now = self._clock()
            at = max(now, self._held_until)
            if self._requests is not None:
                at = self._requests.reserve(1, at)
            if self._tokens is not None:
                at = self._tokens.reserve(tokens, at)
            return at - now

    def settle(self, expected: int, used: int) -> None:
        """Put back what a request took less than expected, or take what it took more."""
        with self._lock:
            if self._tokens is not None:
                self._tokens.level += expected - used

    def hold(self, seconds: float) -> None:
        """Let no further request begin for so long: a server has asked to be left alone."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + min(seconds, _LONGEST))

    def seconds(self, requests: int, tokens: int) -> float:
        """Least time that so many requests and tokens take under these limits."""
        minutes = requests / self.requests_per_minute if self.requests_per_minute else 0.0
        return 60 * max(minutes, tokens / self.tokens_per_minute if self.tokens_per_minute else 0.0)


class Circuit:
    """Opens when :data:`MAX_FAILURES` questions in a row have failed, and stays open; belongs to one event loop."""

    def __init__(self) -> None:
        self._failed, self._is_open, self._opened = 0, False, asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_open(self) -> bool:
        """True when no further request may begin."""
        return self._is_open

    def open(self) -> None:
        """Open it, from any thread."""
        self._is_open = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop may have closed
                self._loop.call_soon_threadsafe(self._opened.set)

    def count(self, good: bool) -> None:
        """Count one question, in the order in which they end."""
        self._failed = 0 if good else self._failed + 1
        if self._failed >= MAX_FAILURES:
            self.open()

    async def sleep(self, seconds: float) -> None:
        """Wait so long, or until the circuit opens."""
        self._loop = asyncio.get_running_loop()
        if seconds > 0 and not self.is_open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._opened.wait()


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait (a number or an HTTP date), at most an hour; 0 when it says nothing usable."""
    text = str(headers.get("retry-after", "")).strip()
    if text.isdecimal() and len(text) < 8:
        return min(float(text), _LONGEST)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), _LONGEST)
