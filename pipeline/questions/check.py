"""Advice against its state: recipes, start conditions, lethal steps. What fails is kept with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lore_datasets.errors import SkillError, shown
from lore_datasets.language.conditions import compile_condition
from lore_datasets.language.geometry import StateView
from lore_datasets.language.skills import Skill, bound, parse_skill
from lore_datasets.vocab import Vocab
from pipeline.questions.feasible import feasible_actions
from pipeline.questions.parse import Advice, Plan, clean_text

__all__ = [
    "Rejected",
    "Trial",
    "TrialRun",
    "check_plans",
    "check_prior",
    "check_skills",
]


@dataclass(frozen=True)
class Rejected:
    """One thing that was refused: a short reason from a closed list, where it stood, and what it was (cleaned)."""

    reason: str
    where: str
    text: str


@dataclass(frozen=True)
class Trial:
    """How a skill fared when it was played in real worlds before it may enter.

    Attributes:
        worlds: worlds that were looked at for a start.
        starts: runs that were begun.
        successes: runs that ended as the skill's own end condition says.
        steps: primitive actions of all runs together.
        idle: runs in which no action was taken or nothing changed.
    """

    starts: int
    successes: int
    steps: int
    worlds: int = 0
    idle: int = 0

    @property
    def success_rate(self) -> float:
        """Share of the runs that succeeded; 0 without a run."""
        return self.successes / self.starts if self.starts else 0.0

    @property
    def fault(self) -> str:
        """Why the skill may not enter; empty when it may."""
        if not self.starts:
            return "skill_never_started"
        return "skill_does_nothing" if self.idle >= self.starts or not self.steps else ""


TrialRun = Callable[[Skill], Trial]
"""Plays a skill in real worlds; whoever runs the pipeline brings one, for the pipeline knows no game."""


def check_prior(
    advice: Advice, goals: Sequence[str], view: StateView, where: str
) -> tuple[Advice | None, list[Rejected]]:
    """Drop choices that cannot start here; confidence shrinks by the probability dropped. None when nothing is left."""
    rejected, kept = [], []
    allowed: list[str] | None = None
    for name, p in advice.choices:
        if name not in goals:
            allowed = feasible_actions(view) if allowed is None else allowed
            if name not in allowed:
                rejected.append(Rejected("infeasible", where, name))
                continue
        kept.append((name, p))
    if not rejected:
        return advice, rejected
    mass = sum(p for _, p in kept)
    if mass <= 0:
        return None, rejected
    choices = tuple((name, p / mass) for name, p in kept)
    mass = min(mass, 1.0)
    return replace(advice, choices=choices, confidence=advice.confidence * mass, weight=advice.weight * mass), rejected


def check_plans(
    advice: Advice, choices: Sequence[str], view: StateView, where: str
) -> tuple[list[Plan], list[Rejected]]:
    """Plans that start with one of ``choices``, whose leading moves miss lava, and whose items can be there in time.

    ``choices``: goals and primitive actions that can start in this state.
    """
    kept, rejected = [], []
    for plan in advice.plans:
        reason = _plan_fault(plan, choices, view)
        if reason:
            text = " ".join(f"{name}*{times}" for name, times in plan.steps)
            rejected.append(Rejected(reason, where, text[:200]))
        else:
            kept.append(plan)
    return sorted(kept, key=lambda plan: -plan.score), rejected


def _plan_fault(plan: Plan, choices: Sequence[str], view: StateView) -> str:
    if plan.steps[0][0] not in choices:
        return "infeasible"
    return "lethal" if _walks_into_death(plan, view) else ("impossible" if _lacks_items(plan, view) else "")


def _walks_into_death(plan: Plan, view: StateView) -> bool:
    """Follow the leading moves over the crop as it stands; True when one steps onto a lethal cell."""
    vocab = view.vocab
    deltas = {move: (dx, dy) for _, dx, dy, move in vocab.directions}
    x = y = 0
    for name, times in plan.steps:
        if name not in deltas or name in vocab.turns:
            return False
        dx, dy = deltas[name]
        for _ in range(times):
            cell = view.at(x + dx, y + dy)
            if cell is None:
                return False
            if cell in vocab.lethal:
                return True
            if cell in vocab.walkable:
                x, y = x + dx, y + dy
    return False


def _lacks_items(plan: Plan, view: StateView) -> bool:
    """True when a step needs items that neither the inventory nor any step before it can supply."""
    vocab = view.vocab
    held = dict(zip(vocab.items, view.counts, strict=True))
    for name, times in plan.steps:
        if name not in vocab.recipes:
            if name not in vocab.actions:
                return False  # a goal may bring any item
            continue
        if not any(recipe.needs for recipe in vocab.recipes[name]) or any(not r.uses for r in vocab.recipes[name]):
            return False  # gathering: what it brings depends on what is faced
        recipe = vocab.recipes[name][0]
        for item, count in recipe.uses:
            if held[item] < count * times:
                return True
            held[item] -= count * times
        made = name.removeprefix("make_")
        if made in held:
            held[made] += times
    return False


def check_skills(
    found: Iterable[tuple[dict[str, Any], str]],
    vocab: Vocab,
    taken: Iterable[str],
    states: Sequence[StateView],
    limit: int,
    trial: TrialRun | None = None,
) -> tuple[list[tuple[Skill, str]], list[Rejected], dict[str, Trial]]:
    """Parse, lint and try out new skills: (skill, origin) pairs that may enter, at most ``limit``, what was refused,
    and how the kept ones fared in ``trial``.

    A skill is refused when it does not parse, bears a taken name, can run no action, is done wherever it could start,
    can start in none of ``states``, or in its trial never starts or never does anything.
    """
    kept: list[tuple[Skill, str]] = []
    trials: dict[str, Trial] = {}
    rejected, names = [], {*taken, *vocab.actions}
    for body, where in found:
        label = clean_text(str(body.get("name", "")), 40)
        try:
            skill = parse_skill(body, vocab)
            reason = _skill_fault(skill, names, states) if len(kept) < limit else "skill_over_limit"
            text = label
            if trial is not None and not reason:
                found_out = trial(skill)
                reason = found_out.fault
                if reason:
                    text = f"{label}: {found_out.starts} starts in {found_out.worlds} worlds, {found_out.idle} idle"
                else:
                    trials[skill.name] = found_out
        except (SkillError, RecursionError) as error:
            reason, text = "skill_malformed", f"{label}: {shown(error, 160)}"
        if reason:
            rejected.append(Rejected(reason, where, text))
        else:
            names.add(skill.name)
            kept.append((skill, where))
    return kept, rejected, trials


def _skill_fault(skill: Skill, names: set[str], states: Sequence[StateView]) -> str:
    if skill.name in names:
        return "skill_name_taken"
    if bound(skill) < 1:
        return "skill_empty"
    if not states:
        return ""
    vocab = states[0].vocab
    start, done = compile_condition(skill.start, vocab), compile_condition(skill.done, vocab)
    startable = np.array([start(view) for view in states])
    if not startable.any():
        return "skill_never_starts"
    if all(done(view) for view, ok in zip(states, startable, strict=True) if ok):
        return "skill_done_at_start"
    return ""
