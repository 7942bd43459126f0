"""A finished study -> one JSON file, one table, one HTML page."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from flows.config import AblateJob, study_config
from flows.jobs.ablation_arms import cells
from flows.jobs.training_process import arguments
from flows.report.ablation_page import after_guidance, markdown_page
from flows.report.read import RunData, success_rates
from flows.report.results import MODES, TAGS, read_result, run_of, settings_of
from flows.report.study_page import study_page
from flows.report.study_picture import bands
from flows.terminal import current
from lore.evaluation.statistics import (
    bootstrap,
    difference_of_means,
    interquartile_mean,
    learning_curve,
    mean_of_runs,
    nested_bootstrap,
    probability_of_improvement,
    steps_to,
)
from lore.training.metrics import crafter_score
from lore_datasets.atomic import write_json, write_text
from lore_datasets.environments import DEFAULT, get_environment
from lore_datasets.errors import LoreError, NotFound

__all__ = ["ablation_figures", "page_folder", "write_ablation"]

_ALWAYS = ("arms", "advisers", "steps", "episodes", "folder")
POINTS = 60
"""Points of a learning curve."""


def ablation_figures(
    runs: dict[str, list[RunData]], steps: int, costs: dict[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Figures of every arm (label -> its runs, one per seed); comparisons are with the arm ``none`` where there is one.

    Returns a JSON-able dict: ``steps``, ``grid``, ``baseline`` (the level of ``steps_ratio``), ``arms``.
    A curve is NaN where not every seed has finished an episode.
    """
    grid = np.linspace(steps / POINTS, steps, POINTS)
    curves = {label: np.array([_curve(run, grid) for run in group]) for label, group in runs.items()}
    means = {label: curve.mean(0) for label, curve in curves.items()}
    base = runs.get("none")
    level = float(means["none"][-1]) if base else float("nan")
    needed = steps_to(level, grid, means["none"]) if base else None
    own = np.array([_final(run) for run in base]) if base else None
    arms = {}
    for label, group in runs.items():
        body = _arm(group, curves[label], means[label])
        ours = np.array([_final(run) for run in group])
        if base and own is not None and label != "none":
            body["improvement"] = probability_of_improvement(ours, own)
            body["improvement_interval"] = bootstrap(probability_of_improvement, ours, own)
            body["difference"] = float(ours.mean() - own.mean())
            body["difference_interval"] = nested_bootstrap(difference_of_means, _returns(group), _returns(base))
            body |= _final_difference(group, base)
        flat = runs.get(f"{label.partition(' ')[0]} uniform", [])
        if flat and flat is not group:  # the same arm and skills without preference: what the choices are worth
            body["choice"] = difference_of_means(_returns(group), _returns(flat))
            body["choice_interval"] = nested_bootstrap(difference_of_means, _returns(group), _returns(flat))
        reached = steps_to(level, grid, means[label]) if base else None
        body["steps_to_baseline"] = reached
        body["steps_ratio"] = needed / reached if needed and reached else None
        body["cost"] = (costs or {}).get(label, {})
        arms[label] = body
    return _plain({"steps": steps, "grid": grid, "baseline": level, "arms": arms})


