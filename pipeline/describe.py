"""A game state in four lines of text, made from closed word lists and numbers alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from lore_datasets.environments import Environment
from lore_datasets.types import SymbolicState
from lore_datasets.vocab import Vocab

__all__ = ["LOW_VITAL", "daylight_word", "describe", "offset_words"]

LOW_VITAL = 3
"""A vital at or under this is called low."""

_DAYLIGHT = ((64, "night"), (128, "dusk"), (256, "day"))


def offset_words(dx: int, dy: int) -> str:
    """``(-2, 1)`` -> ``"2 left 1 down"``: how far and where, seen from the player."""
    across = f"{abs(dx)} {'left' if dx < 0 else 'right'}" if dx else ""
    along = f"{abs(dy)} {'up' if dy < 0 else 'down'}" if dy else ""
    return f"{across} {along}".strip() or "here"


def daylight_word(daylight: int) -> str:
    """``night`` under a quarter, ``dusk`` under half, else ``day``."""
    return next(word for limit, word in _DAYLIGHT if daylight < limit)


class _Crop:
    """Geometry of a vocabulary's view: cells sorted by distance, with their offsets in words."""

    def __init__(self, size: tuple[int, int]) -> None:
        width, height = size
        x0, y0 = width // 2, height // 2
        cells = [(abs(x - x0) + abs(y - y0), y, x) for y in range(height) for x in range(width)]
        cells.sort()
        self.order = np.array([y * width + x for _, y, x in cells])
        self.words = [offset_words(x - x0, y - y0) for _, y, x in cells]
        self.rank = {(x - x0, y - y0): i for i, (_, y, x) in enumerate(cells)}


@lru_cache(maxsize=8)
def _crop(size: tuple[int, int]) -> _Crop:
    return _Crop(size)


def describe(state: SymbolicState, environment: Environment) -> str:
    """Four lines: what is in view, inventory, vitals and daylight, achievements of this episode.

    ``state`` is a single state. Distances are in cells; of each kind only the nearest is placed, the rest is counted.
    """
    vocab = environment.vocab
    numbers = "; ".join(_vitals(state, vocab))
    sleep = "asleep" if int(state.sleeping) else "awake"
    return "\n".join(
        (
            _view(state, vocab),
            "Inventory: " + (_counted(state.inventory.tolist(), vocab.items) or "empty"),
            f"Vitals (0 to 9): {numbers}. It is {daylight_word(int(state.daylight))}, you are {sleep}.",
            "Achieved so far: " + (_flagged(state.unlocked.tolist(), vocab.achievements) or "nothing"),
        )
    )


def _view(state: SymbolicState, vocab: Vocab) -> str:
    crop, targets = _crop(vocab.view), vocab.targets
    seen = np.asarray(state.view, np.uint8).reshape(-1)[crop.order].tobytes()
    here = {name: targets[seen[crop.rank[dx, dy]]] for name, dx, dy, _ in vocab.directions}
    faced = vocab.directions[int(state.facing) % len(vocab.directions)][0]
    found = []
    for kind in set(seen[1:]):  # index 0 is the player's own cell
        if kind and targets[kind] != "player":
            at = seen.find(kind, 1)
            n = seen.count(kind, 1)
            found.append((at, f"{targets[kind]} {crop.words[at]}" + (f" ({n} seen)" if n > 1 else "")))
    around = ", ".join(f"{name} {what}" for name, what in here.items())
    nearest = "; ".join(text for _, text in sorted(found)) or "nothing"
    return f"Facing {faced}: {here[faced]}. Beside you: {around}. Nearest of each kind: {nearest}."


def _counted(counts: list[int], names: tuple[str, ...]) -> str:
    return ", ".join(f"{n} {name}" for n, name in zip(counts, names, strict=True) if n)


def _flagged(flags: list[int], names: tuple[str, ...]) -> str:
    return ", ".join(name for on, name in zip(flags, names, strict=True) if on)


def _vitals(state: SymbolicState, vocab: Vocab) -> list[str]:
    values = state.vitals.tolist()
    return [f"{n} {v}{' (low)' if v <= LOW_VITAL else ''}" for n, v in zip(vocab.vitals, values, strict=True)]
