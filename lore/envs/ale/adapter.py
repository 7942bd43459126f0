"""Atari games (package ``ale-py``): 64x64 frames, sticky actions, four frames a step; for Pong numbers from the memory.

The usual protocol (Machado et al. 2018): an action is repeated four times, each of the frames takes the action before
with probability 0.25, the last two frames are pooled by maximum, and an episode begins with up to 30 idle frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lore.envs.bridge import GymnasiumBridge, gymnasium_of, make_registered
from lore_datasets.environments import get_environment
from lore_datasets.environments.ale.vocab import RAM
from lore_datasets.types import SymbolicState

if TYPE_CHECKING:
    from lore.config import EnvConfig
    from lore_datasets.vocab import Vocab

__all__ = ["Repeated", "make"]

REPEAT, STICKY, IDLE = 4, 0.25, 30
_MIDDLE = 4
"""What lies between the memory's height of Pong's paddle and that of a ball level with its middle."""


class Repeated:
    """``reset`` and ``step`` of an Atari environment of single frames, by the usual protocol."""

    def __init__(self, game: Any) -> None:
        self.game, self.action_space, self.unwrapped = game, game.action_space, game.unwrapped

    def reset(self, seed: int) -> tuple[Any, dict[str, Any]]:
        """(observation, info) after 0 to 30 idle frames, by the seed."""
        observation, info = self.game.reset(seed=seed)
        for _ in range(int(np.random.default_rng(seed).integers(IDLE + 1))):
            observation, _, terminal, cut, info = self.game.step(0)
            if terminal or cut:
                observation, info = self.game.reset(seed=seed)
        return observation, info

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """(maximum of the last two frames, sum of rewards, terminal, cut, info)."""
        total, frames, terminal, cut, info = 0.0, [], False, False, {}
        for _ in range(REPEAT):
            observation, reward, terminal, cut, info = self.game.step(action)
            total += float(reward)
            frames.append(observation)
            if terminal or cut:
                break
        return np.maximum(frames[-1], frames[-2] if len(frames) > 1 else frames[-1]), total, terminal, cut, info

    def close(self) -> None:
        """Let go of the game."""
        self.game.close()


class _Pong:
    """``(observation, info) -> state`` from the machine's memory."""

    def __init__(self, vocab: Vocab, game: Repeated) -> None:
        self.memory = game.unwrapped.ale
        self.view = np.zeros(vocab.view[::-1], np.uint8)
        self.view[1, 1] = vocab.target("player")

    def __call__(self, observation: Any, info: dict[str, Any]) -> SymbolicState:
        memory = self.memory.getRAM()
        read = {name: int(memory[at]) for name, at in RAM.items()}
        in_play = read["ball_y"] > 0 and read["ball_x"] > 0
        away = (read["ball_y"] - read["player_y"] - _MIDDLE) if in_play else 0
        numbers = [*read.values(), max(0, -away), max(0, away), int(in_play)]
        return SymbolicState(self.view, np.array(numbers, np.uint8), np.zeros(0, np.uint8), np.zeros((), np.uint8))


def _frame(game: Any, observation: np.ndarray) -> np.ndarray:
    """uint8[64, 64, 3] by the mean of the pixels of each cell."""
    from PIL import Image

    return np.array(Image.fromarray(observation).resize((64, 64), Image.Resampling.BOX))


def _achieved(total: float, terminal: bool, info: dict[str, Any]) -> np.ndarray:
    return np.array([terminal and total > 0], np.int16)


def make(config: EnvConfig, seed: int) -> GymnasiumBridge:
    """The game that a configuration describes; NotFound for one that ale-py does not know."""
    spec = get_environment(config.name, named=True)
    gymnasium = gymnasium_of("atari", "ale_py")
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    game = Repeated(
        make_registered(
            gymnasium, f"ALE/{config.name.partition(':')[2]}", frameskip=1, repeat_action_probability=STICKY,
            obs_type="rgb" if config.observation == "pixels" else "ram", full_action_space=not spec.symbolic,
        )
    )  # fmt: skip
    return GymnasiumBridge(
        spec, game, seed=seed, length=config.length, symbolic=_Pong(spec.vocab, game) if spec.symbolic else None,
        frame=_frame if config.observation == "pixels" else None, achieved=_achieved,
    )  # fmt: skip
