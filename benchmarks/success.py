"""Steps to 0.9 success and final success of the MiniGrid studies: ``python -m benchmarks.success doorkey keycorridor``.

Reads ``docs/studies/runs/NAME``, one JSON a run, as ``lore ablate --preset NAME`` leaves them. A run reaches 0.9 at the
environment step where 18 of its last 20 training episodes succeeded; one that never does is censored at its budget.
Final success: share of successes over the evaluation's fresh episodes as trained; 95 % bootstrap interval over runs.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

LAST, ENOUGH = 20, 18


def steps_to(run: dict[str, Any]) -> int | None:
    """Environment step at which 18 of the last 20 training episodes succeeded, None where that never was."""
    won = np.array([bool(unlocked) for unlocked in run["episodes"]["unlocked"]], int)
    total = np.cumsum(won)
    rate = total - np.concatenate([np.zeros(LAST, int), total])[: len(total)]
    reached = np.flatnonzero(rate >= ENOUGH)
    return int(run["episodes"]["step"][reached[0]]) if len(reached) else None


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap of the mean over runs."""
    draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def table(name: str, root: Path = Path("docs/studies/runs")) -> str:
    """One Markdown row per arm of a study."""
    arms: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted((root / name).glob("*.json")):
        run = json.loads(path.read_text())
        arms[run["cell"]].append(run)
    lines = [f"| {name} | runs | steps to 0.9 success | final success, % |", "|---|---|---|---|"]
    for cell, runs in arms.items():
        reached = [steps_to(run) for run in runs]
        told = ", ".join(
            f"{n:,}" if n is not None else f"over {run['steps']:,}" for n, run in zip(reached, runs, strict=True)
        )
        final = np.array([run["evaluations"][-1]["as_trained"]["score"] for run in runs if run["evaluations"]], float)
        low, high = interval(final) if len(final) else (np.nan, np.nan)
        lines.append(f"| {cell} | {len(runs)} | {told} | {final.mean():.0f} ({low:.0f} to {high:.0f}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    print("\n\n".join(table(name) for name in sys.argv[1:] or ("doorkey", "keycorridor")))
