"""Actor and critic on latent features, and imagination under an injected policy."""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn

from lore.config import Size
from lore.dreamer import losses
from lore.dreamer.dists import policy_log_probs, sample_index, twohot_bins, twohot_mean, twohot_spread
from lore.dreamer.nets import Head
from lore.dreamer.returns import LAMBDA, PercentileNorm
from lore.dreamer.types import Imagined, Latent
from lore.dreamer.world_model import WorldModel
from lore.fast import kernels

__all__ = [
    "SLOW_RATE",
    "ActorCritic",
    "Judged",
    "PolicyStep",
    "imagination_loss",
    "imagine",
    "judge",
    "judged_loss",
    "judged_metrics",
    "replay_loss",
]

SLOW_RATE = 0.02
"""Share of the critic that enters the slow critic per update."""


class PolicyStep(Protocol):
    """One step of a policy inside imagination; ``carry`` is the policy's own state (options), None at the start."""

    def __call__(
        self, features: Tensor, carry: Any, generator: Generator | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Any]:
        """features [N, F] -> logits [N, A+M] with the actor's gradient, action, decision int64 [N], is_decision bool
        [N], mask bool [N, A+M] or None, carry."""
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

    def log_probs(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-probabilities float32 [..., A+M] of features [..., F]; mask False = not allowed."""
        return policy_log_probs(self.actor(features), mask, self.unimix)

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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Any]:
        """The plain policy over primitives, in the form that :func:`imagine` takes."""
        with torch.enable_grad():
            logits = self.actor(features)
        uniform = torch.rand(logits.shape[:-1], device=logits.device, generator=generator)
        action = kernels.sample_index(logits, uniform, self.unimix)
        return logits, action, action, torch.ones_like(action, dtype=torch.bool), None, carry


@torch.no_grad()
def imagine(
    world_model: WorldModel,
    policy_step: PolicyStep,
    start: Latent,
    horizon: int,
    generator: Generator | None = None,
    carry: Any = None,
) -> Imagined:
    """Roll the policy out in the world model from start [N, ...] for ``horizon`` steps; the policy's logits alone keep
    a gradient."""
    rows, flat = start.deter.shape[0], world_model.features
    latent = Latent(start.deter.detach(), start.stoch.detach())
    features = latent.deter.new_empty(horizon + 1, rows, flat)  # time-major: every step's block is contiguous
    said, actions, decisions, flags, masks = [], [], [], [], []
    for i in range(horizon + 1):
        here = features[i].data  # with a version of its own: later steps are written beside it, not into it
        torch.cat([latent.deter, latent.stoch.flatten(1)], 1, out=here)
        # The last call only tells whether the state at the horizon is a decision.
        logits, action, decision, is_decision, mask, carry = policy_step(here, carry, generator)
        flags.append(is_decision)
        if i < horizon:
            said.append(logits)
            actions.append(action)
            decisions.append(decision)
            masks.append(mask)
            latent = world_model.rssm.imagine_step(latent, action, generator)
    mask = torch.stack(masks, 1) if masks and masks[0] is not None else None
    features = features.transpose(0, 1)
    with torch.enable_grad():
        logits = torch.stack(said, 1)
    chosen = torch.stack(actions, 1), torch.stack(decisions, 1), torch.stack(flags, 1)
    return Imagined(features, logits, *chosen, mask, latent)


class Judged(NamedTuple):
    """What world model and critic say along imagined trajectories [N, H(+1)]: all that a loss needs but its scale."""

    logits: Tensor  # [N, H, 255] of the critic, with gradient
    reward: Tensor  # [N, H+1]
    cont: Tensor  # [N, H+1]
    value: Tensor  # [N, H+1]
    slow: Tensor  # [N, H], the slow critic's value
    returns: Tensor  # [N, H]
    reach: Tensor  # [N, H], what a step weighs
    is_decision: Tensor  # bool [N, H]


def judge(
    ac: ActorCritic,
    imagined: Imagined,
    reward: Tensor,
    cont: Tensor,
    lam: float = LAMBDA,
    weight: Tensor | None = None,
) -> Judged:
    """Values, lambda-returns and weights of imagined trajectories.

    Args:
        imagined: trajectories of :func:`imagine`.
        reward, cont: predictions [N, H+1] on ``imagined.features`` (:meth:`WorldModel.predict`).
        weight: extra factor, broadcast against [N, H] (synthetic rows, cut-off steps).
    """
    features = imagined.features.detach()
    before, is_decision = features[:, :-1], imagined.is_decision
    logits = ac.critic(before)
    with torch.no_grad():
        value = torch.cat([twohot_mean(logits, ac.bins), ac.value(features[:, -1:])], 1)
        returns, reach = losses.imagined_returns(reward, cont, value, is_decision, lam)
        reach = reach[:, :-1] if weight is None else reach[:, :-1] * weight
        return Judged(logits, reward, cont, value, ac.slow_value(before), returns, reach, is_decision[:, :-1])


def judged_loss(
    ac: ActorCritic,
    imagined: Imagined,
    judged: Judged,
    scale: Tensor,
    entropy: float = 3e-4,
) -> tuple[dict[str, Tensor], Tensor]:
    """Losses ``policy`` and ``value`` [N, H], and the policy's entropy [N, H] (detached).

    Args:
        scale: 0-d, of the returns.
        entropy: weight of the policy's entropy.
    """
    advantage = (judged.returns - judged.value[:, :-1]) / scale
    log_probs = policy_log_probs(imagined.logits, imagined.mask, ac.unimix)
    policy, spread = losses.policy_loss(
        log_probs, imagined.decision, advantage, judged.reach, judged.is_decision, entropy
    )
    value = losses.value_loss(judged.logits, ac.bins, judged.returns, judged.slow, judged.reach)
    return {"policy": policy, "value": value}, spread


def judged_metrics(judged: Judged, scale: Tensor, spread: Tensor, actions: int) -> dict[str, Tensor]:
    """Detached 0-d metrics of whole imaginations; ``spread`` [N, H]: the entropy of the policy over ``actions``."""
    advantage = (judged.returns - judged.value[:, :-1]) / scale
    entropy = spread.mean() / judged.is_decision.float().mean().clamp(min=1e-6)
    return {
        "adv": advantage.mean(),
        "adv_std": advantage.std(),
        "adv_mag": advantage.abs().mean(),
        "rew": judged.reward.mean(),
        "con": judged.cont.mean(),
        "ret": (judged.returns / scale).mean(),
        "val": judged.value.mean(),
        "tar": judged.returns.mean(),
        "weight": judged.reach.mean(),
        "slowval": judged.slow.mean(),
        "ret_min": judged.returns.amin(),
        "ret_max": judged.returns.amax(),
        "ret_rate": ((judged.returns / scale).abs() >= 1.0).float().mean(),
        "ent/action": entropy,
        "rand/action": entropy / math.log(actions),
    }


def imagination_loss(
    ac: ActorCritic,
    imagined: Imagined,
    reward: Tensor,
    cont: Tensor,
    *,
    entropy: float = 3e-4,
    lam: float = LAMBDA,
    weight: Tensor | None = None,
    update_norm: bool = True,
) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
    """Losses ``policy`` and ``value`` [N, H], returns [N, H] (detached), detached metrics of one imagination.

    ``update_norm``: take the returns into the normaliser before it is used; the rest as in :func:`judge` and
    :func:`judged_loss`.
    """
    judged = judge(ac, imagined, reward, cont, lam, weight)
    scale = ac.norm.update(judged.returns) if update_norm else ac.norm.scale()
    terms, spread = judged_loss(ac, imagined, judged, scale, entropy)
    return terms, judged.returns, judged_metrics(judged, scale, spread, ac.actions)


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
