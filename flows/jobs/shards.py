"""A round's shards on threads of this process or on a Dask cluster. Nothing that was answered is asked again.

On threads all shards share the main journal, the budget and the pace; what holds on a cluster says
:mod:`flows.cluster.remote_shards`. The result of a finished shard is kept as a file until the version is committed.
"""

from __future__ import annotations

import contextvars
import copy
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lore_datasets.atomic import write_json
from lore_datasets.errors import CorruptArtifact, ServiceError

if TYPE_CHECKING:
    from distributed import Client

    from flows.config import AdviceJob
    from pipeline.rounds.ask import ShardResult
    from pipeline.rounds.round import Round

__all__ = ["LEAST", "Wrap", "answer_shards", "cut", "forget"]

LEAST = 64
"""States of the smallest shard, whatever ``ask.shard`` says: a task of its own is worth no less."""
_THREADS = 2

Wrap = Callable[[Callable[[], Any], Sequence[int]], Any]
"""``wrap(ask, shard)`` calls ``ask()`` where it likes, such as inside a task of an orchestrator."""


def cut(now: Round) -> list[range]:
    """The round's shards, :data:`LEAST` states or more each but the last; one where the adviser wants all at once."""
    n = len(now.packed)
    size = n if getattr(now.llm, "one_shard", False) else max(LEAST, now.config.ask.shard)
    return [range(i, min(i + size, n)) for i in range(0, n, size)]


def answer_shards(
    now: Round,
    job: AdviceJob,
    folder: Path,
    on_done: Callable[[int], None],
    client: Client | None = None,
    wrap: Wrap | None = None,
) -> list[ShardResult]:
    """Ask about every shard of a round, several at a time; results in order.

    ``folder`` keeps what is finished. ``on_done(states)`` is called as shards end, ``wrap(ask, shard)`` around each
    that has to be asked. The first error stops the rest and is raised when those in flight have let go.
    """
    shards, stopping = cut(now), threading.Event()
    at_a_time = _at_a_time(now, job, client, len(shards))
    if client is None or getattr(now.llm, "one_shard", False):
        ask = _asker_here(now, at_a_time, stopping)
    else:
        from flows.cluster.remote_shards import asker_on

        ask = asker_on(client, now, job, folder, at_a_time, stopping)

    def one(shard: range) -> ShardResult:
        from pipeline.rounds.shard_file import shard_key, to_json

        path = folder / f"{shard_key(now, shard)}.json"
        result = _kept(path)
        if result is None:
            result = wrap(partial(ask, shard), shard) if wrap else ask(shard)
            if not any(name.startswith("failed.") for name in result.counts):  # those are asked again by a later run
                write_json(path, to_json(result))
        return result

    if at_a_time == 1 and client is None:
        return [_told(one(shard), on_done, shard) for shard in shards]
    with ThreadPoolExecutor(at_a_time, "shard") as pool:
        futures = {pool.submit(contextvars.copy_context().run, one, shard): shard for shard in shards}
        try:
            for future in as_completed(futures):
                _told(future.result(), on_done, futures[future])
        except BaseException:
            stopping.set()
            for future in futures:
                future.cancel()
            raise
    return [future.result() for future in futures]


def forget(folder: Path) -> None:
    """Remove the results of finished shards, once the version that holds them is committed."""
    for path in (*folder.glob("*.json"), *folder.glob("*.sqlite*"), *folder.glob(".*.sqlite.*")):
        path.unlink(missing_ok=True)


def _told(result: ShardResult, on_done: Callable[[int], None], shard: range) -> ShardResult:
    on_done(len(shard))
    return result


def _at_a_time(now: Round, job: AdviceJob, client: Client | None, shards: int) -> int:
    """Shards in flight: what the cluster has threads for; on threads 2 where one waits on a network, else 1."""
    ask, llm = job.ask, now.llm
    if getattr(llm, "one_shard", False):
        return 1
    if client is not None:
        wanted = job.parallel or sum(client.nthreads().values())  # pyright: ignore[reportAttributeAccessIssue]
        slowest = [n for n in (ask.requests_per_minute, ask.tokens_per_minute) if n]
        return max(1, min(wanted, shards, *slowest))
    if getattr(llm, "is_service", False):
        return max(1, min(job.parallel or _THREADS, shards, ask.concurrency))
    return max(1, min(job.parallel, shards)) if ":" in ask.backend else 1


def _kept(path: Path) -> ShardResult | None:
    from pipeline.rounds.shard_file import from_json

    try:
        return from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (CorruptArtifact, ValueError):
        path.unlink()
        return None


def _asker_here(now: Round, at_a_time: int, stopping: threading.Event) -> Callable[[range], ShardResult]:
    """Ask in this process; threads have their part of ``concurrency`` each and stop between two answers."""
    from pipeline.rounds.advise import advise_shard

    if at_a_time == 1:
        return partial(advise_shard, now)
    llm = copy.copy(now.llm)
    if hasattr(llm, "concurrency"):
        llm.concurrency = max(1, llm.concurrency // at_a_time)  # type: ignore[attr-defined]
    name = next(name for name in ("answer_to", "stream", "complete") if hasattr(llm, name))
    method = getattr(llm, name)

    def check() -> None:
        if stopping.is_set():
            raise ServiceError("stopped", kept="every answer", hint="run the same command again")

    def answer_to(take: Callable[[Any], None], prompts: Sequence[Any]) -> None:
        method(lambda part: (take(part), check()), prompts)

    def stream(prompts: Sequence[Any]) -> Any:
        for pair in method(prompts):
            yield pair
            check()

    def complete(prompts: Sequence[Any]) -> Any:
        check()
        return method(prompts)

    setattr(llm, name, {"answer_to": answer_to, "stream": stream, "complete": complete}[name])
    return partial(advise_shard, replace(now, llm=llm))
