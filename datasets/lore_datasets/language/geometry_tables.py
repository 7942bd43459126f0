"""What questions about a view need that follows from a vocabulary alone: cells by distance, neighbours, recipes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from lore_datasets.types import layout_of
from lore_datasets.vocab import Vocab

__all__ = ["Tables", "Targets", "tables_of"]

Targets = str | Sequence[str]
"""One target name, or several of which any will do."""


def _picker(cells: Sequence[int]) -> Callable[[Sequence[int]], tuple[int, ...]]:
    """``itemgetter`` that gives a tuple for any number of cells, none and one included."""
    return operator.itemgetter(*cells) if len(cells) > 1 else lambda values: tuple(values[i] for i in cells)


class Tables:
    """What follows from a vocabulary alone; built once per vocabulary."""

    def __init__(self, vocab: Vocab) -> None:
        self.vocab = vocab
        self.layout = layout_of(vocab)
        self.offsets = [(s.start, s.stop) for s in self.layout.offsets().values()]
        width, height = vocab.view
        self.width, self.center = width, (height // 2) * width + width // 2
        cells = [(x, y) for y in range(height) for x in range(width)]
        self.place = [(x - width // 2, y - height // 2) for x, y in cells]
        self.distance = [abs(x) + abs(y) for x, y in self.place]
        outward = sorted(range(len(cells)), key=self.distance.__getitem__)[1:]  # without the player's own cell
        self.outward = _picker(outward)
        self.outward_distance = [self.distance[cell] for cell in outward]
        self.moves = [vocab.action(name) for _, _, _, name in vocab.directions]
        self.deltas = [(dx, dy) for _, dx, dy, _ in vocab.directions]
        inside = lambda x, y: 0 <= x < width and 0 <= y < height  # noqa: E731
        ahead = [
            [(y + dy) * width + x + dx if inside(x + dx, y + dy) else -1 for dx, dy in self.deltas] for x, y in cells
        ]
        self.ahead = ahead
        n = len(self.deltas)
        # per facing: neighbours of each cell, ahead first, then sideways, then back: paths run straight where they
        # can, and a turn
        # onto free ground keeps what was ahead within the 3x3 block
        self.neighbours = []
        for fx, fy in self.deltas:
            order = sorted(range(n), key=lambda d: -(self.deltas[d][0] * fx + self.deltas[d][1] * fy))
            self.neighbours.append([[(row[d], d) for d in order if row[d] >= 0] for row in ahead])
        self.block = _picker([i for i, (dx, dy) in enumerate(self.place) if abs(dx) <= 1 and abs(dy) <= 1])
        ids = {name: i for i, name in enumerate(vocab.targets)}
        self.ids = ids
        self.walkable = [name in vocab.walkable for name in vocab.targets]
        self.lethal = [name in vocab.lethal for name in vocab.targets]
        self.creature = [name in vocab.creatures for name in vocab.targets]
        self.clears = {ids[kind]: (vocab.action(action), ids[after]) for kind, action, after in vocab.clears}
        self.items = {name: i for i, name in enumerate(vocab.items)}
        self.vitals = {name: i for i, name in enumerate(vocab.vitals)}
        self.achievements = {name: i for i, name in enumerate(vocab.achievements)}
        self.actions = {name: i for i, name in enumerate(vocab.actions)}
        walking = [(d, vocab.actions[move]) for d, move in enumerate(self.moves)]
        self.move_of = {name: d for d, name in walking if name not in vocab.turns}
        self.direction_of = [self.move_of.get(name) for name in vocab.actions]
        self.resolved: dict[Targets, tuple[int, ...]] = {}
        self.views: dict[bytes, Any] = {}
        self.rooms: Any = None  # made by lore_datasets.language.rooms on first use
        self.recipes = {
            action: [
                (
                    [(self.items[item], count) for item, count in recipe.needs],
                    frozenset(ids[t] for t in recipe.facing),
                    frozenset(ids[t] for t in recipe.near),
                )
                for recipe in recipes
            ]
            for action, recipes in vocab.recipes.items()
        }

    def resolve(self, targets: Targets) -> tuple[int, ...]:
        key = targets if isinstance(targets, str) else tuple(targets)
        found = self.resolved.get(key)
        if found is None:
            names = (key,) if isinstance(key, str) else key
            found = self.resolved[key] = tuple(self.vocab.target(name) for name in names)
        return found


_CACHE: dict[int, Tables] = {}


def tables_of(vocab: Vocab) -> Tables:
    """The tables of a vocabulary, made once."""
    found = _CACHE.get(id(vocab))
    if found is None or found.vocab is not vocab:
        found = _CACHE[id(vocab)] = Tables(vocab)
    return found
