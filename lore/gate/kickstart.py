"""Kickstarting: the actor is drawn towards the advice at replayed states, so that it keeps what the advice shows.

The loss is the cross-entropy ``-sum_e p(e) ln pi(e)`` at posterior states, as in Schmitt et al. 2018 (Kickstarting,
eq. 3); the teacher is the first choice of the stored advice, for that is what a version plays by itself: an actor that
is drawn to the whole distribution also samples what comes second. The gradient stops at the latents. The weight falls
linearly from ``gate.kickstart`` to ``gate.kickstart_floor``, times the gate's trust: advice that harms is not imitated
for long. Until trust is tested, and while anything speaks for harm, nothing is imitated: an actor that has copied its
adviser decides as badly as it, so that no harm would show any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lore.dreamer.dists import policy_log_probs
from lore.gate.schedule import scheduled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lore.dreamer.actor_critic import ActorCritic
    from lore.gate.gate import Gate

__all__ = ["first_choices", "kickstart_loss", "kickstart_weight", "slot_targets"]


def kickstart_weight(gate: Gate) -> float:
    """Weight of the loss at the gate's environment step, 0 until trust is tested and while harm shows."""
    config = gate.config
    weight = scheduled(config.kickstart, config.kickstart_floor, config.kickstart_steps, gate.env_steps)
    return weight * gate.trust.value * gate.trust.is_earned


def first_choices(advice: Tensor) -> Tensor:
    """Advice [N, A+K] without all that it prefers less than something else; equal first choices keep their shares."""
    return advice * (advice == advice.amax(-1, keepdim=True))


def slot_targets(advice: Tensor, proposals: Tensor, slots: Tensor, num_actions: int) -> tuple[Tensor, Tensor]:
    """Advice over A+K feasible entries [N, A+K] as distributions (over A+M entries, over A primitives), 0 where none.

    In the first a skill's mass goes to its slot alone, and to its next action only where it has no slot; in the second
    always to its next action.

    Args:
        proposals: int64 [N, K], next action of each skill, -1 = cannot act. slots: int64 [M], skill of each or -1.
    """
    skills = advice[:, num_actions:] * (proposals >= 0)
    known = skills.shape[1]
    has_slot = torch.zeros(known + 1, dtype=torch.bool, device=slots.device)
    has_slot = has_slot.scatter(0, torch.where(slots >= 0, slots, known), True)[:known]
    primitive = advice[:, :num_actions]
    both = []
    for moved in (skills * ~has_slot, skills):
        both.append(primitive.scatter_add(1, proposals.clamp(min=0), moved))
    in_slots = skills[:, slots.clamp(min=0)] * (slots >= 0)
    whole = torch.cat([both[0], in_slots], 1)
    return tuple(x / x.sum(-1, keepdim=True).clamp(min=1e-6) for x in (whole, both[1]))  # type: ignore[return-value]


def kickstart_loss(
    actor_critic: ActorCritic, features: Tensor, batch: Mapping[str, Tensor], slots: Tensor, num_actions: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy [N] of the policy to the advice's first choices, weighted by its confidence; 0-d metrics.

    With slots the policy over all allowed entries is drawn to the slots, and the policy over primitive actions alone
    (its logits normalised without the slots) to the skills' next actions, so that it can play without skills too.

    Args:
        features: detached, [N, F]. batch: ``advice`` [B, T, A+K], ``confidence`` [B, T], ``proposals`` [B, T, K].
        slots: int64 [M], skill of each slot or -1; M = 0 without options.
    """
    proposals = batch["proposals"].flatten(0, 1).long()
    confidence = batch["confidence"].flatten().float()
    advice = first_choices(batch["advice"].flatten(0, 1).float())
    whole, primitive = slot_targets(advice, proposals, slots, num_actions)
    confidence = confidence * (whole.sum(-1) > 0.5)
    logits = actor_critic.actor(features)
    allowed = (slots >= 0) & (proposals[:, slots.clamp(min=0)] >= 0)
    mask = torch.cat([allowed.new_ones(len(features), num_actions), allowed], 1)
    log_probs = policy_log_probs(logits, mask, actor_critic.unimix)
    loss = -(whole * log_probs).sum(-1)
    if len(slots):
        alone = policy_log_probs(logits[:, :num_actions], None, actor_critic.unimix)
        loss = loss - (primitive * alone).sum(-1)
    with torch.no_grad():
        is_first = whole.gather(-1, log_probs.argmax(-1, keepdim=True)).squeeze(-1) > 0  # equal ones are all first
        hit = (is_first & (confidence > 0)).sum()
        metrics = {
            "kickstart/agreement": hit / (confidence > 0).sum().clamp(min=1),
            "kickstart/advised": (confidence > 0).float().mean(),
        }
    return loss * confidence, metrics
