"""The same game as a Gymnasium environment, ``LoRe/Crafter-v1``; gymnasium is imported on first use.

``gymnasium.make("lore.envs.gym:LoRe/Crafter-v1")`` finds it by the library's own convention (the module is imported
and registers where Gymnasium is loaded already); ``register()`` does the same by name.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np

from lore_datasets.errors import ConfigError, UsageError

__all__ = ["ID", "LoreCrafter", "register"]  # noqa: F822 - made on first use

ID = "LoRe/Crafter-v1"


def register() -> None:
    """Register :data:`ID` with Gymnasium; calling it again changes nothing."""
    gymnasium = _gymnasium()
    if ID not in gymnasium.registry:
        gymnasium.register(id=ID, entry_point="lore.envs.gym:LoreCrafter")


def _gymnasium() -> Any:
    try:
        import gymnasium
    except ImportError:
        raise UsageError("lore.envs.gym needs the package gymnasium", hint="pip install gymnasium") from None
    return gymnasium


def __getattr__(name: str) -> Any:
    if name == "LoreCrafter":
        return _environment_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _environment_class() -> type:
    """The environment class; made on first use because its base class is Gymnasium's."""
    gymnasium = _gymnasium()
    spaces = gymnasium.spaces

    class LoreCrafter(gymnasium.Env):
        """Crafter with ``terminated`` on death and ``truncated`` at the time limit.

        Observations: ``pixels`` uint8[64, 64, 3], or ``symbolic``, the packed symbolic state uint8[S]. ``reset(seed)``
        starts a new sequence of worlds, ``reset()`` its next episode. ``info``: achievements int16[K], episode_number,
        length; ``info["episode"]`` belongs to Gymnasium's ``RecordEpisodeStatistics``.
        """

        metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

        def __init__(
            self,
            observation: str = "pixels",
            area: tuple[int, int] = (64, 64),
            length: int = 10_000,
            render_mode: str | None = None,
        ) -> None:
            from lore.envs.crafter.adapter import CrafterEnv

            if observation not in ("pixels", "symbolic"):
                raise ConfigError.out_of_range("observation", observation, "pixels or symbolic")
            if render_mode not in (None, "rgb_array"):
                raise ConfigError.out_of_range("render_mode", render_mode, "rgb_array or None")
            self.render_mode = render_mode
            self.game = CrafterEnv(area=area, length=length, pixels=observation == "pixels")
            shape = (64, 64, 3) if self.game.pixels else (self.game.spec.layout.size,)
            self.observation_space = spaces.Box(0, 255, shape, np.uint8)
            self.action_space = spaces.Discrete(len(self.game.spec.vocab.actions))
            self._seeded = False

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[Any, dict[str, Any]]:
            """(observation, info) of the first episode of ``seed``, or of the next one."""
            super().reset(seed=seed)
            fresh = seed is not None or not self._seeded
            self._seeded = True
            step = self.game.reset(int(self.np_random.integers(2**31 - 1)) if fresh else None)
            return self._look(step), _info(step)

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            """(observation, reward, terminated, truncated, info)."""
            step = self.game.step(int(action))
            is_cut = step.is_last and not step.is_terminal
            return self._look(step), step.reward, step.is_terminal, is_cut, _info(step)

        def render(self) -> np.ndarray | None:
            """The last frame uint8[64, 64, 3]; never changes the game."""
            return self.game.render() if self.render_mode == "rgb_array" else None

        def _look(self, step: Any) -> np.ndarray:
            return np.array(step.image if self.game.pixels else step.state)

    LoreCrafter.__qualname__ = "LoreCrafter"
    return LoreCrafter


def _info(step: Any) -> dict[str, Any]:
    return {"episode_number" if name == "episode" else name: value for name, value in step.info.items()}


if "gymnasium" in sys.modules and hasattr(sys.modules["gymnasium"], "registry"):
    register()
