"""The gate of path B: how much of the advice enters a decision, under a KL budget.

``beta(s) = beta_max * confidence(s) * sigmoid((u - threshold) / tau) * kappa * trust * anneal``, 0 where there is no
advice, with ``u = w . (entropy, standard deviation of the value, disagreement)``. ``kappa`` is a controller that keeps
the running mean of KL(pi_mix || pi_wm) per decision at or under ``delta_target``; ``trust`` falls while following the
advice pays less than the policy's own decisions; ``anneal`` falls from 1 to 0 over ``anneal_steps`` environment steps.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lore.gate.config import GateConfig
from lore.gate.schedule import scheduled
from lore.gate.signals import RunningPercentile
from lore.gate.trust import Trust

__all__ = ["Gate", "advice_distribution", "advice_logits", "kl", "softmax"]


def softmax(logits: np.ndarray, allowed: np.ndarray | None = None) -> np.ndarray:
    """Probabilities float64[...] along the last axis; entries that are not ``allowed`` get exactly 0."""
    x = np.asarray(logits, np.float64)
    if allowed is not None:
        x = np.where(allowed, x, -np.inf)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) in nats; entries with p = 0 count 0."""
    at = p > 0
    return float(np.sum(p[at] * (np.log(p[at]) - np.log(np.maximum(q[at], 1e-300)))))


def advice_distribution(
    logits: np.ndarray, known: np.ndarray, proposals: np.ndarray, slots: np.ndarray, num_actions: int
) -> tuple[np.ndarray, np.ndarray]:
    """Advice over A+K entries as a distribution over what the policy can choose, A primitives + M slots.

    A feasible skill gives its mass to its next primitive action, p(a|s) = sum_g p(g|s) pi_g(a|s), and once more to its
    slot when it sits in one; then all is normalised.

    Args:
        logits: float[A+K]. known: bool[A+K]. proposals: int[K], next action of each skill or -1.
        slots: int[M], skill of each slot or -1 (M may be 0).

    Returns:
        (p over A+M, p over A+K feasible entries); both all 0 when nothing that is known is feasible.
    """
    feasible = known.copy()
    feasible[num_actions:] &= proposals >= 0
    policy = np.zeros(num_actions + len(slots))
    if not feasible.any():
        return policy, np.zeros(len(logits))
    p = softmax(logits, feasible)
    policy[:num_actions] = p[:num_actions]
    slot_of = {int(skill): m for m, skill in enumerate(slots) if skill >= 0}
    for g in np.flatnonzero(p[num_actions:] > 0).tolist():
        policy[proposals[g]] += p[num_actions + g]
        if g in slot_of:
            policy[num_actions + slot_of[g]] += p[num_actions + g]
    return policy / policy.sum(), p


def advice_logits(distribution: np.ndarray, allowed: np.ndarray, clip: float) -> np.ndarray:
    """Advice as logits float64[A+M]: from ``-clip`` for probability 0 to ``clip`` for the highest, 0 where not allowed.

    Linear in the probability, not its logarithm: among all policies within a KL budget of ``pi_wm``, the one that
    agrees with the advice most often is ``pi_wm * exp(b p)`` for some b. Logarithms at the small weights that a budget
    allows tell "unlikely" from "impossible", but hardly "best" from "unlikely".
    """
    top = float(distribution[allowed].max(initial=0.0))
    if top <= 0:
        return np.zeros(len(distribution))
    return np.where(allowed, clip * (2.0 * distribution / top - 1.0), 0.0)


class Gate:
    """beta for each decision, and the controller that keeps the mean KL under the budget.

    Attributes:
        weights: float64[3] of :data:`lore.gate.signals.SIGNALS`, sum 1.
        env_steps: environment steps so far, which the anneal reads; whoever acts moves it.
        kappa: factor in 1e-6..1 of the controller. kl_mean: running mean of the divergence per decision, in nats.
    """

    RATE = 0.02

    def __init__(self, config: GateConfig) -> None:
        self.config = config
        self.beta_max = config.beta_max
        self.delta_target = config.delta_target
        self.threshold = config.uncertainty_threshold
        weights = np.array(config.weights, np.float64)
        self.weights = weights / weights.sum()
        self.value_std, self.disagreement = RunningPercentile(), RunningPercentile()
        self.trust = Trust(max(5, self.hold_steps))
        self.env_steps = 0
        self.kappa = 1.0
        self.kl_mean = 0.0
        self.decisions = 0

    @property
    def hold_steps(self) -> int:
        """Steps for which a choice of the advice is held at most (ADR-0004)."""
        return self.config.hold

    def observe_signals(self, raw: Tensor) -> None:
        """Take the raw signals float[3] of one decision in the game into the percentiles."""
        self.value_std.observe(float(raw[1]))
        self.disagreement.observe(float(raw[2]))

    def uncertainty(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """(u [...], normalised signals [..., 3]) of raw ones [..., 3] (:func:`lore.gate.signals.raw_signals`).

        The entropy is a share of its largest value already; the others lie between their running percentiles.
        """
        normal = torch.stack(
            [raw[..., 0].clamp(0.0, 1.0), self.value_std(raw[..., 1]), self.disagreement(raw[..., 2])], -1
        )
        return (normal * torch.as_tensor(self.weights, dtype=raw.dtype, device=raw.device)).sum(-1), normal

    def beta(self, u: Tensor, confidence: Tensor | float) -> Tensor:
        """The weight [...] of the advice logits at uncertainty u [...]; ``confidence`` 0 means no advice."""
        anneal = max(0.0, 1.0 - self.env_steps / self.config.anneal_steps) if self.config.anneal_steps else 1.0
        most = self._budget(self.beta_max, self.config.beta_max_end) * self.kappa * self.trust.value * anneal
        return most * confidence * torch.sigmoid((u - self.threshold) / self.config.temperature)

    def _budget(self, start: float, end: float | None) -> float:
        """A bound at the present environment step; ``end`` None keeps it."""
        return start if end is None else scheduled(start, end, self.config.budget_steps, self.env_steps)

    def observe(self, divergence: float) -> None:
        """Account one decision's KL(pi_mix || pi_wm) and move kappa; a mean over the budget shrinks it faster than it
        grew."""
        self.decisions += 1
        rate = max(self.RATE, 1.0 / self.decisions)
        self.kl_mean += rate * (divergence - self.kl_mean)
        error = 1.0 - self.kl_mean / max(self._budget(self.delta_target, self.config.delta_target_end), 1e-9)
        step = 0.02 * error if error > 0 else 0.1 * max(error, -5.0)
        self.kappa = float(np.clip(self.kappa * math.exp(step), 1e-6, 1.0))

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        own = {"kappa": self.kappa, "kl_mean": self.kl_mean, "decisions": self.decisions}
        own["trust"] = self.trust.state_dict()
        return own | {"spread": self.value_std.state_dict(), "disagreement": self.disagreement.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.kappa, self.kl_mean, self.decisions = state["kappa"], state["kl_mean"], state["decisions"]
        if "trust" in state:
            self.trust.load_state_dict(state["trust"])
        self.value_std.load_state_dict(state["spread"])
        self.disagreement.load_state_dict(state["disagreement"])
