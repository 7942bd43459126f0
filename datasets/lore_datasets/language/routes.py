"""Steps that lead where no walk leads: up to what cannot be reached, through what can be cleared, into a closed room.

Every function tells the next primitive action for one view, or None where there is nothing to do; asked again in the
state that follows, it goes on. Only what the view shows is used, and no action walks onto a lethal cell. ``through``
are kinds of cells that may be opened (``Vocab.clears``): stone is dug away, water is covered and the cover dug away.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from lore_datasets.language.geometry import StateView
from lore_datasets.language.geometry_tables import Tables, tables_of

__all__ = [
    "can_apply",
    "can_clear",
    "step_ahead",
    "step_beside_all",
    "step_digging",
    "step_fencing",
    "step_near",
    "step_wandering",
]


def step_near(view: StateView, ids: Sequence[int], within: int) -> int | None:
    """Towards the reachable cell that lies closest (Manhattan) to one of these kinds, itself reachable or not; None
    from ``within`` on, when none is in view, or when no reachable cell lies closer than this one.
    """
    tables = tables_of(view.vocab)
    places = [tables.place[cell] for cell, kind in enumerate(view.cells) if kind in ids and cell != tables.center]
    if not places or view.near_ids(ids, within):
        return None
    away = lambda cell: min(abs(x - tables.place[cell][0]) + abs(y - tables.place[cell][1]) for x, y in places)  # noqa: E731
    walks = view.walks()
    best = min(walks, key=lambda cell: (away(cell), walks[cell][0]))
    return tables.moves[walks[best][1]] if away(best) < away(tables.center) else None


def step_beside_all(view: StateView, ids: Sequence[int]) -> int | None:
    """To the nearest reachable cell with every one of these kinds in its 3x3 block, as crafting needs it; None there,
    or when no reachable cell has them.
    """
    tables, walks = tables_of(view.vocab), view.walks()
    spots = [[tables.place[cell] for cell, kind in enumerate(view.cells) if kind == i] for i in set(ids)]

    def fits(cell: int) -> bool:
        x, y = tables.place[cell]
        return all(any(abs(x - a) <= 1 and abs(y - b) <= 1 for a, b in spot) for spot in spots)

    found = next((cell for cell in walks if fits(cell)), tables.center)
    return None if found == tables.center else tables.moves[walks[found][1]]


def step_fencing(view: StateView, ids: Sequence[int], action: int) -> int | None:
    """Towards closing every side of the nearest such cell by an action that puts an obstacle straight ahead; None when
    its sides are closed, when none is in view with all its sides, or when no open side can be faced.
    """
    tables, walks = tables_of(view.vocab), view.walks()
    seen = [c for c, kind in enumerate(view.cells) if kind in ids and c != tables.center and min(tables.ahead[c]) >= 0]
    target = min(seen, key=tables.distance.__getitem__, default=-1)
    sides = tables.ahead[target] if seen else []
    ground = any(can_apply(view, action, kind) for kind, free in enumerate(tables.walkable) if free)
    best: tuple[int, int] | None = None  # steps, first action
    for side in sides:
        if not can_apply(view, action, view.cells[side]) and not (ground and side == tables.center):
            continue
        for direction, (dx, dy) in enumerate(tables.deltas):
            back = tables.deltas.index((-dx, -dy))
            stand = tables.ahead[side][back]
            if stand == target or stand not in walks:
                continue
            if stand == tables.center and view.facing_direction == direction:
                return action
            behind = tables.ahead[stand][back]  # the player faces the side when it walks on from here
            if behind in walks and (best is None or walks[behind][0] < best[0]):
                best = (walks[behind][0], tables.moves[direction if behind == tables.center else walks[behind][1]])
    return None if best is None else best[1]


def can_apply(view: StateView, action: int, kind: int, counts: Sequence[int] = ()) -> bool:
    """Whether an action would have its effect on a cell of this kind straight ahead, as far as items (``counts``, the
    inventory by default) go.
    """
    recipes, counts = tables_of(view.vocab).recipes.get(view.vocab.actions[action], ()), counts or view.counts
    return any(kind in at and all(counts[i] >= n for i, n in needs) for needs, at, _ in recipes)


def _cost(view: StateView, tables: Tables, kind: int, counts: Sequence[int]) -> int:
    """Actions until a cell of this kind has been entered from beside, turned to it; 0 where it cannot be opened."""
    cost = 1
    for _ in range(len(tables.clears)):
        if tables.walkable[kind] or kind not in tables.clears:
            break
        action, after = tables.clears[kind]
        if not can_apply(view, action, kind, counts):
            return 0
        cost, kind = cost + 1, after
    return cost if tables.walkable[kind] else 0


def can_clear(view: StateView, ids: Sequence[int]) -> dict[int, int]:
    """Cell kind -> actions until such a cell has been entered, for these kinds as far as the player can open them now,
    and for all that can be walked on. What is faced and bears an item's name counts as held: it is dug up first.
    """
    tables, counts = tables_of(view.vocab), list(view.counts)
    ahead = tables.items.get(view.facing)
    if ahead is not None:
        counts[ahead] += 1
    found = {kind: 1 for kind, free in enumerate(tables.walkable) if free}
    return found | {kind: cost for kind in ids if kind not in found and (cost := _cost(view, tables, kind, counts))}


def _enter(view: StateView, tables: Tables, direction: int) -> int:
    """The action that brings the player into the next cell: a move, or the turn to it and what opens it."""
    kind = view.cells[tables.ahead[tables.center][direction]]
    if tables.walkable[kind] or view.facing_direction != direction:
        return tables.moves[direction]
    return tables.clears[kind][0]


def step_ahead(view: StateView, direction: int, through: Sequence[int]) -> int | None:
    """One cell on in a direction, opened first where need be; None where it cannot be entered."""
    tables = tables_of(view.vocab)
    kind = view.cells[tables.ahead[tables.center][direction]]
    return _enter(view, tables, direction) if kind in can_clear(view, through) else None


def step_digging(view: StateView, ids: Sequence[int], through: Sequence[int]) -> int | None:
    """Along the cheapest way to beside one of these kinds, through cells that can be opened, and the turn to face it;
    None when facing one already or when no way leads there.
    """
    tables = tables_of(view.vocab)
    if view.facing_id in ids:
        return None
    costs, neighbours = can_clear(view, through), tables.neighbours[view.facing_direction]
    done: set[int] = set()
    heap = [(0, 0, tables.center, -1)]
    order = 0
    while heap:
        cost, _, cell, first = heapq.heappop(heap)
        if cell in done:
            continue
        done.add(cell)
        for nxt, direction in neighbours[cell]:
            kind = view.cells[nxt]
            if kind in ids and nxt != tables.center:
                if first >= 0:
                    return _enter(view, tables, first)
                return None if tables.lethal[kind] else tables.moves[direction]
        for nxt, direction in neighbours[cell]:
            step = costs.get(view.cells[nxt])
            if step and nxt not in done:
                order += 1
                heapq.heappush(heap, (cost + step, order, nxt, direction if first < 0 else first))
    return None


def step_wandering(view: StateView, rng: np.random.Generator | None) -> int:
    """Exploration of a player that turns with its view, which shows nothing of what lies behind.

    To the nearest reachable cell farther ahead that borders on what was not seen (kind 0) or on the end of the view;
    else ahead as far as it goes; else a turn, to a free side where there is one. With an rng, one step in five that
    passes a free side turns to it, and which side is drawn; without one it is the right.
    """
    tables, walks = tables_of(view.vocab), view.walks()
    left, right = (view.vocab.action(name) for name in view.vocab.turns)
    beside = {tables.moves[d]: n for d, n in enumerate(tables.ahead[tables.center]) if tables.deltas[d][0]}
    free = [turn for turn in (right, left) if tables.walkable[view.cells[beside[turn]]]]
    chosen = free[int(rng.integers(len(free)))] if rng is not None and free else (free or [right])[0]
    if rng is not None and free and rng.random() < 0.2:
        return chosen

    def is_open(cell: int) -> bool:
        beyond = [n for n, (_, dy) in zip(tables.ahead[cell], tables.deltas, strict=True) if dy <= 0]
        return tables.place[cell][1] < 0 and any(n < 0 or view.cells[n] == 0 for n in beyond)

    found = next((cell for cell in walks if is_open(cell)), None)
    if found is not None:
        return tables.moves[walks[found][1]]
    ahead = tables.ahead[tables.center][view.facing_direction]
    return tables.moves[view.facing_direction] if tables.walkable[view.cells[ahead]] else chosen
