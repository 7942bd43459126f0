"""One meaning in two forms: programs evaluated state by state and many at once, on states of real play."""

import itertools
import time

import numpy as np
import pytest

from lore.envs.crafter.adapter import CrafterEnv
from lore.options.play import GoalPlayer
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, ConfigError
from lore_datasets.language.batch import StateBatch
from lore_datasets.language.evaluator import Evaluator, ranking_logits
from lore_datasets.language.geometry import StateView
from lore_datasets.language.programs import parse_program
from lore_datasets.testing import random_states

ENV = get_environment("crafter")
VOCAB = ENV.vocab
NAMES = [skill.name for skill in ENV.skills]
ALWAYS = {"op": "true"}
PROGRAM = ENV.rules


@pytest.fixture(scope="module")
def states() -> np.ndarray:
    """uint8[5000, S]: lives of the shipped program with three random actions in ten, and 1,000 made-up states."""
    env, rng, found = CrafterEnv(5, length=10_000, pixels=False), np.random.default_rng(0), []
    player, step = GoalPlayer(Evaluator(PROGRAM, ENV.skills, VOCAB).ranking, ENV.skills, VOCAB), env.reset()
    while len(found) < 4000:
        found.append(step.state.copy())
        if step.is_last:
            player.reset()
            step = env.reset()
            continue
        mine = player(StateView(step.state, VOCAB), rng)
        step = env.step(mine if rng.random() < 0.7 else int(rng.integers(len(VOCAB.actions))))
    return np.concatenate([np.array(found), random_states(ENV, 1000, rng).pack()])


def each_condition():
    """At least one condition of every form, over all words."""
    for cmp, (op, key, group) in itertools.product(
        ("<", "<=", "==", ">=", ">", "!="), (("inventory", "item", "items"), ("vital", "name", "vitals"))
    ):
        yield from ({"op": op, key: word, "cmp": cmp, "value": 3} for word in getattr(VOCAB, group))
    yield from ({"op": "unlocked", "achievement": word} for word in VOCAB.achievements)
    yield from ({"op": "can", "action": word} for word in VOCAB.actions)
    yield from ({"op": op, "target": word} for op in ("facing", "reachable") for word in VOCAB.targets)
    for word, within in itertools.product(VOCAB.targets, (1, 2, 4, 9)):
        yield {"op": "near", "target": [word, "tree"], "within": within}
        yield {"op": "count", "target": word, "within": within, "cmp": ">", "value": within}
    yield from ({"op": "daylight", "cmp": ">", "value": value} for value in (0, 60, 128, 200))
    yield from ({"op": "flag", "name": "sleeping"}, {"op": "enclosed"}, {"op": "false"}, ALWAYS)
    yield {
        "op": "not",
        "of": {
            "op": "all",
            "of": [{"op": "enclosed"}, {"op": "any", "of": [{"op": "facing", "target": "grass"}, ALWAYS]}],
        },
    }


def test_many_states_at_once_say_what_each_says_alone(states):
    evaluator = Evaluator(PROGRAM, ENV.skills, VOCAB)
    at_once = evaluator.spoken(states)
    alone = np.full_like(at_once, -1)
    for row, state in zip(alone, states, strict=True):
        for goal, rule in evaluator.explain(StateView(state, VOCAB)):
            row[evaluator.entries[goal]] = rule
    np.testing.assert_array_equal(at_once, alone)
    assert evaluator.explain_many(states[::9]) == [evaluator.explain(StateView(s, VOCAB)) for s in states[::9]]
    assert len(np.unique(at_once[:, evaluator.entries["sleep"]])) > 4 and (at_once >= 0).any(0).sum() >= 20  # of 26


def test_every_form_of_condition_means_the_same_in_both_forms(states):
    conditions, sample = list(each_condition()), states[::5]
    views = [StateView(state, VOCAB) for state in sample]
    for start in range(0, len(conditions), 100):
        rules = [{"when": cond, "goal": "noop"} for cond in conditions[start : start + 100]]
        for rule in rules:
            evaluator = Evaluator(parse_program({"rules": [rule]}, VOCAB, NAMES), ENV.skills, VOCAB)
            at_once = evaluator.spoken(sample)[:, VOCAB.action("noop")] == 0
            assert at_once.tolist() == [bool(evaluator.explain(view)) for view in views], rule


