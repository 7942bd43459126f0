"""The words of Pong, numbers read from the machine's memory, and those of games of which nothing but frames is read."""

from __future__ import annotations

from lore_datasets.vocab import Vocab

__all__ = ["ACTIONS", "PONG", "RAM", "plain_words"]

ACTIONS = (
    "noop", "fire", "up", "right", "left", "down", "upright", "upleft", "downright", "downleft", "upfire", "rightfire",
    "leftfire", "downfire", "uprightfire", "upleftfire", "downrightfire", "downleftfire",
)  # fmt: skip
"""All actions of the machine, by id."""
RAM = {"player_y": 51, "opponent_y": 50, "ball_x": 49, "ball_y": 54, "points_lost": 13, "points_won": 14}
"""Address of each number of Pong (Anand et al. 2019, Unsupervised State Representation Learning in Atari, table of
labels)."""
_NUMBERS = (*RAM, "ball_above", "ball_below", "ball_in_play")


def plain_words(name: str) -> Vocab:
    """Words of a game whose states show nothing: its actions alone."""
    return Vocab(name, ACTIONS, ("nothing", "player"), (), (), ("won",), (("here", 0, 0, ACTIONS[0]),), (1, 1), ())


PONG = Vocab(
    environment="ale:Pong-v5",
    actions=("noop", "fire", "right", "left", "rightfire", "leftfire"),
    targets=("nothing", "player"),
    items=_NUMBERS,
    vitals=(),
    achievements=("won",),
    directions=(("here", 0, 0, "noop"),),
    view=(3, 3),
    walkable=(),
    max_count=255,
    numbers=_NUMBERS,
)
