"""The gate: beta, the KL budget, and what becomes of advice over goals."""

import numpy as np
import pytest
import torch

from lore.gate.config import GateConfig
from lore.gate.gate import (
    Gate,
    advice_distribution,
    advice_logits,
    kl,
    softmax,
)
from lore.gate.signals import RunningPercentile
from lore.gate.trust import Trust

A = 5


def gate(**overrides) -> Gate:
    return Gate(GateConfig(**overrides))


def beta(g: Gate, u: float, confidence: float = 1.0) -> float:
    return float(g.beta(torch.tensor(u, dtype=torch.float64), confidence))


def test_no_advice_means_beta_zero():
    assert beta(gate(), 1.0, 0.0) == 0.0


def test_beta_follows_its_formula():
    g = gate(beta_max=0.4, uncertainty_threshold=0.5, temperature=0.1)
    assert beta(g, 0.5, 0.8) == pytest.approx(0.4 * 0.8 * 0.5)
    assert beta(g, 0.7, 0.8) == pytest.approx(0.4 * 0.8 / (1 + np.exp(-2.0)))
    assert beta(g, 0.0) < 0.01 * beta(g, 1.0)


def test_beta_anneals_to_zero_when_asked():
    g = gate(anneal_steps=100)
    full, sizes = beta(g, 1.0), []
    for g.env_steps in (50, 200):
        sizes.append(beta(g, 1.0))
    assert sizes == [pytest.approx(full / 2), 0.0]


def test_the_signals_of_a_decision_and_of_a_batch_are_brought_to_one_scale_alike():
    g = gate(weights=(0.5, 0.3, 0.2))
    rng = np.random.default_rng(0)
    raw = torch.from_numpy(rng.uniform(0, [1.2, 4.0, 0.1], (200, 3)))
    for row in raw:
        g.observe_signals(row)
    u, normal = g.uncertainty(raw)
    one, normal_one = g.uncertainty(raw[7])
    assert u[7] == one and torch.equal(normal[7], normal_one)
    assert normal.min() == 0.0 and normal.max() == 1.0
    torch.testing.assert_close(u, normal @ torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))


def test_controller_keeps_the_mean_divergence_under_the_target():
    rng = np.random.default_rng(0)
    g = gate(beta_max=3.0, delta_target=0.1)
    history = []
    for _ in range(4000):
        logits, hint = rng.normal(0, 0.3, A), np.where(np.arange(A) == rng.integers(A), 4.0, -1.0)
        policy = softmax(logits)
        divergence = kl(softmax(logits + beta(g, 1.0) * hint), policy)
        g.observe(divergence)
        history.append(divergence)
    assert np.mean(history[:5]) > 0.5  # far over budget before the controller acts
    assert np.mean(history[1000:]) <= 0.1 * 1.05
    assert np.mean(history[1000:]) > 0.05  # and the budget is used


def test_kappa_recovers_when_advice_becomes_harmless():
    g = gate(delta_target=0.1)
    for _ in range(200):
        g.observe(2.0)
    low = g.kappa
    for _ in range(2000):
        g.observe(0.0)
    assert low < 0.01
    assert g.kappa == pytest.approx(1.0)


def test_goal_mass_reaches_primitives_through_the_skills_next_actions():
    logits = np.array([0, 0, 0, 0, 0, 2.0, 1.0, 5.0])
    known = np.ones(8, bool)
    proposals = np.array([1, 3, -1])  # the third skill cannot start
    policy, p = advice_distribution(logits, known, proposals, np.zeros(0, np.int64), A)
    assert p[7] == 0.0
    assert policy.sum() == pytest.approx(1.0)
    assert policy[1] == pytest.approx(p[1] + p[5])
    assert policy[3] == pytest.approx(p[3] + p[6])


def test_a_skill_in_a_slot_gets_its_mass_on_the_slot_and_on_its_next_action():
    logits = np.array([-9, -9, -9, -9, -9, 2.0, 1.0])
    policy, p = advice_distribution(logits, np.ones(7, bool), np.array([1, 3]), np.array([-1, 0]), A)
    assert len(policy) == A + 2
    assert policy.sum() == pytest.approx(1.0)
    assert policy[A + 1] / policy[3] == pytest.approx(p[5] / p[6], rel=1e-3)
    assert policy[1] == pytest.approx(policy[A + 1], rel=1e-3)
    assert policy[A] == 0.0


def test_unknown_entries_say_nothing_and_no_known_entry_means_no_advice():
    logits = np.array([0, 9.0, 0, 0, 0, 2.0])
    known = np.array([0, 0, 0, 0, 0, 1], bool)
    policy, _ = advice_distribution(logits, known, np.array([2]), np.zeros(0, np.int64), A)
    assert policy[2] == pytest.approx(1.0)
    none, extended = advice_distribution(logits, known, np.array([-1]), np.zeros(0, np.int64), A)
    assert none.sum() == 0 == extended.sum()


