"""What the advice model reads of a state: the same answers as the state's own view gives, compiled or interpreted."""

import numpy as np
import pytest

from lore.advice.features import FAR, StateFeatures, search
from lore_datasets.environments import get_environment
from lore_datasets.language.geometry import StateView
from lore_datasets.testing import random_states

ENV = get_environment("crafter")
KINDS, TURNS = len(ENV.vocab.targets), len(ENV.vocab.directions)


def found(packed: np.ndarray, function=search) -> dict[str, np.ndarray]:
    features, n = StateFeatures(ENV), len(packed)
    out = {
        "near": np.full((n, KINDS), FAR, np.uint8), "walk": np.full((n, KINDS), FAR, np.uint8),
        "first": np.zeros((n, TURNS, KINDS), np.uint8), "amount": np.zeros((n, KINDS), np.uint8),
        "edge": np.zeros((n, TURNS + 1), np.uint8),
    }  # fmt: skip
    views = packed[:, ENV.layout.offsets()["view"]]
    function(np.ascontiguousarray(views), ENV.layout.width, features.walkable, features.deltas, *out.values())
    return out


def test_the_search_finds_what_the_view_of_a_state_finds():
    states = random_states(ENV, 60, np.random.default_rng(0)).pack()
    got = found(states)
    for i, state in enumerate(states):
        view = StateView(state.tobytes(), ENV.vocab)
        walled_in = not got["edge"][i, -1] and not view.reachable(ENV.vocab.creatures)
        assert walled_in == view.is_enclosed()
        for k, name in enumerate(ENV.vocab.targets):
            walk, nearest = view.walk_distance(name), view.nearest(name)
            assert got["walk"][i, k] == (FAR if walk is None else walk)
            assert got["near"][i, k] == (FAR if nearest is None else nearest[2])
            assert got["amount"][i, k] == view.cells.count(k)


def test_first_steps_begin_a_shortest_walk():
    states = random_states(ENV, 60, np.random.default_rng(1)).pack()
    got, tables, checked = found(states), StateFeatures(ENV), 0
    moves = [ENV.vocab.action(name) for _, _, _, name in ENV.vocab.directions]
    for i, state in enumerate(states):
        view = StateView(state.tobytes(), ENV.vocab)
        for k, name in enumerate(ENV.vocab.targets):
            step = view.step_toward(name)
            if step is not None and name != "player":
                assert got["first"][i, moves.index(step), k] == 255
                checked += 1
    assert checked > 200 and tables.directed == 2 * TURNS * KINDS


def test_compiled_and_interpreted_search_agree():
    plain = getattr(search, "py_func", None)
    if plain is None:
        pytest.skip("numba is not installed: the search is interpreted already")
    states = random_states(ENV, 10, np.random.default_rng(2)).pack()
    with np.errstate(over="ignore"):
        for name, array in found(states, plain).items():
            np.testing.assert_array_equal(array, found(states)[name])


def test_features_of_a_batch_are_those_of_each_state():
    features = StateFeatures(ENV)
    states = random_states(ENV, 9, np.random.default_rng(3)).pack()
    batch = features(states)
    assert batch.shape == (9, features.width) and batch.dtype == np.uint8
    for i in range(9):
        np.testing.assert_array_equal(features(states[i : i + 1])[0], batch[i])


def test_far_cells_that_differ_in_kind_alone_do_not_hide_behind_one_another():
    features = StateFeatures(ENV)
    state = random_states(ENV, 1, np.random.default_rng(4)).pack()
    other = state.copy()
    other[0, 0] = (state[0, 0] + 1) % KINDS
    assert (features(state) != features(other)).any()
