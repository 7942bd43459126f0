"""Shards on a Dask cluster: each has a journal of its own, its share of the pace, and a lease on the budget.

The shard's journal lies where it outlives the worker, and holds each answer before it is used: when a worker dies, Dask
gives the shard to another one, which goes on from that journal. What a worker hands back is merged into the main
journal. The limits on requests and cost hold over all shards (:class:`flows.cluster.leases.Leases`), so do those per
minute:
every shard in flight has an equal part of them and begins with an empty bucket; ``ask.concurrency`` holds per shard.
Keys come from the worker's own environment and never travel.
"""

from __future__ import annotations

import math
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.cluster.cluster import result_of
from flows.cluster.leases import Amount, Leases
from flows.config import AdviceJob
from lore_datasets.errors import BadInput, LoreError, ServiceError

if TYPE_CHECKING:
    from distributed import Client

    from pipeline.llm.base import LLM
    from pipeline.llm.journal.journal import Journal
    from pipeline.rounds.ask import ShardResult
    from pipeline.rounds.round import Round

__all__ = ["Answered", "ShardWork", "ask_elsewhere", "asker_on", "collect_leftovers"]

_FOLDER = "LORE_SHARDS"


@dataclass(frozen=True, eq=False)
class ShardWork:
    """All that a worker needs to ask about one shard.

    Attributes:
        job: whom to ask and how; ``max_requests``, ``max_cost`` and the limits per minute are this shard's own. The
            first two count everything in the shard's journal, ``known`` included.
        environment: name of the environment.
        packed: uint8[n, S] states.
        skills: skills of the round as JSON, in order.
        journal: file of the shard's journal; a worker with ``LORE_SHARDS`` set keeps it in that folder.
        known: answers that the main journal holds already, as :func:`pipeline.llm.journal.shard_journal.rows_of`
        gives them. version: version of LoRe that cut the shard.
    """

    job: AdviceJob
    environment: str
    packed: np.ndarray
    skills: tuple[str, ...]
    journal: str
    known: dict[str, list[tuple]]
    version: str


@dataclass(frozen=True, eq=False)
class Answered:
    """What a worker hands back: the result or why there is none, and all that the shard's journal holds and cost."""

    result: ShardResult | None
    error: LoreError | None
    rows: dict[str, list[tuple]]
    spent: Amount


def ask_elsewhere(work: ShardWork) -> Answered:
    """Ask about one shard, on from its journal; runs on a worker. Busy while another worker still has the journal."""
    from lore_datasets.environments import get_environment
    from lore_datasets.language.skills import parse_skill
    from pipeline.config import PipelineConfig
    from pipeline.llm.journal.journal import Budget
    from pipeline.llm.journal.shard_journal import ShardJournal, merge, rows_of, spent
    from pipeline.questions.check import GoalCheck
    from pipeline.questions.prompts import Renderer
    from pipeline.rounds.advise import advise_shard
    from pipeline.rounds.round import Round

    if work.version != version("lore-rl"):
        raise BadInput(f"this worker has LoRe {version('lore-rl')}, the flow {work.version}",
                       hint="install the same version: other questions would be asked")  # fmt: skip
    job, path = work.job, Path(work.journal)
    if os.environ.get(_FOLDER):
        path = Path(os.environ[_FOLDER]) / path.name
    environment, llm = get_environment(work.environment), _adviser(job, work.environment)
    skills = tuple(parse_skill(text, environment.vocab) for text in work.skills)
    pace = getattr(llm, "pace", None)
    if pace is not None:
        pace.drain()
    with ShardJournal(path) as journal:
        merge(work.known, journal)
        budget = Budget(job.ask.max_requests, job.ask.max_cost, getattr(llm, "estimate", None))
        budget.requests, budget.cost = spent(journal)
        now = Round(
            packed=work.packed,
            environment=environment,
            llm=llm,
            config=PipelineConfig(ask=job.ask, advise=job.advise),
            journal=journal,
            budget=budget,
            skills=skills,
            renderer=Renderer(environment, skills, seed=job.advise.seed),
            feasible=GoalCheck(skills, environment.vocab),
        )
        result = error = None
        try:
            result = advise_shard(now, range(len(work.packed)))
        except LoreError as raised:
            error = raised
        return Answered(result, error, rows_of(journal), spent(journal))


def _adviser(job: AdviceJob, environment: str) -> LLM:
    """The backend of a job; a worker keeps the last one, for a local model takes long to load."""
    ask = replace(job.ask, max_requests=0, max_cost=0.0, shard=1)
    return _made(replace(job, ask=ask), environment)


@lru_cache(maxsize=1)
def _made(job: AdviceJob, environment: str) -> LLM:
    from flows.jobs.tasks import adviser
    from lore_datasets.environments import get_environment

    return adviser(job, get_environment(environment), Path(job.journal))


