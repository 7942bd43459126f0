"""The Crafter adapter: danijar's game (package ``crafter`` 1.8.3), reproducible, with the symbolic view beside the
frame.

The state is made in one place (:meth:`CrafterEnv._observe`) from the visible 9x7 crop alone; it never holds the
hidden map, a plant's age or a creature's health. Differences from the stock package: creatures of a chunk are visited
in insertion order, and frames come from a cached painter; frames, rewards and draws are otherwise those of the
package.
"""

# The package is untyped; what pyright infers of its attributes is wrong.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import base64
import zlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lore.envs.base import EVALUATION, Step
from lore.envs.crafter.frame import Painter, draw_noise, pictures
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, ConfigError, CorruptArtifact, UsageError

if TYPE_CHECKING:
    from lore.config import EnvConfig

__all__ = ["CrafterEnv", "make", "pictures"]

_CHUNK = (12, 12)
_REACH = 18
_VITALS = 4


class CrafterEnv:
    """Crafter with episode seeds ``hash((seed, episode)) % (2**31 - 1)`` as in the package, episodes counted from 1;
    2**31 more where the seed is an evaluation's.

    Args:
        seed: seed of the sequence of worlds.
        area: world size in cells.
        length: steps after which an episode is cut (``is_last`` without ``is_terminal``).
        pixels: paint frames; without, ``Step.image`` is None and the game runs the very same course.
    """

    def __init__(
        self, seed: int = 0, area: tuple[int, int] = (64, 64), length: int = 10_000, pixels: bool = True
    ) -> None:
        from crafter import constants

        from lore.envs.crafter.terrain import Generator
        from lore.envs.crafter.world import KINDS, OrderedWorld

        if length < 1:
            raise ConfigError.out_of_range("env.length", length, "1 or more")
        self.spec = get_environment("crafter")
        vocab = self.spec.vocab
        items = tuple(constants.items)
        names = ("nothing", *constants.materials, *(cls.__name__.lower() for cls in KINDS))
        if vocab.targets != names or vocab.actions != tuple(constants.actions) or vocab.vitals + vocab.items != items:
            raise BadInput(
                "the installed crafter package has other words than the contract", hint="install crafter 1.8.3"
            )
        self.pixels = pixels
        self._seed, self._episode, self._length = int(seed), 0, int(length)
        self._ids = {cls: len(constants.materials) + 1 + i for i, cls in enumerate(KINDS)}
        self._facings = {(dx, dy): i for i, (_, dx, dy, _) in enumerate(vocab.directions)}
        self._actions = vocab.actions
        self._world = OrderedWorld((area[0], area[1]), constants.materials, _CHUNK)
        self._generate = Generator(self._world.area)
        self._painter = Painter(tuple(constants.materials), items)
        self._player: Any = None
        self._steps = 0
        self._last_health = 0
        self._unlocked = np.zeros(len(vocab.achievements), bool)
        self._counted: tuple[int, ...] = ()
        self._counts = np.zeros(len(vocab.achievements), np.int16)
        self._noise: np.ndarray | None = None
        self._last: Step | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as its settings and its snapshot."""
        snapshot = self.state_dict() if self._last is not None else None
        return _restored, (type(self), self._seed, tuple(self._world.area), self._length, self.pixels, snapshot)

    @property
    def last(self) -> Step:
        """The step that was returned last (also after loading a snapshot)."""
        if self._last is None:
            raise UsageError("the environment has not been reset")
        return self._last

    def reset(self, seed: int | None = None) -> Step:
        """A new world: the next episode of the seed, or the first of another ``seed``."""
        from crafter import objects

        if seed is not None:
            self._seed, self._episode = int(seed), 0
        self._episode += 1
        self._steps = 0
        world = self._world
        # Worlds of an evaluation's seed keep its highest bit, so that no other seed has one of them.
        world.reset(seed=hash((self._seed, self._episode)) % (2**31 - 1) | self._seed & EVALUATION)
        world.daylight = _daylight(self._steps)
        self._player = objects.Player(world, (world.area[0] // 2, world.area[1] // 2))
        self._last_health = self._player.health
        self._unlocked[:] = False
        self._count()
        world.add(self._player)
        self._generate(world, self._player)
        return self._observe(0.0, is_first=True, dead=False)

    def step(self, action: int) -> Step:
        """Play one primitive action; UsageError after the end of an episode."""
        from lore.envs.crafter.objects import balance, update_objects

        if self.last.is_last:
            raise UsageError("the episode is over", hint="call reset()")
        if not 0 <= action < len(self._actions):
            raise BadInput(f"action {action} is not in 0..{len(self._actions) - 1}")
        world, player = self._world, self._player
        self._steps += 1
        world.daylight = _daylight(self._steps)
        player.action = self._actions[action]
        update_objects(world, player, _REACH)
        if self._steps % 10 == 0:
            balance(world, player)
        reward = (player.health - self._last_health) / 10
        self._last_health = player.health
        if self._count():
            done = self._counts > 0
            if (done & ~self._unlocked).any():
                reward += 1.0
            self._unlocked |= done
        return self._observe(reward, is_first=False, dead=player.health <= 0)

    def render(self) -> np.ndarray:
        """uint8[64, 64, 3]: the last frame; painted on demand without pixels, from the draws already made."""
        step = self.last
        return step.image if step.image is not None else self._paint(*self._crop())

    def unseen_changed(self, rng: np.random.Generator) -> np.ndarray:
        """The packed state after the ground outside the view was exchanged at random: for the conformance suite."""
        world, (x, y) = self._world, self._player.pos.tolist()
        width, height = self.spec.vocab.view
        ground = world._mat_map.copy()
        world._mat_map[:] = rng.integers(1, ground.max() + 1, ground.shape)
        near = np.s_[max(0, x - width // 2) : x + width // 2 + 1, max(0, y - height // 2) : y + height // 2 + 1]
        world._mat_map[near] = ground[near]
        random = world.random.get_state()
        state = self._observe(0.0, is_first=False, dead=False).state
        world.random.set_state(random)
        return state

    def state_dict(self) -> dict[str, Any]:
        """The whole game as JSON values: seed, counters, world with all hidden fields, and the last step."""
        from lore.envs.crafter.world import save_world

        step = self.last
        arrays = {"state": step.state, "image": step.image, "noise": self._noise}
        return {
            "version": 1,
            "seed": self._seed,
            "episode": self._episode,
            "steps": self._steps,
            "length": self._length,
            "last_health": int(self._last_health),
            "unlocked": self._unlocked.astype(int).tolist(),
            "world": save_world(self._world),
            "reward": float(step.reward),
            "flags": [bool(step.is_first), bool(step.is_last), bool(step.is_terminal)],
        } | {name: None if a is None else _packed(a) for name, a in arrays.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken; CorruptArtifact when it does not fit this game."""
        from lore.envs.crafter.world import load_world

        try:
            if state["version"] != 1:
                raise CorruptArtifact(f"game snapshot of version {state['version']!r}, this program reads 1")
            player = load_world(self._world, state["world"])
            self._player = player
            self._seed, self._episode = int(state["seed"]), int(state["episode"])
            self._steps, self._length = int(state["steps"]), int(state["length"])
            self._last_health = int(state["last_health"])
            self._unlocked[:] = np.array(state["unlocked"], bool)
            self._count()
            self._world.daylight = _daylight(self._steps)
            noise = _unpacked(state["noise"], np.float64, (63, 49))
            self._noise = None if noise is None else noise.copy()  # writable, as the painter was compiled for
            image = _unpacked(state["image"], np.uint8, (64, 64, 3))
            packed = _unpacked(state["state"], np.uint8, (self.spec.layout.size,))
            if image is None and self.pixels:
                image = self._paint(*self._crop())
            assert packed is not None
            first, last, terminal = (bool(flag) for flag in state["flags"])
            self._last = Step(
                packed, image if self.pixels else None, state["reward"], first, last, terminal, self._info()
            )
        except (KeyError, TypeError, ValueError, AssertionError, zlib.error) as error:
            raise CorruptArtifact(f"game snapshot cannot be read: {type(error).__name__}: {error}") from error

    def _count(self) -> bool:
        """Bring the achievement counts up to date; whether they changed."""
        counted = tuple(self._player.achievements.values())
        if counted == self._counted:
            return False
        self._counted, self._counts = counted, np.array(counted, np.int16)
        return True

    def _info(self) -> dict[str, Any]:
        return {"achievements": self._counts.copy(), "episode": self._episode, "length": self._steps}

    def _crop(self) -> tuple[np.ndarray, list[tuple[int, int, Any]]]:
        return self._world.seen(*self._player.pos.tolist())

    def _paint(self, ground: np.ndarray, things: list[tuple[int, int, Any]]) -> np.ndarray:
        player = self._player
        named = [(x, y, thing.texture) for x, y, thing in things]
        counts = tuple(player.inventory.values())
        return self._painter(ground, named, counts, self._world.daylight, player.sleeping, self._noise)

    def _observe(self, reward: float, is_first: bool, dead: bool) -> Step:
        player = self._player
        ground, things = self._crop()
        self._noise = draw_noise(self._world.random, self._world.daylight)
        view = ground.copy()
        for x, y, thing in things:
            view[x, y] = self._ids[type(thing)]
        counts = bytes(player.inventory.values())
        rest = (self._facings[tuple(player.facing)], player.sleeping, round(255 * self._world.daylight))
        packed = b"".join((view.T.tobytes(), counts[_VITALS:], counts[:_VITALS], bytes(rest), self._unlocked.tobytes()))
        image = self._paint(ground, things) if self.pixels else None
        is_last = dead or self._steps >= self._length
        state = np.frombuffer(packed, np.uint8)
        self._last = Step(state, image, float(reward), is_first, is_last, dead, self._info())
        return self._last


def _restored(kind: type, seed: int, area: tuple[int, int], length: int, pixels: bool, snapshot: Any) -> Any:
    game = kind(seed, area, length, pixels)
    if snapshot is not None:
        game.load_state_dict(snapshot)
    return game


@cache
def _daylight(step: int) -> float:
    progress = (step / 300) % 1 + 0.3
    return float(1 - np.abs(np.cos(np.pi * progress)) ** 3)


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 1)).decode("ascii")


def _unpacked(text: str | None, dtype: type, shape: tuple[int, ...]) -> np.ndarray | None:
    if text is None:
        return None
    return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype).reshape(shape)


def make(config: EnvConfig, seed: int) -> CrafterEnv:
    """The environment that a configuration describes."""
    return CrafterEnv(seed, (config.area[0], config.area[1]), config.length, pixels=config.observation == "pixels")
