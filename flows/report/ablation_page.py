"""A study as Markdown: tables of arms, of what is left after the guidance, of advice at work, of achievements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flows.report.results import MODES
from lore.evaluation.statistics import mean_of_runs, nested_bootstrap

__all__ = ["HEADER", "after_guidance", "cells_of", "markdown_page", "markdown_table", "number", "table"]

HEADER = (
    "arm", "seeds", "episodes", "return", "95 %", "IQM", "score, %", "difference to none", "95 %", "P(improvement)",
    "95 %", "to uniform", "95 %", "final policy", "95 %", "alone", "95 %",
    "primitives only", "95 %", "steps to none's", "steps ratio", "minutes", "advice USD",
)  # fmt: skip
_AT_WORK = {
    "KL per decision": "uncertainty_gate/avg_kl", "KL per step": "uncertainty_gate/kl_per_step",
    "held share": "uncertainty_gate/held_share", "trust": "uncertainty_gate/trust",
    "agreement with the advice": "kickstart/agreement", "steps in options": "options/step_share",
    "synthetic share": "synthetic/ratio", "false unlocks": "synthetic/false_unlock_rate",
}  # fmt: skip


def number(value: float | None, digits: int = 2) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def _range(value: Sequence[float | None] | None) -> str:
    return "–" if not value or value[0] is None else f"{value[0]:.2f} to {value[1]:.2f}"


def cells_of(found: dict[str, Any]) -> list[list[str]]:
    """Rows of the table as text, in the order of :data:`HEADER`."""
    rows = []
    for label, arm in found["arms"].items():
        trained, alone, bare = (arm.get(mode, {}) for mode in MODES)
        rows.append(
            [
                label, str(arm["seeds"]), str(sum(arm["episodes"])), number(arm["return_mean"]),
                _range(arm["return_interval"]), number(arm["return_iqm"]), number(arm["score_mean"]),
                number(arm.get("difference")), _range(arm.get("difference_interval")),
                number(arm.get("improvement")), _range(arm.get("improvement_interval")),
                number(arm.get("choice")), _range(arm.get("choice_interval")),
                number(trained.get("mean")), _range(trained.get("interval")), number(alone.get("mean")),
                _range(alone.get("interval")), number(bare.get("mean")), _range(bare.get("interval")),
                number(arm["steps_to_baseline"], 0), number(arm["steps_ratio"]),
                number(sum(arm["seconds"]) / 60 / max(1, arm["seeds"]), 1),
                number(arm["cost"].get("price_usd_total", arm["cost"].get("price_usd"))),
            ]
        )  # fmt: skip
    return rows


def after_guidance(results: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Label -> figures of the policy at each share of the budget after the guidance ended, where it did end.

    Args:
        results: label -> :func:`flows.report.results.write_result` of each seed.
    """
    out: dict[str, list[dict[str, Any]]] = {}
    for label, group in results.items():
        evaluations = [e for result in group for e in result["evaluations"] if e["after_guidance"] is not None]
        for share in sorted({e["after_guidance"] for e in evaluations}):
            at = [e for e in evaluations if e["after_guidance"] == share]
            row: dict[str, Any] = {"share": share, "step": at[0]["step"], "seeds": len(at)}
            for mode in MODES:
                runs = [np.array(e[mode]["returns"]) for e in at]
                row[mode] = mean_of_runs(runs)
                row[f"{mode}_interval"] = list(nested_bootstrap(mean_of_runs, runs))
            out.setdefault(label, []).append(row)
    return out


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table without a line end after it."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def table(found: dict[str, Any]) -> str:
    """The table of arms in Markdown."""
    return markdown_table(HEADER, cells_of(found))


def markdown_page(found: dict[str, Any], picture: str = "", preset: str = "") -> str:
    """All tables of a study; ``picture`` is the address of its learning curves."""
    parts = [f"# Study `{preset}`"] if preset else []
    if preset:
        parts.append(
            f"{found['steps']:,} environment steps a run, made from `docs/studies/runs/{preset}` by"
            f" `{found['command']} --report`. Return and score: all training episodes, mean over seeds; IQM over"
            " the episodes of all seeds; P(improvement) by rliable's definition. Intervals of returns draw seeds, then"
            " episodes; those of P(improvement) and of scores draw seeds. To uniform:"
            " the same arm less its control without preference. Steps to none's: until the trailing mean of 10 episodes"
            " reaches what no advice ends with. Few seeds make intervals narrow."
        )
    parts.append(table(found))
    for name, steps in found.get("trial_steps", {}).items():
        parts.append(f"Programs of `{name}` were tried for {steps:,} environment steps before any arm learned.")
    if picture:
        parts.append(f"![Learning curves: mean over seeds, 95 % band]({picture})")
    if after := found.get("after_guidance"):
        rows = [
            [label, str(row["seeds"]), f"{row['step']:,}", f"{100 * row['share']:.0f} %"]
            + [f"{number(row[mode])} ({_range(row[f'{mode}_interval'])})" for mode in MODES]
            for label, each in after.items()
            for row in each
        ]
        header = ("arm", "seeds", "step", "after the guidance", "as trained", "alone, with skills", "primitives only")
        parts += ["## After the guidance has ended", markdown_table(header, rows)]
    arms = found["arms"]
    work = [[name, *(number(a["statistics"].get(tag), 3) for a in arms.values())] for name, tag in _AT_WORK.items()]
    parts += ["## Advice at work", markdown_table(("mean over a run", *arms), work)]
    names = list(next(iter(arms.values()))["achievements"])
    done = [[name, *(number(a["achievements"][name], 1) for a in arms.values())] for name in names]
    parts += ["## Achievements, % of training episodes", markdown_table(("achievement", *arms), done)]
    return "\n\n".join([*parts, f"`{found['command']}`"]) + "\n"
