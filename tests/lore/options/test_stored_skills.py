"""Stored versions carry their own skills, and these go on to play as when they were stored."""

import hashlib

import numpy as np

from lore.envs.crafter.adapter import CrafterEnv
from lore.options.play import GoalPlayer
from lore_datasets import places
from lore_datasets.environments import get_environment
from lore_datasets.exchange.hdf5 import read_hdf5
from lore_datasets.language.geometry import StateView
from lore_datasets.language.skills import parse_skill

PLAYED = "439838ceb0fc523c1baeb008340273cde0c901691efcd27fe77d803e398970c5"
"""SHA-256 of the actions below, measured before the base library had more than 26 skills."""


def test_the_skills_of_crafter_rules_v1_play_every_action_as_before():
    vocab = get_environment("crafter").vocab
    stored = read_hdf5(places.shipped_files()["crafter-rules"][0]).arrays["round-000/skills/json"].tolist()
    skills = [parse_skill(each, vocab) for each in stored]
    rng = np.random.default_rng(5)
    names = [skill.name for skill in skills]
    player = GoalPlayer(lambda _: [(name, 1.0) for name in rng.permutation(names).tolist()], skills, vocab)
    env, digest = CrafterEnv(11, pixels=False), hashlib.sha256()
    for _ in range(6):
        player.reset()
        step = env.reset()
        while not step.is_last and env.last.info["length"] < 400:
            action = player(StateView(step.state, vocab), rng)
            digest.update(bytes([action]))
            step = env.step(action)
    assert len(skills) == 28 and digest.hexdigest() == PLAYED
