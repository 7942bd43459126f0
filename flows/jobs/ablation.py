"""An ablation study: every run in a process of its own, a few at a time; finished ones are skipped, others go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from flows.cluster.cluster import place
from flows.config import AblateJob, EvaluateJob, TrainJob
from flows.jobs.ablation_arms import AblationRun, make_advice, planned_runs
from flows.jobs.phases import Phases, hold
from flows.jobs.seeds import run_all
from flows.jobs.training_process import evaluate_in_process, stop_processes, train_in_process
from flows.terminal import current
from lore.config import to_dict
from lore_datasets.atomic import write_json
from lore_datasets.errors import LoreError

__all__ = ["ablate", "train_and_evaluate"]


def ablate(job: AblateJob, make: Callable[[AblateJob], dict[str, str]] = make_advice) -> dict[str, Any]:
    """Run what is missing, then write ``ablation.json``, ``ablation.md`` and ``ablation.html``; returns the first.

    ``make`` gives the advice version of every adviser. A run that fails does not stop the others; its error comes at
    the end, and the same command runs it again.
    """
    from flows.report.ablation import write_ablation
    from lore_datasets.exchange.shipped import ShippedStore

    folder, todo = Path(job.folder), planned_runs(job)
    with hold(folder):
        shared = {"name": job.dataset, "states": job.states, "rows": job.rows, "epochs": job.epochs}
        phases = Phases(folder, shared)
        advised = any(run.cell.adviser for run in todo)
        advice = phases.run("advice", {"advisers": job.advisers}, lambda: make(job)) if advised else {}
        for name, ref in advice.items():
            current().say(f"  adviser {name}: {ref}")
        _run_all(job, todo, advice, phases, str(ShippedStore().root.resolve()))
        write_json(folder / "study.json", {"job": asdict(job) | {"config": to_dict(job.config)}, "advice": advice})
        return write_ablation(job, todo, advice)


def _run_all(job: AblateJob, todo: list[AblationRun], advice: dict[str, str], phases: Phases, root: str) -> None:
    """Train and evaluate every run that is not finished; the first error is raised when all have ended."""
    inputs = {run: _inputs(job, run, advice) for run in todo}
    missing = [t for t in todo if phases.done(t.name, inputs[t]) is None or not (t.folder / "config.json").is_file()]
    current().say(f"  {len(todo) - len(missing)} of {len(todo)} runs are finished; {len(missing)} to go")
    if not missing:
        return

    def one(run: AblationRun) -> None:
        config, folder = run.cell.config(job, run.seed, _of(run, advice)), str(run.folder.resolve())
        train, evaluate = TrainJob(folder, config), EvaluateJob(folder, max(1, job.episodes), 10_000 + run.seed)
        made = where.run(folder, train_and_evaluate, train, evaluate if job.episodes else None, root)
        write_json(phases.state / f"{run.name}.json", {"inputs": inputs[run], "result": made})

    with place(job.dask, job.workers, job.config.train.device, stop_processes) as where:
        work = {str(run.folder.resolve()): partial(one, run) for run in missing}
        run_all(work, dict.fromkeys(work, job.steps), where, job.workers)


def train_and_evaluate(train: TrainJob, evaluate: EvaluateJob | None, root: str) -> dict[str, Any]:
    """One run from start to end, or on from its checkpoint; on a cluster its folder must lie on a shared disk."""
    made = train_in_process(train, root)
    if made.get("step", 0) < train.config.train.steps:
        raise LoreError(f"{train.folder} stopped at step {made.get('step')}", kept="its checkpoint", hint="run again")
    if evaluate is not None:
        evaluate_in_process(evaluate, root)
    return made


def _of(run: AblationRun, advice: dict[str, str]) -> str:
    return advice[run.cell.adviser] if run.cell.adviser else ""


def _inputs(job: AblateJob, run: AblationRun, advice: dict[str, str]) -> dict[str, Any]:
    config = to_dict(run.cell.config(job, run.seed, _of(run, advice)))
    return {"config": config, "episodes": job.episodes}
