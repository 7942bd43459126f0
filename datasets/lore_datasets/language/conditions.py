"""Conditions of the language of skills and programs: read strictly, as a JSON schema, as tests of a state.

::

    Cond := {op: "inventory", item, cmp, value}   {op: "vital", name, cmp, value}
          | {op: "daylight", cmp, value: 0..255}  {op: "flag", name: "sleeping"}
          | {op: "unlocked", achievement}         {op: "facing", target}
          | {op: "near", target, within: 1..9}    {op: "reachable", target}
          | {op: "count", target, within: 1..9, cmp, value}
          | {op: "enclosed"}                      {op: "can", action}
          | {op: "all" | "any", of: [Cond] 1..8}  {op: "not", of: Cond}
          | {op: "true"}   {op: "false"}

``daylight`` and ``flag`` exist where the environment's clock has daylight and sleep.
``target`` may be a list of names (any of them). ``near`` and ``count`` measure Manhattan distance inside the visible
crop, ``reachable`` means a walkable path inside the crop leads beside it, ``enclosed`` that the player is walled in: no
walkable path leads to the crop's border or to a creature. ``can`` asks the recipe table for a primitive action.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence
from typing import Any

from lore_datasets.errors import BadInput, SkillError, shown
from lore_datasets.language.geometry import StateView
from lore_datasets.vocab import Vocab

__all__ = [
    "COMPARE",
    "Checker",
    "Condition",
    "canonical",
    "compile_condition",
    "condition_schema",
    "largest",
    "target_ids",
    "target_names",
]

Condition = Callable[[StateView], bool]
MAX_TARGETS = 32
"""Names in a list of targets: MiniGrid's doors, in all colours and states, are 18."""

COMPARE = {
    "<": operator.lt, "<=": operator.le, "==": operator.eq, ">=": operator.ge, ">": operator.gt, "!=": operator.ne,
}  # fmt: skip
"""The six comparisons; they work on numbers and on arrays alike."""
_FIELDS = {
    "inventory": ("op", "item", "cmp", "value"),
    "vital": ("op", "name", "cmp", "value"),
    "daylight": ("op", "cmp", "value"),
    "flag": ("op", "name"),
    "unlocked": ("op", "achievement"),
    "facing": ("op", "target"),
    "near": ("op", "target", "within"),
    "reachable": ("op", "target"),
    "count": ("op", "target", "within", "cmp", "value"),
    "can": ("op", "action"),
    "all": ("op", "of"),
    "any": ("op", "of"),
    "not": ("op", "of"),
    "enclosed": ("op",),
    "true": ("op",),
    "false": ("op",),
}
_CLOCK = {"flag": "sleeping", "daylight": "daylight"}
_WORDS = {"item": "items", "achievement": "achievements", "action": "actions"}


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, ASCII; equal values have equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def target_names(value: str | Sequence[str]) -> tuple[str, ...]:
    """The names of a ``target``, which is one name or a list of them."""
    return (value,) if isinstance(value, str) else tuple(value)


def target_ids(value: str | list[str], vocab: Vocab) -> tuple[int, ...]:
    """Cell ids of a step's or condition's ``target``."""
    return tuple(vocab.target(name) for name in target_names(value))


