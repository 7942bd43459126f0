"""Looking advice up for states: exact fine key, then the version's program. Versions without a program: exact fine key,
then goal key or the distilled advice model, then nothing.

Where a goal key is known and there is a model, the surer of the two answers: the table is as sure as held-out rows
agreed with it, the model as its calibrated confidence says.
"""

from __future__ import annotations

import base64
import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from lore.advice.informative import uninformative
from lore.advice.key_table import KeyTable
from lore.advice.model import AdviceModel
from lore.advice.program import ProgramAdvice
from lore.advice.types import SOURCES, AdviceBatch
from lore_datasets.keys import fine_keys, goal_keys
from lore_datasets.types import SymbolicState

if TYPE_CHECKING:
    from lore_datasets.advice import AdviceData

__all__ = ["AdviceSource"]

ROW, PROGRAM, GOAL, MODEL, NONE = range(len(SOURCES))


class AdviceSource:
    """One advice version, ready to be asked: whole table in memory, no disk on the way.

    Args:
        data: the version, with its advice model when it has one.
        min_confidence: advice below this counts as none.
        only_informative: advice that held-out rows show not to depend on the state counts as none.
        cache_size: states whose answer is remembered (0 = no cache).

    Attributes:
        ignored: the version is such advice, so every look-up finds nothing.
        program: the version's priority program, None where it has none.
    """

    def __init__(
        self, data: AdviceData, *, min_confidence: float = 0.0, only_informative: bool = False, cache_size: int = 2000
    ) -> None:
        rows = data.rows
        self.data = data
        self.environment = data.environment
        self.num_actions = len(data.actions)
        self.width = self.num_actions + len(data.skills)
        known = rows.mask.astype(bool)
        self.fine = KeyTable(rows.key_fine, rows.logits, known, rows.confidence)
        self.goal = KeyTable(rows.key_goal, rows.logits, known, rows.confidence)
        self.program = ProgramAdvice(data) if data.programs else None
        self.model = None
        self.goal_trust = 1.0
        if data.model is not None and self.program is None:
            self.model = AdviceModel.from_arrays(data.model, data.environment)
            self.goal_trust = float(data.model["calibration/goal_agreement"].reshape(-1)[0])
        self.ignored = only_informative and self._is_blind()
        self.min_confidence = min_confidence
        self.counts = np.zeros(len(SOURCES), np.int64)
        self.lookups = 0
        self.hits = 0
        self._cache: OrderedDict[bytes, tuple | None] = OrderedDict()  # None: known, to be computed again
        self._cache_size = cache_size

    def _is_blind(self) -> bool:
        if self.program is not None:
            return self.program.is_blind(self.data.rows.state)
        return self.data.model is not None and uninformative(self.data.model)

    def explain(self, states: np.ndarray) -> list[str]:
        """Who spoke for each of the packed states uint8[B, S]: ``row 12``, ``rule 3 collect_drink: thirst kills``,
        ``goal key``, ``model`` or ``none``.
        """
        found = self.lookup_batch(states)
        rules = self.program.rule_of(states) if self.program is not None and len(states) else None
        told = []
        for i, (source, row) in enumerate(zip(found.source, found.row, strict=True)):
            if source == PROGRAM and rules is not None and self.program is not None:
                told.append(self.program.told(int(rules[i])))
            else:
                told.append(f"row {row}" if source == ROW else "goal key" if source == GOAL else SOURCES[source])
        return told

    def lookup(self, states: np.ndarray) -> AdviceBatch:
        """Advice for packed states uint8[B, S]; counts sources and cache hits."""
        out = self._empty(len(states))
        missing = []
        for i, state in enumerate(states):
            key = state.tobytes()
            if key in self._cache:
                self.hits += 1
                self._cache.move_to_end(key)
            answer = self._cache.get(key)
            if answer is None:
                missing.append(i)
            else:
                for array, value in zip(out, answer, strict=True):
                    array[i] = value
        if missing:
            fresh = self.lookup_batch(states[missing])
            for array, values in zip(out, fresh, strict=True):
                array[missing] = values
            if self._cache_size:
                for j, i in enumerate(missing):
                    self._cache[states[i].tobytes()] = tuple(values[j] for values in fresh)
                while len(self._cache) > self._cache_size:
                    self._cache.popitem(last=False)
        self.lookups += len(states)
        self.counts += np.bincount(out.source, minlength=len(SOURCES))
        return out

    def lookup_batch(self, states: np.ndarray) -> AdviceBatch:
        """As :meth:`lookup`, without cache or counting (for analyses over many states)."""
        out = self._empty(len(states))
        if len(states) == 0 or self.ignored:
            return out
        batch = SymbolicState.unpack(np.ascontiguousarray(states), self.environment.layout)
        fine = self.fine.find(fine_keys(batch, self.environment))
        self._fill(out, fine >= 0, ROW, self.fine, fine, 1.0)
        if self.program is None:
            self._generalise(out, states, batch, fine < 0)
        elif len(rest := np.flatnonzero(fine < 0)):
            out.logits[rest], out.known[rest], out.confidence[rest] = said = self.program.answer(states[rest])
            out.source[rest] = np.where(said[2] > 0, PROGRAM, NONE)
        weak = out.confidence < self.min_confidence
        for array, value in zip(out, (0.0, False, 0.0, NONE, -1), strict=True):
            array[weak] = value
        return out

    def _generalise(self, out: AdviceBatch, states: np.ndarray, batch: SymbolicState, where: np.ndarray) -> None:
        """Answer where no row does: by goal key or model, whichever is surer."""
        goal = self.goal.find(goal_keys(batch, self.environment))
        self._fill(out, where & (goal >= 0), GOAL, self.goal, goal, self.goal_trust)
        rest = np.flatnonzero(out.source != ROW)
        if self.model is not None and len(rest):
            predicted = self.model.predict(states[rest])
            surer = (out.source[rest] == NONE) | (predicted[2] > self.goal_trust)
            rest = rest[surer]
            out.logits[rest], out.known[rest], out.confidence[rest] = (values[surer] for values in predicted)
            out.source[rest] = MODEL

    def _fill(
        self, out: AdviceBatch, where: np.ndarray, source: int, table: KeyTable, at: np.ndarray, trust: float
    ) -> None:
        index = at[where]
        out.logits[where] = table.logits[index]
        out.known[where] = table.known[index]
        out.confidence[where] = table.confidence[index] * trust
        out.source[where] = source
        out.row[where] = index if source == ROW else -1

    def _empty(self, n: int) -> AdviceBatch:
        return AdviceBatch(
            logits=np.zeros((n, self.width), np.float32),
            known=np.zeros((n, self.width), bool),
            confidence=np.zeros(n, np.float32),
            source=np.full(n, NONE, np.int64),
            row=np.full(n, -1, np.int64),
        )

    def coverage(self) -> dict[str, float]:
        """Share of look-ups answered by each source since the last :meth:`reset_counts`."""
        total = max(1, int(self.counts.sum()))
        return {name: float(count) / total for name, count in zip(SOURCES, self.counts, strict=True)}

    def reset_counts(self) -> None:
        """Start a new window of coverage and cache statistics."""
        self.counts[:] = 0
        self.lookups = self.hits = 0

    def state_dict(self) -> dict[str, Any]:
        """JSON-able counts, and the states that the cache knows; their answers follow from the version."""
        return {
            "counts": dict(zip(SOURCES, self.counts.tolist(), strict=True)), "lookups": self.lookups, "hits": self.hits,
            "cache": base64.b64encode(zlib.compress(b"".join(self._cache), 1)).decode(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        counts: Any = state["counts"]
        if isinstance(counts, list):  # of before programs
            old = [name for name in SOURCES if name != "program"]
            counts = dict(zip(old, counts, strict=True))
        self.counts[:] = [counts.get(name, 0) for name in SOURCES]
        self.lookups, self.hits = state["lookups"], state["hits"]
        known, size = zlib.decompress(base64.b64decode(state["cache"])), self.environment.layout.size
        self._cache = OrderedDict((known[i : i + size], None) for i in range(0, len(known), size))
