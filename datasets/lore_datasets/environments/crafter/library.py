"""What Crafter comes with: its skills (``skills.json``) and the rule book (``program.json``)."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from lore_datasets.environments.crafter.vocab import VOCAB
from lore_datasets.language.programs import Program, parse_program
from lore_datasets.language.skills import Skill, parse_skill

__all__ = ["base_skills", "rules"]


@cache
def base_skills() -> tuple[Skill, ...]:
    """The library in the order of its file, checked on first use."""
    return tuple(parse_skill(entry, VOCAB) for entry in json.loads(_text("skills.json")))


@cache
def rules() -> Program:
    """The rule book as a priority program; written by people, no language model's."""
    return parse_program(_text("program.json"), VOCAB, [skill.name for skill in base_skills()])


def _text(name: str) -> str:
    return resources.files("lore_datasets.environments.crafter").joinpath(name).read_text()