def _plain(value: Any) -> Any:
    """JSON values only; what is not finite becomes null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _curve(run: RunData, grid: np.ndarray) -> np.ndarray:
    return learning_curve([e["step"] for e in run.episodes], [e["return"] for e in run.episodes], grid)


def _returns(group: Sequence[RunData]) -> list[np.ndarray]:
    """Returns float[E] of all training episodes, one array per run."""
    return [np.array([e["return"] for e in run.episodes], np.float64) for run in group]


def _finals(group: Sequence[RunData], mode: str) -> list[np.ndarray]:
    """Returns of the evaluation episodes, one array per run; [] unless every run has them."""
    found = [(run.evaluation or {}).get("final_policy", {}).get(mode, {}).get("returns") for run in group]
    return [np.array(f, np.float64) for f in found] if found and all(found) else []


def _pooled_iqm(runs: Sequence[np.ndarray]) -> float:
    """Interquartile mean over all episodes of all runs."""
    return interquartile_mean(np.concatenate(runs)) if runs else float("nan")


def _final_difference(group: Sequence[RunData], base: Sequence[RunData]) -> dict[str, Any]:
    """Final policies against those without advice in each mode; {} where one was not evaluated."""
    own, out = _finals(base, "as_trained"), {}
    for mode in MODES:
        ours = _finals(group, mode)
        if ours and own:
            out[f"{mode}_difference"] = difference_of_means(ours, own)
            out[f"{mode}_difference_interval"] = nested_bootstrap(difference_of_means, ours, own)
    return out


def _final(run: RunData) -> float:
    """Mean return of all training episodes within the budget (0 where none ended)."""
    return float(np.mean([e["return"] for e in run.episodes])) if run.episodes else 0.0


def _arm(group: Sequence[RunData], curves: np.ndarray, mean: np.ndarray) -> dict[str, Any]:
    names = get_environment(group[0].config.get("env", {}).get("name", DEFAULT)).vocab.achievements
    returns = np.array([_final(run) for run in group])
    rates = np.array([[success_rates(run.episodes, names)[n] for n in names] for run in group])
    scores = np.array([crafter_score(100 * r) for r in rates])
    whole = np.isfinite(curves).all(0)
    band = np.full((len(mean), 2), np.nan)
    for point in np.flatnonzero(whole):
        band[point] = bootstrap(np.mean, curves[:, point], n=400)
    steps = [(run.progress or {}).get("step", 0) for run in group]
    out: dict[str, Any] = {
        "seeds": len(group), "steps": steps, "episodes": [len(run.episodes) for run in group],
        "returns": returns, "return_mean": returns.mean(),
        "return_interval": nested_bootstrap(mean_of_runs, _returns(group)),
        "return_iqm": _pooled_iqm(_returns(group)), "iqm_interval": nested_bootstrap(_pooled_iqm, _returns(group)),
        "scores": scores, "score_mean": scores.mean(), "score_interval": bootstrap(np.mean, scores),
        "achievements": {n: 100 * rates[:, k].mean() for k, n in enumerate(names)},
        "curve": mean, "band": band,
        "seconds": [(run.progress or {}).get("seconds", 0.0) for run in group],
        "statistics": {tag: np.mean(v) for tag in TAGS if (v := [m for r in group if (m := r.mean(tag)) is not None])},
    }  # fmt: skip
    for mode in MODES:
        finals = _finals(group, mode)
        if finals:
            evaluated = [(run.evaluation or {})["final_policy"][mode] for run in group]
            out[mode] = {
                "episodes": [len(f) for f in finals], "returns": [f.mean() for f in finals],
                "interval": nested_bootstrap(mean_of_runs, finals), "mean": mean_of_runs(finals),
                "iqm": _pooled_iqm(finals),
                "score_mean": np.mean([f["score"] for f in evaluated]),
            }  # fmt: skip
    return out


def _cost(advice: str) -> dict[str, Any]:
    """What a version cost; {} when it is not in the store any more."""
    from lore_datasets.exchange.shipped import ShippedStore

    try:
        return dict(ShippedStore().manifest(advice).cost)
    except LoreError:
        return {}


def _results(job: AblateJob) -> dict[str, list[tuple[Path, dict[str, Any]]]]:
    """Label of a cell -> files and figures of its finished runs with the job's settings, by seed: those that the job
    asks for, of a preset all that are there; NotFound when there are none."""
    root, found = Path(job.results or Path(job.folder, "results")), {}
    for cell in cells(job):
        named = {seed: root / f"{cell.folder}-s{seed}.json" for seed in job.seeds}
        if job.preset:
            files = root.glob(f"{cell.folder}-s*.json")
            named = {int(n): f for f in files if (n := f.stem.removeprefix(f"{cell.folder}-s")).isdecimal()}
        read = {path: (seed, v) for seed, path in sorted(named.items()) if (v := read_result(path)) is not None}
        kept = [
            (path, value) for path, (seed, value) in read.items()
            if value["settings"] == settings_of(cell.config(job, seed, value["advice"]), job.episodes)
        ]  # fmt: skip
        if len(kept) < len(read):
            current().say(f"  {cell.label}: {len(read) - len(kept)} of {len(read)} runs have other settings, left out")
        versions = Counter(value["advice"] for _, value in kept)
        if len(versions) > 1:
            (most, n), total = versions.most_common(1)[0], len(kept)
            current().say(f"  {cell.label}: {total - n} of {total} runs have other advice than {most}, left out")
            kept = [(path, value) for path, value in kept if value["advice"] == most]
        if kept:
            found[cell.label] = kept
    if not found:
        raise NotFound(f"no finished runs of this study in {root}", hint="the same command without --report runs them")
    return found


def write_ablation(job: AblateJob) -> dict[str, Any]:
    """Write ``ablation.json`` (returned), ``.md``, ``.html`` and ``curves.svg`` into the study's folder; of a preset
    also ``docs/studies/PRESET.md`` and ``.svg``, beside its results."""
    kept = _results(job)
    runs = {label: [run_of(value, path) for path, value in group] for label, group in kept.items()}
    advice = {label.partition(" ")[2]: group[0][1]["advice"] for label, group in kept.items() if " " in label}
    paid = {label: _cost(group[0][1]["advice"]) for label, group in kept.items() if group[0][1]["advice"]}
    found = ablation_figures(runs, job.steps, paid) | {"advice": advice, "command": _command(job)}
    played = {label.partition(" ")[2]: int(cost.get("environment_steps_total", 0)) for label, cost in paid.items()}
    found["trial_steps"] = {name: steps for name, steps in played.items() if steps}
    found["after_guidance"] = after_guidance({label: [v for _, v in group] for label, group in kept.items()})
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    found["environment"] = next(value["environment"] for group in kept.values() for _, value in group)
    found["runs"] = {label: [_run_row(path, value, folder) for path, value in group] for label, group in kept.items()}
    write_json(folder / "ablation.json", found)
    write_text(folder / "ablation.html", study_page(found))
    curves = bands(found["grid"], found["arms"])
    write_text(folder / "ablation.md", markdown_page(found, "curves.svg" if curves else ""))
    if curves:
        write_text(folder / "curves.svg", curves)
    if place := page_folder(job):
        write_text(place / f"{job.preset}.md", markdown_page(found, f"{job.preset}.svg" if curves else "", job.preset))
        if curves:
            write_text(place / f"{job.preset}.svg", curves)
    return found


def page_folder(job: AblateJob) -> Path | None:
    """Where the page of a preset stands: docs/studies, unless its results go to a place of the caller's."""
    results = Path(job.results)
    return results.parents[1] if job.preset and results.parts[-2:] == ("runs", job.preset) else None


