"""The flow ``refresh-round``: visit, ask about what is uncovered or unsure, commit the next version, train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled

from flows.config import AdviceJob, RefreshJob, TrainJob
from flows.jobs.machine import trainer_slot
from flows.jobs.rounds import Steps, measure_coverage, plain_steps, refresh, round_names, visit_states
from flows.prefect_flows.advise import ask_task, distil_task
from flows.prefect_flows.artifacts import on_the_board
from flows.prefect_flows.pages import round_page
from lore_datasets.errors import Busy

__all__ = ["refresh_round"]


@task(name="visit with the trained agent", task_run_name="visit: {name}, round {number}", cache_policy=NO_CACHE)
def _visit(job: RefreshJob, number: int, name: str) -> dict[str, Any]:
    return visit_states(job, number, name)


@task(name="measure coverage", task_run_name="coverage {when}: {advice}", cache_policy=NO_CACHE)
def _coverage(visits: str, advice: str, when: str) -> dict[str, Any]:
    return measure_coverage(visits, advice, when)


def _advise(job: AdviceJob) -> str:
    from flows.jobs.advise import advise_states

    return str(advise_states(job, lambda ask, shard: ask_task(ask, shard[0], shard[-1])))


@task(
    name="train on",
    task_run_name="train {job.folder} on {job.config.advice.dataset}, seed {job.config.train.seed}",
    cache_policy=NO_CACHE,
)
def _train(job: TrainJob, root: str) -> dict[str, Any]:
    return plain_steps().train(job, root)


def _name() -> str:
    job = flow_run.parameters["job"]
    folder = job["folder"] if isinstance(job, dict) else job.folder
    advice, number, seed = round_names(folder)
    return f"refresh {Path(folder).name}: {advice}, seed {seed}, round {number}"


@flow(name="refresh-round", flow_run_name=_name, persist_result=False)
def refresh_round(job: RefreshJob) -> Any:
    """Add refresh rounds to a run; returns their records. A deployment's is Cancelled when another trainer holds this
    machine or another refresh the run."""
    steps = Steps(_visit, _coverage, _advise, distil_task, _train, round_page)
    with on_the_board():
        try:
            with trainer_slot(f"refresh {job.folder}"):
                return refresh(job, steps)
        except Busy as error:
            if not deployment.id:
                raise
            return Cancelled(message=f"{error.kind}: {error}")