def test_advice_logits_are_linear_in_the_probability_bounded_and_silent_where_forbidden():
    allowed = np.array([True, True, True, False])
    logits = advice_logits(np.array([0.6, 0.15, 0.0, 0.25]), allowed, 2.0)
    np.testing.assert_allclose(logits, [2.0, -1.0, -2.0, 0.0])
    assert (advice_logits(np.zeros(4), allowed, 2.0) == 0).all()


def weight_of(own: np.ndarray, other: np.ndarray, spent: float) -> float:
    """The largest weight of ``other`` up to 50 with a divergence of at most ``spent``; it grows with the weight."""
    low, high = 0.0, 50.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if kl(softmax(own + middle * other), softmax(own)) <= spent else (low, middle)
    return low


def test_at_one_divergence_no_other_tilt_of_the_policy_agrees_with_the_advice_more_often():
    rng, allowed = np.random.default_rng(3), np.ones(9, bool)
    for _ in range(20):
        advice, own = rng.dirichlet(np.full(9, 0.3)), rng.normal(0, 1, 9)
        policy = softmax(own)
        mixed = softmax(own + 0.2 * advice_logits(advice, allowed, 5.0))
        spent = kl(mixed, policy)
        for other in (np.log(advice + 1e-3), rng.normal(0, 1, 9)):
            weight = weight_of(own, other, spent)
            assert softmax(own + weight * other) @ advice <= mixed @ advice + 1e-9


def test_divergence_of_equal_distributions_is_zero_and_masked_softmax_gives_exact_zeros():
    p = softmax(np.array([1.0, 2.0, 3.0]), np.array([True, False, True]))
    assert p[1] == 0.0
    assert kl(p, p) == 0.0
    assert kl(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(np.log(2))


def test_running_percentile_maps_to_unit_range_and_survives_saving():
    signal = RunningPercentile()
    values = []
    for v in np.random.default_rng(0).normal(10, 3, 500):
        signal.observe(v)
        values.append(float(signal(torch.tensor(v))))
    assert min(values) == 0.0 and max(values) == 1.0 and 0.3 < np.mean(values[50:]) < 0.7
    copy = RunningPercentile()
    copy.load_state_dict(signal.state_dict())
    assert copy(torch.tensor(11.0)) == signal(torch.tensor(11.0))


def test_gate_state_round_trips():
    g, h = gate(), gate()
    for v in (0.3, 0.2, 0.9):
        g.observe(v)
        g.observe_signals(torch.tensor([0.5, v, v]))
    h.load_state_dict(g.state_dict())
    assert h.state_dict() == g.state_dict()


def play(trust: Trust, pays: dict[bool, float], steps: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for i in range(steps):
        followed = bool(rng.random() < 0.15)
        trust.start(0, followed)
        for _ in range(trust.horizon):
            trust.step(0, float(rng.random() < pays[followed]))
        if i % 20 == 19:
            trust.end(0)


def test_trust_falls_while_following_pays_less_and_comes_back_when_it_no_longer_does():
    trust = Trust(10)
    play(trust, {True: 0.02, False: 0.10}, 1500)
    low = trust.value
    assert low < 0.05
    assert trust.regret() == pytest.approx(0.08, abs=0.02)
    play(trust, {True: 0.15, False: 0.10}, 6000, seed=1)
    assert trust.value > 0.9


@pytest.mark.parametrize("advised", [0.1, 0.2])
def test_advice_that_is_as_good_as_the_policy_keeps_its_trust(advised):
    values = []
    for seed in range(8):
        trust = Trust(10)
        play(trust, {True: advised, False: 0.10}, 1500, seed)
        values.append(trust.value)
    assert np.mean(values) > 0.8


def test_trust_is_a_factor_of_beta_and_its_state_round_trips():
    g, h = gate(), gate()
    full = beta(g, 1.0)
    play(g.trust, {True: 0.0, False: 0.5}, 300)
    g.trust.start(0, True)
    assert beta(g, 1.0) == pytest.approx(full * g.trust.value) and g.trust.value < 0.5
    h.load_state_dict(g.state_dict())
    assert h.state_dict() == g.state_dict()
    h.trust.forget_open()
    assert h.trust.open == []


def test_trust_of_an_older_checkpoint_is_read():
    trust, again = Trust(10), Trust(10)
    play(trust, {True: 0.0, False: 0.5}, 300)
    state = trust.state_dict()
    again.load_state_dict(state | {"means": {"1": state["means"][1], "0": state["means"][0]}})
    assert again.state_dict() == state and again.harm() == trust.harm() > 0.0
