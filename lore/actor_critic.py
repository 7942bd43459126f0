"""Actor and critic on latent features, and imagination under an injected policy."""

from __future__ import annotations

import copy
import math
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from lore import kernels, losses
from lore.config import Size
from lore.dists import policy_log_probs, sample_index, twohot_bins, twohot_mean, twohot_spread
from lore.nets import Head
from lore.returns import LAMBDA, PercentileNorm
from lore.types import Imagined, Latent
from lore.world_model import WorldModel

__all__ = ["SLOW_RATE", "ActorCritic", "PolicyStep", "imagination_loss", "imagine", "replay_loss"]

SLOW_RATE = 0.02
"""Share of the critic that enters the slow critic per update."""


class PolicyStep(Protocol):
    """One step of a policy inside imagination; ``carry`` is the policy's own state (options), None at the start."""

    def __call__(
        self, features: Tensor, carry: Any, generator: Generator | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Any]:
        """features [N, F] -> action, decision int64 [N], is_decision bool [N], mask bool [N, A+M] or None, carry."""
        ...


class ActorCritic(nn.Module):
    """Policy over ``actions`` entries (primitives, then option slots), critic, slow critic and return normaliser.

    Args:
        features: width F of the latent features.
        actions: entries of the (extended) action space, A + M.
        size: row of the size table.
        unimix: uniform share of the policy; danijar/dreamerv3 applies none.
        generator: draws the initial weights.
    """

    bins: Tensor

    def __init__(
        self, features: int, actions: int, size: Size, *, unimix: float = 0.0, generator: Generator | None = None
    ) -> None:
        super().__init__()
        self.actions, self.unimix = actions, unimix
        self.actor = Head(features, actions, 3, size.units, generator, outscale=0.01)
        self.critic = Head(features, 255, 3, size.units, generator, outscale=0.0)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.norm = PercentileNorm()
        self.register_buffer("bins", twohot_bins(), persistent=False)

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """Named parameters that the optimiser moves: all but the slow critic's."""
        return [(name, p) for name, p in self.named_parameters() if not name.startswith("slow_critic.")]

    def log_probs(self, features: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Log-probabilities float32 [..., A+M] of features [..., F]; mask False = not allowed, bias = advice added to
        the logits."""
        logits = self.actor(features)
        return policy_log_probs(logits if bias is None else logits + bias, mask, self.unimix)

    def value(self, features: Tensor) -> Tensor:
        """Critic's prediction [...] of features [..., F]."""
        return twohot_mean(self.critic(features), self.bins)

    def value_spread(self, features: Tensor) -> Tensor:
        """Standard deviation [...] of the critic's two-hot distribution, in symlog units."""
        return twohot_spread(self.critic(features), self.bins)

    @torch.no_grad()
    def slow_value(self, features: Tensor) -> Tensor:
        """Slow critic's prediction [...] of features [..., F]."""
        return twohot_mean(self.slow_critic(features), self.bins)

    @torch.no_grad()
    def update_slow(self, rate: float = SLOW_RATE) -> None:
        """slow <- (1 - rate) * slow + rate * critic; call it after each optimiser step."""
        torch._foreach_lerp_(list(self.slow_critic.parameters()), list(self.critic.parameters()), rate)

    def sample(self, log_probs: Tensor, generator: Generator | None = None) -> Tensor:
        """int64 [...] drawn from log-probabilities [..., A+M]."""
        probs = log_probs.exp()
        uniform = torch.rand(probs.shape[:-1], device=probs.device, generator=generator)
        return sample_index(probs, uniform)

    def policy_step(
        self, features: Tensor, carry: Any = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Any]:
        """The plain policy over primitives, in the form that :func:`imagine` takes."""
        logits = self.actor(features)
        uniform = torch.rand(logits.shape[:-1], device=logits.device, generator=generator)
        action = kernels.sample_index(logits, uniform, self.unimix)
        return action, action, torch.ones_like(action, dtype=torch.bool), None, carry


@torch.no_grad()
def imagine(
    world_model: WorldModel,
    policy_step: PolicyStep,
    start: Latent,
    horizon: int,
    generator: Generator | None = None,
    carry: Any = None,
) -> Imagined:
    """Roll the policy out in the world model from start [N, ...] for ``horizon`` steps, without gradient."""
    rows, flat = start.deter.shape[0], world_model.features
    latent = Latent(start.deter.detach(), start.stoch.detach())
    features = latent.deter.new_empty(horizon + 1, rows, flat)  # time-major: every step's block is contiguous
    actions, decisions, flags, masks = [], [], [], []
    for i in range(horizon + 1):
        torch.cat([latent.deter, latent.stoch.flatten(1)], 1, out=features[i])
        # The last call only tells whether the state at the horizon is a decision.
        action, decision, is_decision, mask, carry = policy_step(features[i], carry, generator)
        flags.append(is_decision)
        if i < horizon:
            actions.append(action)
            decisions.append(decision)
            masks.append(mask)
            latent = world_model.rssm.imagine_step(latent, action, generator)
    mask = torch.stack(masks, 1) if masks and masks[0] is not None else None
    features = features.transpose(0, 1)
    return Imagined(features, torch.stack(actions, 1), torch.stack(decisions, 1), torch.stack(flags, 1), mask, latent)


def imagination_loss(
    ac: ActorCritic,
    imagined: Imagined,
    reward: Tensor,
    cont: Tensor,
    *,
    entropy: float = 3e-4,
    lam: float = LAMBDA,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    update_norm: bool = True,
) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
    """Losses ``policy`` and ``value`` [N, H], returns [N, H] (detached), detached metrics.

    Args:
        imagined: trajectories of :func:`imagine`.
        reward, cont: predictions [N, H+1] on ``imagined.features`` (:meth:`WorldModel.predict`).
        entropy: weight of the policy's entropy.
        weight: extra factor, broadcast against [N, H] (synthetic rows, cut-off steps).
        bias: advice [N, H, A+M] that was added to the actor's logits when the decisions were sampled.
        update_norm: take the returns into the normaliser before it is used.
    """
    features = imagined.features.detach()
    before, is_decision = features[:, :-1], imagined.is_decision[:, :-1]
    logits = ac.critic(before)
    with torch.no_grad():
        value = torch.cat([twohot_mean(logits, ac.bins), ac.value(features[:, -1:])], 1)
        returns, reach = losses.imagined_returns(reward, cont, value, imagined.is_decision, lam)
        scale = ac.norm.update(returns) if update_norm else ac.norm.scale()
        advantage = (returns - value[:, :-1]) / scale
        reach = reach[:, :-1] if weight is None else reach[:, :-1] * weight
        slow = ac.slow_value(before)
    log_probs = ac.log_probs(before, imagined.mask, bias)
    policy, spread = losses.policy_loss(log_probs, imagined.decision, advantage, reach, is_decision, entropy)
    decided = is_decision.float().mean().clamp(min=1e-6)
    metrics = {
        "adv": advantage.mean(),
        "adv_std": advantage.std(),
        "adv_mag": advantage.abs().mean(),
        "rew": reward.mean(),
        "con": cont.mean(),
        "ret": (returns / scale).mean(),
        "val": value.mean(),
        "tar": returns.mean(),
        "weight": reach.mean(),
        "slowval": slow.mean(),
        "ret_min": returns.amin(),
        "ret_max": returns.amax(),
        "ret_rate": ((returns / scale).abs() >= 1.0).float().mean(),
        "ent/action": spread.mean() / decided,
    }
    metrics["rand/action"] = metrics["ent/action"] / math.log(ac.actions)
    return {"policy": policy, "value": losses.value_loss(logits, ac.bins, returns, slow, reach)}, returns, metrics


def replay_loss(
    ac: ActorCritic, features: Tensor, boot: Tensor, batch: dict[str, Tensor], lam: float = LAMBDA
) -> dict[str, Tensor]:
    """Loss ``repval`` [B, T-1] of the critic on replayed features [B, T, F]; its gradient reaches the world model.

    boot [B, T]: the return of the imagination started at each step (column 0 of :func:`imagination_loss`'s returns).
    """
    slow = ac.slow_value(features.detach())
    loss = losses.replay_value_loss(
        ac.critic(features), ac.bins, slow, boot.detach(), batch["reward"], batch["is_last"], batch["is_terminal"], lam
    )
    return {"repval": loss}
