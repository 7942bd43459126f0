"""What the player and the creatures do in one step, equal to ``crafter.objects`` and ``Env._balance_chunk`` draw for
draw.

Positions are plain ints and cells are read from flat memory with a margin around the map, in which nothing lies and
nobody may walk; rare effects (collecting, fighting, placing, making) are the package's own methods, called once their
conditions hold.
"""

# The package is untyped; what pyright infers of its attributes is wrong.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from crafter import constants, objects

from lore.envs.crafter.kernels import count_cells, find_near

if TYPE_CHECKING:
    from lore.envs.crafter.world import OrderedWorld

__all__ = ["balance", "update_objects"]

_DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1))
_MOVES = {"move_left": (-1, 0), "move_right": (1, 0), "move_up": (0, -1), "move_down": (0, 1)}
_PLACED = {f"place_{name}": (name, info) for name, info in constants.place.items()}
_MADE = {f"make_{name}": (name, info) for name, info in constants.make.items()}
_LIMITS = [(name, info["max"]) for name, info in constants.items.items()]
_LEAST_LIMIT = min(limit for _, limit in _LIMITS)
_FULL_ENERGY = constants.items["energy"]["max"]
_ENEMIES = (objects.Zombie, objects.Skeleton, objects.Cow)


def update_objects(world: OrderedWorld, player: objects.Player, reach: int) -> None:
    """Update the player, then all objects closer than ``reach`` (L1), in the order of the object list.

    The player is the first object and the only one whose move changes a distance to the player, so looking the
    neighbours up once after its update gives the same calls as the stock loop over all objects.
    """
    before = len(world._objects)
    _update_player(world, player)
    x, y = player.pos.tolist()
    count = find_near(world._obj_map, x, y, reach, world.found)
    things = world._objects
    for number in world.found[:count].tolist():
        thing = things[number]
        if number < before and thing is not player:
            _UPDATES[type(thing)](world, thing, x, y)


def _try_move(world: OrderedWorld, thing: Any, x: int, y: int, dx: int, dy: int, walkable: bytes) -> bool:
    """Move from (x, y) if the target is free; a removed thing stays but counts as moved, as in the package."""
    at = world.cell(x + dx, y + dy)
    if world.occupied[at] or not walkable[world.ground[at]]:
        return False
    if not thing.removed:
        world.shift(thing, x, y, x + dx, y + dy)
    return True


def _toward(dx: int, dy: int, long_axis: bool) -> tuple[int, int]:
    if abs(dx) > abs(dy) if long_axis else abs(dx) <= abs(dy):
        return (dx > 0) - (dx < 0), 0
    return 0, (dy > 0) - (dy < 0)


def _update_player(world: OrderedWorld, player: objects.Player) -> None:
    inventory, action = player.inventory, player.action
    x, y = player.pos.tolist()
    dx, dy = player.facing
    target = x + dx, y + dy
    at = world.cell(*target)
    thing = world._objects[world.occupied[at]]
    if player.sleeping:
        if inventory["energy"] < _FULL_ENERGY:
            action = "sleep"
        else:
            player.sleeping = False
            player.achievements["wake_up"] += 1
    if action in _MOVES:
        player.facing = dx, dy = _MOVES[action]
        if _try_move(world, player, x, y, dx, dy, world.walked_by_player):
            x, y = x + dx, y + dy
        if world.ground[world.cell(x, y)] == world.lava:
            player.health = 0
    elif action == "do":
        if thing:
            player._do_object(thing)
        else:
            player._do_material(target, world._mat_names[world.ground[at]])
    elif action == "sleep":
        if inventory["energy"] < _FULL_ENERGY:
            player.sleeping = True
    elif action in _PLACED:
        name, info = _PLACED[action]
        material = world._mat_names[world.ground[at]]
        if not thing and material in info["where"] and _has(inventory, info["uses"]):
            player._place(name, target, material)
    elif action in _MADE:
        name, info = _MADE[action]
        if _has(inventory, info["uses"]):
            player._make(name)
    _update_vitals(player, inventory)
    if min(inventory.values()) < 0 or max(inventory.values()) > _LEAST_LIMIT:
        for name, limit in _LIMITS:
            inventory[name] = max(0, min(inventory[name], limit))
    health = inventory["health"]
    if health < player._last_health:
        player.sleeping = False
    player._last_health = health


