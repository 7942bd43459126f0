"""The study's statistics against values worked out by hand."""

import numpy as np
import pytest

from lore.evaluation.statistics import (
    bootstrap,
    difference_of_means,
    interquartile_mean,
    learning_curve,
    mean_of_runs,
    nested_bootstrap,
    probability_of_improvement,
    steps_to,
)


def test_the_interquartile_mean_cuts_a_quarter_at_each_end():
    assert interquartile_mean(np.array([-50.0, 1, 2, 3, 4, 5, 6, 100])) == (2 + 3 + 4 + 5) / 4
    assert interquartile_mean(np.array([1.0, 2.0, 6.0])) == 3.0  # three runs: nothing is cut
    assert interquartile_mean(np.array([[0.0, 10.0], [4.0, 2.0]])) == 3.0  # 0 and 10 cut, over runs and tasks at once
    assert np.isnan(interquartile_mean(np.array([])))


def test_the_probability_of_improvement_counts_pairs_and_halves_ties():
    assert probability_of_improvement(np.array([3.0, 5.0]), np.array([1.0, 4.0])) == 0.75
    assert probability_of_improvement(np.array([2.0, 2.0]), np.array([2.0])) == 0.5
    x, y = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 0.0], [0.0, 1.0]])
    assert probability_of_improvement(x, y) == pytest.approx((1.0 + 0.25) / 2)
    assert probability_of_improvement(y, x) == pytest.approx(1 - (1.0 + 0.25) / 2)


def test_the_bootstrap_interval_covers_a_normal_mean_and_is_the_same_for_the_same_seed():
    rng = np.random.default_rng(1)
    hits, width = 0, 1.96 / np.sqrt(30)
    for k in range(150):
        low, high = bootstrap(np.mean, rng.normal(2.0, 1.0, 30), n=300, seed=k)
        hits += low <= 2.0 <= high
        assert high - low == pytest.approx(2 * width, rel=0.6)
    assert 0.87 <= hits / 150 <= 0.99
    x = rng.normal(size=9)
    assert bootstrap(np.mean, x, seed=4) == bootstrap(np.mean, x, seed=4) != bootstrap(np.mean, x, seed=5)
    assert bootstrap(np.mean, np.full(5, 3.0)) == (3.0, 3.0)
    assert np.isnan(bootstrap(np.mean, np.zeros(0))).all()


def test_groups_of_a_comparison_are_drawn_each_on_its_own():
    low, high = bootstrap(probability_of_improvement, np.array([5.0, 6, 7]), np.array([1.0, 2, 3]))
    assert (low, high) == (1.0, 1.0)
    low, high = bootstrap(probability_of_improvement, np.array([1.0, 2, 3]), np.array([1.0, 2, 3]))
    assert low < 0.3 and high > 0.7


def test_a_learning_curve_is_the_mean_of_the_last_episodes_that_had_ended():
    grid = np.array([5.0, 10, 20, 30])
    curve = learning_curve([10, 20, 30], [1.0, 3.0, 8.0], grid, window=2)
    assert np.isnan(curve[0])
    assert curve[1:].tolist() == [1.0, 2.0, 5.5]
    assert np.isnan(learning_curve([], [], grid)).all()


def test_steps_to_a_level_is_where_the_curve_first_gets_there():
    grid = np.array([10.0, 20, 30])
    assert steps_to(2.0, grid, np.array([np.nan, 2.0, 1.0])) == 20.0
    assert steps_to(9.0, grid, np.array([np.nan, 2.0, 1.0])) is None


def test_the_nested_bootstrap_sees_the_spread_of_runs_and_of_episodes():
    rng = np.random.default_rng(0)
    alike = [rng.normal(2.0, 1.0, 25) for _ in range(4)]
    low, high = nested_bootstrap(mean_of_runs, alike, n=800)
    assert low < mean_of_runs(alike) < high and high - low == pytest.approx(3.92 / 10, rel=0.6)
    apart = [np.full(10, 1.0), np.full(10, 3.0)]  # no spread within a run
    assert nested_bootstrap(mean_of_runs, apart) == (1.0, 3.0)
    low, high = nested_bootstrap(difference_of_means, apart, [np.zeros(5)])
    assert (low, high) == (1.0, 3.0)
    assert np.isnan(nested_bootstrap(mean_of_runs, [np.array([])])).all()
