"""The uniform control: the version's skills without its choices."""

import numpy as np
import pytest

from lore.advice.uniform import UniformSource, uniform_advice
from lore.config import load_config
from lore.gate.gate import advice_distribution
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import ConfigError
from lore_datasets.testing import random_states, small_advice

ENV = get_environment("crafter")
A, K = len(ENV.vocab.actions), len(ENV.skills)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("advice")
    return load_advice(str(small_advice(root, ENV, n=30)), root=root)


def test_every_state_gets_the_same_weight_on_every_skill_that_can_start_and_on_nothing_else(data):
    source = UniformSource(uniform_advice(data))
    strange = random_states(ENV, 50, np.random.default_rng(9)).pack()
    states = np.concatenate([data.rows.state[:10], strange])
    batch = source.lookup(states)
    assert (batch.confidence == 1).all() and (batch.row == -1).all()
    proposals = np.full(K, -1, np.int64)
    proposals[[0, 3, 4]] = [1, 5, 5]
    for logits, known in zip(batch.logits, batch.known, strict=True):
        policy, extended = advice_distribution(logits, known, proposals, np.zeros(0, np.int64), A)
        np.testing.assert_allclose(extended[A:][[0, 3, 4]], 1 / 3)
        assert extended.sum() == pytest.approx(1.0)
        np.testing.assert_allclose(policy[[1, 5]], [1 / 3, 2 / 3])
    assert source.coverage() == {"row": 0.0, "program": 0.0, "goal": 0.0, "model": 1.0, "none": 0.0}


def test_the_rows_keep_only_what_can_start_and_no_plan(data):
    flat = uniform_advice(data)
    assert flat.ref == data.ref and flat.model is None and data.rows.logits.any()
    assert not flat.rows.logits.any() and not flat.rows.plan_lengths.any()
    assert (flat.rows.mask[:, A:] == data.rows.applicable).all() and not flat.rows.mask[:, :A].any()


def test_another_prior_than_the_two_is_refused():
    with pytest.raises(ConfigError, match=r"advice\.prior"):
        load_config(prior="flat")
