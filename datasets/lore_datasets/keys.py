"""State keys: 64-bit hashes of what a symbolic state shows, for exact look-up of advice.

Two keys per state. The *fine* key covers everything visible, with vitals and daylight in buckets. The *goal* key
covers what decides a goal: the set of things in view, what is faced, item counts as far as recipes care, low vitals,
dark or not, asleep or not, achievements, crafting stations beside the player and a hostile thing beside the player.
The mission is part of both.
Which hash a stored table used is named by its key scheme; change the scheme whenever a key would change.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lore_datasets.environments import Environment
from lore_datasets.errors import BadInput, SchemeMismatch, shown
from lore_datasets.types import SymbolicState
from lore_datasets.vocab import Vocab

__all__ = ["DARK", "check_scheme", "fine_keys", "goal_keys", "hash_rows"]

_VITAL_EDGES = np.array([0.25, 0.5, 0.7, 0.95])
_LOW_EDGES = np.array([0.25, 0.5])
_DAYLIGHT_EDGES = np.array([48, 128, 208])
DARK = 128
"""Daylight (0..255) below which it is dark."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def fine_keys(states: SymbolicState, env: Environment) -> np.ndarray:
    """int64[N] hash of all that is visible; vitals in 5 buckets, daylight in 4."""
    _check(states, env.vocab)
    parts = [
        states.view.reshape(*states.batch_shape, env.vocab.view[0] * env.vocab.view[1]),
        states.inventory,
        _buckets(states.vitals, _VITAL_EDGES * env.vocab.max_count),
        _column(states.facing),
        _column(states.sleeping != 0),
        _column(np.digitize(states.daylight, _DAYLIGHT_EDGES)),
        states.unlocked != 0,
        states.mission,
    ]
    return _hash_parts(parts, f"{env.key_scheme}/fine", states.batch_shape)


def goal_keys(states: SymbolicState, env: Environment) -> np.ndarray:
    """int64[N] hash of what decides a goal: things in view and faced, clipped counts, low vitals, stations, danger."""
    vocab = env.vocab
    _check(states, vocab)
    view, lead = states.view, states.batch_shape
    height, width = view.shape[-2:]
    row, column = height // 2, width // 2
    in_view = [(view == i).any((-2, -1)) for i, name in enumerate(vocab.targets) if name not in ("nothing", "player")]
    steps = np.array([(dx, dy) for _, dx, dy, _ in vocab.directions])
    around = view[..., max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
    beside = np.stack([view[..., row + dy, column + dx] for dx, dy in steps], -1)
    faced = np.take_along_axis(beside, states.facing[..., None].astype(np.intp), -1)
    hostile = np.array([vocab.target(name) for name in vocab.hostile], np.uint8)
    parts = [
        np.stack(in_view, -1) if in_view else np.zeros((*lead, 0), bool),
        faced,
        np.minimum(states.inventory, _useful_counts(vocab)),
        _buckets(states.vitals, _LOW_EDGES * vocab.max_count),
        _column(states.daylight < DARK),
        _column(states.sleeping != 0),
        states.unlocked != 0,
        *(_column(np.isin(around, vocab.target(name)).any((-2, -1))) for name in _stations(vocab)),
        _column(np.isin(beside, hostile).any(-1)),
        states.mission,
    ]
    return _hash_parts(parts, f"{env.key_scheme}/goal", lead)


def check_scheme(found: str, env: Environment) -> None:
    """Raise SchemeMismatch unless keys of scheme ``found`` are those of ``env``."""
    if found != env.key_scheme:
        raise SchemeMismatch(
            f"keys of scheme {shown(found)!r}, this program makes {env.key_scheme!r}",
            hint="read it with the release that wrote it, or ask again with this one",
        )


def hash_rows(features: np.ndarray, salt: str = "") -> np.ndarray:
    """int64[N] well-mixed hash (splitmix64 finaliser folded over 8-byte words) of uint8[N, F] rows."""
    features = np.ascontiguousarray(features, np.uint8)
    count, width = features.shape
    padded = np.zeros((count, -(-width // 8) * 8), np.uint8)
    padded[:, :width] = features
    words = padded.view("<u8").astype(np.uint64)
    state = np.full(count, _seed(salt, width), np.uint64)
    with np.errstate(over="ignore"):
        for column in words.T:
            state = _mix((state ^ column) + _GOLDEN)
        state = _mix(state + _GOLDEN)
    return state.view(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def _seed(salt: str, width: int) -> np.uint64:
    value = 0xCBF29CE484222325 ^ width
    for byte in salt.encode():
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return np.uint64(value)


def _hash_parts(parts: list[np.ndarray], salt: str, lead: tuple[int, ...]) -> np.ndarray:
    features = np.concatenate([np.asarray(p).astype(np.uint8) for p in parts], -1)
    return hash_rows(features.reshape(-1, features.shape[-1]), salt).reshape(lead)


def _column(values: Any) -> np.ndarray:
    return np.asarray(values)[..., None]


def _buckets(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.digitize(values, edges)


def _useful_counts(vocab: Vocab) -> np.ndarray:
    """uint8[I]: one more than the largest use in a recipe; 1 for tools and what no recipe uses."""
    most = dict.fromkeys(vocab.items, 0)
    for recipes in vocab.recipes.values():
        for recipe in recipes:
            for item, count in recipe.uses:
                most[item] = max(most[item], count)
    return np.array([most[item] + 1 for item in vocab.items], np.uint8)


def _stations(vocab: Vocab) -> list[str]:
    return sorted({name for recipes in vocab.recipes.values() for recipe in recipes for name in recipe.near})


def _check(states: SymbolicState, vocab: Vocab) -> None:
    width, height = vocab.view
    shapes = {
        "view": (states.view, (height, width)),
        "inventory": (states.inventory, (len(vocab.items),)),
        "vitals": (states.vitals, (len(vocab.vitals),)),
        "unlocked": (states.unlocked, (len(vocab.achievements),)),
        "mission": (states.mission, (vocab.mission_length,)),
    }
    for name, (array, trailing) in shapes.items():
        if array.shape != (*states.batch_shape, *trailing):
            raise BadInput(
                f"states: {name} has shape {list(array.shape)}, expected [..., {', '.join(map(str, trailing))}]"
            )
    if states.view.size and int(states.view.max()) >= len(vocab.targets):
        raise BadInput(
            f"states: view holds cell id {int(states.view.max())}, {vocab.environment} has {len(vocab.targets)} kinds"
        )
    if states.facing.size and int(states.facing.max()) >= len(vocab.directions):
        raise BadInput(f"states: facing {int(states.facing.max())} is not one of {len(vocab.directions)} directions")
