"""New skills played in real worlds before they may enter a dataset: the trial that the offline phase asks for.

The rule book plays a few worlds once; snapshots along the way are the places where a skill may begin, so that skills
for a player with tools find their start too. Every run is the interpreter's own, on the real game.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lore_datasets.errors import LoreError

if TYPE_CHECKING:
    from lore_datasets.environments import Environment
    from lore_datasets.language.skills import Skill
    from pipeline.questions.check import Trial

__all__ = ["Film", "SkillTrials", "films_of"]


@dataclass(frozen=True, eq=False)
class Film:
    """One run of a skill: packed states uint8[T + 1, S], T steps, and how it ended in words."""

    states: np.ndarray
    ended: str

    @property
    def steps(self) -> int:
        """Actions taken."""
        return len(self.states) - 1


class SkillTrials:
    """``SkillTrials(environment)(skill) -> Trial``; the same seed gives the same figures.

    Args:
        environment: whose game and vocabulary.
        seed: seed of worlds and players.
        worlds: worlds that the rule book plays.
        steps: steps it plays in each.
        every: one snapshot in this many steps.
        starts: most runs of one skill, spread evenly over the snapshots in which it can start.
    """

    def __init__(
        self,
        environment: Environment,
        seed: int = 0,
        *,
        worlds: int = 6,
        steps: int = 600,
        every: int = 15,
        starts: int = 12,
    ) -> None:
        self.environment, self.seed = environment, seed
        self.worlds, self.steps, self.every, self.starts = worlds, steps, every, starts
        self._places: list[tuple[np.ndarray, dict[str, Any]]] | None = None
        self._game: Any = None

    def __call__(self, skill: Skill) -> Trial:
        """Run the skill from up to ``starts`` places and count how it ended."""
        from lore.options.interpreter import Outcome
        from pipeline.questions.check import Trial

        found = self._begins(skill)
        pick = np.unique(np.linspace(0, len(found) - 1, min(self.starts, len(found))).astype(int)) if found else []
        goalless = skill.done == {"op": "false"}
        successes = steps = idle = 0
        for number, i in enumerate(pick):
            state, world = found[i]
            outcome, taken, moved = self._play(skill, state, world, number)
            successes += outcome is Outcome.done or (goalless and outcome is Outcome.exhausted)
            steps += taken
            idle += not moved
        return Trial(len(pick), successes, steps, worlds=self.worlds, idle=idle)

    def _begins(self, skill: Skill) -> list[tuple[np.ndarray, dict[str, Any]]]:
        """The places in which a skill can start."""
        from lore.options.interpreter import propose
        from lore_datasets.language.geometry import StateView

        vocab = self.environment.vocab
        return [place for place in self._all_places() if propose((skill,), StateView(place[0], vocab))[0] >= 0]

    def film(self, skill: Skill) -> Film | None:
        """One run from the middle of the places in which the skill can start; None where it can start in none."""
        found = self._begins(skill)
        if not found:
            return None
        state, world = found[len(found) // 2]
        seen = [state]
        outcome, _, _ = self._play(skill, state, world, 0, seen)
        return Film(np.stack(seen), outcome.value if outcome is not None else "the episode ended")

    def _play(
        self, skill: Skill, state: np.ndarray, snapshot: dict[str, Any], number: int,
        seen: list[np.ndarray] | None = None,
    ) -> tuple[Any, int, bool]:  # fmt: skip
        """(outcome or None when the episode ended first, actions taken, whether anything came of them); the states
        that it reached are added to ``seen``."""
        from lore.options.interpreter import Outcome, SkillRun
        from lore_datasets.language.geometry import StateView

        vocab, game = self.environment.vocab, self._game
        game.load_state_dict(snapshot)
        run = SkillRun(skill, vocab, np.random.default_rng([self.seed, number]))
        view = StateView(state, vocab)
        before, acted, changed = _what_counts(view), False, False
        while True:
            action = run.next_action(view)
            if isinstance(action, Outcome):
                return action, run.elapsed, acted and changed
            acted |= vocab.actions[action] != "noop"
            step = game.step(action)
            if seen is not None:
                seen.append(step.state.copy())
            view = StateView(step.state, vocab)
            changed |= _what_counts(view) != before
            if step.is_last:
                return None, run.elapsed, acted and changed

    def _all_places(self) -> list[tuple[np.ndarray, dict[str, Any]]]:
        """(packed state, snapshot of the game) along the rule book's play, made at the first trial."""
        if self._places is None:
            from flows.jobs.players import best_player
            from lore.config import EnvConfig
            from lore.envs import make_env
            from lore_datasets.language.geometry import StateView

            vocab = self.environment.vocab
            self._game = make_env(EnvConfig(name=self.environment.name, observation="symbolic"), self.seed)
            player = best_player(self.environment)
            rng = np.random.default_rng(self.seed)
            self._places = []
            for _ in range(self.worlds):
                step = self._game.reset()
                player.reset()
                for at in range(self.steps):
                    if step.is_last:
                        break
                    if at % self.every == 0:
                        self._places.append((step.state.copy(), self._game.state_dict()))
                    step = self._game.step(player(StateView(step.state, vocab), rng))
        return self._places


def films_of(environment: Environment, skills: Sequence[Skill], seed: int = 0) -> tuple[dict[str, Film], str]:
    """(name -> one run, of every skill that could start somewhere; why there are none, empty where there are)."""
    trials = SkillTrials(environment, seed, worlds=3)
    try:
        found = {skill.name: film for skill in skills if (film := trials.film(skill)) is not None}
    except LoreError as error:
        return {}, f"no film of the skills: {error.message}"
    return found, ""


def _what_counts(view: Any) -> tuple[Any, ...]:
    """What an action can change: crop, inventory, facing, sleep, achievements."""
    return view.cells, view.counts, view.facing_direction, view.sleeping, view.flags
