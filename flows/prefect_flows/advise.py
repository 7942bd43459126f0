"""The flow ``advice-batch``: ask in shards, store the checked answers, distil the advice model."""

from collections.abc import Callable
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import deployment
from prefect.states import Cancelled

from flows.config import AdviceJob
from flows.jobs.advise import advise_states
from flows.jobs.distil import needs_model
from flows.jobs.rounds import plain_steps
from flows.prefect_flows.artifacts import on_the_board
from flows.prefect_flows.pages import advice_page
from lore_datasets.errors import Busy
from lore_datasets.types import ArtifactRef

__all__ = ["advise", "ask_task", "distil_task"]


@task(name="ask about a shard", task_run_name="ask about states {first} to {last}", cache_policy=NO_CACHE)
def ask_task(ask: Callable[[], Any], first: int, last: int) -> Any:
    return ask()


@task(name="distil the advice model", task_run_name="distil {ref}", cache_policy=NO_CACHE)
def distil_task(ref: ArtifactRef | str, epochs: int, seed: int) -> str:
    return plain_steps().distil(str(ref), epochs, seed)


@flow(
    name="advice-batch", flow_run_name="advise {job.states} -> {job.dataset}, {job.ask.backend}", persist_result=False
)
def advise(job: AdviceJob, epochs: int = 30) -> Any:
    """Advise stored states; returns references ``advice`` and ``model``. After a restart nothing is asked twice.

    Cancelled when somebody asks for the same dataset already.
    """
    with on_the_board():
        try:
            ref = advise_states(job, lambda ask, shard: ask_task(ask, shard[0], shard[-1]))
        except Busy as error:
            if not deployment.id:
                raise
            return Cancelled(message=f"{error.kind}: {error}")
        made = {"advice": str(ref)}
        if not job.rows_only and needs_model(ref):
            made["model"] = distil_task(ref, epochs, job.advise.seed)
    advice_page(made)
    return made
