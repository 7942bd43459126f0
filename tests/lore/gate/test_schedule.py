"""Who acts, by schedule: the budget falls, and only a share of the episodes is guided."""

import numpy as np
import pytest
import torch

from lore.config import load_config
from lore.gate.config import GateConfig
from lore.gate.gate import Gate
from lore.gate.schedule import Guidance, scheduled
from lore.training.loop import train
from lore.training.policy import load_policy
from lore.training.run import Training
from lore_datasets.environments import get_environment
from lore_datasets.errors import ConfigError
from lore_datasets.testing import small_advice


def test_a_schedule_runs_in_a_line_from_its_start_to_its_end_and_stays_there():
    assert [scheduled(2.0, 0.5, 100, at) for at in (0, 50, 100, 900)] == [2.0, 1.25, 0.5, 0.5]


def test_the_budget_falls_and_the_gate_with_it():
    falling = Gate(GateConfig(beta_max=2.0, beta_max_end=0.5, delta_target=1.0, delta_target_end=0.1, budget_steps=100))
    plain = Gate(GateConfig(beta_max=2.0, delta_target=1.0))
    u = np.float64(0.5)
    for falling.env_steps, share in ((0, 1.0), (50, 0.625), (100, 0.25), (10**6, 0.25)):
        ours, theirs = (float(g.beta(torch.tensor(u), 1.0)) for g in (falling, plain))
        assert ours == pytest.approx(share * theirs)
    for _ in range(200):  # a divergence of .5 is within the first budget and far above the last one
        falling.observe(0.5)
        plain.observe(0.5)
    assert plain.kappa == 1.0 and falling.kappa < 1e-3


@pytest.mark.parametrize(
    "settings",
    [{"beta_max_end": 0.4}, {"delta_target_end": 0.2}, {"kickstart": 0.5, "kickstart_floor": 0.6}],
    ids=lambda s: "+".join(s),
)
def test_a_schedule_that_rises_is_refused_by_name(settings):
    with pytest.raises(ConfigError, match=rf"gate\.{list(settings)[-1]} = .* rise") as caught:
        GateConfig(**settings)
    assert caught.value.hint


@pytest.mark.parametrize("settings", [{"guided": "never"}, {"guided_end": 1.5}, {"budget_steps": 0},
                                      {"guided_block": 0}, {"beta_max_end": -1.0}])  # fmt: skip
def test_a_setting_of_a_schedule_out_of_range_is_refused(settings):
    with pytest.raises(ConfigError, match=rf"gate\.{next(iter(settings))}"):
        GateConfig(**settings)


def test_the_share_of_guided_episodes_falls_from_all_to_its_end():
    config = GateConfig(guided="episodes", guided_end=0.2, guided_steps=1000)
    guidance = Guidance(config, 1, np.random.default_rng(0))
    assert guidance.is_on(0)
    shares = []
    for env_steps in (0, 500, 1000, 9000):
        found = []
        for _ in range(2000):
            guidance.begin(0, env_steps)
            found.append(guidance.is_on(0))
            guidance.step(0)
        shares.append(np.mean(found))
    assert shares == pytest.approx([1.0, 0.6, 0.2, 0.2], abs=0.04)


def test_a_guided_block_is_one_stretch_within_the_length_of_the_episode_before():
    config = GateConfig(guided="blocks", guided_block=10, guided_end=0.1, guided_steps=1000)
    guidance = Guidance(config, 1, np.random.default_rng(0))
    begins = set()
    for episode in range(200):
        on = []
        for _ in range(50):
            on.append(guidance.is_on(0))
            guidance.step(0)
        first = on.index(True)
        begins.add(first)
        assert sum(on) == 10 and all(on[first : first + 10])
        assert first == 0 if episode == 0 else first <= 40
        guidance.begin(0, 0)
    assert len(begins) > 30


def config(ref: str, frames: int, **more):
    small = {
        "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 4.0,
        "horizon": 3, "threads": 1, "replay_capacity": 500, "steps": frames, "dataset": ref, "log_interval": 20,
        "device": "cpu", "save_interval_s": 3600.0, "gate.enabled": True, "env.length": 20, "advice.prior": "uniform",
        "beta_max": 50.0, "delta_target": 50.0,
    }  # fmt: skip
    return load_config(**(small | more))


@pytest.mark.parametrize("guided", ["episodes", "blocks"])
def test_outside_guided_steps_the_agent_acts_and_the_advice_is_kept_as_a_label(tmp_path, own_datasets, guided):
    ref = str(small_advice(own_datasets, get_environment("crafter"), n=20))
    settings = {"gate.guided": guided, "guided_end": 0.5, "guided_steps": 1, "guided_block": 5, "hold": 1}
    run = Training(config(ref, 60, **settings, **{"gate.kickstart": 1.0}), tmp_path)
    run.steps, seen = run.envs.reset(), []
    for _ in range(400):
        on = run.policy.controller.guidance.is_on(0)
        last = run.steps[0].is_last
        actions, records = run.policy.act(run.steps)
        if not last:
            seen.append((on, bool(records[0]["advised"]), records[0]["confidence"] > 0))
        run.policy.env_steps += 1
        run.steps = run.envs.step(actions)
    on, advised, labelled = np.array(seen).T
    assert 0.05 < on.mean() < 0.8 and labelled.all()
    assert not advised[~on].any() and advised[on].mean() > 0.8


def test_a_run_with_schedules_resumes_to_the_bit_and_is_evaluated_guided(tmp_path, own_datasets, digest):
    ref = str(small_advice(own_datasets, get_environment("crafter"), n=20))
    falls = {"gate.guided": "blocks", "guided_steps": 40, "guided_block": 7, "beta_max_end": 1.0, "budget_steps": 50,
             "delta_target_end": 0.1}  # fmt: skip
    train(config(ref, 90, **falls), tmp_path / "straight", tensorboard=False)
    for frames in (33, 90):
        train(config(ref, frames, **falls), tmp_path / "pieces", tensorboard=False)
    assert digest(tmp_path / "straight") == digest(tmp_path / "pieces")
    policy = load_policy(tmp_path / "pieces", 1)
    assert policy.controller.guidance is None and policy.config.gate.guided == "blocks"
