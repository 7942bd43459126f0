"""Many packed states seen at once: what :class:`lore_datasets.language.geometry.StateView` tells of one, as arrays.

N states, C cells of the crop. A set of cell kinds is one integer with a bit per kind, so that "is one of these kinds in
view within d" is one ``and`` over N integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from lore_datasets.errors import BadInput
from lore_datasets.language.geometry_tables import tables_of
from lore_datasets.types import SymbolicState
from lore_datasets.vocab import Vocab

__all__ = ["MAX_KINDS", "StateBatch"]

MAX_KINDS = 64
"""Cell kinds that one integer can hold."""


class StateBatch:
    """Packed states uint8[N, S] with their questions; BadInput for states of another layout or environment.

    Attributes:
        counts: uint8[I, N]. vitals: uint8[V, N]. flags: bool[K, N]. sleeping: bool[N]. daylight: uint8[N].
        facing: intp[N] index into ``vocab.directions``.
    """

    def __init__(self, packed: np.ndarray, vocab: Vocab) -> None:
        self.vocab, self._tables = vocab, tables_of(vocab)
        state = SymbolicState.unpack(np.ascontiguousarray(packed), self._tables.layout)
        if len(vocab.targets) > MAX_KINDS:
            raise BadInput(f"{vocab.environment} has {len(vocab.targets)} cell kinds, at most {MAX_KINDS}")
        if len(packed) and (state.view.max() >= len(vocab.targets) or state.facing.max() >= len(vocab.directions)):
            raise BadInput(
                f"states of another environment than {vocab.environment}: a facing or cell id is out of range"
            )
        self.n = len(packed)
        self.cells = np.ascontiguousarray(state.view.reshape(self.n, len(self._tables.place)).T)  # [C, N]
        self.counts, self.vitals = (np.ascontiguousarray(a.T) for a in (state.inventory, state.vitals))
        self.flags = np.ascontiguousarray(state.unlocked.T) > 0
        self.sleeping, self.daylight = state.sleeping != 0, state.daylight
        self.facing = state.facing.astype(np.intp)
        self._word = np.uint32 if len(vocab.targets) <= 32 else np.uint64
        self._within: dict[int, np.ndarray] = {}

    def mask(self, ids: Sequence[int]) -> np.unsignedinteger:
        """The set of cell ids as one integer."""
        return self._word(sum(1 << i for i in set(ids)))

    @cached_property
    def bits(self) -> np.ndarray:
        """uint[C, N]: the kind of each cell as a set of one."""
        one = self._word(1) << np.arange(len(self.vocab.targets), dtype=self._word)
        return one.take(self.cells)

    def within(self, distance: int) -> np.ndarray:
        """uint[N]: kinds of cells at most ``distance`` (Manhattan) away, without the player's own cell."""
        found = self._within.get(distance)
        if found is None:
            near = [c for c, d in enumerate(self._tables.distance) if 0 < d <= distance]
            found = self._within[distance] = np.bitwise_or.reduce(self.bits[near], axis=0)
        return found

    def count(self, ids: Sequence[int], distance: int) -> np.ndarray:
        """int[N]: cells of these kinds at most ``distance`` away, without the player's own."""
        near = [c for c, d in enumerate(self._tables.distance) if 0 < d <= distance]
        return ((self.bits[near] & self.mask(ids)) != 0).sum(0)

    @cached_property
    def beside(self) -> np.ndarray:
        """uint8[D, N]: cell id one step in each direction."""
        return self.cells[self._tables.ahead[self._tables.center]]

    @cached_property
    def ahead(self) -> np.ndarray:
        """uint[N]: the kind of the cell that is faced, as a set of one."""
        return self._word(1) << np.take_along_axis(self.beside, self.facing[None], 0)[0].astype(self._word)

    @cached_property
    def block(self) -> np.ndarray:
        """uint[N]: kinds in the 3x3 block around the player, its own cell included."""
        around = [c for c, (dx, dy) in enumerate(self._tables.place) if abs(dx) <= 1 and abs(dy) <= 1]
        return np.bitwise_or.reduce(self.bits[around], axis=0)

    @cached_property
    def _reached(self) -> tuple[np.ndarray, np.ndarray]:
        """(bool[C, N] cells that can be walked to, the player's own among them; bool[C, N] cells beside one)."""
        tables, cells = self._tables, self.cells.shape
        crop = (cells[0] // tables.width, tables.width, self.n)
        free = np.array(tables.walkable).take(self.cells).reshape(crop)
        reach = np.zeros(cells, bool)
        reach[tables.center] = True
        reach = reach.reshape(crop)
        pairs = [(_shifted(dx, dy), _shifted(-dx, -dy)) for dx, dy in tables.deltas]
        while True:
            beside = np.zeros_like(reach)
            for to, of in pairs:
                beside[to] |= reach[of]
            grown = reach | (beside & free)
            if np.array_equal(grown, reach):
                return reach.reshape(cells), beside.reshape(cells)
            reach = grown

    @cached_property
    def reachable(self) -> np.ndarray:
        """uint[N]: kinds of cells that a walkable path inside the crop leads beside."""
        return np.bitwise_or.reduce(self.bits * self._reached[1], axis=0)

    @cached_property
    def enclosed(self) -> np.ndarray:
        """bool[N]: nothing can walk up to the player, see :meth:`StateView.is_enclosed`."""
        border = [c for c, ahead in enumerate(self._tables.ahead) if min(ahead) < 0]
        reached, beside = self._reached
        met = np.bitwise_or.reduce(beside & np.array(self._tables.creature).take(self.cells), axis=0)
        return ~(np.bitwise_or.reduce(reached[border], axis=0) | met)

    def can(self, action: str) -> np.ndarray:
        """bool[N]: the primitive action would have its effect now, see :meth:`StateView.can`."""
        tables = self._tables
        direction = tables.move_of.get(action)
        if direction is not None:
            return np.array(tables.walkable).take(self.beside[direction])
        if action not in tables.recipes:
            self.vocab.action(action)
            return np.ones(self.n, bool)
        found = np.zeros(self.n, bool)
        for needs, faced, near in tables.recipes[action]:
            met = (self.ahead & self.mask(tuple(faced))) != 0 if faced else np.ones(self.n, bool)
            for item, count in needs:
                met &= self.counts[item] >= count
            if near:  # nothing is near where the map's border (kind 0) cuts the block
                wanted = self.mask(tuple(near))
                met &= (self.block & (wanted | self._word(1))) == wanted
            found |= met
        return found


def _shifted(dx: int, dy: int) -> tuple[slice, slice]:
    """The part of a [H, W, ...] array that has a neighbour at minus (dx, dy)."""

    def part(d: int) -> slice:
        return slice(d, None) if d > 0 else slice(None, d) if d < 0 else slice(None)

    return part(dy), part(dx)
