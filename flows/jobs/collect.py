"""Collecting: an environment's players play, and their states become a version. No Prefect in here.

Heavy imports stand inside the functions, so that a server's worker imports this file quickly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flows.config import CollectJob
from flows.terminal import current
from lore_datasets.errors import BadInput, GameFailed

if TYPE_CHECKING:
    from lore_datasets.environments import Environment
    from lore_datasets.exchange.shipped import ShippedStore
    from lore_datasets.types import ArtifactRef

__all__ = ["check_kinds", "check_symbolic", "play_states"]


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
    from lore_datasets.exchange.shipped import ShippedStore
    from pipeline.config import to_dict
    from pipeline.rounds.collect import collect, commit_states

    check_kinds({job.dataset: "states"})
    config, store = job.collect, ShippedStore()
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
    from lore_datasets.exchange.shipped import ShippedStore

    store = ShippedStore()
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
