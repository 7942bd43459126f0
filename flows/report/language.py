"""Conditions and steps of skills and programs in words, for people who do not read their JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lore_datasets.language.conditions import target_names

__all__ = ["condition_in_words", "steps_in_words"]

_SIGNS = {">=": "≥", "<=": "≤", "==": "=", "!=": "≠"}


def _targets(value: str | Sequence[str]) -> str:
    return " or ".join(target_names(value))


def condition_in_words(cond: Mapping[str, Any], is_inner: bool = False) -> str:
    """One line; ``is_inner`` puts parentheses round what is joined of several."""
    op = cond["op"]
    if op in ("all", "any"):
        joined = (" and " if op == "all" else " or ").join(condition_in_words(each, True) for each in cond["of"])
        return f"({joined})" if is_inner and len(cond["of"]) > 1 else joined
    if op == "not":
        return f"not {condition_in_words(cond['of'], True)}"
    compared = f"{_SIGNS.get(cond['cmp'], cond['cmp'])} {cond['value']}" if "cmp" in cond else ""
    words = {
        "inventory": lambda: f"{cond['item']} {compared}",
        "vital": lambda: f"{cond['name']} {compared}",
        "daylight": lambda: f"daylight {compared}",
        "flag": lambda: cond["name"],
        "unlocked": lambda: f"{cond['achievement']} unlocked",
        "facing": lambda: f"facing {_targets(cond['target'])}",
        "near": lambda: f"{_targets(cond['target'])} within {cond['within']}",
        "reachable": lambda: f"{_targets(cond['target'])} reachable",
        "count": lambda: f"{_targets(cond['target'])} within {cond['within']}: {compared}",
        "can": lambda: f"can {cond['action']}",
        "enclosed": lambda: "walled in",
        "true": lambda: "always",
        "false": lambda: "never",
    }
    return words[op]() if op in words else " ".join(str(value) for value in cond.values())


def steps_in_words(steps: Sequence[Mapping[str, Any]], depth: int = 0) -> list[str]:
    """One line a step, inner steps behind two spaces a level."""
    lines, indent = [], "  " * depth
    for step in steps:
        do = step["do"]
        if do == "act":
            times = step.get("times", 1)
            lines.append(f"{indent}{step['action']}{f' × {times}' if times > 1 else ''}")
        elif do in ("repeat", "until"):
            head = f"{step['times']} times" if do == "repeat" else f"until {condition_in_words(step['cond'])}"
            most = f", at most {step['limit']} times" if do == "until" else ""
            lines += [f"{indent}{head}{most}:", *steps_in_words(step["body"], depth + 1)]
        elif do == "if":
            lines += [f"{indent}if {condition_in_words(step['cond'])}:", *steps_in_words(step["then"], depth + 1)]
            if step.get("otherwise"):
                lines += [f"{indent}otherwise:", *steps_in_words(step["otherwise"], depth + 1)]
        else:
            more = [_targets(step["target"])] if "target" in step else []
            more += [f"by {step['action']}"] if "action" in step else []
            more += [f"{name} {_targets(step[name])}" for name in ("through", "toward", "beside") if name in step]
            more += [f"within {step['within']}"] if "within" in step else []
            more += [f"{step['cells']} cells"] if "cells" in step else []
            lines.append(f"{indent}{' '.join([do.replace('_', ' '), *more])}, at most {step['limit']} steps")
    return lines
