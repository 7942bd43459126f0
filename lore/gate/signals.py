"""The three signals of the agent's own uncertainty, and the running percentiles that bring them to one scale."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lore.dreamer.dists import policy_entropy, policy_log_probs

if TYPE_CHECKING:
    from lore.dreamer.actor_critic import ActorCritic
    from lore.dreamer.disagreement import Ensemble

__all__ = ["SIGNALS", "RunningPercentile", "raw_signals"]

SIGNALS = ("entropy", "value_spread", "disagreement")
"""Names in TensorBoard, in the order of the last axis everywhere; ``value_spread`` is the standard deviation of the
critic's two-hot distribution."""


@torch.no_grad()
def raw_signals(
    actor_critic: ActorCritic, ensemble: Ensemble | None, features: Tensor, logits: Tensor, num_actions: int
) -> Tensor:
    """float32 [N, 3] at features [N, F]: policy entropy over primitives / ln A, standard deviation of the critic's
    distribution in symlog units, expected disagreement of the one-step heads (0 without them).

    ``logits``: [N, A+M] of the actor there.
    """
    primitive = policy_log_probs(logits[:, :num_actions], None, actor_critic.unimix)
    entropy = policy_entropy(primitive) / math.log(num_actions)
    value_std = actor_critic.value_std(features)
    disagreement = torch.zeros_like(value_std) if ensemble is None else ensemble.expected(features, primitive.exp())
    return torch.stack([entropy, value_std, disagreement], -1)


class RunningPercentile:
    """Maps a signal to [0, 1] by running 5th and 95th percentiles of a window."""

    def __init__(self, window: int = 1000) -> None:
        self.values: list[float] = []
        self.window = window
        self.low, self.high = 0.0, 1.0

    def observe(self, value: float) -> None:
        """Take a value in; the percentiles are computed again every 50 values, and at each once the window is full."""
        self.values.append(float(value))
        if len(self.values) > self.window:
            del self.values[: len(self.values) - self.window]
        if len(self.values) < 10 or len(self.values) % 50 == 0:
            self.low, self.high = (float(v) for v in np.percentile(self.values, [5, 95]))

    def __call__(self, value: Tensor) -> Tensor:
        """Normalised values, of the same shape."""
        return ((value - self.low) / max(self.high - self.low, 1e-6)).clamp(0.0, 1.0)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return {"values": self.values, "low": self.low, "high": self.high}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.values, self.low, self.high = list(state["values"]), state["low"], state["high"]
