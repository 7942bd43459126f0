"""Mean reward of the steps after a call of a skill, compared with as many steps after a primitive action."""

from __future__ import annotations

from lore.gate.trials import ForgettingMean, Trials

__all__ = ["Worth"]

HORIZON = 25
"""Steps whose reward a choice is judged by: a skill that prepares gets some of what it prepared."""
MIN_TRIALS = 10
"""Calls before anything is concluded."""
DOUBT = 3.0
"""Standard errors by which a skill must be worse; it is asked after every episode, for every slot."""


class Worth(Trials):
    """Every own choice of the policy starts a trial: the skill that it called, or -1 for a primitive action. So long
    and short skills and primitive actions are judged by equal spans.

    Args:
        skills: K.
    """

    def __init__(self, skills: int) -> None:
        primitives = ForgettingMean(5000.0)
        super().__init__(HORIZON, [*(ForgettingMean(200.0) for _ in range(skills)), primitives])

    def forget(self, skill: int) -> None:
        """Judge a skill afresh."""
        self.means[skill] = ForgettingMean(200.0)

    def behind(self, skill: int) -> float:
        """Standard errors by which calls of the skill are worth less than primitive actions; 0 before both are
        known."""
        if self.means[skill].weight < MIN_TRIALS or self.means[-1].weight < MIN_TRIALS:
            return 0.0
        return max(0.0, self.less(skill, own=-1))
