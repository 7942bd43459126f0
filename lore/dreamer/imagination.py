"""Imagination: a policy rolled out in the world model, and what world model and critic say along the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lore.dreamer.actor_critic import ActorCritic, Policy
from lore.dreamer.dists import policy_entropy, policy_log_probs
from lore.dreamer.optim import total_loss
from lore.dreamer.returns import imagination_weights, lambda_return
from lore.dreamer.types import Imagined, Latent, Noise, Starts, Trajectories
from lore.dreamer.world_model import WorldModel

__all__ = ["Imagination", "imagine", "judge"]


@torch.no_grad()
def imagine(model: WorldModel, policy: Policy, start: Latent, noise: Noise, carry: Any = None) -> Imagined:
    """Roll the policy out in the world model from start [N, ...] for as many steps as there is noise; the policy's
    logits alone keep a gradient. ``carry``: the policy's own state there."""
    horizon = len(noise.prior)
    latent, visited, choices = Latent(start.deter.detach(), start.stoch.detach()), [], []
    for i in range(horizon + 1):  # the last choice only tells whether the state at the horizon is a decision
        visited.append(latent.features())
        choices.append(policy(visited[-1], carry, noise.policy[i]))
        carry = choices[-1].carry
        if i < horizon:
            latent = model.rssm.imagine_step(latent, choices[-1].action, noise.prior[i])
    *taken, last = choices
    logits, action, decision, charges, masks, _, paid = zip(*taken, strict=True)
    mask = None if masks[0] is None else torch.stack(masks, 1)
    with torch.enable_grad():
        said = torch.stack(logits, 1)
    # Time-major in memory: each step stays the block that it was computed as.
    features, charge = torch.stack(visited).transpose(0, 1), torch.stack([*charges, last.charge]).transpose(0, 1)
    bonus = None if last.bonus is None else torch.stack([*paid, last.bonus], 1)
    return Imagined(features, said, torch.stack(action, 1), torch.stack(decision, 1), charge, mask, latent, bonus)


def judge(model: WorldModel, critic: ActorCritic, imagined: Imagined, weight: Tensor | None = None) -> Trajectories:
    """Rewards, continues, values and lambda-returns along imagined trajectories.

    Values know the option that goes on, so that inside an option the return is bootstrapped as elsewhere.

    Args:
        weight: of each start [N], None = 1.
    """
    features = imagined.features.detach()
    known = critic.criticised(features.transpose(0, 1), imagined.charge.transpose(0, 1)).transpose(0, 1)
    before = known[:, :-1]
    value_logits = critic.critic(before)
    with torch.no_grad():
        reward, cont = model.predict(features)
        last = critic.critic.mean(critic.critic(known[:, -1:]))
        value = torch.cat([critic.critic.mean(value_logits), last], 1)
        paid = reward if imagined.bonus is None else reward + imagined.bonus
        returns = lambda_return(paid, cont, value)
        reached = imagination_weights(cont)[:, :-1]
        reached = reached if weight is None else reached * weight.unsqueeze(-1)
        slow = critic.slow_critic.mean(critic.slow_critic(before))
    log_probs = policy_log_probs(imagined.logits, imagined.mask, critic.unimix)
    chosen = log_probs.gather(-1, imagined.decision.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    value_error = critic.critic.loss(value_logits, returns, slow)
    decides = imagined.charge[:, :-1] < 0
    parts = (chosen, policy_entropy(log_probs), value_error, decides, reward, cont, value, slow)
    return Trajectories(*parts, returns, reached, imagined.bonus)


class Imagination:
    """How an update imagines and sends gradients back: here, all trajectories at once on the tape."""

    def imagine_and_judge(self, model: WorldModel, critic: ActorCritic, policy: Policy, starts: Starts) -> Trajectories:
        """Trajectories from starts under ``policy``; the rest as in :func:`imagine` and :func:`judge`."""
        imagined = imagine(model, policy, starts.latent, starts.noise, starts.carry)
        return judge(model, critic, imagined, starts.weight)

    def backward(self, losses: Mapping[str, Tensor], scales: Mapping[str, float | Tensor]) -> None:
        """Add the gradients of sum(scale * mean(loss)) to those of the parameters."""
        total_loss(losses, scales).backward()