def _run_row(path: Path, value: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One run in the page's list: where its figures lie, as seen from ``folder``, and the main ones."""
    returns, last = value["episodes"]["return"], value["evaluations"][-1] if value["evaluations"] else {}
    final = {mode: float(np.mean(last[mode]["returns"])) for mode in MODES if last.get(mode, {}).get("returns")}
    return {
        "seed": value["seed"], "file": Path(os.path.relpath(path, folder)).as_posix(), "steps": value["steps"],
        "episodes": len(returns), "return": float(np.mean(returns)) if returns else None, "minutes": value["minutes"],
        "final": {mode: final.get(mode) for mode in MODES}, "unused_advice": value["unused_advice"],
    }  # fmt: skip


def _command(job: AblateJob) -> str:
    """The command that makes the study again, on any number of workers."""
    if job.preset:
        return f"lore ablate --preset {job.preset}"
    words = [f"--seeds {' '.join(map(str, job.seeds))}"]
    words += [f"--{name} {quote(str(getattr(job, name)))}" for name in _ALWAYS]
    for name in ("control_arms", "dataset", "states", "rows", "epochs", "results"):
        if getattr(job, name) != getattr(AblateJob, name):
            words.append(f"--{name.replace('_', '-')} {quote(str(getattr(job, name)))}")
    return " ".join(["lore ablate", *words, *arguments(job.config, study_config())])
