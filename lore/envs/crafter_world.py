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

from lore_datasets.errors import CorruptArtifact

__all__ = ["KINDS", "OrderedWorld", "balance", "load_world", "save_world", "update_objects"]

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


class OrderedWorld(engine.World):
    """``crafter.engine.World`` whose chunks iterate in insertion order."""

    def reset(self, seed: int | None = None) -> None:
        super().reset(seed)
        self._chunks = collections.defaultdict(_OrderedSet)


def update_objects(world: OrderedWorld, player: objects.Player, reach: int) -> None:
    """Update the player, then all objects closer than ``reach`` (L1), in the order of the object list.

    The player is the first object and the only one whose move changes a distance to the player, so looking the
    neighbours up once after its update gives the same calls as the stock loop over all objects.
    """
    before = len(world._objects)
    player.update()
    x, y = int(player.pos[0]), int(player.pos[1])
    left, top = max(0, x - reach + 1), max(0, y - reach + 1)
    block = world._obj_map[left : x + reach, top : y + reach]
    xs, ys = np.nonzero(block)
    close = np.abs(xs + (left - x)) + np.abs(ys + (top - y)) < reach
    indices = block[xs[close], ys[close]]
    indices.sort()
    nearby = [world._objects[i] for i in indices.tolist() if i < before]
    for thing in nearby:
        if thing is not player:
            thing.update()


def balance(world: OrderedWorld, player: objects.Player) -> None:
    """Spawn and despawn per chunk as ``crafter.Env._balance_chunk`` does, draw for draw."""
    light = world.daylight
    grass, path = world._mat_ids["grass"], world._mat_ids["path"]
    for chunk, members in list(world._chunks.items()):
        xmin, xmax, ymin, ymax = chunk
        region = world._mat_map[xmin:xmax, ymin:ymax]
        space = int(np.count_nonzero(region == grass))
        caves = int(np.count_nonzero(region == path))
        zombies = (0 if space < 50 else 3.5 - 3 * light, 3.5 - 3 * light)
        skeletons = (0 if caves < 6 else 1, 2)
        cows = (0 if space < 30 else 1, 1.5 + light)
        here = world, player, chunk, members
        _balance_kind(*here, objects.Zombie, grass, 6, 0, 0.3, 0.4, zombies)
        _balance_kind(*here, objects.Skeleton, path, 7, 7, 0.1, 0.1, skeletons)
        _balance_kind(*here, objects.Cow, grass, 5, 5, 0.01, 0.1, cows)


def _balance_kind(
    world: OrderedWorld,
    player: objects.Player,
    chunk: tuple[int, int, int, int],
    members: _OrderedSet,
    cls: type,
    material: int,
    spawn_distance: int,
    despawn_distance: int,
    spawn_probability: float,
    despawn_probability: float,
    target: tuple[float, float],
) -> None:
    creatures = [thing for thing in members if type(thing) is cls]
    random = world.random
    if len(creatures) < int(target[0]) and random.uniform() < spawn_probability:
        xmin, xmax, ymin, ymax = chunk
        xs, ys = np.nonzero(world._mat_map[xmin:xmax, ymin:ymax] == material)
        i = random.randint(0, len(xs))
        pos = np.array((xs[i] + xmin, ys[i] + ymin))
        if world[pos][1] is None and player.distance(pos) >= spawn_distance:
            world.add(cls(world, pos) if cls is objects.Cow else cls(world, pos, player))
    elif len(creatures) > int(target[1]) and random.uniform() < despawn_probability:
        thing = creatures[random.randint(0, len(creatures))]
        if player.distance(thing.pos) >= despawn_distance:
            world.remove(thing)


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
