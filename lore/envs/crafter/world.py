"""Crafter's world made reproducible: chunks that keep insertion order, and a snapshot of everything hidden.

Stock Crafter keeps the creatures of a chunk in a ``set`` hashed by address, so that the same seed and actions part
ways between processes. Ordered chunks change nothing else: the draws and their meaning stay those of the package.
"""

# The package is untyped; what pyright infers of its attributes is wrong.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
from __future__ import annotations

import base64
import collections
from typing import Any

import numpy as np
from crafter import constants, engine, objects

from lore.envs.crafter.kernels import find_seen
from lore_datasets.errors import CorruptArtifact

__all__ = ["KINDS", "OrderedWorld", "load_world", "save_world"]

KINDS = (objects.Player, objects.Cow, objects.Zombie, objects.Skeleton, objects.Arrow, objects.Plant)
"""Object classes in the order of their view ids, which follow the materials."""

_NAMES = {cls: cls.__name__.lower() for cls in KINDS}
_HIDDEN = {
    "player": ("facing", "sleeping", "achievements", "_last_health", "_hunger", "_thirst", "_fatigue", "_recover"),
    "cow": (),
    "zombie": ("cooldown",),
    "skeleton": ("reload",),
    "arrow": ("facing",),
    "plant": ("grown",),
}


class _OrderedSet(dict):
    """A set in insertion order with the two methods that the world calls."""

    def add(self, item: Any) -> None:
        self[item] = None

    def remove(self, item: Any) -> None:
        del self[item]


_MARGIN = (4, 3)
"""Empty cells around the map: half the visible crop, so that a crop never leaves the arrays."""

_FOUND = 2048
"""Room for the numbers of all objects in reach."""


