"""The steps of every flow as plain functions: a few calls into pipeline, lore and the store. No Prefect in here.

Heavy imports stand inside the functions, so that a server's worker imports this file quickly.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config import AdviceJob, CollectJob
from flows.jobs.asked import exchange, paid
from flows.terminal import current
from lore_datasets.atomic import held
from lore_datasets.errors import BadInput, ConfigError, GameFailed, LoreError, ServiceError

if TYPE_CHECKING:
    from distributed import Client

    from flows.jobs.program_trials import ProgramTrials
    from flows.jobs.shards import Wrap
    from flows.report.read import RunData
    from lore_datasets.advice import AdviceData
    from lore_datasets.environments import Environment
    from lore_datasets.exchange.revisions import Revision
    from lore_datasets.exchange.shipped import ShippedStore
    from lore_datasets.types import ArtifactRef
    from pipeline.llm.base import LLM
    from pipeline.llm.journal.journal import Journal
    from pipeline.rounds.advise import DryRun
    from pipeline.rounds.ask import ShardResult
    from pipeline.rounds.round import Round

__all__ = [
    "advise_and_distil",
    "advise_states",
    "cancel_batches",
    "check_kinds",
    "coverage",
    "distil_model",
    "estimate",
    "needs_model",
    "play_states",
    "report_advice",
]


def _store() -> ShippedStore:
    from lore_datasets.exchange.shipped import ShippedStore

    return ShippedStore()


def play_states(job: CollectJob, *, moves_on: bool = False) -> ArtifactRef:
    """Collect states with an environment's players (:func:`flows.jobs.players.collecting_players`); commit them.

    A newest version of the same name that was made with the same settings is taken as it is, an interrupted one is
    continued. An interrupt commits what there is and is raised again. ``moves_on``: settings but the seed are compared,
    and the seed after that version's is taken, so that a repeated call finds other worlds.
    """
    import numpy as np

    from flows.jobs.players import collecting_players
    from lore.config import EnvConfig
    from lore.envs import make_env
    from lore_datasets.environments import get_environment
    from pipeline.config import to_dict
    from pipeline.rounds.collect import collect, commit_states

    check_kinds({job.dataset: "states"})
    config, store = job.collect, _store()
    if moves_on:
        config = replace(config, seed=_next_seed(store, job.dataset, to_dict(config)))
    environment = get_environment(config.environment, named=True)
    check_symbolic(environment)
    before, start = _collected(store, job.dataset, to_dict(config))
    if before is not None and start is None:
        current().say(f"  the same play is stored as {before} already")
        return before

    game = EnvConfig(name=config.environment, observation="symbolic")
    with current().bar("play", config.budget) as bar:
        found = collect(
            lambda: make_env(game, config.seed),
            collecting_players(environment),
            config.budget,
            np.random.default_rng(config.seed),
            lambda done, total: bar.update(done, total),
            stride=config.stride,
            max_steps=config.max_steps,
            start=start,
        )
        bar.update(len(found), config.budget)
    if not len(found) and not found.failure:
        raise KeyboardInterrupt
    ref = commit_states(found, environment, store, job.dataset, to_dict(config)) if len(found) else None
    if found.failure:
        raise GameFailed(
            f"{environment.name} raised in {found.failure}",
            kept=f"{len(found)} states as {ref}" if ref is not None else "nothing: it was the first episode",
            hint="mend the game, or collect with another seed; the same command goes on after that episode",
        )
    assert ref is not None
    if not found.complete:
        current().say(f"  stopped at {len(found)} states, stored as {ref}; the same command goes on from there")
        raise KeyboardInterrupt
    return ref


def check_symbolic(environment: Environment) -> None:
    """BadInput where an environment's states show nothing, so that nobody can advise."""
    if not environment.symbolic:
        raise BadInput(
            f"{environment.name} has no symbolic view: there is nothing to ask about",
            hint="train it with --env.observation pixels and no advice, or write words for it"
            " (docs/adding-an-environment.md)",
        )


def check_kinds(kinds: dict[str, str]) -> None:
    """BadInput when a dataset that a job will write is there with another kind: said before any work is done for it."""
    store = _store()
    for name, kind in kinds.items():
        if name in store.names() and store.versions(name) and (held := store.manifest(name).kind) != kind:
            raise BadInput(f"{name} is a dataset of kind {held}, not {kind}", hint="take another name with --dataset")


def _collected(store: ShippedStore, name: str, config: dict[str, Any]) -> tuple[ArtifactRef | None, Any]:
    """(newest version made with these settings or None, its states when the collection was interrupted or None)."""
    if name not in store.names() or not store.versions(name):
        return None, None
    ref = store.resolve(name)
    manifest = store.manifest(ref)
    if manifest.kind != "states" or manifest.config != config:
        return None, None
    if manifest.provenance.get("complete", True):
        return ref, None
    from pipeline.rounds.collect import CollectedStates

    rows = {path.rpartition("/")[2]: array for path, array in store.open(ref).arrays.items()}
    fields: dict[str, Any] = {key: rows[key] for key in ("state", "episode", "step", "source")}
    about = manifest.provenance
    return ref, CollectedStates(**fields, sources=tuple(about["sources"]), seed=int(about["seed"]), complete=False)


