"""The flow ``collect``: play, and store states as a dataset version."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import deployment

from flows.config import CollectJob
from flows.jobs.collect import play_states
from flows.lab.schedules import BY_HAND
from flows.prefect_flows.artifacts import on_the_board
from flows.prefect_flows.pages import states_page

__all__ = ["collect"]


@task(name="play and store states", cache_policy=NO_CACHE)
def _play(job: CollectJob, moves_on: bool) -> str:
    return str(play_states(job, moves_on=moves_on))


@flow(name="collect", flow_run_name="collect {job.dataset}", persist_result=False)
def collect(job: CollectJob) -> str:
    """Collect states; returns the reference of the version. A schedule plays other worlds each time."""
    with on_the_board():
        ref = _play(job, moves_on=deployment.name not in (None, BY_HAND))
    states_page(ref)
    return ref