class Checker:
    """Strict reader of conditions; counts nodes and depth so that size is bounded before anything runs.

    Args:
        vocab: closed word lists of the environment.
        subject: first words of every error message.
        nodes, depth: most nodes in all, and most levels.
        error: class of what is raised.
    """

    def __init__(self, vocab: Vocab, subject: str, nodes: int, depth: int, error: type[BadInput] = SkillError) -> None:
        self.vocab = vocab
        self.subject = subject
        self.most_nodes, self.most_depth, self.error = nodes, depth, error
        self.nodes = 0

    def fail(self, where: str, what: str, hint: str = "") -> BadInput:
        """The error for one place."""
        return self.error(f"{self.subject}: {where}: {what}", hint=hint)

    def fields(self, value: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict:
        """``value`` when it is an object with these keys."""
        if not isinstance(value, dict):
            raise self.fail(where, f"expected an object, got {type(value).__name__}")
        missing = [k for k in required if k not in value]
        unknown = [shown(k, 20) for k in value if k not in required and k not in optional]
        if missing or unknown:
            raise self.fail(where, f"missing {missing}" if missing else f"unknown keys {unknown[:8]}")
        return value

    def integer(self, value: Any, where: str, low: int, high: int) -> int:
        """``value`` when it is an integer in the range."""
        if type(value) is not int or not low <= value <= high:
            raise self.fail(where, f"{shown(value)} is not an integer in {low}..{high}")
        return value

    def word(self, value: Any, where: str, group: str) -> str:
        """``value`` when the vocabulary's group has it."""
        if not isinstance(value, str):
            raise self.fail(where, f"{shown(value)} is not a name")
        try:
            self.vocab.index(group, value)
        except BadInput as error:
            raise self.fail(where, error.message, error.hint) from None
        return value

    def targets(self, value: Any, where: str) -> str | list[str]:
        """One target name, or a list of 1 to 32."""
        if isinstance(value, list):
            if not 1 <= len(value) <= MAX_TARGETS:
                raise self.fail(where, f"a target list has 1..{MAX_TARGETS} names")
            return [self.word(v, where, "targets") for v in value]
        return self.word(value, where, "targets")

    def node(self, where: str, depth: int) -> None:
        """Count one node at a level."""
        self.nodes += 1
        if self.nodes > self.most_nodes:
            raise self.fail(where, f"more than {self.most_nodes} nodes")
        if depth > self.most_depth:
            raise self.fail(where, f"deeper than {self.most_depth}")

    def cond(self, value: Any, where: str, depth: int = 1) -> dict[str, Any]:
        """A checked copy of one condition."""
        self.node(where, depth)
        op = value.get("op") if isinstance(value, dict) else None
        if not isinstance(op, str) or op not in _FIELDS:
            raise self.fail(where, f"unknown condition {shown(op)}")
        self.fields(value, where, _FIELDS[op])
        out: dict[str, Any] = {"op": op}
        if op in ("all", "any"):
            if not isinstance(value["of"], list) or not 1 <= len(value["of"]) <= 8:
                raise self.fail(where, f"{op} needs a list of 1..8 conditions")
            return out | {"of": [self.cond(v, f"{where}.{op}[{i}]", depth + 1) for i, v in enumerate(value["of"])]}
        if op == "not":
            return out | {"of": self.cond(value["of"], f"{where}.not", depth + 1)}
        if op == "flag" and value["name"] != "sleeping":
            raise self.fail(where, f"unknown flag {shown(value['name'])}")
        if op in _CLOCK and _CLOCK[op] not in self.vocab.clock:
            raise self.fail(where, f"{self.vocab.environment} has no {_CLOCK[op]}")
        for key in _FIELDS[op][1:]:
            out[key] = self._field(op, key, value[key], where)
        return out

    def _field(self, op: str, key: str, value: Any, where: str) -> Any:
        if key == "name":
            return "sleeping" if op == "flag" else self.word(value, where, "vitals")
        if key in _WORDS:
            return self.word(value, where, _WORDS[key])
        if key == "target":
            return self.targets(value, where)
        if key == "within":
            return self.integer(value, f"{where}.within", 1, 9)
        if key == "value":
            return self.integer(value, f"{where}.value", 0, largest(op, self.vocab))
        if not isinstance(value, str) or value not in COMPARE:
            raise self.fail(where, f"cmp {shown(value)} is none of {' '.join(COMPARE)}")
        return value


def largest(op: str, vocab: Vocab) -> int:
    """The largest number that a comparison of this kind may name."""
    return 255 if op == "daylight" else max(99, vocab.max_count)


def condition_schema(vocab: Vocab, inner: dict[str, Any] | None) -> dict[str, Any]:
    """JSON schema of a condition for constrained decoding; ``inner`` is that of the conditions inside ``all``, ``any``
    and ``not`` (a ``$ref`` for a schema that recurses), None for none.
    """
    words: dict[str, Any] = {
        key: {"type": "string", "enum": list(getattr(vocab, group))} for key, group in _WORDS.items()
    }
    without = {"inventory": not vocab.items, "vital": not vocab.vitals}
    without |= {op: name not in vocab.clock for op, name in _CLOCK.items()} | {"unlocked": not vocab.achievements}
    target = {"type": "string", "enum": list(vocab.targets)}
    listed = {"type": "array", "items": target, "minItems": 1, "maxItems": MAX_TARGETS}
    words |= {
        "target": {"anyOf": [target, listed]},
        "within": {"type": "integer", "minimum": 1, "maximum": 9},
        "cmp": {"type": "string", "enum": list(COMPARE)},
    }
    forms = []
    for op, keys in _FIELDS.items():
        if without.get(op):
            continue
        own: dict[str, Any] = {"op": {"type": "string", "enum": [op]}}
        if "of" in keys:
            if inner is None:
                continue
            group = {"type": "array", "items": inner, "minItems": 1, "maxItems": 8}
            own["of"] = inner if op == "not" else group
        for key in keys[1:]:
            if key == "name":
                own[key] = {"type": "string", "enum": ["sleeping"] if op == "flag" else list(vocab.vitals)}
            elif key == "value":
                own[key] = {"type": "integer", "minimum": 0, "maximum": largest(op, vocab)}
            elif key != "of":
                own[key] = words[key]
        forms.append({"type": "object", "properties": own, "required": list(own), "additionalProperties": False})
    return {"anyOf": forms}


def compile_condition(cond: dict[str, Any], vocab: Vocab) -> Condition:
    """A checked condition as a function of a view."""
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
    if op == "enclosed":
        return lambda view: view.is_enclosed()
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
    if op == "near":
        return lambda view: view.near_ids(ids, within)
    compare, value, names = COMPARE[cond["cmp"]], cond["value"], target_names(cond["target"])
    return lambda view: compare(view.count(names, within), value)


def _joined(parts: Sequence[Condition], until: bool) -> Condition:
    """``any`` (``until`` True) or ``all`` (``until`` False) of the parts, read in order up to the one that decides."""

    def test(view: StateView) -> bool:
        for part in parts:
            if part(view) is until:
                return until
        return not until

    return test


def _comparison(cond: dict[str, Any], vocab: Vocab) -> Condition:
    compare, value = COMPARE[cond["cmp"]], cond["value"]
    if cond["op"] == "inventory":
        item = vocab.index("items", cond["item"])
        return lambda view: compare(view.counts[item], value)
    if cond["op"] == "vital":
        vital = vocab.index("vitals", cond["name"])
        return lambda view: compare(view.vital_values[vital], value)
    return lambda view: compare(view.daylight, value)
