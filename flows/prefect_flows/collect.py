"""The flow ``collect``: play, and store states as a dataset version."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.config import CollectJob
from flows.jobs.tasks import play_states
from flows.prefect_flows.artifacts import on_the_board
from flows.prefect_flows.pages import states_page

__all__ = ["collect"]


@task(name="play and store states", cache_policy=NO_CACHE)
def _play(job: CollectJob) -> str:
    return str(play_states(job))


@flow(name="collect", flow_run_name="collect {job.dataset}, seed {job.collect.seed}", persist_result=False)
def collect(job: CollectJob) -> str:
    """Collect states; returns the reference of the version."""
    with on_the_board():
        ref = _play(job)
    states_page(ref)
    return ref
