"""The train ratio with its carried remainder, and wall-clock intervals."""

from __future__ import annotations

import time

__all__ = ["Every", "Ratio"]


class Ratio:
    """Updates owed at a step: ``ratio`` per step, remainders carried; the first call owes exactly 1
    (elements.when.Ratio)."""

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        self.last: float | None = None

    def __call__(self, step: int) -> int:
        """Number of updates to do now, with ``step`` environment steps done."""
        if self.ratio <= 0:
            return 0
        if self.last is None:
            self.last = float(step)
            return 1
        owed = int((step - self.last) * self.ratio)
        self.last += owed / self.ratio
        return owed

    def state_dict(self) -> dict[str, float | None]:
        """JSON-able state."""
        return {"last": self.last}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.last = state["last"]


class Every:
    """True once per ``seconds`` of wall time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.due = time.monotonic() + seconds

    def __call__(self) -> bool:
        """Has the interval passed since the last True?"""
        now = time.monotonic()
        if now < self.due:
            return False
        self.due = now + self.seconds
        return True
