"""What the agents of a Crafter study keep of the advice: ``python -m benchmarks.kept quick laptop``.

Reads ``docs/studies/runs/NAME``, one JSON a run, as ``lore ablate --preset NAME`` leaves them. All training episodes:
their return, and the score by the benchmark's protocol. The others are figures of each run's last evaluation, in fresh
worlds: as trained, the policy alone with its skills, and over primitive actions only. Scores are means of the runs'
scores, in per cent; returns and their differences have 95 % bootstrap intervals over runs, then episodes. What a
version makes by itself is the mean in ``benchmarks/results/worth.json``, taken as known.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flows.config import AblateJob
from flows.jobs.ablation_arms import cells
from flows.jobs.presets import PRESETS, resolved
from lore.evaluation.statistics import nested_bootstrap
from lore.training.metrics import crafter_score
from lore_datasets.environments import get_environment
from lore_datasets.errors import NotFound

MODES = ("as_trained", "agent_alone", "primitives_only")
KICK = "BC+kick claude"
PAIRS = (
    (KICK, "BC+kick uniform"), (KICK, "prefill claude"), (KICK, "none"), (KICK, "B claude"), (KICK, "C+all claude"),
    ("ABC+kick claude", KICK), ("BCD+kick claude", KICK), ("BC+kick+budget claude", KICK),
    ("BC+kick+end claude", KICK),
)  # fmt: skip
"""Cells whose difference says something."""
PLAY = {KICK: ("crafter-claude@v2", "all"), "BC+kick rows": ("crafter-claude@v2", "rows"),
        "BC+kick rules": ("crafter-rules@v2", "all")}  # fmt: skip
"""Cell -> what plays by itself in its column "its own advice": version, and which part of it."""

Runs = dict[str, list[dict[str, Any]]]


def read(name: str, root: Path = Path("docs/studies/runs")) -> Runs:
    """Cell -> its finished runs that were evaluated, in the study's order; NotFound where there are none."""
    found: Runs = defaultdict(list)
    for path in sorted((root / name).glob("*.json")):
        run = json.loads(path.read_text())
        if run["evaluations"]:
            found[run["cell"]].append(run)
    if not found or name not in PRESETS:
        raise NotFound(
            f"no figures of a preset's runs in {root / name}", hint=f"lore ablate --preset {name} makes them"
        )
    study = resolved(AblateJob(preset=name))  # pyright: ignore[reportArgumentType]  # any word that the user gives
    order = [cell.label for cell in cells(study)]
    return {label: found[label] for label in order if label in found}


def returns(runs: Sequence[dict[str, Any]], mode: str) -> list[np.ndarray]:
    """float64[E] per run: returns of the last evaluation."""
    return [np.array(run["evaluations"][-1][mode]["returns"]) for run in runs]


def told(statistic: Callable[..., float], *groups: Sequence[np.ndarray]) -> str:
    """``9.2 (7.7 to 10.6)``."""
    low, high = nested_bootstrap(statistic, *groups)
    return f"{statistic(*groups):.1f} ({low:.1f} to {high:.1f})"


def mean(runs: Sequence[np.ndarray]) -> float:
    """Mean over runs of their means."""
    return float(np.mean([run.mean() for run in runs]))


def less(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """Difference of the means."""
    return mean(one) - mean(other)


def training_score(run: dict[str, Any]) -> float:
    """Crafter score, %, of all training episodes: the benchmark's protocol."""
    unlocked = run["episodes"]["unlocked"]
    rates = np.zeros(len(get_environment(run["environment"]).vocab.achievements))
    np.add.at(rates, [k for episode in unlocked for k in episode], 100 / len(unlocked))
    return crafter_score(rates)


def table(found: Runs) -> str:
    """One Markdown row per cell."""
    head = ("cell", "seeds", "all training episodes", *(mode.replace("_", " ") for mode in MODES), "minutes")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for cell, runs in found.items():
        trained = [np.array(run["episodes"]["return"]) for run in runs]
        row = [cell, str(len(runs)), f"{told(mean, trained)}, {np.mean([training_score(r) for r in runs]):.1f}"]
        for mode in MODES:
            score = np.mean([run["evaluations"][-1][mode]["score"] for run in runs])
            row.append(f"{told(mean, returns(runs, mode))}, {score:.1f}")
        row.append(f"{np.mean([run['minutes'] for run in runs]):.1f}")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def differences(found: Runs) -> str:
    """One Markdown row per pair of cells, and per cell whose own advice was played."""
    head = ("difference in return", *(mode.replace("_", " ") for mode in MODES))
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for one, other in PAIRS:
        if one in found and other in found:
            pairs = [(returns(found[one], mode), returns(found[other], mode)) for mode in MODES]
            lines.append(f"| {one} less {other} | {' | '.join(told(less, *pair) for pair in pairs)} |")
    for cell, (version, part) in PLAY.items():
        if cell in found:
            own, figures = played(version, part), [returns(found[cell], mode) for mode in MODES]
            row = [told(lambda runs, own=own: mean(runs) - own, runs) for runs in figures]
            lines.append(f"| {cell} less its own advice ({own:.1f}) | {' | '.join(row)} |")
    return "\n".join(lines)


def played(version: str, part: str) -> float:
    """Mean return of a version that plays by itself on full Crafter."""
    rows = json.loads((Path(__file__).parent / "results" / "worth.json").read_text())["rows"]
    (row,) = [r for r in rows if (r["dataset"].split("#")[0], r["part"], r["area"]) == (version, part, 64)]
    return row["return"][0]


if __name__ == "__main__":
    for name in sys.argv[1:] or ("quick",):
        study = read(name)
        print(f"{name}\n\n{table(study)}\n\n{differences(study)}\n")
