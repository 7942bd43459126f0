"""Schedules as Prefect deployments. One run of each at a time: an overlapping one is cancelled, never queued."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from flows.lab.schedules import BY_HAND, FLOWS, Schedule, read_schedules

__all__ = ["TAG", "deployments", "flow_of", "serve"]

TAG = "lore"
"""Marks the deployments that belong to ``lore up``."""
_ANCHOR = datetime(2024, 1, 1)
"""Midnight from which every interval is counted, in the schedule's timezone: a restart moves no run."""


def flow_of(name: str) -> Any:
    """The Prefect flow that serves ``name`` of ``schedules.toml``."""
    module, _, attribute = FLOWS[name][0].partition(":")
    return getattr(import_module(module), attribute)


def deployments(schedules: Sequence[Schedule]) -> list[Any]:
    """One deployment per schedule, and one ``by-hand`` per flow."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.schedules import Cron, Interval

    alone = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    made = []
    for each in schedules:
        when: list[Any] = []
        if each.cron:
            when = [Cron(each.cron, timezone=each.timezone, active=each.active)]
        elif each.interval_s:
            start = _ANCHOR.replace(tzinfo=ZoneInfo(each.timezone))
            step = timedelta(seconds=each.interval_s)
            when = [Interval(step, anchor_date=start, timezone=each.timezone, active=each.active)]
        made.append(
            flow_of(each.flow).to_deployment(
                each.name, schedules=when, parameters={"job": each.parameters}, concurrency_limit=alone, tags=[TAG],
                description=f"{each.when}; from schedules.toml", paused=False,
            )
        )  # fmt: skip
    for name in FLOWS:
        made.append(flow_of(name).to_deployment(BY_HAND, concurrency_limit=alone, tags=[TAG], paused=False))
    return made


def serve(path: Path | None, ready: Path) -> None:
    """Register the deployments, remove those that a former file had, write their ids to ``ready``, run what is due."""
    import asyncio

    from prefect import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
    from prefect.exceptions import TerminationSignal
    from prefect.runner import Runner

    from lore_datasets.atomic import write_json

    class Leaving(Runner):
        """Prefect's own handler leaves without stopping its runs: it does not await ``astop``."""

        def handle_sigterm(self, *_: Any, **__: Any) -> None:
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(lambda: stopping.append(loop.create_task(self.astop())))

    stopping: list[Any] = []
    runner = Leaving(pause_on_shutdown=False, limit=4)
    ids = {}
    for each in deployments(read_schedules(path) if path else []):
        ids[f"{each.flow_name}/{each.name}"] = str(runner.add_deployment(each))
    with get_client(sync_client=True) as client:
        mine = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
        for found in client.read_deployments(deployment_filter=mine):
            if str(found.id) not in ids.values():
                client.delete_deployment(found.id)
    write_json(ready, ids)
    with contextlib.suppress(KeyboardInterrupt, TerminationSignal):
        asyncio.run(runner.start())


if __name__ == "__main__":
    serve(Path(sys.argv[2]) if len(sys.argv) > 2 else None, Path(sys.argv[1]))
