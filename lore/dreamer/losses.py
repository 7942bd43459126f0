"""Actor-critic losses as pure functions of tensors, and the sum that one optimiser step descends."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lore.dreamer.dists import policy_entropy, twohot_loss
from lore.dreamer.returns import CONTINUE_SCALE, LAMBDA, imagination_weights, lambda_return

__all__ = [
    "SCALES",
    "imagined_returns",
    "policy_loss",
    "replay_returns",
    "replay_value_loss",
    "total_loss",
    "value_loss",
]

SCALES: dict[str, float] = {
    "image": 1.0,
    "state": 1.0,
    "rew": 1.0,
    "con": 1.0,
    "dyn": 1.0,
    "rep": 0.1,
    "policy": 1.0,
    "value": 1.0,
    "repval": 0.3,
}
"""Weight of every loss in the total."""


def total_loss(losses: Mapping[str, Tensor], scales: Mapping[str, float] = SCALES) -> Tensor:
    """Sum over names of scale * mean(loss), a 0-d tensor; a loss without a scale is an error."""
    assert set(losses) <= set(scales), f"no scale for {sorted(set(losses) - set(scales))}"
    return torch.stack([scales[name] * value.mean() for name, value in losses.items()]).sum()


def imagined_returns(
    reward: Tensor, cont: Tensor, value: Tensor, is_decision: Tensor, lam: float = LAMBDA
) -> tuple[Tensor, Tensor]:
    """Returns [N, H] and reach weights [N, H+1] of imagined reward, cont, value, is_decision [N, H+1].

    Where the actor does not decide (inside an option) lambda is 1: rewards are discounted and summed over the option's
    primitive steps and nothing is bootstrapped before its end or the horizon.
    """
    trace = torch.where(is_decision, lam, 1.0)
    return lambda_return(reward, cont, value, trace), imagination_weights(cont)


def policy_loss(
    log_probs: Tensor, decision: Tensor, advantage: Tensor, weight: Tensor, is_decision: Tensor, entropy: float
) -> tuple[Tensor, Tensor]:
    """REINFORCE loss [N, H] and the policy's entropy [N, H], both 0 where the actor does not decide.

    log_probs [N, H, A+M] with gradient, decision int64 [N, H], advantage and weight [N, H] (detached here).
    """
    chosen = log_probs.gather(-1, decision.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    spread = policy_entropy(log_probs)
    active = is_decision.to(log_probs.dtype)
    loss = -(weight * active).detach() * (chosen * advantage.detach() + entropy * spread)
    return loss, spread.detach() * active


def value_loss(logits: Tensor, bins: Tensor, returns: Tensor, slow_value: Tensor, weight: Tensor) -> Tensor:
    """Critic loss: weight * (CE to the returns + CE to the slow critic's prediction); all [..], logits [.., 255]."""
    return weight.detach() * twohot_loss(logits, bins, returns, slow_value)


def replay_returns(boot: Tensor, reward: Tensor, is_last: Tensor, is_terminal: Tensor, lam: float = LAMBDA) -> Tensor:
    """Returns [B, T-1] along replayed steps, bootstrapped with the imagined return ``boot`` [B, T] of each step."""
    live = (~is_terminal).float() * CONTINUE_SCALE
    return lambda_return(reward.float(), live, boot, lam * (~is_last).float())


def replay_value_loss(
    logits: Tensor,
    bins: Tensor,
    slow_value: Tensor,
    boot: Tensor,
    reward: Tensor,
    is_last: Tensor,
    is_terminal: Tensor,
    lam: float = LAMBDA,
) -> Tensor:
    """Critic loss [B, T-1] on replayed features (logits [B, T, 255] keep their gradient), 0 on last steps."""
    returns = replay_returns(boot, reward, is_last, is_terminal, lam)
    weight = (~is_last[:, :-1]).float()
    return value_loss(logits[:, :-1], bins, returns, slow_value[:, :-1], weight)
