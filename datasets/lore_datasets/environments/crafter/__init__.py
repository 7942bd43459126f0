"""Crafter: its words, and the texts about it: skills, the rule book, the questions to models."""

from __future__ import annotations

from functools import cache

from lore_datasets.environments import Environment, Score
from lore_datasets.environments.crafter.library import base_skills, rules
from lore_datasets.environments.crafter.rule_book import more_skills, plan
from lore_datasets.environments.crafter.vocab import KEY_SCHEME, TILES, UNLOCKS, VOCAB

__all__ = ["KEY_SCHEME", "UNLOCKS", "VOCAB", "base_skills", "environment", "rules"]


@cache
def environment(name: str) -> Environment:
    """Crafter as the contract sees it."""
    return Environment(
        name, VOCAB, KEY_SCHEME, base_skills(), UNLOCKS, rules(), game="lore.envs.crafter.adapter",
        templates="lore_datasets.environments.crafter.templates", plans=plan, more_skills=more_skills(),
        score=_SCORE, tiles=TILES,
    )  # fmt: skip


_SCORE = Score(
    "Crafter score",
    "that of the Crafter benchmark, all training episodes",
    chance=1.6,
    references=(
        ("DreamerV3, 1,000,000 steps", 14.5, "Hafner et al. 2023"),
        ("human experts", 50.5, "Hafner 2021"),
    ),
    observation="pixels",
)
"""Published scores: https://arxiv.org/abs/2109.06780, https://arxiv.org/abs/2301.04104."""
