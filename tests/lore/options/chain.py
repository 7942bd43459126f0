"""A chain of states as a world model, and one skill that walks along it: all values are known exactly."""

import torch

from lore.dreamer.types import Latent, Noise
from lore.options.heads import OptionHeads
from lore.sizes import Size

__all__ = [
    "A",
    "BACK",
    "CALLS",
    "GAMMA",
    "GOAL",
    "HORIZON",
    "ON",
    "PAYS",
    "SIZE",
    "STATES",
    "Chain",
    "Known",
    "actor",
    "at",
    "noise",
    "step",
]

STATES, A, GAMMA, HORIZON = 8, 2, 0.8, 6
BACK, ON = 0, 1
PAYS = torch.tensor([0.0, 0.0, 0.0, -0.2, 0.0, 1.0, 0.0, 0.5])  # on arrival
SIZE = Size(deter=8, hidden=8, classes=1, depth=1, units=32, stoch=1)
CALLS = (0, 1)  # where the actor calls the option; elsewhere it goes back
GOAL = 5


def step(state: int, action: int) -> int:
    return min(state + 1, STATES - 1) if action == ON else max(state - 2, 0)


def noise(rows: int, horizon: int, generator: torch.Generator) -> Noise:
    """The numbers of an imagination of options in the chain, whose own steps draw nothing."""
    return Noise(torch.rand(horizon + 1, 3, rows, generator=generator), torch.zeros(horizon, rows, 1))


class Chain:
    """A world model of the chain: the latent is the state, one-hot."""

    moves = torch.tensor([[step(s, a) for a in range(A)] for s in range(STATES)])

    @property
    def rssm(self):
        return self

    def imagine_step(self, latent, action, uniform):
        return at(self.moves[latent.deter.argmax(-1), action])

    def predict(self, features):
        reward = features[..., :STATES] @ PAYS
        return reward, torch.full_like(reward, GAMMA)


class Known(OptionHeads):
    """Heads that read the state as it is; one skill, which goes on until the goal or an interruption."""

    def __init__(self, hurts: int | None, limit: int = 50) -> None:
        super().__init__(STATES, A, 1, STATES)
        self.set_limits([limit])
        with torch.no_grad():
            for head in (self.action, self.signs):
                head.weight.zero_()
            self.action.bias.copy_(torch.tensor([-50.0, 50.0]))
            self.signs.bias.copy_(torch.tensor([50.0, -50.0, -50.0]))
            self.signs.weight[1, GOAL] = 100.0
            if hurts is not None:
                self.signs.weight[2, hurts] = 100.0

    def forward(self, features):
        return features[..., :STATES]


def at(state) -> Latent:
    state = torch.as_tensor(state)
    return Latent(torch.nn.functional.one_hot(state, STATES).float(), torch.zeros(*state.shape, 0, 1))


def actor(features):
    calls = features[:, list(CALLS)].sum(-1) > 0
    return torch.where(calls[:, None], torch.tensor([-50.0, -50.0, 50.0]), torch.tensor([50.0, -50.0, -50.0]))
