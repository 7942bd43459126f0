"""What the agents of a Crafter study keep of the advice: ``python -m benchmarks.kept quick``.

Reads ``docs/studies/runs/NAME``, one JSON a run, as ``lore ablate --preset NAME`` leaves them. All training episodes:
their return, and the score by the benchmark's protocol. The others are figures of each run's last evaluation, in fresh
worlds: as trained, the policy alone with its skills, and over primitive actions only. Scores are means of the runs'
scores, in per cent; returns and their differences have 95 % bootstrap intervals over runs, then episodes. What a
version makes by itself is the mean in ``benchmarks/results/worth.json``, taken as known. Runs of the same cells by
earlier forms of the learner: ``NAME-soft``, drawn to all that the advice prefers and not to its first choice alone, and
``laptop-before``, from which skills lost their slots as well.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import RESULTS
from flows.config import AblateJob
from flows.jobs.ablation_arms import cells
from flows.jobs.presets import PRESETS, resolved
from flows.report.ablation_page import markdown_table
from flows.report.results import MODES, read_result
from lore.evaluation.statistics import difference_of_means, mean_of_runs, nested_bootstrap
from lore.training.metrics import crafter_score
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, LoreError, NotFound

RUNS = Path(__file__).parents[1] / "docs" / "studies" / "runs"
KICK, UNIFORM, LASTING = "BC+kick claude", "BC+kick uniform", "BC+kick+end+numbers+skills claude"
PAIRS = (
    (KICK, UNIFORM), ("BC+kick rows", UNIFORM), ("BC+kick rules", UNIFORM), (KICK, "BC+kick rules"),
    (KICK, "prefill claude"), (KICK, "B+kick claude"), (KICK, "BC+all claude"),
    ("ABC+kick claude", KICK), ("BCD+kick claude", KICK), ("BC+kick+budget claude", KICK),
    *((f"BC+kick+{word} claude", KICK) for word in ("end", "episodes", "blocks")),
    *((cell, "none") for cell in (KICK, UNIFORM, "B claude", "C claude", "C+all claude", "prefill claude",
                                  "BC+kick+end claude")),
    (LASTING, KICK), (LASTING, "BC+kick+end claude"), (LASTING, "BC+kick+end+numbers claude"),
    (LASTING, "BC+kick+end+skills claude"), (LASTING, "BC+kick+end+numbers+skills uniform"),
    (LASTING, "C+all+numbers+skills claude"), (LASTING, "none"), ("BC+kick+numbers+skills claude", KICK),
    ("C+all+numbers+skills claude", "C+all claude"),
)  # fmt: skip
"""Cells that are compared: the first less the second."""
PLAY = {KICK: ("crafter-claude@v2", "all"), "BC+kick rows": ("crafter-claude@v2", "rows"),
        "BC+kick rules": ("crafter-rules@v2", "all")}  # fmt: skip
"""Cell -> its advice as a player of its own: version, and which part of it plays."""

Runs = dict[str, list[dict[str, Any]]]


def read(name: str, root: Path = RUNS) -> Runs:
    """Cell -> its finished runs that were evaluated, in the study's order.

    NotFound where there are none; BadInput for a study of another game, or a word that names no study.
    """
    preset = name.partition("-")[0]
    if preset not in PRESETS:
        raise BadInput(f"{name} is no study", hint=f"one of {', '.join(PRESETS)}")
    job = resolved(AblateJob(preset=preset))  # pyright: ignore[reportArgumentType]  # it is one of them
    if job.config.env.name != "crafter":
        raise BadInput(f"the study {name} is of another game", hint=f"python -m benchmarks.success {name}")
    found: Runs = defaultdict(list)
    for path in sorted((root / name).glob("*.json")):
        run = read_result(path)
        if run and run["evaluations"]:
            found[run["cell"]].append(run)
    if not found:
        raise NotFound(f"no figures of runs in {root / name}", hint=f"lore ablate --preset {preset} makes them")
    return {cell.label: found[cell.label] for cell in cells(job) if cell.label in found}


def returns(runs: Sequence[dict[str, Any]], mode: str) -> list[np.ndarray]:
    """float64[E] per run: returns of the last evaluation."""
    return [np.array(run["evaluations"][-1][mode]["returns"]) for run in runs]


def estimate(statistic: Callable[..., float], *groups: Sequence[np.ndarray]) -> str:
    """``9.2 (7.7 to 10.6)``."""
    mean, low, high = (round(x, 1) + 0.0 for x in (statistic(*groups), *nested_bootstrap(statistic, *groups)))
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


def training_score(run: dict[str, Any]) -> float:
    """Crafter score, %, of all training episodes: the benchmark's protocol."""
    unlocked = run["episodes"]["unlocked"]
    rates = np.zeros(len(get_environment(run["environment"]).vocab.achievements))
    np.add.at(rates, [k for episode in unlocked for k in episode], 100 / len(unlocked))
    return crafter_score(rates)


