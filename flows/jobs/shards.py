"""A round's shards, several at a time on threads. All share the journal, the budget and the adviser.

What was answered is in the journal before it is used, so a round that was stopped goes on from there. On a cluster the
workers answer for advisers that compute (:mod:`flows.cluster.remote_answers`).
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flows.terminal import current
from lore_datasets.errors import LimitReached

if TYPE_CHECKING:
    from distributed import Client

    from flows.config import AdviceJob
    from pipeline.rounds.ask import ShardResult
    from pipeline.rounds.round import Round

__all__ = ["LEAST", "Wrap", "answer_shards"]

LEAST = 64
"""States of the smallest shard, whatever ``ask.shard`` says: a task of its own is worth no less."""
_THREADS = 2

Wrap = Callable[[Callable[[], Any], Sequence[int]], Any]
"""``wrap(ask, shard)`` calls ``ask()`` where it likes, such as inside a task of an orchestrator."""


def answer_shards(
    now: Round,
    job: AdviceJob,
    on_done: Callable[[int], None],
    client: Client | None = None,
    wrap: Wrap | None = None,
) -> list[ShardResult]:
    """Ask about every shard of a round; results in order.

    ``on_done(states)`` is called as shards end, ``wrap(ask, shard)`` around each. The first error stops the rest and is
    raised when those in flight have ended; after LimitReached the others still ask what the limit has left them.
    """
    from pipeline.rounds.advise import advise_shard

    shards, stopping = now.shards(LEAST), threading.Event()
    if client is not None:
        now = replace(now, llm=_on(client, now, job))

    def one(shard: range) -> ShardResult:
        ask = partial(advise_shard, now, shard, stopping.is_set)
        return wrap(ask, shard) if wrap else ask()

    at_a_time = _at_a_time(now, job, client, len(shards))
    if at_a_time == 1:
        return [_told(one(shard), on_done, shard) for shard in shards]
    with ThreadPoolExecutor(at_a_time, "shard") as pool:
        futures = {pool.submit(contextvars.copy_context().run, one, shard): shard for shard in shards}
        limit = None
        try:
            for future in as_completed(futures):
                try:
                    _told(future.result(), on_done, futures[future])
                except LimitReached as reached:
                    limit = reached
            if limit is not None:
                raise limit
        except BaseException:
            stopping.set()
            current().say("  stopping: what is in flight is waited for and kept")
            for future in futures:
                future.cancel()
            raise
    return [future.result() for future in futures]


def _told(result: ShardResult, on_done: Callable[[int], None], shard: range) -> ShardResult:
    on_done(len(shard))
    return result


def _on(client: Client, now: Round, job: AdviceJob) -> Any:
    """The round's adviser, answered by the workers of a cluster."""
    from flows.cluster.remote_answers import OnCluster

    threads = sum(client.nthreads().values())  # pyright: ignore[reportAttributeAccessIssue]
    at_a_time = max(1, min(job.parallel or threads, threads))
    return OnCluster(now.llm, client, job.ask, now.environment.name, job.advise.seed, at_a_time)


def _at_a_time(now: Round, job: AdviceJob, client: Client | None, shards: int) -> int:
    """Shards on threads at a time: 2 where a service is asked (or a cluster, so that its threads never wait)."""
    known = now.llm.capabilities
    if known.one_shard:
        return 1
    if known.is_service or client is not None:
        return max(1, min(_THREADS if client is not None else job.parallel or _THREADS, shards))
    return max(1, min(job.parallel, shards)) if ":" in job.ask.backend else 1
