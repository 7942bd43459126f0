"""The flow ``evaluate``: fresh episodes with trained agents, one process per run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows.config import EvaluateJob
from flows.jobs.machine import datasets_root
from flows.jobs.training_process import EVALUATION_PROGRESS, evaluate_in_process, follow
from flows.prefect_flows.artifacts import on_the_board
from flows.prefect_flows.pages import evaluation_page

__all__ = ["evaluate", "evaluate_run"]


def _name() -> str:
    jobs = [job if isinstance(job, dict) else vars(job) for job in flow_run.parameters["jobs"]]
    return f"evaluate {', '.join(job['folder'] for job in jobs[:3])}{', ...' if len(jobs) > 3 else ''}"


@task(name="evaluate a run", task_run_name="evaluate {job.folder}", cache_policy=NO_CACHE)
def _evaluate(job: EvaluateJob, root: str) -> dict[str, Any]:
    return evaluate_in_process(job, root)


@flow(  # pyright: ignore[reportCallIssue]
    name="evaluate",
    flow_run_name=_name,
    task_runner=ThreadPoolTaskRunner(max_workers=16),  # pyright: ignore[reportArgumentType]
    persist_result=False,
)
def evaluate(jobs: list[EvaluateJob], root: str = "") -> list[dict[str, Any]]:
    """Evaluate runs side by side; returns what each wrote into ``evaluation.json``."""
    return _side_by_side(jobs, root or datasets_root())


def _side_by_side(jobs: list[EvaluateJob], root: str) -> list[dict[str, Any]]:
    with on_the_board():
        futures = [_evaluate.submit(job, root) for job in jobs]
        follow(
            {Path(job.folder).name: Path(job.folder) / EVALUATION_PROGRESS for job in jobs},
            {Path(job.folder).name: job.episodes for job in jobs},
            lambda: not wait(futures, timeout=0.5).not_done,
        )
        found = [future.result() for future in futures]
    evaluation_page([(job.folder, each) for job, each in zip(jobs, found, strict=True)])
    return found


@flow(name="evaluate-run", flow_run_name="evaluate {job.folder}: {job.episodes} episodes", persist_result=False)
def evaluate_run(job: EvaluateJob) -> dict[str, Any]:
    """Evaluate one run; returns what it wrote into ``evaluation.json``."""
    return _side_by_side([job], datasets_root())[0]