class OrderedWorld(engine.World):
    """``crafter.engine.World`` whose chunks iterate in insertion order, on arrays with an empty margin.

    ``ground`` (material ids) and ``occupied`` (object numbers) are flat views of those arrays, addressed by
    :meth:`cell`; ``_mat_map`` and ``_obj_map`` are the same memory without the margin.
    """

    def __init__(self, area: tuple[int, int], materials: list[str], chunk_size: tuple[int, int]) -> None:
        super().__init__(area, materials, chunk_size)
        walkable = set(constants.walkable)
        self.walked = self._flags(walkable)
        self.walked_by_player = self._flags(walkable | {"lava"})
        self.flown = self._flags(walkable | {"water", "lava"})
        self.lava = self._mat_ids["lava"]
        self.found = np.zeros(_FOUND, np.int64)
        self._places = np.zeros(((2 * _MARGIN[0] + 1) * (2 * _MARGIN[1] + 1), 3), np.int64)
        self.cells = np.zeros((-(-area[0] // chunk_size[0]), -(-area[1] // chunk_size[1]), 2), np.int64)

    def _flags(self, names: set[str]) -> bytes:
        return bytes(self._mat_names[i] in names for i in range(len(self._mat_names)))

    def reset(self, seed: int | None = None) -> None:
        super().reset(seed)
        self._chunks = collections.defaultdict(_OrderedSet)
        (mx, my), (width, height) = _MARGIN, self.area
        shape = width + 2 * mx, height + 2 * my
        self.padded_ground = np.zeros(shape, np.uint8)
        self.padded_numbers = np.zeros(shape, np.uint32)
        self._mat_map = self.padded_ground[mx:-mx, my:-my]
        self._obj_map = self.padded_numbers[mx:-mx, my:-my]
        self.ground = memoryview(self.padded_ground.reshape(-1))
        self.occupied = memoryview(self.padded_numbers.reshape(-1))
        self._stride, self._first = shape[1], mx * shape[1] + my
        self.uniform = self.random.random_sample  # one draw of uniform()
        self.raw = self.random._bit_generator.random_raw  # its two lowest bits are one draw of randint(0, 4)

    def cell(self, x: int, y: int) -> int:
        """Index of (x, y) in ``ground`` and ``occupied``; at most the margin outside the map."""
        return self._first + x * self._stride + y

    def seen(self, x: int, y: int) -> tuple[np.ndarray, list[tuple[int, int, Any]]]:
        """The crop around (x, y): material ids uint8[9, 7] indexed [x, y] (0 = outside; not a copy) and the objects in
        it with their place.
        """
        width, height = 2 * _MARGIN[0] + 1, 2 * _MARGIN[1] + 1
        count = find_seen(self.padded_numbers[x : x + width, y : y + height], self._places)
        things = [(i, j, self._objects[number]) for i, j, number in self._places[:count].tolist()]
        return self.padded_ground[x : x + width, y : y + height], things

    def shift(self, thing: Any, x: int, y: int, to_x: int, to_y: int) -> None:
        """Move a thing that stands at (x, y) to a free cell, as ``World.move`` does."""
        here = self.cell(x, y)
        self.occupied[self.cell(to_x, to_y)] = self.occupied[here]
        self.occupied[here] = 0
        width, height = self._chunk_size
        if x // width != to_x // width or y // height != to_y // height:
            self._chunks[self.chunk_key((x, y))].remove(thing)
            self._chunks[self.chunk_key((to_x, to_y))].add(thing)
        thing.pos = np.array((to_x, to_y))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return dict(value) if isinstance(value, dict) else value


def _bytes(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _array(text: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    data = base64.b64decode(text, validate=True)
    if len(data) != np.dtype(dtype).itemsize * int(np.prod(shape)):
        raise CorruptArtifact(f"world snapshot: {len(data)} bytes for {dtype}{list(shape)}")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def save_world(world: OrderedWorld) -> dict[str, Any]:
    """Terrain, objects in order with their hidden fields, chunk order and the random stream, as JSON values."""
    things = world.objects
    number = {id(thing): i for i, thing in enumerate(things)}
    _, key, position, has_gauss, gauss = world.random.get_state()
    return {
        "area": list(world.area),
        "materials": _bytes(world._mat_map),
        "objects": [
            {"kind": (kind := _NAMES[type(t)]), "pos": _plain(t.pos), "inventory": _plain(t.inventory)}
            | {name: _plain(getattr(t, name)) for name in _HIDDEN[kind]}
            for t in things
        ],
        "chunks": [[_plain(chunk), [number[id(t)] for t in members]] for chunk, members in world._chunks.items()],
        "random": [_bytes(key.astype("<u4")), int(position), int(has_gauss), float(gauss)],
    }


def load_world(world: OrderedWorld, state: dict[str, Any]) -> objects.Player:
    """Put a snapshot back into ``world`` and return its player; CorruptArtifact when it does not fit."""
    try:
        return _load_world(world, state)
    except (KeyError, TypeError, ValueError, IndexError, AssertionError, StopIteration) as error:
        raise CorruptArtifact(f"world snapshot cannot be read: {type(error).__name__}: {error}") from error


def _load_world(world: OrderedWorld, state: dict[str, Any]) -> objects.Player:
    if list(state["area"]) != list(world.area):
        raise CorruptArtifact(f"world snapshot of area {state['area']}, this world has {list(world.area)}")
    world.reset()
    world._mat_map[:] = _array(state["materials"], "u1", tuple(world.area))
    classes = {name: cls for cls, name in _NAMES.items()}
    player = objects.Player(world, next(o["pos"] for o in state["objects"] if o["kind"] == "player"))
    things = []
    for saved in state["objects"]:
        thing = player if saved["kind"] == "player" else _create(classes[saved["kind"]], world, player, saved)
        world.add(thing)
        things.append(thing)
        thing.inventory = dict(saved["inventory"])
        for name in _HIDDEN[saved["kind"]]:
            value = saved[name]
            setattr(thing, name, tuple(value) if name == "facing" and thing is player else value)
        if saved["kind"] == "arrow":
            thing.facing = np.array(saved["facing"])
    player.achievements = {name: int(player.achievements[name]) for name in constants.achievements}
    world._chunks.clear()
    for chunk, members in state["chunks"]:
        world._chunks[tuple(chunk)].update((things[i], None) for i in members)
    key, position, has_gauss, gauss = state["random"]
    world.random.set_state(("MT19937", _array(key, "<u4", (624,)), position, has_gauss, gauss))
    return player


def _create(cls: type, world: OrderedWorld, player: objects.Player, saved: dict[str, Any]) -> Any:
    if cls in (objects.Zombie, objects.Skeleton):
        return cls(world, saved["pos"], player)
    return cls(world, saved["pos"], saved["facing"]) if cls is objects.Arrow else cls(world, saved["pos"])
