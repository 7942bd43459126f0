"""The flow ``ablate``: a study of arms, advisers and seeds, finished runs skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Cancelled

from flows.config import AblateJob
from flows.jobs.ablate import ablate
from flows.jobs.machine import trainer_slot
from flows.prefect_flows.artifacts import on_the_board
from flows.prefect_flows.pages import study_page
from lore_datasets.errors import Busy

__all__ = ["study"]


@task(
    name="run what is missing", task_run_name="study {job.folder}: {job.arms}, {job.seeds} seeds", cache_policy=NO_CACHE
)
def _study(job: AblateJob) -> str:
    ablate(job)
    return str(Path(job.folder) / "ablation.html")


@flow(
    name="ablate",
    flow_run_name="ablate {job.folder}: {job.arms} x {job.advisers} x {job.seeds} seeds",
    persist_result=False,
)
def study(job: AblateJob) -> Any:
    """Compare arms, advisers and seeds; returns the page. Cancelled when another trainer holds this machine."""
    with on_the_board():
        try:
            with trainer_slot(f"ablate {job.folder}"):
                page = _study(job)
        except Busy as error:
            return Cancelled(message=f"{error.kind}: {error}")
    study_page(job.folder)
    return page
