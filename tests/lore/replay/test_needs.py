"""What a configuration is said to need."""

import pytest

from lore.config import load_config
from lore.replay.needs import _extrapolate, measure
from lore.training.agent import Agent
from lore_datasets.environments import get_environment

SMALL = {"size": "tiny", "observation": "symbolic", "device": "cpu", "area": (24, 24), "length": 100}


def test_the_figures_are_those_of_the_run_that_would_start():
    config = load_config(**SMALL, steps=1000, batch_size=64, sequence_length=16, train_ratio=32.0, replay_capacity=500)
    found = measure(config)
    assert found.parameters == sum(p.numel() for p in Agent(config, get_environment("crafter"), 0).parameters())
    assert (found.records, found.updates, found.backend, found.device) == (500, 500.0, "tensor", "cpu")
    assert found.replay_bytes == 500 * found.record_bytes
    assert found.measured_share == 1.0 and found.device_bytes is None
    assert found.step_s > 0 and found.update_s > 0
    assert found.hours == pytest.approx((1000 * found.step_s + 500 * found.update_s) / 3600)


def test_a_batch_larger_than_the_steps_that_are_played_is_measured_too():
    assert measure(load_config(**SMALL, batch_size=1024, sequence_length=16)).update_s > 0


def test_the_time_of_a_whole_batch_follows_from_the_growth_of_its_parts():
    assert _extrapolate({1: 2.0}, 16) == 32.0
    assert _extrapolate({1: 2.0, 2: 3.0}, 16) == pytest.approx(17.0)
    assert _extrapolate({1: 2.0, 2: 3.0, 4: 5.0}, 4) == 5.0
