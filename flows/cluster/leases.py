"""Limits that hold over all shards of a cluster: lent in parts, unused parts come back."""

from __future__ import annotations

import math
import threading

__all__ = ["Amount", "Leases"]

Amount = tuple[float, float]
"""(requests, US dollars)."""


class Leases:
    """What may still be asked, ``left`` = (requests, dollars) with infinity for no limit. Safe with threads.

    The sum of what is lent and what was used never exceeds the limits, so neither do all shards together.
    """

    def __init__(self, left: Amount = (math.inf, math.inf)) -> None:
        self._left, self._out = left, 0
        self._changed = threading.Condition()

    def take(self, wanted: Amount, more_than: Amount = (0.0, 0.0)) -> Amount | None:
        """Borrow ``wanted`` or what is left of it, if that is more than ``more_than``; else None.

        Waits while it is not and others may still bring something back.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._out == 0 or self._enough(wanted, more_than))
            if not self._enough(wanted, more_than):
                return None
            lent = (min(wanted[0], self._left[0]), min(wanted[1], self._left[1]))
            self._left = (self._left[0] - lent[0], self._left[1] - lent[1])
            self._out += 1
            return lent

    def give_back(self, lent: Amount, used: Amount) -> None:
        """End a lease of which ``used`` is gone."""
        with self._changed:
            self._left = (self._left[0] + lent[0] - used[0], self._left[1] + lent[1] - used[1])
            self._out -= 1
            self._changed.notify_all()

    def _enough(self, wanted: Amount, more_than: Amount) -> bool:
        pairs = zip(wanted, self._left, more_than, strict=True)
        return all(left >= want or left > least for want, left, least in pairs)
