"""Tensor bundles that pass between the learner's parts, and the shape alphabet of its signatures.

Axes: B sequences or environments, T steps of a sequence, N flattened B*T, H imagined steps, A primitive actions,
M option slots, S categoricals, K classes of one categorical, D recurrent state, E tokens, F features = D + S*K.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

__all__ = ["Imagined", "Latent", "Noise", "Observed", "Starts", "Trajectories"]


class Latent(NamedTuple):
    """RSSM state."""

    deter: Tensor  # float32 [..., D]
    stoch: Tensor  # float32 [..., S, K], one-hot

    def features(self) -> Tensor:
        """concat(deter, flatten(stoch)): [..., D + S*K]."""
        return torch.cat([self.deter, self.stoch.flatten(-2)], -1)

    def numbers(self, generator: Generator | None) -> Tensor:
        """Uniform numbers [..., S] that draw the next state, one step at a time."""
        return torch.rand(self.stoch.shape[:-1], generator=generator, device=self.stoch.device)


class Observed(NamedTuple):
    """What the RSSM made of a sequence."""

    latent: Latent  # posterior, [B, T, ...]
    post_logits: Tensor  # [B, T, S, K]
    prior_logits: Tensor  # [B, T, S, K]


class Noise(NamedTuple):
    """Uniform numbers in [0, 1) that an imagination uses, drawn before it."""

    policy: Tensor  # [H+1, P, N], P numbers that the policy reads at each state
    prior: Tensor  # [H, N, S], of the latents that follow


class Starts(NamedTuple):
    """Where imagination begins."""

    latent: Latent  # [N, ...]
    noise: Noise
    weight: Tensor | None = None  # [N] of each trajectory in the losses, None = 1
    carry: Any = None  # the policy's own state: None or a NamedTuple of tensors [N, ...]

    def cut(self, rows: slice) -> Starts:
        """Some of the starts."""
        carry = None if self.carry is None else type(self.carry)(*(x[rows] for x in self.carry))
        weight = None if self.weight is None else self.weight[rows]
        noise = Noise(self.noise.policy[:, :, rows], self.noise.prior[:, rows])
        return Starts(Latent(self.latent.deter[rows], self.latent.stoch[rows]), noise, weight, carry)


class Imagined(NamedTuple):
    """A batch of imagined trajectories; index 0 is the start state."""

    features: Tensor  # [N, H+1, F]
    logits: Tensor  # [N, H, A+M] of the policy that acted, with the actor's gradient
    action: Tensor  # int64 [N, H], primitive action executed
    decision: Tensor  # int64 [N, H], entry of the (extended) action space that the actor chose; valid at decisions
    charge: Tensor  # int64 [N, H+1], skill that goes on here, -1 = the actor decides (always, without options)
    mask: Tensor | None  # bool [N, H, A+M] entries that were allowed, None = all
    last: Latent  # latent after the last step
    bonus: Tensor | None = None  # [N, H+1], paid on arrival beside the predicted reward


class Trajectories(NamedTuple):
    """What actor, world model and critic say along imagined trajectories: all that their losses need but the scale of
    the returns."""

    log_prob: Tensor  # [N, H] of the chosen entry, with the actor's gradient
    entropy: Tensor  # [N, H] of the policy in nats, with the actor's gradient
    value_error: Tensor  # [N, H], cross-entropies of the critic to returns and slow critic, with the critic's gradient
    is_decision: Tensor  # bool [N, H], the actor decides here
    reward: Tensor  # [N, H+1]
    cont: Tensor  # [N, H+1], probability to go on, the discount included
    value: Tensor  # [N, H+1] of the critic
    slow_value: Tensor  # [N, H] of the slow critic
    returns: Tensor  # [N, H], lambda-returns
    weight: Tensor  # [N, H], probability that the step is reached, times the weight of the start
    bonus: Tensor | None = None  # [N, H+1], what the policy was paid beside the world model's reward
