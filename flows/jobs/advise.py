"""Asking: an adviser answers about stored states, and its checked answers become the next version. No Prefect in here.

Heavy imports stand inside the functions, so that a server's worker imports this file quickly.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config import AdviceJob
from flows.jobs.asked import exchange, paid
from flows.jobs.collect import check_kinds, check_symbolic
from flows.terminal import current
from lore_datasets.atomic import held
from lore_datasets.errors import BadInput, ConfigError, ServiceError

if TYPE_CHECKING:
    from distributed import Client

    from flows.jobs.program_trials import ProgramTrials
    from flows.jobs.shards import Wrap
    from lore_datasets.environments import Environment
    from lore_datasets.exchange.revisions import Revision
    from lore_datasets.exchange.shipped import ShippedStore
    from lore_datasets.types import ArtifactRef
    from pipeline.llm.base import LLM
    from pipeline.llm.journal.journal import Journal
    from pipeline.rounds.advise import DryRun
    from pipeline.rounds.ask import ShardResult
    from pipeline.rounds.round import Round

__all__ = ["advise_states", "asking", "cancel_batches", "estimate"]


def _store() -> ShippedStore:
    from lore_datasets.exchange.shipped import ShippedStore

    return ShippedStore()


def _asked(job: AdviceJob) -> tuple[ShippedStore, ArtifactRef | None, Environment, Any, Any]:
    """(store, states version, environment, states to ask about, pipeline settings); known states are left out.

    A program alone is asked for without states."""
    import numpy as np

    from lore_datasets.environments import get_environment
    from lore_datasets.keys import fine_keys
    from lore_datasets.types import SymbolicState
    from pipeline.config import PipelineConfig
    from pipeline.rounds.select import select

    check_kinds({job.dataset: "advice"})
    store = _store()
    settings = PipelineConfig(select=job.select, ask=job.ask, advise=job.advise)
    if job.advise.wanted == {"program"}:
        environment = get_environment(job.environment, named=True)
        check_symbolic(environment)
        return store, None, environment, np.zeros((0, environment.layout.size), np.uint8), settings
    source = store.open(job.states)
    if source.manifest.kind != "states":
        raise BadInput(f"{source.ref} is of kind {source.manifest.kind}, not states", hint="make one with lore collect")
    environment = get_environment(source.manifest.environment)
    rows = {path.rpartition("/")[2]: array for path, array in source.arrays.items()}
    states = SymbolicState.unpack(rows["state"], environment.layout)
    wanted, told = job.select, {"key_fine": np.zeros(0, np.int64), "key_goal": np.zeros(0, np.int64)}
    if job.dataset in store.names() and store.versions(job.dataset):
        stored = store.open(job.dataset, wanted=lambda path: path.endswith(("/key_fine", "/key_goal"))).arrays
        told = {key: np.concatenate([a for path, a in stored.items() if path.endswith(key)]) for key in told}
    index = select(
        states,
        environment,
        wanted.budget,
        source=rows["source"],
        competent_weight=wanted.competent_weight,
        novelty=wanted.novelty,
        coverage=wanted.coverage,
        unsure=wanted.unsure,
        covered=told["key_goal"],
        uncertainty=rows.get("uncertainty"),
        known=told["key_fine"] if wanted.coverage or wanted.unsure else None,  # a repeated call asks nothing new
        seed=wanted.seed,
    )
    packed = rows["state"][index]
    keys = fine_keys(SymbolicState.unpack(packed, environment.layout), environment)
    packed = packed[~np.isin(keys, told["key_fine"])]
    return store, source.ref, environment, packed, settings


def _is_made(store: ShippedStore, name: str, source: ArtifactRef | None, settings: Any) -> bool:
    """True when the newest version of ``name`` came from these states with these settings."""
    if name not in store.names() or not store.versions(name):
        return False
    from pipeline.config import to_dict

    manifest = store.manifest(name)
    return (source is None or str(source) in manifest.parents) and manifest.config == to_dict(settings)


def _journal(job: AdviceJob, store: ShippedStore) -> Path:
    return Path(job.journal) if job.journal else store.beside / "journal.sqlite"


def advise_states(job: AdviceJob, wrap: Wrap | None = None) -> ArtifactRef:
    """Ask about the selected states that the dataset does not know yet, commit the next version.

    When all of them are known, or nobody has a usable answer to the rest, the newest version is returned as it is.
    ``wrap`` stands around every shard that has to be asked, where a flow makes a task of it. One run at a time per
    dataset: Busy otherwise. With ``job.revise`` a better program is asked for instead, without states
    (:mod:`flows.jobs.revise_program`).
    """
    from flows.jobs.program_trials import ProgramTrials
    from pipeline.llm import backend_from
    from pipeline.llm.journal.journal import Journal
    from pipeline.rounds.commit import commit_round
    from pipeline.rounds.mixing import refuse_mixed

    path = _journal(job, _store())
    with asking(_store(), job.dataset):
        if job.revise:
            from flows.jobs.revise_program import advise_better

            return advise_better(job, _store(), path)
        store, source, environment, states, settings = _asked(job)
        with Journal(path) as journal:
            llm = backend_from(job.ask, environment, job.advise.seed, journal)
            refuse_mixed(store, job.dataset, llm.name, job.ask.allow_mixed_advisers)
            is_made = _is_made(store, job.dataset, source, settings)
            moves_on = source is None or job.select.coverage or job.select.unsure  # the selection would be another
            if (is_made and moves_on) or (source is not None and not len(states)):
                return _known_already(store, job.dataset, llm)
            judge = ProgramTrials(environment, job.advise.seed) if job.advise.program_drafts > 1 else None
            # A repeated call goes on with the states that were left over: skills and programs were asked for before.
            now, results = _ask_all(job, llm, store, environment, states, settings, journal, wrap, judge, not is_made)
            exchange(llm, job)
            if is_made and not any(result.rows for result in results):
                ref = store.resolve(job.dataset)
                current().say(f"  {len(states)} selected states have no usable answer; {ref} stays the newest version")
                return ref
            spent = {} if judge is None else {"environment_steps": judge.steps}
            parents = [] if source is None else [source]
            ref = commit_round(now, results, store, job.dataset, parents=parents, provenance=spent)
            current().say(paid(now, results, journal))
            return ref


def asking(store: ShippedStore, name: str) -> AbstractContextManager[None]:
    """Be the only one that asks for a dataset, whatever journals there are; Busy names the other."""
    taken = f"somebody asks for {name} already: {{who}}"
    hint = "wait for it: what it buys is not asked again"
    return held(store.beside / ".asking" / f"{name}.lock", taken, hint=hint)


def _known_already(store: ShippedStore, name: str, llm: LLM) -> ArtifactRef:
    """The newest version, said with who advised it; UsageError when the adviser that was named lacks its key."""
    from lore_datasets.store.advisers import advisers_of

    ref = store.resolve(name)
    try:
        llm.capabilities.check()
    except ServiceError as error:
        current().say(f"  note: {error.message}")
    by = advisers_of(store.manifest(ref)) or "nobody"
    current().say(f"  every selected state is advised in {ref} already, by {by}: nothing to ask {llm.name}")
    return ref


def _ask_all(
    job: AdviceJob,
    llm: LLM,
    store: ShippedStore,
    environment: Environment,
    states: Any,
    settings: Any,
    journal: Journal,
    wrap: Wrap | None,
    judge: ProgramTrials | None,
    is_first: bool,
) -> tuple[Round, list[ShardResult]]:
    """(the round, what its shards gave), with a bar; ``is_first``: skills and programs are asked for as well."""
    from flows.jobs.shards import answer_shards
    from flows.jobs.skill_trials import SkillTrials
    from pipeline.rounds.advise import ask_first, prepare

    trial, asked, done = SkillTrials(environment, job.advise.seed), _revisions(job), 0
    with current().bar("ask", len(states)) as bar, _cluster(job, llm) as client:
        now = prepare(states, environment, llm, store, job.dataset, settings, journal, revisions=asked)
        if is_first:
            ask_first(now, trial, judge)
            if now.first.counts["waiting.skills"] and not job.ask.partial:
                return now, []  # a new skill stands in every other question, so these come when its answer is there

        def on_done(count: int) -> None:
            nonlocal done
            done += count
            bar.update(done, len(states))

        return now, answer_shards(now, job, on_done, client, wrap)


def _cluster(job: AdviceJob, llm: LLM) -> AbstractContextManager[Client | None]:
    """The cluster whose workers answer; None where the job names none, or the adviser is a service."""
    from flows.cluster.cluster import cluster

    if job.dask and llm.capabilities.is_service:
        current().say(f"  {llm.name} is a service: this process asks it alone, without the cluster")
        return nullcontext()
    return cluster(job.dask) if job.dask else nullcontext()


def _revisions(job: AdviceJob) -> list[Revision]:
    """Requests for better skills of the runs that the job names."""
    from lore_datasets.exchange.revisions import read_revisions

    return [each for folder in job.revisions.split(",") if folder.strip() for each in read_revisions(folder.strip())]


def estimate(job: AdviceJob) -> DryRun:
    """What :func:`advise_states` would ask: questions, tokens, price. Asks nothing, writes nothing."""
    from pipeline.llm import backend_from
    from pipeline.llm.journal.journal import Journal
    from pipeline.rounds.advise import DryRun, dry_run, prepare

    if job.revise:
        from flows.jobs.revise_program import estimate_better

        return estimate_better(job, _store(), _journal(job, _store()))
    store, _, environment, states, settings = _asked(job)
    path = _journal(job, store)
    with Journal(path if path.exists() else ":memory:") as journal:
        if not len(states) and job.advise.wanted != {"program"}:
            return DryRun(0, 0, 0, 0, 0.0, 0.0, job.ask.backend, journal.paid())
        llm = backend_from(job.ask, environment, job.advise.seed, journal)
        asked = _revisions(job)
        return dry_run(prepare(states, environment, llm, store, job.dataset, settings, journal, revisions=asked))


def cancel_batches(job: AdviceJob) -> tuple[int, int]:
    """Cancel the open batch jobs of the job's adviser; (jobs, questions in them). ConfigError where it has none."""
    from pipeline.llm import backend_from
    from pipeline.llm.backends.batch import BatchJobs
    from pipeline.llm.journal.journal import Journal

    with Journal(_journal(job, _store())) as journal:
        llm = backend_from(job.ask, journal=journal)
        if not isinstance(llm, BatchJobs):
            raise ConfigError(f"{llm.name} is asked without batch jobs", hint="add --ask.batch, as when it was asked")
        return llm.cancel()
