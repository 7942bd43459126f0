"""MiniGrid and BabyAI: any id that the package ``minigrid`` registers, as ``minigrid:MiniGrid-DoorKey-8x8-v0``."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from importlib import resources

from lore_datasets.environments import Environment, Score
from lore_datasets.environments.minigrid.vocab import TILES, VOCAB
from lore_datasets.language.programs import Program, parse_program
from lore_datasets.language.skills import Skill, parse_skill

__all__ = ["environment", "rules", "skills"]

_ABOUT = """\
The player of a small grid world sees a square of 7 cells by 7: itself at the middle of its near side, what lies ahead
above it; walls hide what is behind them, and what was not seen is called nothing. The view turns with the player.
- "forward" steps into the cell straight ahead if that is free; "left" and "right" turn the player on the spot.
- "pickup" takes the key, ball or box straight ahead into an empty hand; one thing can be carried at a time
  ("empty_hand" is 1 while none is). "drop" puts it onto the free cell ahead. "toggle" opens or closes the door
  ahead, opens a box, and unlocks a locked door with a key of its colour in hand.
- Lava ends the episode. The mission says what is to be done; doing it ends the episode with a reward that is higher the
  fewer steps it took. What the mission names is marked: a key, ball, box or door of the mission is called wanted_key,
  wanted_ball, wanted_box, wanted_door; its colour is the mission's.
- A closed door is called red_door, an open one red_door_open, a locked one red_door_locked, and so for every colour."""


@cache
def skills() -> tuple[Skill, ...]:
    """The library in the order of ``skills.json``."""
    return tuple(parse_skill(entry, VOCAB) for entry in json.loads(_text("skills.json")))


@cache
def rules() -> Program:
    """The rule book as a priority program; written by people, no language model's."""
    return parse_program(_text("program.json"), VOCAB, [skill.name for skill in skills()])


def environment(name: str) -> Environment:
    """One environment of the family; all have the same words, skills and keys."""
    return Environment(
        name, replace(VOCAB, environment=name), "minigrid/1", skills(), rules=rules(),
        game="lore.envs.minigrid.adapter", family="minigrid", about=_ABOUT, tiles=TILES,
        score=Score("success", "the share of all training episodes that did what the mission says"),
    )  # fmt: skip


def _text(name: str) -> str:
    return resources.files("lore_datasets.environments.minigrid").joinpath(name).read_text()
