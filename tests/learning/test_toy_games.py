"""The toy games themselves: their rules, their chance levels, and snapshots."""

import json

import numpy as np
import pytest
from toy import CueMemory, Grid

from lore.envs.base import Env
from lore_datasets.errors import UsageError


def play(env, policy, episodes: int) -> tuple[float, float]:
    """Mean score and length of a policy over episodes."""
    scores, lengths = [], []
    for _ in range(episodes):
        step, score = env.reset(), 0.0
        while not step.is_last:
            step = env.step(policy(step))
            score += step.reward
        scores.append(score)
        lengths.append(step.info["length"])
    return float(np.mean(scores)), float(np.mean(lengths))


def test_the_grid_is_nothing_like_solved_by_chance_and_takes_three_steps_at_best():
    rng = np.random.default_rng(0)
    score, length = play(Grid(0), lambda step: int(rng.integers(4)), 1000)
    assert 0.3 < score < 0.45 and 15 < length < 17
    score, length = play(Grid(0), lambda step: 1 if not (step.image[:, 12:] == 255).any() else 3, 1000)
    assert score == 1.0 and length == pytest.approx(3.2, abs=0.2)


def test_the_lethal_cell_ends_an_episode_for_good_and_the_limit_only_cuts_it():
    env, rng, ends = Grid(1, lethal=True), np.random.default_rng(1), []
    for _ in range(200):
        step = env.reset()
        while not step.is_last:
            step = env.step(int(rng.integers(4)))
        ends.append((step.reward, step.is_terminal, step.info["length"] == 20))
    assert {end[:2] for end in ends} == {(1.0, True), (-1.0, True), (0.0, False)}
    assert all(late for reward, _, late in ends if reward == 0.0)


def test_the_go_frame_tells_nothing_of_the_cue_and_only_gambling_on_red_pays():
    env, frames, rewards = CueMemory(0), {0: [], 1: []}, {0: set(), 1: set()}
    for _ in range(40):
        env.reset()
        env.step(0)
        frames[env.cue].append(env.step(1).image)
        rewards[env.cue].add(env.step(1).reward)
    assert np.unique(np.stack(frames[0] + frames[1]), axis=0).shape[0] == 1
    assert rewards == {0: {1.0}, 1: {-1.0}}
    assert play(env, lambda step: 0, 20) == (0.0, 3.0)


@pytest.mark.parametrize("make", [lambda: Grid(3, lethal=True), lambda: CueMemory(3)], ids=["grid", "cue"])
def test_a_snapshot_goes_on_exactly_where_it_was_taken(make):
    env, other, rng = make(), make(), np.random.default_rng(0)
    assert isinstance(env, Env)
    env.reset()
    env.step(0)
    other.load_state_dict(json.loads(json.dumps(env.state_dict())))
    over = False
    for action in rng.integers(len(env.spec.vocab.actions), size=60).tolist():
        a, b = (e.reset() if over else e.step(action) for e in (env, other))
        over = a.is_last
        assert (a.reward, a.is_last, a.is_terminal, a.info["length"]) == (
            b.reward, b.is_last, b.is_terminal, b.info["length"],
        )  # fmt: skip
        assert (a.image == b.image).all()


def test_an_episode_that_is_over_takes_no_step():
    env = CueMemory(0)
    env.reset()
    for _ in range(3):
        env.step(0)
    with pytest.raises(UsageError, match="over"):
        env.step(0)
