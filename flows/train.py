"""The flow ``train``: one task and one process per run, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows.arms import follow, train_arm
from flows.config import TrainJob

__all__ = ["train"]


def _name() -> str:
    jobs = flow_run.parameters["jobs"]
    dataset = next((job.config.advice.dataset for job in jobs if job.config.advice.dataset), "no advice")
    seeds = sorted({job.config.train.seed for job in jobs})
    return f"train {len(jobs)} on {dataset}, seeds {', '.join(map(str, seeds))}"


@task(name="train a run", task_run_name="train {job.folder}, seed {job.config.train.seed}", cache_policy=NO_CACHE)
def _train(job: TrainJob, root: str) -> dict[str, Any]:
    return train_arm(job, root)


@flow(  # pyright: ignore[reportCallIssue]
    name="train",
    flow_run_name=_name,
    task_runner=ThreadPoolTaskRunner(max_workers=16),  # pyright: ignore[reportArgumentType]
    persist_result=False,
)
def train(jobs: list[TrainJob], root: str) -> list[dict[str, Any]]:
    """Train runs side by side with the datasets in ``root``, each on from its checkpoint; their last progress."""
    futures = [_train.submit(job, root) for job in jobs]
    labels = {Path(job.folder).name: job for job in jobs}
    follow(
        {name: Path(job.folder) / "progress.jsonl" for name, job in labels.items()},
        {name: job.config.train.total_frames for name, job in labels.items()},
        lambda: not wait(futures, timeout=0.5).not_done,
    )
    return [future.result() for future in futures]
