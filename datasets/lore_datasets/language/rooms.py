"""Walling in: the next action towards a small room that nothing can walk into.

A room is one cell, two in a line, or any part of a 2x2 block that is in one piece. A stone can only be placed straight
ahead, and the player turns by walking, so a side is closed from a cell behind which another cell of the room lies; the
sides that are blocked already need nothing. Among the rooms that can be closed with what the player has, the one that
needs fewest actions is built; a room half built needs fewest, so that asking again goes on with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lore_datasets.language.geometry import StateView
from lore_datasets.language.geometry_tables import Tables, tables_of
from lore_datasets.language.routes import can_apply, can_clear

__all__ = ["step_wall_in"]

_REACH = 3
"""Rooms whose first cell is at most so many columns and rows away are looked at."""


class _Room(NamedTuple):
    """Cells of a room; its outer sides as cell -> (inner cell, direction out, cell behind or -1) pairs.

    ``inner``, ``outer`` and ``stiff`` are sets of cells as one integer: the room's, its sides', and those of its sides
    behind which no cell of the room lies.
    """

    cells: tuple[int, ...]
    sides: dict[int, tuple[tuple[int, int, int], ...]]
    distance: int
    inner: int
    outer: int
    stiff: int


def _set(cells: Iterable[int]) -> int:
    return sum(1 << cell for cell in cells)


def _rooms(tables: Tables) -> list[_Room]:
    """All rooms near the player that lie inside the crop with their outer sides."""
    at = {place: cell for cell, place in enumerate(tables.place)}
    block = ((0, 0), (1, 0), (0, 1), (1, 1))
    shapes = {tuple(p for i, p in enumerate(block) if bits >> i & 1) for bits in range(1, 16)}
    shapes -= {((0, 0), (1, 1)), ((1, 0), (0, 1))}  # two cells that only touch at a corner
    found: dict[tuple[int, ...], _Room] = {}
    for x in range(-_REACH - 1, _REACH + 1):
        for y in range(-_REACH - 1, _REACH + 1):
            for shape in shapes:
                cells = tuple(sorted(at.get((x + dx, y + dy), -1) for dx, dy in shape))
                if cells[0] < 0 or min(min(tables.ahead[c]) for c in cells) < 0 or cells in found:
                    continue
                sides, distance = _sides(cells, tables), min(tables.distance[c] for c in cells)
                stiff = _set(side for side, ways in sides.items() if all(behind < 0 for _, _, behind in ways))
                if distance <= _REACH:
                    found[cells] = _Room(cells, sides, distance, _set(cells), _set(sides), stiff)
    return list(found.values())


def _sides(cells: tuple[int, ...], tables: Tables) -> dict[int, tuple[tuple[int, int, int], ...]]:
    sides: dict[int, list[tuple[int, int, int]]] = {}
    for cell in cells:
        for direction, (dx, dy) in enumerate(tables.deltas):
            out = tables.ahead[cell][direction]
            if out not in cells:
                behind = tables.ahead[cell][tables.deltas.index((-dx, -dy))]
                sides.setdefault(out, []).append((cell, direction, behind if behind in cells else -1))
    return {out: tuple(ways) for out, ways in sides.items()}


def step_wall_in(view: StateView, action: int, cells: int, beside: Sequence[int], through: Sequence[int]) -> int | None:
    """Towards a closed room of at least ``cells`` cells; None inside one, or when none can be closed.

    Args:
        action: puts an obstacle straight ahead. beside: kinds of which one must lie at a side of the room; empty for
            none. through: kinds of cells that may be cleared to be part of the room.
    """
    tables = tables_of(view.vocab)
    if tables.rooms is None:
        tables.rooms = _rooms(tables)
    plan = _Plan(view, tables, action, can_clear(view, through))
    best: tuple[int, int | None] | None = None
    for least, number in sorted(plan.candidates(cells, _set(c for c, kind in enumerate(view.cells) if kind in beside))):
        if best is not None and least >= best[0]:
            break
        found = plan.play(tables.rooms[number], 10_000 if best is None else best[0])
        if found is not None and (best is None or found[0] < best[0]):
            best = found
    return None if best is None else best[1]


class _Plan:
    """What a room costs in one view. Sets of cells are integers with a bit per cell."""

    def __init__(self, view: StateView, tables: Tables, action: int, costs: dict[int, int]) -> None:
        self.view, self.tables, self.action, self.costs = view, tables, action, costs
        uses = [use for recipe in view.vocab.recipes[view.vocab.actions[action]] for use in recipe.uses]
        self.stock = min([view.inventory(item) // count for item, count in uses], default=99)
        self.walks = view.walks()
        kinds = [(cell, kind, tables.walkable[kind]) for cell, kind in enumerate(view.cells) if cell != tables.center]
        here = 1 << tables.center
        self.free = here | _set(cell for cell, _, free in kinds if free)
        self.barred = _set(cell for cell, kind, free in kinds if not free and kind not in costs)
        self.opened = self.free | _set(cell for cell, kind, _ in kinds if tables.creature[kind])
        fit = {kind for kind in {kind for _, kind, free in kinds if free} if can_apply(view, action, kind)}
        self.unfit = _set(cell for cell, kind, free in kinds if free and kind not in fit)

    def candidates(self, cells: int, beside: int) -> Iterator[tuple[int, int]]:
        """(least number of actions, number) of the rooms that may be closed with what the player has."""
        tables = self.tables
        faced = tables.ahead[tables.center][self.view.facing_direction]
        for number, room in enumerate(tables.rooms):
            opened = room.outer & self.opened
            if room.inner & self.barred or opened & self.unfit or len(room.cells) < cells:
                continue
            stiff = opened & room.stiff
            if stiff and (stiff != 1 << faced or tables.center not in room.cells):
                continue
            count = opened.bit_count()
            if count <= self.stock and (not beside or room.outer & beside):
                yield room.distance + (room.inner & ~self.free).bit_count() + max(0, 2 * count - 1), number

    def play(self, room: _Room, most: int) -> tuple[int, int | None] | None:
        """(actions until the room is closed, the first of them), None when it cannot be closed or needs ``most``.

        The room is built in thought, always the nearest thing next: clear its cells, then close its sides.
        """
        tables, view = self.tables, self.view
        opened = {side for side in room.sides if self.opened >> side & 1}
        closed = {cell for cell in room.cells if not self.free >> cell & 1}
        actions: list[int] = []
        spot, facing = tables.center, view.facing_direction
        if spot not in room.cells:
            entry = self._entry(room, closed)
            if entry is None:
                return None
            spot, facing = self._walk_in(entry, facing, closed, actions)
        while (opened or closed) and len(actions) < most:
            out = tables.ahead[spot][facing]
            if out in closed:
                actions += [tables.clears[view.cells[out]][0]] * (self.costs[view.cells[out]] - 1)
                closed.discard(out)
            elif out in opened and not closed:
                actions.append(self.action)
                opened.discard(out)
            else:
                turns = self._nearest(room, spot, opened, closed)
                if turns is None:
                    return None
                for direction in turns:
                    actions.append(tables.moves[direction])
                    ahead = tables.ahead[spot][direction]
                    spot, facing = (ahead if ahead in room.cells and ahead not in closed else spot), direction
        if opened or closed:
            return None
        return len(actions), actions[0] if actions else None

    def _entry(self, room: _Room, closed: set[int]) -> tuple[list[int], int] | None:
        """The shortest walk to beside a cell of the room, and the direction into that cell; without a way round, which
        could lead the room out of view.
        """
        best: tuple[int, int, int] | None = None
        for cell in room.cells:
            for direction, (dx, dy) in enumerate(self.tables.deltas):
                before = self.tables.ahead[cell][self.tables.deltas.index((-dx, -dy))]
                if before in self.walks and self.walks[before][0] + 1 == self.tables.distance[cell]:
                    cost = self.walks[before][0] + (2 if cell in closed else 0)
                    if best is None or cost < best[0]:
                        best = (cost, before, direction)
        return None if best is None else (self.view.directions_to(best[1]), best[2])

    def _walk_in(
        self, entry: tuple[list[int], int], facing: int, closed: set[int], actions: list[int]
    ) -> tuple[int, int]:
        """Add the actions of the walk and of opening the first cell; returns where the player then stands, facing."""
        tables, spot = self.tables, self.tables.center
        for direction in entry[0]:
            actions.append(tables.moves[direction])
            spot, facing = tables.ahead[spot][direction], direction
        cell = tables.ahead[spot][entry[1]]
        if cell in closed:
            kind = self.view.cells[cell]
            if facing != entry[1]:
                actions.append(tables.moves[entry[1]])
            actions += [tables.clears[kind][0]] * (self.costs[kind] - 1)
            closed.discard(cell)
        actions.append(tables.moves[entry[1]])
        return cell, entry[1]

    def _nearest(self, room: _Room, spot: int, opened: set[int], closed: set[int]) -> list[int] | None:
        """Directions inside the room to the nearest place from where a cell is cleared or a side is closed."""
        ways: dict[int, list[int]] = {spot: []}
        order = [spot]
        for cell in order:
            for direction, nxt in enumerate(self.tables.ahead[cell]):
                if nxt in closed:
                    return [*ways[cell], direction]
                if nxt in room.cells and nxt not in ways:
                    ways[nxt] = [*ways[cell], direction]
                    order.append(nxt)
        if closed:
            return None
        found = [
            [*ways[behind], direction] for side in opened for _, direction, behind in room.sides[side] if behind in ways
        ]
        return min(found, key=len, default=None)
