"""The words of Crafter 1.8.3 and what each action needs (facts read off the game's data.yaml and objects.py)."""

from __future__ import annotations

from lore_datasets.vocab import Recipe, Vocab

__all__ = ["KEY_SCHEME", "TILES", "UNLOCKS", "VOCAB"]

KEY_SCHEME = "crafter/1"
"""Names the hash of states (see :mod:`lore_datasets.keys`); changes whenever a key would change."""
UNLOCKS = (("sleep", "wake_up"),)
"""(goal, achievement it leads to) where the two have different names."""

_GROUND = ("grass", "sand", "path")


def _recipes() -> dict[str, tuple[Recipe, ...]]:
    def make(near: tuple[str, ...], **uses: int) -> tuple[Recipe, ...]:
        needs = tuple(uses.items())
        return (Recipe(needs=needs, uses=needs, near=near),)

    table, both = ("table",), ("table", "furnace")
    do = [Recipe(facing=("tree",)), Recipe(facing=("water",)), Recipe(facing=("grass",))]
    do += [Recipe(facing=("cow",)), Recipe(facing=("zombie",)), Recipe(facing=("skeleton",)), Recipe(facing=("plant",))]
    do += [Recipe(needs=(("wood_pickaxe", 1),), facing=("stone", "coal"))]
    do += [Recipe(needs=(("stone_pickaxe", 1),), facing=("iron",))]
    do += [Recipe(needs=(("iron_pickaxe", 1),), facing=("diamond",))]
    stone, wood, furnace, sapling = (("stone", 1),), (("wood", 2),), (("stone", 4),), (("sapling", 1),)
    return {
        "do": tuple(do),
        "place_stone": (Recipe(needs=stone, uses=stone, facing=(*_GROUND, "water", "lava")),),
        "place_table": (Recipe(needs=wood, uses=wood, facing=_GROUND),),
        "place_furnace": (Recipe(needs=furnace, uses=furnace, facing=_GROUND),),
        "place_plant": (Recipe(needs=sapling, uses=sapling, facing=("grass",)),),
        "make_wood_pickaxe": make(table, wood=1),
        "make_wood_sword": make(table, wood=1),
        "make_stone_pickaxe": make(table, wood=1, stone=1),
        "make_stone_sword": make(table, wood=1, stone=1),
        "make_iron_pickaxe": make(both, wood=1, coal=1, iron=1),
        "make_iron_sword": make(both, wood=1, coal=1, iron=1),
    }


VOCAB = Vocab(
    environment="crafter",
    actions=(
        "noop", "move_left", "move_right", "move_up", "move_down", "do", "sleep", "place_stone", "place_table",
        "place_furnace", "place_plant", "make_wood_pickaxe", "make_stone_pickaxe", "make_iron_pickaxe",
        "make_wood_sword", "make_stone_sword", "make_iron_sword",
    ),
    targets=(
        "nothing", "water", "grass", "stone", "path", "sand", "tree", "lava", "coal", "iron", "diamond", "table",
        "furnace", "player", "cow", "zombie", "skeleton", "arrow", "plant",
    ),
    items=(
        "sapling", "wood", "stone", "coal", "iron", "diamond", "wood_pickaxe", "stone_pickaxe", "iron_pickaxe",
        "wood_sword", "stone_sword", "iron_sword",
    ),
    vitals=("health", "food", "drink", "energy"),
    achievements=(
        "collect_coal", "collect_diamond", "collect_drink", "collect_iron", "collect_sapling", "collect_stone",
        "collect_wood", "defeat_skeleton", "defeat_zombie", "eat_cow", "eat_plant", "make_iron_pickaxe",
        "make_iron_sword", "make_stone_pickaxe", "make_stone_sword", "make_wood_pickaxe", "make_wood_sword",
        "place_furnace", "place_plant", "place_stone", "place_table", "wake_up",
    ),
    directions=(
        ("left", -1, 0, "move_left"), ("right", 1, 0, "move_right"), ("up", 0, -1, "move_up"),
        ("down", 0, 1, "move_down"),
    ),
    view=(9, 7),
    walkable=_GROUND,
    lethal=("lava",),
    recipes=_recipes(),
    hostile=("zombie", "skeleton", "arrow"),
    creatures=("cow", "zombie", "skeleton", "arrow"),
    clears=(
        ("stone", "do", "path"), ("coal", "do", "path"), ("iron", "do", "path"), ("diamond", "do", "path"),
        ("tree", "do", "grass"), ("water", "place_stone", "stone"),
    ),
    clock=("sleeping", "daylight"),
)  # fmt: skip

TILES = {
    "nothing": "#1b1d23", "water": "#4a90d9", "grass": "#6aa84f", "stone": "#8d9199",
    "path": "#c8b38e", "sand": "#e6d79b", "tree": "#2f6b34", "lava": "#e2552c",
    "coal": "#3c3f45", "iron": "#d8a07a", "diamond": "#bdf0f5", "table": "#8a5a2b",
    "furnace": "#5b5f68", "player": "#f7f7f7", "cow": "#a9745b", "zombie": "#3f7d5a",
    "skeleton": "#dcdcd2", "arrow": "#f0e68c", "plant": "#9ed36a",
}  # fmt: skip
"""Target -> colour of a drawn state."""
