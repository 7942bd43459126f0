"""The compiled loops of the fast game: noise fields, terrain, what is near the player, frames.

Every expression keeps the operation order of the package, so that the results agree to the last bit; numba contracts
and reorders nothing unless asked to. Compiled code is kept beside this file where that folder can be written.
"""

# numba and opensimplex are untyped.
# pyright: reportMissingTypeStubs=false
from __future__ import annotations

import math

import numpy as np
from opensimplex.internals import _noise3

from lore.compiled import njit

__all__ = [
    "count_cells",
    "fill_noise",
    "fill_terrain",
    "find_near",
    "find_seen",
    "paint",
    "permutation",
    "place_creatures",
]


@njit(cache=True)
def permutation(seed):
    """(int64[256], int64[256]) tables of the noise of one seed, as ``opensimplex`` makes them."""
    perm = np.zeros(256, np.int64)
    gradients = np.zeros(256, np.int64)
    source = np.arange(256)
    a, b = np.int64(6364136223846793005), np.int64(1442695040888963407)
    seed = np.int64(seed)
    for _ in range(3):
        seed = seed * a + b
    for i in range(255, -1, -1):
        seed = seed * a + b
        r = (seed % (i + 1) + 31) % (i + 1)
        perm[i] = source[r]
        gradients[i] = perm[i] % 24 * 3
        source[r] = source[i]
    return perm, gradients


@njit(cache=True)
def fill_noise(out, xs, ys, z, mask, perm, gradients):
    """Noise at (xs[i], ys[j], z) into ``out`` float64[W, H] where ``mask`` is set; the rest stays as it was.

    The only place that calls the noise: its code is large, and every further place would be compiled again.
    """
    for i in range(len(xs)):
        for j in range(len(ys)):
            if mask[i, j]:
                out[i, j] = _noise3(xs[i], ys[j], z, perm, gradients)


@njit(cache=True)
def fill_terrain(terrain, tunnels, start, water, mountain, noise, draws, ids):
    """Fill ``terrain`` uint8[W, H] and ``tunnels`` bool[W, H] and return how many of ``draws`` were used.

    ``noise`` float64[8, W, H] holds cave, horizontal and vertical tunnel, coal, iron, lava, sand and tree layers,
    ``ids`` the numbers of grass, path, coal, iron, diamond, lava, stone, sand, water and tree.
    """
    grass, path, coal, iron, diamond, lava, stone, sand, sea, tree = ids
    used = 0
    width, height = terrain.shape
    for x in range(width):
        for y in range(height):
            wet, high = water[x, y], mountain[x, y]
            if start[x, y] > 0.5:
                terrain[x, y] = grass
            elif high > 0.15:
                if noise[0, x, y] > 0.15 and high > 0.3:
                    terrain[x, y] = path
                    continue
                if noise[1, x, y] > 0.4 or noise[2, x, y] > 0.4:
                    terrain[x, y] = path
                    tunnels[x, y] = True
                    continue
                if noise[3, x, y] > 0:
                    used += 1
                    if draws[used - 1] > 0.85:
                        terrain[x, y] = coal
                        continue
                if noise[4, x, y] > 0.4:
                    used += 1
                    if draws[used - 1] > 0.75:
                        terrain[x, y] = iron
                        continue
                if high > 0.18:
                    used += 1
                    if draws[used - 1] > 0.994:
                        terrain[x, y] = diamond
                        continue
                terrain[x, y] = lava if high > 0.3 and noise[5, x, y] > 0.35 else stone
            elif 0.25 < wet <= 0.35 and noise[6, x, y] > -0.2:
                terrain[x, y] = sand
            elif wet > 0.3:
                terrain[x, y] = sea
            else:
                terrain[x, y] = grass
                if noise[7, x, y] > 0:
                    used += 1
                    if draws[used - 1] > 0.8:
                        terrain[x, y] = tree
    return used


@njit(cache=True)
def place_creatures(terrain, tunnels, px, py, draws, used, ids, found):
    """Write (kind, x, y) rows of the first creatures into ``found``; returns how many and the draws used by now.

    Kinds: 0 cow, 1 zombie, 2 skeleton. ``draws`` continues at ``used``.
    """
    grass, path, sand = ids[0], ids[1], ids[7]
    count = 0
    width, height = terrain.shape
    for x in range(width):
        for y in range(height):
            material = terrain[x, y]
            if material != grass and material != path and material != sand:
                continue
            distance = math.sqrt(float((x - px) ** 2 + (y - py) ** 2))
            kind = -1
            if distance > 3 and material == grass:
                used += 1
                if draws[used - 1] > 0.985:
                    kind = 0
            if kind < 0 and distance > 10:
                used += 1
                if draws[used - 1] > 0.993:
                    kind = 1
            if kind < 0 and material == path and tunnels[x, y]:
                used += 1
                if draws[used - 1] > 0.95:
                    kind = 2
            if kind >= 0:
                found[count, 0], found[count, 1], found[count, 2] = kind, x, y
                count += 1
    return count, used