def test_environments_with_many_kinds_of_cells_are_evaluated_one_by_one(states, monkeypatch):
    evaluator = Evaluator(PROGRAM, ENV.skills, VOCAB)
    wanted = evaluator.advise(states[::50])
    monkeypatch.setattr("lore_datasets.language.evaluator.MAX_KINDS", 4)
    for got, right in zip(evaluator.advise(states[::50]), wanted, strict=True):
        np.testing.assert_array_equal(got, right)


def test_the_first_rule_that_can_act_is_the_best_choice_and_a_shared_name_means_the_skill(states):
    evaluator = Evaluator(PROGRAM, ENV.skills, VOCAB)
    logits, known, first = evaluator.advise(states)
    assert logits.dtype == np.float32 and np.abs(logits).max() <= 5 and not logits[~known].any()
    for i in range(0, len(states), 37):
        said = evaluator.explain(StateView(states[i], VOCAB))
        assert said[0].rule == first[i] and logits[i].argmax() == evaluator.entries[said[0].goal]
    assert evaluator.entries["sleep"] >= len(VOCAB.actions) and not known[:, : len(VOCAB.actions)].any()


def test_nothing_that_can_be_done_ever_has_a_probability_of_zero(states):
    only = parse_program({"rules": [{"when": ALWAYS, "goal": "explore"}]}, VOCAB, NAMES)
    drink = len(VOCAB.actions) + NAMES.index("collect_drink")
    for program in (only, PROGRAM):
        evaluator = Evaluator(program, ENV.skills, VOCAB)
        logits, known, _ = evaluator.advise(states, confidence=1.0, floor=1e-3)
        p = np.where(known, np.exp(logits), 0)
        p /= p.sum(-1, keepdims=True)
        feasible = evaluator.feasible(states)
        thirsty = feasible[:, drink]
        assert thirsty.sum() > 100 and p[thirsty, drink].min() >= 1e-3 / len(NAMES)
        assert (p[feasible & known] >= 1e-3 / len(NAMES)).all()
        assert np.where(feasible, p, 0).sum(-1).min() > 0.8


def test_confidence_is_the_share_that_the_first_choice_takes_of_two():
    spoken = np.array([[3, -1, 0, -1]], np.int16)
    feasible, known = np.array([[True, True, True, False]]), np.array([[True, True, True, True]])
    logits = ranking_logits(spoken, feasible, known, confidence=0.75, floor=1e-2, clip=5.0, gap=1.0)
    assert logits.sum() == pytest.approx(0, abs=1e-5) and logits[0].argmax() == 2
    assert logits[0, 2] - logits[0, 0] == pytest.approx(
        np.log((0.8 * 0.99 + 0.01 / 3) / (0.2 * 0.99 + 0.01 / 3)), abs=1e-5
    )
    assert logits[0, 2] - logits[0, 1] == pytest.approx(4, abs=1e-5) and logits[0, 2] - logits[0, 3] == pytest.approx(
        5, abs=1e-5
    )
    with pytest.raises(ConfigError, match="confidence = 0"):
        ranking_logits(spoken, feasible, known, confidence=0.0, floor=1e-2, clip=5.0, gap=1.0)


def test_where_no_rule_speaks_nothing_is_known():
    wood = {"op": "inventory", "item": "wood", "cmp": ">=", "value": 4}
    evaluator = Evaluator(
        parse_program({"rules": [{"when": wood, "goal": "explore"}]}, VOCAB, NAMES), ENV.skills, VOCAB
    )
    packed = random_states(ENV, 200, np.random.default_rng(1)).pack()
    logits, known, first = evaluator.advise(packed)
    silent = first < 0
    assert (
        0 < silent.sum() < 200 and not known[silent].any() and not logits[silent].any() and known[~silent].any(-1).all()
    )
    empty = evaluator.advise(packed[:0])
    assert [a.shape for a in empty] == [(0, evaluator.width), (0, evaluator.width), (0,)]


def test_states_of_another_environment_are_refused():
    with pytest.raises(BadInput, match="out of range"):
        StateBatch(np.full((2, ENV.layout.size), 200, np.uint8), VOCAB)
    with pytest.raises(BadInput, match="expected uint8"):
        StateBatch(np.zeros((2, 7), np.uint8), VOCAB)


@pytest.mark.slow
def test_a_thousand_states_take_under_twenty_milliseconds(states):
    evaluator, times = Evaluator(PROGRAM, ENV.skills, VOCAB), []
    for _ in range(20):
        began = time.perf_counter()
        evaluator.advise(states[:1024])
        times.append(time.perf_counter() - began)
    assert min(times) < 0.02, times
