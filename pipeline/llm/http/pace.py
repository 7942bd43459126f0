"""How fast a service may be asked: one bucket of requests and one of tokens, each filled evenly over the minute."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

__all__ = ["Pace", "retry_after"]

_LONGEST = 3600.0
_NUMBER = r"[0-9]{1,7}(?:\.[0-9]{1,9})?"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


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
        self._clock, self._lock = clock, threading.Lock()
        self._held_until = now = clock()
        self._requests = _Bucket(requests_per_minute, now) if requests_per_minute else None
        self._tokens = _Bucket(tokens_per_minute, now) if tokens_per_minute else None

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

    @property
    def is_held(self) -> bool:
        """Whether a server has asked to be left alone for longer than now."""
        return self._held_until > self._clock()

    def hold(self, seconds: float) -> None:
        """Let no further request begin for so long: a server has asked to be left alone."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + min(seconds, _LONGEST))


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait, at most an hour; 0 when it says nothing usable.

    ``retry-after-ms`` in milliseconds, else ``Retry-After``: seconds (decimals too), ``1m30s``, or an HTTP date.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = str(headers.get(name, "")).strip().lower()
        if re.fullmatch(_NUMBER, text):
            return min(float(text) * unit, _LONGEST)
    if text and re.fullmatch(rf"(?:{_NUMBER}(?:ms|[smh]))+", text):
        parts = re.findall(rf"({_NUMBER})(ms|[smh])", text)
        return min(sum(float(number) * _UNITS[unit] for number, unit in parts), _LONGEST)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), _LONGEST)
