"""The words of MiniGrid 3.2.0 and BabyAI: kinds of cells are type, colour and state; what the mission names is marked.

The view is 7 cells wide and 13 high, so that the player stands in its centre as the contract has it: the upper 7 rows
are the game's own view, the lower 6 lie behind the player and are never seen.
"""

from __future__ import annotations

from lore_datasets.vocab import Recipe, Vocab

__all__ = ["COLOURS", "HEADINGS", "OBJECTS", "TILES", "VIEW", "VOCAB"]

COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
"""In the order of the game's colour ids."""
OBJECTS = ("key", "ball", "box")
"""What can be carried, in the order of the game's type ids."""
HEADINGS = ("heading_east", "heading_south", "heading_west", "heading_north")
"""In the order of the game's directions."""
VIEW = 7
_THINGS = tuple(f"{colour}_{kind}" for kind in OBJECTS for colour in COLOURS)
_CLOSED = tuple(f"{colour}_door" for colour in COLOURS)
_OPEN = tuple(f"{colour}_door_open" for colour in COLOURS)
_LOCKED = tuple(f"{colour}_door_locked" for colour in COLOURS)
_WANTED = ("wanted_key", "wanted_ball", "wanted_box")
_HELD = tuple(f"held_{thing}" for thing in _THINGS)

MISSION_WORDS = (
    ",", "a", "after", "and", "at", "avoid", "ball", "behind", "blue", "box", "door", "end", "fetch", "find", "from",
    "front", "get", "go", "goal", "green", "grey", "hallway", "in", "key", "lava", "left", "matching", "must", "near",
    "next", "object", "of", "on", "open", "opening", "pick", "purple", "put", "reach", "red", "right", "room", "rooms",
    "square", "the", "then", "to", "traverse", "unlock", "up", "use", "yellow", "you", "your",
)  # fmt: skip
"""Every word of the missions of minigrid 3.2.0."""


def _recipes() -> dict[str, tuple[Recipe, ...]]:
    carried = (*_THINGS, *_WANTED)
    unlock = tuple(Recipe(needs=((f"held_{colour}_key", 1),), facing=(f"{colour}_door_locked",)) for colour in COLOURS)
    return {
        "pickup": (Recipe(needs=(("empty_hand", 1),), facing=carried),),
        "drop": tuple(Recipe(needs=((held, 1),), uses=((held, 1),), facing=("empty",)) for held in _HELD),
        "toggle": (Recipe(facing=(*_CLOSED, *_OPEN, "wanted_door", *_boxes())), *unlock),
    }


def _boxes() -> tuple[str, ...]:
    return (*(f"{colour}_box" for colour in COLOURS), "wanted_box")


VOCAB = Vocab(
    environment="minigrid",
    actions=("left", "right", "forward", "pickup", "drop", "toggle", "done"),
    targets=(
        "nothing", "empty", "wall", "floor", "goal", "lava", "player", *_THINGS, *_CLOSED, *_OPEN, *_LOCKED, *_WANTED,
        "wanted_door",
    ),
    items=("empty_hand", *_HELD, *HEADINGS, "mission_pickup", "mission_open", "mission_go", "mission_put"),
    vitals=(),
    achievements=("success",),
    directions=(
        ("ahead", 0, -1, "forward"), ("right", 1, 0, "right"), ("back", 0, 1, "right"), ("left", -1, 0, "left"),
    ),
    view=(VIEW, 2 * VIEW - 1),
    walkable=("empty", "floor", "goal", *_OPEN),
    lethal=("lava",),
    recipes=_recipes(),
    max_count=1,
    clears=tuple((closed, "toggle", opened) for closed, opened in zip(_CLOSED, _OPEN, strict=True)),
    turns=("left", "right"),
    numbers=(*HEADINGS, "mission_pickup", "mission_open", "mission_go", "mission_put"),
    mission_words=MISSION_WORDS,
    mission_length=40,
)  # fmt: skip

_RGB = {"red": "#ff0000", "green": "#00c800", "blue": "#3c3cff", "purple": "#7027c3", "yellow": "#e6d200",
        "grey": "#8c8c8c"}  # fmt: skip
_STATES = ("key", "ball", "box", "door", "door_open", "door_locked")
TILES = {
    "nothing": "#141414", "empty": "#2a2a2a", "wall": "#646464", "floor": "#4b4b5a", "goal": "#00ff00",
    "lava": "#ff8000", "player": "#2a2a2a",
    **{f"{colour}_{kind}": _RGB[colour] for colour in COLOURS for kind in _STATES},
    **{f"wanted_{kind}": "#ffffff" for kind in _STATES},
}  # fmt: skip
"""Target -> colour of a drawn state."""
