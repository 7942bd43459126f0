"""The verb ``lore datasets play``."""

from __future__ import annotations

import json as _json
from contextlib import nullcontext
from typing import Annotated

import tyro

from flows.terminal import Terminal, use

__all__ = ["play"]


def play(
    ref: Annotated[str, tyro.conf.Positional],
    episodes: int = 40,
    against: str = "uniform",
    seed: int = 40_000,
    hold: int = 12,
    sampled: bool = False,
    area: int = 64,
    length: int = 10_000,
    workers: int = 0,
    json: bool = False,
) -> int:
    """What a version is worth with no learner: lives in fresh worlds that follow it, beside the same skills unguided.

    The best goal that can start is pursued for some steps or until it ends, then the advice is asked again. Finished
    lives are kept: a stop loses little, and a call with more episodes plays the difference. The figures become an
    artifact of the version (NAME-play) and enter its card. Play over given skills is no learning result: never compare
    the two.

    Args:
        ref: Advice version: name, name@vN, name@vN#digest or an .h5 file.
        episodes: Lives of each.
        against: The control on the same worlds: uniform (the same skills without preference), another version, or ''.
        seed: Seed of worlds and walks.
        hold: Steps for which a goal is pursued before the advice is asked again.
        sampled: Draw goals from the advised probabilities instead of taking the first choice.
        area: Width and height of the worlds in cells.
        length: Steps after which a life is cut.
        workers: Processes; 0 takes the number of cores.
        json: Print JSON.
    """
    from flows.jobs.play import PlayJob
    from flows.jobs.play import play as run
    from flows.report.play import play_text
    from lore.evaluation.play import PlaySettings

    job = PlayJob(ref, episodes, against, PlaySettings(seed, hold, sampled, length, area), workers)
    with use(Terminal()) if json else nullcontext():  # JSON alone on the standard output
        report = run(job)
    if json:
        print(_json.dumps(report, indent=2, sort_keys=True))
        return 0
    print(play_text(report))
    print(f"\n{report['artifact']}\nnext: lore datasets show '{report['ref']}' --card md")
    return 0
