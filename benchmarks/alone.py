"""Where an agent alone decides otherwise than its advice, and what that costs: ``python -m benchmarks.alone RUN``.

RUN learned with advice. Its agent plays the same fresh worlds, the first of them those of its evaluation, without the
gate in seven forms (:data:`FORMS`), among them one in which the first choice of the advice makes every decision.
Printed: return with its 95 % interval, Crafter score and length of each; of the agent as it is also what the advice
would have called, and how its episodes ended; over primitive actions how often its likeliest one is the next action of
what the advice names. One thread, about five minutes.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch

from lore.evaluation.evaluate import play_episodes
from lore.options.charge import Decision, Situation
from lore.options.controller import Controller, Foretell
from lore.training.policy import load_policy
from lore_datasets.language.geometry import StateView

EPISODES, SEED, ANEW = 40, 10_000, 12
DARK = 128
"""Daylight, 0 to 255, below which it is dark."""


class Form(NamedTuple):
    """How decisions are made: by the advice's first choice, by the agent's likeliest entry, else by a draw of its
    policy; ``limit``: steps after which a skill ends, 0 = at its own end. ``bare``: over primitive actions alone, where
    the next action of a skill stands for it."""

    advised: bool = False
    likeliest: bool = False
    limit: int = 0
    bare: bool = False


FORMS = {
    "the agent": Form(),
    "its likeliest entry": Form(likeliest=True),
    f"the agent, anew after {ANEW} steps": Form(limit=ANEW),
    "the advice": Form(advised=True),
    f"the advice, anew after {ANEW} steps": Form(advised=True, limit=ANEW),
    "the agent, primitive actions": Form(bare=True),
    "the advice, primitive actions": Form(advised=True, bare=True),
}


class Watched(Controller):
    """A controller without a gate that notes what the advice would have called, and may leave decisions to it."""

    form: Form
    called: Counter[tuple[str, str]]  # (by the advice, by the agent) -> decisions
    here: StateView  # the latest state
    ends: list[StateView]  # the last state before the end of each episode
    agreed: list[bool]  # of each decision with advice: is the agent's likeliest entry what it puts first?

    def watch(self, form: Form) -> None:
        """Play in this form from now on."""
        self.form, self.called, self.ends, self.agreed = form, Counter(), [], []

    def _name(self, entry: int) -> str:
        skill = self._skill_of(entry)
        return self.skills[skill].name if skill >= 0 else "an action"

    def _wanted(self, here: Situation) -> int:
        """The entry that the advice puts first, -1 where it says nothing or names a skill without a slot."""
        _, extended, is_covered = self._advice(here)
        entry = int(np.argmax(extended)) if is_covered else -1
        if entry < self.num_actions:
            return entry
        if self.form.bare:
            return int(here.proposals[entry - self.num_actions])
        slots = self.slots.skill if self.slots is not None else np.zeros(0, np.int64)
        found = np.flatnonzero(slots == entry - self.num_actions)
        return int(found[0]) + self.num_actions if len(found) else -1

    def _decide(self, here: Situation, number: int, foretell: Foretell) -> int:
        wanted = self._wanted(here)
        entry = int(np.argmax(here.policy)) if self.form.likeliest else self._sample(here.policy)
        if wanted >= 0:
            self.called[self._name(wanted), self._name(entry)] += 1
            self.agreed.append(int(np.argmax(here.policy)) == wanted)
            entry = wanted if self.form.advised else entry
        self.decisions[here.env] = Decision(here.logits, np.zeros(len(here.policy)), here.allowed, here.policy, entry)
        return self._obey(here, entry, self._skill_of(entry), False)

    def _continue(self, env: int, view: StateView) -> int | None:
        self.here, charge = view, self.charges[env]
        if self.form.limit and charge.run is not None and charge.steps >= self.form.limit:
            self._finish(env, "hold_over")
            return None
        return super()._continue(env, view)

    def reset(self, env: int, reward: float = 0.0) -> None:
        """The episode of ``env`` ended."""
        self.ends.append(self.here)
        super().reset(env, reward)


def play(folder: str, form: Form) -> tuple[dict[str, Any], Watched]:
    """What a run's agent alone does in one form."""
    policy = load_policy(folder, SEED, is_advised=False, has_skills=not form.bare)
    if policy.source is None:
        raise SystemExit(f"{folder} learned without advice: there is nothing to compare its agent with")
    controller = policy.controller
    controller.__class__ = Watched
    assert isinstance(controller, Watched)
    controller.watch(form)
    return play_episodes(policy, EPISODES), controller


def main(folder: str) -> None:
    """Print the figures of the run in ``folder``, which stays as it is."""
    torch.set_num_threads(1)
    print(f"{folder}, alone, {EPISODES} worlds\n\n| who decides | return | score | steps |\n|---|---|---|---|")
    own: Watched | None = None
    agreed = []
    for name, form in FORMS.items():
        found, controller = play(folder, form)
        own = own or controller
        agreed += [float(np.mean(controller.agreed))] if form.bare else []
        low, high = found["return_interval"]
        figures = f"{found['return_mean']:.1f} ({low:.1f} to {high:.1f}) | {found['score']:.1f}"
        print(f"| {name} | {figures} | {found['length_mean']:.0f} |", flush=True)
    assert own is not None
    asked, missed = Counter(), Counter()
    for (wanted, called), count in own.called.items():
        asked[wanted] += count
        missed[wanted] += count * (wanted != called)
    share = missed.total() / max(1, asked.total())
    print(f"\nThe agent calls something else than the advice at {share:.0%} of {asked.total()} decisions:\n")
    print("| the advice calls | decisions | else | most often |\n|---|---|---|---|")
    for wanted, count in missed.most_common(12):
        others = Counter({called: n for (name, called), n in own.called.items() if name == wanted != called})
        print(f"| {wanted} | {asked[wanted]} | {count} | {', '.join(name for name, _ in others.most_common(2))} |")
    dark = sum(view.daylight < DARK for view in own.ends)
    names = own.ends[0].vocab.vitals[1:]
    empty = [f", {sum(view.vital(name) == 0 for view in own.ends)} without {name}" for name in names]
    its, there = agreed
    print(f"\nOver primitive actions its likeliest one is the advice's at {its:.0%} of its own steps,")
    print(f"at {there:.0%} of those that the advice plays.")
    print(f"\n{len(own.ends)} episodes of it, of which {dark} ended in the dark{''.join(empty)}.")


if __name__ == "__main__":
    main(sys.argv[1])