def asker_on(
    client: Client, now: Round, job: AdviceJob, folder: Path, at_a_time: int, stopping: threading.Event
) -> Callable[[range], ShardResult]:
    """A function that asks about one shard of ``now`` on the cluster; at most ``at_a_time`` may call it at once."""
    ask, budget = job.ask, now.budget
    requests = ask.max_requests - budget.requests if ask.max_requests else math.inf
    leases = Leases((requests, ask.max_cost - budget.cost if ask.max_cost else math.inf))
    limits = ("requests_per_minute", "tokens_per_minute")
    share = {name: getattr(ask, name) // at_a_time for name in limits if getattr(ask, name)}
    mine = replace(job, ask=replace(ask, **share))

    def one(shard: range) -> ShardResult:
        work, wanted, known = _work(now, mine, folder, shard)
        used, unused = (0.0, 0.0), (0.0, 0.0)
        while True:
            lent = leases.take((max(wanted[0] - used[0], 0.0), max(wanted[1] - used[1], 0.0)), unused)
            if lent is None:
                raise _at_the_limit(now.journal)
            try:
                found = _sent(client, _limited(work, ask, (known[0] + used[0], known[1] + used[1]), lent), stopping)
            except BaseException:
                leases.give_back(lent, lent)  # what was asked is not known: nothing comes back
                raise
            _merge(found, now.journal, folder / Path(work.journal).name)
            now_used = (found.spent[0] - known[0], found.spent[1] - known[1])
            spent = (now_used[0] - used[0], now_used[1] - used[1])
            leases.give_back(lent, spent)
            used, unused = now_used, (lent[0] - spent[0], lent[1] - spent[1])
            if found.result is not None:
                for row in found.result.rows:
                    row.index += shard[0]
                return found.result
            if found.error is not None and not found.error.message.startswith("partial: the limit"):
                raise found.error

    return one


def collect_leftovers(folder: Path, journal: Journal) -> int:
    """Merge the shard journals that a stopped run has left in ``folder``; how many there were.

    Busy when a worker of that run is still asking: what it asks is paid, so its end is waited for.
    """
    from pipeline.llm.journal.shard_journal import ShardJournal, merge, rows_of

    found = sorted(folder.glob("*.sqlite"))
    for path in found:
        with ShardJournal(path) as shard:
            merge(rows_of(shard), journal)
        path.unlink()
    return len(found)


def _work(now: Round, job: AdviceJob, folder: Path, shard: range) -> tuple[ShardWork, Amount, Amount]:
    """(the shard's work, most that it may ask and cost, what its known answers count)."""
    from pipeline.llm.journal.shard_journal import price_of, rows_of
    from pipeline.rounds.advise import questions_of
    from pipeline.rounds.ask import forms
    from pipeline.rounds.shard_file import shard_key

    journal, prompts, tries = now.journal, questions_of(now, shard), forms(now.llm, now.config.ask.retries)
    known = rows_of(journal, [key for form in tries for key in journal.keys(now.llm, [form(p) for p in prompts])])
    most = (float(len(prompts) * len(tries)), sum(map(now.budget.estimate, prompts)) * len(tries))
    work = ShardWork(
        job=job,
        environment=now.environment.name,
        packed=now.packed[shard.start : shard.stop],
        skills=tuple(skill.to_json() for skill in now.skills),
        journal=str(folder.resolve() / f"{shard_key(now, shard)[:32]}.sqlite"),
        known=known,
        version=version("lore-rl"),
    )
    return work, most, (float(len(known["answer"])), price_of(known["answer"]))


def _limited(work: ShardWork, ask: Any, before: Amount, lent: Amount) -> ShardWork:
    """``work`` with limits that count what its journal holds (``before``) and what was ``lent``."""
    limits: dict[str, Any] = {}
    if ask.max_requests:
        limits["max_requests"] = int(before[0] + lent[0])
    if ask.max_cost:
        limits["max_cost"] = before[1] + lent[1]
    return replace(work, job=replace(work.job, ask=replace(work.job.ask, **limits)))


def _sent(client: Client, work: ShardWork, stopping: threading.Event) -> Answered:
    key = f"lore-shard-{Path(work.journal).stem[:12]}-{uuid.uuid4().hex[:8]}"
    future = client.submit(ask_elsewhere, work, key=key, pure=False)
    return result_of(future, "a shard of questions", stopping)


def _merge(found: Answered, journal: Journal, path: Path) -> None:
    """Write a worker's answers into the main journal; its file, where it is seen from here, has served then."""
    from pipeline.llm.journal.shard_journal import merge

    merge(found.rows, journal)
    if found.error is None:
        path.unlink(missing_ok=True)


def _at_the_limit(journal: Journal) -> ServiceError:
    return ServiceError(
        "partial: the limit on cost or requests is reached before all questions were asked",
        kept=f"{len(journal)} answers in {journal.path}",
        hint="run the same command with a higher limit; nothing is asked twice",
    )