def _next_seed(store: ShippedStore, name: str, config: dict[str, Any]) -> int:
    """The seed after that of the newest version with these settings, its own while it is incomplete; else the given."""
    if name in store.names() and store.versions(name):
        manifest = store.manifest(name)
        if manifest.kind == "states" and manifest.config | {"seed": 0} == config | {"seed": 0}:
            return int(manifest.config["seed"]) + bool(manifest.provenance.get("complete", True))
    return int(config["seed"])


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

    When all of them are known, the newest version is returned as it is. ``wrap`` stands around every shard that has to
    be asked, where a flow makes a task of it. One run at a time per dataset: Busy otherwise. With ``job.revise`` a
    better program is asked for instead, without states (:mod:`flows.jobs.revise_program`).
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
            if (source is not None and not len(states)) or _is_made(store, job.dataset, source, settings):
                return _known_already(store, job.dataset, llm)
            judge = ProgramTrials(environment, job.advise.seed) if job.advise.program_drafts > 1 else None
            now, results = _ask_all(job, llm, store, environment, states, settings, journal, wrap, judge)
            exchange(llm, job)
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
) -> tuple[Round, list[ShardResult]]:
    """(the round, what its shards gave), with a bar."""
    from flows.jobs.shards import answer_shards
    from flows.jobs.skill_trials import SkillTrials
    from pipeline.rounds.advise import ask_first, prepare

    trial, asked, done = SkillTrials(environment, job.advise.seed), _revisions(job), 0
    with current().bar("ask", len(states)) as bar, _cluster(job, llm) as client:
        now = prepare(states, environment, llm, store, job.dataset, settings, journal, revisions=asked)
        ask_first(now, trial, judge)

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
    if not len(states) and job.advise.wanted != {"program"}:
        return DryRun(0, 0, 0, 0, 0.0, 0.0, job.ask.backend, 0.0)
    path = _journal(job, store)
    with Journal(path if path.exists() else ":memory:") as journal:
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


def advise_and_distil(job: AdviceJob) -> dict[str, ArtifactRef]:
    """:func:`advise_states`, then the advice model where look-up would ask one: ``advice`` and, if there is one,
    ``model``."""
    ref = advise_states(job)
    if job.rows_only or not needs_model(ref):
        return {"advice": ref}
    return {"advice": ref, "model": distil_model(ref, seed=job.advise.seed)}


def needs_model(ref: ArtifactRef | str) -> bool:
    """Whether look-up would ask an advice model of this version: not where a program speaks in every state."""
    return not _store().manifest(ref).counts.get("programs")


def distil_model(ref: ArtifactRef, epochs: int = 30, seed: int = 0) -> ArtifactRef:
    """Train the advice model of a version and commit it as its child; one that can be used is taken as it is."""
    from lore.advice.distil import distil
    from lore.advice.model import is_current
    from lore_datasets.environments import get_environment
    from lore_datasets.store.lineage import newest_model

    store = _store()
    before = newest_model(store, ref)
    if before is not None and is_current(before.arrays, get_environment(before.manifest.environment)):
        current().say(f"  {ref} has its advice model {before.ref} already")
        return before.ref
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same weights, hence the same digest, on machines with other core counts
    try:
        with current().bar("distil"):
            return distil(ref, store, epochs=epochs, seed=seed)
    finally:
        torch.set_num_threads(threads)


def coverage(ref: ArtifactRef) -> dict[str, float]:
    """Held-out figures of a version's advice model: agreement of the model, coverage and agreement of goal keys."""
    from lore_datasets.store.lineage import newest_model

    found = newest_model(_store(), ref, verify=False)
    about = found.manifest.provenance if found is not None else {}
    return {k: float(v) for k, v in about.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}


def _recorded(run: RunData) -> str:
    """Where the version that a run learned from is found: its export, else its full reference; empty without one."""
    from lore.training.policy import is_export

    named = run.config.get("advice", {}).get("dataset", "")
    return named if is_export(named) else run.advice or named


def report_advice(folders: dict[str, Path], dataset: str = "") -> AdviceData | None:
    """The advice that a report shows: ``dataset``, or what the runs themselves name; None when the store lacks it."""
    from lore_datasets.advice import load_advice

    if dataset:
        return load_advice(dataset)
    from flows.report.read import read_run

    named = [_recorded(read_run(path)) for path in folders.values()]
    for name in dict.fromkeys(n for n in named if n):
        try:
            return load_advice(name)
        except LoreError as error:
            current().say(f"  note: {error.message}; the report goes without {name}")
    return None
