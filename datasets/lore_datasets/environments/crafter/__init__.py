"""Crafter: its words, and the texts about it (skills, the rule book; templates have their place here too)."""

from lore_datasets.environments.crafter.library import base_skills, rules
from lore_datasets.environments.crafter.vocab import KEY_SCHEME, UNLOCKS, VOCAB

__all__ = ["KEY_SCHEME", "UNLOCKS", "VOCAB", "base_skills", "rules"]
