"""Priority programs: ordered rules ``when Cond -> goal``, read from the top in every state; the order is the priority.

::

    Program := {version: 1, rules: [Rule] 1..128}
    Rule    := {when: Cond, goal: skill or action, why?: text of at most 200 characters}

``Cond`` is the condition language of skills (:mod:`lore_datasets.language.conditions`), at most 8 deep with 64 nodes a
rule. Rules are numbered from 0, as in the JSON array. A name that is both a skill's and an action's means the skill.
A program is data, never code; what parses can be evaluated in bounded time
(:mod:`lore_datasets.language.evaluator`). Sources: priority lists as in decision lists (Rivest 1987).
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lore_datasets.errors import ProgramError, shown
from lore_datasets.language.conditions import Checker, canonical, condition_schema
from lore_datasets.vocab import Vocab

__all__ = [
    "MAX_PROGRAM_BYTES",
    "MAX_RULES",
    "Program",
    "Rule",
    "diff_programs",
    "parse_program",
    "program_json_schema",
    "short_program_schema",
]

MAX_RULES = 128
MAX_PROGRAM_BYTES = 131_072
MAX_DEPTH = 8
MAX_NODES = 64
MAX_WHY = 200


@dataclass(frozen=True)
class Rule:
    """One rule: the goal it wants, the checked condition (JSON form) under which it speaks, and why (may be empty)."""

    when: dict[str, Any]
    goal: str
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The rule's JSON form."""
        return {"when": self.when, "goal": self.goal} | ({"why": self.why} if self.why else {})

    def __hash__(self) -> int:
        return hash(canonical(self.to_dict()))


@dataclass(frozen=True)
class Program:
    """A checked priority program."""

    rules: tuple[Rule, ...]

    def __len__(self) -> int:
        return len(self.rules)

    @cached_property
    def text(self) -> str:
        """Canonical JSON: sorted keys, no spaces; ``parse_program`` of it gives an equal program."""
        return canonical({"version": 1, "rules": [rule.to_dict() for rule in self.rules]})

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def goals(self) -> tuple[str, ...]:
        """The goals that rules name, each once, in order of their first rule."""
        return tuple(dict.fromkeys(rule.goal for rule in self.rules))


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ProgramError(f"program: key {shown(twice, 20)!r} stands twice in one object")
    return found


def _constant(word: str) -> float:
    raise ProgramError(f"program: {word} is not a number")


