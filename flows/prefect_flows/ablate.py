"""The flow ``ablate``: arms, advisers and seeds compared, finished runs skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Cancelled
from pydantic import TypeAdapter

from flows.config import AblateJob
from flows.jobs.ablation import ablate as run_ablation
from flows.jobs.machine import trainer_slot
from flows.jobs.presets import resolved
from flows.prefect_flows.artifacts import on_the_board
from flows.prefect_flows.pages import ablation_page
from lore_datasets.errors import Busy

__all__ = ["ablate"]


@task(
    name="run what is missing", task_run_name="study {job.folder}: {job.arms}, seeds {job.seeds}", cache_policy=NO_CACHE
)
def _run(job: AblateJob) -> str:
    run_ablation(job)
    return str(Path(job.folder) / "ablation.html")


def _name() -> str:
    given = flow_run.parameters["job"]
    job = resolved(given if isinstance(given, AblateJob) else TypeAdapter(AblateJob).validate_python(given))
    return f"ablate {job.folder}: {job.arms} x {job.advisers} x seeds {job.seeds}"


@flow(name="ablate", flow_run_name=_name, persist_result=False)
def ablate(job: AblateJob) -> Any:
    """Compare arms, advisers and seeds; returns the page. Cancelled when another trainer holds this machine."""
    job = resolved(job)
    with on_the_board():
        try:
            with trainer_slot(f"ablate {job.folder}"):
                page = _run(job)
        except Busy as error:
            return Cancelled(message=f"{error.kind}: {error}")
    ablation_page(job.folder)
    return page
