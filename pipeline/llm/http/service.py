"""What every adviser behind a network shares: concurrency, a total deadline, retries, a circuit breaker, prices.

What got an answer asks nothing further before the caller of :meth:`Service.answer_to` or :meth:`Service.stream` has
written it: no more than ``concurrency`` questions are ever without a written answer.
A failure is a Response with ``error``, made of status codes and class names alone: no key, no body of a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict
from urllib.parse import urlsplit

from lore_datasets.errors import ConfigError, shown
from pipeline.llm.base import Prompt, Response
from pipeline.llm.http.pace import Circuit, Pace
from pipeline.llm.http.transport import TooLarge
from pipeline.llm.prices import estimate_tokens, price

__all__ = ["RETRIED", "Failed", "Limits", "Service", "check_url", "count", "is_loopback", "unanswered"]

RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})
"""HTTP statuses that are asked again (409: the same request is being worked on); all others end the question."""


class Failed(Exception):
    """One attempt that failed: what to say, whether to ask again, and how long the server wants to be left alone."""

    def __init__(self, text: str, again: bool, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.text, self.again, self.wait_s = text, again, wait_s


def unanswered(error: Exception) -> Failed:
    """What it means that a request ended in an error of the HTTP library instead of an answer."""
    if isinstance(error, TooLarge):
        return Failed(str(error), again=False)
    return Failed(type(error).__name__, again=True)


def count(value: Any) -> int:
    """A number of tokens as a server gave it; 0 for anything but a count."""
    return value if type(value) is int and 0 <= value < 2**31 else 0


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def check_url(url: str) -> str:
    """``url`` without its last slash; ConfigError unless it is https, or http on loopback."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise ConfigError.out_of_range("base_url", url, "an http(s) address without a user in it")
    if parts.scheme == "http" and not is_loopback(url):
        raise ConfigError(f"base_url {shown(url)} is not encrypted", hint="use https; http is for loopback alone")
    return url.rstrip("/")


class Limits(TypedDict, total=False):
    """How a service may be asked; the options that all of them share.

    Attributes:
        timeout_s: total deadline of one question over all its attempts (60), the time spent waiting for its turn under
            the limits per minute not counted.
        concurrency: questions in flight at a time (8).
        attempts: requests that one question may take (5).
        backoff_s: longest wait before the second attempt (1); it doubles with each further one.
        requests_per_minute, tokens_per_minute: see :class:`pipeline.llm.http.pace.Pace`; 0 sets none.
    """

    timeout_s: float
    concurrency: int
    attempts: int
    backoff_s: float
    requests_per_minute: int
    tokens_per_minute: int


