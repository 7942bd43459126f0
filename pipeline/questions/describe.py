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
    """Four lines: achievements of this episode, inventory, vitals and daylight, what is in view.

    ``state`` is a single state. What changes seldom comes first, so that questions about one episode share their
    beginning. Distances are in cells; of each kind that is not beside the player the nearest is named.
    """
    vocab = environment.vocab
    vitals = ", ".join(_vitals(state, vocab))
    sleep = "asleep" if int(state.sleeping) else "awake"
    return "\n".join(
        (
            "Achieved so far: " + (_flagged(state.unlocked.tolist(), vocab.achievements) or "nothing"),
            "Inventory: " + (_counted(state.inventory.tolist(), vocab.items) or "empty"),
            f"Vitals: {vitals}. It is {daylight_word(int(state.daylight))}, you are {sleep}.",
            _view(state, vocab),
        )
    )


def _view(state: SymbolicState, vocab: Vocab) -> str:
    crop, targets = _crop(vocab.view), vocab.targets
    seen = np.asarray(state.view, np.uint8).reshape(-1)[crop.order].tobytes()
    here = {name: targets[seen[crop.rank[dx, dy]]] for name, dx, dy, _ in vocab.directions}
    faced = vocab.directions[int(state.facing) % len(vocab.directions)][0]
    beside = {"player", *here.values()}
    farther = [(at, f"{targets[kind]} {crop.words[at]}") for kind in set(seen[1:])  # index 0 is the player's own cell
               if kind and targets[kind] not in beside and (at := seen.find(kind, 1)) > 0]  # fmt: skip
    around = ", ".join(f"{name} {what}" for name, what in here.items() if name != faced)
    if len(set(here.values())) == 1:
        around = "the same all round"
    nearest = "; ".join(text for _, text in sorted(farther)) or "nothing else"
    return f"Facing {faced}: {here[faced]}. Beside you: {around}. Farther: {nearest}."


def _counted(counts: list[int], names: tuple[str, ...]) -> str:
    return ", ".join(f"{n} {name}" for n, name in zip(counts, names, strict=True) if n)


def _flagged(flags: list[int], names: tuple[str, ...]) -> str:
    return ", ".join(name for on, name in zip(flags, names, strict=True) if on)


def _vitals(state: SymbolicState, vocab: Vocab) -> list[str]:
    values = state.vitals.tolist()
    return [f"{n} {v}{' (low)' if v <= LOW_VITAL else ''}" for n, v in zip(vocab.vitals, values, strict=True)]
