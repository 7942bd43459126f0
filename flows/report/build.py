"""Run folders (and the advice they read) -> one HTML file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.report import plots
from flows.report.frames import sample_frames
from flows.report.page import page
from flows.report.read import RunData, read_run, success_rates
from lore.training.metrics import crafter_score
from lore_datasets.atomic import write_text
from lore_datasets.errors import LoreError
from lore_datasets.store.advisers import advisers_of

if TYPE_CHECKING:
    from lore_datasets.advice import AdviceData

__all__ = ["build_report", "labelled", "render"]

_MODES = {"as_trained": "as trained", "agent_alone": "alone", "primitives_only": "primitives only"}
_SHORT_RUN = 100_000


def labelled(folders: Sequence[Path]) -> dict[str, Path]:
    """Run folders by the labels that a page gives them: their names, or where two share one their paths."""
    names = [path.name for path in folders]
    return {path.name if len(set(names)) == len(names) else str(path): path for path in folders}


def build_report(
    folders: Mapping[str, Path],
    out: Path,
    *,
    title: str = "LoRe report",
    advice: AdviceData | None = None,
    commands: Sequence[str] = (),
) -> Path:
    """Read run folders (label -> folder), write the page to ``out`` (temp, then rename) and return it."""
    html = render(
        [read_run(path, name) for name, path in folders.items()], title=title, advice=advice, commands=commands
    )
    write_text(out, html)
    return out


def render(
    runs: Sequence[RunData], *, title: str, advice: AdviceData | None = None, commands: Sequence[str] = ()
) -> str:
    """The page as text."""
    names = _achievements(runs, advice)
    first = runs[0].config.get("env", {}) if runs else {}
    return page(
        "report.html",
        title,
        runs=[_summary(run, colour, names) for run, colour in zip(runs, _cycle(len(runs)), strict=True)],
        environment=first.get("name", ""),
        observation=first.get("observation", ""),
        dataset=_dataset(advice),
        evaluations=_evaluations(runs),
        caution=_caution(runs),
        curve_plots=_curves(runs, names),
        achievements=_achievement_rows(runs, names),
        advice_plots=_advice_plots(runs),
        **_options(runs),
        frames=sample_frames(advice) if advice else [],
        commands="\n".join(commands),
        **_settings(runs),
    )


def _cycle(count: int) -> list[str]:
    return [plots.COLOURS[i % len(plots.COLOURS)] for i in range(count)]


def _achievements(runs: Sequence[RunData], advice: AdviceData | None) -> tuple[str, ...]:
    if advice is not None:
        return advice.environment.vocab.achievements
    from lore_datasets.environments import ENVIRONMENTS, get_environment

    name = runs[0].config.get("env", {}).get("name", "") if runs else ""
    return get_environment(name).vocab.achievements if name in ENVIRONMENTS else ()


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def _score(rates: dict[str, float]) -> float:
    return crafter_score(100 * np.array(list(rates.values()))) if rates else 0.0


def _paths(config: dict[str, Any]) -> str:
    paths = {"A": "synthetic", "B": "gate", "C": "options"}
    on = [name for name, section in paths.items() if config.get(section, {}).get("enabled")]
    return " + ".join(on) or "none"


def _summary(run: RunData, colour: str, names: Sequence[str]) -> dict[str, Any]:
    returns = [float(e["return"]) for e in run.episodes]
    rates = success_rates(run.episodes, names)
    done = (run.progress or {}).get("step", run.episodes[-1]["step"] if run.episodes else 0)
    return {
        "name": run.name,
        "colour": colour,
        "paths": _paths(run.config),
        "seed": run.config.get("train", {}).get("seed", "–"),
        "steps": f"{done:,}",
        "episodes": len(run.episodes),
        "training": {
            "return_mean": _number(float(np.mean(returns)) if returns else None),
            "score": _number(_score(rates) if returns else None),
            "seen": f"{sum(1 for rate in rates.values() if rate)} of {len(rates)}",
        },
    }


def _evaluations(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    rows = []
    for run, colour in zip(runs, _cycle(len(runs)), strict=True):
        for mode, found in (run.evaluation or {}).get("final_policy", {}).items():
            if not found.get("episodes"):
                continue
            low, high = found["return_interval"]
            rows.append(
                {
                    "name": run.name,
                    "colour": colour,
                    "mode": _MODES.get(mode, mode.replace("_", " ")),
                    "episodes": found["episodes"],
                    "return_mean": _number(found["return_mean"]),
                    "interval": f"{_number(low)} to {_number(high)}",
                    "score": _number(found["score"]),
                    "length": _number(found["length_mean"], 0),
                }
            )
    return rows


def _caution(runs: Sequence[RunData]) -> str:
    steps = max((run.episodes[-1]["step"] for run in runs if run.episodes), default=0)
    seeds = {run.config.get("train", {}).get("seed") for run in runs}
    notes = [f"{run.name}: {run.unused_advice}." for run in runs if run.unused_advice]
    if len(seeds) <= 1:
        notes.append("One seed per run: a difference here shows that the parts work, not which one is better.")
    if steps < _SHORT_RUN:
        notes.append(f"{steps:,} steps are a start; published Crafter results take 1,000,000.")
    if any(run.config.get("env", {}).get("observation") == "symbolic" for run in runs):
        notes.append("Symbolic observations are never compared with scoreboards of pixel agents.")
    return " ".join(notes)


def _kept(found: list[tuple[str, str | None]]) -> list[dict[str, str]]:
    return [{"title": title, "uri": uri} for title, uri in found if uri]


def _curves(runs: Sequence[RunData], names: Sequence[str]) -> list[dict[str, str]]:
    return _kept(
        [
            ("Return of each training episode, and its trailing mean over 10 episodes", plots.returns(runs)),
            ("Score of all training episodes so far", plots.score_over_time(runs, names)),
        ]
    )


def _advice_plots(runs: Sequence[RunData]) -> list[dict[str, str]]:
    gated = [run for run in runs if "uncertainty_gate/beta" in run.series]
    bound = gated[0].config.get("gate", {}).get("delta_target") if gated else None
    found = [(f"{run.name}: where the advice for the visited states came from", plots.coverage(run)) for run in runs]
    found += [
        ("Weight of the advice (beta)", plots.lines(runs, [("uncertainty_gate/beta", "")], "beta")),
        (
            "KL of the mixed policy from the agent's own, per decision; the bound holds for the running mean",
            plots.lines(
                runs,
                [("uncertainty_gate/avg_kl", "rows"), ("uncertainty_gate/kl_running", "running mean")],
                "nats",
                bound,
            ),
        ),
        (
            "Share of synthetic rows among actor-critic starts (cap in the settings)",
            plots.lines(runs, [("synthetic/ratio", "")], "share"),
        ),
        (
            "Share of imagined unlocks that did not happen for real",
            plots.lines(runs, [("synthetic/false_unlock_rate", "")], "share"),
        ),
        ("Success rate of options", plots.lines(runs, [("options/avg_success_rate", "")], "share")),
    ]
    return _kept(found)


def _options(runs: Sequence[RunData]) -> dict[str, Any]:
    """Last value of every ``options/<name>/<column>`` tag, one row per run and option."""
    columns: list[str] = []
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for run in runs:
        for tag in sorted(run.series):
            parts = tag.split("/")
            if len(parts) == 3 and parts[0] == "options":
                if parts[2] not in columns:
                    columns.append(parts[2])
                rows.setdefault((run.name, parts[1]), {})[parts[2]] = run.series[tag][1][-1]
    return {
        "option_columns": [c.replace("_", " ") for c in columns],
        "options": [
            {"run": run, "name": name, "cells": [_number(cells.get(c)) for c in columns]}
            for (run, name), cells in rows.items()
        ],
    }


def _achievement_rows(runs: Sequence[RunData], names: Sequence[str]) -> list[dict[str, Any]]:
    rates = [success_rates(run.episodes, names) for run in runs]
    order = sorted(names, key=lambda n: (-max((r[n] for r in rates), default=0.0), n))
    return [
        {
            "name": name,
            "cells": [
                {"percent": f"{100 * r[name]:.1f}", "text": f"{100 * r[name]:.1f} %", "colour": colour}
                for r, colour in zip(rates, _cycle(len(runs)), strict=True)
            ],
        }
        for name in order
    ]


def _played(advice: AdviceData) -> str:
    """What the version was worth with no learner, in one line; ``not played`` where the store holds no play of it."""
    from lore_datasets.exchange.played import in_one_line
    from lore_datasets.exchange.shipped import ShippedStore
    from lore_datasets.store.lineage import newest_play

    try:
        found = newest_play(ShippedStore(), advice.ref, verify=False)
        return in_one_line(found.manifest) if found is not None else "not played"
    except LoreError as error:
        return f"unknown: {error.message}"


def _dataset(advice: AdviceData | None) -> dict[str, Any] | None:
    if advice is None:
        return None
    manifest = advice.manifest
    adviser = advisers_of(manifest) or "unknown"
    flat = lambda body: ", ".join(f"{k} {v}" for k, v in sorted(_flat(body).items())) or "–"  # noqa: E731
    card = [
        ("reference", f"{advice.ref.name}@v{advice.ref.version}#{advice.ref.digest}"),
        ("made", f"{manifest.created[:19]} {manifest.message}".strip()),
        ("parents", ", ".join(manifest.parents) or "none"),
        ("environment", f"{manifest.environment}, keys {manifest.key_scheme}, schema {manifest.schema}"),
        ("adviser", adviser + (" (a rule book, not a language model)" if adviser == "rules" else "")),
        ("rows", f"{len(advice.rows):,}"),
        ("actions", f"{len(advice.actions)} primitive + {len(advice.skills)} skills"),
        ("skills", ", ".join(skill.name for skill in advice.skills) or "none"),
        ("counts", flat(manifest.counts)),
        ("cost", flat(manifest.cost)),
        ("provenance", flat(manifest.provenance)),
        ("advice model", f"{len(advice.model)} arrays" if advice.model else "none"),
        ("played without learning", _played(advice)),
    ]
    rows = f"{len(advice.rows):,}"
    return {"ref": str(advice.ref), "rows": rows, "adviser": adviser, "is_rules": adviser == "rules", "card": card}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            out.update(_flat(item, f"{prefix}{key}."))
        else:
            text = item if isinstance(item, str) else f"{item:g}" if isinstance(item, float) else json.dumps(item)
            out[f"{prefix}{key}"] = text if len(text) <= 120 else text[:117] + "..."
    return out


def _settings(runs: Sequence[RunData]) -> dict[str, Any]:
    flats = [_flat(run.config) for run in runs]
    names = sorted({name for flat in flats for name in flat})
    rows = [
        {"name": n, "cells": [f.get(n, "–") for f in flats], "differs": len({f.get(n) for f in flats}) > 1}
        for n in names
    ]
    rows.sort(key=lambda row: not row["differs"])
    note = "Rows that differ between the runs come first." if len(runs) > 1 else "As resolved at the start of the run."
    return {"settings": rows, "settings_note": note}
