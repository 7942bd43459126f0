"""The charts of training runs: learning curves, and the advice at work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from flows.report.charts import SCRIPTS, STYLES, Dot, Line, chart, colour, forest, played_dots
from flows.report.page import Section, filled
from flows.report.read import RunData, Subject, is_number, success_rates
from flows.report.run_tables import MODES, evaluation_table, option_table
from lore.training.metrics import crafter_score
from lore_datasets.environments import Environment
from lore_datasets.exchange.played import played

__all__ = ["advice_at_work", "learning_curves"]

WINDOW = 10
"""Episodes of a trailing mean."""
SOURCES = ("row", "program", "goal", "model", "none")


def _section(title: str, charts: Sequence[Markup | None], after: Markup | str = "", before: str = "") -> Section | None:
    kept = [each for each in charts if each is not None]
    if not kept and not after:
        return None
    return Section(title, filled("charts.html", charts=kept, after=after, before=before), SCRIPTS, STYLES)


def learning_curves(subject: Subject) -> Section | None:
    """Return and score over environment steps, one pair of charts for each environment and observation."""
    charts = []
    for setting in subject.settings:
        runs = [(i, run) for i, run in enumerate(subject.runs) if run.setting == setting]
        about = f" ({setting})" if len(subject.settings) > 1 else ""
        charts += [_returns(runs, about), _scores(runs, about)]
    found = _section("Learning curves", charts)
    return found or Section("Learning curves", filled("empty.html", text="No episode has finished yet."))


def _returns(runs: Sequence[tuple[int, RunData]], about: str) -> Markup | None:
    lines = []
    for index, run in runs:
        steps = [e["step"] for e in run.episodes]
        values = [float(e["return"]) for e in run.episodes]
        lines.append(Line(f"{run.name}, episodes", steps, values, colour(index), "points"))
        lines.append(Line(f"{run.name}, mean of {WINDOW}", steps, _trailing(values).tolist(), colour(index)))
    title = f"Return of each training episode, and its trailing mean over {WINDOW} episodes{about}"
    return chart(title, lines, ylabel="episode return", low=0)


def _trailing(values: Sequence[float]) -> np.ndarray:
    """Trailing mean over up to ``WINDOW`` values."""
    total = np.cumsum([0.0, *values])
    at = np.arange(1, len(values) + 1)
    low = np.maximum(0, at - WINDOW)
    return (total[at] - total[low]) / (at - low)


def _scores(runs: Sequence[tuple[int, RunData]], about: str) -> Markup | None:
    environment = runs[0][1].environment
    if environment is None:
        return None
    lines = []
    for index, run in runs:
        total = len(run.episodes)
        ends = sorted({max(1, round(total * share / 60)) for share in range(1, 61)}) if total else []
        steps = [run.episodes[end - 1]["step"] for end in ends]
        scores = [crafter_score(_percent(run.episodes[:end], run.achievements)) for end in ends]
        lines.append(Line(run.name, steps, scores, colour(index)))
    references, note = _references(environment, runs[0][1].config.get("env", {}).get("observation", ""))
    lines += [Line(who, (), (value,), paint, "reference") for who, value, paint in references]
    return chart(
        f"{environment.score.name[0].upper()}{environment.score.name[1:]} of all training episodes so far{about}",
        lines,
        ylabel="score, %",
        low=0,
        note=note,
    )


def _references(environment: Environment, observation: str) -> tuple[list[tuple[str, float, str]], str]:
    """((who, score, colour) of the environment's reference scores for this observation, what is said of them)."""
    score = environment.score
    out = [("chance", score.chance, "soft")] if score.chance is not None else []
    if not score.references:
        return out, f"Protocol: {score.protocol}."
    if score.observation == observation:
        out += [(f"{who} ({source})", value, "c7") for who, value, source in score.references]
        return out, f"Protocol: {score.protocol}."
    return out, f"Protocol: {score.protocol}. Published results, from {score.observation}, are not drawn."


def _percent(episodes: Sequence[dict[str, Any]], achievements: Sequence[str]) -> np.ndarray:
    return 100 * np.array(list(success_rates(episodes, achievements).values()))


def final_policy(subject: Subject) -> Section | None:
    """Fresh episodes without learning: every run as trained, alone and with primitives only, beside the version's own
    play and uniform choice among its skills; one pair of charts for each environment and observation."""
    charts = []
    for setting in subject.settings:
        runs = [(i, run) for i, run in enumerate(subject.runs) if run.setting == setting]
        about = f" ({setting})" if len(subject.settings) > 1 else ""
        environment = runs[0][1].environment
        is_own = environment is not None and subject.advice is not None and subject.advice.environment is environment
        play = played(manifest) if is_own and (manifest := subject.play[0]) is not None else {}
        note = "Diamonds: lives that follow the version without learning, a play over given skills." if play else ""
        charts.append(_evaluated(f"Return{about}", runs, play, "return", note))
        chance = environment.score.chance if environment is not None else None
        charts.append(_evaluated(f"Score, %{about}", runs, play, "score", note, chance))
    before = (
        "Fresh episodes of the final policy, no learning; mean and 95 % interval. As trained: with the advice that it "
        "trained with; alone: the advice switched off; primitives only: the skills switched off too."
    )
    return _section("Final policy", charts, evaluation_table(subject.runs), before)


def _evaluated(
    title: str, runs: Sequence[tuple[int, RunData]], play: dict[str, Any], figure: str, note: str,
    chance: float | None = None,
) -> Markup | None:  # fmt: skip
    """Runs by mode, and the play beside them; None where no run was evaluated."""
    rows = []
    for index, run in runs:
        for mode, found in (run.evaluation or {}).get("final_policy", {}).items():
            value = found.get("return_mean" if figure == "return" else figure)
            repeated = mode != "as_trained" and run.paths == "none"  # nothing to switch off
            if found["episodes"] and value is not None and not repeated:
                label = f"{run.name}, {MODES.get(mode, mode)}"
                rows.append(Dot(label, value, found.get(f"{figure}_interval"), colour(index)))
    return forest(title, [*rows, *played_dots(play, figure)], note=note, chance=chance) if rows else None


def advice_at_work(subject: Subject) -> Section | None:
    """Where advice came from, its weight, its effect on the policy, what skills and imagined plans came to."""
    runs = subject.runs
    gated = [run for run in runs if "uncertainty_gate/beta" in run.series]
    bound = gated[0].config.get("gate", {}).get("delta_target") if gated else None
    kl = [("uncertainty_gate/avg_kl", "rows"), ("uncertainty_gate/kl_running", "running mean")]
    share = {"ylabel": "share", "low": 0.0, "high": 1.0}
    charts = [_coverage(run) for run in runs]
    charts += [
        chart("Weight of the advice (beta)", _lines(runs, [("uncertainty_gate/beta", "")]), ylabel="beta", low=0),
        chart(
            "KL of the mixed policy from the agent's own, per decision", _lines(runs, kl, bound), ylabel="nats", low=0,
            note="The bound holds for the running mean.",
        ),
        chart("Share of synthetic rows among actor-critic starts", _lines(runs, [("synthetic/ratio", "")]), **share),
        chart(
            "Share of imagined unlocks that did not happen for real",
            _lines(runs, [("synthetic/false_unlock_rate", "")]), **share,
        ),
        chart("Success rate of options", _lines(runs, [("options/avg_success_rate", "")]), **share),
    ]  # fmt: skip
    return _section("Advice at work", charts, option_table(subject))


def _lines(runs: Sequence[RunData], tags: Sequence[tuple[str, str]], bound: Any = None) -> list[Line]:
    """Curves of several tags: one colour per run, one dash per tag."""
    out = []
    for index, run in enumerate(runs):
        for tag, label in tags:
            if tag in run.series:
                steps, values = run.series[tag]
                name = f"{run.name}: {label}" if label else run.name
                out.append(Line(name, steps, values, colour(index), dash=(4, 4) if tag != tags[0][0] else None))
    if is_number(bound):
        out.append(Line(f"bound {bound:g}", (), (bound,), "c5", "reference"))
    return out


def _coverage(run: RunData) -> Markup | None:
    """Where the advice of the visited states came from, stacked shares over environment steps."""
    tags = {source: f"llm_adapter/coverage_{source}" for source in SOURCES}
    steps = sorted({step for tag in tags.values() if tag in run.series for step in run.series[tag][0]})
    lines = []
    for index, (source, tag) in enumerate(tags.items()):
        if tag in run.series and any(run.series[tag][1]):
            values = np.interp(steps, *run.series[tag]).tolist()
            lines.append(Line(source, steps, values, f"s{index}", "area"))
    title = f"{run.name}: where the advice for the visited states came from"
    return chart(title, lines, ylabel="share of states", low=0, high=1)
