"""Deciding who acts now: the policy alone, held advice (path B), an option (path C) or a plan under test (path A).

One :class:`Controller` serves all environments of a run. At a decision point it mixes advice into the policy's logits,
samples, and puts somebody in charge; in between, whoever is in charge acts until it ends, is interrupted, or its hold
is over. An option that the policy called is its own choice at every step: advice may end it at each of them (ADR-0008).
The seed's formula ``logits_mix = logits_wm + beta * logits_llm`` holds exactly at decisions; a sampled action belongs
to the advice with probability (pi_mix - pi_wm)+ / pi_mix, the share of its mass that the advice added. What comes of
all this is counted in :mod:`lore.options.accounts`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lore.gate.gate import advice_distribution, advice_logits, kl, softmax
from lore.gate.schedule import Guidance
from lore.options.accounts import Accounts
from lore.options.charge import ADVICE, ENDS, OPTION, PLAN, Charge, Choice, Decision, Situation
from lore.options.guard import Guard
from lore.options.interpreter import DONE, Outcome, SkillRun
from lore.synthetic.rollout import HORIZON
from lore_datasets.language.geometry import StateView
from lore_datasets.types import SymbolicState

if TYPE_CHECKING:
    from lore.advice.lookup import AdviceSource
    from lore.advice.plans import PlanBook
    from lore.advice.types import AdviceBatch
    from lore.config import Config
    from lore.gate.gate import Gate
    from lore.options.slots import Slots

__all__ = ["Controller"]

PLAN_TESTS = 0.05
"""Share of the decisions with a plan at which the plan is played to test what the world model promises of it, while
such plans have :data:`PLAN_SHARE` of the steps at most."""
PLAN_SHARE = 0.03
"""Share of the steps that plans under test may take: each is a step that the advice guides."""


Foretell = Callable[[int, list[int]], bool]
"""(environment, plan) -> does the world model promise an unlock?"""


def _promises_nothing(env: int, plan: list[int]) -> bool:
    return False


def _health(view: StateView) -> int:
    """The first vital, 0 in a game without vitals: nobody is hurt there."""
    return view.vital(view.vocab.vitals[0]) if view.vocab.vitals else 0


class Controller:
    """Decides actions on the host; all of its state is in :meth:`state_dict`.

    Args:
        config: of the run. source: stored advice, None = the policy acts alone. slots: path C's, None = off.
        gate: path B's, None = off. num_envs: E. num_actions: A. rng: of every draw.
        plans: path A's: noted for each state, and played now and then; None = off.
        is_training: guide as ``gate.guided`` says, not always. has_skills: False masks all slots.
    """

    def __init__(
        self, config: Config, source: AdviceSource | None, slots: Slots | None, gate: Gate | None, num_envs: int,
        num_actions: int, rng: np.random.Generator, *, plans: PlanBook | None = None, is_training: bool = False,
        has_skills: bool = True,
    ) -> None:  # fmt: skip
        self.config = config
        self.source = source
        self.slots = slots
        self.gate = gate
        self.num_actions, self.has_skills = num_actions, has_skills
        self.rng = rng
        self.skills = source.data.skills if source else ()
        self.guard = Guard(source, self.skills) if source else None
        self.accounts = Accounts(gate, slots, len(self.skills), plans is not None)
        self.plans, self.plan_tests, self.plan_share = plans, PLAN_TESTS, PLAN_SHARE
        scheduled = is_training and gate is not None and config.gate.guided != "always"
        self.guidance = Guidance(config.gate, num_envs, rng) if scheduled else None
        self.charges = [Charge() for _ in range(num_envs)]
        self.decisions: list[Decision | None] = [None] * num_envs  # of the latest steps; None: none was due
        self.followed, self.ended = False, 0

    def act(
        self, env: int, state: np.ndarray, reward: float, logits: np.ndarray, signals: Tensor,
        foretell: Foretell = _promises_nothing,
    ) -> Choice:  # fmt: skip
        """One environment's action.

        Args:
            env: its index. state: uint8[S] packed. reward: reward that arrived with the state.
            logits: float[A+M] of the policy. signals: float64[3] raw ones of its uncertainty.
            foretell: (env, plan) -> does the world model promise an unlock?
        """
        if self.source is None or self.guard is None:
            entry = self._alone(env, logits, softmax(logits), np.ones(len(logits), bool))
            return Choice(entry, np.zeros(0, np.int8), -1, -1)
        self.followed, self.ended = False, 0
        self.decisions[env] = None
        view = StateView(SymbolicState.unpack(state, self.source.environment.layout), self.source.environment.vocab)
        proposals = self.guard.propose(view)
        advice = self.guard.lookup(state)
        row = int(advice.row[0])
        self.accounts.reward(env, self.charges[env], reward)
        allowed = self._allowed(proposals)
        policy = softmax(logits, allowed)
        here = Situation(env, view, logits, policy, allowed, proposals, advice, signals)
        plan = -1 if self.plans is None else int(self.plans.find(state[None], advice, proposals[None])[0])
        action = self._continue(env, view)
        if action is None:
            action = self._decide(here, plan, foretell)
        elif self.gate is not None and self.charges[env].kind == OPTION and not self.charges[env].advised:
            action = self._go_on(here, action)
        elif self.gate is not None and self.charges[env].advised:
            self.accounts.held_step(policy[action])
        charge = self.charges[env]
        charge.steps += 1
        if charge.kind == OPTION:
            charge.began = charge.began or state.tobytes().hex()
            charge.actions.append(action)
        charge.health = _health(view)
        self.accounts.step(charge)
        if self.guidance is not None:
            self.guidance.step(env)
        said, sure = self._said(advice, proposals)
        advised = self.followed or charge.advised or charge.kind == PLAN
        held = charge.steps - 1 if charge.skill >= 0 else 0
        return Choice(action, proposals, charge.skill, row, said, sure, advised, held, plan, self.ended)

    def idle(self, state: np.ndarray) -> Choice:
        """The record of a terminal frame: action 0, but the proposals and the advice of its state are kept."""
        if self.source is None or self.guard is None:
            return Choice(0, np.zeros(0, np.int8), -1, -1)
        view = StateView(SymbolicState.unpack(state, self.source.environment.layout), self.source.environment.vocab)
        proposals = self.guard.propose(view)
        return Choice(0, proposals, -1, -1, *self._said(None, proposals))

    def _said(self, advice: AdviceBatch | None, proposals: np.ndarray) -> tuple[np.ndarray | None, float]:
        """What replay keeps of the advice: (p over feasible A+K entries or None, its confidence)."""
        if not self.config.keeps_advice:
            return None, 0.0
        if advice is None:
            return np.zeros(self.num_actions + len(self.skills), np.float16), 0.0
        none = np.zeros(0, np.int64)
        _, p = advice_distribution(advice.logits[0], advice.known[0], proposals, none, self.num_actions)
        return p.astype(np.float16), float(advice.confidence[0]) if p.any() else 0.0

    def reset(self, env: int, reward: float = 0.0) -> None:
        """The episode of ``env`` ended: whoever was in charge is accounted and leaves."""
        self.accounts.reward(env, self.charges[env], reward)
        self.accounts.end_episode(env)
        self._finish(env, "episode_end")
        if self.guidance is not None and self.gate is not None:
            self.guidance.begin(env, self.gate.env_steps)

    # -- between decisions ------------------------------------------------------------------------------------------

    def _continue(self, env: int, view: StateView) -> int | None:
        """Next action of whoever is in charge, or None when a decision is due."""
        charge = self.charges[env]
        hurt = charge.steps > 0 and _health(view) < charge.health
        if charge.kind == PLAN:
            action = None if hurt else self._plan_action(charge, view)
            if action is None:
                self._finish(env, "interrupted" if hurt else "done")
            return action
        if charge.run is not None:
            if hurt:
                self._finish(env, "interrupted")
                return None
            if charge.advised and charge.left <= 0:
                self._finish(env, "hold_over")
                return None
            charge.left -= 1
            assert self.guard is not None
            step = self.guard.next_action(charge.run, charge.skill, view)
            if isinstance(step, Outcome):
                self._finish(env, self._outcome_name(charge.skill, step))
                return None
            return int(step)
        return None

    def _plan_action(self, charge: Charge, view: StateView) -> int | None:
        """The next action of a plan under test, None when it is over, as in imagination: after as many steps at most,
        goals until they end; one that is reached already is passed over, one that cannot begin ends the plan."""
        assert self.guard is not None
        if charge.steps >= HORIZON:
            return None
        while True:
            if charge.run is not None:
                step = self.guard.next_action(charge.run, charge.goal, view)
                if not isinstance(step, Outcome):
                    return int(step)
                charge.run, charge.goal = None, -1
            if not charge.plan:
                return None
            entry = charge.plan.pop(0)
            if entry < self.num_actions:
                return entry
            charge.goal = entry - self.num_actions
            first = int(self.guard.propose(view)[charge.goal])
            if first == DONE:
                continue
            if first < 0:
                return None
            charge.run = SkillRun(self.skills[charge.goal], view.vocab, self.rng)

    def _outcome_name(self, skill: int, outcome: Outcome) -> str:
        """A skill without a goal of its own (done = false) succeeds by playing its steps to the end."""
        endless = self.skills[skill].done["op"] == "false"
        return "done" if endless and outcome in (Outcome.exhausted, Outcome.timeout) else outcome.name

    def _finish(self, env: int, outcome: str) -> None:
        charge = self.charges[env]
        self.accounts.finish(charge, outcome)
        self.ended = ENDS.index(outcome) if charge.skill >= 0 else 0
        self.charges[env] = Charge()

    # -- decisions --------------------------------------------------------------------------------------------------

    def _decide(self, here: Situation, number: int, foretell: Foretell) -> int:
        """Nobody is in charge: sample the mixed policy, and put in charge whom it names."""
        hint, extended, covered = self._advice(here)
        if covered:
            self.accounts.advice(extended[self.num_actions :])
        tested = self._test_plan(here, number, foretell)
        if tested is not None:
            return tested
        if self.gate is None or not covered or not self._is_guided(here.env):
            entry = self._alone(here.env, here.logits, here.policy, here.allowed)
            return self._obey(here, entry, self._skill_of(entry), False)
        entry, followed = self._gated(here, hint)
        skill = self._goal_behind(entry, extended, here.proposals) if followed else self._skill_of(entry)
        return self._obey(here, entry, skill, followed)

    def _go_on(self, here: Situation, action: int) -> int:
        """The policy's own option wants to play ``action``: it goes on, as an own choice, unless the gate's draw is one
        that the advice added. So options take steps from the policy's primitive actions, and none from the advice."""
        hint, extended, covered = self._advice(here)
        if not covered or not self._is_guided(here.env):
            return action
        entry, followed = self._gated(here, hint)
        if not followed:
            return action
        skill = self._goal_behind(entry, extended, here.proposals)
        if skill == self.charges[here.env].skill or (skill < 0 and entry == action):  # told to do what it does
            return action
        self._finish(here.env, "advised_away")
        return self._obey(here, entry, skill, True)

    def _alone(self, env: int, logits: np.ndarray, policy: np.ndarray, allowed: np.ndarray) -> int:
        """An entry drawn from the policy alone."""
        entry = self._sample(policy)
        self.decisions[env] = Decision(logits, np.zeros(len(policy)), allowed, policy, entry)
        return entry

    def _is_guided(self, env: int) -> bool:
        return self.guidance is None or self.guidance.is_on(env)

    def _advice(self, here: Situation) -> tuple[np.ndarray, np.ndarray, bool]:
        """The advice of this state over A+M and over A+K entries (:func:`advice_distribution`), and is there any."""
        slots = self.slots.skill if self.slots is not None else np.zeros(0, np.int64)
        said = here.advice
        hint, extended = advice_distribution(said.logits[0], said.known[0], here.proposals, slots, self.num_actions)
        return hint, extended, bool(extended.sum() > 0) and bool(said.confidence[0] > 0)

    def _gated(self, here: Situation, hint: np.ndarray) -> tuple[int, bool]:
        """(entry drawn from the mixed policy over A+M, whether the draw belongs to the advice)."""
        assert self.gate is not None
        self.gate.observe_signals(here.signals)
        u, normal = self.gate.uncertainty(here.signals)
        beta = float(self.gate.beta(u, float(here.advice.confidence[0])))
        logits = advice_logits(hint, here.allowed, self.config.gate.clip)
        mixed = softmax(here.logits + beta * logits, here.allowed)
        divergence = kl(mixed, here.policy)
        self.gate.observe(divergence)
        entry = self._sample(mixed)
        added = max(0.0, mixed[entry] - here.policy[entry]) / mixed[entry]
        followed = bool(self.rng.random() < added)
        self.accounts.decision(here.env, divergence, beta, normal.numpy(), followed)
        self.decisions[here.env] = Decision(here.logits, logits, here.allowed, mixed, entry, beta, divergence, float(u),
                                            followed)  # fmt: skip
        return entry, followed

    def _skill_of(self, entry: int) -> int:
        """The skill in the slot that ``entry`` calls, -1 for a primitive action."""
        if self.slots is None or entry < self.num_actions:
            return -1
        return int(self.slots.skill[entry - self.num_actions])

    def _obey(self, here: Situation, entry: int, skill: int, followed: bool) -> int:
        """First action of a decision for ``entry``, behind which ``skill`` stands (-1 = none). What the advice chose is
        held for ``hold_steps`` of the gate, through a slot or not; the policy's own option runs to its end."""
        kind = OPTION if entry >= self.num_actions else ADVICE
        hold = self.gate.hold_steps if followed and self.gate is not None else 1
        self.followed = followed
        if self.slots is not None and not followed:
            self.slots.worth.start(here.env, skill)
        if skill < 0 or (kind == ADVICE and hold == 1):
            return entry
        assert self.guard is not None
        run = SkillRun(self.skills[skill], here.view.vocab, self.rng)
        step = self.guard.next_action(run, skill, here.view)
        if isinstance(step, Outcome):  # the start condition held, yet nothing to do: fall back to a primitive
            self.followed = False
            primitive = here.policy[: self.num_actions]
            return self._sample(primitive / primitive.sum())
        self.charges[here.env] = Charge(kind=kind, left=hold - 1, skill=skill, run=run, advised=followed)
        return int(step)

    def _goal_behind(self, entry: int, extended: np.ndarray, proposals: np.ndarray) -> int:
        """The goal that an advised entry stands for: the skill in the slot; behind a primitive one drawn by
        p(g|s) pi_g(a|s), or -1 = the primitive itself."""
        if entry >= self.num_actions:
            return self._skill_of(entry)
        goals = extended[self.num_actions :] * (proposals == entry)
        weights = np.append(goals, extended[entry])
        if weights.sum() <= 0:
            return -1
        pick = self._sample(weights / weights.sum())
        return pick if pick < len(goals) else -1

    def _test_plan(self, here: Situation, number: int, foretell: Foretell) -> int | None:
        """Now and then: put the state's plan in charge, and give its first action."""
        steps, tested = self.accounts.played
        due = self.plans is not None and number >= 0 and tested <= self.plan_share * steps
        if not due or self.plans is None or self.rng.random() >= self.plan_tests:
            return None
        plan = self.plans.plan(number)
        charge = Charge(kind=PLAN, plan=list(plan))
        action = self._plan_action(charge, here.view)
        if action is not None:
            charge.foretold = bool(foretell(here.env, plan))
            self.charges[here.env] = charge
        return action

    def _allowed(self, proposals: np.ndarray) -> np.ndarray:
        """bool[A+M]: primitives always, a slot only when it is filled and its skill can start."""
        if self.slots is None:
            return np.ones(self.num_actions, bool)
        skill = self.slots.skill
        return np.concatenate(
            [np.ones(self.num_actions, bool), (skill >= 0) & (proposals[np.maximum(skill, 0)] >= 0) & self.has_skills]
        )

    def _sample(self, p: np.ndarray) -> int:
        return min(int(np.searchsorted(np.cumsum(p), self.rng.random() * p.sum(), side="right")), len(p) - 1)

    # -- figures and state ------------------------------------------------------------------------------------------

    def metrics(self) -> dict[str, float]:
        """Tags since the last call: those of :class:`Accounts`, ``llm_adapter/*`` and ``options/broken``."""
        out = self.accounts.metrics()
        if self.source is not None and self.guard is not None:
            out |= {f"llm_adapter/coverage_{k}": v for k, v in self.source.coverage().items()}
            out |= self.guard.metrics()
            out["llm_adapter/cache_hit_rate"] = self.source.hits / max(1, self.source.lookups)
            self.source.reset_counts()
        return out

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state: accounts with gate and slots, who is in charge, random generator."""
        return self.accounts.state_dict() | {
            "charges": [c.state_dict() for c in self.charges],
            "source": self.source.state_dict() if self.source else None,
            "guard": self.guard.state_dict() if self.guard else None,
            "guidance": self.guidance.state_dict() if self.guidance else None,
            "rng": self.rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any], *, goes_on: bool = True) -> None:
        """Inverse of :meth:`state_dict`. ``goes_on`` False: other games begin, so nobody is in charge, no trial is
        under way, and the random generator stays as it is."""
        self.accounts.load_state_dict(state)
        if self.source is not None and state.get("source"):
            self.source.load_state_dict(state["source"])
        if self.guard is not None and state.get("guard"):
            self.guard.load_state_dict(state["guard"])
        if not goes_on:
            self.accounts.forget_open()
            return
        if self.guidance is not None and state.get("guidance"):
            self.guidance.load_state_dict(state["guidance"])
        self.charges = [self._charge(dict(body)) for body in state["charges"]]
        self.rng.bit_generator.state = state["rng"]

    def _charge(self, body: dict[str, Any]) -> Charge:
        run_state = body.pop("run")
        charge = Charge(**{"advised": body["kind"] == ADVICE} | body)  # older checkpoints do not say so
        if run_state is not None and self.source is not None:
            skill = charge.goal if charge.kind == PLAN else charge.skill
            charge.run = SkillRun(self.skills[skill], self.source.environment.vocab, self.rng)
            charge.run.load_state_dict(run_state)
        return charge
