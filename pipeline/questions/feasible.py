"""Goals and actions that can start in a state, by start conditions and recipes."""

from __future__ import annotations

from collections.abc import Iterable

from lore_datasets.language.conditions import compile_condition
from lore_datasets.language.geometry import StateView
from lore_datasets.language.skills import Skill
from lore_datasets.vocab import Vocab

__all__ = ["GoalCheck", "feasible_actions", "feasible_goals"]


class GoalCheck:
    """Start conditions of a list of skills, made ready once: ``GoalCheck(skills, vocab)(view) -> names``."""

    def __init__(self, skills: Iterable[Skill], vocab: Vocab) -> None:
        self.tests = [(s.name, compile_condition(s.start, vocab), compile_condition(s.done, vocab)) for s in skills]

    def __call__(self, view: StateView) -> list[str]:
        """Names of the skills that can start in this state and are not done there."""
        return [name for name, start, done in self.tests if start(view) and not done(view)]


def feasible_goals(skills: Iterable[Skill], view: StateView) -> list[str]:
    """Names of the skills that can start in this state and are not done there."""
    return GoalCheck(skills, view.vocab)(view)


def feasible_actions(view: StateView) -> list[str]:
    """Names of the primitive actions worth trying in this state."""
    return [name for name, ok in zip(view.vocab.actions, view.feasible_actions().tolist(), strict=True) if ok]
