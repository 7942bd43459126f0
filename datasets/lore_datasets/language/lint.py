"""What is wrong with a priority program although it parses: contradictions, rules that can never come first.

Every simple condition says "this quantity lies in this set" (a count in 3..99, an achievement in {had}), so that a
condition is a disjunction of terms, each a map of quantity -> allowed values. A term without values for a quantity is a
contradiction. Everything found is certain; what a bounded search cannot decide is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lore_datasets.language.conditions import COMPARE, largest, target_names
from lore_datasets.language.evaluator import able_condition
from lore_datasets.language.programs import Program
from lore_datasets.language.skills import Skill
from lore_datasets.vocab import Vocab

__all__ = ["is_state_blind", "lint_program"]

_MOST_TERMS = 512
_TRUTH = 0b11
_FAR = 10  # distances: 1..9, and one value for farther or not in view

_Term = dict[tuple[str, ...], int]
"""Quantity -> bit set of the values that it may have."""


def lint_program(program: Program, skills: Sequence[Skill], vocab: Vocab) -> list[str]:
    """Findings, one line each, in order of the rules; empty for a clean program."""
    able = {skill.name: able_condition(skill) for skill in skills}
    found, whole = [], []
    for number, rule in enumerate(program.rules):
        start = able.get(rule.goal) or {"op": "can", "action": rule.goal}
        both = {"op": "all", "of": [rule.when, start]}
        whole.append(both)
        own, terms = _terms(rule.when, vocab), _terms(both, vocab)
        if own == []:
            found.append(f"rule {number} ({rule.goal}): its condition contradicts itself")
        elif terms == []:
            found.append(f"rule {number} ({rule.goal}): where its condition holds the goal can never start")
        elif terms is not None:
            before = next((i for i in range(number) if _covers(whole[i], terms, vocab)), None)
            if before is not None:
                found.append(
                    f"rule {number} ({rule.goal}): can never come first, "
                    f"rule {before} ({program.rules[before].goal}) speaks wherever it does"
                )
    if not any(_covers(each, [{}], vocab) for each in whole):
        found.append("no rule speaks in every state: end with one that always holds, such as explore")
    return found


def is_state_blind(program: Program, vocab: Vocab) -> bool:
    """True when no rule's condition depends on the state: the ranking is one fixed order."""
    always = [_covers(rule.when, [{}], vocab) or _terms(rule.when, vocab) == [] for rule in program.rules]
    return all(always)


def _atoms(cond: Mapping[str, Any], vocab: Vocab) -> list[tuple[tuple[str, ...], int, int]]:
    """A simple condition as (quantity, allowed values, all values), any of which makes it true."""
    op = cond["op"]
    if op in ("inventory", "vital", "daylight", "count"):
        top = largest(op, vocab)
        allowed = sum(1 << v for v in range(top + 1) if COMPARE[cond["cmp"]](v, cond["value"]))
        name = cond.get("item") or cond.get("name") or ""
        if op == "count":
            name = " ".join((*sorted(target_names(cond["target"])), str(cond["within"])))
        return [((op, name), allowed, (1 << top + 1) - 1)]
    if op == "facing":
        ids = {vocab.target(name) for name in target_names(cond["target"])}
        return [(("facing",), sum(1 << i for i in ids), (1 << len(vocab.targets)) - 1)]
    if op == "near":
        allowed = sum(1 << d for d in range(1, cond["within"] + 1))
        return [(("near", name), allowed, (1 << _FAR + 1) - 2) for name in target_names(cond["target"])]
    if op == "reachable":
        return [((op, name), 0b10, _TRUTH) for name in target_names(cond["target"])]
    name = cond.get("achievement") or cond.get("action") or cond.get("name") or ""
    return [((op, name), 0b10, _TRUTH)]


def _terms(cond: Mapping[str, Any], vocab: Vocab, negated: bool = False) -> list[_Term] | None:
    """The terms of a condition without contradictory ones; None where there would be too many."""
    op = cond["op"]
    if op in ("true", "false"):
        return [{}] if (op == "true") != negated else []
    if op == "not":
        return _terms(cond["of"], vocab, not negated)
    if op not in ("all", "any"):
        atoms = _atoms(cond, vocab)
        if not negated:
            return [{quantity: allowed} for quantity, allowed, _ in atoms if allowed]
        return _product([[{quantity: values & ~allowed}] for quantity, allowed, values in atoms])
    parts = [_terms(part, vocab, negated) for part in cond["of"]]
    if (op == "any") != negated:
        known = [part for part in parts if part is not None]
        out = [term for part in known for term in part]
        return out if len(known) == len(parts) and len(out) <= _MOST_TERMS else None
    if any(part == [] for part in parts):
        return []
    known = [part for part in parts if part is not None]
    return _product(known) if len(known) == len(parts) else None


def _product(parts: Sequence[Sequence[_Term]]) -> list[_Term] | None:
    out: list[_Term] = [{}]
    for part in parts:
        joined = []
        for left in out:
            for right in part:
                both = dict(left)
                for quantity, allowed in right.items():
                    both[quantity] = both.get(quantity, allowed) & allowed
                if all(both.values()):
                    joined.append(both)
        if len(joined) > _MOST_TERMS:
            return None
        out = joined
    return out


def _covers(cond: Mapping[str, Any], terms: Sequence[_Term], vocab: Vocab) -> bool:
    """True when the condition holds, for certain, in every state of every term."""
    return all(_value(cond, term, vocab) is True for term in terms)


def _value(cond: Mapping[str, Any], term: _Term, vocab: Vocab) -> bool | None:
    """What a condition is, given what a term says: True, False, or None where that does not decide it."""
    op = cond["op"]
    if op in ("true", "false"):
        return op == "true"
    if op == "not":
        inner = _value(cond["of"], term, vocab)
        return None if inner is None else not inner
    if op in ("all", "any"):
        values = [_value(part, term, vocab) for part in cond["of"]]
        decisive = op == "any"
        return decisive if decisive in values else None if None in values else not decisive
    said = []
    for quantity, allowed, values in _atoms(cond, vocab):
        may = term.get(quantity, values)
        said.append(True if may & ~allowed == 0 else False if may & allowed == 0 else None)
    return True if True in said else None if None in said else False
