"""Looking advice up: order of sources, duplicates, cache, coverage."""

import json

import numpy as np
import pytest

from lore.advice.distil import distil
from lore.advice.key_table import KeyTable
from lore.advice.lookup import AdviceSource
from lore.advice.types import SOURCES
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.keys import fine_keys, goal_keys
from lore_datasets.store.store import Store
from lore_datasets.testing import random_states, small_advice
from lore_datasets.types import SymbolicState

ENV = get_environment("crafter")


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    root = tmp_path_factory.mktemp("advice")
    ref = small_advice(root, ENV, n=80)
    plain = load_advice(str(ref), root=root)
    distil(ref, Store(root), epochs=2)
    return plain, load_advice(str(ref), root=root)


def test_a_state_of_the_table_answers_from_its_own_row(version):
    source = AdviceSource(version[0])
    batch = source.lookup(version[0].rows.state)
    assert (batch.source == SOURCES.index("row")).all()
    np.testing.assert_array_equal(batch.row, np.arange(80))
    np.testing.assert_allclose(batch.logits, version[0].rows.logits, atol=1e-6)


def test_a_state_with_the_same_goal_key_answers_from_the_goal_table(version):
    rows = version[0].rows
    states = SymbolicState.unpack(rows.state.copy(), ENV.layout)
    mirrored = SymbolicState(**{**vars(states), "view": states.view[:, :, ::-1].copy()})  # the same things in view
    same = (goal_keys(mirrored, ENV) == goal_keys(states, ENV)) & (fine_keys(mirrored, ENV) != fine_keys(states, ENV))
    assert same.sum() >= 5
    batch = AdviceSource(version[0]).lookup(mirrored.pack()[same])
    assert {SOURCES[s] for s in batch.source} == {"goal"}
    assert (batch.row == -1).all() and batch.known.any(-1).all()


def test_without_a_model_strange_states_get_nothing_and_with_one_the_model_answers(version):
    states = random_states(ENV, 50, np.random.default_rng(99)).pack()
    without, with_model = AdviceSource(version[0]), AdviceSource(version[1])
    none = without.lookup(states)
    assert (none.source == SOURCES.index("none")).all()
    assert (none.confidence == 0).all() and not none.known.any()
    answered = with_model.lookup(states)
    assert (answered.source == SOURCES.index("model")).all()
    assert ((answered.confidence > 0) & (answered.confidence <= 1)).all()
    assert np.abs(answered.logits).max() <= 5.0


def test_weak_advice_counts_as_none_under_a_threshold(version):
    rows = version[0].rows
    batch = AdviceSource(version[0], min_confidence=0.5).lookup(rows.state)
    np.testing.assert_array_equal(batch.source == SOURCES.index("none"), rows.confidence < 0.5)


def test_the_cache_changes_nothing_but_the_hit_count(version):
    states = version[0].rows.state[np.array([0, 1, 0, 2, 1])]
    cached, plain = AdviceSource(version[0], cache_size=2), AdviceSource(version[0], cache_size=0)
    for _ in range(3):
        for a, b in zip(cached.lookup(states), plain.lookup(states), strict=True):
            np.testing.assert_array_equal(a, b)
    assert cached.hits > 0 == plain.hits
    assert cached.coverage()["row"] == 1.0
    cached.reset_counts()
    assert cached.hits == 0 and cached.coverage()["row"] == 0.0


def test_a_restored_source_counts_and_answers_as_the_one_that_was_saved(version):
    states = np.concatenate([version[1].rows.state[:6], random_states(ENV, 6, np.random.default_rng(3)).pack()])
    saved, restored = AdviceSource(version[1], cache_size=8), AdviceSource(version[1], cache_size=8)
    for state in states:
        saved.lookup(state[None])
    restored.load_state_dict(json.loads(json.dumps(saved.state_dict())))
    for state in states[[11, 5, 0, 7]]:
        for a, b in zip(saved.lookup(state[None]), restored.lookup(state[None]), strict=True):
            np.testing.assert_array_equal(a, b)
    assert saved.hits == restored.hits == 3
    assert saved.state_dict() == restored.state_dict()


def test_rows_of_one_key_that_disagree_are_trusted_less():
    keys = np.array([7, 7, 3])
    logits = np.array([[2.0, 0], [0, 2.5], [1.0, 0]], np.float32)
    table = KeyTable(keys, logits, np.ones((3, 2), bool), np.ones(3, np.float32))
    assert table.find(np.array([3, 7, 5])).tolist() == [2, 0, -1]
    np.testing.assert_allclose(table.logits[0], [1.0, 1.25])
    assert table.confidence[[2, 0]].tolist() == [1.0, 0.5]
    np.testing.assert_array_equal(logits, [[2.0, 0], [0, 2.5], [1.0, 0]])  # the rows themselves stay as they are


def test_a_table_without_shared_keys_keeps_no_copy_of_the_rows():
    keys, logits = np.array([9, 2, 5]), np.eye(3, dtype=np.float32)
    table = KeyTable(keys, logits, logits.astype(bool), np.ones(3, np.float32))
    assert table.logits is logits and table.find(np.array([2, 9, 5])).tolist() == [1, 0, 2]


def test_what_a_row_does_not_know_takes_no_part_in_the_mean():
    logits = np.array([[-2.0, 2.0, 0.0], [0.0, 0.0, 1.5]], np.float32)
    known = np.array([[True, True, False], [False, False, True]])
    table = KeyTable(np.array([4, 4]), logits, known, np.ones(2, np.float32))
    np.testing.assert_allclose(table.logits[0], [-2.0, 2.0, 1.5])
    assert table.known[0].all() and table.confidence[0] == 0.5  # only the first row's best is the best of the mean


def test_of_goal_key_and_model_the_surer_one_answers(version):
    states = SymbolicState.unpack(version[1].rows.state.copy(), ENV.layout)
    mirrored = SymbolicState(**{**vars(states), "view": states.view[:, :, ::-1].copy()})
    packed = mirrored.pack()[goal_keys(mirrored, ENV) == goal_keys(states, ENV)]
    source, never = AdviceSource(version[1]), AdviceSource(version[1])
    source.goal_trust, never.goal_trust = 0.0, 1.0
    changed = [SOURCES[s] for s in source.lookup_batch(packed).source]
    assert "goal" not in changed and "model" in changed
    assert {"goal"} <= {SOURCES[s] for s in never.lookup_batch(packed).source}


def test_an_empty_table_finds_nothing():
    empty = KeyTable(
        np.zeros(0, np.int64), np.zeros((0, 3), np.float32), np.zeros((0, 3), bool), np.zeros(0, np.float32)
    )
    assert empty.find(np.array([1, 2])).tolist() == [-1, -1]


def test_lookup_agrees_with_a_dictionary_on_random_keys():
    rng = np.random.default_rng(0)
    keys = rng.integers(-(2**62), 2**62, 500)
    table = KeyTable(keys, np.zeros((500, 2), np.float32), np.ones((500, 2), bool), np.ones(500, np.float32))
    asked = np.concatenate([keys[::3], rng.integers(-(2**62), 2**62, 100)])
    known = set(keys.tolist())
    np.testing.assert_array_equal(table.find(asked) >= 0, [k in known for k in asked.tolist()])
