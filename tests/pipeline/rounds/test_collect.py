"""Collecting: every player gets its share, interrupts keep what there is, a continued collection adds new episodes."""

from collections import namedtuple

import numpy as np
import pytest

from lore_datasets.errors import BadInput
from lore_datasets.testing import random_states
from pipeline.rounds.collect import CollectedStates, HalfAndHalf, RandomPolicy, collect, commit_states

Step = namedtuple("Step", "state is_last")

PLAYERS = ("random", "rules", "half_and_half")


class Walk:
    """A small game: episodes of 40 random states of its seed, ended early by action 16."""

    def __init__(self, env, stop_after=None):
        self.spec, self.stop_after, self.steps, self.closed = env, stop_after, 0, False

    def reset(self, seed):
        self.states, self.at = random_states(self.spec, 40, np.random.default_rng(seed)).pack(), 0
        return Step(self.states[0], False)

    def step(self, action):
        self.steps += 1
        if self.stop_after and self.steps > self.stop_after:
            raise KeyboardInterrupt
        self.at += 1
        return Step(self.states[self.at], self.at == 39 or action == 16)

    def close(self):
        self.closed = True


class Still:
    """A player that does nothing and counts its episodes."""

    episodes = 0

    def __call__(self, view, rng):
        return 0

    def reset(self):
        self.episodes += 1


def players():
    return {"random": RandomPolicy(), "rules": Still(), "half_and_half": HalfAndHalf(Still())}


def gather(env, budget=90, seed=0, **options):
    return collect(lambda: Walk(env), players(), budget, np.random.default_rng(seed), stride=3, **options)


def test_every_player_contributes_its_share_of_the_budget(env):
    found = gather(env, 91)
    assert len(found) == 91 and found.complete and found.sources == PLAYERS
    assert np.bincount(found.source).tolist() == [31, 30, 30]
    for episode in np.unique(found.episode):
        mine = found.episode == episode
        assert len(set(found.source[mine])) == 1
        assert (np.diff(found.step[mine]) > 0).all()


def test_the_same_seed_collects_the_same_states_and_another_seed_others(env):
    a, b, c = gather(env), gather(env), gather(env, seed=1)
    assert np.array_equal(a.state, b.state) and np.array_equal(a.step, b.step)
    assert not np.array_equal(a.state, c.state)


def test_one_state_in_stride_steps_is_kept(env):
    found = gather(env, 300)
    steps = sum(found.step[found.episode == e].max() + 1 for e in np.unique(found.episode))
    assert 2.0 < steps / len(found) < 4.0


def test_an_interrupt_keeps_what_there_is_and_a_second_run_completes_it(env):
    game = Walk(env, stop_after=150)
    part = collect(lambda: game, players(), 120, np.random.default_rng(0), stride=3)
    assert 0 < len(part) < 120 and not part.complete and game.closed
    whole = gather(env, 120, start=part)
    assert len(whole) == 120 and whole.complete
    assert np.array_equal(whole.state[: len(part)], part.state)
    assert whole.episode[len(part) :].min() > part.episode.max()
    assert np.bincount(whole.source).tolist() == [40, 40, 40]


def test_progress_is_reported_with_the_budget(env):
    seen = []
    gather(env, 300, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(100, 300), (200, 300), (300, 300)]


def test_collected_states_become_a_version_of_a_states_dataset(env, store):
    ref = commit_states(gather(env), env, store, "states", {"seed": 0})
    found = store.open(ref)
    assert found.manifest.kind == "states" and found.arrays["round-000/state"].shape == (90, env.layout.size)
    assert found.manifest.counts["by_source"] == {"random": 30, "rules": 30, "half_and_half": 30}
    assert found.manifest.provenance["sources"] == list(PLAYERS)


def test_nothing_collected_or_other_players_are_refused(env, store):
    with pytest.raises(BadInput, match="budget 0"):
        gather(env, 0)
    part = gather(env, 30)
    with pytest.raises(BadInput, match="begun with"):
        collect(lambda: Walk(env), {"random": RandomPolicy()}, 60, np.random.default_rng(0), start=part)
    empty = np.zeros(0, np.int32)
    nothing = CollectedStates(np.zeros((0, 99), np.uint8), empty, empty, empty.astype(np.uint8), PLAYERS, 0)
    with pytest.raises(BadInput, match="no states"):
        commit_states(nothing, env, store, "states")


def test_half_and_half_really_is(make_view):
    rng, view = np.random.default_rng(0), make_view()
    player = HalfAndHalf(Still(), hold=5)
    actions = [player(view, rng) for _ in range(4000)]
    assert 0.40 < np.mean([a != 0 for a in actions]) < 0.55
