"""The flow ``evaluate``: fresh episodes with trained agents, one process per run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

from flows.arms import EVALUATION_PROGRESS, evaluate_arm, follow
from flows.config import EvaluateJob

__all__ = ["evaluate"]


@task(name="evaluate a run", task_run_name="evaluate {job.folder}", cache_policy=NO_CACHE)
def _evaluate(job: EvaluateJob, root: str) -> dict[str, Any]:
    return evaluate_arm(job, root)


@flow(  # pyright: ignore[reportCallIssue]
    name="evaluate",
    task_runner=ThreadPoolTaskRunner(max_workers=16),  # pyright: ignore[reportArgumentType]
    persist_result=False,
)
def evaluate(jobs: list[EvaluateJob], root: str) -> list[dict[str, Any]]:
    """Evaluate runs side by side; returns what each wrote into ``evaluation.json``."""
    futures = [_evaluate.submit(job, root) for job in jobs]
    follow(
        {Path(job.folder).name: Path(job.folder) / EVALUATION_PROGRESS for job in jobs},
        {Path(job.folder).name: job.episodes for job in jobs},
        lambda: not wait(futures, timeout=0.5).not_done,
    )
    return [future.result() for future in futures]
