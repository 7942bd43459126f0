"""Crafter's 64x64 frame, equal to the stock renderer's byte for byte, painted from cached tiles.

The stock renderer draws its night noise from the world's random stream while it paints. Here the noise is an
argument, so that painting is a pure function of what is seen, and a game without pixels makes the very same draws
(:func:`draw_noise`).
"""

from __future__ import annotations

from functools import cache

import numpy as np

__all__ = ["CELLS", "Painter", "draw_noise"]

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
    return (1 - np.exp(-0.5 * (xs**2 + ys**2) / (0.5**2))).T


def _saturate(canvas: np.ndarray, amount: float) -> np.ndarray:
    from PIL import Image, ImageEnhance

    return np.array(ImageEnhance.Color(Image.fromarray(canvas.astype(np.uint8))).enhance(amount))


def _tint(canvas: np.ndarray, color: tuple[int, int, int], amount: float) -> np.ndarray:
    return (1 - amount) * canvas + amount * np.array(color)


def _night(canvas: np.ndarray) -> np.ndarray:
    return _tint(_saturate(canvas, 0.4), (0, 16, 64), 0.5)


class Painter:
    """Paints frames; holds the caches of tiles (material, or object on material) and of inventory panels."""

    def __init__(self, materials: tuple[str, ...], items: tuple[str, ...]) -> None:
        self._items = items
        self._names = (None, *materials)
        empty = np.full((_UNIT, _UNIT, 3), 127, np.uint8)
        tiles = [empty] + [np.ascontiguousarray(self._texture(n)[..., :3]) for n in materials]
        self._day = np.stack(tiles)  # uint8[M, 7, 7, 3]
        self._dark = np.stack([_night(t) for t in tiles])  # float64[M, 7, 7, 3]
        self._blends: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}
        self._panels: dict[tuple[int, ...], np.ndarray] = {}

    @staticmethod
    def _texture(name: str, unit: float = _UNIT) -> np.ndarray:
        return _textures().get(name, np.array([unit, unit]))

    def _blend(self, material: int, texture: str) -> tuple[np.ndarray, np.ndarray]:
        key = material, texture
        if key not in self._blends:
            from crafter import engine

            tile = self._day[material].copy()
            engine._draw_alpha(tile, np.array([0, 0]), self._texture(texture))
            self._blends[key] = tile, _night(tile)
        return self._blends[key]

    def _panel(self, counts: tuple[int, ...]) -> np.ndarray:
        if counts not in self._panels:
            from crafter import engine

            if len(self._panels) > 4096:
                self._panels.clear()
            view = engine.ItemView(_textures(), [CELLS[0], 2])
            self._panels[counts] = view(dict(zip(self._items, counts, strict=True)), np.array([_UNIT, _UNIT]))
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
        day = self._day[ground]  # [9, 7, 7, 7, 3]
        dark = self._dark[ground] if noise is None else None
        for x, y, texture in things:
            tile, shade = self._blend(int(ground[x, y]), texture)
            day[x, y] = tile
            if dark is not None:
                dark[x, y] = shade
        canvas = night = day.transpose(0, 2, 1, 3, 4).reshape(*_CANVAS, 3)
        if dark is not None:
            night = dark.transpose(0, 2, 1, 3, 4).reshape(*_CANVAS, 3)
        if noise is not None:
            mask = 2 * (0.5 - daylight) * _vignette()[..., None]
            night = _night((1 - mask) * canvas + mask * noise[..., None])
        canvas = daylight * canvas + (1 - daylight) * night
        if sleeping:
            canvas = _tint(_saturate(canvas, 0.0), (0, 0, 16), 0.5)
        frame = np.zeros((64, 64, 3), np.uint8)
        frame[: _CANVAS[1], : _CANVAS[0]] = canvas.transpose(1, 0, 2)
        panel = self._panel(counts)
        frame[_CANVAS[1] : _CANVAS[1] + panel.shape[1], : _CANVAS[0]] = panel.transpose(1, 0, 2)
        return frame
