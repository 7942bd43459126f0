"""One symbolic state seen as a small map: what is near, what can be reached, which step leads there, which action can
have an effect.

Everything is answered from the visible crop alone. One breadth-first search per state is shared by all questions, and
nothing here ever proposes a step onto a lethal cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lore_datasets.errors import BadInput
from lore_datasets.language.geometry_tables import Targets, tables_of
from lore_datasets.types import SymbolicState
from lore_datasets.vocab import Vocab

__all__ = ["StateView", "Targets", "shared_view"]

_VIEWS = 2048


def shared_view(raw: bytes, vocab: Vocab) -> StateView:
    """The view of a packed state; of the last few thousand states the same object, with what it has found out."""
    tables = tables_of(vocab)
    view = tables.views.get(raw)
    if view is None:
        if len(tables.views) >= _VIEWS:
            tables.views.clear()
        view = tables.views[raw] = StateView(raw, vocab)
    return view


class StateView:
    """A single :class:`SymbolicState` with its questions; BadInput for a batch or a state of another layout.

    Directions are indices into ``vocab.directions``; actions are primitive action ids; places are (dx, dy) from the
    player. ``raw`` is the packed state.
    """

    __slots__ = (
        "_approach", "_can", "_distance", "_first", "_kinds", "_order", "_parent", "_tables", "cells", "counts",
        "daylight", "facing_direction", "flags", "mission", "raw", "sleeping", "vital_values", "vocab",
    )  # fmt: skip

    def __init__(self, state: SymbolicState | np.ndarray | bytes, vocab: Vocab) -> None:
        tables = tables_of(vocab)
        raw = (
            state
            if isinstance(state, bytes)
            else (state.pack() if isinstance(state, SymbolicState) else state).tobytes()
        )
        if len(raw) != tables.layout.size:
            raise BadInput(f"a view needs one packed state of {tables.layout.size} bytes, got {len(raw)}")
        self.vocab, self._tables = vocab, tables
        view, counts, vitals, facing, sleeping, daylight, flags, mission = (raw[a:b] for a, b in tables.offsets)
        if facing[0] >= len(tables.deltas) or max(view) >= len(vocab.targets):
            raise BadInput(
                f"state of another environment than {vocab.environment}: a facing or cell id is out of range"
            )
        self.raw: bytes = raw
        self.cells: bytes = view
        self.counts: bytes = counts
        self.vital_values: bytes = vitals
        self.facing_direction: int = facing[0]
        self.sleeping: bool = bool(sleeping[0])
        self.daylight: int = daylight[0]
        self.flags: bytes = flags
        self.mission: bytes = mission
        self._can: dict[str, bool] = {}
        self._kinds: dict[int, int] | None = None
        self._distance: list[int] = []  # empty until the first search

    def inventory(self, item: str) -> int:
        """Count of an item."""
        return self.counts[self._tables.items[item]]

    def vital(self, name: str) -> int:
        """Value of a vital sign."""
        return self.vital_values[self._tables.vitals[name]]

    def unlocked(self, name: str) -> bool:
        """Whether this episode has unlocked the achievement."""
        return bool(self.flags[self._tables.achievements[name]])

    @property
    def facing_cell(self) -> tuple[int, int]:
        """(dx, dy) of the cell straight ahead."""
        return self._tables.deltas[self.facing_direction]

    @property
    def facing_id(self) -> int:
        """Cell id straight ahead."""
        return self.cells[self._tables.ahead[self._tables.center][self.facing_direction]]

    @property
    def facing(self) -> str:
        """Target name straight ahead."""
        return self.vocab.targets[self.facing_id]

    def at(self, dx: int, dy: int) -> str | None:
        """Target name at a place, None outside the crop."""
        width, height = self.vocab.view
        x, y = dx + width // 2, dy + height // 2
        return self.vocab.targets[self.cells[y * width + x]] if 0 <= x < width and 0 <= y < height else None

    def in_view(self) -> dict[str, int]:
        """Target name -> Manhattan distance of the nearest one, for all that is in view apart from the player."""
        return {self.vocab.targets[i]: d for i, d in self._nearest_kinds().items()}

    def near(self, targets: Targets, within: int) -> bool:
        """True when one of the targets is at most ``within`` cells away (Manhattan) in the crop."""
        return self.near_ids(self._tables.resolve(targets), within)

    def near_ids(self, ids: Sequence[int], within: int) -> bool:
        """:meth:`near` for cell ids."""
        kinds = self._nearest_kinds()
        return min([kinds.get(i, 99) for i in ids], default=99) <= within

    def count(self, targets: Targets, within: int = 99) -> int:
        """How many such cells are in view within a Manhattan distance."""
        ids, distance = self._tables.resolve(targets), self._tables.distance
        return sum(1 for cell, kind in enumerate(self.cells) if kind in ids and 0 < distance[cell] <= within)

    def cells_ahead(self, ids: Sequence[int], direction: int) -> int:
        """How many such cells are in the half of the view that lies in a direction."""
        (dx, dy), place = self._tables.deltas[direction], self._tables.place
        return sum(1 for at, kind in zip(place, self.cells, strict=True) if kind in ids and at[0] * dx + at[1] * dy > 0)

    def nearest(self, targets: Targets) -> tuple[int, int, int] | None:
        """(dx, dy, Manhattan distance) of the nearest such cell, reachable or not; None when none is in view."""
        ids, tables = self._tables.resolve(targets), self._tables
        found = [
            (tables.distance[cell], cell)
            for cell, kind in enumerate(self.cells)
            if kind in ids and cell != tables.center
        ]
        if not found:
            return None
        distance, cell = min(found)
        return (*tables.place[cell], distance)

    def _nearest_kinds(self) -> dict[int, int]:
        if self._kinds is None:
            seen, distance = bytes(self._tables.outward(self.cells)), self._tables.outward_distance
            self._kinds = {kind: distance[seen.find(kind)] for kind in dict.fromkeys(seen)}
        return self._kinds

    def _search(self) -> None:
        """Breadth-first search over walkable cells: distances, first directions, and the first place beside each kind
        of cell.
        """
        tables = self._tables
        cells, walkable, neighbours = self.cells, tables.walkable, tables.neighbours[self.facing_direction]
        distance = [-1] * len(cells)
        first, parent = [-1] * len(cells), [-1] * len(cells)
        approach: dict[int, tuple[int, int, int, int]] = {}  # distance, order of discovery, cell, direction
        center = tables.center
        distance[center] = 0
        order = [center]
        for cell in order:
            far = distance[cell]
            for nxt, direction in neighbours[cell]:
                kind = cells[nxt]
                if kind not in approach:
                    approach[kind] = (far, len(approach), cell, direction)
                if distance[nxt] < 0 and walkable[kind]:
                    distance[nxt] = far + 1
                    first[nxt] = direction if cell == center else first[cell]
                    parent[nxt] = cell
                    order.append(nxt)
        self._first, self._parent, self._approach, self._order = first, parent, approach, order
        self._distance = distance

    def _best(self, ids: Sequence[int]) -> tuple[int, int, int, int] | None:
        if not self._distance:
            self._search()
        found = [self._approach[i] for i in ids if i in self._approach]
        return min(found) if found else None

    def reachable(self, targets: Targets) -> bool:
        """True when a walkable path inside the crop leads beside such a cell."""
        return self.reachable_ids(self._tables.resolve(targets))

    def reachable_ids(self, ids: Sequence[int]) -> bool:
        """:meth:`reachable` for cell ids."""
        if not self._distance:
            self._search()
        return not self._approach.keys().isdisjoint(ids)

    def walk_distance(self, targets: Targets) -> int | None:
        """Steps until standing beside the nearest reachable such cell; None when none is reachable."""
        best = self._best(self._tables.resolve(targets))
        return None if best is None else best[0]

    def step_toward(self, targets: Targets) -> int | None:
        """The next action of :meth:`path_to`; None when facing such a cell already, or when none is reachable."""
        return self.step_toward_ids(self._tables.resolve(targets))

    def step_toward_ids(self, ids: Sequence[int]) -> int | None:
        """:meth:`step_toward` for cell ids."""
        if self.facing_id in ids:
            return None
        best = self._best(ids)
        if best is None:
            return None
        steps, _, cell, direction = best
        if steps:
            return self._tables.moves[self._first[cell]]
        lethal = self._tables.lethal[self.cells[self._tables.ahead[cell][direction]]]
        return None if lethal else self._tables.moves[direction]

    def step_onto_ids(self, ids: Sequence[int]) -> int | None:
        """Up to the nearest reachable such cell and onto it; None when none is reachable, or it is lethal."""
        if self.facing_id not in ids:
            return self.step_toward_ids(ids)
        return None if self._tables.lethal[self.facing_id] else self._tables.moves[self.facing_direction]

    def path_to(self, targets: Targets) -> list[int]:
        """Action ids along a shortest walkable path to beside the nearest reachable such cell, and the turn to face it.

        Empty when facing one already or when none is reachable. A lethal cell is approached, never turned to.
        """
        ids = self._tables.resolve(targets)
        best = None if self.facing_id in ids else self._best(ids)
        if best is None:
            return []
        tables, (_, _, cell, turn) = self._tables, best
        target, directions = tables.ahead[cell][turn], self.directions_to(cell)
        facing = directions[-1] if directions else self.facing_direction
        if facing != turn and not tables.lethal[self.cells[target]]:
            directions.append(turn)
        return [tables.moves[d] for d in directions]

    def walks(self) -> dict[int, tuple[int, int]]:
        """Cell -> (steps, first direction, -1 for the player's own) of all cells that can be walked to."""
        if not self._distance:
            self._search()
        return {cell: (self._distance[cell], self._first[cell]) for cell in self._order}

    def directions_to(self, cell: int) -> list[int]:
        """Directions of the shortest walkable path to a reached cell."""
        directions: list[int] = []
        while cell != self._tables.center:
            before = self._parent[cell]
            directions.append(self._tables.ahead[before].index(cell))
            cell = before
        return directions[::-1]

    def step_away(self, targets: Targets) -> int | None:
        """The move that gains most distance (Manhattan) to the nearest such cell; None when none is in view or no
        move helps.
        """
        return self.step_away_ids(self._tables.resolve(targets))

    def step_away_ids(self, ids: Sequence[int]) -> int | None:
        """:meth:`step_away` for cell ids."""
        tables = self._tables
        threats = [tables.place[cell] for cell, kind in enumerate(self.cells) if kind in ids and cell != tables.center]
        if not threats:
            return None
        closest = min(abs(x) + abs(y) for x, y in threats)
        best: tuple[int, int, int] | None = None
        for d in self.free_directions():
            dx, dy = tables.deltas[d]
            ways = sum(tables.walkable[self.cells[n]] for n in tables.ahead[tables.ahead[tables.center][d]] if n >= 0)
            gain = min(abs(x - dx) + abs(y - dy) for x, y in threats)
            if gain > closest and (best is None or (gain, ways) > best[:2]):
                best = (gain, ways, d)
        return None if best is None else tables.moves[best[2]]

    def _frontier(self, direction: int) -> int | None:
        """The reachable cell that lies farthest in a direction, the nearest of these; None when nothing is gained."""
        if not self._distance:
            self._search()
        dx, dy = self._tables.deltas[direction]
        place, distance = self._tables.place, self._distance
        gain, _, _, cell = max((place[c][0] * dx + place[c][1] * dy, -distance[c], -c, c) for c in self._order)
        return cell if gain > 0 else None

    def step_along(self, direction: int) -> int | None:
        """First move towards the reachable cell farthest in a direction, round obstacles; None when it is blocked."""
        cell = self._frontier(direction)
        return None if cell is None else self._tables.moves[self._first[cell]]

    def path_along(self, direction: int) -> list[int]:
        """Action ids of the walk that :meth:`step_along` begins; empty when the direction is blocked."""
        cell = self._frontier(direction)
        return [] if cell is None else [self._tables.moves[d] for d in self.directions_to(cell)]

    def free_directions(self) -> tuple[int, ...]:
        """Directions whose next cell can be walked on."""
        tables = self._tables
        ahead = tables.ahead[tables.center]
        return tuple(d for d in range(len(ahead)) if tables.walkable[self.cells[ahead[d]]])

    def is_enclosed(self) -> bool:
        """True when nothing can walk up to the player.

        From the player over cells that can be walked on or that a creature stands on, neither a creature nor the border
        of the crop can be reached.
        """
        tables, cells = self._tables, self.cells
        seen, todo = {tables.center}, [tables.center]
        for cell in todo:
            for nxt in tables.ahead[cell]:
                if nxt < 0 or tables.creature[cells[nxt]]:
                    return False
                if nxt not in seen and tables.walkable[cells[nxt]]:
                    seen.add(nxt)
                    todo.append(nxt)
        return True

    def can(self, action: str) -> bool:
        """Whether a primitive action would have its effect now: a walkable cell ahead for a move, a recipe met for
        the rest.

        Actions without a recipe can always be played. The 3x3 block has nothing near when it is cut off by the map's
        border.
        """
        known = self._can.get(action)
        if known is None:
            known = self._can[action] = self._has_effect(action)
        return known

    def _has_effect(self, action: str) -> bool:
        tables = self._tables
        direction = tables.move_of.get(action)
        if direction is not None:
            return tables.walkable[self.cells[tables.ahead[tables.center][direction]]]
        recipes = tables.recipes.get(action)
        if recipes is None:
            self.vocab.action(action)
            return True
        facing = self.facing_id
        return any(self._is_met(needs, at, near, facing) for needs, at, near in recipes)

    def _is_met(self, needs: list[tuple[int, int]], at: frozenset[int], near: frozenset[int], facing: int) -> bool:
        if at and facing not in at:
            return False
        for item, count in needs:
            if self.counts[item] < count:
                return False
        if not near:
            return True
        around = self._tables.block(self.cells)
        return 0 not in around and near.issubset(around)

    def feasible_actions(self) -> np.ndarray:
        """bool[A]: actions worth trying. As :meth:`can`, but a move also counts when it only turns; never one onto a
        lethal cell.
        """
        tables = self._tables
        ahead = tables.ahead[tables.center]
        out = []
        for name, direction in zip(self.vocab.actions, tables.direction_of, strict=True):
            if direction is None:
                out.append(self.can(name))
            else:
                kind = self.cells[ahead[direction]]
                out.append(tables.walkable[kind] or (direction != self.facing_direction and not tables.lethal[kind]))
        return np.array(out, bool)
