"""Records of acting: the policy, advice, option or plan in charge of an environment, a state, a choice."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lore.options.interpreter import Outcome, SkillRun

if TYPE_CHECKING:
    from torch import Tensor

    from lore.advice.types import AdviceBatch
    from lore_datasets.language.geometry import StateView

__all__ = ["ADVICE", "ENDS", "OPTION", "OWN_ENDS", "PLAN", "POLICY", "Charge", "Choice", "Decision", "Situation"]

POLICY, ADVICE, OPTION, PLAN = "policy", "advice", "option", "plan"
OWN_ENDS = len(Outcome)
"""The ends up to this one are a skill's own; those behind it are cuts by a decision, or the episode's end."""
ENDS = ("", *(outcome.name for outcome in Outcome), "hold_over", "advised_away", "episode_end")
"""How a use ended, by the number that replay keeps; 0 = none ended."""


class Choice(NamedTuple):
    """What was done in one state, and what replay keeps of it."""

    action: int
    proposals: np.ndarray  # int8[K], next action of each skill here, negative where it cannot start
    skill: int  # skill in charge (option or held advice), -1 = none
    row: int  # row of the advice table, -1 = none
    advice: np.ndarray | None = None  # float16[A+K] over feasible entries, where replay keeps it
    confidence: float = 0.0  # of that advice, 0 = none
    advised: bool = False  # advice took the step: it was just drawn from what the advice added, or is held
    held: int = 0  # steps that the skill in charge had played before this one
    plan: int = -1  # number of the state's plan (path A), -1 = none
    ended: int = 0  # number in ENDS of how the use of a skill before this step ended here, 0 = none did


class Decision(NamedTuple):
    """How an entry of A+M was drawn, for whoever looks on: ``mixed = softmax(logits + beta * advice)`` over what is
    ``allowed``."""

    logits: np.ndarray  # float[A+M] of the policy
    advice: np.ndarray  # float64[A+M] logits of the advice, 0 where none was mixed in
    allowed: np.ndarray  # bool[A+M]
    mixed: np.ndarray  # float64[A+M]
    entry: int
    beta: float = 0.0
    divergence: float = 0.0  # KL(mixed || policy) in nats
    uncertainty: float = 0.0  # of the gate, 0..1
    followed: bool = False  # the draw belongs to the advice


class Situation(NamedTuple):
    """One state of one environment, as a decision reads it."""

    env: int
    view: StateView
    logits: np.ndarray  # float[A+M] of the policy
    policy: np.ndarray  # float64[A+M], its probabilities over what is allowed
    allowed: np.ndarray  # bool[A+M]
    proposals: np.ndarray  # int8[K]
    advice: AdviceBatch  # one row
    signals: Tensor  # float64[3], raw (lore.gate.signals)


@dataclass
class Charge:
    """Who is in charge in one environment, and since when."""

    kind: str = POLICY
    left: int = 0  # steps until the decision is taken anew, where the advice put a skill in charge
    skill: int = -1
    run: SkillRun | None = None
    plan: list[int] = field(default_factory=list)  # entries over A + K that are still to be played
    goal: int = -1  # skill that a plan under test pursues
    foretold: bool = False
    steps: int = 0
    reward: float = 0.0
    best: float = 0.0
    health: int = 0
    began: str = ""  # packed state, hex, where an option was called
    actions: list[int] = field(default_factory=list)  # what it did since
    advised: bool = False  # the advice's choice; False = the policy's own

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        body = {f.name: getattr(self, f.name) for f in fields(self)}
        return body | {"run": self.run.state_dict() if self.run is not None else None}
