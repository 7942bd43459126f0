"""Atari games of the Arcade Learning Environment, as ``ale:Pong-v5``: pixels for all, words of the memory for Pong."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from lore_datasets.environments import Environment, Score
from lore_datasets.environments.ale.vocab import PONG, plain_words
from lore_datasets.language.programs import parse_program
from lore_datasets.language.skills import parse_skill

__all__ = ["environment"]

_SCORE = Score("games won", "the share of all training episodes that ended with more points won than lost")
_ABOUT = """\
Atari's Pong. The player's paddle is at the right and moves up and down; a ball goes to and fro between it and the
opponent's paddle at the left. A point is won when the ball passes the opponent and lost when it passes the player; 21
points win the game. "right" moves the paddle up, "left" moves it down, "fire" serves. Numbers: ball_x grows to the
right, ball_y, player_y and opponent_y grow downwards; ball_above and ball_below say how far the ball lies over or under
the middle of the player's paddle, one of them is 0; ball_in_play is 0 before a serve."""


def environment(name: str) -> Environment:
    """One game. Pong has words, skills and a rule book; every other game is pixels alone."""
    if name.partition(":")[2].partition("-")[0] == "Pong":
        return _pong(name)
    return Environment(name, plain_words(name), "ale/0", game="lore.envs.ale.adapter", symbolic=False, score=_SCORE)


@cache
def _pong(name: str) -> Environment:
    home = resources.files("lore_datasets.environments.ale")
    skills = tuple(parse_skill(entry, PONG) for entry in json.loads(home.joinpath("pong_skills.json").read_text()))
    rules = parse_program(home.joinpath("pong_program.json").read_text(), PONG, [skill.name for skill in skills])
    return Environment(
        name, PONG, "ale-pong/1", skills, rules=rules, game="lore.envs.ale.adapter", family="ale-pong", about=_ABOUT,
        score=_SCORE,
    )  # fmt: skip
