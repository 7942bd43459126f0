"""The advice model: learns what rows say, is calibrated, and survives being stored."""

import numpy as np
import pytest

from lore.advice.distil import SHARPNESS, fit, taught_share, train_arrays
from lore.advice.model import AdviceModel, is_current
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput
from lore_datasets.schema import CLIP
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
    arrays = model.to_arrays()
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
    assert 0.25 <= float(arrays["calibration/temperature"][0]) <= 4.0
    assert arrays["calibration/reliability"][:, 2].sum() == report["held_out_rows"] == 10
    assert all(np.isfinite(v).all() for v in arrays.values())


def test_what_rows_do_not_know_is_neither_advised_nor_talked_down():
    """Half of the rows speak of actions alone, as an adapter's do, half of goals alone."""
    states = random_states(ENV, 600, np.random.default_rng(3))
    width, actions = 17 + len(ENV.skills), 17
    about_goals = np.arange(600) % 2 == 0
    known = np.zeros((600, width), bool)
    known[about_goals, actions:] = True
    known[~about_goals, 2:7] = True  # the feasible actions; the others are unknown
    best = np.where(about_goals, actions + 1, np.where(states.facing % 2 == 0, 5, 6))
    logits = np.where(known, -1.0, 0.0).astype(np.float32)
    logits[np.arange(600), best] = 3.0
    packed = states.pack()
    members = fit(packed, logits, np.ones(600, np.float32), ENV, known=known, epochs=15)
    share = taught_share(known, actions)
    assert share[3] == share[actions] == 0.5 and share[0] == share[12] == 0
    model = AdviceModel(members, 1.0, share)
    logit, taught, _ = model.predict(packed)
    p = model.probabilities(packed)
    assert not taught[:, [0, 1, 12]].any() and taught[:, 2:7].all() and (logit[:, ~taught[0]] == 0).all()
    assert p[:, ~taught[0]].max() == 0
    goals, acts = p[:, actions:], p[:, :actions]
    assert (goals.argmax(-1) == 1).mean() > 0.99 and 0.05 < goals.sum(-1).mean() < 0.95  # both kinds live on
    right = np.where(states.facing % 2 == 0, 5, 6)
    assert (acts.argmax(-1) == right).mean() > 0.9


def test_rows_that_know_nothing_change_nothing():
    states, logits = learnable(80, 0)
    known = np.ones(logits.shape, bool)
    extra, nothing = learnable(20, 7)
    ones = np.ones(100, np.float32)
    a = fit(states, logits, ones[:80], ENV, known=known, epochs=1, members=1)
    b = fit(
        np.concatenate([states, extra]), np.concatenate([logits, 0 * nothing]), ones, ENV,
        known=np.concatenate([known, np.zeros((20, 20), bool)]), epochs=1, members=1,
    )  # fmt: skip
    for x, y in zip(a[0].parameters(), b[0].parameters(), strict=True):
        np.testing.assert_array_equal(x.detach().numpy(), y.detach().numpy())
    with pytest.raises(BadInput, match="no row says anything"):
        fit(states, logits, ones[:80], ENV, known=~known)


def test_distributions_of_a_model_are_learned_as_distributions():
    """Rows from letters: the same two choices everywhere, 55 to 45."""
    states, _ = learnable(300, 0)
    logits = np.full((300, 20), -4.0, np.float32)
    logits[:, 18], logits[:, 19] = np.log(0.55) + 4, np.log(0.45) + 4
    model = AdviceModel(fit(states, logits, np.ones(300, np.float32), ENV, epochs=15), 1.0)
    p = model.probabilities(learnable(100, 1)[0]).mean(0)
    sharp = 0.55**SHARPNESS / (0.55**SHARPNESS + 0.45**SHARPNESS)
    assert abs(p[18] - sharp) < 0.1 and p[18] + p[19] > 0.95


def test_advice_of_the_model_keeps_its_order_within_the_range_of_logits():
    states, logits = learnable(300, 0)
    model = AdviceModel(fit(states, logits, np.ones(300, np.float32), ENV, epochs=20), 0.3)
    said, _, _ = model.predict(states)
    assert np.abs(said).max() <= CLIP + 1e-5 and np.abs(said.mean(-1)).max() < 1e-4
    np.testing.assert_array_equal(said.argmax(-1), model.probabilities(states).argmax(-1))
    assert (np.sort(said, -1)[:, -1] > np.sort(said, -1)[:, -2]).all()


def test_a_model_of_an_earlier_form_is_known_as_such():
    arrays = {"model/0.cell.weight": np.zeros((3, 8), np.float32), "model/0.out.bias": np.zeros(20, np.float32)}
    assert not is_current(arrays, ENV)
    states, logits = learnable(64, 0)
    assert is_current(AdviceModel(fit(states, logits, np.ones(64, np.float32), ENV, epochs=1), 1.0).to_arrays(), ENV)
