"""Several environments stepped together, in this process.

After a step with ``is_last`` the next ``step`` ignores that environment's action and returns the reset frame
(``is_first``, reward 0), so that the terminal frame is never lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from lore.envs.base import Env, Step
from lore_datasets.errors import BadInput, GameFailed, LoreError, UsageError, shown

__all__ = ["VectorEnv"]


def _advance(number: int, env: Env, ended: bool, action: int) -> Step:
    """One step or reset; GameFailed with world, step and seed when the game raises."""
    try:
        return env.reset() if ended else env.step(action)
    except LoreError:
        raise
    except Exception as error:
        state: dict[str, Any] = {}
        with suppress(Exception):  # whatever state a broken game is in
            state = env.state_dict()
        where = ", ".join(f"{name} {state[name]}" for name in ("seed", "episode", "steps") if name in state)
        raise GameFailed(
            f"environment {number} ({env.spec.name}) raised {type(error).__name__}: {shown(error)} at action {action}, "
            f"{where or 'in a state that cannot be read'}",
            kept="the last checkpoint, where the run has one",
            hint="play these worlds again: the same command goes on from the checkpoint; if it raises again, report it",
        ) from error


class VectorEnv:
    """Environments one after the other: deterministic and, with a game of some microseconds a step, as fast as any."""

    def __init__(self, make_fns: Sequence[Callable[[], Env]]) -> None:
        if not make_fns:
            raise BadInput("a vector of no environments")
        self.envs = [make() for make in make_fns]
        self.spec = self.envs[0].spec
        self._ended: list[bool] | None = None

    def __len__(self) -> int:
        return len(self.envs)

    def reset(self) -> list[Step]:
        """Begin an episode everywhere."""
        self._ended = [False] * len(self.envs)
        return [env.reset() for env in self.envs]

    def step(self, actions: Sequence[int] | np.ndarray) -> list[Step]:
        """One step each; ``actions`` int[N]."""
        actions, ended = _checked(actions, len(self.envs), self._ended)
        steps = [_advance(i, *given) for i, given in enumerate(zip(self.envs, ended, actions, strict=True))]
        self._ended = [step.is_last for step in steps]
        return steps

    def state_dict(self) -> dict[str, Any]:
        """Every environment's snapshot and which of them stand at their end, as JSON values."""
        if self._ended is None:
            raise UsageError("the vector has not been reset")
        return {"ended": list(self._ended), "envs": [env.state_dict() for env in self.envs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken."""
        _check_count(state, len(self.envs))
        for env, saved in zip(self.envs, state["envs"], strict=True):
            env.load_state_dict(saved)
        self._ended = [bool(flag) for flag in state["ended"]]


def _checked(actions: Sequence[int] | np.ndarray, count: int, ended: list[bool] | None) -> tuple[list[int], list[bool]]:
    if ended is None:
        raise UsageError("the vector has not been reset")
    actions = [int(a) for a in actions]
    if len(actions) != count:
        raise BadInput(f"{len(actions)} actions for {count} environments")
    return actions, ended


def _check_count(state: dict[str, Any], count: int) -> None:
    if len(state["envs"]) != count or len(state["ended"]) != count:
        raise BadInput(f"snapshot of {len(state['envs'])} environments, this vector has {count}")
