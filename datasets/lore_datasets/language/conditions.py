"""Conditions of the skill language as tests of a state; one meaning for whoever checks, runs or draws skills."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from lore_datasets.language.geometry import StateView
from lore_datasets.vocab import Vocab

__all__ = ["Condition", "compile_condition", "target_ids"]

Condition = Callable[[StateView], bool]

_COMPARE = {
    "<": operator.lt, "<=": operator.le, "==": operator.eq, ">=": operator.ge, ">": operator.gt, "!=": operator.ne,
}  # fmt: skip


def target_ids(value: str | list[str], vocab: Vocab) -> tuple[int, ...]:
    """Cell ids of a step's or condition's ``target``."""
    names = [value] if isinstance(value, str) else value
    return tuple(vocab.target(name) for name in names)


def compile_condition(cond: dict[str, Any], vocab: Vocab) -> Condition:
    """A checked condition (see :mod:`lore_datasets.language.skills`) as a function of a view."""
    op = cond["op"]
    if op in ("true", "false"):
        truth = op == "true"
        return lambda view: truth
    if op == "not":
        inner = compile_condition(cond["of"], vocab)
        return lambda view: not inner(view)
    if op in ("all", "any"):
        parts = tuple(compile_condition(part, vocab) for part in cond["of"])
        return _joined(parts, until=op == "any")
    if op in ("inventory", "vital", "daylight"):
        return _comparison(cond, vocab)
    if op == "flag":
        return lambda view: view.sleeping
    if op == "unlocked":
        index = vocab.index("achievements", cond["achievement"])
        return lambda view: view.flags[index] > 0
    if op == "can":
        action = cond["action"]
        return lambda view: view.can(action)
    ids = target_ids(cond["target"], vocab)
    if op == "facing":
        return lambda view: view.facing_id in ids
    if op == "reachable":
        return lambda view: view.reachable_ids(ids)
    within = cond["within"]
    return lambda view: view.near_ids(ids, within)


def _joined(parts: Sequence[Condition], until: bool) -> Condition:
    """``any`` (``until`` True) or ``all`` (``until`` False) of the parts, read in order up to the one that decides."""

    def test(view: StateView) -> bool:
        for part in parts:
            if part(view) is until:
                return until
        return not until

    return test


def _comparison(cond: dict[str, Any], vocab: Vocab) -> Condition:
    compare, value = _COMPARE[cond["cmp"]], cond["value"]
    if cond["op"] == "inventory":
        item = vocab.index("items", cond["item"])
        return lambda view: compare(view.counts[item], value)
    if cond["op"] == "vital":
        vital = vocab.index("vitals", cond["name"])
        return lambda view: compare(view.vital_values[vital], value)
    return lambda view: compare(view.daylight, value)
