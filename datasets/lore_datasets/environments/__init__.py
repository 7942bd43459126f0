"""What the contract knows about each environment: vocabulary, recipes, keys, base skills. Data and numpy, no game
code."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from lore_datasets.errors import NotFound, shown
from lore_datasets.types import StateLayout, layout_of

if TYPE_CHECKING:
    from lore_datasets.language.programs import Program
    from lore_datasets.language.skills import Skill
    from lore_datasets.vocab import Vocab

__all__ = ["ENVIRONMENTS", "Environment", "get_environment"]

ENVIRONMENTS = {"crafter": "lore_datasets.environments.crafter"}
"""Environment name -> package with ``VOCAB``, ``KEY_SCHEME``, ``base_skills()`` and perhaps ``UNLOCKS`` and
``rules()``."""


@dataclass(frozen=True)
class Environment:
    """The contract's view of one environment. ``unlocks``: (goal, achievement) where the two have different names.
    ``rules``: the rule book as a priority program, None where nobody wrote one.
    """

    name: str
    vocab: Vocab
    key_scheme: str
    skills: tuple[Skill, ...]
    unlocks: tuple[tuple[str, str], ...] = ()
    rules: Program | None = None

    @property
    def layout(self) -> StateLayout:
        """Byte layout of packed states."""
        return layout_of(self.vocab)


def get_environment(name: str) -> Environment:
    """The environment of that name; NotFound lists the known ones."""
    if name not in ENVIRONMENTS:
        raise NotFound(f"unknown environment {shown(name)!r}", hint=f"one of: {', '.join(sorted(ENVIRONMENTS))}")
    module = import_module(ENVIRONMENTS[name])
    unlocks, rules = getattr(module, "UNLOCKS", ()), getattr(module, "rules", lambda: None)
    return Environment(name, module.VOCAB, module.KEY_SCHEME, module.base_skills(), unlocks, rules())
