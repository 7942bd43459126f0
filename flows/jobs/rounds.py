"""Refresh rounds of one run: visit, ask, commit, distil, train on. No Prefect in here; who runs a step is handed in.

Everything a round has done lies in ``<run>/refresh/round-NNN``; a stop at any moment costs at most the step it hit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from flows.config import AdviceJob, RefreshJob, TrainJob
from flows.jobs.phases import Phases, hold
from flows.terminal import current
from lore.training.records import read_json
from lore_datasets.atomic import write_json
from lore_datasets.errors import BadInput, CorruptArtifact, LoreError, NotFound
from lore_datasets.json_text import parsed
from lore_datasets.types import ArtifactRef

__all__ = [
    "Steps", "finished_rounds", "measure_coverage", "plain_steps", "refresh", "round_names", "visit_states",
]  # fmt: skip

_SEED = 20_000
"""Worlds of round k have the seed ``20000 + k``: neither training's nor the evaluation's."""


class Steps(NamedTuple):
    """What runs each step of a round; ``finished`` is told the record of every round that ends."""

    visit: Callable[[RefreshJob, int, str], dict[str, Any]]
    coverage: Callable[[str, str, str], dict[str, Any]]
    advise: Callable[[AdviceJob], str]
    distil: Callable[[str, int, int], str]
    train: Callable[[TrainJob, str], dict[str, Any]]
    finished: Callable[[dict[str, Any]], Any] = lambda record: None


def plain_steps() -> Steps:
    """The steps as plain functions, without Prefect."""
    from flows.jobs.advise import advise_states
    from flows.jobs.distil import distil_model
    from flows.jobs.training_process import side_by_side, train_in_process

    def train(job: TrainJob, root: str) -> dict[str, Any]:
        return side_by_side(train_in_process, [job], root, "progress.jsonl", [job.config.train.steps])[0]

    return Steps(
        visit=visit_states,
        coverage=measure_coverage,
        advise=lambda job: str(advise_states(job)),
        distil=lambda ref, epochs, seed: str(distil_model(_store().resolve(ref), epochs, seed)),
        train=train,
    )


def refresh(job: RefreshJob, steps: Steps | None = None) -> list[dict[str, Any]]:
    """Run the rounds that are missing; returns the records of this call's rounds, oldest first.

    A call after a stop finishes the rounds that were asked for before it adds others. Busy when another process
    refreshes the same run.
    """
    folder, made = Path(job.folder) / "refresh", []
    dataset_of(Path(job.folder))
    with hold(folder):
        before = len(finished_rounds(job.folder))
        target = _target(folder)
        if target <= before:
            target = before + job.rounds
            write_json(folder / "target.json", {"rounds": target})
        else:
            current().say(f"  {target - before} of the rounds asked for before are missing: going on with those")
        for number in range(before + 1, target + 1):
            made.append(_round(job, number, steps or plain_steps()))
    return made


def finished_rounds(run: str | Path) -> list[dict[str, Any]]:
    """Records of the rounds of a run that are finished, oldest first."""
    found = []
    while True:
        record = read_json(Path(run) / "refresh" / f"round-{len(found) + 1:03d}" / "round.json")
        if record is None:
            return found
        found.append(record)


def round_names(folder: str) -> tuple[str, int, int]:
    """(advice version in use, number of the round that is next, seed) of a run, for the names of flow runs."""
    run = Path(folder)
    try:
        found = parsed((run / "config.json").read_text())
        return str(found["advice"]), len(finished_rounds(run)) + 1, int(found["config"]["train"]["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        return "no run", 1, 0


def dataset_of(run: Path) -> str:
    """Name of the advice dataset that a run learns from; NotFound or BadInput when there is none."""
    config = read_json(run / "config.json")
    if config is None:
        raise NotFound(f"no run in {run}", hint="start one with lore train --folder DIR --gate.enabled ...")
    advice = str(config.get("advice", ""))
    if not advice:
        raise BadInput(
            f"{run} learns without advice: there is nothing to refresh", hint="start one with --gate.enabled"
        )
    name = ArtifactRef.parse(advice)[0]
    store = _store()
    if name not in store.names() or not store.versions(name):
        raise NotFound(
            f"the run learns from {advice}, which is not in {store.root}", hint="lore datasets import FILE.h5"
        )
    return name


def _store() -> Any:
    from lore_datasets.exchange.shipped import ShippedStore

    return ShippedStore()


def _target(folder: Path) -> int:
    try:
        return int(parsed((folder / "target.json").read_text())["rounds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _is_stored(result: dict[str, Any]) -> bool:
    try:
        return all(_store().resolve(ref) is not None for key, ref in result.items() if key in ("visits", "advice"))
    except (NotFound, CorruptArtifact):
        return False


def _round(job: RefreshJob, number: int, steps: Steps) -> dict[str, Any]:
    """One round from its first missing step to its record; where a program speaks no model is distilled."""
    from flows.jobs.distil import needs_model

    run, store = Path(job.folder), _store()
    folder = run / "refresh" / f"round-{number:03d}"
    name, say = dataset_of(run), current().say
    phases = Phases(folder, {"round": number})
    base = phases.run("base", {}, lambda: {"advice": str(store.resolve(name))}, _is_stored)["advice"]
    say(f"round {number}: {run} learns from {base}")
    found = phases.run("visit", {"base": base}, lambda: steps.visit(job, number, name), _is_stored)
    visits, begun = found["visits"], int(found["frames"])
    before = phases.run("before", {"at": visits}, lambda: steps.coverage(visits, base, "before"))
    say(f"  of {before['states']:,} visited states {_shares(before)}")

    ask = AdviceJob(
        visits, name, select=job.select, ask=job.ask, advise=job.advise, journal=job.journal, rows_only=True,
        revisions=str(run), dask=job.dask,
    )  # fmt: skip
    ref = advised = phases.run("advise", {"at": visits}, lambda: {"advice": steps.advise(ask)}, _is_stored)["advice"]
    if base not in (goes_on_from := _history(store, ref, base)):  # somebody rolled the dataset back meanwhile
        base = goes_on_from[0]
        say(f"  {name} was rolled back: this round goes on from {base}")
        before = phases.run("before", {"at": visits, "base": base}, lambda: steps.coverage(visits, base, "before"))
    if job.revise_worlds and store.manifest(ref).counts.get("programs"):
        better = replace(ask, revise=True, revisions="", revise_worlds=job.revise_worlds)
        ref = phases.run("revise", {"of": ref}, lambda: {"advice": steps.advise(better)}, _is_stored)["advice"]
    made = {"model": ""}
    if needs_model(ref):
        made = phases.run("distil", {"of": ref}, lambda: {"model": steps.distil(ref, job.epochs, job.advise.seed)})
    after = phases.run("after", {"at": visits, "of": ref}, lambda: steps.coverage(visits, ref, "after"))
    say(f"  {ref}: {_shares(after)}")

    until = phases.run("budget", {}, lambda: {"frames": begun + job.steps})["frames"]
    if until > begun:
        say(f"  training from step {begun:,} to {until:,} on {ref}")
        trained = phases.run("train", {"of": ref, "until": until}, lambda: _train(run, ref, until, steps))
    else:
        trained = {"step": begun}
    record = {
        "round": number, "run": str(run), "base": base, "visits": visits, "advice": ref, "model": made["model"],
        "before": before, "after": after, "from": begun, "to": int(trained["step"]),
        "rows": _new_rows(base, ref), "cost": _cost(store, [v for v in dict.fromkeys((advised, ref)) if v != base]),
    }  # fmt: skip
    steps.finished(record)
    write_json(folder / "round.json", record)
    return record


def _history(store: Any, ref: str, base: str) -> list[str]:
    """What a version may have gone on from: itself where it is no newer than ``base``, else its ancestors of the same
    dataset, nearest first."""
    number = ArtifactRef.parse(base)[1] or 0
    name, version, _ = ArtifactRef.parse(ref)
    found = [ref] if (version or 0) <= number else []
    while version:
        older = [p for p in store.manifest(f"{name}@v{version}").parents if ArtifactRef.parse(p)[0] == name]
        version = ArtifactRef.parse(older[-1])[1] if older else 0
        found += older[-1:]
    return found or [ref]


def _train(run: Path, ref: str, until: int, steps: Steps) -> dict[str, Any]:
    from lore.config import replace
    from lore.training.folder import read_config

    config = replace(read_config(run), **{"advice.dataset": ref, "train.steps": until})
    made = steps.train(TrainJob(str(run), config), str(_store().root.resolve()))
    if made.get("step", 0) < until:
        raise LoreError(f"{run} stopped at step {made.get('step')}", kept="its checkpoint", hint="run again to go on")
    return {"step": int(made["step"])}


def _new_rows(base: str, ref: str) -> int:
    if base == ref:
        return 0
    store = _store()
    return int(store.manifest(ref).counts.get("rows", 0)) - int(store.manifest(base).counts.get("rows", 0))


_SPENT = ("requests", "asked_now", "from_journal", "tokens_in", "tokens_out", "price_usd", "latency_s", "seconds")


def _cost(store: Any, refs: Sequence[str]) -> dict[str, Any]:
    """What the versions of a round cost together, and what the journal had paid before the first, after the last."""
    costs = [store.manifest(ref).cost for ref in refs]
    if not costs:
        return {}
    paid = {"before": costs[0], "after": costs[-1]}
    return {name: sum(cost.get(name, 0) for cost in costs) for name in _SPENT} | {
        f"journal_usd_{when}": cost.get(f"journal_usd_{when}", 0.0) for when, cost in paid.items()
    }


def _shares(found: dict[str, Any]) -> str:
    known = ", ".join(f"{100 * found[key]:.0f} % {what}" for key, what in _SOURCES.items() if key in found)
    return f"{known} (mean confidence {found['confidence']:.2f})"


_SOURCES = {
    "row": "have a row of their own", "program": "a rule of the program", "goal": "a goal key",
    "model": "the advice model", "none": "nothing",
}  # fmt: skip


def visit_states(job: RefreshJob, number: int, name: str) -> dict[str, Any]:
    """Play the run's agent and commit the states it visits; ``{visits, frames}``. An interrupted play is not kept."""
    from lore.evaluation.visits import commit_visits, visit

    store, seed = _store(), _SEED + number
    dataset = f"{name}-visits"
    config = {"run": str(Path(job.folder)), "round": number, "budget": job.visits, "seed": seed}
    if dataset in store.names():
        for version in reversed(store.versions(dataset)):
            manifest = store.manifest(f"{dataset}@v{version}")
            if manifest.config == config and _frames(Path(job.folder)) == manifest.provenance.get("frames"):
                return {"visits": str(store.resolve(f"{dataset}@v{version}")), "frames": manifest.provenance["frames"]}
    with current().bar("visit", job.visits) as bar:
        found = visit(job.folder, job.visits, seed=seed, on_progress=lambda done, total: bar.update(done, total))
    if not found.complete:
        raise KeyboardInterrupt
    return {"visits": str(commit_visits(found, store, dataset, config)), "frames": int(found.about["frames"])}


def _frames(run: Path) -> int:
    from flows.jobs.training_process import last_row

    return int((last_row(run / "progress.jsonl") or {}).get("step", -1))


def measure_coverage(visits: str, advice: str, when: str) -> dict[str, Any]:
    """How an advice version answers for visited states: share per source, mean confidence, states."""
    from lore.advice.lookup import AdviceSource
    from lore.advice.types import SOURCES
    from lore_datasets.advice import load_advice

    packed = _store().open(visits, wanted=lambda path: path.endswith("/state")).arrays
    states = next(iter(packed.values()))
    found = AdviceSource(load_advice(advice)).lookup_batch(states)
    shares = {name: round(float((found.source == i).mean()), 6) for i, name in enumerate(SOURCES)}
    return shares | {"confidence": round(float(found.confidence.mean()), 6), "states": len(states)}
