"""The MiniGrid and BabyAI adapter (package ``minigrid`` 3.2.0): egocentric view of 7 by 7, heading, hand, mission."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lore.envs.bridge import GymnasiumBridge, gymnasium_of, make_registered
from lore_datasets.environments import Environment, get_environment
from lore_datasets.environments.minigrid.vocab import COLOURS, HEADINGS, OBJECTS, VIEW
from lore_datasets.errors import BadInput
from lore_datasets.types import SymbolicState
from lore_datasets.vocab import Vocab

if TYPE_CHECKING:
    from lore.config import EnvConfig

__all__ = ["MissionView", "make", "pictures"]

_PLAIN = ("nothing", "empty", "wall", "floor", "", "", "", "", "goal", "lava", "empty")
"""Target of each type id; keys, balls, boxes and doors have a colour and perhaps a state."""
_KEY, _DOOR = 5, 4
_DOORS = ("{}_door_open", "{}_door", "{}_door_locked")
_VERBS = {"mission_pickup": ("pick", "get", "fetch"), "mission_open": ("open", "unlock"), "mission_go": ("go",),
          "mission_put": ("put",)}  # fmt: skip


def _kinds(vocab: Vocab) -> np.ndarray:
    """uint8[types, colours, states]: the cell id of each code of the game; 0 for a code that it does not use."""
    table = np.zeros((len(_PLAIN), len(COLOURS), len(_DOORS)), np.uint8)
    for kind, name in enumerate(_PLAIN):
        if name:
            table[kind] = vocab.target(name)
    for c, colour in enumerate(COLOURS):
        for kind, name in enumerate(OBJECTS):
            table[_KEY + kind, c] = vocab.target(f"{colour}_{name}")
        for state, form in enumerate(_DOORS):
            table[_DOOR, c, state] = vocab.target(form.format(colour))
    return table


class MissionView:
    """``(observation, info) -> SymbolicState``; what depends on the mission alone is made once per mission.

    Nothing of the world beyond the observation is read but the hand and the heading, which the player knows.
    """

    def __init__(self, vocab: Vocab, game: Any) -> None:
        self.vocab, self.game, self.plain = vocab, game.unwrapped, _kinds(vocab)
        self._mission: str | None = None
        self._words = self._flags = np.zeros(0, np.uint8)
        self._table = self.plain
        self._items = {name: i for i, name in enumerate(vocab.items)}

    def _learn(self, mission: str) -> None:
        """Read a mission: its words, the verbs as numbers, and which kinds of cells it names."""
        if not isinstance(mission, str) or not mission.isascii():
            raise BadInput(f"{self.vocab.environment}: the mission is no plain text", hint="missions are ASCII words")
        self._words = np.array(self.vocab.mission_ids(mission), np.uint8)
        words = mission.lower().replace(",", " ,").split()
        self._flags = np.zeros(len(self.vocab.items), np.uint8)
        for flag, verbs in _VERBS.items():
            self._flags[self._items[flag]] = any(verb in words for verb in verbs) and not _is_goal(flag, words)
        self._table = self.plain.copy()
        for before, kind in zip(["", *words], words, strict=False):
            colours = [COLOURS.index(before)] if before in COLOURS else range(len(COLOURS))
            for c in colours:
                self._mark(kind, c, has_colour=before in COLOURS)
        self._mission = mission

    def _mark(self, kind: str, colour: int, *, has_colour: bool) -> None:
        for number, name in enumerate(OBJECTS):
            if kind == name or (kind == "object" and has_colour):
                self._table[_KEY + number, colour] = self.vocab.target(f"wanted_{name}")
        if kind == "door" or (kind == "object" and has_colour):
            self._table[_DOOR, colour, 1] = self.vocab.target("wanted_door")

    def __call__(self, observation: dict[str, Any], info: dict[str, Any]) -> SymbolicState:
        """The packed fields of one observation."""
        if observation["mission"] != self._mission:
            self._learn(observation["mission"])
        image = observation["image"]
        if image.shape != (VIEW, VIEW, 3):
            raise BadInput(
                f"{self.vocab.environment} shows {list(image.shape)}, this adapter reads [{VIEW}, {VIEW}, 3]",
                hint="take an id with the usual view of 7 by 7 cells",
            )
        view = np.zeros((2 * VIEW - 1, VIEW), np.uint8)
        view[:VIEW] = self._table[image[..., 0], image[..., 1], image[..., 2]].T
        view[VIEW - 1, VIEW // 2] = self.vocab.target("player")
        inventory = self._flags.copy()
        carried = self.game.carrying
        inventory[self._items[f"held_{carried.color}_{carried.type}" if carried else "empty_hand"]] = 1
        inventory[self._items[HEADINGS[int(observation["direction"])]]] = 1
        return SymbolicState(view, inventory, np.zeros(0, np.uint8), np.uint8(0), mission=self._words)  # type: ignore[arg-type]


def _is_goal(flag: str, words: list[str]) -> bool:
    """Whether "get" means "get to the goal", which is nothing to pick up."""
    return flag == "mission_pickup" and "goal" in words and "pick" not in words


def _frame(game: Any, observation: Any) -> np.ndarray:
    """uint8[64, 64, 3]: the player's own view, 8 pixels a cell, with a border of 4."""
    return np.pad(game.unwrapped.get_frame(tile_size=8, agent_pov=True), ((4, 4), (4, 4), (0, 0)))


