from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, SchemeMismatch
from lore_datasets.keys import check_scheme, fine_keys, goal_keys, hash_rows
from lore_datasets.testing import random_states
from lore_datasets.types import SymbolicState

ENV = get_environment("crafter")


def test_no_two_of_100000_different_states_share_a_fine_key(rng):
    states = random_states(ENV, 100_000, rng)
    covered = replace(
        states,
        vitals=np.digitize(states.vitals, [2.25, 4.5, 6.3, 8.55]),
        daylight=np.digitize(states.daylight, [48, 128, 208]),
    )
    different = len(np.unique(covered.pack(), axis=0))
    assert len(np.unique(fine_keys(states, ENV))) == different > 99_000


def test_no_two_of_100000_different_rows_share_a_hash_even_when_one_bit_differs():
    rows = np.zeros((100_000, 12), np.uint8)
    rows[:, :4] = np.arange(100_000, dtype="<u4").view(np.uint8).reshape(-1, 4)
    assert len(np.unique(hash_rows(rows))) == 100_000


def test_every_bit_of_a_hash_is_flipped_by_about_half_of_the_input_changes(rng):
    rows = rng.integers(0, 256, (4000, 100), dtype=np.uint8)
    changed = rows.copy()
    changed[:, 37] ^= 1
    flips = (hash_rows(rows) ^ hash_rows(changed)).view(np.uint64)
    shares = [((flips >> np.uint64(bit)) & np.uint64(1)).mean() for bit in range(64)]
    assert min(shares) > 0.45 and max(shares) < 0.55


def test_a_hash_depends_on_the_salt_and_on_the_width(rng):
    rows = rng.integers(0, 256, (10, 8), dtype=np.uint8)
    assert not np.intersect1d(hash_rows(rows, "a"), hash_rows(rows, "b")).size
    assert not np.intersect1d(hash_rows(rows), hash_rows(np.pad(rows, ((0, 0), (0, 1))))).size


def test_keys_of_known_states_never_change_under_one_scheme():
    states = random_states(ENV, 3, np.random.default_rng(7))
    scheme = ENV.key_scheme
    assert scheme == "crafter/1"
    assert fine_keys(states, ENV).tolist() == FINE
    assert goal_keys(states, ENV).tolist() == GOAL


@pytest.mark.parametrize("field", [f.name for f in fields(SymbolicState) if f.name != "mission"])
def test_the_fine_key_changes_with_every_field(field, rng):
    states = random_states(ENV, 200, rng)
    limit = {"view": 18, "facing": 4, "sleeping": 2, "unlocked": 2, "daylight": 256}.get(field, 10)
    other = replace(states, **{field: ((getattr(states, field).astype(int) + limit // 2) % limit).astype(np.uint8)})
    assert (fine_keys(states, ENV) != fine_keys(other, ENV)).mean() > 0.95


def test_the_goal_key_ignores_where_far_things_stand_and_the_fine_key_does_not(rng):
    states = random_states(ENV, 100, rng)
    view = states.view.copy()
    view[:, 0, :] = view[:, 0, ::-1]  # the row farthest from the player, mirrored
    moved = replace(states, view=view)
    assert (goal_keys(states, ENV) == goal_keys(moved, ENV)).all()
    assert (fine_keys(states, ENV) != fine_keys(moved, ENV)).mean() > 0.9


def test_the_goal_key_ignores_stock_beyond_what_recipes_ask_and_bright_daylight(rng):
    states = random_states(ENV, 50, rng)
    wood = ENV.vocab.items.index("wood")
    inventory = states.inventory.copy()
    inventory[:, wood] = 5
    more = inventory.copy()
    more[:, wood] = 9
    less = inventory.copy()
    less[:, wood] = 1
    noon, morning = np.full(50, 255, np.uint8), np.full(50, 140, np.uint8)
    key = goal_keys(replace(states, inventory=inventory, daylight=noon), ENV)
    assert (key == goal_keys(replace(states, inventory=more, daylight=morning), ENV)).all()
    assert (key != goal_keys(replace(states, inventory=less, daylight=noon), ENV)).all()


@pytest.mark.parametrize("target", ["table", "furnace", "zombie"])
def test_the_goal_key_knows_what_is_beside_the_player(target):
    states = random_states(ENV, 1, np.random.default_rng(3))
    view = np.full_like(states.view, ENV.vocab.target("grass"))
    far, near = view.copy(), view.copy()
    far[0, 0, 0] = near[0, 2, 4] = ENV.vocab.target(target)
    down = np.full_like(states.facing, 3)
    keys = [goal_keys(replace(states, view=v, facing=down), ENV)[0] for v in (view, far, near)]
    assert len(set(keys)) == 3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_the_key_of_a_state_does_not_depend_on_its_batch(seed, at):
    states = random_states(ENV, 21, np.random.default_rng(seed))
    assert fine_keys(states[at], ENV) == fine_keys(states, ENV)[at]
    assert goal_keys(states[at], ENV) == goal_keys(states, ENV)[at]


def test_keys_take_any_leading_axes_and_no_rows_at_all(rng):
    states = random_states(ENV, 12, rng)
    assert fine_keys(states[np.arange(12).reshape(3, 4)], ENV).shape == (3, 4)
    assert fine_keys(states[:0], ENV).shape == goal_keys(states[:0], ENV).shape == (0,)


def test_states_of_another_environment_are_refused(rng):
    states = random_states(ENV, 2, rng)
    with pytest.raises(BadInput, match="cell id 200"):
        fine_keys(replace(states, view=np.full_like(states.view, 200)), ENV)
    with pytest.raises(BadInput, match="facing"):
        goal_keys(replace(states, facing=np.full_like(states.facing, 4)), ENV)
    with pytest.raises(BadInput, match="inventory"):
        fine_keys(replace(states, inventory=states.inventory[:, :3]), ENV)


def test_a_foreign_scheme_is_refused_by_name():
    check_scheme("crafter/1", ENV)
    with pytest.raises(SchemeMismatch, match=r"crafter/0.*crafter/1"):
        check_scheme("crafter/0", ENV)


FINE = [9021919051142950081, 4168747488636971769, 5667992702910413591]
GOAL = [4481288128520890639, -8955275918382614156, 627528453845783899]
