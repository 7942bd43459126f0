"""Fresh episodes with the agents of one run or of several seeds, and the figures over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flows.config import EvaluateJob
from flows.jobs.runs import find_runs
from lore_datasets.errors import NotFound

__all__ = ["are_seeds", "evaluate_runs", "over_seeds", "runs_of"]


def runs_of(folders: Sequence[Path | str]) -> list[Path]:
    """The runs that folders mean: a folder of a run itself, and of a folder of seeds all runs in it; each once.

    NotFound names a folder with neither.
    """
    found: dict[Path, None] = {}
    for folder in map(Path, folders):
        runs = find_runs(folder)
        if not runs:
            what = f"no run in {folder}" if folder.is_dir() else f"no folder {folder}"
            raise NotFound(what, hint="give the --folder of a run, or one that holds runs")
        found |= dict.fromkeys(runs)
    return list(found)


def are_seeds(runs: Iterable[Path]) -> bool:
    """True where the settings of some runs are the same but for their seeds."""
    from lore.training.folder import read_config
    from lore.training.fork import differences

    first, *others = [read_config(run) for run in runs]
    return not any(differences(first, config).keys() - {"train.seed"} for config in others)


def evaluate_runs(
    runs: Sequence[Path], job: EvaluateJob, on_progress: Callable[[str, int, int], None] | None = None
) -> dict[Path, dict[str, Any]]:
    """``evaluation.json`` of every run, made anew; ``job.folder`` is not read. ``on_progress`` (mode, done, total)."""
    from lore.evaluation.evaluate import evaluate, modes
    from lore.training.folder import read_config

    counts = [job.episodes * modes(read_config(run)) for run in runs]
    found: dict[Path, dict[str, Any]] = {}
    for i, run in enumerate(runs):
        done: dict[str, int] = {}

        def show(mode: str, count: int, before: int = sum(counts[:i]), done: dict[str, int] = done) -> None:
            done[mode] = count
            if on_progress is not None:
                on_progress(mode, before + sum(done.values()), sum(counts))

        found[run] = evaluate(run, job.episodes, seed=job.seed, on_progress=show, record=job.record)
    return found


def over_seeds(found: Mapping[Path, Mapping[str, Any]]) -> dict[str, dict[str, Any]] | None:
    """``final_policy`` over the runs of :func:`evaluate_runs`, in the form of one run's; None unless they are the same
    but for their seeds.

    Return and score are means of the runs'; the 95 % interval of the return draws runs, then episodes within them,
    again.
    """
    from lore.evaluation.statistics import mean_of_runs, nested_bootstrap

    if not are_seeds(found):
        return None
    finals = [each["final_policy"] for each in found.values()]
    out: dict[str, dict[str, Any]] = {}
    for mode in finals[0]:
        each = [final[mode] for final in finals]
        rates = {n: float(np.mean([run["achievements"][n]["rate"] for run in each])) for n in each[0]["achievements"]}
        interval = nested_bootstrap(mean_of_runs, [np.array(run["returns"]) for run in each])
        out[mode] = {
            "episodes": sum(run["episodes"] for run in each),
            "return_mean": float(np.mean([run["return_mean"] for run in each])),
            "return_interval": interval if len(each) > 1 else tuple(each[0]["return_interval"]),
            "score": float(np.mean([run["score"] for run in each])),
            "achievements": {name: {"rate": rate} for name, rate in rates.items()},
        }
    return out
