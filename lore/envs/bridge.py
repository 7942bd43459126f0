"""Any Gymnasium environment with discrete actions as a game of the learner: states, frames, snapshots by replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lore.envs.base import EVALUATION, Step
from lore_datasets.errors import BadInput, CorruptArtifact, NotFound, UsageError, shown
from lore_datasets.types import SymbolicState

if TYPE_CHECKING:
    from lore_datasets.environments import Environment

__all__ = ["GymnasiumBridge", "gymnasium_of", "make_registered"]

Symbolic = Callable[[Any, dict[str, Any]], SymbolicState]
"""``(observation, info) -> state`` of one step, from what the player sees alone."""
Frame = Callable[[Any, Any], np.ndarray]
"""``(environment, observation) -> uint8[64, 64, 3]``."""


def gymnasium_of(extra: str, package: str) -> Any:
    """The package Gymnasium with ``package`` imported, which registers its ids; UsageError names the missing extra."""
    from importlib import import_module

    try:
        import_module(package)
        import gymnasium
    except ImportError:
        raise UsageError(
            f"environments of the family {extra} need the package {package}",
            hint=f"pip install -e '.[{extra}]' in LoRe's folder",
        ) from None
    return gymnasium


def make_registered(gymnasium: Any, name: str, **settings: Any) -> Any:
    """``gymnasium.make(name)``; NotFound with near names for an id that is not registered."""
    if name not in gymnasium.registry:
        from difflib import get_close_matches

        near = get_close_matches(name, list(gymnasium.registry), n=3, cutoff=0.5)
        raise NotFound(
            f"no environment {shown(name)!r} is registered with Gymnasium",
            hint=f"did you mean {', '.join(near)}?" if near else "see the list of its package",
        )
    try:
        return gymnasium.make(name, disable_env_checker=True, **settings)
    except Exception as error:
        raise NotFound(
            f"environment {shown(name)!r} cannot be made: {type(error).__name__}: {shown(error)}",
            hint="its package may lack files or another package of its own",
        ) from error


class GymnasiumBridge:
    """One ``gymnasium.Env`` as :class:`lore.envs.base.Env`.

    The world has no snapshot of its own: :meth:`state_dict` holds the seed of the episode and its actions, and loading
    plays them again. An environment whose course depends on more than these cannot be resumed exactly.

    Args:
        spec: the words. game: the environment; its actions are those of ``spec.vocab``, or their first ones.
        seed: of the sequence of worlds. length: steps after which an episode is cut.
        symbolic: None where states show nothing. frame: None for a game without pixels.
        achieved: ``(sum of rewards, is_terminal, info) -> int16[K]`` counts of what this episode has unlocked.
    """

    def __init__(
        self, spec: Environment, game: Any, *, seed: int, length: int, symbolic: Symbolic | None, frame: Frame | None,
        achieved: Callable[[float, bool, dict[str, Any]], np.ndarray] | None = None,
    ) -> None:  # fmt: skip
        self.spec, self.game, self.limit = spec, game, length
        self.symbolic, self.frame, self.achieved = symbolic, frame, achieved
        count = getattr(game.action_space, "n", None)
        if count is None or not 1 <= int(count) <= len(spec.vocab.actions):
            raise BadInput(
                f"{spec.name} has the action space {shown(game.action_space)}, LoRe plays"
                f" Discrete(1) to Discrete({len(spec.vocab.actions)}) of these words",
                hint="an environment of another kind needs words, and perhaps an actor, of its own",
            )
        self._seed, self._episode, self._actions = int(seed), 0, []
        self._total, self._last = 0.0, None

    @property
    def last(self) -> Step:
        """The step that was returned last."""
        if self._last is None:
            raise UsageError("the environment has not been reset")
        return self._last

    def reset(self, seed: int | None = None) -> Step:
        """A new world: the next episode of the seed, or the first of another ``seed``."""
        if seed is not None:
            self._seed, self._episode = int(seed), 0
        self._episode += 1
        return self._begin()

    def _begin(self) -> Step:
        # One Gymnasium seed per (seed, episode); those of an evaluation keep its highest bit, so no other has them.
        drawn = int(np.random.SeedSequence((self._seed, self._episode)).generate_state(1)[0] % (2**30))
        observation, info = self.game.reset(seed=drawn | (2**30 if self._seed & EVALUATION else 0))
        self._actions, self._total = [], 0.0
        return self._step(observation, 0.0, first=True, terminal=False, cut=False, info=info)

    def step(self, action: int) -> Step:
        """Play one primitive action; UsageError after the end of an episode."""
        if self.last.is_last:
            raise UsageError("the episode is over", hint="call reset()")
        if not 0 <= action < len(self.spec.vocab.actions):
            raise BadInput(f"action {action} is not in 0..{len(self.spec.vocab.actions) - 1}")
        observation, reward, terminal, cut, info = self.game.step(int(action))
        self._actions.append(int(action))
        self._total += float(reward)
        cut = cut or len(self._actions) >= self.limit
        return self._step(observation, float(reward), first=False, terminal=bool(terminal), cut=bool(cut), info=info)

    def _step(
        self, observation: Any, reward: float, *, first: bool, terminal: bool, cut: bool, info: dict[str, Any]
    ) -> Step:
        unlocked = np.zeros(len(self.spec.vocab.achievements), np.int16)
        if self.achieved is not None:
            unlocked = self.achieved(self._total, terminal, info)
        packed = np.zeros(self.spec.layout.size, np.uint8)
        if self.symbolic is not None:
            state = self.symbolic(observation, info)
            packed = SymbolicState(**{**vars(state), "unlocked": (unlocked > 0).astype(np.uint8)}).pack()
            if len(packed) != self.spec.layout.size:
                raise BadInput(
                    f"{self.spec.name}: its state has {len(packed)} bytes, its words say {self.spec.layout.size}"
                )
        image = self.frame(self.game, observation) if self.frame is not None else None
        told = {"achievements": unlocked, "episode": self._episode, "length": len(self._actions)}
        self._last = Step(packed, image, reward, first, terminal or cut, terminal, told)
        return self._last

    def render(self) -> np.ndarray:
        """uint8[64, 64, 3] of the present state, grey where the game was made without frames."""
        return np.full((64, 64, 3), 90, np.uint8) if self.last.image is None else self.last.image

    def close(self) -> None:
        """Let go of the game."""
        self.game.close()

    def state_dict(self) -> dict[str, Any]:
        """Seed, episode and the actions of it so far."""
        assert self.last is not None
        return {"version": 1, "seed": self._seed, "episode": self._episode, "actions": list(self._actions)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Play the episode again up to where :meth:`state_dict` was taken; CorruptArtifact when that cannot be."""
        try:
            self._seed, self._episode, actions = int(state["seed"]), int(state["episode"]), list(state["actions"])
            if state["version"] != 1 or any(type(a) is not int for a in actions):
                raise ValueError(f"version {state['version']!r}, actions {shown(actions, 40)}")
            self._begin()
            for action in actions:
                self.step(action)
        except (KeyError, TypeError, ValueError, UsageError, BadInput) as error:
            raise CorruptArtifact(f"game snapshot cannot be played again: {type(error).__name__}: {error}") from error
