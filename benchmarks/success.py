"""Steps to 0.9 success and final success of the MiniGrid studies: ``python -m benchmarks.success doorkey keycorridor``.

Reads ``docs/studies/runs/NAME``, one JSON a run, as ``lore ablate --preset NAME`` leaves them. A run reaches 0.9 at the
environment step where 18 of its last 20 training episodes succeeded; one that never does is censored at its budget.
Final success: share of the evaluation's fresh episodes with a return above 0: as trained, the policy alone with its
skills, and the policy over primitive actions only; 95 % bootstrap interval over runs, then episodes.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kept import RUNS
from flows.report.results import MODES
from lore.evaluation.statistics import mean_of_runs, nested_bootstrap
from lore_datasets.errors import NotFound

LAST, ENOUGH = 20, 18


def steps_to(run: dict[str, Any]) -> int | None:
    """Environment step at which 18 of the last 20 training episodes succeeded, None where that never was."""
    won = np.array([bool(unlocked) for unlocked in run["episodes"]["unlocked"]], int)
    total = np.cumsum(won)
    rate = total - np.concatenate([np.zeros(LAST, int), total])[: len(total)]
    reached = np.flatnonzero(rate >= ENOUGH)
    return int(run["episodes"]["step"][reached[0]]) if len(reached) else None


def share(won: Sequence[np.ndarray]) -> str:
    """Per cent of successes, bool[E] per run, with its interval."""
    low, high = nested_bootstrap(mean_of_runs, won)
    return f"{100 * mean_of_runs(won):.0f} ({100 * low:.0f} to {100 * high:.0f})"


def table(name: str, root: Path = RUNS) -> str:
    """One Markdown row per arm of a study; NotFound where it has no run."""
    arms: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted((root / name).glob("*.json")):
        run = json.loads(path.read_text())
        arms[run["cell"]].append(run)
    if not arms:
        raise NotFound(f"no figures of runs in {root / name}", hint="doorkey, keycorridor or doorkey-transfer")
    head = ("runs", "steps to 0.9 success", *(f"{mode.replace('_', ' ')}, %" for mode in MODES))
    lines = [f"| {name} | {' | '.join(head)} |", "|---" * (1 + len(head)) + "|"]
    for cell, runs in arms.items():
        reached = [steps_to(run) for run in runs]
        told = ", ".join(
            f"{n:,}" if n is not None else f"over {run['steps']:,}" for n, run in zip(reached, runs, strict=True)
        )
        ends = [run["evaluations"][-1] for run in runs if run["evaluations"]]
        shares = [share([np.array(end[mode]["returns"]) > 0 for end in ends]) for mode in MODES]
        lines.append(f"| {cell} | {len(runs)} | {told} | {' | '.join(shares)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print("\n\n".join(table(name) for name in sys.argv[1:] or ("doorkey", "keycorridor")))
