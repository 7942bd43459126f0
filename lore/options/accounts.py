"""Accounting of acting: who is credited with a reward, how uses of skills and tests of plans ended, and the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lore.gate.signals import SIGNALS
from lore.options.charge import OPTION, PLAN, POLICY
from lore.synthetic.rollout import UNLOCK

if TYPE_CHECKING:
    from lore.gate.gate import Gate
    from lore.options.charge import Charge
    from lore.options.slots import Slots

__all__ = ["Accounts"]

_RATE = 0.01


class Accounts:
    """Sums since the last row of metrics, and what gate and slots are told about outcomes.

    Args:
        gate, slots: None where path B or C is off. num_skills: K.
        tests_plans: plans are played to test the world model.

    Attributes:
        played: steps so far, and those of them that plans under test took.
        promises: int64[2], unlocks foretold of plans that were then played, and those of them that did not come.
        mean_advice: float64[K], running mean of the advice's probability of each skill.
    """

    def __init__(self, gate: Gate | None, slots: Slots | None, num_skills: int, tests_plans: bool) -> None:
        self.gate, self.slots, self.tests_plans = gate, slots, tests_plans
        self.totals: dict[str, float] = {}
        self.promises = np.zeros(2, np.int64)
        self.played = [0, 0]
        self.mean_advice = np.zeros(num_skills)

    def add(self, name: str, value: float = 1.0) -> None:
        """Add to one sum."""
        self.totals[name] = self.totals.get(name, 0.0) + value

    def reward(self, env: int, charge: Charge, reward: float) -> None:
        """The reward of one more step goes to whoever was in charge, and to the trials under way."""
        charge.reward, charge.best = charge.reward + reward, max(charge.best, reward)
        if self.slots is not None:
            if charge.kind == POLICY and charge.steps:
                self.slots.primitive[0] += 1
                self.slots.primitive[1] += reward
            self.slots.worth.step(env, reward)
        if self.gate is not None:
            self.gate.trust.step(env, reward)

    def step(self, charge: Charge) -> None:
        """One more step under ``charge``."""
        self.played[0] += 1
        self.played[1] += charge.kind == PLAN
        self.add("steps")
        self.add(f"steps_{charge.kind}")
        self.add("steps_advised", float(charge.advised))

    def advice(self, distribution: np.ndarray) -> None:
        """Advice float[K] over skills was at hand at a decision."""
        self.mean_advice += _RATE * (distribution - self.mean_advice)

    def decision(self, env: int, divergence: float, beta: float, signals: np.ndarray, followed: bool) -> None:
        """A decision was drawn from the mixed policy.

        Args:
            divergence: KL(pi_mix || pi_wm) in nats. signals: float[3], normalised. followed: the draw is the advice's.
        """
        assert self.gate is not None
        for name, value in zip(SIGNALS, signals, strict=True):
            self.add(name, float(value))
        for name, value in (("kl", divergence), ("kl_step", divergence), ("beta", beta), ("decisions", 1.0)):
            self.add(name, value)
        self.gate.trust.start(env, followed)

    def held_step(self, probability: float) -> None:
        """The advice's choice is held for one more step; it is one-hot, so its divergence is -ln pi_wm(a)."""
        self.add("kl_step", -float(np.log(max(probability, 1e-12))))

    def finish(self, charge: Charge, outcome: str) -> None:
        """Whoever was in charge leaves."""
        if charge.kind == OPTION and self.slots is not None and charge.skill >= 0:
            used = self.slots.statistics[charge.skill]
            used.record(outcome, charge.steps, charge.reward, charge.began, charge.actions)
        if charge.kind == PLAN:
            came = charge.best > UNLOCK  # in one step: health lost on the way does not hide it
            judged = charge.foretold and (came or outcome != "interrupted")  # a plan cut short says nothing
            self.add("plans_executed")
            self.promises += [judged, judged and not came]

    def end_episode(self, env: int) -> None:
        """Trials under way end with the episode."""
        if self.gate is not None:
            self.gate.trust.end(env)
        if self.slots is not None:
            self.slots.worth.end(env)

    def forget_open(self) -> None:
        """Other games begin: trials under way are dropped."""
        if self.gate is not None:
            self.gate.trust.forget_open()
        if self.slots is not None:
            self.slots.worth.forget_open()

    def metrics(self) -> dict[str, float]:
        """Tags since the last call: ``uncertainty_gate/*``, ``options/*``, ``synthetic/false_unlock_rate``."""
        out: dict[str, float] = {}
        t, self.totals = self.totals, {}
        steps = max(1.0, t.get("steps", 0.0))
        if self.gate is not None:
            n = max(1.0, t.get("decisions", 0.0))
            out = {f"uncertainty_gate/{k}": t.get(k, 0.0) / n for k in ("beta", *SIGNALS)} | {
                "uncertainty_gate/avg_kl": t.get("kl", 0.0) / n,
                "uncertainty_gate/kl_running": self.gate.kl_mean,
                "uncertainty_gate/kl_per_step": t.get("kl_step", 0.0) / steps,
                "uncertainty_gate/kappa": self.gate.kappa,
                "uncertainty_gate/trust": self.gate.trust.value,
                "uncertainty_gate/advice_regret": self.gate.trust.regret(),
                "uncertainty_gate/held_share": t.get("steps_advised", 0.0) / steps,
            }
        if self.slots is not None:
            out |= self.slots.metrics() | {"options/step_share": t.get(f"steps_{OPTION}", 0.0) / steps}
        if self.tests_plans:
            foretold, broken = self.promises.tolist()
            out["synthetic/false_unlock_rate"] = broken / max(1, foretold)
            out["synthetic/promises"] = float(foretold)
            out["synthetic/plans_executed"] = t.get("plans_executed", 0.0)
            out["synthetic/plan_steps"] = t.get(f"steps_{PLAN}", 0.0)
        return out

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state, that of gate and slots included."""
        return {
            "gate": self.gate.state_dict() if self.gate else None,
            "slots": self.slots.state_dict() if self.slots else None,
            "totals": self.totals,
            "promises": self.promises.tolist(),
            "played": list(self.played),
            "appeal": self.mean_advice.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        if self.gate and state["gate"]:
            self.gate.load_state_dict(state["gate"])
        if self.slots and state["slots"]:
            self.slots.load_state_dict(state["slots"])
        self.totals = dict(state["totals"])
        self.promises = np.array(state.get("promises", [0, 0]), np.int64)
        self.played = list(state.get("played", [0, 0]))
        self.mean_advice = np.array(state["appeal"])
