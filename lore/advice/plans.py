"""The plans of an advice version, as path A reads them: sequences of goals and primitive actions, by state."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lore.advice.types import SOURCES
from lore_datasets.keys import goal_keys
from lore_datasets.types import SymbolicState

if TYPE_CHECKING:
    from lore.advice.types import AdviceBatch
    from lore_datasets.advice import AdviceData

__all__ = ["PlanBook", "Plans"]

_LOG = logging.getLogger("lore")
_ROW, _NONE = SOURCES.index("row"), SOURCES.index("none")


class Plans(NamedTuple):
    """Plans by number, over A primitive actions + K skills."""

    entries: np.ndarray  # int64 [P, L], 0 behind the end
    lengths: np.ndarray  # int64 [P], 0 = no plan


class PlanBook:
    """The best-scored plan of each row, and after them for each skill the plan to reach its goal.

    A state's plan is that of its own row, else the best one of the rows that share its goal key, else the one goal that
    the advice prefers to all others that can begin: a program, which speaks in every state, gives nearly all a plan.

    Args:
        data: the version. N rows, A actions, K skills, plans of L entries.

    Attributes:
        plans: P = N + K of them.
        strange: rows whose plan was cut at an entry that the version does not have, as a skill that left the library.
    """

    def __init__(self, data: AdviceData) -> None:
        rows, self.environment, self.num_actions = data.rows, data.environment, len(data.actions)
        count, skills = len(rows), len(data.skills)
        scores = np.where(rows.plan_lengths > 0, rows.plan_scores, -np.inf)
        width = max(1, rows.plans.shape[2])
        entries = np.zeros((count + skills, width), np.int64)
        lengths = np.zeros(count + skills, np.int64)
        entries[count:, 0] = self.num_actions + np.arange(skills)
        lengths[count:] = 1
        self.rows, self.strange = count, 0
        score = np.full(count, -np.inf)
        if count and rows.plans.size:
            best = scores.argmax(-1)
            chosen, length = (x[np.arange(count), best].astype(np.int64) for x in (rows.plans, rows.plan_lengths))
            written = np.arange(width) < length[:, None]
            known = written & (chosen >= 0) & (chosen < self.num_actions + skills)
            kept = np.where(known.all(-1), width, known.argmin(-1))
            self.strange = int((kept < length).sum())
            lengths[:count], score = kept, scores[np.arange(count), best]
            entries[:count] = np.where(np.arange(width) < kept[:, None], chosen, 0)
        planned = np.flatnonzero(lengths[:count] > 0)
        order = planned[np.lexsort((-score[planned], rows.key_goal[planned]))]
        self._keys, first = np.unique(rows.key_goal[order], return_index=True)
        self._best = order[first]
        self.plans = Plans(entries, lengths)
        if self.strange:
            _LOG.warning("%d plans of %s name what it does not have, and are cut there", self.strange, data.ref)

    def find(self, states: np.ndarray, found: AdviceBatch, proposals: np.ndarray) -> np.ndarray:
        """int32[B]: the plan of each packed state uint8[B, S], -1 where there is none.

        Args:
            found: what the look-up says there. proposals: int8[B, K], next action of each skill, negative = cannot act.
        """
        own = np.where(found.source == _ROW, found.row, -1)
        plan = np.where((own >= 0) & (self.plans.lengths[np.maximum(own, 0)] > 0), own, -1)
        rest = np.flatnonzero((plan < 0) & (found.source != _NONE))
        if len(rest) == 0:
            return plan.astype(np.int32)
        if len(self._keys):
            batch = SymbolicState.unpack(np.ascontiguousarray(states[rest]), self.environment.layout)
            keys = goal_keys(batch, self.environment)
            at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            plan[rest] = np.where(self._keys[at] == keys, self._best[at], -1)
            rest = rest[plan[rest] < 0]
        offered = found.known[rest, self.num_actions :] & (proposals[rest] >= 0)
        ranked = np.where(offered, found.logits[rest, self.num_actions :], -np.inf)
        if ranked.shape[1]:
            preferred = (ranked == ranked.max(-1, keepdims=True)).sum(-1) == 1
            plan[rest] = np.where(preferred, self.rows + ranked.argmax(-1), -1)
        return plan.astype(np.int32)

    def plan(self, number: int) -> list[int]:
        """Ids over A + K of one plan; empty for -1."""
        return self.plans.entries[number, : self.plans.lengths[number]].tolist() if number >= 0 else []
