"""Learned gate weights: they find the sign of uncertainty that tells where advice pays, and nothing where none does."""

import json

import numpy as np
import pytest

from lore.gate.config import GateConfig
from lore.gate.gate import Gate
from lore.gate.learned_weights import MIN_TRIALS, LearnedWeights

FIXED = np.array([0.5, 0.3, 0.2])


def played(pays: np.ndarray, trials: int, seed: int = 0, harm: float = 0.0) -> LearnedWeights:
    """Trials whose outcome with advice grows by ``pays`` times the signals."""
    rng, weights = np.random.default_rng(seed), LearnedWeights(FIXED)
    for _ in range(trials):
        signals, followed = rng.random(3), bool(rng.random() < 0.4)
        weights.add(followed, 0.5 * signals[0] + followed * (pays @ signals - harm) + rng.normal(0, 0.3), signals)
    return weights


@pytest.mark.parametrize("signal", [0, 1, 2])
def test_the_signal_that_tells_where_advice_pays_gets_the_weight(signal):
    found = played(2.0 * np.eye(3)[signal], 1500).value
    assert found.argmax() == signal and found[signal] > 0.8
    assert found.sum() == pytest.approx(1.0) and found.min() >= 0


def test_a_signal_that_only_tells_how_well_the_policy_does_gets_none():
    assert played(np.array([0.0, 2.0, 0.0]), 1500).value[0] < 0.15  # signal 0 raises every outcome alike


def test_the_given_weights_stand_until_enough_is_known_and_where_advice_never_pays():
    assert played(np.array([0.0, 0.0, 9.0]), MIN_TRIALS - 1).value.tolist() == FIXED.tolist()
    assert played(np.array([-2.0, -2.0, -2.0]), 1500).value.tolist() == FIXED.tolist()


def test_learned_weights_steer_the_gate_and_survive_saving():
    gate = Gate(GateConfig(weights=(1.0, 0.0, 0.0), learn_weights=True))
    rng = np.random.default_rng(1)
    for _ in range(1200):
        signals = rng.random(3)
        followed = bool(rng.random() < 0.5)
        gate.trust.decide(0, followed, signals)
        for _ in range(gate.trust.horizon):
            gate.trust.step(0, float(followed) * signals[2] / gate.trust.horizon)
    assert gate.weights[2] > 0.9
    again = Gate(GateConfig(weights=(1.0, 0.0, 0.0), learn_weights=True))
    again.load_state_dict(json.loads(json.dumps(gate.state_dict())))
    assert again.weights.tolist() == gate.weights.tolist()
    fixed = Gate(GateConfig(weights=(1.0, 0.0, 0.0)))
    assert fixed.weights.tolist() == [1.0, 0.0, 0.0] and "learned" not in fixed.state_dict()
