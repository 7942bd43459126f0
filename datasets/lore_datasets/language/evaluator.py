"""What a priority program says: of one state with the rules that spoke, and of many states at once as arrays.

One meaning in two forms: :meth:`Evaluator.explain` reads conditions as closures over a view, as skills do,
:meth:`Evaluator.spoken` the same conditions over a :class:`~lore_datasets.language.batch.StateBatch`. A goal is ranked
where a rule's condition holds and the goal can be pursued: a skill whose start condition holds and whose ends do not,
an action that would have an effect. A goal that several rules want is ranked at the first of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lore_datasets.errors import ConfigError
from lore_datasets.language.batch import MAX_KINDS, StateBatch
from lore_datasets.language.conditions import COMPARE, canonical, compile_condition, target_ids
from lore_datasets.language.geometry import StateView
from lore_datasets.language.programs import Program
from lore_datasets.language.skills import Skill
from lore_datasets.vocab import Vocab

__all__ = ["Evaluator", "Spoken", "able_condition", "ranking_logits"]

_FEW = 4
"""States up to which closures over single views are faster than arrays."""


class Spoken(NamedTuple):
    """One ranked goal and the rule (from 0) that put it there."""

    goal: str
    rule: int


@dataclass(frozen=True)
class _Node:
    """One distinct condition of a batch evaluation; ``parts`` are numbers of earlier nodes."""

    cond: dict[str, Any]
    parts: tuple[int, ...]


class Evaluator:
    """A program made ready for one list of skills.

    Args:
        program: a checked program. skills: K skills, in the order of the extended action space.
        vocab: the environment's words; A actions.
    """

    def __init__(self, program: Program, skills: Sequence[Skill], vocab: Vocab) -> None:
        self.program, self.vocab = program, vocab
        self.actions, self.width = len(vocab.actions), len(vocab.actions) + len(skills)
        self.entries = {name: i for i, name in enumerate((*vocab.actions, *(skill.name for skill in skills)))}
        able = {skill.name: able_condition(skill) for skill in skills}
        able = {goal: able.get(goal) or {"op": "can", "action": goal} for goal in program.goals}
        self.names = (*vocab.actions, *(skill.name for skill in skills))
        self._goals = [self.entries[rule.goal] for rule in program.rules]
        self._rules = [(rule.goal, compile_condition(rule.when, vocab)) for rule in program.rules]
        self._able = {goal: compile_condition(cond, vocab) for goal, cond in able.items()}
        self._nodes: list[_Node] = []
        numbers: dict[str, int] = {}
        self._when = [self._number(rule.when, numbers) for rule in program.rules]
        self._startable = {self.entries[goal]: self._number(cond, numbers) for goal, cond in able.items()}
        known = np.zeros(self.width, bool)
        known[self.actions :] = True
        known[self._goals] = True
        self.known = known
        """bool[A+K]: what the program speaks of: all skills, and the actions that rules name."""
        self._can_start = [self._number(able_condition(skill), numbers) for skill in skills]
        pursued = self._startable | dict(enumerate(self._can_start, self.actions))
        self._tests = {entry: compile_condition(self._nodes[node].cond, vocab) for entry, node in pursued.items()}

    def _number(self, cond: dict[str, Any], numbers: dict[str, int]) -> int:
        """The node of a condition; equal conditions share one."""
        key = canonical(cond)
        if key not in numbers:
            of = cond.get("of", ())
            parts = tuple(self._number(part, numbers) for part in ([of] if isinstance(of, dict) else of))
            self._nodes.append(_Node(cond, parts))
            numbers[key] = len(self._nodes) - 1
        return numbers[key]

    def explain(self, view: StateView) -> list[Spoken]:
        """The goals of one state, best first, each with the rule that put it there; empty where no rule speaks."""
        found: dict[str, int] = {}
        for number, (goal, when) in enumerate(self._rules):
            if goal not in found and when(view) and self._able[goal](view):
                found[goal] = number
        return [Spoken(goal, number) for goal, number in found.items()]

    def explain_many(self, packed: np.ndarray) -> list[list[Spoken]]:
        """:meth:`explain` of each packed state uint8[N, S], all at once."""
        goal = [rule.goal for rule in self.program.rules]
        rules = np.sort(self.spoken(packed), axis=1).tolist()
        return [[Spoken(goal[number], number) for number in row if number >= 0] for row in rules]

    def ranking(self, view: StateView) -> list[tuple[str, float]]:
        """:meth:`explain` as (goal, weight) pairs, weights falling from 1: what a player of goals takes."""
        return [(spoken.goal, 0.5**i) for i, spoken in enumerate(self.explain(view))]

    def spoken(self, packed: np.ndarray) -> np.ndarray:
        """int16[N, A+K]: the rule that ranks each entry in each of the packed states uint8[N, S], -1 for none."""
        return self._evaluate(packed)[0]

    def feasible(self, packed: np.ndarray) -> np.ndarray:
        """bool[N, A+K]: skills, and actions that rules name, that can be pursued in each packed state."""
        return self._evaluate(packed)[1]

    def _evaluate(self, packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(:meth:`spoken`, :meth:`feasible`)."""
        if len(packed) <= _FEW or len(self.vocab.targets) > MAX_KINDS:
            return self._one_by_one(packed)
        batch = StateBatch(packed, self.vocab)
        values: list[np.ndarray] = []
        for node in self._nodes:
            values.append(_holds(node, batch, values))
        spoken = np.full((self.width, batch.n), -1, np.int16)
        for number in reversed(range(len(self._when))):  # the first rule is written last
            spoken[self._goals[number]][values[self._when[number]]] = number
        feasible = np.zeros((self.width, batch.n), bool)
        feasible[self.actions :] = [values[node] for node in self._can_start] or False
        for entry, node in self._startable.items():
            feasible[entry] = values[node]
        spoken[~feasible] = -1
        return spoken.T, feasible.T

    def _one_by_one(self, packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`_evaluate` for few states, and for environments with more cell kinds than a batch can hold."""
        spoken, feasible = np.full((len(packed), self.width), -1, np.int16), np.zeros((len(packed), self.width), bool)
        for i, state in enumerate(packed):
            view = StateView(state, self.vocab)
            for goal, rule in self.explain(view):
                spoken[i, self.entries[goal]] = rule
            for entry, test in self._tests.items():
                feasible[i, entry] = test(view)
        return spoken, feasible

    def advise(
        self, packed: np.ndarray, *, confidence: float = 0.9, floor: float = 1e-3, clip: float = 5.0, gap: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(logits float32[N, A+K], known bool[N, A+K], first rule int16[N], -1 where no rule speaks).

        See :func:`ranking_logits`; where no rule speaks nothing is known.
        """
        spoken, feasible = self._evaluate(packed)
        first = np.where(spoken < 0, np.int16(2**15 - 1), spoken).min(-1, initial=2**15 - 1)
        speaks = first < 2**15 - 1
        known = self.known & speaks[:, None]
        logits = ranking_logits(spoken, feasible, known, confidence=confidence, floor=floor, clip=clip, gap=gap)
        return logits, known, np.where(speaks, first, -1).astype(np.int16)


def able_condition(skill: Skill) -> dict[str, Any]:
    """When a skill can be pursued: it can start, and neither is done nor would abort."""
    ends = [end for end in (skill.done, skill.abort) if end is not None and end != {"op": "false"}]
    return {"op": "all", "of": [skill.start, *({"op": "not", "of": end} for end in ends)]}


def ranking_logits(
    spoken: np.ndarray, feasible: np.ndarray, known: np.ndarray, *, confidence: float, floor: float, clip: float,
    gap: float,
) -> np.ndarray:  # fmt: skip
    """Logits float32[N, E] of rankings: centred over what is ``known``, 0 elsewhere, inside plus or minus ``clip``.

    The r-th of n ranked goals has p_r = c (1 - c)^(r-1) of the probability, cut to sum 1 over n; with F feasible
    entries ``q = (1 - floor) p + floor / F``. Logits are log q, at most ``clip - gap`` nats under the best, so that
    nothing that can be pursued has a probability of 0; known entries that cannot lie ``clip`` nats under the best.

    Args:
        spoken: int16[N, E] rule per entry, -1 for none; the lower the better.
        feasible: bool[N, E]. known: bool[N, E].
        confidence: c, 0 < c <= 1, share of what is left that each goal in turn takes.
    """
    if not 0 < confidence <= 1:
        raise ConfigError.out_of_range("confidence", confidence, "more than 0, at most 1")
    order = np.where(spoken < 0, np.int16(2**15 - 1), spoken)
    rank = np.empty(order.shape, np.int64)
    np.put_along_axis(rank, order.argsort(-1, kind="stable"), np.arange(order.shape[-1])[None], -1)
    with np.errstate(divide="ignore", under="ignore"):
        p = np.where(spoken >= 0, confidence * (1.0 - confidence) ** rank, 0.0)
        p /= np.maximum(p.sum(-1, keepdims=True), 1e-300)
        open_to = feasible & known
        q = (1 - floor) * p + floor / np.maximum(open_to.sum(-1, keepdims=True), 1)
        logits = np.where(open_to, np.log(np.where(open_to, q, 1.0)), -np.inf)
    best = logits.max(-1, keepdims=True, initial=-np.inf)
    best = np.where(np.isfinite(best), best, 0.0)
    logits = np.where(open_to, np.maximum(logits, best - (clip - gap)), best - clip)
    count = np.maximum(known.sum(-1, keepdims=True), 1)
    logits -= np.where(known, logits, 0.0).sum(-1, keepdims=True) / count
    return np.where(known, np.clip(logits, -clip, clip), 0.0).astype(np.float32)


def _holds(node: _Node, batch: StateBatch, values: Sequence[np.ndarray]) -> np.ndarray:
    """bool[N]: where one condition holds; the values of its parts are known."""
    cond, op = node.cond, node.cond["op"]
    if op in ("true", "false"):
        return np.full(batch.n, op == "true")
    if op == "not":
        return ~values[node.parts[0]]
    if op in ("all", "any"):
        join = np.logical_and if op == "all" else np.logical_or
        out = values[node.parts[0]]
        for part in node.parts[1:]:
            out = join(out, values[part])
        return out
    if op == "flag":
        return batch.sleeping
    if op == "enclosed":
        return batch.enclosed
    if op == "unlocked":
        return batch.flags[batch.vocab.index("achievements", cond["achievement"])]
    if op == "can":
        return batch.can(cond["action"])
    if op in ("inventory", "vital", "daylight"):
        return COMPARE[cond["cmp"]](_number_of(cond, batch), cond["value"])
    ids = target_ids(cond["target"], batch.vocab)
    if op == "count":
        return COMPARE[cond["cmp"]](batch.count(ids, cond["within"]), cond["value"])
    kinds = {"facing": lambda: batch.ahead, "reachable": lambda: batch.reachable}
    seen = batch.within(cond["within"]) if op == "near" else kinds[op]()
    return (seen & batch.mask(ids)) != 0


def _number_of(cond: dict[str, Any], batch: StateBatch) -> np.ndarray:
    if cond["op"] == "inventory":
        return batch.counts[batch.vocab.index("items", cond["item"])]
    if cond["op"] == "vital":
        return batch.vitals[batch.vocab.index("vitals", cond["name"])]
    return batch.daylight
