"""Option slots: which skills of the library the policy may call, and how each has done so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lore.config import MAX_SLOTS, Config, OptionsConfig, replace
from lore.options.worth import DOUBT, Worth
from lore_datasets.errors import ConfigError

__all__ = ["SkillStatistics", "Slots", "with_slots"]

MIN_USES = 20
"""Uses after which a skill is judged."""
CUT = ("advised_away", "hold_over")
"""Ends that are no fault and no merit of the skill."""
NOBODY, GONE = -1, -2
"""Whom a slot's parameters were taught for: for no skill yet, or for one that another version of the advice lacks."""
GAIN = 2.0
"""A free skill takes a slot over when it fits this many times as well."""


def with_slots(config: Config, skills: int, *, is_new: bool = False) -> Config:
    """``config`` with the number of its slots written out: ``options.max_options`` 0 becomes ``skills``, that of the
    version.

    ConfigError for a version without skills, for more skills than :data:`MAX_SLOTS` that want one each, and when a new
    run asks for more slots than there are skills; a run that goes on with a smaller library keeps its network, and the
    slots that are too many stay empty.
    """
    asked = config.options.max_options
    if not config.options.enabled:
        return config
    if not skills:
        raise ConfigError(
            f"options are on, and {config.advice.dataset} has no skills",
            hint="choose a version with skills, or leave --options.enabled away",
        )
    if is_new and asked > skills and asked != OptionsConfig.max_options:
        raise ConfigError(
            f"options.max_options = {asked}, but {config.advice.dataset} has {skills} skills: others would stay empty",
            hint="give --options.max-options 0 for one slot per skill, or a number up to that of the skills",
        )
    if not asked and skills > MAX_SLOTS:
        raise ConfigError(
            f"{config.advice.dataset} has {skills} skills, and a network at most {MAX_SLOTS} slots",
            hint=f"give --options.max-options with a number from 1 to {MAX_SLOTS}",
        )
    return config if asked else replace(config, **{"options.max_options": skills})


@dataclass
class SkillStatistics:
    """Running figures of one skill."""

    uses: int = 0
    successes: int = 0
    cut: int = 0  # uses that a new decision ended: they say nothing about the skill
    steps: int = 0
    reward: float = 0.0
    retired: bool = False  # it fails too often: a better one is asked for
    waits: bool = False  # out of its slot until the next generation: calls of it were worth too little
    outcomes: dict[str, int] = field(default_factory=dict)
    failure: dict[str, Any] = field(default_factory=dict)  # the last use that failed: state, actions, outcome

    @property
    def success_rate(self) -> float:
        """Share of judged uses that ended in ``done``."""
        return self.successes / self.judged if self.judged else 0.0

    @property
    def judged(self) -> int:
        """Uses that ended by themselves, by damage or with the episode."""
        return self.uses - self.cut

    def record(self, outcome: str, steps: int, reward: float, state: str = "", actions: Sequence[int] = ()) -> None:
        """Account one finished use; ``state`` (hex) and ``actions``: where it began and what it did."""
        self.uses += 1
        self.successes += outcome == "done"
        self.cut += outcome in CUT
        self.steps += steps
        self.reward += reward
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if outcome != "done" and outcome not in CUT:
            self.failure = {"state": state, "actions": list(actions), "outcome": outcome}


