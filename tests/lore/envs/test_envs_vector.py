"""Vectors of environments and the Gymnasium form."""

import copy
import json
import pickle
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics
from gymnasium.wrappers.vector import RecordEpisodeStatistics as VectorStatistics

from lore.envs import gym as lore_gym
from lore.envs.crafter.adapter import CrafterEnv
from lore.envs.vector import VectorEnv
from lore_datasets.errors import BadInput, GameFailed, UsageError

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
    assert info["episode_number"] == 1
    ends = [env.step(0)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    second, info = env.reset()
    assert info["episode_number"] == 2 and not np.array_equal(first, second)
    assert np.array_equal(env.reset(seed=4)[0], first)
    env.game._player.health = 0
    assert env.step(0)[2:4] == (True, False)


def test_a_game_that_raises_is_named_with_its_seed_world_and_step():
    class Broken(CrafterEnv):
        def step(self, action):
            return 1 / 0 if self._steps == 3 else super().step(action)

    vector = VectorEnv([*fns(1), partial(Broken, 7, SMALL)])
    vector.reset()
    for _ in range(3):
        vector.step([0, 0])
    said = r"environment 1 \(crafter\) raised ZeroDivisionError: .* at action 5, seed 7, episode 1, steps 3"
    with pytest.raises(GameFailed, match=said) as error:
        vector.step([0, 5])
    assert error.value.exit_code == 9 and "checkpoint" in error.value.kept


def made(length=6):
    lore_gym.register()
    return gymnasium.make(lore_gym.ID, area=SMALL, length=length, observation="symbolic")


def test_gymnasium_s_own_statistics_of_an_episode_work_with_one_and_with_many():
    env = RecordEpisodeStatistics(made())
    env.reset(seed=0)
    info = [env.step(0)[-1] for _ in range(6)][-1]
    assert info["episode"]["l"] == 6 and info["episode_number"] == 1
    many = VectorStatistics(SyncVectorEnv([made] * 2))
    many.reset(seed=0)
    infos = [many.step(np.zeros(2, np.int64))[-1] for _ in range(6)]
    assert infos[-1]["episode"]["l"].tolist() == [6, 6]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_an_environment_is_copied_and_pickled_in_the_middle_of_a_game(copied):
    env = made(40).unwrapped
    assert copied(env).reset(seed=1)[0].tolist() == env.reset(seed=1)[0].tolist()
    for action in (1, 2, 5):
        env.step(action)
    twin = copied(env)
    for action in (3, 4, 5, 1, *[0] * 40):
        ours, its = env.step(action), twin.step(action)
        assert ours[0].tolist() == its[0].tolist() and ours[1:4] == its[1:4]
        if ours[3]:
            break
    assert env.reset()[0].tolist() == twin.reset()[0].tolist(), "the next world is the same too"
