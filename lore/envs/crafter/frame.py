"""Crafter's 64x64 frame, equal to the stock renderer's byte for byte, painted from cached tiles.

The stock renderer draws its night noise from the world's random stream while it paints. Here the noise is an
argument, so that painting is a pure function of what is seen, and a game without pixels makes the very same draws
(:func:`draw_noise`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

__all__ = ["CELLS", "Painter", "draw_noise", "pictures"]

CELLS = (9, 7)
"""Width and height of the visible world, in cells."""

_UNIT = 7
_CANVAS = (CELLS[0] * _UNIT, CELLS[1] * _UNIT)


def draw_noise(random: np.random.RandomState, daylight: float) -> np.ndarray | None:
    """The draws of one frame: uint8-range noise float64[63, 49] in the dark, nothing by day."""
    return random.uniform(32, 127, _CANVAS) if daylight < 0.5 else None


@cache
def _textures():
    from crafter import constants, engine

    return engine.Textures(constants.root / "assets")


@cache
def _vignette() -> np.ndarray:
    xs, ys = np.meshgrid(np.linspace(-1, 1, _CANVAS[0]), np.linspace(-1, 1, _CANVAS[1]))
    return np.ascontiguousarray((1 - np.exp(-0.5 * (xs**2 + ys**2) / (0.5**2))).T)


@cache
def _fade() -> np.ndarray:
    """uint8[grey, value]: Pillow's own blend of every value with every grey at the night's 0.4 of its colour."""
    from PIL import Image

    values = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    greys = np.ascontiguousarray(values.T)
    return np.array(Image.blend(Image.fromarray(greys), Image.fromarray(values), 0.4))


def _night(tile: np.ndarray) -> np.ndarray:
    from PIL import Image, ImageEnhance

    faded = np.array(ImageEnhance.Color(Image.fromarray(tile)).enhance(0.4))
    return 0.5 * faded + 0.5 * np.array((0, 16, 64))


_NO_NOISE = np.zeros((0, 0))


class Painter:
    """Paints frames; holds the atlas of tiles (material, or object on material) and the inventory panels."""

    def __init__(self, materials: tuple[str, ...], items: tuple[str, ...]) -> None:
        from lore.envs.crafter.kernels import paint

        self._paint = paint
        self._items = items
        self._names = (None, *materials)
        empty = np.full((_UNIT, _UNIT, 3), 127, np.uint8)
        tiles = [empty] + [np.ascontiguousarray(self._texture(n)[..., :3]) for n in materials]
        self._materials = tiles
        self._day = np.zeros((0, _UNIT, 3 * _UNIT), np.uint8)
        self._dark = np.zeros((0, _UNIT, 3 * _UNIT))
        for tile in tiles:
            self._add(tile)
        self._blends: dict[tuple[int, str], int] = {}
        self._panels: dict[tuple[int, ...], np.ndarray] = {}
        self._tiles = np.zeros(CELLS, np.int64)

    @staticmethod
    def _texture(name: str, unit: float = _UNIT) -> np.ndarray:
        return _textures().get(name, np.array([unit, unit]))

    def _add(self, tile: np.ndarray) -> int:
        """Put uint8[7, 7, 3], indexed [x, y], into the atlases; its number there."""
        day, dark = (t.transpose(1, 0, 2).reshape(1, _UNIT, -1) for t in (tile, _night(tile)))
        self._day, self._dark = np.concatenate([self._day, day]), np.concatenate([self._dark, dark])
        return len(self._day) - 1

    def _blend(self, material: int, texture: str) -> int:
        """Number in the atlas of an object's tile on a material."""
        key = material, texture
        if key not in self._blends:
            from crafter import engine

            tile = self._materials[material].copy()
            engine._draw_alpha(tile, np.array([0, 0]), self._texture(texture))
            self._blends[key] = self._add(tile)
        return self._blends[key]

    def _panel(self, counts: tuple[int, ...]) -> np.ndarray:
        """uint8[64, 64, 3]: a frame with nothing but the inventory."""
        if counts not in self._panels:
            from crafter import engine

            if len(self._panels) >= 1024:
                self._panels.clear()
            view = engine.ItemView(_textures(), [CELLS[0], 2])
            panel: np.ndarray = view(dict(zip(self._items, counts, strict=True)), np.array([_UNIT, _UNIT]))
            frame = np.zeros((64, 64, 3), np.uint8)
            frame[_CANVAS[1] : _CANVAS[1] + panel.shape[1], : _CANVAS[0]] = panel.transpose(1, 0, 2)
            self._panels[counts] = frame
        return self._panels[counts]

    def __call__(
        self,
        ground: np.ndarray,
        things: list[tuple[int, int, str]],
        counts: tuple[int, ...],
        daylight: float,
        sleeping: bool,
        noise: np.ndarray | None,
    ) -> np.ndarray:
        """uint8[64, 64, 3]; ``ground`` uint8[9, 7] material ids (0 = outside), ``things`` (x, y, texture) in the
        crop.
        """
        tiles = self._tiles
        tiles[:] = ground
        for x, y, texture in things:
            tiles[x, y] = self._blend(int(ground[x, y]), texture)
        frame = self._panel(counts).copy()
        noise = _NO_NOISE if noise is None else noise
        flat = frame.reshape(64, -1)
        self._paint(flat, tiles, self._day, self._dark, daylight, noise, _vignette(), _fade(), sleeping)
        return frame


_UNDER = {"skeleton": "path", "arrow": "path"}
_TEXTURES = {"arrow": "arrow-right", "player": "player-down"}


def pictures(names: Sequence[str], size: int) -> dict[str, np.ndarray]:
    """Crafter's textures uint8 [size, size, 3], indexed [y, x], of those ``names`` that it has; what walks stands on
    the ground where it is met most."""
    from crafter import constants, engine

    out = {}
    for name in names:
        texture = _TEXTURES.get(name, name)
        if not (constants.root / "assets" / f"{texture}.png").is_file():
            continue
        unit = np.array([size, size])
        tile = np.ascontiguousarray(_textures().get(_UNDER.get(name, "grass"), unit)[..., :3])
        engine._draw_alpha(tile, np.array([0, 0]), _textures().get(texture, unit))
        out[name] = tile.transpose(1, 0, 2)
    return out
