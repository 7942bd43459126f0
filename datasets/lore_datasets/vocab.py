"""The closed word lists of an environment: what there is, what can be done, what it costs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lore_datasets.errors import BadInput, shown

__all__ = ["NAME_PATTERN", "Recipe", "Vocab"]

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
        has_mission: every state comes with a text that says what is to be done.
        creatures: targets that walk by themselves, over the same ground as the player.
        clears: (target, action, target it becomes) of each kind of cell that bars the way and that an action opens.
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

    def __post_init__(self) -> None:
        for group in ("actions", "targets", "items", "vitals", "achievements", "scalars"):
            names = getattr(self, group)
            bad = [n for n in names if not NAME_PATTERN.fullmatch(n)]
            if bad or len(set(names)) != len(names):
                raise BadInput(f"vocabulary {self.environment}: bad or repeated {group} {bad}")

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
