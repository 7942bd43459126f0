"""What an environment adapter must offer, and how one is made from a configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from lore_datasets.environments import get_environment
from lore_datasets.errors import NotFound, shown

if TYPE_CHECKING:
    from lore.config import EnvConfig
    from lore_datasets.environments import Environment

__all__ = ["EVALUATION", "Env", "Step", "make_env", "make_env_fns", "tile_pictures"]

EVALUATION = 2**31
"""Seeds from here on are of worlds that nobody trains in."""


class Step(NamedTuple):
    """One observation with what led to it.

    ``is_last`` cuts the sequence, ``is_terminal`` (death, never the time limit) sets the bootstrap to 0.
    """

    state: np.ndarray  # uint8[S] packed SymbolicState
    image: np.ndarray | None  # uint8[H, W, 3], None when the environment runs without pixels
    reward: float
    is_first: bool
    is_last: bool
    is_terminal: bool
    info: dict[str, Any]  # achievements int16[K] counts of this episode, episode (from 1), length (steps so far)


@runtime_checkable
class Env(Protocol):
    """One game: primitive actions in, packed symbolic states (and frames) out."""

    spec: Environment

    def reset(self, seed: int | None = None) -> Step:
        """Begin the next episode, or the first one of ``seed``."""
        ...

    def step(self, action: int) -> Step:
        """Play one primitive action."""
        ...

    def render(self) -> np.ndarray:
        """uint8[H, W, 3] of the present state; never changes the game."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The whole game as JSON values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken."""
        ...


def make_env(config: EnvConfig, seed: int, index: int = 0, *, for_evaluation: bool = False) -> Env:
    """Environment number ``index`` of a run; every (seed, index) has a stream of worlds of its own.

    Streams for evaluation are numbers from :data:`EVALUATION` on, those of training lie below: no world is in both.
    """
    stream = int(np.random.SeedSequence((seed, index)).generate_state(1)[0] % (2**31 - 1))
    game = get_environment(config.name, named=True).game
    if not game:
        raise NotFound(f"environment {shown(config.name)!r} has words but no game", hint="say where its game is made")
    module, _, function = game.partition(":")
    make = getattr(import_module(module), function or "make")
    return make(config, stream | EVALUATION if for_evaluation else stream)


def make_env_fns(config: EnvConfig, seed: int, *, for_evaluation: bool = False) -> list[Callable[[], Env]]:
    """One picklable factory per environment of a run, for the vector environments."""
    from functools import partial

    return [partial(make_env, config, seed, index, for_evaluation=for_evaluation) for index in range(config.num_envs)]


def tile_pictures(environment: str, names: Sequence[str], size: int) -> dict[str, np.ndarray]:
    """The game's own tiles uint8 [size, size, 3] of those ``names`` that it has, by ``pictures(names, size)`` of its
    module; {} where it has none to show."""
    game = get_environment(environment).game.partition(":")[0]
    pictures = getattr(import_module(game), "pictures", None) if game else None
    return pictures(names, size) if pictures is not None else {}
