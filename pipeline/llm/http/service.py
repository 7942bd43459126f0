"""What every adviser behind a network shares: concurrency, a total deadline, retries, pace, prices.

What got an answer asks nothing further before the caller of :meth:`Service.answer` has written it: no more than
``concurrency`` questions are ever without a written answer.
A failure is a Response with ``error``, made of status codes and class names alone: no key, no body of a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any, TypedDict, cast
from urllib.parse import urlsplit

from anyio.from_thread import BlockingPortalProvider
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from lore_datasets.errors import ConfigError, ServiceError, shown
from pipeline.llm.base import Capabilities, Prompt, Response, Stop, Take
from pipeline.llm.http.pace import Pace
from pipeline.llm.http.transport import TooLarge
from pipeline.llm.prices import estimate_tokens, price

__all__ = ["RETRIED", "THINKING_ROOM", "Failed", "Limits", "Service", "check_url", "is_loopback", "unanswered"]

_LOG = logging.getLogger("lore")
_CONNECT_S = 5.0
_LOOK_S = 0.2  # a waiting question looks this often whether asking was stopped
THINKING_ROOM = 1024
"""Tokens for a model that thinks whether it is told to or not, where no setting says otherwise."""
RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})
"""HTTP statuses that are asked again (409: the same request is being worked on); all others end the question."""


class Failed(Exception):
    """One attempt that failed: what to say, whether to ask again, how long the server wants to be left alone."""

    def __init__(self, text: str, again: bool, wait_s: float = 0.0, status: int = 0) -> None:
        super().__init__(text)
        self.text, self.again, self.wait_s, self.status = text, again, wait_s, status


def unanswered(error: Exception) -> Failed:
    """What it means that a request ended in an error of the HTTP library instead of an answer."""
    if isinstance(error, TooLarge):
        return Failed(str(error), again=False)
    return Failed(type(error).__name__, again=True)


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def check_url(url: str) -> str:
    """``url`` without its last slash; ConfigError unless it is https, or http on loopback."""
    parts = urlsplit(url)
    more = parts.username or parts.password or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not parts.hostname or more:
        bare = f"{parts.scheme}://{parts.hostname}{parts.path}"  # what else there is may be a key
        raise ConfigError.out_of_range("base_url", bare, "an http(s) address without a user or a query (?key=)")
    if parts.scheme == "http" and not is_loopback(url):
        raise ConfigError(f"base_url {shown(url)} is not encrypted", hint="use https; http is for loopback alone")
    return url.rstrip("/")


class Limits(TypedDict, total=False):
    """How a service may be asked; the options that all of them share.

    Attributes:
        timeout_s: total deadline of one question over all its attempts (60), the time spent waiting for its turn under
            the limits per minute not counted.
        concurrency: questions in flight at a time, over all threads that ask (8).
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
    """An adviser that waits on a network; subclasses make one attempt in :meth:`attempt`. It never holds a key."""

    def __init__(
        self,
        name: str,
        model: str,
        base_url: str,
        parameters: Mapping[str, Any],
        *,
        letters: bool = False,
        thinking_room: int = 0,
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
        self.thinking_room = thinking_room
        self.pace = Pace(requests_per_minute, tokens_per_minute)
        self.is_free = bool(base_url) and is_loopback(base_url)
        self.capabilities = Capabilities(
            parameters=dict(parameters),
            letters=letters,
            is_service=True,
            seconds_per_question=2.0,
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            where=f"{self.name} at {self.base_url}" if self.base_url else self.name,
            estimate=self.estimate if self._has_price() else None,
            check=self.check,
        )
        self._portals = BlockingPortalProvider()
        self._slots: asyncio.Semaphore | None = None
        self._calls = 0

    def _has_price(self) -> bool:
        if self.is_free:
            return True
        with contextlib.suppress(ConfigError):
            price(self.model, 0, 0)
            return True
        return False

    def estimate(self, prompt: Prompt) -> float:
        """Highest price of a question in US dollars; 0 on loopback and for a model without a listed price."""
        tokens_in, tokens_out = estimate_tokens(prompt)
        return self.dollars(Response("", tokens_in=tokens_in, tokens_out=tokens_out + self.thinking_room))

    def dollars(self, response: Response, batch: bool = False) -> float:
        """Price of the tokens of a response, cached ones as the service charges them; 0 where no price is known."""
        if self.is_free or not self._has_price():
            return 0.0
        cached = response.tokens_cached
        return price(self.model, response.tokens_in, response.tokens_out, cached=cached, batch=batch)

    def check(self) -> None:
        """UsageError without a key where one is needed, ServiceError when no server listens at ``base_url``."""
        parts = urlsplit(self.base_url)
        if parts.hostname and self.is_free:
            try:
                port = parts.port or (443 if parts.scheme == "https" else 80)
                socket.create_connection((parts.hostname, port), timeout=_CONNECT_S).close()
            except OSError as error:
                raise ServiceError(f"no server answers at {shown(self.base_url)}: {type(error).__name__}") from None

    @abstractmethod
    async def attempt(self, client: Any, prompt: Prompt) -> Response:
        """Ask once; raise :class:`Failed`. Latency and price are filled in by the caller."""

    @abstractmethod
    def client(self) -> contextlib.AbstractAsyncContextManager[Any]:
        """The connection pool that all attempts of one call of :meth:`answer` share."""

    def answer(self, prompts: Sequence[Prompt], take: Take, stop: Stop) -> None:
        """:meth:`pipeline.llm.base.LLM.answer`, in the event loop of a thread that all calls at a time share.

        ``take`` is called in that thread. An interrupt begins no further question, waits for what is in flight, at most
        for ``timeout_s``, and hands it over; a second interrupt leaves it.
        """
        leaving, writing = threading.Event(), _Writing(take)
        with self._portals as portal:
            asked = portal.start_task_soon(self._all, prompts, writing, lambda: leaving.is_set() or stop())
            try:
                asked.result()
            except BaseException:
                leaving.set()
                _wait_for(asked)
                raise
            finally:
                if writing.error is not None:
                    raise writing.error from None

    async def _all(self, prompts: Sequence[Prompt], writing: _Writing, stop: Stop) -> None:
        """Ask all ``prompts``, ``concurrency`` at a time over all calls, until ``stop()``."""
        left = iter(enumerate(prompts))
        slots = self._slots = self._slots or asyncio.Semaphore(self.concurrency)
        self._calls += 1

        async def work(client: Any) -> None:
            for i, prompt in left:
                async with slots:
                    response = await self._one(client, prompt, stop)
                    if response is None:
                        return
                    await writing.write(i, response)

        try:
            async with self.client() as client, asyncio.TaskGroup() as group:
                for _ in range(min(self.concurrency, len(prompts))):
                    group.create_task(work(client))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._calls -= 1
            if not self._calls:
                self._slots = None

    async def _one(self, client: Any, prompt: Prompt, stop: Stop) -> Response | None:
        """Attempts with exponential backoff and full jitter inside one total deadline; None when none was begun."""
        started, last = time.monotonic(), None
        expected = sum(estimate_tokens(prompt)) + self.thinking_room

        async def attempt() -> Response | None:
            nonlocal started, last
            started += await self._turn(limit, expected, stop)
            if stop():
                if last is None:
                    return None
                raise Failed(last.text, again=False, status=last.status)
            try:
                response = await self.attempt(client, prompt)
            except Failed as failed:
                last = failed
                self.pace.settle(expected, 0)
                if failed.wait_s > self.timeout_s + started - time.monotonic():
                    asks = f", the server asks to wait {failed.wait_s:.0f} s" if failed.wait_s else ""
                    text = f"{failed.text}{asks}"
                    raise Failed(text, again=False, status=failed.status) from None
                self.pace.hold(failed.wait_s)
                raise
            self.pace.settle(expected, response.tokens_in + response.tokens_out)
            return replace(response, latency_s=time.monotonic() - started, price_usd=self.dollars(response))

        try:
            async with asyncio.timeout(self.timeout_s) as limit:
                return await self._retrying(stop)(attempt)
        except Failed as failed:
            text, status = failed.text, failed.status
        except TimeoutError:
            text, status = f"no answer within {self.timeout_s:g} s", 0
            if last is not None:
                text, status = f"{text} (last: {last.text})", last.status
        seconds = time.monotonic() - started
        return Response("", self.model, latency_s=seconds, finish="error", error=text, status=status)

    def _retrying(self, stop: Stop) -> AsyncRetrying:
        jitter = wait_random_exponential(multiplier=self.backoff_s)

        def pause(state: RetryCallState) -> float:
            failed = cast(Failed, state.outcome.exception() if state.outcome else None)
            return max(failed.wait_s, jitter(state))

        return AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Failed) and error.again),
            stop=stop_after_attempt(self.attempts),
            wait=pause,
            sleep=lambda seconds: _sleep(seconds, stop),
            reraise=True,
        )

    async def _turn(self, limit: asyncio.Timeout, expected: int, stop: Stop) -> float:
        """Wait until the limits per minute let one more request out; its deadline moves by that. Seconds waited.

        Where a server asks meanwhile to be left alone, its turn comes after that.
        """
        seconds, due = 0.0, limit.when()
        while not stop() and (more := self.pace.reserve(expected)) > 0 and due is not None:
            seconds += more
            limit.reschedule(due + seconds)
            await _sleep(more, stop)
            if not self.pace.is_held:
                break
            self.pace.settle(expected, 0)
        return seconds


