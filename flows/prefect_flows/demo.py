"""The flow ``demo``: all phases as sub-flows, on the embedded server of
:func:`flows.prefect_flows.runtime.embedded_server`."""

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.config import DemoJob
from flows.jobs.demo import Steps, run_demo, write_report
from flows.prefect_flows.advise import advise
from flows.prefect_flows.collect import collect
from flows.prefect_flows.evaluate import evaluate
from flows.prefect_flows.train import train

__all__ = ["demo"]

_report = task(name="write the report", cache_policy=NO_CACHE)(write_report)


@flow(name="demo", flow_run_name="demo {job.dataset}, seed {job.seed}", persist_result=False)
def demo(job: DemoJob) -> dict[str, Any]:
    """Collect, advise, train two arms, evaluate both, report; finished phases are skipped. ``job`` must be resolved."""
    return run_demo(job, Path(job.folder), Steps(collect, advise, train, evaluate, _report))
