"""A player that follows advice about goals: choose a skill, hold it for some steps or until it ends, choose again. No
map memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lore.options.interpreter import Outcome, SkillRun
from lore_datasets.errors import ConfigError
from lore_datasets.language.geometry import StateView
from lore_datasets.language.skills import Skill
from lore_datasets.vocab import Vocab

__all__ = ["GoalPlayer", "Ranking"]

Ranking = list[tuple[str, float]]
"""Names of skills (or primitive actions) with weights, best first."""


class GoalPlayer:
    """Plays by ``choose(view) -> Ranking``: the best entry that can act is held for ``hold`` steps or until it ends.

    A skill that just failed (stuck, aborted, nothing to do) is passed over once, so that the next best gets its turn.
    Primitive action names in a ranking are played for one step. ``decisions`` counts the choices made, ``outcomes``
    how runs ended, ``held`` where their ``hold`` steps were over.
    """

    def __init__(
        self, choose: Callable[[StateView], Ranking], skills: Sequence[Skill], vocab: Vocab, hold: int = 12
    ) -> None:
        if hold < 1:
            raise ConfigError.out_of_range("hold", hold, "1 or more")
        self.choose, self.vocab, self.hold = choose, vocab, hold
        self.skills = {skill.name: skill for skill in skills}
        self.decisions = 0
        self.outcomes: dict[tuple[str, str], int] = {}
        self.reset()

    def reset(self) -> None:
        """Forget the running skill; call it when an episode begins."""
        self._run: SkillRun | None = None
        self._failed: str | None = None

    @property
    def goal(self) -> str | None:
        """Name of the skill that is being played."""
        return None if self._run is None else self._run.skill.name

    def state_dict(self) -> dict[str, Any]:
        """What an episode under way goes on from, as JSON values; counts are not part of it."""
        return {"run": self._run.state_dict() if self._run is not None else None, "failed": self._failed}

    def load_state_dict(self, state: dict[str, Any], rng: np.random.Generator) -> None:
        """Inverse of :meth:`state_dict`; a skill that is not in the library any more has ended."""
        self._run, self._failed = None, state["failed"]
        if state["run"] is not None and state["run"]["skill"] in self.skills:
            self._run = SkillRun(self.skills[state["run"]["skill"]], self.vocab, rng)
            self._run.load_state_dict(state["run"])

    def __call__(self, view: StateView, rng: np.random.Generator) -> int:
        """The next primitive action id in the state that ``view`` shows."""
        if self._run is not None:
            name, action = self._run.skill.name, None
            if self._run.elapsed < self.hold:
                action = self._run.next_action(view)
                if not isinstance(action, Outcome):
                    return action
                self._failed = name if action in (Outcome.stuck, Outcome.aborted) else None
            how = "held" if action is None else action.value
            self.outcomes[name, how] = self.outcomes.get((name, how), 0) + 1
        return self._decide(view, rng)

    def _decide(self, view: StateView, rng: np.random.Generator) -> int:
        self.decisions += 1
        ranked = [name for name, _ in self.choose(view)]
        if self._failed in ranked:
            ranked.remove(self._failed)
            ranked.append(self._failed)
        self._failed, self._run = None, None
        for name in ranked:
            if name not in self.skills:
                return self.vocab.action(name)
            run = SkillRun(self.skills[name], self.vocab, rng)
            action = run.next_action(view) if run.compiled.start(view) else Outcome.aborted
            if not isinstance(action, Outcome):
                self._run = run
                return action
        return int(rng.integers(len(self.vocab.actions)))
