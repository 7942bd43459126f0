"""Runs skills: one primitive action at a time, with every end honoured before the next one.

Before each action the ends are read in this order: done, abort, interruption (health fell), time, lack of progress. A
run never calls the game; it is given views and answers with actions, so that it works on live games and on stored
states alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np

from lore.options.compiled_skill import CompiledSkill, StepNode, compile_skill
from lore_datasets.errors import BadInput
from lore_datasets.language.geometry import StateView
from lore_datasets.language.rooms import step_wall_in
from lore_datasets.language.routes import (
    step_ahead,
    step_beside_all,
    step_digging,
    step_fencing,
    step_near,
    step_wandering,
)
from lore_datasets.language.skills import MAX_BOUND, Skill
from lore_datasets.vocab import Vocab

__all__ = ["DONE", "PATIENCE", "Outcome", "SkillRun", "propose"]

DONE = -2
"""What :func:`propose` says of a skill whose goal is reached."""

PATIENCE = 8
"""Actions without any change of crop, inventory or facing after which a run is stuck."""


class Outcome(Enum):
    """How a run ended."""

    done = "done"
    aborted = "aborted"
    exhausted = "exhausted"
    timeout = "timeout"
    stuck = "stuck"
    interrupted = "interrupted"


def _signature(view: StateView) -> tuple[bytes, bytes, int] | None:
    """What has to change for progress; None (always progress) while asleep, where waiting is the point."""
    return None if view.sleeping else (view.cells, view.counts, view.facing_direction)


def _heading(
    view: StateView, along: Callable[[int], int | None], toward: Sequence[int], rng: np.random.Generator | None
) -> int:
    """A heading for exploration: where most cells ``toward`` are in view; without such keep the facing direction if
    free (four times in five with an rng), else another free one.
    """
    free = [d for d in range(len(view.vocab.directions)) if along(d) is not None]
    facing = view.facing_direction
    if not free:
        return facing
    seen = [view.cells_ahead(toward, d) for d in free] if toward else []
    if any(seen):
        return max(zip(seen, (d == facing for d in free), free, strict=True))[2]
    if rng is None:
        return facing if facing in free else free[0]
    if facing in free and (len(free) == 1 or rng.random() < 0.8):
        return facing
    others = [d for d in free if d != facing]
    return others[int(rng.integers(len(others)))]


class SkillRun:
    """One execution of a skill.

    Args:
        skill: a checked skill.
        vocab: its vocabulary.
        rng: chooses the heading of ``explore``; without one the facing direction is kept.
        interruptible: end the run (``interrupted``) when health fell since the last action.
    """

    def __init__(
        self, skill: Skill, vocab: Vocab, rng: np.random.Generator | None = None, interruptible: bool = True
    ) -> None:
        self.compiled: CompiledSkill = compile_skill(skill, vocab)
        self.rng = rng
        self.interruptible = interruptible
        self.elapsed = 0
        self.outcome: Outcome | None = None
        self._stack: list[list[int]] = [[0, 0, 0]]  # block, step, ticks spent in the step
        self._heading: int | None = None
        self._health: int | None = None
        self._signature: tuple[bytes, bytes, int] | None = None
        self._still = 0

    @property
    def skill(self) -> Skill:
        """The skill that runs."""
        return self.compiled.skill

    def next_action(self, view: StateView) -> int | Outcome:
        """The next primitive action id, or how the run ended (again and again once it has)."""
        if self.outcome is None:
            self.outcome = self._end(view)
        if self.outcome is None:
            action = self._advance(view)
            if action is not None:
                self.elapsed += 1
                return action
            self.outcome = Outcome.exhausted
        return self.outcome

    def _end(self, view: StateView) -> Outcome | None:
        health, before = (view.vital_values[0] if view.vocab.vitals else 0), self._health
        self._health = health
        if self.compiled.done(view):
            return Outcome.done
        if self.compiled.abort is not None and self.compiled.abort(view):
            return Outcome.aborted
        if self.interruptible and before is not None and health < before:
            return Outcome.interrupted
        if self.elapsed >= self.skill.max_steps:
            return Outcome.timeout
        signature = _signature(view)
        self._still = self._still + 1 if signature is not None and signature == self._signature else 0
        self._signature = signature
        return Outcome.stuck if self._still >= PATIENCE else None

    def _advance(self, view: StateView) -> int | None:
        """Walk the stack to the next action; None when the steps are used up. Ticks bound the silent work."""
        blocks, stack = self.compiled.blocks, self._stack
        for _ in range(MAX_BOUND):
            if not stack:
                return None
            top = stack[-1]
            block = blocks[top[0]]
            if top[1] >= len(block):
                stack.pop()
                continue
            node = block[top[1]]
            if top[2] >= node.limit or (node.do == "until" and node.cond(view)):
                top[1], top[2] = top[1] + 1, 0
                continue
            top[2] += 1
            if node.body >= 0:
                inner = node.body if node.do != "if" or node.cond(view) else node.otherwise
                if inner >= 0:
                    stack.append([inner, 0, 0])
                continue
            action = self._primitive(node, view)
            if action is not None:
                return action
            top[1], top[2] = top[1] + 1, 0
        return None

    def _primitive(self, node: StepNode, view: StateView) -> int | None:
        if node.do == "act":
            return node.action
        if node.do == "wait":
            self._still = 0  # nothing has to change
            return node.action
        if node.do == "move_toward":
            return view.step_toward_ids(node.targets)
        if node.do == "step_onto":
            return view.step_onto_ids(node.targets)
        if node.do == "flee":
            return view.step_away_ids(node.targets)
        if node.do == "go_to":
            return step_near(view, node.targets, node.size)
        if node.do == "stand_near":
            return step_beside_all(view, node.targets)
        if node.do == "fence":
            return step_fencing(view, node.targets, node.action)
        if node.do == "dig_toward":
            return step_digging(view, node.targets, node.through)
        if node.do == "wall_in":
            return step_wall_in(view, node.action, node.size, node.targets, node.through)
        if view.vocab.turns:
            return step_wandering(view, self.rng)
        along = lambda d: step_ahead(view, d, node.through) if node.through else view.step_along(d)  # noqa: E731
        if self._heading is None or along(self._heading) is None:
            self._heading = _heading(view, along, node.targets, self.rng)
        return along(self._heading)

    def state_dict(self) -> dict[str, Any]:
        """The run's place as JSON values (the skill and the rng are the caller's)."""
        signature = self._signature and [self._signature[0].hex(), self._signature[1].hex(), self._signature[2]]
        return {
            "skill": self.skill.name,
            "elapsed": self.elapsed,
            "outcome": self.outcome and self.outcome.value,
            "stack": [list(frame) for frame in self._stack],
            "heading": self._heading,
            "health": self._health,
            "signature": signature,
            "still": self._still,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken; BadInput for another skill's."""
        if state["skill"] != self.skill.name:
            raise BadInput(f"saved run of skill {state['skill']!r}, this one is {self.skill.name!r}")
        signature = state["signature"]
        self.elapsed = int(state["elapsed"])
        self.outcome = None if state["outcome"] is None else Outcome(state["outcome"])
        self._stack = [[int(n) for n in frame] for frame in state["stack"]]
        if any(len(f) != 3 or not 0 <= f[0] < len(self.compiled.blocks) for f in self._stack):
            raise BadInput(f"saved run of skill {self.skill.name!r} points outside its steps")
        self._heading, self._health, self._still = state["heading"], state["health"], int(state["still"])
        self._signature = signature and (bytes.fromhex(signature[0]), bytes.fromhex(signature[1]), int(signature[2]))


def _first(compiled: CompiledSkill, view: StateView, rng: np.random.Generator | None) -> int:
    if compiled.done(view):
        return DONE
    if not compiled.start(view) or (compiled.abort is not None and compiled.abort(view)):
        return -1
    run = SkillRun.__new__(SkillRun)
    run.compiled, run.rng, run._heading, run._stack = compiled, rng, None, [[0, 0, 0]]
    action = run._advance(view)
    return -1 if action is None else action


def propose(skills: Sequence[Skill], view: StateView, rng: np.random.Generator | None = None) -> np.ndarray:
    """int16[K]: the first action each skill would take here; :data:`DONE` where its goal is reached, -1 where it cannot
    start, has nothing to do or would abort.
    """
    compiled = [compile_skill(skill, view.vocab) for skill in skills]
    return np.array([_first(each, view, rng) for each in compiled], np.int16)
