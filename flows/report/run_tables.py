"""The tables of training runs: scores, achievements, options, dataset and settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.report.ablation_page import number
from flows.report.charts import colour
from flows.report.page import Section, filled
from flows.report.read import RunData, Subject, success_rates
from lore.training.metrics import crafter_score
from lore_datasets.exchange.played import in_one_line

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = [
    "MODES",
    "achievements",
    "evaluation_table",
    "flat",
    "how_it_was_made",
    "option_table",
    "training_score",
]

MODES = {"as_trained": "as trained", "agent_alone": "alone", "primitives_only": "primitives only"}
_SHORT_RUN = 100_000


def training_score(subject: Subject) -> Section:
    """The score of training: all of its episodes."""
    rows = [_summary(run, i) for i, run in enumerate(subject.runs)]
    html = filled("numbers.html", runs=rows, caution=_caution(subject.runs))
    return Section("Training-time score", html)


def _score(rates: dict[str, float]) -> float | None:
    return crafter_score(100 * np.array(list(rates.values()))) if rates else None


def _summary(run: RunData, index: int) -> dict[str, Any]:
    returns = [float(e["return"]) for e in run.episodes]
    rates = success_rates(run.episodes, run.achievements)
    return {
        "name": run.name,
        "colour": colour(index),
        "paths": run.paths,
        "seed": run.config.get("train", {}).get("seed", "–"),
        "steps": f"{run.step:,}",
        "episodes": len(run.episodes),
        "training": {
            "return_mean": number(float(np.mean(returns)) if returns else None),
            "score": number(_score(rates) if returns else None),
            "seen": f"{sum(1 for rate in rates.values() if rate)} of {len(rates)}" if rates else "–",
        },
    }


def evaluation_table(runs: Sequence[RunData]) -> Markup | str:
    """The final policies by run and mode, folded; empty where no run was evaluated."""
    rows = []
    for index, run in enumerate(runs):
        for mode, found in (run.evaluation or {}).get("final_policy", {}).items():
            if not found["episodes"]:
                continue
            low, high = found.get("return_interval") or (None, None)
            rows.append(
                {
                    "name": run.name,
                    "colour": colour(index),
                    "mode": MODES.get(mode, mode.replace("_", " ")),
                    "episodes": found["episodes"],
                    "return_mean": number(found["return_mean"]),
                    "interval": f"{number(low)} to {number(high)}",
                    "score": number(found.get("score")),
                    "length": number(found.get("length_mean"), 0),
                }
            )
    return filled("evaluations.html", evaluations=rows) if rows else ""


def _caution(runs: Sequence[RunData]) -> str:
    steps = max((run.episodes[-1]["step"] for run in runs if run.episodes), default=0)
    seeds = {run.config.get("train", {}).get("seed") for run in runs}
    notes = []
    if len(seeds) <= 1:
        notes.append("One seed per run: a difference here shows that the parts work, not which one is better.")
    if steps < _SHORT_RUN:
        notes.append(f"{steps:,} steps are a start; published results take 1,000,000.")
    if any(run.config.get("env", {}).get("observation") == "symbolic" for run in runs):
        notes.append("Symbolic observations are never compared with scoreboards of pixel agents.")
    return " ".join(notes)


def achievements(subject: Subject) -> Section | None:
    """Share of training episodes in which each achievement was unlocked; None where no names are known."""
    runs = subject.runs
    rates = [success_rates(run.episodes, run.achievements) for run in runs]
    names = {name for each in rates for name in each}
    if not names:
        return None
    order = sorted(names, key=lambda n: (-max(r.get(n, 0.0) for r in rates), n))
    rows = [
        {
            "name": name,
            "cells": [
                {"percent": f"{100 * r[name]:.1f}", "text": f"{100 * r[name]:.1f} %", "colour": colour(i)}
                if name in r else None
                for i, r in enumerate(rates)
            ],
        }
        for name in order
    ]  # fmt: skip
    heads = [{"name": run.name, "colour": colour(i)} for i, run in enumerate(runs)]
    return Section("Achievements", filled("achievements.html", rows=rows, runs=heads))


def option_table(subject: Subject) -> Markup | str:
    """Last value of every ``options/<name>/<column>`` tag, one row per run and option; empty without options."""
    columns: list[str] = []
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for run in subject.runs:
        for tag in sorted(run.series):
            parts = tag.split("/")
            if len(parts) == 3 and parts[0] == "options":
                if parts[2] not in columns:
                    columns.append(parts[2])
                rows.setdefault((run.name, parts[1]), {})[parts[2]] = run.series[tag][1][-1]
    if not rows:
        return ""
    cells = [
        {"run": run, "name": name, "cells": [number(found.get(c)) for c in columns]}
        for (run, name), found in rows.items()
    ]
    return filled("option_table.html", columns=[c.replace("_", " ") for c in columns], rows=cells)


def _card(subject: Subject) -> list[tuple[str, str]]:
    if subject.advice is None:
        return []
    advice, manifest, adviser = subject.advice, subject.advice.manifest, subject.adviser
    in_line = lambda body: ", ".join(f"{k} {v}" for k, v in sorted(flat(body).items())) or "–"  # noqa: E731
    play, without = subject.play
    return [
        ("reference", f"{advice.ref.name}@v{advice.ref.version}#{advice.ref.digest}"),
        ("made", f"{manifest.created[:19]} {manifest.message}".strip()),
        ("parents", ", ".join(manifest.parents) or "none"),
        ("environment", f"{manifest.environment}, keys {manifest.key_scheme}, schema {manifest.schema}"),
        ("adviser", adviser + (" (a rule book, not a language model)" if adviser == "rules" else "")),
        ("rows", f"{len(advice.rows):,}"),
        ("actions", f"{len(advice.actions)} primitive + {len(advice.skills)} skills"),
        ("skills", ", ".join(skill.name for skill in advice.skills) or "none"),
        ("counts", in_line(manifest.counts)),
        ("cost", in_line(manifest.cost)),
        ("provenance", in_line(manifest.provenance)),
        ("advice model", f"{len(advice.model)} arrays" if advice.model else "none"),
        ("played without learning", in_one_line(play) if play is not None else without),
    ]


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values by dotted names, as short text."""
    out: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            out.update(flat(item, f"{prefix}{key}."))
        else:
            text = item if isinstance(item, str) else f"{item:g}" if isinstance(item, float) else json.dumps(item)
            out[f"{prefix}{key}"] = text if len(text) <= 120 else text[:117] + "..."
    return out


def how_it_was_made(subject: Subject) -> Section:
    """The dataset's card, the commands, the settings; those that differ between the runs come first."""
    flats = [flat(run.config) for run in subject.runs]
    names = sorted({name for each in flats for name in each})
    rows = [
        {"name": n, "cells": [f.get(n, "–") for f in flats], "differs": len({f.get(n) for f in flats}) > 1}
        for n in names
    ]
    note = "Those that differ between the runs." if len(flats) > 1 else "As resolved at the start of the run."
    html = filled(
        "made.html", card=_card(subject), commands="\n".join(subject.commands), runs=subject.runs, rows=rows, note=note
    )
    return Section("How it was made", html)