@njit(cache=True)
def find_near(numbers, x, y, reach, found):
    """Write the object numbers closer than ``reach`` (L1) to (x, y) into ``found``, ascending; returns how many."""
    width, height = numbers.shape
    count = 0
    for i in range(max(0, x - reach + 1), min(width, x + reach)):
        spare = reach - 1 - abs(i - x)
        for j in range(max(0, y - spare), min(height, y + spare + 1)):
            number = numbers[i, j]
            if number:
                k = count
                while k > 0 and found[k - 1] > number:
                    found[k] = found[k - 1]
                    k -= 1
                found[k] = number
                count += 1
    return count


@njit(cache=True)
def find_seen(numbers, found):
    """Write the (x, y, number) of all objects in the crop ``numbers`` into ``found``; returns how many."""
    count = 0
    for x in range(numbers.shape[0]):
        for y in range(numbers.shape[1]):
            if numbers[x, y]:
                found[count, 0], found[count, 1], found[count, 2] = x, y, numbers[x, y]
                count += 1
    return count


@njit(cache=True)
def count_cells(terrain, first, second, width, height, counts):
    """Fill ``counts`` int64[CX, CY, 2] with the cells of two materials in each chunk of ``width`` x ``height``."""
    counts[:] = 0
    for x in range(terrain.shape[0]):
        for y in range(terrain.shape[1]):
            if terrain[x, y] == first:
                counts[x // width, y // height, 0] += 1
            elif terrain[x, y] == second:
                counts[x // width, y // height, 1] += 1


@njit(cache=True)
def _grey(r, g, b):
    """Pillow's integer luminance."""
    return (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16


@njit(cache=True)
def paint(frame, tiles, day, dark, daylight, noise, vignette, fade, sleeping):
    """Paint the world part of ``frame`` uint8[64, 192] from ``tiles`` int64[9, 7], which are places in the atlases
    ``day`` uint8[K, 7, 21] and ``dark`` float64[K, 7, 21], indexed [tile, y, 3 * x + channel].

    By day ``noise`` has no cells and night colours come from ``dark``; otherwise ``noise`` float64[63, 49] is mixed in
    by ``vignette``, and the result is faded by Pillow's rounding, ``fade`` uint8[grey, value].
    """
    columns, rows = tiles.shape
    unit = day.shape[1]
    night = 1 - daylight
    if noise.size == 0 and not sleeping:
        for row in range(rows * unit):
            for tx in range(columns):
                tile, j, first = tiles[tx, row // unit], row % unit, tx * unit * 3
                for k in range(unit * 3):
                    frame[row, first + k] = np.uint8(np.int32(daylight * day[tile, j, k] + night * dark[tile, j, k]))
        return
    for y in range(rows * unit):
        for tx in range(columns):
            tile, j = tiles[tx, y // unit], y % unit
            for i in range(unit):
                x, k = tx * unit + i, 3 * i
                r0, g0, b0 = day[tile, j, k], day[tile, j, k + 1], day[tile, j, k + 2]
                r, g, b = dark[tile, j, k], dark[tile, j, k + 1], dark[tile, j, k + 2]
                if noise.size:
                    mask = 2 * (0.5 - daylight) * vignette[x, y]
                    mixed = mask * noise[x, y]
                    red, green = np.int32((1 - mask) * r0 + mixed), np.int32((1 - mask) * g0 + mixed)
                    blue = np.int32((1 - mask) * b0 + mixed)
                    grey = _grey(red, green, blue)
                    r = 0.5 * fade[grey, red]
                    g, b = 0.5 * fade[grey, green] + 8.0, 0.5 * fade[grey, blue] + 32.0
                r, g, b = daylight * r0 + night * r, daylight * g0 + night * g, daylight * b0 + night * b
                if sleeping:
                    r = g = 0.5 * _grey(np.int32(r), np.int32(g), np.int32(b))
                    b = r + 8.0
                frame[y, 3 * x] = np.uint8(np.int32(r))
                frame[y, 3 * x + 1] = np.uint8(np.int32(g))
                frame[y, 3 * x + 2] = np.uint8(np.int32(b))