def _has(inventory: dict[str, int], uses: dict[str, int]) -> bool:
    return all(inventory[name] >= amount for name, amount in uses.items())


def _update_vitals(player: objects.Player, inventory: dict[str, int]) -> None:
    sleeping = player.sleeping
    player._hunger += 0.5 if sleeping else 1
    if player._hunger > 25:
        player._hunger = 0
        inventory["food"] -= 1
    player._thirst += 0.5 if sleeping else 1
    if player._thirst > 20:
        player._thirst = 0
        inventory["drink"] -= 1
    player._fatigue = min(player._fatigue - 1, 0) if sleeping else player._fatigue + 1
    if player._fatigue < -10:
        player._fatigue = 0
        inventory["energy"] += 1
    if player._fatigue > 30:
        player._fatigue = 0
        inventory["energy"] -= 1
    if inventory["food"] > 0 and inventory["drink"] > 0 and (sleeping or inventory["energy"] > 0):
        player._recover += 2 if sleeping else 1
    else:
        player._recover -= 0.5 if sleeping else 1
    if player._recover > 25:
        player._recover = 0
        player.health += 1
    if player._recover < -15:
        player._recover = 0
        player.health -= 1


def _update_cow(world: OrderedWorld, cow: objects.Cow, px: int, py: int) -> None:
    if cow.inventory["health"] <= 0:
        world.remove(cow)
    if world.uniform() < 0.5:
        x, y = cow.pos.tolist()
        _try_move(world, cow, x, y, *_DIRECTIONS[world.raw() & 3], world.walked)


def _update_zombie(world: OrderedWorld, zombie: objects.Zombie, px: int, py: int) -> None:
    if zombie.inventory["health"] <= 0:
        world.remove(zombie)
    x, y = zombie.pos.tolist()
    if abs(px - x) + abs(py - y) <= 8 and world.uniform() < 0.9:
        dx, dy = _toward(px - x, py - y, world.uniform() < 0.8)
    else:
        dx, dy = _DIRECTIONS[world.raw() & 3]
    if _try_move(world, zombie, x, y, dx, dy, world.walked) and not zombie.removed:
        x, y = x + dx, y + dy
    if abs(px - x) + abs(py - y) <= 1:
        if zombie.cooldown:
            zombie.cooldown -= 1
        else:
            zombie.player.health -= 7 if zombie.player.sleeping else 2
            zombie.cooldown = 5


def _update_skeleton(world: OrderedWorld, skeleton: objects.Skeleton, px: int, py: int) -> None:
    if skeleton.inventory["health"] <= 0:
        world.remove(skeleton)
    skeleton.reload = max(0, skeleton.reload - 1)
    x, y = skeleton.pos.tolist()
    dx, dy = px - x, py - y
    distance = abs(dx) + abs(dy)
    if distance <= 3:
        mx, my = _toward(dx, dy, world.uniform() < 0.6)
        if _try_move(world, skeleton, x, y, -mx, -my, world.walked):
            return
    if distance <= 5 and world.uniform() < 0.5:
        _shoot(world, skeleton, x, y, *_toward(dx, dy, True))
    elif distance <= 8 and world.uniform() < 0.3:
        _try_move(world, skeleton, x, y, *_toward(dx, dy, world.uniform() < 0.6), world.walked)
    elif world.uniform() < 0.2:
        _try_move(world, skeleton, x, y, *_DIRECTIONS[world.raw() & 3], world.walked)


def _shoot(world: OrderedWorld, skeleton: objects.Skeleton, x: int, y: int, dx: int, dy: int) -> None:
    if skeleton.reload > 0 or (dx == 0 and dy == 0):
        return
    at = world.cell(x + dx, y + dy)
    if not world.occupied[at] and world.flown[world.ground[at]]:
        world.add(objects.Arrow(world, (x + dx, y + dy), np.array((dx, dy))))
        skeleton.reload = 4


