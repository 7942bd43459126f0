"""Several training runs at once, here or on a Dask cluster: each in a process of its own, on from its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.cluster.cluster import Place, place
from flows.config import TrainJob
from flows.jobs.training_process import follow, stop_processes, train_in_process
from flows.terminal import current
from lore_datasets.errors import LoreError

__all__ = ["follow_runs", "run_all", "train_runs"]


def train_runs(jobs: list[TrainJob], root: str, workers: int = 0, dask: str = "") -> list[dict[str, Any]]:
    """Train runs with the datasets in ``root``, ``workers`` at a time (0: as many as there are cores or threads).

    Returns the last progress of each, in order. A run that fails does not stop the others; its error comes at the end.
    On a cluster the folders must lie on a disk that all workers share.
    """
    jobs = [replace(job, folder=str(Path(job.folder).resolve())) for job in jobs] if dask else jobs
    with place(dask, workers, jobs[0].config.train.device, stop_processes) as where:
        work = {job.folder: lambda job=job: where.run(job.folder, train_in_process, job, root) for job in jobs}
        return run_all(work, {job.folder: job.config.train.steps for job in jobs}, where, workers)


def run_all(
    work: Mapping[str, Callable[[], Any]], steps: Mapping[str, int], where: Place, workers: int = 0
) -> list[Any]:
    """Do all of ``work`` (folder of a run -> what trains it), ``workers`` at a time, with a bar for each; results.

    The first error is raised when all have ended. An interrupt lets the runs save and starts no other one.
    """

    def one(folder: str) -> Any:
        if where.stopping.is_set():
            raise LoreError("stopped", kept="finished runs")
        try:
            return work[folder]()
        except LoreError as error:
            if str(error).startswith("stopped"):  # its child was told to end: start no other one
                where.stopping.set()
            raise

    with ThreadPoolExecutor(workers or where.threads) as pool:
        futures: list[Future[Any]] = [pool.submit(one, folder) for folder in work]
        try:
            follow_runs(steps, lambda: not wait_for(futures, timeout=0.5).not_done)
        except BaseException:
            where.stopping.set()
            for future in futures:
                future.cancel()
            where.stop(work)
            stop_processes()  # a run that began while the others were being stopped
            raise
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        current().say(f"  {len(errors)} of {len(futures)} runs failed; the others are kept")
        raise errors[0]
    return [future.result() for future in futures]


def follow_runs(steps: Mapping[str, int], finished: Callable[[], bool]) -> None:
    """Show the progress of runs (folder -> environment steps in all) until ``finished()``."""
    names = {folder: _name(folder, steps) for folder in steps}
    follow(
        {names[folder]: Path(folder) / "progress.jsonl" for folder in steps},
        {names[folder]: total for folder, total in steps.items()},
        finished,
    )


def _name(folder: str, others: Mapping[str, int]) -> str:
    """The shortest end of a run's path that no other one has."""
    parts = Path(folder).parts
    for n in range(1, len(parts)):
        tail = parts[-n:]
        if sum(Path(other).parts[-n:] == tail for other in others) == 1:
            return "/".join(tail)
    return folder
