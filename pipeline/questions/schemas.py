"""JSON schemas of answers, for services with structured output; the form of a program is the contract's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lore_datasets.language.skills import skill_json_schema
from lore_datasets.vocab import Vocab

__all__ = ["MAX_RANKED", "MAX_TIMES", "plan_schema", "prior_schema", "skills_schema"]

MAX_RANKED = 6
"""Most names in one ranked answer."""
MAX_TIMES = 20
"""Most repeats of one plan step."""


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def prior_schema(options: tuple[str, ...]) -> dict[str, Any]:
    """Options ranked best first, how sure, and why."""
    names = {"type": "string", "enum": list(options)}
    return _object(
        ranked={"type": "array", "items": names, "minItems": 1, "maxItems": MAX_RANKED},
        confidence={"type": "number", "minimum": 0, "maximum": 1},
        reason={"type": "string", "maxLength": 200},
    )


def plan_schema(names: Sequence[str], plans: int = 3, length: int = 12) -> dict[str, Any]:
    """At most ``plans`` plans of ``length`` steps over these goals and actions."""
    step = _object(
        do={"type": "string", "enum": list(names)}, times={"type": "integer", "minimum": 1, "maximum": MAX_TIMES}
    )
    plan = _object(
        steps={"type": "array", "items": step, "minItems": 1, "maxItems": length},
        score={"type": "number", "minimum": 0, "maximum": 1},
    )
    return _object(plans={"type": "array", "items": plan, "minItems": 1, "maxItems": plans})


def skills_schema(vocab: Vocab, count: int) -> dict[str, Any]:
    """At most ``count`` skills."""
    skills = {"type": "array", "items": skill_json_schema(vocab), "minItems": 0, "maxItems": count}
    return _object(skills=skills)
