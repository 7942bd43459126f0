"""The verbs of a lab that runs by itself: ``lore up`` and ``lore refresh``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

from flows.config import RefreshJob
from flows.lab.up import UpJob
from flows.terminal import current

__all__ = ["refresh", "up"]

_HOME = Path("runs", "prefect")


def refresh(job: Annotated[RefreshJob, tyro.conf.arg(name="")], prefect: bool = False) -> int:
    """Export the states where a trained agent has no advice or is unsure, advise those alone, and train on with that.

    Each round makes the next version of the run's advice dataset (a child of the one before, holding the new rows in a
    group of its own) and goes on from the checkpoint. A stop at any moment loses little: run it again.

    Args:
        job: What to do.
        prefect: Run as a Prefect flow.
    """
    from flows.jobs.rounds import refresh as run

    if prefect:
        from flows.prefect_flows.runtime import embedded_server

        with embedded_server(_HOME):
            from flows.prefect_flows.refresh import refresh_round

            made: list[dict[str, Any]] = refresh_round(job)
    else:
        made = run(job)
    for record in made:
        before, after = (100 * (1 - record[when]["none"]) for when in ("before", "after"))
        current().say(
            f"round {record['round']}: {record['rows']:,} new rows, visited states with advice "
            f"{before:.1f} -> {after:.1f} %, trained from step {record['from']:,} to {record['to']:,}\n"
            f"  {record['advice']}"
        )
    last = made[-1]
    current().say(
        f"next: lore eval {job.folder}; lore refresh --folder {job.folder}; "
        f"undo with lore datasets rollback '{last['base'].split('#')[0]}'"
    )
    return 0


def up(job: Annotated[UpJob, tyro.conf.arg(name="")]) -> int:
    """Start a server with pages, serve every flow, open the schedules of schedules.toml, start TensorBoard.

    Everything listens on loopback and ends with this command (Ctrl-C), however it ends. The pages show every run
    with its progress, what it made and what it cost; a form starts any flow by hand.

    Args:
        job: What to start.
    """
    from flows.lab.up import up as run

    return run(job)
