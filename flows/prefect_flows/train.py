"""The flows ``train`` (several seeds of one pinned version) and ``train-runs``: a task and a process per run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait
from prefect.runtime import flow_run
from prefect.states import Cancelled
from prefect.task_runners import ThreadPoolTaskRunner

from flows.cluster.cluster import Place, place
from flows.config import SeedsJob, TrainJob
from flows.jobs.machine import datasets_root, trainer_slot
from flows.jobs.seeds import follow_runs
from flows.jobs.training_process import stop_processes, train_in_process
from flows.prefect_flows.artifacts import on_the_board
from flows.prefect_flows.pages import training_page
from lore_datasets.cores import available_cores
from lore_datasets.errors import Busy

__all__ = ["train", "train_seeds"]


_MOST = 64
"""Runs that one flow trains at a time at most: threads that wait for children."""


def _runs(jobs: list[TrainJob]) -> str:
    dataset = next((job.config.advice.dataset for job in jobs if job.config.advice.dataset), "no advice")
    seeds = sorted({job.config.train.seed for job in jobs})
    return f"train {len(jobs)} on {dataset}, seeds {', '.join(map(str, seeds))}"


def _name() -> str:
    return _runs(flow_run.parameters["jobs"])


def _seeds_name() -> str:
    job = flow_run.parameters["job"]
    job = job if isinstance(job, SeedsJob) else SeedsJob(**{k: v for k, v in job.items() if k != "config"})
    return f"{Path(job.folder).name}: {_runs(job.jobs())}"


@task(
    name="train a run",
    task_run_name="train {job.folder}, seed {job.config.train.seed}, {job.config.advice.dataset}",
    cache_policy=NO_CACHE,
)
def _train(job: TrainJob, root: str, where: Place) -> dict[str, Any]:
    return where.run(job.folder, train_in_process, job, root)


def _side_by_side(jobs: list[TrainJob], root: str, dask: str, at_a_time: int) -> list[dict[str, Any]]:
    jobs = [replace(job, folder=str(Path(job.folder).resolve())) for job in jobs] if dask else jobs
    steps = {job.folder: job.config.train.steps for job in jobs}
    with on_the_board(), place(dask, device=jobs[0].config.train.device, on_stop=stop_processes) as where:
        waiting, futures = list(jobs), []

        def all_done() -> bool:
            live = len(wait(futures, timeout=0.5).not_done) if futures else 0
            while waiting and live < at_a_time:
                futures.append(_train.submit(waiting.pop(0), root, where))
                live += 1
            return live == 0

        try:
            follow_runs(steps, all_done)
        except BaseException:
            where.stop(steps)
            stop_processes()
            raise
        found = [future.result() for future in futures]
    dataset = next((job.config.advice.dataset for job in jobs if job.config.advice.dataset), "")
    training_page([(job.folder, row) for job, row in zip(jobs, found, strict=True)], dataset)
    return found


@flow(  # pyright: ignore[reportCallIssue]
    name="train-runs",
    flow_run_name=_name,
    task_runner=ThreadPoolTaskRunner(max_workers=_MOST),  # pyright: ignore[reportArgumentType]
    persist_result=False,
)
def train(jobs: list[TrainJob], root: str = "", dask: str = "") -> list[dict[str, Any]]:
    """Train runs side by side with the datasets in ``root``, each on from its checkpoint; their last progress."""
    return _side_by_side(jobs, root or datasets_root(), dask, len(jobs))


@flow(  # pyright: ignore[reportCallIssue]
    name="train",
    flow_run_name=_seeds_name,
    task_runner=ThreadPoolTaskRunner(max_workers=_MOST),  # pyright: ignore[reportArgumentType]
    persist_result=False,
)
def train_seeds(job: SeedsJob) -> Any:
    """Train several seeds from one pinned advice version, one task each; Cancelled when this machine trains already."""
    root, jobs = datasets_root(), job.jobs()
    if job.dataset:
        from lore_datasets.exchange.shipped import ShippedStore

        ShippedStore().verify(job.dataset)  # an unknown version or a wrong digest is named before anything starts
    try:
        with trainer_slot(f"train {job.folder}"):
            at_a_time = job.workers or (len(jobs) if job.dask else available_cores())
            return _side_by_side(jobs, root, job.dask, at_a_time)
    except Busy as error:
        return Cancelled(message=f"{error.kind}: {error}")