class _Writing:
    """Hands answers to ``take``, those that come in together in one call; belongs to one event loop.

    ``error``: what ``take`` raised; it ends the asking.
    """

    def __init__(self, take: Take) -> None:
        self._take, self._waiting = take, []
        self.error: BaseException | None = None

    async def write(self, i: int, response: Response) -> None:
        """Return when ``take`` has returned."""
        loop = asyncio.get_running_loop()
        written = loop.create_future()
        self._waiting.append((i, response, written))
        if len(self._waiting) == 1:
            loop.call_soon(self._write)
        await written

    def _write(self) -> None:
        part, self._waiting = self._waiting, []
        try:
            self._take([(i, response) for i, response, _ in part])
        except BaseException as error:
            self.error = error
            for _, _, written in part[1:]:
                written.cancel()
            if not part[0][2].done():
                part[0][2].set_exception(_NotWritten())
        else:
            for _, _, written in part:
                if not written.done():
                    written.set_result(None)


class _NotWritten(Exception):
    pass


def _wait_for(asked: Future[None]) -> None:
    """Wait for what is in flight; a further interrupt cancels it."""
    if asked.done():
        return
    _LOG.warning("stopping: waiting for the answers in flight (interrupt again to leave them)")
    try:
        wait([asked])
    except BaseException:
        asked.cancel()
        raise


async def _sleep(seconds: float, stop: Stop) -> None:
    """Wait so long, or until ``stop()``."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not stop():
        await asyncio.sleep(min(left, _LOOK_S))