class Service(ABC):
    """An adviser that waits on a network; subclasses make one attempt in :meth:`attempt`.

    No key is ever held by the object.

    Attributes:
        spec: the AskConfig as a dict of plain values that makes the same adviser elsewhere; a journal file then has
            its questions asked by a process of their own (:mod:`pipeline.llm.http.sender`). None asks in this process.
    """

    spec: Mapping[str, Any] | None = None

    seconds_per_question = 2.0
    is_service = True
    gives_up = True
    chunk = 4096

    def __init__(
        self,
        name: str,
        model: str,
        base_url: str,
        parameters: dict[str, Any],
        *,
        timeout_s: float = 60.0,
        concurrency: int = 8,
        attempts: int = 5,
        backoff_s: float = 1.0,
        requests_per_minute: int = 0,
        tokens_per_minute: int = 0,
    ) -> None:
        self.name, self.model = f"{name}:{model}", model
        self.base_url = check_url(base_url) if base_url else ""
        self.timeout_s, self.concurrency = timeout_s, concurrency
        self.attempts, self.backoff_s = attempts, backoff_s
        self.parameters = parameters
        self.pace = Pace(requests_per_minute, tokens_per_minute)
        self.is_free = bool(base_url) and is_loopback(base_url)

    @property
    def where(self) -> str:
        """Who is asked, for messages."""
        return f"{self.name} at {self.base_url}" if self.base_url else self.name

    @property
    def has_price(self) -> bool:
        """Whether the price of a question is known."""
        if self.is_free:
            return True
        with contextlib.suppress(ConfigError):
            price(self.model, 0, 0)
            return True
        return False

    def estimate(self, prompt: Prompt) -> float:
        """Highest price of a question in US dollars; 0 on loopback and for a model without a listed price."""
        return self.dollars(*estimate_tokens(prompt))

    def dollars(self, tokens_in: int, tokens_out: int) -> float:
        """Price of so many tokens."""
        return price(self.model, tokens_in, tokens_out) if not self.is_free and self.has_price else 0.0

    @abstractmethod
    async def attempt(self, client: Any, prompt: Prompt) -> Response:
        """Ask once; raise :class:`Failed`. Latency and price are filled in by the caller."""

    @abstractmethod
    def client(self) -> contextlib.AbstractAsyncContextManager[Any]:
        """The connection pool that all attempts of one stream share."""

    def complete(self, prompts: Sequence[Prompt]) -> list[Response]:
        """One Response per prompt, in order; those no longer asked after failures in a row have an ``error`` too."""
        never = Response("", self.model, finish="error", error="not asked: too many questions before it had failed")
        found = dict(self.stream(prompts))
        return [found.get(i, never) for i in range(len(prompts))]

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Response]]:
        """(index, Response) as the answers come in; closing the iterator cancels what is still in flight.

        An answer counts as written when the next one is asked of the iterator. Until then its place among the
        ``concurrency`` in flight stays taken: a kill loses no more than those. When
        :data:`pipeline.llm.http.pace.MAX_FAILURES` questions in a row have failed no further request begins: what is in
        flight is still waited for and handed out, for it is paid, then the iterator ends.
        """
        out: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with _running(self._all(prompts, lambda *answered: out.put(answered)), out, self.name) as loop:
            while (item := _good(out.get())) is not None:
                i, response, written = item
                yield i, response
                with contextlib.suppress(RuntimeError):  # the loop may have closed by itself
                    loop.call_soon_threadsafe(written.set)

    def answer_to(
        self,
        take: Callable[[list[tuple[int, Response]]], None],
        prompts: Sequence[Prompt],
        circuit: Circuit | None = None,
    ) -> None:
        """:meth:`stream` for a caller that writes at once: ``take`` gets the answers that have come in together.

        It is called in another thread, and they count as written when it returns; what it raises ends the asking. With
        ``circuit`` the caller can let no further request begin.
        """
        waiting: list[tuple[int, Response, asyncio.Event]] = []
        out: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def write() -> None:
            part = waiting.copy()
            waiting.clear()
            try:
                take([(i, response) for i, response, _ in part])
            except BaseException as error:
                out.put(error)
            else:
                for _, _, written in part:
                    written.set()

        def hand(*answered: Any) -> None:
            waiting.append(answered)
            if len(waiting) == 1:
                asyncio.get_running_loop().call_soon(write)

        with _running(self._all(prompts, hand, circuit), out, self.name):
            _good(out.get())

    async def _all(self, prompts: Sequence[Prompt], hand: Callable[..., None], circuit: Circuit | None = None) -> None:
        """Ask all ``prompts``, ``concurrency`` at a time, until the circuit opens; ``hand(i, response, written)``."""
        left, circuit = iter(enumerate(prompts)), circuit or Circuit()
        async with self.client() as client:

            async def work() -> None:
                for i, prompt in left:
                    response = await self._one(client, prompt, circuit)
                    if response is None:
                        return
                    circuit.count(response.error is None)
                    written = asyncio.Event()
                    hand(i, response, written)
                    await written.wait()

            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.concurrency, len(prompts))):
                    group.create_task(work())

    async def _one(self, client: Any, prompt: Prompt, circuit: Circuit) -> Response | None:
        """Attempts with exponential backoff and full jitter inside one total deadline; None when none was begun."""
        started, error, expected = time.monotonic(), "", sum(estimate_tokens(prompt))
        try:
            async with asyncio.timeout(self.timeout_s) as limit:
                for attempt in range(self.attempts):
                    started += await self._turn(limit, expected, circuit)
                    if circuit.is_open:
                        break
                    try:
                        response = await self.attempt(client, prompt)
                        self.pace.settle(expected, response.tokens_in + response.tokens_out)
                        seconds = time.monotonic() - started
                        dollars = self.dollars(response.tokens_in, response.tokens_out)
                        return replace(response, latency_s=seconds, price_usd=dollars)
                    except Failed as failed:
                        error = failed.text
                        self.pace.settle(expected, 0)
                        if failed.wait_s > self.timeout_s + started - time.monotonic():
                            error = f"{error}, the server asks to wait {failed.wait_s:.0f} s"
                            break
                        self.pace.hold(failed.wait_s)
                        if not failed.again or attempt + 1 == self.attempts:
                            break
                        await circuit.sleep(max(failed.wait_s, random.random() * self.backoff_s * 2**attempt))
        except TimeoutError:
            error = f"no answer within {self.timeout_s:g} s" + (f" (last: {error})" if error else "")
        if not error:
            return None
        return Response("", self.model, latency_s=time.monotonic() - started, finish="error", error=error)

    async def _turn(self, limit: asyncio.Timeout, expected: int, circuit: Circuit) -> float:
        """Wait until the limits per minute let one more request out; its deadline moves by that. Seconds waited."""
        wait = 0.0 if circuit.is_open else self.pace.reserve(expected)
        due = limit.when()
        if wait > 0 and due is not None:
            limit.reschedule(due + wait)
            await circuit.sleep(wait)
        return wait


@contextlib.contextmanager
def _running(work: Coroutine[Any, Any, None], out: queue.SimpleQueue, name: str) -> Iterator[asyncio.AbstractEventLoop]:
    """``work`` in an event loop of a thread of its own; its error, if any, and a last None go ``out``.

    Leaving the block cancels it.
    """
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            out.put(error)
        finally:
            out.put(None)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    thread = threading.Thread(target=run, name=f"{name} questions", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(task.cancel)
        thread.join(timeout=10.0)


def _good(item: Any) -> Any:
    """An item of a queue; raises what is an error."""
    if isinstance(item, BaseException):
        raise item
    return item
