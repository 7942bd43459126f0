"""What a run of questions did and may still do: counts, limits on requests and cost, useless answers in a row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.llm.base import Prompt, Response

__all__ = ["LEFT", "MAX_FAILURES", "Budget", "JournalStats", "is_final", "why_failed"]

MAX_FAILURES = 5
"""Questions in a row that may fail before asking stops."""
LEFT = "left"
"""``Response.finish`` of a question that batch jobs with answers have left over."""
_PASSING = (408, 409, 429)  # statuses below 500 that may be gone later


@dataclass
class JournalStats:
    """What one run of questions did; tokens, dollars and seconds are those of what was asked.

    ``retrying``: what is asked has failed before, so that failures in a row mean nothing. ``gave_up``:
    :data:`MAX_FAILURES` questions in a row have failed.
    """

    served: int = 0
    asked: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    price_usd: float = 0.0
    latency_s: float = 0.0
    failed_in_a_row: int = 0
    last_error: str = ""
    last_status: int = 0
    gave_up: bool = False
    retrying: bool = False

    def count(self, response: Response) -> None:
        """Count one question that was asked."""
        failed = response.error is not None
        self.asked += 1
        self.failed += failed
        if not self.retrying and response.finish != LEFT:
            self.failed_in_a_row = self.failed_in_a_row + 1 if failed else 0
        if response.error is not None:
            self.last_error, self.last_status = response.error, response.status
        self.gave_up |= self.failed_in_a_row >= MAX_FAILURES
        self.tokens_in += response.tokens_in
        self.tokens_out += response.tokens_out
        self.price_usd += response.price_usd
        self.latency_s += response.latency_s

    def add(self, other: JournalStats) -> None:
        """Sum ``other`` into this."""
        for name in ("served", "asked", "failed", "tokens_in", "tokens_out", "price_usd", "latency_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Budget:
    """Limits on what may still be asked; 0 means no limit. Shared by all shards of a run, safe with threads.

    Args:
        max_requests: questions. max_cost: US dollars, those ``paid`` before among them. max_unusable: answers in a row.
        estimate: highest price of a question; None where none is known.
    """

    def __init__(
        self,
        max_requests: int = 0,
        max_cost: float = 0.0,
        estimate: Callable[[Prompt], float] | None = None,
        *,
        paid: float = 0.0,
        max_unusable: int = 0,
    ) -> None:
        self.max_requests, self.max_cost, self.max_unusable = max_requests, max_cost, max_unusable
        self.estimate = estimate or (lambda prompt: 0.0)
        self.requests, self.cost, self.paid_before = 0, paid, paid
        self._unusable, self._reason = 0, ""
        self._asking = 0  # calls that hold estimates
        self._lock = threading.Condition()

    @property
    def wasted(self) -> str:
        """Why the last ``max_unusable`` answers could not be used; empty while there are fewer."""
        return self._reason if self.max_unusable and self._unusable >= self.max_unusable else ""

    def judge(self, reason: str) -> None:
        """Count one answer: why it cannot be used, or an empty text when it can; after the limit nothing changes."""
        with self._lock:
            if not self.wasted:
                self._unusable, self._reason = (self._unusable + 1, reason) if reason else (0, "")

    def reserve(self, prompts: Sequence[Prompt]) -> int:
        """How many of ``prompts``, from the first on, may be asked now; they count as asked from here on.

        Waits while none may and other calls hold estimates, for their real prices may leave room. A call that took some
        ends with :meth:`done`.
        """
        with self._lock:
            while not (taken := self._take(prompts)) and self._asking:
                self._lock.wait()
            self._asking += bool(taken)
            return taken

    def _take(self, prompts: Sequence[Prompt]) -> int:
        taken = 0
        for prompt in prompts:
            price = self.estimate(prompt)
            over_requests = self.max_requests and self.requests + 1 > self.max_requests
            over_cost = self.max_cost and self.cost + price > self.max_cost
            if over_requests or over_cost:
                break
            self.requests += 1
            self.cost += price
            taken += 1
        return taken

    def done(self) -> None:
        """End a call that asked, however it ended: nobody waits for its prices any more."""
        with self._lock:
            self._asking -= 1
            self._lock.notify_all()

    def settle(self, prompt: Prompt, response: Response) -> None:
        """Replace the estimate of one asked question by its real price."""
        with self._lock:
            self.cost += response.price_usd - self.estimate(prompt)
            self._lock.notify_all()


def is_final(status: int) -> bool:
    """Whether a service that failed with this HTTP status refuses the request itself, now and later."""
    return 400 <= status < 500 and status not in _PASSING


def why_failed(status: int) -> tuple[str, str]:
    """(what it means, what to do next) when questions fail with this HTTP status."""
    if status in (401, 403):
        return "the service refuses the key: ", "check the key in the environment; nothing is asked twice"
    if is_final(status):
        return "the service refuses the request: ", "check ask.model, ask.base_url and the other settings of ask"
    return "", "run the same command again later; nothing is asked twice"