class Slots:
    """M slots over a library of K skills.

    Args:
        size: M, slots in the network; at most K of them are filled. names: the K skill names.
        threshold: success rate under which a skill that was used often enough fails too often.

    A skill gives its slot up only to another one that waits for it. Where nobody needs the place, as with a slot for
    each, an actor that is drawn to advice has to be able to call what it names. ``fit`` float[K] says how much the
    advice speaks for each skill, nothing where it is 0.

    Attributes:
        skill: int64[M], skill in each slot, -1 = empty.
        taught: int64[M], the last skill in each slot: whom its row of the actor was taught for.
    """

    def __init__(self, size: int, names: tuple[str, ...], threshold: float) -> None:
        self.names = names
        self.active = min(size, len(names))
        self.threshold = threshold
        self.skill = np.full(size, -1, np.int64)
        self.taught = np.full(size, NOBODY, np.int64)
        self.statistics = [SkillStatistics() for _ in names]
        self.worth = Worth(len(names))
        self.primitive = [0, 0.0]  # steps and reward of single primitive actions that nobody held

    def fill(self, fit: np.ndarray) -> list[int]:
        """Put the best free skills (fit times success) into empty slots, behind them those that had to leave one;
        returns changed slots."""
        worth = fit * self.success()
        order = sorted(self._without(fit), key=lambda k: (not self._is_free(k), -worth[k], k))
        changed = []
        for slot in range(self.active):
            if self.skill[slot] < 0 and order:
                self.skill[slot] = order.pop(0)
                changed.append(slot)
        return changed

    def take_over(self) -> list[int]:
        """Slots that hold another skill than the one they were taught for, which is forgotten with this call: their
        parameters have to start afresh."""
        filled = self.skill >= 0
        strange = np.flatnonzero(filled & (self.taught != NOBODY) & (self.taught != self.skill))
        self.taught[filled] = self.skill[filled]
        return strange.tolist()

    def release(self, fit: np.ndarray) -> list[str]:
        """Empty the slots of skills whose place a free one deserves: it fits and succeeds ``GAIN`` times as well;
        returns the names that go."""
        worth = fit * self.success()
        kept = sorted((float(worth[k]), slot) for slot, k in enumerate(self.skill) if k >= 0)
        free = sorted((float(worth[k]) for k in self._without(fit) if self._is_free(k)), reverse=True)
        gone = []
        for (poor, slot), better in zip(kept, free[self._empty() :], strict=False):
            if better > GAIN * poor:
                gone.append(self._leave(slot))
        return gone

    def _without(self, fit: np.ndarray) -> list[int]:
        """Skills without a slot that the advice speaks for."""
        taken = {int(k) for k in self.skill if k >= 0}
        return [k for k in range(len(self.names)) if k not in taken and fit[k] > 0]

    def _is_free(self, skill: int) -> bool:
        return not (self.statistics[skill].retired or self.statistics[skill].waits)

    def _empty(self) -> int:
        return int((self.skill[: self.active] < 0).sum())

    def _wanted(self, fit: np.ndarray) -> int:
        """How many more slots than are empty the free skills would fill."""
        return max(0, sum(map(self._is_free, self._without(fit))) - self._empty())

    def _leave(self, slot: int) -> str:
        name, self.skill[slot] = self.names[self.skill[slot]], -1
        return name

    def rest(self, fit: np.ndarray) -> list[str]:
        """Empty the slots of skills whose calls are worth less than the policy's own primitive actions, by more than
        chance, where others want them: they wait for the next generation; returns their names."""
        behind = [(-self.worth.behind(int(k)), slot) for slot, k in enumerate(self.skill) if k >= 0]
        gone = []
        for _, slot in sorted(one for one in behind if -one[0] > DOUBT)[: self._wanted(fit)]:
            self.statistics[self.skill[slot]].waits = True
            gone.append(self._leave(slot))
        return gone

    def recall(self) -> None:
        """A new generation: skills that wait may take a slot again, and are judged afresh."""
        for k, used in enumerate(self.statistics):
            if used.waits:
                used.waits = False
                self.worth.forget(k)

    def success(self) -> np.ndarray:
        """float64[K]: measured success rate of skills that were used often enough, 1 for the others."""
        return np.array([s.success_rate if s.judged >= MIN_USES else 1.0 for s in self.statistics])

    def retire(self, fit: np.ndarray) -> list[str]:
        """Mark skills that fail too often, and empty the slots of marked ones where others want them; returns the newly
        marked."""
        held = [(int(k), slot) for slot, k in enumerate(self.skill) if k >= 0]
        new = []
        for k, _ in held:
            used = self.statistics[k]
            if not used.retired and used.judged >= MIN_USES and used.success_rate < self.threshold:
                used.retired = True
                new.append(self.names[k])
        failing = sorted((self.statistics[k].success_rate, slot) for k, slot in held if self.statistics[k].retired)
        for _, slot in failing[: self._wanted(fit)]:
            self._leave(slot)
        return new

    def metrics(self) -> dict[str, float]:
        """The ``options/*`` tags."""
        used = [s for s in self.statistics if s.judged]
        out = {
            "options/active": float((self.skill >= 0).sum()),
            "options/retired": float(sum(s.retired for s in self.statistics)),
            "options/waiting": float(sum(s.waits for s in self.statistics)),
            "options/primitive_worth": self.worth.means[-1].mean,
            "options/avg_success_rate": float(np.mean([s.success_rate for s in used])) if used else 0.0,
            "options/primitive_return_per_step": self.primitive[1] / max(1, self.primitive[0]),
        }
        for name, s, worth in zip(self.names, self.statistics, self.worth.means[:-1], strict=True):
            if s.uses:
                out[f"options/{name}/worth"] = worth.mean
                out[f"options/{name}/success_rate"] = s.success_rate
                out[f"options/{name}/uses"] = float(s.uses)
                out[f"options/{name}/return_per_step"] = s.reward / max(1, s.steps)
                out[f"options/{name}/steps_per_use"] = s.steps / s.uses
        return out

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        statistics = [asdict(s) for s in self.statistics]
        own = {"primitive": list(self.primitive), "worth": self.worth.state_dict()}
        return {"skill": self.skill.tolist(), "taught": self.taught.tolist(), "statistics": statistics} | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.skill = np.array(state["skill"], np.int64)
        self.taught = np.array(state.get("taught", state["skill"]), np.int64)
        self.statistics = [SkillStatistics(**s) for s in state["statistics"]]
        self.primitive = list(state.get("primitive", [0, 0.0]))
        if "worth" in state:
            self.worth.load_state_dict(state["worth"])
