"""Run folders (and the advice they read) -> one HTML file, section by section."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.report.advice_text import program_rules, skill_cards
from flows.report.page import Section, filled, page
from flows.report.read import RunData, Subject, read_run
from flows.report.run_charts import advice_at_work, final_policy, learning_curves
from flows.report.run_tables import achievements, how_it_was_made, training_score
from flows.report.samples import sample_rows
from flows.report.verdict import banners, explanations, verdict
from flows.report.viewer import recorded_episodes
from lore_datasets.atomic import write_text
from lore_datasets.errors import LoreError

if TYPE_CHECKING:
    from lore_datasets.advice import AdviceData

__all__ = ["build_report", "labelled", "render"]

SECTIONS: tuple[Callable[[Subject], Section | None], ...] = (
    final_policy,
    learning_curves,
    recorded_episodes,
    training_score,
    achievements,
    advice_at_work,
    sample_rows,
    program_rules,
    skill_cards,
    how_it_was_made,
)
"""Builders in the order of the page; one that has nothing to show returns None."""


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
    notes: Sequence[str] = (),
) -> Path:
    """Read run folders (label -> folder), write the page to ``out`` (temp, then rename) and return it.

    ``notes``: what could not be shown and why; each stands at the top.
    """
    runs = [read_run(path, name) for name, path in folders.items()]
    write_text(out, render(runs, title=title, advice=advice, commands=commands, notes=notes))
    return out


def render(
    runs: Sequence[RunData],
    *,
    title: str,
    advice: AdviceData | None = None,
    commands: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> str:
    """The page as text."""
    subject = Subject(tuple(runs), advice, tuple(commands), tuple(notes))
    head = filled(
        "run_head.html", subject=subject, banners=banners(subject), verdict=verdict(subject),
        explanations=explanations(subject),
    )  # fmt: skip
    return page(title, head, [section for build in SECTIONS if (section := _built(build, subject)) is not None])


def _built(build: Callable[[Subject], Section | None], subject: Subject) -> Section | None:
    """A section; one that meets damaged data says so in its place."""
    try:
        return build(subject)
    except LoreError as error:
        return Section(build.__name__.replace("_", " ").capitalize(), filled("empty.html", text=f"Left out: {error}"))
