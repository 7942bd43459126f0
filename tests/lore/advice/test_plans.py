"""Plans of a version: which one a state has, by row, by goal key, by the advice's first goal."""

import dataclasses

import numpy as np
import pytest

from lore.advice.lookup import AdviceSource
from lore.advice.plans import PlanBook
from lore.advice.uniform import UniformSource, uniform_advice
from lore.envs.crafter.adapter import CrafterEnv
from lore.options.interpreter import propose
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.keys import goal_keys
from lore_datasets.language.geometry import StateView
from lore_datasets.testing import small_advice
from lore_datasets.types import SymbolicState

ENV = get_environment("crafter")
A = len(ENV.vocab.actions)


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    root = tmp_path_factory.mktemp("advice")
    return load_advice(str(small_advice(root, ENV, n=80)), root=root)


def seen(n: int) -> np.ndarray:
    """States of random play."""
    env, rng = CrafterEnv(3, pixels=False), np.random.default_rng(3)
    out = [env.reset().state]
    while len(out) < n:
        step = env.step(int(rng.integers(1, 6)))
        out.append((env.reset() if step.is_last else step).state)
    return np.array(out)


def everything(n: int, skills: int) -> np.ndarray:
    return np.zeros((n, skills), np.int8)


def test_a_states_own_row_gives_its_best_scored_plan(version):
    rows, book = version.rows, PlanBook(version)
    found = AdviceSource(version).lookup(rows.state)
    number = book.find(rows.state, found, everything(80, len(version.skills)))
    planned = 0
    for row in range(80):
        lengths = rows.plan_lengths[row]
        if lengths.any():
            best = max((p for p in range(len(lengths)) if lengths[p]), key=lambda p: rows.plan_scores[row, p])
            assert number[row] == row and book.plan(row) == rows.plans[row, best, : lengths[best]].tolist()
            planned += 1
    assert planned > 40 and book.plan(-1) == []


def test_a_state_without_a_plan_of_its_own_takes_the_best_of_those_that_share_its_goal_key(version):
    rows = version.rows
    states = SymbolicState.unpack(rows.state.copy(), ENV.layout)
    mirrored = SymbolicState(**{**vars(states), "view": states.view[:, :, ::-1].copy()})  # the same things in view
    keys, source, book = goal_keys(mirrored, ENV), AdviceSource(version), PlanBook(version)
    packed = mirrored.pack()
    found = source.lookup(packed)
    number = book.find(packed, found, everything(80, len(version.skills)))
    met = 0
    for i in np.flatnonzero((found.row < 0) & (found.confidence > 0)):
        same = np.flatnonzero((rows.key_goal == keys[i]) & (rows.plan_lengths > 0).any(-1))
        if len(same):
            score = np.where(rows.plan_lengths > 0, rows.plan_scores, -np.inf).max(-1)
            assert number[i] in same and score[number[i]] == score[same].max()
            met += 1
    assert met >= 5


def test_a_program_gives_a_plan_in_nearly_every_state_and_its_first_goal_where_no_row_does():
    data, states = load_advice("crafter-claude@v1", texts=False), seen(120)
    source, book = AdviceSource(data), PlanBook(data)
    proposals = np.stack([propose(data.skills, StateView(state, ENV.vocab)) for state in states]).astype(np.int8)
    found = source.lookup(states)
    number = book.find(states, found, proposals)
    assert (number >= 0).mean() > 0.9
    goals = number >= len(data.rows)
    assert goals.mean() > 0.5
    for i in np.flatnonzero(goals):
        (entry,) = book.plan(int(number[i]))
        offered = found.known[i, A:] & (proposals[i] >= 0)
        assert offered[entry - A] and found.logits[i, entry] == found.logits[i, A:][offered].max()


def test_advice_that_prefers_nothing_or_says_nothing_gives_no_plan(version):
    flat = uniform_advice(version)
    states, skills = seen(10), len(version.skills)
    book = PlanBook(flat)
    assert (book.find(states, UniformSource(flat).lookup(states), everything(10, skills)) == -1).all()
    silent = AdviceSource(dataclasses.replace(version, model=None)).lookup(states)
    assert (PlanBook(version).find(states, silent, everything(10, skills)) == -1).all()


def test_a_plan_is_cut_where_it_names_what_the_version_does_not_have_and_that_is_counted(version, caplog):
    plans, lengths = np.full_like(version.rows.plans, -1), np.zeros_like(version.rows.plan_lengths)
    plans[0, 0, :3], lengths[0, 0] = [1, A + len(version.skills), 2], 3  # a skill that left the library
    plans[1, 0, :1], lengths[1, 0] = [A + 40], 1
    plans[2, 0, :2], lengths[2, 0] = [A, 1], 2
    rows = dataclasses.replace(version.rows, plans=plans, plan_lengths=lengths)
    book = PlanBook(dataclasses.replace(version, rows=rows))
    assert [book.plan(i) for i in range(3)] == [[1], [], [A, 1]]
    assert book.strange == 2 and "2 plans" in caplog.text
