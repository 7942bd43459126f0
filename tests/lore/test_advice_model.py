"""The advice model: learns what rows say, is calibrated, and survives being stored."""

import numpy as np
import pytest

from lore.advice.model import AdviceModel, fit, train_arrays
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput
from lore_datasets.testing import random_states, small_advice

ENV = get_environment("crafter")


def learnable(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """States, and logits that follow a rule: entry 5 when facing left or up, entry 6 otherwise."""
    states = random_states(ENV, n, np.random.default_rng(seed))
    best = np.where(states.facing % 2 == 0, 5, 6)
    logits = np.full((n, 20), -1.0, np.float32)
    logits[np.arange(n), best] = 4.0
    return states.pack(), logits


def test_the_ensemble_learns_a_rule_and_generalises():
    states, logits = learnable(400, 0)
    members = fit(states, logits, np.ones(400, np.float32), ENV, epochs=25)
    fresh, truth = learnable(200, 1)
    model = AdviceModel(members, 1.0)
    _, _, confidence = model.predict(fresh)
    assert (model.probabilities(fresh).argmax(-1) == truth.argmax(-1)).mean() > 0.95
    assert confidence.mean() > 0.7


def test_rows_without_confidence_teach_little():
    states, logits = learnable(300, 0)
    wrong = np.roll(logits, 3, -1)
    both = np.concatenate([logits, wrong])
    weight = np.concatenate([np.ones(300), np.zeros(300)]).astype(np.float32)
    members = fit(np.concatenate([states, states]), both, weight, ENV, epochs=8, members=1)
    assert (AdviceModel(members, 1.0).probabilities(states).argmax(-1) == logits.argmax(-1)).mean() > 0.9


def test_storing_and_reading_gives_equal_predictions():
    states, logits = learnable(64, 0)
    model = AdviceModel(fit(states, logits, np.ones(64, np.float32), ENV, epochs=1), 1.3)
    arrays = model.to_arrays() | {"calibration/temperature": np.array([1.3], np.float32)}
    again = AdviceModel.from_arrays(arrays, ENV)
    np.testing.assert_allclose(again.probabilities(states), model.probabilities(states), rtol=1e-5)
    del arrays["model/0.out.bias"]
    with pytest.raises(BadInput, match="output layer"):
        AdviceModel.from_arrays(arrays, ENV)


def test_training_is_repeatable_and_independent_of_the_global_generator():
    import torch

    states, logits = learnable(64, 0)
    a = AdviceModel(fit(states, logits, np.ones(64, np.float32), ENV, epochs=1, seed=4), 1.0)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    b = AdviceModel(fit(states, logits, np.ones(64, np.float32), ENV, epochs=1, seed=4), 1.0)
    assert torch.equal(before, torch.get_rng_state())
    for name, value in a.to_arrays().items():
        np.testing.assert_array_equal(value, b.to_arrays()[name])


def test_too_few_rows_are_refused(tmp_path):
    ref = small_advice(tmp_path, ENV, n=10)
    with pytest.raises(BadInput, match="too few"):
        train_arrays(load_advice(str(ref), root=tmp_path), epochs=1)


def test_calibration_figures_are_shares(tmp_path):
    ref = small_advice(tmp_path, ENV, n=60)
    arrays, report = train_arrays(load_advice(str(ref), root=tmp_path), epochs=1)
    assert 0 <= report["model_agreement"] <= 1 and 0 <= report["goal_agreement"] <= 1
    assert 0.5 <= float(arrays["calibration/temperature"][0]) <= 4.0
    assert all(np.isfinite(v).all() for v in arrays.values())
