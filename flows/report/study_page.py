"""The page of a study: table of arms, learning curves with bands, achievements, advice at work."""

from __future__ import annotations

from typing import Any

from flows.report.ablation_page import HEADER, cells_of, number
from flows.report.charts import COLOURS, SCRIPTS, STYLES, Line, chart, colour
from flows.report.page import Section, filled, page
from flows.report.results import TAGS

__all__ = ["study_page"]


def study_page(found: dict[str, Any]) -> str:
    """The page as text, from the figures of :func:`flows.report.ablation.ablation_figures` and what a study adds."""
    arms = found["arms"]
    colours = {label: colour(i) for i, label in enumerate(arms)}
    sections = [_table(found, colours), _curves(found), _achievements(arms, colours), _at_work(arms), _made(found)]
    head = filled("study_head.html", found=found)
    return page("LoRe: what each path is worth", head, [each for each in sections if each is not None])


def _table(found: dict[str, Any], colours: dict[str, str]) -> Section:
    least = min(arm["seeds"] for arm in found["arms"].values())
    html = filled("study_table.html", header=HEADER, rows=cells_of(found), colours=colours, least=least)
    return Section("Table", html)


def _curves(found: dict[str, Any]) -> Section:
    lines = [
        Line(
            label, found["grid"], arm["curve"], colour(i), band=tuple(zip(*arm["band"], strict=True)),
            dash=(6, 4) if i >= COLOURS else None,
        )
        for i, (label, arm) in enumerate(found["arms"].items()) if any(v is not None for v in arm["curve"])
    ]  # fmt: skip
    note = (
        "Mean over seeds of the trailing mean return over 10 episodes; bands: 95 % bootstrap over seeds. They begin"
        " where every seed has finished an episode."
    )
    drawn = chart("Return of training episodes", lines, ylabel="episode return", note=note)
    if drawn is None:
        return Section("Learning curves", filled("empty.html", text="Not every seed has finished an episode."))
    html = filled("charts.html", charts=[drawn], before="", after="")
    return Section("Learning curves", html, SCRIPTS, STYLES)


def _achievements(arms: dict[str, Any], colours: dict[str, str]) -> Section:
    names = list(next(iter(arms.values()))["achievements"])
    names.sort(key=lambda n: (-max(arm["achievements"][n] for arm in arms.values()), n))
    rows = [
        {
            "name": name,
            "cells": [
                {"percent": f"{arm['achievements'][name]:.1f}", "text": f"{arm['achievements'][name]:.1f} %",
                 "colour": colours[label]}
                for label, arm in arms.items()
            ],
        }
        for name in names
    ]  # fmt: skip
    heads = [{"name": label, "colour": colours[label]} for label in arms]
    return Section("Achievements", filled("achievements.html", rows=rows, runs=heads))


def _at_work(arms: dict[str, Any]) -> Section | None:
    tags = [tag for tag in TAGS if any(tag in arm["statistics"] for arm in arms.values())]
    rows = [(tag, [number(arm["statistics"].get(tag), 3) for arm in arms.values()]) for tag in tags]
    if not rows:
        return None
    return Section("Advice at work", filled("study_at_work.html", rows=rows, labels=list(arms)))


def _made(found: dict[str, Any]) -> Section:
    return Section("How it was made", filled("study_made.html", command=found["command"]))
