"""Trust in the advice: reward after decisions that followed it, compared with reward after the policy's own."""

from __future__ import annotations

from typing import Any

from lore.gate.trials import ForgettingMean, Trials

__all__ = ["Trust"]

MIN_TRIALS = 20
"""Followed decisions before anything is concluded."""
DOUBT = 1.64
"""Standard errors by which following must be worse before trust shrinks (one-sided 95 %)."""
FLOOR = 0.01
"""Least trust: a little is always tried again, so that a verdict can change."""


class Trust(Trials):
    """Every decision at which advice was at hand starts a trial: followed (1) or not (0). Where following is worse by
    more than chance, ``value`` falls, the faster the surer that is.

    Whether a decision is followed is drawn at random in each state, yet where advice is followed more often than
    elsewhere the groups differ by their states too, and advice that does no harm may lose trust. Harm that shows later
    than ``horizon`` steps is not seen.

    Args:
        horizon: steps of a trial.

    Attributes:
        value: factor on the weight of all advice, in [0.01, 1].
    """

    def __init__(self, horizon: int) -> None:
        super().__init__(horizon, [ForgettingMean(5000.0), ForgettingMean(500.0)])  # own decisions, followed ones
        self.value = 1.0

    @property
    def is_tested(self) -> bool:
        """Enough trials of both kinds have ended to tell harm."""
        return all(mean.weight >= MIN_TRIALS for mean in self.means)

    @property
    def is_earned(self) -> bool:
        """Tested, and nothing speaks for harm."""
        return self.is_tested and self.harm() < 0.5 * DOUBT

    def harm(self) -> float:
        """By how many standard errors the policy's own decisions earn more than followed ones, once both are known."""
        return self.less(1, own=0)

    def regret(self) -> float:
        """Reward per step of the policy's own decisions minus that of followed ones; 0 before both are known."""
        own, followed = self.means
        return (own.mean - followed.mean) / self.horizon if own.weight and followed.weight else 0.0

    def _conclude(self, trial: list[float]) -> None:
        super()._conclude(trial)
        if not self.is_tested:
            return
        harm = self.harm()
        if harm > DOUBT:
            self.value = max(FLOOR, self.value * 0.97 ** ((harm / DOUBT) ** 2))
        elif harm < 0.5 * DOUBT:
            self.value = min(1.0, self.value * 1.01)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return super().state_dict() | {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        super().load_state_dict(state)
        self.value = state["value"]
