"""What a version says, for reading: its skills with their starts, ends and a film of one run; its rules with how often
they spoke and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.report.language import condition_in_words, steps_in_words
from flows.report.page import Section, filled
from flows.report.samples import drawn
from lore_datasets.language.lint import lint_program
from lore_datasets.language.skills import bound
from lore_datasets.types import SymbolicState

if TYPE_CHECKING:
    from markupsafe import Markup

    from flows.jobs.skill_trials import Film
    from flows.report.read import Subject
    from lore_datasets.advice import AdviceData

__all__ = ["program_rules", "skill_cards", "skills_with_films"]

FRAMES = 7
"""Pictures of a film strip."""


def skill_cards(subject: Subject) -> Section | None:
    """One card for each skill of the version; None without any."""
    return skills_with_films(subject, {})


def skills_with_films(subject: Subject, films: Mapping[str, Film]) -> Section | None:
    """The same with a film strip of one run of each skill that has one."""
    advice = subject.advice
    if advice is None or not advice.skills:
        return None
    goals, lives = _played(subject)
    cards = []
    for skill in advice.skills:
        film = films.get(skill.name)
        cards.append(
            {
                "name": skill.name, "about": skill.about, "bound": bound(skill),
                "start": condition_in_words(skill.start), "done": condition_in_words(skill.done),
                "abort": condition_in_words(skill.abort) if skill.abort else "",
                "steps": "\n".join(steps_in_words(skill.steps)), "text": skill.to_json(),
                "ends": _ends(goals.get(skill.name, {})) if lives else "",
                "film": _strip(film, advice) if film is not None else [],
                "told": f"One run: {film.steps} steps, then {film.ended}." if film is not None
                else "It could start nowhere in the worlds that were played for the films." if films else "",
            }
        )  # fmt: skip
    asked = f"Film strips: lore datasets report '{advice.ref}'." if not films else ""
    return Section("Skills", filled("skills.html", cards=cards, lives=lives, asked=asked))


def program_rules(subject: Subject) -> Section | None:
    """The version's program, rule by rule, with doubts about it; None where it holds none."""
    from lore.advice.program import ProgramAdvice

    advice = subject.advice
    if advice is None or not advice.programs:
        return None
    source = ProgramAdvice(advice)
    program, vocab = source.program, advice.environment.vocab
    states = np.asarray(advice.rows.state)
    own = np.bincount(source.rule_of(states) + 1, minlength=len(program) + 1)[1:] if len(states) else None
    goals, lives = _played(subject)
    spoke = _report(subject).get("spoke", {}) if lives else {}
    doubts = lint_program(program, advice.skills, vocab)
    rules = [
        {
            "number": number, "goal": rule.goal, "when": condition_in_words(rule.when), "why": rule.why,
            "spoke": _mean(spoke.get(f"rule {number} {rule.goal}")), "ends": _ends(goals.get(rule.goal, {})),
            "own": f"{100 * own[number] / len(states):.1f}" if own is not None else "–",
            "doubt": next((d for d in doubts if d.startswith(f"rule {number} ")), ""),
        }
        for number, rule in enumerate(program.rules)
    ]  # fmt: skip
    rest = [doubt for doubt in doubts if not doubt.startswith("rule ")]
    html = filled(
        "rules.html", rules=rules, lives=lives, doubts=rest, without=subject.play[1], digest=program.digest[:12]
    )
    return Section("Program", html)


def _report(subject: Subject) -> dict[str, Any]:
    """Figures of the version's own lives in its newest play; {} without one."""
    play = subject.play[0]
    found = play.provenance["report"]["players"].get("advice", {}) if play is not None else {}
    return found if isinstance(found, dict) else {}


def _played(subject: Subject) -> tuple[dict[str, Any], int]:
    """(goal -> outcome -> [mean, low, high] times a life, lives)."""
    found = _report(subject)
    goals, lives = found.get("goals"), found.get("lives")
    return (goals, lives) if isinstance(goals, dict) and isinstance(lives, int) else ({}, 0)


def _mean(value: Any) -> str:
    return f"{value[0]:.2f}" if value else "0"


def _ends(ends: Mapping[str, Any]) -> str:
    """``done 2.10, held 0.40``: how often a life each way, most frequent first."""
    order = sorted(ends.items(), key=lambda item: (-item[1][0], item[0]))
    return ", ".join(f"{how} {_mean(value)}" for how, value in order)


def _strip(film: Film, advice: AdviceData) -> list[Markup]:
    """Pictures spread over a film, each with its step."""
    states = SymbolicState.unpack(film.states, advice.environment.layout)
    picks = np.unique(np.linspace(0, len(film.states) - 1, min(FRAMES, len(film.states))).round().astype(int))
    return [drawn(states[at], advice.environment.vocab, f"step {at}", shrink=2) for at in picks.tolist()]
