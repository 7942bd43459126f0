"""The closed word lists of an environment: what there is, what can be done, what it costs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lore_datasets.errors import BadInput, shown

__all__ = ["CLOCK", "NAME_PATTERN", "Recipe", "Vocab"]

CLOCK = ("sleeping", "daylight")
"""What time may do in a game."""

NAME_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""Names of actions, items, targets and skills: short, lower case, ASCII."""


@dataclass(frozen=True)
class Recipe:
    """What one primitive action needs before it can have an effect.

    Attributes:
        needs: items (name, at least this many) in the inventory.
        uses: items (name, count) that a success consumes.
        facing: the action needs one of these targets straight ahead; empty for "does not matter".
        near: all of these targets must stand in the 3x3 block around the player.
    """

    needs: tuple[tuple[str, int], ...] = ()
    uses: tuple[tuple[str, int], ...] = ()
    facing: tuple[str, ...] = ()
    near: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vocab:
    """Closed word lists of one environment.

    Attributes:
        environment: its name, stored in every artifact.
        actions: primitive actions, in the order of the environment's action ids.
        targets: names of the cell ids of the view, index = id (id 0 = nothing / outside the map).
        items: inventory items, in storage order (vitals apart).
        vitals: vital signs, in storage order.
        achievements: what an episode can unlock, in storage order.
        directions: facing ids, each with its (dx, dy) and the action that moves there.
        view: width and height of the visible crop, in cells; the player stands in its centre.
        walkable: targets that the player may step onto (lethal ones excluded).
        recipes: action name -> list of alternatives, any of which makes the action effective.
        max_count: inventory and vital values are clamped to this by the environment.
        hostile: targets that hurt when they come close (an adjacent one changes the goal key).
        scalars: names of the numbers that a state has beside its packed bytes; none where all of it is packed.
        has_mission: rows are stored with a text that says what is to be done.
        creatures: targets that walk by themselves, over the same ground as the player.
        clears: (target, action, target it becomes) of each kind of cell that bars the way and that an action opens.
        turns: actions that turn the player on the spot. Where there are any, the view turns with the player: its
            directions are those of the view, it always faces the first of them, and their actions walk or turn.
        clock: what time does here: ``sleeping``, ``daylight``, both or neither.
        numbers: those of ``items`` that nobody carries: positions, headings, counters.
        mission_words: closed list of words that say what is to be done; a state holds their places, counted from 1.
        mission_length: most words of a mission, 0 where there is none.
    """

    environment: str
    actions: tuple[str, ...]
    targets: tuple[str, ...]
    items: tuple[str, ...]
    vitals: tuple[str, ...]
    achievements: tuple[str, ...]
    directions: tuple[tuple[str, int, int, str], ...]
    view: tuple[int, int]
    walkable: tuple[str, ...]
    recipes: dict[str, tuple[Recipe, ...]] = field(default_factory=dict)
    max_count: int = 9
    lethal: tuple[str, ...] = ()
    hostile: tuple[str, ...] = ()
    scalars: tuple[str, ...] = ()
    has_mission: bool = False
    creatures: tuple[str, ...] = ()
    clears: tuple[tuple[str, str, str], ...] = ()
    turns: tuple[str, ...] = ()
    clock: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    mission_words: tuple[str, ...] = ()
    mission_length: int = 0

    def __post_init__(self) -> None:
        for group in ("actions", "targets", "items", "vitals", "achievements", "scalars"):
            names = getattr(self, group)
            bad = [n for n in names if not NAME_PATTERN.fullmatch(n)]
            if bad or len(set(names)) != len(names):
                raise BadInput(f"vocabulary {self.environment}: bad or repeated {group} {bad}")
        if not set(self.clock) <= set(CLOCK):
            raise BadInput(f"vocabulary {self.environment}: clock {shown(self.clock)}", hint=f"of: {', '.join(CLOCK)}")
        if not 0 <= len(self.mission_words) < 256 or bool(self.mission_words) != bool(self.mission_length):
            raise BadInput(f"vocabulary {self.environment}: mission_words and mission_length do not go together")
        strange = [n for n in self.numbers if n not in self.items] + [n for n in self.turns if n not in self.actions]
        if strange:
            raise BadInput(f"vocabulary {self.environment}: {', '.join(strange)} is no item or action of it")

    def index(self, group: str, name: str) -> int:
        """Position of ``name`` in a group ("actions", "targets", ...); BadInput lists near names."""
        names: tuple[str, ...] = getattr(self, group)
        try:
            return names.index(name)
        except ValueError:
            from difflib import get_close_matches

            near = get_close_matches(str(name), names, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"one of: {', '.join(names)}"
            raise BadInput(f"unknown name {shown(name)!r} among {group}", hint=hint) from None

    def action(self, name: str) -> int:
        """Id of a primitive action."""
        return self.index("actions", name)

    def target(self, name: str) -> int:
        """Id of a view cell kind."""
        return self.index("targets", name)

    def mission_ids(self, text: str) -> list[int]:
        """uint8 values [mission_length] of a mission: places of its words, then 0; BadInput for other words."""
        words = text.lower().replace(",", " ,").split()
        strange = [word for word in words if word not in self.mission_words]
        if strange or len(words) > self.mission_length:
            what = f"the word {shown(strange[0])!r}" if strange else f"{len(words)} words"
            raise BadInput(
                f"{self.environment}: a mission has {what}",
                hint=f"a mission has at most {self.mission_length} words, all of the vocabulary's closed list",
            )
        return [self.mission_words.index(word) + 1 for word in words] + [0] * (self.mission_length - len(words))

    def mission_text(self, ids: Sequence[int]) -> str:
        """The text of :meth:`mission_ids`; ids outside the list are left out."""
        words = [self.mission_words[i - 1] for i in ids if 0 < i <= len(self.mission_words)]
        return " ".join(words).replace(" ,", ",")