def _read(text: str | bytes) -> Any:
    size = len(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    if size > MAX_PROGRAM_BYTES:
        raise ProgramError(f"program of {size} bytes", hint=f"at most {MAX_PROGRAM_BYTES} bytes")
    try:
        return json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise ProgramError(f"program is not JSON: {shown(error)}") from None


def parse_program(text: str | bytes | dict[str, Any], vocab: Vocab, skills: Collection[str]) -> Program:
    """Read one program strictly; ProgramError names the rule (from 0), the place in it and what is wrong.

    Args:
        text: JSON, or the value that it holds. ``version`` may be missing.
        vocab: closed word lists of the environment. skills: names of the skills that rules may name as goals.
    """
    value = _read(text) if isinstance(text, (str, bytes)) else text
    whole = Checker(vocab, "program", MAX_NODES, MAX_DEPTH, ProgramError)
    whole.fields(value, "program", ("rules",), ("version",))
    whole.integer(value.get("version", 1), "version", 1, 1)
    rules = value["rules"]
    if not isinstance(rules, list) or not 1 <= len(rules) <= MAX_RULES:
        size = f"{len(rules)} rules" if isinstance(rules, list) else type(rules).__name__
        raise ProgramError(f"program: {size}", hint=f"a list of 1..{MAX_RULES} rules")
    names = {*skills, *vocab.actions}
    program = Program(tuple(_rule(rule, number, vocab, names) for number, rule in enumerate(rules)))
    if len(program.text) > MAX_PROGRAM_BYTES:
        raise ProgramError(f"program of {len(program.text)} bytes", hint=f"at most {MAX_PROGRAM_BYTES} bytes")
    return program


def _rule(value: Any, number: int, vocab: Vocab, names: Collection[str]) -> Rule:
    check = Checker(vocab, f"rule {number}", MAX_NODES, MAX_DEPTH, ProgramError)
    check.fields(value, "rule", ("when", "goal"), ("why",))
    goal = value["goal"]
    if not isinstance(goal, str) or goal not in names:
        near = difflib.get_close_matches(goal[:40], sorted(names), n=3) if isinstance(goal, str) else []
        hint = f"did you mean {', '.join(near)}?" if near else "name a skill or an action"
        raise check.fail("goal", f"unknown goal {shown(goal, 40)!r}", hint)
    why = value.get("why", "")
    if not isinstance(why, str) or len(why) > MAX_WHY or not why.isprintable():
        raise check.fail("why", f"expected at most {MAX_WHY} printable characters")
    return Rule(check.cond(value["when"], "when"), goal, why)


def program_json_schema(vocab: Vocab, skills: Sequence[str]) -> dict[str, Any]:
    """JSON schema of a program for constrained decoding; conditions recurse by ``$ref``."""
    names = list(dict.fromkeys((*skills, *vocab.actions)))
    rule = {
        "when": {"$ref": "#/$defs/cond"},
        "goal": {"type": "string", "enum": names},
        "why": {"type": "string", "maxLength": MAX_WHY},
    }
    rules = {
        "type": "array",
        "items": {"type": "object", "properties": rule, "required": list(rule), "additionalProperties": False},
        "minItems": 1,
        "maxItems": MAX_RULES,
    }
    return {
        "type": "object",
        "properties": {"rules": rules},
        "required": ["rules"],
        "additionalProperties": False,
        "$defs": {"cond": condition_schema(vocab, {"$ref": "#/$defs/cond"})},
    }


def short_program_schema(vocab: Vocab, skills: Sequence[str], count: int) -> dict[str, Any]:
    """JSON schema of programs that a small model can write to their end: a grammar that recursed would let it nest
    until its answer is cut. 8 to ``count`` rules over skills alone, without reasons, conditions at most three deep and
    three wide; all that it lets through are programs of the language.
    """
    leaf, single = ({"$ref": f"#/$defs/{name}"} for name in ("leaf", "single"))
    forms = condition_schema(vocab, None)["anyOf"]

    def joined(op: str, of: dict[str, Any]) -> dict[str, Any]:
        own = {"op": {"type": "string", "enum": [op]}, "of": of}
        return {"type": "object", "properties": own, "required": list(own), "additionalProperties": False}

    listed = {"type": "array", "items": single, "minItems": 2, "maxItems": 3}
    rule = {
        "when": {"anyOf": [single, joined("all", listed), joined("any", listed)]},
        "goal": {"type": "string", "enum": list(skills)},
    }
    rules = {
        "type": "array",
        "items": {"type": "object", "properties": rule, "required": list(rule), "additionalProperties": False},
        "minItems": min(8, count),
        "maxItems": count,
    }
    return {
        "type": "object",
        "properties": {"rules": rules},
        "required": ["rules"],
        "additionalProperties": False,
        "$defs": {"leaf": {"anyOf": forms}, "single": {"anyOf": [leaf, joined("not", leaf)]}},
    }


def diff_programs(before: Program, after: Program) -> list[str]:
    """What changed, rule by rule, in the order of the new program; empty when the rules are the same.

    A rule is the same by condition and goal; ``moved`` names both numbers, ``changed`` is a rule whose condition was
    replaced in place.
    """
    old, new = ([canonical({"when": r.when, "goal": r.goal}) for r in p.rules] for p in (before, after))
    lines, gone, come = [], [], []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            gone += range(i1, i2)
            come += range(j1, j2)
    for j in come:
        moved = next((i for i in gone if old[i] == new[j]), None)
        same_goal = next((i for i in gone if before.rules[i].goal == after.rules[j].goal and old[i] not in new), None)
        rule = after.rules[j]
        told = f"{rule.goal} when {canonical(rule.when)}"
        if moved is not None:
            gone.remove(moved)
            lines.append(f"moved   {moved} -> {j}: {told}")
        elif same_goal is not None:
            gone.remove(same_goal)
            lines.append(f"changed {same_goal} -> {j}: {told} (was {canonical(before.rules[same_goal].when)})")
        else:
            lines.append(f"added   {j}: {told}")
    for i in gone:
        lines.append(f"removed {i}: {before.rules[i].goal} when {canonical(before.rules[i].when)}")
    return lines