def _achieved(total: float, terminal: bool, info: dict[str, Any]) -> np.ndarray:
    return np.array([terminal and total > 0], np.int16)


def pictures(names: Sequence[str], size: int) -> dict[str, np.ndarray]:
    """The game's own tiles uint8[size, size, 3] of those names that it has."""
    from minigrid.core.grid import Grid
    from minigrid.core.world_object import Ball, Box, Door, Floor, Goal, Key, Lava, Wall

    things: dict[str, Any] = {"empty": None, "wall": Wall(), "floor": Floor(), "goal": Goal(), "lava": Lava()}
    for colour in COLOURS:
        things |= {f"{colour}_{kind}": make(colour) for kind, make in zip(OBJECTS, (Key, Ball, Box), strict=True)}
        things |= {
            f"{colour}_door{end}": Door(colour, is_open=end == "_open", is_locked=end == "_locked")
            for end in ("", "_open", "_locked")
        }
    found = {name: Grid.render_tile(things[name], tile_size=size) for name in names if name in things}
    for name in names:
        if name == "player" or name.startswith("player-"):
            found[name] = Grid.render_tile(None, agent_dir=3, tile_size=size)
    return found


class _World(GymnasiumBridge):
    """BabyAI says "Sampling rejected" on stdout while it makes a world."""

    def unseen_changed(self, rng: np.random.Generator) -> np.ndarray:
        """The packed state after balls were put where the player cannot see: for the conformance suite."""
        from minigrid.core.world_object import Ball

        world = self.game.unwrapped
        _, seen = world.gen_obs_grid()
        for x in range(world.width):
            for y in range(world.height):
                i, j = world.get_view_coords(x, y)
                hidden = not (0 <= i < VIEW and 0 <= j < VIEW and seen[i, j])
                if hidden and rng.random() < 0.5:
                    world.grid.set(x, y, Ball("green"))
        assert self.symbolic is not None
        return self._step(world.gen_obs(), 0.0, first=False, terminal=False, cut=False, info={}).state

    def _begin(self) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            return super()._begin()


def make(config: EnvConfig, seed: int) -> GymnasiumBridge:
    """The environment that a configuration describes; NotFound for an id that minigrid does not know."""
    spec: Environment = get_environment(config.name, named=True)
    gymnasium = gymnasium_of("minigrid", "minigrid")
    game = make_registered(gymnasium, config.name.partition(":")[2])
    return _World(
        spec, game, seed=seed, length=config.length, symbolic=MissionView(spec.vocab, game),
        frame=_frame if config.observation == "pixels" else None, achieved=_achieved,
    )  # fmt: skip
