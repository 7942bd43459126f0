"""A study: every run in a process of its own, a few at a time; finished runs are skipped, stopped ones go on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows.ablate_arms import Cell, cells, make_advice
from flows.arms import evaluate_arm, follow, stop_all, train_arm
from flows.cluster import cluster, result_of
from flows.config import AblateJob, EvaluateJob, TrainJob
from flows.phases import Phases, hold, write_json
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
    from lore_datasets.store import Store

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

    halted = threading.Event()

    def work(trial: Trial) -> None:
        if halted.is_set():
            raise LoreError("stopped", kept="finished runs")
        try:
            one(trial)
        except LoreError as error:
            if str(error).startswith("stopped"):  # its child was told to end: start no other one
                halted.set()
            raise

    def one(trial: Trial) -> None:
        config, folder = trial.cell.config(job, trial.seed, _of(trial, advice)), str(trial.folder.resolve())
        made = run(TrainJob(folder, config), EvaluateJob(folder, max(1, job.episodes), 10_000 + trial.seed))
        write_json(phases.state / f"{trial.name}.json", {"inputs": inputs[trial], "result": made})

    def run(train: TrainJob, evaluate: EvaluateJob) -> dict[str, Any]:
        work = (train, evaluate if job.episodes else None, root)
        if client is None:
            return train_and_evaluate(*work)
        future = client.submit(train_and_evaluate, *work, pure=False, resources=_resources(client, job))
        return result_of(future, train.folder, halted)

    with (
        cluster(job.dask, job.workers) if job.dask else nullcontext() as client,
        ThreadPoolExecutor(_at_a_time(job, client)) as pool,
    ):
        futures: list[Future[None]] = [pool.submit(work, trial) for trial in missing]
        paths = {t.name: t.folder / "progress.jsonl" for t in missing}
        try:
            follow(paths, dict.fromkeys(paths, job.frames), lambda: not wait_for(futures, timeout=0.5).not_done)
        except BaseException:
            halted.set()
            for future in futures:
                future.cancel()
            stop_all()  # a run that began while the others were being stopped
            raise
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        current().say(f"  {len(errors)} of {len(missing)} runs failed; the others are kept")
        raise errors[0]


def train_and_evaluate(train: TrainJob, evaluate: EvaluateJob | None, root: str) -> dict[str, Any]:
    """One run from start to end, or on from its checkpoint; on a cluster its folder must lie on a shared disk."""
    made = train_arm(train, root)
    if made.get("step", 0) < train.config.train.total_frames:
        raise LoreError(f"{train.folder} stopped at step {made.get('step')}", kept="its checkpoint", hint="run again")
    if evaluate is not None:
        evaluate_arm(evaluate, root)
    return made


def _at_a_time(job: AblateJob, client: Any) -> int:
    return job.workers or (sum(client.nthreads().values()) if client is not None else os.cpu_count() or 1)


def _resources(client: Any, job: AblateJob) -> dict[str, float]:
    """One GPU per run where the learner may use one and the cluster's workers offer any."""
    offered = [worker.get("resources", {}) for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    return {"GPU": 1} if job.config.train.device != "cpu" and any("GPU" in each for each in offered) else {}


def _of(trial: Trial, advice: dict[str, str]) -> str:
    return advice[trial.cell.adviser] if trial.cell.adviser else ""


def _inputs(job: AblateJob, trial: Trial, advice: dict[str, str]) -> dict[str, Any]:
    config = to_dict(trial.cell.config(job, trial.seed, _of(trial, advice)))
    return {"config": config, "episodes": job.episodes}
