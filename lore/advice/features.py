"""What the advice model reads of a symbolic state: bytes that say what is near, what can be walked to and which way.

One breadth-first search per state, compiled where numba is present, over cells that the vocabulary calls walkable. All
else follows from the packed state and the vocabulary, so that any environment with a map has these features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lore.compiled import njit

if TYPE_CHECKING:
    from lore_datasets.environments import Environment

__all__ = ["StateFeatures", "search"]

FAR = 255
WITHIN = (1, 2, 3, 4)
DAYLIGHT_STEP = 16
_BYTE = np.arange(256)
_INVERSE = np.where(_BYTE < FAR, np.round(255.0 / (1.0 + _BYTE)), 0).astype(np.uint8)


@njit(cache=True)
def search(views, width, walkable, deltas, near, walk, first, amount, edge):
    """Search every view uint8[B, H*W] from its centre; what is found is written into the other arrays.

    Args:
        views: cell ids. width: W. walkable: bool[kinds]. deltas: int64[D, 2] steps (dx, dy).
        near, walk: uint8[B, kinds] Manhattan distance to the nearest cell of a kind, steps until one stands beside it
            (255: none). first: uint8[B, D, kinds] 255 where a step in this direction begins a shortest such walk.
        amount: uint8[B, kinds] cells in view. edge: uint8[B, D+1] farthest reachable cell in each direction (cells),
            and 255 when some reachable cell lies at the border of the view.
    """
    cells = views.shape[1]
    height = cells // width
    centre = (height // 2) * width + width // 2
    distance, ways, order = np.zeros(cells, np.int64), np.zeros(cells, np.int64), np.zeros(cells, np.int64)
    for b in range(views.shape[0]):
        for cell in range(cells):
            kind = views[b, cell]
            distance[cell], ways[cell] = -1, 0
            amount[b, kind] += 1
            if cell != centre:
                away = abs(cell // width - height // 2) + abs(cell % width - width // 2)
                near[b, kind] = min(near[b, kind], away)
        distance[centre], order[0] = 0, centre
        head, tail = 0, 1
        while head < tail:
            cell = order[head]
            head += 1
            y, x = cell // width, cell % width
            if y == 0 or x == 0 or y == height - 1 or x == width - 1:
                edge[b, len(deltas)] = 255
            for d in range(len(deltas)):
                dx, dy = deltas[d]
                reach = (x - width // 2) * dx + (y - height // 2) * dy
                edge[b, d] = max(edge[b, d], reach)
                if not (0 <= x + dx < width and 0 <= y + dy < height):
                    continue
                there = cell + dy * width + dx
                kind = views[b, there]
                way = ways[cell] if cell != centre else 1 << d
                if distance[cell] < walk[b, kind]:
                    walk[b, kind] = distance[cell]
                if distance[cell] == walk[b, kind]:
                    for e in range(len(deltas)):
                        if way >> e & 1:
                            first[b, e, kind] = 255
                if walkable[kind]:
                    if distance[there] < 0:
                        distance[there] = distance[cell] + 1
                        order[tail] = there
                        tail += 1
                    if distance[there] == distance[cell] + 1:
                        ways[there] |= way


class StateFeatures:
    """Features of packed states of one environment.

    Attributes:
        width: features of a state, F. directed: how many of them, the last ones, say which way something lies.
    """

    def __init__(self, environment: Environment) -> None:
        layout, vocab = environment.layout, environment.vocab
        self.at, self.cells = layout.offsets(), layout.width
        self.kinds, self.max_count = len(vocab.targets), vocab.max_count
        self.deltas = np.array([(dx, dy) for _, dx, dy, _ in vocab.directions], np.int64)
        self.walkable = np.array([name in vocab.walkable for name in vocab.targets])
        centre = (layout.height // 2) * layout.width + layout.width // 2
        self.beside = centre + self.deltas[:, 1] * layout.width + self.deltas[:, 0]
        self.block = np.array([centre + y * layout.width + x for y in (-1, 0, 1) for x in (-1, 0, 1)])
        some = self(np.zeros((1, layout.size), np.uint8))
        self.width, self.directed = some.shape[1], 2 * len(self.deltas) * self.kinds

    def __call__(self, states: np.ndarray) -> np.ndarray:
        """uint8[B, F] of packed states uint8[B, S]; 255 stands for one."""
        states = np.ascontiguousarray(states)
        n, turns = len(states), len(self.deltas)
        views = np.minimum(states[:, self.at["view"]], self.kinds - 1)
        near, walk = np.full((n, self.kinds), FAR, np.uint8), np.full((n, self.kinds), FAR, np.uint8)
        first = np.zeros((n, turns, self.kinds), np.uint8)
        amount, edge = np.zeros((n, self.kinds), np.uint8), np.zeros((n, turns + 1), np.uint8)
        search(views, self.cells, self.walkable, self.deltas, near, walk, first, amount, edge)
        beside = views[:, self.beside]
        facing = np.minimum(states[:, self.at["facing"]][:, 0], turns - 1)
        counts = states[:, self.at["inventory"].start : self.at["vitals"].stop]
        flags = [
            *(near <= d for d in (254, *WITHIN)), walk < FAR, self._kinds(beside[np.arange(n), facing][:, None]),
            self._kinds(views[:, self.block]), self.walkable[beside], _above(counts, range(1, self.max_count + 1)),
            _above(states[:, self.at["daylight"]], range(DAYLIGHT_STEP, 256, DAYLIGHT_STEP)),
            facing[:, None] == np.arange(turns), states[:, self.at["sleeping"]] > 0, states[:, self.at["unlocked"]] > 0,
        ]  # fmt: skip
        amounts = [_INVERSE[near], _INVERSE[walk], np.minimum(amount, 8) * np.uint8(31), edge[:, -1:]]
        amounts += [np.minimum(edge[:, :-1], 8) * np.uint8(31), states[:, self.at["daylight"]]]
        ways = [first.reshape(n, -1), 255 * (beside[..., None] == np.arange(self.kinds)).reshape(n, -1)]
        return np.concatenate([255 * np.concatenate(flags, 1).astype(np.uint8), *amounts, *ways], 1).astype(np.uint8)

    def _kinds(self, ids: np.ndarray) -> np.ndarray:
        """bool[B, kinds]: which kinds stand among ids [B, n]."""
        out = np.zeros((len(ids), self.kinds), bool)
        out[np.arange(len(ids))[:, None], ids] = True
        return out


def _above(values: np.ndarray, edges: range) -> np.ndarray:
    """bool[B, V * len(edges)]: values [B, V] at or above each edge."""
    return (values[..., None] >= np.array(edges)).reshape(len(values), -1)
