"""A study: every run in a process of its own, a few at a time; finished runs are skipped, stopped ones go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flows.cluster.cluster import place
from flows.config import AblateJob, EvaluateJob, TrainJob
from flows.jobs.ablate_arms import Cell, cells, make_advice
from flows.jobs.arms import evaluate_arm, train_arm
from flows.jobs.many import run_all
from flows.jobs.phases import Phases, hold, write_json
from flows.terminal import current
from lore.config import to_dict
from lore_datasets.errors import LoreError

__all__ = ["Trial", "ablate", "train_and_evaluate", "trials"]


@dataclass(frozen=True)
class Trial:
    """One run of the study."""

    cell: Cell
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """``ABC-rules-s0``."""
        return f"{self.cell.folder}-s{self.seed}"


def trials(job: AblateJob) -> list[Trial]:
    """Every run, seed by seed, so that a study that is stopped early has whole seeds."""
    root = Path(job.folder)
    return [Trial(cell, seed, root / cell.folder / f"seed-{seed}") for seed in range(job.seeds) for cell in cells(job)]


def ablate(job: AblateJob, make: Callable[[AblateJob], dict[str, str]] = make_advice) -> dict[str, Any]:
    """Run what is missing, then write ``ablation.json``, ``ablation.md`` and ``ablation.html``; returns the first.

    ``make`` gives the advice version of every adviser. A run that fails does not stop the others; its error comes at
    the end, and the same command runs it again.
    """
    from flows.report.ablation import write_study
    from lore_datasets.store.store import Store

    folder, todo = Path(job.folder), trials(job)
    with hold(folder):
        shared = {"name": job.name, "states": job.states, "rows": job.rows, "epochs": job.epochs}
        phases = Phases(folder, shared)
        advised = any(trial.cell.adviser for trial in todo)
        advice = phases.run("advice", {"advisers": job.advisers}, lambda: make(job)) if advised else {}
        for name, ref in advice.items():
            current().say(f"  adviser {name}: {ref}")
        _run_all(job, todo, advice, phases, str(Store().root.resolve()))
        write_json(folder / "study.json", {"job": asdict(job) | {"config": to_dict(job.config)}, "advice": advice})
        return write_study(job, todo, advice)


def _run_all(job: AblateJob, todo: list[Trial], advice: dict[str, str], phases: Phases, root: str) -> None:
    """Train and evaluate every trial that is not finished; the first error is raised when all have ended."""
    inputs = {trial: _inputs(job, trial, advice) for trial in todo}
    missing = [t for t in todo if phases.done(t.name, inputs[t]) is None or not (t.folder / "config.json").is_file()]
    current().say(f"  {len(todo) - len(missing)} of {len(todo)} runs are finished; {len(missing)} to go")
    if not missing:
        return

    def one(trial: Trial) -> None:
        config, folder = trial.cell.config(job, trial.seed, _of(trial, advice)), str(trial.folder.resolve())
        train, evaluate = TrainJob(folder, config), EvaluateJob(folder, max(1, job.episodes), 10_000 + trial.seed)
        made = where.run(folder, train_and_evaluate, train, evaluate if job.episodes else None, root)
        write_json(phases.state / f"{trial.name}.json", {"inputs": inputs[trial], "result": made})

    with place(job.dask, job.workers, job.config.train.device) as where:
        work = {str(trial.folder.resolve()): partial(one, trial) for trial in missing}
        run_all(work, dict.fromkeys(work, job.frames), where, job.workers)


def train_and_evaluate(train: TrainJob, evaluate: EvaluateJob | None, root: str) -> dict[str, Any]:
    """One run from start to end, or on from its checkpoint; on a cluster its folder must lie on a shared disk."""
    made = train_arm(train, root)
    if made.get("step", 0) < train.config.train.total_frames:
        raise LoreError(f"{train.folder} stopped at step {made.get('step')}", kept="its checkpoint", hint="run again")
    if evaluate is not None:
        evaluate_arm(evaluate, root)
    return made


def _of(trial: Trial, advice: dict[str, str]) -> str:
    return advice[trial.cell.adviser] if trial.cell.adviser else ""


def _inputs(job: AblateJob, trial: Trial, advice: dict[str, str]) -> dict[str, Any]:
    config = to_dict(trial.cell.config(job, trial.seed, _of(trial, advice)))
    return {"config": config, "episodes": job.episodes}
