"""The loss of one update, top to bottom as in danijar/dreamerv3 agent.py: world model, imagination, replay, paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lore.dreamer.actor_critic import ActorCritic, Policy, actor_critic_losses, trajectory_metrics
from lore.dreamer.imagination import Imagination
from lore.dreamer.returns import CONTINUE_SCALE, LAMBDA, lambda_return
from lore.dreamer.types import Latent, Noise, Observed, Starts
from lore.dreamer.world_model import WorldModel

__all__ = ["SCALES", "Loss", "Paths", "as_starts", "loss", "replay_returns", "replay_value_loss"]

SCALES: Mapping[str, float] = {
    "dyn": 1.0, "rep": 0.1, "rew": 1.0, "con": 1.0, "policy": 1.0, "value": 1.0, "repval": 0.3,
}  # fmt: skip
"""Weight of every loss of DreamerV3 in the total; the reconstruction, named as its observation, weighs 1."""


class Paths(NamedTuple):
    """What joins DreamerV3's own update: who acts in imagination, more starts, more losses.

    ``starts(batch, posterior, losses)`` gives the imagination's starts, the B*T posterior states first.
    ``terms(batch, posterior, returns)`` gives losses of any shape by name, with the imagined returns [N, H] at hand; it
    names exactly the entries of ``scales``.
    """

    policy: Policy
    starts: Callable[[dict[str, Tensor], Observed, dict[str, Tensor]], Starts]
    terms: Callable[[dict[str, Tensor], Observed, Tensor], dict[str, Tensor]]
    scales: Mapping[str, float | Tensor]

    @staticmethod
    def none(critic: ActorCritic, noise: Noise) -> Paths:
        """DreamerV3 alone: the actor acts, from every posterior state."""
        return Paths(critic.policy_step, lambda _, seen, __: Starts(as_starts(seen), noise), lambda *_: {}, {})


class Loss(NamedTuple):
    """Losses by name and their weights in the total, the posterior they were taken at, and 0-d metrics."""

    losses: dict[str, Tensor]
    scales: dict[str, float | Tensor]
    posterior: Latent  # detached, [B, T, ...]
    metrics: dict[str, Tensor]


def loss(
    model: WorldModel, critic: ActorCritic, imagination: Imagination, batch: dict[str, Tensor], start: Latent,
    uniform: Tensor, *, paths: Paths, entropy: float, replay_lam: float | Tensor = LAMBDA,
) -> Loss:  # fmt: skip
    """All losses of one batch [B, T, ...] of :meth:`WorldModel.split_context`.

    Args:
        uniform: [T, B, S], draws the posteriors. entropy: weight of the policy's entropy.
        replay_lam: trace of the replayed returns, of all steps or [B, T] (0 at a step that another than the actor
        chose: what followed it is not the actor's return).
    """
    scales = {**SCALES, model.key: 1.0, **paths.scales}
    shape = batch["reward"].shape

    # World model: filter the sequence; its states must tell observation, reward and continue, and be foretold.
    losses, seen, metrics = model.loss(batch, start, uniform)

    # Imagination: from every state that was seen the policy acts in the model; actor and critic learn from its returns.
    starts = paths.starts(batch, seen, losses)
    imagined = imagination.imagine_and_judge(model, critic, paths.policy, starts)
    scale = critic.norm.update(imagined.returns)
    losses |= actor_critic_losses(imagined, scale, entropy)
    metrics |= trajectory_metrics(imagined, scale, critic.actions)

    # Replay: the critic learns from the rewards that were paid, its gradient shapes the states.
    boot = imagined.returns[: shape.numel(), 0].view(shape)
    losses["repval"] = replay_value_loss(critic, seen.latent.features(), boot, batch, replay_lam)

    # Paths: what else there is to learn at the states that were seen.
    losses |= paths.terms(batch, seen, imagined.returns)

    assert set(losses) == set(scales), (sorted(losses), sorted(scales))
    return Loss(losses, scales, Latent(*(x.detach() for x in seen.latent)), metrics)


def as_starts(seen: Observed) -> Latent:
    """The posterior states [B, T, ...], detached, as starts [B*T, ...]."""
    return Latent(*(x.detach().flatten(0, 1) for x in seen.latent))


def replay_returns(
    boot: Tensor, reward: Tensor, is_last: Tensor, is_terminal: Tensor, lam: float | Tensor = LAMBDA
) -> Tensor:
    """Returns [B, T-1] along replayed steps, bootstrapped with the imagined return ``boot`` [B, T] of each step."""
    live = (~is_terminal).float() * CONTINUE_SCALE
    return lambda_return(reward.float(), live, boot, lam * (~is_last).float())


def replay_value_loss(
    critic: ActorCritic, features: Tensor, boot: Tensor, batch: dict[str, Tensor], lam: float | Tensor = LAMBDA
) -> Tensor:
    """Critic's loss [B, T-1] on replayed features [B, T, F], 0 on last steps; its gradient reaches the world model.

    boot: imagined return [B, T] of each step. Where a skill went on (``charge`` of the batch, int64 [B, T], -1 = none)
    the critic's own value stands for it: imagination begins with a decision.
    """
    is_last, charge = batch["is_last"], batch.get("charge")
    known = critic.criticised(features, charge)
    logits = critic.critic(known)
    if charge is not None:
        boot = torch.where(charge >= 0, critic.critic.mean(logits), boot)
    returns = replay_returns(boot.detach(), batch["reward"], is_last, batch["is_terminal"], lam)
    with torch.no_grad():
        slow = critic.slow_critic.mean(critic.slow_critic(known.detach()))[:, :-1]
    return (~is_last[:, :-1]).float() * critic.critic.loss(logits[:, :-1], returns, slow)
