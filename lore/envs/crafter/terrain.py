"""Crafter's world generator for all cells at once, equal to ``crafter.worldgen`` in every cell and every draw.

Noise is a pure function, so its layers are computed ahead; the draws of the random stream, whose number depends on
what they decide, are taken as one block, and the stream is then wound back and forward by those really used.
"""

# The package is untyped; what pyright infers of its attributes is wrong.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
from __future__ import annotations

from typing import Any

import numpy as np
from crafter import objects

from lore.envs.crafter.kernels import fill_noise, fill_terrain, permutation, place_creatures

__all__ = ["Generator"]

_MATERIALS = ("grass", "path", "coal", "iron", "diamond", "lava", "stone", "sand", "water", "tree")
_DRAWS = 5
"""Draws that one cell can use at most: coal, iron and diamond for its material, two for a creature."""


class Generator:
    """Makes worlds of one area."""

    def __init__(self, area: tuple[int, int]) -> None:
        x, y = np.arange(area[0]), np.arange(area[1])
        self._x, self._y = x, y
        # (xs, ys, z) of a layer: coordinates divided in the package's order.
        self._start = x / 3, y / 3, 8
        self._water = (x / 15, y / 15, 3), (x / 5, y / 5, 3)
        self._mountain = (x / 15, y / 15, 0), (x / 5, y / 5, 0)
        rocks = (
            (x / 7, y / 7, 6),
            (2 * x / 3, y / 5 / 3, 7),
            (x / 5 / 3, 2 * y / 3, 7),
            (x / 8, y / 8, 1),
            (x / 6, y / 6, 2),
            (x / 5, y / 5, 6),
        )
        self._layers = (*rocks, (x / 9, y / 9, 4), (x / 7, y / 7, 5))
        self._everywhere = np.ones(area, bool)
        self._noise = np.zeros((len(self._layers), *area))
        self._found = np.zeros((area[0] * area[1], 3), np.int64)

    def __call__(self, world: Any, player: Any) -> None:
        """Fill ``world`` with terrain and first creatures, as ``generate_world(world, player)`` does."""
        tables = permutation(world.random.randint(0, 2**31 - 1))
        px, py = (int(v) for v in player.pos)
        start, water, mountain = self._fields(px, py, tables)
        rock = (start <= 0.5) & (mountain > 0.15)
        rest = (start <= 0.5) & (mountain <= 0.15)
        shore = rest & (water > 0.25) & (water <= 0.35)
        masks = (rock & (mountain > 0.3), rock, rock, rock, rock, rock & (mountain > 0.3), shore, rest & (water <= 0.3))
        for out, layer, mask in zip(self._noise, self._layers, masks, strict=True):
            fill_noise(out, *layer, mask, *tables)
        ids = tuple(world._mat_ids[name] for name in _MATERIALS)
        tunnels = np.zeros(start.shape, bool)
        before = world.random.get_state(legacy=False)
        draws = world.random.random_sample(_DRAWS * start.size)
        used = fill_terrain(world._mat_map, tunnels, start, water, mountain, self._noise, draws, ids)
        count, used = place_creatures(world._mat_map, tunnels, px, py, draws, used, ids, self._found)
        world.random.set_state(before)
        world.random.random_sample(used)
        for kind, x, y in self._found[:count].tolist():
            if kind == 0:
                world.add(objects.Cow(world, (x, y)))
            else:
                world.add((objects.Zombie if kind == 1 else objects.Skeleton)(world, (x, y), player))

    def _fields(self, px: int, py: int, tables: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, ...]:
        start = 4 - np.sqrt((self._x[:, None] - px) ** 2 + (self._y[None, :] - py) ** 2)
        start += 2 * self._layer(self._start, tables)
        start = 1 / (1 + np.exp(-start))
        wide, fine = (self._layer(layer, tables) for layer in self._water)
        water = (wide + 0.15 * fine) + 0.1
        water -= 2 * start
        wide, fine = (self._layer(layer, tables) for layer in self._mountain)
        mountain = (wide + 0.3 * fine) / (1 + 0.3)
        mountain -= 4 * start + 0.3 * water
        return start, water, mountain

    def _layer(self, layer: tuple[np.ndarray, np.ndarray, int], tables: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        out = np.empty(self._everywhere.shape)
        fill_noise(out, *layer, self._everywhere, *tables)
        return out
