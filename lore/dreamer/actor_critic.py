"""Actor, critic and slow critic on latent features, and their losses along imagined trajectories."""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from lore.dreamer.dists import policy_log_probs, sample_index, twohot_std, unimix_probs
from lore.dreamer.nets import Head, TwoHotHead
from lore.dreamer.returns import PercentileNorm
from lore.dreamer.types import Trajectories
from lore.sizes import Size

__all__ = [
    "SLOW_RATE", "ActorCritic", "Choice", "Policy", "actor_critic_losses", "charge_width", "trajectory_metrics",
]  # fmt: skip

SLOW_RATE = 0.02
"""Share of the critic that enters the slow critic per update."""


def charge_width(skills: int) -> int:
    """Inputs of a critic that tell which of so many skills is in charge: a multiple of 8, as the compiled form of a
    head wants it."""
    return -(-skills // 8) * 8


class Choice(NamedTuple):
    """What a policy does at N imagined states."""

    logits: Tensor  # [N, A+M], with the actor's gradient
    action: Tensor  # int64 [N], primitive action executed
    decision: Tensor  # int64 [N], entry of the (extended) action space that the actor chose
    charge: Tensor  # int64 [N], skill that goes on here, -1 = the actor decides
    mask: Tensor | None  # bool [N, A+M], entries that were allowed; None = all
    carry: Any  # the policy's own state: None or a NamedTuple of tensors [N, ...]
    bonus: Tensor | None = None  # [N], what is paid on arrival here beside the predicted reward


class Policy(Protocol):
    """One step of a policy inside imagination: features [N, F], its own state (that of the starts first), uniform
    numbers [P, N]."""

    def __call__(self, features: Tensor, carry: Any, uniform: Tensor) -> Choice: ...


class ActorCritic(nn.Module):
    """Policy over ``actions`` entries (primitives, then option slots), critic, slow critic and return normaliser.

    Args:
        features: width F of the latent features.
        actions: entries of the (extended) action space, A + M.
        size: row of the size table.
        unimix: uniform share of the policy; danijar/dreamerv3 applies none.
        skills: K that can be in charge; the critic is told which one is (0 = it reads the latent alone).
        generator: draws the initial weights.
    """

    def __init__(
        self, features: int, actions: int, size: Size, *, unimix: float = 0.0, skills: int = 0,
        generator: Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.actions, self.unimix = actions, unimix
        self.charges = charge_width(skills)
        self.actor = Head(features, actions, 3, size.units, generator, outscale=0.01)
        self.critic = TwoHotHead(features + self.charges, 3, size.units, generator)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.norm = PercentileNorm()

    def log_probs(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-probabilities float32 [..., A+M] of features [..., F]; mask False = not allowed."""
        return policy_log_probs(self.actor(features), mask, self.unimix)

    def criticised(self, features: Tensor, charge: Tensor | None = None) -> Tensor:
        """What both critics read: features [..., F], behind them one-hot the skill that goes on there, ``charge`` int64
        [...] (None or -1 = the actor decides). So their value is that of a state with an option in charge, U(s, o), as
        Sutton, Precup and Singh 1999 call it, and V(s) where there is none."""
        if not self.charges:
            return features
        if charge is None:
            return F.pad(features, (0, self.charges))
        which = charge.unsqueeze(-1) == torch.arange(self.charges, device=charge.device)
        return torch.cat([features, which.to(features.dtype)], -1)

    def value(self, features: Tensor, charge: Tensor | None = None) -> Tensor:
        """Critic's prediction [...] of features [..., F] with ``charge`` going on (:meth:`criticised`)."""
        return self.critic.mean(self.critic(self.criticised(features, charge)))

    def value_std(self, features: Tensor) -> Tensor:
        """Standard deviation [...] of the critic's two-hot distribution, in symlog units."""
        return twohot_std(self.critic(self.criticised(features)), self.critic.bins)

    @torch.no_grad()
    def update_slow(self, rate: float | Tensor = SLOW_RATE) -> None:
        """slow <- (1 - rate) * slow + rate * critic; call it after each optimiser step."""
        for slow, critic in zip(self.slow_critic.parameters(), self.critic.parameters(), strict=True):
            slow.lerp_(critic, rate)

    @torch.no_grad()
    def restart_entries(self, entries: list[int], bias: float) -> None:
        """Let the actor start afresh at some entries of the action space: logits ``bias`` in every state."""
        self.actor.out.weight[entries] = 0.0
        self.actor.out.bias[entries] = bias

    def policy_step(self, features: Tensor, carry: Any, uniform: Tensor) -> Choice:
        """The actor alone as a :class:`Policy` over primitives, P = 1."""
        with torch.enable_grad():
            logits = self.actor(features)
        action = sample_index(unimix_probs(logits.detach(), self.unimix), uniform[0])
        return Choice(logits, action, action, torch.full_like(action, -1), None, carry)


def actor_critic_losses(t: Trajectories, scale: Tensor, entropy: float) -> dict[str, Tensor]:
    """REINFORCE loss ``policy`` (0 where the actor does not decide) and critic's loss ``value``, both [N, H].

    Args:
        scale: 0-d, of the returns. entropy: weight of the policy's entropy.
    """
    advantage = (t.returns - t.value[:, :-1]) / scale
    active = t.is_decision.to(advantage.dtype)
    policy = -(t.weight * active).detach() * (t.log_prob * advantage.detach() + entropy * t.entropy)
    return {"policy": policy, "value": t.weight.detach() * t.value_error}


@torch.no_grad()
def trajectory_metrics(t: Trajectories, scale: Tensor, actions: int) -> dict[str, Tensor]:
    """0-d metrics of imagined trajectories; ``actions``: entries that the policy chooses from."""
    advantage = (t.returns - t.value[:, :-1]) / scale
    decides = t.is_decision.float()
    entropy = (t.entropy * decides).mean() / decides.mean().clamp(min=1e-6)
    paid = {} if t.bonus is None else {"bonus": t.bonus[:, 1:].sum(-1).mean()}
    return paid | {
        "adv": advantage.mean(),
        "adv_std": advantage.std(),
        "adv_mag": advantage.abs().mean(),
        "rew": t.reward.mean(),
        "con": t.cont.mean(),
        "ret": (t.returns / scale).mean(),
        "val": t.value.mean(),
        "tar": t.returns.mean(),
        "weight": t.weight.mean(),
        "slowval": t.slow_value.mean(),
        "ret_min": t.returns.amin(),
        "ret_max": t.returns.amax(),
        "ret_rate": ((t.returns / scale).abs() >= 1.0).float().mean(),
        "ent/action": entropy,
        "rand/action": entropy / math.log(actions),
    }