def play_return(version: str, part: str) -> float:
    """Mean return of a version that plays by itself on full Crafter."""
    rows = json.loads((RESULTS / "worth.json").read_text())["rows"]
    (row,) = [r for r in rows if (r["dataset"].split("#")[0], r["part"], r["area"]) == (version, part, 64)]
    return row["return"][0]


def cell_table(found: Runs) -> str:
    """One Markdown row per cell."""
    rows = []
    for cell, runs in found.items():
        trained = estimate(mean_of_runs, [np.array(run["episodes"]["return"]) for run in runs])
        row = [cell, str(len(runs)), f"{trained}, {np.mean([training_score(r) for r in runs]):.1f}"]
        for mode in MODES:
            score = np.mean([run["evaluations"][-1][mode]["score"] for run in runs])
            row.append(f"{estimate(mean_of_runs, returns(runs, mode))}, {score:.1f}")
        rows.append([*row, f"{np.mean([run['minutes'] for run in runs]):.1f}"])
    return markdown_table(("cell", "seeds", "all training episodes", *map(_words, MODES), "minutes"), rows)


def difference_table(found: Runs) -> str:
    """One Markdown row per pair of cells."""
    rows = []
    for one, other in PAIRS:
        if one in found and other in found:
            pairs = [(returns(found[one], mode), returns(found[other], mode)) for mode in MODES]
            rows.append([f"{one} less {other}", *(estimate(difference_of_means, *pair) for pair in pairs)])
    return markdown_table(("difference in return", *map(_words, MODES)), rows)


def own_advice_table(found: Runs) -> str:
    """One Markdown row per cell whose advice was also played by itself, in other worlds."""
    rows = []
    for cell, (version, part) in PLAY.items():
        if cell in found:
            own = play_return(version, part)
            less = [
                estimate(lambda runs, own=own: mean_of_runs(runs) - own, returns(found[cell], mode))
                for mode in MODES[:2]
            ]  # fmt: skip
            rows.append([cell, f"{own:.1f}", *less])
    return markdown_table(
        ("cell", "its advice, playing by itself", *(f"{_words(m)}, less that" for m in MODES[:2])), rows
    )


def form_table(name: str, found: Runs) -> str:
    """One Markdown row per cell of an earlier form: today's runs of the same seeds less these."""
    today, rows = read(name.partition("-")[0]), []
    for cell, runs in found.items():
        seeds = [run["seed"] for run in runs]
        same = [run for run in today.get(cell, []) if run["seed"] in seeds]
        if len(same) == len(runs):
            pairs = [(returns(same, mode), returns(runs, mode)) for mode in MODES]
            rows.append([cell, *(estimate(difference_of_means, *pair) for pair in pairs)])
    return markdown_table(("today's less these", *map(_words, MODES)), rows)


def _words(mode: str) -> str:
    return mode.replace("_", " ")


def page_part(name: str) -> str:
    """The tables of a study for docs/results.md; of an earlier form with the differences to today's runs."""
    found = read(name)
    tables = [make(found) for make in (cell_table, difference_table, own_advice_table)]
    return "\n\n".join(tables + [form_table(name, found)] * ("-" in name))


if __name__ == "__main__":
    try:
        for word in sys.argv[1:] or ("quick",):
            print(f"{word}\n\n{page_part(word)}\n")
    except LoreError as error:
        sys.exit(str(error))
