"""Vectors of environments and the Gymnasium form."""

import json
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from lore.envs import gym as lore_gym
from lore.envs.crafter.adapter import CrafterEnv
from lore.envs.vector import VectorEnv
from lore_datasets.errors import BadInput, UsageError

SMALL = (24, 24)


def fns(n=2, length=10_000, pixels=True):
    return [partial(CrafterEnv, i, SMALL, length, pixels) for i in range(n)]


def test_the_terminal_frame_is_returned_and_the_next_step_is_the_reset_frame():
    vector = VectorEnv(fns(2, length=4))
    vector.reset()
    steps = [vector.step([0, 0])[0] for _ in range(6)]
    assert [s.is_last for s in steps] == [False, False, False, True, False, False]
    assert [s.is_first for s in steps] == [False, False, False, False, True, False]
    assert steps[4].reward == 0.0 and steps[4].info["episode"] == 2 and steps[4].info["length"] == 0
    assert not np.array_equal(steps[3].image, steps[4].image)


def test_the_action_after_an_end_is_ignored_for_that_environment_alone():
    a, b = VectorEnv(fns(2)), VectorEnv(fns(2))
    for vector in (a, b):
        vector.reset()
        vector.envs[0]._player.health = 0
        vector.step([0, 0])
    first, second = a.step([1, 4]), b.step([3, 4])
    assert first[0].is_first and np.array_equal(first[0].state, second[0].state)
    assert not first[1].is_first and np.array_equal(first[1].state, second[1].state)


def test_a_restored_vector_continues_identically_also_from_an_ended_episode():
    vector = VectorEnv(fns(2, length=30))
    vector.reset()
    for i in range(30):
        vector.step([i % 17, (i * 5) % 17])
    saved = json.loads(json.dumps(vector.state_dict()))
    other = VectorEnv(fns(2, length=30))
    other.load_state_dict(saved)
    for i in range(40):
        for x, y in zip(vector.step([i % 17, 3]), other.step([i % 17, 3]), strict=True):
            assert np.array_equal(x.state, y.state) and np.array_equal(x.image, y.image) and x[2:6] == y[2:6]


def test_wrong_use_of_a_vector_is_named():
    vector = VectorEnv(fns(2))
    with pytest.raises(UsageError, match="reset"):
        vector.step([0, 0])
    vector.reset()
    with pytest.raises(BadInput, match="1 actions for 2"):
        vector.step([0])
    with pytest.raises(BadInput, match="snapshot of 1"):
        vector.load_state_dict({"ended": [False], "envs": [{}]})
    with pytest.raises(BadInput, match="no environments"):
        VectorEnv([])


def test_gymnasiums_own_checker_accepts_both_observations():
    lore_gym.register()
    lore_gym.register()
    for observation in ("pixels", "symbolic"):
        env = gymnasium.make(
            f"lore.envs.gym:{lore_gym.ID}", observation=observation, area=SMALL, render_mode="rgb_array"
        )
        check_env(env.unwrapped)
        assert env.reset(seed=1)[0].dtype == np.uint8
        env.close()


def test_the_gymnasium_form_keeps_death_and_time_limit_apart_and_seeds_its_worlds():
    env = lore_gym.LoreCrafter(area=SMALL, length=3, observation="symbolic")
    first, info = env.reset(seed=4)
    assert info["episode"] == 1
    ends = [env.step(0)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    second, info = env.reset()
    assert info["episode"] == 2 and not np.array_equal(first, second)
    assert np.array_equal(env.reset(seed=4)[0], first)
    env.game._player.health = 0
    assert env.step(0)[2:4] == (True, False)