def _update_arrow(world: OrderedWorld, arrow: objects.Arrow, px: int, py: int) -> None:
    x, y = arrow.pos.tolist()
    dx, dy = arrow.facing.tolist()
    at = world.cell(x + dx, y + dy)
    thing = world._objects[world.occupied[at]]
    if thing:
        thing.health -= 2
        world.remove(arrow)
    elif not world.flown[world.ground[at]]:
        world.remove(arrow)
        if world._mat_names[world.ground[at]] in ("table", "furnace"):
            world[x + dx, y + dy] = "path"
    else:
        _try_move(world, arrow, x, y, dx, dy, world.flown)


def _update_plant(world: OrderedWorld, plant: objects.Plant, px: int, py: int) -> None:
    plant.grown += 1
    x, y = plant.pos.tolist()
    around = (world._objects[world.occupied[world.cell(x + dx, y + dy)]] for dx, dy in _DIRECTIONS)
    if any(isinstance(thing, _ENEMIES) for thing in around):
        plant.health -= 1
    if plant.inventory["health"] <= 0:
        world.remove(plant)


_UPDATES: dict[type, Callable[[OrderedWorld, Any, int, int], None]] = {
    objects.Cow: _update_cow,
    objects.Zombie: _update_zombie,
    objects.Skeleton: _update_skeleton,
    objects.Arrow: _update_arrow,
    objects.Plant: _update_plant,
}


def balance(world: OrderedWorld, player: objects.Player) -> None:
    """Spawn and despawn per chunk as ``crafter.Env._balance_chunk`` does, draw for draw."""
    light = world.daylight
    grass, path = world._mat_ids["grass"], world._mat_ids["path"]
    width, height = world._chunk_size
    count_cells(world._mat_map, grass, path, width, height, world.cells)
    cells, uniform = world.cells.tolist(), world.uniform
    most_zombies, most_cows = int(3.5 - 3 * light), int(1.5 + light)
    for chunk, members in list(world._chunks.items()):
        kinds = [type(thing) for thing in members]
        space, caves = cells[chunk[0] // width][chunk[2] // height]
        found = kinds.count(objects.Zombie)
        if space >= 50 and found < most_zombies and uniform() < 0.3:
            _spawn(world, player, chunk, objects.Zombie, grass, 6)
        elif found > most_zombies and uniform() < 0.4:
            _despawn(world, player, members, objects.Zombie, 0)
        found = kinds.count(objects.Skeleton)
        if caves >= 6 and found < 1 and uniform() < 0.1:
            _spawn(world, player, chunk, objects.Skeleton, path, 7)
        elif found > 2 and uniform() < 0.1:
            _despawn(world, player, members, objects.Skeleton, 7)
        found = kinds.count(objects.Cow)
        if space >= 30 and found < 1 and uniform() < 0.01:
            _spawn(world, player, chunk, objects.Cow, grass, 5)
        elif found > most_cows and uniform() < 0.1:
            _despawn(world, player, members, objects.Cow, 5)


def _spawn(
    world: OrderedWorld, player: objects.Player, chunk: tuple[int, ...], cls: type, material: int, distance: int
) -> None:
    xmin, xmax, ymin, ymax = chunk
    xs, ys = np.nonzero(world._mat_map[xmin:xmax, ymin:ymax] == material)
    i = world.random.randint(0, len(xs))
    pos = np.array((xs[i] + xmin, ys[i] + ymin))
    if world[pos][1] is None and player.distance(pos) >= distance:
        world.add(cls(world, pos) if cls is objects.Cow else cls(world, pos, player))


def _despawn(world: OrderedWorld, player: objects.Player, members: Any, cls: type, distance: int) -> None:
    creatures = [thing for thing in members if type(thing) is cls]
    thing = creatures[world.random.randint(0, len(creatures))]
    if player.distance(thing.pos) >= distance:
        world.remove(thing)
