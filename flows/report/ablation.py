"""A finished study -> one JSON file, one table, one HTML page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.phases import write_json
from flows.report.plots import COLOURS, bands
from flows.report.read import RunData, read_run, success_rates
from lore.metrics import crafter_score
from lore.statistics import bootstrap, interquartile_mean, learning_curve, probability_of_improvement, steps_to
from lore_datasets.environments import get_environment
from lore_datasets.errors import LoreError

if TYPE_CHECKING:
    from flows.ablate import Trial
    from flows.config import AblateJob

__all__ = ["TAGS", "study", "table", "write_study"]

POINTS = 60
"""Points of a learning curve."""
TAGS = (
    "llm_adapter/coverage_row", "llm_adapter/coverage_goal", "llm_adapter/coverage_model", "uncertainty_gate/beta",
    "uncertainty_gate/avg_kl", "uncertainty_gate/kl_per_step", "uncertainty_gate/held_share", "uncertainty_gate/trust",
    "uncertainty_gate/advice_regret", "options/step_share", "options/avg_success_rate", "synthetic/ratio",
    "synthetic/weight", "synthetic/false_unlock_rate",
)  # fmt: skip
"""Statistics of the paths that the study reports, means over a run's rows."""


def study(
    runs: dict[str, list[RunData]], frames: int, costs: dict[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Figures of every arm (label -> its runs, one per seed); comparisons are with the arm ``none`` where there is one.

    Returns a JSON-able dict: ``frames``, ``grid``, ``baseline`` (the level of ``steps_ratio``), ``arms`` and their
    ``order``.
    """
    grid = np.linspace(frames / POINTS, frames, POINTS)
    curves = {label: np.array([_curve(run, grid) for run in group]) for label, group in runs.items()}
    means = {label: _seed_mean(curve) for label, curve in curves.items()}
    base = runs.get("none")
    level = float(means["none"][-1]) if base else float("nan")
    needed = steps_to(level, grid, means["none"]) if base else None
    own = np.array([_final(run) for run in base]) if base else None
    arms = {}
    for label, group in runs.items():
        body = _arm(group, curves[label], means[label])
        ours = np.array([_final(run) for run in group])
        if own is not None and label != "none":
            body["improvement"] = probability_of_improvement(ours, own)
            body["improvement_interval"] = bootstrap(probability_of_improvement, ours, own)
            body["difference"] = float(ours.mean() - own.mean())
            body["difference_interval"] = bootstrap(lambda x, y: float(x.mean() - y.mean()), ours, own)
        reached = steps_to(level, grid, means[label]) if base else None
        body["steps_to_baseline"] = reached
        body["steps_ratio"] = needed / reached if needed and reached else None
        body["cost"] = (costs or {}).get(label, {})
        arms[label] = body
    return _plain({"frames": frames, "grid": grid, "baseline": level, "order": list(arms), "arms": arms})


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


def _seed_mean(curves: np.ndarray) -> np.ndarray:
    """Mean over seeds [R, P] -> [P]; NaN where not every seed has finished an episode."""
    return curves.mean(0)


def _final(run: RunData) -> float:
    """Mean return of all training episodes within the budget (0 where none ended)."""
    return float(np.mean([e["return"] for e in run.episodes])) if run.episodes else 0.0


def _arm(group: Sequence[RunData], curves: np.ndarray, mean: np.ndarray) -> dict[str, Any]:
    names = get_environment(group[0].config.get("env", {}).get("name", "crafter")).vocab.achievements
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
        "returns": returns, "return_mean": returns.mean(), "return_interval": bootstrap(np.mean, returns),
        "return_iqm": interquartile_mean(returns), "iqm_interval": bootstrap(interquartile_mean, returns),
        "scores": scores, "score_mean": scores.mean(), "score_interval": bootstrap(np.mean, scores),
        "achievements": {n: 100 * rates[:, k].mean() for k, n in enumerate(names)},
        "curve": mean, "band": band,
        "seconds": [(run.progress or {}).get("seconds", 0.0) for run in group],
        "statistics": {tag: np.mean(v) for tag in TAGS if (v := [m for r in group if (m := r.mean(tag)) is not None])},
    }  # fmt: skip
    for mode in ("as_trained", "agent_alone"):
        found = [(run.evaluation or {}).get("final_policy", {}).get(mode, {}) for run in group]
        if all(f.get("episodes") for f in found):
            finals = np.array([f["return_mean"] for f in found])
            out[mode] = {
                "returns": finals, "iqm": interquartile_mean(finals), "interval": bootstrap(interquartile_mean, finals),
                "score_mean": np.mean([f["score"] for f in found]),
            }  # fmt: skip
    return out


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _range(value: Sequence[float | None] | None) -> str:
    return "–" if not value or value[0] is None else f"{value[0]:.2f} to {value[1]:.2f}"


HEADER = (
    "arm", "seeds", "return IQM", "95 %", "score, %", "final policy", "alone", "difference to none", "95 %",
    "P(improvement)", "95 %", "steps ratio", "minutes", "advice USD",
)  # fmt: skip


def cells_of(found: dict[str, Any]) -> list[list[str]]:
    """Rows of the table as text, in the order of :data:`HEADER`."""
    rows = []
    for label, arm in found["arms"].items():
        trained, alone = arm.get("as_trained"), arm.get("agent_alone")
        cost = arm["cost"].get("price_usd")
        rows.append(
            [
                label, str(arm["seeds"]), _number(arm["return_iqm"]), _range(arm["iqm_interval"]),
                _number(arm["score_mean"]), _number(trained["iqm"]) if trained else "–",
                _number(alone["iqm"]) if alone else "–", _number(arm.get("difference")),
                _range(arm.get("difference_interval")), _number(arm.get("improvement")),
                _range(arm.get("improvement_interval")), _number(arm["steps_ratio"]),
                _number(sum(arm["seconds"]) / 60 / max(1, arm["seeds"]), 1), _number(cost),
            ]
        )  # fmt: skip
    return rows


def table(found: dict[str, Any]) -> str:
    """The table in Markdown."""
    lines = [f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in cells_of(found)])


def _cost(advice: str) -> dict[str, Any]:
    """What a version cost; {} when it is not in the store any more."""
    from lore_datasets.store import Store

    try:
        return dict(Store().manifest(advice).cost)
    except LoreError:
        return {}


def write_study(job: AblateJob, todo: Sequence[Trial], advice: dict[str, str]) -> dict[str, Any]:
    """Write ``ablation.json``, ``ablation.md`` and ``ablation.html`` into the study's folder; returns the first."""
    runs: dict[str, list[RunData]] = {}
    for trial in todo:
        runs.setdefault(trial.cell.label, []).append(read_run(trial.folder, trial.name))
    paid = {t.cell.label: _cost(advice[t.cell.adviser]) for t in todo if t.cell.adviser}
    found = study(runs, job.frames, paid) | {"advice": advice, "command": _command(job)}
    folder = Path(job.folder)
    write_json(folder / "ablation.json", found)
    _write(folder / "ablation.md", f"{table(found)}\n\n`{found['command']}`\n")
    _write(folder / "ablation.html", _render(found))
    return found


def _command(job: AblateJob) -> str:
    words = [f"--arms {job.arms}", f"--advisers {job.advisers}", f"--seeds {job.seeds}", f"--frames {job.frames}"]
    return " ".join(["lore ablate", *words, f"--episodes {job.episodes}", f"--folder {job.folder}"])


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def _render(found: dict[str, Any]) -> str:
    import jinja2
    from markupsafe import Markup

    folder = resources.files("flows.report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(folder.joinpath("ablation.html").read_text(encoding="utf-8"))
    arms = found["arms"]
    colours = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(arms)}
    names = list(next(iter(arms.values()))["achievements"])
    names.sort(key=lambda n: (-max(arm["achievements"][n] for arm in arms.values()), n))
    tags = [tag for tag in TAGS if any(tag in arm["statistics"] for arm in arms.values())]
    return template.render(
        css=Markup(folder.joinpath("style.css").read_text(encoding="utf-8")), found=found, colours=colours,
        header=HEADER, rows=cells_of(found), plot=bands(found["grid"], arms, colours), names=names,
        tags=[(tag, [_number(arm["statistics"].get(tag), 3) for arm in arms.values()]) for tag in tags],
    )  # fmt: skip
