"""Advice as numbers: the logits give the probabilities back, are centred, bounded and zero where nothing is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import AdviseConfig
from pipeline.questions.parse import Advice, Plan
from pipeline.rounds.rows import Row, expand_plan, merge_orders, row_arrays

ACTIONS = ("noop", "left", "do")
SKILLS = ("explore", "wood", "table", "flee")


def prior(choices, weight=1.0, confidence=0.5):
    return Advice("prior", tuple(choices), confidence=confidence, weight=weight)


def arrays(advice, goals, plans=(), **config):
    row = Row(0, list(goals))
    row.advice, row.plans = advice, list(plans)
    return row_arrays([row], np.zeros((1, 5), np.uint8), ACTIONS, SKILLS, AdviseConfig(**config))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def test_logits_over_the_feasible_goals_give_the_probabilities_back():
    made = arrays(prior([("wood", 0.6), ("explore", 0.3), ("flee", 0.1)]), ["explore", "wood", "flee"], floor=1e-6)
    p = softmax(made["logits"][0, [3, 4, 6]])
    np.testing.assert_allclose(p, [0.3, 0.6, 0.1], atol=1e-5)


def test_what_confidence_takes_is_spread_over_all_that_is_feasible():
    made = arrays(prior([("wood", 1.0)], weight=0.5), ["explore", "wood", "flee"], floor=1e-6)
    np.testing.assert_allclose(softmax(made["logits"][0, [3, 4, 6]]), [1 / 6, 4 / 6, 1 / 6], atol=1e-5)


def test_all_skills_are_known_and_infeasible_ones_lie_lowest():
    made = arrays(prior([("wood", 1.0)]), ["explore", "wood"])
    assert made["mask"][0].tolist() == [0, 0, 0, 1, 1, 1, 1]
    logits = made["logits"][0]
    assert logits[:3].tolist() == [0.0, 0.0, 0.0]
    assert max(logits[5], logits[6]) < min(logits[3], logits[4])
    assert made["applicable"][0].tolist() == [1, 1, 0, 0]


def test_a_named_primitive_is_known_and_the_others_are_not():
    made = arrays(prior([("do", 0.7), ("wood", 0.3)]), ["wood"])
    assert made["mask"][0, :3].tolist() == [0, 0, 1]
    assert made["logits"][0, 2] > made["logits"][0, 4]


def test_a_row_with_plans_alone_knows_no_logit():
    made = arrays(None, ["explore"], [Plan((("wood", 2), ("do", 1)), 0.4)])
    assert made["mask"].sum() == 0 and made["confidence"][0] == 0 and made["plan_lengths"][0].tolist() == [3, 0, 0]
    assert made["plans"][0, 0, :4].tolist() == [4, 4, 2, -1]


def test_a_long_plan_is_cut_to_its_first_entries():
    ids = {"do": 2, "wood": 4}
    assert expand_plan(Plan((("do", 3), ("wood", 20)), 1.0), ids, 5) == [2, 2, 2, 4, 4]


def test_several_orders_are_averaged_and_disagreement_costs_confidence():
    one = prior([("wood", 0.8), ("flee", 0.2)], confidence=0.9)
    two = prior([("flee", 0.6), ("wood", 0.4)], confidence=0.9)
    merged = merge_orders([one, two])
    assert dict(merged.choices) == pytest.approx({"wood": 0.6, "flee": 0.4})
    assert merged.confidence == pytest.approx(0.45)
    assert merge_orders([one, one]).confidence == pytest.approx(0.9)
    assert merge_orders([]) is None


@settings(max_examples=150, deadline=None)
@given(
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    weight=st.floats(0, 1),
    clip=st.floats(1.5, 5),
    floor=st.floats(1e-6, 0.5),
)
def test_logits_are_finite_centred_and_inside_the_clip_for_any_advice(weights, weight, clip, floor):
    total = sum(weights)
    choices = [(n, w / total if total > 1e-9 else 0.0) for n, w in zip(SKILLS, weights, strict=False)]
    made = arrays(prior(choices, weight), SKILLS[:3], clip=clip, floor=floor)
    logits, mask = made["logits"][0].astype(float), made["mask"][0].astype(bool)
    assert np.isfinite(logits).all() and np.abs(logits).max() <= clip + 1e-6
    assert abs(logits[mask].mean()) < 1e-5 and not logits[~mask].any()
