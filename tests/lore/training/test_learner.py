"""One update's imagination, as the learner puts it together."""

import numpy as np
import torch

from lore.config import load_config
from lore.dreamer.returns import LAMBDA
from lore.dreamer.types import Latent, Starts
from lore.training.agent import Agent
from lore.training.learner import Learner
from lore_datasets.environments import get_environment

ENV = get_environment("crafter")
HORIZON, CONT = 6, 0.9


def imagined(options: bool) -> torch.Tensor:
    """Return [64] of each start for a fresh agent, in units of the reward that its world model predicts at every step,
    with a continue of 0.9; with options about half of the decisions call a skill that never ends."""
    config = load_config(
        dataset="said", **{"options.enabled": options, "gate.enabled": not options}, horizon=HORIZON,
        observation="symbolic", **{"model.size": "tiny", "options.max_options": 2},
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    agent = Agent(config, ENV, 2, generator)
    model, actor = agent.world_model, agent.actor_critic.actor
    bins = model.reward.bins
    pays = (bins - 1.0).abs().argmin()
    with torch.no_grad():
        model.reward.out.bias[pays] = 60.0
        model.cont.out.weight.zero_()
        model.cont.out.bias.fill_(np.log(CONT / (1 - CONT)))
        if agent.heads is not None:
            agent.heads.signs.weight.zero_()
            agent.heads.signs.bias.copy_(torch.tensor([[9.0, -50.0, -50.0]] * 2).flatten())
            actor.out.bias[agent.num_actions :] = np.log(agent.num_actions / 2)
    learner = Learner(agent, config, generator, torch.device("cpu"))
    if options:
        learner.set_slots(np.array([0, 1]))
    size = model.size
    stoch = torch.nn.functional.one_hot(torch.zeros(64, size.stoch, dtype=torch.int64), size.classes).float()
    starts = Latent(torch.zeros(64, size.deter), stoch)
    found = agent.imagination.imagine_and_judge(
        model, agent.actor_critic, learner.policy(), Starts(starts, learner._noise(64))
    )  # fmt: skip
    return found.returns[:, 0] / bins[pays]


def test_while_the_critic_knows_nothing_an_option_is_worth_what_the_same_steps_are_worth_one_by_one():
    plain = sum((CONT * LAMBDA) ** i for i in range(HORIZON))
    for options in (True, False):
        torch.testing.assert_close(imagined(options), torch.full((64,), plain))
