"""The verb ``lore ablate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from flows.config import AblateJob
from flows.terminal import current

__all__ = ["ablate"]


def ablate(job: Annotated[AblateJob, tyro.conf.arg(name="")]) -> int:
    """Compare arms: one advice version per adviser, every arm and seed with the same budget, one table and one page.

    A stop at any moment loses little: run it again and it goes on where it was, run by run.

    Args:
        job: What to compare.
    """
    from flows.jobs.ablation import ablate as run
    from flows.jobs.presets import resolved
    from flows.report.ablation import page_folder
    from flows.report.ablation_page import table

    job = resolved(job)
    found = run(job)
    terminal = current()
    terminal.say(table(found))
    terminal.say(f"report: {(Path(job.folder) / 'ablation.html').resolve()}")
    if place := page_folder(job):
        terminal.say(f"page:   {(place / job.preset).resolve()}.md, from {job.results}")
    else:
        terminal.say(f"next:   lore report {job.folder}/*/seed-0")
    return 0
