"""The page of a study: a verdict, arms by interquartile mean and probability of improvement, learning curves with
bands, a table that sorts, every arm linked to its runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from flows.report.ablation_page import HEADER, cells_of, number
from flows.report.charts import COLOURS, DASHES, SCRIPTS, STYLES, Dot, Line, chart, colour, forest
from flows.report.page import Section, filled, page
from flows.report.results import MODES, TAGS
from flows.report.verdict import Figure
from lore_datasets.environments import get_environment
from lore_datasets.errors import LoreError

__all__ = ["study_page", "study_verdict"]

FEW = 5
"""Seeds under which an interval over seeds says little."""
NAMED = 4
"""Arms that a sentence names."""


def study_page(found: dict[str, Any]) -> str:
    """The page as text, from the figures of :func:`flows.report.ablation.ablation_figures` and what a study adds."""
    arms = found["arms"]
    colours = {label: colour(i) for i, label in enumerate(arms)}
    sections = [
        _compared(found, colours), _curves(found), _table(found, colours), _after(found), _achievements(arms, colours),
        _at_work(arms), _runs(found, colours), _made(found),
    ]  # fmt: skip
    unused = [f"{label}, seed {run['seed']}: {run['unused_advice']}"
              for label, runs in found.get("runs", {}).items() for run in runs if run["unused_advice"]]  # fmt: skip
    head = filled("study_head.html", found=found, verdict=study_verdict(found), unused=unused)
    return page("LoRe: what each path is worth", head, [each for each in sections if each is not None])


def _figure(arm: dict[str, Any], name: str, interval: str) -> Figure | None:
    """A figure of an arm with its interval; None where it was not measured."""
    value, ends = arm.get(name), arm.get(interval) or (None, None)
    if value is None:
        return None
    low, high = (float("nan") if end is None else end for end in ends)
    return Figure(value, low, high)


def study_verdict(found: dict[str, Any]) -> list[str]:
    """What the intervals of the differences to no advice allow to say, in sentences; controls in one of their own."""
    arms = found["arms"]
    plain = arms.get("none")
    few = min(arm["seeds"] for arm in arms.values())
    if plain is None:
        said = f"{len(arms)} arms of {found['steps']:,} steps, none of them without advice, so nothing is compared."
        return [said]
    base = _figure(plain, "return_mean", "return_interval")
    others = {label: difference for label, arm in arms.items()
              if (difference := _figure(arm, "difference", "difference_interval")) is not None}  # fmt: skip
    order = sorted(others, key=lambda label: -others[label].mean)
    above = [label for label in order if others[label].low > 0]
    below = [label for label in order if others[label].high < 0]
    same = [label for label in order if label not in above and label not in below]
    out = [f"Without advice the agent makes a return of {base} over {found['steps']:,} steps ({plain['seeds']} seeds)."]
    for group, words in ((above, "more"), (below, "less")):
        if group:
            named = ", ".join(f"{label} {_signed(others[label])}" for label in group[:NAMED])
            rest = f" and {len(group) - NAMED} more" if len(group) > NAMED else ""
            out.append(f"{len(group)} of {len(others)} arms make {words}: {named}{rest}.")
    if same:
        out.append(f"Not told apart from it: {', '.join(same[:NAMED])}{' and others' if len(same) > NAMED else ''}.")
    choices = {label: c for label, arm in arms.items() if (c := _figure(arm, "choice", "choice_interval")) is not None}
    if choices:
        worth = [f"{label} {_signed(choice)}" for label, choice in list(choices.items())[:NAMED]]
        out.append(f"Beyond the same skills without preference the choices add {', '.join(worth)}.")
    if few < FEW:
        out.append(f"{few} seed{'s' if few > 1 else ''} an arm are few: read the intervals as too narrow.")
    return out


def _signed(difference: Figure) -> str:
    return f"{difference.mean:+.1f} ({difference.low:+.1f} to {difference.high:+.1f})"


def _compared(found: dict[str, Any], colours: dict[str, str]) -> Section:
    """Arms side by side: interquartile mean of the return, and how likely a run beats one without advice."""
    arms = found["arms"]

    def dots(name: str, interval: str) -> list[Dot]:
        return [
            Dot(label, arm[name], arm.get(interval), colours[label])
            for label, arm in arms.items() if arm.get(name) is not None
        ]  # fmt: skip

    charts = [forest("Return of training, interquartile mean", dots("return_iqm", "iqm_interval"))]
    if better := dots("improvement", "improvement_interval"):
        charts.append(
            forest("Probability that a run beats one without advice", better, chance=0.5, told="no difference")
        )
    try:
        chance = get_environment(found.get("environment", "")).score.chance
    except LoreError:
        chance = None
    charts.append(forest("Score of training, %", dots("score_mean", "score_interval"), chance=chance))
    if final := [Dot(label, arm["agent_alone"]["mean"], arm["agent_alone"]["interval"], colours[label])
                 for label, arm in arms.items() if "agent_alone" in arm]:  # fmt: skip
        note = "Fresh episodes after training: another protocol than the other charts."
        charts.append(forest("Return of the final policy, advice switched off", final, note=note))
    return Section("Arms", filled("charts.html", charts=charts, before="", after=""))


def _curves(found: dict[str, Any]) -> Section:
    lines = []
    for i, (label, arm) in enumerate(found["arms"].items()):
        band = [low for low, _ in arm["band"]], [high for _, high in arm["band"]]
        dash = DASHES[i // COLOURS % len(DASHES)]
        if any(v is not None for v in arm["curve"]):
            lines.append(Line(label, found["grid"], arm["curve"], colour(i), band=band, dash=dash))
    note = (
        "Mean over seeds of the trailing mean return over 10 episodes; bands: 95 % bootstrap over seeds. They begin"
        " where every seed has finished an episode."
    )
    drawn = chart("Return of training episodes", lines, ylabel="episode return", note=note)
    if drawn is None:
        return Section("Learning curves", filled("empty.html", text="Not every seed has finished an episode."))
    html = filled("charts.html", charts=[drawn], before="", after="")
    return Section("Learning curves", html, SCRIPTS, STYLES)


def _anchor(label: str) -> str:
    return "runs-of-" + re.sub(r"[^A-Za-z0-9]+", "-", label.replace("+", "-plus-"))


def _table(found: dict[str, Any], colours: dict[str, str]) -> Section:
    least = min(arm["seeds"] for arm in found["arms"].values())
    anchors = {label: _anchor(label) for label in found.get("runs", {})}
    html = filled(
        "study_table.html", header=HEADER, rows=cells_of(found), colours=colours, least=least, anchors=anchors, few=FEW
    )
    return Section("Table", html)


def _after(found: dict[str, Any]) -> Section | None:
    """What is left at each share of the budget after the guidance ended."""
    rows = [
        [label, str(row["seeds"]), f"{row['step']:,}", f"{100 * row['share']:.0f} %"]
        + [str(Figure(row[mode], *row[f"{mode}_interval"])) for mode in MODES]
        for label, each in found.get("after_guidance", {}).items() for row in each
    ]  # fmt: skip
    header = ("arm", "seeds", "step", "after the guidance", "as trained", "alone, with skills", "primitives only")
    return (
        Section("After the guidance has ended", filled("plain_table.html", header=header, rows=rows)) if rows else None
    )


def _achievements(arms: dict[str, Any], colours: dict[str, str]) -> Section:
    names = list(next(iter(arms.values()))["achievements"])
    names.sort(key=lambda n: (-max(arm["achievements"][n] for arm in arms.values()), n))

    def cell(label: str, name: str) -> dict[str, str]:
        value = arms[label]["achievements"][name]
        return {"percent": f"{value:.1f}", "text": f"{value:.1f} %", "colour": colours[label]}

    rows = [{"name": name, "cells": [cell(label, name) for label in arms]} for name in names]
    heads = [{"name": label, "colour": colours[label]} for label in arms]
    return Section("Achievements", filled("achievements.html", rows=rows, runs=heads))


def _at_work(arms: dict[str, Any]) -> Section | None:
    tags = [tag for tag in TAGS if any(tag in arm["statistics"] for arm in arms.values())]
    rows = [[tag, *(number(arm["statistics"].get(tag), 3) for arm in arms.values())] for tag in tags]
    if not rows:
        return None
    html = filled("plain_table.html", header=["mean over rows and seeds", *arms], rows=rows)
    return Section("Advice at work", html)


def _runs(found: dict[str, Any], colours: dict[str, str]) -> Section | None:
    """Every run with its own figures and a link to its file."""
    groups: Sequence[dict[str, Any]] = [
        {"label": label, "anchor": _anchor(label), "colour": colours[label], "runs": runs}
        for label, runs in found.get("runs", {}).items()
    ]
    return Section("Runs", filled("study_runs.html", groups=groups, number=number)) if groups else None


def _made(found: dict[str, Any]) -> Section:
    return Section("How it was made", filled("study_made.html", command=found["command"]))
