"""Both forms of an agent hold the same parameters, compute the same and load each other's checkpoints."""

import copy
import subprocess
import sys

import pytest
import torch

from lore.config import load_config
from lore.dreamer.imagination import Imagination
from lore.dreamer.nets import Head
from lore.fast import parallel
from lore.fast.accelerate import accelerate
from lore.fast.imagination import SharedImagination
from lore.sizes import SIZES
from lore.training.agent import Agent
from lore.training.learner import Learner
from lore_datasets.environments import get_environment
from tests.lore.fast.forms import seeded

pytest.importorskip("numba")
CPU = torch.device("cpu")


def make(observation: str = "symbolic", size: str = "tiny", **flags) -> tuple[Agent, object]:
    config = load_config(
        observation=observation, batch_size=16, sequence_length=4, horizon=3, **flags, **{"model.size": size}
    )  # fmt: skip
    agent = Agent(config, get_environment("crafter"), 0, seeded())
    for head in (agent.world_model.reward, agent.actor_critic.critic, agent.actor_critic.slow_critic):
        torch.nn.init.normal_(head.out.weight, std=0.05, generator=seeded(1))  # zero outputs pass no gradient on
    return agent, config


def records(agent: Agent) -> dict[str, torch.Tensor]:
    lead, size = (4, 5), agent.world_model.size
    return {
        "state": torch.randint(4, (*lead, 104), generator=seeded(2), dtype=torch.uint8),
        "image": torch.randint(256, (*lead, 64, 64, 3), generator=seeded(3), dtype=torch.uint8),
        "action": torch.randint(17, lead, generator=seeded(4)), "reward": torch.rand(lead, generator=seeded(5)),
        "is_first": torch.rand(lead, generator=seeded(6)) < 0.1, "is_last": torch.zeros(lead, dtype=torch.bool),
        "is_terminal": torch.zeros(lead, dtype=torch.bool),
        "deter": torch.rand(*lead, size.deter, generator=seeded(7)).half(),
        "stoch": torch.randint(size.classes, (*lead, size.stoch), generator=seeded(8), dtype=torch.uint8),
    }  # fmt: skip


@pytest.mark.parametrize("observation", ["symbolic", "pixels"])
def test_an_update_of_both_forms_has_the_same_losses_and_gradients(observation):
    plain, config = make(observation)
    fast = copy.deepcopy(plain)
    accelerate(fast, CPU, 1)
    assert list(fast.state_dict()) == list(plain.state_dict())
    found = []
    for agent in (plain, fast):
        learner = Learner(agent, config, seeded(10), CPU)
        _, metrics = learner.update(records(agent))
        found.append((metrics, {name: p.grad for name, p in agent.named_parameters() if p.grad is not None}))
    for name, value in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], value, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert found[0][1].keys() == found[1][1].keys()
    for name, value in found[0][1].items():
        error = (found[1][1][name] - value).norm() / value.norm().clamp(min=1e-6)
        assert error < 1e-3, (name, error)


def test_checkpoints_load_either_way_and_a_copy_stays_compiled():
    plain, _ = make()
    fast = copy.deepcopy(plain)
    accelerate(fast, CPU, 1)
    with torch.no_grad():
        for p in plain.parameters():
            p += 1.0
    fast.load_state_dict(plain.state_dict())
    plain.load_state_dict(fast.state_dict())
    assert type(copy.deepcopy(fast).actor_critic.actor) is type(fast.actor_critic.actor) is not Head


def test_threads_go_to_the_loops_of_a_small_learner_and_to_torch_for_a_large_one(monkeypatch):
    cores = [8]
    monkeypatch.setattr("lore.fast.accelerate.available_cores", lambda: cores[0])
    accelerate(make()[0], CPU, 3)
    assert (parallel.threads(), torch.get_num_threads()) == (3, 1)
    accelerate(make()[0], CPU, 0)
    assert parallel.threads() == 3
    cores[0] = 2
    accelerate(make()[0], CPU, 0)
    assert parallel.threads() == 2
    large, _ = make()
    large.world_model.size = SIZES["12m"]
    accelerate(large, CPU, 2)
    assert (parallel.threads(), torch.get_num_threads()) == (2, 2)


def test_off_the_cpu_the_agent_keeps_its_plain_form():
    with torch.device("meta"):
        agent, _ = make()
    accelerate(agent, torch.device("meta"), 2)
    assert type(agent.actor_critic.actor) is Head and type(agent.imagination) is Imagination
    assert torch.get_num_threads() == 2
    agent, _ = make()
    accelerate(agent, CPU, 2)
    assert type(agent.actor_critic.actor) is not Head and type(agent.imagination) is SharedImagination


def test_without_numba_the_plain_form_stays_and_learns():
    code = """
import sys
sys.modules["numba"] = None
import torch
from lore.config import load_config
from lore.dreamer.nets import Head
from lore.fast.accelerate import accelerate
from lore.training.agent import Agent
from lore_datasets.environments import get_environment
config = load_config(observation="symbolic", **{"model.size": "tiny"})
agent = Agent(config, get_environment("crafter"), 0, torch.Generator().manual_seed(0))
accelerate(agent, torch.device("cpu"), 1)
assert type(agent.actor_critic.actor) is Head
print(torch.get_num_threads())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "1", done.stderr
