"""Views of symbolic states as pictures: the game's own tiles where its adapter has them, plain colours elsewhere."""

from __future__ import annotations

import colorsys
import zlib
from functools import lru_cache

import numpy as np

from lore.envs.base import tile_pictures
from lore_datasets.environments import Environment, get_environment
from lore_datasets.errors import LoreError
from lore_datasets.vocab import Vocab

__all__ = ["SIZE", "atlas", "drawable", "paint", "player_tile", "tile_colour"]

SIZE = 16
"""Pixels of a tile's side."""


def tile_colour(name: str, environment: Environment) -> str:
    """Colour of a kind of cell; words without one of their environment's get a stable hue from their name."""
    if name in environment.tiles:
        return environment.tiles[name]
    red, green, blue = colorsys.hsv_to_rgb(zlib.crc32(name.encode()) / 2**32, 0.45, 0.75)
    return f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}"


@lru_cache(maxsize=4)
def atlas(environment: str) -> np.ndarray:
    """uint8 [K + D + 1, 16, 16, 3]: a tile per target, then the player facing each direction, then asleep."""
    known = get_environment(environment)
    vocab = known.vocab
    names = [*vocab.targets, *(f"player-{name}" for name, *_ in vocab.directions), "player-sleep"]
    found, out = tile_pictures(environment, names, SIZE), np.zeros((len(names), SIZE, SIZE, 3), np.uint8)
    for k, name in enumerate(names):
        colour = tile_colour(name.partition("-")[0], known)
        out[k] = found.get(name, np.frombuffer(bytes.fromhex(colour[1:]), np.uint8))
    return out


def drawable(environment: str) -> Environment | None:
    """The environment that a file names, None where it is not known here: nothing of it can be drawn then."""
    try:
        return get_environment(environment)
    except LoreError:
        return None


def player_tile(vocab: Vocab, facing: int, is_asleep: bool) -> int:
    """Number in the atlas of the player, who stands in the centre of every view."""
    return len(vocab.targets) + (len(vocab.directions) if is_asleep else min(facing, len(vocab.directions) - 1))


def paint(cells: np.ndarray, environment: str, player: int | None = None) -> np.ndarray:
    """Cell ids [..., H*W] -> frames uint8 [..., 16 H, 16 W, 3]; ids that the vocabulary lacks are nothing.

    ``player``: tile of the centre cell (:func:`player_tile`), None leaves the cell as it is.
    """
    tiles, vocab = atlas(environment), get_environment(environment).vocab
    width, height = vocab.view
    ids = np.where(cells < len(vocab.targets), cells, 0).reshape(*cells.shape[:-1], height, width)
    if player is not None:
        ids[..., height // 2, width // 2] = player
    return np.moveaxis(tiles[ids], -3, -4).reshape(*cells.shape[:-1], height * SIZE, width * SIZE, 3)
