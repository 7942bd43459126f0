"""Imagination: a policy rolled out in the world model, and what world model and critic say along the way."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from lore.dreamer.actor_critic import ActorCritic, Policy
from lore.dreamer.dists import policy_entropy, policy_log_probs
from lore.dreamer.optim import total_loss
from lore.dreamer.returns import LAMBDA, imagination_weights, lambda_return
from lore.dreamer.types import Imagined, Latent, Trajectories
from lore.dreamer.world_model import WorldModel

__all__ = ["Imagination", "imagine", "judge"]


@torch.no_grad()
def imagine(
    model: WorldModel, policy: Policy, start: Latent, horizon: int, generator: Generator | None = None
) -> Imagined:
    """Roll the policy out in the world model from start [N, ...] for ``horizon`` steps; the policy's logits alone keep
    a gradient."""
    latent, carry, visited, choices = Latent(start.deter.detach(), start.stoch.detach()), None, [], []
    for i in range(horizon + 1):  # the last choice only tells whether the state at the horizon is a decision
        visited.append(latent.features())
        choices.append(policy(visited[-1], carry, generator))
        carry = choices[-1].carry
        if i < horizon:
            latent = model.rssm.imagine_step(latent, choices[-1].action, generator)
    *taken, last = choices
    logits, action, decision, decides, masks, _ = zip(*taken, strict=True)
    mask = None if masks[0] is None else torch.stack(masks, 1)
    with torch.enable_grad():
        said = torch.stack(logits, 1)
    is_decision = torch.stack([*decides, last.is_decision], 1)
    # Time-major in memory: each step stays the block that it was computed as.
    features = torch.stack(visited).transpose(0, 1)
    return Imagined(features, said, torch.stack(action, 1), torch.stack(decision, 1), is_decision, mask, latent)


def judge(
    model: WorldModel, critic: ActorCritic, imagined: Imagined, lam: float = LAMBDA, weight: Tensor | None = None
) -> Trajectories:
    """Rewards, continues, values and lambda-returns along imagined trajectories.

    Where the actor does not decide (inside an option) lambda is 1: rewards are discounted and summed over the option's
    primitive steps, and nothing is bootstrapped before its end or the horizon.

    Args:
        lam: trace of the returns where the actor decides.
        weight: of each start [N], None = 1.
    """
    features, decides = imagined.features.detach(), imagined.is_decision
    before = features[:, :-1]
    value_logits = critic.critic(before)
    with torch.no_grad():
        reward, cont = model.predict(features)
        value = torch.cat([critic.critic.mean(value_logits), critic.value(features[:, -1:])], 1)
        returns = lambda_return(reward, cont, value, torch.where(decides, lam, 1.0))
        reached = imagination_weights(cont)[:, :-1]
        reached = reached if weight is None else reached * weight.unsqueeze(-1)
        slow = critic.slow_value(before)
    log_probs = policy_log_probs(imagined.logits, imagined.mask, critic.unimix)
    chosen = log_probs.gather(-1, imagined.decision.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    value_error = critic.critic.loss(value_logits, returns, slow)
    parts = (chosen, policy_entropy(log_probs), value_error, decides[:, :-1], reward, cont, value, slow)
    return Trajectories(*parts, returns, reached)


class Imagination:
    """How an update imagines and sends gradients back: here, all trajectories at once on the tape."""

    def imagine_and_judge(
        self, model: WorldModel, critic: ActorCritic, policy: Policy, starts: Latent, horizon: int,
        generator: Generator | None = None, lam: float = LAMBDA, weight: Tensor | None = None,
    ) -> Trajectories:  # fmt: skip
        """Trajectories from starts [N, ...] under ``policy``; the rest as in :func:`imagine` and :func:`judge`."""
        return judge(model, critic, imagine(model, policy, starts, horizon, generator), lam, weight)

    def backward(self, losses: Mapping[str, Tensor], scales: Mapping[str, float]) -> None:
        """Add the gradients of sum(scale * mean(loss)) to those of the parameters."""
        total_loss(losses, scales).backward()
