"""Path D: what advised goals pay in imagination where they are reached, as in DLLM (Liu et al. 2024, arXiv 2406.07381),
with stored advice for the language model and the skills' own goals for its sentences.

Paid on arrival, beside the predicted reward, once per trajectory. The weight falls linearly to 0, times the gate's
trust, so that in the end returns are those of the game.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lore.gate.schedule import scheduled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from lore.gate.gate import Gate

__all__ = ["advised_goals", "goal_weight"]


def goal_weight(gate: Gate) -> float:
    """What a goal of certain advice pays at the gate's environment step."""
    config = gate.config
    return scheduled(config.goal_bonus, 0.0, config.goal_bonus_steps, gate.env_steps) * gate.trust.value


def advised_goals(batch: Mapping[str, Tensor], num_actions: int) -> Tensor:
    """What each goal is worth at each replayed state [N, K]: its probability under the advice, times the confidence.

    Args:
        batch: ``advice`` [B, T, A+K] over feasible entries, ``confidence`` [B, T].
    """
    goals = batch["advice"].flatten(0, 1)[:, num_actions:].float()
    return batch["confidence"].flatten().float()[:, None] * goals
