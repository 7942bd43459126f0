"""How the rule book plays Crafter's goals as primitive actions, and the skills that it proposes beside the library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lore_datasets.language.geometry import StateView

__all__ = ["more_skills", "plan"]

_GROUND = ("grass", "sand", "path")
_TARGETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "collect_wood": (("tree",), ("do",)),
    "collect_stone": (("stone",), ("do",)),
    "collect_coal": (("coal",), ("do",)),
    "collect_iron": (("iron",), ("do",)),
    "collect_diamond": (("diamond",), ("do",)),
    "collect_drink": (("water",), ("do",) * 4),
    "collect_sapling": (("grass",), ("do",) * 8),
    "eat_cow": (("cow",), ("do",) * 3),
    "eat_plant": (("plant",), ("do",)),
    "defeat_zombie": (("zombie",), ("do",) * 3),
    "defeat_skeleton": (("skeleton",), ("do",) * 2),
    "place_plant": (("grass",), ("place_plant",)),
    "place_stone": ((*_GROUND, "water"), ("place_stone",)),
    "place_table": (_GROUND, ("place_table",)),
    "place_furnace": (_GROUND, ("place_furnace",)),
}
"""Goal -> what to stand before, and what to do there."""

_COMPOSITES = (
    ("wood_tools_on_the_spot", {"wood": 4}, ("place_table", "make_wood_pickaxe", "make_wood_sword"), "wood_sword"),
    (
        "stone_tools_on_the_spot",
        {"wood": 4, "stone": 2},
        ("place_table", "make_stone_pickaxe", "make_stone_sword"),
        "stone_sword",
    ),
)
"""Name, needs, actions in order, tool that ends it."""


def plan(goal: str, view: StateView) -> list[str]:
    """One goal as primitive action names over the crop as it stands; empty where it has no such form."""
    names = view.vocab.actions
    if goal == "sleep":
        return ["sleep"] * 12
    if goal == "explore":
        return [names[a] for a in view.path_along(view.facing_direction)]
    if goal.startswith("make_"):
        return [*(names[a] for a in ([] if view.can(goal) else view.path_to("table"))), goal]
    if goal not in _TARGETS:
        return []
    targets, last = _TARGETS[goal]
    steps = [*(names[a] for a in view.path_to(targets)), *last]
    if goal == "place_table":
        wood = view.inventory("wood") - 2
        todo = [t for t in ("make_wood_pickaxe", "make_wood_sword") if not view.inventory(t.removeprefix("make_"))]
        steps += todo[: max(0, wood)]
    return steps


def more_skills() -> tuple[dict[str, Any], ...]:
    """Skills of the rule book's own, as JSON values."""
    return tuple(_composite(*entry) for entry in _COMPOSITES)


def _composite(name: str, needs: dict[str, int], actions: Sequence[str], tool: str) -> dict[str, Any]:
    have = [{"op": "inventory", "item": item, "cmp": ">=", "value": n} for item, n in needs.items()]
    done = {"op": "inventory", "item": tool, "cmp": ">=", "value": 1}
    if "stone" in needs:
        have.append({"op": "inventory", "item": "wood_pickaxe", "cmp": ">=", "value": 1})
    return {
        "version": 1,
        "name": name,
        "about": "place a table here and make both tools at once",
        "start": {"op": "all", "of": [*have, {"op": "not", "of": done}, {"op": "reachable", "target": list(_GROUND)}]},
        "steps": [
            {"do": "move_toward", "target": list(_GROUND), "limit": 6},
            *({"do": "act", "action": action, "times": 1} for action in actions),
        ],
        "done": done,
        "max_steps": 12,
    }
