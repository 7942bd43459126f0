"""Selection: distinct states under a budget, rare situations first, competent play oversampled, by seed alone."""

import numpy as np
import pytest

from lore_datasets.errors import BadInput
from lore_datasets.keys import fine_keys, goal_keys
from lore_datasets.testing import random_states
from lore_datasets.types import SymbolicState
from pipeline.rounds.select import select


@pytest.fixture(scope="module")
def many(env):
    """600 states: 10 situations, of which the first covers 400 states that differ in one far cell only."""
    base = random_states(env, 10, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    which = np.r_[np.zeros(400, int), rng.integers(1, 10, 200)]
    states = SymbolicState.unpack(base[which].pack(), env.layout)
    view = states.view.copy()
    view[:, 0, 0] = rng.integers(1, 3, 600)
    view[:, 0, 8] = rng.integers(1, 3, 600)
    view[:, 6, 0] = rng.integers(1, 3, 600)
    view[:, 6, 8] = rng.integers(1, 3, 600)
    fields = {**vars(states), "view": view}
    return SymbolicState(**fields)


def test_a_selection_is_ascending_within_budget_and_without_equal_states(env, many):
    chosen = select(many, env, 60)
    assert len(chosen) == 60 and (np.diff(chosen) > 0).all()
    assert len(set(fine_keys(many[chosen], env))) == 60
    everything = select(many, env, 10_000)
    assert len(everything) == len(set(fine_keys(many, env)))


def test_the_seed_alone_decides(env, many):
    assert np.array_equal(select(many, env, 40, seed=3), select(many, env, 40, seed=3))
    assert not np.array_equal(select(many, env, 40, seed=3), select(many, env, 40, seed=4))


def test_novelty_covers_more_situations_than_chance(env, many):
    def situations(novelty):
        return len(set(goal_keys(many[select(many, env, 12, novelty=novelty)], env)))

    there = len(set(goal_keys(many, env)))
    assert situations(1.0) == min(12, there) > situations(0.0)


def test_competent_states_are_oversampled(env):
    states = random_states(env, 2000, np.random.default_rng(2))
    source = np.arange(2000) % 2
    share = [
        np.mean(source[select(states, env, 400, source=source, competent_weight=w, novelty=0.0)]) for w in (1.0, 4.0)
    ]
    assert 0.42 < share[0] < 0.58 and 0.68 < share[1] < 0.88


def test_states_with_known_keys_or_no_weight_are_left_out(env, many):
    keys = fine_keys(many, env)
    first = select(many, env, 30)
    second = select(many, env, 30, known=keys[first])
    assert not set(keys[first]) & set(keys[second])
    weight = np.zeros(600)
    weight[500:] = 1.0
    assert select(many, env, 30, weight=weight).min() >= 500


@pytest.mark.parametrize("bad", [{"budget": 0}, {"novelty": 2.0}, {"weight": np.full(600, np.nan)}])
def test_values_out_of_range_are_refused(env, many, bad):
    with pytest.raises(BadInput):
        select(many, env, **{"budget": 5, **bad})


def test_coverage_asks_about_uncovered_situations_where_the_agent_goes_most_often(env, many):
    goal = goal_keys(many, env)
    keys, counts = np.unique(goal, return_counts=True)
    by_visits = keys[np.argsort(-counts, kind="stable")]
    covered = by_visits[:1]  # the situation that covers 400 states has its rows already
    chosen = select(many, env, 3, novelty=0.0, coverage=1.0, covered=covered)
    assert set(goal[chosen]) == set(by_visits[1:4])
    without = select(many, env, 1, novelty=0.0, coverage=1.0)
    assert goal[without[0]] == by_visits[0]


def test_where_everything_is_covered_the_budget_is_drawn_at_random(env, many):
    chosen = select(many, env, 30, novelty=0.0, coverage=1.0, covered=goal_keys(many, env))
    assert len(chosen) == 30


def test_unsure_states_are_drawn_by_their_uncertainty_and_unknown_ones_not_at_all(env):
    states = random_states(env, 1000, np.random.default_rng(5))
    uncertainty = np.where(np.arange(1000) < 500, 0.1, 0.9)
    uncertainty[-100:] = np.nan
    chosen = select(states, env, 200, novelty=0.0, unsure=1.0, uncertainty=uncertainty)
    share = np.mean((chosen >= 500) & (chosen < 900))
    assert (chosen < 900).all() and 0.75 < share < 0.95  # 400 * .9 of 410 in expectation of the first draws
    mixed = select(states, env, 200, novelty=0.0, unsure=0.5, uncertainty=uncertainty)
    assert (mixed >= 900).any() and len(mixed) == 200


def test_shares_are_mixed_under_one_budget_and_repeatable(env, many):
    shares = {"novelty": 0.2, "coverage": 0.4, "unsure": 0.2, "uncertainty": np.linspace(0, 1, 600)}
    shares["covered"] = goal_keys(many, env)[:3]
    chosen = select(many, env, 50, **shares)
    assert len(chosen) == 50 == len(set(fine_keys(many[chosen], env)))
    assert np.array_equal(chosen, select(many, env, 50, **shares))


@pytest.mark.parametrize(
    "bad", [{"novelty": 0.7, "coverage": 0.4}, {"unsure": -0.1}, {"uncertainty": np.full(600, np.inf)}]
)
def test_shares_over_one_and_infinite_uncertainty_are_refused(env, many, bad):
    with pytest.raises(BadInput):
        select(many, env, 5, **bad)
